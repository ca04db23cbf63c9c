//! [`Routes`]: the attribute sets, each once, under small numbers.
//!
//! Nearly all are kept as the octets they came in: that is a third of the memory of the values, it is what the next UPDATE
//! with the same attributes is recognised by without reading them, and values are needed only once for each set and peer that
//! it is sent to. What the decision process asks is worked out when a set is first met ([`Facts`]).

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::facts::Facts;
use super::next_hops::{NextHopId, NextHops};
use super::path::{Route, Source};
use super::table::fold;
use crate::policy::Refusal;
use crate::wire::{Context, decode_block};

/// The number of a shared [`Route`]. Equal routes made here have equal numbers. Used again once no path uses it; whoever
/// remembers one for longer than the current call [`hold`](Routes::hold)s it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId(pub(super) u32);

#[derive(Debug)]
struct Entry {
    /// How many paths use it, twice if as received and as effective, and how many holds there are.
    users: u32,
    /// Waits to be dropped, unless it finds a user.
    idle: bool,
    content: Content,
    facts: Option<Facts>,
    verdict: Option<(Decider, Result<(), Refusal>)>,
}

#[derive(Debug)]
enum Content {
    /// The number is not in use.
    None,
    /// Attributes as they came, NEXT_HOP included, under this number of a context.
    Octets(u16, Box<[u8]>),
    /// Made here, or by parts of an UPDATE.
    Value(Box<Route>),
}

/// An entry's place in the index. The hash is beside the number, so that the index grows, and tells most sets apart, without
/// a look at the sets: they lie all over memory.
#[derive(Debug, Clone, Copy)]
struct Place {
    hash: u32,
    id: u32,
}

impl Place {
    fn new(hash: u64, id: u32) -> Self {
        Self {
            hash: short(hash),
            id,
        }
    }

    /// What the index is asked for: it looks at the highest and the lowest bits.
    fn key(&self) -> u64 {
        fold(u64::from(self.hash), u64::MAX)
    }
}

/// As much of a hash as is kept.
fn short(hash: u64) -> u32 {
    (hash ^ hash >> 32) as u32
}

/// Whoever decided about a set: the source, and which state of the configuration and of the session it was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decider {
    /// Whose routes are decided about.
    pub source: Source,
    /// Changes with everything that decisions depend on.
    pub epoch: u32,
}

/// How many sets without users may wait before they are dropped together.
const IDLE: usize = 256;

/// The keys of the index: drawn at random, so that no peer can choose sets that collide.
#[derive(Debug)]
struct Hashers {
    values: RandomState,
    seed: u64,
}

impl Default for Hashers {
    fn default() -> Self {
        let values = RandomState::new();
        let seed = values.hash_one(0x6d61_7267_6179_u64);
        Self { values, seed }
    }
}

/// All attribute sets.
#[derive(Debug, Default)]
pub struct Routes {
    entries: Vec<Entry>,
    free: Vec<u32>,
    index: HashTable<Place>,
    hasher: Hashers,
    /// The contexts that octets are read in. Few: what sessions can negotiate.
    contexts: Vec<Context>,
    idle: Vec<u32>,
    next_hops: NextHops,
}

impl Routes {
    /// The number of the shared route equal to `route`. It lasts until the next [`Routes::tidy`] unless something uses it.
    pub fn intern(&mut self, route: Route) -> RouteId {
        let hash = self.hasher.values.hash_one(&route);
        let entries = &self.entries;
        let is_it = |id| matches!(content(entries, id), Content::Value(v) if **v == route);
        if let Some(known) = self.find(hash, is_it) {
            return known;
        }
        let facts = self.facts_of(&route);
        self.add(hash, facts, Content::Value(Box::new(route)))
    }

    /// The number of a set that came in these octets before, in the same context.
    #[must_use]
    pub fn find_octets(&self, octets: &[u8], context: &Context) -> Option<RouteId> {
        let context = self.contexts.iter().position(|known| known == context)?;
        let context = u16::try_from(context).ok()?;
        let entries = &self.entries;
        let is_it = |id| match content(entries, id) {
            Content::Octets(other, known) => *other == context && **known == *octets,
            _ => false,
        };
        let hash = hash_octets(&self.hasher, context, octets);
        self.find(hash, is_it)
    }

    fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<RouteId> {
        let wanted = Place::new(hash, 0);
        let is_it = |place: &Place| place.hash == wanted.hash && is_it(place.id);
        let found = self.index.find(wanted.key(), is_it);
        found.map(|place| RouteId(place.id))
    }

    /// Keeps a set that [`decode_block`] takes, and that is not known yet, as octets; `None` for every other one. Its number
    /// lasts as that of [`Routes::intern`] does.
    pub fn add_octets(&mut self, octets: &[u8], read_in: &Context) -> Option<RouteId> {
        let (next_hop, attributes) = decode_block(octets, read_in)?;
        let route = Route {
            next_hop: Some(next_hop),
            attributes,
            metric: None,
        };
        let known = self.contexts.iter().position(|known| known == read_in);
        let context = u16::try_from(known.unwrap_or(self.contexts.len())).ok()?;
        if known.is_none() {
            self.contexts.push(*read_in);
        }
        let facts = self.facts_of(&route);
        let hash = hash_octets(&self.hasher, context, octets);
        Some(self.add(hash, facts, Content::Octets(context, octets.into())))
    }

    fn facts_of(&mut self, route: &Route) -> Facts {
        let next_hop = route
            .next_hop
            .map(|next_hop| self.next_hops.acquire(next_hop.address()));
        Facts::of(route, next_hop)
    }

    fn add(&mut self, hash: u64, facts: Facts, content: Content) -> RouteId {
        let id = self.put(Entry {
            users: 0,
            idle: true,
            facts: Some(facts),
            content,
            verdict: None,
        });
        let place = Place::new(hash, id);
        self.index.insert_unique(place.key(), place, Place::key);
        self.idle.push(id);
        RouteId(id)
    }

    /// What was decided about a set whatever the prefix, if it was this one who last decided.
    #[must_use]
    pub fn verdict(&self, RouteId(id): RouteId, decider: Decider) -> Option<Result<(), Refusal>> {
        let (by, verdict) = self.entries.get(id as usize)?.verdict?;
        (by == decider).then_some(verdict)
    }

    /// Remembers what was decided about a set: taken as it is, or refused, for every prefix.
    pub fn set_verdict(
        &mut self,
        RouteId(id): RouteId,
        decider: Decider,
        verdict: Result<(), Refusal>,
    ) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.verdict = Some((decider, verdict));
        }
    }

    fn put(&mut self, entry: Entry) -> u32 {
        if let Some(id) = self.free.pop()
            && let Some(place) = self.entries.get_mut(id as usize)
        {
            *place = entry;
            return id;
        }
        self.entries.push(entry);
        u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX)
    }

    /// What a number stands for. Not free of cost: ask once for many routes with the same number.
    #[must_use]
    pub fn get(&self, RouteId(id): RouteId) -> Cow<'_, Route> {
        let decoded = match content(&self.entries, id) {
            Content::Value(route) => return Cow::Borrowed(route),
            Content::Octets(context, octets) => {
                let context = self.contexts.get(usize::from(*context));
                context.and_then(|context| decode_block(octets, context))
            }
            Content::None => None,
        };
        // A number in use has content, and octets that were taken once are taken again.
        let (next_hop, attributes) = decoded.unzip();
        Cow::Owned(Route {
            next_hop,
            attributes: attributes.unwrap_or_default(),
            metric: None,
        })
    }

    /// What the decision process asks of it, at no cost.
    #[must_use]
    pub fn facts(&self, RouteId(id): RouteId) -> Option<&Facts> {
        self.entries.get(id as usize)?.facts.as_ref()
    }

    /// The cost of reaching a next hop; `None`: it cannot be reached.
    #[must_use]
    pub fn cost(&self, next_hop: NextHopId) -> Option<u32> {
        self.next_hops.cost(next_hop)
    }

    pub(super) fn next_hops_mut(&mut self) -> &mut NextHops {
        &mut self.next_hops
    }

    /// Notes one more user.
    pub fn hold(&mut self, RouteId(id): RouteId) {
        if let Some(entry) = self.entries.get_mut(id as usize) {
            entry.users += 1;
        }
    }

    /// Takes back one [`Routes::hold`].
    pub fn release(&mut self, RouteId(id): RouteId) {
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        entry.users = entry.users.saturating_sub(1);
        if entry.users == 0 && !entry.idle {
            entry.idle = true;
            self.idle.push(id);
        }
    }

    /// Drops what nobody uses, if there is enough of it. Numbers that were not held are not valid afterwards.
    pub fn tidy(&mut self) {
        if self.idle.len() < IDLE {
            return;
        }
        for id in std::mem::take(&mut self.idle) {
            self.drop_idle(id);
        }
    }

    fn drop_idle(&mut self, id: u32) {
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        entry.idle = false;
        if entry.users > 0 {
            return;
        }
        let hash = content_hash(&self.entries, &self.hasher, id);
        let place = Place::new(hash, id);
        if let Ok(known) = self.index.find_entry(place.key(), |other| other.id == id) {
            known.remove();
        }
        let Some(entry) = self.entries.get_mut(id as usize) else {
            return;
        };
        entry.content = Content::None;
        let facts = entry.facts.take();
        if let Some(next_hop) = facts.and_then(|facts| facts.next_hop) {
            self.next_hops.release(next_hop);
        }
        self.free.push(id);
    }

    /// How many sets there are, used or waiting to be dropped.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn content(entries: &[Entry], id: u32) -> &Content {
    let entry = entries.get(id as usize);
    entry.map_or(&Content::None, |entry| &entry.content)
}

fn content_hash(entries: &[Entry], hasher: &Hashers, id: u32) -> u64 {
    match content(entries, id) {
        Content::None => 0,
        Content::Octets(context, octets) => hash_octets(hasher, *context, octets),
        Content::Value(route) => hasher.values.hash_one(&**route),
    }
}

/// A keyed hash of eight octets at a time: every UPDATE of a table transfer comes through here.
fn hash_octets(hasher: &Hashers, context: u16, octets: &[u8]) -> u64 {
    let (words, rest) = octets.as_chunks::<8>();
    let mut hash = fold(
        hasher.seed,
        (octets.len() as u64) << 16 | u64::from(context),
    );
    for word in words {
        hash = fold(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    for (place, octet) in last.iter_mut().zip(rest) {
        *place = *octet;
    }
    fold(hash, u64::from_le_bytes(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{NextHop, PathAttributes};

    fn route(med: u32) -> Route {
        let attributes = PathAttributes {
            med: Some(med),
            ..PathAttributes::default()
        };
        Route {
            next_hop: Some(NextHop::V4([10, 0, 0, 1].into())),
            attributes,
            metric: None,
        }
    }

    #[test]
    fn equal_routes_are_one_and_unused_ones_go() {
        let mut routes = Routes::default();
        let a = routes.intern(route(1));
        assert_eq!(a, routes.intern(route(1)));
        routes.hold(a);
        for med in 0..100_000 {
            let _ = routes.intern(route(med));
            routes.tidy();
        }
        assert!(routes.len() <= IDLE + 1, "{}", routes.len());
        assert_eq!(routes.intern(route(1)), a);
        assert_eq!(*routes.get(a), route(1));
        assert_eq!(routes.next_hops.len(), 1);
        routes.release(a);
        for med in 0..1000 {
            let _ = routes.intern(route(med + 10));
        }
        routes.tidy();
        assert!(routes.is_empty() && routes.next_hops.len() == 0);
    }
}

//! [`Routes`]: the attribute sets, each once, under small numbers.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::facts::Facts;
use super::next_hops::{NextHopId, NextHops};
use super::path::Route;

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
    content: Option<Box<Route>>,
    facts: Option<Facts>,
}

/// How many sets without users may wait before they are dropped together.
const IDLE: usize = 256;

/// All attribute sets.
#[derive(Debug, Default)]
pub struct Routes {
    entries: Vec<Entry>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    idle: Vec<u32>,
    next_hops: NextHops,
}

impl Routes {
    /// The number of the shared route equal to `route`. It lasts until the next [`Routes::tidy`] unless something uses it.
    pub fn intern(&mut self, route: Route) -> RouteId {
        let hash = self.hasher.hash_one(&route);
        let entries = &self.entries;
        let is_it = |id: &u32| content(entries, *id) == Some(&route);
        if let Some(id) = self.index.find(hash, is_it) {
            return RouteId(*id);
        }
        let next_hop = route
            .next_hop
            .map(|next_hop| self.next_hops.acquire(next_hop.address()));
        let entry = Entry {
            users: 0,
            idle: true,
            facts: Some(Facts::of(&route, next_hop)),
            content: Some(Box::new(route)),
        };
        let id = self.put(entry);
        let (entries, hasher) = (&self.entries, &self.hasher);
        let rehash = |id: &u32| content(entries, *id).map_or(0, |route| hasher.hash_one(route));
        self.index.insert_unique(hash, id, rehash);
        self.idle.push(id);
        RouteId(id)
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
        match content(&self.entries, id) {
            Some(route) => Cow::Borrowed(route),
            // Never: a number in use has content.
            None => Cow::Owned(Route {
                next_hop: None,
                attributes: Default::default(),
                metric: None,
            }),
        }
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
        let facts = entry.facts.take();
        if let Some(route) = entry.content.take() {
            let hash = self.hasher.hash_one(&*route);
            if let Ok(known) = self.index.find_entry(hash, |other| *other == id) {
                known.remove();
            }
        }
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

fn content(entries: &[Entry], id: u32) -> Option<&Route> {
    entries.get(id as usize)?.content.as_deref()
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

//! [`Pending`]: the destinations that somebody still has to look at, each at most once.

use std::collections::VecDeque;

use super::table::{DestinationId, Table};
use crate::types::{Family, FamilySet};

/// A queue longer than this gives its memory back once it is empty.
const KEPT: usize = 1024;

/// One bit for each destination.
#[derive(Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// Whether the bit is set.
    #[must_use]
    pub fn get(&self, id: DestinationId) -> bool {
        let word = self.0.get(id.index() / 64).copied().unwrap_or(0);
        word >> (id.0 % 64) & 1 != 0
    }

    /// Sets the bit and returns what it was.
    pub fn set(&mut self, id: DestinationId, value: bool) -> bool {
        let (word, mask) = (id.index() / 64, 1 << (id.0 % 64));
        if word >= self.0.len() {
            if !value {
                return false;
            }
            self.0.resize(word + 1, 0);
        }
        let before = self.0[word] & mask != 0;
        if value {
            self.0[word] |= mask;
        } else {
            self.0[word] &= !mask;
        }
        before
    }

    /// The destinations whose bits are set.
    pub fn iter(&self) -> impl Iterator<Item = DestinationId> {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            (0..64)
                .filter(move |bit| bits >> bit & 1 != 0)
                .map(move |bit| {
                    // Destination numbers are u32, so word * 64 + bit is one.
                    DestinationId(u32::try_from(word * 64 + bit).unwrap_or(u32::MAX))
                })
        })
    }
}

/// Destinations to be looked at: those marked, and those a walk over the table has not come to yet.
///
/// Bounded whatever happens: one bit a destination and one place in the queue for each that is marked. Marks of a destination
/// that is queued already replace one another; a destination that the walk is going to come to is not queued at all.
/// Everything queued or taken holds its number in the table: what [`take`](Self::take) returned has to be released.
#[derive(Debug)]
pub struct Pending {
    marked: Bits,
    queue: VecDeque<DestinationId>,
    /// How many of them are IPv6 destinations.
    ipv6: usize,
    walk: Option<Walk>,
}

/// A walk over the table up to `end`, once for each family: whoever waits for all of a family need not wait for the others.
#[derive(Debug, Clone)]
struct Walk {
    next: DestinationId,
    end: DestinationId,
    /// Those not done with; the first of them is the one the walk is at.
    families: FamilySet,
    /// Only destinations that are not known to the owner.
    unknown_only: bool,
}

impl Walk {
    /// The family the walk is at. Those that the table has nothing of are passed over.
    fn family(&mut self, table: &Table) -> Option<Family> {
        loop {
            let family = self.families.iter().next()?;
            if self.next < self.end && table.has(family) {
                return Some(family);
            }
            self.families.remove(family);
            self.next = DestinationId(0);
        }
    }

    /// Whether it is going to come to a destination.
    fn is_ahead(&self, id: DestinationId, family: Family) -> bool {
        let at = self.families.iter().next() == Some(family);
        !self.unknown_only
            && id < self.end
            && self.families.contains(family)
            && (!at || self.next <= id)
    }
}

impl Pending {
    /// Nothing marked, and the whole table to walk over.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        let mut pending = Self {
            marked: Bits::default(),
            queue: VecDeque::new(),
            ipv6: 0,
            walk: None,
        };
        pending.walk_again(table, FamilySet::ALL);
        pending
    }

    /// Nothing marked, nothing to walk over.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            marked: Bits::default(),
            queue: VecDeque::new(),
            ipv6: 0,
            walk: None,
        }
    }

    /// The same marks and the same walk.
    #[must_use]
    pub fn copy(&self, table: &mut Table) -> Self {
        let mut copy = Self::empty();
        copy.walk = self.walk.clone();
        for id in &self.queue {
            copy.marked.set(*id, true);
            copy.enqueue(table, *id);
            table.hold(*id);
        }
        copy
    }

    /// Walks over every destination of these families, in addition to what a walk under way still has to come to.
    pub fn walk_again(&mut self, table: &Table, families: FamilySet) {
        let under_way = self.walk.take();
        let under_way = under_way.map_or(FamilySet::EMPTY, |walk| walk.families);
        self.walk = Some(Walk {
            next: DestinationId(0),
            end: table.end(),
            families: families.iter().chain(under_way.iter()).collect(),
            unknown_only: false,
        });
    }

    /// Walks over every destination that the owner does not know.
    pub fn walk_unknown(&mut self, table: &Table) {
        if self.walk.is_some() {
            return self.walk_again(table, FamilySet::ALL);
        }
        self.walk = Some(Walk {
            next: DestinationId(0),
            end: table.end(),
            families: FamilySet::ALL,
            unknown_only: true,
        });
    }

    /// Whether the walk over the table is not finished.
    #[must_use]
    pub fn is_walking(&self) -> bool {
        self.walk.is_some()
    }

    /// The families of which everything there is has been taken.
    #[must_use]
    pub fn done(&self) -> FamilySet {
        let ahead = self.walk.as_ref();
        let ahead = ahead.map_or(FamilySet::EMPTY, |walk| walk.families);
        let queued = |family| match family {
            Family::Ipv4Unicast => self.queue.len() > self.ipv6,
            Family::Ipv6Unicast => self.ipv6 > 0,
        };
        let all = Family::ALL.into_iter();
        all.filter(|family| !ahead.contains(*family) && !queued(*family))
            .collect()
    }

    /// Whether there is something to [`take`](Self::take), or a walk to finish.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.walk.is_some() || !self.queue.is_empty()
    }

    /// Notes that a destination changed.
    pub fn mark(&mut self, table: &mut Table, id: DestinationId) {
        let ahead = |walk: &Walk| {
            let destination = table.get(id);
            destination.is_some_and(|destination| walk.is_ahead(id, destination.family()))
        };
        if self.walk.as_ref().is_some_and(ahead) {
            return;
        }
        if !self.marked.set(id, true) {
            table.hold(id);
            self.enqueue(table, id);
        }
    }

    /// Marks a destination even if the walk is going to come to it: it may not stop there.
    pub fn mark_surely(&mut self, table: &mut Table, id: DestinationId) {
        if !self.marked.set(id, true) {
            table.hold(id);
            self.enqueue(table, id);
        }
    }

    /// Marks again a destination that was taken, in place of releasing it.
    pub fn put_back(&mut self, table: &mut Table, id: DestinationId) {
        if self.marked.set(id, true) {
            table.release(id);
        } else {
            self.enqueue(table, id);
        }
    }

    fn enqueue(&mut self, table: &Table, id: DestinationId) {
        self.ipv6 += usize::from(is_ipv6(table, id));
        self.queue.push_back(id);
    }

    /// Takes up to `limit` destinations: those marked first, then those the walk comes to that have a best path or are
    /// `known` to the owner.
    pub fn take(
        &mut self,
        table: &mut Table,
        limit: usize,
        known: impl Fn(DestinationId) -> bool,
    ) -> Vec<DestinationId> {
        let mut taken = self.take_marked(table, limit);
        while taken.len() < limit {
            let Some(walk) = &mut self.walk else { break };
            let Some(family) = walk.family(table) else {
                self.walk = None;
                break;
            };
            while taken.len() < limit && walk.next < walk.end {
                let id = walk.next;
                walk.next = DestinationId(id.0 + 1);
                let Some(destination) = table.get(id) else {
                    continue;
                };
                let wanted = destination.family() == family;
                let news = match known(id) {
                    true => !walk.unknown_only,
                    false => destination.best().is_some(),
                };
                if wanted && news && !self.marked.get(id) {
                    table.hold(id);
                    taken.push(id);
                }
            }
        }
        taken
    }

    /// Takes up to `limit` of the destinations that are marked.
    pub fn take_marked(&mut self, table: &Table, limit: usize) -> Vec<DestinationId> {
        let queued = self.queue.len().min(limit);
        let taken: Vec<_> = self.queue.drain(..queued).collect();
        for id in &taken {
            self.marked.set(*id, false);
            self.ipv6 = self.ipv6.saturating_sub(is_ipv6(table, *id).into());
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT {
            self.queue = VecDeque::new();
        }
        taken
    }

    /// Gives back every number held. A value of this type must not just be dropped.
    pub fn retire(self, table: &mut Table) {
        self.queue.into_iter().for_each(|id| table.release(id));
    }
}

/// What is queued is held, so that it stays what it is.
fn is_ipv6(table: &Table, id: DestinationId) -> bool {
    let family = table.get(id).map(|destination| destination.family());
    family == Some(Family::Ipv6Unicast)
}

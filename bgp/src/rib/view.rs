//! [`View`]: what one peer or subscriber has been told, and what it still has to be.

use std::collections::VecDeque;

use super::table::{DestinationId, Table};
use crate::types::FamilySet;

/// One bit for each destination.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn get(&self, id: DestinationId) -> bool {
        let word = self.0.get(id.index() / 64).copied().unwrap_or(0);
        word >> (id.0 % 64) & 1 != 0
    }

    /// Sets the bit and returns what it was.
    fn set(&mut self, id: DestinationId, value: bool) -> bool {
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

    fn iter(&self) -> impl Iterator<Item = DestinationId> {
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

/// What one peer or subscriber knows of the table.
///
/// Bounded whatever happens and however slow its owner is: two bits a destination, and at most one place in the queue for
/// each. Changes of a destination that is queued already replace one another. A new view is fed the whole table by walking
/// it, without queueing anything.
///
/// Use: [`mark`](Self::mark) a destination that changed; [`take`](Self::take) what is to be told; for each destination taken,
/// [`settle`](Self::settle) whether it is known to the owner now.
#[derive(Debug)]
pub struct View {
    known: Bits,
    known_count: u64,
    pending: Bits,
    queue: VecDeque<DestinationId>,
    feed: Option<Feed>,
}

/// A walk over the table from `next` up to `end`.
#[derive(Debug)]
struct Feed {
    next: DestinationId,
    end: DestinationId,
    families: FamilySet,
}

impl View {
    /// A view that knows nothing yet and is going to be fed everything.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        let mut view = Self {
            known: Bits::default(),
            known_count: 0,
            pending: Bits::default(),
            queue: VecDeque::new(),
            feed: None,
        };
        view.feed_again(table, FamilySet::ALL);
        view
    }

    /// Feeds every destination of these families again, in addition to what is already being fed.
    pub fn feed_again(&mut self, table: &Table, families: FamilySet) {
        let under_way = self
            .feed
            .take()
            .map_or(FamilySet::EMPTY, |feed| feed.families);
        let families = families.iter().chain(under_way.iter()).collect();
        self.feed = Some(Feed {
            next: DestinationId(0),
            end: table.end(),
            families,
        });
    }

    /// How many destinations the owner currently knows.
    #[must_use]
    pub fn known_count(&self) -> u64 {
        self.known_count
    }

    /// Whether the owner currently knows the destination.
    #[must_use]
    pub fn knows(&self, id: DestinationId) -> bool {
        self.known.get(id)
    }

    /// Whether the walk over the table is not finished.
    #[must_use]
    pub fn is_feeding(&self) -> bool {
        self.feed.is_some()
    }

    /// Whether there is something to [`take`](Self::take), or a walk to finish.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.feed.is_some() || !self.queue.is_empty()
    }

    /// Notes that a destination changed.
    pub fn mark(&mut self, table: &mut Table, id: DestinationId) {
        let ahead = |feed: &Feed| {
            let family = table.get(id).map(|d| d.family());
            feed.next <= id && id < feed.end && family.is_some_and(|f| feed.families.contains(f))
        };
        if self.feed.as_ref().is_some_and(ahead) {
            return;
        }
        if !self.pending.set(id, true) {
            table.hold(id);
            self.queue.push_back(id);
        }
    }

    /// Takes up to `limit` destinations to be told. Every one must be [`settle`](Self::settle)d.
    pub fn take(&mut self, table: &mut Table, limit: usize) -> Vec<DestinationId> {
        let queued = self.queue.len().min(limit);
        let mut taken: Vec<_> = self.queue.drain(..queued).collect();
        for id in &taken {
            // The hold taken by `mark` lasts until `settle`.
            self.pending.set(*id, false);
        }
        while taken.len() < limit {
            let Some(feed) = &mut self.feed else { break };
            if feed.next >= feed.end {
                self.feed = None;
                break;
            }
            let id = feed.next;
            feed.next = DestinationId(id.0 + 1);
            let Some(destination) = table.get(id) else {
                continue;
            };
            let wanted = feed.families.contains(destination.family());
            let news = destination.best().is_some() || self.known.get(id);
            if wanted && news && !self.pending.get(id) {
                table.hold(id);
                taken.push(id);
            }
        }
        taken
    }

    /// Notes whether the owner knows the destination now.
    pub fn settle(&mut self, table: &mut Table, id: DestinationId, known: bool) {
        let before = self.known.set(id, known);
        match (before, known) {
            (false, true) => {
                self.known_count += 1;
                table.hold(id);
            }
            (true, false) => {
                self.known_count -= 1;
                table.release(id);
            }
            _ => {}
        }
        table.release(id);
    }

    /// Gives back every number the view holds. A view must not just be dropped.
    pub fn retire(self, table: &mut Table) {
        self.known.iter().for_each(|id| table.release(id));
        self.pending.iter().for_each(|id| table.release(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Prefix;

    fn prefix(index: u32) -> Prefix {
        Prefix::v4((0x0a00_0000 + (index << 8)).into(), 24).unwrap()
    }

    #[test]
    fn changes_of_one_destination_coalesce() {
        let mut table = Table::new(0);
        let mut view = View::new(&table);
        assert!(view.take(&mut table, 10).is_empty() && !view.has_work());
        let ids: Vec<_> = (0..3).map(|i| table.find_or_insert(prefix(i))).collect();
        for _ in 0..1000 {
            ids.iter().for_each(|id| view.mark(&mut table, *id));
        }
        assert_eq!(view.take(&mut table, 2), ids[..2]);
        assert_eq!(view.take(&mut table, 2), ids[2..]);
        assert!(!view.has_work());
    }

    #[test]
    fn a_withdrawn_destination_keeps_its_number_until_everybody_knows() {
        let mut table = Table::new(0);
        let mut views = [View::new(&table), View::new(&table)];
        for view in &mut views {
            view.take(&mut table, 1);
        }
        let id = table.find_or_insert(prefix(1));
        for view in &mut views {
            view.mark(&mut table, id);
            assert_eq!(view.take(&mut table, 1), [id]);
            view.settle(&mut table, id, true);
        }
        // Withdrawn (it has no paths): both views are to hear of it.
        for view in &mut views {
            view.mark(&mut table, id);
        }
        for view in &mut views {
            assert!(table.find(&prefix(1)).is_some());
            assert_eq!(view.take(&mut table, 1), [id]);
            view.settle(&mut table, id, false);
            assert_eq!(view.known_count(), 0);
        }
        assert_eq!(table.find(&prefix(1)), None);
    }

    #[test]
    fn retiring_gives_back_every_number() {
        let mut table = Table::new(0);
        let mut view = View::new(&table);
        view.take(&mut table, 1);
        let ids: Vec<_> = (0..100).map(|i| table.find_or_insert(prefix(i))).collect();
        ids.iter().for_each(|id| view.mark(&mut table, *id));
        for id in view.take(&mut table, 50) {
            view.settle(&mut table, id, true);
            view.mark(&mut table, id);
        }
        assert_eq!(table.len(), 100);
        view.retire(&mut table);
        assert!(table.is_empty());
    }
}

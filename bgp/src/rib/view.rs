//! [`View`]: what one subscriber has been told, and what it still has to be.

use super::pending::{Bits, Pending};
use super::table::{DestinationId, Table};

/// What one subscriber knows of the table.
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
    pending: Pending,
}

impl View {
    /// A view that knows nothing yet and is going to be fed everything.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        Self {
            known: Bits::default(),
            known_count: 0,
            pending: Pending::new(table),
        }
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
        self.pending.is_walking()
    }

    /// Whether there is something to [`take`](Self::take), or a walk to finish.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.pending.has_work()
    }

    /// Notes that a destination changed.
    pub fn mark(&mut self, table: &mut Table, id: DestinationId) {
        self.pending.mark(table, id);
    }

    /// Takes up to `limit` destinations to be told. Every one must be [`settle`](Self::settle)d.
    pub fn take(&mut self, table: &mut Table, limit: usize) -> Vec<DestinationId> {
        let known = &self.known;
        self.pending.take(table, limit, |id| known.get(id))
    }

    /// Notes whether the owner knows the destination now.
    pub fn settle(&mut self, table: &mut Table, id: DestinationId, known: bool) {
        let before = self.known.set(id, known);
        match (before, known) {
            // The hold taken with the destination stays.
            (false, true) => {
                self.known_count += 1;
                return;
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
        self.pending.retire(table);
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

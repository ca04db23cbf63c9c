//! The recent history of one resource: a ring bounded in entries and bytes. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use super::record::Event;

/// How much history a resource keeps.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimit {
    /// Events.
    pub entries: usize,
    /// Serialized bytes of the objects in those events.
    pub bytes: usize,
}

impl Default for HistoryLimit {
    fn default() -> Self {
        Self {
            entries: 8192,
            bytes: 16 << 20,
        }
    }
}

/// The asked-for version is older than the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest version a watch may start from.
    pub oldest: u64,
}

/// Events in version order.
#[derive(Debug)]
pub struct Log {
    events: VecDeque<Arc<Event>>,
    /// Everything up to and including this version may have been forgotten.
    floor: u64,
    bytes: usize,
    limit: HistoryLimit,
}

impl Log {
    /// An empty history that knows nothing of what happened up to `floor`.
    pub fn new(floor: u64, limit: HistoryLimit) -> Self {
        Self {
            events: VecDeque::new(),
            floor,
            bytes: 0,
            limit,
        }
    }

    /// Appends the newest event and forgets the oldest ones beyond the limit; the newest is always kept.
    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.new.size;
        self.events.push_back(event);
        while self.events.len() > 1
            && (self.events.len() > self.limit.entries || self.bytes > self.limit.bytes)
        {
            if let Some(forgotten) = self.events.pop_front() {
                self.bytes -= forgotten.new.size;
                self.floor = forgotten.version;
            }
        }
    }

    /// The events after `since`.
    ///
    /// # Errors
    /// [`Compacted`] when some of them are forgotten.
    pub fn since(&self, since: u64) -> Result<Vec<Arc<Event>>, Compacted> {
        if since < self.floor {
            return Err(Compacted { oldest: self.floor });
        }
        let start = self.events.partition_point(|event| event.version <= since);
        Ok(self.events.range(start..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::super::record::Record;
    use super::*;

    fn event(version: u64, size: usize) -> Arc<Event> {
        let mut record = Record::new(json!({}), Map::new());
        record.size = size;
        Arc::new(Event {
            version,
            old: None,
            new: Arc::new(record),
            deleted: false,
        })
    }

    #[test]
    fn forgets_by_count_and_by_bytes() {
        let mut log = Log::new(
            10,
            HistoryLimit {
                entries: 3,
                bytes: 100,
            },
        );
        for version in 11..=15 {
            log.push(event(version, 1));
        }
        assert_eq!(log.since(11).unwrap_err(), Compacted { oldest: 12 });
        assert_eq!(log.since(12).unwrap().len(), 3);
        assert_eq!(log.since(15).unwrap().len(), 0);
        log.push(event(16, 1000));
        assert_eq!(
            log.since(15).unwrap().len(),
            1,
            "the newest stays however large it is"
        );
        assert!(log.since(14).is_err());
    }

    #[test]
    fn starts_at_its_floor() {
        let log = Log::new(5, HistoryLimit::default());
        assert!(log.since(4).is_err());
        assert!(log.since(5).unwrap().is_empty());
    }
}

//! What is held against peers from ranges after they are forgotten, so that coming and going is not a way around the waits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::fsm::Record;

/// How long something is held against a peer: as long as a session has to last to prove itself.
const MEMORY: Duration = Duration::from_secs(60);
/// Peers that are remembered at most; beyond that the oldest record goes.
const LIMIT: usize = 1024;

/// The records, by address.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<IpAddr, (Instant, Record)>);

impl Records {
    /// A peer is forgotten.
    pub(super) fn keep(&mut self, now: Instant, address: IpAddr, record: Record) {
        if record == Record::default() {
            return;
        }
        if self.0.len() >= LIMIT {
            self.0
                .retain(|_, (at, _)| now.saturating_duration_since(*at) < MEMORY);
        }
        if self.0.len() >= LIMIT {
            let oldest = self.0.iter().min_by_key(|(_, (at, _))| *at);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(address, (now, record));
    }

    /// A peer is there again.
    pub(super) fn take(&mut self, now: Instant, address: IpAddr) -> Record {
        match self.0.remove(&address) {
            Some((at, record)) if now.saturating_duration_since(at) < MEMORY => record,
            _ => Record::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_kept_for_a_minute_and_are_not_without_number() {
        let mut records = Records::default();
        let now = Instant::now();
        let record = Record {
            short_lived: 3,
            errors_in_a_row: 1,
        };
        let address = |index: u32| IpAddr::from(index.to_be_bytes());
        records.keep(now, address(0), Record::default());
        assert!(records.0.is_empty());
        records.keep(now, address(0), record);
        assert_eq!(records.take(now + MEMORY / 2, address(0)), record);
        assert_eq!(records.take(now, address(0)), Record::default());
        records.keep(now, address(0), record);
        assert_eq!(records.take(now + MEMORY, address(0)), Record::default());
        for index in 0..3000 {
            records.keep(
                now + Duration::from_millis(index.into()),
                address(index),
                record,
            );
        }
        assert_eq!(records.0.len(), LIMIT);
        assert_eq!(records.take(now, address(2999)), record);
    }
}

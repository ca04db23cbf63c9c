//! What was wrong with a peer's UPDATEs, counted by kind (RFC 7606 section 8 wants operators to be able to see it).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::wire::{AttributeFault, Verdict};

/// Kinds that are told apart, at most: what a peer can invent must not cost memory without end.
const KINDS: usize = 64;

/// How often something was wrong, and what was done about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultCounts {
    /// UPDATEs whose routes were taken for withdrawn.
    pub treated_as_withdraw: u64,
    /// UPDATEs of which attributes were left out.
    pub attributes_discarded: u64,
    /// Each kind of fault by attribute and what was wrong with it, such as `ORIGIN: length 2 is not one it can have`. Kinds
    /// beyond the first 64 count under `other`.
    pub by_kind: BTreeMap<String, u64>,
}

impl FaultCounts {
    /// Counts what was found in one UPDATE.
    pub(super) fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Accept => return,
            Verdict::DiscardedAttributes(_) => self.attributes_discarded += 1,
            Verdict::TreatAsWithdraw(_) => self.treated_as_withdraw += 1,
        }
        for fault in verdict.faults() {
            self.count_kind(fault);
        }
    }

    fn count_kind(&mut self, fault: &AttributeFault) {
        let mut kind = fault.to_string();
        if self.by_kind.len() >= KINDS && !self.by_kind.contains_key(&kind) {
            kind = "other".to_owned();
        }
        *self.by_kind.entry(kind).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fault;

    #[test]
    fn kinds_are_told_apart_and_bounded() {
        let mut counts = FaultCounts::default();
        let wrong = |code, length| AttributeFault {
            code,
            fault: Fault::Length(length),
        };
        counts.count(&Verdict::Accept);
        counts.count(&Verdict::TreatAsWithdraw(vec![wrong(1, 2), wrong(4, 3)]));
        counts.count(&Verdict::DiscardedAttributes(vec![wrong(1, 2)]));
        assert_eq!(
            (counts.treated_as_withdraw, counts.attributes_discarded),
            (1, 1)
        );
        assert_eq!(counts.by_kind.values().sum::<u64>(), 3);
        for length in 0..1000 {
            counts.count(&Verdict::DiscardedAttributes(vec![wrong(1, length)]));
        }
        assert!(counts.by_kind.len() <= KINDS + 1);
        assert!(counts.by_kind["other"] > 900);
    }
}

//! A decision: for one identity at one pod in one direction, which protocols and ports may pass.
//!
//! However many policies and tiers took part, they have been flattened into this before anything is written, so that two
//! pods for which the outcome is the same share one decision, and one chain in the kernel.

use crate::port::{PortRange, Protocol};

/// Which ports may pass, in a normal form: equal decisions are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Decision {
    /// Per protocol of [`Protocol::ALL`], the allowed ranges: ascending, neither overlapping nor touching.
    ports: [Vec<PortRange>; 3],
    /// Whether protocols without ports (ICMP and the rest) pass.
    others: bool,
}

impl Decision {
    /// Nothing passes.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// Everything passes.
    #[cfg(test)]
    pub(crate) fn everything() -> Self {
        let mut decision = Self::nothing();
        decision.allow_everything();
        decision
    }

    /// Whether nothing passes.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.others && self.ports.iter().all(Vec::is_empty)
    }

    /// Whether everything passes.
    pub(crate) fn is_everything(&self) -> bool {
        self.others
            && Protocol::ALL
                .iter()
                .all(|protocol| self.is_whole(*protocol))
    }

    /// Lets everything pass.
    pub(crate) fn allow_everything(&mut self) {
        self.others = true;
        self.ports = [
            vec![PortRange::ALL],
            vec![PortRange::ALL],
            vec![PortRange::ALL],
        ];
    }

    /// Lets these ports pass as well.
    pub(crate) fn allow(&mut self, protocol: Protocol, range: PortRange) {
        let ranges = &mut self.ports[protocol as usize];
        let (mut first, mut last) = (range.first(), range.last());
        let mut kept = Vec::with_capacity(ranges.len() + 1);
        for present in ranges.drain(..) {
            let apart = present.last().saturating_add(1) < first
                || last.saturating_add(1) < present.first();
            if apart {
                kept.push(present);
            } else {
                first = first.min(present.first());
                last = last.max(present.last());
            }
        }
        kept.extend(PortRange::new(first, last));
        kept.sort_unstable();
        *ranges = kept;
    }

    /// The ranges of this protocol that pass, ascending.
    pub(crate) fn ranges(&self, protocol: Protocol) -> &[PortRange] {
        &self.ports[protocol as usize]
    }

    /// Whether every port of this protocol passes.
    pub(crate) fn is_whole(&self, protocol: Protocol) -> bool {
        self.ranges(protocol) == [PortRange::ALL]
    }

    /// Whether protocols without ports pass.
    pub(crate) fn allows_others(&self) -> bool {
        self.others
    }

    /// Whether a connection to this port passes.
    #[cfg(test)]
    pub(crate) fn allows(&self, protocol: Protocol, port: u16) -> bool {
        self.ranges(protocol)
            .iter()
            .any(|range| range.contains(port))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut decision = Decision::nothing();
        for (first, last) in [(80, 80), (90, 99), (81, 89), (1, 5), (65535, 65535)] {
            decision.allow(Protocol::Tcp, PortRange::new(first, last).unwrap());
        }
        let text: Vec<_> = decision
            .ranges(Protocol::Tcp)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(text, ["1-5", "80-99", "65535"]);
        assert!(decision.ranges(Protocol::Udp).is_empty());
    }

    #[test]
    fn every_port_of_every_protocol_is_not_yet_everything() {
        let mut decision = Decision::nothing();
        for protocol in Protocol::ALL {
            decision.allow(protocol, PortRange::ALL);
        }
        assert!(!decision.is_everything(), "ICMP was not allowed");
        decision.allow_everything();
        assert_eq!(decision, Decision::everything());
    }

    proptest! {
        #[test]
        fn the_normal_form_does_not_depend_on_the_order(
            ranges in proptest::collection::vec((0u16..40, 0u16..12), 0..12), port in 0u16..60,
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(first, more)| PortRange::new(*first, first + more).unwrap()).collect();
            let mut forward = Decision::nothing();
            ranges.iter().for_each(|range| forward.allow(Protocol::Udp, *range));
            let mut backward = Decision::nothing();
            ranges.iter().rev().for_each(|range| backward.allow(Protocol::Udp, *range));
            prop_assert_eq!(&forward, &backward);
            prop_assert_eq!(forward.allows(Protocol::Udp, port), ranges.iter().any(|range| range.contains(port)));
        }
    }
}

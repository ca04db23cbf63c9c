//! Bidirectional Forwarding Detection of the path to a peer.

use serde::{Deserialize, Serialize};

/// The shortest interval that can be asked for, in milliseconds: below it a busy machine would see failures that are none.
pub const SHORTEST_BFD_INTERVAL: u32 = 10;
/// The longest one, in milliseconds.
pub const LONGEST_BFD_INTERVAL: u32 = 60_000;

/// The BFD session of a peer (RFC 5880). A change of it never touches the BGP session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct BfdConfig {
    /// Shortest time between two packets to send, 10 to 60,000 milliseconds. The peer may ask for a longer one.
    pub min_tx: u32,
    /// Shortest time between two packets that can be taken, 10 to 60,000 milliseconds.
    pub min_rx: u32,
    /// How many of our packets may be missing before the peer calls the path down, 1 to 255.
    pub multiplier: u8,
    /// The peer is not on a link of ours (RFC 5883): packets may have been routed. An IPv6 link-local peer cannot be that.
    pub multihop: bool,
    /// Say nothing until the peer speaks.
    pub passive: bool,
    /// No BGP session before BFD is up. Otherwise BFD that is not up, or not spoken by the peer, holds nothing back.
    pub strict: bool,
}

impl Default for BfdConfig {
    fn default() -> Self {
        Self {
            min_tx: 300,
            min_rx: 300,
            multiplier: 3,
            multihop: false,
            passive: false,
            strict: false,
        }
    }
}

impl BfdConfig {
    /// The field that has a value it cannot have, and what is allowed.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        let interval = SHORTEST_BFD_INTERVAL..=LONGEST_BFD_INTERVAL;
        let allowed = "must be 10 to 60000 milliseconds";
        if !interval.contains(&self.min_tx) {
            return Some(("minTx", allowed));
        }
        if !interval.contains(&self.min_rx) {
            return Some(("minRx", allowed));
        }
        (self.multiplier == 0).then_some(("multiplier", "must be 1 to 255"))
    }
}

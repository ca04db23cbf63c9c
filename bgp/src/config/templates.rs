//! Peers that nobody has listed by address: those who come from a network.

use serde::{Deserialize, Serialize};

use super::PeerConfig;

/// How many peers may come from one range where no limit is configured.
pub const DEFAULT_RANGE_LIMIT: usize = 100;

/// Peers that connect to us from addresses of a network. We never connect to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRange {
    /// The most of them at a time, 1 or more. Who comes beyond that is refused.
    pub limit: usize,
    /// What each of them is.
    pub peer: PeerConfig,
}

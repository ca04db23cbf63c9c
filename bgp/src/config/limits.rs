//! How much a peer may send.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limit where none is configured: the whole Internet twice over. There always is one, so that a peer's memory is bounded.
pub const DEFAULT_MAX_PREFIXES: u32 = 2_000_000;
/// The pause before another attempt where none is configured.
pub const DEFAULT_RESTART_AFTER: Duration = Duration::from_secs(300);

/// How many routes of each address family a peer may send, those that policy refuses included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaxPrefixes {
    /// The most there may be, 1 or more.
    pub limit: u32,
    /// From this share of the limit on there is a warning, in percent, 1 to 100.
    pub warn_percent: u8,
    /// What happens to a session with more.
    pub action: MaxPrefixesAction,
}

/// What happens to a session with too many routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaxPrefixesAction {
    /// Nothing but a warning.
    Warn,
    /// It is ended with a Cease (RFC 4486) and stays down until the configuration of the peer changes.
    Teardown,
    /// It is ended with a Cease and tried again after this time.
    Restart(Duration),
}

impl Default for MaxPrefixes {
    fn default() -> Self {
        Self {
            limit: DEFAULT_MAX_PREFIXES,
            warn_percent: 80,
            action: MaxPrefixesAction::Restart(DEFAULT_RESTART_AFTER),
        }
    }
}

impl MaxPrefixes {
    /// The number of routes from which on there is a warning.
    #[must_use]
    pub fn warn_from(&self) -> u64 {
        (u64::from(self.limit) * u64::from(self.warn_percent)).div_ceil(100)
    }
}

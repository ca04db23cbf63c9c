//! What people are shown of BFD. Plain values without behaviour.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::packet::{Diagnostic, State};
use super::sessions::Path;

/// Everything about one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionReport {
    /// Our state.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// The diagnostic we send.
    pub diagnostic: Diagnostic,
    /// Why the session last failed, if it ever did.
    pub last_failure: Option<Diagnostic>,
    /// How often it went from Up to Down without anybody's intention.
    pub failures: u64,
    /// The peer's state as it last said.
    pub remote_state: State,
    /// The peer's diagnostic as it last said.
    pub remote_diagnostic: Diagnostic,
    /// The C bit of the peer: its BFD survives a restart of its control plane.
    pub remote_independent: bool,
    /// The peer is in demand mode.
    pub remote_demand: bool,
    /// The peer's detection multiplier; 0: not known.
    pub remote_multiplier: u8,
    /// The peer's Desired Min TX Interval.
    pub remote_min_tx: Duration,
    /// The peer's Required Min RX Interval.
    pub remote_min_rx: Duration,
    /// Our number for the session.
    pub discriminator: u32,
    /// The peer's number for it; 0: not known.
    pub remote_discriminator: u32,
    /// Time between two of our packets, before jitter.
    pub transmit_interval: Duration,
    /// Silence that ends the session; `None` until the peer has spoken.
    pub detection_time: Option<Duration>,
    /// A Poll Sequence is under way: the peer has not confirmed our intervals yet.
    pub polling: bool,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets taken in.
    pub packets_received: u64,
    /// Time since the last of them.
    pub heard: Option<Duration>,
    /// What keeps the session from sending or receiving on our side; put here by whoever has the sockets.
    pub last_error: Option<String>,
    /// Packets that belonged to no session, of all sessions together; put here likewise.
    pub discards: Discards,
}

/// A session and the path it watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The path.
    pub path: Path,
    /// The session.
    pub session: SessionReport,
}

/// Packets that changed nothing, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Discards {
    /// Did not pass the checks of RFC 5880 section 6.8.6.
    pub malformed: u64,
    /// From further away than a single hop (RFC 5881 section 5).
    pub hop_limit: u64,
    /// For no session of ours.
    pub unknown: u64,
    /// With the number of a session of ours, but from somebody else.
    pub wrong_source: u64,
}

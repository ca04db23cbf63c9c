//! One peer's session (RFC 4271 section 8), without sockets and without a clock.

mod event;
#[cfg(test)]
mod event_table;
mod open;
mod peer;
#[cfg(test)]
mod tests;
mod timer;

use serde::{Deserialize, Serialize};

pub use event::{
    Action, Cause, ConnectionEvent, Down, Event, Negotiated, Outgoing, PeerLongLived, PeerRestart,
    Serial,
};
pub use open::Settings;
pub use peer::{PeerFsm, Record};
pub use timer::{Timer, TimerTable};

/// Which side opened the TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// We did.
    Outgoing,
    /// The peer did.
    Incoming,
}

impl Role {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Role::Outgoing => Role::Incoming,
            Role::Incoming => Role::Outgoing,
        }
    }
}

/// The states of RFC 4271 section 8.2.2, in the order of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Not started, or waiting after an error; connections are refused.
    Idle,
    /// Waiting for the next attempt to connect, or for the peer to.
    Active,
    /// A TCP connection is being opened.
    Connect,
    /// OPEN sent, the peer's awaited.
    OpenSent,
    /// OPENs exchanged, the peer's first KEEPALIVE awaited.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            State::Idle => "Idle",
            State::Active => "Active",
            State::Connect => "Connect",
            State::OpenSent => "OpenSent",
            State::OpenConfirm => "OpenConfirm",
            State::Established => "Established",
        })
    }
}

//! Bidirectional Forwarding Detection without its sockets (RFC 5880, 5881, 5883).
//!
//! [`Sessions`] holds many sessions: packets go in with [`Sessions::handle_packet`], time with
//! [`Sessions::handle_timeout`]; packets, changes of state and the next deadline come out of the `poll_*` methods. There is
//! no socket and no clock here; `speaker::bfd` has both, and a thread of its own for them.
//!
//! Asynchronous mode, single hop and multihop, without authentication, without the Echo function. What a session's failure
//! means for BGP is not decided here (RFC 5882 is the router's business).

mod packet;
mod report;
mod session;
mod sessions;
#[cfg(test)]
mod tests;

pub use packet::{Diagnostic, LENGTH, Packet, PacketError, State};
pub use report::{Discards, Report, SessionReport};
pub use session::{Change, Settings};
pub use sessions::{Hops, Path, Random, Received, Sessions, Transmit};

/// The UDP port of single-hop sessions (RFC 5881 section 4).
pub const SINGLE_HOP_PORT: u16 = 3784;
/// The UDP port of multihop sessions (RFC 5883 section 5).
pub const MULTIHOP_PORT: u16 = 4784;
/// TTL and hop limit of every packet sent, and of every packet accepted on a single hop (RFC 5881 section 5).
pub const TTL: u8 = 255;
/// Where source ports begin (RFC 5881 section 4).
pub const FIRST_SOURCE_PORT: u16 = 49152;

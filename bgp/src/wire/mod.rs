//! The BGP-4 wire format: octets into messages and messages into octets.
//!
//! Pure: no sockets, no clock, no state between calls. What a session negotiated and what decides
//! how octets are read is a [`Context`] argument.
//!
//! Decoding: [`frame_length`] finds where a message ends, [`decode`] reads one. Input is hostile by
//! assumption: every length is checked before use, allocation is bounded by the message's size, and
//! what is wrong gets the reaction RFC 7606 asks for: a [`Verdict`] beside the message, or an
//! `Err` with the [`Notification`] that ends the session.
//!
//! Encoding: [`encode`] for any message, [`encode_reach`] and [`encode_withdraw`] for streams of
//! routes, packed full.
//!
//! What is *not* here: whether a message is allowed in the present state (`fsm`), what a route is
//! worth (`rib`) and whether it is wanted (`policy`).

#![warn(clippy::indexing_slicing)]

mod attributes;
mod capability;
mod context;
mod error;
mod frame;
mod message;
mod multiprotocol;
mod next_hop;
mod nlri;
mod notification;
mod notification_words;
mod open;
mod pack;
mod plain;
mod route_refresh;
mod update;
mod verdict;

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test that indexes past the end fails, as it should"
)]
mod tests;

pub use attributes::{
    Aggregator, AsPath, AsSegment, Origin, PathAttributes, UnknownAttribute, attribute_code,
};
pub use capability::{
    AddPathMode, Capability, ExtendedNextHop, GracefulRestart, GracefulRestartFamily,
    LongLivedFamily, Role,
};
pub use context::{Context, SessionKind};
pub use error::EncodeError;
pub use frame::frame_length;
pub use message::{Decoded, Message, MessageType, decode, encode};
pub use next_hop::NextHop;
pub use nlri::{Nlri, NlriReader};
pub use notification::{Cease, Notification};
pub use open::Open;
pub use pack::{encode_end_of_rib, encode_reach, encode_rib_attributes, encode_withdraw};
pub use plain::{PlainUpdate, decode_block};
pub use route_refresh::{RefreshSubtype, RouteRefresh};
pub use update::{Reach, Update};
pub use verdict::{AttributeFault, Fault, Verdict};

/// The length of a message's header: 16 octets marker, 2 octets length, 1 octet type.
pub const HEADER_LENGTH: usize = 19;

/// The longest message without RFC 8654, in octets.
pub const MAX_MESSAGE_LENGTH: usize = 4096;

/// The longest message with RFC 8654, in octets.
pub const MAX_EXTENDED_MESSAGE_LENGTH: usize = 65535;

//! The recorder: everything that goes into a [`Router`](crate::router::Router) and comes out of it, a JSON object a line, and
//! the way back.
//!
//! The router is a function of its inputs and its seed, so a recording made in the field runs again at a desk, message by
//! message, with the same timers: [`replay`] feeds the inputs to a new router and checks that it does the same. Times are
//! nanoseconds since the recording began. Octets are hexadecimal. Secrets are no part of a recording, and nothing is lost
//! with them: they belong to the sockets.
//!
//! [`Recorded`] is a router that writes down what is done to it; where the lines go is the shell's business.

mod complete;
mod recorded;
mod replay;
mod tape;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::SpeakerConfig;
use crate::router::{ConnectionId, Lost, SubscriberId};
use crate::types::Prefix;
use crate::wire::Notification;

pub use recorded::Recorded;
pub use replay::{ReplayError, Replayed, replay};
pub use tape::Tape;

/// One line of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Nanoseconds since the recording began.
    pub at: u64,
    /// What went in or came out.
    #[serde(rename = "do")]
    pub what: What,
}

/// What one line is about: an input and what it was answered, or an output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// The router was made.
    Start {
        /// Where its jitter comes from.
        seed: u64,
        /// Its configuration, without secrets.
        config: Box<SpeakerConfig>,
    },
    /// [`Router::configure`](crate::router::Router::configure), with a configuration that was taken.
    Configure(Box<SpeakerConfig>),
    /// [`Router::handle_incoming`](crate::router::Router::handle_incoming).
    Incoming {
        /// The peer's end.
        remote: SocketAddr,
        /// Our end.
        local: SocketAddr,
        /// What it is called, if it was taken.
        connection: Option<ConnectionId>,
    },
    /// [`Router::handle_connected`](crate::router::Router::handle_connected).
    Connected {
        /// Which connection.
        connection: ConnectionId,
        /// Our end.
        local: SocketAddr,
    },
    /// [`Router::handle_octets`](crate::router::Router::handle_octets).
    Octets {
        /// Which connection.
        connection: ConnectionId,
        /// The octets, hexadecimal.
        octets: String,
    },
    /// [`Router::handle_written`](crate::router::Router::handle_written).
    Written {
        /// Which connection.
        connection: ConnectionId,
        /// Not all has been taken.
        outstanding: bool,
    },
    /// [`Router::handle_closed`](crate::router::Router::handle_closed).
    Closed {
        /// Which connection.
        connection: ConnectionId,
        /// Why, for people.
        reason: String,
    },
    /// [`Router::handle_timeout`](crate::router::Router::handle_timeout).
    Timeout,
    /// [`Router::handle_peer_lost`](crate::router::Router::handle_peer_lost).
    PeerLost {
        /// Whom.
        address: IpAddr,
        /// How it is known.
        lost: Lost,
    },
    /// [`Router::handle_bfd`](crate::router::Router::handle_bfd).
    Bfd {
        /// Whose.
        address: IpAddr,
        /// BFD is up.
        up: bool,
    },
    /// [`Router::refresh`](crate::router::Router::refresh).
    Refresh {
        /// Whom.
        address: IpAddr,
        /// It could be asked.
        asked: bool,
    },
    /// [`Router::add_hint`](crate::router::Router::add_hint).
    Hint {
        /// Which connection.
        connection: ConnectionId,
        /// What is known.
        hint: String,
    },
    /// [`Router::set_next_hop_costs`](crate::router::Router::set_next_hop_costs).
    NextHopCosts(Vec<(IpAddr, Option<u32>)>),
    /// [`Router::bar`](crate::router::Router::bar): the networks, each with the reason.
    Bar(Vec<(Prefix, String)>),
    /// [`Router::subscribe`](crate::router::Router::subscribe).
    Subscribe(SubscriberId),
    /// [`Router::unsubscribe`](crate::router::Router::unsubscribe).
    Unsubscribe(SubscriberId),
    /// [`Router::stop`](crate::router::Router::stop).
    Stop {
        /// Code, subcode and data, hexadecimal; nothing for a silent stop.
        notification: Option<String>,
    },
    /// [`Router::transmit`](crate::router::Router::transmit), and the octets it gave, hexadecimal.
    Transmit {
        /// Which connection.
        connection: ConnectionId,
        /// The octets; nothing if there were none.
        octets: Option<String>,
    },
    /// [`Router::poll_routes`](crate::router::Router::poll_routes), and the changes it gave.
    Routes {
        /// Whose.
        subscriber: SubscriberId,
        /// The batch; nothing if there was none.
        batch: Option<Value>,
    },
    /// What [`Router::poll_output`](crate::router::Router::poll_output) gave; nothing: there was no more.
    Output(Option<Value>),
    /// When [`Router::poll_timeout`](crate::router::Router::poll_timeout) said that the next timer is due, in nanoseconds since
    /// the recording began.
    Wake(Option<u64>),
    /// The recording ends here, and why.
    End(String),
}

/// Code, subcode and data as hexadecimal digits.
fn notification_digits(notification: &Notification) -> String {
    let mut octets = vec![notification.code, notification.subcode];
    octets.extend_from_slice(&notification.data);
    to_hex(&octets)
}

fn notification_of(digits: &str) -> Notification {
    let octets = from_hex(digits);
    let (head, data) = octets.split_at_checked(2).unwrap_or((&[0, 0], &[]));
    Notification {
        code: head.first().copied().unwrap_or_default(),
        subcode: head.get(1).copied().unwrap_or_default(),
        data: bytes::Bytes::copy_from_slice(data),
    }
}

/// Octets as hexadecimal digits.
fn to_hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    octets
        .iter()
        .flat_map(|octet| [digit(octet >> 4), digit(*octet)])
        .collect()
}

/// Hexadecimal digits as octets; stops at what is none.
fn from_hex(text: &str) -> Vec<u8> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map_while(|pair| match pair {
            // Two digits below 16 make one octet.
            [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
            _ => None,
        })
        .collect()
}

//! What network engineers debug with: BMP (RFC 7854), MRT dumps (RFC 6396), and a recorder that replays.
//!
//! The router says what it saw as [`Observation`]s, only while somebody has asked for them. The formats are functions from
//! observations to octets; connections to monitoring stations and files are the shell's business.

pub mod bmp;
pub mod mrt;
#[cfg(feature = "speaker")]
pub mod record;

use std::net::IpAddr;

use bytes::Bytes;

use crate::fsm::State;
use crate::types::{Asn, RouterId};
use crate::wire::Notification;

/// A session as monitors name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MonitoredPeer {
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's AS.
    pub asn: Asn,
    /// The peer's BGP Identifier; 0.0.0.0 before its OPEN.
    pub router_id: RouterId,
    /// The peer's TCP port; 0 if it is not known.
    pub port: u16,
    /// Our end of the connection; the unspecified address while there is none.
    pub local_address: IpAddr,
    /// Our TCP port; 0 if it is not known.
    pub local_port: u16,
    /// Our AS as the peer sees it.
    pub local_asn: Asn,
    /// AS numbers in this session's messages have four octets (RFC 6793).
    pub four_octet_asn: bool,
    /// The peer's messages have path identifiers (RFC 7911); of [`Observation::Sent`], ours.
    pub add_path: bool,
}

/// Why a session is over, as BMP tells the reasons apart (RFC 7854 section 4.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownReason {
    /// We sent this NOTIFICATION.
    Sent(Notification),
    /// We closed it without one; the number of the event in RFC 4271 section 8.1, or 0.
    Closed {
        /// The event's number.
        event: u16,
    },
    /// The peer sent this NOTIFICATION.
    Received(Notification),
    /// The connection ended without one.
    Lost,
    /// The peer was taken out of the configuration.
    Deconfigured,
}

/// Which side of the import policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// As the peer sent it.
    BeforePolicy,
    /// As the decision process sees it.
    AfterPolicy,
}

/// What somebody wants to be told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Interest {
    /// [`Observation::Up`] and [`Observation::Down`].
    pub sessions: bool,
    /// [`Observation::State`].
    pub states: bool,
    /// [`Observation::Received`].
    pub received: bool,
    /// [`Observation::Sent`].
    pub sent: bool,
    /// [`Observation::Routes`] before the import policy.
    pub before_policy: bool,
    /// [`Observation::Routes`] after it, and [`Observation::Reconsidered`].
    pub after_policy: bool,
}

impl Interest {
    /// What either of the two wants.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            sessions: self.sessions || other.sessions,
            states: self.states || other.states,
            received: self.received || other.received,
            sent: self.sent || other.sent,
            before_policy: self.before_policy || other.before_policy,
            after_policy: self.after_policy || other.after_policy,
        }
    }

    /// Whether it is wanted.
    #[must_use]
    pub fn wants(self, observation: &Observation) -> bool {
        match observation {
            Observation::Up { .. } | Observation::Down { .. } => self.sessions,
            Observation::State { .. } => self.states,
            Observation::Received { .. } => self.received,
            Observation::Sent { .. } => self.sent,
            Observation::Routes {
                stage: Stage::BeforePolicy,
                ..
            } => self.before_policy,
            Observation::Routes { .. } | Observation::Reconsidered { .. } => self.after_policy,
        }
    }
}

/// Something a monitor may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// A session is established.
    Up {
        /// Which one.
        peer: MonitoredPeer,
        /// Our OPEN as sent.
        sent: Bytes,
        /// The peer's OPEN as received.
        received: Bytes,
    },
    /// A session is no longer established.
    Down {
        /// Which one.
        peer: MonitoredPeer,
        /// Why.
        reason: DownReason,
    },
    /// A session's state machine moved.
    State {
        /// Which one.
        peer: MonitoredPeer,
        /// From this state.
        old: State,
        /// To this one.
        new: State,
    },
    /// One message from the peer, as received.
    Received {
        /// From whom.
        peer: MonitoredPeer,
        /// The message with its header.
        message: Bytes,
    },
    /// What the Adj-RIB-In of an established session has become: an UPDATE to the effect. What RFC 7606 has treated as
    /// withdrawn is withdrawn in it.
    Routes {
        /// From whom.
        peer: MonitoredPeer,
        /// Before the import policy or after it.
        stage: Stage,
        /// UPDATEs with their headers, one after another.
        messages: Bytes,
    },
    /// The import policy has decided anew about every route of a session: what was told of it is not so any more.
    Reconsidered {
        /// Whose routes.
        peer: MonitoredPeer,
    },
    /// Whole messages for the peer, as sent.
    Sent {
        /// To whom.
        peer: MonitoredPeer,
        /// The messages with their headers, one after another.
        messages: Bytes,
    },
}

impl Observation {
    /// The session it is about.
    #[must_use]
    pub fn peer(&self) -> &MonitoredPeer {
        match self {
            Self::Up { peer, .. }
            | Self::Down { peer, .. }
            | Self::State { peer, .. }
            | Self::Received { peer, .. }
            | Self::Routes { peer, .. }
            | Self::Reconsidered { peer }
            | Self::Sent { peer, .. } => peer,
        }
    }

    /// How many octets it keeps, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Up { sent, received, .. } => sent.len() + received.len(),
                Self::Received { message, .. } => message.len(),
                Self::Routes { messages, .. } | Self::Sent { messages, .. } => messages.len(),
                Self::Down { .. } | Self::State { .. } | Self::Reconsidered { .. } => 0,
            }
    }
}

/// Seconds and microseconds since 1970, as both formats write time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timestamp {
    /// Whole seconds; wraps in 2106.
    pub seconds: u32,
    /// Microseconds, below a million.
    pub microseconds: u32,
}

impl From<std::time::Duration> for Timestamp {
    fn from(since_epoch: std::time::Duration) -> Self {
        Self {
            // RFC 6396 and RFC 7854 have 32 bits for it.
            seconds: since_epoch.as_secs() as u32,
            microseconds: since_epoch.subsec_micros(),
        }
    }
}

/// Cuts whole messages apart by their length fields. Stops at the first thing that is not a message.
pub fn split(mut messages: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = messages.get(16..18)?;
        let length = usize::from(u16::from_be_bytes([*length.first()?, *length.get(1)?]));
        if length < crate::wire::HEADER_LENGTH {
            return None;
        }
        let (message, rest) = messages.split_at_checked(length)?;
        messages = rest;
        Some(message)
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A session between 10.0.0.2 in AS 65001 and 10.0.0.1 in AS 65000.
    pub(crate) fn peer() -> MonitoredPeer {
        MonitoredPeer {
            address: "10.0.0.2".parse().unwrap(),
            asn: Asn(65001),
            router_id: RouterId(0x0a00_0002),
            port: 179,
            local_address: "10.0.0.1".parse().unwrap(),
            local_port: 40000,
            local_asn: Asn(65000),
            four_octet_asn: true,
            add_path: false,
        }
    }

    /// A KEEPALIVE.
    pub(crate) fn keepalive() -> Vec<u8> {
        let mut octets = vec![0xff; 16];
        octets.extend([0, 19, 4]);
        octets
    }

    #[test]
    fn messages_are_cut_apart_and_rubbish_ends_it() {
        let mut update = vec![0xff; 16];
        update.extend([0, 23, 2, 0, 0, 0, 0]);
        let mut all = keepalive();
        all.extend(&update);
        all.extend(keepalive());
        assert_eq!(split(&all).nth(1), Some(&update[..]));
        assert_eq!(split(&all).count(), 3);
        all.extend([0xff; 16]);
        all.extend([0, 5, 2]);
        assert_eq!(split(&all).count(), 3);
    }
}

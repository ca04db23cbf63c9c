//! What a session negotiated, as far as it decides how octets are read and written.

use crate::types::{Family, FamilySet};

use super::{MAX_EXTENDED_MESSAGE_LENGTH, MAX_MESSAGE_LENGTH};

/// Whether the peer is in our AS. Decides which attributes it may send (RFC 7606 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// The peer is in our AS (iBGP).
    Internal,
    /// The peer is in another AS (eBGP).
    External,
}

/// What decides the meaning of octets on one session.
///
/// The default is what holds before OPEN messages are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// Both sides sent the four-octet AS number capability (RFC 6793).
    pub four_octet_asn: bool,
    /// Both sides sent the extended message capability (RFC 8654).
    pub extended_messages: bool,
    /// Whether the peer is in our AS.
    pub session: SessionKind,
    /// The families both sides named. Routes of any other are skipped.
    pub families: FamilySet,
    /// The families whose NLRI the peer sends with a path identifier (RFC 7911).
    pub add_path_receive: FamilySet,
    /// The families whose NLRI we send with a path identifier (RFC 7911).
    pub add_path_send: FamilySet,
    /// IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            four_octet_asn: false,
            extended_messages: false,
            session: SessionKind::External,
            families: FamilySet::only(Family::Ipv4Unicast),
            add_path_receive: FamilySet::EMPTY,
            add_path_send: FamilySet::EMPTY,
            extended_next_hop: false,
        }
    }
}

impl Context {
    /// The longest message of the session, in octets. OPEN and KEEPALIVE never exceed 4096
    /// (RFC 8654 §4).
    #[must_use]
    pub const fn max_message_length(&self) -> usize {
        if self.extended_messages {
            MAX_EXTENDED_MESSAGE_LENGTH
        } else {
            MAX_MESSAGE_LENGTH
        }
    }
}

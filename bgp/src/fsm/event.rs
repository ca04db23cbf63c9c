//! What goes into a session and what comes out, in the terms of RFC 4271.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Asn, Family, FamilySet, RouterId};
use crate::wire::{Notification, Open, Role};

/// Names one TCP connection of one peer; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial(pub u32);

/// Something that happened to the peer as a whole (RFC 4271 section 8.1.2).
#[derive(Debug, Clone)]
pub enum Event {
    /// The peer was configured or enabled (event 1).
    ManualStart,
    /// The peer was removed, disabled or must start over (event 2, 8). With a NOTIFICATION the peer is told why; without,
    /// the connections are closed silently, so that a peer with graceful restart keeps our routes.
    Stop {
        /// Sent on every connection that got as far as an OPEN.
        notification: Option<Notification>,
    },
    /// The way to the peer is known to be dead, by BFD or by the link: nobody waits for the hold timer. The session is tried
    /// again like after a lost connection.
    PathDown {
        /// What the peer is told, should it still hear it.
        notification: Option<Notification>,
        /// For people.
        reason: String,
    },
}

/// Something that happened on one connection (RFC 4271 sections 8.1.4 and 8.1.5).
///
/// The peer's incoming connections are announced with [`super::PeerFsm::accept`] instead, which may refuse them.
#[derive(Debug, Clone)]
pub enum ConnectionEvent {
    /// Our attempt to connect succeeded (event 16, Tcp_CR_Acked).
    TcpConnected,
    /// The attempt failed, or the connection ended (event 18, TcpConnectionFails). The text is for people.
    TcpConnectionFails(String),
    /// An OPEN that could be decoded (event 19).
    BgpOpen(Box<Open>),
    /// A message that could not be decoded (events 21, 22, 28), or one whose contents must end the session (event 8): the
    /// NOTIFICATION says which.
    MessageError(Notification),
    /// A NOTIFICATION (events 24, 25).
    NotifMsg(Notification),
    /// A KEEPALIVE (event 26).
    KeepAliveMsg,
    /// An UPDATE (event 27). Its contents are the router's business, and only if the connection is established afterwards.
    UpdateMsg,
    /// A ROUTE-REFRESH (RFC 2918), with the rules of an UPDATE.
    RouteRefreshMsg,
}

/// What the session asks its owner to do, in order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Open a TCP connection to the peer and report back as `Serial`.
    Connect(Serial),
    /// Send a message.
    Send(Serial, Outgoing),
    /// Close the connection after everything sent so far, or give up the attempt to connect. Nothing more is said about it.
    Close(Serial),
    /// The session is up on this connection.
    Established(Serial, Box<Negotiated>),
    /// The session is no longer up.
    Down(Down),
    /// A connection ended before the session was up on it.
    Failed(Down),
}

/// The messages a session sends by itself.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// OPEN.
    Open(Box<Open>),
    /// KEEPALIVE.
    Keepalive,
    /// NOTIFICATION.
    Notification(Notification),
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Down {
    /// For people.
    pub reason: String,
    /// What kind of end it was, which decides whether the peer's routes may be kept for a while.
    pub cause: Cause,
}

/// How a connection ended, as far as graceful restart is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It broke without a NOTIFICATION from either side, the case in which a graceful restart helper keeps the peer's routes
    /// (RFC 4724 section 4.2).
    Lost,
    /// With a NOTIFICATION, which leaves routes in place only if both sides agreed on that (RFC 8538).
    Notified,
    /// Somebody wants the routes gone: a hard reset, the configuration, a forwarding path that is known to be dead.
    Final,
}

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's BGP Identifier.
    pub peer_id: RouterId,
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The peer is in our AS.
    pub internal: bool,
    /// Hold time in seconds; 0: no hold timer and no KEEPALIVEs.
    pub hold_time: u16,
    /// Time between KEEPALIVEs before jitter.
    pub keepalive: Duration,
    /// AS numbers have four octets in both directions (RFC 6793).
    pub four_octet_asn: bool,
    /// The families both sides offer.
    pub families: FamilySet,
    /// The peer understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// What the peer announced about graceful restart, if both sides announced it.
    pub graceful_restart: Option<PeerRestart>,
    /// What the peer announced about keeping its routes for longer than that, if both sides announced it.
    pub long_lived: Option<PeerLongLived>,
    /// The peer marks begin and end of a refresh and understands the marks (RFC 7313).
    pub enhanced_refresh: bool,
    /// Messages may have 65,535 octets (RFC 8654).
    pub extended_messages: bool,
    /// IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// The families whose routes come with path identifiers (RFC 7911).
    pub add_path_receive: FamilySet,
    /// The families whose routes are to be sent with path identifiers.
    pub add_path_send: FamilySet,
    /// The peer's part in the relation, if it said so (RFC 9234).
    pub peer_role: Option<Role>,
}

/// A peer's graceful restart capability (RFC 4724 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerRestart {
    /// How long its routes may be kept while it is away.
    pub time: Duration,
    /// The families whose routes may be kept.
    pub families: FamilySet,
    /// Those of them for which it kept forwarding over the restart that it may just have been through (the F bit).
    pub forwarding: FamilySet,
    /// The peer has restarted itself and does not wait for our End-of-RIB (the R bit).
    pub restarting: bool,
    /// A NOTIFICATION leaves routes in place, too, unless it is a hard reset (RFC 8538): both sides said so.
    pub notification: bool,
}

/// A peer's long-lived graceful restart capability (RFC 9494 section 3), as far as the session's families are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerLongLived {
    /// How long routes of each family may be kept once its restart time is over. A family that is not here: not at all.
    pub times: BTreeMap<Family, Duration>,
    /// The families for which it kept forwarding while it was away (the F bit).
    pub forwarding: FamilySet,
}

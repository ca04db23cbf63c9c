//! Messages as a whole: their kinds, and the way in and out of octets.

use std::fmt;

use crate::types::Family;

use super::{Notification, Open, RouteRefresh, Update, Verdict};

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// OPEN: starts a session.
    Open(Open),
    /// UPDATE with routes.
    Update(Update),
    /// UPDATE that marks the end of the initial routes of a family (RFC 4724 §2).
    EndOfRib(Family),
    /// NOTIFICATION: ends a session.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH.
    RouteRefresh(RouteRefresh),
    /// A ROUTE-REFRESH for a family the speaker does not carry: to be ignored (RFC 2918 §4).
    Ignored(MessageType),
}

impl Message {
    /// The kind of message, as its header says.
    #[must_use]
    pub const fn kind(&self) -> MessageType {
        match self {
            Self::Open(_) => MessageType::Open,
            Self::Update(_) | Self::EndOfRib(_) => MessageType::Update,
            Self::Notification(_) => MessageType::Notification,
            Self::Keepalive => MessageType::Keepalive,
            Self::RouteRefresh(_) => MessageType::RouteRefresh,
            Self::Ignored(kind) => *kind,
        }
    }
}

/// A message that was read, and what was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The message, with the verdict already applied to it.
    pub message: Message,
    /// What was found wrong in it. [`Verdict::Accept`] for everything but UPDATE.
    pub verdict: Verdict,
}

/// The type code in a message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// Type 1.
    Open = 1,
    /// Type 2.
    Update = 2,
    /// Type 3.
    Notification = 3,
    /// Type 4.
    Keepalive = 4,
    /// Type 5 (RFC 2918).
    RouteRefresh = 5,
}

impl MessageType {
    /// The type of a code.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Open),
            2 => Some(Self::Update),
            3 => Some(Self::Notification),
            4 => Some(Self::Keepalive),
            5 => Some(Self::RouteRefresh),
            _ => None,
        }
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "OPEN",
            Self::Update => "UPDATE",
            Self::Notification => "NOTIFICATION",
            Self::Keepalive => "KEEPALIVE",
            Self::RouteRefresh => "ROUTE-REFRESH",
        })
    }
}

//! Messages as a whole: their kinds, and the way in and out of octets.

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::types::Family;

use super::frame::{frame_length, write_message};
use super::pack::{encode_end_of_rib, encode_update};
use super::{
    Context, EncodeError, HEADER_LENGTH, MAX_MESSAGE_LENGTH, Notification, Open, RouteRefresh,
    Update, Verdict,
};

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

/// Reads one message: `octets` is exactly the message with its header, as [`frame_length`]
/// delimits it.
///
/// # Errors
/// The NOTIFICATION that ends the session, where the RFCs demand that: errors in the header, in an
/// OPEN or ROUTE-REFRESH, and in an UPDATE whose routes cannot be told (RFC 7606 §3 j).
pub fn decode(octets: &[u8], context: &Context) -> Result<Decoded, Notification> {
    let length = frame_length(octets, context)?;
    let (Some((header, body)), true) = (
        octets.split_at_checked(HEADER_LENGTH),
        length == Some(octets.len()),
    ) else {
        // The caller's slip, not the peer's: answered in kind all the same.
        let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
        return Err(Notification::bad_message_length(length));
    };
    let code = header.last().copied().unwrap_or_default();
    let message = match MessageType::from_code(code) {
        None => return Err(Notification::bad_message_type(code)),
        Some(MessageType::Update) => return Update::decode(body, context),
        Some(MessageType::Open) => Message::Open(Open::decode(body)?),
        Some(MessageType::Notification) => Message::Notification(Notification::decode(body)),
        Some(MessageType::Keepalive) => Message::Keepalive,
        Some(kind @ MessageType::RouteRefresh) => match RouteRefresh::decode(body, octets)? {
            Some(refresh) => Message::RouteRefresh(refresh),
            None => Message::Ignored(kind),
        },
    };
    Ok(Decoded {
        message,
        verdict: Verdict::Accept,
    })
}

/// Appends a message to `out` and returns how many it took: one, but for an [`Update`] as many as
/// its routes need (each UPDATE written holds one kind of route, RFC 7606 §5.1), and none for
/// [`Message::Ignored`].
///
/// The data of a NOTIFICATION that is too long for the session is cut: sending it matters more.
///
/// # Errors
/// When the message cannot be written without breaking the session's limits. `out` is then as it
/// was.
pub fn encode(
    message: &Message,
    context: &Context,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let kind = message.kind();
    match message {
        Message::Open(open) => {
            // RFC 8654 §4: an OPEN never uses the extended length.
            write_message(out, kind, MAX_MESSAGE_LENGTH, |out| open.encode(out))?;
        }
        Message::Update(update) => return encode_update(update, context, out),
        Message::EndOfRib(family) => encode_end_of_rib(*family, out)?,
        Message::Notification(notification) => {
            let limit = context.max_message_length();
            write_message(out, kind, limit, |out| {
                out.put_u8(notification.code);
                out.put_u8(notification.subcode);
                let room = limit - HEADER_LENGTH - 2;
                let data = &notification.data;
                out.put_slice(data.get(..room).unwrap_or(data));
                Ok(())
            })?;
        }
        Message::Keepalive => write_message(out, kind, HEADER_LENGTH, |_| Ok(()))?,
        Message::RouteRefresh(refresh) => {
            write_message(out, kind, MAX_MESSAGE_LENGTH, |out| {
                refresh.encode(out);
                Ok(())
            })?;
        }
        Message::Ignored(_) => return Ok(0),
    }
    Ok(1)
}

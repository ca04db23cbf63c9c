//! The NOTIFICATION message: why a session ends.
//!
//! One constructor for each error of RFC 4271 §6 and what later RFCs added, so that the data field
//! has what the RFC says it has.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// A NOTIFICATION: the reason why its sender closes the session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notification {
    /// The error code.
    pub code: u8,
    /// The error subcode, 0 when nothing more specific fits.
    pub subcode: u8,
    /// What the error is about, at most what fits a message.
    pub data: Bytes,
}

/// Why an administrator or a limit ends a session: subcodes of Cease (RFC 4486, RFC 8538, RFC 9384).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cease {
    /// 1: the peer sent more prefixes than allowed.
    MaximumPrefixes = 1,
    /// 2: the session is shut down and stays down.
    AdministrativeShutdown = 2,
    /// 3: the peer was removed from the configuration.
    PeerDeconfigured = 3,
    /// 4: the session is restarted on purpose.
    AdministrativeReset = 4,
    /// 5: connections from this peer are not accepted.
    ConnectionRejected = 5,
    /// 6: the configuration changed in a way that needs a new session.
    OtherConfigurationChange = 6,
    /// 7: another connection to the same peer was kept (RFC 4271 §6.8).
    ConnectionCollision = 7,
    /// 8: memory or another resource ran out.
    OutOfResources = 8,
    /// 9: ends the session for good although the N bit was negotiated (RFC 8538).
    HardReset = 9,
    /// 10: BFD says the path is down (RFC 9384).
    BfdDown = 10,
}

const HEADER: u8 = 1;
const OPEN: u8 = 2;
const UPDATE: u8 = 3;
const HOLD_TIMER: u8 = 4;
const STATE: u8 = 5;
const CEASE: u8 = 6;
const ROUTE_REFRESH: u8 = 7;
const SEND_HOLD_TIMER: u8 = 8;

/// The longest shutdown communication, in octets (RFC 9003 §2).
const SHUTDOWN_COMMUNICATION_LIMIT: usize = 255;

impl Notification {
    /// A NOTIFICATION without data.
    #[must_use]
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self {
            code,
            subcode,
            data: Bytes::new(),
        }
    }

    /// Reads a message's body, which framing has checked to have at least two octets.
    pub(super) fn decode(body: &[u8]) -> Self {
        match body {
            [code, subcode, data @ ..] => Self::with(*code, *subcode, data),
            _ => Self::new(0, 0),
        }
    }

    fn with(code: u8, subcode: u8, data: &[u8]) -> Self {
        Self {
            code,
            subcode,
            data: Bytes::copy_from_slice(data),
        }
    }

    // Message header errors, RFC 4271 §6.1.

    /// 1/1: the marker is not all ones.
    #[must_use]
    pub const fn connection_not_synchronized() -> Self {
        Self::new(HEADER, 1)
    }

    /// 1/2: the length is not one the message can have. Data: the length.
    #[must_use]
    pub fn bad_message_length(length: u16) -> Self {
        Self::with(HEADER, 2, &length.to_be_bytes())
    }

    /// 1/3: there is no such message type. Data: the type.
    #[must_use]
    pub fn bad_message_type(code: u8) -> Self {
        Self::with(HEADER, 3, &[code])
    }

    // OPEN errors, RFC 4271 §6.2.

    /// 2/0: the OPEN's optional parameters or capabilities cannot be read.
    #[must_use]
    pub const fn malformed_open() -> Self {
        Self::new(OPEN, 0)
    }

    /// 2/1: not version 4. Data: the version we speak.
    #[must_use]
    pub fn unsupported_version() -> Self {
        Self::with(OPEN, 1, &4_u16.to_be_bytes())
    }

    /// 2/2: the peer's AS is not the one expected, or zero.
    #[must_use]
    pub const fn bad_peer_as() -> Self {
        Self::new(OPEN, 2)
    }

    /// 2/3: the peer's identifier is zero, or ours (RFC 6286).
    #[must_use]
    pub const fn bad_router_id() -> Self {
        Self::new(OPEN, 3)
    }

    /// 2/4: an optional parameter that is not capabilities.
    #[must_use]
    pub const fn unsupported_optional_parameter() -> Self {
        Self::new(OPEN, 4)
    }

    /// 2/6: a hold time of one or two seconds, or one below what is configured.
    #[must_use]
    pub const fn unacceptable_hold_time() -> Self {
        Self::new(OPEN, 6)
    }

    /// 2/7: the peer lacks a capability that we need (RFC 5492). Data: that capability as code,
    /// length and value.
    #[must_use]
    pub fn unsupported_capability(capability: &[u8]) -> Self {
        Self::with(OPEN, 7, capability)
    }

    /// 2/11: the roles of the two sides do not fit (RFC 9234).
    #[must_use]
    pub const fn role_mismatch() -> Self {
        Self::new(OPEN, 11)
    }

    // UPDATE errors, RFC 4271 §6.3 as far as RFC 7606 left them.

    /// 3/1: the parts of the UPDATE do not add up, or MP_REACH_NLRI or MP_UNREACH_NLRI came twice.
    #[must_use]
    pub const fn malformed_attribute_list() -> Self {
        Self::new(UPDATE, 1)
    }

    /// 3/2: a well-known attribute that we do not know. Data: the attribute.
    #[must_use]
    pub fn unrecognized_well_known_attribute(attribute: &[u8]) -> Self {
        Self::with(UPDATE, 2, attribute)
    }

    /// 3/3: a mandatory attribute is absent. Data: its type code.
    #[must_use]
    pub fn missing_well_known_attribute(code: u8) -> Self {
        Self::with(UPDATE, 3, &[code])
    }

    /// 3/4: an attribute's flags conflict with its type. Data: the attribute.
    #[must_use]
    pub fn attribute_flags_error(attribute: &[u8]) -> Self {
        Self::with(UPDATE, 4, attribute)
    }

    /// 3/5: an attribute's length is not one it can have. Data: the attribute.
    #[must_use]
    pub fn attribute_length_error(attribute: &[u8]) -> Self {
        Self::with(UPDATE, 5, attribute)
    }

    /// 3/6: ORIGIN has an undefined value. Data: the attribute.
    #[must_use]
    pub fn invalid_origin(attribute: &[u8]) -> Self {
        Self::with(UPDATE, 6, attribute)
    }

    /// 3/8: NEXT_HOP is not an address of a router. Data: the attribute.
    #[must_use]
    pub fn invalid_next_hop(attribute: &[u8]) -> Self {
        Self::with(UPDATE, 8, attribute)
    }

    /// 3/9: an optional attribute cannot be read. Data: the attribute.
    #[must_use]
    pub fn optional_attribute_error(attribute: &[u8]) -> Self {
        Self::with(UPDATE, 9, attribute)
    }

    /// 3/10: the prefixes of the NLRI or withdrawn routes field cannot be read.
    #[must_use]
    pub const fn invalid_network_field() -> Self {
        Self::new(UPDATE, 10)
    }

    /// 3/11: AS_PATH cannot be read.
    #[must_use]
    pub const fn malformed_as_path() -> Self {
        Self::new(UPDATE, 11)
    }

    // Everything else.

    /// 4/0: nothing was heard for the hold time (RFC 4271 §6.5).
    #[must_use]
    pub const fn hold_timer_expired() -> Self {
        Self::new(HOLD_TIMER, 0)
    }

    /// 5/1: `message_type` came while only OPEN was expected (RFC 6608). Data: the type.
    #[must_use]
    pub fn unexpected_in_open_sent(message_type: u8) -> Self {
        Self::with(STATE, 1, &[message_type])
    }

    /// 5/2: `message_type` came while only KEEPALIVE was expected (RFC 6608). Data: the type.
    #[must_use]
    pub fn unexpected_in_open_confirm(message_type: u8) -> Self {
        Self::with(STATE, 2, &[message_type])
    }

    /// 5/3: `message_type` came on an established session (RFC 6608). Data: the type.
    #[must_use]
    pub fn unexpected_in_established(message_type: u8) -> Self {
        Self::with(STATE, 3, &[message_type])
    }

    /// 6/x without data (RFC 4486).
    #[must_use]
    pub const fn cease(reason: Cease) -> Self {
        Self::new(CEASE, reason as u8)
    }

    /// 6/1 with the limit that was passed: family codes and the bound (RFC 4486 §4).
    #[must_use]
    pub fn maximum_prefixes(family: crate::types::Family, limit: u32) -> Self {
        let mut data = BytesMut::with_capacity(7);
        data.put_u16(family.afi());
        data.put_u8(family.safi());
        data.put_u32(limit);
        Self {
            code: CEASE,
            subcode: Cease::MaximumPrefixes as u8,
            data: data.freeze(),
        }
    }

    /// 6/2 with a text for the other side's operators, cut at 255 octets (RFC 9003).
    #[must_use]
    pub fn administrative_shutdown(communication: &str) -> Self {
        Self::with_communication(Cease::AdministrativeShutdown, communication)
    }

    /// 6/4 with a text for the other side's operators, cut at 255 octets (RFC 9003).
    #[must_use]
    pub fn administrative_reset(communication: &str) -> Self {
        Self::with_communication(Cease::AdministrativeReset, communication)
    }

    fn with_communication(reason: Cease, text: &str) -> Self {
        let mut end = text.len().min(SHUTDOWN_COMMUNICATION_LIMIT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text.get(..end).unwrap_or_default();
        let mut data = BytesMut::with_capacity(1 + text.len());
        // Cut above to at most 255 octets.
        data.put_u8(u8::try_from(text.len()).unwrap_or_default());
        data.put_slice(text.as_bytes());
        Self {
            code: CEASE,
            subcode: reason as u8,
            data: data.freeze(),
        }
    }

    /// 6/9: `inner`, with the demand not to keep routes for it (RFC 8538 §3.1). Data: the code,
    /// subcode and data of `inner`.
    #[must_use]
    pub fn hard_reset(inner: &Self) -> Self {
        let mut data = BytesMut::with_capacity(2 + inner.data.len());
        data.put_u8(inner.code);
        data.put_u8(inner.subcode);
        data.put_slice(&inner.data);
        Self {
            code: CEASE,
            subcode: Cease::HardReset as u8,
            data: data.freeze(),
        }
    }

    /// 7/1: a ROUTE-REFRESH of a wrong length (RFC 7313 §5). Data: the whole message.
    #[must_use]
    pub fn invalid_refresh_length(message: &[u8]) -> Self {
        Self::with(ROUTE_REFRESH, 1, message)
    }

    /// 8/0: the peer took nothing from us for the send hold time (RFC 9687).
    #[must_use]
    pub const fn send_hold_timer_expired() -> Self {
        Self::new(SEND_HOLD_TIMER, 0)
    }

    /// Whether this is Cease with the given reason.
    #[must_use]
    pub const fn is_cease(&self, reason: Cease) -> bool {
        self.code == CEASE && self.subcode == reason as u8
    }

    /// What a hard reset carries inside (RFC 8538), if this is one and it carries anything.
    #[must_use]
    pub fn hard_reset_inner(&self) -> Option<Self> {
        match self.data.as_ref() {
            [code, subcode, data @ ..] if self.is_cease(Cease::HardReset) => {
                Some(Self::with(*code, *subcode, data))
            }
            _ => None,
        }
    }

    /// The text for operators in an administrative shutdown or reset (RFC 9003), if there is one
    /// that can be read. Control characters are escaped: it goes into logs and terminals.
    #[must_use]
    pub fn shutdown_communication(&self) -> Option<String> {
        if !self.is_cease(Cease::AdministrativeShutdown)
            && !self.is_cease(Cease::AdministrativeReset)
        {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let text = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
        let mut printable = String::with_capacity(text.len());
        for character in text.chars() {
            if character.is_control() {
                printable.extend(character.escape_default());
            } else {
                printable.push(character);
            }
        }
        (!printable.is_empty()).then_some(printable)
    }

    /// What code and subcode mean, in words.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match (self.code, self.subcode) {
            (HEADER, 1) => "connection not synchronized",
            (HEADER, 2) => "bad message length",
            (HEADER, 3) => "bad message type",
            (HEADER, _) => "message header error",
            (OPEN, 1) => "unsupported version number",
            (OPEN, 2) => "bad peer AS",
            (OPEN, 3) => "bad BGP identifier",
            (OPEN, 4) => "unsupported optional parameter",
            (OPEN, 5) => "authentication failure",
            (OPEN, 6) => "unacceptable hold time",
            (OPEN, 7) => "unsupported capability",
            (OPEN, 11) => "role mismatch",
            (OPEN, _) => "OPEN message error",
            (UPDATE, 1) => "malformed attribute list",
            (UPDATE, 2) => "unrecognized well-known attribute",
            (UPDATE, 3) => "missing well-known attribute",
            (UPDATE, 4) => "attribute flags error",
            (UPDATE, 5) => "attribute length error",
            (UPDATE, 6) => "invalid ORIGIN attribute",
            (UPDATE, 8) => "invalid NEXT_HOP attribute",
            (UPDATE, 9) => "optional attribute error",
            (UPDATE, 10) => "invalid network field",
            (UPDATE, 11) => "malformed AS_PATH",
            (UPDATE, _) => "UPDATE message error",
            (HOLD_TIMER, _) => "hold timer expired",
            (STATE, 1) => "unexpected message in OpenSent",
            (STATE, 2) => "unexpected message in OpenConfirm",
            (STATE, 3) => "unexpected message in Established",
            (STATE, _) => "finite state machine error",
            (CEASE, 1) => "maximum number of prefixes reached",
            (CEASE, 2) => "administrative shutdown",
            (CEASE, 3) => "peer deconfigured",
            (CEASE, 4) => "administrative reset",
            (CEASE, 5) => "connection rejected",
            (CEASE, 6) => "other configuration change",
            (CEASE, 7) => "connection collision resolution",
            (CEASE, 8) => "out of resources",
            (CEASE, 9) => "hard reset",
            (CEASE, 10) => "BFD down",
            (CEASE, _) => "cease",
            (ROUTE_REFRESH, 1) => "invalid ROUTE-REFRESH length",
            (ROUTE_REFRESH, _) => "ROUTE-REFRESH message error",
            (SEND_HOLD_TIMER, _) => "send hold timer expired",
            _ => "unknown error",
        }
    }
}

impl fmt::Display for Notification {
    /// Writes `administrative shutdown (6/2): "maintenance"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{})", self.name(), self.code, self.subcode)?;
        if let Some(details) = self.details() {
            write!(f, ": {details}")?;
        }
        if let Some(text) = self.shutdown_communication() {
            write!(f, ": \"{text}\"")?;
        }
        if let Some(inner) = self.hard_reset_inner() {
            // Not recursive: a peer could nest hard resets some thousand deep.
            write!(
                f,
                " for {} ({}/{})",
                inner.name(),
                inner.code,
                inner.subcode
            )?;
            if let Some(details) = inner.details() {
                write!(f, ": {details}")?;
            }
            if let Some(text) = inner.shutdown_communication() {
                write!(f, ": \"{text}\"")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Notification {}

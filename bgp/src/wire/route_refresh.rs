//! The ROUTE-REFRESH message (RFC 2918, RFC 7313).

use bytes::{BufMut, BytesMut};

use crate::types::Family;

use super::Notification;

/// What a ROUTE-REFRESH says (RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefreshSubtype {
    /// Asks for every route again.
    Request,
    /// Says that every route now follows (BoRR).
    Begin,
    /// Says that every route has been sent (EoRR).
    End,
    /// A kind the speaker does not know: to be ignored.
    Unknown(u8),
}

/// A ROUTE-REFRESH message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// The family meant.
    pub family: Family,
    /// What is said about it. Means something only where enhanced route refresh is negotiated:
    /// without it every message is a request (RFC 2918 §3 has the octet reserved and ignored).
    pub subtype: RefreshSubtype,
}

impl RefreshSubtype {
    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Request,
            1 => Self::Begin,
            2 => Self::End,
            other => Self::Unknown(other),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Begin => 1,
            Self::End => 2,
            Self::Unknown(code) => code,
        }
    }
}

impl RouteRefresh {
    /// Reads a message's body. `None` for a family the speaker does not carry (RFC 2918 §4).
    /// `message` is the whole, for the data of an error.
    pub(super) fn decode(body: &[u8], message: &[u8]) -> Result<Option<Self>, Notification> {
        let [afi_high, afi_low, subtype, safi, rest @ ..] = body else {
            // Framing has checked the length.
            return Err(Notification::invalid_refresh_length(message));
        };
        let subtype = RefreshSubtype::from_code(*subtype);
        // A request may be longer: outbound route filters (RFC 5291), which we never negotiate
        // and so leave unread.
        if !rest.is_empty() && matches!(subtype, RefreshSubtype::Begin | RefreshSubtype::End) {
            return Err(Notification::invalid_refresh_length(message));
        }
        let afi = u16::from_be_bytes([*afi_high, *afi_low]);
        let family = Family::from_codes(afi, *safi);
        Ok(family.map(|family| Self { family, subtype }))
    }

    /// Appends the message's body.
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.family.afi());
        out.put_u8(self.subtype.code());
        out.put_u8(self.family.safi());
    }
}

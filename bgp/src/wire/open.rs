//! The OPEN message.

use bytes::{BufMut, BytesMut};
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use crate::types::{Asn, RouterId};

use super::{Capability, EncodeError, Notification};

/// The only version there is.
const VERSION: u8 = 4;

/// The optional parameter that holds capabilities (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;

/// The parameter type that says: lengths have two octets from here on (RFC 9072 §2).
const PARAMETER_EXTENDED: u8 = 255;

/// An OPEN message of version 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS number: the one of the four-octet capability when there is one, else the
    /// header's two octets.
    pub asn: Asn,
    /// The hold time it proposes, in seconds: 0 (no keepalives) or at least 3.
    pub hold_time: u16,
    /// Its identifier, never zero.
    pub router_id: RouterId,
    /// What it can do, in the order sent. [`Capability::FourOctetAsn`] is not implied by `asn`.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// The first of the capabilities that `pick` accepts, mapped by it.
    pub fn find<'a, T>(&'a self, pick: impl Fn(&'a Capability) -> Option<T>) -> Option<T> {
        self.capabilities.iter().find_map(pick)
    }

    /// Whether exactly this capability was sent.
    #[must_use]
    pub fn has(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }

    /// Reads a message's body.
    pub(super) fn decode(body: &[u8]) -> Result<Self, Notification> {
        let malformed = |_| Notification::malformed_open();
        // The version comes first: what follows means nothing if it is another.
        let (rest, version) = be_u8::<_, ()>(body).map_err(malformed)?;
        if version != VERSION {
            return Err(Notification::unsupported_version());
        }
        let (rest, (asn, hold_time, router_id)) =
            header(rest).map_err(|_| Notification::malformed_open())?;
        let mut capabilities = Vec::new();
        for parameter in split_parameters(rest)? {
            if parameter.kind != PARAMETER_CAPABILITIES {
                return Err(Notification::unsupported_optional_parameter());
            }
            Capability::decode_all(parameter.value, &mut capabilities)
                .map_err(|_| Notification::malformed_open())?;
        }
        let four_octets = capabilities.iter().find_map(|capability| match capability {
            Capability::FourOctetAsn(asn) => Some(*asn),
            _ => None,
        });
        // RFC 7607 §2 for both numbers.
        let asn = four_octets.unwrap_or(Asn(u32::from(asn)));
        if asn == Asn::ZERO {
            return Err(Notification::bad_peer_as());
        }
        if matches!(hold_time, 1 | 2) {
            return Err(Notification::unacceptable_hold_time());
        }
        if router_id == 0 {
            return Err(Notification::bad_router_id());
        }
        Ok(Self {
            asn,
            hold_time,
            router_id: RouterId(router_id),
            capabilities,
        })
    }

    /// Appends the message's body. All capabilities go into one parameter; RFC 9072's form is used
    /// when they need it, and only then, because older routers do not know it.
    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut capabilities = BytesMut::new();
        for capability in &self.capabilities {
            capability.encode(&mut capabilities)?;
        }
        out.put_u8(VERSION);
        out.put_u16(self.asn.to_two_octets());
        out.put_u16(self.hold_time);
        out.put_u32(self.router_id.0);
        match u8::try_from(capabilities.len()) {
            Ok(0) => out.put_u8(0),
            Ok(length @ 1..=253) => {
                out.put_u8(length + 2);
                out.put_u8(PARAMETER_CAPABILITIES);
                out.put_u8(length);
            }
            _ => {
                out.put_u8(255);
                out.put_u8(PARAMETER_EXTENDED);
                out.put_u16(u16_length(capabilities.len() + 3)?);
                out.put_u8(PARAMETER_CAPABILITIES);
                out.put_u16(u16_length(capabilities.len())?);
            }
        }
        out.put_slice(&capabilities);
        Ok(())
    }
}

fn u16_length(length: usize) -> Result<u16, EncodeError> {
    u16::try_from(length).map_err(|_| EncodeError::FieldTooLong {
        field: "capabilities",
        length,
        limit: usize::from(u16::MAX),
    })
}

/// AS number, hold time and identifier.
fn header(octets: &[u8]) -> IResult<&[u8], (u16, u16, u32), ()> {
    (be_u16, be_u16, be_u32).parse(octets)
}

struct Parameter<'a> {
    kind: u8,
    value: &'a [u8],
}

/// Cuts the optional parameters apart, in the form of RFC 4271 §4.2 or RFC 9072 §2. They must fill
/// the message exactly.
fn split_parameters(octets: &[u8]) -> Result<Vec<Parameter<'_>>, Notification> {
    let (extended, length, mut rest) = match octets {
        [0] => return Ok(Vec::new()),
        // RFC 9072 §2: the type decides, and the first length is then not looked at.
        [1..=255, PARAMETER_EXTENDED, high, low, rest @ ..] => {
            (true, usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        [length, rest @ ..] => (false, usize::from(*length), rest),
        [] => return Err(Notification::malformed_open()),
    };
    if length != rest.len() {
        return Err(Notification::malformed_open());
    }
    let mut parameters = Vec::new();
    while !rest.is_empty() {
        let (after, parameter) =
            parameter(rest, extended).map_err(|_| Notification::malformed_open())?;
        parameters.push(parameter);
        rest = after;
    }
    Ok(parameters)
}

fn parameter(octets: &[u8], extended: bool) -> IResult<&[u8], Parameter<'_>, ()> {
    let (rest, kind) = be_u8(octets)?;
    let (rest, value) = if extended {
        nom::multi::length_data(be_u16).parse(rest)?
    } else {
        nom::multi::length_data(be_u8).parse(rest)?
    };
    Ok((rest, Parameter { kind, value }))
}

//! Capabilities in octets.

use bytes::{BufMut, Bytes, BytesMut};
use nom::bytes::complete::take;
use nom::combinator::all_consuming;
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u24, be_u32};
use nom::{IResult, Parser};

use crate::types::{Asn, Family};
use crate::wire::EncodeError;

use super::{
    AddPathMode, Capability, ExtendedNextHop, GracefulRestart, GracefulRestartFamily,
    LongLivedFamily, Role,
};

mod code {
    pub(super) const MULTIPROTOCOL: u8 = 1;
    pub(super) const ROUTE_REFRESH: u8 = 2;
    pub(super) const EXTENDED_NEXT_HOP: u8 = 5;
    pub(super) const EXTENDED_MESSAGE: u8 = 6;
    pub(super) const ROLE: u8 = 9;
    pub(super) const GRACEFUL_RESTART: u8 = 64;
    pub(super) const FOUR_OCTET_ASN: u8 = 65;
    pub(super) const ADD_PATH: u8 = 69;
    pub(super) const ENHANCED_ROUTE_REFRESH: u8 = 70;
    pub(super) const LONG_LIVED_GRACEFUL_RESTART: u8 = 71;
}

// Flags of the graceful restart capabilities.
const RESTARTING: u16 = 0x8000;
const NOTIFICATION: u16 = 0x4000;
const RESTART_TIME: u16 = 0x0fff;
const FORWARDING: u8 = 0x80;

impl Role {
    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Provider,
            1 => Self::RouteServer,
            2 => Self::RouteServerClient,
            3 => Self::Customer,
            4 => Self::Peer,
            other => Self::Unknown(other),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Provider => 0,
            Self::RouteServer => 1,
            Self::RouteServerClient => 2,
            Self::Customer => 3,
            Self::Peer => 4,
            Self::Unknown(code) => code,
        }
    }
}

/// What a capability's parser returns: `()` as error because every one has the same answer, a
/// NOTIFICATION 2/0 without data.
type Parsed<'a, T> = IResult<&'a [u8], T, ()>;

impl Capability {
    /// The capability's code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Multiprotocol(_) => code::MULTIPROTOCOL,
            Self::RouteRefresh => code::ROUTE_REFRESH,
            Self::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Self::ExtendedMessage => code::EXTENDED_MESSAGE,
            Self::Role(_) => code::ROLE,
            Self::GracefulRestart(_) => code::GRACEFUL_RESTART,
            Self::FourOctetAsn(_) => code::FOUR_OCTET_ASN,
            Self::AddPath(_) => code::ADD_PATH,
            Self::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Self::LongLivedGracefulRestart(_) => code::LONG_LIVED_GRACEFUL_RESTART,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// Reads the capabilities of one optional parameter. An error when a length does not fit, be
    /// it of a capability in the parameter or of what is in a capability.
    pub(in crate::wire) fn decode_all(
        mut octets: &[u8],
        capabilities: &mut Vec<Self>,
    ) -> Result<(), nom::Err<()>> {
        while !octets.is_empty() {
            let (rest, (code, value)) = (be_u8, length_data(be_u8)).parse(octets)?;
            let (_, capability) = all_consuming(|v| Self::decode(code, v)).parse(value)?;
            capabilities.push(capability);
            octets = rest;
        }
        Ok(())
    }

    fn decode(code: u8, value: &[u8]) -> Parsed<'_, Self> {
        match code {
            code::MULTIPROTOCOL => {
                let (rest, family) = multiprotocol(value)?;
                let unknown = || Self::Unknown {
                    code,
                    value: Bytes::copy_from_slice(value),
                };
                Ok((rest, family.map_or_else(unknown, Self::Multiprotocol)))
            }
            code::ROUTE_REFRESH => Ok((value, Self::RouteRefresh)),
            code::EXTENDED_NEXT_HOP => many0(extended_next_hop)
                .map(|all| Self::ExtendedNextHop(all.into_iter().flatten().collect()))
                .parse(value),
            code::EXTENDED_MESSAGE => Ok((value, Self::ExtendedMessage)),
            code::ROLE => be_u8
                .map(|role| Self::Role(Role::from_code(role)))
                .parse(value),
            code::GRACEFUL_RESTART => graceful_restart(value),
            code::FOUR_OCTET_ASN => be_u32.map(|n| Self::FourOctetAsn(Asn(n))).parse(value),
            code::ADD_PATH => many0(add_path)
                .map(|all| Self::AddPath(all.into_iter().flatten().collect()))
                .parse(value),
            code::ENHANCED_ROUTE_REFRESH => Ok((value, Self::EnhancedRouteRefresh)),
            code::LONG_LIVED_GRACEFUL_RESTART => many0(long_lived)
                .map(|all| Self::LongLivedGracefulRestart(all.into_iter().flatten().collect()))
                .parse(value),
            _ => take(value.len())
                .map(|value| Self::Unknown {
                    code,
                    value: Bytes::copy_from_slice(value),
                })
                .parse(value),
        }
    }

    /// Appends the capability as code, length and value.
    pub(in crate::wire) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut value = BytesMut::new();
        self.encode_value(&mut value)?;
        let length = u8::try_from(value.len()).map_err(|_| EncodeError::FieldTooLong {
            field: "capability",
            length: value.len(),
            limit: usize::from(u8::MAX),
        })?;
        out.put_u8(self.code());
        out.put_u8(length);
        out.put_slice(&value);
        Ok(())
    }

    fn encode_value(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self {
            Self::Multiprotocol(family) => {
                out.put_u16(family.afi());
                out.put_u8(0);
                out.put_u8(family.safi());
            }
            Self::RouteRefresh | Self::ExtendedMessage | Self::EnhancedRouteRefresh => {}
            Self::ExtendedNextHop(all) => {
                for entry in all {
                    out.put_u16(entry.family.afi());
                    out.put_u16(u16::from(entry.family.safi()));
                    out.put_u16(entry.next_hop_afi);
                }
            }
            Self::Role(role) => out.put_u8(role.code()),
            Self::GracefulRestart(restart) => encode_graceful_restart(restart, out)?,
            Self::FourOctetAsn(asn) => out.put_u32(asn.0),
            Self::AddPath(all) => {
                for (family, mode) in all {
                    put_family(out, *family);
                    out.put_u8(match mode {
                        AddPathMode::Receive => 1,
                        AddPathMode::Send => 2,
                        AddPathMode::Both => 3,
                    });
                }
            }
            Self::LongLivedGracefulRestart(all) => {
                for entry in all {
                    put_family(out, entry.family);
                    out.put_u8(forwarding_flag(entry.forwarding));
                    let [highest, rest @ ..] = entry.stale_time.to_be_bytes();
                    if highest != 0 {
                        return Err(EncodeError::ValueTooLarge {
                            field: "long-lived stale time",
                            value: entry.stale_time,
                            limit: 0x00ff_ffff,
                        });
                    }
                    out.put_slice(&rest);
                }
            }
            Self::Unknown { value, .. } => out.put_slice(value),
        }
        Ok(())
    }
}

fn encode_graceful_restart(
    restart: &GracefulRestart,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    if restart.restart_time > RESTART_TIME {
        return Err(EncodeError::ValueTooLarge {
            field: "restart time",
            value: restart.restart_time.into(),
            limit: RESTART_TIME.into(),
        });
    }
    let mut head = restart.restart_time;
    if restart.restarting {
        head |= RESTARTING;
    }
    if restart.notification {
        head |= NOTIFICATION;
    }
    out.put_u16(head);
    for entry in &restart.families {
        put_family(out, entry.family);
        out.put_u8(forwarding_flag(entry.forwarding));
    }
    Ok(())
}

const fn forwarding_flag(forwarding: bool) -> u8 {
    if forwarding { FORWARDING } else { 0 }
}

fn put_family(out: &mut BytesMut, family: Family) {
    out.put_u16(family.afi());
    out.put_u8(family.safi());
}

fn family(octets: &[u8]) -> Parsed<'_, Option<Family>> {
    (be_u16, be_u8)
        .map(|(afi, safi)| Family::from_codes(afi, safi))
        .parse(octets)
}

fn multiprotocol(octets: &[u8]) -> Parsed<'_, Option<Family>> {
    (be_u16, be_u8, be_u8)
        .map(|(afi, _reserved, safi)| Family::from_codes(afi, safi))
        .parse(octets)
}

fn extended_next_hop(octets: &[u8]) -> Parsed<'_, Option<ExtendedNextHop>> {
    (be_u16, be_u16, be_u16)
        .map(|(afi, safi, next_hop_afi)| {
            let family = Family::from_codes(afi, u8::try_from(safi).ok()?)?;
            Some(ExtendedNextHop {
                family,
                next_hop_afi,
            })
        })
        .parse(octets)
}

fn graceful_restart(octets: &[u8]) -> Parsed<'_, Capability> {
    (be_u16, many0((family, be_u8)))
        .map(|(head, all)| {
            let families = all.into_iter().filter_map(|(family, flags)| {
                Some(GracefulRestartFamily {
                    family: family?,
                    forwarding: flags & FORWARDING != 0,
                })
            });
            Capability::GracefulRestart(GracefulRestart {
                restarting: head & RESTARTING != 0,
                notification: head & NOTIFICATION != 0,
                restart_time: head & RESTART_TIME,
                families: families.collect(),
            })
        })
        .parse(octets)
}

/// A mode that is not defined makes the entry count for nothing (RFC 7911 §4).
fn add_path(octets: &[u8]) -> Parsed<'_, Option<(Family, AddPathMode)>> {
    (family, be_u8)
        .map(|(family, mode)| {
            let mode = match mode {
                1 => AddPathMode::Receive,
                2 => AddPathMode::Send,
                3 => AddPathMode::Both,
                _ => return None,
            };
            Some((family?, mode))
        })
        .parse(octets)
}

fn long_lived(octets: &[u8]) -> Parsed<'_, Option<LongLivedFamily>> {
    (family, be_u8, be_u24)
        .map(|(family, flags, stale_time)| {
            Some(LongLivedFamily {
                family: family?,
                forwarding: flags & FORWARDING != 0,
                stale_time,
            })
        })
        .parse(octets)
}

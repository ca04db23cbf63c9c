//! Routes into UPDATE messages, as few as their size allows.
//!
//! Every message holds one kind of route only: withdrawn or announced, in RFC 4271's fields or in
//! RFC 4760's attributes, and the attribute with routes comes first (RFC 7606 §5.1). IPv4 routes
//! with an IPv4 next hop go into the fields, all others into the attributes.

use std::iter::Peekable;

use bytes::{BufMut, BytesMut};

use crate::types::Family;

use super::attributes::{attribute_code, encode_attributes, write_wide_header};
use super::frame::{write_length, write_message};
use super::multiprotocol::write_reach_head;
use super::nlri::{nlri_length, write_nlri};
use super::{
    Context, EncodeError, MAX_MESSAGE_LENGTH, MessageType, NextHop, Nlri, PathAttributes,
    SessionKind, Update,
};

/// Appends the UPDATE messages that announce `routes`, all of one family, and returns how many.
///
/// Path identifiers are written where [`Context::add_path_send`] says so. LOCAL_PREF,
/// ORIGINATOR_ID and CLUSTER_LIST are left out towards external peers. No route, no message.
///
/// # Errors
/// When the attributes leave no room for a route, the next hop is not one the session allows, or a
/// route is of another family. `out` is then as it was.
pub fn encode_reach(
    attributes: &PathAttributes,
    family: Family,
    next_hop: &NextHop,
    routes: impl IntoIterator<Item = Nlri>,
    context: &Context,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let by_field = family == Family::Ipv4Unicast && matches!(next_hop, NextHop::V4(_));
    let mut block = BytesMut::new();
    encode_attributes(
        attributes,
        by_field.then_some(next_hop),
        context,
        &mut block,
    )?;
    let mut head = BytesMut::new();
    if !by_field {
        write_reach_head(family, next_hop, context, &mut head)?;
    }
    let packer = Packer {
        family,
        add_path: context.add_path_send.contains(family),
        limit: context.max_message_length(),
    };
    packer.pack(routes, out, |out, fill| {
        out.put_u16(0);
        let position = out.len();
        out.put_u16(0);
        if by_field {
            out.put_slice(&block);
            write_length(out, position, block.len(), "path attributes")?;
            return fill(out, 0);
        }
        let field = write_wide_header(attribute_code::MP_REACH_NLRI, out);
        out.put_slice(&head);
        fill(out, block.len())?;
        write_length(out, field, out.len() - field - 2, "MP_REACH_NLRI")?;
        out.put_slice(&block);
        write_length(out, position, out.len() - position - 2, "path attributes")
    })
}

/// Appends the UPDATE messages that withdraw `routes`, all of one family, and returns how many.
/// No route, no message: so as not to send an End-of-RIB by mistake.
///
/// # Errors
/// When a route is of another family. `out` is then as it was.
pub fn encode_withdraw(
    family: Family,
    routes: impl IntoIterator<Item = Nlri>,
    context: &Context,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let packer = Packer {
        family,
        add_path: context.add_path_send.contains(family),
        limit: context.max_message_length(),
    };
    packer.pack(routes, out, |out, fill| {
        if family == Family::Ipv4Unicast {
            let position = out.len();
            out.put_u16(0);
            // The empty path attributes follow.
            fill(out, 2)?;
            write_length(out, position, out.len() - position - 2, "withdrawn routes")?;
            out.put_u16(0);
            return Ok(());
        }
        out.put_u16(0);
        let position = out.len();
        out.put_u16(0);
        let field = write_wide_header(attribute_code::MP_UNREACH_NLRI, out);
        out.put_u16(family.afi());
        out.put_u8(family.safi());
        fill(out, 0)?;
        write_length(out, field, out.len() - field - 2, "MP_UNREACH_NLRI")?;
        write_length(out, position, out.len() - position - 2, "path attributes")
    })
}

/// Appends the message that says that every initial route of `family` has been sent
/// (RFC 4724 §2).
///
/// # Errors
/// None in practice: the message is 23 or 29 octets long.
pub fn encode_end_of_rib(family: Family, out: &mut BytesMut) -> Result<(), EncodeError> {
    write_message(out, MessageType::Update, MAX_MESSAGE_LENGTH, |out| {
        out.put_u16(0);
        match family {
            Family::Ipv4Unicast => out.put_u16(0),
            Family::Ipv6Unicast => {
                let position = out.len();
                out.put_u16(0);
                let field = write_wide_header(attribute_code::MP_UNREACH_NLRI, out);
                out.put_u16(family.afi());
                out.put_u8(family.safi());
                write_length(out, field, out.len() - field - 2, "MP_UNREACH_NLRI")?;
                write_length(out, position, out.len() - position - 2, "path attributes")?;
            }
        }
        Ok(())
    })
}

/// The attributes of a route as a dump of a RIB has them (RFC 6396 §4.3.4): AS numbers with four octets, everything that
/// internal peers may see, and of MP_REACH_NLRI the next hop only. Empty if they cannot be written.
#[must_use]
pub fn encode_rib_attributes(attributes: &PathAttributes, next_hop: &NextHop) -> Vec<u8> {
    let context = Context {
        four_octet_asn: true,
        session: SessionKind::Internal,
        ..Context::default()
    };
    let mut out = BytesMut::new();
    let by_field = matches!(next_hop, NextHop::V4(_)).then_some(next_hop);
    if encode_attributes(attributes, by_field, &context, &mut out).is_err() {
        return Vec::new();
    }
    if let NextHop::V6 { global, link_local } = next_hop {
        let addresses = std::iter::once(global).chain(link_local);
        let value: Vec<u8> = addresses.flat_map(|address| address.octets()).collect();
        // 16 or 32 octets, and one for how many.
        let length = value.len() as u8;
        out.put_slice(&[0x80, attribute_code::MP_REACH_NLRI, length + 1, length]);
        out.put_slice(&value);
    }
    out.to_vec()
}

/// Appends an UPDATE as the messages it takes, and returns how many.
pub(super) fn encode_update(
    update: &Update,
    context: &Context,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let start = out.len();
    let mut write = || {
        let mut messages = 0;
        for family in Family::ALL {
            let routes = update.withdrawn.iter().copied();
            let routes = routes.filter(|route| route.prefix.family() == family);
            messages += encode_withdraw(family, routes, context, out)?;
        }
        for reach in &update.reach {
            messages += encode_reach(
                &update.attributes,
                reach.family,
                &reach.next_hop,
                reach.nlri.iter().copied(),
                context,
                out,
            )?;
        }
        Ok(messages)
    };
    let result = write();
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// What decides how many routes a message takes.
struct Packer {
    family: Family,
    add_path: bool,
    /// The longest message, in octets.
    limit: usize,
}

impl Packer {
    /// Writes messages until there are no routes left. `body` writes one message's body and calls
    /// the function it is given where the routes go, with how many octets will follow them.
    fn pack(
        &self,
        routes: impl IntoIterator<Item = Nlri>,
        out: &mut BytesMut,
        body: impl Fn(
            &mut BytesMut,
            &mut dyn FnMut(&mut BytesMut, usize) -> Result<(), EncodeError>,
        ) -> Result<(), EncodeError>,
    ) -> Result<usize, EncodeError> {
        let mut routes = routes.into_iter().peekable();
        let start = out.len();
        let mut messages = 0;
        while routes.peek().is_some() {
            let message = out.len();
            let result = write_message(out, MessageType::Update, self.limit, |out| {
                body(out, &mut |out, after| {
                    self.fill(&mut routes, out, message, after)
                })
            });
            if let Err(error) = result {
                out.truncate(start);
                return Err(error);
            }
            messages += 1;
        }
        Ok(messages)
    }

    /// Writes as many routes as fit the message that started at `message` and has `after` octets
    /// still to come; at least one, or it is an error.
    fn fill(
        &self,
        routes: &mut Peekable<impl Iterator<Item = Nlri>>,
        out: &mut BytesMut,
        message: usize,
        after: usize,
    ) -> Result<(), EncodeError> {
        let before = out.len();
        while let Some(route) = routes.peek() {
            if route.prefix.family() != self.family {
                return Err(EncodeError::FamilyMismatch {
                    family: self.family,
                });
            }
            let length = out.len() - message + nlri_length(route, self.add_path) + after;
            if length > self.limit {
                if out.len() > before {
                    break;
                }
                return Err(EncodeError::TooLong {
                    length,
                    limit: self.limit,
                });
            }
            write_nlri(out, route, self.add_path);
            routes.next();
        }
        Ok(())
    }
}

//! The plain UPDATE, and its attributes as octets: what a table transfer mostly consists of.
//!
//! A full table repeats its attribute sets, and reading an attribute set costs many times what reading a route does. Whoever
//! remembers what an attribute block says ([`decode_block`]) can do without reading it again, as long as the [`Context`] is
//! the same: what RFC 7606 has to say about an attribute depends on nothing else.

use crate::types::Family;

use super::attributes::{Announced, AttributeReader, Flow};
use super::nlri::NlriReader;
use super::update::Parts;
use super::{Context, HEADER_LENGTH, NextHop, PathAttributes};

/// An UPDATE with routes in the fields of RFC 4271, whose attributes have not been looked at.
#[derive(Clone, Debug)]
pub struct PlainUpdate<'a> {
    /// The routes withdrawn, to be handled before those announced.
    pub withdrawn: NlriReader<'a>,
    /// The attributes as they came. Of use only if this very block was taken by [`decode_block`] before: it may hold
    /// anything, routes as well.
    pub attributes: &'a [u8],
    /// The routes announced: at least one.
    pub announced: NlriReader<'a>,
}

impl<'a> PlainUpdate<'a> {
    /// The parts of a message that is an UPDATE and announces well-formed routes in its NLRI field; `None` for every other
    /// one, which is for [`decode`](super::decode) to deal with.
    #[must_use]
    pub fn split(message: &'a [u8], context: &Context) -> Option<Self> {
        let parts = Parts::split(message.get(HEADER_LENGTH..)?).ok()?;
        let family = Family::Ipv4Unicast;
        if parts.nlri.is_empty() || !context.families.contains(family) {
            return None;
        }
        let add_path = context.add_path_receive.contains(family);
        Some(Self {
            withdrawn: NlriReader::new(family, add_path, parts.withdrawn)?,
            attributes: parts.attributes,
            announced: NlriReader::new(family, add_path, parts.nlri)?,
        })
    }
}

/// What an attribute block says to routes in the NLRI field; `None` if anything is wrong with it, or if it holds routes
/// itself.
#[must_use]
pub fn decode_block(octets: &[u8], context: &Context) -> Option<(NextHop, PathAttributes)> {
    let mut reader = AttributeReader::new(octets, context);
    match reader.read() {
        Ok(Flow::End) => {}
        Ok(Flow::Routes { .. }) | Err(_) => return None,
    }
    let collected = reader.finish(Announced {
        by_field: true,
        by_attribute: false,
    });
    if collected.unusable.is_some() || !collected.faults.is_empty() {
        return None;
    }
    Some((collected.next_hop?, collected.attributes))
}

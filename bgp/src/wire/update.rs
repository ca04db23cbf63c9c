//! The UPDATE message: routes that go and routes that come, with what they share.

use crate::types::Family;

use super::{NextHop, Nlri, PathAttributes};

/// An UPDATE, with both encodings of a route (RFC 4271's fields and RFC 4760's attributes) brought
/// into one form.
///
/// The attributes are apart from NLRI and next hops so that a table can intern and share them.
/// An UPDATE that marks the end of a table is [`super::Message::EndOfRib`] instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The routes withdrawn, of all families. To be handled before `reach` (RFC 7606 §5.1 forbids
    /// a route in both, RFC 4271 §4.3 says the announcement wins).
    pub withdrawn: Vec<Nlri>,
    /// The routes announced: at most one entry for the NLRI field and one for MP_REACH_NLRI.
    pub reach: Vec<Reach>,
    /// What the routes in `reach` have in common. The default when `reach` is empty.
    pub attributes: PathAttributes,
}

/// Routes of one family with the next hop they share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The family of every prefix in `nlri`.
    pub family: Family,
    /// Their next hop.
    pub next_hop: NextHop,
    /// The routes.
    pub nlri: Vec<Nlri>,
}

//! The ROUTE-REFRESH message (RFC 2918, RFC 7313).

use crate::types::Family;

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
    /// What is said about it.
    pub subtype: RefreshSubtype,
}

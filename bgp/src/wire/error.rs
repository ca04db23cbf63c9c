//! Why a message could not be written.

use crate::types::Family;

/// A message that cannot be written. Nothing of it has been appended to the output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message would be longer than the session allows.
    #[error(
        "message of {length} octets is above the session's {limit}: shorten its attributes or negotiate extended messages"
    )]
    TooLong {
        /// What it would take, in octets.
        length: usize,
        /// What the session allows, in octets.
        limit: usize,
    },
    /// A field's length does not fit the octets that hold it.
    #[error("{field} of {length} octets is above its limit of {limit}")]
    FieldTooLong {
        /// The field.
        field: &'static str,
        /// Its length, in octets.
        length: usize,
        /// What fits, in octets.
        limit: usize,
    },
    /// A number does not fit the bits that hold it.
    #[error("{field} {value} is above its limit of {limit}")]
    ValueTooLarge {
        /// The field.
        field: &'static str,
        /// The number.
        value: u32,
        /// The largest that fits.
        limit: u32,
    },
    /// The next hop is not one the family can have on this session.
    #[error(
        "{family} routes cannot have a next hop of the other family: negotiate extended next hops (RFC 8950)"
    )]
    NextHop {
        /// The family of the routes.
        family: Family,
    },
    /// A route that is not of the family announced.
    #[error("prefix of another family among {family} routes")]
    FamilyMismatch {
        /// The family of the message.
        family: Family,
    },
    /// An attribute that is held unrecognised has the code of one that is not.
    #[error("attribute {code} cannot be passed on unrecognised: it has a field of its own")]
    KnownAttribute {
        /// The attribute's type code.
        code: u8,
    },
}

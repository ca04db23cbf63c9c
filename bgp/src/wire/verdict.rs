//! What to do about an UPDATE that is not quite right (RFC 7606).

use std::fmt;

/// What the decoder decided about a message it could read.
///
/// The message beside it is already the one to act on: what is discarded is gone from it, and
/// under [`Verdict::TreatAsWithdraw`] its announcements have become withdrawals. The verdict is for
/// logs and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was wrong.
    Accept,
    /// The faults were in attributes that can be left out (RFC 7606 §2 "attribute discard").
    DiscardedAttributes(Vec<AttributeFault>),
    /// At least one fault makes the routes unusable (RFC 7606 §2 "treat-as-withdraw").
    TreatAsWithdraw(Vec<AttributeFault>),
}

impl Verdict {
    /// Every fault found, in the order of the message.
    #[must_use]
    pub fn faults(&self) -> &[AttributeFault] {
        match self {
            Self::Accept => &[],
            Self::DiscardedAttributes(faults) | Self::TreatAsWithdraw(faults) => faults,
        }
    }
}

/// One thing wrong with one path attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeFault {
    /// The attribute's type code; 0 when the attribute's header itself could not be read.
    pub code: u8,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for AttributeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match super::attributes::attribute_name(self.code) {
            Some(name) => write!(f, "{name}: {}", self.fault),
            None => write!(f, "attribute {}: {}", self.code, self.fault),
        }
    }
}

/// What can be wrong with a path attribute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The optional or transitive bit is not what the attribute's definition says.
    #[error("flags {0:#04x} conflict with its type")]
    Flags(u8),
    /// The value's length, in octets, is not one the attribute can have.
    #[error("length {0} is not one it can have")]
    Length(usize),
    /// The attribute reaches past the end of the attributes.
    #[error("runs past the end of the path attributes")]
    Overrun,
    /// The value has no meaning.
    #[error("{0}")]
    Value(&'static str),
    /// A mandatory attribute is absent.
    #[error("missing")]
    Missing,
    /// The attribute came before in the same message; the first one counts.
    #[error("repeated")]
    Duplicate,
    /// This kind of peer may not send the attribute.
    #[error("not allowed from this peer")]
    NotAllowed,
    /// Routes of a family that was not negotiated.
    #[error("family AFI {afi} SAFI {safi} was not negotiated")]
    Family {
        /// The address family identifier.
        afi: u16,
        /// The subsequent address family identifier.
        safi: u8,
    },
}

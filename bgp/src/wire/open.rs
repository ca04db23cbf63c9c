//! The OPEN message.

use crate::types::{Asn, RouterId};

use super::Capability;

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
    /// The capabilities that `pick` accepts, mapped by it.
    pub fn find<'a, T>(&'a self, pick: impl Fn(&'a Capability) -> Option<T>) -> Option<T> {
        self.capabilities.iter().find_map(pick)
    }

    /// Whether a capability without content, or exactly this one, was sent.
    #[must_use]
    pub fn has(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }
}

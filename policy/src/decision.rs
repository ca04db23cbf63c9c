//! A decision: what one identity may do at one pod in one direction.
//!
//! However many policies and tiers took part, they have been flattened into this before anything is written, so that two
//! pods for which the outcome is the same share one decision, and one chain in the kernel.

use crate::region::Region;

/// Which traffic passes, and which is reported, in a normal form: equal decisions are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Decision {
    /// What passes.
    pub(crate) allowed: Region,
    /// What a Log rule reports, whatever becomes of it.
    pub(crate) logged: Region,
    /// What passes and would not if staged policies were in force.
    pub(crate) staged_denied: Region,
    /// What is dropped and would pass if staged policies were in force.
    pub(crate) staged_allowed: Region,
}

impl Decision {
    /// Nothing passes.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// Whether nothing is reported.
    pub(crate) fn is_silent(&self) -> bool {
        [&self.logged, &self.staged_denied, &self.staged_allowed]
            .iter()
            .all(|region| region.is_nothing())
    }

    /// Whether nothing passes and nothing is reported.
    pub(crate) fn is_nothing(&self) -> bool {
        self.allowed.is_nothing() && self.is_silent()
    }

    /// Whether everything passes and nothing is reported.
    pub(crate) fn is_everything(&self) -> bool {
        self.allowed.is_everything() && self.is_silent()
    }

    /// What holds when either may be the case: no more passes than with each, and what either reports is reported.
    #[must_use]
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self {
            allowed: self.allowed.and(&other.allowed),
            logged: self.logged.or(&other.logged),
            staged_denied: self.staged_denied.or(&other.staged_denied),
            staged_allowed: self.staged_allowed.or(&other.staged_allowed),
        }
    }
}

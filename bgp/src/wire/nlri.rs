//! Network layer reachability information: prefixes as an UPDATE lists them.

use std::fmt;

use crate::types::Prefix;

/// One route as announced or withdrawn: the prefix, and which of the peer's paths to it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// The prefix.
    pub prefix: Prefix,
    /// The path identifier, only where ADD-PATH is negotiated (RFC 7911).
    pub path_id: Option<u32>,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Self {
            prefix,
            path_id: None,
        }
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path_id {
            None => self.prefix.fmt(f),
            Some(id) => write!(f, "{} path {id}", self.prefix),
        }
    }
}

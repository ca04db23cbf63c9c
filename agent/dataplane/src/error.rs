//! What can go wrong at the kernel's edge, in words an operator can act on.
//!
//! A [`KernelError`] is one refused request; [`super::ApplyError`] adds which object it was for.
//! Netlink's own error type is never printed: it dumps the whole request.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// An errno as the kernel gave it (positive).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// Operation not permitted.
    pub const EPERM: Self = Self(1);
    /// No such file or directory; netlink says it of an absent neighbour or FDB entry.
    pub const ENOENT: Self = Self(2);
    /// No such process; netlink says it of an absent route.
    pub const ESRCH: Self = Self(3);
    /// Device or resource busy.
    pub const EBUSY: Self = Self(16);
    /// The object is there already.
    pub const EEXIST: Self = Self(17);
    /// No such device.
    pub const ENODEV: Self = Self(19);
    /// Invalid argument.
    pub const EINVAL: Self = Self(22);
    /// Operation not supported: the kernel was built without the feature.
    pub const EOPNOTSUPP: Self = Self(95);
    /// The address cannot be assigned; netlink says it of an address to delete that is absent.
    pub const EADDRNOTAVAIL: Self = Self(99);
    /// Network is down.
    pub const ENETDOWN: Self = Self(100);
    /// Network is unreachable.
    pub const ENETUNREACH: Self = Self(101);
    /// No route to host.
    pub const EHOSTUNREACH: Self = Self(113);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match *self {
            Self::EPERM => "not permitted: the process lacks the capability CAP_NET_ADMIN",
            Self::ENOENT | Self::ESRCH => "no such entry",
            Self::EEXIST => "already exists",
            Self::ENODEV => "no such device",
            Self::EINVAL => "invalid argument",
            Self::EOPNOTSUPP => "not supported by this kernel (is the module missing?)",
            Self::ENETDOWN => "the device is down",
            Self::ENETUNREACH => "the next hop is unreachable",
            Self::EHOSTUNREACH => "no route to host",
            Self(other) => return write!(f, "{}", io::Error::from_raw_os_error(other)),
        };
        f.write_str(text)
    }
}

/// One request the kernel refused, or that could not be put to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The kernel answered with an errno and, sometimes, a sentence of its own.
    #[error("{errno}{}", .message.as_ref().map(|m| format!(" ({m})")).unwrap_or_default())]
    Refused {
        /// The errno.
        errno: Errno,
        /// The kernel's extended acknowledgement, where it gave one.
        message: Option<String>,
    },
    /// A device named in the request is not there.
    #[error("no such device: {0}")]
    NoDevice(String),
    /// The destination already has a route that is not Margay's (another protocol number).
    #[error(
        "the destination already has a route of another owner; remove that route, Margay never replaces it"
    )]
    ForeignRoute,
    /// The netlink socket is closed.
    #[error("the netlink connection is closed; the agent has to be restarted")]
    Closed,
    /// The kernel's answer could not be understood.
    #[error("unexpected netlink answer: {0}")]
    Unexpected(String),
    /// What was asked for cannot be expressed or is not done yet.
    #[error("{0}")]
    Unsupported(String),
    /// A network namespace could not be entered.
    #[error(
        "cannot enter the network namespace {path}: {source}; entering needs CAP_SYS_ADMIN and a path to a network namespace"
    )]
    Namespace {
        /// The namespace's path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file under /proc/sys could not be read or written.
    #[error("{path}: {source}")]
    Sysctl {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Anything else of the operating system.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl KernelError {
    /// An error with only an errno.
    pub fn errno(errno: Errno) -> Self {
        Self::Refused {
            errno,
            message: None,
        }
    }

    fn is(&self, wanted: &[Errno]) -> bool {
        matches!(self, Self::Refused { errno, .. } if wanted.contains(errno))
    }

    /// Whether the object was there already.
    pub fn is_exists(&self) -> bool {
        self.is(&[Errno::EEXIST])
    }

    /// Says what was there already, where the kernel does not.
    pub fn with_words_if_exists(self, words: impl FnOnce() -> String) -> Self {
        match self {
            Self::Refused {
                errno: Errno::EEXIST,
                message: None,
            } => Self::Refused {
                errno: Errno::EEXIST,
                message: Some(words()),
            },
            other => other,
        }
    }

    /// Whether the object (route, neighbour, device, address) was absent.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NoDevice(_))
            || self.is(&[
                Errno::ENOENT,
                Errno::ESRCH,
                Errno::ENODEV,
                Errno::EADDRNOTAVAIL,
            ])
    }

    /// Whether this kernel lacks the feature.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported(_)) || self.is(&[Errno::EOPNOTSUPP])
    }

    /// Whether a capability is missing.
    pub fn is_permission(&self) -> bool {
        self.is(&[Errno::EPERM, Errno(13)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_capability_is_named() {
        let error = KernelError::errno(Errno::EPERM);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        assert!(error.is_permission());
    }

    #[test]
    fn the_kernels_own_sentence_is_kept() {
        let error = KernelError::Refused {
            errno: Errno::ENETUNREACH,
            message: Some("Nexthop has invalid gateway".into()),
        };
        assert_eq!(
            error.to_string(),
            "the next hop is unreachable (Nexthop has invalid gateway)"
        );
    }
}

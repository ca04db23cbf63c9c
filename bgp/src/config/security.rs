//! Who may speak for a peer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest TCP-MD5 password the kernel takes, in octets.
pub const PASSWORD_LIMIT: usize = 80;

/// Something that must not be seen: neither in logs nor in anything that is written from a configuration.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for whoever has to use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What is written of a secret.
impl From<Secret> for String {
    fn from(_: Secret) -> Self {
        "***".to_owned()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a peer's packets are told from those of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// The TCP-MD5 password (RFC 2385), 1 to 80 octets. A change is made on the running session.
    pub password: Option<Secret>,
    /// GTSM (RFC 5082): the most hops the peer may be away, 1 to 254. Packets are then sent with TTL 255, and those that have
    /// come farther are dropped.
    pub ttl_security: Option<u8>,
}

impl Security {
    /// The least TTL a packet of the peer may arrive with; 0: any.
    #[must_use]
    pub fn least_ttl(&self) -> u8 {
        // A neighbour's packets arrive as they were sent, with 255.
        self.ttl_security
            .map_or(0, |hops| 255 - hops.saturating_sub(1))
    }

    /// What is wrong with it, and how to put it right.
    pub(super) fn problem(&self) -> Option<(&'static str, &'static str)> {
        let length = self.password.as_ref().map(|secret| secret.reveal().len());
        if length.is_some_and(|length| length == 0 || length > PASSWORD_LIMIT) {
            return Some((
                "password",
                "must have 1 to 80 octets, TCP-MD5 takes no more",
            ));
        }
        if matches!(self.ttl_security, Some(0 | 255)) {
            return Some((
                "ttlSecurity",
                "must be 1 to 254 hops; a direct neighbor is 1 hop away",
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sees_a_secret() {
        let security = Security {
            password: Some("hunter2".into()),
            ttl_security: None,
        };
        let seen = format!("{security:?} {}", serde_json::to_string(&security).unwrap());
        assert!(!seen.contains("hunter2") && seen.contains("***"), "{seen}");
        assert_eq!(security.password.unwrap().reveal(), "hunter2");
    }

    #[test]
    fn hops_are_counted_from_the_neighbor() {
        for (hops, least) in [(None, 0), (Some(1), 255), (Some(2), 254), (Some(254), 2)] {
            let security = Security {
                password: None,
                ttl_security: hops,
            };
            assert_eq!(security.least_ttl(), least);
        }
    }
}

//! Who may speak for a peer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest TCP-MD5 password the kernel takes, in octets.
pub const PASSWORD_LIMIT: usize = 80;

/// The longest TCP-AO master key the kernel takes, in octets.
pub const AO_SECRET_LIMIT: usize = 80;

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
    /// TCP-AO keys (RFC 5925), the one to sign with first. Not together with a password.
    pub tcp_ao: Vec<AoKey>,
}

/// A TCP-AO key (RFC 5925), in RFC 5925's terms a master key tuple without its connection identifier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AoKey {
    /// The SendID: the KeyID in what we send.
    pub send_id: u8,
    /// The RecvID: the KeyID in what the peer sends.
    pub receive_id: u8,
    /// How segments are signed.
    pub algorithm: AoAlgorithm,
    /// The master key, 1 to 80 octets.
    pub secret: Secret,
}

/// How segments are signed with TCP-AO.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96 (RFC 5926 section 3.2.1).
    #[default]
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
    /// AES-128-CMAC-96 (RFC 5926 section 3.2.2).
    #[serde(rename = "cmac-aes128")]
    CmacAes128,
    /// HMAC-SHA-256, which no RFC specifies for TCP-AO yet and other systems have.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

impl AoAlgorithm {
    /// What Linux calls it.
    #[must_use]
    pub fn kernel_name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac(sha1)",
            Self::CmacAes128 => "cmac(aes128)",
            Self::HmacSha256 => "hmac(sha256)",
        }
    }
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
        if let Some(problem) = self.problem_of_keys() {
            return Some(("tcpAo", problem));
        }
        if matches!(self.ttl_security, Some(0 | 255)) {
            return Some((
                "ttlSecurity",
                "must be 1 to 254 hops; a direct neighbor is 1 hop away",
            ));
        }
        None
    }

    fn problem_of_keys(&self) -> Option<&'static str> {
        if self.tcp_ao.is_empty() {
            return None;
        }
        if self.password.is_some() {
            return Some(
                "and password (TCP-MD5) exclude one another; RFC 5925 has the one replace the other",
            );
        }
        let lengths = self.tcp_ao.iter().map(|key| key.secret.reveal().len());
        if lengths
            .into_iter()
            .any(|length| length == 0 || length > AO_SECRET_LIMIT)
        {
            return Some("keys: a secret must have 1 to 80 octets");
        }
        let twice = self.tcp_ao.iter().enumerate().any(|(index, key)| {
            let before = self.tcp_ao.iter().take(index);
            before
                .into_iter()
                .any(|other| other.send_id == key.send_id || other.receive_id == key.receive_id)
        });
        twice.then_some("keys: each sendId and each recvId must be there only once")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_sees_a_secret() {
        let security = Security {
            password: Some("hunter2".into()),
            tcp_ao: vec![AoKey {
                send_id: 1,
                receive_id: 1,
                algorithm: AoAlgorithm::default(),
                secret: "hunter2".into(),
            }],
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
                ttl_security: hops,
                ..Security::default()
            };
            assert_eq!(security.least_ttl(), least);
        }
    }
}

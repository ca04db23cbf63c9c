//! The Secrets of the agent's namespace, for the passwords of BGP sessions. What they hold is never printed.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;
use margay_crds::bgp_peer::SecretKeyRef;

use crate::datastore::{Roster, RosterChange};

/// What is known of them.
#[derive(Default)]
pub struct Secrets {
    roster: Roster,
    data: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

impl Secrets {
    /// Takes in one event; true if a password may be another now.
    pub fn handle(&mut self, event: Event<Secret>) -> bool {
        let mut differs = matches!(event, Event::InitDone);
        for change in self.roster.handle(event) {
            differs |= match change {
                RosterChange::Gone(key) => self.data.remove(name(&key)).is_some(),
                RosterChange::Present(key, object) => {
                    let data = object.data.into_iter().flatten();
                    let data = data.map(|(key, value)| (key, value.0)).collect();
                    let name = name(&key);
                    let before = self.data.insert(name.to_owned(), data);
                    before.as_ref() != self.data.get(name)
                }
            };
        }
        differs
    }

    /// The password under a key.
    ///
    /// # Errors
    /// Why it cannot be had, in words that do not hold it.
    pub fn get(&self, reference: &SecretKeyRef) -> Result<String, String> {
        let SecretKeyRef { name, key } = reference;
        if !self.roster.is_synced() {
            return Err(format!("Secret {name} has not been read yet"));
        }
        let data = self
            .data
            .get(name)
            .ok_or_else(|| format!("there is no Secret {name} in the agent's namespace"))?;
        let octets = data
            .get(key)
            .ok_or_else(|| format!("Secret {name} has no key {key}"))?;
        // What an editor or `echo` puts at the end is no part of a password.
        let text = std::str::from_utf8(octets).map(|text| text.trim_end_matches(['\r', '\n']));
        match text {
            Ok(text) if !text.is_empty() && text.len() <= margay_bgp::config::PASSWORD_LIMIT => {
                Ok(text.to_owned())
            }
            _ => Err(format!(
                "Secret {name}, key {key}: must be 1 to {} octets of text",
                margay_bgp::config::PASSWORD_LIMIT
            )),
        }
    }
}

/// The name in `namespace/name`: there is one namespace.
fn name(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(key: &str, value: &str) -> Secret {
        Secret {
            metadata: kube::api::ObjectMeta {
                name: Some("tor".to_owned()),
                namespace: Some("margay-system".to_owned()),
                ..Default::default()
            },
            data: Some([(key.to_owned(), ByteString(value.into()))].into()),
            ..Default::default()
        }
    }

    #[test]
    fn a_password_comes_changes_and_goes() {
        let reference = SecretKeyRef {
            name: "tor".to_owned(),
            key: "password".to_owned(),
        };
        let mut secrets = Secrets::default();
        assert!(
            secrets
                .get(&reference)
                .unwrap_err()
                .contains("not been read")
        );
        secrets.handle(Event::Init);
        assert!(secrets.handle(Event::InitDone));
        assert!(
            secrets
                .get(&reference)
                .unwrap_err()
                .contains("no Secret tor")
        );
        assert!(secrets.handle(Event::Apply(secret("other", "x"))));
        assert!(
            secrets
                .get(&reference)
                .unwrap_err()
                .contains("no key password")
        );
        assert!(secrets.handle(Event::Apply(secret("password", "hush\n"))));
        assert_eq!(secrets.get(&reference).as_deref(), Ok("hush"));
        assert!(!secrets.handle(Event::Apply(secret("password", "hush\n"))));
        assert!(!format!("{secrets:?}").contains("hush"));
        assert!(secrets.handle(Event::Apply(secret("password", &"x".repeat(81)))));
        let words = secrets.get(&reference).unwrap_err();
        assert!(
            words.contains("1 to 80") && !words.contains("xxx"),
            "{words}"
        );
        assert!(secrets.handle(Event::Delete(secret("password", ""))));
        assert!(secrets.get(&reference).is_err());
    }
}

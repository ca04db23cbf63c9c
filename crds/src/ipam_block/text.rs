//! An address in a block as one line of text.
//!
//! A block is written whole for each address given, and what a write costs the API server grows
//! with the values it has to validate, not with the bytes: sixty addresses as sixty objects of ten
//! values each take three times as long as sixty strings. A line is also what people read and
//! `grep` finds:
//!
//! ```text
//! 10.244.0.5 pod=default/web-1 interface=eth0 container=4f9a... uid=8dd2... sequence=7 since=2026-...
//! 10.244.0.0 tunnel=node1 interface=margay.vxlan sequence=1 since=2026-...
//! 10.244.0.9 service=default/web uid=91c0... sequence=9 since=2026-...
//! ```
//!
//! Addresses given back within one second share a line, for the same reason:
//!
//! ```text
//! 10.244.0.4 10.244.0.7 at=2026-...
//! ```
//!
//! Reading never fails: what is wrong in a line must not make the rest of the block unreadable,
//! and an address is held whatever is said of its holder. [`super::IPAMBlock::check`] finds what is
//! no address.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Allocation, Owner, OwnerKind, Released};

/// What the lines look like: an address, and words of the form `key=value`.
const LINE: &str = r"^[0-9a-fA-F.:]+( [a-z]+=[^ ]+)*$";
/// What the lines of addresses given back look like.
const RELEASED_LINE: &str = r"^[0-9a-fA-F.:]+( [0-9a-fA-F.:]+)*( at=[^ ]+)?$";
/// The longest line in bytes: two names of 253, and what else there is.
const MAX_LINE: u32 = 1024;

/// The words of a line behind its address.
fn words(line: &str) -> (String, impl Iterator<Item = (&str, &str)>) {
    let mut all = line.split(' ');
    let address = all.next().unwrap_or_default().to_owned();
    (address, all.filter_map(|word| word.split_once('=')))
}

impl From<String> for Allocation {
    fn from(line: String) -> Self {
        let (address, words) = words(&line);
        let mut one = Self {
            address,
            owner: Owner::default(),
            sequence: 0,
            since: String::new(),
        };
        for (key, value) in words {
            let owner = &mut one.owner;
            match key {
                "pod" => (owner.namespace, owner.pod) = names(value),
                "service" => {
                    owner.kind = OwnerKind::LoadBalancer;
                    (owner.namespace, owner.service) = names(value);
                }
                "tunnel" => {
                    owner.kind = OwnerKind::Tunnel;
                    owner.node = value.to_owned();
                }
                "node" => owner.node = value.to_owned(),
                "interface" => owner.interface = value.to_owned(),
                "container" => owner.container_id = value.to_owned(),
                "uid" => owner.uid = value.to_owned(),
                // No write has the number 0: who asks by number to release such an address is
                // refused.
                "sequence" => one.sequence = value.parse().unwrap_or_default(),
                "since" => one.since = value.to_owned(),
                _ => {}
            }
        }
        one
    }
}

/// The two parts of `namespace/name`.
fn names(value: &str) -> (String, String) {
    let (namespace, name) = value.split_once('/').unwrap_or(("", value));
    (namespace.to_owned(), name.to_owned())
}

impl From<Allocation> for String {
    fn from(one: Allocation) -> Self {
        one.to_string()
    }
}

/// The line in the block.
impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = &self.owner;
        f.write_str(&self.address)?;
        match owner.kind {
            OwnerKind::Pod => write!(f, " pod={}/{}", owner.namespace, owner.pod)?,
            OwnerKind::Tunnel => word(f, "tunnel", &owner.node)?,
            OwnerKind::LoadBalancer => write!(f, " service={}/{}", owner.namespace, owner.service)?,
        }
        if owner.kind == OwnerKind::Pod {
            word(f, "node", &owner.node)?;
        }
        word(f, "interface", &owner.interface)?;
        word(f, "container", &owner.container_id)?;
        word(f, "uid", &owner.uid)?;
        write!(f, " sequence={}", self.sequence)?;
        word(f, "since", &self.since)
    }
}

fn word(f: &mut fmt::Formatter<'_>, key: &str, value: &str) -> fmt::Result {
    match value {
        "" => Ok(()),
        _ => write!(f, " {key}={value}"),
    }
}

/// The addresses given back, as lines: those with the same time, next to each other, share one.
pub(super) mod released {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{MAX_LINE, Released};

    /// The longest end of a line: a space, `at=` and a time.
    const MAX_END: usize = 64;

    pub fn serialize<S: Serializer>(all: &[Released], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(lines(all))
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<Released>, D::Error> {
        let lines = Vec::<String>::deserialize(from)?;
        Ok(lines.iter().flat_map(|line| read(line)).collect())
    }

    pub(super) fn lines(all: &[Released]) -> Vec<String> {
        let mut lines = Vec::new();
        for group in all.chunk_by(|one, next| one.at == next.at) {
            let end = match &*group[0].at {
                "" => String::new(),
                at => format!(" at={at}"),
            };
            let mut line = String::new();
            for one in group {
                let full = line.len() + one.address.len() + MAX_END > MAX_LINE as usize;
                if full && !line.is_empty() {
                    lines.push(std::mem::take(&mut line) + &end);
                }
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(&one.address);
            }
            lines.push(line + &end);
        }
        lines
    }

    pub(super) fn read(line: &str) -> Vec<Released> {
        let (words, addresses): (Vec<_>, Vec<_>) =
            line.split(' ').partition(|word| word.contains('='));
        let at = words.iter().find_map(|word| word.strip_prefix("at="));
        let all = addresses.iter().map(|address| Released {
            address: (*address).to_owned(),
            at: at.unwrap_or_default().to_owned(),
        });
        all.collect()
    }
}

/// The schema of a line.
fn schema(description: &str, pattern: &str) -> Schema {
    json_schema!({
        "type": "string",
        "description": description,
        "maxLength": MAX_LINE,
        "pattern": pattern,
    })
}

impl JsonSchema for Allocation {
    fn schema_name() -> Cow<'static, str> {
        "Allocation".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(
            "One address in use: the address without a prefix length; who holds it, a pod (pod, \
             its interface, container and uid, and node where the address is borrowed from \
             another node's block), a tunnel (the node, and its interface) or a service (and its \
             uid); the block's sequence when it was given; and since when, RFC 3339.",
            LINE,
        )
    }
}

impl JsonSchema for Released {
    fn schema_name() -> Cow<'static, str> {
        "Released".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema(
            "Addresses given back, without prefix lengths, and at what time, RFC 3339 in whole \
             seconds.",
            RELEASED_LINE,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Allocation {
        Allocation {
            address: "10.244.0.5".to_owned(),
            owner: Owner {
                namespace: "default".to_owned(),
                pod: "web-1".to_owned(),
                uid: "8dd2".to_owned(),
                container_id: "4f9a".to_owned(),
                interface: "eth0".to_owned(),
                ..Owner::default()
            },
            sequence: 7,
            since: "2026-01-02T03:04:05Z".to_owned(),
        }
    }

    #[test]
    fn each_kind_of_holder_has_its_line() {
        let tunnel = Allocation {
            owner: Owner::tunnel("node1", "margay.vxlan"),
            ..pod()
        };
        let service = Allocation {
            owner: Owner::load_balancer("default", "web", "91c0"),
            ..pod()
        };
        let borrowed = Allocation {
            owner: Owner {
                node: "node2".to_owned(),
                uid: String::new(),
                ..pod().owner
            },
            ..pod()
        };
        let table = [
            (
                pod(),
                "10.244.0.5 pod=default/web-1 interface=eth0 container=4f9a uid=8dd2 sequence=7 since=2026-01-02T03:04:05Z",
            ),
            (
                borrowed,
                "10.244.0.5 pod=default/web-1 node=node2 interface=eth0 container=4f9a sequence=7 since=2026-01-02T03:04:05Z",
            ),
            (
                tunnel,
                "10.244.0.5 tunnel=node1 interface=margay.vxlan sequence=7 since=2026-01-02T03:04:05Z",
            ),
            (
                service,
                "10.244.0.5 service=default/web uid=91c0 sequence=7 since=2026-01-02T03:04:05Z",
            ),
        ];
        for (one, line) in table {
            assert_eq!(one.to_string(), line);
            assert_eq!(Allocation::from(line.to_owned()), one);
        }
    }

    fn given_back(address: &str, at: &str) -> Released {
        Released {
            address: address.to_owned(),
            at: at.to_owned(),
        }
    }

    #[test]
    fn addresses_given_back_at_one_time_share_a_line() {
        let (one, two) = ("2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z");
        let all = [
            given_back("fd00::5", one),
            given_back("fd00::7", one),
            given_back("fd00::1", two),
            given_back("fd00::9", one),
            given_back("fd00::8", ""),
        ];
        let lines = released::lines(&all);
        let expected = [
            "fd00::5 fd00::7 at=2026-01-02T03:04:05Z",
            "fd00::1 at=2026-01-02T03:04:06Z",
            "fd00::9 at=2026-01-02T03:04:05Z",
            "fd00::8",
        ];
        assert_eq!(lines, expected);
        let read: Vec<_> = lines.iter().flat_map(|line| released::read(line)).collect();
        assert_eq!(read, all, "the order is that in which they are used again");
    }

    #[test]
    fn no_line_of_addresses_given_back_is_too_long() {
        let address = |at: u32| format!("fd00:1234:5678:9abc:def0:1234:5678:{at:04x}");
        let at = "2026-01-02T03:04:05Z";
        let all: Vec<_> = (0..4096).map(|n| given_back(&address(n), at)).collect();
        let lines = released::lines(&all);
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE as usize));
        assert!(lines.len() < 4096 / 20, "{}", lines.len());
        let read: Vec<_> = lines.iter().flat_map(|line| released::read(line)).collect();
        assert_eq!(read, all);
    }

    #[test]
    fn no_line_makes_a_block_unreadable() {
        for line in [
            "",
            " ",
            "10.0.0.1",
            "x y=",
            "10.0.0.1 sequence=1e9 pod=a  =",
            "= =",
        ] {
            let one = Allocation::from(line.to_owned());
            let address = line.split(' ').next().unwrap();
            assert_eq!((&*one.address, one.sequence), (address, 0), "{line:?}");
            let released = released::read(line);
            let first = released.first().map(|one| &*one.address);
            assert_eq!(first.unwrap_or("="), address, "{line:?}");
        }
    }
}

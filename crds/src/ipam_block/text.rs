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
//! Reading never fails: what is wrong in a line must not make the rest of the block unreadable,
//! and an address is held whatever is said of its holder. [`super::IPAMBlock::check`] finds what is
//! no address.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{Allocation, Owner, OwnerKind, Released};

/// What the lines look like: an address, and words of the form `key=value`.
const LINE: &str = r"^[0-9a-fA-F.:]+( [a-z]+=[^ ]+)*$";
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

impl From<String> for Released {
    fn from(line: String) -> Self {
        let (address, mut words) = words(&line);
        let at = words.find_map(|(key, value)| (key == "at").then(|| value.to_owned()));
        Self {
            address,
            at: at.unwrap_or_default(),
        }
    }
}

impl From<Released> for String {
    fn from(one: Released) -> Self {
        one.to_string()
    }
}

/// The line in the block.
impl fmt::Display for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)?;
        word(f, "at", &self.at)
    }
}

/// The schema of a line.
fn schema(description: &str) -> Schema {
    json_schema!({
        "type": "string",
        "description": description,
        "maxLength": MAX_LINE,
        "pattern": LINE,
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
            "One address given back: the address without a prefix length, and at what time, \
             RFC 3339.",
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

    #[test]
    fn given_back_has_a_time() {
        let line = "fd00::5 at=2026-01-02T03:04:05Z";
        let one = Released::from(line.to_owned());
        assert_eq!(
            (&*one.address, &*one.at),
            ("fd00::5", "2026-01-02T03:04:05Z")
        );
        assert_eq!(one.to_string(), line);
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
            assert_eq!(Released::from(line.to_owned()).address, address);
        }
    }
}

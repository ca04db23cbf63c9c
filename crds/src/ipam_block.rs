//! IPAMBlock: a block of addresses held by one node, and who holds each address.
//!
//! The object is the one truth: creating it claims the block (its name is its CIDR, so the API
//! server decides the race), deleting it with its uid and resourceVersion releases it. Written by
//! agents, read by people.

mod text;

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::field::{Errors, FieldError, cidr};

/// The block and its addresses.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "IPAMBlock",
    plural = "ipamblocks",
    shortname = "block",
    category = "margay",
    derive = "PartialEq",
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".spec.used"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct IPAMBlockSpec {
    /// The block's range. Cannot be changed.
    #[schemars(length(max = 48), regex(pattern = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("cidr cannot be changed"))]
    pub cidr: String,

    /// The node the block belongs to, `margay-loadbalancer` for addresses of Services. Cannot be
    /// changed: a block moves by release and claim.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("node cannot be changed"))]
    pub node: String,

    /// Counts the writes of addresses, so that a release of a re-used address is told apart.
    #[serde(default)]
    pub sequence: i64,

    /// How many addresses are held: the length of `allocations`.
    #[serde(default)]
    pub used: u32,

    /// The addresses in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub allocations: Vec<Allocation>,

    /// The addresses given back, longest ago first: the order in which they are used again.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        with = "text::released"
    )]
    #[schemars(with = "Vec<Released>", length(max = 4096))]
    pub released: Vec<Released>,
}

/// One address in use. In the object it is one line of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Allocation {
    /// The address, without a prefix length.
    pub address: String,
    /// Who holds it.
    pub owner: Owner,
    /// The block's sequence when it was given.
    pub sequence: i64,
    /// When it was given, RFC 3339.
    pub since: String,
}

/// What kind of thing holds an address.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum OwnerKind {
    /// A pod's sandbox, on one of its interfaces.
    #[default]
    Pod,
    /// A node, on one of its tunnel devices.
    Tunnel,
    /// A Service of type LoadBalancer.
    LoadBalancer,
}

impl OwnerKind {
    /// Whether it is the kind that blocks leave unsaid.
    pub fn is_pod(&self) -> bool {
        *self == Self::Pod
    }
}

/// Who holds an address. A pod has `namespace`, `pod`, `containerID` and `interface`; a tunnel
/// `node` and `interface`; a Service `namespace` and `service`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// What kind of thing this is.
    #[serde(default, skip_serializing_if = "OwnerKind::is_pod")]
    pub kind: OwnerKind,
    /// The pod's or the Service's namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The pod's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// The Service's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The pod's or the Service's UID, empty when it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The node of a tunnel; the node of a pod where that is not the node of the block: the
    /// address is borrowed then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// The sandbox (CNI_CONTAINERID) the address was given to.
    #[serde(
        rename = "containerID",
        default,
        skip_serializing_if = "String::is_empty"
    )]
    pub container_id: String,
    /// The interface within the sandbox (CNI_IFNAME), or the tunnel device.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
}

impl Owner {
    /// Node `node` on its tunnel device `interface`.
    pub fn tunnel(node: &str, interface: &str) -> Self {
        Self {
            kind: OwnerKind::Tunnel,
            node: node.to_owned(),
            interface: interface.to_owned(),
            ..Self::default()
        }
    }

    /// The Service of this namespace and name.
    pub fn load_balancer(namespace: &str, service: &str, uid: &str) -> Self {
        Self {
            kind: OwnerKind::LoadBalancer,
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            uid: uid.to_owned(),
            ..Self::default()
        }
    }

    /// Whether both are the same holder: the same interface of the same sandbox, the same device
    /// of the same node, the same Service. A name that is used again is another holder where both
    /// UIDs are known.
    pub fn is_same_holder(&self, other: &Self) -> bool {
        self.kind == other.kind
            && match self.kind {
                OwnerKind::Pod => {
                    self.container_id == other.container_id && self.interface == other.interface
                }
                OwnerKind::Tunnel => self.node == other.node && self.interface == other.interface,
                OwnerKind::LoadBalancer => {
                    let known = !self.uid.is_empty() && !other.uid.is_empty();
                    self.namespace == other.namespace
                        && self.service == other.service
                        && (!known || self.uid == other.uid)
                }
            }
    }
}

/// In words: `pod default/a`, `tunnel margay.ipip of node n1`, `Service default/web`.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            OwnerKind::Pod => write!(f, "pod {}/{}", self.namespace, self.pod),
            OwnerKind::Tunnel => write!(f, "tunnel {} of node {}", self.interface, self.node),
            OwnerKind::LoadBalancer => write!(f, "Service {}/{}", self.namespace, self.service),
        }
    }
}

/// One address given back. In the object those of one second are one line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// The address, without a prefix length.
    pub address: String,
    /// When it was given back, RFC 3339, rounded up to a second.
    pub at: String,
}

/// The parts of a block that everyone needs, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The range; host bits are zero.
    pub cidr: IpNetwork,
    /// The node it belongs to.
    pub node: String,
}

impl IPAMBlock {
    /// The object's name for a block: its CIDR with every `.`, `:` and `/` replaced by `-`.
    ///
    /// The address is written in full for IPv6 (`fd00-0-0-...`), since a name may not begin or
    /// end with a hyphen and two spellings of one block must never become two objects.
    pub fn name_of(block: IpNetwork) -> String {
        let address = match block.network() {
            IpAddr::V4(address) => address.to_string().replace('.', "-"),
            IpAddr::V6(address) => {
                let segments = address.segments().map(|segment| format!("{segment:x}"));
                segments.join("-")
            }
        };
        format!("{address}-{}", block.prefix())
    }

    /// The typed block, or every field that is wrong.
    pub fn check(&self) -> Result<Block, Vec<FieldError>> {
        let mut errors = Errors::default();
        let range = errors.keep(cidr("spec.cidr", &self.spec.cidr));
        if let Some(range) = range {
            let name = IPAMBlock::name_of(range);
            if self.metadata.name.as_deref() != Some(&name) {
                errors.push(FieldError::invalid(
                    "metadata.name",
                    &self.metadata.name,
                    format!("a block is named after its cidr: must be {name}"),
                ));
            }
            self.check_addresses(range, &mut errors);
        }
        if self.spec.node.is_empty() {
            errors.push(FieldError::required(
                "spec.node",
                "the node the block belongs to",
            ));
        }
        let block = range.map(|cidr| Block {
            cidr,
            node: self.spec.node.clone(),
        });
        errors.finish(block)
    }

    fn check_addresses(&self, range: IpNetwork, errors: &mut Errors) {
        let mut seen = std::collections::BTreeSet::new();
        let held = self.spec.allocations.iter().enumerate();
        let held = held.map(|(index, one)| (format!("spec.allocations[{index}]"), &one.address));
        // A line has several of these: the address itself says which is meant.
        let released = self.spec.released.iter();
        let released = released.map(|one| ("spec.released".to_owned(), &one.address));
        for (path, text) in held.chain(released) {
            match text.parse::<IpAddr>() {
                Ok(address) if !range.contains(address) => {
                    errors.push(FieldError::invalid(
                        &path,
                        text,
                        format!("must be in {range}"),
                    ));
                }
                Ok(address) if !seen.insert(address) => {
                    errors.push(FieldError::invalid(&path, text, "is there twice"));
                }
                Ok(_) => {}
                Err(_) => errors.push(FieldError::invalid(&path, text, "must be an address")),
            }
        }
    }

    /// What may not change from one version of the object to the next.
    pub fn check_update(&self, old: &IPAMBlock) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.spec.cidr != old.spec.cidr {
            errors.push(FieldError::invalid(
                "spec.cidr",
                &self.spec.cidr,
                "cannot be changed",
            ));
        }
        if self.spec.node != old.spec.node {
            errors.push(FieldError::invalid(
                "spec.node",
                &self.spec.node,
                "cannot be changed",
            ));
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_per_block() {
        let name = |text: &str| IPAMBlock::name_of(text.parse().unwrap());
        assert_eq!(name("10.244.0.64/26"), "10-244-0-64-26");
        assert_eq!(name("fd00:10::/122"), "fd00-10-0-0-0-0-0-0-122");
        assert_eq!(name("::/122"), "0-0-0-0-0-0-0-0-122");
    }

    #[test]
    fn addresses_must_be_in_the_block_and_once() {
        let mut block = IPAMBlock::new(
            "10-0-0-0-26",
            serde_json::from_value(serde_json::json!({"cidr": "10.0.0.0/26", "node": "n1"}))
                .unwrap(),
        );
        assert!(block.check().is_ok());
        let allocation = |address: &str| Allocation {
            address: address.to_owned(),
            owner: Owner::default(),
            sequence: 1,
            since: String::new(),
        };
        block.spec.allocations = vec![allocation("10.0.0.1"), allocation("10.0.0.1")];
        block.spec.released = vec![Released {
            address: "10.0.1.1".into(),
            at: String::new(),
        }];
        let text = crate::field::join(&block.check().unwrap_err());
        assert!(
            text.contains("spec.allocations[1]: Invalid value: \"10.0.0.1\": is there twice"),
            "{text}"
        );
        assert!(
            text.contains("spec.released: Invalid value: \"10.0.1.1\": must be in 10.0.0.0/26"),
            "{text}"
        );
    }
}

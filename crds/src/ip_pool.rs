//! IPPool: a range that pods' addresses come from, and how traffic to it travels.

pub mod allocatable;

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::allocatable::Closed;
use crate::condition::Condition;
use crate::field::{Errors, FieldError, cidr};
use crate::selector::Selector;

/// When packets between two nodes travel in a tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum EncapsulationMode {
    /// Never: the network between the nodes knows the pods' routes.
    #[default]
    Never,
    /// Between any two nodes.
    Always,
    /// Only where the other node is not on a shared L2 segment.
    CrossSubnet,
}

/// What the addresses of a pool are for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum AllowedUse {
    /// Pods.
    Workload,
    /// The nodes' tunnel devices.
    Tunnel,
    /// Services of type LoadBalancer.
    LoadBalancer,
}

/// Who gets addresses of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AssignmentMode {
    /// Everyone whom the selectors choose.
    #[default]
    Automatic,
    /// Only who names the pool in an annotation.
    Manual,
}

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "IPPool",
    plural = "ippools",
    shortname = "ipp",
    shortname = "pool",
    category = "margay",
    status = "IPPoolStatus",
    derive = "PartialEq",
    printcolumn(name = "CIDR", type_ = "string", json_path = ".spec.cidr"),
    printcolumn(name = "IPIP", type_ = "string", json_path = ".spec.ipipMode"),
    printcolumn(name = "VXLAN", type_ = "string", json_path = ".spec.vxlanMode"),
    printcolumn(name = "NAT", type_ = "boolean", json_path = ".spec.natOutgoing"),
    printcolumn(name = "Disabled", type_ = "boolean", json_path = ".spec.disabled"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Allocatable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Allocatable')].status"
    ),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.ipipMode != 'Never' && self.vxlanMode != 'Never')")
        .message("ipipMode and vxlanMode exclude each other: set one of them to Never")
)]
#[x_kube(
    validation = Rule::new("!(self.cidr.contains(':') && self.ipipMode != 'Never')")
        .message("ipipMode must be Never for an IPv6 pool: use vxlanMode")
)]
#[x_kube(
    validation = Rule::new("!('Tunnel' in self.allowedUses && self.namespaceSelector != '')")
        .message("namespaceSelector must be empty where allowedUses has Tunnel: set allowedUses to [Workload]")
)]
#[x_kube(
    validation = Rule::new("!('LoadBalancer' in self.allowedUses) || size(self.allowedUses) == 1")
        .message("LoadBalancer must stand alone in allowedUses: make a pool of its own for the other uses")
)]
#[x_kube(
    validation = Rule::new("!('LoadBalancer' in self.allowedUses) || self.nodeSelector in ['all()', '']")
        .message("nodeSelector must be all() for the use LoadBalancer")
)]
#[x_kube(
    validation = Rule::new("!('LoadBalancer' in self.allowedUses) || (self.ipipMode == 'Never' && self.vxlanMode == 'Never')")
        .message("ipipMode and vxlanMode must be Never for the use LoadBalancer")
)]
#[x_kube(
    validation = Rule::new("!('LoadBalancer' in self.allowedUses) || !self.disableBGPExport")
        .message("disableBGPExport must be false for the use LoadBalancer")
)]
#[x_kube(
    validation = Rule::new("has(self.blockSize) == has(oldSelf.blockSize)")
        .message("blockSize cannot be changed: make a new pool, disable this one, recreate the pods")
)]
pub struct IPPoolSpec {
    /// The range, such as 10.244.0.0/16. Cannot be changed.
    #[schemars(length(max = 48), regex(pattern = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("cidr cannot be changed: make a new pool, disable this one, recreate the pods")
    )]
    pub cidr: String,

    /// Prefix length of the blocks that nodes take, 20 to 32 (IPv4, default 26) or 116 to 128
    /// (IPv6, default 122). Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 128))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("blockSize cannot be changed: make a new pool, disable this one, recreate the pods")
    )]
    pub block_size: Option<u8>,

    /// Use of IP-in-IP between nodes.
    #[serde(default)]
    pub ipip_mode: EncapsulationMode,

    /// Use of VXLAN between nodes.
    #[serde(default)]
    pub vxlan_mode: EncapsulationMode,

    /// Whether packets from the pool to anywhere outside all pools leave with the node's address.
    #[serde(default)]
    pub nat_outgoing: bool,

    /// No new addresses from this pool; those in use stay valid and routed.
    #[serde(default)]
    pub disabled: bool,

    /// Keeps the pool's blocks out of what BGP announces.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,

    /// Which nodes may take blocks: a selector over node labels.
    #[serde(default = "all_nodes")]
    #[schemars(length(max = 1024))]
    pub node_selector: String,

    /// Which namespaces' pods get addresses: a selector over namespace labels; empty is every
    /// namespace. Not together with the use Tunnel.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub namespace_selector: String,

    /// What the addresses are for; LoadBalancer stands alone.
    #[serde(default = "pods_and_tunnels")]
    #[schemars(length(min = 1, max = 2))]
    pub allowed_uses: Vec<AllowedUse>,

    /// Whether a pod gets an address without naming the pool.
    #[serde(default)]
    pub assignment_mode: AssignmentMode,
}

fn pods_and_tunnels() -> Vec<AllowedUse> {
    vec![AllowedUse::Workload, AllowedUse::Tunnel]
}

fn all_nodes() -> String {
    "all()".to_owned()
}

/// What Margay found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IPPoolStatus {
    /// `Accepted`: whether the pool is in use, and if not, why. `Allocatable`: whether new
    /// addresses come from it, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// How many addresses the pool has; 2^63 - 1 where it has more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<i64>,

    /// How many of them are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<i64>,

    /// How many blocks of the pool are held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<i64>,
}

/// A pool that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// The object's name.
    pub name: String,
    /// The range; host bits are zero.
    pub cidr: IpNetwork,
    /// Prefix length of a block, never shorter than the pool's own.
    pub block_size: u8,
    /// Use of IP-in-IP.
    pub ipip_mode: EncapsulationMode,
    /// Use of VXLAN.
    pub vxlan_mode: EncapsulationMode,
    /// Masquerade towards the outside.
    pub nat_outgoing: bool,
    /// No new addresses.
    pub disabled: bool,
    /// Not announced by BGP.
    pub disable_bgp_export: bool,
    /// Which nodes may take blocks.
    pub node_selector: Selector,
    /// Which namespaces' pods get addresses; `None` is every namespace, known or not.
    pub namespace_selector: Option<Selector>,
    /// What the addresses are for; never empty.
    pub allowed_uses: BTreeSet<AllowedUse>,
    /// Whether a pod gets an address without naming the pool.
    pub assignment_mode: AssignmentMode,
    /// Why no new address comes from the pool, if none does. [`IPPool::check`] knows only what the
    /// object itself says; [`allocatable::resolve`] looks at the other pools too.
    pub closed: Option<Closed>,
}

impl Pool {
    /// Whether its addresses are Services', which are never routed by a node, and not pods' or
    /// nodes'. A pool is for the one or for the other.
    pub fn is_for_services(&self) -> bool {
        self.allowed_uses.contains(&AllowedUse::LoadBalancer)
    }
}

impl IPPool {
    /// The typed pool, or every field that is wrong.
    pub fn check(&self) -> Result<Pool, Vec<FieldError>> {
        let spec = &self.spec;
        let mut errors = Errors::default();
        let range = errors.keep(cidr("spec.cidr", &spec.cidr));
        if let Some(range) = range {
            check_reserved(&mut errors, range, &spec.cidr);
        }
        let block_size =
            range.and_then(|range| errors.keep(check_block_size(range, spec.block_size)));
        let node_selector = errors.keep(Selector::parse_field(
            "spec.nodeSelector",
            &spec.node_selector,
        ));
        let namespace_selector = errors.keep(namespace_selector(&spec.namespace_selector));
        check_encapsulation(&mut errors, range, spec);
        check_uses(&mut errors, spec);
        let pool = match (range, block_size, node_selector, namespace_selector) {
            (Some(cidr), Some(block_size), Some(node_selector), Some(namespace_selector)) => {
                Some(Pool {
                    name: self.metadata.name.clone().unwrap_or_default(),
                    cidr,
                    block_size,
                    ipip_mode: spec.ipip_mode,
                    vxlan_mode: spec.vxlan_mode,
                    nat_outgoing: spec.nat_outgoing,
                    disabled: spec.disabled,
                    disable_bgp_export: spec.disable_bgp_export,
                    node_selector,
                    namespace_selector,
                    allowed_uses: spec.allowed_uses.iter().copied().collect(),
                    assignment_mode: spec.assignment_mode,
                    closed: self.closed(),
                })
            }
            _ => None,
        };
        errors.finish(pool)
    }

    fn closed(&self) -> Option<Closed> {
        if self.metadata.deletion_timestamp.is_some() {
            return Some(Closed::Terminating);
        }
        self.spec.disabled.then_some(Closed::Disabled)
    }

    /// What may not change from one version of the object to the next.
    pub fn check_update(&self, old: &IPPool) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let way_out = "cannot be changed: make a new pool, disable this one, recreate the pods";
        if self.spec.cidr != old.spec.cidr {
            errors.push(FieldError::invalid("spec.cidr", &self.spec.cidr, way_out));
        }
        if self.spec.block_size != old.spec.block_size {
            errors.push(FieldError::invalid(
                "spec.blockSize",
                self.spec.block_size,
                way_out,
            ));
        }
        errors
    }
}

/// Link-local ranges: 169.254.1.1 is every pod's gateway.
fn check_reserved(errors: &mut Errors, range: IpNetwork, text: &str) {
    let reserved = ["169.254.0.0/16", "fe80::/10"];
    for name in reserved {
        if let Ok(other) = name.parse::<IpNetwork>()
            && overlap(range, other)
        {
            errors.push(FieldError::invalid(
                "spec.cidr",
                text,
                format!("must not overlap {name}, which is link-local"),
            ));
        }
    }
}

/// Whether two ranges share an address.
pub fn overlap(left: IpNetwork, right: IpNetwork) -> bool {
    left.is_ipv4() == right.is_ipv4()
        && (left.contains(right.network()) || right.contains(left.network()))
}

fn check_block_size(range: IpNetwork, wanted: Option<u8>) -> Result<u8, FieldError> {
    let (shortest, longest, default) = if range.is_ipv4() {
        (20, 32, 26)
    } else {
        (116, 128, 122)
    };
    // A small pool without a written block size is one block of its own.
    let size = wanted.unwrap_or_else(|| default.max(range.prefix()));
    if !(shortest..=longest).contains(&size) {
        return Err(FieldError::invalid(
            "spec.blockSize",
            size,
            format!("must be {shortest} to {longest} for this address family"),
        ));
    }
    if size < range.prefix() {
        return Err(FieldError::invalid(
            "spec.blockSize",
            size,
            format!(
                "must not be larger than the pool, at least {}",
                range.prefix()
            ),
        ));
    }
    Ok(size)
}

fn check_encapsulation(errors: &mut Errors, range: Option<IpNetwork>, spec: &IPPoolSpec) {
    let ipip = spec.ipip_mode != EncapsulationMode::Never;
    if ipip && spec.vxlan_mode != EncapsulationMode::Never {
        errors.push(FieldError::invalid(
            "spec.vxlanMode",
            spec.vxlan_mode,
            "ipipMode and vxlanMode exclude each other: set one of them to Never",
        ));
    }
    if ipip && range.is_some_and(|range| range.is_ipv6()) {
        errors.push(FieldError::invalid(
            "spec.ipipMode",
            spec.ipip_mode,
            "must be Never for an IPv6 pool: use vxlanMode",
        ));
    }
}

fn namespace_selector(text: &str) -> Result<Option<Selector>, FieldError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    Selector::parse_field("spec.namespaceSelector", text).map(Some)
}

fn check_uses(errors: &mut Errors, spec: &IPPoolSpec) {
    let uses = &spec.allowed_uses;
    if uses.is_empty() {
        errors.push(FieldError::required(
            "spec.allowedUses",
            "what the addresses are for: Workload, Tunnel, or LoadBalancer alone",
        ));
    }
    let has = |wanted: AllowedUse| uses.contains(&wanted);
    if has(AllowedUse::Tunnel) && !spec.namespace_selector.trim().is_empty() {
        errors.push(FieldError::invalid(
            "spec.namespaceSelector",
            &spec.namespace_selector,
            "must be empty where allowedUses has Tunnel: a node is in no namespace; set \
             allowedUses to [Workload]",
        ));
    }
    if has(AllowedUse::LoadBalancer) {
        check_load_balancer(errors, spec);
    }
}

fn check_load_balancer(errors: &mut Errors, spec: &IPPoolSpec) {
    if spec.allowed_uses.len() > 1 {
        errors.push(FieldError::invalid(
            "spec.allowedUses",
            &spec.allowed_uses,
            "LoadBalancer must stand alone: make a pool of its own for the other uses",
        ));
    }
    if !["all()", ""].contains(&spec.node_selector.trim()) {
        errors.push(FieldError::invalid(
            "spec.nodeSelector",
            &spec.node_selector,
            "must be all() for the use LoadBalancer: no node holds its addresses",
        ));
    }
    let never = EncapsulationMode::Never;
    if spec.ipip_mode != never || spec.vxlan_mode != never {
        errors.push(FieldError::invalid(
            "spec.ipipMode",
            spec.ipip_mode,
            "ipipMode and vxlanMode must be Never for the use LoadBalancer",
        ));
    }
    if spec.disable_bgp_export {
        errors.push(FieldError::invalid(
            "spec.disableBGPExport",
            true,
            "must be false for the use LoadBalancer: the addresses are of use outside only",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(json: serde_json::Value) -> IPPool {
        IPPool::new("p", serde_json::from_value(json).unwrap())
    }

    #[test]
    fn defaults_are_calicos() {
        let checked = pool(serde_json::json!({"cidr": "10.244.0.0/16"}))
            .check()
            .unwrap();
        assert_eq!(checked.block_size, 26);
        assert_eq!(checked.ipip_mode, EncapsulationMode::Never);
        let v6 = pool(serde_json::json!({"cidr": "fd00::/48"}))
            .check()
            .unwrap();
        assert_eq!(v6.block_size, 122);
    }

    #[test]
    fn wrong_fields_are_named() {
        let cases = [
            (
                serde_json::json!({"cidr": "10.244.0.1/16"}),
                "did you mean 10.244.0.0/16?",
            ),
            (
                serde_json::json!({"cidr": "10.244.0.0"}),
                "must carry a prefix length",
            ),
            (serde_json::json!({"cidr": "nonsense/8"}), "must be a CIDR"),
            (serde_json::json!({"cidr": "169.254.0.0/24"}), "link-local"),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "blockSize": 19}),
                "spec.blockSize",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/28", "blockSize": 26}),
                "not be larger than the pool",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "Always"}),
                "exclude each other",
            ),
            (
                serde_json::json!({"cidr": "fd00::/48", "ipipMode": "Always"}),
                "use vxlanMode",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "nodeSelector": "a ="}),
                "spec.nodeSelector",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "namespaceSelector": "a =="}),
                "spec.namespaceSelector",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "namespaceSelector": "a == 'b'"}),
                "set allowedUses to [Workload]",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "allowedUses": []}),
                "spec.allowedUses: Required",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer", "Workload"]}),
                "must stand alone",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"],
                    "nodeSelector": "has(a)"}),
                "must be all()",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"],
                    "vxlanMode": "Always"}),
                "must be Never for the use LoadBalancer",
            ),
            (
                serde_json::json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"],
                    "disableBGPExport": true}),
                "must be false",
            ),
        ];
        for (spec, expected) in cases {
            let errors = pool(spec.clone()).check().unwrap_err();
            let text = crate::field::join(&errors);
            assert!(text.contains(expected), "{spec}: {text}");
        }
    }

    #[test]
    fn range_and_block_size_are_immutable() {
        let old = pool(serde_json::json!({"cidr": "10.0.0.0/16"}));
        let new = pool(serde_json::json!({"cidr": "10.0.0.0/16", "blockSize": 28}));
        assert_eq!(new.check_update(&old).len(), 1);
        assert!(old.check_update(&old).is_empty());
    }
}

//! BGPConfiguration: the singleton `default` with what holds for every node's speaker.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::field::{Errors, FieldError};
use crate::prefix_advertisement::{
    Aggregation, NamedCommunity, PrefixAdvertisement, PrefixAdvertisementSpec, ServiceRange,
    ServiceRanges, check_advertisements, check_ranges,
};

/// The AS of a cluster that says nothing else.
pub const DEFAULT_AS_NUMBER: u32 = 64512;
/// The port BGP is known by.
pub const DEFAULT_PORT: u16 = 179;

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "BGPConfiguration",
    plural = "bgpconfigurations",
    shortname = "bgpconfig",
    category = "margay",
    derive = "PartialEq",
    printcolumn(name = "AS", type_ = "integer", json_path = ".spec.asNumber"),
    printcolumn(name = "Mesh", type_ = "boolean", json_path = ".spec.nodeToNodeMeshEnabled"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.listenPort"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == 'default'")
        .message("there is one BGPConfiguration: name it default")
)]
#[serde(rename_all = "camelCase")]
pub struct BGPConfigurationSpec {
    /// Whether every node peers with every other node.
    #[serde(default = "yes")]
    pub node_to_node_mesh_enabled: bool,

    /// The AS of every node, 1 to 4294967295.
    #[serde(default = "default_as_number")]
    #[schemars(range(min = 1))]
    pub as_number: u32,

    /// The TCP port the speakers listen on, and dial in the mesh.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1))]
    pub listen_port: u16,

    /// The ranges of cluster IPs that every node announces.
    #[serde(
        default,
        rename = "serviceClusterIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 500))]
    pub service_cluster_ips: Vec<ServiceRange>,

    /// The ranges of external IPs that every node announces.
    #[serde(
        default,
        rename = "serviceExternalIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 500))]
    pub service_external_ips: Vec<ServiceRange>,

    /// The ranges of load balancers' addresses that every node announces.
    #[serde(
        default,
        rename = "serviceLoadBalancerIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 500))]
    pub service_load_balancer_ips: Vec<ServiceRange>,

    /// Whether the ranges of load balancers' addresses are announced whole (Enabled), or each
    /// Service's address as long as the Service has a ready endpoint (Disabled).
    #[serde(default)]
    pub service_load_balancer_aggregation: Aggregation,

    /// Names for communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub communities: Vec<NamedCommunity>,

    /// The communities that announced prefixes carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub prefix_advertisements: Vec<PrefixAdvertisementSpec>,
}

fn yes() -> bool {
    true
}

fn default_as_number() -> u32 {
    DEFAULT_AS_NUMBER
}

fn default_port() -> u16 {
    DEFAULT_PORT
}

/// The settings that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BgpSettings {
    /// Whether every node peers with every other node.
    pub mesh: bool,
    /// The AS of every node.
    pub as_number: u32,
    /// The TCP port.
    pub port: u16,
    /// The Service addresses to announce.
    pub services: ServiceRanges,
    /// The communities of announced prefixes.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
}

impl Default for BgpSettings {
    fn default() -> Self {
        Self {
            mesh: true,
            as_number: DEFAULT_AS_NUMBER,
            port: DEFAULT_PORT,
            services: ServiceRanges::default(),
            prefix_advertisements: Vec::new(),
        }
    }
}

impl BGPConfiguration {
    /// The typed settings, or every field that is wrong.
    pub fn check(&self) -> Result<BgpSettings, Vec<FieldError>> {
        let mut errors = Errors::default();
        if self.metadata.name.as_deref() != Some(crate::DEFAULT_NAME) {
            errors.push(FieldError::invalid(
                "metadata.name",
                &self.metadata.name,
                "there is one BGPConfiguration: name it default",
            ));
        }
        errors.keep(check_as_number("spec.asNumber", self.spec.as_number));
        if self.spec.listen_port == 0 {
            errors.push(FieldError::invalid(
                "spec.listenPort",
                0,
                "must be 1 to 65535",
            ));
        }
        let services = self.check_services(&mut errors);
        let spec = &self.spec;
        let prefix_advertisements =
            check_advertisements(&mut errors, &spec.communities, &spec.prefix_advertisements);
        errors.finish(Some(BgpSettings {
            mesh: self.spec.node_to_node_mesh_enabled,
            as_number: self.spec.as_number,
            port: self.spec.listen_port,
            services,
            prefix_advertisements,
        }))
    }

    fn check_services(&self, errors: &mut Errors) -> ServiceRanges {
        let spec = &self.spec;
        let mut ranges = |field, list| check_ranges(errors, field, list);
        ServiceRanges {
            cluster: ranges("spec.serviceClusterIPs", &spec.service_cluster_ips),
            external: ranges("spec.serviceExternalIPs", &spec.service_external_ips),
            load_balancer: ranges(
                "spec.serviceLoadBalancerIPs",
                &spec.service_load_balancer_ips,
            ),
            load_balancer_aggregation: spec.service_load_balancer_aggregation,
        }
    }
}

/// An AS number that may stand in an OPEN: not 0 (RFC 7607), not AS_TRANS (RFC 6793 section 9),
/// not 65535 (RFC 7300).
pub(crate) fn check_as_number(path: &str, value: u32) -> Result<u32, FieldError> {
    match value {
        0 => Err(FieldError::invalid(path, value, "must be 1 to 4294967294")),
        23456 => Err(FieldError::invalid(
            path,
            value,
            "is AS_TRANS, which no speaker may use",
        )),
        65535 | u32::MAX => Err(FieldError::invalid(path, value, "is reserved by RFC 7300")),
        _ => Ok(value),
    }
}

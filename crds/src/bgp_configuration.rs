//! BGPConfiguration: `default` with what holds for every node's speaker, and `node.NAME` with what
//! holds for one node in its place.

use std::time::Duration;

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::as_number::AsNumber;
use crate::bgp_peer::{
    AoKey, LONGEST_LONG_LIVED_TIME, Password, SecretKeyRef, TcpAo, check_tcp_ao,
};
use crate::field::{Errors, FieldError, cidrs};
use crate::prefix_advertisement::{
    Aggregation, NamedCommunity, PrefixAdvertisement, PrefixAdvertisementSpec, ServiceRange,
    ServiceRanges, check_advertisements, check_ranges,
};
use crate::seconds::Seconds;

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
    printcolumn(name = "AS", type_ = "string", json_path = ".spec.asNumber"),
    printcolumn(name = "Mesh", type_ = "boolean", json_path = ".spec.nodeToNodeMeshEnabled"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.listenPort"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == 'default' || self.metadata.name.startsWith('node.')")
        .message("a BGPConfiguration is named default, or node.NAME for the node NAME")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.nodeMeshPassword) && has(self.nodeMeshTcpAo))")
        .message("nodeMeshPassword (TCP-MD5) and nodeMeshTcpAo exclude each other: set one or neither")
)]
pub struct BGPConfigurationSpec {
    /// Whether every node peers with every other node.
    #[serde(default = "yes")]
    pub node_to_node_mesh_enabled: bool,

    /// The AS of every node: 1 to 4294967295, or "1.10".
    #[serde(default = "default_as_number")]
    pub as_number: AsNumber,

    /// The TCP port the speakers listen on, and dial in the mesh; 179 if absent. In node.NAME that of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub listen_port: Option<u16>,

    /// The password of the sessions of the mesh (TCP-MD5). While it cannot be had there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<Password>,

    /// The keys of the sessions of the mesh (TCP-AO, RFC 5925), which takes Linux 6.7 or newer with CONFIG_TCP_AO. While they
    /// cannot be had there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_tcp_ao: Option<TcpAo>,

    /// How long nodes keep each other's routes while an agent restarts, in seconds (RFC 4724): 0 to
    /// 4095; 120 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_max_restart_time: Option<Seconds>,

    /// How long peers keep a node's routes as a last resort beyond the restart time, in seconds (RFC 9494): 1 to 16777215;
    /// 0 or absent: not at all. A BGPPeer may say something else of its sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub long_lived_restart_time: Option<Seconds>,

    /// Which addresses the speakers listen on.
    #[serde(default)]
    pub bind_mode: BindMode,

    /// What is taken from external peers beside the space of the IPPools, such as 0.0.0.0/0 for the
    /// default route.
    #[serde(default, rename = "importCIDRs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub import_cidrs: Vec<String>,

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

    /// The communities that announced prefixes carry. In node.NAME those of the node, in place of the ones in default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub prefix_advertisements: Vec<PrefixAdvertisementSpec>,
}

/// Which addresses speakers listen on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BindMode {
    /// All of them.
    #[default]
    None,
    /// The node's own, so that another speaker can have the others.
    NodeIP,
}

fn yes() -> bool {
    true
}

fn default_as_number() -> AsNumber {
    AsNumber::Number(DEFAULT_AS_NUMBER.into())
}

/// In front of a node's name.
const NODE_PREFIX: &str = "node.";

/// The settings that passed every check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BgpSettings {
    /// Whether every node peers with every other node.
    pub mesh: bool,
    /// The AS of every node.
    pub as_number: u32,
    /// The TCP port.
    pub port: u16,
    /// Where the password of the mesh is.
    pub mesh_password: Option<SecretKeyRef>,
    /// The TCP-AO keys of the mesh; none: without.
    pub mesh_tcp_ao: Vec<AoKey>,
    /// How long peers keep a node's routes beyond the restart time; zero: not at all.
    pub long_lived_restart_time: Duration,
    /// How long nodes keep each other's routes over a restart.
    pub mesh_max_restart_time: Option<Duration>,
    /// Listen on the node's own addresses only.
    pub bind_to_node: bool,
    /// What is taken from external peers beside pool space.
    pub import_cidrs: Vec<IpNetwork>,
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
            mesh_password: None,
            mesh_tcp_ao: Vec::new(),
            long_lived_restart_time: Duration::ZERO,
            mesh_max_restart_time: None,
            bind_to_node: false,
            import_cidrs: Vec::new(),
            services: ServiceRanges::default(),
            prefix_advertisements: Vec::new(),
        }
    }
}

/// What a `node.NAME` that passed every check says of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeBgpSettings {
    /// The TCP port.
    pub port: Option<u16>,
    /// The communities of announced prefixes, if it says any.
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
}

impl BgpSettings {
    /// The settings of a node that has some of its own.
    #[must_use]
    pub fn with(&self, own: &NodeBgpSettings) -> Self {
        let mut settings = self.clone();
        settings.port = own.port.unwrap_or(settings.port);
        if !own.prefix_advertisements.is_empty() {
            settings
                .prefix_advertisements
                .clone_from(&own.prefix_advertisements);
        }
        settings
    }
}

impl BGPConfiguration {
    /// The node that the object is about; none if it is about all.
    pub fn node(&self) -> Option<&str> {
        let name = self.metadata.name.as_deref()?.strip_prefix(NODE_PREFIX)?;
        (!name.is_empty()).then_some(name)
    }

    /// What a `node.NAME` says, or every field that is wrong. As with Calico, only `listenPort`,
    /// `prefixAdvertisements` and the `communities` these name can be a node's own.
    pub fn check_node(&self) -> Result<NodeBgpSettings, Vec<FieldError>> {
        let settings = self.check()?;
        Ok(NodeBgpSettings {
            port: self.spec.listen_port,
            prefix_advertisements: settings.prefix_advertisements,
        })
    }

    /// The typed settings, or every field that is wrong.
    pub fn check(&self) -> Result<BgpSettings, Vec<FieldError>> {
        let mut errors = Errors::default();
        if self.metadata.name.as_deref() != Some(crate::DEFAULT_NAME) && self.node().is_none() {
            errors.push(FieldError::invalid(
                "metadata.name",
                &self.metadata.name,
                "a BGPConfiguration is named default, or node.NAME for the node NAME",
            ));
        }
        let as_number = errors.keep(self.spec.as_number.check_number("spec.asNumber"));
        if self.spec.listen_port == Some(0) {
            errors.push(FieldError::invalid(
                "spec.listenPort",
                0,
                "must be 1 to 65535",
            ));
        }
        let services = self.check_services(&mut errors);
        let spec = &self.spec;
        if spec.node_mesh_password.is_some() && !spec.node_to_node_mesh_enabled {
            errors.push(FieldError::forbidden(
                "spec.nodeMeshPassword",
                &spec.node_mesh_password,
                "needs nodeToNodeMeshEnabled",
            ));
        }
        if spec.node_mesh_tcp_ao.is_some() && !spec.node_to_node_mesh_enabled {
            errors.push(FieldError::forbidden(
                "spec.nodeMeshTcpAo",
                &spec.node_mesh_tcp_ao,
                "needs nodeToNodeMeshEnabled",
            ));
        }
        if spec.node_mesh_tcp_ao.is_some() && spec.node_mesh_password.is_some() {
            errors.push(FieldError::forbidden(
                "spec.nodeMeshTcpAo",
                &spec.node_mesh_tcp_ao,
                "nodeMeshPassword (TCP-MD5) and nodeMeshTcpAo exclude each other: set one or neither",
            ));
        }
        let mesh_tcp_ao = check_tcp_ao(
            &mut errors,
            "spec.nodeMeshTcpAo",
            spec.node_mesh_tcp_ao.as_ref(),
        );
        let long_lived = spec.long_lived_restart_time.as_ref();
        let long_lived = long_lived
            .map(|time| time.check("spec.longLivedRestartTime", 0, LONGEST_LONG_LIVED_TIME));
        let long_lived = long_lived.and_then(|time| errors.keep(time));
        let restart = spec.node_mesh_max_restart_time.as_ref();
        let restart = restart.map(|time| time.check("spec.nodeMeshMaxRestartTime", 0, 4095));
        let mesh_max_restart_time = restart.and_then(|time| errors.keep(time));
        let import_cidrs = cidrs(&mut errors, "spec.importCIDRs", &spec.import_cidrs);
        let prefix_advertisements =
            check_advertisements(&mut errors, &spec.communities, &spec.prefix_advertisements);
        errors.finish(Some(BgpSettings {
            mesh: self.spec.node_to_node_mesh_enabled,
            as_number: as_number.unwrap_or(DEFAULT_AS_NUMBER),
            port: self.spec.listen_port.unwrap_or(DEFAULT_PORT),
            mesh_password: spec
                .node_mesh_password
                .as_ref()
                .map(|p| p.secret_key_ref.clone()),
            mesh_tcp_ao,
            long_lived_restart_time: long_lived.unwrap_or(Duration::ZERO),
            mesh_max_restart_time,
            bind_to_node: spec.bind_mode == BindMode::NodeIP,
            import_cidrs,
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

//! NetworkSet and GlobalNetworkSet: networks outside the cluster under labels, so that policies of
//! ours select them as they select pods.

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::field::{Errors, FieldError};
use crate::policy_rule::networks;

/// What people write in a namespace.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "NetworkSet",
    plural = "networksets",
    shortname = "netset",
    category = "margay",
    namespaced,
    derive = "PartialEq",
    printcolumn(name = "Nets", type_ = "string", json_path = ".spec.nets"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct NetworkSetSpec {
    /// The networks, as CIDRs or single addresses; bits after the prefix are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub nets: Vec<String>,
}

/// What people write for the whole cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "GlobalNetworkSet",
    plural = "globalnetworksets",
    shortname = "gnetset",
    category = "margay",
    derive = "PartialEq",
    printcolumn(name = "Nets", type_ = "string", json_path = ".spec.nets"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct GlobalNetworkSetSpec {
    /// The networks, as CIDRs or single addresses; bits after the prefix are ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub nets: Vec<String>,
}

/// The networks that can be read, and what is wrong with the others.
pub fn read(nets: &[String]) -> (Vec<IpNetwork>, Vec<FieldError>) {
    let mut errors = Errors::default();
    let networks = networks(&mut errors, "spec.nets", nets);
    (networks, errors.0)
}

impl NetworkSet {
    /// The networks.
    ///
    /// # Errors
    /// Every entry that is no network.
    pub fn check(&self) -> Result<Vec<IpNetwork>, Vec<FieldError>> {
        checked(&self.spec.nets)
    }
}

impl GlobalNetworkSet {
    /// The networks.
    ///
    /// # Errors
    /// Every entry that is no network.
    pub fn check(&self) -> Result<Vec<IpNetwork>, Vec<FieldError>> {
        checked(&self.spec.nets)
    }
}

fn checked(nets: &[String]) -> Result<Vec<IpNetwork>, Vec<FieldError>> {
    match read(nets) {
        (networks, errors) if errors.is_empty() => Ok(networks),
        (_, errors) => Err(errors),
    }
}

//! EndpointSlices: as much of them as announcing needs, in either version of the API.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use margay_bgp::types::Family;
use serde::{Deserialize, Serialize};

use super::service::key;

/// The label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label, and the key of v1beta1's topology, with a node's hostname.
pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";

/// The versions of `discovery.k8s.io` that have EndpointSlices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceVersion {
    /// From Kubernetes 1.21.
    V1,
    /// From 1.17 up to 1.24.
    V1beta1,
}

/// An EndpointSlice, of `v1` or `v1beta1`: the fields that count here have the same names in both,
/// but for the node, which is in `topology` on servers of before 1.20.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// The usual.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    pub address_type: String,
    /// The endpoints, without their addresses.
    pub endpoints: Option<Vec<Endpoint>>,
}

/// One endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Its state.
    pub conditions: Option<EndpointConditions>,
    /// The node it runs on.
    pub node_name: Option<String>,
    /// Where it runs, in v1beta1.
    pub topology: Option<BTreeMap<String, String>>,
}

/// The state of an endpoint.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// It takes new connections.
    pub ready: Option<bool>,
    /// It answers, whether it is terminating or not.
    pub serving: Option<bool>,
    /// It is about to end.
    pub terminating: Option<bool>,
}

impl Endpoint {
    /// Whether packets are sent to it: it is ready, or serves to its end.
    fn is_usable(&self) -> bool {
        let state = self.conditions.unwrap_or_default();
        state.ready.unwrap_or(true)
            || (state.serving.unwrap_or(true) && state.terminating.unwrap_or(false))
    }
}

impl Resource for EndpointSlice {
    type DynamicType = SliceVersion;
    type Scope = NamespaceResourceScope;

    fn kind(_: &SliceVersion) -> Cow<'_, str> {
        "EndpointSlice".into()
    }

    fn group(_: &SliceVersion) -> Cow<'_, str> {
        "discovery.k8s.io".into()
    }

    fn version(version: &SliceVersion) -> Cow<'_, str> {
        match version {
            SliceVersion::V1 => "v1".into(),
            SliceVersion::V1beta1 => "v1beta1".into(),
        }
    }

    fn plural(_: &SliceVersion) -> Cow<'_, str> {
        "endpointslices".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What counts of a slice, for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SliceFacts {
    /// The key of its Service.
    pub(super) service: String,
    pub(super) family: Family,
    /// It has a usable endpoint.
    pub(super) anywhere: bool,
    /// It has one on this node, by the node's name.
    here: bool,
    /// The hostnames of usable endpoints of which no node is named.
    hosts: BTreeSet<String>,
}

impl SliceFacts {
    /// Reads a slice for the node of this name; none if it is of no Service or has no addresses
    /// but names.
    pub(super) fn of(slice: &EndpointSlice, node: &str) -> Option<Self> {
        let family = match slice.address_type.as_str() {
            "IPv4" => Family::Ipv4Unicast,
            "IPv6" => Family::Ipv6Unicast,
            _ => return None,
        };
        let service = slice.labels().get(SERVICE_NAME)?;
        let mut facts = Self {
            service: key(slice.namespace(), service),
            family,
            anywhere: false,
            here: false,
            hosts: BTreeSet::new(),
        };
        let endpoints = slice.endpoints.iter().flatten();
        for endpoint in endpoints.filter(|endpoint| endpoint.is_usable()) {
            facts.anywhere = true;
            if let Some(name) = &endpoint.node_name {
                facts.here |= name == node;
            } else if let Some(host) = endpoint.topology.as_ref().and_then(|all| all.get(HOSTNAME))
            {
                facts.hosts.insert(host.clone());
            }
        }
        Some(facts)
    }

    /// Whether it has a usable endpoint on the node read for, whose hostname is `hostname`.
    pub(super) fn is_here(&self, hostname: &str) -> bool {
        self.here || self.hosts.contains(hostname)
    }
}

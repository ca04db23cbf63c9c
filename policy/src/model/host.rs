//! Host endpoints: nodes' own interfaces as policy sees them, and the policies that are about them alone.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_crds as crds;
use margay_crds::HostInterface;

use super::{
    Cluster, NamedPort, NetworkSet, ObjectKey, OwnPolicy, PolicyKind, PolicyRef, nameless,
};
use crate::{
    port::Protocol,
    problem::{Problem, Problems},
    selector::Labels,
};

/// Before the names of host endpoints among those of global network sets: a character that no name has. As a peer a host
/// endpoint is nothing but its addresses under its labels.
const SET_PREFIX: &str = "\u{1}host/";

/// A node's interface, or all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEndpoint {
    /// The name.
    pub name: String,
    /// The labels.
    pub labels: Labels,
    /// The node's name.
    pub node: String,
    /// Which interfaces.
    pub interface: HostInterface,
    /// Its addresses, as far as they are told.
    pub addresses: Vec<IpAddr>,
    /// The named ports.
    pub ports: Vec<NamedPort>,
}

fn read(object: &crds::HostEndpoint) -> (Option<HostEndpoint>, Vec<Problem>) {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut problems = Problems::of("HostEndpoint", "", &name);
    let read = object.read();
    problems.fields(&read.errors, "; it is left out");
    if !object.spec.profiles.is_empty() {
        problems.report(
            "spec.profiles",
            "there are no profiles: without a policy only failsafe ports pass; write a GlobalNetworkPolicy",
        );
    }
    let spec = &object.spec;
    let ports = spec.ports.iter().filter_map(|port| {
        Some(NamedPort {
            name: port.name.clone(),
            protocol: Protocol::of(port.protocol.number())?,
            number: port.port,
        })
    });
    let endpoint = read.interface.map(|interface| HostEndpoint {
        labels: object.metadata.labels.clone().unwrap_or_default().into(),
        node: spec.node.clone(),
        interface,
        addresses: read.addresses,
        ports: ports.collect(),
        name,
    });
    (endpoint, problems.into_found())
}

impl Cluster {
    /// Takes a HostEndpoint, new or changed. One whose interface cannot be read is left out and reported.
    pub fn apply_host_endpoint(&mut self, object: &crds::HostEndpoint) -> Vec<Problem> {
        let (endpoint, problems) = read(object);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if name.is_empty() {
            return nameless("HostEndpoint", "");
        }
        match endpoint {
            Some(endpoint) => self.insert_host_endpoint(endpoint),
            None => self.remove_host_endpoint(name),
        }
        problems
    }

    /// Takes a host endpoint.
    pub fn insert_host_endpoint(&mut self, endpoint: HostEndpoint) {
        let key = ObjectKey::new("", format!("{SET_PREFIX}{}", endpoint.name));
        let nets = endpoint.addresses.iter().copied().map(IpNetwork::from);
        let set = NetworkSet {
            labels: endpoint.labels.clone(),
            nets: nets.collect(),
        };
        self.insert_network_set(key, set);
        self.host_endpoints.insert(endpoint.name.clone(), endpoint);
    }

    /// Forgets a HostEndpoint.
    pub fn remove_host_endpoint(&mut self, name: &str) {
        if self.host_endpoints.remove(name).is_some() {
            self.remove_network_set("", &format!("{SET_PREFIX}{name}"));
        }
    }

    /// The host endpoints of a node, in the order of their names.
    pub fn host_endpoints_of(&self, node: &str) -> impl Iterator<Item = &HostEndpoint> {
        let endpoints = self.host_endpoints.values();
        endpoints.filter(move |endpoint| endpoint.node == node)
    }

    /// Every host endpoint, in the order of their names.
    pub fn host_endpoints(&self) -> impl Iterator<Item = &HostEndpoint> {
        self.host_endpoints.values()
    }

    /// Whether there is a host endpoint at all.
    pub fn has_host_endpoints(&self) -> bool {
        !self.host_endpoints.is_empty()
    }

    /// The policies that may select host endpoints, in the order of their references.
    pub fn policies_for_hosts(&self) -> impl Iterator<Item = &OwnPolicy> {
        let own = self.own_policies.values();
        let own = own.filter(|policy| policy.reference.kind == PolicyKind::GlobalNetworkPolicy);
        own.chain(self.host_policies.values())
    }

    /// Puts a policy where it belongs. Those that are about host endpoints alone are kept apart from those of pods.
    pub(super) fn sort_own(&mut self, policy: OwnPolicy) {
        let reference = policy.reference.clone();
        let mut rules = policy.ingress.iter().chain(&policy.egress).flatten();
        if rules.any(|rule| rule.source.service.is_some() || rule.destination.service.is_some()) {
            self.service_users.insert(reference.clone());
        } else {
            self.service_users.remove(&reference);
        }
        let (to, from) = match policy.host.only {
            true => (&mut self.host_policies, &mut self.own_policies),
            false => (&mut self.own_policies, &mut self.host_policies),
        };
        from.remove(&reference);
        to.insert(reference, policy);
    }

    /// Forgets a policy of ours wherever it is.
    pub(super) fn forget_own(&mut self, reference: &PolicyRef) {
        self.own_policies.remove(reference);
        self.host_policies.remove(reference);
        self.service_users.remove(reference);
    }
}

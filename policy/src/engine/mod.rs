//! The compiler that goes on from where it was: an event touches what it changes.
//!
//! [`Engine`] owns the [`Cluster`] and what was made of it. Objects come in through [`Engine::cluster`], which keeps a list
//! of what has changed; [`Engine::poll`] works the list off and returns the [`Transaction`] between the last answer's
//! table and this one's. The way of an event:
//!
//! ```text
//! policy, tier ─→ groups of endpoints it selects (policies) ─→ questions in force ─┐
//! pod, namespace, account ─→ profiles (peers) ─→ answers ←──────────────────────────┘
//! answers, sets, services ─→ identities of addresses (book) ─→ elements of the address maps
//! groups, own addresses ─→ classes of endpoints (classes) ─→ elements of the dispatch maps
//! identities × classes ─→ decisions, each shared ─→ elements of class maps, chains
//! ```
//!
//! Every step finds what to look at by an index, and everything shared is counted and let go with its last user.
//! [`Compiler`](crate::Compiler) says what the result must be: after any events the table is the one that a compile from
//! nothing gives, but for numbers where two hashes collide. No sockets, no clock.

mod book;
mod classes;
mod draft;
mod index;
mod peers;
mod policies;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    compile::{Failsafes, LocalEndpoint, NodeInput, Pool, check_interface, host, host_part, ipvs},
    model::Cluster,
    problem::{Problem, Problems},
    ruleset::{Ruleset, Transaction},
};
use state::State;

/// Compiles from event to event.
#[derive(Debug)]
pub struct Engine {
    cluster: Cluster,
    /// The endpoints of this are not used: `endpoints` has them by interface.
    node: NodeInput,
    endpoints: BTreeMap<String, LocalEndpoint>,
    /// Interfaces whose endpoint has come, changed or gone.
    touched: BTreeSet<String>,
    nat_changed: bool,
    /// Whether the table has a part for host endpoints.
    has_hosts: bool,
    /// Whether the table has a part for IPVS.
    has_ipvs: bool,
    problems: BTreeMap<String, Vec<Problem>>,
    host_problems: Vec<Problem>,
    state: State,
}

impl Engine {
    /// An engine for the node with this name, about which nothing is known yet.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            cluster: Cluster::new(),
            node: NodeInput {
                node: node.into(),
                ..NodeInput::default()
            },
            endpoints: BTreeMap::new(),
            touched: BTreeSet::new(),
            nat_changed: true,
            has_hosts: false,
            has_ipvs: false,
            problems: BTreeMap::new(),
            host_problems: Vec::new(),
            state: State::new(),
        }
    }

    /// The cluster, to tell it what happens there.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The cluster, to look at.
    pub fn known(&self) -> &Cluster {
        &self.cluster
    }

    /// Takes in a pod's network on this node, new or changed; its interface tells which it is.
    pub fn handle_endpoint(&mut self, endpoint: LocalEndpoint) {
        let interface = endpoint.interface.clone();
        if self.endpoints.get(&interface) == Some(&endpoint) {
            return;
        }
        let mut found = Problems::of("Endpoint", &endpoint.namespace, &endpoint.pod);
        if let Err(reason) = check_interface(&interface) {
            found.report("interface", reason);
        }
        let found = found.into_found();
        if found.is_empty() {
            self.problems.remove(&interface);
        } else {
            self.problems.insert(interface.clone(), found);
        }
        self.endpoints.insert(interface.clone(), endpoint);
        self.touched.insert(interface);
    }

    /// Takes in that an interface is no pod's any more, and returns whose it was.
    pub fn handle_endpoint_gone(&mut self, interface: &str) -> Option<LocalEndpoint> {
        let gone = self.endpoints.remove(interface)?;
        self.problems.remove(interface);
        self.touched.insert(interface.to_owned());
        Some(gone)
    }

    /// The endpoint with this interface.
    pub fn endpoint(&self, interface: &str) -> Option<&LocalEndpoint> {
        self.endpoints.get(interface)
    }

    /// The endpoints there are.
    pub fn endpoints(&self) -> impl Iterator<Item = &LocalEndpoint> {
        self.endpoints.values()
    }

    /// Takes in what is known of the node, but for its endpoints, which are passed over.
    pub fn handle_node(&mut self, mut node: NodeInput) {
        node.endpoints = Vec::new();
        if self.node != node {
            self.node = node;
            self.nat_changed = true;
        }
    }

    /// Takes in the pools.
    pub fn handle_pools(&mut self, pools: &[Pool]) {
        if self.node.pools != pools {
            self.node.pools = pools.to_vec();
            self.nat_changed = true;
        }
    }

    /// Takes in which tunnel devices are in use.
    pub fn handle_tunnels(&mut self, devices: &BTreeSet<String>) {
        if self.node.tunnel_devices != *devices {
            self.node.tunnel_devices.clone_from(devices);
            self.nat_changed = true;
        }
    }

    /// Takes in the node's interfaces with their addresses, and the ports that no policy of a host endpoint closes.
    pub fn handle_host(
        &mut self,
        interfaces: &BTreeMap<String, BTreeSet<std::net::IpAddr>>,
        failsafes: &Failsafes,
    ) {
        if self.node.interfaces != *interfaces {
            self.node.interfaces.clone_from(interfaces);
        }
        if self.node.failsafes != *failsafes {
            self.node.failsafes = failsafes.clone();
        }
    }

    /// What is wrong with endpoints and host endpoints. Problems of the cluster's objects have been returned when it took them.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        let hosts = self.host_problems.iter();
        self.problems.values().flatten().chain(hosts)
    }

    /// Works off what has been taken in. The transaction leads from the table after the last call to that of now; the
    /// first one, from an empty table.
    pub fn poll(&mut self) -> Transaction {
        let changes = self.cluster.take_changes();
        let touched = std::mem::take(&mut self.touched);
        self.state
            .update(&self.cluster, &self.endpoints, touched, changes);
        if std::mem::take(&mut self.nat_changed) {
            self.state.update_nat(&self.node);
        }
        self.update_host();
        self.update_ipvs();
        self.state.take()
    }

    /// Host endpoints are few and their policies small: their part is made anew, and what differs is told.
    fn update_host(&mut self) {
        let here = self.cluster.host_endpoints_of(&self.node.node).next();
        let has_hosts = here.is_some();
        if has_hosts || self.has_hosts {
            let node = NodeInput {
                endpoints: self.endpoints.values().cloned().collect(),
                ..self.node.clone()
            };
            let (wanted, problems) = host_part(&self.cluster, &node);
            self.state.update_part(host::is_host, wanted);
            self.host_problems = problems;
        }
        self.has_hosts = has_hosts;
    }

    /// What is about IPVS is made anew, too: it is an element for each pod here.
    fn update_ipvs(&mut self) {
        let is_in_use = ipvs::is_in_use(&self.node);
        if is_in_use || self.has_ipvs {
            let wanted = match is_in_use {
                true => {
                    let endpoints = self.endpoints.values();
                    let endpoints = endpoints.map(|one| (one.device, one.addresses.as_slice()));
                    ipvs::part(endpoints, self.state.ruleset())
                }
                false => Ruleset::new(),
            };
            self.state.update_part(ipvs::is_ipvs, wanted);
        }
        self.has_ipvs = is_in_use;
    }

    /// The table after the last [`Self::poll`].
    pub fn ruleset(&self) -> &Ruleset {
        self.state.ruleset()
    }
}

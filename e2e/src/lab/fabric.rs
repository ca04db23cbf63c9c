//! The BGP of the lab's routers, whatever daemon speaks it: who speaks with whom, and what a
//! session looks like from outside.
//!
//! The sessions mirror the BGPPeer objects of [`super::objects`]: a ToR speaks with every node of
//! its segment and with the router. What the daemons are told is in [`super::bird`] and
//! [`super::frr`].

use std::net::IpAddr;

use super::error::LabError;
use super::spec::{CLUSTER_AS, Plan, ROUTER_AS, Segment, Tor};
use super::state::{Folder, Ledger};
use super::{bird, frr};

/// One router of the fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Router {
    /// The machine.
    pub machine: String,
    /// Its BGP identifier.
    pub router_id: IpAddr,
    /// Its AS.
    pub as_number: u32,
    /// Whom it speaks with.
    pub neighbors: Vec<Neighbor>,
}

/// One session of a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// The peer's machine.
    pub name: String,
    /// The router's own address.
    pub local: IpAddr,
    /// The peer's address.
    pub remote: IpAddr,
    /// The peer's AS.
    pub remote_as: u32,
    /// Whether the pods' routes are given to the peer: routers get them, nodes have a default
    /// route that leads here anyway.
    pub export: bool,
}

/// One session as a router tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The peer's machine.
    pub peer: String,
    /// Since when, as the daemon writes it.
    pub since: String,
    /// `Established`, `Active`, `Idle` and so on.
    pub state: String,
}

/// Every router with its sessions.
pub fn routers(plan: &Plan) -> Vec<Router> {
    let uplinks = plan.segments.iter().map(|segment| Neighbor {
        name: segment.tor.clone(),
        local: segment.router_end.ip(),
        remote: segment.tor_end.ip(),
        remote_as: segment.as_number,
        export: true,
    });
    let mut all = vec![Router {
        machine: "router".to_owned(),
        router_id: plan.store.gateway,
        as_number: ROUTER_AS,
        neighbors: uplinks.collect(),
    }];
    let tors = plan.segments.iter().enumerate();
    all.extend(tors.map(|(index, segment)| tor(plan, index, segment)));
    all
}

fn tor(plan: &Plan, index: usize, segment: &Segment) -> Router {
    let mut neighbors = vec![Neighbor {
        name: "router".to_owned(),
        local: segment.tor_end.ip(),
        remote: segment.router_end.ip(),
        remote_as: ROUTER_AS,
        export: true,
    }];
    let nodes = plan.nodes.iter().filter(|node| node.segment == index);
    neighbors.extend(nodes.map(|node| Neighbor {
        name: node.host.name.clone(),
        local: segment.gateway,
        remote: node.host.address.ip(),
        remote_as: CLUSTER_AS,
        export: false,
    }));
    Router {
        machine: segment.tor.clone(),
        router_id: segment.gateway,
        as_number: segment.as_number,
        neighbors,
    }
}

/// Starts the daemons of every router and waits until each answers.
///
/// # Errors
/// When one does not start.
pub fn start(ledger: &mut Ledger, plan: &Plan) -> Result<(), LabError> {
    match plan.spec.tor {
        Tor::Bird => bird::start(ledger, plan),
        Tor::Frr => frr::start(ledger, plan),
        Tor::None => Ok(()),
    }
}

/// The sessions of one router.
///
/// # Errors
/// When its daemon does not answer.
pub fn sessions(folder: &Folder, tor: Tor, machine: &str) -> Result<Vec<Session>, LabError> {
    match tor {
        Tor::Bird => bird::sessions(folder, machine),
        Tor::Frr => frr::sessions(folder, machine),
        Tor::None => Ok(Vec::new()),
    }
}

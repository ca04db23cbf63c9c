//! The BGP of the lab's routers, whatever daemon speaks it: who speaks with whom, and what a
//! session looks like from outside.
//!
//! The sessions mirror the BGPPeer objects of [`super::objects`]: a ToR speaks with every node of
//! its segment and with the router. What the daemons are told is in [`super::bird`] and
//! [`super::frr`].

use std::net::IpAddr;

use super::error::LabError;
use super::spec::{CLUSTER_AS, Node, Plan, ROUTER_AS, Segment, Tor};
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
    /// What the peer is given.
    pub given: Given,
    /// Watch the path with BFD.
    pub bfd: bool,
}

/// What a router gives a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// The pods' routes, and the way to the machine outside where there are two ToRs.
    Fabric,
    /// The way to the machine outside.
    Outside,
    /// Nothing: the node's default route leads here anyway.
    Nothing,
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
    let mut uplinks = Vec::new();
    let mut tors = Vec::new();
    for (index, segment) in plan.segments.iter().enumerate() {
        let first = (&segment.tor, segment.router_end, segment.tor_end);
        let mut places = vec![(first, segment.gateway)];
        places.extend(segment.second.iter().map(|second| {
            let links = (&second.name, second.router_end, second.tor_end);
            (links, second.address)
        }));
        for ((name, router_end, tor_end), address) in places {
            uplinks.push(Neighbor {
                name: name.clone(),
                local: router_end.ip(),
                remote: tor_end.ip(),
                remote_as: segment.as_number,
                given: Given::Fabric,
                bfd: false,
            });
            let mut neighbors = vec![Neighbor {
                name: "router".to_owned(),
                local: tor_end.ip(),
                remote: router_end.ip(),
                remote_as: ROUTER_AS,
                given: Given::Fabric,
                bfd: false,
            }];
            neighbors.extend(nodes(plan, index, segment, address));
            tors.push(Router {
                machine: name.clone(),
                router_id: address,
                as_number: segment.as_number,
                neighbors,
            });
        }
    }
    let router = Router {
        machine: "router".to_owned(),
        router_id: plan.store.gateway,
        as_number: ROUTER_AS,
        neighbors: uplinks,
    };
    std::iter::once(router).chain(tors).collect()
}

/// The sessions of a ToR with the nodes of its segment.
fn nodes(plan: &Plan, index: usize, segment: &Segment, local: IpAddr) -> Vec<Neighbor> {
    let two = segment.second.is_some();
    let nodes = plan.nodes.iter().filter(|node| node.segment == index);
    let neighbor = |node: &Node| Neighbor {
        name: node.host.name.clone(),
        local,
        remote: node.host.address.ip(),
        remote_as: CLUSTER_AS,
        given: if two { Given::Outside } else { Given::Nothing },
        bfd: two,
    };
    nodes.map(neighbor).collect()
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

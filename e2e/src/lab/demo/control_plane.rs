//! What the control plane says of itself: sessions, routes, blocks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kube::Client;
use kube::api::{Api, ListParams};
use margay_crds::ipam_block::{Owner, OwnerKind};
use margay_crds::{IPAMBlock, NodeStatus};

use super::checks::Checks;
use super::convergence::sessions_of_a_node;
use crate::lab::error::LabError;
use crate::lab::fabric;
use crate::lab::report::{Align, Cell, Screen, Table, Tone};
use crate::lab::routes::{self, Route, Way};
use crate::lab::up::{Cluster, Lab};

pub(super) async fn show(
    lab: &Lab,
    cluster: &Cluster,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    node_sessions(lab, cluster, checks, screen).await?;
    if lab.plan.spec.tor.speaks_bgp() {
        tor_sessions(lab, checks, screen)?;
    }
    let blocks = blocks(&cluster.client).await?;
    block_table(&blocks, checks, screen);
    node_routes(lab, cluster, &blocks, screen)?;
    if lab.plan.spec.tor.speaks_bgp() {
        fabric_routes(lab, &blocks, checks)?;
    }
    Ok(())
}

async fn node_sessions(
    lab: &Lab,
    cluster: &Cluster,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    screen.title("BGP sessions of the nodes (kubectl get nodestatuses)");
    let api: Api<NodeStatus> = Api::all(cluster.client.clone());
    let listed = api.list(&ListParams::default()).await;
    let list = listed.map_err(LabError::store("list NodeStatuses"))?;
    let mut table = Table::new(&[
        ("node", Align::Left),
        ("peer", Align::Left),
        ("AS", Align::Right),
        ("from", Align::Left),
        ("state", Align::Left),
        ("in", Align::Right),
        ("out", Align::Right),
    ]);
    let mut established = 0;
    let mut not_ready = Vec::new();
    for object in list.items {
        let node = object.metadata.name.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let ready = status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready");
        match ready {
            Some(condition) if condition.is_true() => {}
            Some(condition) => not_ready.push(format!("{node}: {}", condition.message)),
            None => not_ready.push(format!("{node} has no condition Ready")),
        }
        for peer in status.bgp.peers {
            let up = peer.state == "Established";
            established += usize::from(up);
            table.row([
                node.as_str().into(),
                peer.address.into(),
                peer.as_number.to_string().into(),
                peer.origin.into(),
                Cell::new(if up { Tone::Good } else { Tone::Bad }, peer.state),
                peer.prefixes_received.to_string().into(),
                peer.prefixes_sent.to_string().into(),
            ]);
        }
    }
    table.print(screen);
    let wanted = lab.plan.nodes.len() * sessions_of_a_node(&lab.plan);
    checks.equal("sessions established on the nodes:", &wanted, &established);
    checks.none(
        "every NodeStatus is Ready",
        "condition Ready is True",
        &not_ready,
    );
    Ok(())
}

fn tor_sessions(lab: &Lab, checks: &mut Checks, screen: Screen) -> Result<(), LabError> {
    screen.title("BGP sessions of the routers, as they tell them");
    let mut table = Table::new(&[
        ("router", Align::Left),
        ("peer", Align::Left),
        ("state", Align::Left),
        ("since", Align::Left),
    ]);
    let mut down = Vec::new();
    let tors = lab.plan.tors();
    for machine in ["router"].into_iter().chain(tors) {
        for session in fabric::sessions(&lab.ledger.folder, lab.plan.spec.tor, machine)? {
            let up = session.state == "Established";
            if !up {
                down.push(format!(
                    "{machine} sees {} as {}",
                    session.peer, session.state
                ));
            }
            table.row([
                machine.into(),
                session.peer.into(),
                Cell::new(if up { Tone::Good } else { Tone::Bad }, session.state),
                Cell::new(Tone::Dim, session.since),
            ]);
        }
    }
    table.print(screen);
    checks.none(
        "every session of the routers is established",
        "Established",
        &down,
    );
    Ok(())
}

async fn blocks(client: &Client) -> Result<Vec<IPAMBlock>, LabError> {
    let api: Api<IPAMBlock> = Api::all(client.clone());
    let listed = api.list(&ListParams::default()).await;
    let mut blocks = listed.map_err(LabError::store("list IPAMBlocks"))?.items;
    // By number, not by text: .64 comes before .128.
    blocks.sort_by_key(|block| block.spec.cidr.parse::<IpNetwork>().ok());
    Ok(blocks)
}

/// How many addresses pods hold. The nodes' own, on their tunnels, stay as long as the nodes.
pub(super) async fn addresses_of_pods(client: &Client) -> Result<usize, LabError> {
    let blocks = blocks(client).await?;
    let held = blocks.iter().flat_map(|block| &block.spec.allocations);
    Ok(held.filter(|one| one.owner.kind.is_pod()).count())
}

fn block_table(blocks: &[IPAMBlock], checks: &mut Checks, screen: Screen) {
    screen.title("Blocks (kubectl get ipamblocks)");
    let mut table = Table::new(&[
        ("block", Align::Left),
        ("node", Align::Left),
        ("used", Align::Right),
        ("held by", Align::Left),
    ]);
    let mut doubled = Vec::new();
    let mut seen = BTreeMap::new();
    for block in blocks {
        let spec = &block.spec;
        let holders: Vec<String> = spec
            .allocations
            .iter()
            .map(|one| format!("{} {}", holder(&one.owner), short(&one.address)))
            .collect();
        for one in &spec.allocations {
            if let Some(other) = seen.insert(&one.address, &one.owner) {
                doubled.push(format!(
                    "{} is held by {other} and {}",
                    one.address, one.owner
                ));
            }
        }
        table.row([
            spec.cidr.as_str().into(),
            spec.node.as_str().into(),
            spec.used.to_string().into(),
            Cell::new(Tone::Dim, holders.join(", ")),
        ]);
    }
    table.print(screen);
    checks.none("no address is held twice", "one holder each", &doubled);
}

fn holder(owner: &Owner) -> &str {
    match owner.kind {
        OwnerKind::Pod => &owner.pod,
        OwnerKind::Tunnel => "tunnel",
        OwnerKind::LoadBalancer => &owner.service,
    }
}

/// The last part of an address, which differs within a block.
fn short(address: &str) -> String {
    let last = address.rsplit(['.', ':']).next().unwrap_or(address);
    format!(".{last}")
}

fn node_routes(
    lab: &Lab,
    cluster: &Cluster,
    blocks: &[IPAMBlock],
    screen: Screen,
) -> Result<(), LabError> {
    let Some(node) = lab.plan.nodes.first().map(|node| node.host.name.as_str()) else {
        return Ok(());
    };
    screen.title(&format!(
        "Routes of {node} (ip route show proto {})",
        routes::PROTOCOL
    ));
    let mut table = Table::new(&[
        ("destination", Align::Left),
        ("via", Align::Left),
        ("device", Align::Left),
        ("", Align::Left),
    ]);
    for route in routes::of_margay(&lab.plan.namespace(node))? {
        let via = route.gateway.map_or(String::new(), |via| via.to_string());
        let tunnelled = route.way().is_tunnel();
        let meaning = meaning(&route, cluster, blocks);
        let device = route.dev.unwrap_or(route.kind.unwrap_or_default());
        table.row([
            route.dst.into(),
            via.into(),
            Cell::new(if tunnelled { Tone::Accent } else { Tone::Plain }, device),
            Cell::new(Tone::Dim, meaning),
        ]);
    }
    table.print(screen);
    Ok(())
}

fn meaning(route: &Route, cluster: &Cluster, blocks: &[IPAMBlock]) -> String {
    let pod = cluster
        .pods
        .iter()
        .find(|pod| Some(pod.address) == route.network().map(|net| net.ip()));
    let owner = blocks.iter().find(|block| block.spec.cidr == route.dst);
    let owner = owner.map_or("?", |block| &block.spec.node);
    match (route.way(), pod) {
        (Way::Local, Some(pod)) => format!("pod {}", pod.plan.name),
        (Way::Local, None) => "a pod".to_owned(),
        (Way::Blackhole, _) => "own block: addresses without a pod".to_owned(),
        (Way::Direct, _) => format!("block of {owner}, on this segment"),
        (Way::Ipip | Way::Vxlan, _) => format!("block of {owner}, on another segment"),
    }
}

/// The ToR of a block's node sends packets for it to that very node.
fn fabric_routes(lab: &Lab, blocks: &[IPAMBlock], checks: &mut Checks) -> Result<(), LabError> {
    let mut wrong = Vec::new();
    for block in blocks {
        let Some(index) = lab.plan.node_index(&block.spec.node) else {
            wrong.push(format!(
                "{} is of {}, which is no node",
                block.spec.cidr, block.spec.node
            ));
            continue;
        };
        let Some(segment) = lab.plan.segment_of(index) else {
            continue;
        };
        let owner = lab.plan.nodes.get(index).map(|node| node.host.address.ip());
        let routes = routes::all(&lab.plan.namespace(&segment.tor))?;
        let route = routes.iter().find(|route| route.dst == block.spec.cidr);
        let via: Option<IpAddr> = route.and_then(|route| route.gateway);
        if via != owner {
            let via = via.map_or("nothing".to_owned(), |via| via.to_string());
            wrong.push(format!(
                "{} on {} goes to {via}",
                block.spec.cidr, segment.tor
            ));
        }
    }
    checks.none(
        "each ToR sends a block's packets to the block's node",
        "the node's address",
        &wrong,
    );
    Ok(())
}

//! A full mesh of a thousand nodes as one real agent sees it: the Nodes are objects in the store,
//! their speakers are simulated ([`super::crowd`]).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use margay_crds::{IPAMBlock, IPPool, NODE_LABEL, NodeStatus};
use margay_e2e::lab::objects::POOL_NAME;
use margay_e2e::lab::process::{self, resident_kib};
use margay_e2e::lab::{Tor, routes};
use serde_json::json;

use super::crowd::Crowd;
use super::router::{Router, ip};
use crate::ground::{Ground, runnable};

const NODES: usize = 1000;
/// How long the agent is watched when nothing happens.
const QUIET: Duration = Duration::from_secs(5);
/// How often a block of the real node comes and goes.
const ROUNDS: usize = 10;

/// The address of the numbered simulated node.
fn address(number: usize) -> Ipv4Addr {
    let (high, low) = (number / 250, number % 250 + 1);
    Ipv4Addr::new(
        10,
        11,
        u8::try_from(high).unwrap(),
        u8::try_from(low).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn netns_one_agent_in_a_mesh_of_a_thousand() {
    if !runnable("netns_one_agent_in_a_mesh_of_a_thousand") {
        return;
    }
    let mut ground = Ground::prepare("t-thousand", 1, 1, Tor::None, 0).await;
    let crowd = gather(&mut ground);
    let agent = ground.process("agent node1");
    println!("  alone: {} MiB", mebibytes(agent.pid));

    create_pool(&ground).await;
    let start = Instant::now();
    create_nodes(&ground).await;
    println!("  {NODES} Nodes in the store: {:.1?}", start.elapsed());
    ground
        .until("a thousand sessions", 90, || async {
            let up = crowd.up();
            (up == NODES).then_some(()).ok_or(format!("{up} are up"))
        })
        .await;
    let up = start.elapsed();
    let namespace = ground.namespace("node1");
    ground
        .until("a thousand routes", 60, || async {
            let all = routes::of_margay(&namespace).map_err(|error| error.to_string())?;
            // Those of the agent's own blocks are not among them.
            let seen = all
                .iter()
                .filter(|one| format!("{one:?}").contains("10.20"))
                .count();
            (seen == NODES)
                .then_some(())
                .ok_or(format!("{seen} routes"))
        })
        .await;
    println!(
        "  {NODES} sessions up after {up:.1?}, their routes in the kernel after {:.1?}, {:.1} s of CPU, {} MiB",
        start.elapsed(),
        cpu(agent.pid),
        mebibytes(agent.pid)
    );

    blocks_come_and_go(&ground, &crowd).await;
    let before = cpu(agent.pid);
    tokio::time::sleep(QUIET).await;
    let share = (cpu(agent.pid) - before) / QUIET.as_secs_f64() * 100.0;
    println!(
        "  at rest: {share:.1} % of a processor, {} MiB",
        mebibytes(agent.pid)
    );
    assert_eq!(crowd.up(), NODES);
    the_status_is_small(&ground).await;
    assert!(process::is_alive(&agent));
    let memory = resident_kib(agent.pid).unwrap();
    assert!(memory < 512 * 1024, "{memory} KiB");
    assert!(share < 60.0, "{share} %");
}

/// One machine has all the addresses, and the way to them leads through it.
fn gather(ground: &mut Ground) -> Crowd {
    let router = Router::on_segment(ground, "crowd", &["10.10.1.250/24"]);
    router.ip("route add local 10.11.0.0/16 dev lo");
    let node = ground.namespace("node1");
    ip(&format!("-n {node} route add 10.11.0.0/16 via 10.10.1.250"));
    Crowd::gather(&router.namespace)
}

/// The space of the simulated nodes' blocks, tunnelled as that of the lab's.
async fn create_pool(ground: &Ground) {
    let api: Api<IPPool> = Api::all(ground.cluster.client.clone());
    let lab = api.get(POOL_NAME).await.unwrap();
    let spec = json!({"cidr": "10.200.0.0/14", "disabled": true,
        "ipipMode": lab.spec.ipip_mode, "vxlanMode": lab.spec.vxlan_mode});
    let object = json!({"metadata": {"name": "far"}, "spec": spec});
    ground.create(&api, object).await;
}

async fn create_nodes(ground: &Ground) {
    let api: Api<Node> = Api::all(ground.cluster.client.clone());
    let made = stream::iter(0..NODES)
        .map(|number| {
            let api = api.clone();
            async move {
                let name = format!("far-{number:04}");
                let node = json!({"metadata": {"name": name, "labels": {"rack": format!("r{}", number / 40)}}});
                let node: Node = serde_json::from_value(node).unwrap();
                api.create(&PostParams::default(), &node).await?;
                let status = json!({"status": {"addresses": [
                    {"type": "InternalIP", "address": address(number).to_string()}]}});
                let parameters = PatchParams::default();
                api.patch_status(&name, &parameters, &Patch::Merge(&status)).await
            }
        })
        .buffer_unordered(16)
        .try_collect::<Vec<Node>>()
        .await;
    assert_eq!(made.unwrap().len(), NODES);
}

/// From the write of a block until every one of the thousand has its route, and until none has.
async fn blocks_come_and_go(ground: &Ground, crowd: &Crowd) {
    let api: Api<IPAMBlock> = Api::all(ground.cluster.client.clone());
    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for round in 0..ROUNDS {
        let cidr = format!("10.244.255.{}/26", round % 4 * 64);
        let network = cidr.parse().unwrap();
        let name = IPAMBlock::name_of(network);
        let object = json!({
            "metadata": {"name": name, "labels": {NODE_LABEL: "node1"}},
            "spec": {"cidr": cidr, "node": "node1"},
        });
        for (what, wanted) in [("announced", NODES), ("withdrawn", 0)] {
            let start = Instant::now();
            match wanted {
                0 => drop(api.delete(&name, &DeleteParams::default()).await.unwrap()),
                _ => ground.create(&api, object.clone()).await,
            }
            let last = ground
                .until(&format!("{cidr} to be {what}"), 20, || async {
                    match crowd.with_route(&cidr) {
                        (have, Some(last)) if have == wanted && last >= start => Ok(last),
                        (have, _) => Err(format!("{have} have it")),
                    }
                })
                .await;
            times.entry(what).or_default().push(last - start);
        }
    }
    for (what, mut times) in times {
        times.sort_unstable();
        let (middle, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("  a block {what} to all {NODES}: median {middle:.1?}, longest {worst:.1?}");
        assert!(middle < Duration::from_secs(2), "{times:?}");
    }
}

/// Sessions of the mesh do not make an object that grows with the cluster.
async fn the_status_is_small(ground: &Ground) {
    let api: Api<NodeStatus> = Api::all(ground.cluster.client.clone());
    let size = ground
        .until("the NodeStatus to count the sessions", 20, || async {
            let object = api.get("node1").await.map_err(|error| error.to_string())?;
            let text = serde_json::to_string(&object).unwrap();
            let bgp = object.status.unwrap_or_default().bgp;
            let counted = bgp.established as usize == NODES
                && bgp.peers.len() + bgp.peers_left_out as usize == NODES;
            counted
                .then_some(text.len())
                .ok_or(format!("{} up", bgp.established))
        })
        .await;
    println!("  its NodeStatus has {size} octets");
    assert!(size < 64 * 1024);
}

fn mebibytes(pid: u32) -> u64 {
    resident_kib(pid).unwrap_or_default() / 1024
}

/// Seconds of processor time that a process has used: fields 14 and 15 of its `stat`, in hundredths.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let fields: Vec<f64> = after
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    // The state, a letter, is not among them.
    (fields[10] + fields[11]) / 100.0
}

//! Restarts beside an FRR ToR: one agent several times in a row and again before it has settled,
//! then all agents at once. Nobody sees a route move, and nobody waits for another.

use std::time::Instant;

use margay_e2e::lab::cluster::{self, agent_name};
use margay_e2e::lab::up::Lab;
use margay_e2e::lab::{Tor, frr, process};

use crate::flow::{self, SECOND};
use crate::ground::{Ground, runnable};
use crate::restart::{RouteWatch, flows};

const NODE: &str = "node1";
/// How long a mass restart may take, in seconds: far less than any timer of graceful restart.
const SOON: u64 = 30;

fn overs(ground: &Ground, node: &str) -> usize {
    let log = ground.log_of(&agent_name(node));
    log.matches("restart is over").count()
}

async fn until_over(ground: &Ground, node: &str, wanted: usize) {
    ground
        .until(&format!("the restart of {node} to be over"), 40, || async {
            let now = overs(ground, node);
            (now >= wanted).then_some(()).ok_or(format!("{now} times"))
        })
        .await;
}

/// Whether the ToR has the block from the node itself, and not only from memory.
async fn until_fresh(ground: &Ground, tor: &str, block: &str) {
    let question = format!("show bgp ipv4 unicast {block} json");
    ground
        .until(&format!("{tor} to have {block} afresh"), 30, || async {
            let folder = &ground.lab.ledger.folder;
            let answer = frr::ask(folder, tor, &question).map_err(|error| error.to_string())?;
            let known = answer.contains("\"valid\":true") && !answer.contains("\"stale\":true");
            known.then_some(()).ok_or(answer)
        })
        .await;
}

async fn again_and_again(ground: &mut Ground, block: &str) {
    let running = flows(ground);
    flow::advance_all(ground, &running, SECOND / 2).await;
    for number in 1..=3 {
        let done = overs(ground, NODE);
        process::kill(&ground.process(&agent_name(NODE)));
        flow::advance_all(ground, &running, SECOND / 2).await;
        if number == 3 {
            // The second time, nobody has had time to settle.
            ground.start_agent(NODE).await;
            process::kill(&ground.process(&agent_name(NODE)));
        }
        ground.start_agent(NODE).await;
        until_over(ground, NODE, done + 1).await;
        ground.until_sessions(NODE, 4).await;
        until_fresh(ground, "tor-a", block).await;
    }
    flow::advance_all(ground, &running, SECOND).await;
    eprintln!("  {} echoes, none lost", flow::all_came_back(running));
}

async fn all_at_once(ground: &mut Ground) {
    let running = flows(ground);
    flow::advance_all(ground, &running, SECOND / 2).await;
    let nodes = ground.lab.plan.nodes.iter();
    let names: Vec<String> = nodes.map(|node| node.host.name.clone()).collect();
    let before: Vec<usize> = names.iter().map(|node| overs(ground, node)).collect();
    for node in &names {
        process::kill(&ground.process(&agent_name(node)));
    }
    flow::advance_all(ground, &running, SECOND / 2).await;
    let start = Instant::now();
    let Lab { plan, ledger, .. } = &mut ground.lab;
    let started = cluster::start_agents(ledger, plan, &ground.binaries);
    started.await.unwrap();
    for (node, before) in names.iter().zip(before) {
        ground.until_sessions(node, 4).await;
        until_over(ground, node, before + 1).await;
    }
    let took = start.elapsed();
    flow::advance_all(ground, &running, SECOND).await;
    let sent = flow::all_came_back(running);
    eprintln!("  all back and settled in {took:?}; {sent} echoes, none lost");
    assert!(
        took.as_secs() < SOON,
        "they waited for one another: {took:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn frr_sees_no_flap_and_nobody_waits_for_another() {
    if !runnable("frr_sees_no_flap_and_nobody_waits_for_another") {
        return;
    }
    let mut ground = Ground::prepare("t-together", 4, 2, Tor::Frr, 6).await;
    let block = ground.blocks_of(NODE).await.remove(0);
    let watches: Vec<RouteWatch> = ["tor-a", "tor-b", "router", "node2", "node3"]
        .iter()
        .map(|machine| RouteWatch::start(&ground, machine))
        .collect();
    again_and_again(&mut ground, &block).await;
    all_at_once(&mut ground).await;
    let pool = ground.lab.plan.pool.to_string();
    let prefix = pool.split(".0.0").next().unwrap_or(&pool);
    for watch in &watches {
        // A pod's own routes are not BGP's, and no pod comes or goes.
        let seen = watch.seen(prefix);
        assert!(seen.is_empty(), "routes moved: {seen:#?}");
    }
}

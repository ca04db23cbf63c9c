//! Two ToRs a segment: traffic takes both, and when one goes silent BFD tells within milliseconds,
//! on the nodes and on the ToR alike.

use margay_e2e::lab::bird;
use margay_e2e::lab::command::run;
use margay_e2e::lab::topology::{BRIDGE, SEGMENT_PORT};
use margay_e2e::lab::{LabSpec, Tor};

use crate::flow::{self, Flow, SECOND};
use crate::ground::{Ground, runnable};

const SECOND_TOR: &str = "tor-a2";
/// The most echoes that one flow may lose, at 20 ms each: 200 ms.
const FEW: usize = 10;

/// How many next hops a machine has for a destination.
fn ways(ground: &Ground, machine: &str, destination: &str) -> usize {
    let namespace = ground.namespace(machine);
    let shown = run("ip", &["-n", &namespace, "route", "show", destination]).unwrap();
    shown.matches(" via ").count()
}

async fn until_ways(ground: &Ground, places: &[(&str, String)], wanted: usize) {
    ground
        .until(&format!("{wanted} ways"), 20, || async {
            for (machine, destination) in places {
                let seen = ways(ground, machine, destination);
                if seen != wanted {
                    return Err(format!("{machine} has {seen} ways to {destination}"));
                }
            }
            Ok(())
        })
        .await;
}

/// Packets that the second ToR has taken from its segment and from the router.
fn carried(ground: &Ground) -> [u64; 2] {
    [SEGMENT_PORT, "up0"].map(|interface| {
        let namespace = ground.namespace(SECOND_TOR);
        let arguments = ["-n", &namespace, "-j", "-s", "link", "show", interface];
        let shown: serde_json::Value =
            serde_json::from_str(&run("ip", &arguments).unwrap()).unwrap();
        shown[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    })
}

async fn until_bfd(ground: &Ground, wanted: usize) {
    let socket = bird::control_socket(&ground.lab.ledger.folder, SECOND_TOR);
    ground
        .until(&format!("{wanted} BFD sessions up"), 20, || async {
            let seen = bird::ask(&socket, &["show", "bfd", "sessions"]);
            let seen = seen.map_err(|error| error.to_string())?;
            let up = seen.matches(" Up ").count();
            (up == wanted).then_some(()).ok_or(seen)
        })
        .await;
}

/// Every pod asks the machine outside, and is asked by it.
fn flows(ground: &Ground) -> Vec<Flow> {
    let outside = ground.lab.plan.outside.address.ip();
    let pods = &ground.cluster.pods;
    let out = pods.iter().map(|pod| {
        let name = format!("{} out", pod.plan.name);
        Flow::start(ground, &name, &pod.sandbox.namespace, outside)
    });
    let inwards = pods.iter().map(|pod| {
        let name = format!("{} in", pod.plan.name);
        Flow::start(ground, &name, &ground.namespace("outside"), pod.address)
    });
    out.chain(inwards).collect()
}

fn set_port(ground: &Ground, arguments: &[&str]) {
    let namespace = ground.namespace("tor-a");
    let mut all = vec!["-n", &namespace, "link", "set", SECOND_TOR];
    all.extend(arguments);
    run("ip", &all).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_tors_goes_silent() {
    if !runnable("one_of_two_tors_goes_silent") {
        return;
    }
    let ground = Ground::build(LabSpec {
        name: "t-ecmp".to_owned(),
        nodes: 2,
        segments: 1,
        tor: Tor::Bird,
        tors: 2,
        pods: 6,
    })
    .await;
    let outside = ground.lab.plan.outside_subnet().to_string();
    let block = ground.blocks_of("node1").await.remove(0);
    let places = [
        ("node1", outside.clone()),
        ("node2", outside),
        ("router", block),
    ];
    until_ways(&ground, &places, 2).await;
    until_bfd(&ground, 2).await;

    let running = flows(&ground);
    flow::advance_all(&ground, &running, SECOND).await;
    let before = carried(&ground);
    flow::advance_all(&ground, &running, SECOND).await;
    let after = carried(&ground);
    for (before, after) in before.iter().zip(after) {
        // BFD alone is 40 a second from the nodes; one flow is 50.
        assert!(
            after - before > 60,
            "{SECOND_TOR} carries nothing: {before} {after}"
        );
    }

    // The carrier stays: nothing but silence tells.
    set_port(&ground, &["nomaster"]);
    until_ways(&ground, &places, 1).await;
    flow::advance_all(&ground, &running, 2 * SECOND).await;
    let reports: Vec<flow::Report> = running.into_iter().map(Flow::end).collect();
    let hit: Vec<_> = reports.iter().filter(|one| !one.lost.is_empty()).collect();
    let most = hit.iter().map(|one| one.lost.len()).max().unwrap_or(0);
    eprintln!(
        "  cut: {} of {} flows lost something, at most {most} echoes of 20 ms",
        hit.len(),
        reports.len()
    );
    assert!(!hit.is_empty(), "the cut was not felt: {reports:?}");
    assert!(most <= FEW, "{hit:#?}");

    set_port(&ground, &["master", BRIDGE]);
    until_ways(&ground, &places, 2).await;
    let again = flows(&ground);
    flow::advance_all(&ground, &again, SECOND).await;
    flow::all_came_back(again);
}

//! An agent that is killed, or ends, is not missed: no packet is lost, no neighbour sees a route
//! go, policy stays, and the next agent takes up where it was.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::Api;
use margay_e2e::lab::bird;
use margay_e2e::lab::cluster::agent_name;
use margay_e2e::lab::command::run;
use margay_e2e::lab::process;
use margay_e2e::lab::spec::POD_NAMESPACE;
use margay_e2e::lab::state::ProcessRecord;
use margay_e2e::lab::{Tor, namespaces};
use serde_json::json;

use crate::call::Call;
use crate::flow::{self, Flow, SECOND};
use crate::ground::{Ground, routes_of, runnable, table};

const NODE: &str = "node1";

/// Everything that the kernel of a router does to its routes, written down.
pub struct RouteWatch {
    child: Child,
    output: std::path::PathBuf,
}

impl RouteWatch {
    pub fn start(ground: &Ground, machine: &str) -> Self {
        let output = ground.lab.logs().join(format!("routes-{machine}.log"));
        let file = File::create(&output).unwrap();
        let child = namespaces::inside(&ground.namespace(machine), || {
            let mut command = Command::new("ip");
            command.args(["-ts", "monitor", "route"]);
            let child = command.stdin(Stdio::null()).stdout(file).spawn();
            child.map_err(|error| panic!("ip does not start: {error}"))
        });
        Self {
            child: child.unwrap(),
            output,
        }
    }

    pub fn seen(&self, block: &str) -> Vec<String> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        let about = text.lines().filter(|line| line.contains(block));
        about.map(str::to_owned).collect()
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn deny_job(ground: &Ground) {
    let policies: Api<NetworkPolicy> =
        Api::namespaced(ground.cluster.client.clone(), POD_NAMESPACE);
    let object = json!({
        "metadata": {"name": "only-web-1", "namespace": POD_NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"pod": "job-1"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"pod": "web-1"}}}]}],
        },
    });
    ground.create(&policies, object).await;
    let (from, to) = (ground.pod("web-2"), ground.pod("job-1"));
    let asking = from.sandbox.namespace;
    ground
        .until("the policy in force", 10, || async {
            match ground.reaches(&asking, to.address) {
                true => Err("web-2 reaches job-1".to_owned()),
                false => Ok(()),
            }
        })
        .await;
}

pub fn flows(ground: &Ground) -> Vec<Flow> {
    let pod = |name: &str| ground.pod(name);
    let (web1, web4, job1) = (pod("web-1"), pod("web-4"), pod("job-1"));
    let from_pod = |name: &str| pod(name).sandbox.namespace;
    let start = |name: &str, namespace: &str, to| Flow::start(ground, name, namespace, to);
    vec![
        start("a pod on the segment", &from_pod("web-2"), web1.address),
        start("a pod through the tunnel", &from_pod("web-3"), web1.address),
        start(
            "outside, by the ToR",
            &ground.namespace("outside"),
            web1.address,
        ),
        start("out through the tunnel", &from_pod("web-1"), web4.address),
        start(
            "a node on the segment",
            &ground.namespace("node2"),
            web1.address,
        ),
        start("by policy, on the node", &from_pod("web-1"), job1.address),
    ]
}

async fn round(ground: &mut Ground, number: usize, how: &str, end: fn(&ProcessRecord)) {
    eprintln!("round {number}: {how}");
    let agent = ground.process(&agent_name(NODE));
    let namespace = ground.namespace(NODE);
    let job = ground.pod("job-1");
    let leaving = ground
        .start_pod(&format!("leaving-{number}"), "extra", NODE)
        .await;
    ground
        .cluster
        .pods
        .retain(|pod| pod.plan.name != leaving.plan.name);
    let restarts = ground
        .log_of(&agent.name)
        .matches("restart is over")
        .count();

    let running = flows(ground);
    let denied = Flow::start(
        ground,
        "denied",
        &ground.pod("web-2").sandbox.namespace,
        job.address,
    );
    flow::advance_all(ground, &running, SECOND / 2).await;
    let (routes, rules) = (routes_of(&namespace), table(&namespace));
    assert!(routes.len() > 4 && rules.len() > 10, "{routes:?} {rules:?}");

    let start = std::time::Instant::now();
    end(&agent);
    assert!(!process::is_alive(&agent));
    let ended = start.elapsed();
    flow::advance_all(ground, &running, SECOND).await;
    assert_eq!(routes_of(&namespace), routes, "while it is dead");
    assert_eq!(table(&namespace), rules, "while it is dead");

    // A pod's end does not wait for the agent; a pod's beginning does.
    let call = Call::new(ground.plugin(NODE), &leaving.sandbox);
    let deleted = call.run("DEL");
    assert!(deleted.took.as_secs() < 2, "{deleted:?}");
    deleted.result();
    let refused = call.run("ADD");
    assert_eq!(refused.code(), 11, "{refused:?}");
    assert!(refused.took.as_secs() < 2, "{refused:?}");
    // ADD dropped nothing: the delete is still there to be done.
    let waiting = ground.holdings(NODE).await.waiting_deletes;
    assert_eq!(waiting.len(), 1, "{waiting:?}");

    let start = std::time::Instant::now();
    ground.start_agent(NODE).await;
    let able = start.elapsed();
    ground.until_sessions(NODE, 4).await;
    let established = start.elapsed();
    ground
        .until("the restart to be over", 30, || async {
            let now = ground
                .log_of(&agent.name)
                .matches("restart is over")
                .count();
            (now > restarts).then_some(()).ok_or(format!("{now} times"))
        })
        .await;
    let settled = start.elapsed();
    flow::advance_all(ground, &running, SECOND).await;
    eprintln!(
        "  gone in {ended:?}; able to wire after {able:?}, sessions {established:?}, settled {settled:?}"
    );

    let container = leaving.sandbox.container_id.clone();
    let replayed = ground
        .time_until("the journalled delete to be done", 20, || async {
            let left = ground.holdings(NODE).await;
            let held = left.allocations.iter().any(|one| one.contains(&container));
            match held || !left.waiting_deletes.is_empty() {
                true => Err(format!("{left:?}")),
                false => Ok(()),
            }
        })
        .await;
    eprintln!("  the delete is done after another {replayed:?}");

    // A new pod is wired, and answers across segments.
    let new = ground
        .start_pod(&format!("new-{number}"), "extra", NODE)
        .await;
    let asking = ground.pod("web-3").sandbox.namespace;
    assert!(ground.reaches(&asking, new.address));
    let sent = flow::all_came_back(running);
    let denied = denied.end();
    assert_eq!(denied.received, 0, "{denied:?}");
    assert!(denied.sent > 2 * SECOND, "{denied:?}");
    eprintln!(
        "  {sent} echoes, none lost; {} denied, none through",
        denied.sent
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_or_ends_is_not_missed() {
    if !runnable("an_agent_that_dies_or_ends_is_not_missed") {
        return;
    }
    let mut ground = Ground::prepare("t-restart", 4, 2, Tor::Bird, 6).await;
    deny_job(&ground).await;
    let block = ground.blocks_of(NODE).await.remove(0);
    let watches: Vec<RouteWatch> = ["tor-a", "tor-b", "router", "node2", "node3"]
        .iter()
        .map(|machine| RouteWatch::start(&ground, machine))
        .collect();
    let socket = bird::control_socket(&ground.lab.ledger.folder, "tor-a");
    let socket = socket.to_string_lossy().into_owned();
    run(
        "birdc",
        &["-s", &socket, "debug", "\"to-node1\"", "{ states, routes }"],
    )
    .unwrap();
    let said_before = ground.log_of("bird tor-a").len();

    for number in 1..=3 {
        round(&mut ground, number, "kill -9", process::kill).await;
    }
    for number in 4..=5 {
        round(&mut ground, number, "SIGTERM", process::stop).await;
    }

    for watch in &watches {
        let seen = watch.seen(&block);
        assert!(seen.is_empty(), "{block} moved: {seen:#?}");
    }
    let log = ground.log_of("bird tor-a");
    let said = log.get(said_before..).unwrap_or_default();
    // BIRD did see the sessions go, and kept the routes.
    assert!(said.matches("to-node1").count() >= 5, "{said}");
    let gone = said.lines().filter(|line| {
        line.contains(&block) && (line.contains("removed") || line.contains("withdrawn"))
    });
    let gone: Vec<&str> = gone.collect();
    assert!(gone.is_empty(), "{gone:#?}");
}

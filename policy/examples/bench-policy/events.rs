//! From an event's arrival to the kernel's commit, on a node with 250 pods of 10,000.

use std::time::Instant;

use margay_policy::{
    Engine,
    model::ObjectKey,
    writer::{Error, Netlink, Nft, Writer},
};
use serde_json::{Value, json};

use crate::{
    network::{Network, block_on, within},
    quantile,
    world::{Labels, endpoint, labels, model, namespace, peer, policy, port},
};

const PODS: usize = 10_000;
const LOCAL: usize = 250;
const POLICIES: usize = 1000;

struct Node {
    engine: Engine,
    netlink: Netlink,
    nft: Nft,
    by_nft: usize,
}

impl Node {
    /// Works off what has been taken in and commits it; how long that takes, in milliseconds.
    fn commit(&mut self, start: Instant) -> f64 {
        let change = self.engine.poll();
        assert!(!change.is_empty(), "nothing to commit");
        match self.netlink.apply_small(&change) {
            Some(Ok(())) => {}
            // As the agent does it when a map is full.
            Some(Err(Error::Full(_))) => {
                self.by_nft += 1;
                block_on(self.nft.apply(&self.engine.ruleset().full())).unwrap();
            }
            Some(Err(error)) => panic!("{error}"),
            None => {
                self.by_nft += 1;
                block_on(self.nft.apply(&change)).unwrap();
            }
        }
        start.elapsed().as_secs_f64() * 1e3
    }
}

fn own(number: usize) -> Labels {
    labels(&[
        ("app", format!("app-{}", number % 100)),
        ("role", "member".to_owned()),
    ])
}

fn space(number: usize) -> String {
    format!("space-{}", number / LOCAL)
}

fn start(network: &mut Network) -> Node {
    let mut engine = Engine::new("measured");
    let cluster = engine.cluster();
    for number in 0..PODS {
        if number % LOCAL == 0 {
            cluster.apply_namespace(&namespace(&space(number), Labels::new()));
        }
        let name = format!("pod-{number}");
        cluster.insert_pod(model(&space(number), &name, own(number), number));
    }
    let each = POLICIES / (PODS / LOCAL);
    for number in 0..POLICIES {
        // The first of each namespace admits 10,000 pods, the others a hundred each.
        let from = match number % each {
            0 => labels(&[("role", "member".to_owned())]),
            app => labels(&[("app", format!("app-{app}"))]),
        };
        let subject = match number % each {
            0 => Labels::new(),
            app => labels(&[("app", format!("app-{}", app + 50))]),
        };
        cluster.apply_network_policy(&policy(
            &format!("space-{}", number / each),
            format!("policy-{}", number % each),
            subject,
            Some((
                vec![peer(Some(Labels::new()), from)],
                vec![port("TCP", 80 + number as i32 % 20, None)],
            )),
            None,
        ));
    }
    for number in 0..LOCAL {
        engine.handle_endpoint(endpoint(&space(0), &format!("pod-{number}"), number));
    }
    engine.poll();
    let name = network.make("node");
    let nft = Nft::default().with_program(["ip", "netns", "exec", &name, "nft"]);
    block_on(nft.apply(&engine.ruleset().full())).unwrap();
    let netlink = within(&name, || Netlink::open(Nft::default()).unwrap());
    Node {
        engine,
        netlink,
        nft,
        by_nft: 0,
    }
}

pub(crate) fn measure() -> Value {
    let mut network = Network::new("events");
    let mut node = start(&mut network);
    let rules: usize = node
        .engine
        .ruleset()
        .chains
        .values()
        .map(|chain| chain.rules.len())
        .sum();
    let mut figures = serde_json::Map::new();
    let mut take = |name: &str, node: &mut Node, mut times: Vec<f64>| {
        let by_nft = std::mem::take(&mut node.by_nft);
        let figure = json!({
            "times": times.len(), "p50": quantile(&mut times, 0.5), "p99": quantile(&mut times, 0.99),
            "most": quantile(&mut times, 1.0), "byNft": by_nft,
        });
        figures.insert(name.to_owned(), figure);
    };
    let times = (0..2000).map(|turn| relabel(&mut node, turn)).collect();
    take("relabel", &mut node, times);
    let times = (0..200).map(|turn| new_policy(&mut node, turn)).collect();
    take("policy", &mut node, times);
    let times = (0..400).map(|turn| pod_added(&mut node, turn)).collect();
    take("podHere", &mut node, times);
    let times = (0..1000)
        .map(|turn| pod_elsewhere(&mut node, turn))
        .collect();
    take("podElsewhere", &mut node, times);
    figures.insert("rules".to_owned(), rules.into());
    figures.insert("local".to_owned(), LOCAL.into());
    figures.insert("pods".to_owned(), PODS.into());
    figures.insert("policies".to_owned(), POLICIES.into());
    Value::Object(figures)
}

/// A pod on another node leaves the selector of 10,000, or comes back.
fn relabel(node: &mut Node, turn: usize) -> f64 {
    let number = LOCAL + (turn / 2 * 37) % (PODS - LOCAL);
    let key = ObjectKey::new(space(number), format!("pod-{number}"));
    let mut pod = node.engine.known().pod(&key).unwrap().clone();
    let role = if turn.is_multiple_of(2) {
        "guest"
    } else {
        "member"
    };
    pod.labels.insert("role".to_owned(), role.to_owned());
    let start = Instant::now();
    node.engine.cluster().insert_pod(pod);
    node.commit(start)
}

/// A policy about all 250 pods here comes; its going is not measured.
fn new_policy(node: &mut Node, turn: usize) -> f64 {
    let object = policy(
        &space(0),
        "new".to_owned(),
        Labels::new(),
        Some((
            vec![peer(
                Some(Labels::new()),
                labels(&[("app", format!("app-{}", 30 + turn % 70))]),
            )],
            vec![port("TCP", 8443, None)],
        )),
        None,
    );
    let start = Instant::now();
    node.engine.cluster().apply_network_policy(&object);
    let time = node.commit(start);
    node.engine
        .cluster()
        .remove_network_policy(&space(0), "new");
    node.commit(start);
    time
}

/// A pod gets its network here and is shown by the API; its end is not measured.
fn pod_added(node: &mut Node, turn: usize) -> f64 {
    let number = PODS + turn;
    let name = format!("pod-{number}");
    let pod = model(&space(0), &name, own(turn), number);
    let local = endpoint(&space(0), &name, number);
    let start = Instant::now();
    node.engine.handle_endpoint(local);
    node.engine.cluster().insert_pod(pod);
    let time = node.commit(start);
    node.engine
        .handle_endpoint_gone(&format!("mgy{number:08x}"));
    node.engine.cluster().remove_pod(&space(0), &name);
    node.commit(start);
    time
}

/// A pod comes on another node.
fn pod_elsewhere(node: &mut Node, turn: usize) -> f64 {
    let number = PODS + turn;
    let pod = model("space-1", &format!("pod-{number}"), own(turn), number);
    let start = Instant::now();
    node.engine.cluster().insert_pod(pod);
    node.commit(start)
}

//! Virtual time: suspicions that come and go, and releases that meet a re-used address.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use margay_crds::{IPAMBlock, LOAD_BALANCER_NODE, Owner};
use serde_json::json;

use super::*;
use crate::{NodeBlock, Timestamp};

const GRACE: Duration = Duration::from_secs(900);
const NONE: Duration = Duration::ZERO;

/// A cluster of one block on each of two nodes, with a clock.
struct World {
    began: Instant,
    seconds: u64,
    blocks: BTreeMap<String, NodeBlock>,
    facts: Facts,
    collector: Collector,
}

fn wall(seconds: u64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap()).unwrap()
}

fn pod(name: &str, uid: &str) -> Owner {
    Owner {
        namespace: "default".into(),
        pod: name.into(),
        container_id: format!("sandbox-{uid}"),
        interface: "eth0".into(),
        uid: uid.into(),
        ..Owner::default()
    }
}

fn service(name: &str, uid: &str) -> Owner {
    Owner::load_balancer("default", name, uid)
}

fn tunnel(node: &str) -> Owner {
    Owner::tunnel(node, "margay.ipip")
}

impl World {
    fn new() -> Self {
        let settings = Settings {
            grace: GRACE,
            ..Settings::default()
        };
        let mut world = Self {
            began: Instant::now(),
            seconds: 0,
            blocks: BTreeMap::new(),
            facts: Facts::default(),
            collector: Collector::new(settings),
        };
        for (cidr, node) in [
            ("10.0.0.0/29", "n1"),
            ("10.0.0.8/29", "n2"),
            ("10.9.0.0/29", LOAD_BALANCER_NODE),
        ] {
            world.claim(cidr, node);
        }
        for name in ["n1", "n2"] {
            world.node(name);
        }
        world
    }

    fn claim(&mut self, cidr: &str, node: &str) {
        let mut object = NodeBlock::claim(cidr.parse().unwrap(), node)
            .object()
            .clone();
        object.metadata.uid = Some(format!("{cidr}-at-{}", self.seconds));
        self.blocks
            .insert(cidr.to_owned(), NodeBlock::parse(object).unwrap());
    }

    fn node(&mut self, name: &str) {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        self.facts.nodes.insert(name.into(), NodeFacts::of(&node));
    }

    /// A running pod with what it says its addresses are.
    fn runs(&mut self, name: &str, uid: &str, node: &str, addresses: &[&str]) {
        let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": uid},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "podIPs": ips},
        }))
        .unwrap();
        let key = format!("default/{name}");
        self.facts.pods.insert(key, PodFacts::of(&pod));
    }

    fn give(&mut self, cidr: &str, owner: &Owner) -> String {
        let now = wall(self.seconds);
        let block = self.blocks.get_mut(cidr).unwrap();
        block.assign(owner, now, NONE).unwrap().address
    }

    fn objects(&self) -> Vec<IPAMBlock> {
        self.blocks
            .values()
            .map(|block| block.object().clone())
            .collect()
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_secs(self.seconds)
    }

    fn scan(&mut self) {
        let objects = self.objects();
        self.collector
            .handle_scan(self.now(), objects.iter(), &self.facts);
    }

    fn pass(&mut self, seconds: u64) {
        self.seconds += seconds;
        self.scan();
    }

    /// What the controller does with what is due, with facts that are as fresh as the cache.
    fn collect(&mut self) -> Vec<String> {
        let fresh = self.facts.clone();
        self.collect_by(&fresh)
    }

    fn collect_by(&mut self, fresh: &Facts) -> Vec<String> {
        let due = self.collector.due(self.now());
        let guilty: Vec<Case> = due
            .into_iter()
            .filter(|case| self.collector.handle_verdict(case, fresh))
            .collect();
        let mut freed = Vec::new();
        for order in Collector::orders(guilty.iter()) {
            let now = wall(self.seconds);
            let mut all = self.blocks.values_mut();
            let block = all.find(|block| block.name() == order.block).unwrap();
            freed.extend(order.apply(block, now).into_iter().map(|one| one.address));
        }
        for case in guilty {
            if case.subject == Subject::Block {
                freed.push(case.block.clone());
                self.blocks.retain(|_, block| block.name() != case.block);
            }
        }
        freed
    }
}

#[test]
fn a_pod_that_is_gone_keeps_its_address_for_the_grace_period() {
    let mut world = World::new();
    let address = world.give("10.0.0.0/29", &pod("a", "u1"));
    world.runs("a", "u1", "n1", &[&address]);
    world.pass(5000);
    assert_eq!(world.collector.suspects(), 0);
    assert_eq!(world.collector.next_due(), None);

    world.facts.pods.clear();
    world.pass(10);
    assert_eq!(world.collector.next_due(), Some(world.now() + GRACE));
    world.pass(899);
    assert!(world.collect().is_empty());
    world.pass(1);
    assert_eq!(world.collect(), [address]);
    world.pass(1);
    assert_eq!(world.collector.suspects(), 0);
}

#[test]
fn a_pod_that_comes_back_clears_the_suspicion() {
    let mut world = World::new();
    let address = world.give("10.0.0.0/29", &pod("a", "u1"));
    world.pass(800);
    world.runs("a", "u1", "n1", &[&address]);
    world.pass(50);
    world.facts.pods.clear();
    world.pass(50);
    world.pass(899);
    assert!(world.collect().is_empty(), "the grace period begins anew");
    world.pass(1);
    assert_eq!(world.collect().len(), 1);
}

#[test]
fn a_watch_that_lags_releases_nothing() {
    let mut world = World::new();
    let address = world.give("10.0.0.0/29", &pod("a", "u1"));
    let blind = world.facts.clone();
    world.runs("a", "u1", "n1", &[&address]);
    let truth = std::mem::replace(&mut world.facts, blind);
    world.pass(1);
    world.pass(900);
    assert_eq!(world.collector.due(world.now()).len(), 1);
    assert!(world.collect_by(&truth).is_empty());
    assert_eq!(world.collector.suspects(), 0, "taken back by the verdict");
}

#[test]
fn an_address_given_again_is_never_released() {
    let mut world = World::new();
    let cidr = "10.0.0.0/29";
    let address = world.give(cidr, &pod("a", "u1"));
    world.pass(1);
    world.pass(900);
    let due = world.collector.due(world.now());
    assert_eq!(due.len(), 1);
    assert!(
        world
            .collector
            .handle_verdict(&due[0], &world.facts.clone())
    );
    let order = Collector::orders(due.iter()).remove(0);
    // Between the verdict and the write: the DEL arrives after all, and the address is given to
    // the pod of the same name that a StatefulSet made anew.
    let block = world.blocks.get_mut(cidr).unwrap();
    let late = crate::Release::Container {
        container_id: "sandbox-u1".into(),
        interface: None,
    };
    assert_eq!(block.release(&late, wall(902)).len(), 1);
    let asked = address.parse().unwrap();
    let again = block
        .assign_address(asked, &pod("a", "u2"), wall(903))
        .unwrap();
    assert!(order.apply(block, wall(904)).is_empty());
    assert_eq!(block.allocations(), std::slice::from_ref(&again));

    // And when the block itself has been given back and claimed again, its sequence began anew.
    world.claim(cidr, "n1");
    let block = world.blocks.get_mut(cidr).unwrap();
    let reborn = block
        .assign_address(asked, &pod("b", "u3"), wall(905))
        .unwrap();
    assert_eq!(reborn.sequence, order.addresses[0].1, "the same sequence");
    assert!(order.apply(block, wall(906)).is_empty());
    assert_eq!(block.allocations().len(), 1);
}

#[test]
fn a_re_used_address_is_a_new_suspect() {
    let mut world = World::new();
    let cidr = "10.0.0.0/29";
    let address = world.give(cidr, &pod("a", "u1"));
    world.pass(1);
    world.pass(600);
    let block = world.blocks.get_mut(cidr).unwrap();
    let order = Order {
        block: block.name().into(),
        uid: block.object().metadata.uid.clone().unwrap(),
        addresses: vec![(address.parse().unwrap(), 1)],
    };
    assert_eq!(order.apply(block, wall(601)).len(), 1);
    let asked = address.parse().unwrap();
    block
        .assign_address(asked, &pod("b", "u2"), wall(602))
        .unwrap();
    world.pass(1);
    world.pass(400);
    assert!(world.collect().is_empty(), "young, whatever held it before");
}

#[test]
fn pods_are_told_apart() {
    let held = |world: &mut World| world.give("10.0.0.0/29", &pod("a", "u1"));
    let judge = |world: &World| -> Option<&'static str> {
        let objects = world.objects();
        let replacements = Replacements::among(objects.iter(), &world.facts);
        let block = objects.iter().find(|one| one.spec.node == "n1").unwrap();
        let reason = world
            .facts
            .judge("n1", &block.spec.allocations[0], &replacements);
        reason.map(|reason| reason.word())
    };
    let edit = |world: &mut World, change: fn(&mut PodFacts)| {
        world.runs("a", "u1", "n1", &["10.0.0.0"]);
        change(world.facts.pods.get_mut("default/a").unwrap());
    };
    type Change = fn(&mut PodFacts);
    let cases: [(&str, Change, Option<&str>); 8] = [
        ("running", |_| {}, None),
        ("not bound yet", |pod| pod.node.clear(), None),
        ("no address told yet", |pod| pod.addresses.clear(), None),
        (
            "another uid",
            |pod| pod.uids = vec!["u2".into()],
            Some("PodReplaced"),
        ),
        (
            "a static pod",
            |pod| pod.uids = vec!["mirror".into(), "u1".into()],
            None,
        ),
        ("ended", |pod| pod.finished = true, Some("PodFinished")),
        (
            "host network",
            |pod| pod.host_network = true,
            Some("PodOnHostNetwork"),
        ),
        (
            "on a node that is gone",
            |pod| pod.node = "n9".into(),
            Some("NodeGone"),
        ),
    ];
    for (name, change, expected) in cases {
        let mut world = World::new();
        held(&mut world);
        edit(&mut world, change);
        assert_eq!(judge(&world), expected, "{name}");
    }
    let mut world = World::new();
    held(&mut world);
    assert_eq!(judge(&world), Some("PodGone"));
    world.facts.nodes.remove("n1");
    assert_eq!(judge(&world), Some("NodeGone"));
}

#[test]
fn a_static_pod_is_known_by_its_annotation() {
    let mirror: Pod = serde_json::from_value(json!({
        "metadata": {"name": "a-n1", "namespace": "default", "uid": "mirror", "annotations": {
            "kubernetes.io/config.mirror": "hash", "kubernetes.io/config.hash": "hash"}},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": "10.0.0.0", "podIPs": [{"ip": "10.0.0.0"}]},
    }))
    .unwrap();
    let facts = PodFacts::of(&mirror);
    assert_eq!(facts.uids, ["mirror", "hash", "hash"]);
    assert_eq!(facts.addresses.len(), 1);
}

#[test]
fn the_address_of_a_sandbox_that_was_replaced_is_garbage() {
    let mut world = World::new();
    let old = world.give("10.0.0.0/29", &pod("a", "u1"));
    let later = Owner {
        container_id: "later".into(),
        ..pod("a", "u1")
    };
    let new = world.give("10.0.0.0/29", &later);
    let second = Owner {
        interface: "net1".into(),
        ..later
    };
    let attached = world.give("10.0.0.0/29", &second);
    // Which of the two runs is known only when the pod says it.
    world.runs("a", "u1", "n1", &[]);
    world.pass(1);
    assert_eq!(world.collector.suspects(), 0);
    world.runs("a", "u1", "n1", &[&new]);
    world.pass(1);
    world.pass(900);
    assert_eq!(world.collect(), [old]);
    world.pass(2000);
    assert!(world.collect().is_empty(), "{attached} and {new} stay");
}

#[test]
fn a_borrowed_address_goes_with_its_pod_not_with_the_block() {
    let mut world = World::new();
    let address = world.give("10.0.0.8/29", &pod("a", "u1"));
    world.runs("a", "u1", "n1", &[&address]);
    world.facts.nodes.remove("n2");
    world.pass(1);
    world.pass(5000);
    assert!(world.collect().is_empty());
    world.facts.nodes.remove("n1");
    world.pass(1);
    world.pass(900);
    assert!(world.collect().contains(&address));
}

#[test]
fn a_node_that_is_gone_gives_its_blocks_back() {
    let mut world = World::new();
    let first = world.give("10.0.0.8/29", &pod("a", "u1"));
    let second = world.give("10.0.0.8/29", &tunnel("n2"));
    world.facts.nodes.remove("n2");
    world.pass(1);
    world.pass(899);
    assert!(world.collect().is_empty());
    world.pass(1);
    assert_eq!(world.collect(), [first, second]);
    // The block follows when it has been empty for as long.
    world.pass(1);
    world.pass(900);
    assert_eq!(world.collect(), ["10-0-0-8-29"]);
    world.pass(5000);
    assert!(world.collect().is_empty());
    assert_eq!(world.blocks.len(), 2, "a living node's and the Services'");
}

#[test]
fn a_block_is_not_given_back_while_its_addresses_rest() {
    let mut world = World::new();
    world.collector.set(Settings {
        grace: GRACE,
        cooldown: Duration::from_secs(1200),
        limit: 10,
    });
    world.facts.nodes.remove("n2");
    world.pass(1);
    world.pass(1199);
    assert!(world.collect().is_empty());
    world.pass(1);
    assert_eq!(world.collect().len(), 1);
}

#[test]
fn a_node_that_joins_again_keeps_its_blocks() {
    let mut world = World::new();
    world.facts.nodes.remove("n2");
    world.pass(1);
    world.pass(900);
    world.node("n2");
    let fresh = world.facts.clone();
    world.facts.nodes.remove("n2");
    assert!(world.collect_by(&fresh).is_empty());
}

#[test]
fn tunnels_and_services() {
    let mut world = World::new();
    let tunnelled = world.give("10.0.0.0/29", &tunnel("n1"));
    let balanced = world.give("10.9.0.0/29", &service("web", "s1"));
    let of = |class: Option<&str>, kind: &str, uid: &str| {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "uid": uid},
            "spec": {"type": kind, "loadBalancerClass": class},
        }))
        .unwrap();
        service
    };
    let ours = of(Some(LOAD_BALANCER_CLASS), "LoadBalancer", "s1");
    let put = |world: &mut World, service: &Service, unclassed| {
        let facts = ServiceFacts::of(service, unclassed);
        world.facts.services.insert("default/web".into(), facts);
    };
    put(&mut world, &ours, false);
    world.pass(1);
    world.pass(5000);
    assert_eq!(world.collector.suspects(), 0);
    // Whose is a Service without a class?
    put(&mut world, &of(None, "LoadBalancer", "s1"), true);
    world.pass(1);
    assert_eq!(world.collector.suspects(), 0);
    let lost = [
        of(None, "LoadBalancer", "s1"),
        of(Some("other.io/x"), "LoadBalancer", "s1"),
        of(Some(LOAD_BALANCER_CLASS), "ClusterIP", "s1"),
        of(Some(LOAD_BALANCER_CLASS), "LoadBalancer", "s2"),
    ];
    for service in lost {
        put(&mut world, &service, false);
        world.pass(1);
        assert_eq!(world.collector.suspects(), 1, "{service:?}");
    }
    world.facts.services.clear();
    world.pass(1);
    world.facts.nodes.remove("n1");
    world.pass(900);
    assert_eq!(world.collect(), [balanced]);
    world.pass(900);
    assert_eq!(world.collect(), [tunnelled]);
}

#[test]
fn a_class_may_stand_in_an_annotation() {
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web", "annotations": {CLASS_ANNOTATION: LOAD_BALANCER_CLASS}},
        "spec": {"type": "LoadBalancer"},
    }))
    .unwrap();
    assert!(ServiceFacts::of(&service, false).is_ours);
}

#[test]
fn a_flood_is_worked_off_in_portions() {
    let mut world = World::new();
    world.collector.set(Settings {
        grace: GRACE,
        limit: 3,
        ..Settings::default()
    });
    for n in 0..8 {
        world.give("10.0.0.0/29", &pod(&format!("p{n}"), &format!("u{n}")));
    }
    world.pass(1);
    world.pass(900);
    let mut freed = Vec::new();
    for round in 0..3 {
        let now = world.collect();
        assert!(now.len() <= 3, "round {round}: {now:?}");
        freed.extend(now);
        world.pass(1);
    }
    assert_eq!(freed.len(), 8);
}

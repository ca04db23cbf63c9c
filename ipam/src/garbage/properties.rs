//! Random histories: pods that come and go, releases in between, watches that lag, a collector
//! that is slow to write. Whatever the order, nothing that is in use is ever released, and in
//! the end nothing is left of what is gone.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use margay_crds::Owner;
use proptest::prelude::*;

use super::*;
use crate::{NodeBlock, Release, Timestamp};

const GRACE: u64 = 60;
const PODS: usize = 4;

#[derive(Debug, Clone)]
enum Action {
    /// A pod starts: the object first, then its address.
    Start(usize),
    /// A pod is deleted; whether the DEL reaches the agent.
    Stop {
        pod: usize,
        released: bool,
    },
    /// The node's object goes or comes.
    Node(bool),
    /// The watches catch up.
    Catch,
    Scan,
    /// What is due is judged by fresh facts, and the orders are kept back.
    Judge,
    /// The orders kept back are written.
    Write,
    Pass(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0..PODS).prop_map(Action::Start),
        4 => (0..PODS, any::<bool>()).prop_map(|(pod, released)| Action::Stop { pod, released }),
        1 => any::<bool>().prop_map(Action::Node),
        4 => Just(Action::Catch),
        6 => Just(Action::Scan),
        3 => Just(Action::Judge),
        3 => Just(Action::Write),
        4 => (1u64..50).prop_map(Action::Pass),
    ]
}

struct World {
    began: Instant,
    seconds: u64,
    block: NodeBlock,
    /// What is on the API server, and what the watches have seen of it.
    truth: Facts,
    seen: Facts,
    collector: Collector,
    orders: Vec<Order>,
    /// The running pods' uids and their addresses.
    running: HashMap<usize, (String, String)>,
    births: u64,
}

impl World {
    fn new() -> Self {
        let mut object = NodeBlock::claim("10.0.0.0/30".parse().unwrap(), "n1")
            .object()
            .clone();
        object.metadata.uid = Some("block".into());
        let mut world = Self {
            began: Instant::now(),
            seconds: 0,
            block: NodeBlock::parse(object).unwrap(),
            truth: Facts::default(),
            seen: Facts::default(),
            collector: Collector::new(Settings {
                grace: Duration::from_secs(GRACE),
                ..Settings::default()
            }),
            orders: Vec::new(),
            running: HashMap::new(),
            births: 0,
        };
        world.act(&Action::Node(true));
        world
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_secs(self.seconds)
    }

    fn wall(&self) -> Timestamp {
        let seconds = i64::try_from(self.seconds).unwrap();
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Start(pod) => self.start(*pod),
            Action::Stop { pod, released } => self.stop(*pod, *released),
            Action::Node(true) => {
                let node = NodeFacts { name: "n1".into() };
                self.truth.nodes.insert("n1".into(), node);
            }
            Action::Node(false) => {
                // A node goes when its pods have gone.
                if self.running.is_empty() {
                    self.truth.nodes.clear();
                }
            }
            Action::Catch => self.seen = self.truth.clone(),
            Action::Scan => {
                let object = self.block.object().clone();
                self.collector
                    .handle_scan(self.now(), std::iter::once(&object), &self.seen);
            }
            Action::Judge => {
                let due = self.collector.due(self.now());
                let guilty: Vec<Case> = due
                    .into_iter()
                    .filter(|case| self.collector.handle_verdict(case, &self.truth))
                    .collect();
                self.orders.extend(Collector::orders(guilty.iter()));
            }
            Action::Write => {
                for order in std::mem::take(&mut self.orders) {
                    let now = self.wall();
                    order.apply(&mut self.block, now);
                }
            }
            Action::Pass(seconds) => self.seconds += seconds,
        }
    }

    fn start(&mut self, pod: usize) {
        if self.running.contains_key(&pod) || self.truth.nodes.is_empty() {
            return;
        }
        self.births += 1;
        let uid = format!("u{}", self.births);
        let owner = Owner {
            namespace: "default".into(),
            pod: format!("p{pod}"),
            container_id: format!("c-{uid}"),
            interface: "eth0".into(),
            uid: uid.clone(),
            ..Owner::default()
        };
        let Some(given) = self.block.assign(&owner, self.wall(), Duration::ZERO) else {
            return;
        };
        let facts = PodFacts {
            uids: vec![uid.clone()],
            node: "n1".into(),
            addresses: vec![given.address.parse().unwrap()],
            ..PodFacts::default()
        };
        self.truth.pods.insert(format!("default/p{pod}"), facts);
        self.running.insert(pod, (uid, given.address));
    }

    fn stop(&mut self, pod: usize, released: bool) {
        let Some((uid, _)) = self.running.remove(&pod) else {
            return;
        };
        self.truth.pods.remove(&format!("default/p{pod}"));
        if released {
            let which = Release::Container {
                container_id: format!("c-{uid}"),
                interface: None,
            };
            self.block.release(&which, self.wall());
        }
    }

    fn check(&self) {
        let mut distinct = HashSet::new();
        for (uid, address) in self.running.values() {
            assert!(distinct.insert(address), "{address} is held twice");
            let mut held = self.block.allocations().iter();
            let found = held.find(|one| one.address == *address);
            let holder = found.map(|one| one.owner.uid.as_str());
            assert_eq!(holder, Some(uid.as_str()), "{address} of a running pod");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_runs_keeps_its_address_and_what_is_gone_loses_it(
        actions in prop::collection::vec(action(), 1..120)
    ) {
        let mut world = World::new();
        for action in &actions {
            world.act(action);
            world.check();
        }
        // Peace: one scan, the grace period, one more, and the releases.
        let peace = [
            Action::Catch, Action::Scan, Action::Pass(GRACE), Action::Scan, Action::Judge,
            Action::Write,
        ];
        for action in &peace {
            world.act(action);
            world.check();
        }
        prop_assert_eq!(world.block.allocations().len(), world.running.len());
    }
}

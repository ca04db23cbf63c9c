//! A model of a cluster: nodes with lagging views, batches cut into single steps, lost answers,
//! crashes between any two writes, a garbage collector that writes too. Whatever the order:
//!
//! - no address is held twice, no block is two nodes', no two blocks overlap;
//! - an address that a caller was told is his stays his until he gives it back;
//! - asking again gives the same address;
//! - a release that was answered has happened, and in the end nothing is left held.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use margay_crds::{IPPool, IpamSettings, Owner, Pool, ip_pool::overlap};
use margay_ipam::batch::{Batch, Outcome, Step};
use margay_ipam::memory::Fault;
use margay_ipam::{
    BlockEvent, Family, IpamError, MemoryStore, NodeBlock, Operation, Release, Store, StoreError,
    Timestamp, View, tidy,
};
use proptest::prelude::*;

const NODES: usize = 3;
const PODS: usize = 6;

#[derive(Debug, Clone)]
enum Action {
    Add { node: usize, pod: usize, v6: bool },
    Del { node: usize, pod: usize },
    Step { node: usize, times: usize },
    Deliver { node: usize, events: usize },
    Relist { node: usize },
    Crash { node: usize, done: bool },
    Break(Fault),
    Collect { index: usize },
    Tidy { node: usize },
    Pass { seconds: u16 },
}

fn action() -> impl Strategy<Value = Action> {
    let node = || 0..NODES;
    let fault = prop_oneof![
        Just(Fault::Conflict),
        Just(Fault::Unavailable),
        Just(Fault::LostAnswer)
    ];
    prop_oneof![
        6 => (node(), 0..PODS, any::<bool>()).prop_map(|(node, pod, v6)| Action::Add { node, pod, v6 }),
        4 => (node(), 0..PODS).prop_map(|(node, pod)| Action::Del { node, pod }),
        16 => (node(), 1usize..6).prop_map(|(node, times)| Action::Step { node, times }),
        4 => (node(), 1usize..8).prop_map(|(node, events)| Action::Deliver { node, events }),
        1 => node().prop_map(|node| Action::Relist { node }),
        1 => (node(), any::<bool>()).prop_map(|(node, done)| Action::Crash { node, done }),
        3 => fault.prop_map(Action::Break),
        1 => (0usize..8).prop_map(|index| Action::Collect { index }),
        2 => node().prop_map(|node| Action::Tidy { node }),
        1 => (0u16..20).prop_map(|seconds| Action::Pass { seconds }),
    ]
}

/// A node: its view, the events it has not seen, and the batch under way.
struct Node {
    name: String,
    view: View,
    seen: usize,
    queue: VecDeque<Operation>,
    batch: Option<(Batch, Vec<Operation>)>,
}

struct Cluster {
    store: MemoryStore,
    runtime: tokio::runtime::Runtime,
    nodes: Vec<Node>,
    now: Timestamp,
    limit: Option<u32>,
    /// What callers were told and have not given back: by node, container and family.
    told: HashMap<(usize, String, Family), IpAddr>,
}

fn pools() -> Vec<Pool> {
    let pool = |name: &str, json| {
        let spec = serde_json::from_value(json).unwrap();
        IPPool::new(name, spec).check().unwrap()
    };
    vec![
        pool(
            "v4",
            serde_json::json!({"cidr": "10.0.0.0/28", "blockSize": 30}),
        ),
        pool(
            "v6",
            serde_json::json!({"cidr": "fd00::/125", "blockSize": 127}),
        ),
    ]
}

fn owner(pod: usize) -> Owner {
    Owner {
        namespace: "default".into(),
        pod: format!("p{pod}"),
        container_id: format!("c{pod}"),
        interface: "eth0".into(),
        ..Owner::default()
    }
}

fn of_container(id: &str) -> Release {
    Release::Container {
        container_id: id.to_owned(),
        interface: None,
    }
}

impl Cluster {
    fn new(limit: Option<u32>) -> Self {
        let store = MemoryStore::new();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        store.set_now(now);
        let mut cluster = Self {
            store,
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            nodes: Vec::new(),
            now,
            limit,
            told: HashMap::new(),
        };
        for index in 0..NODES {
            let view = cluster.fresh_view(index);
            cluster.nodes.push(Node {
                name: format!("node-{index}"),
                view,
                seen: 0,
                queue: VecDeque::new(),
                batch: None,
            });
        }
        cluster
    }

    /// The view of an agent that has just started and listed.
    fn fresh_view(&self, index: usize) -> View {
        let mut view = View::new(&format!("node-{index}"));
        view.set_pools(pools());
        view.set_settings(IpamSettings {
            max_blocks_per_host: self.limit,
            cooldown_seconds: 5,
            ..IpamSettings::default()
        });
        view.handle_event(BlockEvent::List(self.store.list()));
        view
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Add { node, pod, v6 } => {
                let family = if v6 { Family::V6 } else { Family::V4 };
                let owner = owner(pod);
                self.nodes[node]
                    .queue
                    .push_back(Operation::Assign { owner, family });
            }
            Action::Del { node, pod } => self.delete(node, pod),
            Action::Step { node, times } => (0..times).for_each(|_| self.step(node)),
            Action::Deliver { node, events } => self.deliver(node, events),
            Action::Relist { node } => {
                self.nodes[node].seen = self.store.position();
                let list = BlockEvent::List(self.store.list());
                self.nodes[node].view.handle_event(list);
            }
            Action::Crash { node, done } => self.crash(node, done),
            Action::Break(fault) => self.store.inject([Some(fault)]),
            Action::Collect { index } => self.collect(index),
            Action::Tidy { node } => self.tidy(node),
            Action::Pass { seconds } => {
                self.now += Duration::from_secs(u64::from(seconds));
                self.store.set_now(self.now);
            }
        }
    }

    fn delete(&mut self, node: usize, pod: usize) {
        let id = owner(pod).container_id;
        // From here on the caller has no claim to the address.
        self.told
            .retain(|(n, container, _), _| *n != node || *container != id);
        // Adds that wait before it may still be answered: they are given back by it.
        self.nodes[node]
            .queue
            .push_back(Operation::Release(of_container(&id)));
    }

    fn deliver(&mut self, node: usize, events: usize) {
        let node = &mut self.nodes[node];
        for event in self.store.events_since(node.seen).into_iter().take(events) {
            node.seen += 1;
            node.view.handle_event(event);
        }
    }

    /// The agent dies, perhaps with a write under way that arrives all the same.
    fn crash(&mut self, index: usize, done: bool) {
        if done && let Some((mut batch, _)) = self.nodes[index].batch.take() {
            let step = batch.poll_step(&self.nodes[index].view, self.now);
            let _ = self.perform(step);
        }
        self.nodes[index].batch = None;
        self.nodes[index].queue.clear();
        self.nodes[index].seen = self.store.position();
        self.nodes[index].view = self.fresh_view(index);
    }

    fn step(&mut self, index: usize) {
        if self.nodes[index].batch.is_none() {
            self.begin(index);
        }
        let Some((mut batch, operations)) = self.nodes[index].batch.take() else {
            return;
        };
        let step = batch.poll_step(&self.nodes[index].view, self.now);
        while let Some((ticket, outcome)) = batch.poll_reply() {
            self.told(index, &operations[ticket], outcome);
        }
        if step == Step::Done {
            return;
        }
        if !matches!(step, Step::Wait(_)) {
            let answer = self.perform(step);
            batch.handle_answer(&mut self.nodes[index].view, answer);
        }
        self.nodes[index].batch = Some((batch, operations));
    }

    /// Takes from the queue what may travel together, as the worker does.
    fn begin(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let mut operations: Vec<Operation> = Vec::new();
        while let Some(next) = node.queue.front() {
            if operations.iter().any(|one| one.clashes(next)) {
                break;
            }
            operations.extend(node.queue.pop_front());
        }
        if !operations.is_empty() {
            node.batch = Some((Batch::new(operations.clone()), operations));
        }
    }

    fn perform(&self, step: Step) -> margay_ipam::batch::Answer {
        self.runtime.block_on(async {
            match step {
                Step::Read(name) => self.store.get(&name).await,
                Step::Create(block) => self.store.create(&block).await.map(Some),
                Step::Update(block) => self.store.update(&block).await.map(Some),
                Step::Wait(_) | Step::Done => Ok(None),
            }
        })
    }

    /// A caller gets its reply.
    fn told(&mut self, node: usize, operation: &Operation, outcome: Result<Outcome, IpamError>) {
        match (operation, outcome) {
            (Operation::Assign { owner, family }, Ok(Outcome::Assigned(assigned))) => {
                let id = owner.container_id.clone();
                let gone = Operation::Release(of_container(&id));
                assert_eq!(Family::of(assigned.address), *family);
                // A DEL that is already asked for takes it back: the caller has no claim.
                if self.nodes[node].queue.contains(&gone) {
                    return;
                }
                let before = self.told.insert((node, id, *family), assigned.address);
                assert!(before.is_none_or(|before| before == assigned.address));
            }
            (Operation::Release(which), Ok(Outcome::Released(_))) => {
                let name = &self.nodes[node].name;
                for block in self.blocks().iter().filter(|block| block.node() == name) {
                    assert!(
                        !block.holds(which),
                        "{which:?} is still held in {}",
                        block.cidr()
                    );
                }
            }
            (_, Err(_)) => {}
            (operation, outcome) => panic!("{operation:?} came to {outcome:?}"),
        }
    }

    /// Another writer takes back what no caller has a claim to.
    fn collect(&mut self, index: usize) {
        let claimed: HashSet<IpAddr> = self.told.values().copied().collect();
        let blocks = self.blocks();
        let garbage = blocks.iter().flat_map(|block| {
            let all = block.allocations().iter().map(move |one| (block, one));
            all.filter(|(_, one)| !claimed.contains(&one.address.parse().unwrap()))
        });
        // A caller whose request is under way has a claim that we do not see: leave him alone.
        let busy: HashSet<&str> = self
            .nodes
            .iter()
            .filter(|node| node.batch.is_some())
            .map(|node| node.name.as_str())
            .collect();
        let mut idle = garbage.filter(|(block, _)| !busy.contains(block.node()));
        let Some((block, one)) = idle.nth(index) else {
            return;
        };
        let mut block = block.clone();
        let which = Release::Address {
            address: one.address.parse().unwrap(),
            sequence: Some(one.sequence),
        };
        assert_eq!(block.release(&which, self.now).len(), 1);
        let _ = self.runtime.block_on(self.store.update(block.object()));
    }

    /// As the worker does it.
    fn tidy(&mut self, index: usize) {
        if self.nodes[index].batch.is_some() {
            return;
        }
        for block in tidy::surplus(&self.nodes[index].view, self.now, Duration::from_secs(3)) {
            let deleted = self.runtime.block_on(self.store.delete(block.object()));
            let view = &mut self.nodes[index].view;
            match deleted {
                Ok(()) | Err(StoreError::NotFound) => view.put_absent(block.name()),
                Err(_) => view.doubt(block.name()),
            }
        }
    }

    fn blocks(&self) -> Vec<NodeBlock> {
        let all = self.store.list().into_iter();
        all.map(|object| NodeBlock::parse(object).unwrap())
            .collect()
    }

    fn check(&self) {
        let blocks = self.blocks();
        let mut held: BTreeMap<IpAddr, (&str, &Owner)> = BTreeMap::new();
        for (index, block) in blocks.iter().enumerate() {
            for other in &blocks[index + 1..] {
                assert!(!overlap(block.cidr(), other.cidr()));
            }
            assert_eq!(block.object().spec.used as usize, block.allocations().len());
            for one in block.allocations() {
                let address = one.address.parse().unwrap();
                let twice = held.insert(address, (block.node(), &one.owner));
                assert!(twice.is_none(), "{address} is held twice");
            }
        }
        for ((node, container, _), address) in &self.told {
            let (holder, owner) = held.get(address).unwrap_or_else(|| {
                panic!("{address} of {container} on node-{node} is held by nobody")
            });
            assert_eq!(*holder, self.nodes[*node].name);
            assert_eq!(owner.container_id, *container);
        }
        if let Some(limit) = self.limit {
            for node in &self.nodes {
                for v4 in [true, false] {
                    let own = blocks.iter().filter(|block| block.node() == node.name);
                    let own = own.filter(|block| block.cidr().is_ipv4() == v4).count();
                    assert!(own <= limit as usize, "{} has {own} blocks", node.name);
                }
            }
        }
    }

    /// Peace: everything is delivered, everyone gives back what he has.
    fn settle(&mut self) {
        self.store.clear_faults();
        for index in 0..NODES {
            for pod in 0..PODS {
                self.delete(index, pod);
            }
            let mut steps = 0;
            while self.nodes[index].batch.is_some() || !self.nodes[index].queue.is_empty() {
                self.step(index);
                self.check();
                steps += 1;
                assert!(steps < 2000, "node-{index} does not come to an end");
            }
        }
        for block in self.blocks() {
            assert!(
                block.is_empty(),
                "{} still holds {:?}",
                block.cidr(),
                block.allocations()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn addresses_are_given_once_and_come_back(
        limited in any::<bool>(),
        actions in proptest::collection::vec(action(), 0..160),
    ) {
        let mut cluster = Cluster::new(limited.then_some(2));
        for action in actions {
            cluster.act(action);
            cluster.check();
        }
        cluster.settle();
    }
}

/// After peace, with nothing held, all addresses of the pools can be given: nothing has leaked.
#[test]
fn everything_can_be_given_again() {
    let mut cluster = Cluster::new(None);
    for _ in 0..3 {
        for node in 0..NODES {
            for pod in 0..PODS {
                cluster.act(Action::Add {
                    node,
                    pod,
                    v6: false,
                });
            }
            while cluster.nodes[node].batch.is_some() || !cluster.nodes[node].queue.is_empty() {
                cluster.step(node);
            }
        }
        cluster.check();
        // Four blocks of 4: two nodes take two each for their 6 pods, the third finds none.
        assert_eq!(cluster.told.len(), 12);
        cluster.settle();
        cluster.act(Action::Pass { seconds: 10 });
        for node in 0..NODES {
            cluster.act(Action::Deliver { node, events: 1000 });
            cluster.act(Action::Tidy { node });
        }
        for node in 0..NODES {
            cluster.act(Action::Deliver { node, events: 1000 });
        }
        assert!(
            cluster.blocks().len() <= NODES,
            "one empty block a node is kept"
        );
    }
}

//! The allocator with its worker over the store in memory, in virtual time.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use margay_crds::{IpamSettings, Pool};
use margay_ipam::memory::Fault;
use margay_ipam::{
    Allocator, BlockEvent, Family, IpamError, MemoryStore, NodeBlock, Release, Store,
};
use serde_json::json;
use support::{PausedClock, owner, pool};

fn of(name: &str) -> Release {
    Release::Container {
        container_id: format!("c-{name}"),
        interface: None,
    }
}

struct Node {
    store: Arc<MemoryStore>,
    allocator: Allocator,
}

impl Node {
    fn new(pools: Vec<Pool>) -> Self {
        Self::named("n1", Arc::default(), pools)
    }

    fn named(name: &str, store: Arc<MemoryStore>, pools: Vec<Pool>) -> Self {
        let clock = PausedClock(tokio::time::Instant::now());
        store.set_now(PausedClock::start());
        let (allocator, worker) = Allocator::new(name, Arc::clone(&store), clock);
        tokio::spawn(worker.run());
        allocator.set_pools(pools);
        allocator.handle_block_event(BlockEvent::List(store.list()));
        Self { store, allocator }
    }

    async fn assign(&self, name: &str, family: Family) -> Result<IpAddr, IpamError> {
        let assigned = self.allocator.assign(owner(name), family).await?;
        Ok(assigned.address)
    }
}

fn small() -> Vec<Pool> {
    vec![pool(
        "small",
        json!({"cidr": "10.0.0.0/30", "blockSize": 31}),
    )]
}

fn large() -> Vec<Pool> {
    vec![
        pool("four", json!({"cidr": "10.244.0.0/16"})),
        pool("six", json!({"cidr": "fd00:10:244::/48"})),
    ]
}

#[tokio::test(start_paused = true)]
async fn simultaneous_requests_share_writes() {
    let node = Node::new(large());
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let allocator = node.allocator.clone();
            tokio::spawn(async move { allocator.assign(owner(&format!("p{n}")), Family::V4).await })
        })
        .collect();
    let mut addresses = HashSet::new();
    for task in tasks {
        let assigned = task.await.unwrap().unwrap();
        assert_eq!(assigned.pool.as_deref(), Some("four"));
        assert!(assigned.block.contains(assigned.address));
        addresses.insert(assigned.address);
    }
    assert_eq!(addresses.len(), 100);
    // 100 addresses take two blocks of 64; the first request may have gone ahead alone.
    assert!(node.store.writes() <= 4, "{} writes", node.store.writes());
    assert_eq!(node.store.reads(), 0);

    let releases: Vec<_> = (0..100)
        .map(|n| {
            let allocator = node.allocator.clone();
            tokio::spawn(async move { allocator.release(of(&format!("p{n}"))).await })
        })
        .collect();
    let before = node.store.writes();
    for release in releases {
        assert_eq!(release.await.unwrap().unwrap().len(), 1);
    }
    assert!(node.store.writes() - before <= 4);
}

#[tokio::test(start_paused = true)]
async fn one_pod_costs_one_write_and_nothing_else() {
    let node = Node::new(large());
    node.assign("first", Family::V4).await.unwrap();
    let (writes, reads) = (node.store.writes(), node.store.reads());
    node.assign("second", Family::V4).await.unwrap();
    assert_eq!(
        (node.store.writes() - writes, node.store.reads() - reads),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn asking_again_gives_the_same_address() {
    let node = Node::new(large());
    let four = node.assign("a", Family::V4).await.unwrap();
    let six = node.assign("a", Family::V6).await.unwrap();
    assert!(four.is_ipv4() && six.is_ipv6());
    let writes = node.store.writes();
    assert_eq!(node.assign("a", Family::V4).await, Ok(four));
    assert_eq!(node.assign("a", Family::V6).await, Ok(six));
    assert_eq!(node.store.writes(), writes);
    let (first, second) = tokio::join!(node.assign("b", Family::V4), node.assign("b", Family::V4));
    assert_eq!(first, second);
    let mut freed = node.allocator.release(of("a")).await.unwrap();
    freed.sort();
    assert_eq!(freed, [four, six]);
    assert_eq!(node.allocator.release(of("a")).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn another_process_of_the_same_node_finds_what_was_given() {
    let node = Node::new(large());
    let address = node.assign("a", Family::V4).await.unwrap();
    let again = Node::named("n1", Arc::clone(&node.store), large());
    assert_eq!(again.assign("a", Family::V4).await, Ok(address));
    assert_ne!(again.assign("b", Family::V4).await, Ok(address));
    // The first one's view is stale now; its write is refused, read again and repeated.
    let third = node.assign("c", Family::V4).await.unwrap();
    assert_ne!(Ok(third), again.assign("b", Family::V4).await);
    assert_eq!(node.store.list().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_race_get_different_blocks() {
    let store = Arc::<MemoryStore>::default();
    let pools = || vec![pool("p", json!({"cidr": "10.0.0.0/28", "blockSize": 30}))];
    // No node hears of another's claims: each refused claim teaches it one block.
    let names = ["n1", "n2", "n3", "n4"];
    let nodes: Vec<Node> = names
        .iter()
        .map(|name| Node::named(name, Arc::clone(&store), pools()))
        .collect();
    let mut addresses = HashSet::new();
    for node in &nodes {
        addresses.insert(node.assign("p", Family::V4).await.unwrap());
    }
    assert_eq!(addresses.len(), 4);
    let owners: HashSet<String> = store
        .list()
        .into_iter()
        .map(|block| block.spec.node)
        .collect();
    assert_eq!(owners.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn exhausted_pools_are_named() {
    let node = Node::new(small());
    for name in ["a", "b", "c", "d"] {
        node.assign(name, Family::V4).await.unwrap();
    }
    let error = node.assign("e", Family::V4).await.unwrap_err();
    assert_eq!(
        error,
        IpamError::Exhausted {
            family: Family::V4,
            pools: vec!["small".into()],
            cooling: 0
        }
    );
    assert!(
        error
            .to_string()
            .starts_with("IPPool small has no free IPv4 address")
    );
    assert!(!error.is_transient());
    // What one batch cannot serve whole it serves in part.
    node.allocator.release(of("b")).await.unwrap();
    let (one, two) = tokio::join!(node.assign("f", Family::V4), node.assign("g", Family::V4));
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1);
}

#[tokio::test(start_paused = true)]
async fn cooldown_is_kept_and_told() {
    let node = Node::new(vec![pool(
        "tiny",
        json!({"cidr": "10.0.0.0/32", "blockSize": 32}),
    )]);
    node.allocator.set_settings(IpamSettings {
        max_blocks_per_host: None,
        cooldown_seconds: 30,
        ..IpamSettings::default()
    });
    let address = node.assign("a", Family::V4).await.unwrap();
    node.allocator.release(of("a")).await.unwrap();
    let error = node.assign("b", Family::V4).await.unwrap_err();
    assert!(
        error.to_string().contains("(1 released addresses"),
        "{error}"
    );
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(node.assign("b", Family::V4).await, Ok(address));
}

#[tokio::test(start_paused = true)]
async fn pools_serve_whom_they_select() {
    let pools = vec![
        pool("a-off", json!({"cidr": "10.1.0.0/24", "disabled": true})),
        pool(
            "b-rack",
            json!({"cidr": "10.2.0.0/24", "nodeSelector": "rack == 'b'"}),
        ),
    ];
    let node = Node::new(pools);
    assert!(node.allocator.families(None).is_empty());
    let error = node.assign("p", Family::V4).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no IPPool gives IPv4 addresses to node n1: IPPool a-off is disabled; nodeSelector of \
         IPPool b-rack (rack == 'b') does not select the node"
    );
    let error = node.assign("p", Family::V6).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("there is no IPPool of this family"),
        "{error}"
    );

    let labels = BTreeMap::from([("rack".to_owned(), "b".to_owned())]);
    node.allocator.set_node_labels(labels);
    assert_eq!(node.allocator.families(None), [Family::V4].into());
    let address = node.assign("p", Family::V4).await.unwrap();
    assert!(address.to_string().starts_with("10.2.0."));

    // A pool that is switched off gives nothing new; what it gave stays.
    node.allocator.set_pools(vec![pool(
        "b-rack",
        json!({"cidr": "10.2.0.0/24", "disabled": true}),
    )]);
    assert_eq!(node.assign("p", Family::V4).await, Ok(address));
    assert!(node.assign("q", Family::V4).await.is_err());
    assert_eq!(node.allocator.release(of("p")).await.unwrap(), [address]);
}

#[tokio::test(start_paused = true)]
async fn the_block_limit_counts_each_family() {
    let node = Node::new(vec![
        pool("four", json!({"cidr": "10.0.0.0/28", "blockSize": 31})),
        pool("six", json!({"cidr": "fd00::/120", "blockSize": 127})),
    ]);
    node.allocator.set_settings(IpamSettings {
        max_blocks_per_host: Some(1),
        cooldown_seconds: 0,
        ..IpamSettings::default()
    });
    for name in ["a", "b"] {
        node.assign(name, Family::V4).await.unwrap();
        node.assign(name, Family::V6).await.unwrap();
    }
    let error = node.assign("c", Family::V4).await.unwrap_err();
    assert_eq!(
        error,
        IpamError::BlockLimit {
            family: Family::V4,
            limit: 1,
            held: 1,
            pools: vec!["four".into()]
        }
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_before_the_list() {
    let (allocator, worker) = Allocator::new(
        "n1",
        MemoryStore::new(),
        PausedClock(tokio::time::Instant::now()),
    );
    tokio::spawn(worker.run());
    allocator.set_pools(small());
    let error = allocator.assign(owner("a"), Family::V4).await.unwrap_err();
    assert_eq!(error, IpamError::NotReady);
    assert!(allocator.release(of("a")).await.is_err());
    assert!(
        allocator
            .release_empty_blocks(Duration::ZERO)
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_told_and_comes_back() {
    let node = Node::new(large());
    node.store.inject([Some(Fault::Unavailable)]);
    let error = node.assign("a", Family::V4).await.unwrap_err();
    assert!(matches!(error, IpamError::StoreUnavailable { .. }) && error.is_transient());
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(node.assign("a", Family::V4).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaks_nothing() {
    let node = Node::new(large());
    // The claim happened, and so did the next write of an address; nobody heard of it.
    node.store.inject([Some(Fault::LostAnswer)]);
    assert!(node.assign("a", Family::V4).await.is_err());
    // The block in doubt is read first.
    node.store.inject([None, Some(Fault::LostAnswer)]);
    assert!(node.assign("b", Family::V4).await.is_err());
    assert_eq!(node.store.list().len(), 1);
    assert_eq!(node.store.list()[0].spec.used, 2);
    // The runtime gives up on the one and repeats the other.
    assert_eq!(node.allocator.release(of("a")).await.unwrap().len(), 1);
    node.assign("b", Family::V4).await.unwrap();
    assert_eq!(node.store.list()[0].spec.used, 1);
    assert_eq!(node.store.list().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn conflicts_are_met_with_patience_and_an_end() {
    let node = Node::new(large());
    node.assign("a", Family::V4).await.unwrap();
    // Every fault takes one write; the read between passes.
    let faults = || [Some(Fault::Conflict), None];
    node.store.inject((0..5).flat_map(|_| faults()));
    assert!(node.assign("b", Family::V4).await.is_ok());
    node.store.clear_faults();
    node.store.inject((0..100).flat_map(|_| faults()));
    let begin = tokio::time::Instant::now();
    let error = node.assign("c", Family::V4).await.unwrap_err();
    assert!(
        matches!(error, IpamError::TooManyConflicts { .. }),
        "{error}"
    );
    assert!(begin.elapsed() < Duration::from_secs(5));
    node.store.clear_faults();
    assert!(node.assign("c", Family::V4).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_not_allowed_ends_at_once() {
    let node = Node::new(large());
    node.store.inject([Some(Fault::Refused)]);
    let error = node.assign("a", Family::V4).await.unwrap_err();
    assert!(matches!(error, IpamError::Refused { .. }) && !error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_stops_nothing() {
    let node = Node::new(large());
    // Polled once, so that the request is on its way, then dropped.
    let request = node.allocator.assign(owner("a"), Family::V4);
    let _ = tokio::time::timeout(Duration::ZERO, request).await;
    let freed = node.allocator.release(of("a")).await.unwrap();
    assert!(freed.len() <= 1);
    let held: u32 = node.store.list().iter().map(|block| block.spec.used).sum();
    assert_eq!(held, 0);
}

#[tokio::test(start_paused = true)]
async fn empty_blocks_go_back_but_one() {
    let node = Node::new(vec![pool(
        "p",
        json!({"cidr": "10.0.0.0/28", "blockSize": 31}),
    )]);
    for name in ["a", "b", "c", "d", "e"] {
        node.assign(name, Family::V4).await.unwrap();
    }
    for name in ["a", "b", "c", "d"] {
        node.allocator.release(of(name)).await.unwrap();
    }
    let grace = Duration::from_secs(60);
    assert_eq!(node.allocator.release_empty_blocks(grace).await, Ok(vec![]));
    tokio::time::advance(grace).await;
    let given_back = node.allocator.release_empty_blocks(grace).await.unwrap();
    assert_eq!(given_back.len(), 1);
    assert_eq!(node.store.list().len(), 2);
    assert_eq!(node.allocator.own_blocks().len(), 2);
    // A pool that is switched off keeps none.
    node.allocator.set_pools(vec![]);
    assert_eq!(
        node.allocator
            .release_empty_blocks(grace)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(node.store.list()[0].spec.used, 1);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_someone_uses_is_not_given_back() {
    let node = Node::new(small());
    node.assign("a", Family::V4).await.unwrap();
    node.allocator.release(of("a")).await.unwrap();
    node.allocator.set_pools(vec![]);
    // Another writer was faster; our view does not know.
    let mut block = NodeBlock::parse(node.store.list().remove(0)).unwrap();
    block.assign(&owner("b"), PausedClock::start(), Duration::ZERO);
    node.store.update(block.object()).await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(
        node.allocator.release_empty_blocks(Duration::ZERO).await,
        Ok(vec![])
    );
    assert_eq!(node.store.list().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn changes_are_told_at_once() {
    let node = Node::new(large());
    let mut changes = node.allocator.changes();
    assert!(!changes.has_changed().unwrap());
    node.assign("a", Family::V4).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(node.allocator.own_blocks().len(), 1);
    // The watch tells what we wrote ourselves: no change.
    for event in node.store.events_since(0) {
        node.allocator.handle_block_event(event);
    }
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn overlapping_and_spoiled_blocks_give_nothing() {
    let node = Node::new(vec![pool(
        "p",
        json!({"cidr": "10.0.0.0/24", "blockSize": 28}),
    )]);
    let address = node.assign("a", Family::V4).await.unwrap();
    let own = node.allocator.own_blocks()[0].cidr();
    // A block of another size over the same addresses, from a pool that was there before.
    let foreign = NodeBlock::claim(
        format!("{}/26", address)
            .parse::<ipnetwork::IpNetwork>()
            .map(|range| ipnetwork::IpNetwork::new(range.network(), 26).unwrap())
            .unwrap(),
        "n2",
    );
    let created = node.store.create(foreign.object()).await.unwrap();
    node.allocator
        .handle_block_event(BlockEvent::Apply(created));
    let other = node.allocator.assign(owner("b"), Family::V4).await.unwrap();
    assert_ne!(other.block, own);
    assert!(!foreign.cidr().contains(other.address));
    // What was given is still ours to give back.
    assert_eq!(node.allocator.release(of("a")).await.unwrap(), [address]);

    // A person has edited our block into nonsense: it is left alone and told.
    let mut spoiled = node
        .store
        .list()
        .into_iter()
        .find(|block| block.spec.cidr == other.block.to_string())
        .unwrap();
    spoiled.spec.allocations[0].address = "not an address".into();
    let spoiled = node.store.put(spoiled).unwrap();
    node.allocator
        .handle_block_event(BlockEvent::Apply(spoiled));
    let problems = node.allocator.problems();
    assert!(
        problems
            .values()
            .next()
            .unwrap()
            .contains("spec.allocations[0]: Invalid value: \"not an address\"")
    );
    let third = node.allocator.assign(owner("c"), Family::V4).await.unwrap();
    assert_ne!(third.block, other.block);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_block_is_claimed_anew_and_late_events_do_no_harm() {
    let node = Node::new(small());
    node.assign("a", Family::V4).await.unwrap();
    let block = node.store.list().remove(0);
    // An administrator deletes the block; we hear of it only by our refused write.
    node.store.delete(&block).await.unwrap();
    let address = node.assign("b", Family::V4).await.unwrap();
    assert_eq!(node.store.list().len(), 1);
    for event in node.store.events_since(0) {
        node.allocator.handle_block_event(event);
    }
    let again = node.assign("b", Family::V4).await.unwrap();
    assert_eq!(again, address);
    assert_eq!(node.allocator.own_blocks().len(), 1);
}

//! The wiring over the real allocator and a store in memory.

use std::sync::Arc;

use margay_cni::Code;
use margay_crds::{IPPool, Pool};
use margay_ipam::memory::Fault;
use margay_ipam::{Allocator, BlockEvent, MemoryStore, SystemClock};
use serde_json::json;

use super::fakes::{World, add, attachment, del};
use crate::cni_server::edges::Addresses;
use crate::cni_server::network::{DelOutcome, PodNetwork};
use crate::cni_server::wiring::Wiring;

fn pool(name: &str, spec: serde_json::Value) -> Pool {
    let spec = serde_json::from_value(spec).unwrap();
    IPPool::new(name, spec).check().unwrap()
}

struct Node {
    _place: tempfile::TempDir,
    store: Arc<MemoryStore>,
    allocator: Allocator,
    world: World,
    wiring: Wiring<Allocator, World, World>,
}

fn node(pools: Vec<Pool>) -> Node {
    let place = tempfile::tempdir().unwrap();
    let store = Arc::<MemoryStore>::default();
    let (allocator, worker) = Allocator::new("n1", Arc::clone(&store), SystemClock);
    tokio::spawn(worker.run());
    allocator.set_pools(pools);
    allocator.handle_block_event(BlockEvent::List(vec![]));
    let world = World::default();
    let journal = place.path().join("journal");
    let wiring = Wiring::new(allocator.clone(), world.clone(), world.clone(), journal);
    Node {
        _place: place,
        store,
        allocator,
        world,
        wiring,
    }
}

fn held(node: &Node) -> u32 {
    node.store.list().iter().map(|block| block.spec.used).sum()
}

#[tokio::test]
async fn both_families_and_back() {
    let node = node(vec![
        pool("six", json!({"cidr": "fd00::/64"})),
        pool("four", json!({"cidr": "10.0.0.0/24"})),
    ]);
    // The fakes' links insist on an address that the fake gave: give it.
    node.world.with(|state| {
        let holder = crate::cni_server::edges::Holder {
            attachment: attachment("c1"),
            pod: super::fakes::pod("web"),
            addresses: Vec::new(),
            since: None,
        };
        state.held.insert(attachment("c1"), holder);
    });
    let added = node.wiring.add(add("c1", "web")).await.unwrap();
    let families: Vec<bool> = added
        .addresses
        .iter()
        .map(|(one, _)| one.is_ipv4())
        .collect();
    assert_eq!(families, [true, false]);
    assert_eq!(held(&node), 2);
    let holders = node.allocator.holders();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].addresses.len(), 2);
    assert_eq!(holders[0].pod.name, "web");
    assert!(holders[0].since.is_some());

    assert_eq!(node.wiring.check(add("c1", "web")).await, Ok(()));
    assert_eq!(node.wiring.del(del("c1", None)).await, Ok(DelOutcome::Done));
    assert_eq!(held(&node), 0);
}

#[tokio::test]
async fn one_exhausted_family_gives_the_other_back() {
    let node = node(vec![
        pool("four", json!({"cidr": "10.0.0.0/24"})),
        pool("tiny-six", json!({"cidr": "fd00::/128", "blockSize": 128})),
    ]);
    let other = margay_crds::Owner {
        container_id: "other".into(),
        ..margay_crds::Owner::default()
    };
    Addresses::assign(&node.allocator, &other).await.unwrap();
    let before = held(&node);
    let error = node.wiring.add(add("c1", "web")).await.unwrap_err();
    assert_eq!(error.code, Code::TRY_AGAIN);
    assert_eq!(error.msg, "no free IPv6 address in IPPool tiny-six");
    assert_eq!(held(&node), before);
}

#[tokio::test]
async fn no_pool_is_told_pool_by_pool() {
    let node = node(vec![pool(
        "off",
        json!({"cidr": "10.0.0.0/24", "disabled": true}),
    )]);
    let error = node.wiring.add(add("c1", "web")).await.unwrap_err();
    assert_eq!(error.code, Code::TRY_AGAIN);
    assert!(error.details.contains("IPPool off is disabled"), "{error}");
}

#[tokio::test]
async fn an_api_server_away_delays_no_delete() {
    let node = node(vec![pool("four", json!({"cidr": "10.0.0.0/24"}))]);
    let owner = margay_crds::Owner {
        namespace: "default".into(),
        pod: "web".into(),
        container_id: "c1".into(),
        interface: "eth0".into(),
        ..margay_crds::Owner::default()
    };
    Addresses::assign(&node.allocator, &owner).await.unwrap();
    node.store.inject([Some(Fault::Unavailable)]);
    assert_eq!(
        node.wiring.del(del("c1", None)).await,
        Ok(DelOutcome::Deferred)
    );
    // Whether the write arrived is not known: the next one reads first.
    assert_eq!(node.wiring.del(del("c1", None)).await, Ok(DelOutcome::Done));
    assert_eq!(held(&node), 0);
}

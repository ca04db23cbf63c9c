//! The protocol of blocks against the real server: who claims first has it, who writes an old
//! version is refused, and the allocator lives with both.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use futures::TryStreamExt;
use futures::future::join_all;
use kube::Client;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, Event, watcher};
use margay_crds::{IPAMBlock, IPPool, Owner, Pool};
use margay_ipam::{
    Allocator, BlockEvent, Family, KubeStore, NodeBlock, Release, Store, StoreError, SystemClock,
};
use serde_json::json;

fn claim(cidr: &str, node: &str) -> IPAMBlock {
    NodeBlock::claim(cidr.parse().unwrap(), node)
        .object()
        .clone()
}

fn owner(name: &str) -> Owner {
    Owner {
        namespace: "default".into(),
        pod: name.into(),
        container_id: format!("c-{name}"),
        interface: "eth0".into(),
        ..Owner::default()
    }
}

pub async fn the_four_calls(client: Client) {
    let store = KubeStore::new(client);
    let block = claim("10.1.0.0/26", "n1");
    let name = block.metadata.name.clone().unwrap();
    assert_eq!(store.get(&name).await, Ok(None));
    let first = store.create(&block).await.unwrap();
    assert!(first.metadata.uid.is_some() && first.metadata.resource_version.is_some());
    assert_eq!(store.create(&block).await, Err(StoreError::AlreadyExists));
    assert_eq!(store.get(&name).await, Ok(Some(first.clone())));

    let mut changed = first.clone();
    changed.spec.sequence = 7;
    let second = store.update(&changed).await.unwrap();
    assert_eq!(second.spec.sequence, 7);
    // The server keeps no count of who wrote which field of a block, which is dear.
    let fields = |block: &IPAMBlock| block.metadata.managed_fields.clone().unwrap_or_default();
    assert!(fields(&second).is_empty(), "{:?}", second.metadata);
    assert_ne!(
        second.metadata.resource_version,
        first.metadata.resource_version
    );
    assert_eq!(store.update(&changed).await, Err(StoreError::Conflict));
    assert_eq!(store.delete(&first).await, Err(StoreError::Conflict));
    let mut another = second.clone();
    another.metadata.uid = Some("00000000-0000-0000-0000-000000000000".into());
    assert_eq!(store.delete(&another).await, Err(StoreError::Conflict));
    assert_eq!(store.delete(&second).await, Ok(()));
    assert_eq!(store.get(&name).await, Ok(None));
    assert_eq!(store.delete(&second).await, Err(StoreError::NotFound));
    let gone = store.update(&second).await;
    assert!(
        matches!(gone, Err(StoreError::NotFound | StoreError::Conflict)),
        "{gone:?}"
    );
    // The same name again is another object.
    let third = store.create(&block).await.unwrap();
    assert_eq!(store.update(&second).await, Err(StoreError::Conflict));
    assert_eq!(store.delete(&second).await, Err(StoreError::Conflict));
    assert_eq!(store.delete(&third).await, Ok(()));
}

pub async fn one_of_many_gets_a_block(client: Client) {
    let store = KubeStore::new(client);
    for round in 0..10 {
        let cidr = format!("10.2.{round}.0/26");
        let nodes: Vec<String> = (0..8).map(|n| format!("racer-{n}")).collect();
        let claims: Vec<_> = nodes.iter().map(|node| claim(&cidr, node)).collect();
        let answers = join_all(claims.iter().map(|block| store.create(block))).await;
        let mut winners = Vec::new();
        for answer in answers {
            match answer {
                Ok(block) => winners.push(block),
                Err(error) => assert_eq!(error, StoreError::AlreadyExists),
            }
        }
        assert_eq!(winners.len(), 1);
        let now = store.get(winners[0].metadata.name.as_ref().unwrap()).await;
        assert_eq!(now.unwrap().unwrap().spec.node, winners[0].spec.node);
    }
}

pub async fn many_writers_of_one_block_lose_nothing(client: Client) {
    let store = KubeStore::new(client);
    let name = store
        .create(&claim("10.3.0.0/26", "n1"))
        .await
        .unwrap()
        .metadata
        .name
        .unwrap();
    let writers = (0..8).map(|_| async {
        let (mut done, mut conflicts) = (0, 0);
        while done < 5 {
            let mut block = store.get(&name).await.unwrap().unwrap();
            block.spec.sequence += 1;
            match store.update(&block).await {
                Ok(_) => done += 1,
                Err(error) => {
                    assert_eq!(error, StoreError::Conflict);
                    conflicts += 1;
                }
            }
        }
        conflicts
    });
    let conflicts: u32 = join_all(writers).await.into_iter().sum();
    let last = store.get(&name).await.unwrap().unwrap();
    assert_eq!(last.spec.sequence, 40);
    assert!(conflicts > 0, "eight writers of one object never met");
}

/// A node's allocator over the real server, fed by a real watch.
struct Node {
    allocator: Allocator,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn pool(name: &str, spec: serde_json::Value) -> Pool {
    let spec = serde_json::from_value(spec).unwrap();
    IPPool::new(name, spec).check().unwrap()
}

async fn node(client: &Client, name: &str, pools: Vec<Pool>) -> Node {
    let store = Arc::new(KubeStore::new(client.clone()));
    let (allocator, worker) = Allocator::new(name, store, SystemClock);
    allocator.set_pools(pools);
    let feed = feed(client.clone(), allocator.clone());
    let tasks = vec![tokio::spawn(worker.run()), tokio::spawn(feed)];
    while !allocator.is_ready() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Node { allocator, tasks }
}

async fn feed(client: Client, allocator: Allocator) {
    let mut events = std::pin::pin!(watcher(Api::all(client), watcher::Config::default()));
    let mut listed = Vec::new();
    while let Some(event) = events.try_next().await.unwrap() {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(block) => listed.push(block),
            Event::InitDone => {
                allocator.handle_block_event(BlockEvent::List(std::mem::take(&mut listed)));
            }
            Event::Apply(block) => allocator.handle_block_event(BlockEvent::Apply(block)),
            Event::Delete(block) => allocator.handle_block_event(BlockEvent::Delete(block)),
        }
    }
}

/// The blocks of a pool as the server has them now.
async fn blocks_in(client: &Client, pool: &str) -> Vec<IPAMBlock> {
    let pool: ipnetwork::IpNetwork = pool.parse().unwrap();
    let api: Api<IPAMBlock> = Api::all(client.clone());
    let mut blocks = api.list(&ListParams::default()).await.unwrap().items;
    blocks.retain(|block| {
        pool.contains(
            block
                .spec
                .cidr
                .parse::<ipnetwork::IpNetwork>()
                .unwrap()
                .ip(),
        )
    });
    blocks
}

fn writes(blocks: &[IPAMBlock]) -> usize {
    // The version counts the writes of the spec, and the claim is the first.
    let generations = blocks.iter().filter_map(|block| block.metadata.generation);
    generations.map(|one| usize::try_from(one).unwrap()).sum()
}

pub async fn simultaneous_requests_share_writes(client: Client) {
    let pools = || vec![pool("share", json!({"cidr": "10.40.0.0/16"}))];
    let node = node(&client, "share", pools()).await;
    let names: Vec<String> = (0..100).map(|n| format!("p{n}")).collect();
    let asked = names
        .iter()
        .map(|name| node.allocator.assign(owner(name), Family::V4));
    let given: HashSet<IpAddr> = join_all(asked)
        .await
        .into_iter()
        .map(|one| one.unwrap().address)
        .collect();
    assert_eq!(given.len(), 100);
    let blocks = blocks_in(&client, "10.40.0.0/16").await;
    assert_eq!(blocks.iter().map(|block| block.spec.used).sum::<u32>(), 100);
    println!(
        "  100 simultaneous requests: {} writes of {} blocks",
        writes(&blocks),
        blocks.len()
    );
    assert!(writes(&blocks) <= 20, "at most 0.2 a request");

    let back = names.iter().map(|name| {
        node.allocator.release(Release::Container {
            container_id: format!("c-{name}"),
            interface: None,
        })
    });
    for answer in join_all(back).await {
        assert_eq!(answer.unwrap().len(), 1);
    }
    let blocks = blocks_in(&client, "10.40.0.0/16").await;
    assert_eq!(blocks.iter().map(|block| block.spec.used).sum::<u32>(), 0);
}

pub async fn two_nodes_never_share(client: Client) {
    // Four blocks of four: the nodes fight for the last one.
    let pools = || {
        vec![pool(
            "few",
            json!({"cidr": "10.41.0.0/28", "blockSize": 30}),
        )]
    };
    let (one, two) = (
        node(&client, "few-1", pools()).await,
        node(&client, "few-2", pools()).await,
    );
    let mut asked = Vec::new();
    for n in 0..10 {
        asked.push(one.allocator.assign(owner(&format!("one-{n}")), Family::V4));
        asked.push(two.allocator.assign(owner(&format!("two-{n}")), Family::V4));
    }
    let (mut given, mut refused) = (Vec::new(), 0);
    for answer in join_all(asked).await {
        match answer {
            Ok(assigned) => given.push(assigned.address),
            Err(_) => refused += 1,
        }
    }
    let distinct: HashSet<IpAddr> = given.iter().copied().collect();
    assert_eq!(distinct.len(), given.len(), "an address was given twice");
    let blocks = blocks_in(&client, "10.41.0.0/28").await;
    let mut of_node: BTreeMap<String, u32> = BTreeMap::new();
    for block in &blocks {
        block.check().unwrap();
        *of_node.entry(block.spec.node.clone()).or_default() += block.spec.used;
    }
    let held: u32 = of_node.values().sum();
    assert_eq!(usize::try_from(held).unwrap(), given.len(), "{of_node:?}");
    // A node's ten requests fill at most three blocks; sixteen addresses are all there are.
    assert!(
        given.len() >= 14 && given.len() + refused == 20,
        "{given:?}"
    );
}

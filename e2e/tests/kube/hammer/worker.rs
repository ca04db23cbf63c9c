//! One process of the hammer: fifty allocators, each with some callers that ask for addresses and
//! give them back, until their part of the operations is done. It may be killed at any moment and
//! started again; what its callers knew is in the journal.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use futures::future::join_all;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use margay_crds::{IPAMBlock, IPPool, Owner};
use margay_e2e::lab::objects;
use margay_ipam::{Allocator, BlockEvent, Family, IpamError, KubeStore, Release, SystemClock};

use super::journal::{self, Journal, Mark};
use super::{ALLOCATORS, Random};

/// How many pods of a node start and end at a time.
const CALLERS: usize = 6;
/// How long a pod keeps its address, at most.
const HOLD: u64 = 150;

/// The command line of a worker: kubeconfig, journal, its number, how many operations, and a
/// number that makes this life of it different from the one before.
pub struct Arguments {
    pub kubeconfig: PathBuf,
    pub journal: PathBuf,
    pub number: usize,
    pub operations: usize,
    pub life: u64,
}

impl Arguments {
    pub fn parse(words: &[String]) -> Self {
        let [kubeconfig, journal, number, operations, life] = words else {
            panic!("a worker has five arguments");
        };
        Self {
            kubeconfig: kubeconfig.into(),
            journal: journal.into(),
            number: number.parse().unwrap(),
            operations: operations.parse().unwrap(),
            life: life.parse().unwrap(),
        }
    }
}

struct Process {
    journal: Journal,
    done: AtomicUsize,
    sandboxes: AtomicUsize,
    wanted: usize,
    life: u64,
}

pub async fn run(arguments: Arguments) {
    let before = journal::read(&arguments.journal);
    let process = Arc::new(Process {
        journal: Journal::open(&arguments.journal),
        done: AtomicUsize::new(journal::operations(&before)),
        sandboxes: AtomicUsize::new(0),
        wanted: arguments.operations,
        life: arguments.life,
    });
    let client = objects::client(&arguments.kubeconfig).await.unwrap();
    let pool = IPPool::new("hammer", serde_json::from_value(super::pool()).unwrap());
    let pools = vec![pool.check().unwrap()];
    let mut allocators = Vec::new();
    for n in 0..ALLOCATORS {
        let node = super::node(arguments.number, n);
        let store = Arc::new(KubeStore::new(client.clone()));
        let (allocator, worker) = Allocator::new(&node, store, SystemClock);
        allocator.set_pools(pools.clone());
        tokio::spawn(worker.run());
        allocators.push((node, allocator));
    }
    let fed: Vec<Allocator> = allocators.iter().map(|(_, one)| one.clone()).collect();
    tokio::spawn(feed(client, fed.clone()));
    while !fed.iter().all(Allocator::is_ready) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What the callers of an earlier life had: their pods are gone, and their DELs come now.
    let open = journal::unreturned(&before);
    let returns = open.iter().map(|(sandbox, (node, address))| {
        let (_, allocator) = allocators.iter().find(|(name, _)| name == node).unwrap();
        give_back(&process, allocator, node, sandbox, *address)
    });
    join_all(returns).await;
    let callers = allocators
        .iter()
        .enumerate()
        .flat_map(|(n, (node, allocator))| {
            let process = &process;
            (0..CALLERS).map(move |caller| {
                let seed = (n * CALLERS + caller) as u64 ^ (arguments.life << 32);
                call(
                    Arc::clone(process),
                    allocator.clone(),
                    node.clone(),
                    Random(seed),
                )
            })
        });
    let tidy = allocators.iter().map(|(_, allocator)| async {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let _ = allocator.release_empty_blocks(Duration::from_secs(1)).await;
        }
    });
    tokio::select! {
        _ = join_all(callers) => {}
        _ = join_all::<_>(tidy) => {}
    }
}

/// One caller after the other, until enough is done.
async fn call(process: Arc<Process>, allocator: Allocator, node: String, mut random: Random) {
    while process.done.load(Ordering::Relaxed) < process.wanted {
        let number = process.sandboxes.fetch_add(1, Ordering::Relaxed);
        let sandbox = format!("{node}-{}-{number}", process.life);
        let owner = Owner {
            namespace: "default".into(),
            pod: sandbox.clone(),
            container_id: sandbox.clone(),
            interface: "eth0".into(),
            ..Owner::default()
        };
        match allocator.assign(owner, Family::V4).await {
            Ok(assigned) => {
                process
                    .journal
                    .write(Mark::Given, &node, &sandbox, assigned.address);
                process.done.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(random.below(HOLD))).await;
                give_back(&process, &allocator, &node, &sandbox, assigned.address).await;
            }
            // The runtime calls DEL after an ADD that failed: it may have come to something.
            Err(error) => {
                let permitted =
                    error.is_transient() || matches!(error, IpamError::Exhausted { .. });
                assert!(permitted, "{node}: {error}");
                release(&allocator, &sandbox).await;
            }
        }
    }
}

async fn give_back(
    process: &Process,
    allocator: &Allocator,
    node: &str,
    sandbox: &str,
    address: std::net::IpAddr,
) {
    process
        .journal
        .write(Mark::Returning, node, sandbox, address);
    release(allocator, sandbox).await;
    process
        .journal
        .write(Mark::Returned, node, sandbox, address);
    process.done.fetch_add(1, Ordering::Relaxed);
}

/// Asks until it is answered, as the agent does by its journal.
async fn release(allocator: &Allocator, sandbox: &str) {
    let which = Release::Container {
        container_id: sandbox.to_owned(),
        interface: None,
    };
    while let Err(error) = allocator.release(which.clone()).await {
        assert!(error.is_transient(), "{sandbox}: {error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// One watch for all fifty: what each would see by one of its own.
async fn feed(client: Client, allocators: Vec<Allocator>) {
    let tell = |event: &BlockEvent| {
        for allocator in &allocators {
            allocator.handle_block_event(event.clone());
        }
    };
    loop {
        let api: Api<IPAMBlock> = Api::all(client.clone());
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        let mut listed = Vec::new();
        loop {
            match events.try_next().await {
                Ok(Some(Event::Init)) => listed.clear(),
                Ok(Some(Event::InitApply(block))) => listed.push(block),
                Ok(Some(Event::InitDone)) => tell(&BlockEvent::List(std::mem::take(&mut listed))),
                Ok(Some(Event::Apply(block))) => tell(&BlockEvent::Apply(block)),
                Ok(Some(Event::Delete(block))) => tell(&BlockEvent::Delete(block)),
                Ok(None) => break,
                // The server is away: again, from the list on.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
        }
    }
}

//! What the leader knows of the cluster, by watches: pools, blocks, nodes, pods, Services.
//!
//! Of nodes and pods only what counts is kept: a cluster has many.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds::{DEFAULT_NAME, IPAMBlock, IPAMConfiguration, IPPool, IpamSettings};
use margay_ipam::garbage::{Facts, NodeFacts, PodFacts, ServiceFacts};
use margay_ipam::{Allocator, BlockEvent};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::cluster_range::ClusterRange;
use crate::datastore::{Failures, Follower, Kind, LightPod, Mirror, Roster, RosterChange};

/// How many events may wait before the watches wait.
const QUEUE: usize = 256;

/// One event of one of the watches.
#[expect(clippy::large_enum_variant, reason = "it travels in a box")]
enum Change {
    Pool(Event<IPPool>),
    Block(Event<IPAMBlock>),
    Settings(Event<IPAMConfiguration>),
    Node(Event<Node>),
    Pod(Event<Pod>),
    Service(Event<Service>),
}

/// What of it has changed, counted, so that each task sees what concerns it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Pools, blocks and settings.
    pub(super) addresses: u64,
    /// Services, and what they get addresses from.
    pub(super) services: u64,
}

/// The knowledge.
pub(super) struct World {
    unclassed: bool,
    pub(super) pools: Mirror<IPPool>,
    pub(super) blocks: Mirror<IPAMBlock>,
    settings: Mirror<IPAMConfiguration>,
    pub(super) services: Mirror<Service>,
    node_roster: Roster,
    pod_roster: Roster,
    pub(super) facts: Facts,
    pub(super) range: ClusterRange,
}

impl World {
    fn new(unclassed: bool, range: ClusterRange) -> Self {
        Self {
            unclassed,
            range,
            pools: Mirror::default(),
            blocks: Mirror::default(),
            settings: Mirror::default(),
            services: Mirror::default(),
            node_roster: Roster::default(),
            pod_roster: Roster::default(),
            facts: Facts::default(),
        }
    }

    /// Whether every first list is in: before, much would look as if it were gone.
    pub(super) fn is_synced(&self) -> bool {
        self.pools.is_synced()
            && self.blocks.is_synced()
            && self.settings.is_synced()
            && self.services.is_synced()
            && self.node_roster.is_synced()
            && self.pod_roster.is_synced()
    }

    /// What holds for all pools.
    pub(super) fn settings(&self) -> IpamSettings {
        let object = self.settings.get(DEFAULT_NAME);
        let checked = object.and_then(|object| object.check().ok());
        checked.unwrap_or_default()
    }

    fn handle(&mut self, change: Change, counts: &mut Counts) {
        match change {
            Change::Pool(event) => {
                let changed = !self.pools.handle(event).is_empty();
                counts.addresses += u64::from(changed);
                counts.services += u64::from(changed);
            }
            Change::Block(event) => {
                counts.addresses += u64::from(!self.blocks.handle(event).is_empty());
            }
            Change::Settings(event) => {
                let changed = !self.settings.handle(event).is_empty();
                counts.addresses += u64::from(changed);
                counts.services += u64::from(changed);
            }
            Change::Node(event) => {
                let changes = self.node_roster.handle(event);
                for change in &changes {
                    let (name, node) = match change {
                        RosterChange::Present(name, node) => (name, Some(node)),
                        RosterChange::Gone(name) => (name, None),
                    };
                    counts.addresses += u64::from(self.range.handle_node(name, node));
                }
                keep(&mut self.facts.nodes, changes, NodeFacts::of);
            }
            Change::Pod(event) => {
                let changes = self.pod_roster.handle(event);
                keep(&mut self.facts.pods, changes, PodFacts::of);
            }
            Change::Service(event) => {
                let unclassed = self.unclassed;
                let changes = self.services.handle(event);
                counts.services += u64::from(!changes.is_empty());
                let facts = |service: &Service| ServiceFacts::of(service, unclassed);
                keep(&mut self.facts.services, changes, facts);
            }
        }
    }
}

fn keep<T, F>(
    kept: &mut HashMap<String, F>,
    changes: Vec<RosterChange<T>>,
    facts: impl Fn(&T) -> F,
) {
    for change in changes {
        match change {
            RosterChange::Present(key, object) => {
                kept.insert(key, facts(&object));
            }
            RosterChange::Gone(key) => {
                kept.remove(&key);
            }
        }
    }
}

/// The knowledge, shared by the leader's tasks, and a sign when it changes.
#[derive(Clone)]
pub(super) struct Shared {
    world: Arc<Mutex<World>>,
    counts: watch::Receiver<Counts>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    /// Starts the watches; they end when `feed` ends. The second value is the task that feeds
    /// the knowledge and, with blocks, the allocator of LoadBalancer addresses.
    pub(super) fn start(
        client: &Client,
        unclassed: bool,
        range: ClusterRange,
        balancer: Allocator,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, mut events) = mpsc::channel::<Box<Change>>(QUEUE);
        let (failures, _) = watch::channel(Failures::new());
        let starter = Starter {
            client,
            sender,
            failures,
        };
        starter.watch(Kind::IPPool, Change::Pool);
        starter.watch(Kind::IPAMBlock, Change::Block);
        starter.watch(Kind::IPAMConfiguration, Change::Settings);
        starter.watch(Kind::Node, Change::Node);
        starter.watch(Kind::Pod, |event| Change::Pod(LightPod::open(event)));
        starter.watch(Kind::Service, Change::Service);
        let (changed, counts) = watch::channel(Counts::default());
        let world = Arc::new(Mutex::new(World::new(unclassed, range)));
        let shared = Self {
            world: Arc::clone(&world),
            counts,
        };
        let feed = async move {
            let mut listing = Vec::new();
            let mut counts = Counts::default();
            while let Some(change) = events.recv().await {
                if let Change::Block(event) = &*change {
                    feed_allocator(&balancer, &mut listing, event);
                }
                lock(&world).handle(*change, &mut counts);
                changed.send_if_modified(|known| std::mem::replace(known, counts) != counts);
            }
        };
        (shared, feed)
    }

    /// What `look` finds. It must be quick.
    pub(super) fn with<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&lock(&self.world))
    }

    /// A sign for each change.
    pub(super) fn changes(&self) -> watch::Receiver<Counts> {
        self.counts.clone()
    }
}

fn lock(world: &Mutex<World>) -> MutexGuard<'_, World> {
    // What is there after a panic is no worse than a watch that lags.
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

fn feed_allocator(allocator: &Allocator, listing: &mut Vec<IPAMBlock>, event: &Event<IPAMBlock>) {
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(block) => listing.push(block.clone()),
        Event::InitDone => {
            allocator.handle_block_event(BlockEvent::List(std::mem::take(listing)));
        }
        Event::Apply(block) => allocator.handle_block_event(BlockEvent::Apply(block.clone())),
        Event::Delete(block) => allocator.handle_block_event(BlockEvent::Delete(block.clone())),
    }
}

struct Starter<'a> {
    client: &'a Client,
    sender: mpsc::Sender<Box<Change>>,
    failures: watch::Sender<Failures>,
}

impl Starter<'_> {
    fn watch<K>(&self, kind: Kind, wrap: fn(Event<K>) -> Change)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let sender = self.sender.clone();
        let mut follower = Follower::new(kind, self.failures.clone());
        tokio::spawn(async move {
            let config = watcher::Config::default();
            follower.follow(api, config, &sender, wrap).await;
        });
    }
}

/// The key of an object with a namespace.
pub(super) fn key(object: &impl ResourceExt) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{namespace}/{}", object.name_any())
}

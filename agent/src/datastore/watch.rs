//! One watch a kind, all feeding one bounded channel.

use std::fmt;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, utils::Backoff};
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds::{BGPConfiguration, BGPPeer, IPAMBlock, IPAMConfiguration, IPPool};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

/// How many events may wait for the agent before the watches wait for it.
const QUEUE: usize = 1024;

/// The kinds the agent watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the kind of its name")]
pub enum Kind {
    IPPool,
    IPAMBlock,
    IPAMConfiguration,
    BGPConfiguration,
    BGPPeer,
    Node,
    Pod,
    Namespace,
    NetworkPolicy,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One event of one of the watches.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it travels in a box")]
#[expect(missing_docs, reason = "each is an event of the kind of its name")]
pub enum Change {
    IPPool(Event<IPPool>),
    IPAMBlock(Event<IPAMBlock>),
    IPAMConfiguration(Event<IPAMConfiguration>),
    BGPConfiguration(Event<BGPConfiguration>),
    BGPPeer(Event<BGPPeer>),
    Node(Event<Node>),
    Pod(Event<Pod>),
    Namespace(Event<Namespace>),
    NetworkPolicy(Event<NetworkPolicy>),
}

/// What the watches deliver.
#[derive(Debug)]
pub enum WatchEvent {
    /// Something changed, or a list goes on.
    Change(Box<Change>),
    /// A watch failed and is tried again; the objects known so far stay in force.
    Failed(Kind, String),
}

/// Starts a watch for every kind. The receiver is closed when all of them have ended, which
/// happens only when it is dropped.
pub fn watch_all(client: &Client) -> mpsc::Receiver<WatchEvent> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let start = Starter { client, sender };
    start.watch(Kind::IPPool, Change::IPPool);
    start.watch(Kind::IPAMBlock, Change::IPAMBlock);
    start.watch(Kind::IPAMConfiguration, Change::IPAMConfiguration);
    start.watch(Kind::BGPConfiguration, Change::BGPConfiguration);
    start.watch(Kind::BGPPeer, Change::BGPPeer);
    start.watch(Kind::Node, Change::Node);
    start.watch(Kind::Pod, Change::Pod);
    start.watch(Kind::Namespace, Change::Namespace);
    start.watch(Kind::NetworkPolicy, Change::NetworkPolicy);
    receiver
}

struct Starter<'a> {
    client: &'a Client,
    sender: mpsc::Sender<WatchEvent>,
}

impl Starter<'_> {
    fn watch<K>(&self, kind: Kind, wrap: fn(Event<K>) -> Change)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let sender = self.sender.clone();
        tokio::spawn(async move {
            // The field managers are of no use here and often larger than the object.
            let mut events = watcher(api, watcher::Config::default())
                .modify(|object| object.managed_fields_mut().clear())
                .backoff(Retry::default())
                .boxed();
            while let Some(event) = events.next().await {
                let event = match event {
                    Ok(event) => WatchEvent::Change(Box::new(wrap(event))),
                    Err(error) => WatchEvent::Failed(kind, error.to_string()),
                };
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// How long a failed watch waits: from 200 ms, doubling, to 10 s. Shorter than kube's own, since
/// a node whose API server comes back should not be blind for another half minute.
#[derive(Debug, Default)]
struct Retry {
    failures: u32,
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(200) * 2_u32.pow(self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        Some(wait.min(Duration::from_secs(10)))
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

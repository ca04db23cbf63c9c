//! One watch a kind, feeding two bounded channels: pods, namespaces and policies go straight to
//! the policy edge, everything else to the agent's loop. A policy table that takes long to write
//! thus holds up the watches of policy and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds::{BGPConfiguration, BGPPeer, IPAMBlock, IPAMConfiguration, IPPool};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::retry::Retry;

/// How many events may wait in each channel before the watches that feed it wait.
const QUEUE: usize = 256;
/// A watch that has not failed for so long may say so again: longer than any wait between tries.
const SPOKEN: Duration = Duration::from_secs(60);

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

/// The last failure, in words, of each watch that has failed since its last event. A watch of
/// objects that never change may have recovered without a sign.
pub type Failures = BTreeMap<Kind, String>;

/// What the watches deliver. A channel is closed when all its watches have ended, which happens
/// only when its receiver is dropped.
#[derive(Debug)]
pub struct Watches {
    /// Pools, blocks, settings, peers and nodes.
    pub network: mpsc::Receiver<Box<Change>>,
    /// Pods, namespaces and network policies.
    pub policy: mpsc::Receiver<Box<Change>>,
    /// What failed and is tried again; the objects known so far stay in force.
    pub failures: watch::Receiver<Failures>,
}

/// Starts a watch for every kind.
pub fn watch_all(client: &Client) -> Watches {
    let (network, to_loop) = mpsc::channel(QUEUE);
    let (policy, to_policy) = mpsc::channel(QUEUE);
    let (failures, failing) = watch::channel(Failures::new());
    let network = Starter {
        client,
        sender: network,
        failures: failures.clone(),
    };
    network.watch(Kind::IPPool, Change::IPPool);
    network.watch(Kind::IPAMBlock, Change::IPAMBlock);
    network.watch(Kind::IPAMConfiguration, Change::IPAMConfiguration);
    network.watch(Kind::BGPConfiguration, Change::BGPConfiguration);
    network.watch(Kind::BGPPeer, Change::BGPPeer);
    network.watch(Kind::Node, Change::Node);
    let policy = Starter {
        client,
        sender: policy,
        failures,
    };
    policy.watch(Kind::Pod, Change::Pod);
    policy.watch(Kind::Namespace, Change::Namespace);
    policy.watch(Kind::NetworkPolicy, Change::NetworkPolicy);
    Watches {
        network: to_loop,
        policy: to_policy,
        failures: failing,
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
        let failures = self.failures.clone();
        tokio::spawn(async move {
            // The field managers are of no use here and often larger than the object.
            let mut events = watcher(api, watcher::Config::default())
                .modify(|object| object.managed_fields_mut().clear())
                .backoff(Retry::default())
                .boxed();
            let mut last_failure: Option<Instant> = None;
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        // A new list is announced before the API server has answered.
                        if !matches!(event, Event::Init) {
                            works(&failures, kind);
                        }
                        if sender.send(Box::new(wrap(event))).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        if last_failure.is_none_or(|last| last.elapsed() > SPOKEN) {
                            tracing::warn!("watch of {kind} failed, trying again: {error}");
                        }
                        last_failure = Some(Instant::now());
                        fails(&failures, kind, error.to_string());
                    }
                }
            }
        });
    }
}

fn works(failures: &watch::Sender<Failures>, kind: Kind) {
    if failures.send_if_modified(|failures| failures.remove(&kind).is_some()) {
        tracing::info!("watch of {kind} works again");
    }
}

fn fails(failures: &watch::Sender<Failures>, kind: Kind, words: String) {
    failures.send_modify(|failures| {
        failures.insert(kind, words);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_lasts_until_its_own_watch_works() {
        let (failures, failing) = watch::channel(Failures::new());
        fails(&failures, Kind::Node, "refused".to_owned());
        fails(&failures, Kind::IPPool, "not found".to_owned());
        works(&failures, Kind::Node);
        works(&failures, Kind::Pod);
        let left: Vec<Kind> = failing.borrow().keys().copied().collect();
        assert_eq!(left, [Kind::IPPool]);
    }
}

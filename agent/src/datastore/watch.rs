//! One watch a kind, feeding two bounded channels: pods, namespaces and policies go straight to
//! the policy edge, everything else to the agent's loop. A policy table that takes long to write
//! thus holds up the watches of policy and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use margay_crds as crds;
use margay_crds::{
    BGPConfiguration, BGPFilter, BGPPeer, IPAMBlock, IPAMConfiguration, IPPool, IPReservation,
};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::light_pod::LightPod;
use super::retry::Retry;
use crate::notes::Notes;

/// How many events may wait in each channel before the watches that feed it wait.
const QUEUE: usize = 256;
/// A watch that has not failed for so long may say so again: longer than any wait between tries.
const SPOKEN: Duration = Duration::from_secs(60);

/// How long after the server did not serve a kind it is asked again.
const UNSERVED: Duration = Duration::from_secs(30);

/// The kinds the agent watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the kind of its name")]
pub enum Kind {
    IPPool,
    IPAMBlock,
    IPAMConfiguration,
    IPReservation,
    BGPConfiguration,
    BGPPeer,
    BGPFilter,
    Secret,
    Node,
    Pod,
    Namespace,
    NetworkPolicy,
    OwnNetworkPolicy,
    GlobalNetworkPolicy,
    ClusterNetworkPolicy,
    Tier,
    NetworkSet,
    GlobalNetworkSet,
    HostEndpoint,
    ServiceAccount,
    Service,
    EndpointSlice,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnNetworkPolicy => f.write_str("NetworkPolicy.margay.dev"),
            kind => fmt::Debug::fmt(kind, f),
        }
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
    IPReservation(Event<IPReservation>),
    BGPConfiguration(Event<BGPConfiguration>),
    BGPPeer(Event<BGPPeer>),
    BGPFilter(Event<BGPFilter>),
    Secret(Event<Secret>),
    Node(Event<Node>),
    Pod(Event<Pod>),
    Namespace(Event<Namespace>),
    NetworkPolicy(Event<NetworkPolicy>),
    OwnNetworkPolicy(Event<crds::NetworkPolicy>),
    GlobalNetworkPolicy(Event<crds::GlobalNetworkPolicy>),
    ClusterNetworkPolicy(Event<crds::ClusterNetworkPolicy>),
    Tier(Event<crds::Tier>),
    NetworkSet(Event<crds::NetworkSet>),
    GlobalNetworkSet(Event<crds::GlobalNetworkSet>),
    HostEndpoint(Event<crds::HostEndpoint>),
    ServiceAccount(Event<ServiceAccount>),
    EndpointSlice(Event<EndpointSlice>),
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
    /// Pods, namespaces, policies of every kind and what these refer to.
    pub policy: mpsc::Receiver<Box<Change>>,
    /// Told once a policy names a Service: then EndpointSlices are watched too, and not before.
    pub endpoints_wanted: watch::Sender<bool>,
    /// What failed and is tried again; the objects known so far stay in force.
    pub failures: watch::Receiver<Failures>,
    /// Where other watches tell the same.
    pub reporter: watch::Sender<Failures>,
}

/// Starts a watch for every kind, of Secrets for those in the agent's namespace.
/// What pods and namespaces say of addresses goes to `notes` on the way.
pub fn watch_all(client: &Client, namespace: &str, notes: Notes) -> Watches {
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
    network.watch(Kind::IPReservation, Change::IPReservation);
    network.watch(Kind::BGPConfiguration, Change::BGPConfiguration);
    network.watch(Kind::BGPPeer, Change::BGPPeer);
    network.watch(Kind::BGPFilter, Change::BGPFilter);
    let secrets = Api::namespaced(client.clone(), namespace);
    network.watch_by(secrets, Kind::Secret, Change::Secret);
    network.watch(Kind::Node, Change::Node);
    let policy = Starter {
        client,
        sender: policy,
        failures: failures.clone(),
    };
    notes.send_found(policy.sender.clone());
    let (of_pods, of_namespaces) = (notes.clone(), notes);
    policy.watch(Kind::Pod, move |event| {
        let event = LightPod::open(event);
        of_pods.handle_pod(&event);
        Change::Pod(event)
    });
    policy.watch(Kind::Namespace, move |event| {
        of_namespaces.handle_namespace(&event);
        Change::Namespace(event)
    });
    policy.watch(Kind::NetworkPolicy, Change::NetworkPolicy);
    policy.watch_if_served(Kind::OwnNetworkPolicy, Change::OwnNetworkPolicy);
    policy.watch_if_served(Kind::GlobalNetworkPolicy, Change::GlobalNetworkPolicy);
    policy.watch_if_served(Kind::ClusterNetworkPolicy, Change::ClusterNetworkPolicy);
    policy.watch_if_served(Kind::Tier, Change::Tier);
    policy.watch_if_served(Kind::NetworkSet, Change::NetworkSet);
    policy.watch_if_served(Kind::GlobalNetworkSet, Change::GlobalNetworkSet);
    policy.watch_if_served(Kind::HostEndpoint, Change::HostEndpoint);
    policy.watch(Kind::ServiceAccount, Change::ServiceAccount);
    let (endpoints_wanted, wanted) = watch::channel(false);
    policy.watch_when(wanted, Kind::EndpointSlice, Change::EndpointSlice);
    Watches {
        network: to_loop,
        policy: to_policy,
        endpoints_wanted,
        failures: failing,
        reporter: failures,
    }
}

struct Starter<'a> {
    client: &'a Client,
    sender: mpsc::Sender<Box<Change>>,
    failures: watch::Sender<Failures>,
}

impl Starter<'_> {
    fn watch<K>(&self, kind: Kind, wrap: impl Fn(Event<K>) -> Change + Send + 'static)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        self.watch_by(Api::all(self.client.clone()), kind, wrap);
    }

    /// Watches a kind that a cluster may lack: as long as it is not served there are no such objects.
    fn watch_if_served<K>(&self, kind: Kind, wrap: fn(Event<K>) -> Change)
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        let api = Api::all(self.client.clone());
        let sender = self.sender.clone();
        let failures = self.failures.clone();
        tokio::spawn(follow_if_served(api, kind, failures, sender, wrap));
    }

    /// Watches a kind from when it is wanted.
    fn watch_when<K>(
        &self,
        mut wanted: watch::Receiver<bool>,
        kind: Kind,
        wrap: fn(Event<K>) -> Change,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        let api = Api::all(self.client.clone());
        let sender = self.sender.clone();
        let failures = self.failures.clone();
        tokio::spawn(async move {
            if wanted.wait_for(|wanted| *wanted).await.is_ok() {
                follow_if_served(api, kind, failures, sender, wrap).await;
            }
        });
    }

    fn watch_by<K>(
        &self,
        api: Api<K>,
        kind: Kind,
        wrap: impl Fn(Event<K>) -> Change + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        let sender = self.sender.clone();
        let mut follower = Follower::new(kind, self.failures.clone());
        tokio::spawn(async move {
            let config = watcher::Config::default();
            follower.follow(api, config, &sender, wrap).await;
        });
    }
}

/// Follows a kind. While the server does not serve it, says that there are no objects of it, and tries again.
async fn follow_if_served<K>(
    api: Api<K>,
    kind: Kind,
    failures: watch::Sender<Failures>,
    sender: mpsc::Sender<Box<Change>>,
    wrap: fn(Event<K>) -> Change,
) where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let mut follower = Follower::new(kind, failures).optional();
    loop {
        let config = watcher::Config::default();
        if follower.follow(api.clone(), config, &sender, wrap).await == Ended::NotWanted {
            return;
        }
        for event in [Event::Init, Event::InitDone] {
            if sender.send(Box::new(wrap(event))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = sender.closed() => return,
            () = tokio::time::sleep(UNSERVED) => {}
        }
    }
}

/// Why a watch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nobody takes its events any more.
    NotWanted,
    /// The server does not know the kind in this version.
    NotServed,
}

/// Follows one kind: passes its events on, and tells what fails.
#[derive(Debug)]
pub(crate) struct Follower {
    kind: Kind,
    failures: watch::Sender<Failures>,
    last_failure: Option<Instant>,
    leaves: bool,
    /// A kind that is not served is no failure.
    quiet: bool,
}

impl Follower {
    /// For a kind that is tried for ever.
    pub(crate) fn new(kind: Kind, failures: watch::Sender<Failures>) -> Self {
        Self {
            kind,
            failures,
            last_failure: None,
            leaves: false,
            quiet: false,
        }
    }

    /// For a kind that may be served in another version when it is not in this one.
    pub(crate) fn leaving_if_not_served(self) -> Self {
        Self {
            leaves: true,
            ..self
        }
    }

    /// For a kind that a cluster need not have.
    fn optional(self) -> Self {
        Self {
            leaves: true,
            quiet: true,
            ..self
        }
    }

    /// Watches until nobody takes the events any more.
    pub(crate) async fn follow<K, C>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        sender: &mpsc::Sender<Box<C>>,
        wrap: impl Fn(Event<K>) -> C + Send,
    ) -> Ended
    where
        K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    {
        // The field managers are of no use here and often larger than the object.
        let mut events = watcher(api, config)
            .modify(|object| object.meta_mut().managed_fields = None)
            .backoff(Retry::default())
            .boxed();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = sender.closed() => None,
            };
            match event {
                Some(Ok(event)) => {
                    // A new list is announced before the API server has answered.
                    if !matches!(event, Event::Init) {
                        works(&self.failures, self.kind);
                    }
                    if sender.send(Box::new(wrap(event))).await.is_err() {
                        break;
                    }
                }
                Some(Err(error)) if self.quiet && is_not_served(&error) => {
                    return Ended::NotServed;
                }
                Some(Err(error)) => {
                    self.fails(error.to_string());
                    if self.leaves && is_not_served(&error) {
                        return Ended::NotServed;
                    }
                }
                None => break,
            }
        }
        self.failures
            .send_if_modified(|failures| failures.remove(&self.kind).is_some());
        Ended::NotWanted
    }

    /// Tells a failure; it is logged once in a while.
    pub(crate) fn fails(&mut self, words: String) {
        let last = self.last_failure.replace(Instant::now());
        if last.is_none_or(|last| last.elapsed() > SPOKEN) {
            tracing::warn!("watch of {} failed, trying again: {words}", self.kind);
        }
        fails(&self.failures, self.kind, words);
    }
}

fn is_not_served(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    let (InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error)) = error else {
        return false;
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
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

//! The cluster's objects as policy sees them, and what is wrong with them.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use margay_policy::{Cluster, Problem};
use tokio::sync::watch;

use crate::datastore::{Change, Kind, Roster, RosterChange};

/// The kinds that must have arrived before anything is committed.
const NEEDED: [Kind; 11] = [
    Kind::Namespace,
    Kind::Pod,
    Kind::NetworkPolicy,
    Kind::OwnNetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::ClusterNetworkPolicy,
    Kind::Tier,
    Kind::NetworkSet,
    Kind::GlobalNetworkSet,
    Kind::HostEndpoint,
    Kind::ServiceAccount,
];

/// Pods, namespaces, policies and what these refer to, kept current by their watches.
pub(super) struct Objects {
    rosters: BTreeMap<Kind, Roster>,
    endpoints_wanted: watch::Sender<bool>,
    /// What is wrong with an object, by kind and key.
    problems: BTreeMap<(Kind, String), Vec<Problem>>,
}

impl Objects {
    pub(super) fn new(endpoints_wanted: watch::Sender<bool>) -> Self {
        Self {
            rosters: BTreeMap::new(),
            endpoints_wanted,
            problems: BTreeMap::new(),
        }
    }

    /// Takes in a change; other kinds change nothing.
    pub(super) fn handle(&mut self, change: Change, cluster: &mut Cluster) {
        match change {
            Change::Pod(event) => {
                self.take(
                    Kind::Pod,
                    (event, cluster),
                    Cluster::apply_pod,
                    Cluster::remove_pod,
                );
            }
            Change::Namespace(event) => self.take(
                Kind::Namespace,
                (event, cluster),
                Cluster::apply_namespace,
                |cluster, _, name| cluster.remove_namespace(name),
            ),
            Change::NetworkPolicy(event) => self.take(
                Kind::NetworkPolicy,
                (event, cluster),
                Cluster::apply_network_policy,
                Cluster::remove_network_policy,
            ),
            Change::ServiceAccount(event) => self.take(
                Kind::ServiceAccount,
                (event, cluster),
                Cluster::apply_service_account,
                Cluster::remove_service_account,
            ),
            Change::EndpointSlice(event) => self.take(
                Kind::EndpointSlice,
                (event, cluster),
                Cluster::apply_endpoint_slice,
                Cluster::remove_endpoint_slice,
            ),
            other => self.handle_own(other, cluster),
        }
    }

    /// The kinds that Kubernetes itself does not have.
    fn handle_own(&mut self, change: Change, cluster: &mut Cluster) {
        match change {
            Change::OwnNetworkPolicy(event) => self.take(
                Kind::OwnNetworkPolicy,
                (event, cluster),
                Cluster::apply_own_policy,
                Cluster::remove_own_policy,
            ),
            Change::GlobalNetworkPolicy(event) => self.take(
                Kind::GlobalNetworkPolicy,
                (event, cluster),
                Cluster::apply_global_policy,
                |cluster, _, name| cluster.remove_global_policy(name),
            ),
            Change::ClusterNetworkPolicy(event) => self.take(
                Kind::ClusterNetworkPolicy,
                (event, cluster),
                Cluster::apply_cluster_policy,
                |cluster, _, name| cluster.remove_cluster_policy(name),
            ),
            Change::Tier(event) => {
                let remove = |cluster: &mut Cluster, _: &str, name: &str| cluster.remove_tier(name);
                self.take(Kind::Tier, (event, cluster), Cluster::apply_tier, remove);
            }
            Change::NetworkSet(event) => self.take(
                Kind::NetworkSet,
                (event, cluster),
                Cluster::apply_network_set,
                Cluster::remove_network_set,
            ),
            Change::GlobalNetworkSet(event) => self.take(
                Kind::GlobalNetworkSet,
                (event, cluster),
                Cluster::apply_global_network_set,
                Cluster::remove_network_set,
            ),
            Change::HostEndpoint(event) => self.take(
                Kind::HostEndpoint,
                (event, cluster),
                Cluster::apply_host_endpoint,
                |cluster, _, name| cluster.remove_host_endpoint(name),
            ),
            _ => {}
        }
        let wanted = cluster.names_services();
        self.endpoints_wanted.send_if_modified(|known| {
            let news = wanted && !*known;
            *known |= wanted;
            news
        });
    }

    fn take<K: ResourceExt>(
        &mut self,
        kind: Kind,
        (event, cluster): (Event<K>, &mut Cluster),
        apply: fn(&mut Cluster, &K) -> Vec<Problem>,
        remove: fn(&mut Cluster, &str, &str),
    ) {
        let changes = self.rosters.entry(kind).or_default().handle(event);
        for change in changes {
            match change {
                RosterChange::Present(key, object) => {
                    let found = apply(cluster, &object);
                    self.note(kind, key, found);
                }
                RosterChange::Gone(key) => {
                    let (namespace, name) = split(&key);
                    remove(cluster, namespace, name);
                    self.note(kind, key, Vec::new());
                }
            }
        }
    }

    /// The first list that has not arrived.
    pub(super) fn missing(&self, cluster: &Cluster) -> Option<Kind> {
        let endpoints = cluster.names_services().then_some(Kind::EndpointSlice);
        let mut needed = NEEDED.into_iter().chain(endpoints);
        needed.find(|kind| !self.rosters.get(kind).is_some_and(Roster::is_synced))
    }

    /// What is wrong with the objects there are.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    /// Remembers what is wrong with an object, and says it when it is news.
    fn note(&mut self, kind: Kind, key: String, found: Vec<Problem>) {
        let at = (kind, key);
        let known = self.problems.get(&at);
        if known.map_or(&[][..], Vec::as_slice) != found {
            for problem in &found {
                tracing::error!("{problem}");
            }
        }
        if found.is_empty() {
            self.problems.remove(&at);
        } else {
            self.problems.insert(at, found);
        }
    }
}

/// The namespace and the name of a key.
fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

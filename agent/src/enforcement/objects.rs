//! The cluster's objects as policy sees them, and what is wrong with them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use margay_policy::{Cluster, Problem};

use crate::datastore::{Change, Kind, Roster, RosterChange};

/// Pods, namespaces and policies, kept current by their watches.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) cluster: Cluster,
    pods: Roster,
    namespaces: Roster,
    policies: Roster,
    /// What is wrong with an object, by kind and key.
    problems: BTreeMap<(Kind, String), Vec<Problem>>,
}

impl Objects {
    /// Takes in a change; other kinds change nothing.
    pub(super) fn handle(&mut self, change: Change) {
        match change {
            Change::Pod(event) => {
                for change in self.pods.handle(event) {
                    self.pod(change);
                }
            }
            Change::Namespace(event) => {
                for change in self.namespaces.handle(event) {
                    self.namespace(change);
                }
            }
            Change::NetworkPolicy(event) => {
                for change in self.policies.handle(event) {
                    self.policy(change);
                }
            }
            _ => {}
        }
    }

    /// The first list that has not arrived.
    pub(super) fn missing(&self) -> Option<Kind> {
        let lists = [
            (Kind::Namespace, &self.namespaces),
            (Kind::Pod, &self.pods),
            (Kind::NetworkPolicy, &self.policies),
        ];
        let missing = lists.iter().find(|(_, roster)| !roster.is_synced());
        missing.map(|(kind, _)| *kind)
    }

    /// What is wrong with the objects there are.
    pub(super) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten()
    }

    fn pod(&mut self, change: RosterChange<Pod>) {
        match change {
            RosterChange::Present(key, pod) => {
                let found = self.cluster.apply_pod(&pod);
                self.note(Kind::Pod, key, found);
            }
            RosterChange::Gone(key) => {
                let (namespace, name) = split(&key);
                self.cluster.remove_pod(namespace, name);
                self.note(Kind::Pod, key, Vec::new());
            }
        }
    }

    fn namespace(&mut self, change: RosterChange<Namespace>) {
        match change {
            RosterChange::Present(key, namespace) => {
                let found = self.cluster.apply_namespace(&namespace);
                self.note(Kind::Namespace, key, found);
            }
            RosterChange::Gone(key) => {
                self.cluster.remove_namespace(&key);
                self.note(Kind::Namespace, key, Vec::new());
            }
        }
    }

    fn policy(&mut self, change: RosterChange<NetworkPolicy>) {
        match change {
            RosterChange::Present(key, policy) => {
                let found = self.cluster.apply_network_policy(&policy);
                self.note(Kind::NetworkPolicy, key, found);
            }
            RosterChange::Gone(key) => {
                let (namespace, name) = split(&key);
                self.cluster.remove_network_policy(namespace, name);
                self.note(Kind::NetworkPolicy, key, Vec::new());
            }
        }
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

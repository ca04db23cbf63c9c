//! The cluster as policy sees it: namespaces, pods, nodes and policies, without anything else their objects carry.
//!
//! Objects come in through `apply_*` (from a watch or from a file) and leave through `remove_*`. What is wrong with one is
//! returned as [`Problem`]s; the wrong part is lost in the closed direction and the rest is taken.
//! Nothing here decides whether a connection is allowed.

mod changes;
mod cluster_policy;
mod host;
mod network_policy;
mod own;
mod pod;
mod tier;
mod workload;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};
use margay_crds as crds;

pub(crate) use changes::Changes;
pub use cluster_policy::{ClusterPeer, ClusterPods, ClusterPolicy, ClusterRule};
pub use host::HostEndpoint;
pub use own::{OwnPolicy, Scope};
pub use tier::{Order, PolicyKind, PolicyRef, Tier};
pub(crate) use workload::{
    NAMESPACE_PREFIX, ORCHESTRATOR_KEY, SERVICE_ACCOUNT_KEY, SERVICE_ACCOUNT_PREFIX,
};
pub use workload::{NetworkSet, ServiceEndpoint};

use crate::{
    port::{PortRange, Protocol},
    problem::{Problem, Problems},
    selector::{Labels, Selector},
};

/// The label that every namespace carries with its own name as the value.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace and a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The namespace.
    pub namespace: String,
    /// The name inside it.
    pub name: String,
}

impl ObjectKey {
    /// The key `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port a container declares under a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    /// The name rules refer to.
    pub name: String,
    /// The protocol; a rule's must be the same.
    pub protocol: Protocol,
    /// The number it stands for in this pod.
    pub number: u16,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The uid, where known: it tells a pod from its predecessor of the same name.
    pub uid: Option<String>,
    /// The labels.
    pub labels: Labels,
    /// The name of its service account.
    pub service_account: String,
    /// Every address of every family; empty before the pod has a network.
    pub addresses: Vec<IpAddr>,
    /// The node it is bound to.
    pub node: Option<String>,
    /// Whether it shares its node's network: then it is neither subject nor selectable peer.
    pub host_network: bool,
    /// Whether it has ended (Succeeded or Failed). Its addresses may still be in its status and belong to another pod
    /// by now, so it is neither subject nor peer.
    pub finished: bool,
    /// The named ports of its containers.
    pub ports: Vec<NamedPort>,
}

impl Pod {
    /// The pod's key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }

    /// Whether policies can select it, as subject or as peer.
    pub fn is_selectable(&self) -> bool {
        !self.host_network && !self.finished
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The name.
    pub name: String,
    /// Its addresses (InternalIP and ExternalIP).
    pub addresses: Vec<IpAddr>,
}

/// Traffic into a pod, or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Into the pod.
    Ingress,
    /// Out of the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `ingress` or `egress`, as policies write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// A `networking.k8s.io/v1` NetworkPolicy, defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The namespace: it bounds the subjects.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Which pods of the namespace it applies to.
    pub subject: Selector,
    /// Whether it isolates its subjects for traffic into them; without this `ingress` is inert.
    pub isolates_ingress: bool,
    /// Whether it isolates its subjects for traffic out of them; without this `egress` is inert.
    pub isolates_egress: bool,
    /// What may come in.
    pub ingress: Vec<Rule>,
    /// What may go out.
    pub egress: Vec<Rule>,
}

impl Policy {
    /// The policy's key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }

    /// Whether it isolates its subjects in this direction.
    pub fn isolates(&self, direction: Direction) -> bool {
        match direction {
            Direction::Ingress => self.isolates_ingress,
            Direction::Egress => self.isolates_egress,
        }
    }

    /// The rules of this direction, inert or not.
    pub fn rules(&self, direction: Direction) -> &[Rule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// One rule: a peer that matches, on a port that matches, is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// The rule's place in the object, so that reports name it even when an earlier one was lost.
    pub index: usize,
    /// The peers; `None` is every peer, an empty list none (its items could not be read).
    pub peers: Option<Vec<Peer>>,
    /// The ports; `None` is every port of every protocol, an empty list none.
    pub ports: Option<Vec<PortMatch>>,
}

/// One item of a rule's `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Pods, by their namespace and their labels: both must match.
    Pods {
        /// Which namespaces.
        namespaces: Namespaces,
        /// Which pods inside them.
        pods: Selector,
    },
    /// Addresses.
    Block(IpBlock),
}

/// The namespaces of a peer item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// The policy's own: there was no `namespaceSelector`.
    Own,
    /// Those whose labels match.
    Matching(Selector),
}

/// An address block without its exceptions. Both hold network addresses: host bits have been masked away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpBlock {
    /// The block.
    pub cidr: IpNetwork,
    /// Parts of it that are not meant.
    pub except: Vec<IpNetwork>,
}

impl IpBlock {
    /// Whether the address is in the block and in no exception.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|except| except.contains(address))
    }
}

/// One item of a rule's `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// Ports by number.
    Numbers(Protocol, PortRange),
    /// A port by its name in the destination pod.
    Named(Protocol, String),
    /// A port by its name in the destination pod, whatever its protocol.
    AnyNamed(String),
}

/// Everything policy needs to know about the cluster. Ordered maps, so that all that is derived from it is deterministic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    namespaces: BTreeMap<String, Labels>,
    pods: BTreeMap<ObjectKey, Box<Pod>>,
    nodes: BTreeMap<String, Node>,
    policies: BTreeMap<ObjectKey, Box<Policy>>,
    cluster_policies: BTreeMap<String, ClusterPolicy>,
    own_policies: BTreeMap<PolicyRef, OwnPolicy>,
    /// Policies of ours that say nothing about pods.
    host_policies: BTreeMap<PolicyRef, OwnPolicy>,
    host_endpoints: BTreeMap<String, HostEndpoint>,
    tiers: BTreeMap<String, Tier>,
    network_sets: BTreeMap<ObjectKey, NetworkSet>,
    service_accounts: BTreeMap<ObjectKey, Labels>,
    /// The endpoints of each Service, by slice.
    services: BTreeMap<ObjectKey, BTreeMap<String, Vec<ServiceEndpoint>>>,
    /// The policies of ours that name a Service.
    service_users: BTreeSet<PolicyRef>,
    journal: changes::Journal,
    pool: changes::Pool,
}

impl Cluster {
    /// A cluster with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a Namespace object, new or changed.
    pub fn apply_namespace(&mut self, namespace: &core::Namespace) -> Vec<Problem> {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        if name.is_empty() {
            return nameless("Namespace", "");
        }
        let labels = namespace.metadata.labels.as_ref().into();
        self.insert_namespace(name, labels);
        Vec::new()
    }

    /// Takes a namespace by name and labels. The label with its own name is always there, whatever `labels` say.
    pub fn insert_namespace(&mut self, name: impl Into<String>, mut labels: Labels) {
        let name = name.into();
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), name.clone());
        if self.namespaces.get(&name) != Some(&labels) {
            self.journal.note(|changes| {
                changes.namespaces.insert(name.clone());
            });
            self.namespaces.insert(name, labels);
        }
    }

    /// Forgets a namespace. Its pods and policies leave by their own deletions.
    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.journal.note(|changes| {
                changes.namespaces.insert(name.to_owned());
            });
        }
    }

    /// Takes a Pod object, new or changed.
    pub fn apply_pod(&mut self, pod: &core::Pod) -> Vec<Problem> {
        let (pod, problems) = pod::read(pod);
        if pod.name.is_empty() {
            return nameless("Pod", &pod.namespace);
        }
        self.insert_pod(pod);
        problems
    }

    /// Takes a pod.
    pub fn insert_pod(&mut self, mut pod: Pod) {
        pod.labels = self.pool.labels(pod.labels);
        match self.pods.entry(pod.key()) {
            Entry::Vacant(place) => {
                self.journal.pod(place.key(), None);
                place.insert(Box::new(pod));
            }
            Entry::Occupied(place) if **place.get() == pod => {}
            Entry::Occupied(mut place) => {
                let before = place.insert(Box::new(pod));
                self.journal.pod(place.key(), Some(before));
            }
        }
    }

    /// Forgets a pod.
    pub fn remove_pod(&mut self, namespace: &str, name: &str) {
        let key = ObjectKey::new(namespace, name);
        if let Some(pod) = self.pods.remove(&key) {
            self.journal.pod(&key, Some(pod));
        }
    }

    /// Takes a Node object, new or changed.
    pub fn apply_node(&mut self, node: &core::Node) -> Vec<Problem> {
        let (node, problems) = pod::read_node(node);
        if node.name.is_empty() {
            return nameless("Node", "");
        }
        self.insert_node(node);
        problems
    }

    /// Takes a node.
    pub fn insert_node(&mut self, node: Node) {
        self.nodes.insert(node.name.clone(), node);
    }

    /// Forgets a node.
    pub fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Takes a NetworkPolicy object, new or changed. Rules, peers and ports that cannot be read are lost and reported; a
    /// policy whose subject cannot be read isolates its whole namespace and allows nothing.
    pub fn apply_network_policy(&mut self, policy: &networking::NetworkPolicy) -> Vec<Problem> {
        let (policy, problems) = network_policy::read(policy);
        if policy.name.is_empty() {
            return nameless("NetworkPolicy", &policy.namespace);
        }
        self.insert_policy(policy);
        problems
    }

    /// Takes a policy.
    pub fn insert_policy(&mut self, mut policy: Policy) {
        self.pool.policy(&mut policy);
        let reference = PolicyRef::new(PolicyKind::NetworkPolicy, &policy.namespace, &policy.name);
        match self.policies.entry(policy.key()) {
            Entry::Vacant(place) => {
                place.insert(Box::new(policy));
            }
            Entry::Occupied(place) if **place.get() == policy => return,
            Entry::Occupied(mut place) => **place.get_mut() = policy,
        }
        self.journal.note(|changes| {
            changes.policies.insert(reference);
        });
    }

    fn touched(&mut self, kind: PolicyKind, namespace: &str, name: &str) {
        self.journal.note(|changes| {
            changes
                .policies
                .insert(PolicyRef::new(kind, namespace, name));
        });
    }

    /// What has changed since this was last called; `None` the first time, when it is everything.
    pub(crate) fn take_changes(&mut self) -> Option<Changes> {
        self.journal.take()
    }

    /// Forgets a NetworkPolicy.
    pub fn remove_network_policy(&mut self, namespace: &str, name: &str) {
        self.policies.remove(&ObjectKey::new(namespace, name));
        self.touched(PolicyKind::NetworkPolicy, namespace, name);
    }

    /// Takes a ClusterNetworkPolicy, new or changed. What cannot be read fails closed and is reported.
    pub fn apply_cluster_policy(&mut self, policy: &crds::ClusterNetworkPolicy) -> Vec<Problem> {
        let (policy, problems) = cluster_policy::read(policy);
        if policy.name.is_empty() {
            return nameless("ClusterNetworkPolicy", "");
        }
        self.insert_cluster_policy(policy);
        problems
    }

    /// Takes a ClusterNetworkPolicy.
    pub fn insert_cluster_policy(&mut self, policy: ClusterPolicy) {
        if self.cluster_policies.get(&policy.name) == Some(&policy) {
            return;
        }
        self.touched(PolicyKind::ClusterNetworkPolicy, "", &policy.name);
        self.cluster_policies.insert(policy.name.clone(), policy);
    }

    /// Forgets a ClusterNetworkPolicy.
    pub fn remove_cluster_policy(&mut self, name: &str) {
        self.cluster_policies.remove(name);
        self.touched(PolicyKind::ClusterNetworkPolicy, "", name);
    }

    /// Takes a NetworkPolicy of ours, new or changed. What cannot be read fails closed and is reported.
    pub fn apply_own_policy(&mut self, policy: &crds::NetworkPolicy) -> Vec<Problem> {
        let (policy, problems) = own::read(policy);
        self.take_own(policy, problems)
    }

    /// Takes a GlobalNetworkPolicy, new or changed. What cannot be read fails closed and is reported.
    pub fn apply_global_policy(&mut self, policy: &crds::GlobalNetworkPolicy) -> Vec<Problem> {
        let (policy, problems) = own::read_global(policy);
        self.take_own(policy, problems)
    }

    fn take_own(&mut self, policy: OwnPolicy, problems: Vec<Problem>) -> Vec<Problem> {
        if policy.reference.name.is_empty() {
            return nameless("NetworkPolicy", &policy.reference.namespace);
        }
        self.insert_own_policy(policy);
        problems
    }

    /// Takes a policy of ours.
    pub fn insert_own_policy(&mut self, policy: OwnPolicy) {
        let PolicyRef {
            kind,
            namespace,
            name,
        } = &policy.reference;
        if self.own_policy(&policy.reference) == Some(&policy) {
            return;
        }
        self.touched(*kind, namespace, name);
        self.sort_own(policy);
    }

    /// Forgets a NetworkPolicy of ours.
    pub fn remove_own_policy(&mut self, namespace: &str, name: &str) {
        let reference = PolicyRef::new(PolicyKind::OwnNetworkPolicy, namespace, name);
        self.forget_own(&reference);
        self.touched(PolicyKind::OwnNetworkPolicy, namespace, name);
    }

    /// Forgets a GlobalNetworkPolicy.
    pub fn remove_global_policy(&mut self, name: &str) {
        let reference = PolicyRef::new(PolicyKind::GlobalNetworkPolicy, "", name);
        self.forget_own(&reference);
        self.touched(PolicyKind::GlobalNetworkPolicy, "", name);
    }

    /// Takes a Tier, new or changed.
    pub fn apply_tier(&mut self, object: &crds::Tier) -> Vec<Problem> {
        let (tier, problems) = tier::read(object);
        if let Some(tier) = tier {
            self.insert_tier(tier);
        }
        problems
    }

    /// Takes a tier.
    pub fn insert_tier(&mut self, tier: Tier) {
        self.journal.note(|changes| changes.tiers = true);
        self.tiers.insert(tier.name.clone(), tier);
    }

    /// Forgets a Tier.
    pub fn remove_tier(&mut self, name: &str) {
        self.journal.note(|changes| changes.tiers = true);
        self.tiers.remove(name);
    }

    /// Takes a NetworkSet, new or changed. Networks that cannot be read are lost and reported.
    pub fn apply_network_set(&mut self, set: &crds::NetworkSet) -> Vec<Problem> {
        let (key, set, problems) = workload::read_set(set);
        self.insert_network_set(key, set);
        problems
    }

    /// Takes a GlobalNetworkSet, new or changed. Networks that cannot be read are lost and reported.
    pub fn apply_global_network_set(&mut self, set: &crds::GlobalNetworkSet) -> Vec<Problem> {
        let (key, set, problems) = workload::read_global_set(set);
        self.insert_network_set(key, set);
        problems
    }

    /// Takes a network set; a key without a namespace is a global one's.
    pub fn insert_network_set(&mut self, key: ObjectKey, set: NetworkSet) {
        self.journal.note(|changes| changes.network_sets = true);
        self.network_sets.insert(key, set);
    }

    /// Forgets a NetworkSet, or without a namespace a GlobalNetworkSet.
    pub fn remove_network_set(&mut self, namespace: &str, name: &str) {
        self.journal.note(|changes| changes.network_sets = true);
        self.network_sets.remove(&ObjectKey::new(namespace, name));
    }

    /// Takes a ServiceAccount, new or changed.
    pub fn apply_service_account(&mut self, account: &core::ServiceAccount) -> Vec<Problem> {
        let metadata = &account.metadata;
        let namespace = metadata
            .namespace
            .as_deref()
            .unwrap_or(pod::DEFAULT_NAMESPACE);
        let key = ObjectKey::new(namespace, metadata.name.clone().unwrap_or_default());
        self.insert_service_account(key, metadata.labels.as_ref().into());
        Vec::new()
    }

    /// Takes a service account by its labels.
    pub fn insert_service_account(&mut self, key: ObjectKey, labels: Labels) {
        if self.service_accounts.get(&key) != Some(&labels) {
            self.journal.note(|changes| {
                changes.service_accounts.insert(key.clone());
            });
            self.service_accounts.insert(key, labels);
        }
    }

    /// Forgets a ServiceAccount.
    pub fn remove_service_account(&mut self, namespace: &str, name: &str) {
        let key = ObjectKey::new(namespace, name);
        if self.service_accounts.remove(&key).is_some() {
            self.journal.note(|changes| {
                changes.service_accounts.insert(key);
            });
        }
    }

    /// Takes an EndpointSlice, new or changed; one that belongs to no Service is passed over.
    pub fn apply_endpoint_slice(&mut self, slice: &discovery::EndpointSlice) -> Vec<Problem> {
        let (namespace, name) = (
            slice
                .metadata
                .namespace
                .as_deref()
                .unwrap_or(pod::DEFAULT_NAMESPACE),
            slice.metadata.name.clone().unwrap_or_default(),
        );
        self.remove_endpoint_slice(namespace, &name);
        if let Some((service, endpoints)) = workload::read_slice(slice) {
            self.insert_endpoints(service, name, endpoints);
        }
        Vec::new()
    }

    /// Takes the endpoints of a Service that one slice lists.
    pub fn insert_endpoints(
        &mut self,
        service: ObjectKey,
        slice: String,
        endpoints: Vec<ServiceEndpoint>,
    ) {
        self.journal.note(|changes| {
            changes.services.insert(service.clone());
        });
        let slices = self.services.entry(service).or_default();
        slices.insert(slice, endpoints);
    }

    /// Forgets an EndpointSlice.
    pub fn remove_endpoint_slice(&mut self, namespace: &str, name: &str) {
        let of_namespace = |key: &ObjectKey| key.namespace == namespace;
        for (service, slices) in self
            .services
            .iter_mut()
            .filter(|(key, _)| of_namespace(key))
        {
            if slices.remove(name).is_some() {
                self.journal.note(|changes| {
                    changes.services.insert(service.clone());
                });
            }
        }
        self.services.retain(|_, slices| !slices.is_empty());
    }

    /// Every ClusterNetworkPolicy, in the order of their names.
    pub fn cluster_policies(&self) -> impl Iterator<Item = &ClusterPolicy> {
        self.cluster_policies.values()
    }

    /// One ClusterNetworkPolicy.
    pub fn cluster_policy(&self, name: &str) -> Option<&ClusterPolicy> {
        self.cluster_policies.get(name)
    }

    /// Every policy of ours that has a say about pods, in the order of their references.
    pub fn own_policies(&self) -> impl Iterator<Item = &OwnPolicy> {
        self.own_policies.values()
    }

    /// One policy of ours.
    pub fn own_policy(&self, reference: &PolicyRef) -> Option<&OwnPolicy> {
        let of_pods = self.own_policies.get(reference);
        of_pods.or_else(|| self.host_policies.get(reference))
    }

    /// Every NetworkPolicy of one namespace.
    pub fn policies_in(&self, namespace: &str) -> impl Iterator<Item = &Policy> {
        let start = ObjectKey::new(namespace, "");
        let from = start.namespace.clone();
        self.policies
            .range(start..)
            .take_while(move |(key, _)| key.namespace == from)
            .map(|(_, policy)| &**policy)
    }

    /// A tier by its name. One that no object describes comes last and ends in Deny.
    pub fn tier(&self, name: &str) -> Tier {
        let built_in = Tier::built_in(name);
        let known = built_in.or_else(|| self.tiers.get(name).cloned());
        known.unwrap_or_else(|| Tier::unknown(name))
    }

    /// Whether a tier is described by an object or always there.
    pub fn has_tier(&self, name: &str) -> bool {
        Tier::built_in(name).is_some() || self.tiers.contains_key(name)
    }

    /// The tiers that objects describe, in the order of their names.
    pub fn tiers(&self) -> impl Iterator<Item = &Tier> {
        self.tiers.values()
    }

    /// Every network set, global ones first.
    pub fn network_sets(&self) -> impl Iterator<Item = (&ObjectKey, &NetworkSet)> {
        self.network_sets.iter()
    }

    /// The labels of a service account; none when it is not known.
    pub fn service_account_labels(&self, namespace: &str, name: &str) -> Option<&Labels> {
        self.service_accounts.get(&ObjectKey::new(namespace, name))
    }

    /// Whether a policy of ours names a Service: then EndpointSlices are needed.
    pub fn names_services(&self) -> bool {
        !self.service_users.is_empty()
    }

    /// The endpoints of a Service.
    pub fn endpoints(&self, service: &ObjectKey) -> impl Iterator<Item = &ServiceEndpoint> {
        self.services
            .get(service)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
    }

    /// The labels of a namespace. One that is not known (a file without it, a watch that is behind) has only the label
    /// that every namespace has.
    pub fn namespace_labels(&self, name: &str) -> Labels {
        self.namespaces
            .get(name)
            .cloned()
            .unwrap_or_else(|| Labels::from([(NAMESPACE_NAME_LABEL.to_owned(), name.to_owned())]))
    }

    /// One pod.
    pub fn pod(&self, key: &ObjectKey) -> Option<&Pod> {
        self.pods.get(key).map(|pod| &**pod)
    }

    /// Every pod, in the order of their keys.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values().map(|pod| &**pod)
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Every node, in the order of their names.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// One policy.
    pub fn policy(&self, key: &ObjectKey) -> Option<&Policy> {
        self.policies.get(key).map(|policy| &**policy)
    }

    /// Every policy, in the order of their keys.
    pub fn policies(&self) -> impl Iterator<Item = &Policy> {
        self.policies.values().map(|policy| &**policy)
    }
}

fn nameless(kind: &'static str, namespace: &str) -> Vec<Problem> {
    let mut problems = Problems::of(kind, namespace, "");
    problems.report("metadata.name", "an object without a name is left out");
    problems.into_found()
}

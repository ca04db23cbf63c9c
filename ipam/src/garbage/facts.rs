//! What is known of the world, and whether an owner still is part of it.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use margay_crds::{Allocation, IPAMBlock, LOAD_BALANCER_NODE, Owner, OwnerKind};

use crate::Family;

/// The class of a Service whose addresses Margay gives: `spec.loadBalancerClass`, or the
/// annotation [`CLASS_ANNOTATION`] where the API server does not have that field (before 1.24).
pub const LOAD_BALANCER_CLASS: &str = "margay.dev/loadbalancer";
/// The annotation that names the class on servers that drop `spec.loadBalancerClass`.
pub const CLASS_ANNOTATION: &str = "margay.dev/load-balancer-class";
/// What the kubelet writes on the API's copy of a static pod: the uid by which the runtime and
/// CNI know the pod, which is not the copy's own.
const STATIC_POD_UIDS: [&str; 2] = ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"];

/// A Node, as far as it counts: that it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// The Node's name.
    pub name: String,
}

impl NodeFacts {
    /// Reads a Node.
    pub fn of(node: &Node) -> Self {
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// What counts of a Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// The uids it goes by: its own, and a static pod's.
    pub uids: Vec<String>,
    /// The node it is bound to; empty if none yet.
    pub node: String,
    /// Whether all its containers have ended for good.
    pub finished: bool,
    /// Whether it uses the node's network: then it holds no address.
    pub host_network: bool,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
}

impl PodFacts {
    /// Reads a Pod.
    pub fn of(pod: &Pod) -> Self {
        let annotations = pod.metadata.annotations.as_ref();
        let of_static = STATIC_POD_UIDS
            .iter()
            .filter_map(|key| annotations?.get(*key).cloned());
        let uids = pod.metadata.uid.iter().cloned().chain(of_static).collect();
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let several = status.and_then(|status| status.pod_ips.as_deref());
        let several = several
            .unwrap_or_default()
            .iter()
            .map(|one| one.ip.as_str());
        let only = status.and_then(|status| status.pod_ip.as_deref());
        let mut addresses: Vec<IpAddr> = several
            .chain(only)
            .filter_map(|text| text.parse().ok())
            .collect();
        addresses.dedup();
        Self {
            uids,
            node: spec
                .and_then(|spec| spec.node_name.clone())
                .unwrap_or_default(),
            finished: matches!(phase, Some("Succeeded" | "Failed")),
            host_network: spec.and_then(|spec| spec.host_network) == Some(true),
            addresses,
        }
    }
}

/// What counts of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// Its uid.
    pub uid: String,
    /// Whether Margay gives it addresses: type LoadBalancer, our class, and not being deleted.
    pub is_ours: bool,
}

impl ServiceFacts {
    /// Reads a Service; `unclassed` says whether those that name no class are ours too.
    pub fn of(service: &Service, unclassed: bool) -> Self {
        let spec = service.spec.as_ref();
        let is_balanced = spec.and_then(|spec| spec.type_.as_deref()) == Some("LoadBalancer");
        let annotations = service.metadata.annotations.as_ref();
        let class = spec
            .and_then(|spec| spec.load_balancer_class.as_deref())
            .or_else(|| annotations?.get(CLASS_ANNOTATION).map(String::as_str));
        let is_ours_by_class = class.map_or(unclassed, |class| class == LOAD_BALANCER_CLASS);
        let stays = service.metadata.deletion_timestamp.is_none();
        Self {
            uid: service.metadata.uid.clone().unwrap_or_default(),
            is_ours: is_balanced && is_ours_by_class && stays,
        }
    }
}

/// What is there: of everything, from watches whose first list is in; or of what one case is
/// about, just read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Nodes by name.
    pub nodes: HashMap<String, NodeFacts>,
    /// Pods by `namespace/name`.
    pub pods: HashMap<String, PodFacts>,
    /// Services by `namespace/name`.
    pub services: HashMap<String, ServiceFacts>,
}

/// Who holds an address, in one word with what must be looked at to know whether he still does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// The pod `namespace/name`.
    Pod(String),
    /// The tunnel device of a node.
    Tunnel(String),
    /// The Service `namespace/name`.
    Service(String),
}

impl Holder {
    /// Who an owner in a block of `node` is.
    pub fn of(owner: &Owner, node: &str) -> Self {
        match owner.kind {
            OwnerKind::Pod => Self::Pod(format!("{}/{}", owner.namespace, owner.pod)),
            OwnerKind::Tunnel => {
                let named = !owner.node.is_empty();
                Self::Tunnel(if named { &owner.node } else { node }.to_owned())
            }
            OwnerKind::LoadBalancer => {
                Self::Service(format!("{}/{}", owner.namespace, owner.service))
            }
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "Pod {key}"),
            Self::Tunnel(node) => write!(f, "tunnel of Node {node}"),
            Self::Service(key) => write!(f, "Service {key}"),
        }
    }
}

/// Why an address seems to be held by nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// There is no such Pod.
    PodGone,
    /// The Pod of this name is another one.
    PodReplaced,
    /// The Pod has ended.
    PodFinished,
    /// The Pod uses the node's network.
    PodOnHostNetwork,
    /// The Pod has another address on the same interface, from a later sandbox.
    SandboxReplaced {
        /// The address it has now.
        by: IpAddr,
    },
    /// The Node is gone.
    NodeGone {
        /// Its name.
        node: String,
    },
    /// There is no such Service.
    ServiceGone,
    /// The Service of this name is another one.
    ServiceReplaced,
    /// The Service does not ask for one of our addresses any more.
    ServiceNotOurs,
}

impl Reason {
    /// One word for scripts.
    pub fn word(&self) -> &'static str {
        match self {
            Self::PodGone => "PodGone",
            Self::PodReplaced => "PodReplaced",
            Self::PodFinished => "PodFinished",
            Self::PodOnHostNetwork => "PodOnHostNetwork",
            Self::SandboxReplaced { .. } => "SandboxReplaced",
            Self::NodeGone { .. } => "NodeGone",
            Self::ServiceGone => "ServiceGone",
            Self::ServiceReplaced => "ServiceReplaced",
            Self::ServiceNotOurs => "ServiceNotOurs",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodGone => f.write_str("the Pod is gone"),
            Self::PodReplaced => f.write_str("the Pod of this name is another one (uid)"),
            Self::PodFinished => f.write_str("the Pod has ended"),
            Self::PodOnHostNetwork => f.write_str("the Pod uses the node's network"),
            Self::SandboxReplaced { by } => {
                write!(f, "a later sandbox of the Pod has {by} on this interface")
            }
            Self::NodeGone { node } => write!(f, "Node {node} is gone"),
            Self::ServiceGone => f.write_str("the Service is gone"),
            Self::ServiceReplaced => f.write_str("the Service of this name is another one (uid)"),
            Self::ServiceNotOurs => {
                f.write_str("the Service is not of type LoadBalancer and our class any more")
            }
        }
    }
}

/// Which addresses a pod holds on each interface, over all blocks: what is needed to tell the
/// address of a sandbox that is gone from that of the sandbox that runs.
#[derive(Debug, Default)]
pub struct Replacements {
    /// By pod, interface and family: sandbox and address.
    held: HashMap<(String, String, Family), Vec<(String, IpAddr)>>,
}

impl Replacements {
    /// Looks through all blocks. Only pods with an address that they do not say they have are
    /// kept: few, if any.
    pub fn among<'a>(blocks: impl Iterator<Item = &'a IPAMBlock> + Clone, facts: &Facts) -> Self {
        let of_pods = || {
            let all = blocks.clone().flat_map(|block| &block.spec.allocations);
            let of_pods = all.filter(|one| one.owner.kind == OwnerKind::Pod);
            of_pods.filter_map(|one| Some((&one.owner, one.address.parse::<IpAddr>().ok()?)))
        };
        let mut held: HashMap<_, Vec<_>> = HashMap::new();
        for (owner, address) in of_pods() {
            let pod = facts
                .pods
                .get(&format!("{}/{}", owner.namespace, owner.pod));
            if pod.is_some_and(|pod| !pod.addresses.is_empty() && !pod.addresses.contains(&address))
            {
                held.entry(key(owner, Family::of(address))).or_default();
            }
        }
        if !held.is_empty() {
            for (owner, address) in of_pods() {
                if let Some(sandboxes) = held.get_mut(&key(owner, Family::of(address))) {
                    sandboxes.push((owner.container_id.clone(), address));
                }
            }
        }
        Self { held }
    }

    /// An address that the pod says it has, held by another sandbox on the same interface, if
    /// the pod does not say that it has this one.
    fn of(&self, allocation: &Allocation, pod: &PodFacts) -> Option<IpAddr> {
        let address: IpAddr = allocation.address.parse().ok()?;
        if pod.addresses.contains(&address) {
            return None;
        }
        let owner = &allocation.owner;
        let others = self.held.get(&key(owner, Family::of(address)))?;
        let mut others = others.iter();
        let found = others.find(|(container, other)| {
            *container != owner.container_id && pod.addresses.contains(other)
        });
        found.map(|(_, other)| *other)
    }
}

fn key(owner: &Owner, family: Family) -> (String, String, Family) {
    let pod = format!("{}/{}", owner.namespace, owner.pod);
    (pod, owner.interface.clone(), family)
}

impl Facts {
    /// Whether an allocation in a block of `node` seems to be held by nobody, and why.
    pub fn judge(
        &self,
        node: &str,
        allocation: &Allocation,
        replacements: &Replacements,
    ) -> Option<Reason> {
        let owner = &allocation.owner;
        match Holder::of(owner, node) {
            Holder::Tunnel(node) => self.judge_node(&node),
            Holder::Service(key) => self.judge_service(&key, owner),
            Holder::Pod(key) => {
                let Some(pod) = self.pods.get(&key) else {
                    // The node is the better explanation, if it is one.
                    let on = if owner.node.is_empty() {
                        node
                    } else {
                        &owner.node
                    };
                    return self.judge_node(on).or(Some(Reason::PodGone));
                };
                self.judge_pod(pod, node, allocation).or_else(|| {
                    let by = replacements.of(allocation, pod)?;
                    Some(Reason::SandboxReplaced { by })
                })
            }
        }
    }

    /// As [`Self::judge`], with facts just read, of a suspicion whose reason is known.
    pub(super) fn confirm(&self, node: &str, allocation: &Allocation, reason: &Reason) -> bool {
        let none = Replacements::default();
        if let Reason::SandboxReplaced { by } = reason
            && let Holder::Pod(key) = Holder::of(&allocation.owner, node)
            && let Some(pod) = self.pods.get(&key)
        {
            let address: Option<IpAddr> = allocation.address.parse().ok();
            let replaced = pod.addresses.contains(by)
                && address.is_none_or(|address| !pod.addresses.contains(&address));
            return replaced || self.judge_pod(pod, node, allocation).is_some();
        }
        self.judge(node, allocation, &none).is_some()
    }

    fn judge_pod(&self, pod: &PodFacts, node: &str, allocation: &Allocation) -> Option<Reason> {
        let uid = &allocation.owner.uid;
        if !uid.is_empty() && !pod.uids.contains(uid) {
            return Some(Reason::PodReplaced);
        }
        if pod.finished {
            return Some(Reason::PodFinished);
        }
        if pod.host_network {
            return Some(Reason::PodOnHostNetwork);
        }
        // A borrowed address lies in the block of another node than the pod's.
        let on = [&pod.node, &allocation.owner.node];
        let on = on.into_iter().find(|name| !name.is_empty());
        self.judge_node(on.map_or(node, String::as_str))
    }

    fn judge_service(&self, key: &str, owner: &Owner) -> Option<Reason> {
        let Some(service) = self.services.get(key) else {
            return Some(Reason::ServiceGone);
        };
        if !owner.uid.is_empty() && service.uid != owner.uid {
            return Some(Reason::ServiceReplaced);
        }
        (!service.is_ours).then_some(Reason::ServiceNotOurs)
    }

    /// Whether a node is gone.
    pub fn judge_node(&self, node: &str) -> Option<Reason> {
        let gone = node != LOAD_BALANCER_NODE && !self.nodes.contains_key(node);
        gone.then(|| Reason::NodeGone {
            node: node.to_owned(),
        })
    }
}

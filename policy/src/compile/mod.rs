//! From the cluster and one node's endpoints to the node's ruleset.
//!
//! The way: the policies that select an endpoint here put selectors in force (`identity`) → each address gets the identity
//! of the selectors it matches → endpoints that the same policies select form a *class* per direction (`class`), for which
//! the policies are flattened to `identity → decision` → the ruleset (`emit`, `nat`). Every step is a pure function of the
//! inputs, so a compile after any history equals a fresh one; `ruleset::diff` finds what to tell the kernel.
//!
//! Where the compiler knows less than it should it errs closed:
//! - An endpoint whose pod the API has not shown yet (the CNI can be ahead of the watch), or showed with another uid, is
//!   selected by the labels that came with the endpoint; without labels it is isolated: nothing comes in but from its own
//!   node, nothing goes out but to its own node.
//! - So is the endpoint of a pod that has ended.
//! - Packets of a pod interface that is no endpoint are dropped.

pub(crate) mod class;
pub(crate) mod emit;
mod failsafe;
pub(crate) mod flat;
pub(crate) mod host;
pub(crate) mod ipvs;
mod lower;
pub(crate) mod nat;
pub(crate) mod ports;
pub(crate) mod select;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use sha1::{Digest, Sha1};

use crate::{
    identity::{AddressBook, Claim, Claims},
    model::{Cluster, NamedPort, ObjectKey, Pod},
    problem::{Problem, Problems},
    ruleset::Ruleset,
    selector::Labels,
};
pub use failsafe::{FailsafeError, FailsafePort, Failsafes};
pub use ipvs::INTERFACE as IPVS_INTERFACE;

use class::{Class, ClassKey, InForce, Member};
use select::Selected;

/// What every pod's host interface is called at the beginning. Interfaces called otherwise are none of ours.
pub const INTERFACE_PREFIX: &str = "mgy";

/// The name of a pod's host interface: [`INTERFACE_PREFIX`] and the first 11 hexadecimal digits of
/// SHA-1("namespace.pod").
pub fn interface_name(namespace: &str, pod: &str) -> String {
    let hash = Sha1::digest(format!("{namespace}.{pod}"));
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{INTERFACE_PREFIX}{}", &hex[..11])
}

/// The number of an interface of which only the name is known, made of the name: for what is compiled from files, not
/// for a kernel.
pub fn stand_in(interface: &str) -> u32 {
    let digest = Sha1::digest(interface);
    let first = digest.iter().take(4);
    let number = first.fold(0, |all, byte| all << 8 | u32::from(*byte));
    // The kernel's are positive numbers of 32 bits with a sign.
    (number >> 1).max(1)
}

/// The longest interface name the kernel takes, in bytes.
const INTERFACE_NAME_LIMIT: usize = 15;

/// A pod's network on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalEndpoint {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid, where the runtime told it: a pod object with another uid is not this endpoint's.
    pub uid: Option<String>,
    /// The pod's labels, where they are known before the API shows the pod.
    pub labels: Option<Labels>,
    /// The host side of the veth; begins with [`INTERFACE_PREFIX`].
    pub interface: String,
    /// The number the kernel gave that interface; 0 where it is not known: nothing passes it then.
    pub device: u32,
    /// The addresses given to the pod: the only ones it may send from.
    pub addresses: Vec<IpAddr>,
}

/// An address pool, as far as NAT is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The pool's network.
    pub cidr: IpNetwork,
    /// Whether what its pods send out of all pools leaves with the node's address.
    pub nat_outgoing: bool,
}

/// What the compiler must know about the node beside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInput {
    /// The node's name.
    pub node: String,
    /// The pods that have a network here.
    pub endpoints: Vec<LocalEndpoint>,
    /// Every pool of the cluster.
    pub pools: Vec<Pool>,
    /// Node addresses that pods reach without NAT. List the nodes that have a route back to the pods outside any tunnel;
    /// towards a node that answers through a tunnel the packet must carry this node's address, or reverse path filters
    /// on either side drop it.
    pub node_addresses: BTreeSet<IpAddr>,
    /// The names of the tunnel devices: what leaves by them keeps the pod's address.
    pub tunnel_devices: BTreeSet<String>,
    /// The node's own interfaces and their addresses: host endpoints without an interface's name are found by them, and
    /// whether kube-proxy forwards by IPVS.
    pub interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
    /// The ports that no policy of a host endpoint closes.
    pub failsafes: Failsafes,
}

impl NodeInput {
    /// What the agent on this node would pass, as far as a cluster read from files tells: the running pods bound to the
    /// node that have addresses, with the interface that `interface` makes of namespace and name, numbered by [`stand_in`]. No
    /// pools, no tunnels.
    pub fn of_cluster(
        cluster: &Cluster,
        node: &str,
        interface: impl Fn(&str, &str) -> String,
    ) -> Self {
        let is_here = |pod: &&Pod| {
            pod.is_selectable() && !pod.addresses.is_empty() && pod.node.as_deref() == Some(node)
        };
        let endpoint = |pod: &Pod| {
            let interface = interface(&pod.namespace, &pod.name);
            LocalEndpoint {
                namespace: pod.namespace.clone(),
                pod: pod.name.clone(),
                uid: pod.uid.clone(),
                labels: None,
                device: stand_in(&interface),
                interface,
                addresses: pod.addresses.clone(),
            }
        };
        Self {
            node: node.to_owned(),
            endpoints: cluster.pods().filter(is_here).map(endpoint).collect(),
            ..Self::default()
        }
    }
}

/// Compiles. It keeps nothing between compiles today; taking `&mut self` leaves room for caches that do not change results.
#[derive(Debug, Default)]
pub struct Compiler {}

impl Compiler {
    /// A compiler.
    pub fn new() -> Self {
        Self::default()
    }

    /// The ruleset for this node, and what was wrong with its input. Problems of the cluster's objects have been returned
    /// by [`Cluster`] when it took them.
    pub fn compile(&mut self, cluster: &Cluster, node: &NodeInput) -> (Ruleset, Vec<Problem>) {
        let mut problems = Vec::new();
        let endpoints = endpoints(cluster, node, &mut problems);
        let claims = claims(cluster, &endpoints);
        let selected: Vec<Selected<'_>> = endpoints
            .into_iter()
            .map(|endpoint| Selected::new(cluster, endpoint))
            .collect();
        let in_force = InForce::new(cluster, &selected);
        let book = AddressBook::new(in_force.terms(), &claims, cluster);
        let members: Vec<Member<'_>> = selected
            .into_iter()
            .map(|endpoint| in_force.classify(endpoint, &book))
            .collect();
        let index = book.by_term();
        let classes: BTreeMap<ClassKey, Class> = class::classes(&members)
            .into_iter()
            .map(|key| {
                let class = in_force.flatten(&key, &book, &index);
                (key, class)
            })
            .collect();
        let mut ruleset = emit::emit(&members, &classes, &book);
        nat::emit(node, &mut ruleset);
        host::emit(cluster, node, &claims, &mut ruleset, &mut problems);
        ipvs::emit(node, &members, &mut ruleset);
        emit::emit_generation(&mut ruleset);
        (ruleset, problems)
    }
}

/// Whether a chain, set or map has no part in what connections are judged by.
pub(crate) fn is_apart(name: &str) -> bool {
    nat::is_nat(name)
}

/// What the node's host endpoints need, as a ruleset of its own. It is made anew each time: without host endpoints here it
/// costs nothing, with them a look at every pod.
pub(crate) fn host_part(cluster: &Cluster, node: &NodeInput) -> (Ruleset, Vec<Problem>) {
    let (mut ruleset, mut problems) = (Ruleset::new(), Vec::new());
    if cluster.host_endpoints_of(&node.node).next().is_some() {
        let claims = claims(cluster, &endpoints(cluster, node, &mut Vec::new()));
        host::emit(cluster, node, &claims, &mut ruleset, &mut problems);
    }
    (ruleset, problems)
}

/// A local endpoint together with what the API says about its pod.
#[derive(Debug)]
pub(crate) struct Endpoint<'a> {
    interface: &'a str,
    device: u32,
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) namespace: &'a str,
    pod: &'a str,
    pub(crate) labels: &'a Labels,
    pub(crate) service_account: &'a str,
    pub(crate) ports: &'a [NamedPort],
    /// Whether nothing is known that policies could select it by, or it has ended.
    pub(crate) closed: bool,
}

static NO_LABELS: Labels = Labels::new();

fn endpoints<'a>(
    cluster: &'a Cluster,
    node: &'a NodeInput,
    problems: &mut Vec<Problem>,
) -> Vec<Endpoint<'a>> {
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::new();
    for local in &node.endpoints {
        let mut found = Problems::of("Endpoint", &local.namespace, &local.pod);
        if let Err(reason) = check_interface(&local.interface) {
            found.report("interface", reason);
        } else if !seen.insert(local.interface.as_str()) {
            found.report(
                "interface",
                format!(
                    "{} belongs to another endpoint already; this one is left out",
                    local.interface
                ),
            );
        } else {
            endpoints.push(known(cluster, local));
        }
        problems.extend(found.into_found());
    }
    endpoints
}

/// Whether an interface can be a pod's; if not, why.
pub(crate) fn check_interface(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.starts_with(INTERFACE_PREFIX)
        && name.len() <= INTERFACE_NAME_LIMIT
        && name.chars().all(allowed)
    {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not the name of a pod interface ({INTERFACE_PREFIX}…, up to {INTERFACE_NAME_LIMIT} letters, \
         digits, '.', '_' and '-'); the endpoint is left out"
    ))
}

/// An endpoint with what the API says about its pod.
pub(crate) fn known<'a>(cluster: &'a Cluster, local: &'a LocalEndpoint) -> Endpoint<'a> {
    let same_uid = |pod: &&Pod| match (&pod.uid, &local.uid) {
        (Some(api), Some(runtime)) => api == runtime,
        _ => true,
    };
    let pod = cluster
        .pod(&ObjectKey::new(&local.namespace, &local.pod))
        .filter(same_uid);
    let labels = pod.map(|pod| &pod.labels).or(local.labels.as_ref());
    Endpoint {
        interface: &local.interface,
        device: local.device,
        addresses: &local.addresses,
        namespace: &local.namespace,
        pod: &local.pod,
        labels: labels.unwrap_or(&NO_LABELS),
        service_account: pod.map_or("default", |pod| &pod.service_account),
        ports: pod.map_or(&[], |pod| &pod.ports),
        closed: labels.is_none() || pod.is_some_and(|pod| !pod.is_selectable()),
    }
}

/// Who claims which address. What is local is certain, since the interface is known and nobody else can send from the
/// address here; beside that, the API may show several pods with one address for a while.
fn claims<'a>(cluster: &'a Cluster, endpoints: &[Endpoint<'a>]) -> Claims<'a> {
    let mut claims = Claims::new();
    let local: BTreeSet<(&str, &str)> = endpoints
        .iter()
        .map(|endpoint| (endpoint.namespace, endpoint.pod))
        .collect();
    let local_addresses: BTreeSet<IpAddr> = endpoints
        .iter()
        .flat_map(|endpoint| endpoint.addresses)
        .copied()
        .collect();
    for pod in cluster.pods().filter(|pod| pod.is_selectable()) {
        if local.contains(&(pod.namespace.as_str(), pod.name.as_str())) {
            continue;
        }
        for address in pod
            .addresses
            .iter()
            .filter(|address| !local_addresses.contains(*address))
        {
            claims.entry(*address).or_default().push(Claim {
                namespace: &pod.namespace,
                labels: &pod.labels,
                service_account: &pod.service_account,
                ports: &pod.ports,
            });
        }
    }
    for endpoint in endpoints.iter().filter(|endpoint| !endpoint.closed) {
        for address in endpoint.addresses {
            claims.entry(*address).or_default().push(Claim {
                namespace: endpoint.namespace,
                labels: endpoint.labels,
                service_account: endpoint.service_account,
                ports: endpoint.ports,
            });
        }
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::interface_name;

    #[test]
    fn host_interfaces_are_named_after_the_hash_of_namespace_and_pod() {
        // printf kube-system.coredns | sha1sum
        assert_eq!(interface_name("kube-system", "coredns"), "mgy96971f43451");
    }
}

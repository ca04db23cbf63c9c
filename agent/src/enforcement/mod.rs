//! The policy edge: keeps the table `inet margay` at what pods, namespaces, policies and the
//! pods wired here make of it.
//!
//! One task owns the picture and the table. It takes in whatever waits, compiles once, and
//! commits the difference in one transaction. Until every list has arrived it commits nothing: a
//! restarted agent leaves the table of the earlier one in force, and a new pod waits (fail
//! closed). What a policy means is the policy crate's.
//!
//! Nothing but the wiring of a pod waits for this edge: the agent's loop hands it values, the
//! watches have a channel of their own.

mod connections;
mod edge;
mod listen;
mod objects;
pub mod seen;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use margay_dataplane::{Kernel, KernelError, Link, TunnelMode};
use margay_policy::compile::INTERFACE_PREFIX;
use margay_policy::writer::{Netlink, Nft, Reports, Writer};
use margay_policy::{Failsafes, LocalEndpoint, Pool};
use tokio::sync::{mpsc, oneshot, watch};

use self::edge::{Edge, Inputs, Request, Settings};
use self::seen::{Answer, Count, Ring};
use crate::datastore::{Change, Kind};
use crate::endpoints::Endpoint;

/// How often the node's interfaces are looked at without a word that they have changed.
const INTERFACES: Duration = Duration::from_secs(30);
/// Pods that may wait; more make the CNI server wait.
const QUEUE: usize = 256;

/// The policy table as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyReport {
    /// The table has been written at least once.
    pub programmed: bool,
    /// The first of the lists that have not arrived, if one has not.
    pub waiting_for: Option<Kind>,
    /// Why the kernel's table is not as it should be, in words.
    pub problem: Option<String>,
    /// What is wrong with objects that people wrote, in words. The rest of them is in force.
    pub objects: Vec<String>,
    /// How often the kernel's table, read back, was not as committed and has been written anew.
    pub repairs: usize,
}

/// A handle to the policy edge.
#[derive(Debug, Clone)]
pub struct Enforcement {
    requests: mpsc::Sender<Request>,
    settings: watch::Sender<Settings>,
    report: watch::Receiver<PolicyReport>,
    counting: mpsc::Sender<oneshot::Sender<Vec<Count>>>,
    ring: Ring,
}

impl Enforcement {
    /// Starts the edge for `node`, with the pods that an earlier agent wired. `changes` are those
    /// of pods, namespaces, policies and what these refer to; `endpoints_wanted` is told when a policy names a Service.
    pub fn start(
        node: &str,
        endpoints: &[Endpoint],
        changes: mpsc::Receiver<Box<Change>>,
        endpoints_wanted: watch::Sender<bool>,
    ) -> Self {
        let wanted = endpoints_wanted;
        let reports = listen::start();
        match Netlink::open(Nft::default()) {
            Ok(netlink) => Self::launch(node, endpoints, (changes, reports), wanted, netlink),
            Err(error) => {
                tracing::warn!("policy: no netlink socket ({error}): every change is nft's");
                Self::launch(node, endpoints, (changes, reports), wanted, Nft::default())
            }
        }
    }

    /// As [`Self::start`], with another way to the kernel.
    pub fn start_with(
        node: &str,
        endpoints: &[Endpoint],
        changes: mpsc::Receiver<Box<Change>>,
        endpoints_wanted: watch::Sender<bool>,
        writer: impl Writer + 'static,
    ) -> Self {
        let (_, reports) = mpsc::channel(1);
        Self::launch(
            node,
            endpoints,
            (changes, reports),
            endpoints_wanted,
            writer,
        )
    }

    fn launch(
        node: &str,
        endpoints: &[Endpoint],
        (changes, reported): (mpsc::Receiver<Box<Change>>, mpsc::Receiver<Reports>),
        endpoints_wanted: watch::Sender<bool>,
        writer: impl Writer + 'static,
    ) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (counting, counted) = mpsc::channel(4);
        let ring = Ring::default();
        let (reports, report) = watch::channel(PolicyReport::default());
        let (settings, set) = watch::channel(Settings::default());
        let endpoints = endpoints.iter().map(local);
        let edge = Edge::new(node, endpoints, endpoints_wanted, writer, reports);
        let inputs = Inputs {
            queue,
            changes,
            settings: set,
            reported,
            counted,
        };
        tokio::spawn(edge.telling(ring.clone()).run(inputs));
        Self {
            requests,
            settings,
            report,
            counting,
            ring,
        }
    }

    /// Takes in the pools.
    pub fn configure(&self, pools: &[margay_crds::Pool]) {
        let pools = pools.iter().map(|pool| Pool {
            cidr: pool.cidr,
            nat_outgoing: pool.nat_outgoing,
        });
        let pools = Some(pools.collect());
        self.settings.send_if_modified(|settings| {
            let differs = settings.pools != pools;
            settings.pools = pools;
            differs
        });
    }

    /// Takes in which tunnels are in use.
    pub fn set_tunnels(&self, tunnels: &[TunnelMode]) {
        let tunnels = tunnels.iter();
        let devices: BTreeSet<String> = tunnels.map(|mode| mode.device().to_owned()).collect();
        self.settings.send_if_modified(|settings| {
            let differs = settings.tunnel_devices != devices;
            settings.tunnel_devices = devices;
            differs
        });
    }

    /// Takes in the ports that no policy of a host endpoint closes.
    pub fn set_failsafes(&self, failsafes: Failsafes) {
        self.settings.send_if_modified(|settings| {
            let differs = settings.failsafes != failsafes;
            settings.failsafes = failsafes;
            differs
        });
    }

    /// Takes in the node's own interfaces and their addresses, and keeps up with them as `changed`
    /// tells: by them host endpoints without an interface's name are found, and whether kube-proxy
    /// forwards by IPVS. They are known when this returns: no table is written that knows less than
    /// the one that an earlier agent has left. It ends with the policy edge.
    ///
    /// # Errors
    /// What the kernel said to the first question.
    pub async fn follow_interfaces(
        &self,
        kernel: impl Kernel + 'static,
        mut changed: watch::Receiver<()>,
    ) -> Result<(), KernelError> {
        self.set_interfaces(interfaces(&kernel).await?);
        let enforcement = self.clone();
        tokio::spawn(async move {
            while !enforcement.has_ended() {
                tokio::select! {
                    // Who would tell may have gone.
                    Ok(()) = changed.changed() => {}
                    () = tokio::time::sleep(INTERFACES) => {}
                }
                if let Ok(interfaces) = interfaces(&kernel).await {
                    enforcement.set_interfaces(interfaces);
                }
            }
        });
        Ok(())
    }

    fn set_interfaces(&self, interfaces: BTreeMap<String, BTreeSet<IpAddr>>) {
        self.settings.send_if_modified(|settings| {
            let differs = settings.interfaces != interfaces;
            settings.interfaces = interfaces;
            differs
        });
    }

    /// Brings a pod's policy into the kernel; it is in force when this returns.
    ///
    /// # Errors
    /// Why it is not, in words.
    pub async fn put(&self, endpoint: &Endpoint) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Put(local(endpoint), reply)).await?;
        answer.await.map_err(|_| stopping())?
    }

    /// Takes a pod's policy out with the next commit, which follows at once. The pod's interface
    /// must be gone: then nothing depends on the commit, and a pod's end waits neither for a
    /// kernel that refuses nor for an API server that is away.
    ///
    /// # Errors
    /// The agent is stopping.
    pub async fn take(&self, host_interface: &str) -> Result<(), String> {
        self.send(Request::Take(host_interface.to_owned())).await
    }

    /// The reported packets after this number; without one, the latest.
    pub fn denials(&self, after: Option<u64>) -> Answer {
        self.ring.after(after)
    }

    /// What each rule in force here has counted; none when the agent is stopping.
    pub async fn counts(&self) -> Vec<Count> {
        let (reply, answer) = oneshot::channel();
        if self.counting.send(reply).await.is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }

    /// What has been brought about so far.
    pub fn report(&self) -> PolicyReport {
        self.report.borrow().clone()
    }

    /// Whether the table has been written at least once.
    pub fn is_programmed(&self) -> bool {
        self.report.borrow().programmed
    }

    /// Whether nobody looks after the table any more, which only a mistake in the program brings
    /// about.
    pub fn has_ended(&self) -> bool {
        self.requests.is_closed()
    }

    async fn send(&self, request: Request) -> Result<(), String> {
        self.requests.send(request).await.map_err(|_| stopping())
    }
}

/// The node's interfaces, but for pods', with their addresses.
async fn interfaces(
    kernel: &impl Kernel,
) -> Result<BTreeMap<String, BTreeSet<IpAddr>>, KernelError> {
    let (links, addresses) = (kernel.links().await?, kernel.addresses().await?);
    let is_own = |link: &Link| !link.name.starts_with(INTERFACE_PREFIX);
    let own = links.into_iter().filter(is_own);
    let mut interfaces = BTreeMap::new();
    let mut names = BTreeMap::new();
    for link in own {
        names.insert(link.index, link.name.clone());
        interfaces.insert(link.name, BTreeSet::new());
    }
    for one in addresses {
        let name = names.get(&one.index);
        if let Some(known) = name.and_then(|name| interfaces.get_mut(name)) {
            known.insert(one.address);
        }
    }
    Ok(interfaces)
}

fn stopping() -> String {
    "the agent is stopping".to_owned()
}

fn local(endpoint: &Endpoint) -> LocalEndpoint {
    LocalEndpoint {
        namespace: endpoint.namespace.clone(),
        pod: endpoint.pod.clone(),
        uid: endpoint.uid.clone(),
        labels: None,
        interface: endpoint.host_interface.clone(),
        device: endpoint.device,
        addresses: endpoint.addresses.clone(),
    }
}

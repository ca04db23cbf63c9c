//! The routing edge: brings the kernel's routes and tunnels to what is intended, and keeps them
//! there.
//!
//! One task owns the [`Dataplane`]. It acts when the intent changes, when somebody else changes
//! links, addresses or routes, and every minute; a few routes that come or go take a shorter way (`short_way`). Which routes there should be is decided in
//! [`crate::reconcile::routes`] and, for local pods, by [`crate::pods`]; here the kernel is asked
//! which next hops are on-link.

mod edge;
mod short_way;
#[cfg(test)]
mod tests;
mod wanted;

use std::net::IpAddr;

use margay_crds::node_status::RouteCounts;
use margay_dataplane::{Dataplane, Kernel, KernelEvents, TunnelMode};
use tokio::sync::{mpsc, oneshot, watch};

use self::edge::{Edge, EnsurePod};
use crate::pods::PodRoutes;
use crate::reconcile::routes::RouteIntent;

/// Pods that may wait for their routes; more make the CNI server wait.
const QUEUE: usize = 256;

/// What the routing edge has brought about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutingReport {
    /// The kernel has been compared with an intent and changed accordingly at least once.
    pub programmed: bool,
    /// The routes in force, by kind.
    pub counts: RouteCounts,
    /// The tunnels in use.
    pub tunnels: Vec<TunnelMode>,
    /// The MTU for pods in bytes, once the uplink is known.
    pub pod_mtu: Option<u32>,
    /// What is wrong with this node, in words.
    pub problems: Vec<String>,
    /// Single routes that cannot be had as things are, in words: a next hop that is down, say.
    pub missing: Vec<String>,
}

/// A handle to the routing edge.
#[derive(Debug, Clone)]
pub struct Routing {
    intent: watch::Sender<Option<RouteIntent>>,
    report: watch::Receiver<RoutingReport>,
    interfaces: watch::Receiver<()>,
    pods: mpsc::Sender<EnsurePod>,
}

impl Routing {
    /// Starts the edge over `dataplane`. `events` tells when somebody else touched the kernel
    /// ([`margay_dataplane::Monitor`]); `pods` are the local pods at every moment.
    pub fn start<K: Kernel + 'static>(
        dataplane: Dataplane<K>,
        events: impl KernelEvents,
        pods: watch::Receiver<PodRoutes>,
    ) -> Self {
        let (intent, intents) = watch::channel(None);
        let (reports, report) = watch::channel(RoutingReport::default());
        let (requests, queue) = mpsc::channel(QUEUE);
        let (changes, interfaces) = watch::channel(());
        let edge = Edge::new(dataplane, reports, changes, pods);
        tokio::spawn(edge.run(intents, queue, events));
        Self {
            intent,
            report,
            interfaces,
            pods: requests,
        }
    }

    /// Makes `intent` the one to bring about. Until the first one nothing in the kernel is
    /// touched but for [`Self::ensure_pod`].
    pub fn intend(&self, intent: RouteIntent) {
        self.intent.send_if_modified(|current| {
            let differs = current.as_ref() != Some(&intent);
            *current = Some(intent);
            differs
        });
    }

    /// What has been brought about so far.
    pub fn report(&self) -> RoutingReport {
        self.report.borrow().clone()
    }

    /// The MTU for pods in bytes, once the uplink is known.
    pub fn pod_mtu(&self) -> Option<u32> {
        self.report.borrow().pod_mtu
    }

    /// A receiver that tells when the report changes.
    pub fn subscribe(&self) -> watch::Receiver<RoutingReport> {
        self.report.clone()
    }

    /// A receiver that tells when links of the node, but for pods', or addresses of theirs have
    /// come, gone or changed, or may have.
    pub fn interfaces(&self) -> watch::Receiver<()> {
        self.interfaces.clone()
    }

    /// Whether nobody looks after the routes any more, which only a mistake in the program brings
    /// about.
    pub fn has_ended(&self) -> bool {
        self.pods.is_closed()
    }

    /// Puts in the routes of a pod that has just been wired, and waits until they are there. The
    /// pod must be among the local pods already, or the next comparison takes them out again.
    ///
    /// # Errors
    /// What the kernel said, in words.
    pub async fn ensure_pod(
        &self,
        interface: String,
        addresses: Vec<IpAddr>,
    ) -> Result<(), String> {
        let stopped = || "the agent is stopping".to_owned();
        let (reply, answer) = oneshot::channel();
        let request = EnsurePod {
            interface,
            addresses,
            reply,
        };
        self.pods.send(request).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

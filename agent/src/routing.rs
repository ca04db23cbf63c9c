//! The routing edge: brings the kernel's routes and tunnels to what is intended, and keeps them
//! there.
//!
//! One task owns the [`Dataplane`]. It acts when the intent changes, when somebody else changes
//! links, addresses or routes, and every minute. Which routes there should be is decided in
//! [`crate::reconcile::routes`]; here the kernel is asked which next hops are on-link.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use margay_crds::node_status::RouteCounts;
use tokio::sync::{mpsc, oneshot, watch};

use crate::dataplane::uplink::{self, Uplink};
use crate::dataplane::{
    Dataplane, DesiredRoutes, DesiredState, DesiredSysctls, Kernel, KernelError, Plan, Reach,
    RouteChange, RouteKind, Step, TunnelMode, TunnelSpec, VxlanPeer,
};
use crate::dataplane::{Monitor, pod_link};
use crate::reconcile::routes::RouteIntent;

/// How often the kernel is compared with the intent without a reason.
const RESYNC: Duration = Duration::from_secs(60);

/// What the routing edge has brought about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutingReport {
    /// The kernel has been brought to an intent at least once.
    pub programmed: bool,
    /// The routes in force, by kind.
    pub counts: RouteCounts,
    /// The tunnels in use.
    pub tunnels: Vec<TunnelMode>,
    /// The MTU for pods in bytes, once the uplink is known.
    pub pod_mtu: Option<u32>,
    /// What could not be done, in words.
    pub problems: Vec<String>,
}

/// A request that cannot wait for the next intent.
#[derive(Debug)]
struct EnsurePod {
    interface: String,
    addresses: Vec<IpAddr>,
    reply: oneshot::Sender<Result<(), String>>,
}

/// A handle to the routing edge.
#[derive(Debug, Clone)]
pub struct Routing {
    intent: watch::Sender<RouteIntent>,
    report: watch::Receiver<RoutingReport>,
    pods: mpsc::Sender<EnsurePod>,
}

impl Routing {
    /// Starts the edge over `dataplane`; `monitor` tells when somebody else touched the kernel.
    pub fn start<K: Kernel + 'static>(dataplane: Dataplane<K>, monitor: Monitor) -> Self {
        let (intent, intents) = watch::channel(RouteIntent::default());
        let (reports, report) = watch::channel(RoutingReport::default());
        let (pods, requests) = mpsc::channel(256);
        let edge = Edge {
            dataplane,
            reports,
            last_problems: Vec::new(),
        };
        tokio::spawn(edge.run(intents, requests, monitor));
        Self {
            intent,
            report,
            pods,
        }
    }

    /// Makes `intent` the one to bring about.
    pub fn intend(&self, intent: RouteIntent) {
        self.intent.send_if_modified(|current| {
            let differs = *current != intent;
            if differs {
                *current = intent;
            }
            differs
        });
    }

    /// What has been brought about so far.
    pub fn report(&self) -> RoutingReport {
        self.report.borrow().clone()
    }

    /// A receiver that tells when the report changes.
    pub fn subscribe(&self) -> watch::Receiver<RoutingReport> {
        self.report.clone()
    }

    /// Puts in the routes of a pod that has just been wired, and waits until they are there.
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

struct Edge<K> {
    dataplane: Dataplane<K>,
    reports: watch::Sender<RoutingReport>,
    last_problems: Vec<String>,
}

impl<K: Kernel + 'static> Edge<K> {
    async fn run(
        mut self,
        mut intents: watch::Receiver<RouteIntent>,
        mut pods: mpsc::Receiver<EnsurePod>,
        mut monitor: Monitor,
    ) {
        let mut resync = tokio::time::interval(RESYNC);
        resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut intended = false;
        let mut listening = true;
        loop {
            tokio::select! {
                // A pod that waits for its route comes before a whole comparison.
                biased;
                Some(request) = pods.recv() => {
                    self.ensure_pod(request).await;
                    continue;
                }
                changed = intents.changed() => match changed {
                    Ok(()) => intended = true,
                    Err(_) => return,
                },
                changes = monitor.changed(), if listening => {
                    if changes.is_none() {
                        tracing::warn!("the kernel's events have ended; comparing every minute");
                        listening = false;
                    }
                }
                _ = resync.tick() => {}
            }
            // Until somebody has said what should be, nothing in the kernel is too much.
            if intended {
                let intent = intents.borrow_and_update().clone();
                self.reconcile(&intent).await;
            }
        }
    }

    async fn ensure_pod(&mut self, request: EnsurePod) {
        let mut routes = DesiredRoutes::new();
        for (destination, kind) in pod_link::host_routes(&request.interface, &request.addresses) {
            routes.insert(destination, kind);
        }
        let report = self.dataplane.ensure_routes(&routes).await;
        let failed: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
        let result = if failed.is_empty() {
            Ok(())
        } else {
            Err(failed.join("; "))
        };
        // The one who asked may have given up; the route does no harm.
        let _ = request.reply.send(result);
    }

    async fn reconcile(&mut self, intent: &RouteIntent) {
        let mut problems = Vec::new();
        let wanted = wanted(&mut self.dataplane, intent, &mut problems).await;
        match self.dataplane.plan(&wanted.state).await {
            Ok(plan) => {
                let plan = if intent.keep_unwanted {
                    without_removals(plan)
                } else {
                    plan
                };
                let report = self.dataplane.apply_plan(plan).await;
                for change in &report.changes {
                    tracing::info!("{change}");
                }
                problems.extend(report.errors.iter().map(ToString::to_string));
            }
            Err(error) => problems.push(error.to_string()),
        }
        self.say(&problems);
        self.reports.send_replace(RoutingReport {
            programmed: true,
            counts: wanted.counts,
            tunnels: wanted.state.tunnels.iter().map(|spec| spec.mode).collect(),
            pod_mtu: wanted.pod_mtu,
            problems,
        });
    }

    /// Logs each problem when it appears and not again while it lasts.
    fn say(&mut self, problems: &[String]) {
        for problem in problems
            .iter()
            .filter(|one| !self.last_problems.contains(one))
        {
            tracing::error!("{problem}");
        }
        self.last_problems = problems.to_vec();
    }
}

/// While the sessions are not up again, what an earlier agent left behind stays in force.
fn without_removals(mut plan: Plan) -> Plan {
    plan.steps
        .retain(|step| !matches!(step, Step::Route(RouteChange::Delete(_))));
    plan
}

/// A desired state with what it means for people.
struct Wanted {
    state: DesiredState,
    counts: RouteCounts,
    pod_mtu: Option<u32>,
}

/// Works out the desired state of an intent, asking the kernel about next hops and the uplink.
///
/// What cannot be worked out is left out and named in `problems`.
async fn wanted<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    intent: &RouteIntent,
    problems: &mut Vec<String>,
) -> Wanted {
    let mut state = DesiredState::default();
    let has = |test: fn(&IpAddr) -> bool| intent.node_addresses.iter().any(test);
    state.sysctls = DesiredSysctls::for_node(has(IpAddr::is_ipv4), has(IpAddr::is_ipv6));

    let mut pod_mtu = None;
    if let Some(address) = intent.node_addresses.first() {
        match uplink::find(dataplane.kernel(), *address).await {
            Ok(uplink) => {
                add_tunnels(dataplane, intent, &uplink, &mut state, problems).await;
                let modes: Vec<TunnelMode> = state.tunnels.iter().map(|spec| spec.mode).collect();
                match uplink.pod_mtu(&modes) {
                    Ok(mtu) => pod_mtu = Some(mtu),
                    Err(error) => problems.push(error.to_string()),
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    for block in &intent.blocks {
        state.routes.insert(*block, RouteKind::Blackhole);
    }
    for (address, interface) in &intent.pods {
        let kind = RouteKind::Link {
            interface: interface.clone(),
        };
        state.routes.insert((*address).into(), kind);
    }
    let mut counts = RouteCounts {
        local: count(intent.pods.len()),
        blackhole: count(intent.blocks.len()),
        ..RouteCounts::default()
    };
    let mut reached = BTreeMap::new();
    for (destination, route) in &intent.remote {
        let mut hops = Vec::new();
        for hop in &route.next_hops {
            match reach(dataplane, &mut reached, *hop).await {
                Ok(reach) => hops.push((*hop, reach)),
                Err(error) => problems.push(format!("route {destination}: {error}")),
            }
        }
        if hops.is_empty() {
            continue;
        }
        let kind = route.encapsulation.route_kind(&hops);
        match &kind {
            RouteKind::Tunnel { .. } => counts.tunnelled += 1,
            _ => counts.direct += 1,
        }
        let same_family = |own: &&IpAddr| own.is_ipv4() == destination.is_ipv4();
        let source = intent.node_addresses.iter().find(same_family).copied();
        state.routes.insert_with_source(*destination, kind, source);
    }
    Wanted {
        state,
        counts,
        pod_mtu,
    }
}

/// The answer for a next hop, asked once a pass: many blocks share one.
async fn reach<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    known: &mut BTreeMap<IpAddr, Reach>,
    hop: IpAddr,
) -> Result<Reach, KernelError> {
    if let Some(reach) = known.get(&hop) {
        return Ok(reach.clone());
    }
    let reach = dataplane.reach(hop).await?;
    known.insert(hop, reach.clone());
    Ok(reach)
}

async fn add_tunnels<K: Kernel>(
    dataplane: &mut Dataplane<K>,
    intent: &RouteIntent,
    uplink: &Uplink,
    state: &mut DesiredState,
    problems: &mut Vec<String>,
) {
    for mode in &intent.tunnels {
        match dataplane.supports(*mode).await {
            Ok(true) => {}
            Ok(false) => {
                problems.push(format!(
                    "this kernel has no {mode}: blocks behind another segment are unreachable; \
                     load the module, or use the other tunnel mode in the IPPool"
                ));
                continue;
            }
            Err(error) => {
                problems.push(error.to_string());
                continue;
            }
        }
        match TunnelSpec::new(*mode, uplink.address, uplink.mtu) {
            Ok(spec) => state.tunnels.push(spec),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if !state.tunnels.is_empty() && dataplane.sysctls().strict_everywhere().unwrap_or(false) {
        problems.push(
            "net.ipv4.conf.all.rp_filter is not 0: what nodes themselves send to pods behind a \
             tunnel is dropped; set it to 0 and the interfaces' own rp_filter as wanted"
                .to_owned(),
        );
    }
    if state
        .tunnels
        .iter()
        .any(|spec| spec.mode == TunnelMode::Vxlan)
    {
        let same_family = |node: &&IpAddr| node.is_ipv4() == uplink.address.is_ipv4();
        let far_ends = intent.other_nodes.iter().filter(same_family);
        state.vxlan_peers = far_ends.map(|node| VxlanPeer::new(*node)).collect();
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

//! The task of the routing edge.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_dataplane::{
    ApplyError, ApplyReport, Dataplane, DesiredRoutes, Kernel, KernelEvents, Step, pod_link,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::RoutingReport;
use super::short_way::difference;
use super::wanted::{routes_alone, wanted};
use crate::pods::PodRoutes;
use crate::reconcile::routes::RouteIntent;
use crate::status::node::shortened;

/// How often the kernel is compared with the intent without a reason.
const RESYNC: Duration = Duration::from_secs(60);
/// The least time between two comparisons for the sake of kernel events: a router whose table
/// changes all the time must not keep us busy. The first event is not delayed.
const GAP: Duration = Duration::from_millis(200);
/// How long after routes went the short way everything is compared.
const LATER: Duration = Duration::from_millis(200);
/// How long after events about nothing but pods' interfaces everything is compared: they are the
/// echo of our own work, unless somebody set one down.
const ECHO: Duration = Duration::from_secs(1);
/// The most changes or problems that are logged one by one.
const MAX_LINES: usize = 20;

/// A request that cannot wait for the next comparison.
#[derive(Debug)]
pub(super) struct EnsurePod {
    pub(super) interface: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

pub(super) struct Edge<K> {
    dataplane: Dataplane<K>,
    reports: watch::Sender<RoutingReport>,
    interfaces: watch::Sender<()>,
    pods: watch::Receiver<PodRoutes>,
    said: BTreeSet<String>,
    in_force: Option<InForce>,
}

/// What was last brought about.
struct InForce {
    intent: RouteIntent,
    /// Destinations that are not as the intent wants them, or may not be.
    unsettled: BTreeSet<IpNetwork>,
}

impl<K: Kernel + 'static> Edge<K> {
    pub(super) fn new(
        dataplane: Dataplane<K>,
        reports: watch::Sender<RoutingReport>,
        interfaces: watch::Sender<()>,
        pods: watch::Receiver<PodRoutes>,
    ) -> Self {
        Self {
            dataplane,
            reports,
            interfaces,
            pods,
            said: BTreeSet::new(),
            in_force: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut intents: watch::Receiver<Option<RouteIntent>>,
        mut requests: mpsc::Receiver<EnsurePod>,
        mut events: impl KernelEvents,
    ) {
        let mut resync = tokio::time::interval(RESYNC);
        resync.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut listening = true;
        let mut not_before = Instant::now();
        // When everything is compared at the latest, events or not.
        let mut due = None;
        loop {
            let event = async {
                tokio::time::sleep_until(not_before).await;
                events.changed().await
            };
            tokio::select! {
                // A pod that waits for its route comes before a whole comparison.
                biased;
                Some(request) = requests.recv() => {
                    self.ensure_pod(request).await;
                    continue;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                changed = intents.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let intent = intents.borrow_and_update().clone();
                    if let Some(intent) = intent
                        && self.goes_the_short_way(&intent).await
                    {
                        due.get_or_insert_with(|| Instant::now() + LATER);
                        continue;
                    }
                }
                changes = event, if listening => {
                    not_before = Instant::now() + GAP;
                    match changes {
                        Some(changes) if changes.is_of_pods() => {
                            due.get_or_insert_with(|| Instant::now() + ECHO);
                            continue;
                        }
                        Some(changes) => {
                            if changes.links || changes.addresses || changes.lost {
                                self.interfaces.send_replace(());
                            }
                        }
                        None => {
                            tracing::warn!("the kernel's events have ended; comparing every minute");
                            listening = false;
                        }
                    }
                }
                _ = resync.tick() => {}
            }
            // Until somebody has said what should be, nothing in the kernel is too much.
            due = None;
            let intent = intents.borrow_and_update().clone();
            if let Some(intent) = intent {
                self.reconcile(&intent).await;
            }
        }
    }

    /// Puts in and takes out at once what an intent has beyond the one in force. False where that is not enough, and
    /// everything is to be compared.
    async fn goes_the_short_way(&mut self, intent: &RouteIntent) -> bool {
        let Some(in_force) = &self.in_force else {
            return false;
        };
        let has_pod = |destination: &IpNetwork| {
            let address = destination.ip();
            IpNetwork::from(address) == *destination && self.pods.borrow().contains_key(&address)
        };
        let found = difference(&in_force.intent, intent, &in_force.unsettled, has_pod);
        let Some(found) = found else { return false };
        let wanted = routes_alone(&mut self.dataplane, &found.coming).await;
        if !wanted.problems.is_empty() {
            return false;
        }
        let routes = &wanted.state.routes;
        let applied = self.dataplane.change_routes(routes, found.going).await;
        log_changes(&applied.changes);
        if !applied.is_clean() {
            return false;
        }
        if let Some(in_force) = &mut self.in_force {
            in_force.intent.clone_from(intent);
        }
        true
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
        let pods = self.pods.borrow_and_update().clone();
        let mut wanted = wanted(&mut self.dataplane, intent, &pods).await;
        let mut report = RoutingReport {
            problems: std::mem::take(&mut wanted.problems),
            ..RoutingReport::default()
        };
        let mut failed = wanted.unsure_routes.clone();
        let planned = match self.dataplane.plan(&wanted.state).await {
            Ok(mut plan) => {
                wanted.spare(&mut plan, intent.keep_unwanted);
                let applied = self.dataplane.apply_plan(plan).await;
                failed.extend(sort_errors(&applied, &mut report));
                log_changes(&applied.changes);
                true
            }
            Err(error) => {
                report.problems.push(error.to_string());
                false
            }
        };
        report.counts = wanted.counts(&failed);
        self.in_force = planned.then(|| InForce {
            intent: intent.clone(),
            unsettled: failed,
        });
        report.tunnels = wanted.state.tunnels.iter().map(|spec| spec.mode).collect();
        report.pod_mtu = wanted.pod_mtu;
        self.say(&report);
        self.reports.send_if_modified(|known| {
            if wanted.unsure_uplink {
                report.pod_mtu = known.pod_mtu;
            }
            report.programmed = known.programmed || planned;
            let differs = *known != report;
            *known = report;
            differs
        });
    }

    /// Logs each problem when it appears and not again while it lasts.
    fn say(&mut self, report: &RoutingReport) {
        let all = report.problems.iter().chain(&report.missing);
        let said: BTreeSet<String> = all.cloned().collect();
        let news: Vec<String> = said.difference(&self.said).cloned().collect();
        for problem in shortened(&news, MAX_LINES) {
            tracing::error!("{problem}");
        }
        self.said = said;
    }
}

/// Sorts what failed into what is wrong here and routes that cannot be had as things are; gives
/// the destinations that are not as wanted.
fn sort_errors(applied: &ApplyReport, report: &mut RoutingReport) -> BTreeSet<IpNetwork> {
    let mut failed = BTreeSet::new();
    for error in &applied.errors {
        match error {
            ApplyError::Problem(problem) => {
                let destination = problem.object.strip_prefix("route ");
                failed.extend(destination.and_then(|text| text.parse::<IpNetwork>().ok()));
                report.missing.push(error.to_string());
            }
            ApplyError::Step { step, .. } => {
                if let Step::Route(change) = &**step {
                    failed.insert(change.key().destination);
                }
                report.problems.push(error.to_string());
            }
            ApplyError::Read { .. } => report.problems.push(error.to_string()),
        }
    }
    failed
}

fn log_changes(changes: &[Step]) {
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    for line in shortened(&lines, MAX_LINES) {
        tracing::info!("{line}");
    }
}

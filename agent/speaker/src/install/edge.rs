//! The kernel's side: which next hops are reached how, changes by the batch, and looking after
//! what others do to our routes.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use margay_bgp::speaker::{RouteStream, Speaker};
use margay_dataplane::{
    Kernel, KernelError, KernelEvents, NextHop, Reach, ReachCache, RouteChange, RouteKey,
    RouteTarget,
};
use tokio::time::Instant;

use super::applier::{Applier, Outcome};
use super::table::{Resolution, Table, Way, Ways};
use crate::restart::Restart;

/// How often the kernel is compared with what should be without a reason; a full table is large.
const RESYNC: Duration = Duration::from_secs(300);
/// The least time between two comparisons because of events: a router whose table changes all
/// the time must not keep us busy. The first event is not delayed.
const GAP: Duration = Duration::from_millis(200);
/// How often routes that failed are tried again, and how often sessions are looked at while they
/// are waited for.
const RETRY: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(250);
/// The most batches taken in before the kernel is told.
const BATCHES: usize = 4;
/// The most problems that are logged one by one.
const MAX_LINES: usize = 10;

pub(super) struct Edge<K> {
    kernel: Arc<K>,
    applier: Applier,
    reach: ReachCache,
    table: Table,
    said: BTreeSet<String>,
}

impl<K: Kernel + 'static> Edge<K> {
    /// Within a tokio runtime.
    pub(super) fn new(kernel: K, reach: ReachCache, table: Table) -> Self {
        let kernel = Arc::new(kernel);
        Self {
            applier: Applier::start(Arc::clone(&kernel)),
            kernel,
            reach,
            table,
            said: BTreeSet::new(),
        }
    }

    /// Learns what an earlier process left, and that routes may be changed.
    pub(super) async fn begin(&mut self) -> Result<(), KernelError> {
        self.table.begin(self.kernel.routes().await?);
        // A route that cannot be: all that can come of it is "not permitted".
        let nothing = RouteKey {
            destination: IpAddr::V6(Ipv6Addr::LOCALHOST).into(),
            metric: u32::MAX,
            tos: 0,
        };
        let attempt = [RouteChange::Delete(nothing)];
        match self.kernel.apply_routes(&attempt).await.pop() {
            Some(Err(error)) if error.is_permission() => Err(error),
            _ => Ok(()),
        }
    }

    /// Follows the speaker until it ends.
    pub(super) async fn run(&mut self, speaker: &Speaker, mut events: impl KernelEvents) {
        let Ok(mut routes) = speaker.subscribe().await else {
            return;
        };
        let mut restart = Restart::begin(true, std::time::Instant::now());
        let mut compare_at = Instant::now() + RESYNC;
        let mut not_before = Instant::now();
        let mut look_at = Instant::now();
        let mut retry_at = None;
        let mut listening = true;
        loop {
            let event = async {
                tokio::time::sleep_until(not_before).await;
                events.changed().await
            };
            tokio::select! {
                biased;
                outcome = self.applier.outcome() => self.handle_outcome(outcome),
                batch = routes.next_batch() => match batch {
                    Some(batch) => {
                        self.table.handle_routes(batch);
                        self.take_more(&mut routes);
                    }
                    None => return,
                },
                changes = event, if listening => {
                    not_before = Instant::now() + GAP;
                    match changes {
                        // A link that goes down takes its routes with it and says nothing.
                        Some(changes) if changes.our_routes || changes.links || changes.lost => {
                            compare_at = Instant::now();
                        }
                        Some(_) => {}
                        None => {
                            tracing::warn!("the kernel's events have ended");
                            listening = false;
                        }
                    }
                    self.resolve_all().await;
                }
                () = tokio::time::sleep_until(retry_at.unwrap_or(compare_at).min(compare_at)) => {
                    if retry_at.take().is_some() {
                        self.table.retry_failed();
                        self.resolve_all().await;
                    }
                }
                () = tokio::time::sleep_until(look_at), if restart.is_under_way() => {
                    look_at = Instant::now() + LOOK;
                    let Ok(peers) = speaker.summary().await else { return };
                    if restart.handle_peers(std::time::Instant::now(), &peers) {
                        // All the speaker holds now is taken in before anything is removed.
                        let Ok(anew) = speaker.subscribe().await else { return };
                        routes = anew;
                        self.table.begin_snapshot();
                    }
                }
            }
            if Instant::now() >= compare_at {
                compare_at = Instant::now() + RESYNC;
                self.compare().await;
            }
            if restart.handle_synced(self.table.is_complete()) {
                let count = self.table.drop_stale();
                if count > 0 {
                    tracing::info!("{count} routes of an earlier process are unconfirmed and go");
                }
            }
            self.start().await;
            self.say();
            if self.table.failed().is_empty() {
                retry_at = None;
            } else if retry_at.is_none() {
                retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn take_more(&mut self, routes: &mut RouteStream) {
        for _ in 1..BATCHES {
            match routes.next_batch().now_or_never() {
                Some(Some(batch)) => self.table.handle_routes(batch),
                Some(None) | None => break,
            }
        }
    }

    /// Takes our routes out of the kernel.
    pub(super) async fn remove_all(&mut self) {
        self.table.clear();
        self.bring().await;
        // Reading takes away the next hop objects that nothing uses any more.
        let _ = self.kernel.routes().await;
    }

    /// Reads what the kernel holds.
    pub(super) async fn compare(&mut self) {
        self.settle().await;
        match self.kernel.routes().await {
            Ok(actual) => self.table.handle_kernel(actual),
            Err(error) => tracing::error!("cannot read the kernel's routes: {error}"),
        }
        self.resolve_all().await;
    }

    /// Makes the kernel as wanted, and waits for it.
    pub(super) async fn bring(&mut self) {
        self.start().await;
        self.settle().await;
        self.say();
    }

    /// Begins to make the kernel as wanted, unless enough is under way.
    async fn start(&mut self) {
        if !self.table.has_work() || !self.applier.has_room() {
            return;
        }
        let open = self.table.unresolved();
        self.resolve(open).await;
        let changes = self.table.plan();
        if !changes.is_empty() {
            tracing::debug!("{} changes, {} routes", changes.len(), self.table.len());
            self.applier.apply(changes);
        }
    }

    /// Waits until nothing is under way.
    async fn settle(&mut self) {
        while self.applier.is_busy() {
            let outcome = self.applier.outcome().await;
            self.handle_outcome(outcome);
            self.start().await;
        }
    }

    fn handle_outcome(&mut self, refused: Outcome) {
        if !refused.is_empty() {
            // Perhaps a next hop is not where it was.
            self.reach.invalidator().invalidate();
        }
        for (change, error) in refused {
            self.table.handle_refused(&change, &error);
        }
    }

    async fn resolve_all(&mut self) {
        let all = self.table.all_ways();
        self.resolve(all).await;
    }

    async fn resolve(&mut self, all: Vec<Ways>) {
        let mut answers = Vec::with_capacity(all.len());
        let links = self.links_of(&all).await;
        for ways in all {
            let answer = self.resolution(&ways, &links).await;
            answers.push((ways, answer));
        }
        self.table.handle_resolved(answers);
    }

    /// The links that are up, if one of the ways names its own.
    async fn links_of(&self, all: &[Ways]) -> Result<HashMap<u32, String>, String> {
        if all
            .iter()
            .flat_map(|ways| ways.iter())
            .all(|w| w.scope == 0)
        {
            return Ok(HashMap::new());
        }
        let links = self.kernel.links().await;
        let links = links.map_err(|error| error.to_string())?;
        let up = links.into_iter().filter(|link| link.up);
        Ok(up.map(|link| (link.index, link.name)).collect())
    }

    /// The next hops that can be reached; one that cannot is left out while another can.
    async fn resolution(
        &mut self,
        ways: &[Way],
        links: &Result<HashMap<u32, String>, String>,
    ) -> Resolution {
        if ways.is_empty() {
            return Resolution::To(RouteTarget::Blackhole);
        }
        let mut hops = BTreeSet::new();
        let mut reasons = Vec::new();
        for way in ways {
            if way.scope != 0 {
                match links.as_ref().map(|links| links.get(&way.scope)) {
                    Ok(Some(name)) => drop(hops.insert(unnumbered(way, name))),
                    Ok(None) => reasons.push(format!(
                        "next hop {}: interface {} is down or gone",
                        way.next_hop, way.scope
                    )),
                    Err(error) => {
                        return Resolution::Unknown(format!("next hop {}: {error}", way.next_hop));
                    }
                }
                continue;
            }
            match self.reach.reach(&*self.kernel, way.next_hop).await {
                Ok(reach) => match next_hop(way, reach) {
                    Ok(hop) => drop(hops.insert(hop)),
                    Err(reason) => reasons.push(reason),
                },
                Err(error) => {
                    return Resolution::Unknown(format!("next hop {}: {error}", way.next_hop));
                }
            }
        }
        if hops.is_empty() {
            return Resolution::Nowhere(reasons.join("; "));
        }
        if hops.len() == 1 {
            // A weight among one; the kernel keeps none.
            let alone = hops.into_iter().map(|hop| NextHop {
                extra_weight: 0,
                ..hop
            });
            return Resolution::To(RouteTarget::next_hops(alone));
        }
        Resolution::To(RouteTarget::next_hops(hops))
    }

    /// Logs each problem when it appears and not again while it lasts.
    fn say(&mut self) {
        let failed = self.table.failed();
        if failed.is_empty() && self.said.is_empty() {
            return;
        }
        let mut said = BTreeSet::new();
        for (destination, reason) in failed.iter().take(MAX_LINES) {
            said.insert(format!("route {destination}: {reason}"));
        }
        if failed.len() > MAX_LINES {
            said.insert("more routes cannot be installed".to_owned());
        }
        for problem in said.difference(&self.said) {
            tracing::error!("{problem}");
        }
        self.said = said;
    }
}

#[cfg(test)]
impl<K: Kernel + 'static> Edge<K> {
    /// Takes in a batch and makes the kernel so.
    pub(super) async fn take(&mut self, batch: margay_bgp::speaker::RouteBatch) {
        self.table.handle_routes(batch);
        self.bring().await;
    }

    /// The sessions have sent all they have.
    pub(super) async fn drop_stale(&mut self) {
        self.table.drop_stale();
        self.bring().await;
    }

    /// All that cannot be installed, in words.
    pub(super) fn problems(&self) -> String {
        let failed = self.table.failed().values().cloned();
        failed.collect::<Vec<_>>().join("\n")
    }
}

/// A link-local next hop, of either family's routes (RFC 8950), on the link it was heard on.
fn unnumbered(way: &Way, interface: &str) -> NextHop {
    NextHop {
        gateway: way.next_hop,
        interface: interface.to_owned(),
        onlink: false,
        extra_weight: way.extra_weight,
    }
}

/// Where packets for a next hop go. One behind a gateway is reached through the gateway, as the
/// kernel would reach it (RFC 4271 section 5.1.3: recursive lookup).
fn next_hop(way: &Way, reach: Reach) -> Result<NextHop, String> {
    let address = way.next_hop;
    let (gateway, interface, onlink) = match reach {
        Reach::OnLink { interface } => (address, interface, false),
        // A route to the next hop itself, learned from it: the kernel would refuse the gateway.
        Reach::Via { gateway, interface } => (gateway, interface, gateway == address),
        Reach::Local => return Err(format!("next hop {address} is this host itself")),
        Reach::Unreachable => return Err(format!("next hop {address} cannot be reached")),
    };
    Ok(NextHop {
        gateway,
        interface,
        onlink,
        extra_weight: way.extra_weight,
    })
}

//! The dataplane: compares what is wanted with what the kernel holds, and makes it so.
//!
//! The order of a plan is the order in which no packet is lost: tunnels made or repaired and
//! given addresses, settings, neighbour entries added, routes added and replaced, routes deleted, neighbour
//! entries removed, tunnels removed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::error::KernelError;
use super::kernel::Kernel;
use super::link::Link;
use super::neighbours::{self, NeighbourChange};
use super::onlink::{Invalidator, Reach, ReachCache};
use super::plan::{ApplyError, ApplyReport, DesiredState, Plan, PlanProblem, Step};
use super::resolve::{View, not_on_link, tunnelled, unnumbered};
use super::routes::{
    self, DesiredRoute, DesiredRoutes, NextHop, Route, RouteChange, RouteKey, RouteKind,
    RouteTarget,
};
use super::sysctl::{DesiredSysctls, SysctlTree};
use super::tunnel::{self, TunnelChange, TunnelMode, VXLAN_DEVICE};

/// The node's kernel state under management.
///
/// Keep one behind one lock: build the [`DesiredState`] and apply it under the lock, so that an
/// older wish never undoes a newer one.
#[derive(Debug)]
pub struct Dataplane<K> {
    kernel: K,
    sysctls: SysctlTree,
    reach: ReachCache,
    supported: BTreeMap<TunnelMode, bool>,
}

impl<K: Kernel> Dataplane<K> {
    /// Manages the state behind `kernel`, with settings under /proc/sys.
    pub fn new(kernel: K) -> Self {
        Self::with_sysctls(kernel, SysctlTree::default())
    }

    /// As [`Self::new`] with another tree of settings.
    pub fn with_sysctls(kernel: K, sysctls: SysctlTree) -> Self {
        Self {
            kernel,
            sysctls,
            reach: ReachCache::default(),
            supported: BTreeMap::new(),
        }
    }

    /// The kernel's edge, for links of pods and the uplink.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// The settings' edge.
    pub fn sysctls(&self) -> &SysctlTree {
        &self.sysctls
    }

    /// What makes the next [`Self::reach`] ask the kernel anew; for [`super::Monitor`].
    pub fn invalidator(&self) -> Invalidator {
        self.reach.invalidator()
    }

    /// How a next hop is reached.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub async fn reach(&mut self, next_hop: IpAddr) -> Result<Reach, KernelError> {
        self.reach.reach(&self.kernel, next_hop).await
    }

    /// Whether this kernel can make tunnels of `mode`; asked once.
    ///
    /// # Errors
    /// The kernel could not be asked, or the capability is missing.
    pub async fn supports(&mut self, mode: TunnelMode) -> Result<bool, KernelError> {
        if let Some(known) = self.supported.get(&mode) {
            return Ok(*known);
        }
        let answer = tunnel::probe(&self.kernel, mode).await?;
        self.supported.insert(mode, answer);
        Ok(answer)
    }

    /// What would be changed. Changes nothing.
    ///
    /// # Errors
    /// The kernel's state could not be read.
    pub async fn plan(&mut self, desired: &DesiredState) -> Result<Plan, ApplyError> {
        let links = self.kernel.links().await.map_err(read("links"))?;
        let tunnels = tunnel::diff(&desired.tunnels, &links);
        let view = View::new(&links, &tunnels);
        let mut plan = Plan::default();

        self.plan_sysctls(desired, &view, &mut plan)?;
        let (removals, repairs): (Vec<_>, Vec<_>) = tunnels
            .iter()
            .cloned()
            .partition(|change| matches!(change, TunnelChange::Remove { .. }));
        // Settings of a device can be written only once it is there.
        plan.steps
            .splice(0..0, repairs.into_iter().map(Step::Tunnel));
        let addresses = self.plan_addresses(desired, &links, &tunnels).await?;
        // Routes name them as their source: there before, gone after.
        let (given, taken): (Vec<_>, Vec<_>) = addresses
            .into_iter()
            .partition(|change| matches!(change, TunnelChange::Address { wanted: true, .. }));
        plan.steps.extend(given.into_iter().map(Step::Tunnel));

        let neighbours = self.plan_neighbours(desired, &view, &mut plan).await?;
        let (set, remove): (Vec<_>, Vec<_>) = neighbours
            .into_iter()
            .partition(|change| matches!(change, NeighbourChange::Set(_)));
        plan.steps.extend(set.into_iter().map(on_vxlan));
        self.plan_routes(desired, &view, &mut plan).await?;
        plan.steps.extend(remove.into_iter().map(on_vxlan));
        plan.steps.extend(taken.into_iter().map(Step::Tunnel));
        plan.steps.extend(removals.into_iter().map(Step::Tunnel));
        Ok(plan)
    }

    /// Makes the kernel as wanted, goes on past errors and reports both.
    pub async fn apply(&mut self, desired: &DesiredState) -> ApplyReport {
        match self.plan(desired).await {
            Ok(plan) => self.apply_plan(plan).await,
            Err(error) => ApplyReport {
                changes: Vec::new(),
                errors: vec![error],
            },
        }
    }

    /// Carries out a plan made just now.
    pub async fn apply_plan(&mut self, plan: Plan) -> ApplyReport {
        let mut report = ApplyReport {
            changes: Vec::new(),
            errors: plan.problems.into_iter().map(Into::into).collect(),
        };
        let mut steps = plan.steps.into_iter().peekable();
        while let Some(step) = steps.next() {
            let mut batch = vec![step];
            while let Some(next) = steps.next_if(|next| same_batch(&batch[0], next)) {
                batch.push(next);
            }
            let results = self.apply_batch(&batch).await;
            for (step, result) in batch.into_iter().zip(results) {
                match result {
                    Ok(()) => report.changes.push(step),
                    Err(source) => {
                        if matches!(step, Step::Route(_)) {
                            // Perhaps a next hop is not where it was.
                            self.reach.invalidator().invalidate();
                        }
                        let step = Box::new(step);
                        report.errors.push(ApplyError::Step { step, source });
                    }
                }
            }
        }
        report
    }

    /// Puts in these routes at once, without comparing the whole table: the way a pod that has
    /// just been wired becomes reachable. The routes must also be in every [`DesiredState`]
    /// applied afterwards, or they are removed again.
    pub async fn ensure_routes(&mut self, wanted: &DesiredRoutes) -> ApplyReport {
        self.change_routes(wanted, Vec::new()).await
    }

    /// Puts in routes and then takes out others of ours, without comparing the whole table.
    pub async fn change_routes(
        &mut self,
        wanted: &DesiredRoutes,
        going: Vec<RouteKey>,
    ) -> ApplyReport {
        // A pod's link has just been set up; were it gone again, the kernel would say so. A list
        // of all links is dear on a node with many pods.
        let needs_links = |kind: &RouteKind| {
            matches!(
                kind,
                RouteKind::Unnumbered { .. } | RouteKind::Tunnel { .. }
            )
        };
        let links = match wanted.iter().any(|(_, route)| needs_links(&route.kind)) {
            true => self.kernel.links().await.map(Some),
            false => Ok(None),
        };
        let links = match links {
            Ok(links) => links,
            Err(source) => {
                return ApplyReport {
                    changes: Vec::new(),
                    errors: vec![read("links")(source)],
                };
            }
        };
        let view = match &links {
            Some(links) => View::new(links, &[]),
            None => View::unasked(),
        };
        let mut plan = Plan::default();
        for (destination, route) in wanted.iter() {
            match self.resolve(*destination, route, &view).await {
                Ok(route) => plan.steps.push(Step::Route(RouteChange::Add(route))),
                Err(problem) => plan.problems.push(problem),
            }
        }
        let going = going.into_iter().map(RouteChange::Delete);
        plan.steps.extend(going.map(Step::Route));
        self.apply_plan(plan).await
    }

    async fn apply_batch(&self, batch: &[Step]) -> Vec<Result<(), KernelError>> {
        match &batch[0] {
            Step::Route(_) => {
                let changes: Vec<RouteChange> = batch
                    .iter()
                    .filter_map(|step| match step {
                        Step::Route(change) => Some(change.clone()),
                        _ => None,
                    })
                    .collect();
                self.kernel.apply_routes(&changes).await
            }
            Step::Neighbour { device, .. } => {
                let changes: Vec<NeighbourChange> = batch
                    .iter()
                    .filter_map(|step| match step {
                        Step::Neighbour { change, .. } => Some(change.clone()),
                        _ => None,
                    })
                    .collect();
                self.kernel.apply_neighbours(device, &changes).await
            }
            Step::Sysctl(change) => vec![self.sysctls.apply(change)],
            Step::Tunnel(change) => vec![tunnel::apply(&self.kernel, change).await],
        }
    }

    async fn plan_addresses(
        &self,
        desired: &DesiredState,
        links: &[Link],
        tunnels: &[TunnelChange],
    ) -> Result<Vec<TunnelChange>, ApplyError> {
        if desired.tunnels.is_empty() {
            return Ok(Vec::new());
        }
        let present = self.kernel.addresses().await.map_err(read("addresses"))?;
        let desired = &desired.tunnels;
        Ok(tunnel::diff_addresses(desired, links, &present, tunnels))
    }

    fn plan_sysctls(
        &self,
        desired: &DesiredState,
        view: &View<'_>,
        plan: &mut Plan,
    ) -> Result<(), ApplyError> {
        let mut wanted = desired.sysctls.clone();
        for spec in &desired.tunnels {
            let settings = DesiredSysctls::for_tunnel(&spec.name);
            if view.fresh.contains(spec.name.as_str()) {
                plan.steps
                    .extend(settings.unconditional().map(Step::Sysctl));
            } else {
                wanted.extend(settings);
            }
        }
        let changes = self.sysctls.diff(&wanted).map_err(read("settings"))?;
        plan.steps.extend(changes.into_iter().map(Step::Sysctl));
        Ok(())
    }

    async fn plan_neighbours(
        &self,
        desired: &DesiredState,
        view: &View<'_>,
        plan: &mut Plan,
    ) -> Result<Vec<NeighbourChange>, ApplyError> {
        if !desired.tunnels.iter().any(|t| t.mode == TunnelMode::Vxlan) {
            return Ok(Vec::new());
        }
        let (wanted, collisions) = neighbours::desired_neighbours(&desired.vxlan_peers);
        plan.problems
            .extend(collisions.into_iter().map(|collision| PlanProblem {
                object: format!("vxlan peer {}", collision.second),
                reason: collision.to_string(),
            }));
        let actual = if view.fresh.contains(VXLAN_DEVICE) {
            Vec::new()
        } else {
            self.kernel
                .neighbours(VXLAN_DEVICE)
                .await
                .map_err(read("neighbours"))?
        };
        Ok(neighbours::diff(&wanted, &actual))
    }

    async fn plan_routes(
        &mut self,
        desired: &DesiredState,
        view: &View<'_>,
        plan: &mut Plan,
    ) -> Result<(), ApplyError> {
        let mut actual = self.kernel.routes().await.map_err(read("routes"))?;
        // Making a device anew takes its routes with it.
        actual.retain(|route| {
            !route
                .interfaces()
                .iter()
                .any(|name| view.recreated.contains(name))
        });
        let mut wanted = Vec::with_capacity(desired.routes.len());
        let mut kept: BTreeSet<RouteKey> = BTreeSet::new();
        for (destination, route) in desired.routes.iter() {
            match self.resolve(*destination, route, view).await {
                Ok(route) => wanted.push(route),
                Err(problem) => {
                    plan.problems.push(problem);
                    kept.insert(Route::new(*destination, RouteTarget::Blackhole).key());
                }
            }
        }
        // A route that cannot be had as wanted stays as it is rather than vanish.
        actual.retain(|route| !kept.contains(&route.key()));
        let changes = routes::diff(&wanted, &actual);
        plan.steps.extend(changes.into_iter().map(Step::Route));
        Ok(())
    }

    /// The wanted route with every name resolved, or why it cannot be.
    async fn resolve(
        &mut self,
        destination: IpNetwork,
        wanted: &DesiredRoute,
        view: &View<'_>,
    ) -> Result<Route, PlanProblem> {
        let target = match &wanted.kind {
            RouteKind::Blackhole => Ok(RouteTarget::Blackhole),
            RouteKind::Link { interface } => view.usable(interface).map(|()| RouteTarget::Link {
                interface: interface.clone(),
            }),
            RouteKind::Direct { next_hops } => self.direct(next_hops).await,
            RouteKind::Unnumbered { next_hops } => unnumbered(next_hops, view),
            RouteKind::Tunnel { device, next_hops } => {
                tunnelled(destination, device, next_hops, view)
            }
        };
        let mut route = target
            .map(|target| Route::new(destination, target))
            .map_err(|reason| PlanProblem {
                object: format!("route {destination}"),
                reason,
            })?;
        route.source = wanted.source;
        route.metric = wanted.metric.unwrap_or(route.metric);
        Ok(route)
    }

    /// The next hops that are on-link; one that is not is left out while another is.
    async fn direct(&mut self, next_hops: &[IpAddr]) -> Result<RouteTarget, String> {
        let mut hops = BTreeSet::new();
        let mut reasons = Vec::new();
        for gateway in next_hops.iter().copied() {
            match self.reach.reach(&self.kernel, gateway).await {
                Ok(Reach::OnLink { interface }) => {
                    hops.insert(NextHop {
                        gateway,
                        interface,
                        onlink: false,
                        extra_weight: 0,
                    });
                }
                Ok(reach) => reasons.push(not_on_link(gateway, &reach)),
                Err(error) => reasons.push(format!("cannot look up next hop {gateway}: {error}")),
            }
        }
        if hops.is_empty() {
            if reasons.is_empty() {
                reasons.push("it has no next hop".to_owned());
            }
            return Err(reasons.join("; "));
        }
        Ok(RouteTarget::next_hops(hops))
    }
}

fn same_batch(first: &Step, next: &Step) -> bool {
    match (first, next) {
        (Step::Route(_), Step::Route(_)) => true,
        (Step::Neighbour { device: a, .. }, Step::Neighbour { device: b, .. }) => a == b,
        _ => false,
    }
}

fn on_vxlan(change: NeighbourChange) -> Step {
    Step::Neighbour {
        device: VXLAN_DEVICE.to_owned(),
        change,
    }
}

fn read(what: &'static str) -> impl Fn(KernelError) -> ApplyError {
    move |source| ApplyError::Read { what, source }
}

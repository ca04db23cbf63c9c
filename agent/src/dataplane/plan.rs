//! The whole of it: desired state, plan, apply.
//!
//! The order of a plan is the order in which no packet is lost: settings, tunnels made or
//! repaired, neighbour entries added, routes added and replaced, routes deleted, neighbour
//! entries removed, tunnels removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::error::KernelError;
use super::kernel::Kernel;
use super::link::Link;
use super::neighbours::{self, NeighbourChange, VxlanPeer};
use super::onlink::{Invalidator, Reach, ReachCache};
use super::routes::{
    self, DesiredRoute, DesiredRoutes, NextHop, Route, RouteChange, RouteKey, RouteKind,
    RouteTarget,
};
use super::sysctl::{DesiredSysctls, SysctlChange, SysctlTree};
use super::tunnel::{self, IPIP_DEVICE, TunnelChange, TunnelMode, TunnelSpec, VXLAN_DEVICE};

/// All that Margay wants of the node's kernel, filtering aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Settings of the node; those of tunnel devices are added by the dataplane.
    pub sysctls: DesiredSysctls,
    /// The tunnel devices; ours that are not listed are removed.
    pub tunnels: Vec<TunnelSpec>,
    /// The far ends of the VXLAN device, if there is one.
    pub vxlan_peers: Vec<VxlanPeer>,
    /// The routes; ours (protocol 90) that are not listed are removed.
    pub routes: DesiredRoutes,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A setting.
    Sysctl(SysctlChange),
    /// A tunnel device.
    Tunnel(TunnelChange),
    /// A permanent entry of a tunnel device.
    Neighbour {
        /// The device.
        device: String,
        /// The change.
        change: NeighbourChange,
    },
    /// A route.
    Route(RouteChange),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(change) => write!(f, "{change}"),
            Self::Tunnel(change) => write!(f, "{change}"),
            Self::Neighbour { device, change } => match change {
                NeighbourChange::Set(entry) => write!(f, "set {entry} dev {device}"),
                NeighbourChange::Remove(entry) => write!(f, "remove {entry} dev {device}"),
            },
            Self::Route(change) => write!(f, "{change}"),
        }
    }
}

/// Something wanted that cannot be put to the kernel as things are. What the kernel holds for it
/// stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct PlanProblem {
    /// What is concerned, such as "route 10.1.0.0/26".
    pub object: String,
    /// Why it cannot be, and the way out.
    pub reason: String,
}

/// The changes that turn what the kernel holds into what is wanted, in order. Prints one change
/// a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes.
    pub steps: Vec<Step>,
    /// What had to be left out.
    pub problems: Vec<PlanProblem>,
}

impl Plan {
    /// Whether the kernel is as wanted already, problems aside.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for problem in &self.problems {
            writeln!(f, "# {problem}")?;
        }
        Ok(())
    }
}

/// A change that failed, or a wanted thing that could not be planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The kernel refused a change.
    #[error("{step}: {source}")]
    Step {
        /// The change.
        step: Step,
        /// Why.
        source: KernelError,
    },
    /// A wanted thing was left out of the plan.
    #[error(transparent)]
    Problem(#[from] PlanProblem),
    /// The kernel's state could not be read, so nothing was changed.
    #[error("cannot read the kernel's {what}: {source}")]
    Read {
        /// What was being read.
        what: &'static str,
        /// Why.
        source: KernelError,
    },
}

/// What an apply did.
#[derive(Debug, Default)]
pub struct ApplyReport {
    /// The changes made.
    pub changes: Vec<Step>,
    /// What failed; everything else was done all the same.
    pub errors: Vec<ApplyError>,
}

impl ApplyReport {
    /// Whether everything wanted is now in the kernel.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }
}

impl fmt::Display for ApplyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for error in &self.errors {
            writeln!(f, "# failed: {error}")?;
        }
        Ok(())
    }
}

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

        let neighbours = self.plan_neighbours(desired, &view, &mut plan).await?;
        let (set, remove): (Vec<_>, Vec<_>) = neighbours
            .into_iter()
            .partition(|change| matches!(change, NeighbourChange::Set(_)));
        plan.steps.extend(set.into_iter().map(on_vxlan));
        self.plan_routes(desired, &view, &mut plan).await?;
        plan.steps.extend(remove.into_iter().map(on_vxlan));
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
                    Err(source) => report.errors.push(ApplyError::Step { step, source }),
                }
            }
        }
        report
    }

    /// Puts in these routes at once, without comparing the whole table: the way a pod that has
    /// just been wired becomes reachable. The routes must also be in every [`DesiredState`]
    /// applied afterwards, or they are removed again.
    pub async fn ensure_routes(&mut self, wanted: &DesiredRoutes) -> ApplyReport {
        let links = match self.kernel.links().await {
            Ok(links) => links,
            Err(source) => {
                return ApplyReport {
                    changes: Vec::new(),
                    errors: vec![read("links")(source)],
                };
            }
        };
        let view = View::new(&links, &[]);
        let mut plan = Plan::default();
        for (destination, route) in wanted.iter() {
            match self.resolve(*destination, route, &view).await {
                Ok(route) => plan.steps.push(Step::Route(RouteChange::Add(route))),
                Err(problem) => plan.problems.push(problem),
            }
        }
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
        Ok(RouteTarget::NextHops(hops))
    }
}

/// What the links will be once the tunnels are as planned.
struct View<'a> {
    links: BTreeMap<&'a str, &'a Link>,
    /// Devices that will be made: nothing is on them yet.
    fresh: BTreeSet<&'a str>,
    /// Devices that are there and will be made anew.
    recreated: BTreeSet<&'a str>,
}

impl<'a> View<'a> {
    fn new(links: &'a [Link], tunnels: &'a [TunnelChange]) -> Self {
        let mut fresh = BTreeSet::new();
        let mut recreated = BTreeSet::new();
        for change in tunnels {
            match change {
                TunnelChange::Create(spec) => {
                    fresh.insert(spec.name.as_str());
                }
                TunnelChange::Recreate { spec, .. } => {
                    fresh.insert(spec.name.as_str());
                    recreated.insert(spec.name.as_str());
                }
                TunnelChange::Set { .. } | TunnelChange::Remove { .. } => {}
            }
        }
        Self {
            links: links
                .iter()
                .map(|link| (link.name.as_str(), link))
                .collect(),
            fresh,
            recreated,
        }
    }

    fn usable(&self, interface: &str) -> Result<(), String> {
        match self.links.get(interface) {
            None => Err(format!("interface {interface} does not exist")),
            Some(link) if !link.up => Err(format!("interface {interface} is down")),
            Some(_) => Ok(()),
        }
    }
}

fn tunnelled(
    destination: IpNetwork,
    device: &str,
    next_hops: &[IpAddr],
    view: &View<'_>,
) -> Result<RouteTarget, String> {
    if next_hops.is_empty() {
        return Err("it has no next hop".to_owned());
    }
    if device == IPIP_DEVICE && (destination.is_ipv6() || next_hops.iter().any(IpAddr::is_ipv6)) {
        return Err("ipip carries IPv4 over IPv4 only: use vxlan for IPv6 pools".to_owned());
    }
    if destination.is_ipv6() && next_hops.iter().any(IpAddr::is_ipv4) {
        return Err("an IPv6 route needs the node's IPv6 address as next hop".to_owned());
    }
    let known = view.links.contains_key(device) || view.fresh.contains(device);
    if !known {
        return Err(format!(
            "tunnel device {device} is not there and not among the wanted tunnels"
        ));
    }
    let hops = next_hops.iter().map(|gateway| NextHop {
        gateway: *gateway,
        interface: device.to_owned(),
        onlink: true,
    });
    Ok(RouteTarget::NextHops(hops.collect()))
}

fn not_on_link(next_hop: IpAddr, reach: &Reach) -> String {
    match reach {
        Reach::Via { gateway, interface } => format!(
            "next hop {next_hop} shares no segment with this node (it is behind {gateway} on {interface}): use a tunnel, or announce the route with a next hop of this segment"
        ),
        Reach::Local => format!("next hop {next_hop} is this node itself"),
        Reach::Unreachable | Reach::OnLink { .. } => {
            format!("next hop {next_hop} cannot be reached")
        }
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

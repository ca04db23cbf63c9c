//! What should be in the kernel's table and what is known to be, prefix by prefix. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use margay_bgp::speaker::{BestPath, RouteBatch};
use margay_dataplane::{KernelError, Route, RouteChange, RouteKey, RouteTarget};

/// One way packets to a prefix may go, as BGP has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Way {
    /// The next hop.
    pub(super) next_hop: IpAddr,
    /// The index of the interface of a link-local next hop; 0 for all others.
    pub(super) scope: u32,
    /// Its share of the load beside the others, less one.
    pub(super) extra_weight: u8,
}

/// The ways of one prefix, in order. Many prefixes share one value. None at all: packets are thrown
/// away, as for an aggregate.
pub(super) type Ways = Arc<[Way]>;

/// What is wanted for one prefix.
#[derive(Debug)]
struct Wanted {
    ways: Ways,
    /// The metric that a filter gave the route.
    metric: Option<u32>,
}

/// Where the kernel would send packets that take some [`Ways`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolution {
    /// There: every name resolved.
    To(RouteTarget),
    /// Nowhere as things are, with the reason: there must be no route.
    Nowhere(String),
    /// The kernel could not be asked: what it holds stays.
    Unknown(String),
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    metric: Option<u32>,
    wanted: BTreeMap<IpNetwork, Wanted>,
    /// None: the kernel has to be asked.
    resolved: HashMap<Ways, Option<Resolution>>,
    /// Our routes in the kernel, as far as is known.
    held: BTreeMap<RouteKey, RouteTarget>,
    /// Destinations of routes that an earlier process left and nobody has wanted since.
    stale: BTreeSet<IpNetwork>,
    /// Destinations to be looked at.
    dirty: BTreeSet<IpNetwork>,
    /// While a snapshot comes in: what was wanted before and has not been confirmed.
    unconfirmed: Option<BTreeSet<IpNetwork>>,
    failed: BTreeMap<IpNetwork, String>,
}

impl Table {
    pub(super) fn new(metric: Option<u32>) -> Self {
        Self {
            metric,
            ..Self::default()
        }
    }

    /// Takes in what the kernel holds at the start, to be kept until [`Self::drop_stale`].
    pub(super) fn begin(&mut self, actual: Vec<Route>) {
        self.stale = actual.iter().map(|route| route.destination).collect();
        self.handle_kernel(actual);
    }

    /// Takes in what the kernel holds; everything is compared anew.
    pub(super) fn handle_kernel(&mut self, actual: Vec<Route>) {
        let odd = actual.iter().map(|route| route.destination);
        self.dirty.extend(odd);
        self.dirty.extend(self.wanted.keys());
        let mut shared: BTreeSet<RouteTarget> = BTreeSet::new();
        let keyed = actual.into_iter().map(|route| {
            // The preferred source is never ours to set, so such a route differs.
            let target = match route.source {
                None => match shared.get(&route.target) {
                    Some(known) => known.clone(),
                    None => {
                        shared.insert(route.target.clone());
                        route.target.clone()
                    }
                },
                Some(source) => RouteTarget::Other(format!("from {source}")),
            };
            (route.key(), target)
        });
        self.held = keyed.collect();
    }

    /// A snapshot of all that is wanted begins: until it is over nothing is taken for unwanted
    /// because it has not come yet.
    pub(super) fn begin_snapshot(&mut self) {
        self.unconfirmed = Some(self.wanted.keys().copied().collect());
    }

    /// Takes in changes of the best routes.
    pub(super) fn handle_routes(&mut self, batch: RouteBatch) {
        for change in batch.changes {
            let destination = IpNetwork::from(change.prefix);
            let metric = change.paths.first().and_then(|best| best.metric);
            match ways(&change.paths) {
                Some(ways) => self.want(destination, ways, metric),
                None => self.forget(destination),
            }
            if let Some(unconfirmed) = &mut self.unconfirmed {
                unconfirmed.remove(&destination);
            }
        }
        if batch.synced
            && let Some(unconfirmed) = self.unconfirmed.take()
        {
            for destination in unconfirmed {
                self.forget(destination);
            }
        }
    }

    fn want(&mut self, destination: IpNetwork, ways: Vec<Way>, metric: Option<u32>) {
        let ways = match self.resolved.get_key_value(ways.as_slice()) {
            Some((known, _)) => Arc::clone(known),
            None => {
                let new: Ways = ways.into();
                self.resolved.insert(Arc::clone(&new), None);
                new
            }
        };
        self.stale.remove(&destination);
        self.wanted.insert(destination, Wanted { ways, metric });
        self.dirty.insert(destination);
    }

    fn forget(&mut self, destination: IpNetwork) {
        if self.wanted.remove(&destination).is_some() {
            self.dirty.insert(destination);
        }
    }

    /// Whether no snapshot is coming in.
    pub(super) fn is_complete(&self) -> bool {
        self.unconfirmed.is_none()
    }

    /// What failed is to be looked at again.
    pub(super) fn retry_failed(&mut self) {
        self.dirty.extend(self.failed.keys());
    }

    /// From now on nothing is kept because an earlier process left it. Gives how many go.
    pub(super) fn drop_stale(&mut self) -> usize {
        let stale = std::mem::take(&mut self.stale);
        self.dirty.extend(&stale);
        stale.len()
    }

    /// Nothing is wanted any more, nor kept.
    pub(super) fn clear(&mut self) {
        self.dirty.extend(self.wanted.keys());
        self.wanted.clear();
        self.drop_stale();
    }

    /// The ways that the kernel has to be asked about.
    pub(super) fn unresolved(&self) -> Vec<Ways> {
        let open = self.resolved.iter().filter(|(_, known)| known.is_none());
        open.map(|(ways, _)| Arc::clone(ways)).collect()
    }

    /// All ways in use. Those that no prefix takes any more are forgotten.
    pub(super) fn all_ways(&mut self) -> Vec<Ways> {
        self.resolved.retain(|ways, _| Arc::strong_count(ways) > 1);
        self.resolved.keys().cloned().collect()
    }

    /// Takes in the answers about some ways.
    pub(super) fn handle_resolved(&mut self, answers: Vec<(Ways, Resolution)>) {
        let mut changed = BTreeSet::new();
        for (ways, answer) in answers {
            if let Some(known) = self.resolved.get_mut(&ways)
                && known.as_ref() != Some(&answer)
            {
                // At first nobody can have been routed by it: its prefixes are to be looked at
                // already.
                if known.is_some() {
                    changed.insert(ways);
                }
                *known = Some(answer);
            }
        }
        if !changed.is_empty() {
            let concerned = self.wanted.iter();
            let concerned = concerned.filter(|(_, wanted)| changed.contains(&wanted.ways));
            self.dirty
                .extend(concerned.map(|(destination, _)| *destination));
        }
    }

    /// Whether there is something to plan.
    pub(super) fn has_work(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What turns the kernel's table into what is wanted, for the destinations that are to be
    /// looked at: additions and replacements, then deletions. Empties that list. The changes are
    /// taken for made at once, so that the next plan need not wait for the kernel: they have to be
    /// made in the order of the plans, and what was refused goes to [`Self::handle_refused`].
    pub(super) fn plan(&mut self) -> Vec<RouteChange> {
        let mut changes = Vec::new();
        let mut deletions = Vec::new();
        for destination in std::mem::take(&mut self.dirty) {
            self.failed.remove(&destination);
            let wanted = match self.target(destination) {
                Ok(wanted) => wanted,
                // The kernel could not be asked.
                Err(reason) => {
                    self.failed.insert(destination, reason);
                    continue;
                }
            };
            let key = wanted.as_ref().map(Route::key);
            if let Some(route) = wanted {
                match self.held.get(&route.key()) {
                    Some(held) if *held == route.target => {}
                    Some(_) => changes.push(RouteChange::Replace(route)),
                    None => changes.push(RouteChange::Add(route)),
                }
            }
            if self.stale.contains(&destination) {
                continue;
            }
            let others = self.held.range(range_of(destination));
            let others = others.filter(|(held, _)| Some(**held) != key);
            deletions.extend(others.map(|(held, _)| RouteChange::Delete(*held)));
        }
        changes.sort_by_cached_key(|change| spread(change.key().destination));
        changes.extend(deletions);
        for change in &changes {
            match change {
                RouteChange::Add(route) | RouteChange::Replace(route) => {
                    self.held.insert(route.key(), route.target.clone());
                }
                RouteChange::Delete(key) => drop(self.held.remove(key)),
            }
        }
        changes
    }

    /// The route wanted for a destination, if one is wanted and can be; an error if that is not
    /// known.
    fn target(&mut self, destination: IpNetwork) -> Result<Option<Route>, String> {
        let Some(Wanted { ways, metric }) = self.wanted.get(&destination) else {
            return Ok(None);
        };
        match self.resolved.get(ways).and_then(Option::as_ref) {
            Some(Resolution::To(target)) => {
                let mut route = Route::new(destination, target.clone());
                route.metric = metric.or(self.metric).unwrap_or(route.metric);
                Ok(Some(route))
            }
            Some(Resolution::Nowhere(reason)) => {
                self.failed.insert(destination, reason.clone());
                Ok(None)
            }
            Some(Resolution::Unknown(reason)) => Err(reason.clone()),
            None => Err("the next hop has not been looked up".to_owned()),
        }
    }

    /// A change of a plan was not made.
    pub(super) fn handle_refused(&mut self, change: &RouteChange, error: &KernelError) {
        let key = change.key();
        match change {
            RouteChange::Add(_) => drop(self.held.remove(&key)),
            // Whatever is there now, it is not what is wanted.
            RouteChange::Replace(_) | RouteChange::Delete(_) => {
                let unknown = RouteTarget::Other("unknown".to_owned());
                self.held.insert(key, unknown);
            }
        }
        self.failed.insert(key.destination, error.to_string());
    }

    /// How many routes are wanted.
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// What is not as wanted, with the reason.
    pub(super) fn failed(&self) -> &BTreeMap<IpNetwork, String> {
        &self.failed
    }
}

/// Where a destination comes in a plan: neighbours in the table far from one another. The kernel's
/// trie doubles a node each time its neighbourhood fills up; filled from everywhere at once it does
/// so seldom, and ten thousand routes take a sixth less of its time than in ascending order.
fn spread(destination: IpNetwork) -> u128 {
    match destination.network() {
        IpAddr::V4(address) => u128::from(address.to_bits().reverse_bits()),
        IpAddr::V6(address) => address.to_bits().reverse_bits(),
    }
}

/// Every route to a destination, whatever its metric.
fn range_of(destination: IpNetwork) -> std::ops::RangeInclusive<RouteKey> {
    let key = |metric, tos| RouteKey {
        destination,
        metric,
        tos,
    };
    key(0, 0)..=key(u32::MAX, u8::MAX)
}

/// The ways of some best paths; none if there is nothing to install: no path, or one of our own
/// that is no aggregate. An aggregate takes what none of its more specific routes does: a default
/// route must not send that back to whoever sent it here (RFC 4632 section 5.1).
fn ways(paths: &[BestPath]) -> Option<Vec<Way>> {
    if paths.iter().any(|path| path.aggregate) {
        return Some(Vec::new());
    }
    if paths.is_empty() || paths.iter().any(|path| path.local) {
        return None;
    }
    let mut ways: Vec<Way> = paths
        .iter()
        .map(|path| Way {
            next_hop: path.next_hop,
            scope: path.scope,
            extra_weight: path.weight.saturating_sub(1),
        })
        .collect();
    ways.sort_unstable();
    ways.dedup_by(|next, first| (next.next_hop, next.scope) == (first.next_hop, first.scope));
    Some(ways)
}

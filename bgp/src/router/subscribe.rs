//! Routes for whoever installs them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::view::{BestPath, RouteBatch, RouteChange};
use super::ways::{bandwidth, weigh};
use super::{Output, Router};
use crate::config::Aggregate;
use crate::rib::{DEFAULT_LOCAL_PREF, Destination, DestinationId, Rib, View};
use crate::types::{Family, Prefix};

/// Changes in one batch at most.
const BATCH: usize = 4096;

/// Names a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriberId(u64);

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) view: View,
    armed: bool,
    synced: bool,
}

impl Subscriber {
    /// Notes that there is something to fetch; true if the owner has to be told.
    pub(super) fn arm(&mut self) -> bool {
        !std::mem::replace(&mut self.armed, true)
    }
}

impl Router {
    /// A new subscriber, which is going to be told of every best route there is and then of every change.
    pub fn subscribe(&mut self) -> SubscriberId {
        let id = SubscriberId(self.next_subscriber);
        self.next_subscriber += 1;
        let view = View::new(self.rib.table());
        self.subscribers.insert(
            id,
            Subscriber {
                view,
                armed: true,
                synced: false,
            },
        );
        self.outputs.push_back(Output::Routes(id));
        id
    }

    /// Has a subscriber told everything again.
    pub(super) fn feed_subscriber_again(&mut self, id: SubscriberId) {
        if let Some(subscriber) = self.subscribers.get_mut(&id) {
            for destination in (0..self.rib.table().end().0).map(DestinationId) {
                if self.rib.table().get(destination).is_some() {
                    subscriber.view.mark(self.rib.table_mut(), destination);
                }
            }
            if subscriber.arm() {
                self.outputs.push_back(Output::Routes(id));
            }
        }
    }

    /// Forgets a subscriber.
    pub fn unsubscribe(&mut self, id: SubscriberId) {
        if let Some(subscriber) = self.subscribers.remove(&id) {
            subscriber.view.retire(self.rib.table_mut());
        }
    }

    /// The next changes for a subscriber. `None`: none for now, and [`Output::Routes`] will say when there are.
    ///
    /// Changes that are not fetched wait here, one for each prefix at most; the latest state is what counts.
    pub fn poll_routes(&mut self, id: SubscriberId) -> Option<RouteBatch> {
        let by_bandwidth = self.config.multipath.weight_by_link_bandwidth;
        let subscriber = self.subscribers.get_mut(&id)?;
        if self.deferral.is_some() {
            subscriber.armed = false;
            return None;
        }
        while subscriber.view.has_work() || !subscriber.synced {
            let taken = subscriber.view.take(self.rib.table_mut(), BATCH);
            let mut changes = Vec::with_capacity(taken.len());
            for destination_id in taken {
                let Some(destination) = self.rib.table().get(destination_id) else {
                    continue;
                };
                let change = describe(
                    &self.rib,
                    destination,
                    by_bandwidth,
                    &self.config.aggregates,
                );
                let known = !change.paths.is_empty();
                if known || subscriber.view.knows(destination_id) {
                    changes.push(change);
                }
                subscriber
                    .view
                    .settle(self.rib.table_mut(), destination_id, known);
            }
            let first_sync = !subscriber.synced && !subscriber.view.is_feeding();
            subscriber.synced |= first_sync;
            if first_sync || !changes.is_empty() {
                return Some(RouteBatch {
                    changes,
                    synced: subscriber.synced,
                });
            }
        }
        subscriber.armed = false;
        None
    }
}

fn describe(
    rib: &Rib,
    destination: Destination<'_>,
    by_bandwidth: bool,
    aggregates: &BTreeMap<Prefix, Aggregate>,
) -> RouteChange {
    let prefix = destination.prefix();
    let nowhere = match prefix.family() {
        Family::Ipv4Unicast => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::Ipv6Unicast => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut paths: Vec<BestPath> = Vec::new();
    let mut bandwidths = Vec::new();
    let all = destination.paths();
    let best = all.iter().filter(|path| path.is_best());
    for path in best.chain(
        all.iter()
            .filter(|path| path.is_multipath() && !path.is_best()),
    ) {
        let from = rib.neighbor(path.source());
        let route = rib.route(path.effective());
        let attributes = &route.attributes;
        let next_hop = route.next_hop.map_or(nowhere, |n| n.address());
        let on_link = matches!(next_hop, IpAddr::V6(address) if address.is_unicast_link_local());
        let described = BestPath {
            next_hop,
            scope: from.filter(|_| on_link).map_or(0, |from| from.scope),
            peer: from.map_or(nowhere, |from| from.address),
            internal: from.is_some_and(|from| from.internal),
            local: path.source().is_local(),
            aggregate: path.source().is_local() && aggregates.contains_key(&prefix),
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            med: attributes.med,
            metric: route.metric,
            weight: 1,
            as_path_length: u32::try_from(attributes.as_path.length()).unwrap_or(u32::MAX),
        };
        // Two peers with the same next hop are one way for packets.
        if paths
            .iter()
            .all(|known| (known.next_hop, known.scope) != (described.next_hop, described.scope))
        {
            paths.push(described);
            bandwidths.push(bandwidth(rib, path));
        }
    }
    if by_bandwidth {
        weigh(&mut paths, &bandwidths);
    }
    RouteChange { prefix, paths }
}

//! Routes by the batch: with next hop objects where many share one, and what to do about those the
//! kernel refuses.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::PoisonError;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::error::KernelError;
use super::super::routes::{Route, RouteChange, RouteKey, RouteTarget};
use super::netlink::NetlinkKernel;
use super::next_hop_objects::Hop;
use super::route_message::{self, Indices};
use super::socket::Socket;

/// How many route changes are messages at a time: a message is much larger than a change.
const ENCODED: usize = 512;
/// From how many routes of one call on a next hop gets an object of its own.
const SHARED: usize = 32;

impl NetlinkKernel {
    /// Makes the changes in order; one result a change.
    pub(super) async fn change_routes(
        &self,
        changes: &[RouteChange],
        indices: &Indices,
    ) -> Vec<Result<(), KernelError>> {
        let objects = self.objects_for(changes, indices);
        let mut results = Vec::with_capacity(changes.len());
        for (some, objects) in changes.chunks(ENCODED).zip(objects.chunks(ENCODED)) {
            let numbers = objects
                .iter()
                .map(|object| object.map(|(_, number)| number));
            let encoded = some
                .iter()
                .zip(numbers)
                .map(|(change, number)| encode(change, indices, self.table, number))
                .collect();
            results.extend(send_encoded(&self.socket, encoded).await);
        }
        self.without_objects(changes, &objects, indices, &mut results)
            .await;
        for (change, result) in changes.iter().zip(&mut results) {
            // Gone already is what was wanted.
            let gone = matches!(result, Err(error) if error.is_absent());
            if gone && matches!(change, RouteChange::Delete(_)) {
                *result = Ok(());
            }
        }
        self.settle_existing(changes, indices, &mut results).await;
        results
    }

    /// Takes away the next hop objects of this table that are not `used`.
    pub(super) fn remove_unused_objects(&self, used: &HashSet<u32>) {
        if let Some(objects) = &self.objects {
            let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = objects.remove_unused(used) {
                tracing::debug!("next hop objects stay: {error}");
            }
        }
    }

    /// Our routes, and the next hop objects they use.
    pub(super) async fn read_routes(&self) -> Result<(Vec<Route>, HashSet<u32>), KernelError> {
        let names = self.names().await?;
        let mut routes = Vec::new();
        let mut objects = HashSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let request =
                RouteNetlinkMessage::GetRoute(route_message::routes_request(family, self.table));
            let items = match self.socket.dump(request).await {
                // A kernel without IPv6, or a table that was never made.
                Err(error) if error.is_unsupported() || error.is_absent() => continue,
                other => other?,
            };
            for item in &items {
                if let RouteNetlinkMessage::NewRoute(message) = item
                    && let Some(route) = route_message::parse_route(message, &names, self.table)
                {
                    objects.extend(route_message::next_hop_object(message));
                    routes.push(route);
                }
            }
        }
        Ok((routes, objects))
    }

    /// The next hop object for each change that is to use one.
    fn objects_for(&self, changes: &[RouteChange], indices: &Indices) -> Vec<Option<(Hop, u32)>> {
        let Some(objects) = &self.objects else {
            return vec![None; changes.len()];
        };
        let hops: Vec<_> = changes
            .iter()
            .map(|change| single(change, indices))
            .collect();
        let mut shared: HashMap<Hop, usize> = HashMap::new();
        for hop in hops.iter().flatten() {
            *shared.entry(*hop).or_default() += 1;
        }
        let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers: HashMap<Hop, Option<u32>> = shared
            .into_iter()
            .map(|(hop, routes)| match routes {
                SHARED.. => (hop, objects.number(hop)),
                _ => (hop, objects.known(&hop)),
            })
            .collect();
        let number = |hop: Hop| Some((hop, (*numbers.get(&hop)?)?));
        hops.into_iter().map(|hop| number(hop?)).collect()
    }

    /// Makes those changes again, with the gateway in the route, that the kernel did not want with
    /// an object: the object may be gone, and if not, its reason is about the route.
    async fn without_objects(
        &self,
        changes: &[RouteChange],
        used: &[Option<(Hop, u32)>],
        indices: &Indices,
        results: &mut [Result<(), KernelError>],
    ) {
        let Some(objects) = &self.objects else {
            return;
        };
        let mut again = Vec::new();
        for (position, (result, used)) in results.iter().zip(used).enumerate() {
            let refused = matches!(result, Err(error) if !error.is_exists());
            if let (true, Some((hop, _))) = (refused, used) {
                let mut objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
                objects.forget(hop);
                again.push(position);
            }
        }
        for some in again.chunks(ENCODED) {
            let encoded = some
                .iter()
                .map(|position| encode(&changes[*position], indices, self.table, None))
                .collect();
            let outcomes = send_encoded(&self.socket, encoded).await;
            for (position, outcome) in some.iter().zip(outcomes) {
                results[*position] = outcome;
            }
        }
    }

    /// Turns "already exists" into a replacement where the route is ours (a dump may have missed
    /// it), and into a plain sentence where it is not.
    async fn settle_existing(
        &self,
        changes: &[RouteChange],
        indices: &Indices,
        results: &mut [Result<(), KernelError>],
    ) {
        let refused: Vec<usize> = results
            .iter()
            .enumerate()
            .filter(|(_, result)| matches!(result, Err(error) if error.is_exists()))
            .map(|(position, _)| position)
            .collect();
        if refused.is_empty() {
            return;
        }
        let Ok((ours, _)) = self.read_routes().await else {
            return;
        };
        let ours: BTreeSet<RouteKey> = ours.iter().map(Route::key).collect();
        for position in refused {
            results[position] = match &changes[position] {
                RouteChange::Add(route) if ours.contains(&route.key()) => {
                    let replace = RouteChange::Replace(route.clone());
                    match encode(&replace, indices, self.table, None) {
                        Ok((message, flags)) => self.socket.send_one(message, flags).await,
                        Err(error) => Err(error),
                    }
                }
                _ => Err(KernelError::ForeignRoute),
            };
        }
    }
}

/// The next hop of a route that has one and could use an object for it.
fn single(change: &RouteChange, indices: &Indices) -> Option<Hop> {
    let (route, is_new) = match change {
        RouteChange::Add(route) => (route, true),
        RouteChange::Replace(route) => (route, false),
        RouteChange::Delete(_) => return None,
    };
    let RouteTarget::NextHops(hops) = &route.target else {
        return None;
    };
    // The kernel takes no preferred source beside an object for IPv6, and there replaces a route
    // without one by one with one only beside it.
    if route.source.is_some() || (route.destination.is_ipv6() && !is_new) {
        return None;
    }
    let mut hops = hops.iter();
    match (hops.next(), hops.next()) {
        (Some(hop), None) => Some(Hop {
            gateway: hop.gateway,
            interface: *indices.get(&hop.interface)?,
            onlink: hop.onlink,
        }),
        _ => None,
    }
}

fn encode(
    change: &RouteChange,
    indices: &Indices,
    table: u32,
    object: Option<u32>,
) -> Result<(RouteNetlinkMessage, u16), KernelError> {
    let new = |route| {
        let message = route_message::route_message(route, indices, table, object)?;
        Ok(RouteNetlinkMessage::NewRoute(message))
    };
    Ok(match change {
        RouteChange::Add(route) => (new(route)?, NLM_F_CREATE | NLM_F_EXCL),
        RouteChange::Replace(route) => (new(route)?, NLM_F_CREATE | NLM_F_REPLACE),
        RouteChange::Delete(key) => (
            RouteNetlinkMessage::DelRoute(route_message::delete_message(key, table)),
            0,
        ),
    })
}

/// Runs the messages that could be encoded and puts the other errors in their places.
async fn send_encoded(
    socket: &Socket,
    encoded: Vec<Result<(RouteNetlinkMessage, u16), KernelError>>,
) -> Vec<Result<(), KernelError>> {
    let mut errors = Vec::with_capacity(encoded.len());
    let mut messages = Vec::with_capacity(encoded.len());
    for item in encoded {
        match item {
            Ok(message) => {
                messages.push(message);
                errors.push(None);
            }
            Err(error) => errors.push(Some(error)),
        }
    }
    let mut sent = socket.send(messages).await.into_iter();
    errors
        .into_iter()
        .map(|error| match error {
            Some(error) => Err(error),
            None => sent.next().unwrap_or(Err(KernelError::Closed)),
        })
        .collect()
}

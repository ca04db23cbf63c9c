//! The pools' status and their finalizer: what should stand on each pool, and writing it.
//!
//! A pool may not go while nodes hold blocks of it: their routes would be announced, and their
//! pods' packets forwarded, by rules that nobody has any more. So each pool carries the finalizer
//! `margay.dev/blocks`, and loses it when it is being deleted and no block is left that no other
//! pool has.
//!
//! How many addresses are in use is for people to read: where nothing else is to be said of a
//! pool, it is written every few seconds, not for each pod.

use std::collections::HashMap;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use margay_crds::field::join;
use margay_crds::ip_pool::allocatable::resolve;
use margay_crds::{BLOCKS_FINALIZER, Condition, IPAMBlock, IPPool, Pool};
use margay_ipam::report::{PoolUse, pool_use};
use margay_ipam::split::left_behind;
use margay_ipam::{SystemClock, clock::Clock};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::cluster_range::{ClusterRange, IN_CLUSTER_RANGE};
use super::world::Shared;
use crate::status::conditions;

/// The condition's type.
const ALLOCATABLE: &str = "Allocatable";
/// How long changes gather before the pools are looked at: a hundred pods that start together
/// change a status once.
const GATHER: Duration = Duration::from_millis(500);
/// How long new counts alone wait after a write.
const COUNTS: Duration = Duration::from_secs(10);
/// How often the pools are looked at although nothing seems to have changed.
const REFRESH: Duration = Duration::from_secs(60);
/// How long one write may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the pools' status and finalizers for as long as this process leads.
pub(super) async fn run(client: Client, shared: Shared) {
    let pools: Api<IPPool> = Api::all(client);
    let mut changes = shared.changes();
    let mut pace = Pace::default();
    loop {
        let seen = changes.borrow_and_update().addresses;
        let now = format!("{:.0}", SystemClock.now());
        let wishes = shared.with(|world| {
            world.is_synced().then(|| {
                let objects: Vec<IPPool> = world.pools.values().cloned().collect();
                let blocks: Vec<&IPAMBlock> = world.blocks.values().collect();
                wishes(&objects, &blocks, &world.range, &now)
            })
        });
        let is_synced = wishes.is_some();
        let (wishes, refresh) = pace.due(wishes.unwrap_or_default(), Instant::now());
        for wish in wishes {
            match fulfil(&pools, &wish).await {
                Ok(()) => pace.written(&wish, Instant::now()),
                Err(words) => tracing::debug!("IPPool {}: {words}", wish.name),
            }
        }
        tokio::time::sleep(GATHER).await;
        if is_synced {
            let other = changes.wait_for(|counts| counts.addresses != seen);
            // The watches end only with this task.
            let _ = tokio::time::timeout(refresh, other).await;
        }
    }
}

/// What is to be written on one pool.
#[derive(Debug, Clone, PartialEq)]
struct Wish {
    name: String,
    version: Option<String>,
    finalizers: Option<Vec<String>>,
    status: Option<Value>,
    /// What the status says beside the counts stands there already.
    only_counts: bool,
}

/// When each pool's counts were last written.
#[derive(Debug, Default)]
struct Pace(HashMap<String, Instant>);

impl Pace {
    /// The wishes whose time has come, and how long the others can wait at most.
    fn due(&mut self, mut wishes: Vec<Wish>, now: Instant) -> (Vec<Wish>, Duration) {
        self.0
            .retain(|_, at| now.saturating_duration_since(*at) < COUNTS);
        let mut longest = REFRESH;
        wishes.retain(|wish| {
            let last = self.0.get(&wish.name).filter(|_| wish.only_counts);
            let Some(last) = last else {
                return true;
            };
            longest = longest.min(COUNTS.saturating_sub(now.saturating_duration_since(*last)));
            false
        });
        (wishes, longest)
    }

    /// The wish has been fulfilled.
    fn written(&mut self, wish: &Wish, now: Instant) {
        if wish.status.is_some() {
            self.0.insert(wish.name.clone(), now);
        }
    }
}

/// What differs from what stands on the pools.
fn wishes(objects: &[IPPool], blocks: &[&IPAMBlock], range: &ClusterRange, now: &str) -> Vec<Wish> {
    let resolved = resolve(objects);
    let counted = pool_use(&resolved, blocks.iter().copied(), &[]);
    let wishes = objects.iter().map(|object| {
        let name = object.name_any();
        let found = resolved
            .iter()
            .zip(&counted)
            .find(|(pool, _)| pool.name == name);
        let others: Vec<Pool> = resolved
            .iter()
            .filter(|pool| pool.name != name && !is_terminating(objects, &pool.name))
            .cloned()
            .collect();
        let finalizers = finalizers(object, found.map(|(pool, _)| pool), &others, blocks);
        let status = status(object, found, (blocks, range), now);
        let (status, says_more) = status.unzip();
        Wish {
            version: object.metadata.resource_version.clone(),
            status,
            only_counts: finalizers.is_none() && says_more == Some(false),
            finalizers,
            name,
        }
    });
    wishes
        .filter(|wish| wish.finalizers.is_some() || wish.status.is_some())
        .collect()
}

fn is_terminating(objects: &[IPPool], name: &str) -> bool {
    let mut named = objects.iter().filter(|object| object.name_any() == name);
    named.any(|object| object.metadata.deletion_timestamp.is_some())
}

/// The finalizers that should stand on a pool, if they are others than those that do.
fn finalizers(
    object: &IPPool,
    pool: Option<&Pool>,
    others: &[Pool],
    blocks: &[&IPAMBlock],
) -> Option<Vec<String>> {
    let standing = object.finalizers();
    let has = standing.iter().any(|one| one == BLOCKS_FINALIZER);
    let deleting = object.metadata.deletion_timestamp.is_some();
    if deleting && has {
        // A pool that never made sense has no block.
        let waits =
            pool.is_some_and(|pool| !left_behind(pool, others, blocks.iter().copied()).is_empty());
        let without = standing.iter().filter(|one| *one != BLOCKS_FINALIZER);
        return (!waits).then(|| without.cloned().collect());
    }
    // None may be added to an object that is being deleted.
    (!deleting && !has).then(|| {
        let mut finalizers = standing.to_vec();
        finalizers.push(BLOCKS_FINALIZER.to_owned());
        finalizers
    })
}

/// The status that should stand on a pool, if it is another than the one that does, and whether
/// that says more than other counts.
fn status(
    object: &IPPool,
    found: Option<(&Pool, &PoolUse)>,
    (blocks, range): (&[&IPAMBlock], &ClusterRange),
    now: &str,
) -> Option<(Value, bool)> {
    let (good, reason, message) = match found {
        Some((pool, _)) => {
            let (good, reason, mut message) = pool.allocatable();
            if reason == "Terminating" {
                let left = left_behind(pool, &[], blocks.iter().copied()).len();
                message = format!("{message}: it waits for the last of its {left} blocks");
            }
            (good, reason, message)
        }
        None => {
            let words = object.check().err().map(|errors| join(&errors));
            (false, "Invalid", words.unwrap_or_default())
        }
    };
    let wanted = Condition {
        type_: ALLOCATABLE.to_owned(),
        status: if good { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: object.metadata.generation,
        last_transition_time: now.to_owned(),
    };
    let standing = object.status.clone().unwrap_or_default();
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let counted = found.map(|(_, counted)| counted);
    let capacity = counted.map(|counted| number(counted.capacity));
    let used = counted.map(|counted| number(counted.used));
    let held = counted.map(|counted| number(counted.blocks));
    let same = (standing.capacity, standing.used, standing.blocks) == (capacity, used, held);
    let inside = found.and_then(|(pool, _)| range.condition(pool, object.metadata.generation, now));
    let conditions = with_range(&standing.conditions, wanted, inside);
    if same && conditions.is_none() {
        return None;
    }
    let says_more = conditions.is_some();
    let status = json!({
        "conditions": conditions.unwrap_or(standing.conditions),
        "capacity": capacity, "used": used, "blocks": held,
    });
    Some((status, says_more))
}

/// `standing` with both conditions, or none if those that stand there say it. Where nothing is
/// known of the cluster's range, nothing is said of it.
fn with_range(
    standing: &[Condition],
    allocatable: Condition,
    inside: Option<Condition>,
) -> Option<Vec<Condition>> {
    let first = conditions::with(standing, allocatable);
    let known = first.as_deref().unwrap_or(standing);
    let second = match inside {
        Some(inside) => conditions::with(known, inside),
        None => {
            let others = known.iter().filter(|one| one.type_ != IN_CLUSTER_RANGE);
            let others: Vec<Condition> = others.cloned().collect();
            (others.len() < known.len()).then_some(others)
        }
    };
    second.or(first)
}

/// Writes what differs, if the pool is still the one that was looked at.
async fn fulfil(pools: &Api<IPPool>, wish: &Wish) -> Result<(), String> {
    let parameters = PatchParams::default();
    let mut version = wish.version.clone();
    if let Some(status) = &wish.status {
        let body = json!({"metadata": {"resourceVersion": version}, "status": status});
        let body = Patch::Merge(body);
        let patched = in_time(pools.patch_status(&wish.name, &parameters, &body)).await?;
        version = patched.metadata.resource_version;
    }
    if let Some(finalizers) = &wish.finalizers {
        let metadata = json!({"resourceVersion": version, "finalizers": finalizers});
        let body = Patch::Merge(json!({ "metadata": metadata }));
        in_time(pools.patch(&wish.name, &parameters, &body)).await?;
        if !finalizers.iter().any(|one| one == BLOCKS_FINALIZER) {
            tracing::info!("IPPool {}: no block is left, it may go", wish.name);
        }
    }
    Ok(())
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
#[path = "tests/pools.rs"]
mod tests;

//! The garbage collector's shell: scans, fresh looks, releases.

use std::time::{Duration, Instant};

use kube::Client;
use margay_ipam::garbage::{Case, Collector, Settings, Subject};
use margay_ipam::{KubeStore, NodeBlock, Store, StoreError, Timestamp, kube_facts};

use super::world::Shared;

/// The longest time between two scans.
const LONGEST: Duration = Duration::from_secs(60);
/// The shortest, whatever the grace period.
const SHORTEST: Duration = Duration::from_millis(500);
/// How long to wait when the API server could not be asked.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How many cases are judged at once.
const LIMIT: usize = 1000;

/// Collects for as long as this process leads.
pub(super) async fn run(client: Client, shared: Shared, grace: Duration, unclassed: bool) {
    let settings = |cooldown| Settings {
        grace,
        cooldown,
        limit: LIMIT,
    };
    let mut gc = GarbageCollection {
        store: KubeStore::new(client.clone()),
        client,
        unclassed,
        collector: Collector::new(settings(Duration::ZERO)),
    };
    // A suspicion is at most this much older than the scan that first has it.
    let interval = (grace / 8).clamp(SHORTEST, LONGEST);
    loop {
        let now = Instant::now();
        shared.with(|world| {
            let cooldown = u64::from(world.settings().cooldown_seconds);
            gc.collector.set(settings(Duration::from_secs(cooldown)));
            if world.is_synced() {
                gc.collector
                    .handle_scan(now, world.blocks.values(), &world.facts);
            }
        });
        if let Err(error) = gc.work_off(now).await {
            tracing::warn!("garbage collection waits: {error}");
            tokio::time::sleep(AFTER_FAILURE).await;
        }
        let due = gc
            .collector
            .next_due()
            .map(|due| due.saturating_duration_since(now));
        let pause = due.map_or(interval, |due| due.min(interval));
        tokio::time::sleep(pause.max(SHORTEST)).await;
    }
}

struct GarbageCollection {
    client: Client,
    store: KubeStore,
    unclassed: bool,
    collector: Collector,
}

impl GarbageCollection {
    /// Judges what is due by facts just read, and releases what is found guilty.
    ///
    /// # Errors
    /// When the API server cannot be asked: nothing is released unasked.
    async fn work_off(&mut self, now: Instant) -> Result<(), StoreError> {
        let due = self.collector.due(now);
        let mut guilty = Vec::new();
        for case in due {
            let fresh = kube_facts::of_case(&self.client, &case, self.unclassed).await?;
            if self.collector.handle_verdict(&case, &fresh) {
                guilty.push(case);
            }
        }
        for order in Collector::orders(guilty.iter()) {
            match order.carry_out(&self.store, Timestamp::now).await {
                Ok(freed) => {
                    for one in &freed {
                        tracing::info!(
                            "released {} of {} in block {}: {}",
                            one.address,
                            one.owner,
                            order.block,
                            reason(&guilty, &order.uid, &one.address)
                        );
                    }
                    close(&mut self.collector, &guilty, &order.uid);
                }
                // It stays a suspect, and is judged again at the next scan.
                Err(error) => tracing::warn!("IPAMBlock {}: {error}", order.block),
            }
        }
        for case in guilty.iter().filter(|case| case.subject == Subject::Block) {
            self.give_back(case).await;
        }
        Ok(())
    }

    /// Deletes the empty block of a node that is gone.
    async fn give_back(&mut self, case: &Case) {
        match self.delete(case).await {
            Ok(true) => {
                tracing::info!(
                    "block {} of Node {}, which is gone, given back",
                    case.block,
                    case.node
                );
                self.collector.forget(case);
            }
            Ok(false) => self.collector.forget(case),
            Err(error) => tracing::warn!("IPAMBlock {}: {error}", case.block),
        }
    }

    /// Whether it was there, empty and of the same node, and is gone now.
    async fn delete(&self, case: &Case) -> Result<bool, StoreError> {
        let Some(object) = self.store.get(&case.block).await? else {
            return Ok(false);
        };
        let same = object.metadata.uid.as_deref() == Some(&case.uid);
        let empty = NodeBlock::parse(object.clone()).is_ok_and(|block| block.is_empty());
        if !same || !empty {
            return Ok(false);
        }
        match self.store.delete(&object).await {
            Ok(()) => Ok(true),
            // Written since: no longer empty, or soon seen by the next scan.
            Err(StoreError::Conflict | StoreError::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn reason(guilty: &[Case], uid: &str, address: &str) -> String {
    let of = |case: &Case| match &case.subject {
        Subject::Address { allocation, reason } if allocation.address == address => {
            Some(reason.to_string())
        }
        _ => None,
    };
    let mut of_block = guilty.iter().filter(|case| case.uid == uid);
    of_block.find_map(of).unwrap_or_default()
}

fn close(collector: &mut Collector, guilty: &[Case], uid: &str) {
    for case in guilty.iter().filter(|case| case.uid == uid) {
        collector.forget(case);
    }
}

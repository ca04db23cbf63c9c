//! Observations for monitors: from the owner, which never waits for them, to whoever writes them down or sends them on.
//!
//! What waits for a monitor is bounded by its octets. A monitor that is too slow loses observations, which is counted, or is
//! cut off, as it has asked for. The routes that were there before it are told slice by slice, the next one when the last one
//! has been dealt with, in one order with what happens meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use tokio::sync::{Notify, mpsc};

use super::owner::Command;
use crate::observe::record::Recorded;
use crate::observe::{Interest, Observation, Timestamp};
use crate::router::AdjInWalk;

/// What a batch weighs beside its observations.
const BATCH: usize = 128;

/// Names a monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatchId(u64);

/// How a monitor wants to be told.
#[derive(Debug, Clone, Copy)]
pub struct Watching {
    /// Of what.
    pub interest: Interest,
    /// First the sessions that are established, then their routes, then an End-of-RIB for each.
    pub from_the_start: bool,
    /// Octets that may wait for it, roughly.
    pub room: usize,
    /// What happens when more would: it is cut off, or else what does not fit is lost and counted.
    pub cut_off: bool,
}

/// Observations of one moment.
#[derive(Debug)]
pub struct ObservationBatch {
    /// When they were made.
    pub at: Timestamp,
    /// In the order things happened.
    pub observations: Vec<Observation>,
    /// There is another slice of routes to ask for.
    more: bool,
    weight: usize,
    shared: Arc<Shared>,
}

impl Drop for ObservationBatch {
    fn drop(&mut self) {
        self.shared
            .waiting
            .fetch_sub(self.weight, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    lost: AtomicU64,
    cut: AtomicBool,
    news: Notify,
}

/// The observations of a speaker, for one monitor.
#[derive(Debug)]
pub struct Observations {
    id: WatchId,
    batches: mpsc::UnboundedReceiver<ObservationBatch>,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    ask: bool,
}

impl Observations {
    pub(super) fn new(commands: mpsc::Sender<Command>, given: Given) -> Self {
        Self {
            id: given.id,
            batches: given.batches,
            commands,
            shared: given.shared,
            ask: false,
        }
    }

    /// The next batch; `None` once the monitor was cut off or the speaker has stopped. Room for more is made when the batch
    /// is dropped. Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Option<ObservationBatch> {
        if self.ask {
            let more = Command::MoreRoutes { id: self.id };
            self.commands.send(more).await.ok()?;
            self.ask = false;
        }
        let batch = self.batches.recv().await?;
        self.ask |= batch.more;
        Some(batch)
    }

    /// Comes to an end when the monitor is cut off: it was too slow.
    pub async fn cut_off(&self) {
        while !self.is_cut_off() {
            self.shared.news.notified().await;
        }
    }

    /// Whether it was too slow.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// How many observations were lost since this was last asked.
    pub fn take_lost(&self) -> u64 {
        self.shared.lost.swap(0, Ordering::Relaxed)
    }
}

/// What the owner gives to a new monitor.
#[derive(Debug)]
pub(super) struct Given {
    id: WatchId,
    batches: mpsc::UnboundedReceiver<ObservationBatch>,
    shared: Arc<Shared>,
}

struct Watcher {
    how: Watching,
    batches: mpsc::UnboundedSender<ObservationBatch>,
    shared: Arc<Shared>,
    walk: Option<AdjInWalk>,
}

impl Watcher {
    /// False: the monitor is gone or was cut off.
    fn give(&self, at: Timestamp, observations: Vec<Observation>, more: bool) -> bool {
        let weights = observations.iter().map(Observation::weight);
        let weight = BATCH + weights.sum::<usize>();
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        if waiting + weight > self.how.room {
            if self.how.cut_off {
                self.shared.cut.store(true, Ordering::Relaxed);
                self.shared.news.notify_one();
                return false;
            }
            let lost = observations.len() as u64;
            self.shared.lost.fetch_add(lost, Ordering::Relaxed);
            return !self.batches.is_closed();
        }
        self.shared.waiting.fetch_add(weight, Ordering::Relaxed);
        let batch = ObservationBatch {
            at,
            observations,
            more,
            weight,
            shared: Arc::clone(&self.shared),
        };
        self.batches.send(batch).is_ok()
    }
}

/// All monitors.
#[derive(Default)]
pub(super) struct Watchers {
    next: u64,
    all: BTreeMap<WatchId, Watcher>,
}

impl Watchers {
    /// A new monitor.
    pub(super) fn add(&mut self, router: &mut Recorded, how: Watching) -> Given {
        // What has been observed so far is for the others.
        self.spread(router);
        let id = WatchId(self.next);
        self.next += 1;
        let (sender, batches) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let watcher = Watcher {
            how,
            batches: sender,
            shared: Arc::clone(&shared),
            walk: how.from_the_start.then(|| router.walk_adj_in(how.interest)),
        };
        let up = how.from_the_start.then(|| router.sessions());
        if watcher.give(now(), up.unwrap_or_default(), how.from_the_start) {
            self.all.insert(id, watcher);
        }
        self.ask(router);
        Given {
            id,
            batches,
            shared,
        }
    }

    /// A monitor has dealt with what it was told.
    pub(super) fn more(&mut self, router: &mut Recorded, id: WatchId) {
        // What has happened before the slice is told before it.
        self.spread(router);
        let Some(watcher) = self.all.get_mut(&id) else {
            return;
        };
        let Some(walk) = &mut watcher.walk else {
            return;
        };
        let mut slice = Vec::new();
        let more = router.adj_in_slice(walk, &mut slice);
        if !more {
            watcher.walk = None;
        }
        if !watcher.give(now(), slice, more) {
            self.all.remove(&id);
            self.ask(router);
        }
    }

    /// Tells what was observed to those who want to know.
    pub(super) fn spread(&mut self, router: &mut Recorded) {
        if self.all.is_empty() {
            return;
        }
        let observations: Vec<_> = std::iter::from_fn(|| router.poll_observation()).collect();
        let lost = router.take_lost_observations();
        if observations.is_empty() && lost == 0 {
            return;
        }
        let at = now();
        let before = self.all.len();
        self.all.retain(|_, watcher| {
            let interest = watcher.how.interest;
            let wanted = observations.iter().filter(|o| interest.wants(o));
            let wanted: Vec<_> = wanted.cloned().collect();
            watcher.shared.lost.fetch_add(lost, Ordering::Relaxed);
            // A table with gaps would be a wrong one.
            if lost > 0 && watcher.how.cut_off {
                watcher.shared.cut.store(true, Ordering::Relaxed);
                watcher.shared.news.notify_one();
                return false;
            }
            let told = |o: &Observation| matches!(o, Observation::Reconsidered { .. });
            let again = watcher.how.from_the_start && wanted.iter().any(told);
            // One that is being told is asked for already.
            let ask = again && watcher.walk.is_none();
            if again {
                let walk = router.walk_after_policy();
                watcher.walk = Some(match watcher.walk.take() {
                    Some(walked) => walked.and_again(walk),
                    None => walk,
                });
            }
            (wanted.is_empty() && !ask) || watcher.give(at, wanted, ask)
        });
        if self.all.len() != before {
            self.ask(router);
        }
    }

    /// Has the router observe what is wanted by anybody, and nothing else.
    fn ask(&self, router: &mut Recorded) {
        let interests = self.all.values().map(|watcher| watcher.how.interest);
        router.observe(interests.fold(Interest::default(), Interest::or));
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    // A clock before 1970 is no time to speak of.
    since.unwrap_or_default().into()
}

//! Changes on their way into the kernel, on a thread of their own.
//!
//! The kernel works through a batch of routes within the system call that brings it, and takes longer over ten thousand of them
//! than everything before. So while it does, the next ones are decided on. Changes are made in the order they were given.

use std::sync::Arc;

use margay_dataplane::{Kernel, KernelError, RouteChange};
use tokio::sync::mpsc;

/// What was refused of some changes, and why. Empty: all was done.
pub(super) type Outcome = Vec<(RouteChange, KernelError)>;

/// Plans that are under way at once: one with the kernel, and the next.
const UNDER_WAY: usize = 2;

/// Makes changes. The thread ends with it, once it has made those it was given.
#[derive(Debug)]
pub(super) struct Applier {
    plans: mpsc::UnboundedSender<Vec<RouteChange>>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    /// Plans given whose outcome has not been taken.
    under_way: usize,
}

impl Applier {
    /// Within a tokio runtime, which drives the kernel's socket.
    pub(super) fn start<K: Kernel + 'static>(kernel: Arc<K>) -> Self {
        let (plans, mut inbox) = mpsc::unbounded_channel::<Vec<RouteChange>>();
        let (answers, outcomes) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            while let Some(changes) = inbox.blocking_recv() {
                let results = runtime.block_on(kernel.apply_routes(&changes));
                let both = changes.into_iter().zip(results);
                let refused = both.filter_map(|(change, result)| Some((change, result.err()?)));
                if answers.send(refused.collect()).is_err() {
                    return;
                }
            }
        });
        Self {
            plans,
            outcomes,
            under_way: 0,
        }
    }

    /// Whether another plan may be given.
    pub(super) fn has_room(&self) -> bool {
        self.under_way < UNDER_WAY
    }

    /// Whether a plan is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way > 0
    }

    /// Begins to make changes.
    pub(super) fn apply(&mut self, changes: Vec<RouteChange>) {
        // The thread ends after this value only.
        if self.plans.send(changes).is_ok() {
            self.under_way += 1;
        }
    }

    /// Waits for the outcome of the plan given first; for ever if there is none. Cancelling loses nothing.
    pub(super) async fn outcome(&mut self) -> Outcome {
        if self.under_way == 0 {
            return std::future::pending().await;
        }
        let outcome = self.outcomes.recv().await;
        self.under_way -= 1;
        outcome.unwrap_or_default()
    }
}

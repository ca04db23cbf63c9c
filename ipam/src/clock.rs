//! Time as an argument: the wall clock for cooldowns, and waiting between tries.
//!
//! Not here: monotonic timers; nothing in address management needs one.

use std::future::Future;
use std::time::Duration;

pub use k8s_openapi::jiff::Timestamp;

/// Where the allocator takes the time from.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock: it is written into blocks and read back after restarts.
    fn now(&self) -> Timestamp;
    /// Waits.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send;
}

/// The machine's clock and tokio's timer.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

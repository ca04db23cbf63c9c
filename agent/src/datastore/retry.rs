//! How long a failed watch waits before it is tried again.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use kube::runtime::utils::Backoff;
use tokio::time::Instant;

/// The first wait.
const FIRST: Duration = Duration::from_millis(200);
/// The longest wait. Shorter than kube's own 30 s: a node whose API server comes back should not
/// be blind for long.
const LONGEST: Duration = Duration::from_secs(10);
/// A watch that has gone well for this long begins again with the first wait.
const QUIET: Duration = Duration::from_secs(60);

/// From 200 ms, doubling, to 10 s, each up to a quarter shorter at random, so that a cluster's
/// nodes do not all come back in the same moment.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
    last: Option<Instant>,
}

impl Retry {
    /// How long to wait before the next try.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let now = Instant::now();
        if self.last.is_none_or(|last| now - last > QUIET) {
            self.failures = 0;
        }
        self.last = Some(now);
        let wait = FIRST.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        let wait = wait.min(LONGEST);
        wait - wait.mul_f64(0.25 * fraction())
    }
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.next_wait())
    }
}

impl Backoff for Retry {
    /// Nothing: a watch announces each new list before the API server has answered, so a success
    /// in between says nothing. Time decides.
    fn reset(&mut self) {}
}

/// Something from 0 to 1, by the keys the standard library draws for its hash maps.
fn fraction() -> f64 {
    let random = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_although_each_try_begins_well() {
        let mut retry = Retry::default();
        let mut waits = Vec::new();
        for _ in 0..10 {
            let wait = retry.next().unwrap();
            tokio::time::advance(wait).await;
            retry.reset();
            waits.push(wait);
        }
        assert!(
            waits[0] <= FIRST && waits[0] >= FIRST.mul_f64(0.75),
            "{waits:?}"
        );
        assert!(
            waits[9] <= LONGEST && waits[9] >= LONGEST.mul_f64(0.75),
            "{waits:?}"
        );

        tokio::time::advance(QUIET + LONGEST).await;
        assert!(retry.next().unwrap() <= FIRST);
    }
}

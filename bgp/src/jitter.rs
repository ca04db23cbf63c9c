//! Injected randomness: a small seeded generator for timer jitter.
//!
//! RFC 4271 section 10 asks for jitter so that speakers that were started together do not act together for ever. The pure
//! core may not ask the operating system for entropy, so whoever builds a [`crate::router::Router`] gives it a seed; the
//! same seed gives the same run, which is what makes virtual-time tests repeatable. This is not a source of secrets.

use std::time::Duration;

/// A SplitMix64 generator: eight bytes of state, good enough to spread timers.
#[derive(Debug, Clone)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    /// A generator whose sequence depends on `seed` alone.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 pseudo-random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `base` times a factor drawn evenly from 0.75 to 1.0, the range RFC 4271 section 10 names.
    pub fn spread(&mut self, base: Duration) -> Duration {
        // 2^10 steps are plenty, and u32 arithmetic keeps Duration's own overflow checks out of play.
        let step = (self.next_u64() >> 54) as u32;
        base.saturating_mul(3 * 1024 + step) / 4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_stays_between_three_quarters_and_the_whole() {
        let mut jitter = Jitter::new(7);
        let base = Duration::from_secs(60);
        let drawn: Vec<_> = (0..1000).map(|_| jitter.spread(base)).collect();
        assert!(
            drawn
                .iter()
                .all(|d| *d >= Duration::from_secs(45) && *d <= base)
        );
        assert!(drawn.iter().any(|d| *d < Duration::from_secs(48)));
        assert!(drawn.iter().any(|d| *d > Duration::from_secs(57)));
    }

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let (mut a, mut b, mut c) = (Jitter::new(1), Jitter::new(1), Jitter::new(2));
        let first: Vec<_> = (0..8).map(|_| a.next_u64()).collect();
        assert_eq!(first, (0..8).map(|_| b.next_u64()).collect::<Vec<_>>());
        assert_ne!(first, (0..8).map(|_| c.next_u64()).collect::<Vec<_>>());
    }
}

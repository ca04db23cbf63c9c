//! Whether the sessions of a starting agent have come up, or had long enough to: until then the
//! node takes no new pods, and a rollout does not go on to the next node.
//!
//! Once settled, always settled: a peer that goes down later is no fault of this node. Not here:
//! which routes stay over a restart ([`margay_speaker::restart`]).

use std::time::{Duration, Instant};

/// How long the sessions may take: a peer that is down must not hold a rollout up at every node.
const PATIENCE: Duration = Duration::from_secs(60);

/// How far the sessions are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settling {
    since: Option<Instant>,
    is_over: bool,
}

impl Settling {
    /// An agent whose speaker does not run yet.
    pub(crate) fn begin() -> Self {
        Self {
            since: None,
            is_over: false,
        }
    }

    /// Takes in how many of the running speaker's sessions are up; what is waited for, in words.
    pub(crate) fn handle_sessions(
        &mut self,
        now: Instant,
        established: usize,
        all: usize,
    ) -> Option<String> {
        if self.is_over {
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let waited = now.saturating_duration_since(since);
        self.is_over = established == all || waited >= PATIENCE;
        (!self.is_over).then(|| {
            let left = PATIENCE.saturating_sub(waited).as_secs();
            format!("BGP: {established} of {all} sessions are up; waiting {left} s more at most")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_that_are_up_settle_it_for_good() {
        let now = Instant::now();
        let mut settling = Settling::begin();
        let words = settling.handle_sessions(now, 1, 2);
        assert!(words.unwrap().contains("1 of 2 sessions"));
        assert_eq!(settling.handle_sessions(now, 2, 2), None);
        assert_eq!(settling.handle_sessions(now, 0, 2), None);
    }

    #[test]
    fn a_peer_that_is_down_is_not_waited_for_for_ever() {
        let now = Instant::now();
        let mut settling = Settling::begin();
        assert!(settling.handle_sessions(now, 0, 1).is_some());
        let later = now + PATIENCE - Duration::from_secs(1);
        assert!(settling.handle_sessions(later, 0, 1).is_some());
        assert_eq!(settling.handle_sessions(now + PATIENCE, 0, 1), None);
    }

    #[test]
    fn a_node_without_peers_has_nothing_to_wait_for() {
        assert_eq!(
            Settling::begin().handle_sessions(Instant::now(), 0, 0),
            None
        );
    }
}

//! After a restart: how long routes stay that no session has confirmed yet.

use std::time::{Duration, Instant};

use margay_bgp::fsm::State;
use margay_bgp::speaker::PeerSummary;

/// How long a restarted speaker waits for its sessions: as long as the restart time it announces
/// (RFC 4724).
const RESTART_TIME: Duration = Duration::from_secs(120);

/// Where a restart stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Sessions are coming up again; nothing that an earlier agent left is removed.
    Waiting {
        /// When it started.
        since: Instant,
    },
    /// Every session is up and has sent all it has, or the time is over. What the speaker holds
    /// is taken in as a whole before anything is removed: a route that has just arrived may not
    /// have come this far.
    CatchingUp,
    /// Over, or there was none.
    Over,
}

impl Restart {
    /// At the start of a process.
    pub fn begin(restarting: bool, now: Instant) -> Self {
        if restarting {
            Self::Waiting { since: now }
        } else {
            Self::Over
        }
    }

    /// Whether what an earlier agent left stays as it is.
    pub fn is_under_way(self) -> bool {
        self != Self::Over
    }

    /// Takes in the running speaker's sessions; true if what it holds is now to be taken in anew.
    /// Without a speaker nothing confirms anything, and this is not called.
    pub fn handle_peers(&mut self, now: Instant, peers: &[PeerSummary]) -> bool {
        let Self::Waiting { since } = *self else {
            return false;
        };
        if !peers.iter().all(is_settled) && now.duration_since(since) <= RESTART_TIME {
            return false;
        }
        *self = Self::CatchingUp;
        true
    }

    /// Takes in whether all that the speaker holds has arrived; true if the restart is now over.
    pub fn handle_synced(&mut self, synced: bool) -> bool {
        let over = *self == Self::CatchingUp && synced;
        if over {
            *self = Self::Over;
        }
        over
    }
}

/// Whether a session is up and the peer has sent all it has (End-of-RIB, RFC 4724 section 2).
fn is_settled(peer: &PeerSummary) -> bool {
    let mut families = peer.families.iter();
    peer.state == State::Established && families.all(|family| family.end_of_rib_received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_before_all_that_is_there_was_taken_in() {
        let now = Instant::now();
        let mut restart = Restart::begin(true, now);
        assert!(!restart.handle_synced(true), "the sessions are not up yet");
        assert!(restart.is_under_way());
        // A node without peers has nothing to wait for.
        assert!(restart.handle_peers(now, &[]));
        assert!(!restart.handle_peers(now, &[]), "once is enough");
        assert!(!restart.handle_synced(false) && restart.is_under_way());
        assert!(restart.handle_synced(true) && !restart.is_under_way());
        assert!(!restart.handle_synced(true));
    }

    #[test]
    fn a_first_start_is_no_restart() {
        let now = Instant::now();
        let mut restart = Restart::begin(false, now);
        assert!(!restart.is_under_way());
        assert!(!restart.handle_peers(now + 2 * RESTART_TIME, &[]));
    }
}

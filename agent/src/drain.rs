//! The planned end of a node, seen from BGP: first everything announced carries GRACEFUL_SHUTDOWN
//! (RFC 8326), so that peers with another way take it while this one still works; after a wait
//! nothing is announced any more; and once that has got around, every session ends with a Cease
//! that says why (RFC 9003).
//!
//! A Node's annotations ask for it ([`margay_crds::drain`]) and it lasts as long as they stand
//! there. An agent that is started again on a drained node stays out of BGP: a mark on disk says
//! so, since the sessions that would tell are gone.
//!
//! Not here: pods. Whoever drains the node of pods does so before.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use margay_bgp::policy::Filter;
use margay_bgp::speaker::{PeerConfig, SpeakerConfig};
use margay_crds::{DrainRequest, DrainStage};

/// How long the withdrawals get to go around before the sessions end: what a fabric of routers
/// takes to converge, and what was sent on its way arrives meanwhile.
const GOING_AROUND: Duration = Duration::from_secs(5);

/// How far the drain of this node is, and since when.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    stage: DrainStage,
    since: Instant,
    message: String,
}

impl Drain {
    /// The drain as an agent finds it that starts; `drained` is what [`is_marked`] says.
    pub(crate) fn begin(drained: bool, now: Instant) -> Self {
        Self {
            stage: if drained {
                DrainStage::Drained
            } else {
                DrainStage::No
            },
            since: now,
            message: String::new(),
        }
    }

    /// The stage.
    pub(crate) fn stage(&self) -> DrainStage {
        self.stage
    }

    /// What peers are told at the end, if there is a drain.
    pub(crate) fn message(&self) -> Option<&str> {
        (self.stage != DrainStage::No).then_some(&*self.message)
    }

    /// Takes in what the Node object asks for now; true if the stage or the message is another.
    pub(crate) fn handle(&mut self, now: Instant, request: Option<&DrainRequest>) -> bool {
        let Some(request) = request else {
            self.message.clear();
            return self.enter(DrainStage::No, now);
        };
        let told = self.message == request.message;
        self.message.clone_from(&request.message);
        let waited = now.saturating_duration_since(self.since);
        let next = match self.stage {
            DrainStage::No => DrainStage::Leaving,
            DrainStage::Leaving if waited >= request.wait => DrainStage::Withdrawn,
            DrainStage::Withdrawn if waited >= GOING_AROUND => DrainStage::Drained,
            stage => stage,
        };
        self.enter(next, now) || !told
    }

    fn enter(&mut self, stage: DrainStage, now: Instant) -> bool {
        if self.stage == stage {
            return false;
        }
        self.stage = stage;
        self.since = now;
        true
    }

    /// Makes of what the speaker would be what it is to be at this stage.
    pub(crate) fn apply(&self, config: &mut SpeakerConfig) {
        let stage = self.stage;
        if stage == DrainStage::No {
            return;
        }
        if stage >= DrainStage::Withdrawn {
            config.announcements.clear();
            config.aggregates.clear();
        }
        let ranges = config.ranges.values_mut().map(|range| &mut range.peer);
        let peers = config.peers.values_mut().chain(ranges);
        for peer in peers.chain(config.interfaces.values_mut()) {
            self.apply_to(peer);
        }
    }

    fn apply_to(&self, peer: &mut PeerConfig) {
        peer.policy.graceful_shutdown = true;
        if self.stage >= DrainStage::Withdrawn {
            // What a reflector was given goes too: nobody is to find a way through this node.
            peer.export = Some(Filter::reject_all());
        }
        if self.stage == DrainStage::Drained && !peer.disabled {
            peer.disabled = true;
            peer.shutdown_message.clone_from(&self.message);
        }
    }

    /// One sentence for people, if there is a drain.
    pub(crate) fn words(&self) -> Option<String> {
        let doing = match self.stage {
            DrainStage::No => return None,
            DrainStage::Leaving => "it leaves, and peers are asked to find other ways",
            DrainStage::Withdrawn => "it announces nothing any more",
            DrainStage::Drained => "it is drained: no BGP session",
        };
        let annotation = margay_crds::drain::DRAIN_ANNOTATION;
        Some(format!(
            "{doing} until the annotation {annotation} is removed from its Node"
        ))
    }
}

/// Where the mark of a drained node is.
pub(crate) fn mark(state_dir: &Path) -> PathBuf {
    state_dir.join("drained")
}

/// Whether an agent before this one drained the node.
pub(crate) fn is_marked(mark: &Path) -> bool {
    mark.exists()
}

/// Sets or removes the mark, on a thread that may wait for the disk. Without it, an agent started
/// on a drained node would drain it once more; no reason to stop.
pub(crate) fn set_mark(mark: PathBuf, drained: bool) {
    tokio::task::spawn_blocking(move || {
        let done = if drained {
            std::fs::write(&mark, b"")
        } else {
            std::fs::remove_file(&mark)
        };
        match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{}: {error}", mark.display());
            }
            _ => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use margay_bgp::speaker::Announcement;
    use margay_bgp::types::{Asn, RouterId};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn request() -> DrainRequest {
        DrainRequest {
            message: "new disks".to_owned(),
            wait: 10 * SECOND,
        }
    }

    fn config() -> SpeakerConfig {
        let mut config = SpeakerConfig::new(Asn(64512), RouterId(1));
        let peer: IpAddr = "10.0.0.2".parse().unwrap();
        config.peers.insert(peer, PeerConfig::new(peer, Asn(64512)));
        let tor = PeerConfig::on_interface("eth0", Asn(65001));
        config.interfaces.insert("eth0".to_owned(), tor);
        let block = "10.244.0.0/26".parse().unwrap();
        config.announcements.insert(block, Announcement::default());
        config
    }

    #[test]
    fn a_drain_goes_through_its_stages_and_can_be_taken_back() {
        let start = Instant::now();
        let mut drain = Drain::begin(false, start);
        assert!(!drain.handle(start, None));
        assert_eq!(drain.message(), None);
        assert!(drain.handle(start, Some(&request())));
        assert_eq!(drain.message(), Some("new disks"));
        let mut stages = Vec::new();
        for second in 0..20 {
            if drain.handle(start + second * SECOND, Some(&request())) {
                stages.push((second, drain.stage()));
            }
        }
        let wanted = [(10, DrainStage::Withdrawn), (15, DrainStage::Drained)];
        assert_eq!(stages, wanted);
        assert!(drain.handle(start + 30 * SECOND, None));
        assert_eq!((drain.stage(), drain.words()), (DrainStage::No, None));
    }

    #[test]
    fn an_agent_started_on_a_drained_node_stays_out() {
        let now = Instant::now();
        let mut drain = Drain::begin(true, now);
        drain.handle(now, Some(&request()));
        assert_eq!(drain.stage(), DrainStage::Drained);
        // Taken back while no agent ran.
        let mut drain = Drain::begin(true, now);
        assert!(drain.handle(now, None));
        assert_eq!(drain.stage(), DrainStage::No);
    }

    #[test]
    fn each_stage_changes_what_it_must_and_no_more() {
        let at = |stage| {
            let mut drain = Drain::begin(false, Instant::now());
            drain.stage = stage;
            drain.message = "new disks".to_owned();
            let mut config = config();
            drain.apply(&mut config);
            config.validate().unwrap();
            config
        };
        assert_eq!(at(DrainStage::No), config());
        let leaving = at(DrainStage::Leaving);
        assert_eq!(leaving.announcements, config().announcements);
        let before = config();
        for (address, peer) in &leaving.peers {
            assert!(peer.policy.graceful_shutdown && before.peers[address].keeps_session(peer));
        }
        assert!(leaving.interfaces["eth0"].policy.graceful_shutdown);
        let withdrawn = at(DrainStage::Withdrawn);
        assert!(withdrawn.announcements.is_empty());
        for (address, peer) in &withdrawn.peers {
            assert!(peer.export.is_some() && before.peers[address].keeps_session(peer));
        }
        let drained = at(DrainStage::Drained);
        for peer in drained.peers.values().chain(drained.interfaces.values()) {
            assert!(peer.disabled);
            assert_eq!(peer.shutdown_message, "new disks");
        }
    }

    #[test]
    fn what_an_operator_had_shut_keeps_its_own_message() {
        let mut drain = Drain::begin(true, Instant::now());
        drain.message = "new disks".to_owned();
        let mut config = config();
        for peer in config.peers.values_mut() {
            peer.disabled = true;
            peer.shutdown_message = "do not use".to_owned();
        }
        drain.apply(&mut config);
        assert!(
            config
                .peers
                .values()
                .all(|peer| peer.shutdown_message == "do not use")
        );
    }
}

//! The sessions in a BGPPeer's status, which the agents of all its nodes write into one object.
//!
//! The object must stay small and be written seldom, however many nodes a BGPPeer is for: every
//! write wakes every agent. So of a BGPPeer with few sessions every one is told, of one with many
//! those that are not established, 16 at most; each agent keeps its own entries and leaves the
//! others' alone. A write is refused if somebody else wrote first (see [`super::wish::Accepted`]),
//! and is made again from what stands there then. Counters are written with a change of state, and
//! every ten minutes; the NodeStatus has them within seconds.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use margay_bgp::fsm::State;
use margay_bgp::speaker::PeerSummary;
use margay_crds::Peer;
use margay_crds::bgp_peer::{BGPPeerStatus, PeerSession, Remote};

use crate::reconcile::speaker::has_sessions;
use crate::status::node::{SpeakerReport, WallClock, origin, rfc3339};
use crate::view::View;

/// The most sessions that one BGPPeer's status names.
pub const MOST: usize = 16;
/// The most of them that one node has while there are more nodes than that.
const MOST_OF_A_NODE: usize = 4;
/// How long an entry stays as it was written, by what differs: a session that comes and goes, and
/// a router that gives another reason each time, must not wake a thousand agents each time.
const STATE_DELAY: Duration = Duration::from_secs(10);
const REASON_DELAY: Duration = Duration::from_secs(60);
const COUNTER_DELAY: Duration = Duration::from_secs(600);
/// Where many nodes have a session down at once, those of the lowest ranks write at once, and the
/// others only if there is room after so long: a router that goes must not bring a thousand writes.
const TURNS: [(usize, Duration); 3] = [
    (MOST, Duration::ZERO),
    (8 * MOST, Duration::from_secs(5)),
    (usize::MAX, Duration::from_secs(15)),
];

/// What this node knows.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// The cluster.
    pub view: &'a View,
    /// This node's name.
    pub node: &'a str,
    /// Its sessions.
    pub report: &'a SpeakerReport,
    /// The time of moments.
    pub clock: &'a WallClock,
    /// The time by both clocks.
    pub now: (Instant, Timestamp),
}

impl Own<'_> {
    /// What of a BGPPeer's status, its conditions aside, should stand there instead; none if it is
    /// good. `peer` is none if the BGPPeer is not in use.
    pub fn update(&self, peer: Option<&Peer>, standing: &BGPPeerStatus) -> Option<BGPPeerStatus> {
        let node = self.view.node(self.node)?;
        let peer = peer.filter(|peer| has_sessions(peer, node));
        let others = standing.sessions.iter();
        let others =
            others.filter(|one| one.node != self.node && self.view.node(&one.node).is_some());
        let others: Vec<PeerSession> = others.cloned().collect();
        let (own, nodes, rank) = match peer {
            None => (Vec::new(), standing.nodes, usize::MAX),
            Some(peer) => {
                let (nodes, rank) = self.place(peer);
                (
                    self.sessions(peer, nodes, rank, standing, others.len()),
                    nodes,
                    rank,
                )
            }
        };
        let is_ours = |one: &&PeerSession| one.node == self.node;
        let differs = !standing.sessions.iter().filter(is_ours).eq(own.iter());
        // One for all, or nobody would be there to say it.
        let is_first = self
            .view
            .nodes()
            .next()
            .is_some_and(|first| first.name == self.node);
        let tidies = rank == 0 || is_first;
        let mut status = standing.clone();
        status.nodes = count(nodes as usize);
        status.sessions = others;
        status.sessions.extend(own);
        status
            .sessions
            .sort_by(|a, b| (&a.node, &a.address).cmp(&(&b.node, &b.address)));
        let down = status.sessions.iter().filter(|one| !is_up(one));
        status.not_established = count(down.count());
        (differs || (tidies && status != *standing)).then_some(status)
    }

    /// How many nodes have sessions by a BGPPeer, and where among them this one stands, by chance.
    fn place(&self, peer: &Peer) -> (u32, usize) {
        let of = |node: &str| {
            let mut hasher = DefaultHasher::new();
            (&peer.name, node).hash(&mut hasher);
            hasher.finish()
        };
        let own = of(self.node);
        let (mut nodes, mut before) = (0, 0);
        for node in self.view.nodes().filter(|node| has_sessions(peer, node)) {
            nodes += 1;
            before += usize::from(of(&node.name) < own);
        }
        (nodes, before)
    }

    /// This node's entries.
    fn sessions(
        &self,
        peer: &Peer,
        nodes: u32,
        rank: usize,
        standing: &BGPPeerStatus,
        others: usize,
    ) -> Vec<PeerSession> {
        let sessions = self.report.peers.iter();
        let sessions: Vec<&PeerSummary> = sessions.filter(|one| origin(one) == peer.name).collect();
        let all = (nodes as usize).saturating_mul(sessions.len().max(1));
        let tells_all = all <= MOST;
        let room = match tells_all {
            true => MOST,
            false => MOST.saturating_sub(others).min(MOST_OF_A_NODE),
        };
        let before = |address: &str| {
            let mut entries = standing.sessions.iter();
            entries.find(|one| one.node == self.node && one.address == address)
        };
        let turn = TURNS.iter().find(|(ranks, _)| rank < *ranks);
        let turn = turn.map_or(Duration::ZERO, |(_, delay)| *delay);
        let mut entries = Vec::new();
        for session in &sessions {
            let standing = before(&session.address.to_string());
            let down_for = self.now.0.saturating_duration_since(session.since);
            let is_down = session.state != State::Established;
            let is_told = tells_all || (is_down && (standing.is_some() || down_for >= turn));
            match standing {
                Some(before) if is_told => entries.push(self.renewed(before, self.entry(session))),
                // It comes and goes: what was just written stays for a moment.
                Some(before) if self.age(before) < STATE_DELAY => entries.push(before.clone()),
                Some(_) => {}
                None if is_told => entries.push(self.entry(session)),
                None => {}
            }
        }
        if let (true, Remote::Interface { name, .. }) = (sessions.is_empty(), &peer.remote) {
            let nobody = self.nobody(name);
            entries.push(match before("") {
                Some(before) => self.renewed(before, nobody),
                None => nobody,
            });
        }
        entries.truncate(room);
        entries
    }

    fn entry(&self, session: &PeerSummary) -> PeerSession {
        PeerSession {
            node: self.node.to_owned(),
            address: session.address.to_string(),
            as_number: session.asn.map_or(0, |asn| asn.0),
            state: session.state.to_string(),
            since: self.clock.of(session.since),
            last_error: session.last_error.clone(),
            warning: session.warning.clone(),
            prefixes_received: session.prefixes_received,
            prefixes_sent: session.prefixes_sent,
            updated: rfc3339(self.now.1),
        }
    }

    fn nobody(&self, interface: &str) -> PeerSession {
        PeerSession {
            node: self.node.to_owned(),
            state: State::Idle.to_string(),
            last_error: Some(format!("no router was found on interface {interface}")),
            updated: rfc3339(self.now.1),
            ..PeerSession::default()
        }
    }

    /// The new entry if it is worth a write, or what stands there.
    fn renewed(&self, before: &PeerSession, new: PeerSession) -> PeerSession {
        let counters = |one: &PeerSession| (one.prefixes_received, one.prefixes_sent);
        let words =
            |one: &PeerSession| (one.last_error.clone(), one.warning.is_some(), one.as_number);
        // Down since another moment: it has been up in between.
        let delay = if is_up(before) != is_up(&new) || before.since != new.since {
            STATE_DELAY
        } else if words(before) != words(&new) {
            REASON_DELAY
        } else if counters(before) != counters(&new) {
            COUNTER_DELAY
        } else {
            return before.clone();
        };
        match self.age(before) >= delay {
            true => new,
            false => before.clone(),
        }
    }

    /// How long ago an entry was written; one that does not say, very long ago.
    fn age(&self, entry: &PeerSession) -> Duration {
        let Ok(written) = entry.updated.parse::<Timestamp>() else {
            return Duration::MAX;
        };
        let age = self.now.1.duration_since(written);
        Duration::try_from(age).unwrap_or(Duration::ZERO)
    }
}

fn is_up(entry: &PeerSession) -> bool {
    entry.state == "Established"
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use kube::runtime::watcher::Event;
    use margay_crds::BGPPeer;

    use super::*;
    use crate::datastore::Change;

    /// A cluster of so many nodes, all of which have a session with one router.
    fn cluster(nodes: usize) -> View {
        let mut view = View::default();
        for number in 0..nodes {
            let node: Node = serde_json::from_value(serde_json::json!({
                "metadata": {"name": format!("n{number}")},
                "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
            }))
            .unwrap();
            view.handle(Change::Node(Event::Apply(node)));
        }
        let spec = serde_json::json!({"peerIP": "10.0.0.254", "asNumber": 65001});
        let peer = BGPPeer::new("tor", serde_json::from_value(spec).unwrap());
        view.handle(Change::BGPPeer(Event::Apply(peer)));
        view
    }

    /// A real speaker's line about a router that nobody answers for.
    async fn line() -> PeerSummary {
        use margay_bgp::speaker::{PeerConfig, Shutdown, Speaker, SpeakerConfig};
        use margay_bgp::types::{Asn, RouterId};
        let mut config = SpeakerConfig::new(Asn(64512), RouterId(1));
        let address = "127.0.0.9".parse().unwrap();
        let mut peer = PeerConfig::new(address, Asn(65001));
        (peer.name, peer.passive) = ("tor".to_owned(), true);
        config.peers.insert(address, peer);
        let speaker = Speaker::start(config).await.unwrap();
        let line = speaker.summary().await.unwrap().pop().unwrap();
        speaker.shutdown(Shutdown::Graceful).await;
        line
    }

    struct Bench {
        view: View,
        clock: WallClock,
        start: (Instant, Timestamp),
    }

    impl Bench {
        fn new(nodes: usize) -> Self {
            Self {
                view: cluster(nodes),
                clock: WallClock::start(),
                start: (Instant::now(), Timestamp::now()),
            }
        }

        /// What a node with this session would write after so many seconds.
        fn update(
            &self,
            node: &str,
            session: &PeerSummary,
            seconds: u64,
            standing: &BGPPeerStatus,
        ) -> Option<BGPPeerStatus> {
            let report = SpeakerReport {
                peers: vec![session.clone()],
                ..SpeakerReport::default()
            };
            let later = Duration::from_secs(seconds);
            let own = Own {
                view: &self.view,
                node,
                report: &report,
                clock: &self.clock,
                now: (self.start.0 + later, self.start.1 + later),
            };
            own.update(Some(&self.view.peers()[0]), standing)
        }
    }

    #[tokio::test]
    async fn few_sessions_are_told_whole_and_written_when_they_change() {
        let bench = Bench::new(2);
        let mut session = line().await;
        session.state = State::Established;
        let first = bench
            .update("n0", &session, 1, &BGPPeerStatus::default())
            .unwrap();
        let both = bench.update("n1", &session, 1, &first).unwrap();
        assert_eq!(
            (both.nodes, both.sessions.len(), both.not_established),
            (2, 2, 0)
        );
        assert_eq!(bench.update("n0", &session, 2, &both), None);

        session.prefixes_received = 7;
        assert_eq!(bench.update("n0", &session, 300, &both), None);
        let counted = bench.update("n0", &session, 601, &both).unwrap();
        assert_eq!(counted.sessions[0].prefixes_received, 7);

        session.state = State::Active;
        session.last_error = Some("no answer".to_owned());
        assert_eq!(
            bench.update("n0", &session, 605, &counted),
            None,
            "it was just written"
        );
        let down = bench.update("n0", &session, 612, &counted).unwrap();
        assert_eq!(down.not_established, 1);
        assert_eq!(down.sessions[0].last_error.as_deref(), Some("no answer"));
        // Active, Connect and Idle again: nobody need know.
        session.state = State::Connect;
        assert_eq!(bench.update("n0", &session, 640, &down), None);
        // Up and down again in between, for another reason: that is told, and not a minute later.
        session.since += Duration::from_secs(620);
        session.last_error = Some("too many prefixes".to_owned());
        let again = bench.update("n0", &session, 640, &down).unwrap();
        let reason = again.sessions[0].last_error.as_deref();
        assert_eq!(reason, Some("too many prefixes"));
    }

    #[tokio::test]
    async fn a_router_that_goes_brings_few_writes_and_a_small_object() {
        let bench = Bench::new(1000);
        let mut session = line().await;
        // All is well: nobody but the one who counts the nodes has anything to say.
        let mut up = session.clone();
        up.state = State::Established;
        let mut standing = BGPPeerStatus {
            nodes: 1000,
            ..Default::default()
        };
        let nodes: Vec<String> = (0..1000).map(|number| format!("n{number}")).collect();
        assert!(
            nodes
                .iter()
                .all(|node| bench.update(node, &up, 1, &standing).is_none())
        );

        session.since = bench.start.0;
        let at_once: Vec<&String> = nodes
            .iter()
            .filter(|node| bench.update(node, &session, 1, &standing).is_some())
            .collect();
        assert!((1..=MOST).contains(&at_once.len()), "{}", at_once.len());
        for node in &nodes {
            standing = bench
                .update(node, &session, 60, &standing)
                .unwrap_or(standing);
        }
        assert_eq!(
            (standing.sessions.len(), standing.not_established),
            (MOST, 16)
        );
        assert!(serde_json::to_string(&standing).unwrap().len() < 8000);
        // And when it is back, the entries go.
        for node in &nodes {
            standing = bench.update(node, &up, 90, &standing).unwrap_or(standing);
        }
        assert_eq!((standing.sessions.len(), standing.not_established), (0, 0));
    }

    #[tokio::test]
    async fn a_node_that_is_gone_leaves_nothing_behind() {
        let bench = Bench::new(2);
        let mut session = line().await;
        session.state = State::Established;
        let mut standing = BGPPeerStatus::default();
        for node in ["n0", "n1"] {
            standing = bench.update(node, &session, 1, &standing).unwrap();
        }
        standing.sessions[1].node = "gone".to_owned();
        let updated = bench.update("n0", &session, 2, &standing);
        let updated = updated
            .or_else(|| bench.update("n1", &session, 2, &standing))
            .unwrap();
        assert!(updated.sessions.iter().all(|one| one.node != "gone"));
    }
}

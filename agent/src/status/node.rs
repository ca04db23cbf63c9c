//! The NodeStatus of this node, put together from what its parts report.

use std::time::Instant;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use margay_bgp::fsm::State;
use margay_bgp::speaker::PeerSummary;
use margay_bgp::types::{Asn, RouterId};
use margay_crds::DrainStage;
use margay_crds::node_status::{BgpStatus, NodeStatusStatus, PeerStatus, RouteCounts};

use crate::enforcement::PolicyReport;
use crate::routing::RoutingReport;

/// The most problems that one message names.
const MAX_PROBLEMS: usize = 8;

/// The speaker as it is.
#[derive(Debug, Clone, Default)]
pub struct SpeakerReport {
    /// What it is, once it runs.
    pub identity: Option<(Asn, RouterId)>,
    /// Its sessions.
    pub peers: Vec<PeerSummary>,
    /// Why it is not running or not as asked, in words.
    pub problem: Option<String>,
    /// What of the BGPPeers could not be made a session, in words.
    pub peer_problems: Vec<String>,
}

impl SpeakerReport {
    /// How many sessions are up, and how many there are.
    pub fn sessions(&self) -> (usize, usize) {
        let established = |peer: &&PeerSummary| peer.state == State::Established;
        let up = self.peers.iter().filter(established).count();
        (up, self.peers.len())
    }
}

/// All that goes into a NodeStatus.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    /// The lists of objects that have not arrived, with the reason if it is known, in words.
    pub waiting: Vec<String>,
    /// What is wrong with this node's Node object, in words.
    pub node: Option<String>,
    /// The speaker.
    pub speaker: SpeakerReport,
    /// What a starting agent's sessions are waited for, in words.
    pub settling: Option<String>,
    /// Routes and tunnels.
    pub routing: RoutingReport,
    /// The policy table.
    pub policy: PolicyReport,
    /// How many blocks the node holds.
    pub blocks: usize,
    /// What is wrong with the node's blocks, in words.
    pub addresses: Vec<String>,
    /// What people should know of the node's blocks, in words.
    pub remarks: Vec<String>,
    /// How many pods are wired.
    pub pods: usize,
    /// How many prefixes are announced for Services.
    pub services: usize,
    /// How far the node's drain has come.
    pub drain: DrainStage,
}

/// Whether the node's network is in order: then remarks, else what is wrong, in sentences.
///
/// What somebody wrote into a policy, or another node that is down, is a remark: it is no fault
/// of this node, and a rollout must not stop at every node because of it.
///
/// # Errors
/// What is wrong, a few sentences of a bounded length.
pub fn readiness(reports: &Reports) -> Result<Option<String>, String> {
    let mut wrong: Vec<String> = reports.waiting.clone();
    let mut say = |what: &str, words: &[String]| {
        wrong.extend(words.iter().map(|one| format!("{what}: {one}")));
    };
    say("node", reports.node.as_slice());
    say("BGP", reports.speaker.problem.as_slice());
    if reports.speaker.identity.is_none() && reports.speaker.problem.is_none() {
        say("BGP", &["not started yet".to_owned()]);
    }
    if !reports.routing.programmed {
        say("routes", &["not programmed yet".to_owned()]);
    }
    if !reports.policy.programmed {
        say("policy", &["not programmed yet".to_owned()]);
    }
    say("addresses", &reports.addresses);
    say("routes", &reports.routing.problems);
    say("policy", reports.policy.problem.as_slice());
    if wrong.is_empty() {
        Ok(remarks(reports))
    } else {
        Err(shortened(&wrong, MAX_PROBLEMS).join("; "))
    }
}

/// Whether new pods may come, and a rollout may go on to the next node: the node's network is in
/// order, and its sessions have come up or had long enough to.
///
/// # Errors
/// As [`readiness`], and what is waited for.
pub fn serves(reports: &Reports) -> Result<Option<String>, String> {
    let remarks = readiness(reports)?;
    match &reports.settling {
        Some(words) => Err(words.clone()),
        None => Ok(remarks),
    }
}

fn remarks(reports: &Reports) -> Option<String> {
    let all = [
        &reports.speaker.peer_problems,
        &reports.routing.missing,
        &reports.policy.objects,
        &reports.remarks,
    ];
    let all: Vec<String> = all.into_iter().flatten().cloned().collect();
    (!all.is_empty()).then(|| shortened(&all, MAX_PROBLEMS).join("; "))
}

/// At most `most` of the lines, and if there are more, how many.
pub fn shortened(lines: &[String], most: usize) -> Vec<String> {
    let mut short: Vec<String> = lines.iter().take(most).cloned().collect();
    if lines.len() > most {
        short.push(format!("and {} more", lines.len() - most));
    }
    short
}

/// The wall-clock time of a moment, by one pair of readings taken once: two readings a second
/// apart must not make the same moment look like another.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    instant: Instant,
    time: Timestamp,
}

impl WallClock {
    /// Reads both clocks now.
    pub fn start() -> Self {
        Self {
            instant: Instant::now(),
            time: Timestamp::now(),
        }
    }

    /// The time of `moment`, RFC 3339 in whole seconds; none before the start.
    pub(super) fn of(&self, moment: Instant) -> Option<String> {
        let after = moment.checked_duration_since(self.instant)?;
        let time = self
            .time
            .checked_add(SignedDuration::try_from(after).ok()?)
            .ok()?;
        Some(rfc3339(time))
    }
}

/// A time in RFC 3339, whole seconds.
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What makes a status worth writing at once: everything but the counters, which may lag.
pub fn without_counters(status: &NodeStatusStatus) -> NodeStatusStatus {
    let mut status = status.clone();
    status.block_count = 0;
    status.pod_count = 0;
    status.routes = RouteCounts::default();
    status.bgp.service_prefixes = 0;
    for peer in &mut status.bgp.peers {
        peer.prefixes_received = 0;
        peer.prefixes_sent = 0;
    }
    status
}

/// The status without its conditions, which need the ones that stand.
pub fn status(reports: &Reports, clock: &WallClock) -> NodeStatusStatus {
    let tunnels: Vec<String> = reports
        .routing
        .tunnels
        .iter()
        .map(ToString::to_string)
        .collect();
    NodeStatusStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tunnel: if tunnels.is_empty() {
            "none".to_owned()
        } else {
            tunnels.join("+")
        },
        block_count: count(reports.blocks),
        pod_count: count(reports.pods),
        bgp: BgpStatus {
            service_prefixes: count(reports.services),
            ..bgp(&reports.speaker, clock)
        },
        drain: reports.drain.to_string(),
        routes: reports.routing.counts,
        conditions: Vec::new(),
    }
}

fn bgp(report: &SpeakerReport, clock: &WallClock) -> BgpStatus {
    let (up, all) = report.sessions();
    let (as_number, router_id) = match &report.identity {
        Some((asn, router_id)) => (asn.0, router_id.to_string()),
        None => (0, String::new()),
    };
    BgpStatus {
        as_number,
        router_id,
        established: count(up),
        not_established: count(all - up),
        service_prefixes: 0,
        peers_left_out: 0,
        peers: report
            .peers
            .iter()
            .map(|peer| peer_status(peer, clock))
            .collect(),
    }
}

/// Where a session comes from: `Mesh`, or the BGPPeer's name. It is the first word of the session's
/// name; no BGPPeer can be called Mesh, since names of objects are in lower case.
pub fn origin(peer: &PeerSummary) -> &str {
    peer.name.split(' ').next().unwrap_or_default()
}

/// The most sessions that a NodeStatus names.
const MAX_PEERS: usize = 128;

/// Keeps a status small where the mesh is large: what is not established stays first, then what is
/// not the mesh.
pub fn shorten_peers(bgp: &mut BgpStatus) {
    if bgp.peers.len() <= MAX_PEERS {
        return;
    }
    let left_out = bgp.peers.len() - MAX_PEERS;
    bgp.peers
        .sort_by_key(|peer| (peer.state == "Established", peer.origin == "Mesh"));
    bgp.peers.truncate(MAX_PEERS);
    bgp.peers_left_out = count(left_out);
}

fn peer_status(peer: &PeerSummary, clock: &WallClock) -> PeerStatus {
    PeerStatus {
        address: peer.address.to_string(),
        as_number: peer.asn.map_or(0, |asn| asn.0),
        origin: origin(peer).to_owned(),
        state: peer.state.to_string(),
        since: clock.of(peer.since),
        last_error: peer.last_error.clone(),
        warning: peer.warning.clone(),
        prefixes_received: peer.prefixes_received,
        prefixes_sent: peer.prefixes_sent,
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_order() -> Reports {
        let mut reports = Reports::default();
        reports.speaker.identity = Some((Asn(1), RouterId(1)));
        reports.routing.programmed = true;
        reports.policy.programmed = true;
        reports
    }

    #[test]
    fn what_is_not_ready_is_said() {
        let words = readiness(&Reports::default()).unwrap_err();
        assert!(
            words.contains("BGP: not started") && words.contains("routes: not programmed"),
            "{words}"
        );
        let mut reports = in_order();
        assert_eq!(readiness(&reports), Ok(None));
        reports
            .routing
            .problems
            .push("this kernel has no ipip".to_owned());
        assert_eq!(
            readiness(&reports).unwrap_err(),
            "routes: this kernel has no ipip"
        );
    }

    #[test]
    fn new_pods_wait_for_the_sessions_and_the_network_does_not() {
        let mut reports = in_order();
        assert_eq!(serves(&reports), Ok(None));
        reports.settling = Some("BGP: 1 of 2 sessions are up".to_owned());
        assert_eq!(readiness(&reports), Ok(None));
        assert!(serves(&reports).unwrap_err().contains("1 of 2"));
    }

    #[test]
    fn what_others_did_is_a_remark() {
        let mut reports = in_order();
        reports.policy.objects = vec!["NetworkPolicy a/b: spec.x: is odd".to_owned()];
        let remark = readiness(&reports).unwrap().unwrap();
        assert!(remark.contains("a/b"), "{remark}");
    }

    #[test]
    fn a_message_does_not_grow_with_the_cluster() {
        let mut reports = in_order();
        reports.routing.missing = (0..5000).map(|n| format!("route {n}: gone")).collect();
        let remark = readiness(&reports).unwrap().unwrap();
        assert!(remark.ends_with("and 4992 more"), "{remark}");
        assert!(remark.len() < 500);
    }
}

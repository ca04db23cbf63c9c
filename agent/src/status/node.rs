//! The NodeStatus of this node, put together from what its parts report.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use margay_bgp::fsm::State;
use margay_bgp::speaker::{PeerSummary, SpeakerConfig};
use margay_crds::node_status::{BgpStatus, NodeStatusStatus, PeerStatus, RouteCounts};

use crate::routing::RoutingReport;

/// The speaker as it is.
#[derive(Debug, Clone, Default)]
pub struct SpeakerReport {
    /// What it was asked to be, once it is known.
    pub config: Option<SpeakerConfig>,
    /// Where each peer comes from.
    pub origins: BTreeMap<IpAddr, String>,
    /// Its sessions.
    pub peers: Vec<PeerSummary>,
    /// Why it is not running or not as asked, in words.
    pub problem: Option<String>,
}

/// The policy table as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyReport {
    /// The table has been written at least once.
    pub programmed: bool,
    /// What could not be done, in words.
    pub problems: Vec<String>,
}

/// All that goes into a NodeStatus.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    /// The speaker.
    pub speaker: SpeakerReport,
    /// Routes and tunnels.
    pub routing: RoutingReport,
    /// The policy table.
    pub policy: PolicyReport,
    /// How many blocks the node holds.
    pub blocks: usize,
    /// What is wrong with the node's blocks, in words.
    pub addresses: Vec<String>,
    /// How many pods are wired.
    pub pods: usize,
}

/// Whether the node's network is in order, and if not, what is wrong: a sentence.
pub fn readiness(reports: &Reports) -> Result<(), String> {
    let mut wrong = Vec::new();
    match (&reports.speaker.problem, &reports.speaker.config) {
        (Some(problem), _) => wrong.push(format!("BGP: {problem}")),
        (None, None) => wrong.push("BGP: waiting for the first list of objects".to_owned()),
        (None, Some(_)) => {}
    }
    if !reports.routing.programmed {
        wrong.push("routes: not programmed yet".to_owned());
    }
    if !reports.policy.programmed {
        wrong.push("policy: not programmed yet".to_owned());
    }
    wrong.extend(
        reports
            .addresses
            .iter()
            .map(|one| format!("addresses: {one}")),
    );
    wrong.extend(
        reports
            .routing
            .problems
            .iter()
            .map(|one| format!("routes: {one}")),
    );
    wrong.extend(
        reports
            .policy
            .problems
            .iter()
            .map(|one| format!("policy: {one}")),
    );
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
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
    fn of(&self, moment: Instant) -> Option<String> {
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
        bgp: bgp(&reports.speaker, clock),
        routes: reports.routing.counts,
        conditions: Vec::new(),
    }
}

fn bgp(report: &SpeakerReport, clock: &WallClock) -> BgpStatus {
    let established = |peer: &&PeerSummary| peer.state == State::Established;
    let up = report.peers.iter().filter(established).count();
    let (as_number, router_id) = match &report.config {
        Some(config) => (config.asn.0, config.router_id.to_string()),
        None => (0, String::new()),
    };
    BgpStatus {
        as_number,
        router_id,
        established: count(up),
        not_established: count(report.peers.len() - up),
        peers: report
            .peers
            .iter()
            .map(|peer| peer_status(report, peer, clock))
            .collect(),
    }
}

fn peer_status(report: &SpeakerReport, peer: &PeerSummary, clock: &WallClock) -> PeerStatus {
    PeerStatus {
        address: peer.address.to_string(),
        as_number: peer.asn.0,
        origin: report
            .origins
            .get(&peer.address)
            .cloned()
            .unwrap_or_default(),
        state: peer.state.to_string(),
        since: clock.of(peer.since),
        last_error: peer.last_error.clone(),
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

    #[test]
    fn what_is_not_ready_is_said() {
        let mut reports = Reports::default();
        let words = readiness(&reports).unwrap_err();
        assert!(
            words.contains("BGP: waiting") && words.contains("routes: not programmed"),
            "{words}"
        );
        reports.speaker.config = Some(SpeakerConfig::new(
            margay_bgp::types::Asn(1),
            margay_bgp::types::RouterId(1),
        ));
        reports.routing.programmed = true;
        reports.policy.programmed = true;
        assert_eq!(readiness(&reports), Ok(()));
        reports
            .routing
            .problems
            .push("this kernel has no ipip".to_owned());
        assert_eq!(
            readiness(&reports).unwrap_err(),
            "routes: this kernel has no ipip"
        );
    }
}

//! What should stand in the datastore, from what the agent knows.

use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use margay_bgp::speaker::NO_TCP_AO;
use margay_crds::bgp_peer::{BGPPeerStatus, PeerSession};
use margay_crds::node_status::NodeStatusStatus;
use margay_crds::{BGPFilter, BGPPeer, Condition, IPPool, IPReservation};

use crate::datastore::Kind;
use crate::status::conditions;
use crate::status::node::{self, Reports, WallClock};
use crate::status::peers::Own;
use crate::view::View;

/// What should stand in the datastore.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// The NodeStatus, its conditions aside.
    pub node: NodeStatusStatus,
    /// The NodeStatus's one condition; none while there is nothing to say yet.
    pub ready: Option<Condition>,
    /// Objects whose condition does not stand there as it should.
    pub accepted: Vec<Accepted>,
}

/// The conditions that should stand on an object that people wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The object's kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version that was read. Every agent finds the same; the first to write wins, and the
    /// writes of the others are refused by this instead of waking everyone once more.
    pub version: Option<String>,
    /// All its conditions.
    pub conditions: Vec<Condition>,
    /// Of a BGPPeer, what else its status should say, if that is not what it says.
    pub sessions: Option<BGPPeerStatus>,
}

/// Works out the wish of the node called `node`; `at` is now by both clocks.
pub fn wish(
    view: &View,
    node: &str,
    reports: &Reports,
    clock: &WallClock,
    at: (Instant, Timestamp),
) -> Wish {
    let now = &*node::rfc3339(at.1);
    let own = Own {
        view,
        node,
        report: &reports.speaker,
        clock,
        now: at,
    };
    let pools = view.pool_objects().filter_map(|pool: &IPPool| {
        let standing = pool.status.as_ref().map(|status| &status.conditions[..]);
        accepted(view, Kind::IPPool, pool, standing, now)
    });
    let peers = view
        .peer_objects()
        .filter_map(|peer: &BGPPeer| peer_status(&own, peer, now));
    let filters = view.filter_objects().filter_map(|filter: &BGPFilter| {
        let standing = filter.status.as_ref().map(|status| &status.conditions[..]);
        accepted(view, Kind::BGPFilter, filter, standing, now)
    });
    let reservations = view.reservations().filter_map(|one: &IPReservation| {
        let standing = one.status.as_ref().map(|status| &status.conditions[..]);
        accepted(view, Kind::IPReservation, one, standing, now)
    });
    let mut status = node::status(reports, clock);
    node::shorten_peers(&mut status.bgp);
    Wish {
        node: status,
        ready: Some(ready(reports, now)),
        accepted: pools
            .chain(peers)
            .chain(filters)
            .chain(reservations)
            .collect(),
    }
}

/// That a BGPPeer is in use, whether its password and its filters are there, and how this node's
/// sessions fare.
fn peer_status(own: &Own<'_>, object: &BGPPeer, now: &str) -> Option<Accepted> {
    let nothing = BGPPeerStatus::default();
    let status = object.status.as_ref().unwrap_or(&nothing);
    let (view, standing) = (own.view, &status.conditions[..]);
    let name = object.metadata.name.clone().unwrap_or_default();
    let wish = accepted(view, Kind::BGPPeer, object, Some(standing), now);
    let peer = view.peers().iter().find(|peer| peer.name == name);
    let refers = |peer: &&margay_crds::Peer| {
        peer.password.is_some() || !peer.tcp_ao.is_empty() || !peer.filters.is_empty()
    };
    let resolved = peer.filter(refers).and_then(|peer| {
        let conditions = wish.as_ref().map_or(standing, |wish| &wish.conditions);
        let missing = view.missing_of(peer).map(|words| ("NotFound", words));
        // By what stands in the object, which is the same for all agents, whatever their kernels have.
        let missing = missing.or_else(|| Some(("NotSupported", unsupported(status)?)));
        let missing = missing.as_ref().map(|(reason, words)| (*reason, &**words));
        let generation = object.metadata.generation;
        conditions::resolved(conditions, generation, missing, now)
    });
    let sessions = own.update(peer, status);
    let conditions = resolved.or(wish.map(|wish| wish.conditions));
    if conditions.is_none() && sessions.is_none() {
        return None;
    }
    Some(Accepted {
        kind: Kind::BGPPeer,
        version: object.metadata.resource_version.clone(),
        name,
        conditions: conditions.unwrap_or_else(|| standing.to_vec()),
        sessions,
    })
}

/// What the sessions of a BGPPeer say of kernels that cannot sign as it asks.
fn unsupported(status: &BGPPeerStatus) -> Option<String> {
    let without = |one: &&PeerSession| {
        let words = one.last_error.as_deref().unwrap_or_default();
        words.contains(NO_TCP_AO)
    };
    let nodes: Vec<&str> = status
        .sessions
        .iter()
        .filter(without)
        .map(|one| &*one.node)
        .collect();
    let first = nodes.first()?;
    let others = match nodes.len() {
        1 => String::new(),
        more => format!(" and {} more", more - 1),
    };
    Some(format!(
        "the session of node {first}{others} stays down: {NO_TCP_AO} (that takes Linux 6.7 or newer with CONFIG_TCP_AO); \
         use another kernel, or a password"
    ))
}

fn accepted(
    view: &View,
    kind: Kind,
    object: &impl Resource,
    standing: Option<&[Condition]>,
    now: &str,
) -> Option<Accepted> {
    let meta = object.meta();
    let name = meta.name.clone().unwrap_or_default();
    let refusal = view.refusal(kind, &name);
    let standing = standing.unwrap_or_default();
    let conditions = conditions::accepted(standing, meta.generation, refusal, now)?;
    Some(Accepted {
        kind,
        name,
        version: meta.resource_version.clone(),
        conditions,
        sessions: None,
    })
}

/// The condition `Ready` of a NodeStatus; `now` is RFC 3339.
pub fn ready(reports: &Reports, now: &str) -> Condition {
    let in_order = "the node's network is in order";
    let (status, reason, message) = match node::readiness(reports) {
        Ok(None) => ("True", "InOrder", in_order.to_owned()),
        Ok(Some(remarks)) => ("True", "Remarks", format!("{in_order}, but: {remarks}")),
        Err(words) => ("False", "NotInOrder", words),
    };
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: None,
        last_transition_time: now.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::watcher::Event;

    use super::*;
    use crate::datastore::Change;

    #[test]
    fn what_stands_is_not_wished_again() {
        let mut view = View::default();
        let spec = serde_json::json!({"cidr": "10.0.0.1/16"});
        let mut pool = IPPool::new("bad", serde_json::from_value(spec).unwrap());
        pool.metadata.resource_version = Some("7".to_owned());
        view.handle(Change::IPPool(Event::Apply(pool.clone())));
        let reports = Reports::default();
        let now = (Instant::now(), Timestamp::now());
        let first = wish(&view, "n1", &reports, &WallClock::start(), now);
        let [accepted] = &first.accepted[..] else {
            panic!("{first:?}")
        };
        assert_eq!(accepted.version.as_deref(), Some("7"));
        assert_eq!(accepted.conditions[0].status, "False");
        assert_eq!(first.ready.unwrap().status, "False");

        pool.status = Some(margay_crds::ip_pool::IPPoolStatus {
            conditions: accepted.conditions.clone(),
            ..Default::default()
        });
        view.handle(Change::IPPool(Event::Apply(pool)));
        let second = wish(&view, "n1", &reports, &WallClock::start(), now);
        assert_eq!(second.accepted, []);
    }
}

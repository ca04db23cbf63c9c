//! What should stand in the datastore, from what the agent knows.

use kube::Resource;
use margay_crds::node_status::NodeStatusStatus;
use margay_crds::{BGPFilter, BGPPeer, Condition, IPPool};

use crate::datastore::Kind;
use crate::status::conditions;
use crate::status::node::{self, Reports, WallClock};
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
}

/// Works out the wish; `now` is RFC 3339.
pub fn wish(view: &View, reports: &Reports, clock: &WallClock, now: &str) -> Wish {
    let pools = view.pool_objects().filter_map(|pool: &IPPool| {
        let standing = pool.status.as_ref().map(|status| &status.conditions[..]);
        accepted(view, Kind::IPPool, pool, standing, now)
    });
    let peers = view.peer_objects().filter_map(|peer: &BGPPeer| {
        let standing = peer.status.as_ref().map(|status| &status.conditions[..]);
        peer_conditions(view, peer, standing.unwrap_or_default(), now)
    });
    let filters = view.filter_objects().filter_map(|filter: &BGPFilter| {
        let standing = filter.status.as_ref().map(|status| &status.conditions[..]);
        accepted(view, Kind::BGPFilter, filter, standing, now)
    });
    Wish {
        node: node::status(reports, clock),
        ready: Some(ready(reports, now)),
        accepted: pools.chain(peers).chain(filters).collect(),
    }
}

/// That a BGPPeer is in use, and whether its password and its filters are there.
fn peer_conditions(
    view: &View,
    object: &BGPPeer,
    standing: &[Condition],
    now: &str,
) -> Option<Accepted> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let wish = accepted(view, Kind::BGPPeer, object, Some(standing), now);
    let peer = view.peers().iter().find(|peer| peer.name == name);
    let refers = |peer: &&margay_crds::Peer| peer.password.is_some() || !peer.filters.is_empty();
    let resolved = peer.filter(refers).and_then(|peer| {
        let conditions = wish.as_ref().map_or(standing, |wish| &wish.conditions);
        let missing = view.missing_of(peer);
        let generation = object.metadata.generation;
        conditions::resolved(conditions, generation, missing.as_deref(), now)
    });
    match resolved {
        None => wish,
        Some(conditions) => Some(Accepted {
            kind: Kind::BGPPeer,
            version: object.metadata.resource_version.clone(),
            name,
            conditions,
        }),
    }
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
        let first = wish(&view, &reports, &WallClock::start(), "t1");
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
        let second = wish(&view, &reports, &WallClock::start(), "t2");
        assert_eq!(second.accepted, []);
    }
}

//! What IPVS forwards, kube-proxy's mode of that name. The packet's way:
//!
//! ```text
//! output         from the node itself? on · neighbour discovery? on
//!                open, related, invalid → tracked (as in `emit`)
//!                balanced-from
//! balanced-from  to the pod that it comes from? on · source → its pod's class, or on to to-pods
//!                elsewhere (as in `emit`)
//! ```
//!
//! With IPVS the node has the addresses of Services itself, on an interface of their own. What is sent to one is delivered
//! to the node, where IPVS takes it, gives it its destination and sends it out: it passes `input`, before its destination
//! is known, and `output`, and never `forward`, where pods' policies are asked of all else. (Answers do pass `forward`, as
//! replies.) In `output` nothing tells which interface it came in by; the source address does, as the check of the source
//! has let no other pass. What has another source than the node's addresses is not the node's, and is judged here as if it
//! were forwarded, each packet anew: the connection's mark says nothing here, since where there are host endpoints the
//! packet has met those on its way in, and they note connections that they let pass.
//!
//! All of it is there only as long as the interface is, so that nobody else pays for it: each pod costs an element more, and
//! each packet of the node a question about its source. It is made anew each time; of a pod's ADD it is a small part.

use std::net::IpAddr;

use super::{
    NodeInput,
    class::Member,
    emit::{DISCOVERY, ELSEWHERE, FROM_PODS, SOURCES, TRACKED, with_family},
};
use crate::ruleset::{
    Action, Chain, ConnectionState, Family, Field, Hook, Key, KeyType, Map, Match, Rule, Ruleset,
    Value, ValueType, Verdict,
};

/// The interface on which kube-proxy puts the addresses of Services when it uses IPVS.
pub const INTERFACE: &str = "kube-ipvs0";

const BALANCED: &str = "balanced";
const BALANCED_FROM: &str = "balanced-from";
const SENDERS: &str = "senders";

/// Whether a chain or map is one of these.
pub(crate) fn is_ipvs(name: &str) -> bool {
    [BALANCED, BALANCED_FROM].contains(&name)
        || Family::ALL
            .iter()
            .any(|family| name == with_family(SENDERS, *family))
}

/// Whether the node forwards by IPVS.
pub(crate) fn is_in_use(node: &NodeInput) -> bool {
    node.interfaces.contains_key(INTERFACE)
}

/// Adds the chains and maps, if they are needed. The rest of the table must be there.
pub(super) fn emit(node: &NodeInput, members: &[Member<'_>], ruleset: &mut Ruleset) {
    if !is_in_use(node) {
        return;
    }
    let endpoints = members.iter().map(|member| &member.endpoint);
    let endpoints = endpoints.map(|endpoint| (endpoint.device, endpoint.addresses));
    let part = part(endpoints, ruleset);
    ruleset.maps.extend(part.maps);
    ruleset.chains.extend(part.chains);
}

/// The chains and maps for these endpoints (the numbers of their interfaces, their addresses), whose way from their
/// interfaces is in `table`.
pub(crate) fn part<'a>(
    endpoints: impl Iterator<Item = (u32, &'a [IpAddr])>,
    table: &Ruleset,
) -> Ruleset {
    let mut part = Ruleset::new();
    let maps = Family::ALL.map(|family| {
        let map = Map {
            key: KeyType::Address(family),
            value: ValueType::Verdict,
            elements: Default::default(),
        };
        (with_family(SENDERS, family), map)
    });
    part.maps.extend(maps);
    let ways = table.maps.get(FROM_PODS);
    for (device, addresses) in endpoints {
        let way = ways.and_then(|ways| ways.elements.get(&Key::Device(device)));
        for address in addresses {
            let name = with_family(SENDERS, Family::of(*address));
            if let (Some(way), Some(map)) = (way, part.maps.get_mut(&name)) {
                add_sender(map, *address, way);
            }
        }
    }
    part.chains.insert(BALANCED.to_owned(), base());
    part.chains.insert(BALANCED_FROM.to_owned(), from());
    part
}

/// Two pods with one address: nobody knows whose policies are to be asked.
fn add_sender(map: &mut Map, address: IpAddr, way: &Value) {
    let known = map.elements.entry(Key::Address(address));
    known
        .and_modify(|known| {
            if known != way {
                *known = Value::from(Verdict::Drop);
            }
        })
        .or_insert_with(|| way.clone());
}

fn base() -> Chain {
    let discovery = Match::In(vec![Field::IcmpV6Type], DISCOVERY.to_owned());
    let tracked = Match::Connection(vec![
        ConnectionState::Established,
        ConnectionState::Related,
        ConnectionState::Invalid,
    ]);
    Chain {
        hook: Some(Hook::Output),
        rules: vec![
            Rule::new([Match::FromNode], Verdict::Accept),
            Rule::new([discovery], Verdict::Accept),
            Rule::new([tracked], Verdict::Jump(TRACKED.to_owned())),
            Rule::always(Verdict::Goto(BALANCED_FROM.to_owned())),
        ],
    }
}

fn from() -> Chain {
    let by = |fields: fn(Family) -> Vec<Field>, map: &'static str| {
        Family::ALL.map(|family| {
            let map = with_family(map, family);
            Rule::always(Action::VerdictMap(fields(family), map))
        })
    };
    // The addresses behind an interface are those that may send from there: no policy denies a pod itself.
    let itself = by(
        |family| vec![Field::OutDevice, Field::Source(family)],
        SOURCES,
    );
    let sender = by(|family| vec![Field::Source(family)], SENDERS);
    let elsewhere = [Rule::always(Verdict::Goto(ELSEWHERE.to_owned()))];
    Chain::of(itself.into_iter().chain(sender).chain(elsewhere))
}

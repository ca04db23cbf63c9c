//! The short way of a few routes into the kernel.
//!
//! A whole comparison reads every link, setting and route of ours first, which takes longer than all the rest of
//! a route's way from its node to this one. Where two intents differ by nothing but routes that come and go, these are
//! therefore put in and taken out at once, and compared with everything else a moment later. What is not that simple (a
//! route that changes, a tunnel, an address) waits for the comparison, as does everything whose outcome is not plain.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use margay_dataplane::{Route, RouteKey, RouteTarget};

use crate::reconcile::routes::RouteIntent;

/// The most routes that go the short way: whoever has more of them gains nothing by it.
const MOST: usize = 1024;

/// What one intent has beyond another.
#[derive(Debug)]
pub(super) struct Difference {
    /// The routes that come, with everything else as it is.
    pub(super) coming: RouteIntent,
    /// The routes that go.
    pub(super) going: Vec<RouteKey>,
}

/// The difference of an intent from the one in force, if it is simple. `unsettled` are the destinations of which it is not
/// known that they are as the intent in force wants them; `has_pod` tells whether a destination is a pod's of this node.
pub(super) fn difference(
    before: &RouteIntent,
    now: &RouteIntent,
    unsettled: &BTreeSet<IpNetwork>,
    has_pod: impl Fn(&IpNetwork) -> bool,
) -> Option<Difference> {
    let is_like = before.node_addresses == now.node_addresses
        && before.other_nodes == now.other_nodes
        && before.tunnels == now.tunnels
        && before.tunnel_addresses == now.tunnel_addresses
        && before.keep_unwanted == now.keep_unwanted;
    if !is_like {
        return None;
    }
    let mut coming = RouteIntent {
        blocks: now.blocks.difference(&before.blocks).copied().collect(),
        ..now.clone_without_routes()
    };
    for (destination, route) in &now.remote {
        match before.remote.get(destination) {
            Some(known) if known == route => {}
            // In the place of another one: whose that is, the comparison sees.
            Some(_) => return None,
            None => drop(coming.remote.insert(*destination, route.clone())),
        }
    }
    let gone_blocks = before.blocks.difference(&now.blocks);
    let gone_remote = before.remote.iter();
    let gone_remote = gone_remote.filter(|(destination, _)| !now.remote.contains_key(destination));
    let going: Vec<RouteKey> = gone_blocks
        .map(|block| (*block, None))
        .chain(gone_remote.map(|(destination, route)| (*destination, route.metric)))
        .map(|(destination, metric)| key(destination, metric))
        .collect();
    // One destination wanted twice, before or now, or in doubt: not simple.
    let touched = coming.blocks.iter().chain(coming.remote.keys()).copied();
    let touched = touched.chain(going.iter().map(|key| key.destination));
    let is_both = |intent: &RouteIntent, destination: &IpNetwork| {
        intent.blocks.contains(destination) && intent.remote.contains_key(destination)
    };
    let mut seen = BTreeSet::new();
    let is_plain = |destination: IpNetwork| {
        let in_doubt = unsettled.contains(&destination) || has_pod(&destination);
        let twice = is_both(before, &destination) || is_both(now, &destination);
        seen.insert(destination) && !in_doubt && !twice
    };
    let count = coming.blocks.len() + coming.remote.len() + going.len();
    let keeps = now.keep_unwanted && !going.is_empty();
    let is_short = (1..=MOST).contains(&count) && !keeps && { touched }.all(is_plain);
    is_short.then_some(Difference { coming, going })
}

/// The key under which a route is in the kernel.
fn key(destination: IpNetwork, metric: Option<u32>) -> RouteKey {
    let mut route = Route::new(destination, RouteTarget::Blackhole);
    route.metric = metric.unwrap_or(route.metric);
    route.key()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::reconcile::routes::RemoteRoute;
    use margay_dataplane::Encapsulation;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn via(next_hop: &str) -> RemoteRoute {
        RemoteRoute {
            next_hops: BTreeSet::from([next_hop.parse().unwrap()]),
            on_links: BTreeSet::new(),
            encapsulation: Encapsulation::Never,
            metric: None,
        }
    }

    fn intent(blocks: &[&str], remote: &[(&str, &str)]) -> RouteIntent {
        RouteIntent {
            blocks: blocks.iter().map(|text| net(text)).collect(),
            remote: remote
                .iter()
                .map(|(destination, hop)| (net(destination), via(hop)))
                .collect(),
            ..RouteIntent::default()
        }
    }

    /// The destinations that come and go, or none where it is not simple.
    fn told(before: &RouteIntent, now: &RouteIntent) -> Option<(Vec<String>, Vec<String>)> {
        let found = difference(before, now, &[net("10.9.0.0/26")].into(), |pod| {
            *pod == net("10.1.0.5/32")
        })?;
        let coming = found.coming.blocks.iter();
        let coming = coming.chain(found.coming.remote.keys());
        let going = found.going.iter().map(ToString::to_string);
        Some((coming.map(ToString::to_string).collect(), going.collect()))
    }

    #[test]
    fn what_comes_and_goes_and_nothing_else_is_simple() {
        let before = intent(&["10.1.0.0/26"], &[("10.2.0.0/26", "192.0.2.2")]);
        let both = [("10.2.0.0/26", "192.0.2.2"), ("10.3.0.0/26", "192.0.2.3")];
        let more = intent(&["10.1.0.0/26", "10.1.0.64/26"], &both);
        let all = vec!["10.1.0.64/26".to_owned(), "10.3.0.0/26".to_owned()];
        assert_eq!(told(&before, &more), Some((all.clone(), Vec::new())));
        assert_eq!(told(&more, &before), Some((Vec::new(), all)));

        // Nothing at all, a change, an address, a destination twice, in doubt, a pod's.
        assert_eq!(told(&before, &before), None);
        let other = intent(&["10.1.0.0/26"], &[("10.2.0.0/26", "192.0.2.9")]);
        assert_eq!(told(&before, &other), None);
        let mut moved = more.clone();
        moved.node_addresses = vec!["192.0.2.1".parse().unwrap()];
        assert_eq!(told(&before, &moved), None);
        let taken = intent(&[], &[("10.1.0.0/26", "192.0.2.2"), both[0]]);
        assert_eq!(told(&before, &taken), None);
        for destination in ["10.9.0.0/26", "10.1.0.5/32"] {
            let doubtful = intent(&["10.1.0.0/26"], &[both[0], (destination, "192.0.2.3")]);
            assert_eq!(told(&before, &doubtful), None, "{destination}");
            assert_eq!(told(&doubtful, &before), None, "{destination}");
        }
    }

    #[test]
    fn while_nothing_may_go_nothing_goes() {
        let waiting = |intent: RouteIntent| RouteIntent {
            keep_unwanted: true,
            ..intent
        };
        let before = waiting(intent(&[], &[("10.2.0.0/26", "192.0.2.2")]));
        assert_eq!(told(&before, &waiting(intent(&[], &[]))), None);
        let more = waiting(intent(&["10.1.0.0/26"], &[("10.2.0.0/26", "192.0.2.2")]));
        assert!(told(&before, &more).is_some());
    }

    #[test]
    fn a_route_goes_with_its_metric_and_many_at_once_do_not_go_the_short_way() {
        let mut before = intent(&[], &[("10.2.0.0/26", "192.0.2.2")]);
        let route = before.remote.get_mut(&net("10.2.0.0/26")).unwrap();
        route.metric = Some(77);
        let (_, going) = told(&before, &intent(&[], &[])).unwrap();
        assert_eq!(going, ["10.2.0.0/26 metric 77"]);

        let blocks = (0..=MOST).map(|number| {
            let address = u32::from(std::net::Ipv4Addr::new(10, 2, 0, 0));
            let number = u32::try_from(number).unwrap() * 64;
            let address = std::net::Ipv4Addr::from(address + number);
            (
                IpNetwork::new(address.into(), 26).unwrap(),
                via("192.0.2.2"),
            )
        });
        let many = RouteIntent {
            remote: blocks.collect::<BTreeMap<_, _>>(),
            ..RouteIntent::default()
        };
        assert_eq!(told(&intent(&[], &[]), &many), None);
    }
}

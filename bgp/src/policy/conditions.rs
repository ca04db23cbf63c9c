//! [`Conditions`]: what a rule asks of a route besides its prefix, and [`Subject`], the route asked.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{
    AsPathPattern, CommunityMatch, CommunityPattern, ExtendedCommunityPattern,
    LargeCommunityPattern,
};
use crate::types::{Asn, AsnRange, Prefix};
use crate::wire::{AsSegment, PathAttributes};

/// Whether a session is with a peer in our AS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PeerType {
    /// The peer is in our AS.
    #[serde(alias = "iBGP", alias = "internal")]
    Internal,
    /// The peer is in another AS.
    #[serde(alias = "eBGP", alias = "external")]
    External,
}

/// Where a route came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RouteSource {
    /// This speaker announces it.
    Local,
    /// A peer gave it, whichever.
    RemotePeers,
    /// A peer in our AS gave it.
    Internal,
    /// A peer in another AS gave it.
    External,
}

/// A route as filters see it, without its prefix: everything about it that routes with the same attributes share.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The attributes.
    pub attributes: &'a PathAttributes,
    /// The next hop; `None`: this speaker.
    pub next_hop: Option<IpAddr>,
    /// The metric an import filter gave it.
    pub metric: Option<u32>,
    /// The session the filter belongs to.
    pub peer_type: PeerType,
    /// Who gave the route to this speaker: never [`RouteSource::RemotePeers`], which stands for two of the others.
    pub source: RouteSource,
}

/// What a rule asks of a route besides its prefix. Every condition that is there must hold; none: every route will do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Communities (RFC 1997).
    pub communities: CommunityMatch<CommunityPattern>,
    /// Large communities (RFC 8092).
    pub large_communities: CommunityMatch<LargeCommunityPattern>,
    /// Extended communities (RFC 4360).
    pub extended_communities: CommunityMatch<ExtendedCommunityPattern>,
    /// The AS_PATH begins with these, the AS next to us first.
    pub as_path_prefix: Vec<Asn>,
    /// The AS_PATH matches.
    pub as_path: Option<AsPathPattern>,
    /// The last AS of the AS_PATH is one of these. A path that is empty or ends with an AS_SET has no such AS.
    pub origin_as: Vec<AsnRange>,
    /// The AS_PATH has at least so many ASes as the decision process counts them.
    pub min_as_path_length: Option<u32>,
    /// The AS_PATH has at most so many ASes.
    pub max_as_path_length: Option<u32>,
    /// The session is of this type.
    pub peer_type: Option<PeerType>,
    /// The route came from there.
    pub source: Option<RouteSource>,
    /// The next hop is in one of these networks.
    pub next_hop: Vec<Prefix>,
    /// The route has exactly this metric.
    pub metric: Option<u32>,
}

impl Conditions {
    /// Whether there is no condition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a route meets every condition.
    #[must_use]
    pub fn hold(&self, subject: &Subject<'_>) -> bool {
        self.session_holds(subject)
            && self.communities_hold(subject.attributes)
            && self.path_holds(subject.attributes)
    }

    fn session_holds(&self, subject: &Subject<'_>) -> bool {
        let from = |wanted| {
            wanted == subject.source
                || (wanted == RouteSource::RemotePeers && subject.source != RouteSource::Local)
        };
        let within = |networks: &[Prefix]| {
            networks.is_empty()
                || subject.next_hop.is_some_and(|next_hop| {
                    networks
                        .iter()
                        .any(|network| network.contains_address(&next_hop))
                })
        };
        self.peer_type.is_none_or(|kind| kind == subject.peer_type)
            && self.source.is_none_or(from)
            && within(&self.next_hop)
            && (self.metric.is_none() || self.metric == subject.metric)
    }

    fn communities_hold(&self, attributes: &PathAttributes) -> bool {
        self.communities
            .holds(&attributes.communities, |p, c| p.matches(c))
            && self
                .large_communities
                .holds(&attributes.large_communities, |p, c| p.matches(c))
            && self
                .extended_communities
                .holds(&attributes.extended_communities, |p, c| p.matches(c))
    }

    fn path_holds(&self, attributes: &PathAttributes) -> bool {
        let path = &attributes.as_path;
        let length = || u32::try_from(path.length()).unwrap_or(u32::MAX);
        let begins = || match path.segments().first() {
            Some(AsSegment::Sequence(asns)) => asns.starts_with(&self.as_path_prefix),
            _ => false,
        };
        let originates = |origin: Asn| self.origin_as.iter().any(|range| range.contains(origin));
        (self.as_path_prefix.is_empty() || begins())
            && (self.origin_as.is_empty() || path.origin().is_some_and(originates))
            && self.min_as_path_length.is_none_or(|min| length() >= min)
            && self.max_as_path_length.is_none_or(|max| length() <= max)
            && self
                .as_path
                .as_ref()
                .is_none_or(|pattern| pattern.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::AsPath;

    fn conditions(change: impl FnOnce(&mut Conditions)) -> Conditions {
        let mut conditions = Conditions::default();
        change(&mut conditions);
        conditions
    }

    #[test]
    fn each_condition_on_its_own() {
        let attributes = PathAttributes {
            as_path: AsPath::sequence([Asn(64512), Asn(64513), Asn(65000)]),
            communities: vec!["64512:7".parse().unwrap()],
            large_communities: vec!["1:2:3".parse().unwrap()],
            extended_communities: vec!["rt:64512:9".parse().unwrap()],
            ..PathAttributes::default()
        };
        let subject = Subject {
            attributes: &attributes,
            next_hop: Some([10, 0, 0, 9].into()),
            metric: Some(50),
            peer_type: PeerType::External,
            source: RouteSource::Internal,
        };
        type Change = fn(&mut Conditions);
        let table: [(Change, bool); 26] = [
            (|_| {}, true),
            (
                |c| c.communities.any = vec!["64512:*".parse().unwrap()],
                true,
            ),
            (|c| c.communities.any = vec!["1:1".parse().unwrap()], false),
            (|c| c.communities.none = vec!["*:7".parse().unwrap()], false),
            (
                |c| c.large_communities.all = vec!["1:*:3".parse().unwrap()],
                true,
            ),
            (
                |c| c.large_communities.all = vec!["1:*:4".parse().unwrap()],
                false,
            ),
            (
                |c| c.extended_communities.any = vec!["rt:*".parse().unwrap()],
                true,
            ),
            (
                |c| c.extended_communities.any = vec!["ro:*".parse().unwrap()],
                false,
            ),
            (|c| c.as_path_prefix = vec![Asn(64512), Asn(64513)], true),
            (|c| c.as_path_prefix = vec![Asn(64513)], false),
            (
                |c| c.as_path_prefix = vec![Asn(64512), Asn(64513), Asn(65000), Asn(1)],
                false,
            ),
            (|c| c.as_path = "^64512 .* 65000$".parse().ok(), true),
            (|c| c.as_path = "^65000".parse().ok(), false),
            (|c| c.origin_as = vec!["65000-65010".parse().unwrap()], true),
            (|c| c.origin_as = vec![Asn(64513).into()], false),
            (|c| c.min_as_path_length = Some(4), false),
            (|c| c.max_as_path_length = Some(3), true),
            (|c| c.max_as_path_length = Some(2), false),
            (|c| c.peer_type = Some(PeerType::External), true),
            (|c| c.peer_type = Some(PeerType::Internal), false),
            (|c| c.source = Some(RouteSource::RemotePeers), true),
            (|c| c.source = Some(RouteSource::Internal), true),
            (|c| c.source = Some(RouteSource::Local), false),
            (|c| c.next_hop = vec!["10.0.0.0/24".parse().unwrap()], true),
            (|c| c.next_hop = vec!["10.0.1.0/24".parse().unwrap()], false),
            (|c| c.metric = Some(51), false),
        ];
        for (index, (change, expected)) in table.into_iter().enumerate() {
            let conditions = conditions(change);
            assert_eq!(
                conditions.hold(&subject),
                expected,
                "{index}: {conditions:?}"
            );
            assert_eq!(conditions.is_empty(), index == 0);
        }
    }

    #[test]
    fn an_own_route_has_no_next_hop_and_no_origin() {
        let attributes = PathAttributes::default();
        let subject = Subject {
            attributes: &attributes,
            next_hop: None,
            metric: None,
            peer_type: PeerType::Internal,
            source: RouteSource::Local,
        };
        let next_hop = conditions(|c| c.next_hop = vec![Prefix::DEFAULT_V4]);
        let origin = conditions(|c| c.origin_as = vec!["0-4294967295".parse().unwrap()]);
        let remote = conditions(|c| c.source = Some(RouteSource::RemotePeers));
        let empty = conditions(|c| c.as_path = "^$".parse().ok());
        for (conditions, expected) in [
            (next_hop, false),
            (origin, false),
            (remote, false),
            (empty, true),
        ] {
            assert_eq!(conditions.hold(&subject), expected, "{conditions:?}");
        }
    }
}

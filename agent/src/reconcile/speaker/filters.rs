//! What routes pass: the rules of a session's BGPFilters, and behind them what holds without.

use ipnetwork::IpNetwork;
use margay_bgp::config::PeerAsn;
use margay_bgp::policy::{
    Conditions, Filter, LargeCommunityPattern, MatchOperator, Operation, PeerType, PrefixMatch,
    RouteSource, Rule, Verdict,
};
use margay_bgp::speaker::PeerConfig;
use margay_bgp::types::{Asn, Community, LargeCommunity, Prefix};
use margay_crds::bgp_filter::{self as crd, Action, FilterRule, MatchOperator as Operator};
use margay_crds::{CommunityValue, Peer};

use super::Cluster;

/// What passes on a session of the mesh, and on one without BGPFilters.
pub(super) fn by_default(cluster: &Cluster<'_>, config: &mut PeerConfig) {
    with_rules(cluster, config, &[], Vec::new(), Vec::new());
}

/// What passes on a session of a BGPPeer. A filter that is not there lets nothing pass: what it would have kept out is not
/// known.
pub(super) fn of_peer(cluster: &Cluster<'_>, peer: &Peer, config: &mut PeerConfig) {
    let (mut import, mut export) = (Vec::new(), Vec::new());
    for name in &peer.filters {
        let Some(filter) = cluster.view.filter(name) else {
            config.import = Some(Filter::reject_all());
            config.export = Some(Filter::reject_all());
            return;
        };
        import.extend(filter.import.iter().map(|from| rule(from, Way::In)));
        export.extend(filter.export.iter().map(|from| rule(from, Way::Out)));
    }
    with_rules(cluster, config, &peer.import_cidrs, import, export);
}

fn with_rules(
    cluster: &Cluster<'_>,
    config: &mut PeerConfig,
    import_cidrs: &[IpNetwork],
    mut import: Vec<Rule>,
    mut export: Vec<Rule>,
) {
    let internal = match &config.asn {
        // Who comes from a range of ASes may turn out to be in ours; what holds for others is right for it, too.
        PeerAsn::OneOf(_) => false,
        asn => asn.is_internal(cluster.asn),
    };
    let reflects = cluster.own.bgp.cluster_id.is_some();
    let own = Conditions {
        source: Some(RouteSource::Local),
        ..Conditions::default()
    };
    config.export = match (internal, reflects) {
        // Everything, as reflectors do.
        (true, true) if export.is_empty() => None,
        (true, true) => Some(Filter::new(export, Verdict::Accept)),
        (_, false) => {
            export.push(accept(Vec::new(), own));
            Some(Filter::new(export, Verdict::Reject))
        }
        (false, true) => {
            export.push(accept(Vec::new(), own));
            let nodes = Conditions {
                source: Some(RouteSource::Internal),
                ..Conditions::default()
            };
            export.push(accept(Vec::new(), nodes));
            Some(Filter::new(export, Verdict::Reject))
        }
    };
    config.import = if internal {
        (!import.is_empty()).then(|| Filter::new(import, Verdict::Accept))
    } else {
        let pools = cluster.view.pools().iter();
        let pools = pools.filter(|pool| !pool.is_for_services());
        let asked = cluster.settings.import_cidrs.iter().chain(import_cidrs);
        let space: Vec<_> = pools
            .map(|pool| PrefixMatch::within(Prefix::from(pool.cidr)))
            .chain(asked.map(|cidr| asked_for(*cidr)))
            .collect();
        // A rule without prefixes would be one about everything.
        if !space.is_empty() {
            import.push(accept(space, Conditions::default()));
        }
        Some(Filter::new(import, Verdict::Reject))
    };
}

/// Whoever names the default route means it, and not everything within it.
fn asked_for(cidr: IpNetwork) -> PrefixMatch {
    match cidr.prefix() {
        0 => PrefixMatch::exactly(Prefix::from(cidr)),
        _ => PrefixMatch::within(Prefix::from(cidr)),
    }
}

fn accept(prefixes: Vec<PrefixMatch>, conditions: Conditions) -> Rule {
    Rule {
        prefixes,
        conditions,
        ..Rule::new(Verdict::Accept)
    }
}

/// Which way routes go that a rule is about.
#[derive(Clone, Copy)]
enum Way {
    In,
    Out,
}

/// A rule of a BGPFilter in the speaker's words.
fn rule(from: &FilterRule, way: Way) -> Rule {
    let mut conditions = Conditions {
        as_path_prefix: from.as_path_prefix.iter().map(|asn| Asn(*asn)).collect(),
        peer_type: from.peer_type.map(|kind| match kind {
            crd::PeerType::External => PeerType::External,
            crd::PeerType::Internal => PeerType::Internal,
        }),
        source: from.remote_only.then_some(RouteSource::RemotePeers),
        metric: from.priority,
        ..Conditions::default()
    };
    for value in &from.communities {
        match *value {
            CommunityValue::Standard(asn, value) => {
                let community = Community::new(asn, value);
                conditions.communities.all.push(community.into());
            }
            // A value is a pattern without a wildcard.
            CommunityValue::Large(..) => {
                let pattern = value.to_string().parse::<LargeCommunityPattern>();
                conditions.large_communities.all.extend(pattern);
            }
        }
    }
    Rule {
        prefixes: vec![prefixes(from)],
        conditions,
        verdict: match from.action {
            Action::Accept => Verdict::Accept,
            Action::Reject => Verdict::Reject,
        },
        operations: from
            .operations
            .iter()
            .map(|from| operation(from, way))
            .collect(),
    }
}

/// The routes a rule is about, those of its family at most.
fn prefixes(from: &FilterRule) -> PrefixMatch {
    let everything = if from.ipv4 {
        Prefix::DEFAULT_V4
    } else {
        Prefix::DEFAULT_V6
    };
    let mut found = match from.network {
        None => PrefixMatch::within(everything),
        Some((network, operator)) => PrefixMatch {
            operator: match operator {
                Operator::Equal => MatchOperator::Equal,
                Operator::NotEqual => MatchOperator::NotEqual,
                Operator::In => MatchOperator::In,
                Operator::NotIn => MatchOperator::NotIn,
            },
            ..PrefixMatch::within(Prefix::from(network))
        },
    };
    found.min_length = from.lengths.min;
    found.max_length = from.lengths.max;
    found
}

/// The priority of routes that nobody gave one, as in Calico.
const NORMAL_PRIORITY: u32 = 1024;
/// The LOCAL_PREF of routes that nobody gave one.
const NORMAL_LOCAL_PREF: u32 = 100;

/// What a priority is to routers in the same AS: of two, the route with the lower priority is used. Calico's nodes tell it as
/// 2147483647 less the priority, and all their routes carry that; ours carry 100 like everybody's, so a route of
/// the normal priority has that, too, and the others are before and behind it by their difference. Beyond 1124 all are last.
fn local_pref(priority: u32) -> u32 {
    (NORMAL_LOCAL_PREF + NORMAL_PRIORITY).saturating_sub(priority)
}

fn operation(from: &crd::Operation, way: Way) -> Operation {
    match from {
        crd::Operation::AddCommunity(CommunityValue::Standard(asn, value)) => {
            Operation::AddCommunity(Community::new(*asn, *value))
        }
        crd::Operation::AddCommunity(CommunityValue::Large(global, local1, local2)) => {
            Operation::AddLargeCommunity(LargeCommunity {
                global: *global,
                local1: *local1,
                local2: *local2,
            })
        }
        crd::Operation::Prepend(ases) => {
            Operation::PrependPath(ases.iter().map(|asn| Asn(*asn)).collect())
        }
        crd::Operation::SetPriority(priority) => match way {
            Way::In => Operation::SetMetric(*priority),
            // Routers in other ASes are told of no preference.
            Way::Out => Operation::SetLocalPref(local_pref(*priority)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_priority_is_a_higher_preference_around_the_normal_one() {
        let table = [
            (1, 1123),
            (512, 612),
            (1023, 101),
            (1024, 100),
            (1025, 99),
            (1124, 0),
            (2_147_483_646, 0),
        ];
        for (priority, expected) in table {
            assert_eq!(local_pref(priority), expected, "{priority}");
        }
    }

    #[test]
    fn a_priority_is_a_metric_on_the_way_in_and_a_preference_on_the_way_out() {
        let from = crd::Operation::SetPriority(512);
        assert_eq!(operation(&from, Way::In), Operation::SetMetric(512));
        assert_eq!(operation(&from, Way::Out), Operation::SetLocalPref(612));
    }
}

//! The filters of the file and what they mean.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor, value};
use serde::{Deserialize, Serialize};

use crate::policy::{
    AsPathPattern, CommunityMatch, CommunityPattern, Conditions, ExtendedCommunityPattern, Filter,
    LargeCommunityPattern, MAX_PREPEND, MatchOperator, Operation, PeerType, PrefixMatch,
    RouteSource, Rule, Verdict,
};
use crate::types::{Asn, AsnRange, Community, ExtendedCommunity, Family, LargeCommunity, Prefix};

/// Lists of prefixes by name.
pub type PrefixLists = BTreeMap<String, Vec<PrefixEntry>>;

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterEntry {
    /// The rules; the first that matches decides.
    #[serde(default)]
    pub rules: Vec<RuleEntry>,
    /// What happens to routes no rule matches; left out: they are rejected.
    #[serde(default = "reject")]
    pub default: Action,
}

/// One rule of a filter, with the field names of Calico's BGPFilter where that has them.
///
/// Every condition that is there must hold. Changes are made in this order: `set…`, `remove…`, `add…`, `prepend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleEntry {
    /// The network routes are compared with; left out: the rule matches every route.
    #[serde(default)]
    pub cidr: Option<Prefix>,
    /// How: `In` (the default), `Equal`, `NotIn`, `NotEqual`.
    #[serde(default)]
    pub match_operator: Option<MatchOperator>,
    /// The prefix lengths that match; left out: all.
    #[serde(default)]
    pub prefix_length: LengthRange,
    /// In place of `cidr`: the route matches one of these.
    #[serde(default)]
    pub prefixes: Vec<PrefixEntry>,
    /// In place of `cidr`: the name of a list under `prefixLists`.
    #[serde(default)]
    pub prefix_list: Option<String>,
    /// Communities the route has: a list (one of them), or `any`, `all` and `none` with a list each.
    #[serde(default)]
    pub communities: MatchEntry<CommunityPattern>,
    /// Large communities the route has.
    #[serde(default)]
    pub large_communities: MatchEntry<LargeCommunityPattern>,
    /// Extended communities the route has.
    #[serde(default)]
    pub extended_communities: MatchEntry<ExtendedCommunityPattern>,
    /// ASes the AS path begins with.
    #[serde(default)]
    pub as_path_prefix: Vec<Asn>,
    /// A regular expression over the ASes of the path.
    #[serde(default)]
    pub as_path: Option<AsPathPattern>,
    /// ASes and ranges of them, one of which the route comes from.
    #[serde(default)]
    pub origin_as: Vec<AsnRange>,
    /// Lengths of the AS path.
    #[serde(default)]
    pub as_path_length: PathLengthRange,
    /// The session is `eBGP` or `iBGP`.
    #[serde(default)]
    pub peer_type: Option<PeerType>,
    /// The route came from there: `RemotePeers`, `Local`, `External`, `Internal`.
    #[serde(default)]
    pub source: Option<RouteSource>,
    /// Addresses and networks, one of which holds the next hop.
    #[serde(default)]
    pub next_hop: Vec<HostOrNetwork>,
    /// The metric an import filter has given the route.
    #[serde(default)]
    pub metric: Option<u32>,
    /// What happens to routes that match.
    pub action: Action,
    /// LOCAL_PREF to give them.
    #[serde(default)]
    pub set_local_pref: Option<u32>,
    /// MULTI_EXIT_DISC to give them.
    #[serde(default)]
    pub set_med: Option<u32>,
    /// Metric to give them in the kernel's table.
    #[serde(default)]
    pub set_metric: Option<u32>,
    /// Communities to add to them.
    #[serde(default)]
    pub add_communities: Vec<Community>,
    /// Communities to give them in place of those they have.
    #[serde(default)]
    pub set_communities: Option<Vec<Community>>,
    /// Communities to take from them.
    #[serde(default)]
    pub remove_communities: Vec<CommunityPattern>,
    /// Large communities to add to them.
    #[serde(default)]
    pub add_large_communities: Vec<LargeCommunity>,
    /// Large communities to give them in place of those they have.
    #[serde(default)]
    pub set_large_communities: Option<Vec<LargeCommunity>>,
    /// Large communities to take from them.
    #[serde(default)]
    pub remove_large_communities: Vec<LargeCommunityPattern>,
    /// Extended communities to add to them.
    #[serde(default)]
    pub add_extended_communities: Vec<ExtendedCommunity>,
    /// Extended communities to give them in place of those they have.
    #[serde(default)]
    pub set_extended_communities: Option<Vec<ExtendedCommunity>>,
    /// Extended communities to take from them.
    #[serde(default)]
    pub remove_extended_communities: Vec<ExtendedCommunityPattern>,
    /// An AS to put in front of the AS path.
    #[serde(default)]
    pub prepend: Option<PrependEntry>,
}

/// A range of prefix lengths, in bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LengthRange {
    /// The shortest.
    #[serde(default)]
    pub min: Option<u8>,
    /// The longest.
    #[serde(default)]
    pub max: Option<u8>,
}

/// A range of AS path lengths, in ASes as the decision process counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathLengthRange {
    /// The shortest.
    #[serde(default)]
    pub min: Option<u32>,
    /// The longest.
    #[serde(default)]
    pub max: Option<u32>,
}

/// What to prepend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrependEntry {
    /// The AS; left out: this speaker's.
    #[serde(default)]
    pub asn: Option<Asn>,
    /// How often, 1 to 32; left out: once.
    #[serde(default = "once")]
    pub count: u8,
}

/// An item of a list of prefixes: a network (itself and what is in it), or an object with the fields of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixEntry {
    /// The network routes are compared with.
    pub cidr: Prefix,
    /// How.
    pub match_operator: MatchOperator,
    /// The prefix lengths that match.
    pub prefix_length: LengthRange,
}

impl<'de> Deserialize<'de> for PrefixEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Fields {
            cidr: Prefix,
            #[serde(default)]
            match_operator: MatchOperator,
            #[serde(default)]
            prefix_length: LengthRange,
        }

        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = PrefixEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a network, or an object with cidr, matchOperator and prefixLength")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PrefixEntry, E> {
                Ok(PrefixEntry {
                    cidr: text.parse().map_err(E::custom)?,
                    match_operator: MatchOperator::In,
                    prefix_length: LengthRange::default(),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PrefixEntry, A::Error> {
                let fields = Fields::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(PrefixEntry {
                    cidr: fields.cidr,
                    match_operator: fields.match_operator,
                    prefix_length: fields.prefix_length,
                })
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Communities asked for: a list, one of which is enough, or an object with `any`, `all` and `none`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MatchEntry<P>(pub CommunityMatch<P>);

impl<P> Default for MatchEntry<P> {
    fn default() -> Self {
        Self(CommunityMatch::default())
    }
}

impl<'de, P: Deserialize<'de>> Deserialize<'de> for MatchEntry<P> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields<P> {
            #[serde(default = "Vec::new")]
            any: Vec<P>,
            #[serde(default = "Vec::new")]
            all: Vec<P>,
            #[serde(default = "Vec::new")]
            none: Vec<P>,
        }

        struct Either<P>(PhantomData<P>);

        impl<'de, P: Deserialize<'de>> Visitor<'de> for Either<P> {
            type Value = MatchEntry<P>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of communities, or an object with any, all and none")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<MatchEntry<P>, A::Error> {
                let any = Vec::deserialize(value::SeqAccessDeserializer::new(seq))?;
                Ok(MatchEntry(CommunityMatch::any(any)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MatchEntry<P>, A::Error> {
                let fields = Fields::deserialize(value::MapAccessDeserializer::new(map))?;
                Ok(MatchEntry(CommunityMatch {
                    any: fields.any,
                    all: fields.all,
                    none: fields.none,
                }))
            }
        }

        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// An address or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "Prefix")]
pub struct HostOrNetwork(pub Prefix);

impl TryFrom<String> for HostOrNetwork {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = || text.parse::<Prefix>().ok();
        let host = || text.parse::<IpAddr>().ok().map(Prefix::host);
        host().or_else(network).map(Self).ok_or_else(|| {
            format!("{text:?} is neither an IP address nor a network ADDRESS/LENGTH")
        })
    }
}

impl From<HostOrNetwork> for Prefix {
    fn from(this: HostOrNetwork) -> Self {
        this.0
    }
}

/// Accept or reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Lets the route pass.
    #[serde(alias = "accept")]
    Accept,
    /// Stops it.
    #[serde(alias = "reject")]
    Reject,
}

const fn reject() -> Action {
    Action::Reject
}

const fn once() -> u8 {
    1
}

/// What is wrong with a rule: its field, and the problem with the way out.
pub(super) type Problem = (&'static str, String);

impl FilterEntry {
    /// The filter; where it cannot be, the rule's position from 0 and the problem.
    pub(super) fn filter(&self, lists: &PrefixLists) -> Result<Filter, (usize, Problem)> {
        let rules = self.rules.iter().enumerate();
        let rules = rules.map(|(index, rule)| rule.rule(lists).map_err(|problem| (index, problem)));
        Ok(Filter::new(
            rules.collect::<Result<_, _>>()?,
            self.default.verdict(),
        ))
    }
}

impl Action {
    fn verdict(self) -> Verdict {
        match self {
            Action::Accept => Verdict::Accept,
            Action::Reject => Verdict::Reject,
        }
    }
}

impl PrefixEntry {
    pub(super) fn prefix_match(&self, field: &'static str) -> Result<PrefixMatch, Problem> {
        let LengthRange { min, max } = self.prefix_length;
        let longest = self.cidr.family().max_length();
        if let Some(length) = [min, max].into_iter().flatten().find(|l| *l > longest) {
            let family = self.cidr.family();
            let problem = format!("{length} is above {longest}, the most {family} has");
            return Err((field, problem));
        }
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            return Err((
                field,
                "min is above max, so that nothing matches".to_owned(),
            ));
        }
        let inside = matches!(
            self.match_operator,
            MatchOperator::In | MatchOperator::Equal
        );
        if inside && max.is_some_and(|max| max < self.cidr.length()) {
            let problem = format!(
                "max is below the length of {}, so that nothing matches",
                self.cidr
            );
            return Err((field, problem));
        }
        Ok(PrefixMatch {
            prefix: self.cidr,
            operator: self.match_operator,
            min_length: min,
            max_length: max,
        })
    }
}

impl RuleEntry {
    fn rule(&self, lists: &PrefixLists) -> Result<Rule, Problem> {
        let operations = self.operations()?;
        if self.action == Action::Reject && !operations.is_empty() {
            let problem =
                "Reject changes nothing; use Accept or leave out set…, add…, remove… and prepend";
            return Err(("action", problem.to_owned()));
        }
        Ok(Rule {
            prefixes: self.prefix_matches(lists)?,
            conditions: self.conditions()?,
            verdict: self.action.verdict(),
            operations,
        })
    }

    fn prefix_matches(&self, lists: &PrefixLists) -> Result<Vec<PrefixMatch>, Problem> {
        let problem = |field, text: &str| Err((field, text.to_owned()));
        let ways = [
            self.cidr.is_some(),
            !self.prefixes.is_empty(),
            self.prefix_list.is_some(),
        ];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return problem(
                "cidr",
                "only one of cidr, prefixes and prefixList can be in a rule",
            );
        }
        let lengths = self.prefix_length;
        let entry = |cidr| PrefixEntry {
            cidr,
            match_operator: self.match_operator.unwrap_or_default(),
            prefix_length: lengths,
        };
        if let Some(cidr) = self.cidr {
            return Ok(vec![entry(cidr).prefix_match("prefixLength")?]);
        }
        if self.match_operator.is_some() {
            return problem(
                "matchOperator",
                "needs cidr; a list has one in each of its items",
            );
        }
        if ways.contains(&true) && lengths != LengthRange::default() {
            return problem(
                "prefixLength",
                "needs cidr; a list has one in each of its items",
            );
        }
        if let Some(name) = &self.prefix_list {
            let Some(list) = lists.get(name) else {
                return Err((
                    "prefixList",
                    format!("no list named {name:?} under prefixLists"),
                ));
            };
            if list.is_empty() {
                return Err((
                    "prefixList",
                    format!("{name:?} is empty, so that nothing matches"),
                ));
            }
            let matches = list.iter().map(|entry| entry.prefix_match("prefixList"));
            return matches.collect();
        }
        if !self.prefixes.is_empty() {
            let matches = self.prefixes.iter();
            return matches
                .map(|entry| entry.prefix_match("prefixes"))
                .collect();
        }
        if lengths == LengthRange::default() {
            return Ok(Vec::new());
        }
        // Of either family; IPv4 prefixes are never as long as IPv6 lengths may ask for.
        let mut v4 = entry(Prefix::DEFAULT_V4);
        let longest = Family::Ipv4Unicast.max_length();
        v4.prefix_length.max = lengths.max.map(|max| max.min(longest));
        let mut all = vec![entry(Prefix::DEFAULT_V6).prefix_match("prefixLength")?];
        if lengths.min <= Some(longest) {
            all.push(v4.prefix_match("prefixLength")?);
        }
        Ok(all)
    }

    fn conditions(&self) -> Result<Conditions, Problem> {
        let PathLengthRange { min, max } = self.as_path_length;
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            let problem = "min is above max, so that nothing matches";
            return Err(("asPathLength", problem.to_owned()));
        }
        Ok(Conditions {
            communities: self.communities.0.clone(),
            large_communities: self.large_communities.0.clone(),
            extended_communities: self.extended_communities.0.clone(),
            as_path_prefix: self.as_path_prefix.clone(),
            as_path: self.as_path.clone(),
            origin_as: self.origin_as.clone(),
            min_as_path_length: min,
            max_as_path_length: max,
            peer_type: self.peer_type,
            source: self.source,
            next_hop: self.next_hop.iter().map(|network| network.0).collect(),
            metric: self.metric,
        })
    }

    fn operations(&self) -> Result<Vec<Operation>, Problem> {
        let mut operations = Vec::new();
        operations.extend(self.set_local_pref.map(Operation::SetLocalPref));
        operations.extend(self.set_med.map(Operation::SetMed));
        operations.extend(self.set_metric.map(Operation::SetMetric));
        self.community_operations(&mut operations);
        if let Some(PrependEntry { asn, count }) = self.prepend {
            if count == 0 || count > MAX_PREPEND {
                let problem = format!("count: {count} is not 1 to {MAX_PREPEND}");
                return Err(("prepend", problem));
            }
            if asn == Some(Asn::ZERO) {
                let problem = "asn: AS 0 can be in no path (RFC 7607)";
                return Err(("prepend", problem.to_owned()));
            }
            operations.push(Operation::Prepend { asn, count });
        }
        Ok(operations)
    }

    fn community_operations(&self, operations: &mut Vec<Operation>) {
        operations.extend(self.set_communities.clone().map(Operation::SetCommunities));
        let set = self.set_large_communities.clone();
        operations.extend(set.map(Operation::SetLargeCommunities));
        let set = self.set_extended_communities.clone();
        operations.extend(set.map(Operation::SetExtendedCommunities));
        let remove = self.remove_communities.iter().copied();
        operations.extend(remove.map(Operation::RemoveCommunities));
        let remove = self.remove_large_communities.iter().copied();
        operations.extend(remove.map(Operation::RemoveLargeCommunities));
        let remove = self.remove_extended_communities.iter().copied();
        operations.extend(remove.map(Operation::RemoveExtendedCommunities));
        let add = self.add_communities.iter().copied();
        operations.extend(add.map(Operation::AddCommunity));
        let add = self.add_large_communities.iter().copied();
        operations.extend(add.map(Operation::AddLargeCommunity));
        let add = self.add_extended_communities.iter().copied();
        operations.extend(add.map(Operation::AddExtendedCommunity));
    }
}

#[cfg(test)]
mod tests;

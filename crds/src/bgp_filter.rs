//! BGPFilter: which routes BGPPeers take and give, and what is changed on the way. The fields are
//! Calico's, with its meanings: rules are tried in order, the first that matches decides, and what no
//! rule matches is left to what holds without a filter.

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::as_number::AsNumber;
use crate::condition::Condition;
use crate::field::{Errors, FieldError, cidr};
use crate::prefix_advertisement::CommunityValue;

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "BGPFilter",
    plural = "bgpfilters",
    shortname = "bgpf",
    category = "margay",
    status = "BGPFilterStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BGPFilterSpec {
    /// About IPv4 routes given to the peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub export_v4: Vec<FilterRuleSpec>,
    /// About IPv4 routes taken from the peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub import_v4: Vec<FilterRuleSpec>,
    /// About IPv6 routes given to the peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub export_v6: Vec<FilterRuleSpec>,
    /// About IPv6 routes taken from the peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    pub import_v6: Vec<FilterRuleSpec>,
}

/// One rule. Every condition that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilterRuleSpec {
    /// The network routes are compared with; goes with `matchOperator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 49))]
    pub cidr: Option<String>,
    /// How the route and `cidr` are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// The prefix lengths that match; goes with `cidr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// Where the route comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RouteSource>,
    /// Has no meaning here: Margay announces no routes of interfaces. A rule that asks for one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub interface: Option<String>,
    /// The kind of session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerType>,
    /// Communities the route must have, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunitiesMatch>,
    /// The ASes the AS path begins with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub as_path_prefix: Vec<AsNumber>,
    /// The priority (metric) an import filter has given the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// What happens to a route that matches.
    pub action: Action,
    /// Changes made to an accepted route, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub operations: Vec<OperationSpec>,
}

/// How a route's prefix and a network are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchOperator {
    /// The same.
    Equal,
    /// Not the same.
    NotEqual,
    /// The network or within it.
    In,
    /// Neither.
    NotIn,
}

/// Prefix lengths, in bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrefixLength {
    /// The shortest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 128))]
    pub min: Option<u8>,
    /// The longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 128))]
    pub max: Option<u8>,
}

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteSource {
    /// A BGP peer, not the node itself.
    RemotePeers,
}

/// The kind of session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeerType {
    /// With another AS.
    #[serde(rename = "eBGP")]
    External,
    /// Within the node's.
    #[serde(rename = "iBGP")]
    Internal,
}

/// Communities a route must have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommunitiesMatch {
    /// `aa:nn` or `aa:nn:mm`.
    #[schemars(length(min = 1, max = 16))]
    pub values: Vec<String>,
}

/// What happens to a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// It passes.
    Accept,
    /// It does not.
    #[default]
    Reject,
}

/// One change, exactly one of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationSpec {
    /// Adds a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_community: Option<AddCommunity>,
    /// Puts ASes in front of the AS path.
    #[serde(
        default,
        rename = "prependASPath",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepend_as_path: Option<PrependAsPath>,
    /// In an import rule the route's metric in the kernel; in an export rule a preference for routers in the node's AS, where the
    /// lower one is used and 1024 is that of a route without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_priority: Option<SetPriority>,
}

/// A community to add.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddCommunity {
    /// `aa:nn` or `aa:nn:mm`.
    #[schemars(length(min = 3, max = 32))]
    pub value: String,
}

/// ASes to put in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PrependAsPath {
    /// In the order in which they will stand there.
    #[schemars(length(min = 1, max = 10))]
    pub prefix: Vec<AsNumber>,
}

/// A metric, or a preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetPriority {
    /// 1 to 4294967295.
    #[schemars(range(min = 1))]
    pub value: u32,
}

/// What Margay found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BGPFilterStatus {
    /// `Accepted`: whether the filter is in use, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A filter that passed every check.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerFilter {
    /// About routes given to the peer.
    pub export: Vec<FilterRule>,
    /// About routes taken from it.
    pub import: Vec<FilterRule>,
}

/// A rule that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterRule {
    /// The rule is about IPv4 routes; otherwise about IPv6 ones.
    pub ipv4: bool,
    /// The network and how it is compared.
    pub network: Option<(IpNetwork, MatchOperator)>,
    /// The prefix lengths that match.
    pub lengths: PrefixLength,
    /// Not a route of the node's own.
    pub remote_only: bool,
    /// The kind of session.
    pub peer_type: Option<PeerType>,
    /// Communities the route must have, all of them.
    pub communities: Vec<CommunityValue>,
    /// How the AS path must begin.
    pub as_path_prefix: Vec<u32>,
    /// The metric it must have.
    pub priority: Option<u32>,
    /// What happens to it.
    pub action: Action,
    /// What is changed.
    pub operations: Vec<Operation>,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Adds a community.
    AddCommunity(CommunityValue),
    /// Puts ASes in front of the AS path, the first one foremost.
    Prepend(Vec<u32>),
    /// Sets the metric.
    SetPriority(u32),
}

impl BGPFilter {
    /// The typed filter, or every field that is wrong.
    pub fn check(&self) -> Result<PeerFilter, Vec<FieldError>> {
        let mut errors = Errors::default();
        let spec = &self.spec;
        let mut rules = |name: &str, ipv4, specs: &[FilterRuleSpec]| -> Vec<FilterRule> {
            let specs = specs.iter().enumerate();
            specs
                .map(|(index, spec)| {
                    check_rule(&mut errors, &format!("spec.{name}[{index}]"), ipv4, spec)
                })
                .collect()
        };
        let mut filter = PeerFilter {
            export: rules("exportV4", true, &spec.export_v4),
            import: rules("importV4", true, &spec.import_v4),
        };
        filter
            .export
            .extend(rules("exportV6", false, &spec.export_v6));
        filter
            .import
            .extend(rules("importV6", false, &spec.import_v6));
        errors.finish(Some(filter))
    }
}

fn check_rule(errors: &mut Errors, path: &str, ipv4: bool, spec: &FilterRuleSpec) -> FilterRule {
    if let Some(interface) = &spec.interface {
        errors.push(FieldError::invalid(
            &format!("{path}.interface"),
            interface,
            "has no meaning here, Margay announces no routes of interfaces: remove the rule",
        ));
    }
    if spec.action == Action::Reject && !spec.operations.is_empty() {
        let words = "go with action Accept only";
        errors.push(FieldError::forbidden(
            &format!("{path}.operations"),
            &spec.operations,
            words,
        ));
    }
    let communities = spec.communities.iter().flat_map(|list| &list.values);
    let communities = communities.enumerate();
    let communities = communities
        .filter_map(|(index, text)| {
            let path = format!("{path}.communities.values[{index}]");
            errors.keep(check_community(&path, text))
        })
        .collect();
    let as_path_prefix = check_ases(
        errors,
        &format!("{path}.asPathPrefix"),
        &spec.as_path_prefix,
    );
    let operations = spec.operations.iter().enumerate();
    let operations = operations
        .filter_map(|(index, operation)| {
            check_operation(errors, &format!("{path}.operations[{index}]"), operation)
        })
        .collect();
    FilterRule {
        ipv4,
        network: check_network(errors, path, ipv4, spec),
        lengths: spec.prefix_length.unwrap_or_default(),
        remote_only: spec.source.is_some(),
        peer_type: spec.peer_type,
        communities,
        as_path_prefix,
        priority: spec.priority,
        action: spec.action,
        operations,
    }
}

fn check_network(
    errors: &mut Errors,
    path: &str,
    ipv4: bool,
    spec: &FilterRuleSpec,
) -> Option<(IpNetwork, MatchOperator)> {
    if let Some(lengths) = spec.prefix_length {
        check_lengths(errors, &format!("{path}.prefixLength"), ipv4, lengths, spec);
    }
    let at = format!("{path}.cidr");
    let (text, operator) = match (&spec.cidr, spec.match_operator) {
        (Some(text), Some(operator)) => (text, operator),
        (None, None) => return None,
        (Some(_), None) => {
            let words = "goes with cidr: Equal, NotEqual, In or NotIn";
            errors.push(FieldError::required(
                &format!("{path}.matchOperator"),
                words,
            ));
            return None;
        }
        (None, Some(_)) => {
            errors.push(FieldError::required(&at, "goes with matchOperator"));
            return None;
        }
    };
    let network = errors.keep(cidr(&at, text))?;
    if network.is_ipv4() != ipv4 {
        let family = if ipv4 { "IPv4" } else { "IPv6" };
        let words = format!("must be an {family} network in this list of rules");
        errors.push(FieldError::invalid(&at, text, words));
    }
    Some((network, operator))
}

fn check_lengths(
    errors: &mut Errors,
    path: &str,
    ipv4: bool,
    lengths: PrefixLength,
    spec: &FilterRuleSpec,
) {
    let longest = if ipv4 { 32 } else { 128 };
    let max = lengths.max.unwrap_or(longest);
    if max > longest || lengths.min.unwrap_or(0) > max {
        let words = format!("must be lengths up to {longest}, min not above max");
        errors.push(FieldError::invalid(path, lengths, words));
    }
    if spec.cidr.is_none() {
        errors.push(FieldError::forbidden(path, lengths, "needs cidr"));
    }
}

fn check_community(path: &str, text: &str) -> Result<CommunityValue, FieldError> {
    let words = "must be aa:nn with numbers up to 65535, or aa:nn:mm with numbers up to 4294967295";
    text.parse()
        .map_err(|_| FieldError::invalid(path, text, words))
}

fn check_ases(errors: &mut Errors, path: &str, ases: &[AsNumber]) -> Vec<u32> {
    let ases = ases.iter().enumerate();
    ases.filter_map(|(index, asn)| errors.keep(asn.check_number(&format!("{path}[{index}]"))))
        .collect()
}

fn check_operation(errors: &mut Errors, path: &str, spec: &OperationSpec) -> Option<Operation> {
    match (
        &spec.add_community,
        &spec.prepend_as_path,
        &spec.set_priority,
    ) {
        (Some(add), None, None) => {
            let value = check_community(&format!("{path}.addCommunity.value"), &add.value);
            errors.keep(value).map(Operation::AddCommunity)
        }
        (None, Some(prepend), None) => {
            let path = format!("{path}.prependASPath.prefix");
            if !(1..=10).contains(&prepend.prefix.len()) {
                let words = "must be 1 to 10 AS numbers";
                errors.push(FieldError::invalid(&path, &prepend.prefix, words));
            }
            Some(Operation::Prepend(check_ases(
                errors,
                &path,
                &prepend.prefix,
            )))
        }
        (None, None, Some(priority)) => {
            if priority.value == 0 {
                let words = "must be 1 to 4294967295";
                errors.push(FieldError::invalid(
                    &format!("{path}.setPriority.value"),
                    0,
                    words,
                ));
            }
            Some(Operation::SetPriority(priority.value))
        }
        _ => {
            let words = "must have exactly one of addCommunity, prependASPath and setPriority";
            errors.push(FieldError::invalid(path, spec, words));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: serde_json::Value) -> BGPFilter {
        BGPFilter::new("f", serde_json::from_value(json).unwrap())
    }

    #[test]
    fn what_people_write_for_calico_carries_over() {
        let checked = filter(serde_json::json!({
            "importV4": [
                {"action": "Accept", "matchOperator": "Equal", "cidr": "0.0.0.0/0"},
                {"action": "Reject"},
            ],
            "exportV4": [{
                "action": "Accept", "matchOperator": "In", "cidr": "10.244.0.0/16",
                "prefixLength": {"min": 26, "max": 32}, "source": "RemotePeers",
                "peerType": "eBGP", "communities": {"values": ["64512:1"]},
                "asPathPrefix": [64512, "1.10"], "priority": 5,
                "operations": [
                    {"addCommunity": {"value": "64512:7:8"}},
                    {"prependASPath": {"prefix": [64512, 64512]}},
                    {"setPriority": {"value": 100}},
                ],
            }],
            "exportV6": [{"action": "Reject", "matchOperator": "NotIn", "cidr": "fd00::/8"}],
        }))
        .check()
        .unwrap();
        assert_eq!(checked.import.len(), 2);
        let rule = &checked.export[0];
        assert!(rule.ipv4 && rule.remote_only);
        assert_eq!(rule.as_path_prefix, [64512, 65546]);
        assert_eq!(rule.operations[2], Operation::SetPriority(100));
        assert_eq!(rule.operations[1], Operation::Prepend(vec![64512, 64512]));
        assert!(!checked.export[1].ipv4);
    }

    #[test]
    fn wrong_fields_are_named() {
        let cases = [
            (
                serde_json::json!({"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]}),
                "spec.importV4[0].matchOperator",
            ),
            (
                serde_json::json!({"importV4": [{"action": "Accept", "matchOperator": "In"}]}),
                "spec.importV4[0].cidr",
            ),
            (
                serde_json::json!({"exportV6": [
                    {"action": "Accept", "matchOperator": "In", "cidr": "10.0.0.0/8"}]}),
                "must be an IPv6 network",
            ),
            (
                serde_json::json!({"exportV4": [
                    {"action": "Accept", "prefixLength": {"min": 8}}]}),
                "spec.exportV4[0].prefixLength",
            ),
            (
                serde_json::json!({"exportV4": [{
                    "action": "Accept", "matchOperator": "In", "cidr": "10.0.0.0/8",
                    "prefixLength": {"min": 24, "max": 16}}]}),
                "min not above max",
            ),
            (
                serde_json::json!({"exportV4": [{"action": "Accept", "interface": "eth*"}]}),
                "remove the rule",
            ),
            (
                serde_json::json!({"exportV4": [{
                    "action": "Reject", "operations": [{"setPriority": {"value": 1}}]}]}),
                "action Accept only",
            ),
            (
                serde_json::json!({"exportV4": [{"action": "Accept", "operations": [{}]}]}),
                "exactly one of addCommunity",
            ),
            (
                serde_json::json!({"importV6": [{
                    "action": "Accept", "communities": {"values": ["1:2", "x"]}}]}),
                "spec.importV6[0].communities.values[1]",
            ),
        ];
        for (spec, expected) in cases {
            let text = crate::field::join(&filter(spec.clone()).check().unwrap_err());
            assert!(text.contains(expected), "{spec}: {text}");
        }
    }
}

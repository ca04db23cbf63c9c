//! The part of BGPConfiguration that is about prefixes: which Service addresses are announced,
//! and the communities that announced prefixes carry.
//!
//! Not here: which Services there are and what a node announces of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::field::{Errors, FieldError, cidr};

/// A range of Service addresses that nodes announce.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct ServiceRange {
    /// The range, such as 10.96.0.0/16: announced whole. A range of one address (a /32 or /128) is
    /// announced as long as a Service has the address.
    #[schemars(length(max = 48), regex(pattern = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"))]
    pub cidr: String,
}

/// How addresses of Services of type LoadBalancer are announced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Aggregation {
    /// The ranges of `serviceLoadBalancerIPs` from every node.
    #[default]
    Enabled,
    /// Each Service's own address, as long as the Service has a ready endpoint.
    Disabled,
}

/// A name for a community.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct NamedCommunity {
    /// The name that prefixAdvertisements uses.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `aa:nn` (RFC 1997) or `aa:nn:mm` (a large community, RFC 8092).
    #[schemars(length(max = 32), regex(pattern = r"^[0-9]+:[0-9]+(:[0-9]+)?$"))]
    pub value: String,
}

/// Communities for what is announced within a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct PrefixAdvertisementSpec {
    /// The announced prefixes meant: this one and all within it.
    #[schemars(length(max = 48), regex(pattern = r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"))]
    pub cidr: String,
    /// Names out of `communities`, or values `aa:nn` or `aa:nn:mm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub communities: Vec<String>,
}

/// A community that announced prefixes carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommunityValue {
    /// A community of RFC 1997: an AS and a value, two octets each.
    Standard(u16, u16),
    /// A large community of RFC 8092: an AS and two values, four octets each.
    Large(u32, u32, u32),
}

impl fmt::Display for CommunityValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(asn, value) => write!(f, "{asn}:{value}"),
            Self::Large(asn, first, second) => write!(f, "{asn}:{first}:{second}"),
        }
    }
}

/// Not a community.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotACommunity;

impl FromStr for CommunityValue {
    type Err = NotACommunity;

    fn from_str(text: &str) -> Result<Self, NotACommunity> {
        fn number<T: FromStr>(text: &str) -> Result<T, NotACommunity> {
            // `parse` would take a sign.
            if !text.bytes().all(|octet| octet.is_ascii_digit()) {
                return Err(NotACommunity);
            }
            text.parse().map_err(|_| NotACommunity)
        }
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            [asn, value] => Ok(Self::Standard(number(asn)?, number(value)?)),
            [asn, first, second] => Ok(Self::Large(number(asn)?, number(first)?, number(second)?)),
            _ => Err(NotACommunity),
        }
    }
}

/// The ranges of Service addresses to announce, checked; in the order of the object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceRanges {
    /// Of cluster IPs.
    pub cluster: Vec<IpNetwork>,
    /// Of external IPs.
    pub external: Vec<IpNetwork>,
    /// Of load balancers' addresses.
    pub load_balancer: Vec<IpNetwork>,
    /// Whether ranges of load balancers' addresses are announced whole.
    pub load_balancer_aggregation: Aggregation,
}

impl ServiceRanges {
    /// Every range, whatever it is for.
    pub fn all(&self) -> impl Iterator<Item = &IpNetwork> {
        let both = self.cluster.iter().chain(&self.external);
        both.chain(&self.load_balancer)
    }
}

/// Communities for the prefixes within a range, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixAdvertisement {
    /// The range.
    pub cidr: IpNetwork,
    /// What prefixes in it carry.
    pub communities: BTreeSet<CommunityValue>,
}

/// The ranges of one list.
pub(crate) fn check_ranges(
    errors: &mut Errors,
    path: &str,
    ranges: &[ServiceRange],
) -> Vec<IpNetwork> {
    let mut checked = Vec::new();
    for (index, range) in ranges.iter().enumerate() {
        let path = format!("{path}[{index}].cidr");
        match errors.keep(cidr(&path, &range.cidr)) {
            Some(everything) if everything.prefix() == 0 => errors.push(FieldError::invalid(
                &path,
                &range.cidr,
                "is the default route, which no node may draw to itself: name the Services' range",
            )),
            checked_range => checked.extend(checked_range),
        }
    }
    checked
}

/// The communities of each range, names resolved.
pub(crate) fn check_advertisements(
    errors: &mut Errors,
    communities: &[NamedCommunity],
    advertisements: &[PrefixAdvertisementSpec],
) -> Vec<PrefixAdvertisement> {
    let mut named = BTreeMap::new();
    for (index, community) in communities.iter().enumerate() {
        let path = format!("spec.communities[{index}]");
        let value = community.value.parse::<CommunityValue>();
        if value.is_err() {
            errors.push(FieldError::invalid(
                &format!("{path}.value"),
                &community.value,
                NOT_A_COMMUNITY,
            ));
        }
        if named.insert(community.name.as_str(), value).is_some() {
            errors.push(FieldError::invalid(
                &format!("{path}.name"),
                &community.name,
                "is the name of another community already: use another name",
            ));
        }
    }
    let mut checked = Vec::new();
    for (index, advertisement) in advertisements.iter().enumerate() {
        let path = format!("spec.prefixAdvertisements[{index}]");
        let range = errors.keep(cidr(&format!("{path}.cidr"), &advertisement.cidr));
        let mut values = BTreeSet::new();
        for (place, text) in advertisement.communities.iter().enumerate() {
            match named.get(text.as_str()) {
                // A wrong value has been reported where it stands.
                Some(value) => values.extend(value.ok()),
                None => match text.parse() {
                    Ok(value) => drop(values.insert(value)),
                    Err(NotACommunity) => errors.push(FieldError::invalid(
                        &format!("{path}.communities[{place}]"),
                        text,
                        "must be a name out of spec.communities, aa:nn or aa:nn:mm",
                    )),
                },
            }
        }
        checked.extend(range.map(|cidr| PrefixAdvertisement {
            cidr,
            communities: values,
        }));
    }
    checked
}

const NOT_A_COMMUNITY: &str =
    "must be aa:nn with numbers up to 65535, or aa:nn:mm with numbers up to 4294967295";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BGPConfiguration;

    fn check(spec: serde_json::Value) -> Result<crate::BgpSettings, Vec<FieldError>> {
        BGPConfiguration::new("default", serde_json::from_value(spec).unwrap()).check()
    }

    #[test]
    fn communities_as_people_write_them() {
        for text in ["64512:1", "65535:65535", "4294967295:0:7"] {
            let value: CommunityValue = text.parse().unwrap();
            assert_eq!(value.to_string(), text);
        }
        for text in [
            "",
            "1",
            "65536:1",
            "1:+2",
            "1:2:3:4",
            "a:b",
            "1:",
            "1:2:4294967296",
        ] {
            assert_eq!(text.parse::<CommunityValue>(), Err(NotACommunity), "{text}");
        }
    }

    #[test]
    fn ranges_and_communities_are_taken_as_calico_writes_them() {
        let settings = check(serde_json::json!({
            "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}, {"cidr": "fd00:96::/112"}],
            "serviceExternalIPs": [{"cidr": "192.0.2.7/32"}],
            "serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}],
            "serviceLoadBalancerAggregation": "Disabled",
            "communities": [{"name": "rack", "value": "64512:7"}],
            "prefixAdvertisements": [
                {"cidr": "10.96.0.0/16", "communities": ["rack", "64512:8", "64512:1:2"]},
            ],
        }))
        .unwrap();
        assert_eq!(settings.services.all().count(), 4);
        assert_eq!(
            settings.services.load_balancer_aggregation,
            Aggregation::Disabled
        );
        let communities: Vec<String> = settings.prefix_advertisements[0]
            .communities
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(communities, ["64512:7", "64512:8", "64512:1:2"]);
    }

    #[test]
    fn wrong_ranges_and_communities_are_named() {
        let cases = [
            (
                serde_json::json!({"serviceClusterIPs": [{"cidr": "10.96.0.1/16"}]}),
                "spec.serviceClusterIPs[0].cidr",
            ),
            (
                serde_json::json!({"serviceExternalIPs": [{"cidr": "10.0.0.0/8"}, {"cidr": "x"}]}),
                "spec.serviceExternalIPs[1].cidr",
            ),
            (
                serde_json::json!({"serviceLoadBalancerIPs": [{"cidr": "10.0.0.0"}]}),
                "spec.serviceLoadBalancerIPs[0].cidr",
            ),
            (
                serde_json::json!({"serviceLoadBalancerIPs": [{"cidr": "0.0.0.0/0"}]}),
                "default route",
            ),
            (
                serde_json::json!({"communities": [{"name": "a", "value": "70000:1"}]}),
                "spec.communities[0].value",
            ),
            (
                serde_json::json!({"communities": [
                    {"name": "a", "value": "1:1"}, {"name": "a", "value": "1:2"},
                ]}),
                "spec.communities[1].name",
            ),
            (
                serde_json::json!({"prefixAdvertisements": [
                    {"cidr": "10.0.0.0/8", "communities": ["1:1", "unknown"]},
                ]}),
                "spec.prefixAdvertisements[0].communities[1]",
            ),
        ];
        for (spec, expected) in cases {
            let text = crate::field::join(&check(spec.clone()).unwrap_err());
            assert!(text.contains(expected), "{spec}: {text}");
        }
    }
}

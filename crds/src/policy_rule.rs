//! Rules of our own policies: as people write them, and read into typed values.
//!
//! A rule that cannot be read whole fails closed ([`Rule::closed`]); nothing here matches traffic.

use std::borrow::Cow;

use ipnetwork::IpNetwork;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::field::{Errors, FieldError};
use crate::selector::Selector;

/// One rule. Every condition that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// What happens to traffic that matches.
    pub action: RuleAction,
    /// Only this address family: 4 or 6.
    #[serde(default, rename = "ipVersion", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4, max = 6))]
    pub ip_version: Option<u8>,
    /// Only this protocol: TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or a number from 1 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<NumberOrName>,
    /// Any protocol but this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_protocol: Option<NumberOrName>,
    /// Only this ICMP type and code; goes with `protocol` ICMP or ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpSpec>,
    /// Any ICMP type and code but this; goes with `protocol` ICMP or ICMPv6.
    #[serde(default, rename = "notICMP", skip_serializing_if = "Option::is_none")]
    pub not_icmp: Option<IcmpSpec>,
    /// Where the traffic comes from.
    #[serde(default, skip_serializing_if = "EntitySpec::is_default")]
    pub source: EntitySpec,
    /// Where it goes.
    #[serde(default, skip_serializing_if = "EntitySpec::is_default")]
    pub destination: EntitySpec,
}

/// What a rule does.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum RuleAction {
    /// The traffic passes, as far as this endpoint is concerned.
    Allow,
    /// The traffic is dropped.
    #[default]
    Deny,
    /// The rest of the tier is skipped.
    Pass,
    /// The traffic is reported, and the next rule tried.
    Log,
}

/// An ICMP type, and perhaps a code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IcmpSpec {
    /// The type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 254))]
    pub type_: Option<u8>,
    /// The code; goes with `type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 255))]
    pub code: Option<u8>,
}

/// One end of the traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntitySpec {
    /// Its address is in one of these networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub nets: Vec<String>,
    /// Its address is in none of these networks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub not_nets: Vec<String>,
    /// It is a pod or a network set with matching labels: in a namespaced policy, and without `namespaceSelector`,
    /// one of the policy's namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub selector: String,
    /// It is no pod and no network set, of any namespace, with matching labels.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub not_selector: String,
    /// It is in a namespace with matching labels, or, for `global()`, in none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub namespace_selector: String,
    /// Its port is one of these: numbers, ranges (`"8000:8080"`), names of pods' ports. Goes with `protocol` TCP, UDP or SCTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub ports: Vec<NumberOrName>,
    /// Its port is none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub not_ports: Vec<NumberOrName>,
    /// It is a pod with one of these service accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_accounts: Option<ServiceAccountsSpec>,
    /// It is an endpoint of this Service, at one of its ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<ServiceSpec>,
}

impl EntitySpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Service accounts, by name or label; both must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceAccountsSpec {
    /// Their names; none is any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub names: Vec<String>,
    /// Their labels.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub selector: String,
}

/// A Service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceSpec {
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its namespace; without one the policy's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub namespace: String,
}

/// A number, or a text that is a name, a number or a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum NumberOrName {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl JsonSchema for NumberOrName {
    fn schema_name() -> Cow<'static, str> {
        "NumberOrName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

/// The direction a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// To the endpoint: the peer is the source.
    Ingress,
    /// From the endpoint: the peer is the destination.
    Egress,
}

/// A rule, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Its place in its list.
    pub index: usize,
    /// What it does.
    pub action: RuleAction,
    /// Only IPv6 (`true`) or only IPv4.
    pub ipv6: Option<bool>,
    /// Only this IP protocol.
    pub protocol: Option<u8>,
    /// Not this IP protocol.
    pub not_protocol: Option<u8>,
    /// Only this ICMP type, and code where there is one.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Not this ICMP type, or code of it.
    pub not_icmp: Option<(u8, Option<u8>)>,
    /// The source.
    pub source: Entity,
    /// The destination.
    pub destination: Entity,
}

/// One end of the traffic, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entity {
    /// In one of these; `None` is anywhere.
    pub nets: Option<Vec<IpNetwork>>,
    /// In none of these.
    pub not_nets: Vec<IpNetwork>,
    /// By its labels.
    pub selector: Option<Selector>,
    /// Not by its labels.
    pub not_selector: Option<Selector>,
    /// By its namespace's labels.
    pub namespaces: Option<Selector>,
    /// By its service account.
    pub service_accounts: Option<ServiceAccounts>,
    /// One of these ports; `None` is any.
    pub ports: Option<Vec<Port>>,
    /// None of these ports.
    pub not_ports: Vec<Port>,
    /// The name of a Service, and its namespace where it is given.
    pub service: Option<(Option<String>, String)>,
}

/// Service accounts, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccounts {
    /// Their names; none is any.
    pub names: Vec<String>,
    /// Their labels.
    pub selector: Option<Selector>,
}

/// A port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// From the first to the last.
    Range(u16, u16),
    /// What the pod calls so.
    Named(String),
}

impl Rule {
    /// What stands for a rule that cannot be read: for one that denies or passes the traffic to the next tier, a rule
    /// that denies everything; for any other one that does nothing.
    pub fn closed(action: RuleAction, index: usize) -> Self {
        let action = match action {
            RuleAction::Allow | RuleAction::Log => RuleAction::Log,
            RuleAction::Deny | RuleAction::Pass => RuleAction::Deny,
        };
        // A log rule that matches nothing: no protocol is its own opposite.
        let nothing = (action == RuleAction::Log).then_some(0);
        Self {
            index,
            action,
            protocol: nothing,
            not_protocol: nothing,
            ..Self::default()
        }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

impl RuleSpec {
    /// The rule, or every field of it that is wrong. `path` is the rule's own.
    ///
    /// # Errors
    /// The fields.
    pub fn read(&self, path: &str, index: usize, side: Side) -> Result<Rule, Vec<FieldError>> {
        let mut errors = Errors::default();
        let at = |field: &str| format!("{path}.{field}");
        let ipv6 = self.ip_version.and_then(|version| match version {
            4 => Some(false),
            6 => Some(true),
            other => {
                errors.push(FieldError::invalid(
                    &at("ipVersion"),
                    other,
                    "must be 4 or 6",
                ));
                None
            }
        });
        let mut protocol = |field: &str, value: &Option<NumberOrName>| {
            let number = value.as_ref().map(|value| value.protocol(&at(field)));
            number.and_then(|number| errors.keep(number))
        };
        let (number, not_protocol) = (
            protocol("protocol", &self.protocol),
            protocol("notProtocol", &self.not_protocol),
        );
        let is_icmp = matches!(number, Some(ICMP | ICMP_V6));
        let mut icmp = |field: &str, value: Option<IcmpSpec>| {
            let value = value?;
            if !is_icmp {
                errors.push(FieldError::forbidden(
                    &at(field),
                    value,
                    "needs protocol ICMP or ICMPv6 beside it",
                ));
            }
            if value.type_.is_none() {
                errors.push(FieldError::required(
                    &at(&format!("{field}.type")),
                    "give the ICMP type",
                ));
            }
            value.type_.map(|type_| (type_, value.code))
        };
        let (icmp, not_icmp) = (icmp("icmp", self.icmp), icmp("notICMP", self.not_icmp));
        let has_ports = matches!(number, Some(TCP | UDP | SCTP));
        let mut entity = |field: &str, spec: &EntitySpec, is_source: bool| {
            let around = Around {
                has_ports,
                is_source,
                is_peer: is_source == (side == Side::Ingress),
                has_protocol: self.protocol.is_some() || self.not_protocol.is_some(),
            };
            spec.read(&at(field), around, &mut errors)
        };
        let source = entity("source", &self.source, true);
        let destination = entity("destination", &self.destination, false);
        errors.finish(Some(Rule {
            index,
            action: self.action,
            ipv6,
            protocol: number,
            not_protocol,
            icmp,
            not_icmp,
            source,
            destination,
        }))
    }
}

/// What an entity's checks must know of its rule.
#[derive(Clone, Copy)]
struct Around {
    has_ports: bool,
    is_source: bool,
    is_peer: bool,
    has_protocol: bool,
}

impl EntitySpec {
    fn read(&self, path: &str, around: Around, errors: &mut Errors) -> Entity {
        let at = |field: &str| format!("{path}.{field}");
        let nets = networks(errors, &at("nets"), &self.nets);
        let not_nets = networks(errors, &at("notNets"), &self.not_nets);
        let mut selector = |field: &str, text: &str| {
            let read = (!text.trim().is_empty()).then(|| Selector::parse_field(&at(field), text));
            read.and_then(|read| errors.keep(read))
        };
        let entity = Entity {
            nets: (!self.nets.is_empty()).then_some(nets),
            not_nets,
            selector: selector("selector", &self.selector),
            not_selector: selector("notSelector", &self.not_selector),
            namespaces: selector("namespaceSelector", &self.namespace_selector),
            service_accounts: self
                .service_accounts
                .as_ref()
                .map(|accounts| ServiceAccounts {
                    names: accounts.names.clone(),
                    selector: selector("serviceAccounts.selector", &accounts.selector),
                }),
            ports: (!self.ports.is_empty())
                .then(|| ports(errors, &at("ports"), &self.ports, around)),
            not_ports: ports(errors, &at("notPorts"), &self.not_ports, around),
            service: self.services.as_ref().map(|service| {
                let namespace = (!service.namespace.is_empty()).then(|| service.namespace.clone());
                (namespace, service.name.clone())
            }),
        };
        if self.services.is_some() {
            self.check_service(&at("services"), around, errors);
        }
        entity
    }

    fn check_service(&self, path: &str, around: Around, errors: &mut Errors) {
        if !around.is_peer {
            errors.push(FieldError::forbidden(
                path,
                &self.services,
                "may stand only in the source of ingress rules and the destination of egress rules",
            ));
        }
        let alone = Self {
            services: self.services.clone(),
            ..Self::default()
        };
        let brings_ports = !around.is_source;
        if *self != alone || (brings_ports && around.has_protocol) {
            errors.push(FieldError::forbidden(
                path,
                &self.services,
                "must stand alone: the Service brings its addresses, and as a destination its protocols and ports",
            ));
        }
        if self
            .services
            .as_ref()
            .is_some_and(|service| service.name.is_empty())
        {
            errors.push(FieldError::required(
                &format!("{path}.name"),
                "give the Service's name",
            ));
        }
    }
}

fn ports(errors: &mut Errors, path: &str, list: &[NumberOrName], around: Around) -> Vec<Port> {
    if !list.is_empty() && !around.has_ports {
        errors.push(FieldError::forbidden(
            path,
            list,
            "needs protocol TCP, UDP or SCTP beside it",
        ));
    }
    let list = list.iter().enumerate();
    list.filter_map(|(index, item)| {
        let path = format!("{path}[{index}]");
        let port = item.port(&path);
        match errors.keep(port)? {
            Port::Named(_) if around.is_source => {
                errors.push(FieldError::invalid(
                    &path,
                    item,
                    "a source port has no name: write a number or a range",
                ));
                None
            }
            port => Some(port),
        }
    })
    .collect()
}

impl NumberOrName {
    fn protocol(&self, path: &str) -> Result<u8, FieldError> {
        let number = match self {
            Self::Number(number) => u8::try_from(*number).ok(),
            Self::Text(text) => match text.as_str() {
                "TCP" => Some(TCP),
                "UDP" => Some(UDP),
                "SCTP" => Some(SCTP),
                "UDPLite" => Some(136),
                "ICMP" => Some(ICMP),
                "ICMPv6" => Some(ICMP_V6),
                text => text.parse().ok(),
            },
        };
        number.filter(|number| *number > 0).ok_or_else(|| {
            FieldError::invalid(
                path,
                self,
                "must be TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or a number from 1 to 255",
            )
        })
    }

    fn port(&self, path: &str) -> Result<Port, FieldError> {
        let refused = || {
            FieldError::invalid(
                path,
                self,
                "must be a port from 0 to 65535, a range such as \"8000:8080\" or the name of a port",
            )
        };
        match self {
            Self::Number(number) => {
                let number = u16::try_from(*number).map_err(|_| refused())?;
                Ok(Port::Range(number, number))
            }
            Self::Text(text) => {
                if let Some((first, last)) = text.split_once(':') {
                    let (first, last) = (first.parse().ok(), last.parse().ok());
                    let range = first.zip(last).filter(|(first, last)| first <= last);
                    return range
                        .map(|(first, last)| Port::Range(first, last))
                        .ok_or_else(refused);
                }
                if let Ok(number) = text.parse() {
                    return Ok(Port::Range(number, number));
                }
                let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
                let is_name = (1..=15).contains(&text.len())
                    && text.chars().all(allowed)
                    && text.contains(|c: char| c.is_ascii_lowercase());
                is_name
                    .then(|| Port::Named(text.clone()))
                    .ok_or_else(refused)
            }
        }
    }
}

/// The networks of a list: CIDRs or single addresses, with their host bits masked away as Calico does.
pub(crate) fn networks(errors: &mut Errors, path: &str, texts: &[String]) -> Vec<IpNetwork> {
    let texts = texts.iter().enumerate();
    texts
        .filter_map(|(index, text)| {
            let network = text.parse::<IpNetwork>().ok();
            let masked = network
                .and_then(|network| IpNetwork::new(network.network(), network.prefix()).ok());
            errors.keep(masked.ok_or_else(|| {
                FieldError::invalid(
                    &format!("{path}[{index}]"),
                    text,
                    "must be a CIDR such as 192.0.2.0/24 or 2001:db8::/64, or an address",
                )
            }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(rule: serde_json::Value, side: Side) -> Result<Rule, String> {
        let spec: RuleSpec = serde_json::from_value(rule).unwrap();
        spec.read("r", 0, side)
            .map_err(|errors| crate::field::join(&errors))
    }

    #[test]
    fn everything_a_rule_can_say() {
        let rule = read(
            json!({
                "action": "Allow", "ipVersion": 4, "protocol": "TCP",
                "source": {"nets": ["10.1.2.3/8", "192.0.2.1"], "notNets": ["10.9.0.0/16"], "selector": "a == 'b'",
                    "notSelector": "has(c)", "namespaceSelector": "global()", "ports": [1024, "2000:3000"]},
                "destination": {"ports": ["http", "80", 443], "notPorts": ["8000:8080"],
                    "serviceAccounts": {"names": ["x"], "selector": "y == 'z'"}},
            }),
            Side::Ingress,
        )
        .unwrap();
        let nets: Vec<_> = rule
            .source
            .nets
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(nets, ["10.0.0.0/8", "192.0.2.1/32"]);
        assert_eq!((rule.protocol, rule.ipv6), (Some(6), Some(false)));
        assert_eq!(
            rule.destination.ports.unwrap(),
            [
                Port::Named("http".to_owned()),
                Port::Range(80, 80),
                Port::Range(443, 443)
            ]
        );
        assert!(rule.source.namespaces.unwrap().is_global());
        assert_eq!(rule.destination.service_accounts.unwrap().names, ["x"]);
        let icmp = json!({"action": "Deny", "protocol": 1, "icmp": {"type": 8, "code": 0}, "notICMP": {"type": 3}});
        let rule = read(icmp, Side::Egress).unwrap();
        assert_eq!(
            (rule.icmp, rule.not_icmp),
            (Some((8, Some(0))), Some((3, None)))
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (rule, side, expected) in [
            (
                json!({"action": "Allow", "destination": {"ports": [80]}}),
                Side::Ingress,
                "r.destination.ports: Forbidden",
            ),
            (
                json!({"action": "Allow", "protocol": "TCP", "source": {"ports": ["http"]}}),
                Side::Ingress,
                "has no name",
            ),
            (
                json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": ["9:1"]}}),
                Side::Ingress,
                "r.destination.ports[0]",
            ),
            (
                json!({"action": "Allow", "protocol": 256}),
                Side::Ingress,
                "r.protocol",
            ),
            (
                json!({"action": "Allow", "protocol": 0}),
                Side::Ingress,
                "r.protocol",
            ),
            (
                json!({"action": "Allow", "ipVersion": 5}),
                Side::Ingress,
                "r.ipVersion",
            ),
            (
                json!({"action": "Allow", "protocol": "TCP", "icmp": {"type": 1}}),
                Side::Ingress,
                "r.icmp: Forbidden",
            ),
            (
                json!({"action": "Allow", "protocol": "ICMP", "icmp": {"code": 1}}),
                Side::Ingress,
                "r.icmp.type: Required",
            ),
            (
                json!({"action": "Allow", "source": {"notNets": ["x"]}}),
                Side::Ingress,
                "r.source.notNets[0]",
            ),
            (
                json!({"action": "Allow", "source": {"services": {"name": "s"}}}),
                Side::Egress,
                "may stand only",
            ),
            (
                json!({"action": "Allow", "protocol": "TCP", "destination": {"services": {"name": "s"}}}),
                Side::Egress,
                "must stand alone",
            ),
            (
                json!({"action": "Allow", "source": {"services": {"name": "s"}, "nets": ["10.0.0.0/8"]}}),
                Side::Ingress,
                "must stand alone",
            ),
        ] {
            let error = read(rule.clone(), side).unwrap_err();
            assert!(error.contains(expected), "{rule}: {error} lacks {expected}");
        }
    }
}

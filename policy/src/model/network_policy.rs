//! Reads `networking.k8s.io/v1` NetworkPolicy objects, filling in the defaults that the API server would.
//!
//! Checks here are those of the API server: objects may come from a file or a server that does not check. Whatever
//! cannot be read is lost so that *less* is allowed, never more: a peer with a bad exception goes whole, a list whose
//! items are all bad is an empty list and not an absent one.

use ipnetwork::IpNetwork;
use k8s_openapi::{
    api::networking::v1 as networking,
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{IpBlock, Namespaces, Peer, Policy, PortMatch, Rule, pod::DEFAULT_NAMESPACE};
use crate::{
    port::{PortRange, Protocol},
    problem::{Problem, Problems},
    selector::Selector,
};

pub(super) fn read(policy: &networking::NetworkPolicy) -> (Policy, Vec<Problem>) {
    let namespace = policy
        .metadata
        .namespace
        .as_deref()
        .unwrap_or(DEFAULT_NAMESPACE);
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let mut problems = Problems::of("NetworkPolicy", namespace, name);
    let spec = policy.spec.clone().unwrap_or_default();
    let (isolates_ingress, isolates_egress) = directions(&spec, &mut problems);
    let mut model = Policy {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subject: Selector::everything(),
        isolates_ingress,
        isolates_egress,
        ingress: Vec::new(),
        egress: Vec::new(),
    };
    match Selector::read(&spec.pod_selector.clone().unwrap_or_default()) {
        Ok(subject) => {
            model.subject = subject;
            model.ingress = read_rules(ingress_parts(&spec), "ingress", "from", &mut problems);
            model.egress = read_rules(egress_parts(&spec), "egress", "to", &mut problems);
        }
        Err(error) => problems.report(
            format!("spec.podSelector.{}", error.field),
            format!(
                "{}; until this is mended every pod of the namespace is isolated and the policy allows nothing",
                error.reason
            ),
        ),
    }
    (model, problems.into_found())
}

/// Which directions the policy isolates. Without `policyTypes`: ingress always, egress when there is an egress rule.
fn directions(spec: &networking::NetworkPolicySpec, problems: &mut Problems) -> (bool, bool) {
    let types = spec.policy_types.as_deref().unwrap_or_default();
    if types.is_empty() {
        return (
            true,
            spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
        );
    }
    if types.len() > 2 {
        problems.report("spec.policyTypes", "there may be at most two entries");
    }
    let mut isolates = (false, false);
    for (index, kind) in types.iter().enumerate() {
        match kind.as_str() {
            "Ingress" => isolates.0 = true,
            "Egress" => isolates.1 = true,
            other => {
                problems.report(
                    format!("spec.policyTypes[{index}]"),
                    format!(
                        "{other:?} is neither Ingress nor Egress; both directions are isolated"
                    ),
                );
                return (true, true);
            }
        }
    }
    isolates
}

type RuleParts<'a> = (
    &'a [networking::NetworkPolicyPeer],
    &'a [networking::NetworkPolicyPort],
);

fn ingress_parts(spec: &networking::NetworkPolicySpec) -> Vec<RuleParts<'_>> {
    let rules = spec.ingress.as_deref().unwrap_or_default();
    rules
        .iter()
        .map(|rule| {
            (
                rule.from.as_deref().unwrap_or_default(),
                rule.ports.as_deref().unwrap_or_default(),
            )
        })
        .collect()
}

fn egress_parts(spec: &networking::NetworkPolicySpec) -> Vec<RuleParts<'_>> {
    let rules = spec.egress.as_deref().unwrap_or_default();
    rules
        .iter()
        .map(|rule| {
            (
                rule.to.as_deref().unwrap_or_default(),
                rule.ports.as_deref().unwrap_or_default(),
            )
        })
        .collect()
}

fn read_rules(
    parts: Vec<RuleParts<'_>>,
    direction: &str,
    list: &str,
    problems: &mut Problems,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, (peers, ports)) in parts.into_iter().enumerate() {
        let path = format!("spec.{direction}[{index}]");
        rules.push(Rule {
            index,
            peers: readable(peers, &format!("{path}.{list}"), problems, read_peer),
            ports: readable(ports, &format!("{path}.ports"), problems, read_port),
        });
    }
    rules
}

/// An error inside a list's item: the path below the item and what is wrong there.
type ItemError = (String, String);

/// An empty or absent list is `None`, everything; the items of any other are read one by one and the bad ones lost.
fn readable<T, M>(
    items: &[T],
    path: &str,
    problems: &mut Problems,
    read: impl Fn(&T) -> Result<M, ItemError>,
) -> Option<Vec<M>> {
    if items.is_empty() {
        return None;
    }
    let mut models = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match read(item) {
            Ok(model) => models.push(model),
            Err((field, reason)) => {
                problems.report(
                    format!("{path}[{index}]{field}"),
                    format!("{reason}; the item allows nothing"),
                );
            }
        }
    }
    Some(models)
}

fn read_peer(peer: &networking::NetworkPolicyPeer) -> Result<Peer, ItemError> {
    if let Some(block) = &peer.ip_block {
        if peer.pod_selector.is_some() || peer.namespace_selector.is_some() {
            return Err((
                ".ipBlock".to_owned(),
                "may not stand beside a podSelector or namespaceSelector".to_owned(),
            ));
        }
        return read_block(block).map(Peer::Block);
    }
    if peer.pod_selector.is_none() && peer.namespace_selector.is_none() {
        return Err((
            String::new(),
            "names no peer: give podSelector, namespaceSelector or ipBlock".to_owned(),
        ));
    }
    let read = |selector: &LabelSelector, field: &str| {
        Selector::read(selector)
            .map_err(|error| (format!(".{field}.{}", error.field), error.reason))
    };
    let pods = match &peer.pod_selector {
        Some(selector) => read(selector, "podSelector")?,
        None => Selector::everything(),
    };
    let namespaces = match &peer.namespace_selector {
        Some(selector) => Namespaces::Matching(read(selector, "namespaceSelector")?),
        None => Namespaces::Own,
    };
    Ok(Peer::Pods { namespaces, pods })
}

fn read_block(block: &networking::IPBlock) -> Result<IpBlock, ItemError> {
    let cidr = read_network(&block.cidr).map_err(|reason| (".ipBlock.cidr".to_owned(), reason))?;
    let mut except = Vec::new();
    for (index, text) in block.except.iter().flatten().enumerate() {
        let wrong = |reason: String| (format!(".ipBlock.except[{index}]"), reason);
        let network = read_network(text).map_err(wrong)?;
        let inside = network.is_ipv4() == cidr.is_ipv4()
            && network.prefix() > cidr.prefix()
            && cidr.contains(network.network());
        if !inside {
            return Err(wrong(format!(
                "{text} is not a smaller part of {}",
                block.cidr
            )));
        }
        except.push(network);
    }
    except.sort_unstable();
    except.dedup();
    Ok(IpBlock { cidr, except })
}

/// A network with its host bits masked away. A bare address is refused as the API server does.
pub(super) fn read_network(text: &str) -> Result<IpNetwork, String> {
    let refused = || format!("{text:?} is not a CIDR such as 192.0.2.0/24 or 2001:db8::/64");
    if !text.contains('/') {
        return Err(refused());
    }
    let network: IpNetwork = text.parse().map_err(|_| refused())?;
    IpNetwork::new(network.network(), network.prefix()).map_err(|_| refused())
}

fn read_port(port: &networking::NetworkPolicyPort) -> Result<PortMatch, ItemError> {
    let protocol: Protocol = port.protocol.as_deref().unwrap_or("TCP").parse().map_err(
        |error: crate::port::UnknownProtocol| (".protocol".to_owned(), error.to_string()),
    )?;
    let end = |reason: &str| (".endPort".to_owned(), reason.to_owned());
    match &port.port {
        None if port.end_port.is_some() => Err(end("needs a port beside it")),
        None => Ok(PortMatch::Numbers(protocol, PortRange::ALL)),
        Some(IntOrString::String(_)) if port.end_port.is_some() => {
            Err(end("cannot stand beside a named port"))
        }
        Some(IntOrString::String(name)) => {
            check_port_name(name).map_err(|reason| (".port".to_owned(), reason))?;
            Ok(PortMatch::Named(protocol, name.clone()))
        }
        Some(IntOrString::Int(first)) => {
            let number = |value: i32| u16::try_from(value).ok().filter(|number| *number > 0);
            let refused =
                |value: i32| format!("{value} is not a port: write a number from 1 to 65535");
            let start = number(*first).ok_or_else(|| (".port".to_owned(), refused(*first)))?;
            let last = match port.end_port {
                Some(last) => number(last).ok_or_else(|| end(&refused(last)))?,
                None => start,
            };
            let range = PortRange::new(start, last).ok_or_else(|| end("must not be below port"))?;
            Ok(PortMatch::Numbers(protocol, range))
        }
    }
}

/// The rules for IANA service names (RFC 6335 §5.1), as the API server applies them.
pub(super) fn check_port_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid = (1..=15).contains(&name.len())
        && name.chars().all(allowed)
        && name.chars().any(|c| c.is_ascii_lowercase())
        && !name.contains("--")
        && !name.starts_with('-')
        && !name.ends_with('-');
    if valid {
        Ok(())
    } else {
        Err(format!(
            "{name:?} is not a port name: up to 15 of a-z, 0-9 and single inner hyphens, at least one letter"
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(spec: &Value) -> (Policy, Vec<String>) {
        let object = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}),
        )
        .unwrap();
        let (policy, problems) = read(&object);
        (policy, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn policy_types_default_as_the_server_fills_them_in() {
        for (spec, expected) in [
            (json!({}), (true, false)),
            (json!({"egress": []}), (true, false)),
            (json!({"egress": [{}]}), (true, true)),
            (json!({"policyTypes": []}), (true, false)),
            (
                json!({"policyTypes": ["Egress"], "ingress": [{}]}),
                (false, true),
            ),
            (
                json!({"policyTypes": ["Ingress"], "egress": [{}]}),
                (true, false),
            ),
            (json!({"policyTypes": ["Ingress", "Egress"]}), (true, true)),
        ] {
            let (policy, problems) = parse(&spec);
            assert_eq!(
                (policy.isolates_ingress, policy.isolates_egress),
                expected,
                "{spec}"
            );
            assert_eq!(problems, Vec::<String>::new());
        }
    }

    #[test]
    fn absent_and_empty_lists_are_the_same() {
        for rule in [json!({}), json!({"from": [], "ports": []})] {
            let (policy, _) = parse(&json!({"ingress": [rule]}));
            assert_eq!(policy.ingress, [Rule::default()]);
        }
        assert_eq!(parse(&json!({"ingress": []})).0, parse(&json!({})).0);
    }

    #[test]
    fn a_nil_namespace_selector_is_the_own_namespace_and_an_empty_one_is_all() {
        let (policy, _) = parse(&json!({"ingress": [{"from": [
            {"podSelector": {}}, {"namespaceSelector": {}}, {"podSelector": {}, "namespaceSelector": {}},
        ]}]}));
        let everything = Selector::everything;
        assert_eq!(
            policy.ingress[0].peers.as_deref().unwrap(),
            [
                Peer::Pods {
                    namespaces: Namespaces::Own,
                    pods: everything()
                },
                Peer::Pods {
                    namespaces: Namespaces::Matching(everything()),
                    pods: everything()
                },
                Peer::Pods {
                    namespaces: Namespaces::Matching(everything()),
                    pods: everything()
                },
            ]
        );
    }

    #[test]
    fn host_bits_are_masked_and_ports_have_defaults() {
        let (policy, problems) = parse(&json!({"egress": [{
            "to": [{"ipBlock": {"cidr": "10.10.1.12/24", "except": ["10.10.1.7/30"]}}],
            "ports": [{"port": 80}, {"protocol": "SCTP"}, {"port": 10, "endPort": 20, "protocol": "UDP"}, {"port": "web"}],
        }]}));
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(
            policy.egress[0].peers.as_deref().unwrap(),
            [Peer::Block(IpBlock {
                cidr: "10.10.1.0/24".parse().unwrap(),
                except: vec!["10.10.1.4/30".parse().unwrap()],
            })]
        );
        assert_eq!(
            policy.egress[0].ports.as_deref().unwrap(),
            [
                PortMatch::Numbers(Protocol::Tcp, PortRange::single(80)),
                PortMatch::Numbers(Protocol::Sctp, PortRange::ALL),
                PortMatch::Numbers(Protocol::Udp, PortRange::new(10, 20).unwrap()),
                PortMatch::Named(Protocol::Tcp, "web".to_owned()),
            ]
        );
    }

    /// Each of these the API server refuses; read from a file they must be reported and must allow nothing.
    #[test]
    fn what_the_server_refuses_is_named_and_allows_nothing() {
        let peer = |peer: Value| json!({"ingress": [{"from": [peer]}]});
        let port = |port: Value| json!({"ingress": [{"ports": [port]}]});
        let cases = [
            (peer(json!({})), "from[0]: names no peer"),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
                "from[0].ipBlock: may not stand",
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0"}})),
                "from[0].ipBlock.cidr: \"10.0.0.0\" is not a CIDR",
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/33"}})),
                "from[0].ipBlock.cidr",
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
                "except[0]: 10.0.0.0/8 is not",
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}})),
                "except[0]",
            ),
            (
                peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["::/9"]}})),
                "except[0]",
            ),
            (
                peer(
                    json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
                ),
                "values: In needs",
            ),
            (
                peer(
                    json!({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
                ),
                "from[0].namespaceSelector.matchExpressions[0].values: Exists takes no values",
            ),
            (port(json!({"endPort": 5})), "endPort: needs a port"),
            (
                port(json!({"port": "web", "endPort": 5})),
                "endPort: cannot stand beside a named port",
            ),
            (
                port(json!({"port": 9, "endPort": 5})),
                "endPort: must not be below port",
            ),
            (
                port(json!({"port": 9, "endPort": 65536})),
                "endPort: 65536 is not a port",
            ),
            (port(json!({"port": 0})), "ports[0].port: 0 is not a port"),
            (
                port(json!({"port": 65536})),
                "ports[0].port: 65536 is not a port",
            ),
            (
                port(json!({"port": "a--b"})),
                "ports[0].port: \"a--b\" is not a port name",
            ),
            (port(json!({"port": "sixteen-letters-"})), "ports[0].port"),
            (
                port(json!({"port": "80"})),
                "ports[0].port: \"80\" is not a port name",
            ),
            (
                port(json!({"port": 1, "protocol": "ICMP"})),
                "ports[0].protocol: \"ICMP\" is not a protocol",
            ),
        ];
        for (spec, expected) in cases {
            let (policy, problems) = parse(&spec);
            assert_eq!(problems.len(), 1, "{spec}: {problems:?}");
            assert!(
                problems[0].starts_with("NetworkPolicy ns/p: spec.ingress[0]."),
                "{}",
                problems[0]
            );
            assert!(
                problems[0].contains(expected),
                "{} lacks {expected}",
                problems[0]
            );
            let rule = &policy.ingress[0];
            let nothing = rule.peers.as_ref().is_some_and(Vec::is_empty)
                || rule.ports.as_ref().is_some_and(Vec::is_empty);
            assert!(nothing, "{spec} would allow something");
        }
    }

    #[test]
    fn one_bad_item_does_not_take_its_neighbours_along() {
        let (policy, problems) = parse(&json!({"ingress": [
            {"from": [{}, {"podSelector": {}}], "ports": [{"port": 0}, {"port": 80}]}, {},
        ]}));
        assert_eq!(problems.len(), 2);
        assert_eq!(policy.ingress[0].peers.as_ref().map(Vec::len), Some(1));
        assert_eq!(policy.ingress[0].ports.as_ref().map(Vec::len), Some(1));
        assert_eq!(policy.ingress[1].index, 1);
    }

    #[test]
    fn an_unreadable_subject_or_type_isolates() {
        let (policy, problems) = parse(&json!({
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}, "ingress": [{}],
        }));
        assert!(policy.isolates_ingress && policy.ingress.is_empty());
        assert!(policy.subject.matches(&crate::selector::Labels::new()));
        assert!(
            problems[0]
                .starts_with("NetworkPolicy ns/p: spec.podSelector.matchExpressions[0].operator:")
        );

        let (policy, problems) = parse(&json!({"policyTypes": ["ingress"]}));
        assert!(policy.isolates_ingress && policy.isolates_egress);
        assert_eq!(problems.len(), 1);
        assert_eq!(
            parse(&json!({"policyTypes": ["Ingress", "Egress", "Ingress"]}))
                .1
                .len(),
            1
        );
    }
}

//! Reads `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy objects.
//!
//! What cannot be understood fails closed as the API's text says of peers: a rule that accepts then matches nothing, a
//! rule that denies or passes denies everything.

use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use margay_crds::cluster_network_policy::{
    self as api, ClusterAction, ClusterNetworkPolicy, ClusterTier, NamespacedPod, ProtocolMatch,
};
use margay_crds::policy_rule::RuleAction;

use super::{
    Direction, PolicyKind, PolicyRef, PortMatch,
    network_policy::{check_port_name, read_network},
};
use crate::{
    port::{PortRange, Protocol},
    problem::{Problem, Problems},
    selector::{Labels, Selector},
};

/// A ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPolicy {
    /// The name.
    pub name: String,
    /// Whether it is of the tier after NetworkPolicies, and not of that before them.
    pub is_baseline: bool,
    /// Its place in the tier: lower comes first.
    pub priority: i32,
    /// The pods it applies to.
    pub subject: ClusterPods,
    /// Rules for traffic to them.
    pub ingress: Vec<ClusterRule>,
    /// Rules for traffic from them.
    pub egress: Vec<ClusterRule>,
}

/// Pods by their namespaces and their own labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPods {
    /// The namespaces.
    pub namespaces: Selector,
    /// The pods.
    pub pods: Selector,
}

impl ClusterPods {
    /// Whether a pod with these labels in a namespace with those is meant.
    pub fn matches(&self, namespace: &Labels, pod: &Labels) -> bool {
        self.namespaces.matches(namespace) && self.pods.matches(pod)
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRule {
    /// Its place in its list.
    pub index: usize,
    /// What it does; never [`RuleAction::Log`].
    pub action: RuleAction,
    /// The peers it is about: any of them.
    pub peers: Vec<ClusterPeer>,
    /// The ports; `None` is all traffic, an empty list none.
    pub ports: Option<Vec<PortMatch>>,
}

/// One peer of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterPeer {
    /// Pods.
    Pods(ClusterPods),
    /// Addresses.
    Network(IpNetwork),
    /// Everyone: what stands for peers that cannot be read in a rule that denies.
    Everyone,
}

impl ClusterPolicy {
    /// The reference.
    pub fn reference(&self) -> PolicyRef {
        PolicyRef::new(PolicyKind::ClusterNetworkPolicy, "", self.name.clone())
    }

    /// The rules of this direction.
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

pub(super) fn read(policy: &ClusterNetworkPolicy) -> (ClusterPolicy, Vec<Problem>) {
    let name = policy.metadata.name.clone().unwrap_or_default();
    let mut problems = Problems::of("ClusterNetworkPolicy", "", &name);
    let spec = &policy.spec;
    if !(0..=1000).contains(&spec.priority) {
        problems.report(
            "spec.priority",
            "must be from 0 to 1000; it is used as it is",
        );
    }
    let subject = read_pods(spec.subject.namespaces.as_ref(), spec.subject.pods.as_ref());
    let mut ingress: Vec<ClusterRule> = Vec::new();
    for (index, rule) in spec.ingress.iter().enumerate() {
        let path = format!("spec.ingress[{index}]");
        let peers = read_peers(&format!("{path}.from"), &rule.from, |peer| {
            let pods = read_pods(peer.namespaces.as_ref(), peer.pods.as_ref())?;
            Ok(vec![ClusterPeer::Pods(pods)])
        });
        ingress.push(read_rule(
            &path,
            index,
            rule.action,
            peers,
            rule.protocols.as_deref(),
            &mut problems,
        ));
    }
    let mut egress = Vec::new();
    for (index, rule) in spec.egress.iter().enumerate() {
        let path = format!("spec.egress[{index}]");
        let peers = read_peers(&format!("{path}.to"), &rule.to, read_destination);
        egress.push(read_rule(
            &path,
            index,
            rule.action,
            peers,
            rule.protocols.as_deref(),
            &mut problems,
        ));
    }
    let subject = subject.unwrap_or_else(|(field, reason)| {
        problems.report(
            format!("spec.subject{field}"),
            format!("{reason}; until this is mended its Deny rules apply to all pods, and no others of its rules to any"),
        );
        for rules in [&mut ingress, &mut egress] {
            rules.retain(|rule| rule.action == RuleAction::Deny);
        }
        ClusterPods {
            namespaces: Selector::everything(),
            pods: Selector::everything(),
        }
    });
    let model = ClusterPolicy {
        name,
        is_baseline: spec.tier == ClusterTier::Baseline,
        priority: spec.priority,
        subject,
        ingress,
        egress,
    };
    (model, problems.into_found())
}

/// A field inside what is read, empty or from its dot on, and what is wrong there.
type Wrong = (String, String);

type Peers = Result<Vec<Vec<ClusterPeer>>, Wrong>;

fn read_peers<P>(
    path: &str,
    peers: &[P],
    read: impl Fn(&P) -> Result<Vec<ClusterPeer>, Wrong>,
) -> Peers {
    if peers.is_empty() {
        return Err((path.to_owned(), "must have at least one peer".to_owned()));
    }
    let peers = peers.iter().enumerate();
    peers
        .map(|(index, peer)| {
            read(peer).map_err(|(field, reason)| (format!("{path}[{index}]{field}"), reason))
        })
        .collect()
}

fn whole(reason: &str) -> Wrong {
    (String::new(), reason.to_owned())
}

fn read_rule(
    path: &str,
    index: usize,
    action: ClusterAction,
    peers: Peers,
    protocols: Option<&[ProtocolMatch]>,
    problems: &mut Problems,
) -> ClusterRule {
    let action = match action {
        ClusterAction::Accept => RuleAction::Allow,
        ClusterAction::Deny => RuleAction::Deny,
        ClusterAction::Pass => RuleAction::Pass,
    };
    let ports = protocols.map(|items| {
        let items = items.iter().enumerate();
        let read = items.map(|(index, item)| {
            read_protocol(item)
                .map_err(|(field, reason)| (format!("{path}.protocols[{index}]{field}"), reason))
        });
        read.collect::<Result<Vec<_>, _>>()
    });
    let read = peers.and_then(|peers| Ok((peers, ports.transpose()?)));
    match read {
        Ok((peers, ports)) => ClusterRule {
            index,
            action,
            peers: peers.into_iter().flatten().collect(),
            ports,
        },
        Err((field, reason)) => {
            let accepts = action == RuleAction::Allow;
            let instead = if accepts {
                "matches nothing"
            } else {
                "denies everything"
            };
            problems.report(
                field,
                format!("{reason}; until this is mended the rule {instead}"),
            );
            ClusterRule {
                index,
                action: if accepts { action } else { RuleAction::Deny },
                peers: if accepts {
                    Vec::new()
                } else {
                    vec![ClusterPeer::Everyone]
                },
                ports: None,
            }
        }
    }
}

fn read_pods(
    namespaces: Option<&LabelSelector>,
    pods: Option<&NamespacedPod>,
) -> Result<ClusterPods, Wrong> {
    let read = |selector: &LabelSelector, field: &str| {
        Selector::read(selector)
            .map_err(|error| (format!(".{field}.{}", error.field), error.reason))
    };
    match (namespaces, pods) {
        (Some(namespaces), None) => Ok(ClusterPods {
            namespaces: read(namespaces, "namespaces")?,
            pods: Selector::everything(),
        }),
        (None, Some(pods)) => Ok(ClusterPods {
            namespaces: read(&pods.namespace_selector, "pods.namespaceSelector")?,
            pods: read(&pods.pod_selector, "pods.podSelector")?,
        }),
        (None, None) => Err(whole("has none of the fields known here")),
        (Some(_), Some(_)) => Err(whole("may have only one of namespaces and pods")),
    }
}

fn read_destination(peer: &api::EgressPeer) -> Result<Vec<ClusterPeer>, Wrong> {
    let Some(networks) = &peer.networks else {
        let pods = read_pods(peer.namespaces.as_ref(), peer.pods.as_ref())?;
        return Ok(vec![ClusterPeer::Pods(pods)]);
    };
    if peer.namespaces.is_some() || peer.pods.is_some() {
        return Err(whole("may have only one of namespaces, pods and networks"));
    }
    let networks = networks.iter().enumerate();
    networks
        .map(|(index, text)| match read_network(text) {
            Ok(network) => Ok(ClusterPeer::Network(network)),
            Err(reason) => Err((format!(".networks[{index}]"), reason)),
        })
        .collect()
}

fn read_protocol(item: &ProtocolMatch) -> Result<PortMatch, Wrong> {
    let transports = [
        (Protocol::Tcp, "tcp", &item.tcp),
        (Protocol::Udp, "udp", &item.udp),
        (Protocol::Sctp, "sctp", &item.sctp),
    ];
    let mut given = transports
        .into_iter()
        .filter_map(|(protocol, name, matched)| Some((protocol, name, matched.as_ref()?)));
    match (given.next(), given.next(), &item.destination_named_port) {
        (Some((protocol, name, matched)), None, None) => {
            let Some(port) = &matched.destination_port else {
                let reason = "has none of the fields known here".to_owned();
                return Err((format!(".{name}"), reason));
            };
            let range = read_port(port)
                .map_err(|(field, reason)| (format!(".{name}.destinationPort{field}"), reason))?;
            Ok(PortMatch::Numbers(protocol, range))
        }
        (None, None, Some(name)) => {
            check_port_name(name).map_err(|reason| (".destinationNamedPort".to_owned(), reason))?;
            Ok(PortMatch::AnyNamed(name.clone()))
        }
        (None, None, None) => Err(whole("has none of the fields known here")),
        _ => Err(whole(
            "may have only one of tcp, udp, sctp and destinationNamedPort",
        )),
    }
}

fn read_port(port: &api::PortMatch) -> Result<PortRange, Wrong> {
    let number = |field: &str, value: i32| {
        let number = u16::try_from(value).ok().filter(|number| *number > 0);
        let reason = || format!("{value} is not a port: write a number from 1 to 65535");
        number.ok_or_else(|| (field.to_owned(), reason()))
    };
    match (port.number, port.range) {
        (Some(port), None) => Ok(PortRange::single(number(".number", port)?)),
        (None, Some(range)) if range.start < range.end => Ok(PortRange::between(
            number(".range.start", range.start)?,
            number(".range.end", range.end)?,
        )),
        (None, Some(_)) => Err((
            ".range".to_owned(),
            "the start of the range must be below its end".to_owned(),
        )),
        _ => Err(whole("must have one of number and range")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(spec: Value) -> (ClusterPolicy, Vec<String>) {
        let object = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "c"}, "spec": spec});
        let (policy, problems) = read(&serde_json::from_value(object).unwrap());
        (policy, problems.iter().map(ToString::to_string).collect())
    }

    fn rule(action: &str, rest: Value) -> (ClusterPolicy, Vec<String>) {
        let mut rule = json!({"action": action, "to": [{"namespaces": {}}]});
        rule.as_object_mut()
            .unwrap()
            .extend(rest.as_object().unwrap().clone());
        parse(
            json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [rule]}),
        )
    }

    #[test]
    fn peers_and_protocols_are_read() {
        let (policy, problems) = rule(
            "Accept",
            json!({
                "to": [{"networks": ["10.0.0.0/8", "fd00::/8"]}, {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"a": "b"}}}}],
                "protocols": [{"tcp": {"destinationPort": {"number": 80}}}, {"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}}, {"destinationNamedPort": "web"}],
            }),
        );
        assert_eq!(problems, Vec::<String>::new());
        assert_eq!(policy.egress[0].peers.len(), 3);
        assert_eq!(
            policy.egress[0].ports.as_deref().unwrap(),
            [
                PortMatch::Numbers(Protocol::Tcp, PortRange::single(80)),
                PortMatch::Numbers(Protocol::Udp, PortRange::between(1, 9)),
                PortMatch::AnyNamed("web".to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_not_understood_fails_closed() {
        for (rest, field) in [
            (json!({"to": [{"namespaces": {}}, {"nodes": {}}]}), "to[1]"),
            (json!({"to": []}), "to"),
            (
                json!({"to": [{"networks": ["fd00::/8", "10.0.0.0"]}]}),
                "to[0].networks[1]",
            ),
            (
                json!({"to": [{"namespaces": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]}),
                "to[0].namespaces.matchExpressions[0].operator",
            ),
            (
                json!({"to": [{"pods": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}]}),
                "to[0].pods.podSelector.matchExpressions[0].values",
            ),
            (json!({"protocols": [{"icmp": {}}]}), "protocols[0]"),
            (json!({"protocols": [{"tcp": {}}]}), "protocols[0].tcp"),
            (
                json!({"protocols": [{"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}]}),
                "protocols[0].tcp.destinationPort.range",
            ),
        ] {
            let (policy, problems) = rule("Accept", rest.clone());
            assert!(policy.egress[0].peers.is_empty(), "{rest}");
            assert!(
                problems[0]
                    .starts_with(&format!("ClusterNetworkPolicy c: spec.egress[0].{field}: ")),
                "{problems:?}"
            );
            for action in ["Deny", "Pass"] {
                let (policy, _) = rule(action, rest.clone());
                assert_eq!(
                    policy.egress[0],
                    ClusterRule {
                        index: 0,
                        action: RuleAction::Deny,
                        peers: vec![ClusterPeer::Everyone],
                        ports: None
                    },
                    "{rest}"
                );
            }
        }
    }

    #[test]
    fn an_unreadable_subject_leaves_only_denials_for_all() {
        let rules = json!([
            {"action": "Accept", "from": [{"namespaces": {}}]},
            {"action": "Deny", "from": [{"namespaces": {}}]},
        ]);
        let (policy, problems) =
            parse(json!({"tier": "Baseline", "priority": 1, "subject": {}, "ingress": rules}));
        assert_eq!(policy.ingress.len(), 1);
        assert_eq!(policy.ingress[0].index, 1);
        assert!(problems[0].contains("spec.subject: has none of the fields"));
    }
}

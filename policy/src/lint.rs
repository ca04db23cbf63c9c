//! What people get wrong: policies that are valid and probably do not say what is meant.
//!
//! Objects that cannot be read are reported by whoever reads them ([`crate::load`]). A finding is a guess: the reason
//! says what would be right if it is one.

mod hosts;

use std::collections::BTreeSet;

use margay_crds::policy_rule::RuleAction;

use crate::{
    model::{Cluster, ClusterPeer, Direction, Namespaces, Peer, Pod, Policy, PortMatch, Rule},
    port::Protocol,
    problem::{Problem, Problems},
};

/// The port of DNS.
const DNS: u16 = 53;

/// Everything found, in the order of the policies.
pub fn lint(cluster: &Cluster) -> Vec<Problem> {
    let mut found = Vec::new();
    for policy in cluster.policies() {
        found.extend(network_policy(cluster, policy));
    }
    for policy in cluster.cluster_policies() {
        let mut problems = Problems::of("ClusterNetworkPolicy", "", &policy.name);
        let matches = |pods: &crate::model::ClusterPods, pod: &Pod| {
            pods.matches(&cluster.namespace_labels(&pod.namespace), &pod.labels)
        };
        let any = |pods: &crate::model::ClusterPods| pods_of(cluster).any(|pod| matches(pods, pod));
        if !any(&policy.subject) {
            problems.report("spec.subject", "matches no pod: the policy has no effect");
        }
        for direction in Direction::ALL {
            let mut shadow = None;
            for rule in policy.rules(direction) {
                let path = format!("spec.{}[{}]", direction.as_str(), rule.index);
                if let Some(index) = shadow {
                    let reason =
                        format!("is never reached: rule {index} before it decides all traffic");
                    problems.report(path, reason);
                    continue;
                }
                for peer in &rule.peers {
                    if let ClusterPeer::Pods(pods) = peer
                        && !any(pods)
                    {
                        problems.report(&path, "names a peer that matches no pod");
                    }
                }
                let everyone = rule.peers.contains(&ClusterPeer::Everyone);
                if everyone && rule.ports.is_none() {
                    shadow = Some(rule.index);
                }
            }
        }
        found.extend(problems.into_found());
    }
    found.extend(own(cluster));
    found.extend(hosts::lint(cluster));
    found
}

/// The pods that policies can select.
fn pods_of(cluster: &Cluster) -> impl Iterator<Item = &Pod> {
    cluster.pods().filter(|pod| pod.is_selectable())
}

fn network_policy(cluster: &Cluster, policy: &Policy) -> Vec<Problem> {
    let mut problems = Problems::of("NetworkPolicy", &policy.namespace, &policy.name);
    let here = || pods_of(cluster).filter(|pod| pod.namespace == policy.namespace);
    let subjects: Vec<&Pod> = here()
        .filter(|pod| policy.subject.matches(&pod.labels))
        .collect();
    if subjects.is_empty() {
        let reason = format!(
            "{} matches no pod of the namespace: the policy has no effect",
            policy.subject
        );
        problems.report("spec.podSelector", reason);
    }
    for direction in Direction::ALL {
        if !policy.isolates(direction) {
            if !policy.rules(direction).is_empty() {
                let (name, kind) = match direction {
                    Direction::Ingress => ("ingress", "Ingress"),
                    Direction::Egress => ("egress", "Egress"),
                };
                let reason = format!("has no effect: {kind} is not among spec.policyTypes");
                problems.report(format!("spec.{name}"), reason);
            }
            continue;
        }
        let mut open = None;
        for rule in policy.rules(direction) {
            let path = format!("spec.{}[{}]", direction.as_str(), rule.index);
            if let Some(index) = open {
                problems.report(
                    &path,
                    format!("adds nothing: rule {index} allows everything already"),
                );
            } else if rule.peers.is_none() && rule.ports.is_none() {
                open = Some(rule.index);
            }
            peers(cluster, policy, rule, direction, &path, &mut problems);
            names(cluster, &subjects, rule, direction, &path, &mut problems);
        }
    }
    dns(policy, &mut problems);
    problems.into_found()
}

fn peers(
    cluster: &Cluster,
    policy: &Policy,
    rule: &Rule,
    direction: Direction,
    path: &str,
    problems: &mut Problems,
) {
    let list = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let items = rule.peers.as_deref().unwrap_or_default();
    for (index, peer) in items.iter().enumerate() {
        let Peer::Pods { namespaces, pods } = peer else {
            continue;
        };
        let matches = |pod: &&Pod| {
            let there = match namespaces {
                Namespaces::Own => pod.namespace == policy.namespace,
                Namespaces::Matching(selector) => {
                    selector.matches(&cluster.namespace_labels(&pod.namespace))
                }
            };
            there && pods.matches(&pod.labels)
        };
        if pods_of(cluster).any(|pod| matches(&pod)) {
            continue;
        }
        let elsewhere =
            *namespaces == Namespaces::Own && pods_of(cluster).any(|pod| pods.matches(&pod.labels));
        let reason = if elsewhere {
            "matches pods of other namespaces only, and without a namespaceSelector just the policy's own is meant: \
             add one to the same item"
        } else {
            "matches no pod"
        };
        problems.report(format!("{path}.{list}[{index}]"), reason);
    }
    // `- namespaceSelector` and `- podSelector` as two items are two peers; as one item they would be one.
    let all_of_namespaces = items.iter().position(|peer| {
        matches!(peer, Peer::Pods { namespaces: Namespaces::Matching(_), pods } if pods.is_everything())
    });
    let own_pods = items.iter().position(|peer| {
        matches!(peer, Peer::Pods { namespaces: Namespaces::Own, pods } if !pods.is_everything())
    });
    if let (Some(one), Some(other)) = (all_of_namespaces, own_pods)
        && one.abs_diff(other) == 1
    {
        let (first, second) = (one.min(other), one.max(other));
        let reason = format!(
            "stands beside {list}[{first}] and not in it: both are allowed, each by itself. If pods of those namespaces \
             are meant, take away the dash before the second selector"
        );
        problems.report(format!("{path}.{list}[{second}]"), reason);
    }
}

/// Port names that nobody gives.
fn names(
    cluster: &Cluster,
    subjects: &[&Pod],
    rule: &Rule,
    direction: Direction,
    path: &str,
    problems: &mut Problems,
) {
    for (index, port) in rule.ports.iter().flatten().enumerate() {
        let PortMatch::Named(protocol, name) = port else {
            continue;
        };
        let gives = |pod: &Pod| {
            let mut ports = pod.ports.iter();
            ports.any(|own| own.name == *name && own.protocol == *protocol)
        };
        let known = match direction {
            Direction::Ingress => subjects.iter().any(|pod| gives(pod)),
            Direction::Egress => pods_of(cluster).any(gives),
        };
        if !known {
            let who = match direction {
                Direction::Ingress => "no pod the policy applies to",
                Direction::Egress => "no pod",
            };
            let reason = format!("{who} has a {protocol} port called {name:?}: it allows nothing");
            problems.report(format!("{path}.ports[{index}]"), reason);
        }
    }
}

/// Egress rules that let something through but no questions to DNS.
fn dns(policy: &Policy, problems: &mut Problems) {
    if !policy.isolates_egress || policy.egress.is_empty() {
        return;
    }
    let is_dns = |port: &PortMatch| match port {
        PortMatch::Numbers(protocol, range) => *protocol == Protocol::Udp && range.contains(DNS),
        PortMatch::Named(protocol, name) => *protocol == Protocol::Udp && name.contains("dns"),
        PortMatch::AnyNamed(name) => name.contains("dns"),
    };
    let asks = |rule: &Rule| {
        rule.ports
            .as_ref()
            .is_none_or(|ports| ports.iter().any(is_dns))
    };
    if !policy.egress.iter().any(asks) {
        problems.report(
            "spec.egress",
            "lets no name be looked up: add a rule for UDP and TCP port 53 to the cluster's DNS, unless another policy has it",
        );
    }
}

fn own(cluster: &Cluster) -> Vec<Problem> {
    let mut found = Vec::new();
    for policy in cluster.own_policies() {
        let reference = &policy.reference;
        let kind = reference.kind.as_str();
        let mut problems = Problems::of(kind, &reference.namespace, &reference.name);
        if !cluster.has_tier(&policy.tier) {
            let reason = format!(
                "there is no tier {:?}: the policy comes after all others, and what it selects is denied the rest",
                policy.tier
            );
            problems.report("spec.tier", reason);
        }
        let selected = |pod: &&Pod| {
            let in_namespace = policy.namespace().is_none_or(|own| own == pod.namespace);
            in_namespace && policy.subject.selector.matches(&cluster.pod_labels(pod))
        };
        let of_host = cluster
            .host_endpoints()
            .any(|host| policy.subject.selector.matches(&host.labels));
        if !of_host && !pods_of(cluster).any(|pod| selected(&pod)) {
            problems.report("spec.selector", "matches no pod: the policy has no effect");
        }
        for (rules, list) in [(&policy.ingress, "ingress"), (&policy.egress, "egress")] {
            let mut decided = None;
            for rule in rules.iter().flatten() {
                let path = format!("spec.{list}[{}]", rule.index);
                if let Some(index) = decided {
                    let reason =
                        format!("is never reached: rule {index} before it decides all traffic");
                    problems.report(path, reason);
                    continue;
                }
                let bare = margay_crds::policy_rule::Rule {
                    index: rule.index,
                    action: rule.action,
                    ..margay_crds::policy_rule::Rule::default()
                };
                if *rule == bare && rule.action != RuleAction::Log {
                    decided = Some(rule.index);
                }
            }
        }
        found.extend(problems.into_found());
    }
    let tiers: BTreeSet<&str> = cluster
        .own_policies()
        .chain(cluster.policies_for_hosts())
        .map(|policy| policy.tier.as_str())
        .collect();
    let unused = cluster
        .tiers()
        .filter(|tier| !tiers.contains(tier.name.as_str()));
    for tier in unused {
        let mut problems = Problems::of("Tier", "", &tier.name);
        problems.report("", "no policy is in it");
        found.extend(problems.into_found());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load;

    const WORLD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: x}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: y, labels: {team: b}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {app: a}}, spec: {containers: [{name: c, ports: [{name: web, containerPort: 80}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: y, labels: {app: b}}, spec: {containers: []}}
";

    fn findings(document: &str) -> Vec<String> {
        let mut cluster = Cluster::new();
        assert_eq!(
            load(&format!("{WORLD}---\n{document}\n"), &mut cluster).unwrap(),
            []
        );
        lint(&cluster).iter().map(ToString::to_string).collect()
    }

    fn policy(spec: &str) -> Vec<String> {
        findings(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, spec: {spec}}}"
        ))
    }

    #[test]
    fn what_is_meant_is_not_reported() {
        assert_eq!(
            policy(
                "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: b}}}], ports: [{port: web}]}]}"
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            policy(
                "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}, {ports: [{port: 443}]}]}"
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_is_probably_not_meant_is_reported() {
        for (spec, expected) in [
            (
                "{podSelector: {matchLabels: {app: z}}}",
                "spec.podSelector: app=z matches no pod",
            ),
            (
                "{podSelector: {}, policyTypes: [Egress], ingress: [{}]}",
                "spec.ingress: has no effect: Ingress is not among",
            ),
            (
                "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}",
                "spec.ingress[0].from[0]: matches pods of other namespaces only",
            ),
            (
                "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}}, {podSelector: {matchLabels: {app: a}}}]}]}",
                "spec.ingress[0].from[1]: stands beside from[0]",
            ),
            (
                "{podSelector: {}, ingress: [{}, {ports: [{port: 80}]}]}",
                "spec.ingress[1]: adds nothing: rule 0",
            ),
            (
                "{podSelector: {}, ingress: [{ports: [{port: admin}]}]}",
                "spec.ingress[0].ports[0]: no pod the policy applies to",
            ),
            (
                "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]}",
                "spec.egress: lets no name be looked up",
            ),
        ] {
            let found = policy(spec);
            assert!(
                found.len() == 1 && found[0].contains(expected),
                "{spec}: {found:?}"
            );
        }
    }

    #[test]
    fn tiers_and_rules_that_are_never_reached() {
        let found = findings(
            "{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: g}, spec: {tier: gone, ingress: [{action: Deny}, {action: Allow}]}}",
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("GlobalNetworkPolicy g: spec.tier: there is no tier \"gone\"")
        );
        assert!(found[1].contains("spec.ingress[1]: is never reached: rule 0"));
    }

    #[test]
    fn host_endpoints_without_policies_and_policies_without_host_endpoints() {
        let found = findings(
            "{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: h, labels: {role: node}}, spec: {node: n9, interfaceName: '*'}}\n---\n\
             {apiVersion: v1, kind: Node, metadata: {name: n1}}\n---\n\
             {apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: in}, spec: {selector: \"role == 'node'\", ingress: [{action: Allow}]}}\n---\n\
             {apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: fast}, spec: {selector: \"role == 'node'\", applyOnForward: true, doNotTrack: true, ingress: [{action: Allow}]}}\n---\n\
             {apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: early}, spec: {selector: \"role == 'x'\", applyOnForward: true, preDNAT: true, ingress: [{action: Allow}]}}",
        );
        for part in [
            "HostEndpoint h: spec.node: there is no Node \"n9\"",
            "HostEndpoint h: no policy is about its egress",
            "GlobalNetworkPolicy fast: spec.doNotTrack: is about one direction only",
            "GlobalNetworkPolicy early: spec.preDNAT: selects no HostEndpoint",
        ] {
            let is_there = found.iter().any(|one| one.starts_with(part));
            assert!(is_there, "{part}: {found:#?}");
        }
        assert_eq!(found.len(), 4, "{found:#?}");
    }
}

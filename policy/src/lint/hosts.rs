//! What people get wrong about host endpoints.

use margay_crds::{HostStage, Selector};

use crate::{
    model::{Cluster, Direction, HostEndpoint, OwnPolicy},
    problem::{Problem, Problems},
};

pub(super) fn lint(cluster: &Cluster) -> Vec<Problem> {
    let mut found: Vec<Problem> = endpoints(cluster)
        .flat_map(|endpoint| endpoint_of(cluster, endpoint))
        .collect();
    for policy in cluster.policies_for_hosts() {
        found.extend(policy_of(cluster, policy));
    }
    found
}

fn endpoints(cluster: &Cluster) -> impl Iterator<Item = &HostEndpoint> {
    cluster.host_endpoints()
}

fn selects(policy: &OwnPolicy, endpoint: &HostEndpoint) -> bool {
    let subject = &policy.subject;
    subject.service_accounts.is_none()
        && subject.namespaces.as_ref().is_none_or(Selector::is_global)
        && subject.selector.matches(&endpoint.labels)
}

fn endpoint_of(cluster: &Cluster, endpoint: &HostEndpoint) -> Vec<Problem> {
    let mut problems = Problems::of("HostEndpoint", "", &endpoint.name);
    if cluster.nodes().next().is_some() && cluster.node(&endpoint.node).is_none() {
        let reason = format!("there is no Node {:?}: it has no effect", endpoint.node);
        problems.report("spec.node", reason);
    }
    for direction in Direction::ALL {
        let mut policies = cluster.policies_for_hosts();
        let has_policy = policies.any(|policy| {
            let is_normal = policy.host.stage == HostStage::Normal && !policy.staged;
            is_normal && policy.rules(direction).is_some() && selects(policy, endpoint)
        });
        if !has_policy {
            let way = match direction {
                Direction::Ingress => "to",
                Direction::Egress => "from",
            };
            let reason = format!(
                "no policy is about its {}: nothing {way} the node passes there but the failsafe ports",
                direction.as_str()
            );
            problems.report("", reason);
        }
    }
    problems.into_found()
}

fn policy_of(cluster: &Cluster, policy: &OwnPolicy) -> Vec<Problem> {
    let reference = &policy.reference;
    let mut problems = Problems::of(
        reference.kind.as_str(),
        &reference.namespace,
        &reference.name,
    );
    let field = match policy.host.stage {
        HostStage::PreDnat => "spec.preDNAT",
        HostStage::DoNotTrack => "spec.doNotTrack",
        HostStage::Normal => "spec.applyOnForward",
    };
    let says_so = policy.host.only || policy.host.forward;
    if says_so && !endpoints(cluster).any(|endpoint| selects(policy, endpoint)) {
        let reason = match policy.host.only {
            true => "selects no HostEndpoint: the policy has no effect",
            false => "selects no HostEndpoint: it changes nothing for pods",
        };
        problems.report(field, reason);
    }
    let one_way = policy.ingress.is_some() != policy.egress.is_some();
    if policy.host.stage == HostStage::DoNotTrack && one_way {
        problems.report(
            field,
            "is about one direction only: answers are not known as such, and need a rule of the other direction",
        );
    }
    problems.into_found()
}

//! Which policies have a say about a pod, in the order in which they have it.

use std::collections::BTreeMap;

use margay_crds as crds;

use crate::model::{
    Cluster, ClusterPolicy, Direction, Order, OwnPolicy, Pod, Policy, PolicyKind, PolicyRef, Tier,
};
use crate::selector::Labels;

/// A policy of any kind.
#[derive(Clone, Copy, Debug)]
pub(super) enum AnyPolicy<'a> {
    Kubernetes(&'a Policy),
    Cluster(&'a ClusterPolicy),
    Own(&'a OwnPolicy),
}

/// A tier's policies that select the pod, first to last.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) tier: Tier,
    pub(super) policies: Vec<(PolicyRef, AnyPolicy<'a>)>,
}

/// The tiers with policies that select `pod` in this direction, first to last. Staged policies are among them only where
/// they are asked for.
pub(super) fn applicable<'a>(
    cluster: &'a Cluster,
    pod: &Pod,
    direction: Direction,
    staged: bool,
) -> Vec<Asked<'a>> {
    if !pod.is_selectable() {
        return Vec::new();
    }
    let mut by_tier: BTreeMap<&str, Vec<(Order, PolicyRef, AnyPolicy<'a>)>> = BTreeMap::new();
    for policy in cluster.policies() {
        let selects = policy.namespace == pod.namespace && policy.subject.matches(&pod.labels);
        if policy.isolates(direction) && selects {
            let kind = PolicyKind::NetworkPolicy;
            let reference = PolicyRef::new(kind, &policy.namespace, &policy.name);
            let order = Order::of(Some(Order::NETWORK_POLICY));
            let tier = by_tier.entry(crds::Tier::DEFAULT).or_default();
            tier.push((order, reference, AnyPolicy::Kubernetes(policy)));
        }
    }
    for policy in cluster.cluster_policies() {
        let namespace = cluster.namespace_labels(&pod.namespace);
        // A policy without rules for a direction does not affect it.
        if !policy.rules(direction).is_empty() && policy.subject.matches(&namespace, &pod.labels) {
            let name = match policy.is_baseline {
                true => crds::Tier::BASELINE,
                false => crds::Tier::ADMIN,
            };
            let order = Order::of(Some(policy.priority.into()));
            let tier = by_tier.entry(name).or_default();
            tier.push((order, policy.reference(), AnyPolicy::Cluster(policy)));
        }
    }
    for policy in cluster.own_policies() {
        let asked = staged || !policy.staged;
        if asked && policy.rules(direction).is_some() && selects(cluster, policy, pod) {
            let tier = by_tier.entry(&policy.tier).or_default();
            tier.push((
                policy.order,
                policy.reference.clone(),
                AnyPolicy::Own(policy),
            ));
        }
    }
    let mut tiers: Vec<Asked<'a>> = by_tier
        .into_iter()
        .map(|(name, mut policies)| {
            policies.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
            Asked {
                tier: cluster.tier(name),
                policies: policies
                    .into_iter()
                    .map(|(_, reference, policy)| (reference, policy))
                    .collect(),
            }
        })
        .collect();
    tiers.sort_by(|one, other| one.tier.place().cmp(&other.tier.place()));
    tiers
}

fn selects(cluster: &Cluster, policy: &OwnPolicy, pod: &Pod) -> bool {
    let subject = &policy.subject;
    let in_namespace = policy
        .namespace()
        .is_none_or(|namespace| namespace == pod.namespace);
    let by_namespace = subject.namespaces.as_ref().is_none_or(|selector| {
        !selector.is_global() && selector.matches(&cluster.own_namespace_labels(&pod.namespace))
    });
    let by_account = subject.service_accounts.as_ref().is_none_or(|selector| {
        let none = Labels::new();
        let labels = cluster.service_account_labels(&pod.namespace, &pod.service_account);
        selector.matches(labels.unwrap_or(&none))
    });
    in_namespace && by_namespace && by_account && subject.selector.matches(&cluster.pod_labels(pod))
}

//! Which policies select a local endpoint, in the order in which they have a say.

use std::collections::BTreeMap;

use margay_crds as crds;

use super::Endpoint;
use crate::{
    model::{
        Cluster, Direction, NAMESPACE_PREFIX, Order, OwnPolicy, PolicyKind, PolicyRef,
        SERVICE_ACCOUNT_PREFIX,
    },
    selector::Labels,
};
use margay_crds::Selector;

/// An endpoint and the policies that select it.
pub(super) struct Selected<'a> {
    pub(super) endpoint: Endpoint<'a>,
    ingress: Vec<PolicyRef>,
    egress: Vec<PolicyRef>,
}

impl<'a> Selected<'a> {
    pub(super) fn new(cluster: &Cluster, endpoint: Endpoint<'a>) -> Self {
        let subject = Subject::new(cluster, &endpoint);
        let of = |direction| match endpoint.closed {
            true => Vec::new(),
            false => subject.policies(direction),
        };
        Self {
            ingress: of(Direction::Ingress),
            egress: of(Direction::Egress),
            endpoint,
        }
    }

    /// The policies with a say in this direction, first to last. Staged ones are among them.
    pub(super) fn policies(&self, direction: Direction) -> &[PolicyRef] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// The place of a policy among all.
type Place = (Order, String, Order, PolicyRef);

struct Subject<'c, 'e, 'a> {
    cluster: &'c Cluster,
    endpoint: &'e Endpoint<'a>,
    /// The labels of its namespace, as Kubernetes' selectors see them.
    namespace: Labels,
    /// Its labels with their surroundings, as selectors of ours see them.
    labels: Labels,
}

impl<'c, 'e, 'a> Subject<'c, 'e, 'a> {
    fn new(cluster: &'c Cluster, endpoint: &'e Endpoint<'a>) -> Self {
        let (namespace, account) = (endpoint.namespace, endpoint.service_account);
        let labels = cluster.workload_labels(namespace, endpoint.labels, account);
        Self {
            cluster,
            endpoint,
            namespace: cluster.namespace_labels(namespace),
            labels: cluster.with_surroundings(labels, namespace, Some(account)),
        }
    }

    fn policies(&self, direction: Direction) -> Vec<PolicyRef> {
        let mut places = self.kubernetes(direction);
        places.extend(self.cluster_wide(direction));
        places.extend(self.own(direction));
        places.sort_unstable();
        places
            .into_iter()
            .map(|(.., reference)| reference)
            .collect()
    }

    fn place(&self, tier: &str, order: Order, reference: PolicyRef) -> Place {
        let tier = self.cluster.tier(tier);
        (tier.order, tier.name, order, reference)
    }

    fn kubernetes(&self, direction: Direction) -> Vec<Place> {
        let policies = self.cluster.policies_in(self.endpoint.namespace);
        let selecting = policies.filter(|policy| {
            policy.isolates(direction) && policy.subject.matches(self.endpoint.labels)
        });
        let order = Order::of(Some(Order::NETWORK_POLICY));
        selecting
            .map(|policy| {
                let kind = PolicyKind::NetworkPolicy;
                let reference = PolicyRef::new(kind, &policy.namespace, &policy.name);
                self.place(crds::Tier::DEFAULT, order, reference)
            })
            .collect()
    }

    fn cluster_wide(&self, direction: Direction) -> Vec<Place> {
        let selecting = self.cluster.cluster_policies().filter(|policy| {
            let subject = &policy.subject;
            !policy.rules(direction).is_empty()
                && subject.matches(&self.namespace, self.endpoint.labels)
        });
        selecting
            .map(|policy| {
                let tier = match policy.is_baseline {
                    true => crds::Tier::BASELINE,
                    false => crds::Tier::ADMIN,
                };
                let order = Order::of(Some(policy.priority.into()));
                self.place(tier, order, policy.reference())
            })
            .collect()
    }

    fn own(&self, direction: Direction) -> Vec<Place> {
        let selecting = self
            .cluster
            .own_policies()
            .filter(|policy| policy.rules(direction).is_some() && self.is_selected_by(policy));
        selecting
            .map(|policy| self.place(&policy.tier, policy.order, policy.reference.clone()))
            .collect()
    }

    fn is_selected_by(&self, policy: &OwnPolicy) -> bool {
        let matches = |selector: &Selector| selector.matches(&self.labels);
        let subject = &policy.subject;
        let prefixed = |selector: &Option<Selector>, prefix: &str| {
            let selector = selector.as_ref().map(|selector| selector.prefixed(prefix));
            selector.as_ref().is_none_or(matches)
        };
        policy
            .namespace()
            .is_none_or(|namespace| namespace == self.endpoint.namespace)
            && matches(&subject.selector)
            && prefixed(&subject.namespaces, NAMESPACE_PREFIX)
            && prefixed(&subject.service_accounts, SERVICE_ACCOUNT_PREFIX)
    }
}

/// Consecutive policies of one tier.
pub(super) fn by_tier<'p>(
    cluster: &Cluster,
    policies: &'p [PolicyRef],
) -> Vec<(crate::model::Tier, Vec<&'p PolicyRef>)> {
    let mut tiers: BTreeMap<(Order, String), Vec<&PolicyRef>> = BTreeMap::new();
    for policy in policies {
        let name = match policy.kind {
            PolicyKind::NetworkPolicy => crds::Tier::DEFAULT,
            PolicyKind::ClusterNetworkPolicy => {
                let found = cluster.cluster_policy(&policy.name);
                match found.is_some_and(|policy| policy.is_baseline) {
                    true => crds::Tier::BASELINE,
                    false => crds::Tier::ADMIN,
                }
            }
            PolicyKind::OwnNetworkPolicy | PolicyKind::GlobalNetworkPolicy => cluster
                .own_policy(policy)
                .map_or(crds::Tier::DEFAULT, |policy| &policy.tier),
        };
        let tier = cluster.tier(name);
        tiers
            .entry((tier.order, tier.name))
            .or_default()
            .push(policy);
    }
    tiers
        .into_iter()
        .map(|((_, name), policies)| (cluster.tier(&name), policies))
        .collect()
}

//! Which policies select a local endpoint, in the order in which they have a say.

use std::collections::BTreeMap;

use margay_crds as crds;

use super::Endpoint;
use crate::{
    model::{
        Cluster, ClusterPolicy, Direction, NAMESPACE_PREFIX, ObjectKey, Order, OwnPolicy, Policy,
        PolicyKind, PolicyRef, SERVICE_ACCOUNT_PREFIX,
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
        let (namespace, account) = (endpoint.namespace, endpoint.service_account);
        let subject = Subject::new(cluster, namespace, endpoint.labels, account);
        let places = match endpoint.closed {
            true => Vec::new(),
            false => subject.policies(cluster),
        };
        let of = |direction: Direction| {
            let places = places.iter();
            let saying = places.filter(|(_, says)| says[direction as usize]);
            saying
                .map(|((.., reference), _)| reference.clone())
                .collect()
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
pub(crate) type Place = (Order, String, Order, PolicyRef);

/// The place of a policy, if there is one of the name.
pub(crate) fn place(cluster: &Cluster, reference: &PolicyRef) -> Option<Place> {
    let (tier, order) = match reference.kind {
        PolicyKind::NetworkPolicy => {
            let key = ObjectKey::new(&reference.namespace, &reference.name);
            cluster.policy(&key)?;
            let order = Order::of(Some(Order::NETWORK_POLICY));
            (crds::Tier::DEFAULT, order)
        }
        PolicyKind::ClusterNetworkPolicy => {
            let policy = cluster.cluster_policy(&reference.name)?;
            let tier = match policy.is_baseline {
                true => crds::Tier::BASELINE,
                false => crds::Tier::ADMIN,
            };
            (tier, Order::of(Some(policy.priority.into())))
        }
        PolicyKind::OwnNetworkPolicy | PolicyKind::GlobalNetworkPolicy => {
            let policy = cluster.own_policy(reference)?;
            (&*policy.tier, policy.order)
        }
    };
    let tier = cluster.tier(tier);
    Some((tier.order, tier.name, order, reference.clone()))
}

/// What policies can tell of an endpoint as their subject.
#[derive(Debug)]
pub(crate) struct Subject {
    namespace: String,
    own: Labels,
    /// The labels of its namespace, as Kubernetes' selectors see them.
    around: Labels,
    /// Its labels with their surroundings, as selectors of ours see them.
    labels: Labels,
}

impl Subject {
    pub(crate) fn new(cluster: &Cluster, namespace: &str, own: &Labels, account: &str) -> Self {
        let labels = cluster.workload_labels(namespace, own, account);
        Self {
            namespace: namespace.to_owned(),
            own: own.clone(),
            around: cluster.namespace_labels(namespace),
            labels: cluster.with_surroundings(labels, namespace, Some(account)),
        }
    }

    /// The policies with a say in a direction, first to last, and by direction whether they have one.
    pub(crate) fn policies(&self, cluster: &Cluster) -> Vec<(Place, [bool; 2])> {
        let says = |says: &dyn Fn(Direction) -> bool| Direction::ALL.map(says);
        // All of these stand in one place but for their names.
        let tier = cluster.tier(crds::Tier::DEFAULT);
        let order = Order::of(Some(Order::NETWORK_POLICY));
        let kubernetes = cluster
            .policies_in(&self.namespace)
            .filter(|policy| policy.subject.matches(&self.own))
            .map(|policy| {
                let kind = PolicyKind::NetworkPolicy;
                let reference = PolicyRef::new(kind, &policy.namespace, &policy.name);
                let place = (tier.order, tier.name.clone(), order, reference);
                (place, says(&|direction| policy.isolates(direction)))
            });
        let cluster_wide = cluster
            .cluster_policies()
            .filter(|policy| policy.subject.matches(&self.around, &self.own))
            .filter_map(|policy| {
                let place = place(cluster, &policy.reference())?;
                Some((
                    place,
                    says(&|direction| !policy.rules(direction).is_empty()),
                ))
            });
        let own = cluster
            .own_policies()
            .filter(|policy| self.is_selected_by(policy))
            .filter_map(|policy| {
                let place = place(cluster, &policy.reference)?;
                Some((place, says(&|direction| policy.rules(direction).is_some())))
            });
        let mut places: Vec<(Place, [bool; 2])> =
            kubernetes.chain(cluster_wide).chain(own).collect();
        places.retain(|(_, says)| says.contains(&true));
        places.sort_unstable();
        places
    }

    /// Whether this policy has a say in this direction.
    pub(crate) fn is_selected(
        &self,
        cluster: &Cluster,
        reference: &PolicyRef,
        direction: Direction,
    ) -> bool {
        match reference.kind {
            PolicyKind::NetworkPolicy => {
                let key = ObjectKey::new(&reference.namespace, &reference.name);
                let policy = cluster.policy(&key);
                policy.is_some_and(|policy| {
                    policy.namespace == self.namespace && self.is_of(policy, direction)
                })
            }
            PolicyKind::ClusterNetworkPolicy => {
                let policy = cluster.cluster_policy(&reference.name);
                policy.is_some_and(|policy| self.is_of_cluster_policy(policy, direction))
            }
            PolicyKind::OwnNetworkPolicy | PolicyKind::GlobalNetworkPolicy => {
                let policy = cluster.own_policy(reference);
                policy.is_some_and(|policy| {
                    !policy.host.only
                        && policy.rules(direction).is_some()
                        && self.is_selected_by(policy)
                })
            }
        }
    }

    fn is_of(&self, policy: &Policy, direction: Direction) -> bool {
        policy.isolates(direction) && policy.subject.matches(&self.own)
    }

    fn is_of_cluster_policy(&self, policy: &ClusterPolicy, direction: Direction) -> bool {
        !policy.rules(direction).is_empty() && policy.subject.matches(&self.around, &self.own)
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
            .is_none_or(|namespace| namespace == self.namespace)
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

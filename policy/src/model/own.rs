//! NetworkPolicy and GlobalNetworkPolicy of `margay.dev/v1`, as policy sees them.

use margay_crds as crds;
use margay_crds::network_policy::ReadPolicy;
use margay_crds::policy_rule::Rule;
use margay_crds::{HostUse, Selector};

use super::{Direction, Order, PolicyKind, PolicyRef, pod::DEFAULT_NAMESPACE};
use crate::problem::{Problem, Problems};

/// A policy of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPolicy {
    /// Which it is.
    pub reference: PolicyRef,
    /// The tier's name.
    pub tier: String,
    /// The place in it.
    pub order: Order,
    /// Evaluated and reported, not enforced.
    pub staged: bool,
    /// What it is to host endpoints.
    pub host: HostUse,
    /// The endpoints it applies to.
    pub subject: Scope,
    /// The rules for traffic to them, or `None` when it says nothing about that.
    pub ingress: Option<Vec<Rule>>,
    /// The rules for traffic from them, or `None` when it says nothing about that.
    pub egress: Option<Vec<Rule>>,
}

/// Endpoints by labels: their own, those of their namespace and those of their service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// By their own.
    pub selector: Selector,
    /// By those of their namespace.
    pub namespaces: Option<Selector>,
    /// By those of their service account.
    pub service_accounts: Option<Selector>,
}

impl OwnPolicy {
    /// The namespace it is in, if it is in one.
    pub fn namespace(&self) -> Option<&str> {
        (self.reference.kind == PolicyKind::OwnNetworkPolicy)
            .then_some(self.reference.namespace.as_str())
    }

    /// The rules of this direction, or `None` when it says nothing about that.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

pub(super) fn read(policy: &crds::NetworkPolicy) -> (OwnPolicy, Vec<Problem>) {
    let metadata = &policy.metadata;
    let reference = PolicyRef::new(
        PolicyKind::OwnNetworkPolicy,
        metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
        metadata.name.clone().unwrap_or_default(),
    );
    of(reference, policy.read())
}

pub(super) fn read_global(policy: &crds::GlobalNetworkPolicy) -> (OwnPolicy, Vec<Problem>) {
    let name = policy.metadata.name.clone().unwrap_or_default();
    of(
        PolicyRef::new(PolicyKind::GlobalNetworkPolicy, "", name),
        policy.read(),
    )
}

fn of(reference: PolicyRef, read: ReadPolicy) -> (OwnPolicy, Vec<Problem>) {
    let kind = reference.kind.as_str();
    let mut problems = Problems::of(kind, &reference.namespace, &reference.name);
    problems.fields(&read.errors, "; what it belongs to allows nothing");
    let policy = OwnPolicy {
        reference,
        tier: read.tier,
        order: Order::of(read.order),
        staged: read.staged,
        host: read.host,
        subject: Scope {
            selector: read.selector,
            namespaces: read.namespaces,
            service_accounts: read.service_accounts,
        },
        ingress: read.ingress,
        egress: read.egress,
    };
    (policy, problems.into_found())
}

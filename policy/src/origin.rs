//! Where a verdict comes from: a short number for each rule of each policy, and the way back from numbers to rules.
//!
//! The kernel's table names rules by number: in the names of chains that count, and in what is reported of packets. A
//! number follows from the policy's kind, namespace and name, the direction and the rule's place alone, so that nothing
//! has to be remembered to understand it: whoever knows the policies can tell them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use margay_crds as crds;
use margay_crds::policy_rule::RuleAction;
use serde::Serialize;

use crate::{
    model::{Cluster, Direction, PolicyKind, PolicyRef},
    numbering,
};

/// The number of a rule of a policy in one direction, or of what the policy does where no rule of it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u64);

impl RuleId {
    /// The number of the rule with this place in the policy's list; without a place, of what becomes of traffic that
    /// no rule decides about in a tier that ends in Deny.
    pub fn of(policy: &PolicyRef, direction: Direction, rule: Option<usize>) -> Self {
        Self(numbering::stable_hash64(&(policy, direction, rule)))
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is no rule's number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the number of a rule: 16 hexadecimal digits")]
pub struct RuleIdError(String);

impl FromStr for RuleId {
    type Err = RuleIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or_else(|| RuleIdError(text.to_owned()))
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum OriginAction {
    /// Lets pass.
    Allow,
    /// Drops.
    Deny,
    /// Hands over to the next tier.
    Pass,
    /// Reports.
    Log,
}

impl OriginAction {
    /// The action as policies write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "Allow",
            Self::Deny => "Deny",
            Self::Pass => "Pass",
            Self::Log => "Log",
        }
    }
}

impl From<RuleAction> for OriginAction {
    fn from(action: RuleAction) -> Self {
        match action {
            RuleAction::Allow => Self::Allow,
            RuleAction::Deny => Self::Deny,
            RuleAction::Pass => Self::Pass,
            RuleAction::Log => Self::Log,
        }
    }
}

/// A rule, in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The policy.
    pub policy: PolicyRef,
    /// The policy's tier.
    pub tier: String,
    /// Whether the policy is staged: counted and reported, not enforced.
    pub staged: bool,
    /// The direction.
    pub direction: Direction,
    /// The rule's place in the policy's list; none for what no rule of it decides.
    pub rule: Option<usize>,
    /// What it does.
    pub action: OriginAction,
}

impl Origin {
    /// The rule as its path in the policy, such as `ingress[0]`; the direction alone where no rule decides.
    pub fn path(&self) -> String {
        match self.rule {
            Some(rule) => format!("{}[{rule}]", self.direction.as_str()),
            None => self.direction.as_str().to_owned(),
        }
    }
}

/// The rules with these numbers. Those that are no policy's any more are missing. It walks all policies once.
pub fn origins(cluster: &Cluster, wanted: &BTreeSet<RuleId>) -> BTreeMap<RuleId, Origin> {
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return found;
    }
    let mut look = |policy: &PolicyRef, tier: &str, staged: bool, direction, rules: Vec<_>| {
        let rules = rules.into_iter();
        let rules = rules.map(|(index, action): (usize, RuleAction)| (Some(index), action.into()));
        for (rule, action) in rules.chain([(None, OriginAction::Deny)]) {
            let id = RuleId::of(policy, direction, rule);
            if wanted.contains(&id) {
                let origin = Origin {
                    policy: policy.clone(),
                    tier: tier.to_owned(),
                    staged,
                    direction,
                    rule,
                    action,
                };
                found.insert(id, origin);
            }
        }
    };
    for direction in Direction::ALL {
        for policy in cluster.policies() {
            let reference =
                PolicyRef::new(PolicyKind::NetworkPolicy, &policy.namespace, &policy.name);
            let rules = policy.rules(direction).iter();
            let rules = rules.map(|rule| (rule.index, RuleAction::Allow)).collect();
            look(&reference, crds::Tier::DEFAULT, false, direction, rules);
        }
        for policy in cluster.cluster_policies() {
            let tier = match policy.is_baseline {
                true => crds::Tier::BASELINE,
                false => crds::Tier::ADMIN,
            };
            let rules = policy.rules(direction).iter();
            let rules = rules.map(|rule| (rule.index, rule.action)).collect();
            look(&policy.reference(), tier, false, direction, rules);
        }
        let hosts = cluster
            .policies_for_hosts()
            .filter(|policy| policy.host.only);
        for policy in cluster.own_policies().chain(hosts) {
            let rules = policy.rules(direction).unwrap_or_default().iter();
            let rules = rules.map(|rule| (rule.index, rule.action)).collect();
            let (tier, staged) = (&policy.tier, policy.staged);
            look(&policy.reference, tier, staged, direction, rules);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load;

    #[test]
    fn numbers_lead_back_to_rules() {
        let mut cluster = Cluster::new();
        let documents = "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: s}, spec: {podSelector: {}, ingress: [{}, {}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: g}, spec: {staged: true, tier: first, egress: [{action: Log}, {action: Pass}]}}
";
        assert_eq!(load(documents, &mut cluster).unwrap(), []);
        let (p, g) = (
            PolicyRef::new(PolicyKind::NetworkPolicy, "s", "p"),
            PolicyRef::new(PolicyKind::GlobalNetworkPolicy, "", "g"),
        );
        let ids = [
            RuleId::of(&p, Direction::Ingress, Some(1)),
            RuleId::of(&p, Direction::Ingress, None),
            RuleId::of(&g, Direction::Egress, Some(1)),
            RuleId::of(&p, Direction::Ingress, Some(2)),
        ];
        let found = origins(&cluster, &ids.into());
        let told = ids.map(|id| {
            found.get(&id).map(|origin| {
                (
                    origin.policy.to_string(),
                    origin.path(),
                    origin.action.as_str(),
                    origin.tier.as_str(),
                    origin.staged,
                )
            })
        });
        let policy = || "NetworkPolicy s/p".to_owned();
        assert_eq!(
            told,
            [
                Some((policy(), "ingress[1]".to_owned(), "Allow", "default", false)),
                Some((policy(), "ingress".to_owned(), "Deny", "default", false)),
                Some((
                    "GlobalNetworkPolicy g".to_owned(),
                    "egress[1]".to_owned(),
                    "Pass",
                    "first",
                    true
                )),
                None,
            ]
        );
        let text = ids[0].to_string();
        assert_eq!(text.parse(), Ok(ids[0]));
        assert!("xyz".parse::<RuleId>().is_err() && "+123456789abcdef".parse::<RuleId>().is_err());
    }
}

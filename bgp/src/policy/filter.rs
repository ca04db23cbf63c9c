//! The filter itself: rules, first match, operations.

use serde::{Deserialize, Serialize};

use super::PrefixMatch;
use crate::types::{Community, LargeCommunity, Prefix};

/// What a filter says about a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The route passes.
    Accept,
    /// The route does not.
    Reject,
}

/// An ordered list of rules; the first that matches decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Filter {
    /// The rules, in the order in which they are tried.
    pub rules: Vec<Rule>,
    /// What happens to a route that no rule matches.
    pub otherwise: Verdict,
}

/// One rule: all its conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The route must match one of these; empty: any route.
    #[serde(default)]
    pub prefixes: Vec<PrefixMatch>,
    /// What the rule decides.
    pub verdict: Verdict,
    /// Changes made to an accepted route, in order.
    #[serde(default)]
    pub operations: Vec<Operation>,
}

/// A change to the attributes of an accepted route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// Set LOCAL_PREF. Has no effect on routes given to an eBGP peer, which carry none.
    SetLocalPref(u32),
    /// Set MULTI_EXIT_DISC.
    SetMed(u32),
    /// Add a community (RFC 1997).
    AddCommunity(Community),
    /// Add a large community (RFC 8092).
    AddLargeCommunity(LargeCommunity),
}

impl Filter {
    /// Lets everything pass unchanged.
    #[must_use]
    pub fn accept_all() -> Self {
        Self {
            rules: Vec::new(),
            otherwise: Verdict::Accept,
        }
    }

    /// Lets nothing pass.
    #[must_use]
    pub fn reject_all() -> Self {
        Self {
            rules: Vec::new(),
            otherwise: Verdict::Reject,
        }
    }

    /// Lets exactly the routes pass that match one of `prefixes`.
    #[must_use]
    pub fn accept_only(prefixes: Vec<PrefixMatch>) -> Self {
        let accept = Rule {
            prefixes,
            verdict: Verdict::Accept,
            operations: Vec::new(),
        };
        // A rule without prefixes would match everything; a list of nothing means nothing.
        let rules = if accept.prefixes.is_empty() {
            Vec::new()
        } else {
            vec![accept]
        };
        Self {
            rules,
            otherwise: Verdict::Reject,
        }
    }

    /// Decides about `prefix`: `None` if the route is rejected, otherwise the operations to apply.
    #[must_use]
    pub fn decide(&self, prefix: &Prefix) -> Option<&[Operation]> {
        match self.rules.iter().find(|rule| rule.matches(prefix)) {
            Some(Rule {
                verdict: Verdict::Accept,
                operations,
                ..
            }) => Some(operations),
            Some(_) => None,
            None => (self.otherwise == Verdict::Accept).then_some(&[]),
        }
    }
}

impl Rule {
    fn matches(&self, prefix: &Prefix) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|m| m.matches(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PrefixMatch;

    #[test]
    fn the_first_match_decides() {
        let pods = PrefixMatch::within("10.0.0.0/8".parse().unwrap());
        let block = PrefixMatch::within("10.1.0.0/16".parse().unwrap());
        let reject = Rule {
            prefixes: vec![block],
            verdict: Verdict::Reject,
            operations: vec![],
        };
        let operations = vec![Operation::SetLocalPref(200)];
        let accept = Rule {
            prefixes: vec![pods],
            verdict: Verdict::Accept,
            operations: operations.clone(),
        };
        let filter = Filter {
            rules: vec![reject, accept],
            otherwise: Verdict::Accept,
        };
        assert_eq!(filter.decide(&"10.1.2.0/24".parse().unwrap()), None);
        assert_eq!(
            filter.decide(&"10.2.0.0/24".parse().unwrap()),
            Some(&operations[..])
        );
        assert_eq!(
            filter.decide(&"192.0.2.0/24".parse().unwrap()),
            Some(&[][..])
        );
    }

    #[test]
    fn accept_only_nothing_accepts_nothing() {
        let filter = Filter::accept_only(Vec::new());
        assert_eq!(filter.decide(&"10.1.2.0/24".parse().unwrap()), None);
    }
}

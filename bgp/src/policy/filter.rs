//! The filter itself: rules, first match, operations.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::index::Index;
use super::{Conditions, Operation, PeerType, PrefixMatch, RouteSource, Subject};
use crate::types::Prefix;
use crate::wire::PathAttributes;

/// What a filter says about a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The route passes.
    Accept,
    /// The route does not.
    Reject,
}

/// An ordered list of rules; the first that matches decides.
///
/// Cheap to clone, to compare with its clones, and to hash: peers with the same filter share it. It is compiled when it is
/// made, and then never changes.
///
/// Deciding is in two steps, because routes come with few different attribute sets and many prefixes: [`Filter::prepare`]
/// works out which rules the attributes meet, [`Filter::decide`] which of those is first for a prefix.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Content", into = "Content")]
pub struct Filter(Arc<Compiled>);

struct Compiled {
    content: Content,
    index: Index,
    hash: u64,
    /// No rule asks for more than the prefix.
    prefix_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Content {
    rules: Vec<Rule>,
    otherwise: Verdict,
}

/// One rule: all its conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// The route must match one of these; empty: any route.
    #[serde(default)]
    pub prefixes: Vec<PrefixMatch>,
    /// What else must hold.
    #[serde(default)]
    pub conditions: Conditions,
    /// What the rule decides.
    pub verdict: Verdict,
    /// Changes made to an accepted route, in order.
    #[serde(default)]
    pub operations: Vec<Operation>,
}

impl Rule {
    /// Decides about every route, and changes nothing.
    #[must_use]
    pub fn new(verdict: Verdict) -> Self {
        Self {
            prefixes: Vec::new(),
            conditions: Conditions::default(),
            verdict,
            operations: Vec::new(),
        }
    }

    /// Whether the rule is about `prefix`, as far as that goes.
    pub(super) fn covers(&self, prefix: &Prefix) -> bool {
        self.prefixes.is_empty() || self.prefixes.iter().any(|m| m.matches(prefix))
    }

    fn outcome(&self) -> Option<&[Operation]> {
        (self.verdict == Verdict::Accept).then_some(&self.operations)
    }
}

/// What a filter has to say about the attributes of a route, whatever its prefix.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// One bit for each rule whose conditions hold; `None`: all of them.
    rules: Option<Vec<u64>>,
    /// What comes of it if that is the same for every prefix: a rule, or none.
    fixed: Option<Option<usize>>,
}

impl Prepared {
    fn holds(&self, rule: usize) -> bool {
        self.rules.as_ref().is_none_or(|bits| {
            let word = bits.get(rule / 64).copied().unwrap_or(0);
            word >> (rule % 64) & 1 != 0
        })
    }
}

impl Filter {
    /// A filter of these rules, and `otherwise` for a route that no rule matches.
    #[must_use]
    pub fn new(rules: Vec<Rule>, otherwise: Verdict) -> Self {
        Content { rules, otherwise }.into()
    }

    /// Lets everything pass unchanged.
    #[must_use]
    pub fn accept_all() -> Self {
        Self::new(Vec::new(), Verdict::Accept)
    }

    /// Lets nothing pass.
    #[must_use]
    pub fn reject_all() -> Self {
        Self::new(Vec::new(), Verdict::Reject)
    }

    /// Lets exactly the routes pass that match one of `prefixes`.
    #[must_use]
    pub fn accept_only(prefixes: Vec<PrefixMatch>) -> Self {
        // A rule without prefixes would match everything; a list of nothing means nothing.
        if prefixes.is_empty() {
            return Self::reject_all();
        }
        let rule = Rule {
            prefixes,
            ..Rule::new(Verdict::Accept)
        };
        Self::new(vec![rule], Verdict::Reject)
    }

    /// The rules, in the order in which they are tried.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.0.content.rules
    }

    /// What happens to a route that no rule matches.
    #[must_use]
    pub fn otherwise(&self) -> Verdict {
        self.0.content.otherwise
    }

    /// Works out which rules the attributes of a route meet. Costs nothing for a filter that asks for prefixes only.
    #[must_use]
    pub fn prepare(&self, subject: &Subject<'_>) -> Prepared {
        let rules = self.rules();
        if self.0.prefix_only {
            let fixed = match rules.first() {
                None => Some(None),
                Some(rule) => rule.prefixes.is_empty().then_some(Some(0)),
            };
            return Prepared { rules: None, fixed };
        }
        let mut bits = vec![0_u64; rules.len().div_ceil(64)];
        let mut fixed = Some(None);
        for (number, rule) in rules.iter().enumerate() {
            if !rule.conditions.hold(subject) {
                continue;
            }
            if let Some(word) = bits.get_mut(number / 64) {
                *word |= 1 << (number % 64);
            }
            if rule.prefixes.is_empty() {
                // Whatever comes behind it is never reached.
                fixed = fixed.map(|_| Some(number));
                break;
            }
            fixed = None;
        }
        Prepared {
            rules: Some(bits),
            fixed,
        }
    }

    /// Decides about a route: `None` if it is rejected, otherwise the operations to apply. `prepared` is what
    /// [`Filter::prepare`] of this filter said about the route's attributes.
    ///
    /// The slice returned for a rule is always the same one, so that its address and the attributes tell the result.
    #[must_use]
    pub fn decide(&self, prepared: &Prepared, prefix: &Prefix) -> Option<&[Operation]> {
        let rules = self.rules();
        let rule = prepared.fixed.unwrap_or_else(|| {
            self.0
                .index
                .first(rules, prefix, |rule| prepared.holds(rule))
        });
        self.outcome(rule)
    }

    /// What [`Filter::decide`] says if that is the same for every prefix; `None`: it depends.
    #[must_use]
    pub fn decide_any(&self, prepared: &Prepared) -> Option<Option<&[Operation]>> {
        prepared.fixed.map(|rule| self.outcome(rule))
    }

    fn outcome(&self, rule: Option<usize>) -> Option<&[Operation]> {
        match rule.and_then(|rule| self.rules().get(rule)) {
            Some(rule) => rule.outcome(),
            None => (self.otherwise() == Verdict::Accept).then_some(&[]),
        }
    }

    /// Both steps at once, for a single route.
    #[must_use]
    pub fn decide_once(&self, subject: &Subject<'_>, prefix: &Prefix) -> Option<&[Operation]> {
        self.decide(&self.prepare(subject), prefix)
    }

    /// Decides about a route from an external peer that has nothing but its prefix.
    #[must_use]
    pub fn decide_plain(&self, prefix: &Prefix) -> Option<&[Operation]> {
        let subject = Subject {
            attributes: &PathAttributes::default(),
            next_hop: None,
            metric: None,
            peer_type: PeerType::External,
            source: RouteSource::External,
        };
        self.decide_once(&subject, prefix)
    }
}

impl From<Content> for Filter {
    fn from(content: Content) -> Self {
        // The same for equal contents, which is all that is asked of it.
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        content.hash(&mut hasher);
        Self(Arc::new(Compiled {
            index: Index::new(&content.rules),
            hash: hasher.finish(),
            prefix_only: content.rules.iter().all(|rule| rule.conditions.is_empty()),
            content,
        }))
    }
}

impl From<Filter> for Content {
    fn from(filter: Filter) -> Self {
        filter.0.content.clone()
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash && self.0.content == other.0.content)
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash.hash(state);
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Content { rules, otherwise } = &self.0.content;
        f.debug_struct("Filter")
            .field("rules", rules)
            .field("otherwise", otherwise)
            .finish()
    }
}

#[cfg(test)]
mod tests;

//! A decision: what one identity may do at one pod in one direction, and which rules have it so.
//!
//! However many policies and tiers took part, they have been flattened into this before anything is written, so that two
//! pods for which the outcome is the same share one decision, and one chain in the kernel.

use std::collections::BTreeMap;

use crate::{origin::RuleId, region::Region};

/// Traffic by the rule that is behind it; the regions of one such map need not be disjoint unless it is said.
pub(crate) type ByRule = BTreeMap<RuleId, Region>;

/// Which traffic passes, and which is reported, in a normal form: equal decisions are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Decision {
    /// What passes.
    pub(crate) allowed: Region,
    /// The rules that decide, disjoint: what is in none passes because no policy has a say, or is dropped because nothing
    /// is known.
    pub(crate) decided: ByRule,
    /// What Log rules report, whatever becomes of it.
    pub(crate) logged: ByRule,
    /// What Pass rules hand over to the next tier.
    pub(crate) passed: ByRule,
    /// What rules of staged policies match.
    pub(crate) staged: ByRule,
    /// What passes and would not if staged policies were in force, by what would deny it.
    pub(crate) staged_denied: ByRule,
    /// What is dropped and would pass if staged policies were in force, by what would let it.
    pub(crate) staged_allowed: ByRule,
}

impl Decision {
    /// Nothing passes, and no policy is behind it.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// What is told of packets beside the verdict.
    pub(crate) fn notes(&self) -> [&ByRule; 5] {
        [
            &self.logged,
            &self.passed,
            &self.staged,
            &self.staged_denied,
            &self.staged_allowed,
        ]
    }

    /// Whether everything passes, or nothing, and the one rule that has it so, when that is all there is to say.
    pub(crate) fn simple(&self) -> Option<(bool, Option<RuleId>)> {
        let passes = self.allowed.is_everything();
        let is_one_way = passes || self.allowed.is_nothing();
        if !is_one_way || self.notes().iter().any(|notes| !notes.is_empty()) {
            return None;
        }
        let mut decided = self.decided.iter();
        match (decided.next(), decided.next()) {
            (None, _) => Some((passes, None)),
            (Some((rule, region)), None) if region.is_everything() => Some((passes, Some(*rule))),
            _ => None,
        }
    }

    /// What holds when either may be the case: no more passes than with each, and what either tells is told.
    #[must_use]
    pub(crate) fn and(&self, other: &Self) -> Self {
        let allowed = self.allowed.and(&other.allowed);
        let only_other_denies = self.allowed.without(&other.allowed);
        let mut decided = ByRule::new();
        // Of what passes, and of what this one drops, this one's rules are told; of the rest, the other's.
        add_all(&mut decided, &self.decided, |region| {
            region.without(&only_other_denies)
        });
        add_all(&mut decided, &other.decided, |region| {
            region.and(&only_other_denies)
        });
        let both = |one: &ByRule, other: &ByRule| {
            let mut both = one.clone();
            add_all(&mut both, other, Region::clone);
            both
        };
        Self {
            allowed,
            decided,
            logged: both(&self.logged, &other.logged),
            passed: both(&self.passed, &other.passed),
            staged: both(&self.staged, &other.staged),
            staged_denied: both(&self.staged_denied, &other.staged_denied),
            staged_allowed: both(&self.staged_allowed, &other.staged_allowed),
        }
    }
}

/// Adds traffic to a rule's.
pub(crate) fn add(map: &mut ByRule, rule: RuleId, region: Region) {
    if region.is_nothing() {
        return;
    }
    map.entry(rule)
        .and_modify(|known| *known = known.or(&region))
        .or_insert(region);
}

fn add_all(map: &mut ByRule, from: &ByRule, part: impl Fn(&Region) -> Region) {
    for (rule, region) in from {
        add(map, *rule, part(region));
    }
}

/// The parts of what each rule is behind that lie in the region.
pub(crate) fn within(map: &ByRule, region: &Region) -> ByRule {
    let mut parts = ByRule::new();
    add_all(&mut parts, map, |one| one.and(region));
    parts
}

//! What has changed in a cluster since it was last asked, and the copies that its objects share.
//!
//! Whoever keeps something up to date with a cluster needs to know which objects to look at again, not what happened to
//! them in between. Neither the list nor the shared copies are part of what a cluster says: two clusters of the same
//! objects are equal.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
};

use super::{Namespaces, ObjectKey, Peer, Pod, Policy, PolicyRef};
use crate::selector::{Labels, Selector};

/// Objects that have come, changed or gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Pods, as they were before; `None` for new ones.
    pub(crate) pods: BTreeMap<ObjectKey, Option<Box<Pod>>>,
    pub(crate) namespaces: BTreeSet<String>,
    pub(crate) policies: BTreeSet<PolicyRef>,
    pub(crate) service_accounts: BTreeSet<ObjectKey>,
    pub(crate) services: BTreeSet<ObjectKey>,
    pub(crate) tiers: bool,
    pub(crate) network_sets: bool,
}

/// A list of changes, if somebody wants it.
#[derive(Default)]
pub(super) struct Journal(Option<Box<Changes>>);

impl Journal {
    /// What has been listed; from now on there is a list.
    pub(super) fn take(&mut self) -> Option<Changes> {
        self.0.replace(Box::default()).map(|changes| *changes)
    }

    pub(super) fn note(&mut self, note: impl FnOnce(&mut Changes)) {
        if let Some(changes) = &mut self.0 {
            note(changes);
        }
    }

    pub(super) fn pod(&mut self, key: &ObjectKey, before: Option<Box<Pod>>) {
        self.note(|changes| {
            changes.pods.entry(key.clone()).or_insert(before);
        });
    }
}

/// A copy of a cluster begins without a reader.
impl Clone for Journal {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl PartialEq for Journal {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Journal {}

/// Labels and selectors of which there is one copy, however many objects have them.
#[derive(Clone, Default)]
pub(super) struct Pool {
    labels: HashSet<Labels>,
    selectors: HashSet<Selector>,
    /// How many may be kept until those that nobody uses any more are looked for.
    limit: usize,
}

/// The least that is worth looking through.
const FLOOR: usize = 1024;

impl Pool {
    pub(super) fn labels(&mut self, labels: Labels) -> Labels {
        if let Some(known) = self.labels.get(&labels) {
            return known.clone();
        }
        self.sweep();
        self.labels.insert(labels.clone());
        labels
    }

    fn selector(&mut self, selector: &mut Selector) {
        match self.selectors.get(selector) {
            Some(known) => *selector = known.clone(),
            None => {
                self.sweep();
                self.selectors.insert(selector.clone());
            }
        }
    }

    pub(super) fn policy(&mut self, policy: &mut Policy) {
        self.selector(&mut policy.subject);
        let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
        for peer in rules.filter_map(|rule| rule.peers.as_mut()).flatten() {
            if let Peer::Pods { namespaces, pods } = peer {
                self.selector(pods);
                if let Namespaces::Matching(selector) = namespaces {
                    self.selector(selector);
                }
            }
        }
    }

    fn sweep(&mut self) {
        if self.labels.len() + self.selectors.len() < self.limit.max(FLOOR) {
            return;
        }
        self.labels.retain(|labels| !labels.is_unshared());
        self.selectors.retain(|selector| !selector.is_unshared());
        self.limit = 2 * (self.labels.len() + self.selectors.len());
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl PartialEq for Pool {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Pool {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_is_let_go() {
        let mut pool = Pool::default();
        let labels = |number: usize| Labels::from([("app".to_owned(), number.to_string())]);
        let kept = pool.labels(labels(0));
        assert!(pool.labels(labels(0)).is_same(&kept));
        for number in 1..10 * FLOOR {
            pool.labels(labels(number));
        }
        assert!(pool.labels.len() <= FLOOR, "{}", pool.labels.len());
        assert!(pool.labels(labels(0)).is_same(&kept));
    }
}

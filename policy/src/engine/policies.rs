//! Policies that have a say about an endpoint here, and the endpoints in groups that the same policies select.
//!
//! Endpoints that no policy could tell apart as subjects (namespace, labels, service account) are one group. A policy that
//! comes, changes or goes is held against the groups of its namespace; a group that comes is held against the policies
//! of its. What no group is selected by is never lowered and asks nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::index::Slab;
use crate::{
    compile::{
        class::PolicyRules,
        select::{Place, Subject, place},
    },
    identity::Terms,
    model::{Cluster, Direction, PolicyKind, PolicyRef},
    selector::Labels,
};

/// A policy's number, while it has a say.
pub(super) type PolicyId = u32;
/// A group's number.
pub(super) type GroupId = u32;

/// A policy that has a say.
#[derive(Debug)]
pub(super) struct InForce {
    pub(super) reference: PolicyRef,
    place: Place,
    /// By direction: how many groups it selects.
    uses: [usize; 2],
    /// By direction: its rules, while it selects a group there.
    pub(super) rules: [Option<PolicyRules>; 2],
    /// By direction: whether a rule names ports or asks about the subject, so that members of a group may differ.
    pub(super) is_particular: [bool; 2],
}

/// Endpoints that policies cannot tell apart.
#[derive(Debug)]
pub(super) struct Group {
    key: GroupKey,
    subject: Subject,
    /// By direction: who has a say, first to last.
    pub(super) policies: [Vec<PolicyId>; 2],
    pub(super) members: BTreeSet<String>,
}

type GroupKey = (String, Labels, String);

/// All groups and all policies that have a say about one.
#[derive(Debug, Default)]
pub(super) struct Policies {
    groups: Slab<Group>,
    keys: HashMap<GroupKey, GroupId>,
    by_namespace: BTreeMap<String, BTreeSet<GroupId>>,
    policies: Slab<InForce>,
    ids: HashMap<PolicyRef, PolicyId>,
    /// Policies that may have nothing to say any more, by number.
    idle: BTreeSet<PolicyId>,
    empty: BTreeSet<GroupId>,
}

impl Policies {
    pub(super) fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(id)
    }

    pub(super) fn policy(&self, id: PolicyId) -> Option<&InForce> {
        self.policies.get(id)
    }

    pub(super) fn id(&self, reference: &PolicyRef) -> Option<PolicyId> {
        self.ids.get(reference).copied()
    }

    // ----- groups -----

    /// The group of an endpoint, which becomes its member.
    pub(super) fn join(
        &mut self,
        cluster: &Cluster,
        (namespace, labels, account): (&str, &Labels, &str),
        interface: &str,
    ) -> GroupId {
        let key = (namespace.to_owned(), labels.clone(), account.to_owned());
        let id = match self.keys.get(&key) {
            Some(id) => *id,
            None => {
                let subject = Subject::new(cluster, namespace, labels, account);
                let id = self.groups.add(Group {
                    key: key.clone(),
                    subject,
                    policies: [Vec::new(), Vec::new()],
                    members: BTreeSet::new(),
                });
                self.keys.insert(key, id);
                let there = self.by_namespace.entry(namespace.to_owned()).or_default();
                there.insert(id);
                self.select(cluster, id);
                id
            }
        };
        self.empty.remove(&id);
        if let Some(group) = self.groups.get_mut(id) {
            group.members.insert(interface.to_owned());
        }
        id
    }

    pub(super) fn leave(&mut self, id: GroupId, interface: &str) {
        if let Some(group) = self.groups.get_mut(id) {
            group.members.remove(interface);
            if group.members.is_empty() {
                self.empty.insert(id);
            }
        }
    }

    /// Finds anew what selects a group.
    fn select(&mut self, cluster: &Cluster, id: GroupId) {
        let Some(group) = self.groups.get(id) else {
            return;
        };
        let mut lists = [Vec::new(), Vec::new()];
        for (place, says) in group.subject.policies(cluster) {
            let policy = self.intern(place);
            for direction in Direction::ALL {
                if says[direction as usize] {
                    lists[direction as usize].push(policy);
                    self.count(policy, direction, true);
                }
            }
        }
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut group.policies, lists);
        for (direction, before) in Direction::ALL.into_iter().zip(before) {
            for policy in before {
                self.count(policy, direction, false);
            }
        }
    }

    fn intern(&mut self, place: Place) -> PolicyId {
        if let Some(id) = self.ids.get(&place.3).copied() {
            if let Some(policy) = self.policies.get_mut(id) {
                policy.place = place;
            }
            return id;
        }
        let reference = place.3.clone();
        let id = self.policies.add(InForce {
            reference: reference.clone(),
            place,
            uses: [0, 0],
            rules: [None, None],
            is_particular: [false, false],
        });
        self.ids.insert(reference, id);
        self.idle.insert(id);
        id
    }

    fn count(&mut self, id: PolicyId, direction: Direction, more: bool) {
        let Some(policy) = self.policies.get_mut(id) else {
            return;
        };
        let uses = &mut policy.uses[direction as usize];
        *uses = if more {
            *uses + 1
        } else {
            uses.saturating_sub(1)
        };
        if *uses < 2 {
            self.idle.insert(id);
        }
    }

    /// The groups whose surroundings have changed (those of a namespace): what selects them is found anew.
    pub(super) fn surroundings_changed(
        &mut self,
        cluster: &Cluster,
        namespace: &str,
        changed: &mut BTreeSet<GroupId>,
    ) {
        let there = self.by_namespace.get(namespace).cloned();
        for id in there.into_iter().flatten() {
            if let Some(group) = self.groups.get_mut(id) {
                let (namespace, labels, account) = &group.key;
                group.subject = Subject::new(cluster, namespace, labels, account);
            }
            self.select(cluster, id);
            changed.insert(id);
        }
    }

    /// Finds anew what selects every group: the order of tiers has changed.
    pub(super) fn tiers_changed(&mut self, cluster: &Cluster, changed: &mut BTreeSet<GroupId>) {
        let all: Vec<GroupId> = self.groups.iter().map(|(id, _)| id).collect();
        for id in all {
            self.select(cluster, id);
            changed.insert(id);
        }
    }

    /// The groups about which one of these policies has a say.
    pub(super) fn selected_by(&self, ids: &BTreeSet<PolicyId>) -> Vec<GroupId> {
        if ids.is_empty() {
            return Vec::new();
        }
        let is_selected = |group: &Group| {
            let lists = group.policies.iter();
            let mut found = lists.flat_map(|list| ids.iter().map(|id| self.find(list, *id)));
            found.any(|found| found.is_ok())
        };
        let groups = self.groups.iter();
        groups
            .filter(|(_, group)| is_selected(group))
            .map(|(id, _)| id)
            .collect()
    }

    // ----- policies -----

    /// A policy has come, changed or gone. The groups that it selects now or did before are among `changed` where that
    /// makes a difference to the list of who has a say.
    pub(super) fn policy_changed(
        &mut self,
        cluster: &Cluster,
        reference: &PolicyRef,
        changed: &mut BTreeSet<GroupId>,
    ) {
        let now = place(cluster, reference);
        let known = self.ids.get(reference).copied();
        let groups: Vec<GroupId> = match reference.kind {
            PolicyKind::NetworkPolicy | PolicyKind::OwnNetworkPolicy => {
                let there = self.by_namespace.get(&reference.namespace);
                there.into_iter().flatten().copied().collect()
            }
            PolicyKind::ClusterNetworkPolicy | PolicyKind::GlobalNetworkPolicy => {
                self.groups.iter().map(|(id, _)| id).collect()
            }
        };
        let moved = match (&now, known.and_then(|id| self.policies.get(id))) {
            (Some(now), Some(policy)) => *now != policy.place,
            _ => false,
        };
        let selecting: Vec<(GroupId, Direction, bool)> = groups
            .iter()
            .filter_map(|id| Some((*id, self.groups.get(*id)?)))
            .flat_map(|(id, group)| {
                let selects = |direction| group.subject.is_selected(cluster, reference, direction);
                Direction::ALL.map(|direction| (id, direction, selects(direction)))
            })
            .collect();
        let is_wanted = selecting.iter().any(|(.., selects)| *selects);
        let id = match (known, now) {
            (Some(id), Some(now)) => {
                // Out of the old places first, while the lists are in their order.
                if moved {
                    for (group, direction, _) in &selecting {
                        self.exclude(*group, *direction, id, changed);
                    }
                }
                if let Some(policy) = self.policies.get_mut(id) {
                    policy.place = now;
                }
                id
            }
            (Some(id), None) => id,
            (None, Some(now)) if is_wanted => self.intern(now),
            (None, _) => return,
        };
        for (group, direction, selects) in selecting {
            match selects {
                true => self.include(group, direction, id, changed),
                false => self.exclude(group, direction, id, changed),
            }
        }
    }

    fn find(&self, list: &[PolicyId], id: PolicyId) -> Result<usize, usize> {
        let place = self.policies.get(id).map(|policy| &policy.place);
        list.binary_search_by(|other| {
            let other = self.policies.get(*other).map(|policy| &policy.place);
            other.cmp(&place)
        })
    }

    /// Where a policy is among those of a group, or would be.
    fn place_in(
        &self,
        group: GroupId,
        direction: Direction,
        id: PolicyId,
    ) -> Option<Result<usize, usize>> {
        let group = self.groups.get(group)?;
        Some(self.find(&group.policies[direction as usize], id))
    }

    fn include(
        &mut self,
        group: GroupId,
        direction: Direction,
        id: PolicyId,
        changed: &mut BTreeSet<GroupId>,
    ) {
        let Some(Err(at)) = self.place_in(group, direction, id) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(group) {
            group.policies[direction as usize].insert(at, id);
        }
        self.count(id, direction, true);
        changed.insert(group);
    }

    fn exclude(
        &mut self,
        group: GroupId,
        direction: Direction,
        id: PolicyId,
        changed: &mut BTreeSet<GroupId>,
    ) {
        let Some(Ok(at)) = self.place_in(group, direction, id) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(group) {
            group.policies[direction as usize].remove(at);
        }
        self.count(id, direction, false);
        changed.insert(group);
    }

    /// Puts the questions of policies in force that have come to have a say, and lets those go that have none any more;
    /// those in `edited` are read anew.
    pub(super) fn settle(
        &mut self,
        cluster: &Cluster,
        terms: &mut Terms,
        edited: &BTreeSet<PolicyId>,
    ) {
        let empty = std::mem::take(&mut self.empty);
        for id in empty {
            let Some(group) = self.groups.remove(id) else {
                continue;
            };
            for direction in Direction::ALL {
                for policy in &group.policies[direction as usize] {
                    self.count(*policy, direction, false);
                }
            }
            if let Some(there) = self.by_namespace.get_mut(&group.key.0) {
                there.remove(&id);
                if there.is_empty() {
                    self.by_namespace.remove(&group.key.0);
                }
            }
            self.keys.remove(&group.key);
        }
        let mut idle = std::mem::take(&mut self.idle);
        idle.extend(edited);
        for id in idle {
            let Some(policy) = self.policies.get_mut(id) else {
                continue;
            };
            for direction in Direction::ALL {
                let at = direction as usize;
                let is_wanted = policy.uses[at] > 0;
                let is_read = policy.rules[at].is_some() && !edited.contains(&id);
                if is_wanted == is_read && (is_wanted || policy.rules[at].is_none()) {
                    continue;
                }
                let old = policy.rules[at].take();
                if is_wanted {
                    let rules = PolicyRules::new(cluster, &policy.reference, direction, terms);
                    policy.is_particular[at] = rules.rules.iter().any(|rule| {
                        !rule.subject.is_empty()
                            || direction == Direction::Ingress && !rule.names().is_empty()
                    });
                    policy.rules[at] = Some(rules);
                }
                if let Some(old) = old {
                    old.release(terms);
                }
            }
            if policy.uses == [0, 0] {
                let policy = self.policies.remove(id);
                policy.map(|policy| self.ids.remove(&policy.reference));
            }
        }
    }
}

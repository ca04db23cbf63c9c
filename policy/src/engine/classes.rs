//! Classes and decisions that are in the table, each as long as somebody uses it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    book::Book,
    draft::Draft,
    index::Slab,
    policies::{Policies, PolicyId},
};
use crate::{
    compile::{
        class::{self, ClassKey},
        emit,
        flat::{Flat, OwnPorts},
        ports,
    },
    decision::Decision,
    identity::{Identity, TermId, Terms},
    model::{Cluster, Direction},
    numbering,
    ruleset::{Family, Key, KeyType, Name, Value, ValueType, Verdict},
};

/// A class's number.
pub(super) type ClassId = u32;
type DecisionId = u32;

/// What makes two endpoints members of one class, with policies by their numbers here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Membership {
    Closed,
    Isolated {
        direction: Direction,
        policies: Vec<PolicyId>,
        own_ports: OwnPorts,
        subject: BTreeSet<(PolicyId, usize, Family)>,
    },
}

#[derive(Debug)]
struct Class {
    key: ClassKey,
    membership: Membership,
    number: u32,
    name: Name,
    /// None for what is closed.
    flat: Option<Flat>,
    default: DecisionId,
    by_identity: BTreeMap<u32, DecisionId>,
    members: usize,
}

#[derive(Debug)]
struct Decided {
    direction: Direction,
    decision: Arc<Decision>,
    verdict: Verdict,
    /// Its own chain, if it has one, with its number.
    chain: Option<(u32, Name)>,
    /// The chains of rules that it leads to.
    rules: Vec<Name>,
    uses: usize,
}

/// All classes and decisions.
#[derive(Debug, Default)]
pub(super) struct Classes {
    classes: Slab<Class>,
    ids: HashMap<Membership, ClassId>,
    numbers: BTreeSet<u32>,
    by_term: HashMap<TermId, BTreeSet<ClassId>>,
    by_policy: HashMap<PolicyId, BTreeSet<ClassId>>,
    unused: BTreeSet<ClassId>,
    decided: Slab<Decided>,
    /// By direction: what lets pass leads on to what follows there.
    decisions: [HashMap<Arc<Decision>, DecisionId>; 2],
    decision_numbers: BTreeSet<u32>,
    unused_decisions: BTreeSet<DecisionId>,
    /// The chains of rules, by how many decisions lead to them.
    rule_chains: HashMap<Name, usize>,
}

/// Decisions by the copy, which is held meanwhile.
type Copies = HashMap<*const Decision, (Arc<Decision>, DecisionId)>;

/// What classes are made of.
pub(super) struct Around<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) terms: &'a Terms,
    pub(super) policies: &'a Policies,
    pub(super) book: &'a Book,
}

impl Classes {
    /// The chain of a class.
    pub(super) fn name(&self, id: ClassId) -> Option<&Name> {
        self.classes.get(id).map(|class| &class.name)
    }

    /// The class of an endpoint, for one member more.
    pub(super) fn join(
        &mut self,
        membership: Membership,
        around: &Around<'_>,
        draft: &mut Draft,
    ) -> ClassId {
        if let Some(id) = self.ids.get(&membership).copied() {
            if let Some(class) = self.classes.get_mut(id) {
                class.members += 1;
            }
            self.unused.remove(&id);
            return id;
        }
        let key = class_key(&membership, around.policies);
        let number = numbering::free(&key, |number| self.numbers.contains(&number));
        self.numbers.insert(number);
        let name = emit::class_name(&key, number);
        let nothing = Arc::new(Decision::nothing());
        let default = self.acquire(key.direction(), &nothing, draft);
        let id = self.classes.add(Class {
            key,
            membership: membership.clone(),
            number,
            name,
            flat: None,
            default,
            by_identity: BTreeMap::new(),
            members: 1,
        });
        if let Membership::Isolated { policies, .. } = &membership {
            for policy in policies {
                self.by_policy.entry(*policy).or_default().insert(id);
            }
        }
        self.ids.insert(membership, id);
        self.flatten(id, around, draft);
        id
    }

    pub(super) fn leave(&mut self, id: ClassId) {
        if let Some(class) = self.classes.get_mut(id) {
            class.members = class.members.saturating_sub(1);
            if class.members == 0 {
                self.unused.insert(id);
            }
        }
    }

    /// The classes about which this policy has a say.
    pub(super) fn of_policy(&self, policy: PolicyId) -> impl Iterator<Item = ClassId> {
        self.by_policy.get(&policy).into_iter().flatten().copied()
    }

    /// Every class.
    pub(super) fn all(&self) -> Vec<ClassId> {
        self.classes.iter().map(|(id, _)| id).collect()
    }

    /// Lets the classes go that have no member any more.
    pub(super) fn sweep(&mut self, draft: &mut Draft) {
        for id in std::mem::take(&mut self.unused) {
            let Some(class) = self.classes.remove(id) else {
                continue;
            };
            self.numbers.remove(&class.number);
            draft.set_chain(&class.name, None);
            draft.drop_map(&class.name);
            if let Membership::Isolated { policies, .. } = &class.membership {
                for policy in policies {
                    remove_from(&mut self.by_policy, policy, id);
                }
            }
            for term in class.flat.iter().flat_map(Flat::terms) {
                remove_from(&mut self.by_term, term, id);
            }
            self.ids.remove(&class.membership);
            for decision in class.by_identity.into_values().chain([class.default]) {
                self.release(decision);
            }
        }
        self.sweep_decisions(draft);
    }

    /// Flattens a class's policies anew: they have changed, or the class is new.
    pub(super) fn flatten(&mut self, id: ClassId, around: &Around<'_>, draft: &mut Draft) {
        let Some(class) = self.classes.get_mut(id) else {
            return;
        };
        for term in class.flat.iter().flat_map(Flat::terms) {
            remove_from(&mut self.by_term, term, id);
        }
        class.flat = class::flat(
            around.cluster,
            around.terms,
            &class.key,
            |policy, direction| {
                let policy = around.policies.id(policy);
                let policy = policy.and_then(|id| around.policies.policy(id));
                let rules = policy.and_then(|policy| policy.rules[direction as usize].as_ref());
                rules.map_or(&[], |rules| rules.rules.as_slice())
            },
        );
        let direction = class.key.direction();
        let Some(flat) = &mut class.flat else {
            self.write(id, draft);
            return;
        };
        let default = flat.decide(&Identity::nothing(), around.terms);
        let mut concerned: BTreeSet<u32> = class.by_identity.keys().copied().collect();
        for term in flat.terms() {
            self.by_term.entry(*term).or_default().insert(id);
            concerned.extend(around.book.answering(*term));
        }
        let default = self.acquire(direction, &default, draft);
        if let Some(class) = self.classes.get_mut(id) {
            let before = std::mem::replace(&mut class.default, default);
            self.release(before);
        }
        // Most identities get one of a few decisions, each of them one copy for as long as this lasts.
        let mut copies = Copies::new();
        for number in concerned {
            self.decide(id, number, around, draft, &mut copies);
        }
        self.write(id, draft);
    }

    /// Decides about an identity that has come. The classes that ask about it know its number afterwards.
    pub(super) fn identity_came(&mut self, number: u32, around: &Around<'_>, draft: &mut Draft) {
        for id in self.asking_about(around.book.identity(number).map(|one| &**one)) {
            if self.decide(id, number, around, draft, &mut Copies::new()) {
                self.write(id, draft);
            }
        }
    }

    /// Forgets an identity that has gone.
    pub(super) fn identity_went(&mut self, number: u32, identity: &Identity, draft: &mut Draft) {
        for id in self.asking_about(Some(identity)) {
            let Some(class) = self.classes.get_mut(id) else {
                continue;
            };
            let Some(decision) = class.by_identity.remove(&number) else {
                continue;
            };
            let is_last = class.by_identity.is_empty();
            draft.cut(&class.name, &Key::Identity(number));
            self.release(decision);
            if is_last {
                self.write(id, draft);
            }
        }
    }

    fn asking_about(&self, identity: Option<&Identity>) -> BTreeSet<ClassId> {
        let facts = identity
            .into_iter()
            .flat_map(Identity::alternatives)
            .flatten();
        let classes = facts.filter_map(|fact| self.by_term.get(&fact.term()));
        classes.flatten().copied().collect()
    }

    /// Whether the class has come to list its first identity, or lists none any more.
    fn decide(
        &mut self,
        id: ClassId,
        number: u32,
        around: &Around<'_>,
        draft: &mut Draft,
        copies: &mut Copies,
    ) -> bool {
        let Some(class) = self.classes.get_mut(id) else {
            return false;
        };
        let direction = class.key.direction();
        let decision = match (&mut class.flat, around.book.identity(number)) {
            (Some(flat), Some(identity)) => Some(flat.decide(identity, around.terms)),
            _ => None,
        };
        let decision = decision.map(|decision| {
            let copy = Arc::as_ptr(&decision);
            if let Some((_, id)) = copies.get(&copy)
                && let Some(decided) = self.decided.get_mut(*id)
            {
                decided.uses += 1;
                self.unused_decisions.remove(id);
                return *id;
            }
            let id = self.acquire(direction, &decision, draft);
            copies.insert(copy, (decision, id));
            id
        });
        let Some(class) = self.classes.get_mut(id) else {
            return false;
        };
        let were_none = class.by_identity.is_empty();
        let before = match decision.filter(|decision| *decision != class.default) {
            Some(decision) => {
                if let Some(decided) = self.decided.get(decision) {
                    draft.add_map(&class.name, KeyType::Identity, ValueType::Verdict);
                    let value = Value::from(decided.verdict.clone());
                    draft.put(&class.name, Key::Identity(number), value);
                }
                class.by_identity.insert(number, decision)
            }
            None => {
                draft.cut(&class.name, &Key::Identity(number));
                let before = class.by_identity.remove(&number);
                if let Some(decision) = decision {
                    self.release(decision);
                }
                before
            }
        };
        let are_none = self
            .classes
            .get(id)
            .is_some_and(|class| class.by_identity.is_empty());
        if let Some(before) = before {
            self.release(before);
        }
        were_none != are_none
    }

    /// Writes a class's chain, and its map when there is none or nothing in it any more.
    fn write(&mut self, id: ClassId, draft: &mut Draft) {
        let Some(class) = self.classes.get(id) else {
            return;
        };
        let Some(default) = self.decided.get(class.default) else {
            return;
        };
        let lists = !class.by_identity.is_empty();
        let verdict = default.verdict.clone();
        let chain = emit::class_chain(&class.key, &class.name, lists, verdict);
        draft.set_chain(&class.name, Some(chain));
        if !lists {
            draft.drop_map(&class.name);
        }
    }

    // ----- decisions -----

    fn acquire(
        &mut self,
        direction: Direction,
        decision: &Arc<Decision>,
        draft: &mut Draft,
    ) -> DecisionId {
        let known = &self.decisions[direction as usize];
        if let Some(id) = known.get(decision).copied() {
            if let Some(decided) = self.decided.get_mut(id) {
                decided.uses += 1;
            }
            self.unused_decisions.remove(&id);
            return id;
        }
        let mut chains = ports::Chains::new();
        let (verdict, chain) = match decision.simple() {
            Some((passes, rule)) => {
                let verdict = ports::verdict(passes, rule, direction, &mut chains);
                (verdict, None)
            }
            None => {
                let taken = |number| self.decision_numbers.contains(&number);
                let number = numbering::free(&(direction, &**decision), taken);
                self.decision_numbers.insert(number);
                let name = emit::decision_name(number);
                let chain = ports::chain(decision, direction, &mut chains);
                draft.set_chain(&name, Some(chain));
                (Verdict::Goto(name.clone()), Some((number, name)))
            }
        };
        let rules: Vec<Name> = chains.keys().cloned().collect();
        for (name, chain) in chains {
            let uses = self.rule_chains.entry(name.clone()).or_default();
            *uses += 1;
            if *uses == 1 {
                draft.set_chain(&name, Some(chain));
            }
        }
        let id = self.decided.add(Decided {
            direction,
            decision: Arc::clone(decision),
            verdict,
            chain,
            rules,
            uses: 1,
        });
        self.decisions[direction as usize].insert(Arc::clone(decision), id);
        id
    }

    fn release(&mut self, id: DecisionId) {
        if let Some(decided) = self.decided.get_mut(id) {
            decided.uses = decided.uses.saturating_sub(1);
            if decided.uses == 0 {
                self.unused_decisions.insert(id);
            }
        }
    }

    fn sweep_decisions(&mut self, draft: &mut Draft) {
        for id in std::mem::take(&mut self.unused_decisions) {
            let Some(decided) = self.decided.remove(id) else {
                continue;
            };
            self.decisions[decided.direction as usize].remove(&decided.decision);
            if let Some((number, name)) = &decided.chain {
                self.decision_numbers.remove(number);
                draft.set_chain(name, None);
            }
            for name in decided.rules {
                let Some(uses) = self.rule_chains.get_mut(&name) else {
                    continue;
                };
                *uses = uses.saturating_sub(1);
                if *uses == 0 {
                    self.rule_chains.remove(&name);
                    draft.set_chain(&name, None);
                }
            }
        }
    }
}

fn class_key(membership: &Membership, policies: &Policies) -> ClassKey {
    let Membership::Isolated {
        direction,
        policies: ids,
        own_ports,
        subject,
    } = membership
    else {
        return ClassKey::Closed;
    };
    let reference = |id: &PolicyId| policies.policy(*id).map(|policy| policy.reference.clone());
    let facts = subject
        .iter()
        .filter_map(|(id, rule, family)| Some((reference(id)?, *rule, *family)));
    ClassKey::Isolated {
        direction: *direction,
        policies: ids.iter().filter_map(reference).collect(),
        own_ports: own_ports.clone(),
        subject: facts.collect(),
    }
}

fn remove_from<K: std::hash::Hash + Eq + Copy>(
    index: &mut HashMap<K, BTreeSet<ClassId>>,
    key: &K,
    id: ClassId,
) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

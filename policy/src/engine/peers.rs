//! Who may be a peer: pods by what selectors can tell of them, and the answers that the questions in force get.
//!
//! Pods that no selector could tell apart share one *profile*: namespace, labels, service account, named ports. A profile
//! is asked once, however many pods have it. A question that comes into force finds its profiles by label or namespace; a
//! profile that comes finds its questions the same way.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use margay_crds::selector::NAMESPACE_KEY;

use super::index::{Anchor, Asking, ByLabel, Slab, anchors};
use crate::{
    identity::{Fact, Facts, NamespaceScope, Term, TermId, Terms},
    model::{
        Cluster, NAMESPACE_PREFIX, NamedPort, ORCHESTRATOR_KEY, ObjectKey, SERVICE_ACCOUNT_KEY,
        SERVICE_ACCOUNT_PREFIX,
    },
    port::Protocol,
    selector::{Labels, Selector},
};

/// A profile's number.
pub(super) type ProfileId = u32;

/// What selectors can tell of a pod.
#[derive(Debug)]
pub(super) struct Profile {
    namespace: u32,
    labels: Labels,
    service_account: Arc<str>,
    ports: Vec<NamedPort>,
    /// How many claims on addresses are made with it.
    uses: usize,
    /// The answers that are yes.
    pub(super) facts: Facts,
}

/// What tells profiles apart. Labels of objects are shared copies: the copy tells enough.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ProfileKey {
    namespace: u32,
    labels: usize,
    service_account: Arc<str>,
    ports: Vec<NamedPort>,
}

/// A namespace with profiles.
#[derive(Debug)]
struct Space {
    name: String,
    labels: Labels,
    profiles: BTreeSet<ProfileId>,
    /// The scopes its labels match, and the state of the scopes for which that holds.
    scopes: Vec<u32>,
    scopes_at: u64,
}

/// The questions about pods of namespaces by label.
#[derive(Debug)]
struct Scope {
    namespaces: Selector,
    asking: Asking,
}

/// All profiles and all questions.
#[derive(Debug, Default)]
pub(super) struct Peers {
    profiles: Slab<Profile>,
    keys: HashMap<ProfileKey, ProfileId>,
    spaces: Slab<Space>,
    names: HashMap<String, u32>,
    spaces_by_label: ByLabel,
    by_label: ByLabel,
    by_port: BTreeMap<(Protocol, String), BTreeSet<ProfileId>>,
    /// Questions about the pods of one namespace.
    named: HashMap<String, Asking>,
    scopes: Slab<Scope>,
    scope_ids: HashMap<Selector, u32>,
    /// Changes when a scope comes or goes.
    scopes_at: u64,
    workloads: Asking,
    /// The names of service accounts, of which there are few.
    accounts: HashSet<Arc<str>>,
    /// Profiles that nobody uses any more.
    unused: BTreeSet<ProfileId>,
}

impl Peers {
    pub(super) fn facts(&self, id: ProfileId) -> Option<&Facts> {
        self.profiles.get(id).map(|profile| &profile.facts)
    }

    // ----- profiles -----

    /// The profile of a pod, for one claim more.
    pub(super) fn acquire(
        &mut self,
        cluster: &Cluster,
        terms: &Terms,
        namespace: &str,
        (labels, service_account, ports): (&Labels, &str, &[NamedPort]),
    ) -> ProfileId {
        let space = self.space(cluster, namespace);
        let service_account = match self.accounts.get(service_account) {
            Some(known) => Arc::clone(known),
            None => {
                let name: Arc<str> = service_account.into();
                self.accounts.insert(Arc::clone(&name));
                name
            }
        };
        let key = ProfileKey {
            namespace: space,
            labels: labels.address(),
            service_account,
            ports: ports.to_vec(),
        };
        if let Some(id) = self.keys.get(&key).copied() {
            if let Some(profile) = self.profiles.get_mut(id) {
                profile.uses += 1;
            }
            self.unused.remove(&id);
            return id;
        }
        let id = self.profiles.add(Profile {
            namespace: space,
            labels: labels.clone(),
            service_account: Arc::clone(&key.service_account),
            ports: key.ports.clone(),
            uses: 1,
            facts: Facts::new(),
        });
        self.keys.insert(key, id);
        self.by_label.add(labels, id);
        for port in ports {
            let at = (port.protocol, port.name.clone());
            self.by_port.entry(at).or_default().insert(id);
        }
        if let Some(space) = self.spaces.get_mut(space) {
            space.profiles.insert(id);
        }
        self.ask_again(cluster, terms, id);
        id
    }

    /// The profile that [`Self::acquire`] gave for the same pod.
    pub(super) fn find(
        &self,
        namespace: &str,
        (labels, service_account, ports): (&Labels, &str, &[NamedPort]),
    ) -> Option<ProfileId> {
        let key = ProfileKey {
            namespace: *self.names.get(namespace)?,
            labels: labels.address(),
            service_account: Arc::clone(self.accounts.get(service_account)?),
            ports: ports.to_vec(),
        };
        self.keys.get(&key).copied()
    }

    /// For one claim less.
    pub(super) fn release(&mut self, id: ProfileId) {
        if let Some(profile) = self.profiles.get_mut(id) {
            profile.uses = profile.uses.saturating_sub(1);
            if profile.uses == 0 {
                self.unused.insert(id);
            }
        }
    }

    /// Lets go what nobody uses any more.
    pub(super) fn sweep(&mut self) {
        if self.accounts.len() > 1024 && self.accounts.len() > 2 * self.keys.len() {
            self.accounts.retain(|name| Arc::strong_count(name) > 1);
        }
        for id in std::mem::take(&mut self.unused) {
            let Some(profile) = self.profiles.remove(id) else {
                continue;
            };
            self.keys.remove(&ProfileKey {
                namespace: profile.namespace,
                labels: profile.labels.address(),
                service_account: profile.service_account,
                ports: profile.ports.clone(),
            });
            self.by_label.remove(&profile.labels, id);
            for port in profile.ports {
                let at = (port.protocol, port.name);
                if let Some(ids) = self.by_port.get_mut(&at) {
                    ids.remove(&id);
                    if ids.is_empty() {
                        self.by_port.remove(&at);
                    }
                }
            }
            let Some(space) = self.spaces.get_mut(profile.namespace) else {
                continue;
            };
            space.profiles.remove(&id);
            if space.profiles.is_empty()
                && let Some(space) = self.spaces.remove(profile.namespace)
            {
                self.names.remove(&space.name);
                self.spaces_by_label
                    .remove(&space.labels, profile.namespace);
            }
        }
    }

    fn space(&mut self, cluster: &Cluster, name: &str) -> u32 {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let labels = cluster.namespace_labels(name);
        let id = self.spaces.add(Space {
            name: name.to_owned(),
            labels: labels.clone(),
            profiles: BTreeSet::new(),
            scopes: Vec::new(),
            scopes_at: u64::MAX,
        });
        self.spaces_by_label.add(&labels, id);
        self.names.insert(name.to_owned(), id);
        id
    }

    // ----- questions -----

    /// The labels that selectors of ours see.
    fn all_labels(&self, cluster: &Cluster, profile: &Profile) -> Labels {
        let name = self.spaces.get(profile.namespace).map(|space| &*space.name);
        let (name, account) = (name.unwrap_or_default(), &*profile.service_account);
        let labels = cluster.workload_labels(name, &profile.labels, account);
        cluster.with_surroundings(labels, name, Some(account))
    }

    fn matches(&self, cluster: &Cluster, term: &Term, profile: &Profile) -> bool {
        let Some(space) = self.spaces.get(profile.namespace) else {
            return false;
        };
        match term {
            Term::Pods(NamespaceScope::Named(name), pods) => {
                *name == space.name && pods.matches(&profile.labels)
            }
            Term::Pods(NamespaceScope::Matching(namespaces), pods) => {
                pods.matches(&profile.labels) && namespaces.matches(&space.labels)
            }
            Term::Workloads(selector) => selector.matches(&self.all_labels(cluster, profile)),
            Term::Service(_) | Term::Block(_) | Term::Port(..) => false,
        }
    }

    /// Asks a profile every question there may be an answer to. Whether the answers have changed.
    fn ask_again(&mut self, cluster: &Cluster, terms: &Terms, id: ProfileId) -> bool {
        let Some(space) = self.profiles.get(id).map(|profile| profile.namespace) else {
            return false;
        };
        self.refresh_scopes(space);
        let (Some(profile), Some(space)) = (self.profiles.get(id), self.spaces.get(space)) else {
            return false;
        };
        let mut facts = Facts::new();
        let scopes = space.scopes.iter().filter_map(|id| self.scopes.get(*id));
        let asking = self.named.get(&space.name).into_iter();
        for asking in asking.chain(scopes.map(|scope| &scope.asking)) {
            let candidates = asking.find(&profile.labels);
            let matching = candidates.filter(|id| match terms.get(*id).map(|term| &**term) {
                Some(Term::Pods(_, pods)) => pods.matches(&profile.labels),
                _ => false,
            });
            facts.extend(matching.map(Fact::Matches));
        }
        if !self.workloads.is_empty() {
            let labels = self.all_labels(cluster, profile);
            let candidates = self.workloads.find(&labels);
            let matching = candidates.filter(|id| match terms.get(*id).map(|term| &**term) {
                Some(Term::Workloads(selector)) => selector.matches(&labels),
                _ => false,
            });
            facts.extend(matching.map(Fact::Matches));
        }
        for port in &profile.ports {
            let term = Term::Port(port.protocol, port.name.clone());
            facts.extend(terms.id(&term).map(|id| Fact::Port(id, port.number)));
        }
        match self.profiles.get_mut(id) {
            Some(profile) if profile.facts != facts => {
                profile.facts = facts;
                true
            }
            _ => false,
        }
    }

    fn refresh_scopes(&mut self, id: u32) {
        let at = self.scopes_at;
        let Some(space) = self.spaces.get_mut(id) else {
            return;
        };
        if space.scopes_at == at {
            return;
        }
        let scopes = self.scopes.iter();
        let matching = scopes.filter(|(_, scope)| scope.namespaces.matches(&space.labels));
        space.scopes = matching.map(|(id, _)| id).collect();
        space.scopes_at = at;
    }

    /// Takes in a question. The profiles that answer it with yes are among `changed`.
    pub(super) fn ask(
        &mut self,
        cluster: &Cluster,
        id: TermId,
        term: &Term,
        changed: &mut BTreeSet<ProfileId>,
    ) {
        match term {
            Term::Pods(NamespaceScope::Named(name), pods) => {
                let asking = self.named.entry(name.clone()).or_default();
                asking.add(anchors(pods), id);
            }
            Term::Pods(NamespaceScope::Matching(namespaces), pods) => {
                let scope = match self.scope_ids.get(namespaces) {
                    Some(scope) => *scope,
                    None => {
                        let scope = self.scopes.add(Scope {
                            namespaces: namespaces.clone(),
                            asking: Asking::default(),
                        });
                        self.scope_ids.insert(namespaces.clone(), scope);
                        self.scopes_at = self.scopes_at.wrapping_add(1);
                        scope
                    }
                };
                if let Some(scope) = self.scopes.get_mut(scope) {
                    scope.asking.add(anchors(pods), id);
                }
            }
            Term::Workloads(selector) => self.workloads.add(own_anchors(selector), id),
            Term::Port(protocol, name) => {
                let declaring = self.by_port.get(&(*protocol, name.clone()));
                for profile_id in declaring.into_iter().flatten() {
                    let Some(profile) = self.profiles.get_mut(*profile_id) else {
                        continue;
                    };
                    let ports = profile.ports.iter();
                    let numbers =
                        ports.filter(|port| port.protocol == *protocol && port.name == *name);
                    let facts: Vec<Fact> =
                        numbers.map(|port| Fact::Port(id, port.number)).collect();
                    profile.facts.extend(facts);
                    changed.insert(*profile_id);
                }
                return;
            }
            Term::Service(_) | Term::Block(_) => return,
        }
        for profile_id in self.candidates(term) {
            let matches = self
                .profiles
                .get(profile_id)
                .is_some_and(|profile| self.matches(cluster, term, profile));
            if matches && let Some(profile) = self.profiles.get_mut(profile_id) {
                profile.facts.insert(Fact::Matches(id));
                changed.insert(profile_id);
            }
        }
    }

    /// Lets a question go. The profiles that answered it with yes are among `changed`.
    pub(super) fn ask_no_more(
        &mut self,
        id: TermId,
        term: &Term,
        changed: &mut BTreeSet<ProfileId>,
    ) {
        match term {
            Term::Pods(NamespaceScope::Named(name), pods) => {
                if let Some(asking) = self.named.get_mut(name) {
                    asking.remove(anchors(pods), id);
                    if asking.is_empty() {
                        self.named.remove(name);
                    }
                }
            }
            Term::Pods(NamespaceScope::Matching(namespaces), pods) => {
                let scope_id = self.scope_ids.get(namespaces).copied();
                let scope = scope_id.and_then(|scope| self.scopes.get_mut(scope));
                if let Some(scope) = scope {
                    scope.asking.remove(anchors(pods), id);
                    if scope.asking.is_empty() {
                        scope_id.map(|id| self.scopes.remove(id));
                        self.scope_ids.remove(namespaces);
                        self.scopes_at = self.scopes_at.wrapping_add(1);
                    }
                }
            }
            Term::Workloads(selector) => self.workloads.remove(own_anchors(selector), id),
            Term::Port(protocol, name) => {
                let declaring = self.by_port.get(&(*protocol, name.clone()));
                for profile_id in declaring.into_iter().flatten() {
                    if let Some(profile) = self.profiles.get_mut(*profile_id) {
                        profile.facts.retain(|fact| fact.term() != id);
                        changed.insert(*profile_id);
                    }
                }
                return;
            }
            Term::Service(_) | Term::Block(_) => return,
        }
        for profile_id in self.candidates(term) {
            if let Some(profile) = self.profiles.get_mut(profile_id)
                && profile.facts.remove(&Fact::Matches(id))
            {
                changed.insert(profile_id);
            }
        }
    }

    /// The profiles that may answer a question with yes.
    fn candidates(&self, term: &Term) -> Vec<ProfileId> {
        match term {
            Term::Pods(NamespaceScope::Named(name), pods) => {
                let space = self.names.get(name).and_then(|id| self.spaces.get(*id));
                let Some(space) = space else {
                    return Vec::new();
                };
                self.narrowest(anchors(pods), space.profiles.len())
                    .unwrap_or_else(|| space.profiles.iter().copied().collect())
            }
            Term::Pods(NamespaceScope::Matching(namespaces), pods) => {
                let spaces = self.spaces_matching(namespaces);
                let profiles = spaces.iter().map(|space| space.profiles.len()).sum();
                self.narrowest(anchors(pods), profiles).unwrap_or_else(|| {
                    let profiles = spaces.iter().flat_map(|space| &space.profiles);
                    profiles.copied().collect()
                })
            }
            Term::Workloads(selector) => self.workload_candidates(selector),
            Term::Service(_) | Term::Block(_) | Term::Port(..) => Vec::new(),
        }
    }

    /// Candidates by label, if that gives fewer than `others`.
    fn narrowest(&self, anchors: Vec<Anchor>, others: usize) -> Option<Vec<ProfileId>> {
        let counted = anchors
            .into_iter()
            .map(|one| (self.by_label.count(&one), one));
        let (count, anchor) = counted.min_by_key(|(count, _)| *count)?;
        (count < others).then(|| self.by_label.find(&anchor))
    }

    fn spaces_matching(&self, namespaces: &Selector) -> Vec<&Space> {
        let counted = anchors(namespaces)
            .into_iter()
            .map(|one| (self.spaces_by_label.count(&one), one));
        match counted.min_by_key(|(count, _)| *count) {
            Some((_, anchor)) => {
                let found = self.spaces_by_label.find(&anchor).into_iter();
                let spaces = found.filter_map(|id| self.spaces.get(id));
                spaces
                    .filter(|space| namespaces.matches(&space.labels))
                    .collect()
            }
            None => {
                let spaces = self.spaces.iter().map(|(_, space)| space);
                spaces
                    .filter(|space| namespaces.matches(&space.labels))
                    .collect()
            }
        }
    }

    fn workload_candidates(&self, selector: &margay_crds::Selector) -> Vec<ProfileId> {
        let mut best: Option<Vec<ProfileId>> = None;
        for anchor in own_anchors(selector) {
            let found = if anchor.key == NAMESPACE_KEY {
                let Some(names) = &anchor.values else {
                    continue;
                };
                let spaces = names.iter().filter_map(|name| self.names.get(name));
                let spaces = spaces.filter_map(|id| self.spaces.get(*id));
                spaces
                    .flat_map(|space| space.profiles.iter().copied())
                    .collect()
            } else if is_surrounding(&anchor.key) {
                continue;
            } else {
                let most = best.as_ref().map_or(usize::MAX, Vec::len);
                if self.by_label.count(&anchor) >= most {
                    continue;
                }
                self.by_label.find(&anchor)
            };
            if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        best.unwrap_or_else(|| self.profiles.iter().map(|(id, _)| id).collect())
    }

    // ----- surroundings -----

    /// Takes in what a namespace's labels are now.
    pub(super) fn namespace_changed(
        &mut self,
        cluster: &Cluster,
        terms: &Terms,
        name: &str,
        changed: &mut BTreeSet<ProfileId>,
    ) {
        let Some(id) = self.names.get(name).copied() else {
            return;
        };
        let Some(space) = self.spaces.get_mut(id) else {
            return;
        };
        let labels = cluster.namespace_labels(name);
        self.spaces_by_label.remove(&space.labels, id);
        self.spaces_by_label.add(&labels, id);
        space.labels = labels;
        space.scopes_at = u64::MAX;
        for profile in space.profiles.clone() {
            if self.ask_again(cluster, terms, profile) {
                changed.insert(profile);
            }
        }
    }

    /// Takes in what a service account's labels are now.
    pub(super) fn account_changed(
        &mut self,
        cluster: &Cluster,
        terms: &Terms,
        account: &ObjectKey,
        changed: &mut BTreeSet<ProfileId>,
    ) {
        if self.workloads.is_empty() {
            return;
        }
        let space = self.names.get(&account.namespace);
        let Some(space) = space.and_then(|id| self.spaces.get(*id)) else {
            return;
        };
        for id in space.profiles.clone() {
            let profile = self.profiles.get(id);
            if profile.is_some_and(|profile| *profile.service_account == *account.name)
                && self.ask_again(cluster, terms, id)
            {
                changed.insert(id);
            }
        }
    }
}

/// Whether a key is not of a pod's own labels, or not only.
fn is_surrounding(key: &str) -> bool {
    key.starts_with(NAMESPACE_PREFIX)
        || key.starts_with(SERVICE_ACCOUNT_PREFIX)
        || key == SERVICE_ACCOUNT_KEY
        || key == ORCHESTRATOR_KEY
        || key == NAMESPACE_KEY
}

/// What a selector of ours asks of whatever it selects.
fn own_anchors(selector: &margay_crds::Selector) -> Vec<Anchor> {
    let needed = selector.needed().into_iter();
    needed.map(|(key, values)| Anchor { key, values }).collect()
}

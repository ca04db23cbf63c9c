//! What has been made of the cluster, and how it is brought up to date. The order of the steps is what matters here: each
//! works on what those before it have left, and what nobody uses any more goes last, so that something taken out and put
//! in again is as if nothing had been.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    book::Book,
    classes::{Around, ClassId, Classes, Membership},
    draft::Draft,
    peers::{Peers, ProfileId},
    policies::{GroupId, Policies, PolicyId},
};
use crate::{
    compile::{
        LocalEndpoint, NodeInput, check_interface,
        class::{declared, holds},
        emit, known, nat,
    },
    identity::{Term, Terms},
    model::{Changes, Cluster, Direction, NamedPort, ObjectKey, Pod},
    ruleset::{Family, Key, Name, Ruleset, Transaction, Value, Verdict},
};

/// An endpoint that is in the table.
#[derive(Debug)]
struct Local {
    pod: ObjectKey,
    device: u32,
    addresses: Vec<IpAddr>,
    ports: Vec<NamedPort>,
    /// None for a closed one.
    open: Option<(ProfileId, GroupId)>,
    /// By direction.
    classes: [Option<ClassId>; 2],
}

/// Everything that has been made.
#[derive(Debug)]
pub(super) struct State {
    draft: Draft,
    terms: Terms,
    peers: Peers,
    book: Book,
    policies: Policies,
    classes: Classes,
    locals: BTreeMap<String, Local>,
    by_pod: BTreeMap<ObjectKey, BTreeSet<String>>,
    by_address: BTreeMap<IpAddr, BTreeSet<String>>,
}

/// Pods by key, as they were; `None` for those that were not.
type Pods = BTreeMap<ObjectKey, Option<Box<Pod>>>;

impl State {
    pub(super) fn new() -> Self {
        Self {
            draft: Draft::new(emit::empty()),
            terms: Terms::default(),
            peers: Peers::default(),
            book: Book::default(),
            policies: Policies::default(),
            classes: Classes::default(),
            locals: BTreeMap::new(),
            by_pod: BTreeMap::new(),
            by_address: BTreeMap::new(),
        }
    }

    pub(super) fn ruleset(&self) -> &Ruleset {
        self.draft.table()
    }

    pub(super) fn take(&mut self) -> Transaction {
        self.draft.take()
    }

    /// Brings all up to date with the cluster, of which `changes` have been made since the last call, or all for `None`.
    pub(super) fn update(
        &mut self,
        cluster: &Cluster,
        endpoints: &BTreeMap<String, LocalEndpoint>,
        mut touched: BTreeSet<String>,
        changes: Option<Changes>,
    ) {
        let is_first = changes.is_none();
        let mut changes = changes.unwrap_or_default();
        let pods = self.touched_pods(cluster, endpoints, &mut touched, &mut changes);
        self.unclaim(&pods);
        for interface in &touched {
            self.detach(interface);
        }
        let (groups, edited) = self.select(cluster, &changes);
        for interface in &touched {
            if let Some(endpoint) = endpoints.get(interface) {
                self.attach(cluster, endpoint);
            }
        }
        self.policies.settle(cluster, &mut self.terms, &edited);
        let cut = self.ask(cluster, &changes) || is_first;
        if is_first {
            for pod in cluster.pods() {
                self.claim(cluster, pod);
            }
        }
        for pod in pods.keys().filter_map(|key| cluster.pod(key)) {
            self.claim(cluster, pod);
        }
        // What comes next takes as much, when many pods come at once.
        drop(pods);
        if cut {
            self.book.cut_blocks(&self.terms, cluster);
            self.book.settle_intervals(&self.terms, &mut self.draft);
        }
        let moved = self.book.settle(&self.peers, &self.terms, &mut self.draft);
        self.decide(cluster, &edited, changes.tiers);
        let classified = self.to_classify(touched, &groups, &edited, &moved);
        for interface in classified {
            self.classify(cluster, &interface);
        }
        self.classes.sweep(&mut self.draft);
        self.peers.sweep();
        self.terms.forget();
    }

    pub(super) fn update_nat(&mut self, node: &NodeInput) {
        let mut wanted = Ruleset::new();
        nat::emit(node, &mut wanted);
        let (chain, sets) = nat::names();
        for name in sets {
            self.draft.set_set(&name, wanted.sets.get(&name));
        }
        self.draft.set_chain(chain, wanted.chains.remove(chain));
    }

    /// Makes the part of the table that has these names what it is to be.
    pub(super) fn update_part(&mut self, is_of_part: fn(&str) -> bool, mut wanted: Ruleset) {
        let table = self.draft.table();
        let is_of_part = |name: &&Name| is_of_part(name);
        let sets: BTreeSet<Name> = table.sets.keys().filter(is_of_part).cloned().collect();
        let maps: BTreeSet<Name> = table.maps.keys().filter(is_of_part).cloned().collect();
        let chains: BTreeSet<Name> = table.chains.keys().filter(is_of_part).cloned().collect();
        for name in sets.iter().chain(wanted.sets.keys()) {
            self.draft.set_set(name, wanted.sets.get(name));
        }
        let names: BTreeSet<Name> = maps.iter().chain(wanted.maps.keys()).cloned().collect();
        for name in names {
            self.draft.set_map(&name, wanted.maps.remove(&name));
        }
        let names: BTreeSet<Name> = chains.iter().chain(wanted.chains.keys()).cloned().collect();
        for name in names {
            self.draft.set_chain(&name, wanted.chains.remove(&name));
        }
    }

    // ----- pods and endpoints -----

    /// The pods to look at: those that have changed, and those whose endpoint here has. `touched` gets the endpoints of
    /// pods that have changed.
    fn touched_pods(
        &self,
        cluster: &Cluster,
        endpoints: &BTreeMap<String, LocalEndpoint>,
        touched: &mut BTreeSet<String>,
        changes: &mut Changes,
    ) -> Pods {
        let mut pods = std::mem::take(&mut changes.pods);
        for key in pods.keys() {
            touched.extend(self.by_pod.get(key).into_iter().flatten().cloned());
        }
        for interface in &*touched {
            let before = self.locals.get(interface).map(|local| local.pod.clone());
            let now = endpoints.get(interface);
            let now = now.map(|endpoint| ObjectKey::new(&endpoint.namespace, &endpoint.pod));
            for key in before.into_iter().chain(now) {
                pods.entry(key)
                    .or_insert_with_key(|key| cluster.pod(key).cloned().map(Box::new));
            }
        }
        pods
    }

    /// Whether the pod claims its addresses by what the API shows of it: pods here do so by their endpoints.
    fn claims(&self, pod: &Pod) -> bool {
        pod.is_selectable() && !pod.addresses.is_empty() && !self.by_pod.contains_key(&pod.key())
    }

    fn unclaim(&mut self, pods: &Pods) {
        for pod in pods.values().flatten() {
            if !self.claims(pod) {
                continue;
            }
            let traits = (&pod.labels, &*pod.service_account, &*pod.ports);
            let Some(profile) = self.peers.find(&pod.namespace, traits) else {
                continue;
            };
            for address in &pod.addresses {
                self.book.unclaim(*address, profile);
            }
            self.peers.release(profile);
        }
    }

    fn claim(&mut self, cluster: &Cluster, pod: &Pod) {
        if !self.claims(pod) {
            return;
        }
        let traits = (&pod.labels, &*pod.service_account, &*pod.ports);
        let (peers, terms) = (&mut self.peers, &self.terms);
        let profile = peers.acquire(cluster, terms, &pod.namespace, traits);
        for address in &pod.addresses {
            self.book.claim(*address, profile);
        }
    }

    /// Takes an endpoint out.
    fn detach(&mut self, interface: &str) {
        let Some(local) = self.locals.remove(interface) else {
            return;
        };
        let profile = local.open.map(|(profile, _)| profile);
        for address in &local.addresses {
            self.book.unclaim_here(*address, profile);
            remove_from(&mut self.by_address, address, interface);
            let own = Key::device_address(local.device, *address);
            self.draft.cut(&sources(*address), &own);
        }
        remove_from(&mut self.by_pod, &local.pod, interface);
        if let Some((profile, group)) = local.open {
            self.peers.release(profile);
            self.policies.leave(group, interface);
        }
        for class in local.classes.into_iter().flatten() {
            self.classes.leave(class);
        }
        let key = Key::interface(interface);
        self.draft.cut_key(emit::POD_INTERFACES, &key);
        let device = Key::Device(local.device);
        self.draft.cut(emit::FROM_PODS, &device);
        self.draft.cut(emit::TO_PODS, &device);
        let itself = Key::interface_pair(interface, interface);
        self.draft.cut_key(emit::ITSELF, &itself);
    }

    /// Puts an endpoint in. Its classes follow.
    fn attach(&mut self, cluster: &Cluster, local: &LocalEndpoint) {
        let interface = &local.interface;
        if check_interface(interface).is_err() {
            return;
        }
        let endpoint = known(cluster, local);
        let open = (!endpoint.closed).then(|| {
            let (namespace, account) = (endpoint.namespace, endpoint.service_account);
            let traits = (endpoint.labels, account, endpoint.ports);
            let (peers, terms) = (&mut self.peers, &self.terms);
            let profile = peers.acquire(cluster, terms, namespace, traits);
            let traits = (namespace, endpoint.labels, account);
            (profile, self.policies.join(cluster, traits, interface))
        });
        let profile = open.map(|(profile, _)| profile);
        for address in endpoint.addresses {
            self.book.claim_here(*address, profile);
            let there = self.by_address.entry(*address).or_default();
            there.insert(interface.clone());
            if local.device != emit::UNKNOWN {
                let own = Key::device_address(local.device, *address);
                let sent = Value::from(Verdict::Goto(emit::SENT.to_owned()));
                self.draft.put(&sources(*address), own, sent);
            }
        }
        let pod = ObjectKey::new(&local.namespace, &local.pod);
        let there = self.by_pod.entry(pod.clone()).or_default();
        there.insert(interface.clone());
        let key = Key::interface(interface);
        self.draft.put_key(emit::POD_INTERFACES, key);
        let itself = Key::interface_pair(interface, interface);
        self.draft.put_key(emit::ITSELF, itself);
        let attached = Local {
            pod,
            device: local.device,
            addresses: endpoint.addresses.to_vec(),
            ports: endpoint.ports.to_vec(),
            open,
            classes: [None, None],
        };
        self.locals.insert(interface.clone(), attached);
    }

    // ----- policies and questions -----

    /// Finds out who has a say about which groups now: the groups for which that has changed, and the policies with a
    /// say that read otherwise than before.
    fn select(
        &mut self,
        cluster: &Cluster,
        changes: &Changes,
    ) -> (BTreeSet<GroupId>, BTreeSet<PolicyId>) {
        let mut groups = BTreeSet::new();
        if changes.tiers {
            self.policies.tiers_changed(cluster, &mut groups);
        }
        let mut edited = BTreeSet::new();
        for reference in &changes.policies {
            self.policies
                .policy_changed(cluster, reference, &mut groups);
            edited.extend(self.policies.id(reference));
        }
        // After the policies: what is found anew for some groups must not move a policy that others still have in its old
        // place.
        let accounts = changes.service_accounts.iter();
        let namespaces: BTreeSet<&String> = changes
            .namespaces
            .iter()
            .chain(accounts.map(|account| &account.namespace))
            .collect();
        for namespace in namespaces {
            self.policies
                .surroundings_changed(cluster, namespace, &mut groups);
        }
        (groups, edited)
    }

    /// Asks the questions that have come into force, and forgets the others. Whether blocks have to be cut anew.
    fn ask(&mut self, cluster: &Cluster, changes: &Changes) -> bool {
        let mut profiles = BTreeSet::new();
        let has_sets = cluster.network_sets().next().is_some();
        let cuts = |term: &Term| match term {
            Term::Block(_) | Term::Service(_) => true,
            Term::Workloads(_) => has_sets,
            Term::Pods(..) | Term::Port(..) => false,
        };
        let mut cut = changes.network_sets
            || !changes.services.is_empty()
            || has_sets && !changes.namespaces.is_empty();
        for id in self.terms.take_fresh() {
            if let Some(term) = self.terms.get(id).cloned() {
                cut |= cuts(&term);
                self.peers.ask(cluster, id, &term, &mut profiles);
            }
        }
        let stale: Vec<_> = self.terms.stale().collect();
        for id in stale {
            if let Some(term) = self.terms.get(id).cloned() {
                cut |= cuts(&term);
                self.peers.ask_no_more(id, &term, &mut profiles);
            }
        }
        self.terms.retire();
        for name in &changes.namespaces {
            let terms = &self.terms;
            self.peers
                .namespace_changed(cluster, terms, name, &mut profiles);
        }
        for account in &changes.service_accounts {
            let terms = &self.terms;
            self.peers
                .account_changed(cluster, terms, account, &mut profiles);
        }
        self.book.touch(&profiles);
        cut
    }

    // ----- classes -----

    /// Brings the classes there are up to date with identities and with what policies read.
    fn decide(&mut self, cluster: &Cluster, edited: &BTreeSet<PolicyId>, all: bool) {
        for (number, identity) in self.book.sweep() {
            self.classes
                .identity_went(number, &identity, &mut self.draft);
        }
        let fresh = std::mem::take(&mut self.book.fresh);
        let around = Around {
            cluster,
            terms: &self.terms,
            policies: &self.policies,
            book: &self.book,
        };
        let classes: BTreeSet<ClassId> = match all {
            true => self.classes.all().into_iter().collect(),
            false => {
                let edited = edited.iter();
                edited
                    .flat_map(|policy| self.classes.of_policy(*policy))
                    .collect()
            }
        };
        for class in classes {
            self.classes.flatten(class, &around, &mut self.draft);
        }
        for number in fresh {
            self.classes.identity_came(number, &around, &mut self.draft);
        }
    }

    /// The endpoints whose classes may be others now.
    fn to_classify(
        &self,
        mut touched: BTreeSet<String>,
        groups: &BTreeSet<GroupId>,
        edited: &BTreeSet<PolicyId>,
        moved: &[IpAddr],
    ) -> BTreeSet<String> {
        let groups = groups
            .iter()
            .copied()
            .chain(self.policies.selected_by(edited));
        for group in groups.filter_map(|id| self.policies.group(id)) {
            touched.extend(group.members.iter().cloned());
        }
        for address in moved {
            let there = self.by_address.get(address).into_iter().flatten();
            touched.extend(there.cloned());
        }
        touched
    }

    fn classify(&mut self, cluster: &Cluster, interface: &str) {
        let Some(local) = self.locals.get(interface) else {
            return;
        };
        let wanted = Direction::ALL.map(|direction| self.membership(local, direction));
        let around = Around {
            cluster,
            terms: &self.terms,
            policies: &self.policies,
            book: &self.book,
        };
        let joined = wanted.map(|membership| {
            membership.map(|membership| self.classes.join(membership, &around, &mut self.draft))
        });
        for (direction, class) in Direction::ALL.into_iter().zip(joined) {
            let map = match direction {
                Direction::Ingress => emit::TO_PODS,
                Direction::Egress => emit::FROM_PODS,
            };
            let verdict = match class.and_then(|class| self.classes.name(class)) {
                Some(chain) => Verdict::Goto(chain.clone()),
                None => emit::onward(direction),
            };
            if local.device != emit::UNKNOWN {
                let key = Key::Device(local.device);
                self.draft.put(map, key, Value::from(verdict));
            }
        }
        if let Some(local) = self.locals.get_mut(interface) {
            let before = std::mem::replace(&mut local.classes, joined);
            for class in before.into_iter().flatten() {
                self.classes.leave(class);
            }
        }
    }

    fn membership(&self, local: &Local, direction: Direction) -> Option<Membership> {
        let Some((_, group)) = local.open else {
            return Some(Membership::Closed);
        };
        let at = direction as usize;
        let policies = &self.policies.group(group)?.policies[at];
        if policies.is_empty() {
            return None;
        }
        let (mut own_ports, mut subject) = (BTreeSet::new(), BTreeSet::new());
        for id in policies {
            let Some(policy) = self.policies.policy(*id) else {
                continue;
            };
            if !policy.is_particular[at] {
                continue;
            }
            for rule in policy.rules[at].iter().flat_map(|rules| &rules.rules) {
                if direction == Direction::Ingress {
                    own_ports.extend(declared(rule, &local.ports));
                }
                if rule.subject.is_empty() {
                    continue;
                }
                let holding = Family::ALL.into_iter().filter(|family| {
                    let addresses = local.addresses.iter();
                    let addresses = addresses.filter(|one| Family::of(**one) == *family);
                    let identities = addresses.map(|one| self.book.identity_of(*one));
                    holds(rule, &self.terms, identities)
                });
                subject.extend(holding.map(|family| (*id, rule.index, family)));
            }
        }
        Some(Membership::Isolated {
            direction,
            policies: policies.clone(),
            own_ports,
            subject,
        })
    }
}

fn sources(address: IpAddr) -> String {
    emit::with_family(emit::SOURCES, Family::of(address))
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<String>>, key: &K, interface: &str) {
    if let Some(there) = index.get_mut(key) {
        there.remove(interface);
        if there.is_empty() {
            index.remove(key);
        }
    }
}

//! Identities: what policy can tell about an address.
//!
//! The policies in force ask a limited number of questions about a peer: does this selector match it, is it in this block,
//! which number does it give this port name. An address's [`Identity`] is the set of answers; addresses with the same
//! answers are the same to policy. A pod whose labels change becomes another identity: one element of one map.
//!
//! Pods' addresses and other single addresses are in a plain hash map. Blocks are cut into disjoint intervals, each with
//! an identity of its own, in a map that is asked first and overruled by the hash map; pods never cut it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnetwork::IpNetwork;

use margay_crds::Selector as OwnSelector;

use crate::{
    model::{Cluster, IpBlock, NamedPort, Namespaces, ObjectKey, Peer},
    numbering,
    port::{PortRange, Protocol},
    ruleset::Family,
    selector::{Labels, Selector},
};

/// A question about a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Term {
    /// Is it a pod of these namespaces, with these labels?
    Pods(NamespaceScope, Selector),
    /// Is it a pod or a network set that this selector of ours selects, by labels with their surroundings
    /// ([`Cluster::with_surroundings`])?
    Workloads(OwnSelector),
    /// Is it an endpoint of this Service, and at which ports?
    Service(ObjectKey),
    /// Is it in this block?
    Block(IpBlock),
    /// Which numbers does it, a pod, give this port name?
    Port(Protocol, String),
}

/// The namespaces of a peer, whichever policy named them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum NamespaceScope {
    /// This one.
    Named(String),
    /// Those whose labels match.
    Matching(Selector),
}

impl Term {
    /// The question that a peer item of a policy in `namespace` asks.
    pub(crate) fn of(peer: &Peer, namespace: &str) -> Self {
        match peer {
            Peer::Block(block) => Self::Block(block.clone()),
            Peer::Pods { namespaces, pods } => {
                let scope = match namespaces {
                    Namespaces::Own => NamespaceScope::Named(namespace.to_owned()),
                    Namespaces::Matching(selector) => NamespaceScope::Matching(selector.clone()),
                };
                Self::Pods(scope, pods.clone())
            }
        }
    }
}

/// An answer: the question, and for port names a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fact {
    /// The term matches.
    Matches(TermId),
    /// The port name of the term stands for this number.
    Port(TermId, u16),
    /// The Service of the term is served here at these ports.
    Serves(TermId, Protocol, PortRange),
}

impl Fact {
    /// The question it answers.
    pub(crate) fn term(&self) -> TermId {
        match self {
            Self::Matches(id) | Self::Port(id, _) | Self::Serves(id, ..) => *id,
        }
    }
}

/// A term's place among those in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TermId(u32);

/// The questions in force, each once however many policies ask it.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    ids: BTreeMap<Arc<Term>, TermId>,
    /// By id: the term and how often it is asked.
    slots: Vec<(Arc<Term>, usize)>,
    free: Vec<TermId>,
    /// Terms that have come into force since they were last asked for.
    fresh: BTreeSet<TermId>,
    /// Terms that nothing asks any more, still in their places.
    stale: BTreeSet<TermId>,
}

impl Terms {
    /// Asks a question once more.
    pub(crate) fn add(&mut self, term: Term) -> TermId {
        if let Some(id) = self.ids.get(&term).copied() {
            if let Some((_, uses)) = self.slots.get_mut(id.0 as usize) {
                *uses += 1;
            }
            self.stale.remove(&id);
            return id;
        }
        let term = Arc::new(term);
        let id = match self.free.pop() {
            Some(id) => id,
            None => TermId(u32::try_from(self.slots.len()).unwrap_or(u32::MAX)),
        };
        let slot = (Arc::clone(&term), 1);
        match self.slots.get_mut(id.0 as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        self.ids.insert(term, id);
        self.fresh.insert(id);
        id
    }

    /// Asks a question once less. Its id stays its own until [`Self::forget`].
    pub(crate) fn release(&mut self, id: TermId) {
        if let Some((_, uses)) = self.slots.get_mut(id.0 as usize) {
            *uses = uses.saturating_sub(1);
            if *uses == 0 {
                self.stale.insert(id);
            }
        }
    }

    /// The terms that have come into force since this was last called. Those that have gone again are not among them.
    pub(crate) fn take_fresh(&mut self) -> Vec<TermId> {
        let mut fresh = std::mem::take(&mut self.fresh);
        let stale = std::mem::take(&mut self.stale);
        let (passing, stale) = stale.into_iter().partition(|id| fresh.contains(id));
        self.stale = passing;
        fresh.retain(|id| !self.stale.contains(id));
        self.forget();
        self.stale = stale;
        fresh.into_iter().collect()
    }

    /// The terms that nothing asks any more.
    pub(crate) fn stale(&self) -> impl Iterator<Item = TermId> {
        self.stale.iter().copied()
    }

    /// Takes the terms that nothing asks any more out of force. Their ids stay theirs until [`Self::forget`].
    pub(crate) fn retire(&mut self) {
        for id in &self.stale {
            if let Some((term, _)) = self.slots.get(id.0 as usize) {
                self.ids.remove(term);
            }
        }
    }

    /// Lets the terms go that nothing asks any more: no identity knows them by now.
    pub(crate) fn forget(&mut self) {
        self.retire();
        self.free.extend(std::mem::take(&mut self.stale));
    }

    pub(crate) fn id(&self, term: &Term) -> Option<TermId> {
        self.ids.get(term).copied()
    }

    pub(crate) fn get(&self, id: TermId) -> Option<&Arc<Term>> {
        self.slots.get(id.0 as usize).map(|(term, _)| term)
    }

    fn workloads(&self) -> Vec<(&OwnSelector, TermId)> {
        let workloads = self.ids.iter().filter_map(|(term, id)| match &**term {
            Term::Workloads(selector) => Some((selector, *id)),
            _ => None,
        });
        workloads.collect()
    }
}

/// Answers that hold together.
pub(crate) type Facts = BTreeSet<Fact>;

/// The answers for one address. There are several sets of them where several pods claim the address: which of them sends
/// from it is not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity(BTreeSet<Facts>);

impl Identity {
    /// Nothing is known about it.
    pub(crate) fn nothing() -> Self {
        Self(BTreeSet::from([Facts::new()]))
    }

    pub(crate) fn of(facts: Facts) -> Self {
        Self(BTreeSet::from([facts]))
    }

    /// Either of these sets of answers, of which there must be one.
    pub(crate) fn any_of(alternatives: BTreeSet<Facts>) -> Self {
        Self(alternatives)
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.0.iter().all(Facts::is_empty)
    }

    /// What it says, without the numbers that terms happen to have: these change when another policy comes into force.
    /// Its own number follows from this.
    pub(crate) fn content<'t>(&self, terms: &'t Terms) -> BTreeSet<BTreeSet<Content<'t>>> {
        let content = |fact: &Fact| {
            let ports = match fact {
                Fact::Matches(_) => None,
                Fact::Port(_, number) => Some((None, PortRange::single(*number))),
                Fact::Serves(_, protocol, range) => Some((Some(*protocol), *range)),
            };
            Some((&**terms.get(fact.term())?, ports))
        };
        let facts = |facts: &Facts| facts.iter().filter_map(content).collect();
        self.alternatives().map(facts).collect()
    }

    /// The sets of answers; never none.
    pub(crate) fn alternatives(&self) -> impl Iterator<Item = &Facts> {
        self.0.iter()
    }
}

/// A pod's claim on an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) labels: &'a Labels,
    pub(crate) service_account: &'a str,
    pub(crate) ports: &'a [NamedPort],
}

/// Which pods claim which address; more than one when an address was given anew before its old owner's object went.
pub(crate) type Claims<'a> = BTreeMap<IpAddr, Vec<Claim<'a>>>;

/// An interval of addresses that are the same to policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
    pub(crate) identity: u32,
}

/// Every address's identity, by number. What is in neither list has no identity: no question matches it.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    /// The identities by number.
    pub(crate) identities: BTreeMap<u32, Identity>,
    /// Pods and other single addresses; they overrule the intervals.
    pub(crate) addresses: BTreeMap<IpAddr, u32>,
    /// Disjoint intervals outside the single addresses, ascending, IPv4 first.
    pub(crate) intervals: Vec<Interval>,
}

impl AddressBook {
    pub(crate) fn new(terms: &Terms, claims: &Claims<'_>, cluster: &Cluster) -> Self {
        let blocks = Blocks::cut(terms, cluster);
        let mut matcher = Matcher::new(terms, cluster);
        let mut addresses: BTreeMap<IpAddr, Identity> = blocks
            .singles
            .iter()
            .map(|address| (*address, Identity::of(blocks.facts(*address))))
            .collect();
        for (address, claims) in claims {
            let around = blocks.facts(*address);
            let alternatives = claims.iter().map(|claim| {
                let mut facts = matcher.facts(claim);
                facts.extend(around.iter().copied());
                facts
            });
            addresses.insert(*address, Identity(alternatives.collect()));
        }
        Self::numbered(terms, addresses, &blocks)
    }

    fn numbered(terms: &Terms, addresses: BTreeMap<IpAddr, Identity>, blocks: &Blocks) -> Self {
        let of_intervals: Vec<Identity> = blocks
            .intervals
            .iter()
            .map(|(_, _, facts)| Identity::of(facts.clone()))
            .collect();
        let distinct: BTreeSet<&Identity> = addresses
            .values()
            .chain(&of_intervals)
            .filter(|identity| !identity.is_nothing())
            .collect();
        let by_content: BTreeMap<BTreeSet<BTreeSet<Content<'_>>>, &Identity> = distinct
            .into_iter()
            .map(|identity| (identity.content(terms), identity))
            .collect();
        let numbers = numbering::number(by_content.keys().collect::<BTreeSet<_>>());
        let mut book = Self::default();
        let mut number_of: BTreeMap<&Identity, u32> = BTreeMap::new();
        for (content, identity) in &by_content {
            if let Some(number) = numbers.get(content) {
                number_of.insert(*identity, *number);
                book.identities.insert(*number, (*identity).clone());
            }
        }
        // An address that overrules an interval needs its element even when nothing matches it: 0 is "no identity".
        for (address, identity) in &addresses {
            match number_of.get(identity) {
                Some(number) => book.addresses.insert(*address, *number),
                None if blocks.interval_of(*address).is_some() => {
                    book.addresses.insert(*address, 0)
                }
                None => None,
            };
        }
        for ((first, last, _), identity) in blocks.intervals.iter().zip(&of_intervals) {
            if let Some(number) = number_of.get(identity) {
                book.intervals.push(Interval {
                    first: *first,
                    last: *last,
                    identity: *number,
                });
            }
        }
        book
    }

    /// The numbers of the identities that answer each question.
    pub(crate) fn by_term(&self) -> BTreeMap<TermId, BTreeSet<u32>> {
        let mut index: BTreeMap<TermId, BTreeSet<u32>> = BTreeMap::new();
        for (number, identity) in &self.identities {
            for fact in identity.alternatives().flatten() {
                index.entry(fact.term()).or_default().insert(*number);
            }
        }
        index
    }

    /// The identity of an address, if it has one.
    pub(crate) fn identity(&self, address: IpAddr) -> Option<&Identity> {
        self.identities.get(&self.identity_of(address))
    }

    /// The identity of an address, 0 for none: the kernel's two lookups.
    pub(crate) fn identity_of(&self, address: IpAddr) -> u32 {
        let interval = || {
            let found = self
                .intervals
                .iter()
                .find(|interval| interval.first <= address && address <= interval.last);
            found.map_or(0, |interval| interval.identity)
        };
        self.addresses
            .get(&address)
            .copied()
            .unwrap_or_else(interval)
    }
}

/// A fact without the numbers that terms happen to have.
pub(crate) type Content<'t> = (&'t Term, Option<(Option<Protocol>, PortRange)>);

/// Answers the questions that are about pods, remembering which of them a namespace rules out.
struct Matcher<'t> {
    terms: &'t Terms,
    cluster: &'t Cluster,
    workloads: Vec<(&'t OwnSelector, TermId)>,
    by_namespace: BTreeMap<String, Vec<(&'t Selector, TermId)>>,
}

impl<'t> Matcher<'t> {
    fn new(terms: &'t Terms, cluster: &'t Cluster) -> Self {
        Self {
            terms,
            cluster,
            workloads: terms.workloads(),
            by_namespace: BTreeMap::new(),
        }
    }

    fn selectors(&mut self, namespace: &str) -> &[(&'t Selector, TermId)] {
        if !self.by_namespace.contains_key(namespace) {
            let labels = self.cluster.namespace_labels(namespace);
            let selectors = self
                .terms
                .ids
                .iter()
                .filter_map(|(term, id)| match &**term {
                    Term::Pods(NamespaceScope::Named(name), pods) if name == namespace => {
                        Some((pods, *id))
                    }
                    Term::Pods(NamespaceScope::Matching(selector), pods)
                        if selector.matches(&labels) =>
                    {
                        Some((pods, *id))
                    }
                    _ => None,
                })
                .collect();
            self.by_namespace.insert(namespace.to_owned(), selectors);
        }
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    fn facts(&mut self, claim: &Claim<'_>) -> Facts {
        let mut facts: Facts = self
            .selectors(claim.namespace)
            .iter()
            .filter(|(pods, _)| pods.matches(claim.labels))
            .map(|(_, id)| Fact::Matches(*id))
            .collect();
        if !self.workloads.is_empty() {
            let (namespace, account) = (claim.namespace, claim.service_account);
            let labels = self
                .cluster
                .workload_labels(namespace, claim.labels, account);
            let labels = self
                .cluster
                .with_surroundings(labels, namespace, Some(account));
            let matching = self
                .workloads
                .iter()
                .filter(|(selector, _)| selector.matches(&labels));
            facts.extend(matching.map(|(_, id)| Fact::Matches(*id)));
        }
        for port in claim.ports {
            if let Some(id) = self.terms.id(&Term::Port(port.protocol, port.name.clone())) {
                facts.insert(Fact::Port(id, port.number));
            }
        }
        facts
    }
}

/// The blocks in force, cut into disjoint intervals. Whole-length prefixes (and exceptions) cut nothing: they are listed
/// as single addresses, which are looked up in the hash map.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    intervals: Vec<(IpAddr, IpAddr, Facts)>,
    singles: BTreeSet<IpAddr>,
    added: BTreeMap<IpAddr, Vec<Fact>>,
    excepted: BTreeMap<IpAddr, Vec<TermId>>,
}

/// Ranges of addresses for which a term holds, by family; a term may cover an address more than once.
type Ranges = BTreeMap<Family, Vec<(u128, u128, TermId)>>;

impl Blocks {
    pub(crate) fn cut(terms: &Terms, cluster: &Cluster) -> Self {
        let mut blocks = Self::default();
        let mut ranges = Ranges::new();
        for (term, id) in &terms.ids {
            match &**term {
                Term::Block(block) => blocks.take(block, *id, &mut ranges),
                Term::Service(service) => blocks.take_service(cluster, service, *id),
                Term::Pods(..) | Term::Workloads(_) | Term::Port(..) => {}
            }
        }
        blocks.take_sets(cluster, &terms.workloads(), &mut ranges);
        blocks.singles = blocks
            .added
            .keys()
            .chain(blocks.excepted.keys())
            .copied()
            .collect();
        for (family, ranges) in ranges {
            blocks.intervals.extend(sweep(family, ranges));
        }
        blocks
    }

    fn take_service(&mut self, cluster: &Cluster, service: &ObjectKey, id: TermId) {
        for endpoint in cluster.endpoints(service) {
            let facts = self.added.entry(endpoint.address).or_default();
            facts.push(Fact::Matches(id));
            let ports = endpoint.ports.iter();
            facts.extend(ports.map(|(protocol, range)| Fact::Serves(id, *protocol, *range)));
        }
    }

    /// Network sets are selected by their labels, as pods are.
    fn take_sets(
        &mut self,
        cluster: &Cluster,
        workloads: &[(&OwnSelector, TermId)],
        ranges: &mut Ranges,
    ) {
        if workloads.is_empty() {
            return;
        }
        for (key, set) in cluster.network_sets() {
            let labels = cluster.set_labels(key, set);
            let labels = cluster.with_surroundings(labels, &key.namespace, None);
            for (_, id) in workloads
                .iter()
                .filter(|(selector, _)| selector.matches(&labels))
            {
                for net in &set.nets {
                    let block = IpBlock {
                        cidr: *net,
                        except: Vec::new(),
                    };
                    self.take(&block, *id, ranges);
                }
            }
        }
    }

    fn take(&mut self, block: &IpBlock, id: TermId, ranges: &mut Ranges) {
        if is_single(&block.cidr) {
            let facts = self.added.entry(block.cidr.network()).or_default();
            facts.push(Fact::Matches(id));
            return;
        }
        let ranges = ranges.entry(Family::of(block.cidr.network())).or_default();
        let (mut next, end) = bounds(&block.cidr);
        let mut holes = Vec::new();
        for except in &block.except {
            if is_single(except) {
                self.excepted.entry(except.network()).or_default().push(id);
            } else {
                holes.push(bounds(except));
            }
        }
        holes.sort_unstable();
        for (first, last) in holes {
            if first > next {
                ranges.push((next, first - 1, id));
            }
            match last.checked_add(1) {
                Some(after) => next = next.max(after),
                None => return,
            }
        }
        if next <= end {
            ranges.push((next, end, id));
        }
    }

    pub(crate) fn interval_of(&self, address: IpAddr) -> Option<&Facts> {
        let after = self
            .intervals
            .partition_point(|(first, _, _)| *first <= address);
        let (_, last, identity) = self.intervals.get(after.checked_sub(1)?)?;
        (address <= *last).then_some(identity)
    }

    pub(crate) fn intervals(&self) -> &[(IpAddr, IpAddr, Facts)] {
        &self.intervals
    }

    /// Whether the address is listed for itself.
    pub(crate) fn is_single(&self, address: IpAddr) -> bool {
        self.singles.contains(&address)
    }

    /// The intervals that are not the same in both.
    pub(crate) fn differences(&self, other: &Self) -> Vec<(IpAddr, IpAddr)> {
        let these: BTreeSet<_> = self.intervals.iter().collect();
        let those: BTreeSet<_> = other.intervals.iter().collect();
        let different = these.symmetric_difference(&those);
        different.map(|(first, last, _)| (*first, *last)).collect()
    }

    /// The single addresses that are not the same in both.
    pub(crate) fn different_singles(&self, other: &Self) -> Vec<IpAddr> {
        let all = self.singles.union(&other.singles).copied();
        let differs = |address: &IpAddr| {
            self.added.get(address) != other.added.get(address)
                || self.excepted.get(address) != other.excepted.get(address)
        };
        all.filter(differs).collect()
    }

    pub(crate) fn facts(&self, address: IpAddr) -> Facts {
        let mut facts = self.interval_of(address).cloned().unwrap_or_default();
        for id in self.excepted.get(&address).into_iter().flatten() {
            facts.remove(&Fact::Matches(*id));
        }
        facts.extend(self.added.get(&address).into_iter().flatten().copied());
        facts
    }
}

fn is_single(network: &IpNetwork) -> bool {
    match network {
        IpNetwork::V4(network) => network.prefix() == 32,
        IpNetwork::V6(network) => network.prefix() == 128,
    }
}

/// The first and the last address as numbers.
pub(crate) fn bounds(network: &IpNetwork) -> (u128, u128) {
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    (number(network.network()), number(network.broadcast()))
}

pub(crate) fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// Cuts overlapping ranges into disjoint ones, each with the terms that cover it. One pass over the ends.
fn sweep(family: Family, ranges: Vec<(u128, u128, TermId)>) -> Vec<(IpAddr, IpAddr, Facts)> {
    let mut starts: BTreeMap<u128, (Vec<TermId>, Vec<TermId>)> = BTreeMap::new();
    for (first, last, id) in ranges {
        starts.entry(first).or_default().0.push(id);
        if let Some(after) = last.checked_add(1) {
            starts.entry(after).or_default().1.push(id);
        }
    }
    let highest = match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    };
    let mut intervals: Vec<(IpAddr, IpAddr, Facts)> = Vec::new();
    // How often each term covers the place: networks of one set may overlap.
    let mut active: BTreeMap<TermId, usize> = BTreeMap::new();
    let mut edges = starts.into_iter().peekable();
    while let Some((first, (opened, closed))) = edges.next() {
        for id in closed {
            match active.get_mut(&id) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(active.remove(&id)),
            }
        }
        for id in opened {
            *active.entry(id).or_default() += 1;
        }
        let next = edges.peek().map(|(next, _)| *next);
        // The address space of IPv4 ends before the numbers do.
        let last = next.map_or(highest, |next| (next - 1).min(highest));
        if !active.is_empty() && first <= highest {
            let facts = active.keys().copied().map(Fact::Matches).collect();
            intervals.push((address(family, first), address(family, last), facts));
        }
    }
    intervals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(blocks: &[(&str, &[&str])]) -> Terms {
        let mut terms = Terms::default();
        for (cidr, except) in blocks {
            terms.add(Term::Block(IpBlock {
                cidr: cidr.parse().unwrap(),
                except: except
                    .iter()
                    .map(|network| network.parse().unwrap())
                    .collect(),
            }));
        }
        terms
    }

    fn book(terms: &Terms, pods: &[&str]) -> AddressBook {
        let none = Labels::new();
        let claim = Claim {
            namespace: "x",
            labels: &none,
            service_account: "default",
            ports: &[],
        };
        let claims = pods
            .iter()
            .map(|address| (address.parse().unwrap(), vec![claim]))
            .collect();
        AddressBook::new(terms, &claims, &Cluster::new())
    }

    #[test]
    fn blocks_are_cut_where_they_overlap() {
        let book = book(
            &terms(&[
                ("10.0.0.0/24", &["10.0.0.64/26"]),
                ("10.0.0.0/25", &[]),
                ("::/0", &["8000::/1"]),
                ("0.0.0.0/0", &["0.0.0.0/1"]),
            ]),
            &[],
        );
        let cuts: Vec<_> = book
            .intervals
            .iter()
            .map(|cut| format!("{}-{}", cut.first, cut.last))
            .collect();
        assert_eq!(
            cuts,
            [
                "10.0.0.0-10.0.0.63",
                "10.0.0.64-10.0.0.127",
                "10.0.0.128-10.0.0.255",
                "128.0.0.0-255.255.255.255",
                "::-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ]
        );
    }

    #[test]
    fn single_addresses_cut_no_interval() {
        let terms = terms(&[("10.0.0.0/24", &["10.0.0.7/32"]), ("10.0.0.9/32", &[])]);
        let book = book(&terms, &["10.0.0.5", "192.0.2.1"]);
        assert_eq!(book.intervals.len(), 1);
        let identity = |address: &str| book.identity_of(address.parse().unwrap());
        assert_eq!(
            identity("10.0.0.5"),
            identity("10.0.0.6"),
            "a pod's address is in the block like any other"
        );
        assert_eq!(
            identity("10.0.0.7"),
            0,
            "the exception overrules the interval"
        );
        assert_ne!(
            identity("10.0.0.9"),
            identity("10.0.0.6"),
            "two blocks match it"
        );
        assert!(
            !book.addresses.contains_key(&"192.0.2.1".parse().unwrap()),
            "nothing asks about it"
        );
    }
}

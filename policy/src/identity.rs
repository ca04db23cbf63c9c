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
};

use ipnetwork::IpNetwork;

use crate::{
    model::{IpBlock, NamedPort, Namespaces, Peer},
    numbering,
    port::Protocol,
    ruleset::Family,
    selector::{Labels, Selector},
};

/// A question about a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Term {
    /// Is it a pod of these namespaces, with these labels?
    Pods(NamespaceScope, Selector),
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
}

/// A term's place among those in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TermId(usize);

/// The questions in force, each once however many policies ask it.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    ids: BTreeMap<Term, TermId>,
}

impl Terms {
    pub(crate) fn add(&mut self, term: Term) {
        let next = TermId(self.ids.len());
        self.ids.entry(term).or_insert(next);
    }

    pub(crate) fn id(&self, term: &Term) -> Option<TermId> {
        self.ids.get(term).copied()
    }
}

/// The answers for one address.
pub(crate) type Identity = BTreeSet<Fact>;

/// A pod's claim on an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) labels: &'a Labels,
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
    pub(crate) fn new(
        terms: &Terms,
        claims: &Claims<'_>,
        namespace_labels: impl Fn(&str) -> Labels,
    ) -> Self {
        let blocks = Blocks::cut(terms);
        let mut matcher = Matcher::new(terms, namespace_labels);
        let mut addresses: BTreeMap<IpAddr, Identity> = blocks
            .singles
            .iter()
            .map(|address| (*address, blocks.facts(*address)))
            .collect();
        for (address, claims) in claims {
            let mut identity = matcher.common(claims);
            identity.extend(blocks.facts(*address));
            addresses.insert(*address, identity);
        }
        Self::numbered(terms, addresses, &blocks)
    }

    fn numbered(terms: &Terms, addresses: BTreeMap<IpAddr, Identity>, blocks: &Blocks) -> Self {
        let by_id: Vec<&Term> = {
            let mut list: Vec<_> = terms.ids.iter().map(|(term, id)| (*id, term)).collect();
            list.sort_unstable_by_key(|(id, _)| *id);
            list.into_iter().map(|(_, term)| term).collect()
        };
        // Numbers follow from the terms themselves: their ids change when another policy comes into force.
        let content = |identity: &Identity| -> BTreeSet<(&Term, u16)> {
            identity
                .iter()
                .filter_map(|fact| match fact {
                    Fact::Matches(id) => Some((*by_id.get(id.0)?, 0)),
                    Fact::Port(id, number) => Some((*by_id.get(id.0)?, *number)),
                })
                .collect()
        };
        let distinct: BTreeSet<&Identity> = addresses
            .values()
            .chain(blocks.intervals.iter().map(|(_, _, identity)| identity))
            .filter(|identity| !identity.is_empty())
            .collect();
        let by_content: BTreeMap<BTreeSet<(&Term, u16)>, &Identity> = distinct
            .into_iter()
            .map(|identity| (content(identity), identity))
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
        for (first, last, identity) in &blocks.intervals {
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

    /// The identity of an address, 0 for none: the kernel's two lookups.
    #[cfg(test)]
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

/// Answers the questions that are about pods, remembering which of them a namespace rules out.
struct Matcher<'t, F> {
    terms: &'t Terms,
    namespace_labels: F,
    by_namespace: BTreeMap<String, Vec<(&'t Selector, TermId)>>,
}

impl<'t, F: Fn(&str) -> Labels> Matcher<'t, F> {
    fn new(terms: &'t Terms, namespace_labels: F) -> Self {
        Self {
            terms,
            namespace_labels,
            by_namespace: BTreeMap::new(),
        }
    }

    fn selectors(&mut self, namespace: &str) -> &[(&'t Selector, TermId)] {
        if !self.by_namespace.contains_key(namespace) {
            let labels = (self.namespace_labels)(namespace);
            let selectors = self
                .terms
                .ids
                .iter()
                .filter_map(|(term, id)| match term {
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

    fn facts(&mut self, claim: &Claim<'_>) -> Identity {
        let mut facts: Identity = self
            .selectors(claim.namespace)
            .iter()
            .filter(|(pods, _)| pods.matches(claim.labels))
            .map(|(_, id)| Fact::Matches(*id))
            .collect();
        for port in claim.ports {
            if let Some(id) = self.terms.id(&Term::Port(port.protocol, port.name.clone())) {
                facts.insert(Fact::Port(id, port.number));
            }
        }
        facts
    }

    /// What holds for every claimant: whoever sends from the address is then allowed no more than any of them.
    fn common(&mut self, claims: &[Claim<'_>]) -> Identity {
        let mut claims = claims.iter();
        let Some(first) = claims.next() else {
            return Identity::new();
        };
        let mut common = self.facts(first);
        for claim in claims {
            let facts = self.facts(claim);
            common.retain(|fact| facts.contains(fact));
        }
        common
    }
}

/// The blocks in force, cut into disjoint intervals. Whole-length prefixes (and exceptions) cut nothing: they are listed
/// as single addresses, which are looked up in the hash map.
#[derive(Debug, Default)]
struct Blocks {
    intervals: Vec<(IpAddr, IpAddr, Identity)>,
    singles: BTreeSet<IpAddr>,
    added: BTreeMap<IpAddr, Vec<TermId>>,
    excepted: BTreeMap<IpAddr, Vec<TermId>>,
}

impl Blocks {
    fn cut(terms: &Terms) -> Self {
        let mut blocks = Self::default();
        let mut ranges: BTreeMap<Family, Vec<(u128, u128, TermId)>> = BTreeMap::new();
        for (term, id) in &terms.ids {
            if let Term::Block(block) = term {
                let family = Family::of(block.cidr.network());
                blocks.take(block, *id, ranges.entry(family).or_default());
            }
        }
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

    fn take(&mut self, block: &IpBlock, id: TermId, ranges: &mut Vec<(u128, u128, TermId)>) {
        if is_single(&block.cidr) {
            self.added.entry(block.cidr.network()).or_default().push(id);
            return;
        }
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

    fn interval_of(&self, address: IpAddr) -> Option<&Identity> {
        let after = self
            .intervals
            .partition_point(|(first, _, _)| *first <= address);
        let (_, last, identity) = self.intervals.get(after.checked_sub(1)?)?;
        (address <= *last).then_some(identity)
    }

    fn facts(&self, address: IpAddr) -> Identity {
        let mut facts = self.interval_of(address).cloned().unwrap_or_default();
        for id in self.excepted.get(&address).into_iter().flatten() {
            facts.remove(&Fact::Matches(*id));
        }
        facts.extend(
            self.added
                .get(&address)
                .into_iter()
                .flatten()
                .map(|id| Fact::Matches(*id)),
        );
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
fn sweep(family: Family, ranges: Vec<(u128, u128, TermId)>) -> Vec<(IpAddr, IpAddr, Identity)> {
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
    let mut intervals: Vec<(IpAddr, IpAddr, Identity)> = Vec::new();
    let mut active = Identity::new();
    let mut edges = starts.into_iter().peekable();
    while let Some((first, (opened, closed))) = edges.next() {
        for id in closed {
            active.remove(&Fact::Matches(id));
        }
        active.extend(opened.into_iter().map(Fact::Matches));
        let last = edges.peek().map_or(highest, |(next, _)| next - 1);
        if !active.is_empty() {
            intervals.push((
                address(family, first),
                address(family, last),
                active.clone(),
            ));
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
            ports: &[],
        };
        let claims = pods
            .iter()
            .map(|address| (address.parse().unwrap(), vec![claim]))
            .collect();
        AddressBook::new(terms, &claims, |_| Labels::new())
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

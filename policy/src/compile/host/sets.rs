//! The sets that rules of host endpoints ask: the addresses of which a clause holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    identity::{AddressBook, Fact, Facts, Identity, Terms},
    numbering,
    ruleset::{Family, Field, Key, KeyType, Match, Name, Ruleset},
};

use super::super::{emit::add_set, lower::Clause};

/// Addresses by the form in which the kernel keeps them: single ones in a hash, intervals in a tree. Disjoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    singles: BTreeSet<IpAddr>,
    intervals: BTreeSet<(IpAddr, IpAddr)>,
}

/// Named sets by their content's meaning.
pub(super) struct Sets<'b> {
    book: &'b AddressBook,
    sets: BTreeMap<Name, (KeyType, BTreeSet<Key>)>,
}

/// Where several pods claim an address: whether a clause must hold of all of them or of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Claimants {
    All,
    Any,
}

impl<'b> Sets<'b> {
    pub(super) fn new(book: &'b AddressBook) -> Self {
        Self {
            book,
            sets: BTreeMap::new(),
        }
    }

    pub(super) fn book(&self) -> &'b AddressBook {
        self.book
    }

    pub(super) fn emit(self, ruleset: &mut Ruleset) {
        for (name, (key, elements)) in self.sets {
            if !elements.is_empty() {
                add_set(ruleset, &name, key, elements);
            }
        }
    }

    /// The addresses whose identity satisfies this.
    pub(super) fn addresses(&self, holds: impl Fn(&Identity) -> bool) -> Addresses {
        let holding: BTreeSet<u32> = self
            .book
            .identities
            .iter()
            .filter(|(_, identity)| holds(identity))
            .map(|(number, _)| *number)
            .collect();
        let intervals = self.book.intervals.iter();
        let intervals = intervals.filter(|interval| holding.contains(&interval.identity));
        let intervals: BTreeSet<_> = intervals.map(|one| (one.first, one.last)).collect();
        let covered = |address: &IpAddr| {
            let below = intervals.range(..=(*address, address_after_all(*address)));
            below.last().is_some_and(|(first, last)| {
                Family::of(*first) == Family::of(*address) && address <= last
            })
        };
        let singles = self.book.addresses.iter();
        let singles =
            singles.filter(|(address, number)| holding.contains(number) && !covered(address));
        Addresses {
            singles: singles.map(|(address, _)| *address).collect(),
            intervals,
        }
    }

    /// The addresses of which the clause holds, all of whose literals must ask for the same answer.
    pub(super) fn of_clause(
        &self,
        clause: &Clause,
        terms: &Terms,
        claimants: Claimants,
    ) -> Addresses {
        let asked: Vec<_> = clause
            .iter()
            .filter_map(|(_, term)| terms.id(term))
            .collect();
        let one = |facts: &Facts| asked.iter().any(|id| facts.contains(&Fact::Matches(*id)));
        self.addresses(|identity| match claimants {
            Claimants::All => identity.alternatives().all(one),
            Claimants::Any => identity.alternatives().any(one),
        })
    }

    /// The sets of these addresses in a family, under a name made of what they mean.
    fn named(&mut self, meaning: u64, addresses: &Addresses, family: Family) -> Vec<Name> {
        let digit = family.digit();
        let singles = addresses.singles.iter();
        let singles = singles.filter(|address| Family::of(**address) == family);
        let singles: BTreeSet<Key> = singles.map(|address| Key::Address(*address)).collect();
        let intervals = addresses.intervals.iter();
        let intervals = intervals.filter(|(first, _)| Family::of(*first) == family);
        let intervals: BTreeSet<Key> = intervals
            .map(|(first, last)| Key::range(*first, *last))
            .collect();
        let mut names = Vec::new();
        for (form, kind, elements) in [
            ("a", KeyType::Address(family), singles),
            ("n", KeyType::Range(family), intervals),
        ] {
            if !elements.is_empty() {
                let name = format!("host-{meaning:016x}-{form}{digit}");
                self.sets.insert(name.clone(), (kind, elements));
                names.push(name);
            }
        }
        names
    }

    /// The conditions for an address of this family to be among these, each sufficient and no two at once; or, all at
    /// once, for it not to be.
    pub(super) fn conditions(
        &mut self,
        meaning: &impl std::hash::Hash,
        addresses: &Addresses,
        field: fn(Family) -> Field,
        family: Family,
        wanted: bool,
    ) -> Vec<Vec<Match>> {
        let names = self.named(numbering::stable_hash64(meaning), addresses, family);
        let field = vec![field(family)];
        if wanted {
            let one = |name| vec![Match::In(field.clone(), name)];
            return names.into_iter().map(one).collect();
        }
        let none = |name| Match::NotIn(field.clone(), name);
        vec![names.into_iter().map(none).collect()]
    }
}

impl Addresses {
    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.singles.is_empty() && self.intervals.is_empty()
    }
}

/// The last address of the family, so that a pair with it comes after all pairs with the same first.
fn address_after_all(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::from([255; 4]),
        IpAddr::V6(_) => IpAddr::from([255; 16]),
    }
}

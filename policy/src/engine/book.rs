//! Addresses and their identities, kept up to date claim by claim and block by block.
//!
//! What an address's identity is follows from who claims it and which blocks it is in (`identity` tells how); here is
//! only which of them to look at again. Identities live as long as an address or an interval has them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{
    draft::Draft,
    peers::{Peers, ProfileId},
};
use crate::{
    compile::emit,
    identity::{Blocks, Facts, Identity, TermId, Terms},
    model::Cluster,
    numbering,
    ruleset::{Family, Key, Value},
};

/// Profiles in little space: an address has one claim, but for moments.
#[derive(Debug, Default)]
enum Claims {
    #[default]
    None,
    One(ProfileId),
    Several(Box<[ProfileId]>),
}

impl Claims {
    fn push(&mut self, id: ProfileId) {
        *self = match self.as_slice() {
            [] => Self::One(id),
            known => Self::Several(known.iter().copied().chain([id]).collect()),
        };
    }

    fn cut(&mut self, id: ProfileId) {
        let mut left = self.as_slice().to_vec();
        cut(&mut left, &id);
        *self = match left.as_slice() {
            [] => Self::None,
            [last] => Self::One(*last),
            _ => Self::Several(left.into()),
        };
    }

    fn as_slice(&self) -> &[ProfileId] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Several(all) => all,
        }
    }
}

/// The endpoints here that have an address, by their profiles; a closed one claims nothing for itself.
type Here = Vec<Option<ProfileId>>;

/// What is known of an address.
#[derive(Debug, Default)]
struct Entry {
    /// Claims by what the API shows.
    shown: Claims,
    /// The endpoints here that have it: they rule the others out. Most addresses are elsewhere.
    here: Option<Box<Here>>,
    /// The identity's number, 0 for none.
    identity: u32,
}

#[derive(Debug)]
struct Known {
    identity: Arc<Identity>,
    uses: usize,
}

/// Every address's identity.
#[derive(Debug, Default)]
pub(super) struct Book {
    addresses: BTreeMap<IpAddr, Entry>,
    /// The addresses of each profile, as often as it claims them.
    by_profile: HashMap<ProfileId, Vec<IpAddr>>,
    blocks: Blocks,
    /// The intervals that are in the table, with their identities.
    intervals: BTreeMap<(IpAddr, IpAddr), u32>,
    known: BTreeMap<u32, Known>,
    numbers: HashMap<Arc<Identity>, u32>,
    by_term: HashMap<TermId, BTreeSet<u32>>,
    dirty: BTreeSet<IpAddr>,
    /// Identities that have come since they were last asked for.
    pub(super) fresh: BTreeSet<u32>,
    unused: BTreeSet<u32>,
}

impl Book {
    // ----- claims -----

    pub(super) fn claim(&mut self, address: IpAddr, profile: ProfileId) {
        let entry = self.addresses.entry(address).or_default();
        entry.shown.push(profile);
        self.note(address, profile);
    }

    pub(super) fn unclaim(&mut self, address: IpAddr, profile: ProfileId) {
        if let Some(entry) = self.addresses.get_mut(&address) {
            entry.shown.cut(profile);
        }
        self.forget(address, profile);
    }

    /// An endpoint here has the address; without a profile it is closed.
    pub(super) fn claim_here(&mut self, address: IpAddr, profile: Option<ProfileId>) {
        let entry = self.addresses.entry(address).or_default();
        entry.here.get_or_insert_default().push(profile);
        self.dirty.insert(address);
        if let Some(profile) = profile {
            self.note(address, profile);
        }
    }

    pub(super) fn unclaim_here(&mut self, address: IpAddr, profile: Option<ProfileId>) {
        if let Some(entry) = self.addresses.get_mut(&address) {
            if let Some(here) = &mut entry.here {
                cut(here, &profile);
            }
            entry.here.take_if(|here| here.is_empty());
        }
        self.dirty.insert(address);
        if let Some(profile) = profile {
            self.forget(address, profile);
        }
    }

    fn note(&mut self, address: IpAddr, profile: ProfileId) {
        let addresses = self.by_profile.entry(profile).or_default();
        if addresses.is_empty() {
            // Most profiles are one pod's.
            addresses.reserve_exact(1);
        }
        addresses.push(address);
        self.dirty.insert(address);
    }

    fn forget(&mut self, address: IpAddr, profile: ProfileId) {
        if let Some(addresses) = self.by_profile.get_mut(&profile) {
            cut(addresses, &address);
            if addresses.is_empty() {
                self.by_profile.remove(&profile);
            }
        }
        self.dirty.insert(address);
    }

    /// The answers of these profiles have changed.
    pub(super) fn touch(&mut self, profiles: &BTreeSet<ProfileId>) {
        let addresses = profiles.iter().filter_map(|id| self.by_profile.get(id));
        self.dirty.extend(addresses.flatten());
    }

    // ----- blocks -----

    /// Cuts the blocks anew and looks at the addresses in what has changed.
    pub(super) fn cut_blocks(&mut self, terms: &Terms, cluster: &Cluster) {
        let blocks = Blocks::cut(terms, cluster);
        for range in blocks.differences(&self.blocks) {
            let within = self.addresses.range(range.0..=range.1);
            self.dirty.extend(within.map(|(address, _)| *address));
        }
        for address in blocks.different_singles(&self.blocks) {
            self.addresses.entry(address).or_default();
            self.dirty.insert(address);
        }
        self.blocks = blocks;
    }

    /// Brings the intervals of the table up to date.
    pub(super) fn settle_intervals(&mut self, terms: &Terms, draft: &mut Draft) {
        let mut wanted = BTreeMap::new();
        for (first, last, facts) in self.blocks.intervals().to_vec() {
            let number = self.use_identity(Identity::of(facts), terms);
            if number != 0 {
                wanted.insert((first, last), number);
            }
        }
        for ((first, last), number) in std::mem::take(&mut self.intervals) {
            if wanted.get(&(first, last)) != Some(&number) {
                draft.cut(networks(first), &Key::range(first, last));
            }
            self.leave_identity(number);
        }
        for ((first, last), number) in &wanted {
            let value = Value::Identity(*number);
            draft.put(networks(*first), Key::range(*first, *last), value);
        }
        self.intervals = wanted;
    }

    // ----- identities -----

    /// Brings the table's addresses up to date. Returns those whose identity has changed.
    pub(super) fn settle(
        &mut self,
        peers: &Peers,
        terms: &Terms,
        draft: &mut Draft,
    ) -> Vec<IpAddr> {
        let mut changed = Vec::new();
        for address in std::mem::take(&mut self.dirty) {
            let Some(entry) = self.addresses.get(&address) else {
                continue;
            };
            let is_single = self.blocks.is_single(address);
            let claimed = self.identity_by_claims(entry, address, peers);
            let is_claimed = claimed.is_some();
            let is_idle = !is_claimed && entry.here.is_none() && entry.shown.as_slice().is_empty();
            let before = entry.identity;
            let identity =
                claimed.or_else(|| is_single.then(|| Identity::of(self.blocks.facts(address))));
            let listed = identity.is_some();
            let number = identity.map_or(0, |identity| self.use_identity(identity, terms));
            self.leave_identity(before);
            if number != before {
                changed.push(address);
            }
            let (map, key) = (emit::addresses(Family::of(address)), Key::Address(address));
            // An address that overrules an interval needs its element even when nothing matches it: 0 is "no identity".
            if number != 0 || listed && self.blocks.interval_of(address).is_some() {
                draft.put(map, key, emit::identity_value(number));
            } else {
                draft.cut(map, &key);
            }
            if is_idle && !is_single {
                self.addresses.remove(&address);
            } else if let Some(entry) = self.addresses.get_mut(&address) {
                entry.identity = number;
            }
        }
        changed
    }

    fn identity_by_claims(
        &self,
        entry: &Entry,
        address: IpAddr,
        peers: &Peers,
    ) -> Option<Identity> {
        let around = self.blocks.facts(address);
        let facts = |id: &ProfileId| {
            let mut facts: Facts = peers.facts(*id).cloned().unwrap_or_default();
            facts.extend(around.iter().copied());
            facts
        };
        let alternatives: BTreeSet<Facts> = match &entry.here {
            None => entry.shown.as_slice().iter().map(facts).collect(),
            Some(here) => here.iter().flatten().map(facts).collect(),
        };
        (!alternatives.is_empty()).then(|| Identity::any_of(alternatives))
    }

    /// The number of an identity, for one use more.
    fn use_identity(&mut self, identity: Identity, terms: &Terms) -> u32 {
        if identity.is_nothing() {
            return 0;
        }
        if let Some(number) = self.numbers.get(&identity).copied() {
            if let Some(known) = self.known.get_mut(&number) {
                known.uses += 1;
            }
            self.unused.remove(&number);
            return number;
        }
        let content = identity.content(terms);
        let number = numbering::free(&content, |number| self.known.contains_key(&number));
        for fact in identity.alternatives().flatten() {
            self.by_term.entry(fact.term()).or_default().insert(number);
        }
        let identity = Arc::new(identity);
        self.numbers.insert(Arc::clone(&identity), number);
        self.known.insert(number, Known { identity, uses: 1 });
        self.fresh.insert(number);
        number
    }

    fn leave_identity(&mut self, number: u32) {
        if let Some(known) = self.known.get_mut(&number) {
            known.uses = known.uses.saturating_sub(1);
            if known.uses == 0 {
                self.unused.insert(number);
            }
        }
    }

    /// Lets go the identities that no address has any more, and returns them.
    pub(super) fn sweep(&mut self) -> Vec<(u32, Arc<Identity>)> {
        let mut gone = Vec::new();
        for number in std::mem::take(&mut self.unused) {
            let Some(known) = self.known.remove(&number) else {
                continue;
            };
            self.fresh.remove(&number);
            self.numbers.remove(&known.identity);
            for fact in known.identity.alternatives().flatten() {
                if let Some(numbers) = self.by_term.get_mut(&fact.term()) {
                    numbers.remove(&number);
                    if numbers.is_empty() {
                        self.by_term.remove(&fact.term());
                    }
                }
            }
            gone.push((number, known.identity));
        }
        gone
    }

    pub(super) fn identity(&self, number: u32) -> Option<&Arc<Identity>> {
        self.known.get(&number).map(|known| &known.identity)
    }

    /// The identity of an address that somebody claims.
    pub(super) fn identity_of(&self, address: IpAddr) -> Option<&Identity> {
        let number = self.addresses.get(&address)?.identity;
        self.known.get(&number).map(|known| &*known.identity)
    }

    /// The identities that answer a question.
    pub(super) fn answering(&self, term: TermId) -> impl Iterator<Item = u32> {
        self.by_term.get(&term).into_iter().flatten().copied()
    }
}

fn networks(address: IpAddr) -> &'static str {
    emit::networks(Family::of(address))
}

fn cut<T: PartialEq>(list: &mut Vec<T>, item: &T) {
    if let Some(at) = list.iter().position(|one| one == item) {
        list.swap_remove(at);
    }
}

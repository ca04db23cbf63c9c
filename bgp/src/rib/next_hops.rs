//! [`NextHops`]: every next hop in use, and what it costs to reach it.

use std::collections::HashMap;
use std::net::IpAddr;

use super::slab::Slab;

/// The number of a next hop. Equal addresses have equal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHopId(u32);

#[derive(Debug)]
struct Entry {
    address: IpAddr,
    /// `None`: cannot be reached.
    cost: Option<u32>,
    /// Somebody has told the cost; it outlives the routes.
    told: bool,
    /// How many attribute sets name it.
    users: u32,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            address: IpAddr::from([0; 4]),
            cost: Some(0),
            told: false,
            users: 0,
        }
    }
}

/// The next hops of all routes. One that nobody has said anything about is reachable at no cost.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    numbers: HashMap<IpAddr, u32>,
    entries: Slab<Entry>,
}

impl NextHops {
    /// The number of an address, for one more attribute set.
    pub(super) fn acquire(&mut self, address: IpAddr) -> NextHopId {
        let number = self.number(address);
        if let Some(entry) = self.entries.get_mut(number) {
            entry.users += 1;
        }
        NextHopId(number)
    }

    /// Takes back one [`NextHops::acquire`].
    pub(super) fn release(&mut self, NextHopId(number): NextHopId) {
        if let Some(entry) = self.entries.get_mut(number) {
            entry.users = entry.users.saturating_sub(1);
        }
        self.collect(number);
    }

    /// The cost of reaching it; `None`: it cannot be reached.
    pub(super) fn cost(&self, NextHopId(number): NextHopId) -> Option<u32> {
        self.entries.get(number)?.cost
    }

    /// Sets the cost of reaching an address; the number if that is news and any attribute set names it. `Some(0)` is what
    /// holds for those nobody told of, so it is not remembered.
    pub(super) fn set_cost(&mut self, address: IpAddr, cost: Option<u32>) -> Option<NextHopId> {
        if cost == Some(0) && !self.numbers.contains_key(&address) {
            return None;
        }
        let number = self.number(address);
        let entry = self.entries.get_mut(number)?;
        let before = std::mem::replace(&mut entry.cost, cost);
        entry.told = cost != Some(0);
        let news = before != cost && entry.users > 0;
        self.collect(number);
        news.then_some(NextHopId(number))
    }

    fn number(&mut self, address: IpAddr) -> u32 {
        let entries = &mut self.entries;
        *self.numbers.entry(address).or_insert_with(|| {
            entries.insert(Entry {
                address,
                ..Entry::default()
            })
        })
    }

    fn collect(&mut self, number: u32) {
        let unused = |entry: &Entry| !entry.told && entry.users == 0;
        if let Some(entry) = self.entries.get(number)
            && unused(entry)
        {
            self.numbers.remove(&entry.address);
            self.entries.remove(number);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }
}

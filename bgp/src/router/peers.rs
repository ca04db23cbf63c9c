//! The peers, and which of them is to be woken next.
//!
//! A thousand peers have a thousand timers, and every octet that arrives moves one of them. So peers that somebody had in hand
//! are noted, and their timers are put in order when the next one is asked for, not each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::PeerId;
use super::peer::Peer;

#[derive(Debug)]
struct Entry {
    /// In a box: nodes of the tree are half empty as a rule, and a peer is large.
    peer: Box<Peer>,
    /// In [`Peers::touched`].
    touched: bool,
    /// As it is in [`Peers::timers`].
    timer: Option<Instant>,
}

/// All peers by their numbers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    entries: BTreeMap<PeerId, Entry>,
    timers: BTreeSet<(Instant, PeerId)>,
    /// Whose timers may have changed.
    touched: Vec<PeerId>,
}

impl Peers {
    pub(super) fn get(&self, id: &PeerId) -> Option<&Peer> {
        self.entries.get(id).map(|entry| &*entry.peer)
    }

    pub(super) fn get_mut(&mut self, id: &PeerId) -> Option<&mut Peer> {
        let entry = self.entries.get_mut(id)?;
        touch(&mut self.touched, *id, &mut entry.touched);
        Some(&mut entry.peer)
    }

    /// Puts in a peer under a number that is not in use.
    pub(super) fn insert(&mut self, id: PeerId, peer: Peer) {
        let entry = Entry {
            peer: Box::new(peer),
            touched: true,
            timer: None,
        };
        self.touched.push(id);
        self.entries.insert(id, entry);
    }

    pub(super) fn remove(&mut self, id: &PeerId) -> Option<Peer> {
        let entry = self.entries.remove(id)?;
        if let Some(timer) = entry.timer {
            self.timers.remove(&(timer, *id));
        }
        Some(*entry.peer)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &PeerId> {
        self.entries.keys()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Peer> {
        self.entries.values().map(|entry| &*entry.peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PeerId, &Peer)> {
        self.entries.iter().map(|(id, entry)| (id, &*entry.peer))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&PeerId, &mut Peer)> {
        let touched = &mut self.touched;
        self.entries.iter_mut().map(|(id, entry)| {
            touch(touched, *id, &mut entry.touched);
            (id, &mut *entry.peer)
        })
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.iter_mut().map(|(_, peer)| peer)
    }

    /// When the next peer is to be woken.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        self.settle();
        self.timers.first().map(|(at, _)| *at)
    }

    /// Who is to be woken by now, the longest due first.
    pub(super) fn due(&mut self, now: Instant) -> Vec<PeerId> {
        self.settle();
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, id)| *id).collect()
    }

    fn settle(&mut self) {
        for id in self.touched.drain(..) {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            entry.touched = false;
            let timer = entry.peer.poll_timeout();
            if timer == entry.timer {
                continue;
            }
            if let Some(before) = std::mem::replace(&mut entry.timer, timer) {
                self.timers.remove(&(before, id));
            }
            if let Some(timer) = timer {
                self.timers.insert((timer, id));
            }
        }
    }
}

fn touch(touched: &mut Vec<PeerId>, id: PeerId, flag: &mut bool) {
    if !std::mem::replace(flag, true) {
        touched.push(id);
    }
}

#[cfg(test)]
impl std::ops::Index<&PeerId> for Peers {
    type Output = Peer;

    fn index(&self, id: &PeerId) -> &Peer {
        &self.entries[id].peer
    }
}

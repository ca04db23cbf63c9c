//! [`Group`]: peers that are given the same share what was announced and the messages that say so.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::chunk::Log;
use super::{Chunk, Exclusion, GroupKey, Outbound, Producer, Reader, Sent};
use crate::rib::{Pending, Rib, Table};
use crate::router::PeerId;
use crate::router::octets::Octets;

/// Octets handed out at a time, if there are as many.
const GATHER: usize = 64 * 1024;

/// With fewer chunks before a reader it is not worth while to look for destinations that are in several of them.
const REPETITION: u64 = 4;

/// Names a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::router) struct GroupId(u32);

/// Peers with the same [`GroupKey`].
#[derive(Debug)]
pub(in crate::router) struct Group {
    pub(in crate::router) key: Arc<GroupKey>,
    pub(in crate::router) out: Outbound,
    log: Log,
    /// All of them, also those apart.
    members: BTreeMap<PeerId, IpAddr>,
    addresses: BTreeSet<IpAddr>,
    /// The members that do not read the log.
    pub(in crate::router) apart: BTreeSet<PeerId>,
    /// The members to tell when there is something to read.
    pub(in crate::router) idle: Vec<PeerId>,
    /// Routes that this one is not given were not looked at when it was the only member: others would miss them here.
    pub(in crate::router) incomplete: Option<PeerId>,
}

impl Group {
    fn new(key: Arc<GroupKey>, table: &Table) -> Self {
        let sent = if key.alone.is_some() {
            Sent::paths()
        } else {
            Sent::shared()
        };
        Self {
            key,
            out: Outbound::new(Pending::new(table), sent),
            log: Log::default(),
            members: BTreeMap::new(),
            addresses: BTreeSet::new(),
            apart: BTreeSet::new(),
            idle: Vec::new(),
            incomplete: None,
        }
    }

    /// How many members read the log.
    pub(in crate::router) fn joined(&self) -> usize {
        self.members.len() - self.apart.len()
    }

    /// The members that read the log.
    pub(in crate::router) fn joined_members(&self) -> impl Iterator<Item = PeerId> {
        let members = self.members.keys().copied();
        members.filter(|id| !self.apart.contains(id))
    }

    /// The member that is alone in here.
    pub(in crate::router) fn lonely(&self) -> Option<Reader> {
        match self.members.first_key_value() {
            Some((id, address)) if self.members.len() == 1 => Some(Reader {
                id: *id,
                address: *address,
            }),
            _ => None,
        }
    }

    /// The number of the chunk that is written next.
    pub(in crate::router) fn end(&self) -> u64 {
        self.log.end()
    }

    /// Whether somebody is so far behind that the log is as long as it may be.
    pub(in crate::router) fn is_full(&self) -> bool {
        self.log.is_full()
    }

    /// Whether whoever reads on here is the one that holds up the rest.
    pub(in crate::router) fn is_last(&self, cursor: u64) -> bool {
        cursor == self.log.first()
    }

    /// Takes in a peer that knows nothing yet; the place it reads from if it can read the log.
    pub(in crate::router) fn enter(&mut self, reader: Reader) -> Option<u64> {
        self.members.insert(reader.id, reader.address);
        self.addresses.insert(reader.address);
        if self.out.sent.is_empty() && self.incomplete.is_none() {
            return Some(self.end());
        }
        self.apart.insert(reader.id);
        None
    }

    /// Takes in a peer that has been told things already.
    pub(in crate::router) fn enter_apart(&mut self, reader: Reader) {
        self.members.insert(reader.id, reader.address);
        self.addresses.insert(reader.address);
        self.apart.insert(reader.id);
    }

    /// A joined member knows now what the group knows.
    pub(in crate::router) fn join(
        &mut self,
        table: &mut Table,
        id: PeerId,
        apart: Outbound,
    ) -> u64 {
        apart.retire(table);
        self.apart.remove(&id);
        self.end()
    }

    /// A member that read up to `cursor` does not read on: what it has been told, and what it still has to be.
    pub(in crate::router) fn part(
        &mut self,
        table: &mut Table,
        reader: &Reader,
        cursor: u64,
    ) -> Outbound {
        let mut sent = self.out.sent.apart(table, reader);
        let mut pending = self.out.pending.copy(table);
        for number in cursor..self.end() {
            for id in self.log.get(number).iter().flat_map(|chunk| &chunk.touched) {
                sent.suppose(table, *id);
                pending.mark_surely(table, *id);
            }
        }
        self.log.done(table, cursor, self.end());
        self.apart.insert(reader.id);
        let mut out = Outbound::new(pending, sent);
        out.rest_until = self.out.rest_until;
        out
    }

    /// Whether what a reader has before it says the same twice, so that it is better told how things are now.
    pub(in crate::router) fn repeats_itself(&self, cursor: u64) -> bool {
        if self.end() - cursor < REPETITION {
            return false;
        }
        let touched = (cursor..self.end()).filter_map(|number| self.log.get(number));
        let mut seen = HashSet::new();
        let mut all = 0;
        for id in touched.flat_map(|chunk| &chunk.touched) {
            seen.insert(*id);
            all += 1;
        }
        all >= seen.len() * 2
    }

    /// What is next in the log for a reader; moves the cursor on and counts messages.
    pub(in crate::router) fn read(
        &mut self,
        table: &mut Table,
        reader: &Reader,
        cursor: &mut u64,
        messages: &mut u64,
    ) -> Option<Octets> {
        let mut pieces = Vec::new();
        let mut length = 0;
        let start = *cursor;
        while length < GATHER
            && let Some(chunk) = self.log.get(*cursor)
        {
            let before = pieces.len();
            *messages += chunk.read(reader, &mut pieces);
            length += pieces.iter().skip(before).map(Bytes::len).sum::<usize>();
            *cursor += 1;
        }
        self.log.done(table, start, *cursor);
        Octets::of(pieces)
    }

    /// Writes the next chunk. Says whether there was anything to write.
    pub(in crate::router) fn write(&mut self, rib: &mut Rib, now: Instant) -> bool {
        let chunk = self.produce(rib, now);
        let written = !chunk.is_empty();
        let readers = self.joined();
        self.log.push(rib.table_mut(), chunk, readers);
        written
    }

    fn produce(&mut self, rib: &mut Rib, now: Instant) -> Chunk {
        let lonely = self.lonely();
        let (members, addresses) = (&self.members, &self.addresses);
        let anyone = |exclusion: &Exclusion| {
            let address = exclusion.next_hop;
            members.contains_key(&PeerId(exclusion.source.0))
                || address.is_some_and(|address| addresses.contains(&address))
        };
        let resting = self.out.is_resting(now);
        let mut producer = Producer::new(&self.key, resting).lonely(lonely);
        let chunk = producer.produce(rib, &mut self.out, &anyone);
        if producer.incomplete {
            self.incomplete = self.incomplete.or(lonely.map(|only| only.id));
        }
        chunk
    }
}

/// All groups.
#[derive(Debug, Default)]
pub(in crate::router) struct Groups {
    groups: BTreeMap<GroupId, Group>,
    by_key: HashMap<Arc<GroupKey>, GroupId>,
    next: u32,
}

impl Groups {
    /// The group of a key, a new one if there is none.
    pub(in crate::router) fn of(&mut self, key: GroupKey, table: &Table) -> GroupId {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        // Skips those in use should the numbers ever have run through.
        while self.groups.contains_key(&GroupId(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let id = GroupId(self.next);
        self.next = self.next.wrapping_add(1);
        let key = Arc::new(key);
        self.groups.insert(id, Group::new(Arc::clone(&key), table));
        self.by_key.insert(key, id);
        id
    }

    /// How many there are.
    pub(in crate::router) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(in crate::router) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(in crate::router) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    pub(in crate::router) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub(in crate::router) fn iter_mut(&mut self) -> impl Iterator<Item = (GroupId, &mut Group)> {
        self.groups.iter_mut().map(|(id, group)| (*id, group))
    }

    /// A member that reads on at `cursor`, or is apart, is gone; so is the group if it was the last.
    pub(in crate::router) fn leave(
        &mut self,
        table: &mut Table,
        id: GroupId,
        peer: PeerId,
        cursor: Option<u64>,
    ) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        if let Some(cursor) = cursor {
            group.log.done(table, cursor, group.log.end());
        }
        if let Some(address) = group.members.remove(&peer) {
            group.addresses.remove(&address);
        }
        group.apart.remove(&peer);
        group.idle.retain(|idle| *idle != peer);
        if group.members.is_empty()
            && let Some(group) = self.groups.remove(&id)
        {
            self.by_key.remove(&group.key);
            group.log.retire(table);
            group.out.retire(table);
        }
    }
}

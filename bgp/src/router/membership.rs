//! Which peers share a group, and what the groups are told of changes.

use std::time::{Duration, Instant};

use super::attributes::ExportKey;
use super::outbound::{Apart, GroupId, GroupKey, Membership, Outbound, Place, Reader, Sent};
use super::peer::{Peer, Session};
use super::{PeerId, Router};
use crate::config::SpeakerConfig;
use crate::jitter::Jitter;
use crate::rib::{DestinationId, Neighbor, Pending, Rib, Source};
use crate::types::FamilySet;

impl GroupKey {
    /// The key of an established session.
    pub(super) fn of(config: &SpeakerConfig, id: PeerId, peer: &Peer, session: &Session) -> Self {
        Self::new(
            id,
            ExportKey::new(config, peer, session),
            session.context,
            peer.config.add_path.send,
            peer.config.min_advertisement_interval,
        )
    }
}

impl Outbound {
    /// After all that had changed was sent: the time before the next announcement begins.
    pub(super) fn rest(&mut self, now: Instant, interval: Duration, jitter: &mut Jitter) {
        if interval.is_zero() || !std::mem::take(&mut self.announced) {
            return;
        }
        self.rest_until = now.checked_add(jitter.spread(interval));
    }
}

impl Router {
    /// Gives a session that was just established its place: in a group that has nothing to tell yet, or apart from it.
    pub(super) fn enter_group(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let reader = peer.reader(id);
        let Some(session) = &peer.session else {
            return;
        };
        let key = GroupKey::of(&self.config, id, peer, session);
        let sent = own_sent(&key);
        let group_id = self.groups.of(key, self.rib.table());
        let Some(group) = self.groups.get_mut(group_id) else {
            return;
        };
        let place = match group.enter(reader) {
            Some(cursor) => Place::Joined(cursor),
            None => {
                let out = Outbound::new(Pending::new(self.rib.table()), sent);
                Place::Apart(Box::new(Apart::new(out)))
            }
        };
        if let Some(session) = &mut peer.session {
            session.membership = Some(Membership {
                group: group_id,
                place,
                idle: false,
                waited: false,
            });
        }
        self.note_others();
    }

    /// A session is over.
    pub(super) fn leave_group(&mut self, id: PeerId, membership: Membership) {
        let table = self.rib.table_mut();
        let cursor = match membership.place {
            Place::Joined(cursor) => Some(cursor),
            Place::Apart(apart) => {
                apart.out.retire(table);
                None
            }
        };
        self.groups.leave(table, membership.group, id, cursor);
        self.note_others();
    }

    /// The configuration has changed, and with it perhaps what a peer is given: the differences are sent.
    pub(super) fn regroup(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let Some(session) = &peer.session else {
            return;
        };
        let key = GroupKey::of(&self.config, id, peer, session);
        let group = session.membership.as_ref().map(|m| m.group);
        let same = |group: GroupId| self.groups.get(group).is_some_and(|g| *g.key == key);
        if group.is_none_or(same) {
            return;
        }
        self.set_apart(id, FamilySet::ALL);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let reader = peer.reader(id);
        let Some(membership) = peer.membership_mut() else {
            return;
        };
        let new = self.groups.of(key, self.rib.table());
        let old = std::mem::replace(&mut membership.group, new);
        self.groups.leave(self.rib.table_mut(), old, id, None);
        if let Some(group) = self.groups.get_mut(new) {
            group.enter_apart(reader);
        }
        self.arm(id);
    }

    /// Has every route of these families sent to a peer again, or withdrawn if it is not given any more; with `markers`
    /// between the messages that say so (RFC 7313).
    pub(super) fn feed_again(&mut self, id: PeerId, families: FamilySet, markers: bool) {
        self.set_apart(id, families);
        let session = self.peers.get_mut(&id).and_then(|p| p.session.as_mut());
        let Some(session) = session else {
            return;
        };
        let carried = session.negotiated.families;
        if markers
            && let Some(Place::Apart(apart)) = session.membership.as_mut().map(|m| &mut m.place)
        {
            for family in families.intersection(carried).iter() {
                // One that comes while the last one is being answered starts it over (RFC 7313 section 4).
                apart.refreshing.remove(&(family, true));
                apart.refreshing.insert((family, false));
            }
        }
        self.arm(id);
    }

    /// Has every route sent again to the peers of groups of this kind.
    pub(super) fn feed_groups(&mut self, concerned: impl Fn(&GroupKey) -> bool) {
        let mut apart = Vec::new();
        let mut woken = Vec::new();
        for (id, group) in self.groups.iter_mut() {
            if concerned(&group.key) {
                let pending = &mut group.out.pending;
                pending.walk_again(self.rib.table(), FamilySet::ALL);
                apart.extend(group.apart.iter().copied());
                woken.push(id);
            }
        }
        woken.into_iter().for_each(|id| self.wake(id));
        for id in apart {
            self.feed_again(id, FamilySet::ALL, false);
        }
    }

    /// Gives a peer a state of its own, with everything of these families to be looked at.
    fn set_apart(&mut self, id: PeerId, families: FamilySet) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let reader = peer.reader(id);
        let Some(membership) = peer.membership_mut() else {
            return;
        };
        if let Place::Joined(cursor) = membership.place
            && let Some(group) = self.groups.get_mut(membership.group)
        {
            let out = group.part(self.rib.table_mut(), &reader, cursor);
            group.idle.retain(|idle| *idle != id);
            membership.idle = false;
            membership.place = Place::Apart(Box::new(Apart::new(out)));
        }
        if let Place::Apart(apart) = &mut membership.place {
            apart.out.pending.walk_again(self.rib.table(), families);
        }
    }

    /// Tells every group, and every peer apart from its group, that these destinations changed.
    pub(super) fn spread_to_groups(&mut self, changed: &[DestinationId]) {
        let mut woken = Vec::new();
        let mut armed = Vec::new();
        for (id, group) in self.groups.iter_mut() {
            let lonely = group.lonely();
            let mut news = false;
            let key_is_plain = group.key.alone.is_none();
            for destination in changed {
                let best = Best::of(&self.rib, *destination);
                let known = group.out.sent.knows(*destination);
                if !known && !best.concerns(&group.key) {
                    continue;
                }
                if let Some(only) = lonely.filter(|only| key_is_plain && best.is_from(only))
                    && !known
                {
                    group.incomplete = group.incomplete.or(Some(only.id));
                    continue;
                }
                group.out.pending.mark(self.rib.table_mut(), *destination);
                news = true;
            }
            if news && group.joined() > 0 {
                woken.push(id);
            }
            for peer in &group.apart {
                let membership = self.peers.get_mut(peer).and_then(Peer::membership_mut);
                let place = membership.map(|m| &mut m.place);
                let Some(Place::Apart(apart)) = place else {
                    continue;
                };
                let mut news = false;
                for destination in changed {
                    let known = apart.out.sent.knows(*destination);
                    if known || Best::of(&self.rib, *destination).concerns(&group.key) {
                        apart.out.pending.mark(self.rib.table_mut(), *destination);
                        news = true;
                    }
                }
                if news {
                    armed.push(*peer);
                }
            }
        }
        woken.into_iter().for_each(|id| self.wake(id));
        armed.into_iter().for_each(|id| self.arm(id));
    }

    /// Tells the groups with ADD-PATH of paths that changed behind the best one.
    pub(super) fn spread_others(&mut self) {
        let others = self.rib.take_others();
        if others.is_empty() {
            return;
        }
        let mut armed = Vec::new();
        for (_, group) in self.groups.iter_mut() {
            if group.key.alone.is_none() {
                continue;
            }
            for id in &others {
                group.out.pending.mark(self.rib.table_mut(), *id);
            }
            armed.extend(group.joined_members());
            for peer in &group.apart {
                let membership = self.peers.get_mut(peer).and_then(Peer::membership_mut);
                if let Some(Place::Apart(apart)) = membership.map(|m| &mut m.place) {
                    for id in &others {
                        apart.out.pending.mark(self.rib.table_mut(), *id);
                    }
                    armed.push(*peer);
                }
            }
        }
        armed.into_iter().for_each(|id| self.arm(id));
    }

    /// Whether somebody is sent several paths has perhaps changed.
    fn note_others(&mut self) {
        let wanted = self.groups.iter().any(|group| group.key.alone.is_some());
        self.rib.note_others(wanted);
    }

    /// How many routes a peer has from us.
    pub(super) fn prefixes_sent(&self, id: PeerId, peer: &Peer) -> u64 {
        let reader = peer.reader(id);
        let membership = peer.session.as_ref().and_then(|s| s.membership.as_ref());
        match membership {
            None => 0,
            Some(Membership {
                place: Place::Apart(apart),
                ..
            }) => apart.out.sent.count(&reader),
            Some(Membership { group, .. }) => {
                let group = self.groups.get(*group);
                group.map_or(0, |group| group.out.sent.count(&reader))
            }
        }
    }

    /// When announcements that had to wait may be sent.
    pub(super) fn poll_rest(&self) -> Option<Instant> {
        let apart = |peer: &PeerId| match &self
            .peers
            .get(peer)?
            .session
            .as_ref()?
            .membership
            .as_ref()?
            .place
        {
            Place::Apart(apart) => waits(&apart.out),
            Place::Joined(_) => None,
        };
        let groups = self
            .groups
            .iter()
            .filter(|group| !group.key.interval.is_zero());
        groups
            .flat_map(|group| {
                let apart = group.apart.iter().filter_map(apart);
                apart.chain(waits(&group.out))
            })
            .min()
    }

    /// Lets announcements go that had to wait.
    pub(super) fn end_rests(&mut self, now: Instant) {
        let due = |out: &mut Outbound| {
            let due = out.rest_until.is_some_and(|until| until <= now);
            if due {
                out.rest_until = None;
            }
            due && out.pending.has_work()
        };
        let mut woken = Vec::new();
        let mut armed = Vec::new();
        for (id, group) in self.groups.iter_mut() {
            if group.key.interval.is_zero() {
                continue;
            }
            if due(&mut group.out) {
                woken.push(id);
            }
            for peer in &group.apart {
                let membership = self.peers.get_mut(peer).and_then(Peer::membership_mut);
                let place = membership.map(|m| &mut m.place);
                if let Some(Place::Apart(apart)) = place
                    && due(&mut apart.out)
                {
                    armed.push(*peer);
                }
            }
        }
        woken.into_iter().for_each(|id| self.wake(id));
        armed.into_iter().for_each(|id| self.arm(id));
    }
}

/// Who gave the best path of a destination.
enum Best {
    None,
    Own,
    Of(Source, Option<Neighbor>),
}

impl Best {
    fn of(rib: &Rib, id: DestinationId) -> Self {
        match rib
            .table()
            .get(id)
            .and_then(|destination| destination.best().copied())
        {
            None => Self::None,
            Some(path) if path.source().is_local() => Self::Own,
            Some(path) => Self::Of(path.source(), rib.neighbor(path.source())),
        }
    }

    /// Whether peers with this key may be given something. In a full mesh this keeps the routes of internal peers out of
    /// every internal peer's queue.
    fn concerns(&self, key: &GroupKey) -> bool {
        match self {
            Self::None => false,
            Self::Own => true,
            // With ADD-PATH there may be others behind the best one.
            Self::Of(..) if key.alone.is_some() => true,
            Self::Of(_, neighbor) => neighbor.is_none_or(|from| key.export.may_concern(&from)),
        }
    }

    fn is_from(&self, reader: &Reader) -> bool {
        matches!(self, Self::Of(source, _) if *source == reader.id.source())
    }
}

fn own_sent(key: &GroupKey) -> Sent {
    if key.alone.is_some() {
        Sent::paths()
    } else {
        Sent::own()
    }
}

fn waits(out: &Outbound) -> Option<Instant> {
    out.rest_until.filter(|_| out.pending.has_work())
}

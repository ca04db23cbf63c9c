//! What is sent on a connection next: messages of the state machine first, then routes, packed by attribute set.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::export::Export;
use super::peer::{Peer, Session};
use super::{ConnectionId, PeerId, Router};
use crate::config::SpeakerConfig;
use crate::rib::{DestinationId, Rib, Route};
use crate::types::Prefix;
use crate::wire::{self, Context, Message, Nlri, Reach, Update};

/// Destinations worked on at a time: enough to fill messages even when the attribute sets come in no order, little enough
/// that the result is a modest buffer and no other peer waits for long.
const BATCH: usize = 2048;

/// Routes of one batch with the same attributes and family, going into the same messages.
struct Group {
    route: Arc<Route>,
    members: Vec<(DestinationId, Prefix)>,
}

/// One batch, sorted into what is to be withdrawn and what is to be announced together.
#[derive(Default)]
struct Batch {
    withdrawn: Vec<Nlri>,
    groups: Vec<Group>,
    gone: Vec<DestinationId>,
}

impl Router {
    /// The next octets for a connection, some tens of kilobytes at most as a rule. `None`: there is nothing to send for now,
    /// and [`super::Output::Transmit`] will say when there is.
    pub fn transmit(&mut self, connection: ConnectionId) -> Option<Bytes> {
        let ConnectionId { peer: id, serial } = connection;
        let peer = self.peers.get_mut(&id)?;
        let line = peer.line_mut(serial)?;
        if !line.control.is_empty() {
            return Some(line.control.split().freeze());
        }
        if peer.session_on(serial).is_some() && self.deferral.is_none() {
            let mut out = BytesMut::new();
            while out.is_empty() && self.next_batch(id, &mut out) {}
            if out.is_empty() {
                self.end_of_feed(id, &mut out);
            }
            if !out.is_empty() {
                return Some(out.freeze());
            }
        }
        self.peers.get_mut(&id)?.disarm(serial);
        None
    }

    /// Works on one batch of destinations; false if there was none.
    fn next_batch(&mut self, id: PeerId, out: &mut BytesMut) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        // Out of the peer for the while: the export reads the peer and the table, the view holds on to the table's numbers.
        let Some(mut session) = peer.session.take() else {
            return false;
        };
        let work = session.view.has_work();
        if work {
            let taken = session.view.take(self.rib.table_mut(), BATCH);
            let batch = sort(&self.config, &self.rib, peer, id, &session, &taken);
            write(batch, &mut session, &mut self.rib, peer, out);
        }
        peer.session = Some(session);
        work
    }

    /// Once everything there was at the start has been sent: End-of-RIB for every family (RFC 4724 section 2), which helps
    /// the peer's convergence whether or not graceful restart is in use.
    fn end_of_feed(&mut self, id: PeerId, out: &mut BytesMut) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(session) = &mut peer.session else {
            return;
        };
        if std::mem::replace(&mut session.end_of_rib_sent, true) {
            return;
        }
        for family in session.negotiated.families.iter() {
            if wire::encode(&Message::EndOfRib(family), &session.context, out).is_ok() {
                peer.sent.update += 1;
            }
        }
    }
}

fn sort(
    config: &SpeakerConfig,
    rib: &Rib,
    peer: &Peer,
    id: PeerId,
    session: &Session,
    taken: &[DestinationId],
) -> Batch {
    let mut export = Export::new(config, peer, session, id.source(), rib);
    let mut batch = Batch::default();
    let mut group_of = HashMap::new();
    for id in taken {
        let Some(destination) = rib.table().get(*id) else {
            continue;
        };
        let prefix = destination.prefix();
        match export.route(&destination) {
            Some(route) => {
                let key = (Arc::as_ptr(&route), prefix.family());
                let group = *group_of.entry(key).or_insert_with(|| {
                    batch.groups.push(Group {
                        route,
                        members: Vec::new(),
                    });
                    batch.groups.len() - 1
                });
                batch.groups[group].members.push((*id, prefix));
            }
            None => {
                if session.view.knows(*id) {
                    batch.withdrawn.push(prefix.into());
                }
                batch.gone.push(*id);
            }
        }
    }
    batch
}

fn write(batch: Batch, session: &mut Session, rib: &mut Rib, peer: &mut Peer, out: &mut BytesMut) {
    let Batch {
        mut withdrawn,
        groups,
        gone,
    } = batch;
    let mut announced = BytesMut::new();
    let mut settled: Vec<(DestinationId, bool)> = gone.into_iter().map(|id| (id, false)).collect();
    for Group { route, members } in groups {
        let sent = announce(&route, &members, &session.context, &mut announced);
        peer.sent.update += sent.unwrap_or(0);
        if sent.is_none() {
            // The attributes do not fit a message. What cannot be announced must not stay announced as it was.
            let known = members.iter().filter(|(id, _)| session.view.knows(*id));
            withdrawn.extend(known.map(|(_, prefix)| Nlri::from(*prefix)));
        }
        settled.extend(members.into_iter().map(|(id, _)| (id, sent.is_some())));
    }
    if !withdrawn.is_empty() {
        let update = Update {
            withdrawn,
            ..Update::default()
        };
        // Withdrawals have no part that could be too long: they are spread over as many messages as they need.
        let count = wire::encode(&Message::Update(update), &session.context, out).unwrap_or(0);
        peer.sent.update += count as u64;
    }
    out.unsplit(announced);
    for (id, known) in settled {
        session.view.settle(rib.table_mut(), id, known);
    }
}

/// Writes a group and returns how many messages it took.
fn announce(
    route: &Route,
    members: &[(DestinationId, Prefix)],
    context: &Context,
    out: &mut BytesMut,
) -> Option<u64> {
    let (_, first) = members.first()?;
    let reach = Reach {
        family: first.family(),
        next_hop: route.next_hop?,
        nlri: members
            .iter()
            .map(|(_, prefix)| Nlri::from(*prefix))
            .collect(),
    };
    let update = Update {
        withdrawn: Vec::new(),
        reach: vec![reach],
        attributes: route.attributes.clone(),
    };
    let count = wire::encode(&Message::Update(update), context, out).ok()?;
    Some(count as u64)
}

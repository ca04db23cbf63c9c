//! What peers have been told, and what they still have to be: the Adj-RIBs-Out.
//!
//! Peers that are given the same share a [`Group`]: one record of what was announced, and one stream of encoded messages
//! ([`Log`]) that each member reads at its own pace. What differs between the members of a group is only who a route comes
//! from, so every part of the stream says who does not hear it (see [`Exclusion`] and [`Audience`]).
//!
//! A member that knows something else than the stream it would read (a new one, one that fell too far behind, one that asked
//! for everything again, one whose policy changed) is *apart*: it has an [`Outbound`] of its own until it has been told all
//! there is, and then joins the group. Whether apart or joined, what a peer costs is bounded: by the size of the table in
//! bits, or by [`Log`]'s limit for the whole group.
//!
//! | file | what |
//! |---|---|
//! | `sent` | which routes were announced, and to whom not |
//! | `chunk` | a batch of encoded messages with its audiences, and the log of them |
//! | `produce` | from destinations that changed to a chunk |
//! | `group` | members that share a state and a log |

mod chunk;
mod group;
mod produce;
mod sent;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::PeerId;
use super::attributes::ExportKey;
use crate::rib::{Pending, Source, Table};
use crate::types::{Family, FamilySet};
use crate::wire::Context;

pub(super) use chunk::Chunk;
pub(super) use group::{GroupId, Groups};
pub(super) use produce::Producer;
pub(super) use sent::Sent;

/// Everything that decides which octets a peer is sent for a route: peers with equal keys share a [`Group`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    /// What becomes of routes.
    pub(super) export: ExportKey,
    /// How they are written.
    pub(super) context: Context,
    /// Most paths of a prefix for families with ADD-PATH (RFC 7911).
    pub(super) paths: u8,
    /// With ADD-PATH every peer is a group of its own: a group's members are told of a route or not, one and all.
    pub(super) alone: Option<PeerId>,
    /// Least time between two announcements (RFC 4271 section 9.2.1.1); zero: no such limit.
    pub(super) interval: Duration,
}

impl GroupKey {
    pub(super) fn new(
        id: PeerId,
        export: ExportKey,
        context: Context,
        paths: u8,
        interval: Duration,
    ) -> Self {
        // How the session is read has nothing to do with what is written on it.
        let context = Context {
            add_path_receive: FamilySet::EMPTY,
            ..context
        };
        let adds_paths = !context.add_path_send.is_empty();
        Self {
            export,
            context,
            paths: if adds_paths { paths.max(1) } else { 1 },
            alone: adds_paths.then_some(id),
            interval,
        }
    }

    /// How many paths of a prefix the peers are given at most; `None`: the best one, without an identifier.
    pub(super) fn paths_of(&self, family: Family) -> Option<usize> {
        let adds_paths = self.context.add_path_send.contains(family);
        adds_paths.then_some(self.paths.into())
    }
}

/// Whoever reads what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) id: PeerId,
    pub(super) address: IpAddr,
}

/// Who is not given a route that all others in the group are: the peer it came from, and the peer that is its next hop. Said
/// without regard to who is in the group now, so that it stays true when somebody joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Exclusion {
    pub(super) source: Source,
    pub(super) next_hop: Option<IpAddr>,
}

impl Exclusion {
    pub(super) fn has(&self, reader: &Reader) -> bool {
        self.source == reader.id.source() || self.next_hop == Some(reader.address)
    }
}

/// Who hears a part of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Audience {
    /// Everybody but these.
    pub(super) without: Exclusion,
    /// And of those only these.
    pub(super) among: Option<Exclusion>,
}

impl Audience {
    pub(super) fn without(exclusion: Exclusion) -> Self {
        Self {
            without: exclusion,
            among: None,
        }
    }

    pub(super) fn has(&self, reader: &Reader) -> bool {
        !self.without.has(reader) && self.among.is_none_or(|among| among.has(reader))
    }
}

/// What was announced, and what has to be looked at: of a group, or of one peer apart from it.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) pending: Pending,
    pub(super) sent: Sent,
    /// No announcement before (RFC 4271 section 9.2.1.1).
    pub(super) rest_until: Option<Instant>,
    /// Something was announced since the last rest.
    pub(super) announced: bool,
}

impl Outbound {
    pub(super) fn new(pending: Pending, sent: Sent) -> Self {
        Self {
            pending,
            sent,
            rest_until: None,
            announced: false,
        }
    }

    /// Whether announcements have to wait.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        self.rest_until.is_some_and(|until| now < until)
    }

    pub(super) fn retire(self, table: &mut Table) {
        self.sent.retire(table);
        self.pending.retire(table);
    }
}

/// An established session's place among those that are told of routes.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) group: GroupId,
    pub(super) place: Place,
    /// The group knows that the peer has nothing to send, and tells it when that changes.
    pub(super) idle: bool,
    /// It has waited for slower members of the group once.
    pub(super) waited: bool,
}

/// Where a peer reads from.
#[derive(Debug)]
pub(super) enum Place {
    /// From the group's log; the number of the next chunk.
    Joined(u64),
    /// From a state of its own.
    Apart(Box<Apart>),
}

/// A peer that is not, or not yet, where its group is.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) out: Outbound,
    /// Families being sent again on request, and whether the peer was told that it begins (RFC 7313).
    pub(super) refreshing: BTreeSet<(Family, bool)>,
}

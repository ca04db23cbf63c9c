//! The other nodes' blocks with room, in the order in which this node would borrow from them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Family;

/// A block with room. Ordered by what is compared first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Room {
    pub(super) family: Family,
    room: Reverse<u32>,
    /// Another order on each node: those that borrow at the same time rarely meet.
    spread: u64,
    pub(super) name: Arc<str>,
}

impl Room {
    pub(super) fn new(node: &str, family: Family, name: Arc<str>, room: u32) -> Self {
        let bytes = node.bytes().chain([0]).chain(name.bytes());
        let spread = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self {
            family,
            room: Reverse(room),
            spread,
            name,
        }
    }
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Rooms(BTreeSet<Room>);

impl Rooms {
    /// Puts a block in, if it has room.
    pub(super) fn insert(&mut self, room: Room) {
        if room.room.0 > 0 {
            self.0.insert(room);
        }
    }

    pub(super) fn remove(&mut self, room: &Room) {
        self.0.remove(room);
    }

    /// Those of a family, in order.
    pub(super) fn of_family(&self, family: Family) -> impl Iterator<Item = &Room> {
        let first = Room {
            family,
            room: Reverse(u32::MAX),
            spread: 0,
            name: "".into(),
        };
        self.0
            .range(first..)
            .take_while(move |room| room.family == family)
    }
}

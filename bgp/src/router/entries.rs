//! The paths of the RIB for people: all of them, or those somebody asks for, in slices.
//!
//! A slice is a bounded amount of work, so that whoever looks at a million routes keeps no session waiting. What changes
//! between two slices is seen or not; no path that stays is left out or told twice, since destinations keep their numbers.

use std::net::IpAddr;

use super::Router;
use super::view::RibEntry;
use crate::rib::{DEFAULT_LOCAL_PREF, Destination, DestinationId, Path};
use crate::types::Prefix;

/// Destinations that a slice passes at most.
const VISITS: u32 = 8192;
/// Paths in a slice. Those of the last destination may exceed it.
const ENTRIES: usize = 512;

/// Which destinations are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RibPrefix {
    /// This one.
    Exact(Prefix),
    /// The longest one that covers the address.
    Covering(IpAddr),
}

/// Which paths are asked for; by default all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RibQuery {
    /// Only to this destination.
    pub prefix: Option<RibPrefix>,
    /// Only those learned from this peer.
    pub neighbor: Option<IpAddr>,
}

/// Some of the paths asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RibSlice {
    /// The paths, those of one destination together, the best of them first.
    pub entries: Vec<RibEntry>,
    /// Where to go on; none: that was all.
    pub next: Option<DestinationId>,
}

impl Router {
    /// Every path held, ordered by prefix. Walks the whole RIB in one go.
    #[must_use]
    pub fn rib(&self) -> Vec<RibEntry> {
        let query = RibQuery::default();
        let mut entries = Vec::new();
        let mut next = Some(DestinationId(0));
        while let Some(from) = next {
            let slice = self.rib_slice(&query, from);
            entries.extend(slice.entries);
            next = slice.next;
        }
        sort(&mut entries);
        entries
    }

    /// Some of the paths asked for, beginning with a destination: 0, or where the slice before says.
    #[must_use]
    pub fn rib_slice(&self, query: &RibQuery, from: DestinationId) -> RibSlice {
        let mut slice = RibSlice::default();
        if let Some(prefix) = query.prefix {
            let id = match prefix {
                RibPrefix::Exact(prefix) => self.rib.table().find(&prefix),
                RibPrefix::Covering(address) => self.covering(address),
            };
            if let Some(id) = id {
                self.take_entries(query, id, &mut slice.entries);
            }
            return slice;
        }
        let end = self.rib.table().end();
        for number in from.0..end.0 {
            if number - from.0 >= VISITS || slice.entries.len() >= ENTRIES {
                slice.next = Some(DestinationId(number));
                break;
            }
            self.take_entries(query, DestinationId(number), &mut slice.entries);
        }
        slice
    }

    fn covering(&self, address: IpAddr) -> Option<DestinationId> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (0..=longest).rev().find_map(|length| {
            let prefix = Prefix::new(address, length).ok()?;
            let id = self.rib.table().find(&prefix)?;
            let destination = self.rib.table().get(id)?;
            (!destination.paths().is_empty()).then_some(id)
        })
    }

    fn take_entries(&self, query: &RibQuery, id: DestinationId, entries: &mut Vec<RibEntry>) {
        let Some(destination) = self.rib.table().get(id) else {
            return;
        };
        let before = entries.len();
        for path in destination.paths() {
            let neighbor = self.rib.neighbor(path.source());
            let address = neighbor.map(|neighbor| neighbor.address);
            if query.neighbor.is_none() || query.neighbor == address {
                entries.push(self.entry(&destination, path));
            }
        }
        sort(entries.get_mut(before..).unwrap_or_default());
    }

    fn entry(&self, destination: &Destination<'_>, path: &Path) -> RibEntry {
        let route = self.rib.route(path.effective());
        let attributes = &route.attributes;
        RibEntry {
            prefix: destination.prefix(),
            next_hop: route.next_hop.map(|next_hop| next_hop.address()),
            peer: self
                .rib
                .neighbor(path.source())
                .map(|neighbor| neighbor.address),
            path_id: Some(path.path_id()).filter(|id| *id != 0),
            stale: path.is_stale(),
            long_lived_stale: path.is_long_lived_stale(),
            best: path.is_best(),
            multipath: path.is_multipath(),
            accepted: path.is_accepted(),
            refused: path.refusal(),
            as_path: attributes.as_path.to_string(),
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            med: attributes.med,
            communities: attributes
                .communities
                .iter()
                .map(ToString::to_string)
                .collect(),
            large_communities: attributes
                .large_communities
                .iter()
                .map(ToString::to_string)
                .collect(),
            extended_communities: attributes
                .extended_communities
                .iter()
                .map(ToString::to_string)
                .collect(),
            metric: route.metric,
            originator_id: attributes.originator_id,
            cluster_list: attributes.cluster_list.clone(),
        }
    }
}

/// By prefix, the best path first.
pub(crate) fn sort(entries: &mut [RibEntry]) {
    entries.sort_by_key(|entry| (entry.prefix, !entry.best, entry.peer));
}

//! Peers whose connections must not be accepted, for a reason that lies with this host.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Router;
use super::peer::Peer;
use crate::types::Prefix;

impl Router {
    /// Has every incoming connection from these networks refused, and no others. The reason, for people, is to be seen in the
    /// state of a peer that is configured by its address.
    pub fn bar(&mut self, barred: BTreeMap<Prefix, String>) {
        self.barred = barred;
    }

    /// Whether anybody is barred.
    #[must_use]
    pub fn bars_somebody(&self) -> bool {
        !self.barred.is_empty()
    }

    /// Why connections from an address are refused, if they are. What holds for a range is not for a peer in it that is
    /// configured by its address.
    pub(super) fn barred(&self, address: IpAddr) -> Option<&str> {
        if self.barred.is_empty() {
            return None;
        }
        let host = Prefix::host(address);
        let exact = self.barred.get(&host);
        let mut peers = self.peers.values();
        let is_listed = |peer: &Peer| peer.address == address && peer.range.is_none();
        if exact.is_some() || peers.any(is_listed) {
            return exact.map(String::as_str);
        }
        let ranges = self.config.ranges.keys();
        let range = ranges.filter(|range| range.contains(&host));
        let range = range.max_by_key(|range| range.length())?;
        self.barred.get(range).map(String::as_str)
    }
}

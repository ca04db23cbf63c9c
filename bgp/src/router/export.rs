//! Which route a peer is given for a destination, if any.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::import::apply;
use super::peer::{Peer, Session};
use crate::config::{NextHopMode, SpeakerConfig};
use crate::policy::Operation;
use crate::rib::{DEFAULT_LOCAL_PREF, Destination, Path, Route, Source};
use crate::types::{Community, Family};
use crate::wire::NextHop;

/// What an attribute set made for a peer depends on: the set it comes from, the operations applied, whether it is our own, and
/// the family, which our own next hop depends on.
type Recipe = (*const Route, *const [Operation], bool, Family);

/// What a peer is given, worked out for a batch of destinations.
pub(super) struct Export<'a> {
    config: &'a SpeakerConfig,
    peer: &'a Peer,
    session: &'a Session,
    source: Source,
    /// Whether a source is an internal peer.
    is_internal: &'a dyn Fn(Source) -> bool,
    /// Attribute sets already made for this peer: same input, same operations, same output.
    made: HashMap<Recipe, Option<Arc<Route>>>,
}

impl<'a> Export<'a> {
    pub(super) fn new(
        config: &'a SpeakerConfig,
        peer: &'a Peer,
        session: &'a Session,
        source: Source,
        is_internal: &'a dyn Fn(Source) -> bool,
    ) -> Self {
        Self {
            config,
            peer,
            session,
            source,
            is_internal,
            made: HashMap::new(),
        }
    }

    /// The route to give for `destination`; `None` if there is none, or none for this peer. Equal results share one value.
    pub(super) fn route(&mut self, destination: &Destination) -> Option<Arc<Route>> {
        let family = destination.prefix.family();
        if !self.session.negotiated.families.contains(family) {
            return None;
        }
        let path = destination.best()?;
        if !self.may_pass(path) {
            return None;
        }
        let operations: &[Operation] = match &self.peer.config.export {
            Some(filter) => filter.decide(&destination.prefix)?,
            // RFC 8212: to another AS only what somebody decided to give.
            None if !self.peer.internal && self.config.require_policy => return None,
            None => &[],
        };
        let key = (
            Arc::as_ptr(&path.effective),
            std::ptr::from_ref(operations),
            path.source.is_local(),
            family,
        );
        if let Some(made) = self.made.get(&key) {
            return made.clone();
        }
        let made = self.make(path, operations, family).map(Arc::new);
        self.made.insert(key, made.clone());
        made
    }

    fn may_pass(&self, path: &Path) -> bool {
        // Not back to whoever gave it, and not from one internal peer to another (RFC 4271 section 9.2). Route reflection
        // (RFC 4456) would make its exception here.
        if path.source == self.source || (self.peer.internal && (self.is_internal)(path.source)) {
            return false;
        }
        let communities = &path.effective.attributes.communities;
        let says = |community| communities.contains(&community);
        if says(Community::NO_ADVERTISE) {
            return false;
        }
        self.peer.internal || !(says(Community::NO_EXPORT) || says(Community::NO_EXPORT_SUBCONFED))
    }

    fn make(&self, path: &Path, operations: &[Operation], family: Family) -> Option<Route> {
        let local = path.source.is_local();
        let mut attributes = path.effective.attributes.clone();
        if self.peer.internal {
            attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
        } else {
            // Section 5.1.4: a MED from one neighbouring AS is not for another.
            if !local {
                attributes.med = None;
            }
            attributes.as_path = attributes.as_path.prepended(self.config.asn, 1);
            attributes.originator_id = None;
            attributes.cluster_list.clear();
        }
        apply(operations, &mut attributes);
        if !self.peer.internal {
            attributes.local_pref = None;
        }
        let next_hop = self.next_hop(path, family)?;
        // Section 5.1.3: a peer is never told to send packets to itself.
        if next_hop.address() == self.peer.address {
            return None;
        }
        Some(Route {
            next_hop: Some(next_hop),
            attributes,
        })
    }

    fn next_hop(&self, path: &Path, family: Family) -> Option<NextHop> {
        let own = || self.own_next_hop(family).map(NextHop::from);
        let keep = match self.peer.config.next_hop {
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => self.peer.internal || path.source.is_local(),
        };
        let kept = path.effective.next_hop.filter(|_| keep);
        let next_hop = kept.or_else(own)?;
        (Family::of(&next_hop.address()) == family).then_some(next_hop)
    }

    /// This speaker's own address for a family, as the peer can reach it.
    fn own_next_hop(&self, family: Family) -> Option<IpAddr> {
        if Family::of(&self.session.local) == family {
            return Some(self.session.local);
        }
        match family {
            Family::Ipv4Unicast => self.config.next_hop.ipv4.map(IpAddr::V4),
            Family::Ipv6Unicast => self.config.next_hop.ipv6.map(IpAddr::V6),
        }
    }
}

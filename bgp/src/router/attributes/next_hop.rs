//! Which next hop a peer is given (RFC 4271 section 5.1.3, RFC 2545, RFC 8950).

use std::net::{IpAddr, Ipv6Addr};

use super::{Facts, Provenance};
use crate::config::{NextHopMode, SpeakerConfig};
use crate::policy::Refusal;
use crate::rib::Route;
use crate::types::{Family, Prefix};
use crate::wire::NextHop;

/// Everything that decides which next hop peers are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NextHopPolicy {
    mode: NextHopMode,
    internal: bool,
    /// This speaker's own address for each family, as the peers can reach it.
    own_ipv4: Option<NextHop>,
    own_ipv6: Option<NextHop>,
    /// IPv4 routes may have IPv6 next hops.
    extended: bool,
    /// The network that this speaker shares with external peers, and may share with next hops.
    segment: Option<Prefix>,
}

impl NextHopPolicy {
    pub(super) fn new(config: &SpeakerConfig, mode: NextHopMode, facts: &Facts) -> Self {
        let &Facts {
            internal,
            extended_next_hop: extended,
            local,
            remote,
            ..
        } = facts;
        let shared = |segment: &&Prefix| {
            !internal && segment.contains_address(&local) && segment.contains_address(&remote)
        };
        let local = own(local);
        let here = |family| (Family::of(&local.address()) == family).then_some(local);
        let configured_ipv4 = config.next_hop.ipv4.map(NextHop::V4);
        let configured_ipv6 = config.next_hop.ipv6.map(|a| NextHop::from(IpAddr::V6(a)));
        Self {
            mode,
            internal,
            own_ipv4: here(Family::Ipv4Unicast)
                // Who is spoken to at a link-local address need not know the configured one.
                .or(here(Family::Ipv6Unicast)
                    .filter(|own| extended && is_link_local(&own.address())))
                .or(configured_ipv4)
                .or(here(Family::Ipv6Unicast).filter(|_| extended)),
            own_ipv6: here(Family::Ipv6Unicast).or(configured_ipv6),
            extended,
            segment: config.shared_segments.iter().find(shared).copied(),
        }
    }

    /// The next hop to give with a route; `transparent`: rather the one it has.
    pub(super) fn choose(
        &self,
        from: Provenance,
        route: &Route,
        family: Family,
        transparent: bool,
    ) -> Result<NextHop, Refusal> {
        let own = match family {
            Family::Ipv4Unicast => self.own_ipv4,
            Family::Ipv6Unicast => self.own_ipv6,
        };
        let keeps = |next_hop: &NextHop| {
            let self_wanted = self.mode == NextHopMode::SelfAddress;
            (transparent && !self_wanted && !is_link_local(&next_hop.address()))
                || self.keeps(from, next_hop)
        };
        let kept = route.next_hop.filter(keeps);
        kept.or(own)
            .filter(|next_hop| self.fits(next_hop, family))
            .ok_or(Refusal::NoNextHop)
    }

    fn keeps(&self, from: Provenance, next_hop: &NextHop) -> bool {
        // A link-local address means something on its own link only.
        if from != Provenance::Local && is_link_local(&next_hop.address()) {
            return false;
        }
        let third_party =
            || matches!(self.segment, Some(s) if s.contains_address(&next_hop.address()));
        match self.mode {
            NextHopMode::SelfAddress => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => self.internal || from == Provenance::Local || third_party(),
        }
    }

    fn fits(&self, next_hop: &NextHop, family: Family) -> bool {
        Family::of(&next_hop.address()) == family
            || (family == Family::Ipv4Unicast && self.extended)
    }
}

/// Our address on a session as a next hop. One that is link-local is said in both places, as other routers do.
fn own(local: IpAddr) -> NextHop {
    match local {
        IpAddr::V6(address) if is_link_local(&local) => NextHop::V6 {
            global: address,
            link_local: Some(address),
        },
        _ => local.into(),
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if Ipv6Addr::is_unicast_link_local(address))
}

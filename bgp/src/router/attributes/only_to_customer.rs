//! ONLY_TO_CUSTOMER (RFC 9234 section 5): a route that once went down or sideways goes down only.
//!
//! Roles are for sessions between ASes; whoever calls sees to that.

use crate::config::PeerRole;
use crate::policy::Refusal;
use crate::types::Asn;

/// What becomes of the attribute of a route that came from the peer. `role` is ours.
pub(super) fn received(
    role: PeerRole,
    peer_asn: Asn,
    attribute: Option<Asn>,
) -> Result<Option<Asn>, Refusal> {
    match (role, attribute) {
        // From a customer: it had the route from another provider, or from a peer.
        (PeerRole::Provider | PeerRole::RouteServer, Some(_)) => Err(Refusal::RouteLeak),
        (PeerRole::Peer, Some(asn)) if asn != peer_asn => Err(Refusal::RouteLeak),
        (PeerRole::Provider | PeerRole::RouteServer, None) => Ok(None),
        (PeerRole::Customer | PeerRole::Peer | PeerRole::RouteServerClient, attribute) => {
            Ok(Some(attribute.unwrap_or(peer_asn)))
        }
    }
}

/// Whether a route with this attribute may go to the peer.
pub(super) fn may_leave(role: PeerRole, attribute: Option<Asn>) -> bool {
    let down = matches!(role, PeerRole::Provider | PeerRole::RouteServer);
    down || attribute.is_none()
}

/// The attribute of a route that goes to the peer. `own` is the AS the peer knows us by.
pub(super) fn leaving(role: PeerRole, own: Asn, attribute: Option<Asn>) -> Option<Asn> {
    let marks = matches!(
        role,
        PeerRole::Provider | PeerRole::Peer | PeerRole::RouteServer
    );
    attribute.or(marks.then_some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_procedures_of_section_5() {
        use PeerRole::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        let (own, peer, other) = (Asn(1), Asn(2), Asn(3));
        let leak = Err(Refusal::RouteLeak);
        let none = Ok(None);
        let mark = Ok(Some(peer));
        // Ours; received without, with the peer's AS, with another; may leave with it; marked as ours on its way out.
        for (role, plain, same, different, leaves, marked) in [
            (Provider, none, leak, leak, true, true),
            (RouteServer, none, leak, leak, true, true),
            (Peer, mark, mark, leak, false, true),
            (Customer, mark, mark, Ok(Some(other)), false, false),
            (RouteServerClient, mark, mark, Ok(Some(other)), false, false),
        ] {
            assert_eq!(received(role, peer, None), plain, "{role:?}");
            assert_eq!(received(role, peer, Some(peer)), same, "{role:?}");
            assert_eq!(received(role, peer, Some(other)), different, "{role:?}");
            assert_eq!(may_leave(role, Some(other)), leaves, "{role:?}");
            assert!(may_leave(role, None));
            assert_eq!(leaving(role, own, None), marked.then_some(own), "{role:?}");
            assert_eq!(leaving(role, own, Some(other)), Some(other), "{role:?}");
        }
    }
}

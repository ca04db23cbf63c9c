//! Our OPEN, and what both OPENs together mean.

use std::time::Duration;

use crate::config::{AddPath, GracefulRestart, LONGEST_LONG_LIVED_TIME, PeerAsn, PeerRole};
use crate::types::{Asn, Family, FamilySet, RouterId};
use crate::wire::{self, AddPathMode, Capability, Notification, Open};

use super::event::{Negotiated, PeerLongLived, PeerRestart};

/// What a session needs to know of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our AS.
    pub local_asn: Asn,
    /// Our BGP Identifier.
    pub router_id: RouterId,
    /// The AS the peer must present.
    pub peer_asn: PeerAsn,
    /// Never connect, only accept.
    pub passive: bool,
    /// Hold time to propose, in seconds: 0 or at least 3.
    pub hold_time: u16,
    /// Time between KEEPALIVEs before jitter; `None`: a third of the negotiated hold time.
    pub keepalive: Option<Duration>,
    /// The longest the peer may leave what it is sent unread (RFC 9687); zero: for ever. `None`: 8 minutes, or twice the
    /// negotiated hold time if that is more, and for ever without a hold time.
    pub send_hold: Option<Duration>,
    /// Time between two attempts to connect, before jitter.
    pub connect_retry: Duration,
    /// The families to offer.
    pub families: FamilySet,
    /// What to say about graceful restart, if anything.
    pub graceful_restart: Option<GracefulRestart>,
    /// Without that, say that the peer may restart.
    pub helps_restart: bool,
    /// Several paths for one prefix (RFC 7911).
    pub add_path: AddPath,
    /// Offer IPv6 next hops for IPv4 routes (RFC 8950).
    pub extended_next_hop: bool,
    /// Our part in the relation with the peer (RFC 9234).
    pub role: Option<PeerRole>,
    /// The peer must say its part.
    pub role_strict: bool,
}

impl Settings {
    /// Whether the peer is in our AS.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.peer_asn.is_internal(self.local_asn)
    }
}

/// The OPEN these settings call for.
pub(super) fn build(settings: &Settings) -> Open {
    let mut capabilities: Vec<_> = settings
        .families
        .iter()
        .map(Capability::Multiprotocol)
        .collect();
    capabilities.push(Capability::RouteRefresh);
    capabilities.push(Capability::EnhancedRouteRefresh);
    capabilities.push(Capability::ExtendedMessage);
    capabilities.push(Capability::FourOctetAsn(settings.local_asn));
    capabilities.extend(offers(settings));
    capabilities.extend(restarts(settings));
    Open {
        asn: settings.local_asn,
        hold_time: settings.hold_time,
        router_id: settings.router_id,
        capabilities,
    }
}

/// What is announced by who only helps. A NOTIFICATION is no restart unless somebody asks for that.
const HELPER: GracefulRestart = GracefulRestart {
    restart_time: 0,
    restarting: false,
    forwarding_preserved: false,
    notification: false,
    long_lived_time: 0,
    long_lived_partial: false,
};

/// Whether we restart, and how long our routes may be kept (RFC 4724, RFC 9494). A capability without families says that
/// only the peer's are kept.
fn restarts(settings: &Settings) -> impl Iterator<Item = Capability> {
    let announced = |restart: GracefulRestart, families: FamilySet| {
        let family = |family: Family| wire::GracefulRestartFamily {
            family,
            forwarding: restart.forwarding_preserved,
        };
        Capability::GracefulRestart(wire::GracefulRestart {
            restarting: restart.restarting,
            notification: restart.notification,
            restart_time: restart.restart_time.min(4095),
            families: families.iter().map(family).collect(),
        })
    };
    let restart = match settings.graceful_restart {
        Some(restart) => Some(announced(restart, settings.families)),
        None if settings.helps_restart => Some(announced(HELPER, FamilySet::EMPTY)),
        None => None,
    };
    let long_lived = settings.graceful_restart.filter(|r| r.is_long_lived());
    let long_lived = long_lived.map(|restart| {
        let family = |family: Family| wire::LongLivedFamily {
            family,
            forwarding: restart.forwarding_preserved,
            stale_time: restart.long_lived_time.min(LONGEST_LONG_LIVED_TIME),
        };
        Capability::LongLivedGracefulRestart(settings.families.iter().map(family).collect())
    });
    restart.into_iter().chain(long_lived)
}

/// The capabilities that depend on the configuration of the peer.
fn offers(settings: &Settings) -> impl Iterator<Item = Capability> {
    let next_hop = (settings.extended_next_hop && settings.families.contains(Family::Ipv4Unicast))
        .then(|| {
            Capability::ExtendedNextHop(vec![wire::ExtendedNextHop {
                family: Family::Ipv4Unicast,
                next_hop_afi: Family::Ipv6Unicast.afi(),
            }])
        });
    let mode = match (settings.add_path.receive, settings.add_path.sends()) {
        (true, true) => Some(AddPathMode::Both),
        (true, false) => Some(AddPathMode::Receive),
        (false, true) => Some(AddPathMode::Send),
        (false, false) => None,
    };
    let families = settings.families;
    let add_path = mode
        .map(|mode| Capability::AddPath(families.iter().map(|family| (family, mode)).collect()));
    let role = settings
        .role
        .map(|role| Capability::Role(role.capability()));
    [next_hop, add_path, role].into_iter().flatten()
}

/// Checks the peer's OPEN (RFC 4271 section 6.2) and works out what holds for the session.
pub(super) fn negotiate(settings: &Settings, peer: &Open) -> Result<Negotiated, Refused> {
    // AS_TRANS stands for an AS that the capability would have named (RFC 6793 section 4.2.3); without it nobody is named.
    if !settings.peer_asn.admits(settings.local_asn, peer.asn) {
        return Err(Refused::new(
            Notification::bad_peer_as(),
            format!(
                "peer announced AS {}, {} is configured",
                peer.asn, settings.peer_asn
            ),
        ));
    }
    let internal = peer.asn == settings.local_asn;
    // Equal identifiers are allowed between ASes (RFC 6286 section 2.1).
    let same = peer.router_id == settings.router_id && internal;
    if peer.router_id == RouterId(0) || same {
        let why = if same {
            "which is ours"
        } else {
            "which nobody may have"
        };
        return Err(Refused::new(
            Notification::bad_router_id(),
            format!("peer announced router id {}, {why}", peer.router_id),
        ));
    }
    if matches!(peer.hold_time, 1 | 2) {
        return Err(Refused::new(
            Notification::unacceptable_hold_time(),
            format!(
                "peer announced hold time {} s, 3 s is the least",
                peer.hold_time
            ),
        ));
    }
    check_role(settings, peer, internal)?;
    let families = common_families(settings, peer)?;
    let hold_time = peer.hold_time.min(settings.hold_time);
    let third = Duration::from_secs(hold_time.into()) / 3;
    Ok(Negotiated {
        peer_id: peer.router_id,
        peer_asn: peer.asn,
        internal,
        hold_time,
        keepalive: settings
            .keepalive
            .map_or(third, |configured| configured.min(third)),
        four_octet_asn: peer
            .find(|c| matches!(c, Capability::FourOctetAsn(_)).then_some(()))
            .is_some(),
        families,
        route_refresh: peer.has(&Capability::RouteRefresh),
        graceful_restart: common_restart(settings, peer),
        long_lived: common_long_lived(settings, peer, families),
        enhanced_refresh: peer.has(&Capability::EnhancedRouteRefresh),
        extended_messages: peer.has(&Capability::ExtendedMessage),
        extended_next_hop: settings.extended_next_hop && takes_ipv6_next_hops(peer),
        add_path_receive: add_path(
            peer,
            families,
            settings.add_path.receive,
            AddPathMode::sends,
        ),
        add_path_send: add_path(
            peer,
            families,
            settings.add_path.sends(),
            AddPathMode::receives,
        ),
        peer_role: role_of(peer),
    })
}

/// Why a peer's OPEN ends the session: what the peer is told, and what people are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) notification: Notification,
    pub(super) reason: String,
}

impl Refused {
    fn new(notification: Notification, reason: String) -> Self {
        Self {
            notification,
            reason,
        }
    }
}

/// The families whose routes one side sends with path identifiers and the other takes.
fn add_path(
    peer: &Open,
    families: FamilySet,
    ours: bool,
    theirs: fn(AddPathMode) -> bool,
) -> FamilySet {
    if !ours {
        return FamilySet::EMPTY;
    }
    let named = peer.find(|capability| match capability {
        Capability::AddPath(list) => Some(
            list.iter()
                .filter(|(_, mode)| theirs(*mode))
                .map(|(family, _)| *family)
                .collect::<FamilySet>(),
        ),
        _ => None,
    });
    named.map_or(FamilySet::EMPTY, |named| named.intersection(families))
}

fn takes_ipv6_next_hops(peer: &Open) -> bool {
    peer.find(|capability| match capability {
        Capability::ExtendedNextHop(list) => list
            .iter()
            .any(|e| e.family == Family::Ipv4Unicast && e.next_hop_afi == Family::Ipv6Unicast.afi())
            .then_some(()),
        _ => None,
    })
    .is_some()
}

fn role_of(peer: &Open) -> Option<wire::Role> {
    peer.find(|capability| match capability {
        Capability::Role(role) => Some(*role),
        _ => None,
    })
}

/// RFC 9234 section 4.2. Roles are for sessions between ASes.
fn check_role(settings: &Settings, peer: &Open, internal: bool) -> Result<(), Refused> {
    let Some(ours) = settings.role.filter(|_| !internal) else {
        return Ok(());
    };
    let refused = |reason| Err(Refused::new(Notification::role_mismatch(), reason));
    let several = peer
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Role(role) => Some(*role),
            _ => None,
        });
    let said: Vec<_> = several.collect();
    match said.as_slice() {
        [] if settings.role_strict => refused(format!(
            "peer announced no role, and role {ours:?} is strict"
        )),
        [] => Ok(()),
        [theirs, rest @ ..] if rest.iter().any(|other| other != theirs) => {
            refused("peer announced several roles".to_owned())
        }
        [theirs, ..] if !ours.fits(*theirs) => refused(format!(
            "peer announced role {theirs:?}, which does not fit our role {ours:?}"
        )),
        _ => Ok(()),
    }
}

/// Graceful restart is for both to announce: a peer that was not told of it does not expect its routes to be kept.
fn common_restart(settings: &Settings, peer: &Open) -> Option<PeerRestart> {
    let helper = settings.helps_restart.then_some(HELPER);
    let ours = settings.graceful_restart.or(helper)?;
    peer.find(|capability| {
        let Capability::GracefulRestart(restart) = capability else {
            return None;
        };
        let forwarding = restart.families.iter().filter(|f| f.forwarding);
        Some(PeerRestart {
            time: Duration::from_secs(restart.restart_time.into()),
            families: restart.families.iter().map(|f| f.family).collect(),
            forwarding: forwarding.map(|f| f.family).collect(),
            restarting: restart.restarting,
            notification: ours.notification && restart.notification,
        })
    })
}

/// What the peer announced about long-lived graceful restart. It counts only if both announced it, and only together with
/// graceful restart (RFC 9494 section 4.5).
fn common_long_lived(
    settings: &Settings,
    peer: &Open,
    families: FamilySet,
) -> Option<PeerLongLived> {
    settings
        .graceful_restart
        .filter(GracefulRestart::is_long_lived)?;
    common_restart(settings, peer)?;
    peer.find(|capability| {
        let Capability::LongLivedGracefulRestart(all) = capability else {
            return None;
        };
        let mut announced = PeerLongLived::default();
        for entry in all.iter().filter(|entry| families.contains(entry.family)) {
            if entry.forwarding {
                announced.forwarding.insert(entry.family);
            }
            if entry.stale_time > 0 {
                let time = Duration::from_secs(entry.stale_time.into());
                announced.times.insert(entry.family, time);
            }
        }
        Some(announced)
    })
}

/// The families both sides offer. A peer that offers none by capability speaks IPv4 unicast (RFC 4760 section 8).
fn common_families(settings: &Settings, peer: &Open) -> Result<FamilySet, Refused> {
    let offered = |capability: &Capability| match capability {
        Capability::Multiprotocol(family) => Some(*family),
        _ => None,
    };
    let multiprotocol = peer.capabilities.iter().any(|c| {
        matches!(
            c,
            Capability::Multiprotocol(_) | Capability::Unknown { code: 1, .. }
        )
    });
    let theirs: FamilySet = if multiprotocol {
        peer.capabilities.iter().filter_map(offered).collect()
    } else {
        FamilySet::only(Family::Ipv4Unicast)
    };
    let common = settings.families.intersection(theirs);
    if !common.is_empty() {
        return Ok(common);
    }
    // A session that can carry nothing helps nobody; say what would have made it useful (RFC 5492 section 3).
    let wanted: Vec<u8> = settings
        .families
        .iter()
        .flat_map(|family| {
            let [high, low] = family.afi().to_be_bytes();
            [1, 4, high, low, 0, family.safi()]
        })
        .collect();
    let names = |set: FamilySet| {
        let names: Vec<_> = set.iter().map(|family| family.to_string()).collect();
        names.join(", ")
    };
    Err(Refused::new(
        Notification::unsupported_capability(&wanted),
        format!(
            "no address family in common: peer announced [{}], [{}] is configured",
            names(theirs),
            names(settings.families)
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            local_asn: Asn(64512),
            router_id: RouterId(0x0a00_0001),
            peer_asn: Asn(64513).into(),
            passive: false,
            hold_time: 90,
            keepalive: None,
            send_hold: None,
            connect_retry: Duration::from_secs(5),
            families: FamilySet::ALL,
            graceful_restart: None,
            helps_restart: false,
            add_path: AddPath::default(),
            extended_next_hop: false,
            role: None,
            role_strict: false,
        }
    }

    fn open() -> Open {
        let peer = Settings {
            local_asn: Asn(64513),
            router_id: RouterId(0x0a00_0002),
            ..settings()
        };
        build(&peer)
    }

    #[test]
    fn what_ends_a_session_at_its_open() {
        type Change = fn(&mut Settings, &mut Open);
        let table: [(&str, Change, u8); 8] = [
            ("another AS", |_, o| o.asn = Asn(64999), 2),
            (
                "AS 0",
                |s, o| (s.peer_asn, o.asn) = (Asn(0).into(), Asn(0)),
                2,
            ),
            (
                "AS_TRANS",
                |s, o| (s.peer_asn, o.asn) = (Asn::TRANS.into(), Asn::TRANS),
                2,
            ),
            ("identifier 0", |_, o| o.router_id = RouterId(0), 3),
            (
                "our identifier in our AS",
                |s, o| {
                    (s.peer_asn, o.asn) = (s.local_asn.into(), s.local_asn);
                    o.router_id = s.router_id;
                },
                3,
            ),
            ("hold time 1", |_, o| o.hold_time = 1, 6),
            ("hold time 2", |_, o| o.hold_time = 2, 6),
            (
                "no family in common",
                |s, o| {
                    s.families = FamilySet::only(Family::Ipv6Unicast);
                    o.capabilities.clear();
                },
                7,
            ),
        ];
        for (what, change, subcode) in table {
            let (mut settings, mut open) = (settings(), open());
            change(&mut settings, &mut open);
            let error = negotiate(&settings, &open).unwrap_err().notification;
            assert_eq!((error.code, error.subcode), (2, subcode), "{what}");
        }
    }

    #[test]
    fn our_identifier_in_another_as_is_fine() {
        let mut open = open();
        open.router_id = settings().router_id;
        assert!(negotiate(&settings(), &open).is_ok());
    }

    #[test]
    fn the_smaller_hold_time_counts_and_zero_switches_it_off() {
        for (ours, theirs, expected, keepalive) in [
            (90, 180, 90, 30_000),
            (90, 9, 9, 3_000),
            (90, 0, 0, 0),
            (4, 90, 4, 1_333),
        ] {
            let settings = Settings {
                hold_time: ours,
                ..settings()
            };
            let mut open = open();
            open.hold_time = theirs;
            let negotiated = negotiate(&settings, &open).unwrap();
            assert_eq!(negotiated.hold_time, expected);
            assert_eq!(negotiated.keepalive.as_millis(), keepalive);
        }
    }

    #[test]
    fn a_peer_without_capabilities_speaks_ipv4_and_two_octets() {
        let mut open = open();
        open.capabilities.clear();
        let negotiated = negotiate(&settings(), &open).unwrap();
        assert_eq!(negotiated.families, FamilySet::only(Family::Ipv4Unicast));
        assert!(!negotiated.four_octet_asn && !negotiated.route_refresh);
        assert_eq!(negotiated.graceful_restart, None);
    }

    /// The graceful restart capabilities of an OPEN.
    fn restarts_of(settings: &Settings) -> (Option<wire::GracefulRestart>, Option<usize>) {
        let open = build(settings);
        let restart = open.find(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart.clone()),
            _ => None,
        });
        let long_lived = open.find(|capability| match capability {
            Capability::LongLivedGracefulRestart(all) => Some(all.len()),
            _ => None,
        });
        (restart, long_lived)
    }

    #[test]
    fn who_only_helps_a_restart_names_no_family() {
        let nothing = settings();
        assert_eq!(restarts_of(&nothing), (None, None));
        let helps = Settings {
            helps_restart: true,
            ..settings()
        };
        let (announced, long_lived) = restarts_of(&helps);
        assert_eq!(announced, Some(wire::GracefulRestart::default()));
        assert_eq!(long_lived, None);
        let restarts = Settings {
            graceful_restart: Some(GracefulRestart::default()),
            ..helps.clone()
        };
        assert_eq!(restarts_of(&restarts).0.unwrap().families.len(), 2);
        // The other one's routes are kept by who helps, and not over a NOTIFICATION; who does neither keeps nothing.
        let open = build(&Settings {
            local_asn: Asn(64513),
            router_id: RouterId(2),
            ..restarts.clone()
        });
        let kept = negotiate(&helps, &open).unwrap().graceful_restart.unwrap();
        assert_eq!(kept.families, FamilySet::ALL);
        assert_eq!((kept.time.as_secs(), kept.notification), (120, false));
        let both = negotiate(&restarts, &open).unwrap();
        assert!(both.graceful_restart.unwrap().notification);
        assert_eq!(both.long_lived, None);
        let none = negotiate(&nothing, &open).unwrap();
        assert_eq!(none.graceful_restart, None);
    }

    #[test]
    fn long_lived_graceful_restart_needs_both_sides_and_graceful_restart() {
        let long_lived = |seconds| Settings {
            graceful_restart: Some(GracefulRestart {
                long_lived_time: seconds,
                forwarding_preserved: true,
                ..GracefulRestart::default()
            }),
            ..settings()
        };
        assert_eq!(restarts_of(&long_lived(0)).1, None);
        assert_eq!(restarts_of(&long_lived(3600)).1, Some(2));
        let mut open = build(&Settings {
            local_asn: Asn(64513),
            router_id: RouterId(2),
            ..long_lived(3600)
        });
        let agreed = negotiate(&long_lived(1), &open).unwrap().long_lived;
        let agreed = agreed.unwrap();
        // What counts is the time of the one whose routes are kept.
        assert_eq!(
            agreed.times[&Family::Ipv4Unicast],
            Duration::from_secs(3600)
        );
        assert_eq!(agreed.forwarding, FamilySet::ALL);
        assert_eq!(negotiate(&long_lived(0), &open).unwrap().long_lived, None);
        open.capabilities
            .retain(|capability| !matches!(capability, Capability::GracefulRestart(_)));
        assert_eq!(negotiate(&long_lived(1), &open).unwrap().long_lived, None);
        // Families without a time are not kept, and need not be named at all.
        let mut open = build(&Settings {
            local_asn: Asn(64513),
            router_id: RouterId(2),
            ..long_lived(3600)
        });
        for capability in &mut open.capabilities {
            if let Capability::LongLivedGracefulRestart(all) = capability {
                all.retain(|entry| entry.family == Family::Ipv6Unicast);
                all.iter_mut().for_each(|entry| entry.stale_time = 0);
            }
        }
        let agreed = negotiate(&long_lived(1), &open).unwrap().long_lived;
        let agreed = agreed.unwrap();
        assert!(agreed.times.is_empty());
        assert_eq!(agreed.forwarding, FamilySet::only(Family::Ipv6Unicast));
    }

    #[test]
    fn add_path_needs_a_sender_and_a_receiver() {
        let wants = |receive, send| Settings {
            add_path: AddPath { receive, send },
            ..settings()
        };
        for (ours, theirs, receive, send) in [
            (wants(true, 4), wants(true, 4), true, true),
            (wants(true, 0), wants(false, 4), true, false),
            (wants(false, 4), wants(true, 0), false, true),
            (wants(true, 0), wants(true, 0), false, false),
            (wants(false, 0), wants(true, 4), false, false),
            (wants(false, 1), wants(true, 1), false, false),
        ] {
            let open = Open {
                asn: Asn(64513),
                router_id: RouterId(2),
                ..build(&theirs)
            };
            let negotiated = negotiate(&ours, &open).unwrap();
            let all = |yes| {
                if yes {
                    FamilySet::ALL
                } else {
                    FamilySet::EMPTY
                }
            };
            assert_eq!(negotiated.add_path_receive, all(receive), "{ours:?}");
            assert_eq!(negotiated.add_path_send, all(send), "{ours:?}");
        }
    }

    #[test]
    fn roles_must_fit() {
        use PeerRole::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        for (ours, theirs, strict, fits) in [
            (Some(Provider), Some(Customer), false, true),
            (Some(RouteServer), Some(RouteServerClient), true, true),
            (Some(Peer), Some(Peer), true, true),
            (Some(Peer), Some(Customer), false, false),
            (Some(Provider), Some(Provider), false, false),
            (Some(Provider), None, false, true),
            (Some(Provider), None, true, false),
            (None, Some(Provider), false, true),
        ] {
            let ours = Settings {
                role: ours,
                role_strict: strict,
                ..settings()
            };
            let theirs = Settings {
                role: theirs,
                ..settings()
            };
            let open = Open {
                asn: Asn(64513),
                router_id: RouterId(2),
                ..build(&theirs)
            };
            match negotiate(&ours, &open) {
                Ok(_) => assert!(fits, "{:?} {:?}", ours.role, theirs.role),
                Err(refused) => {
                    assert!(!fits, "{refused:?}");
                    let notification = refused.notification;
                    assert_eq!((notification.code, notification.subcode), (2, 11));
                }
            }
        }
    }

    #[test]
    fn forwarding_bits_are_set_only_if_asked_for() {
        for (asked, expected) in [
            (None, None),
            (Some(false), Some(false)),
            (Some(true), Some(true)),
        ] {
            let graceful_restart = asked.map(|forwarding_preserved| GracefulRestart {
                forwarding_preserved,
                ..GracefulRestart::default()
            });
            let open = build(&Settings {
                graceful_restart,
                ..settings()
            });
            let bits = open.find(|c| match c {
                Capability::GracefulRestart(g) => Some(g.families.iter().all(|f| f.forwarding)),
                _ => None,
            });
            assert_eq!(bits, expected);
        }
    }
}

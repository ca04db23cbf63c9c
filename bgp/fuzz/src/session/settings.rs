//! The configurations of the two routers, and how a script changes that of the one under test.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use margay_bgp::config::{
    AddPath, Aggregate, Announcement, BfdConfig, GracefulRestart, LocalAs, MaxPrefixes,
    MaxPrefixesAction, Multipath, NextHopMode, NextHops, PeerAsn, PeerConfig, PeerRange, PeerRole,
    RemovePrivateAs, SpeakerConfig,
};
use margay_bgp::policy::Filter;
use margay_bgp::types::{Asn, Family, Prefix, RouterId};

use crate::input::Input;

/// The router under test.
pub(super) const OURS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
/// The good peer.
pub(super) const FRIEND: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
pub(super) const OUR_ASN: Asn = Asn(65000);
pub(super) const FRIEND_ASN: Asn = Asn(65010);
/// Bad peers: an external one, an internal one, three from a range, and a stranger.
pub(super) const BAD: usize = 6;

pub(super) fn bad_address(index: usize) -> IpAddr {
    match index {
        0 => [10, 0, 0, 2].into(),
        1 => [10, 0, 0, 3].into(),
        2..=4 => IpAddr::from([10, 9, 0, u8::try_from(index).unwrap_or(4)]),
        _ => [192, 0, 2, 1].into(),
    }
}

/// The AS a bad peer has to present.
pub(super) fn bad_asn(index: usize) -> u32 {
    match index {
        1 => OUR_ASN.0,
        index => 65001 + u32::try_from(index).unwrap_or_default(),
    }
}

pub(super) fn prefix(address: [u8; 4], length: u8) -> Prefix {
    Prefix::v4(address.into(), length).unwrap()
}

/// What the friend announces, and what the router under test does.
pub(super) fn announcements() -> [Prefix; 2] {
    [prefix([203, 0, 113, 0], 24), prefix([198, 51, 100, 0], 24)]
}

fn both_families(peer: &mut PeerConfig) {
    peer.families = Family::ALL.into_iter().collect();
}

fn base(asn: Asn, id: u32) -> SpeakerConfig {
    SpeakerConfig {
        require_policy: false,
        next_hop: NextHops {
            ipv4: None,
            ipv6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        },
        ..SpeakerConfig::new(asn, RouterId(id))
    }
}

/// The good peer's configuration. The choice is the first octet of a script.
pub(super) fn friend(choice: u8) -> SpeakerConfig {
    let mut config = base(FRIEND_ASN, 9);
    let mut peer = PeerConfig::new(OURS, OUR_ASN);
    both_families(&mut peer);
    peer.passive = choice & 1 != 0;
    peer.connect_retry_time = Duration::from_secs(1);
    if choice & 2 != 0 {
        peer.add_path = AddPath {
            receive: true,
            send: 4,
        };
    }
    // Loops are its business, faults are ours: whatever path a bad peer makes up has to arrive whole.
    peer.policy.allow_own_as = u8::MAX;
    config.peers.insert(OURS, peer);
    config.graceful_restart = (choice & 4 != 0).then(GracefulRestart::default);
    let [theirs, _] = announcements();
    config.announcements.insert(theirs, Announcement::default());
    config
}

/// Ours with only the good peer.
pub(super) fn clean(choice: u8) -> SpeakerConfig {
    let mut config = base(OUR_ASN, 1);
    let mut peer = PeerConfig::new(FRIEND, FRIEND_ASN);
    both_families(&mut peer);
    peer.passive = choice & 1 == 0;
    peer.connect_retry_time = Duration::from_secs(1);
    if choice & 2 != 0 {
        peer.add_path = AddPath {
            receive: true,
            send: 4,
        };
    }
    config.peers.insert(FRIEND, peer);
    config.graceful_restart = (choice & 8 != 0).then(|| GracefulRestart {
        restarting: choice & 16 != 0,
        ..GracefulRestart::default()
    });
    let [_, ours] = announcements();
    config.announcements.insert(ours, Announcement::default());
    config
}

/// Ours with everybody.
pub(super) fn ours(choice: u8) -> SpeakerConfig {
    let mut config = clean(choice);
    for index in 0..2 {
        config.peers.insert(bad_address(index), bad(index, choice));
    }
    let mut template = bad(2, choice);
    template.asn = PeerAsn::OneOf(vec!["65000-65100".parse().unwrap()]);
    template.policy.route_reflector_client = false;
    let range = PeerRange {
        limit: 2,
        peer: template,
    };
    config.ranges.insert(prefix([10, 9, 0, 0], 16), range);
    config
}

fn bad(index: usize, choice: u8) -> PeerConfig {
    let mut peer = PeerConfig::new(bad_address(index), Asn(bad_asn(index)));
    both_families(&mut peer);
    peer.passive = choice & 32 != 0;
    peer.policy.route_reflector_client = index == 1;
    peer.extended_next_hop = choice & 64 != 0;
    if choice & 128 != 0 {
        peer.add_path = AddPath {
            receive: true,
            send: 2,
        };
    }
    peer
}

/// Changes something. Not every combination makes sense; the router refuses those.
pub(super) fn change(config: &mut SpeakerConfig, input: &mut Input<'_>) {
    let (what, how) = (input.octet(), input.octet());
    let yes = how & 1 != 0;
    match what % 48 {
        0 => drop(config.announcements.remove(&pool(how))),
        1 => {
            let next_hop = yes.then(|| [192, 0, 2, how].into());
            let announcement = Announcement {
                next_hop,
                med: Some(how.into()),
                ..Announcement::default()
            };
            config.announcements.insert(pool(how), announcement);
        }
        2 => drop(config.aggregates.remove(&prefix([10, 0, 0, 0], 8))),
        3 => {
            let aggregate = Aggregate {
                summary_only: yes,
                ..Aggregate::default()
            };
            config
                .aggregates
                .insert(prefix([10, 0, 0, 0], 8), aggregate);
        }
        4 => {
            config.graceful_restart = yes.then(|| GracefulRestart {
                long_lived_time: u32::from(how / 4),
                long_lived_partial: how & 2 != 0,
                ..GracefulRestart::default()
            });
        }
        5 => config.require_policy = yes,
        6 => config.cluster_id = yes.then_some(RouterId(how.into())),
        7 => {
            config.multipath = Multipath {
                max: u16::from(how >> 1),
                relax: yes,
                weight_by_link_bandwidth: how & 2 != 0,
            }
        }
        8 => drop(
            config
                .shared_segments
                .insert(prefix([10, 0, 0, 0], how % 33)),
        ),
        9 => config.shared_segments.clear(),
        10 => drop(config.ranges.remove(&prefix([10, 9, 0, 0], 16))),
        11 => config.selection_deferral = Duration::from_secs((how % 64).into()),
        12 => drop(config.peers.remove(&bad_address(usize::from(yes)))),
        13 => {
            let index = usize::from(yes);
            config.peers.insert(bad_address(index), bad(index, how));
        }
        14 => config.router_id = RouterId(1 + u32::from(how % 16)),
        15 => {
            if let Some(range) = config.ranges.values_mut().next() {
                change_peer(&mut range.peer, how, input.octet());
            }
        }
        what => {
            let others = [bad_address(0), bad_address(1)];
            if let Some(peer) = config.peers.get_mut(&others[usize::from(what & 1)]) {
                change_peer(peer, what >> 1, how);
            }
        }
    }
}

/// Prefixes of which scripts speak.
pub(super) fn pool(choice: u8) -> Prefix {
    prefix([10, choice, 0, 0], 16)
}

fn change_peer(peer: &mut PeerConfig, what: u8, how: u8) {
    let yes = how & 1 != 0;
    let policy = &mut peer.policy;
    match what % 24 {
        0 => peer.disabled = yes,
        1 => peer.passive = yes,
        2 => peer.hold_time = Duration::from_secs(how.into()),
        3 => {
            peer.add_path = AddPath {
                receive: yes,
                send: how >> 1,
            }
        }
        4 => peer.max_prefixes.limit = how.into(),
        5 => {
            peer.max_prefixes = MaxPrefixes {
                limit: 3,
                warn_percent: 50,
                action: match how % 3 {
                    0 => MaxPrefixesAction::Warn,
                    1 => MaxPrefixesAction::Teardown,
                    _ => MaxPrefixesAction::Restart(Duration::from_secs(how.into())),
                },
            }
        }
        6 => peer.families = Family::ALL.into_iter().take(1 + usize::from(yes)).collect(),
        7 => policy.route_reflector_client = yes,
        8 => {
            policy.local_as = (how & 8 == 0).then_some(LocalAs {
                asn: Asn(64900),
                no_prepend: yes,
                replace_as: how & 2 != 0,
            })
        }
        9 => policy.allow_own_as = how % 4,
        10 => policy.as_override = yes,
        11 => {
            policy.remove_private_as = [
                None,
                Some(RemovePrivateAs::All),
                Some(RemovePrivateAs::Leading),
                Some(RemovePrivateAs::Replace),
            ][usize::from(how % 4)]
        }
        12 => policy.enforce_first_as = yes,
        13 => policy.accept_as_sets = yes,
        14 => policy.graceful_shutdown = yes,
        15 => {
            peer.next_hop = [
                NextHopMode::Auto,
                NextHopMode::SelfAddress,
                NextHopMode::Keep,
            ][usize::from(how % 3)]
        }
        16 => peer.min_advertisement_interval = Duration::from_secs((how % 8).into()),
        17 => peer.extended_next_hop = yes,
        18 => {
            peer.role = [
                None,
                Some(PeerRole::Customer),
                Some(PeerRole::Provider),
                Some(PeerRole::Peer),
            ][usize::from(how % 4)];
            peer.role_strict = how & 4 != 0;
        }
        19 => {
            peer.bfd = yes.then(|| BfdConfig {
                strict: how & 2 != 0,
                ..BfdConfig::default()
            })
        }
        20 => {
            peer.import = [None, Some(Filter::reject_all()), Some(Filter::accept_all())]
                [usize::from(how % 3)]
            .clone()
        }
        21 => {
            peer.export = [None, Some(Filter::reject_all()), Some(Filter::accept_all())]
                [usize::from(how % 3)]
            .clone()
        }
        22 => peer.connect_retry_time = Duration::from_secs(how.into()),
        _ => peer.shutdown_message = "x".repeat(how.into()),
    }
}

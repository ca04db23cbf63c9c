//! One session as a BGPPeer asks for it.

use std::net::SocketAddr;
use std::time::Duration;

use margay_bgp::config::{
    AoAlgorithm, AoKey, BfdConfig, LocalAs, MaxPrefixes, MaxPrefixesAction, PeerAsn, Secret,
};
use margay_bgp::speaker::{NextHopMode, PeerConfig};
use margay_bgp::types::{Asn, AsnRange, Family, Prefix, RouterId};
use margay_crds::bgp_peer::{
    AoKey as KeyRef, MaxPrefixesAction as Action, NextHopMode as Mode, SecretKeyRef, SourceAddress,
    TcpAoAlgorithm,
};
use margay_crds::{Peer, PeerAs};

use super::sessions::EXTERNAL_LIMIT;
use super::{Cluster, filters, seconds};

/// The TTL of packets to a peer that may be some hops away, as a router behind the top of the rack.
pub(super) const FAR: u8 = 64;

/// With the router at an address.
pub(super) fn to_address(
    cluster: &Cluster<'_>,
    peer: &Peer,
    address: SocketAddr,
    asn: PeerAs,
) -> PeerConfig {
    let ip = address.ip();
    let mut config = PeerConfig::new(ip, peer_as(asn));
    config.name.clone_from(&peer.name);
    config.port = address.port();
    config.ttl = Some(FAR);
    if peer.source_address == SourceAddress::UseNodeIP {
        config.local_address = cluster.own.address_like(ip);
    }
    config.policy.route_reflector_client =
        config.asn.is_internal(cluster.asn) && serves(cluster, None);
    shape(cluster, peer, &mut config);
    config
}

/// With the router at the other end of a link.
pub(super) fn on_interface(
    cluster: &Cluster<'_>,
    peer: &Peer,
    interface: &str,
    asn: PeerAs,
) -> PeerConfig {
    let mut config = PeerConfig::on_interface(interface, peer_as(asn));
    config.name = format!("{} {interface}", peer.name);
    shape(cluster, peer, &mut config);
    config
}

/// With whoever connects from a network.
pub(super) fn from_range(
    cluster: &Cluster<'_>,
    peer: &Peer,
    prefix: Prefix,
    ases: &[(u32, u32)],
    asn: Option<PeerAs>,
) -> PeerConfig {
    let range = |(low, high): &(u32, u32)| AsnRange {
        low: Asn(*low),
        high: Asn(*high),
    };
    let asn = match asn {
        Some(word) => peer_as(word),
        None => PeerAsn::OneOf(ases.iter().map(range).collect()),
    };
    let mut config = PeerConfig::new(prefix.address(), asn);
    config.name.clone_from(&peer.name);
    config.passive = true;
    config.ttl = Some(FAR);
    shape(cluster, peer, &mut config);
    config
}

/// Whether this node is a route reflector and the peer, of this cluster or none, a client of its. Reflectors of one cluster
/// are no clients of each other.
pub(super) fn serves(cluster: &Cluster<'_>, theirs: Option<RouterId>) -> bool {
    let ours = cluster.own.bgp.cluster_id.map(RouterId);
    ours.is_some() && ours != theirs
}

/// All that a BGPPeer says of a session, whoever it is with.
pub(super) fn shape(cluster: &Cluster<'_>, peer: &Peer, config: &mut PeerConfig) {
    if let Some(time) = peer.hold_time {
        config.hold_time = time;
    }
    if let Some(time) = peer.connect_retry_time {
        config.connect_retry_time = time;
    }
    config.keepalive_time = peer.keepalive_time;
    config.send_hold_time = peer.send_hold_time;
    config.restart_time = seconds(peer.max_restart_time);
    set_long_lived_time(cluster, peer.long_lived_restart_time, config);
    config.next_hop = match peer.next_hop_mode {
        Mode::Auto => NextHopMode::Auto,
        Mode::SelfAddress => NextHopMode::SelfAddress,
        Mode::Keep => NextHopMode::Keep,
    };
    let named = [
        (peer.families.ipv4, Family::Ipv4Unicast),
        (peer.families.ipv6, Family::Ipv6Unicast),
    ];
    if named.iter().any(|(named, _)| *named) {
        let named = named.into_iter().filter(|(named, _)| *named);
        config.families = named.map(|(_, family)| family).collect();
    }
    let internal = config.asn.is_internal(cluster.asn);
    config.policy.allow_own_as = peer.allowed_own_as;
    config.policy.graceful_shutdown = peer.graceful_shutdown;
    // As if this were its AS: neither what it takes nor what it gives shows the other one.
    config.policy.local_as = peer.local_as.filter(|_| !internal).map(|asn| LocalAs {
        asn: Asn(asn),
        no_prepend: true,
        replace_as: true,
    });
    config.security.ttl_security = peer.ttl_security;
    config.bfd = peer.bfd.map(|bfd| BfdConfig {
        min_tx: bfd.min_tx,
        min_rx: bfd.min_rx,
        multiplier: bfd.multiplier,
        multihop: bfd.multihop,
        passive: false,
        strict: false,
    });
    config.max_prefixes = max_prefixes(peer, internal);
    config.disabled = peer.admin_down;
    config.shutdown_message.clone_from(&peer.shutdown_message);
    filters::of_peer(cluster, peer, config);
    set_password(cluster, peer.password.as_ref(), config);
    set_keys(cluster, &peer.tcp_ao, config);
}

/// How long routes are kept beyond a restart on this session: always said, for the speaker's own time is the longest of all.
pub(super) fn set_long_lived_time(
    cluster: &Cluster<'_>,
    of_peer: Option<Duration>,
    config: &mut PeerConfig,
) {
    let time = of_peer.unwrap_or(cluster.settings.long_lived_restart_time);
    config.long_lived_time = Some(u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
}

/// Gives the session its keys, or keeps it down: never without, and never with some of them.
pub(super) fn set_keys(cluster: &Cluster<'_>, keys: &[KeyRef], config: &mut PeerConfig) {
    for key in keys {
        match cluster.view.password(&key.secret) {
            Ok(secret) => config.security.tcp_ao.push(AoKey {
                send_id: key.send_id,
                receive_id: key.recv_id,
                algorithm: match key.algorithm {
                    TcpAoAlgorithm::HmacSha1 => AoAlgorithm::HmacSha1,
                    TcpAoAlgorithm::CmacAes128 => AoAlgorithm::CmacAes128,
                    TcpAoAlgorithm::HmacSha256 => AoAlgorithm::HmacSha256,
                },
                secret: Secret::from(secret),
            }),
            Err(_) => config.disabled = true,
        }
    }
}

/// Gives the session its password, or keeps it down: never without.
pub(super) fn set_password(
    cluster: &Cluster<'_>,
    reference: Option<&SecretKeyRef>,
    config: &mut PeerConfig,
) {
    let Some(reference) = reference else { return };
    match cluster.view.password(reference) {
        Ok(password) => config.security.password = Some(Secret::from(password)),
        Err(_) => config.disabled = true,
    }
}

fn max_prefixes(peer: &Peer, internal: bool) -> MaxPrefixes {
    match peer.max_prefixes {
        Some(asked) => MaxPrefixes {
            limit: asked.limit,
            warn_percent: asked.warn_percent,
            action: match asked.action {
                Action::Warn => MaxPrefixesAction::Warn,
                Action::Teardown => MaxPrefixesAction::Teardown,
                Action::Restart => MaxPrefixesAction::Restart(asked.restart_after),
            },
        },
        None if internal => MaxPrefixes::default(),
        None => MaxPrefixes {
            limit: EXTERNAL_LIMIT,
            ..MaxPrefixes::default()
        },
    }
}

fn peer_as(asn: PeerAs) -> PeerAsn {
    match asn {
        PeerAs::Number(number) => PeerAsn::Number(Asn(number)),
        PeerAs::Internal => PeerAsn::Internal,
        PeerAs::External => PeerAsn::External,
    }
}

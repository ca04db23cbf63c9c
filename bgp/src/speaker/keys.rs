//! TCP-MD5 keys on the listeners and on what is accepted and connected, and what tells that they do not match.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsFd;

use margay_bgp_sys as sys;
use tracing::warn;

use crate::config::{Secret, SpeakerConfig};

/// Whose packets a listening socket takes only with a signature: addresses and networks, and with which key.
pub(super) type Keys = BTreeMap<(IpAddr, Option<u8>), Secret>;

/// The keys a configuration asks for.
pub(super) fn wanted(config: &SpeakerConfig) -> Keys {
    let peers = config.peers.iter().filter_map(|(address, peer)| {
        let password = peer.security.password.clone()?;
        Some(((*address, None), password))
    });
    let ranges = config.ranges.iter().filter_map(|(prefix, range)| {
        let password = range.peer.security.password.clone()?;
        Some(((prefix.address(), Some(prefix.length())), password))
    });
    peers.chain(ranges).collect()
}

/// Changes the keys of a listening socket from those in force to those wanted.
pub(super) fn change(socket: impl AsFd, ipv6: bool, in_force: &Keys, wanted: &Keys) {
    let concerns = |address: &IpAddr| address.is_ipv6() == ipv6;
    for (address, network) in in_force.keys().filter(|(address, _)| concerns(address)) {
        if !wanted.contains_key(&(*address, *network)) {
            set(&socket, ipv6, (*address, *network), None);
        }
    }
    for (place, key) in wanted.iter().filter(|((address, _), _)| concerns(address)) {
        if in_force.get(place) != Some(key) {
            set(&socket, ipv6, *place, Some(key));
        }
    }
}

/// Sets, changes or removes one key. A key that cannot be set must not leave the peer without one: the kernel then has none
/// for it, and a peer that signs is not let in.
pub(super) fn set(
    socket: impl AsFd,
    ipv6: bool,
    (address, network): (IpAddr, Option<u8>),
    key: Option<&Secret>,
) {
    let octets = key.map_or("", Secret::reveal).as_bytes();
    if let Err(error) = sys::set_md5_key(socket, ipv6, address, network, 0, octets) {
        warn!(%address, %error, "cannot set the TCP-MD5 key of a peer");
    }
}

/// How often the kernel has dropped a segment for its signature: missing, unexpected, or wrong. Of the whole network
/// namespace: the kernel does not say whose they were.
pub(super) fn failures() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").ok()?;
    Some(count(&text))
}

fn count(netstat: &str) -> u64 {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    let wanted = ["TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure"];
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter(|(name, _)| wanted.contains(name))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_counters_are_found_by_name() {
        let text = "TcpExt: A TCPMD5NotFound TCPMD5Unexpected B TCPMD5Failure\nTcpExt: 9 1 2 9 4\nIpExt: C\nIpExt: 1\n";
        assert_eq!(count(text), 7);
        assert_eq!(count(""), 0);
        assert!(failures().is_some());
    }
}

//! Keys that sign segments (TCP-MD5, TCP-AO) on the listeners and on what is accepted and connected, and what tells that they
//! do not match.
//!
//! A peer that is to sign is never spoken to without: where a key cannot be set, there is no connection.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use margay_bgp_sys as sys;
use tracing::warn;

use crate::config::{AoKey, Secret, Security, SpeakerConfig};
use crate::types::{Prefix, peer_address};

/// Whose packets a listening socket takes only with a signature: addresses and networks, and with which keys.
pub(super) type Keys = BTreeMap<Place, Signing>;

/// An address, or a network with its prefix length.
pub(super) type Place = (IpAddr, Option<u8>);

/// For whom keys could not be set, and why.
pub(super) type Failures = BTreeMap<Prefix, String>;

/// What a peer signs with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Signing {
    /// TCP-MD5.
    password: Option<Secret>,
    /// TCP-AO.
    keys: Vec<AoKey>,
}

impl Signing {
    /// What a peer's packets are signed with, if they are.
    pub(super) fn of(security: &Security) -> Option<Self> {
        let signing = Self {
            password: security.password.clone(),
            keys: security.tcp_ao.clone(),
        };
        (signing != Self::default()).then_some(signing)
    }
}

/// The keys a configuration asks for.
pub(super) fn wanted(config: &SpeakerConfig) -> Keys {
    let peers = config.peers.iter().filter_map(|(address, peer)| {
        let signing = Signing::of(&peer.security)?;
        Some(((peer_address(*address, peer.scope), None), signing))
    });
    let ranges = config.ranges.iter().filter_map(|(prefix, range)| {
        let signing = Signing::of(&range.peer.security)?;
        Some(((prefix.address(), Some(prefix.length())), signing))
    });
    peers.chain(ranges).collect()
}

/// Changes the keys of a listening socket from those in force to those wanted, and says what could not be done. What failed is
/// not in force, so that it is tried again the next time.
pub(super) fn change(
    socket: impl AsFd,
    ipv6: bool,
    in_force: &mut Keys,
    wanted: &Keys,
) -> Failures {
    let mut failures = Failures::new();
    let gone: Vec<_> = in_force
        .keys()
        .filter(|place| !wanted.contains_key(place))
        .copied()
        .collect();
    for place in gone {
        if let Some(before) = in_force.remove(&place)
            && let Err(error) = replace(&socket, ipv6, place, &before, &Signing::default())
        {
            warn!(address = %place.0, %error, "cannot remove the key of a peer");
        }
    }
    let concerned = wanted
        .iter()
        .filter(|((address, _), _)| address.is_ipv6() == ipv6);
    for (place, signing) in concerned {
        if in_force.get(place) == Some(signing) {
            continue;
        }
        let before = in_force.remove(place).unwrap_or_default();
        match replace(&socket, ipv6, *place, &before, signing) {
            Ok(()) => drop(in_force.insert(*place, signing.clone())),
            Err(error) => drop(failures.insert(network(*place), error)),
        }
    }
    failures
}

fn network((address, length): Place) -> Prefix {
    let prefix = length.and_then(|length| Prefix::new(address, length).ok());
    prefix.unwrap_or_else(|| Prefix::host(address))
}

/// Sets the keys of one place on a socket in the place of others.
fn replace(
    socket: impl AsFd,
    ipv6: bool,
    (address, length): Place,
    before: &Signing,
    now: &Signing,
) -> Result<(), String> {
    if before.password != now.password {
        let octets = now.password.as_ref().map_or("", Secret::reveal).as_bytes();
        sys::set_md5_key(&socket, ipv6, address, length, 0, octets)
            .map_err(|error| format!("password: cannot set the TCP-MD5 key: {error}"))?;
    }
    for key in before.keys.iter().filter(|key| !now.keys.contains(key)) {
        let ids = (key.send_id, key.receive_id);
        sys::delete_ao_key(&socket, address, length, ids).map_err(explain_ao)?;
    }
    for (index, key) in now.keys.iter().enumerate() {
        if !before.keys.contains(key) {
            let new = sys::AoKey {
                address,
                prefix_length: length,
                algorithm: key.algorithm.kernel_name(),
                send_id: key.send_id,
                receive_id: key.receive_id,
                secret: key.secret.reveal().as_bytes(),
                // A listening socket has none that is in use.
                current: index == 0 && length.is_none(),
            };
            sys::add_ao_key(&socket, &new).map_err(explain_ao)?;
        }
    }
    Ok(())
}

/// What a peer's `last_error` has in it where its TCP-AO keys cannot be set because the kernel knows none.
pub const NO_TCP_AO: &str = "this kernel has no TCP-AO";

fn explain_ao(error: io::Error) -> String {
    if sys::is_unknown_option(&error) {
        format!(
            "tcpAo: {NO_TCP_AO} (that takes Linux 6.7 or newer with CONFIG_TCP_AO); without it there is no session"
        )
    } else {
        format!("tcpAo: cannot set the key: {error}")
    }
}

/// Has a socket that is connected, or about to be, sign what it sends to the peer, and take nothing that is not signed.
///
/// # Errors
/// What cannot be done, beginning with the field; the socket is then not to be used.
pub(super) fn sign(socket: impl AsFd, peer: IpAddr, security: &Security) -> Result<(), String> {
    match Signing::of(security) {
        None => Ok(()),
        Some(signing) => {
            let none = Signing::default();
            replace(socket, peer.is_ipv6(), (peer, None), &none, &signing)
        }
    }
}

/// Has a connection that was accepted sign. A listener's TCP-AO keys are on it already; its TCP-MD5 key is too, unless the
/// connection came before the key did.
///
/// # Errors
/// As [`sign`].
pub(super) fn sign_accepted(
    socket: impl AsFd,
    peer: IpAddr,
    security: &Security,
) -> Result<(), String> {
    let md5 = Security {
        tcp_ao: Vec::new(),
        ..security.clone()
    };
    sign(&socket, peer, &md5)?;
    match (security.tcp_ao.is_empty(), sys::signs_with_ao(&socket)) {
        (true, _) | (false, Ok(true)) => Ok(()),
        (false, Ok(false)) => Err("tcpAo: the connection came without a signature".to_owned()),
        (false, Err(error)) => Err(explain_ao(error)),
    }
}

/// Puts another password on a connection that is open.
pub(super) fn set_password(socket: impl AsFd, address: IpAddr, password: &Secret) {
    let octets = password.reveal().as_bytes();
    if let Err(error) = sys::set_md5_key(socket, address.is_ipv6(), address, None, 0, octets) {
        warn!(%address, %error, "cannot change the TCP-MD5 key of a connection");
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
    let wanted = [
        "TCPMD5NotFound",
        "TCPMD5Unexpected",
        "TCPMD5Failure",
        "TCPAOBad",
        "TCPAOKeyNotFound",
        "TCPAORequired",
    ];
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
    fn the_counters_are_found_by_name() {
        let text = "TcpExt: A TCPMD5NotFound TCPMD5Unexpected B TCPMD5Failure TCPAOBad\nTcpExt: 9 1 2 9 4 8\nIpExt: C\nIpExt: 1\n";
        assert_eq!(count(text), 15);
        assert_eq!(count(""), 0);
        assert!(failures().is_some());
    }

    fn password(text: &str) -> Signing {
        Signing {
            password: Some(text.into()),
            keys: Vec::new(),
        }
    }

    #[test]
    fn a_key_that_cannot_be_set_is_told_and_tried_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let place = |last: u8| (IpAddr::from([127, 0, 0, last]), None);
        // Longer than the kernel takes: as good a failure as any.
        let wanted = Keys::from([
            (place(2), password("good")),
            (place(3), password(&"x".repeat(81))),
        ]);
        let mut in_force = Keys::new();
        for _ in 0..2 {
            let failures = change(&listener, false, &mut in_force, &wanted);
            let (who, why) = failures.first_key_value().unwrap();
            assert_eq!(
                (failures.len(), who.to_string().as_str()),
                (1, "127.0.0.3/32")
            );
            assert!(
                why.starts_with("password: cannot set the TCP-MD5 key: "),
                "{why}"
            );
            assert_eq!(in_force.keys().collect::<Vec<_>>(), [&place(2)]);
        }
        let wanted = Keys::from([(place(3), password("short"))]);
        assert_eq!(
            change(&listener, false, &mut in_force, &wanted),
            Failures::new()
        );
        assert_eq!(in_force, wanted);
    }

    #[test]
    fn without_tcp_ao_there_is_no_session_and_a_reason() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let security = Security {
            tcp_ao: vec![AoKey {
                send_id: 1,
                receive_id: 1,
                algorithm: Default::default(),
                secret: "secret".into(),
            }],
            ..Security::default()
        };
        let outcome = sign(&socket, IpAddr::from([127, 0, 0, 2]), &security);
        if sys::has_tcp_ao(&socket).unwrap() {
            assert_eq!(outcome, Ok(()));
        } else {
            let why = outcome.unwrap_err();
            assert!(why.starts_with("tcpAo: this kernel has no TCP-AO"), "{why}");
        }
    }
}

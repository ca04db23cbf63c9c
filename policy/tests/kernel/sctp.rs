//! Probes of SCTP without the kernel's SCTP, which may not be built in: a first packet out by a raw socket, and a raw
//! socket where it should come in.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, sendto,
        socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use crate::lab::within;

fn raw(namespace: &str, v6: bool, patience: Duration) -> OwnedFd {
    within(namespace, move || {
        let family = if v6 {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let kind = SocketType::RAW;
        let fd = socket_with(family, kind, SocketFlags::CLOEXEC, Some(ipproto::SCTP)).unwrap();
        set_socket_timeout(&fd, Timeout::Recv, Some(patience)).unwrap();
        fd
    })
}

/// Ports, no verification tag, no checksum, and an INIT chunk (RFC 9260 §3.3.2).
fn first_packet(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 16, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    packet
}

/// Whether the first packet of an association from one namespace comes in at the other.
pub(crate) fn reaches(from: &str, into: &str, to: SocketAddr, patience: Duration) -> bool {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let source = NEXT.fetch_add(1, Ordering::Relaxed);
    let (out, inward) = (
        raw(from, to.is_ipv6(), patience),
        raw(into, to.is_ipv6(), patience),
    );
    let packet = first_packet(source, to.port());
    // Raw sockets take no port, and IPv6's refuse one.
    let address = SocketAddr::new(to.ip(), 0);
    if sendto(&out, &packet, SendFlags::empty(), &address).is_err() {
        return false;
    }
    let end = Instant::now() + patience;
    let mut buffer = [0; 256];
    while Instant::now() < end {
        let Ok((length, _)) = recv(&inward, &mut buffer, RecvFlags::empty()) else {
            return false;
        };
        // IPv4's raw sockets show the header of the packet too.
        let header = if to.is_ipv6() { 0 } else { 20 };
        if buffer
            .get(header..length)
            .is_some_and(|seen| seen.starts_with(&packet[..4]))
        {
            return true;
        }
    }
    false
}

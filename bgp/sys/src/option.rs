//! Socket options.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Sets one option to a plain value.
pub(crate) fn set<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which lives until the call returns; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has a raw ICMPv6 socket receive these message types and no others (RFC 3542 section 3.2).
///
/// # Errors
/// What the system says, for example of a socket that is none of ICMPv6.
pub fn admit_icmpv6(socket: impl AsFd, types: &[u8]) -> io::Result<()> {
    const ICMP6_FILTER: libc::c_int = 1;
    // A bit that is set keeps its type out.
    let mut filter = [u32::MAX; 8];
    for kind in types {
        filter[usize::from(kind >> 5)] &= !(1 << (kind & 31));
    }
    set(socket.as_fd(), libc::IPPROTO_ICMPV6, ICMP6_FILTER, &filter)
}

/// Has a TCP socket drop what arrives with a lower TTL or hop limit (GTSM, RFC 5082): `least` of 255 lets only direct neighbours
/// through, 0 everybody. Connections accepted from a listening socket inherit it.
///
/// # Errors
/// What the system says.
pub fn require_hop_limit(socket: impl AsFd, ipv6: bool, least: u8) -> io::Result<()> {
    const IPV6_MINHOPCOUNT: libc::c_int = 73;
    let (level, name) = if ipv6 {
        (libc::IPPROTO_IPV6, IPV6_MINHOPCOUNT)
    } else {
        (libc::IPPROTO_IP, libc::IP_MINTTL)
    };
    set(socket.as_fd(), level, name, &libc::c_int::from(least))
}

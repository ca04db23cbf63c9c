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

/// Reads one option that is a plain value, beginning with what `value` says.
pub(crate) fn get<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut T,
) -> io::Result<()> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointers describe `value` and its length, which live until the call returns. The kernel writes no more octets
    // than that; the callers' types are plain numbers, of which any octets are good ones.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(value).cast(),
            &raw mut length,
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

/// Has a listening TCP socket keep the headers of the segments that open connections, for [`hop_limit_of_syn`].
///
/// # Errors
/// What the system says.
pub fn keep_syn(listener: impl AsFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    set(
        listener.as_fd(),
        libc::IPPROTO_TCP,
        libc::TCP_SAVE_SYN,
        &yes,
    )
}

/// With what TTL or hop limit the segment arrived that opened an accepted connection. `None`: it was not kept, or was asked for
/// before: the kernel gives it out once.
///
/// # Errors
/// What the system says.
pub fn hop_limit_of_syn(accepted: impl AsFd) -> io::Result<Option<u8>> {
    // An IP header and a TCP header, each with options.
    let mut headers = [0_u8; 512];
    let mut length = headers.len() as libc::socklen_t;
    // SAFETY: the pointers describe `headers` and its length, which live until the call returns; the kernel writes no more octets
    // than `length` says, and any octets are good ones.
    let result = unsafe {
        libc::getsockopt(
            accepted.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SAVED_SYN,
            headers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let kept = headers.get(..length as usize).unwrap_or_default();
    Ok(match kept.first().map(|first| first >> 4) {
        Some(4) => kept.get(8).copied(),
        Some(6) => kept.get(7).copied(),
        _ => None,
    })
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_first_segment_of_a_connection_tells_its_hop_limit() {
        for (address, ipv6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
            let listener = TcpListener::bind(address).unwrap();
            keep_syn(&listener).unwrap();
            let (level, name) = match ipv6 {
                false => (libc::IPPROTO_IP, libc::IP_TTL),
                true => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
            };
            let domain = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
            let dialler = socket2::Socket::new(domain.into(), socket2::Type::STREAM, None).unwrap();
            set(dialler.as_fd(), level, name, &libc::c_int::from(77_u8)).unwrap();
            dialler
                .connect(&listener.local_addr().unwrap().into())
                .unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!(hop_limit_of_syn(&accepted).unwrap(), Some(77));
            assert_eq!(hop_limit_of_syn(&accepted).unwrap(), None);
            let dialler = TcpStream::from(dialler);
            assert_eq!(hop_limit_of_syn(&dialler).unwrap(), None);
        }
    }
}

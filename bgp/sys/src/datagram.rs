//! Receiving a datagram together with its TTL and the interface it came in on.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use crate::option::set;

/// Room for the control messages asked for: a hop limit and an interface, of one family or (never seen) of both.
const CONTROL: usize = 256;

/// One datagram received; its octets are in the buffer given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// How many octets of the buffer it fills. What did not fit is lost.
    pub length: usize,
    /// Whom it came from. For a raw socket the port means nothing.
    pub remote: SocketAddr,
    /// TTL or hop limit on arrival, if the socket tells.
    pub hop_limit: Option<u8>,
    /// Index of the interface it came in on; 0 if the socket does not tell.
    pub interface: u32,
}

/// Control messages have to begin where a `cmsghdr` may.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Has an IPv4 or an IPv6 socket tell the hop limit and the interface of what it receives.
///
/// # Errors
/// What the system says.
pub fn tell_hop_limit_and_interface(socket: impl AsFd, ipv6: bool) -> io::Result<()> {
    let socket = socket.as_fd();
    let (level, options) = if ipv6 {
        let options = [libc::IPV6_RECVHOPLIMIT, libc::IPV6_RECVPKTINFO];
        (libc::IPPROTO_IPV6, options)
    } else {
        (libc::IPPROTO_IP, [libc::IP_RECVTTL, libc::IP_PKTINFO])
    };
    options
        .into_iter()
        .try_for_each(|option| set(socket, level, option, &1_i32))
}

/// Takes the next datagram without waiting for one.
///
/// # Errors
/// `WouldBlock` if there is none, otherwise what the system says; `InvalidData` for a sender that is no IP address.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut control = Control([0; CONTROL]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: an all-zero `msghdr` is a value of it; padding differs between systems, so it cannot be written out.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: every pointer in `message` is to memory of ours of the length said, and outlives the call.
    let length = unsafe {
        libc::recvmsg(
            socket.as_fd().as_raw_fd(),
            &raw mut message,
            libc::MSG_DONTWAIT,
        )
    };
    let Ok(length) = usize::try_from(length) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: it was zeroed, so it is initialised, whatever the kernel wrote over it.
    let remote = address(unsafe { name.assume_init_ref() })?;
    let mut datagram = Datagram {
        length,
        remote,
        hop_limit: None,
        interface: 0,
    };
    read_control(&message, &mut datagram);
    Ok(datagram)
}

fn address(name: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that this is what the storage, which is larger and aligned for all of them, holds.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Ok(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Ok(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into())
        }
        family => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the sender's address family {family} is not IP"),
        )),
    }
}

/// Walks the control messages the kernel wrote.
fn read_control(message: &libc::msghdr, datagram: &mut Datagram) {
    // SAFETY: `msg_control` and `msg_controllen` describe the buffer the kernel has just filled.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header that lies within the buffer.
    while let Some(header) = unsafe { next.as_ref() } {
        // SAFETY: `header` is one of the buffer's; its data follows it.
        let data = unsafe { libc::CMSG_DATA(header) };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                // SAFETY: this kind of message holds an int, which need not be aligned.
                let limit = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                datagram.hop_limit = u8::try_from(limit).ok();
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: as above, with an `in_pktinfo`.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                datagram.interface = u32::try_from(info.ipi_ifindex).unwrap_or(0);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: as above, with an `in6_pktinfo`.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                datagram.interface = info.ipi6_ifindex as u32;
            }
            _ => {}
        }
        // SAFETY: `header` is one of the buffer's that `message` describes.
        next = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use socket2::SockRef;

    use super::*;

    #[test]
    fn a_datagram_comes_with_its_hop_limit_and_interface() {
        for (address, ipv6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
            let receiver = UdpSocket::bind(address).unwrap();
            tell_hop_limit_and_interface(&receiver, ipv6).unwrap();
            let mut buffer = [0; 16];
            let nothing = receive(&receiver, &mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            let sender = UdpSocket::bind(address).unwrap();
            let options = SockRef::from(&sender);
            if ipv6 {
                options.set_unicast_hops_v6(77).unwrap();
            } else {
                options.set_ttl_v4(77).unwrap();
            }
            let octets = b"more than sixteen octets";
            sender
                .send_to(octets, receiver.local_addr().unwrap())
                .unwrap();
            let datagram = receive(&receiver, &mut buffer).unwrap();
            let expected = Datagram {
                length: 16,
                remote: sender.local_addr().unwrap(),
                hop_limit: Some(77),
                // The loopback is the first interface of every namespace.
                interface: 1,
            };
            assert_eq!(datagram, expected);
            assert_eq!(buffer[..], octets[..16]);
        }
    }
}

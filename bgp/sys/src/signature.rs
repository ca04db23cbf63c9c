//! Keys that sign TCP segments: TCP-MD5 (RFC 2385), and whether the kernel has TCP-AO (RFC 5925).

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::ao::TCP_AO_INFO;
use crate::option::set;

/// The longest TCP-MD5 key the kernel takes, in octets.
pub const MD5_KEY_LIMIT: usize = 80;

/// `TCP_MD5SIG_FLAG_PREFIX`: the address is a network.
const FLAG_PREFIX: u8 = 1;
/// `TCP_MD5SIG_FLAG_IFINDEX`: the key is for one interface.
const FLAG_INTERFACE: u8 = 2;

/// `struct tcp_md5sig` of linux/tcp.h, 216 octets.
#[repr(C)]
#[derive(Clone, Copy)]
struct Md5Key {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    length: u16,
    interface: i32,
    key: [u8; MD5_KEY_LIMIT],
}

/// Has a socket sign what it sends to `address` with `key`, and take from there only what is signed with it. On a listening
/// socket the key is for the connections that are accepted. With a `prefix_length` the key is for a network. An empty key
/// takes the key away again, which is an error if there is none.
///
/// `ipv6` says of which family the socket is: one of IPv6 knows IPv4 peers by their mapped addresses. `interface` is the index
/// of the interface a link-local peer is on, 0 for any.
///
/// # Errors
/// `InvalidInput` for a key above [`MD5_KEY_LIMIT`], otherwise what the system says.
pub fn set_md5_key(
    socket: impl AsFd,
    ipv6: bool,
    address: IpAddr,
    prefix_length: Option<u8>,
    interface: u32,
    key: &[u8],
) -> io::Result<()> {
    let mut padded = [0; MD5_KEY_LIMIT];
    let Some(place) = padded.get_mut(..key.len()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a TCP-MD5 key has 80 octets at most",
        ));
    };
    place.copy_from_slice(key);
    let mapped = ipv6 && address.is_ipv4();
    let option = Md5Key {
        address: storage(address, ipv6),
        flags: prefix_length.map_or(0, |_| FLAG_PREFIX)
            | if interface == 0 { 0 } else { FLAG_INTERFACE },
        prefix_length: prefix_length.map_or(0, |length| if mapped { length + 96 } else { length }),
        // At most 80.
        length: key.len() as u16,
        interface: interface as i32,
        key: padded,
    };
    let extended = prefix_length.is_some() || interface != 0;
    let name = if extended {
        libc::TCP_MD5SIG_EXT
    } else {
        libc::TCP_MD5SIG
    };
    set(socket.as_fd(), libc::IPPROTO_TCP, name, &option)
}

/// Whether the kernel can sign with TCP-AO: it came with Linux 6.7, and only where it was configured.
///
/// # Errors
/// What the system says when it cannot even be asked.
pub fn has_tcp_ao(socket: impl AsFd) -> io::Result<bool> {
    // Reads nothing from us that matters; a kernel without TCP-AO does not know the option. Four octets are no `struct tcp_ao_info_opt`: a kernel that knows the option finds the length wrong. Less than four it
    // finds wrong for every option, known or not.
    match set(socket.as_fd(), libc::IPPROTO_TCP, TCP_AO_INFO, &0_i32) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => Ok(false),
            Some(libc::EINVAL | libc::EFAULT | libc::EPERM | libc::ENOENT) => Ok(true),
            _ => Err(error),
        },
    }
}

/// An address as the kernel takes it.
pub(crate) fn storage(address: IpAddr, ipv6: bool) -> libc::sockaddr_storage {
    // SAFETY: all zeros is a value of it, one of no family.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    match (address, ipv6) {
        (IpAddr::V4(address), false) => {
            let value = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: 0,
                sin_addr: libc::in_addr {
                    s_addr: u32::from(address).to_be(),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: a `sockaddr_storage` is larger than a `sockaddr_in` and aligned for it.
            unsafe {
                std::ptr::from_mut(&mut storage)
                    .cast::<libc::sockaddr_in>()
                    .write(value)
            };
        }
        (address, _) => {
            let address = match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            let value = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                sin6_scope_id: 0,
            };
            // SAFETY: as above, for a `sockaddr_in6`.
            unsafe {
                std::ptr::from_mut(&mut storage)
                    .cast::<libc::sockaddr_in6>()
                    .write(value)
            };
        }
    }
    storage
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn socket(local: SocketAddr) -> Socket {
        let socket = Socket::new(Domain::for_address(local), Type::STREAM, None).unwrap();
        socket.bind(&local.into()).unwrap();
        socket
    }

    /// Whether a connection between two addresses of the loopback comes about with these keys.
    fn connects(server: &str, client: &str, keys: [Option<&[u8]>; 2], network: Option<u8>) -> bool {
        let local = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        let (listener, dialer) = (socket(local(server)), socket(local(client)));
        let ipv6 = local(server).is_ipv6();
        if let Some(key) = keys[0] {
            set_md5_key(&listener, ipv6, local(client).ip(), network, 0, key).unwrap();
        }
        if let Some(key) = keys[1] {
            set_md5_key(&dialer, ipv6, local(server).ip(), None, 0, key).unwrap();
        }
        listener.listen(1).unwrap();
        let to = listener.local_addr().unwrap();
        dialer
            .connect_timeout(&to, Duration::from_millis(300))
            .is_ok()
    }

    #[test]
    fn only_the_same_key_connects() {
        if !has_md5() {
            return;
        }
        for (a, b) in [("127.0.0.1", "127.0.0.2"), ("::1", "::1")] {
            assert!(connects(a, b, [None, None], None));
            assert!(connects(a, b, [Some(b"secret"), Some(b"secret")], None));
            assert!(!connects(a, b, [Some(b"secret"), Some(b"another")], None));
            assert!(!connects(a, b, [Some(b"secret"), None], None));
            assert!(!connects(a, b, [None, Some(b"secret")], None));
        }
        assert!(connects(
            "127.0.0.1",
            "127.0.0.2",
            [Some(b"k"), Some(b"k")],
            Some(8)
        ));
        assert!(!connects(
            "127.0.0.1",
            "127.0.0.2",
            [Some(b"k"), None],
            Some(8)
        ));
    }

    /// A kernel without TCP-MD5 (some sandboxes have none) has nothing to test.
    fn has_md5() -> bool {
        let socket = socket("127.0.0.1:0".parse().unwrap());
        let address = "127.0.0.9".parse().unwrap();
        let has = set_md5_key(&socket, false, address, None, 0, b"x").is_ok();
        if !has {
            println!("SKIPPED (the kernel has no TCP-MD5): only_the_same_key_connects");
            assert!(std::env::var_os("MARGAY_REQUIRE_PRIVILEGED").is_none());
        }
        has
    }

    #[test]
    fn a_key_that_is_too_long_is_refused() {
        let socket = socket("127.0.0.1:0".parse().unwrap());
        let address = "127.0.0.9".parse().unwrap();
        let error = set_md5_key(&socket, false, address, None, 0, &[1; 81]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn the_kernel_says_whether_it_has_tcp_ao() {
        let socket = socket("127.0.0.1:0".parse().unwrap());
        let has = has_tcp_ao(&socket).unwrap();
        // TCP-AO came with Linux 6.7, and only where the configuration says so.
        let config = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut version = config
            .split(['.', '-'])
            .filter_map(|part| part.parse::<u32>().ok());
        let version = (version.next().unwrap_or(0), version.next().unwrap_or(0));
        assert!(!has || version >= (6, 7), "{version:?}");
        let bogus = set(socket.as_fd(), libc::IPPROTO_TCP, 250, &0_i32).unwrap_err();
        assert_eq!(bogus.raw_os_error(), Some(libc::ENOPROTOOPT));
    }
}

//! TCP-AO keys (RFC 5925), as Linux 6.7 and newer take them.
//!
//! The C library knows neither the options nor their structures, so they are written down here after linux/tcp.h, with their
//! sizes checked. Kernels without TCP-AO answer with an error that [`is_unknown_option`] tells from others.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use crate::option::{get, set};
use crate::signature::storage;

/// The longest TCP-AO key the kernel takes, in octets.
pub const AO_KEY_LIMIT: usize = 80;

const TCP_AO_ADD_KEY: libc::c_int = 38;
const TCP_AO_DEL_KEY: libc::c_int = 39;
pub(crate) const TCP_AO_INFO: libc::c_int = 40;
/// `set_current`, the first bit of the structures' bit fields.
const SET_CURRENT: u32 = 1;
/// `set_rnext`, the second one: the key the peer is asked to use.
const SET_NEXT: u32 = 2;

/// `struct tcp_ao_add` of linux/tcp.h.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Add {
    address: libc::sockaddr_storage,
    algorithm: [u8; 64],
    interface: i32,
    flags: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    /// Octets of a signature; 0: 12, what RFC 5926 asks for.
    signature_length: u8,
    key_flags: u8,
    key_length: u8,
    key: [u8; AO_KEY_LIMIT],
}

/// `struct tcp_ao_del` of linux/tcp.h.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Delete {
    address: libc::sockaddr_storage,
    interface: i32,
    flags: u32,
    reserved: u16,
    prefix_length: u8,
    send_id: u8,
    receive_id: u8,
    current: u8,
    next: u8,
    key_flags: u8,
}

/// `struct tcp_ao_info_opt` of linux/tcp.h.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Info {
    flags: u32,
    reserved: u16,
    current: u8,
    next: u8,
    counters: [u64; 5],
}

const _: () =
    assert!(size_of::<Add>() == 288 && size_of::<Delete>() == 144 && size_of::<Info>() == 48);
const _: () = assert!(std::mem::offset_of!(Add, algorithm) == 128);
const _: () = assert!(std::mem::offset_of!(Add, interface) == 192);
const _: () = assert!(std::mem::offset_of!(Add, prefix_length) == 202);
const _: () = assert!(std::mem::offset_of!(Add, key) == 208);
const _: () = assert!(std::mem::offset_of!(Delete, prefix_length) == 138);
const _: () = assert!(std::mem::offset_of!(Info, counters) == 8);

/// A key for a peer or a network of them.
#[derive(Clone, Copy)]
pub struct AoKey<'a> {
    /// The peer's address, of the socket's family.
    pub address: IpAddr,
    /// With it the key is for a network.
    pub prefix_length: Option<u8>,
    /// The kernel's name of the algorithm, such as `hmac(sha1)`; at most 63 octets.
    pub algorithm: &'a str,
    /// The SendID: in what we send.
    pub send_id: u8,
    /// The RecvID: in what the peer sends.
    pub receive_id: u8,
    /// The master key, 1 to 80 octets.
    pub secret: &'a [u8],
    /// Sign with it from now on, and ask the peer to.
    pub current: bool,
}

impl std::fmt::Debug for AoKey<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AoKey")
            .field("address", &self.address)
            .field("send_id", &self.send_id)
            .field("receive_id", &self.receive_id)
            .finish_non_exhaustive()
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// For one address the kernel wants to hear that all of it counts.
fn prefix_length(address: IpAddr, length: Option<u8>) -> u8 {
    length.unwrap_or(if address.is_ipv4() { 32 } else { 128 })
}

/// Adds a key to a socket. On a listening socket it is for the connections that are accepted; from the peers it is for only
/// what is signed is taken.
///
/// # Errors
/// `InvalidInput` for a name or a key that is too long, otherwise what the system says.
pub fn add_ao_key(socket: impl AsFd, key: &AoKey<'_>) -> io::Result<()> {
    let mut algorithm = [0; 64];
    // One octet stays: the name ends with a zero.
    let name = algorithm.get_mut(..key.algorithm.len().min(64));
    match name {
        Some(name) if name.len() == key.algorithm.len() && name.len() < 64 => {
            name.copy_from_slice(key.algorithm.as_bytes());
        }
        _ => return Err(invalid("the algorithm's name is too long")),
    }
    let mut padded = [0; AO_KEY_LIMIT];
    let Some(place) = padded.get_mut(..key.secret.len()) else {
        return Err(invalid("a TCP-AO key has 80 octets at most"));
    };
    place.copy_from_slice(key.secret);
    let option = Add {
        address: storage(key.address, key.address.is_ipv6()),
        algorithm,
        interface: 0,
        flags: if key.current {
            SET_CURRENT | SET_NEXT
        } else {
            0
        },
        reserved: 0,
        prefix_length: prefix_length(key.address, key.prefix_length),
        send_id: key.send_id,
        receive_id: key.receive_id,
        signature_length: 0,
        key_flags: 0,
        // At most 80.
        key_length: key.secret.len() as u8,
        key: padded,
    };
    set(socket.as_fd(), libc::IPPROTO_TCP, TCP_AO_ADD_KEY, &option)
}

/// Takes a key away, named by its SendID and RecvID.
///
/// # Errors
/// What the system says, for example of a key that is not there.
pub fn delete_ao_key(
    socket: impl AsFd,
    address: IpAddr,
    length: Option<u8>,
    (send_id, receive_id): (u8, u8),
) -> io::Result<()> {
    let option = Delete {
        address: storage(address, address.is_ipv6()),
        interface: 0,
        flags: 0,
        reserved: 0,
        prefix_length: prefix_length(address, length),
        send_id,
        receive_id,
        current: 0,
        next: 0,
        key_flags: 0,
    };
    set(socket.as_fd(), libc::IPPROTO_TCP, TCP_AO_DEL_KEY, &option)
}

/// Whether a connection is signed with TCP-AO.
///
/// # Errors
/// What the system says; of a kernel without TCP-AO that the option is unknown.
pub fn signs_with_ao(socket: impl AsFd) -> io::Result<bool> {
    let mut info = Info {
        flags: 0,
        reserved: 0,
        current: 0,
        next: 0,
        counters: [0; 5],
    };
    match get(socket.as_fd(), libc::IPPROTO_TCP, TCP_AO_INFO, &mut info) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the kernel refused because it does not know the option at all.
#[must_use]
pub fn is_unknown_option(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOPROTOOPT)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn keys_are_set_where_there_is_tcp_ao_and_refused_clearly_elsewhere() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = IpAddr::from([127, 0, 0, 9]);
        let key = AoKey {
            address,
            prefix_length: None,
            algorithm: "hmac(sha1)",
            send_id: 7,
            receive_id: 8,
            secret: b"secret",
            current: false,
        };
        let outcome = add_ao_key(&listener, &key);
        if crate::has_tcp_ao(&listener).unwrap() {
            outcome.unwrap();
            delete_ao_key(&listener, address, None, (7, 8)).unwrap();
        } else {
            println!("SKIPPED-IN-PART: the kernel has no TCP-AO, so only its refusal was seen");
            assert!(is_unknown_option(&outcome.unwrap_err()));
            assert!(is_unknown_option(&signs_with_ao(&listener).unwrap_err()));
        }
        assert!(!format!("{key:?}").contains("secret"));
        let long = AoKey {
            secret: &[1; 81],
            ..key
        };
        let error = add_ao_key(&listener, &long).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let name = "x".repeat(64);
        let long = AoKey {
            algorithm: &name,
            ..key
        };
        let error = add_ao_key(&listener, &long).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

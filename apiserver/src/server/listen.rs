//! Opening listeners: an address here, an inherited descriptor, or an address in another network namespace.
//!
//! Taking over descriptor N by its number is `unsafe` everywhere in the standard library, because nobody can know who else owns
//! it. The kernel offers the same thing safely: `pidfd_getfd(2)` *duplicates* a descriptor of a process, and that process may be
//! oneself. The inherited number stays open beside the duplicate, which is harmless for a listening socket.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::AsFd;
use std::path::Path;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{StartError, TcpListener};
use crate::options::ListenAddress;

/// Opens the listener `address` describes.
pub(super) fn bind(address: &ListenAddress) -> Result<TcpListener, StartError> {
    let (place, opened) = match address {
        ListenAddress::Address(address) => (address.to_string(), StdListener::bind(address)),
        ListenAddress::Descriptor(number) => (format!("fd:{number}"), inherited(*number)),
        ListenAddress::Namespace(path, address) => (
            format!("{} {address}", path.display()),
            in_namespace(path, *address),
        ),
    };
    opened
        .and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        })
        .map_err(|error| StartError::Listen { place, error })
}

fn inherited(number: u32) -> io::Result<StdListener> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    let number = i32::try_from(number).map_err(|_| io::ErrorKind::InvalidInput)?;
    let descriptor = pidfd_getfd(own.as_fd(), number, PidfdGetfdFlags::empty())?;
    let wrong = |what: &str| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the descriptor is not {what}"),
        )
    };
    if !rustix::net::sockopt::socket_acceptconn(&descriptor).map_err(|_| wrong("a socket"))? {
        return Err(wrong("a listening socket"));
    }
    let listener = StdListener::from(descriptor);
    listener.local_addr().map_err(|_| wrong("a TCP socket"))?;
    Ok(listener)
}

/// Binds on a thread of its own: namespaces belong to threads, and no thread of the runtime may move.
fn in_namespace(path: &Path, address: SocketAddr) -> io::Result<StdListener> {
    let namespace = File::open(path)?;
    let bound = std::thread::scope(|scope| {
        scope
            .spawn(|| {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                StdListener::bind(address)
            })
            .join()
    });
    bound.unwrap_or_else(|_| Err(io::Error::other("the binding thread ended unexpectedly")))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[tokio::test]
    async fn a_listening_descriptor_is_taken_over() {
        let original = StdListener::bind("127.0.0.1:0").unwrap();
        let number = u32::try_from(original.as_raw_fd()).unwrap();
        let taken = bind(&ListenAddress::Descriptor(number)).unwrap();
        assert_eq!(taken.local_addr().unwrap(), original.local_addr().unwrap());
    }

    #[tokio::test]
    async fn other_descriptors_are_refused() {
        let file = File::open("/dev/null").unwrap();
        let number = u32::try_from(file.as_raw_fd()).unwrap();
        let error = bind(&ListenAddress::Descriptor(number))
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a socket"), "{error}");
        let error = bind(&ListenAddress::Descriptor(60_000))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot listen on fd:60000"), "{error}");
    }
}

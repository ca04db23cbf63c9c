//! The index of an interface by its name, asked by SIOCGIFINDEX (netdevice(7)): the kernel answers
//! from a hash table, while a netlink answer describes the whole link. Not for anything else about
//! an interface.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;

use super::super::error::KernelError;

/// Knows the interfaces of the network namespace of the thread that opened it. Clones share one
/// socket.
#[derive(Debug, Clone)]
pub(super) struct InterfaceNames(Arc<UnixDatagram>);

impl InterfaceNames {
    /// Opens the namespace of the calling thread.
    pub(super) fn open() -> Result<Self, KernelError> {
        // Any socket will do: it is only asked about its namespace.
        let socket = UnixDatagram::unbound().map_err(|source| KernelError::Io {
            what: "cannot open a socket to ask for interfaces".to_owned(),
            source,
        })?;
        Ok(Self(Arc::new(socket)))
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// There is no interface of this name, or the kernel cannot be asked.
    pub(super) fn index(&self, name: &str) -> Result<u32, KernelError> {
        name_to_index(&*self.0, name).map_err(|errno| match errno {
            Errno::NODEV => KernelError::NoDevice(name.to_owned()),
            errno => KernelError::Io {
                what: format!("cannot ask for interface {name}"),
                source: errno.into(),
            },
        })
    }
}

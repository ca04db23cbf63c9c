//! Tells when links, addresses or routes changed under us, so that damage is repaired at once.
//!
//! A task drains the kernel's events into a few flags, so nothing grows while nobody looks;
//! [`Monitor::changed`] hands them out, several events at a time. What changed exactly is not
//! told: the answer to any event is to compare again. Periodic comparing is the caller's.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, TokioSocket};
use socket2::{SockFilter, SockRef};
use tokio::sync::Notify;

use super::error::KernelError;
use super::events::{ADDRESSES, LINKS, LOST, OTHER_ROUTES, OUR_ROUTES, PODS, Sorter};
use super::onlink::Invalidator;

/// The groups listened to (linux/rtnetlink.h): links, IPv4 addresses and routes, IPv6 ones.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// Larger than any datagram of events.
const BUFFER: usize = 32 * 1024;
/// The receive buffer was full, and events are lost.
const ENOBUFS: i32 = 105;

/// How long further events are waited for after the first: one `ip link` command causes several.
const GATHER: Duration = Duration::from_millis(20);

/// Tells when somebody else changed links, addresses or routes.
pub trait KernelEvents: Send + 'static {
    /// Waits for a change; none when there will be no more events. Cancelling loses nothing.
    fn changed(&mut self) -> impl Future<Output = Option<Changes>> + Send;
}

impl KernelEvents for Monitor {
    async fn changed(&mut self) -> Option<Changes> {
        Monitor::changed(self).await
    }
}

/// What changed since the last time. Whatever is set: compare again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changes {
    /// A link came, went or changed.
    pub links: bool,
    /// An address came or went.
    pub addresses: bool,
    /// Somebody else touched a route of ours (protocol 90).
    pub our_routes: bool,
    /// A route of another owner changed: next hops may be reached differently.
    pub other_routes: bool,
    /// The kernel had more events than it could queue: anything may have changed.
    pub lost: bool,
    /// A pod's interface came, went or changed, or what the kernel itself keeps with it.
    pub pods: bool,
}

impl Changes {
    fn from_bits(bits: u8) -> Self {
        Self {
            links: bits & LINKS != 0,
            addresses: bits & ADDRESSES != 0,
            our_routes: bits & OUR_ROUTES != 0,
            other_routes: bits & OTHER_ROUTES != 0,
            lost: bits & LOST != 0,
            pods: bits & PODS != 0,
        }
    }

    /// Whether nothing but pods' interfaces changed.
    pub fn is_of_pods(&self) -> bool {
        let only = Self {
            pods: true,
            ..Self::default()
        };
        *self == only
    }
}

#[derive(Debug, Default)]
struct Shared {
    bits: AtomicU8,
    closed: std::sync::atomic::AtomicBool,
    wake: Notify,
}

/// The kernel's events of one network namespace.
#[derive(Debug)]
pub struct Monitor {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Monitor {
    /// Listens in the namespace of the calling thread, within a tokio runtime. Route changes
    /// made through the socket with port number `own_port` ([`super::NetlinkKernel::port`]) are
    /// not ours to repair: the kernel leaves them out. `invalidator` is called for each event that
    /// may change how next hops are reached.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn open(own_port: u32, invalidator: Invalidator) -> Result<Self, KernelError> {
        let socket = listen(own_port).map_err(|source| KernelError::Io {
            what: "cannot listen to the kernel's events".to_owned(),
            source,
        })?;
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(drain(socket, Arc::clone(&shared), invalidator));
        Ok(Self { shared, task })
    }

    /// Waits until something changed; none when the events have ended, and then the kernel can
    /// only be compared periodically or listened to anew. Cancelling loses nothing.
    pub async fn changed(&mut self) -> Option<Changes> {
        loop {
            if self.shared.bits.load(Ordering::Acquire) != 0 {
                tokio::time::sleep(GATHER).await;
                let bits = self.shared.bits.swap(0, Ordering::AcqRel);
                return Some(Changes::from_bits(bits));
            }
            if self.shared.closed.load(Ordering::Acquire) {
                return None;
            }
            self.shared.wake.notified().await;
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A socket that hears of links, addresses and routes, but not of what `own_port` does.
fn listen(own_port: u32) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    let inner = socket.socket_ref();
    // Before the first group, so that nothing slips through unfiltered.
    SockRef::from(inner).attach_filter(&all_but(own_port))?;
    for group in GROUPS {
        inner.add_membership(group)?;
    }
    Ok(socket)
}

/// The program that passes over messages caused by a port: ten thousand routes of ours are not
/// worth ten thousand wakes. A datagram of events begins with a message header whose last word
/// is the port.
fn all_but(port: u32) -> [SockFilter; 4] {
    /// Load a word at a fixed place (linux/filter.h: BPF_LD | BPF_W | BPF_ABS).
    const LOAD: u16 = 0x20;
    /// Jump if equal (BPF_JMP | BPF_JEQ | BPF_K).
    const JUMP_IF_EQUAL: u16 = 0x15;
    /// Return a constant, the number of bytes to keep (BPF_RET | BPF_K).
    const RETURN: u16 = 0x06;
    // The program loads words as network byte order, the header has them as the host's.
    let port = u32::from_be_bytes(port.to_ne_bytes());
    [
        SockFilter::new(LOAD, 0, 0, 12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, port),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// Turns events into flags for as long as the socket lasts.
async fn drain(socket: TokioSocket, shared: Arc<Shared>, invalidator: Invalidator) {
    let mut buffer = Vec::new();
    let mut sorter = Sorter::default();
    loop {
        buffer.clear();
        buffer.reserve(BUFFER);
        let bits = match poll_fn(|context| socket.poll_recv(context, &mut buffer)).await {
            Ok(()) => sorter.sort(&buffer),
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => LOST,
            Err(error) => {
                tracing::warn!("the kernel's events: {error}");
                break;
            }
        };
        if bits & LOST != 0 {
            sorter.forget();
        }
        if bits & !(OUR_ROUTES | PODS) != 0 {
            invalidator.invalidate();
        }
        if bits != 0 {
            shared.bits.fetch_or(bits, Ordering::AcqRel);
            shared.wake.notify_one();
        }
    }
    shared.closed.store(true, Ordering::Release);
    shared.wake.notify_one();
}

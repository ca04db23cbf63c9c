//! Tells when links, addresses or routes changed under us, so that damage is repaired at once.
//!
//! A task drains the kernel's events into a few flags, so nothing grows while nobody looks;
//! [`Monitor::changed`] hands them out, several events at a time. What changed exactly is not
//! told: the answer to any event is to compare again. Periodic comparing is the caller's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};
use tokio::sync::Notify;

use super::error::KernelError;
use super::onlink::Invalidator;
use super::routes::ROUTE_PROTOCOL;

/// How long further events are waited for after the first: one `ip link` command causes several.
const GATHER: Duration = Duration::from_millis(20);

const LINKS: u8 = 1;
const ADDRESSES: u8 = 2;
const OUR_ROUTES: u8 = 4;
const OTHER_ROUTES: u8 = 8;
const LOST: u8 = 16;

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
}

impl Changes {
    fn from_bits(bits: u8) -> Self {
        Self {
            links: bits & LINKS != 0,
            addresses: bits & ADDRESSES != 0,
            our_routes: bits & OUR_ROUTES != 0,
            other_routes: bits & OTHER_ROUTES != 0,
            lost: bits & LOST != 0,
        }
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
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl Monitor {
    /// Listens in the namespace of the calling thread, within a tokio runtime. Events caused by
    /// the socket with port number `own_port` ([`super::NetlinkKernel::port`]) are not ours to
    /// repair and are passed over where the kernel says who caused them (routes).
    /// `invalidator` is called for each event that may change how next hops are reached.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn open(own_port: u32, invalidator: Invalidator) -> Result<Self, KernelError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, _, mut messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(|source| KernelError::Io {
                what: "cannot listen to the kernel's events".to_owned(),
                source,
            })?;
        let shared = Arc::new(Shared::default());
        let sink = Arc::clone(&shared);
        let connection = tokio::spawn(connection);
        let drain = tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let bits = classify(&message.payload, message.header.port_number == own_port);
                if bits & !OUR_ROUTES != 0 {
                    invalidator.invalidate();
                }
                if bits != 0 {
                    sink.bits.fetch_or(bits, Ordering::AcqRel);
                    sink.wake.notify_one();
                }
            }
            sink.closed.store(true, Ordering::Release);
            sink.wake.notify_one();
        });
        Ok(Self {
            shared,
            tasks: [connection, drain],
        })
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
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn classify(payload: &NetlinkPayload<RouteNetlinkMessage>, own: bool) -> u8 {
    match payload {
        NetlinkPayload::InnerMessage(message) => match message {
            RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => LINKS,
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => ADDRESSES,
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                classify_route(route, own)
            }
            _ => 0,
        },
        NetlinkPayload::Overrun(_) => LOST,
        _ => 0,
    }
}

fn classify_route(route: &RouteMessage, own: bool) -> u8 {
    if route.header.protocol != RouteProtocol::Other(ROUTE_PROTOCOL) {
        OTHER_ROUTES
    } else if own {
        0
    } else {
        OUR_ROUTES
    }
}

//! The kernel's events in the daemon's namespace: routes that come, a link that goes.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketType, sockopt};

use crate::net::Side;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const GROUP_LINK: u32 = 1;
const GROUP_IPV4_ROUTE: u32 = 0x40;
const LOWER_UP: u32 = 0x1_0000;

/// Counts what happens, with the time of the last.
pub(crate) struct Events {
    count: Arc<AtomicU64>,
    last: Arc<AtomicU64>,
    begun: Instant,
    stop: Arc<AtomicBool>,
}

impl Events {
    /// New routes of /24.
    pub(crate) fn routes() -> Result<Self> {
        // The destination's length is the second octet of a route message.
        Self::listen(GROUP_IPV4_ROUTE, |message| {
            kind(message) == RTM_NEWROUTE && message.get(17) == Some(&24)
        })
    }

    /// Links without a carrier.
    pub(crate) fn links_down() -> Result<Self> {
        Self::listen(GROUP_LINK, |message| {
            let flags = message
                .get(24..28)
                .map(|four| u32::from_ne_bytes([four[0], four[1], four[2], four[3]]));
            kind(message) == RTM_NEWLINK && flags.is_some_and(|flags| flags & LOWER_UP == 0)
        })
    }

    fn listen(groups: u32, counts: fn(&[u8]) -> bool) -> Result<Self> {
        let socket: OwnedFd = Side::Daemon.enter(|| {
            // Protocol 0 is NETLINK_ROUTE.
            let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
            sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20)?;
            sockopt::set_socket_timeout(
                &socket,
                sockopt::Timeout::Recv,
                Some(Duration::from_millis(100)),
            )?;
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            Ok(socket)
        })?;
        let events = Self {
            count: Arc::default(),
            last: Arc::default(),
            begun: Instant::now(),
            stop: Arc::default(),
        };
        let (count, last, stop) = (
            Arc::clone(&events.count),
            Arc::clone(&events.last),
            Arc::clone(&events.stop),
        );
        let begun = events.begun;
        std::thread::spawn(move || {
            let _ = rustix::process::setpriority_process(None, -19);
            let mut buffer = vec![0_u8; 65_536];
            while !stop.load(Ordering::Acquire) {
                let Ok((length, _)) =
                    rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())
                else {
                    continue;
                };
                if counts(&buffer[..length]) {
                    let now = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                    last.store(now, Ordering::Release);
                    count.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
        Ok(events)
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn last(&self) -> Instant {
        self.begun + Duration::from_nanos(self.last.load(Ordering::Acquire))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn kind(message: &[u8]) -> u16 {
    message
        .get(4..6)
        .map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]))
}

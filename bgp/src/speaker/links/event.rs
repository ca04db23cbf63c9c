//! What the kernel tells of links by itself: rtnetlink's messages, read just as far as needed.
//!
//! Not a netlink library: of a link's fifty attributes one is looked at, since an event for each of a thousand pods' links
//! passes by here.

use std::future::poll_fn;
use std::io;

use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, TokioSocket};
use tokio::sync::mpsc;
use tracing::warn;

use super::News;

/// The group that hears of links (linux/rtnetlink.h, RTNLGRP_LINK).
const LINKS: u32 = 1;
/// Larger than any datagram of events.
const BUFFER: usize = 32 * 1024;
/// The receive buffer was full, and events are lost.
const ENOBUFS: i32 = 105;
/// The length of a message's header.
const HEADER: usize = 16;
/// The length of what every link message begins with (struct ifinfomsg).
const LINK_HEADER: usize = 16;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
/// The attribute with the interface's name.
const NAME: u16 = 3;
/// The interface is there for use (IFF_UP).
const UP: u32 = 1;
/// The driver sees a carrier (IFF_LOWER_UP).
const LOWER_UP: u32 = 1 << 16;

/// What is known of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// Up, with a carrier.
    Up,
    /// Nothing at the other end.
    NoCarrier,
    /// Taken down by somebody.
    Down,
    /// No such interface.
    Gone,
    /// The kernel had more to tell than it could keep.
    Unheard,
}

impl LinkState {
    /// From the flags of an interface that is there.
    pub(super) fn of(flags: u32) -> Self {
        match (flags & UP != 0, flags & LOWER_UP != 0) {
            (true, true) => Self::Up,
            (true, false) => Self::NoCarrier,
            (false, _) => Self::Down,
        }
    }

    /// What is wrong with it, if something is.
    pub(super) fn words(self) -> Option<&'static str> {
        match self {
            Self::Up | Self::Unheard => None,
            Self::NoCarrier => Some("lost carrier"),
            Self::Down => Some("is down"),
            Self::Gone => Some("is gone"),
        }
    }
}

/// Something happened to a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LinkEvent {
    /// Index of the interface; 0 for any.
    pub(super) index: u32,
    pub(super) interface: String,
    pub(super) state: LinkState,
}

/// A socket that hears of links.
pub(super) fn listen() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind_auto()?;
    socket.socket_ref().add_membership(LINKS)?;
    Ok(socket)
}

/// Tells what happens to links, until nobody listens.
pub(super) async fn run(socket: TokioSocket, news: mpsc::Sender<News>) {
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        buffer.reserve(BUFFER);
        let events = match poll_fn(|context| socket.poll_recv(context, &mut buffer)).await {
            Ok(()) => read(&buffer),
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => vec![LinkEvent {
                index: 0,
                interface: String::new(),
                state: LinkState::Unheard,
            }],
            Err(error) => {
                warn!(%error, "links are not watched any more");
                return;
            }
        };
        for event in events {
            if news.send(News::Link(event)).await.is_err() {
                return;
            }
        }
    }
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    let octets = octets.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*octets))
}

fn half(octets: &[u8], at: usize) -> Option<u16> {
    let octets = octets.get(at..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*octets))
}

/// The link events of a datagram. What is cut off is passed over.
fn read(mut datagram: &[u8]) -> Vec<LinkEvent> {
    let mut events = Vec::new();
    while let (Some(length), Some(kind)) = (word(datagram, 0), half(datagram, 4)) {
        let length = (length as usize).max(HEADER);
        let end = length.min(datagram.len());
        let body = datagram.get(HEADER..end).unwrap_or_default();
        if kind == RTM_NEWLINK || kind == RTM_DELLINK {
            events.extend(link(body, kind == RTM_DELLINK));
        }
        let next = length.next_multiple_of(4);
        datagram = datagram.get(next..).unwrap_or_default();
    }
    events
}

fn link(body: &[u8], gone: bool) -> Option<LinkEvent> {
    // A bridge tells of its ports as well, with flags of its own meaning (AF_BRIDGE).
    if body.first() != Some(&0) {
        return None;
    }
    let state = match gone {
        true => LinkState::Gone,
        false => LinkState::of(word(body, 8)?),
    };
    Some(LinkEvent {
        index: word(body, 4)?,
        interface: name(body.get(LINK_HEADER..)?).unwrap_or_default(),
        state,
    })
}

fn name(mut attributes: &[u8]) -> Option<String> {
    loop {
        let length = usize::from(half(attributes, 0)?).max(4);
        if half(attributes, 2)? == NAME {
            let name = attributes.get(4..length)?;
            let end = name.iter().position(|octet| *octet == 0)?;
            return Some(String::from_utf8_lossy(&name[..end]).into_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, flags: u32) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend(7_u32.to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend([0; 4]);
        // A queue length, then the name.
        for (kind, value) in [(13_u16, &[0, 0, 3, 232][..]), (NAME, b"eth0\0\0\0\0")] {
            let length = if kind == NAME { 9 } else { 8_u16 };
            body.extend(length.to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
        }
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut octets = length.to_ne_bytes().to_vec();
        octets.extend(kind.to_ne_bytes());
        octets.resize(HEADER, 0);
        octets.extend(body);
        octets
    }

    #[test]
    fn states_are_told_by_flags_and_kind() {
        for (kind, family, flags, state) in [
            (RTM_NEWLINK, 0, UP | LOWER_UP, Some(LinkState::Up)),
            (RTM_NEWLINK, 0, UP, Some(LinkState::NoCarrier)),
            (RTM_NEWLINK, 0, 0, Some(LinkState::Down)),
            (RTM_NEWLINK, 0, LOWER_UP, Some(LinkState::Down)),
            (RTM_DELLINK, 0, UP | LOWER_UP, Some(LinkState::Gone)),
            (RTM_NEWLINK, 7, 0, None),
            (20, 0, 0, None),
        ] {
            let events = read(&message(kind, family, flags));
            let wanted = state.map(|state| LinkEvent {
                index: 7,
                interface: "eth0".to_owned(),
                state,
            });
            assert_eq!(events, Vec::from_iter(wanted), "{kind} {family} {flags}");
        }
    }

    #[test]
    fn several_messages_and_broken_ones() {
        let mut two = message(RTM_NEWLINK, 0, 0);
        two.extend(message(RTM_DELLINK, 0, 0));
        assert_eq!(read(&two).len(), 2);
        for length in 0..two.len() {
            read(&two[..length]);
        }
        read(&[0; 64]);
        read(&[255; 64]);
    }
}

//! What the kernel is asked about links: which one a peer is on, and how one is.

use std::io;
use std::net::IpAddr;

use futures::TryStreamExt;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::event::LinkState;

/// A way to ask. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Kernel(Handle);

impl Kernel {
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        // Ends with the last handle.
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Index of the interface by which packets to an address leave, if there is no gateway in between.
    pub(super) async fn link_to(&self, remote: IpAddr) -> Option<u32> {
        let message = match remote {
            IpAddr::V4(address) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(address, 32)
                .build(),
            IpAddr::V6(address) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(address, 128)
                .build(),
        };
        let mut answers = Box::pin(self.0.route().get(message).execute());
        let route = answers.try_next().await.ok()??;
        direct(&route)
    }

    /// The name of an interface, and how it is.
    pub(super) async fn link(&self, index: u32) -> (String, LinkState) {
        let links = self.0.link().get().match_index(index).execute();
        let mut links = Box::pin(links);
        let Ok(Some(link)) = links.try_next().await else {
            return (format!("number {index}"), LinkState::Gone);
        };
        let name = link
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
        let state = LinkState::of(link.header.flags.bits());
        (name.unwrap_or_default(), state)
    }
}

fn direct(route: &RouteMessage) -> Option<u32> {
    let mut index = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(interface) => index = Some(*interface),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                return None;
            }
            _ => {}
        }
    }
    index
}

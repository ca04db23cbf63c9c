//! The real kernel, over rtnetlink.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::error::{Errno, KernelError};
use super::super::link::{InterfaceAddress, Link};
use super::super::neighbours::{Neighbour, NeighbourChange};
use super::super::routes::{Route, RouteChange};
use super::super::tunnel::TunnelSpec;
use super::message;
use super::names::InterfaceNames;
use super::netlink_pod::address_message;
use super::next_hop_objects::NextHopObjects;
use super::route_message::{self, Indices, Names};
use super::socket::Socket;
use super::{Kernel, LinkChange, Lookup};

/// The network namespace of the thread that opened it, with the routes of one table. Clones share
/// one socket.
#[derive(Debug, Clone)]
pub struct NetlinkKernel {
    pub(super) socket: Socket,
    pub(super) interfaces: InterfaceNames,
    pub(super) table: u32,
    pub(super) objects: Option<Arc<Mutex<NextHopObjects>>>,
}

impl NetlinkKernel {
    /// Opens the namespace of the calling thread. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn open() -> Result<Self, KernelError> {
        Self::open_table(route_message::MAIN_TABLE)
    }

    /// As [`Self::open`], with the routes of `table` instead of table main.
    ///
    /// # Errors
    /// No netlink socket can be had.
    pub fn open_table(table: u32) -> Result<Self, KernelError> {
        Ok(Self {
            socket: Socket::open()?,
            interfaces: InterfaceNames::open()?,
            table,
            objects: None,
        })
    }

    /// Has next hops that many routes share as objects of their own, where the kernel can: for
    /// large tables. Objects that no route needs any more go with the next [`Kernel::routes`], which
    /// must not be called while routes are applied.
    ///
    /// Must be called on the thread that opened it.
    #[must_use]
    pub fn with_next_hop_objects(mut self) -> Self {
        let objects = NextHopObjects::open(self.table);
        self.objects = objects.map(|objects| Arc::new(Mutex::new(objects)));
        self
    }

    /// The socket's port number, by which [`super::super::Monitor`] knows our own changes.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    pub(super) async fn names(&self) -> Result<Names, KernelError> {
        let links = self.links().await?;
        Ok(links.into_iter().map(|l| (l.index, l.name)).collect())
    }

    /// The indices of the links that routes lead out of, as far as there are any: the message for
    /// a route out of another says that there is none.
    fn indices(&self, changes: &[RouteChange]) -> Result<Indices, KernelError> {
        let mut indices = Indices::default();
        for change in changes {
            let (RouteChange::Add(route) | RouteChange::Replace(route)) = change else {
                continue;
            };
            for name in route.interfaces() {
                if indices.contains_key(name) {
                    continue;
                }
                match self.interfaces.index(name) {
                    Ok(index) => drop(indices.insert(name.to_owned(), index)),
                    Err(error) if error.is_absent() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(indices)
    }

    async fn link_by_index(&self, index: u32) -> Result<Option<Link>, KernelError> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        self.one_link(request).await
    }

    async fn one_link(&self, request: LinkMessage) -> Result<Option<Link>, KernelError> {
        match self.socket.get(RouteNetlinkMessage::GetLink(request)).await {
            Ok(RouteNetlinkMessage::NewLink(link)) => Ok(message::parse_link(&link)),
            Ok(_) => Err(KernelError::Unexpected("not a link".to_owned())),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn fail_all(count: usize, error: &KernelError) -> Vec<Result<(), KernelError>> {
    (0..count)
        .map(|_| Err(KernelError::Unexpected(error.to_string())))
        .collect()
}

impl Kernel for NetlinkKernel {
    async fn links(&self) -> Result<Vec<Link>, KernelError> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let items = self.socket.dump(request).await?;
        Ok(items
            .iter()
            .filter_map(|item| match item {
                RouteNetlinkMessage::NewLink(link) => message::parse_link(link),
                _ => None,
            })
            .collect())
    }

    async fn link(&self, name: &str) -> Result<Option<Link>, KernelError> {
        let mut request = LinkMessage::default();
        request
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(request).await
    }

    async fn addresses(&self) -> Result<Vec<InterfaceAddress>, KernelError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let items = self.socket.dump(request).await?;
        Ok(items
            .iter()
            .filter_map(|item| match item {
                RouteNetlinkMessage::NewAddress(address) => parse_address(address),
                _ => None,
            })
            .collect())
    }

    async fn lookup(&self, address: IpAddr) -> Result<Lookup, KernelError> {
        let request = RouteNetlinkMessage::GetRoute(route_message::lookup_request(address));
        match self.socket.get(request).await {
            Ok(RouteNetlinkMessage::NewRoute(route)) => {
                let mut names = Names::new();
                if let Some(index) = route_message::output_interface(&route)
                    && let Some(link) = self.link_by_index(index).await?
                {
                    names.insert(index, link.name);
                }
                Ok(route_message::parse_lookup(&route, &names))
            }
            Ok(_) => Err(KernelError::Unexpected("not a route".to_owned())),
            // "Unreachable", "prohibited" and "blackhole" are answers.
            Err(KernelError::Refused {
                errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EINVAL | Errno(13),
                ..
            }) => Ok(Lookup::None),
            // A kernel without IPv6.
            Err(error) if error.is_unsupported() => Ok(Lookup::None),
            Err(error) => Err(error),
        }
    }

    async fn create_tunnel(&self, spec: &TunnelSpec) -> Result<(), KernelError> {
        let request = RouteNetlinkMessage::NewLink(message::tunnel_message(spec)?);
        self.socket
            .send_one(request, NLM_F_CREATE | NLM_F_EXCL)
            .await
    }

    async fn set_link(&self, name: &str, change: &LinkChange) -> Result<(), KernelError> {
        let index = self.interfaces.index(name)?;
        let request = message::change_message(index, change.mtu, change.up);
        self.socket
            .send_one(RouteNetlinkMessage::SetLink(request), 0)
            .await
    }

    async fn set_address(
        &self,
        name: &str,
        address: IpAddr,
        present: bool,
    ) -> Result<(), KernelError> {
        let message = address_message(self.interfaces.index(name)?, address);
        if present {
            let add = RouteNetlinkMessage::NewAddress(message);
            return self
                .socket
                .send_one(add, NLM_F_CREATE | NLM_F_REPLACE)
                .await;
        }
        let delete = RouteNetlinkMessage::DelAddress(message);
        match self.socket.send_one(delete, 0).await {
            Err(error) if error.is_absent() => Ok(()),
            other => other,
        }
    }

    async fn delete_link(&self, name: &str) -> Result<(), KernelError> {
        let mut request = LinkMessage::default();
        request.header.index = self.interfaces.index(name)?;
        self.socket
            .send_one(RouteNetlinkMessage::DelLink(request), 0)
            .await
    }

    async fn routes(&self) -> Result<Vec<Route>, KernelError> {
        let (routes, used) = self.read_routes().await?;
        self.remove_unused_objects(&used);
        Ok(routes)
    }

    async fn apply_routes(&self, changes: &[RouteChange]) -> Vec<Result<(), KernelError>> {
        match self.indices(changes) {
            Ok(indices) => self.change_routes(changes, &indices).await,
            Err(error) => fail_all(changes.len(), &error),
        }
    }

    async fn neighbours(&self, device: &str) -> Result<Vec<Neighbour>, KernelError> {
        let index = self.interfaces.index(device)?;
        let mut neighbours = NeighbourMessage::default();
        neighbours
            .attributes
            .push(NeighbourAttribute::IfIndex(index));
        let mut forwarding = NeighbourMessage::default();
        forwarding.header.family = AddressFamily::Bridge;
        forwarding.header.ifindex = index;
        let mut entries = Vec::new();
        for request in [neighbours, forwarding] {
            let items = self
                .socket
                .dump(RouteNetlinkMessage::GetNeighbour(request))
                .await?;
            entries.extend(items.iter().filter_map(|item| match item {
                RouteNetlinkMessage::NewNeighbour(entry) => message::parse_neighbour(entry, index),
                _ => None,
            }));
        }
        Ok(entries)
    }

    async fn apply_neighbours(
        &self,
        device: &str,
        changes: &[NeighbourChange],
    ) -> Vec<Result<(), KernelError>> {
        let index = match self.interfaces.index(device) {
            Ok(index) => index,
            Err(error) => return fail_all(changes.len(), &error),
        };
        let messages = changes
            .iter()
            .map(|change| match change {
                NeighbourChange::Set(entry) => (
                    RouteNetlinkMessage::NewNeighbour(message::neighbour_message(index, entry)),
                    NLM_F_CREATE | NLM_F_REPLACE,
                ),
                NeighbourChange::Remove(entry) => (
                    RouteNetlinkMessage::DelNeighbour(message::neighbour_message(index, entry)),
                    0,
                ),
            })
            .collect();
        let mut results = self.socket.send(messages).await;
        for (change, result) in changes.iter().zip(&mut results) {
            let gone = matches!(result, Err(error) if error.is_absent());
            if gone && matches!(change, NeighbourChange::Remove(_)) {
                *result = Ok(());
            }
        }
        results
    }
}

pub(super) fn parse_address(message: &AddressMessage) -> Option<InterfaceAddress> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    Some(InterfaceAddress {
        index: message.header.index,
        // On a point-to-point link IFA_ADDRESS is the far end.
        address: local.or(address)?,
        prefix_length: message.header.prefix_len,
    })
}

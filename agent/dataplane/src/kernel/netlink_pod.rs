//! A pod's namespace, entered on a thread that ends there.
//!
//! A thread's network namespace decides where its sockets and its view of /proc/sys/net belong,
//! and tokio's workers are shared: so each visit gets a thread of its own, and no thread ever
//! changes back. A socket stays where it was opened: what it opened there serves any thread.

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::super::error::KernelError;
use super::super::neighbours::Neighbour;
use super::super::pod_link::{PodSide, PodSideState, gateway};
use super::super::sysctl::{DesiredSysctls, SysctlTree};
use super::batch::BatchSocket;
use super::message::{change_message, family, neighbour_message};
use super::names::InterfaceNames;
use super::netlink::NetlinkKernel;
use super::route_message::{MAIN_TABLE, default_gateway, routes_request};
use super::{Kernel, NodeSettings, PodKernel, VethSpec};

/// Runs `work` on a new thread in the network namespace at `path`, with a runtime of its own.
///
/// # Errors
/// The path is no network namespace or may not be entered, or what `work` says.
pub(super) async fn in_namespace<T, F, Fut>(path: &Path, work: F) -> Result<T, KernelError>
where
    T: Send + 'static,
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, KernelError>>,
{
    let on_runtime = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| KernelError::Io {
                what: "cannot start a runtime for a pod's namespace".to_owned(),
                source,
            })?;
        runtime.block_on(work())
    };
    on_thread_in(path, None, on_runtime).await
}

/// Runs `work` on a new thread in the network namespace at `path`, before which it writes the
/// settings `outside`.
async fn on_thread_in<T: Send + 'static>(
    path: &Path,
    outside: Option<NodeSettings>,
    work: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, KernelError> {
    let (sender, receiver) = oneshot::channel();
    let path = path.to_owned();
    std::thread::Builder::new()
        .name("margay-pod-ns".to_owned())
        .spawn(move || {
            let written = outside.map_or(Ok(()), |settings| settings.tree.write(&settings.wanted));
            let said = written.and_then(|()| enter(&path)).and_then(|()| work());
            // The caller may have gone away; then nobody wants the answer.
            let _ = sender.send(said);
        })
        .map_err(|source| KernelError::Io {
            what: "cannot start a thread for a pod's namespace".to_owned(),
            source,
        })?;
    receiver.await.unwrap_or_else(|_| {
        Err(KernelError::Unexpected(
            "the thread in a pod's namespace died".to_owned(),
        ))
    })
}

fn enter(path: &Path) -> Result<(), KernelError> {
    let namespace = open_namespace(path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| cannot_enter(path, errno.into()))
}

fn cannot_enter(path: &Path, source: io::Error) -> KernelError {
    KernelError::Namespace {
        path: PathBuf::from(path),
        source,
    }
}

/// The file system that namespaces are files of (`NSFS_MAGIC` in linux/magic.h).
const NAMESPACES: rustix::fs::FsWord = 0x6e73_6673;

/// Opens a pod's namespace; the node's own is refused: a pod of the host's network has no link.
fn open_namespace(path: &Path) -> Result<File, KernelError> {
    let failed = |source| cannot_enter(path, source);
    let file = File::open(path).map_err(failed)?;
    let system = rustix::fs::fstatfs(&file).map_err(|errno| failed(errno.into()))?;
    if system.f_type != NAMESPACES {
        // The kernel would only say that some argument is invalid.
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no namespace",
        )));
    }
    let theirs = file.metadata().map_err(failed)?;
    let own = std::fs::metadata("/proc/thread-self/ns/net").map_err(failed)?;
    if (theirs.dev(), theirs.ino()) == (own.dev(), own.ino()) {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is the node's own namespace",
        )));
    }
    Ok(file)
}

impl PodKernel for NetlinkKernel {
    type Visit = Visit;

    async fn create_veth(&self, spec: &VethSpec<'_>) -> Result<u32, KernelError> {
        let namespace = open_namespace(spec.namespace)?;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(spec.pod_interface)
            .address(spec.pod_mac.0.to_vec())
            .mtu(spec.mtu)
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let pair = LinkVeth::new(spec.host_interface, spec.pod_interface)
            .address(spec.host_mac.0.to_vec())
            .mtu(spec.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        // `namespace` must stay open until the kernel has answered.
        self.socket
            .send_one(
                RouteNetlinkMessage::NewLink(pair),
                NLM_F_CREATE | NLM_F_EXCL,
            )
            .await?;
        // Nothing is left behind here, either: it has no number only if it is gone again.
        self.interfaces.index(spec.host_interface)
    }

    async fn enter_pod(
        &self,
        outside: NodeSettings,
        namespace: &Path,
        interface: &str,
    ) -> Result<Visit, KernelError> {
        let (path, interface) = (namespace.to_owned(), interface.to_owned());
        let runtime = Handle::current();
        let begin = move || {
            // The socket is to wake the caller's tasks.
            let _entered = runtime.enter();
            Visit::begin(path, &interface)
        };
        let mut visit = on_thread_in(namespace, Some(outside), begin).await?;
        visit.set_up().await?;
        Ok(visit)
    }

    async fn configure_pod(&self, visit: Visit, side: &PodSide) -> Result<(), KernelError> {
        visit.configure(side).await
    }

    async fn inspect_pod(
        &self,
        namespace: &Path,
        interface: &str,
    ) -> Result<PodSideState, KernelError> {
        let interface = interface.to_owned();
        in_namespace(namespace, move || async move { inspect(&interface).await }).await
    }
}

/// A pod's namespace: what was opened in it, and can be used from outside.
#[derive(Debug)]
pub struct Visit {
    namespace: PathBuf,
    socket: BatchSocket,
    loopback: u32,
    index: u32,
    /// Whether IPv6 is switched off, or not there.
    lacks_ipv6: bool,
}

impl Visit {
    /// Everything that must be done on a thread in the namespace and needs no address. The pod
    /// takes neither routes nor addresses from anyone but us.
    fn begin(namespace: PathBuf, interface: &str) -> Result<Self, KernelError> {
        let tree = SysctlTree::default();
        let mut sysctls = DesiredSysctls::new();
        sysctls.set_if_present(format!("net/ipv6/conf/{interface}/accept_ra"), "0");
        sysctls.set_if_present(format!("net/ipv6/conf/{interface}/accept_dad"), "0");
        tree.write(&sysctls)?;
        let lacks_ipv6 = !tree.diff(&ipv6_sysctls(interface))?.is_empty();
        let names = InterfaceNames::open()?;
        let (socket, _) = BatchSocket::open().map_err(|source| KernelError::Io {
            what: "cannot open a netlink socket in a pod's namespace".to_owned(),
            source,
        })?;
        Ok(Self {
            namespace,
            socket,
            loopback: names.index("lo")?,
            index: names.index(interface)?,
            lacks_ipv6,
        })
    }

    async fn set_up(&mut self) -> Result<(), KernelError> {
        let up = |index| {
            let up = change_message(index, None, Some(true));
            (RouteNetlinkMessage::SetLink(up), 0)
        };
        let both = vec![up(self.loopback), up(self.index)];
        self.socket.send(both).await.into_iter().collect()
    }

    async fn configure(mut self, side: &PodSide) -> Result<(), KernelError> {
        let has_ipv6 = side.addresses.iter().any(IpAddr::is_ipv6);
        if has_ipv6 && self.lacks_ipv6 {
            let wanted = ipv6_sysctls(&side.interface);
            let write = move || SysctlTree::default().write(&wanted);
            on_thread_in(&self.namespace, None, write).await?;
        }
        let mut messages = Vec::new();
        for address in &side.addresses {
            let add = RouteNetlinkMessage::NewAddress(address_message(self.index, *address));
            messages.push((add, NLM_F_CREATE | NLM_F_REPLACE));
        }
        let mut gateways: Vec<IpAddr> = side.addresses.iter().copied().map(gateway).collect();
        gateways.sort_unstable();
        gateways.dedup();
        for gateway in gateways {
            for route in gateway_routes(self.index, gateway)? {
                let add = RouteNetlinkMessage::NewRoute(route);
                messages.push((add, NLM_F_CREATE | NLM_F_EXCL));
            }
            let entry = Neighbour::Address {
                address: gateway,
                mac: side.gateway_mac,
            };
            let add = RouteNetlinkMessage::NewNeighbour(neighbour_message(self.index, &entry));
            messages.push((add, NLM_F_CREATE | NLM_F_REPLACE));
        }
        let sent = self.socket.send(messages).await;
        sent.into_iter().collect()
    }
}

/// A container engine may have switched IPv6 off; a pod with an IPv6 address needs it.
fn ipv6_sysctls(interface: &str) -> DesiredSysctls {
    let mut all = DesiredSysctls::new();
    for name in ["all", "lo", interface] {
        all.set(format!("net/ipv6/conf/{name}/disable_ipv6"), "0");
    }
    all
}

pub(super) fn address_message(interface: u32, address: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = interface;
    message.header.family = family(address);
    message.header.prefix_len = if address.is_ipv4() { 32 } else { 128 };
    message.header.scope = AddressScope::Universe;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    if address.is_ipv6() {
        // Margay gives an address once: waiting a second to detect a duplicate would only delay
        // the pod.
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

/// The way to the gateway and the default route through it. IPv6's gateway is link-local, which
/// every interface has a route to.
fn gateway_routes(interface: u32, gateway: IpAddr) -> Result<Vec<RouteMessage>, KernelError> {
    let bad = |error: &dyn std::fmt::Display| KernelError::Unsupported(error.to_string());
    let any = match gateway {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let mut routes = Vec::new();
    if gateway.is_ipv4() {
        let to_gateway = IpNetwork::from(gateway);
        routes.push(
            RouteMessageBuilder::<IpAddr>::new()
                .destination_prefix(to_gateway.network(), to_gateway.prefix())
                .map_err(|error| bad(&error))?
                .scope(RouteScope::Link)
                .protocol(RouteProtocol::Boot)
                .output_interface(interface)
                .build(),
        );
    }
    routes.push(
        RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(any, 0)
            .map_err(|error| bad(&error))?
            .gateway(gateway)
            .map_err(|error| bad(&error))?
            .protocol(RouteProtocol::Boot)
            .output_interface(interface)
            .build(),
    );
    Ok(routes)
}

async fn inspect(interface: &str) -> Result<PodSideState, KernelError> {
    let kernel = NetlinkKernel::open()?;
    let Some(link) = kernel.link(interface).await? else {
        return Ok(PodSideState::default());
    };
    let addresses = kernel.addresses().await?;
    let mut gateways = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = routes_request(family, MAIN_TABLE);
        request.header.protocol = RouteProtocol::Unspec;
        let items = kernel
            .socket
            .dump(RouteNetlinkMessage::GetRoute(request))
            .await?;
        gateways.extend(items.iter().filter_map(|item| match item {
            RouteNetlinkMessage::NewRoute(route) => default_gateway(route, link.index),
            _ => None,
        }));
    }
    Ok(PodSideState {
        link: Some((link.up, link.mtu, link.mac)),
        addresses: addresses
            .into_iter()
            .filter(|entry| entry.index == link.index && !is_link_local(entry.address))
            .map(|entry| entry.address)
            .collect(),
        default_gateways: gateways,
    })
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

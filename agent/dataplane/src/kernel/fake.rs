//! A kernel in memory that refuses what the real one refuses.
//!
//! Not a simulator of packets: it keeps links, addresses, routes, neighbours and pods'
//! namespaces, applies the kernel's rules for them, and prints itself as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnetwork::IpNetwork;

use super::super::error::{Errno, KernelError};
use super::super::link::{InterfaceAddress, Link, LinkKind, MAX_INTERFACE_NAME, Mac};
use super::super::neighbours::{Neighbour, NeighbourChange, NeighbourKey};
use super::super::pod_link::{PodSide, PodSideState, gateway};
use super::super::routes::{Route, RouteChange, RouteKey, RouteTarget};
use super::super::tunnel::{TunnelMode, TunnelSpec};
use super::{Kernel, LinkChange, Lookup, NodeSettings, PodKernel, VethSpec};

/// A kernel in memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    next_index: u32,
    links: BTreeMap<u32, FakeLink>,
    addresses: Vec<InterfaceAddress>,
    routes: BTreeMap<RouteKey, Owned>,
    neighbours: BTreeMap<(u32, NeighbourKey), Neighbour>,
    namespaces: BTreeMap<PathBuf, Namespace>,
    unsupported: BTreeSet<TunnelMode>,
    failures: BTreeMap<String, Errno>,
    log: Vec<String>,
}

#[derive(Debug)]
struct FakeLink {
    link: Link,
    /// A veth's far end.
    pod: Option<(PathBuf, String)>,
}

#[derive(Debug)]
struct Owned {
    route: Route,
    protocol: u8,
}

#[derive(Debug, Default)]
struct Namespace {
    interfaces: BTreeMap<String, PodSideState>,
}

type Outcome = Result<(), KernelError>;

fn refuse(errno: Errno) -> Outcome {
    Err(KernelError::errno(errno))
}

impl FakeKernel {
    /// A kernel with a loopback only.
    pub fn new() -> Self {
        let kernel = Self::default();
        kernel.add_interface("lo", 65_536, None);
        kernel
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere must still be able to print the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an interface that is up, with an address and prefix.
    pub fn add_interface(&self, name: &str, mtu: u32, address: Option<IpNetwork>) {
        let mut state = self.state();
        let index = state.add_link(name, mtu, None, LinkKind::Other(String::new()));
        if let Some(link) = state.links.get_mut(&index) {
            link.link.up = true;
        }
        if let Some(address) = address {
            state.addresses.push(InterfaceAddress {
                index,
                address: address.ip(),
                prefix_length: address.prefix(),
            });
        }
    }

    /// Adds a namespace that pods' links can be made into.
    pub fn add_namespace(&self, path: impl Into<PathBuf>) {
        self.state()
            .namespaces
            .insert(path.into(), Namespace::default());
    }

    /// Puts in a route of another owner, as an administrator would.
    pub fn add_foreign_route(&self, route: Route, protocol: u8) {
        self.state()
            .routes
            .insert(route.key(), Owned { route, protocol });
    }

    /// Takes a route out behind Margay's back; whether it was there.
    pub fn lose_route(&self, destination: IpNetwork) -> bool {
        let mut state = self.state();
        let before = state.routes.len();
        state.routes.retain(|key, _| key.destination != destination);
        state.routes.len() < before
    }

    /// Makes the kernel lack a kind of tunnel.
    pub fn without(&self, mode: TunnelMode) {
        self.state().unsupported.insert(mode);
    }

    /// Makes every operation whose line in [`Self::log`] begins with `prefix` fail.
    pub fn fail(&self, prefix: &str, errno: Errno) {
        self.state().failures.insert(prefix.to_owned(), errno);
    }

    /// Every operation that succeeded or failed, in order, one line each.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Everything the kernel holds, one line each.
    pub fn dump(&self) -> String {
        self.state().dump()
    }
}

impl State {
    fn add_link(&mut self, name: &str, mtu: u32, mac: Option<Mac>, kind: LinkKind) -> u32 {
        self.next_index += 1;
        let index = self.next_index;
        let link = Link {
            index,
            name: name.to_owned(),
            mtu,
            up: false,
            mac,
            kind,
        };
        self.links.insert(index, FakeLink { link, pod: None });
        index
    }

    /// Records an operation, and fails it if told to.
    fn enter(&mut self, line: String) -> Outcome {
        let failure = self
            .failures
            .iter()
            .find(|(prefix, _)| line.starts_with(prefix.as_str()))
            .map(|(_, errno)| *errno);
        self.log.push(line);
        failure.map_or(Ok(()), refuse)
    }

    fn index(&self, name: &str) -> Result<u32, KernelError> {
        self.links
            .values()
            .find(|link| link.link.name == name)
            .map(|link| link.link.index)
            .ok_or_else(|| KernelError::NoDevice(name.to_owned()))
    }

    fn check_new_name(&self, name: &str) -> Outcome {
        if name.is_empty() || name.len() > MAX_INTERFACE_NAME || name.contains('/') {
            return refuse(Errno::EINVAL);
        }
        if self.index(name).is_ok() {
            return refuse(Errno::EEXIST);
        }
        Ok(())
    }

    /// What the kernel forgets when a link goes down.
    fn forget(&mut self, index: u32, name: &str) {
        self.routes
            .retain(|_, owned| !owned.route.interfaces().contains(&name));
        self.neighbours.retain(|(device, _), _| *device != index);
    }

    fn delete(&mut self, name: &str) -> Outcome {
        let index = self.index(name)?;
        self.forget(index, name);
        self.addresses.retain(|address| address.index != index);
        if let Some((namespace, interface)) = self.links.remove(&index).and_then(|l| l.pod)
            && let Some(namespace) = self.namespaces.get_mut(&namespace)
        {
            namespace.interfaces.remove(&interface);
        }
        Ok(())
    }

    /// The interface whose connected prefix holds the address, the longest prefix first.
    fn connected(&self, address: IpAddr) -> Option<&Link> {
        self.addresses
            .iter()
            .filter(|entry| {
                IpNetwork::new(entry.address, entry.prefix_length)
                    .is_ok_and(|network| network.contains(address))
            })
            .max_by_key(|entry| entry.prefix_length)
            .and_then(|entry| self.links.get(&entry.index))
            .map(|link| &link.link)
            .filter(|link| link.up)
    }

    fn way(&self, address: IpAddr) -> Lookup {
        if self.addresses.iter().any(|entry| entry.address == address) {
            return Lookup::Local;
        }
        let route = self
            .routes
            .values()
            .map(|owned| &owned.route)
            .filter(|route| route.destination.contains(address))
            .max_by_key(|route| route.destination.prefix());
        let connected = self.connected(address).map(|link| Lookup::Unicast {
            interface: link.name.clone(),
            gateway: None,
            source: None,
        });
        match (connected, route.map(|route| &route.target)) {
            (Some(connected), _) => connected,
            (None, Some(RouteTarget::Link { interface })) => Lookup::Unicast {
                interface: interface.clone(),
                gateway: None,
                source: None,
            },
            (None, Some(RouteTarget::NextHops(hops))) => {
                hops.first().map_or(Lookup::None, |hop| Lookup::Unicast {
                    interface: hop.interface.clone(),
                    gateway: Some(hop.gateway),
                    source: None,
                })
            }
            _ => Lookup::None,
        }
    }

    /// The checks the kernel makes of a route, in its order.
    fn check_route(&self, route: &Route) -> Outcome {
        for name in route.interfaces() {
            let index = self.index(name)?;
            if !self.links.get(&index).is_some_and(|link| link.link.up) {
                return refuse(Errno::ENETDOWN);
            }
        }
        match &route.target {
            RouteTarget::NextHops(hops) => {
                if hops.is_empty() {
                    return refuse(Errno::EINVAL);
                }
                for hop in hops.iter().filter(|hop| !hop.onlink) {
                    let link_local =
                        matches!(hop.gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
                    let reachable = link_local
                        || matches!(
                            self.way(hop.gateway),
                            Lookup::Unicast { interface, gateway: None, .. } if interface == hop.interface
                        );
                    if !reachable {
                        return refuse(Errno::ENETUNREACH);
                    }
                }
            }
            RouteTarget::Other(_) => return refuse(Errno::EINVAL),
            RouteTarget::Blackhole | RouteTarget::Link { .. } => {}
        }
        match route.source {
            Some(source) if !matches!(self.way(source), Lookup::Local) => refuse(Errno::EINVAL),
            _ => Ok(()),
        }
    }

    fn apply_route(&mut self, change: &RouteChange) -> Outcome {
        self.enter(change.to_string())?;
        let ours = super::super::routes::ROUTE_PROTOCOL;
        match change {
            RouteChange::Add(route) | RouteChange::Replace(route) => {
                self.check_route(route)?;
                let taken = self.routes.get(&route.key());
                if taken.is_some_and(|owned| owned.protocol != ours) {
                    return Err(KernelError::ForeignRoute);
                }
                let owned = Owned {
                    route: route.clone(),
                    protocol: ours,
                };
                self.routes.insert(route.key(), owned);
            }
            RouteChange::Delete(key) => {
                if self.routes.get(key).is_some_and(|o| o.protocol == ours) {
                    self.routes.remove(key);
                }
            }
        }
        Ok(())
    }

    fn apply_neighbour(&mut self, device: &str, change: &NeighbourChange) -> Outcome {
        let index = self.index(device)?;
        match change {
            NeighbourChange::Set(entry) => {
                self.enter(format!("set {entry} dev {device}"))?;
                let link = &self.links[&index].link;
                let forwarding = matches!(entry, Neighbour::Forwarding { .. });
                if forwarding && !matches!(link.kind, LinkKind::Vxlan(_)) {
                    return refuse(Errno::EOPNOTSUPP);
                }
                if !forwarding && !link.up {
                    return refuse(Errno::ENETDOWN);
                }
                self.neighbours.insert((index, entry.key()), entry.clone());
            }
            NeighbourChange::Remove(entry) => {
                self.enter(format!("remove {entry} dev {device}"))?;
                if self.neighbours.get(&(index, entry.key())) == Some(entry) {
                    self.neighbours.remove(&(index, entry.key()));
                }
            }
        }
        Ok(())
    }

    fn dump(&self) -> String {
        let mut text = String::new();
        for FakeLink { link, .. } in self.links.values() {
            let state = if link.up { "up" } else { "down" };
            let _ = writeln!(text, "link {} mtu {} {state}", link.name, link.mtu);
            for entry in self.addresses.iter().filter(|a| a.index == link.index) {
                let _ = writeln!(
                    text,
                    "address {}/{} dev {}",
                    entry.address, entry.prefix_length, link.name
                );
            }
        }
        for owned in self.routes.values() {
            let _ = writeln!(text, "route {} proto {}", owned.route, owned.protocol);
        }
        for ((index, _), entry) in &self.neighbours {
            let device = self.links.get(index).map_or("?", |l| l.link.name.as_str());
            let _ = writeln!(text, "{entry} dev {device}");
        }
        for (path, namespace) in &self.namespaces {
            for (name, interface) in &namespace.interfaces {
                let _ = writeln!(
                    text,
                    "pod {} {name} addresses {:?} via {:?}",
                    path.display(),
                    interface.addresses,
                    interface.default_gateways
                );
            }
        }
        text
    }
}

impl Kernel for FakeKernel {
    async fn links(&self) -> Result<Vec<Link>, KernelError> {
        let state = self.state();
        Ok(state.links.values().map(|l| l.link.clone()).collect())
    }

    async fn link(&self, name: &str) -> Result<Option<Link>, KernelError> {
        let links = self.links().await?;
        Ok(links.into_iter().find(|link| link.name == name))
    }

    async fn addresses(&self) -> Result<Vec<InterfaceAddress>, KernelError> {
        Ok(self.state().addresses.clone())
    }

    async fn lookup(&self, address: IpAddr) -> Result<Lookup, KernelError> {
        let mut state = self.state();
        state.enter(format!("lookup {address}"))?;
        Ok(state.way(address))
    }

    async fn create_tunnel(&self, spec: &TunnelSpec) -> Outcome {
        let mut state = self.state();
        state.enter(format!("link add {spec}"))?;
        if state.unsupported.contains(&spec.mode) {
            return refuse(Errno::EOPNOTSUPP);
        }
        state.check_new_name(&spec.name)?;
        let kind = spec.kind();
        if state.links.values().any(|link| link.link.kind == kind) {
            return refuse(Errno::EEXIST);
        }
        state.add_link(&spec.name, spec.mtu, spec.mac(), kind);
        Ok(())
    }

    async fn set_link(&self, name: &str, change: &LinkChange) -> Outcome {
        let mut state = self.state();
        state.enter(format!("link set {name} {change:?}"))?;
        let index = state.index(name)?;
        if let Some(FakeLink { link, .. }) = state.links.get_mut(&index) {
            link.mtu = change.mtu.unwrap_or(link.mtu);
            link.up = change.up.unwrap_or(link.up);
        }
        if change.up == Some(false) {
            state.forget(index, name);
        }
        Ok(())
    }

    async fn set_address(&self, name: &str, address: IpAddr, present: bool) -> Outcome {
        let mut state = self.state();
        let verb = if present { "add" } else { "delete" };
        state.enter(format!("address {verb} {address} dev {name}"))?;
        let index = state.index(name)?;
        state
            .addresses
            .retain(|one| one.index != index || one.address != address);
        if present {
            state.addresses.push(InterfaceAddress {
                index,
                address,
                prefix_length: if address.is_ipv4() { 32 } else { 128 },
            });
        }
        Ok(())
    }

    async fn delete_link(&self, name: &str) -> Outcome {
        let mut state = self.state();
        state.enter(format!("link delete {name}"))?;
        state.delete(name)
    }

    async fn routes(&self) -> Result<Vec<Route>, KernelError> {
        let state = self.state();
        let ours = super::super::routes::ROUTE_PROTOCOL;
        let routes = state.routes.values().filter(|o| o.protocol == ours);
        Ok(routes.map(|owned| owned.route.clone()).collect())
    }

    async fn apply_routes(&self, changes: &[RouteChange]) -> Vec<Outcome> {
        let mut state = self.state();
        changes.iter().map(|c| state.apply_route(c)).collect()
    }

    async fn neighbours(&self, device: &str) -> Result<Vec<Neighbour>, KernelError> {
        let state = self.state();
        let index = state.index(device)?;
        let entries = state.neighbours.iter();
        Ok(entries
            .filter(|((device, _), _)| *device == index)
            .map(|(_, entry)| entry.clone())
            .collect())
    }

    async fn apply_neighbours(&self, device: &str, changes: &[NeighbourChange]) -> Vec<Outcome> {
        let mut state = self.state();
        changes
            .iter()
            .map(|change| state.apply_neighbour(device, change))
            .collect()
    }
}

impl PodKernel for FakeKernel {
    type Visit = PathBuf;

    async fn create_veth(&self, spec: &VethSpec<'_>) -> Result<u32, KernelError> {
        let mut state = self.state();
        state.enter(format!("veth add {}", spec.host_interface))?;
        state.check_new_name(spec.host_interface)?;
        let namespace = state.namespace(spec.namespace)?;
        if namespace.interfaces.contains_key(spec.pod_interface) {
            refuse(Errno::EEXIST)?;
        }
        let interface = PodSideState {
            link: Some((false, spec.mtu, Some(spec.pod_mac))),
            ..PodSideState::default()
        };
        namespace
            .interfaces
            .insert(spec.pod_interface.to_owned(), interface);
        let mac = Some(spec.host_mac);
        let index = state.add_link(spec.host_interface, spec.mtu, mac, LinkKind::Veth);
        if let Some(link) = state.links.get_mut(&index) {
            link.pod = Some((spec.namespace.to_owned(), spec.pod_interface.to_owned()));
        }
        Ok(index)
    }

    async fn enter_pod(
        &self,
        outside: NodeSettings,
        namespace: &Path,
        interface: &str,
    ) -> Result<PathBuf, KernelError> {
        outside.tree.write(&outside.wanted)?;
        let mut state = self.state();
        state.enter(format!("pod enter {interface}"))?;
        let found = state.namespace(namespace)?.interfaces.get_mut(interface);
        let found = found.ok_or_else(|| KernelError::NoDevice(interface.to_owned()))?;
        if let Some((up, ..)) = &mut found.link {
            *up = true;
        }
        Ok(namespace.to_owned())
    }

    async fn configure_pod(&self, visit: PathBuf, side: &PodSide) -> Outcome {
        let mut state = self.state();
        state.enter(format!("pod configure {}", side.interface))?;
        let namespace = state.namespace(&visit)?;
        let interface = namespace.interfaces.get_mut(&side.interface);
        let interface = interface.ok_or_else(|| KernelError::NoDevice(side.interface.clone()))?;
        interface.addresses.clone_from(&side.addresses);
        interface.default_gateways = side.addresses.iter().copied().map(gateway).collect();
        Ok(())
    }

    async fn inspect_pod(
        &self,
        namespace: &Path,
        interface: &str,
    ) -> Result<PodSideState, KernelError> {
        let mut state = self.state();
        let namespace = state.namespace(namespace)?;
        let found = namespace.interfaces.get(interface);
        Ok(found.cloned().unwrap_or_default())
    }
}

impl State {
    fn namespace(&mut self, path: &Path) -> Result<&mut Namespace, KernelError> {
        self.namespaces
            .get_mut(path)
            .ok_or_else(|| KernelError::Namespace {
                path: path.to_owned(),
                source: std::io::ErrorKind::NotFound.into(),
            })
    }
}

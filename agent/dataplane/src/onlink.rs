//! Whether a next hop shares a segment with this node: the kernel is asked, never a mask.
//!
//! A host may have its address as a /32 (every neighbour behind a gateway) or a /31; what the
//! mask says is then wrong, what the kernel's own lookup says is right. Answers are kept until
//! something about routes, addresses or links changes ([`super::monitor`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::KernelError;
use super::kernel::{Kernel, Lookup};
use super::routes::RouteKind;
use super::tunnel::TunnelMode;

/// How many answers are kept; a cluster has fewer nodes and routers than this.
const MAX_CACHED: usize = 65_536;

/// The way to an address, as routes are decided by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// An address of this node.
    Local,
    /// On the segment of this interface: a next hop for direct routes.
    OnLink {
        /// The interface's name.
        interface: String,
    },
    /// Behind a gateway: tunnel to it, or route through the gateway.
    Via {
        /// The gateway.
        gateway: IpAddr,
        /// The interface's name.
        interface: String,
    },
    /// Only through one of our own tunnel devices, or not at all.
    Unreachable,
}

/// When a tunnel is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// Never: a next hop that is not on-link is refused by the kernel and reported.
    Never,
    /// Where the next hop shares no segment with this node.
    CrossSubnet(TunnelMode),
    /// Always.
    Always(TunnelMode),
}

impl Encapsulation {
    /// What becomes of a route whose next hops are reached like this.
    ///
    /// One next hop that needs the tunnel takes the whole route there, so that every packet to a
    /// destination finds the same MTU whichever next hop the kernel balances it to.
    pub fn route_kind(self, next_hops: &[(IpAddr, Reach)]) -> RouteKind {
        let addresses = next_hops.iter().map(|(address, _)| *address).collect();
        let direct = next_hops
            .iter()
            .all(|(_, reach)| matches!(reach, Reach::OnLink { .. }));
        let mode = match self {
            Self::Never => None,
            Self::CrossSubnet(_) if direct => None,
            Self::CrossSubnet(mode) | Self::Always(mode) => Some(mode),
        };
        match mode {
            None => RouteKind::Direct {
                next_hops: addresses,
            },
            Some(mode) => RouteKind::Tunnel {
                device: mode.device().to_owned(),
                next_hops: addresses,
            },
        }
    }
}

/// Tells a [`ReachCache`] that its answers are no longer good. Cheap to clone and call.
#[derive(Debug, Clone, Default)]
pub struct Invalidator(Arc<AtomicU64>);

impl Invalidator {
    /// Every answer so far is to be asked for anew.
    pub fn invalidate(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The kernel's answers about next hops, kept until invalidated.
#[derive(Debug, Default)]
pub struct ReachCache {
    answers: HashMap<IpAddr, Reach>,
    valid_at: u64,
    invalidator: Invalidator,
}

impl ReachCache {
    /// What invalidates this cache.
    pub fn invalidator(&self) -> Invalidator {
        self.invalidator.clone()
    }

    /// The way to `address`.
    ///
    /// # Errors
    /// The kernel could not be asked. "No route" is an answer, not an error.
    pub async fn reach<K: Kernel>(
        &mut self,
        kernel: &K,
        address: IpAddr,
    ) -> Result<Reach, KernelError> {
        let now = self.invalidator.0.load(Ordering::Acquire);
        if now != self.valid_at || self.answers.len() >= MAX_CACHED {
            self.answers.clear();
            self.valid_at = now;
        }
        if let Some(known) = self.answers.get(&address) {
            return Ok(known.clone());
        }
        let reach = judge(kernel.lookup(address).await?);
        self.answers.insert(address, reach.clone());
        Ok(reach)
    }
}

fn judge(lookup: Lookup) -> Reach {
    match lookup {
        Lookup::Local => Reach::Local,
        // A tunnel takes any next hop as on-link: an answer through one of ours says nothing of
        // the segment. (A pod that speaks BGP is on-link behind its own interface.)
        Lookup::Unicast { interface, .. } if super::is_tunnel(&interface) => Reach::Unreachable,
        Lookup::Unicast {
            interface,
            gateway: None,
            ..
        } => Reach::OnLink { interface },
        Lookup::Unicast {
            interface,
            gateway: Some(gateway),
            ..
        } => Reach::Via { gateway, interface },
        Lookup::None => Reach::Unreachable,
    }
}

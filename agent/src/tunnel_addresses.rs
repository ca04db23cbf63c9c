//! The node's own addresses on its tunnels, out of its first block with room.
//!
//! What the node itself sends through a tunnel must come back through it: the far end answers to
//! an address that it routes as it routes the node's pods. One address a device and family is
//! kept as long as a pool asks for the tunnel; what cannot be had is tried again, and meanwhile
//! the node's own address serves.
//!
//! Not here: the devices and the routes ([`crate::routing`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use margay_crds::{Owner, OwnerKind};
use margay_ipam::{Allocator, Family, Release, Request, View};
use tokio::sync::watch;

use margay_dataplane::TunnelMode;

/// How soon what could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// A tunnel with a family that travels in it.
pub type Ask = (TunnelMode, Family);

/// Keeps the addresses.
#[derive(Debug)]
pub struct TunnelAddresses {
    allocator: Allocator,
    wanted: watch::Sender<Option<BTreeSet<Ask>>>,
}

impl TunnelAddresses {
    /// Starts to keep those of the allocator's node. Until the first [`Self::want`] nothing is
    /// asked for and nothing given back.
    pub fn start(allocator: Allocator) -> Self {
        let (wanted, asks) = watch::channel(None);
        tokio::spawn(keep(allocator.clone(), asks));
        Self { allocator, wanted }
    }

    /// What there should be from now on.
    pub fn want(&self, asks: BTreeSet<Ask>) {
        self.wanted.send_if_modified(|wanted| {
            let differs = wanted.as_ref() != Some(&asks);
            *wanted = Some(asks);
            differs
        });
    }

    /// What there is.
    pub fn held(&self) -> BTreeMap<TunnelMode, BTreeSet<IpAddr>> {
        self.allocator.with_view(held)
    }
}

async fn keep(allocator: Allocator, mut asks: watch::Receiver<Option<BTreeSet<Ask>>>) {
    let mut failed = false;
    loop {
        let wanted = asks.borrow_and_update().clone();
        if let Some(wanted) = wanted {
            failed = bring(&allocator, &wanted, failed).await;
        }
        // A change, the end of it all, or time to look again.
        if let Ok(Err(_)) = tokio::time::timeout(AGAIN, asks.changed()).await {
            return;
        }
    }
}

/// Asks for what lacks and gives back what is not wanted; whether something failed, which is told
/// once.
async fn bring(allocator: &Allocator, wanted: &BTreeSet<Ask>, failed: bool) -> bool {
    let held = allocator.with_view(held);
    let mut problems = Vec::new();
    for (mode, family) in wanted {
        let of_family = |address: &IpAddr| Family::of(*address) == *family;
        if held
            .get(mode)
            .is_some_and(|held| held.iter().any(of_family))
        {
            continue;
        }
        let node = allocator.with_view(|view| view.node().to_owned());
        let request = Request::tunnel(&node, mode.device(), *family);
        if let Err(error) = allocator.assign_all(request).await {
            problems.push(format!(
                "no {family} address for {}: {error}",
                mode.device()
            ));
        }
    }
    for mode in held.keys().filter(|mode| !is_wanted(wanted, **mode)) {
        let node = allocator.with_view(|view| view.node().to_owned());
        let which = Release::Holder(Owner::tunnel(&node, mode.device()));
        if let Err(error) = allocator.release(which).await {
            problems.push(format!("the address of {} stays: {error}", mode.device()));
        }
    }
    if !problems.is_empty() && !failed {
        tracing::warn!("{}; trying again", problems.join("; "));
    }
    !problems.is_empty()
}

fn is_wanted(wanted: &BTreeSet<Ask>, mode: TunnelMode) -> bool {
    wanted.iter().any(|(of, _)| *of == mode)
}

fn held(view: &View) -> BTreeMap<TunnelMode, BTreeSet<IpAddr>> {
    let mut held: BTreeMap<TunnelMode, BTreeSet<IpAddr>> = BTreeMap::new();
    let used = view
        .held_blocks()
        .flat_map(|block| block.used_on(view.node()));
    for one in used.filter(|one| one.owner.kind == OwnerKind::Tunnel) {
        let modes = [TunnelMode::Ipip, TunnelMode::Vxlan];
        let mode = modes
            .into_iter()
            .find(|mode| mode.device() == one.owner.interface);
        if let (Some(mode), Ok(address)) = (mode, one.address.parse()) {
            held.entry(mode).or_default().insert(address);
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use margay_crds::IPPool;
    use margay_ipam::{BlockEvent, MemoryStore, SystemClock};

    use super::*;

    #[tokio::test]
    async fn an_address_a_device_and_family_while_it_is_wanted() {
        let store = Arc::<MemoryStore>::default();
        let (allocator, worker) = Allocator::new("n1", Arc::clone(&store), SystemClock);
        tokio::spawn(worker.run());
        let pools = ["10.0.0.0/24", "fd00::/64"].map(|cidr| {
            let spec = serde_json::json!({ "cidr": cidr });
            let pool = IPPool::new(cidr, serde_json::from_value(spec).unwrap());
            pool.check().unwrap()
        });
        allocator.set_pools(pools.to_vec());
        allocator.handle_block_event(BlockEvent::List(vec![]));
        let both =
            BTreeSet::from([Family::V4, Family::V6].map(|family| (TunnelMode::Vxlan, family)));
        for _ in 0..2 {
            assert!(!bring(&allocator, &both, false).await);
            let held = allocator.with_view(held);
            assert_eq!(held[&TunnelMode::Vxlan].len(), 2);
            assert_eq!(store.list().len(), 2);
        }
        let other = BTreeSet::from([(TunnelMode::Ipip, Family::V4)]);
        assert!(!bring(&allocator, &other, false).await);
        let held = allocator.with_view(held);
        assert_eq!(held.keys().collect::<Vec<_>>(), [&TunnelMode::Ipip]);
    }
}

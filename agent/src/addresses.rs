//! Feeds the node's allocator from the watches: blocks, pools, settings, labels.
//!
//! The allocator itself is the ipam crate's; how a pod asks for an address is [`crate::pods`]'.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use kube::Client;
use kube::runtime::watcher::Event;
use margay_crds::IPAMBlock;
use margay_ipam::{Allocator, BlockEvent, KubeStore, Ranges, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::tunnel_addresses::TunnelAddresses;
use crate::view::{ClusterNode, View};

/// How often blocks without an address are looked for.
const TIDY: Duration = Duration::from_secs(60);
/// How long a block must have been empty before it is given back.
const EMPTY: Duration = Duration::from_secs(300);

/// The allocator.
#[derive(Debug)]
pub struct Addresses {
    allocator: Allocator,
    tunnels: TunnelAddresses,
    worker: JoinHandle<()>,
}

impl Addresses {
    /// Starts the allocator of `node` over an API server.
    pub fn start(client: Client, node: &str) -> Self {
        let (allocator, worker) = Allocator::new(node, KubeStore::new(client), SystemClock);
        tokio::spawn(tidy(allocator.clone()));
        Self {
            tunnels: TunnelAddresses::start(allocator.clone()),
            allocator,
            worker: tokio::spawn(worker.run()),
        }
    }

    /// A handle for whoever needs addresses.
    pub fn allocator(&self) -> Allocator {
        self.allocator.clone()
    }

    /// Whether nobody gives addresses any more, which only a mistake in the program brings about.
    pub fn has_ended(&self) -> bool {
        self.worker.is_finished()
    }

    /// Takes in an event of the watch of blocks.
    pub fn handle(&self, event: Event<IPAMBlock>) {
        let event = match event {
            Event::Init => BlockEvent::ListBegin,
            // One by one: what the view keeps of another node's block is little.
            Event::InitApply(block) => BlockEvent::Listed(block),
            Event::InitDone => BlockEvent::ListEnd,
            Event::Apply(block) => BlockEvent::Apply(block),
            Event::Delete(block) => BlockEvent::Delete(block),
        };
        self.allocator.handle_block_event(event);
    }

    /// Takes in pools, settings and the labels of the node `own`.
    pub fn configure(&self, view: &View, own: Option<&ClusterNode>) {
        self.allocator.set_pools(view.pools().to_vec());
        self.allocator.set_settings(view.ipam_settings());
        self.allocator.set_reserved(Ranges::of(view.reserved()));
        let labels = own.map(|own| own.labels.clone()).unwrap_or_default();
        self.allocator.set_node_labels(labels);
    }

    /// Whether the list of blocks has arrived.
    pub fn is_ready(&self) -> bool {
        self.allocator.is_ready()
    }

    /// The ranges of this node's blocks, in the order of the blocks' names.
    pub fn own_blocks(&self) -> Vec<IpNetwork> {
        let ranges = |view: &margay_ipam::View| {
            let blocks = view.own_blocks();
            blocks.map(margay_ipam::NodeBlock::cidr).collect()
        };
        self.allocator.with_view(ranges)
    }

    /// This node's own addresses on its tunnels.
    pub fn tunnels(&self) -> &TunnelAddresses {
        &self.tunnels
    }

    /// The addresses of other nodes' blocks that this node uses, each as a range of its own: it is
    /// announced beside the blocks, and found by whoever looks for the longest match.
    pub fn borrowed(&self) -> Vec<IpNetwork> {
        self.allocator
            .with_view(|view| view.borrowed().map(IpNetwork::from).collect())
    }

    /// The addresses of this node's blocks that other nodes use: the ways to them are learned.
    pub fn lent(&self) -> BTreeSet<IpAddr> {
        self.allocator
            .with_view(|view| view.lent().map(|(address, _)| address).collect())
    }

    /// This node's blocks as written.
    pub fn own_block_objects(&self) -> Vec<IPAMBlock> {
        let blocks = self.allocator.own_blocks();
        blocks.iter().map(|block| block.object().clone()).collect()
    }

    /// Tells when this node's blocks have changed, by a watch or by the allocator's own claim.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.allocator.changes()
    }

    /// What is wrong with blocks of this node, in words.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.allocator.problems().into_iter();
        problems
            .map(|(name, reason)| format!("IPAMBlock {name}: {reason}"))
            .collect()
    }

    /// What people should know of this node's blocks although it does no harm yet, in words.
    pub fn remarks(&self) -> Vec<String> {
        let lost = |view: &margay_ipam::View| {
            let ranges = view.own_blocks().map(margay_ipam::NodeBlock::cidr);
            let lost = ranges.filter(|range| view.pool_of(*range).is_none());
            lost.collect::<Vec<_>>()
        };
        let lost = self.allocator.with_view(lost);
        lost.iter()
            .map(|range| {
                format!(
                    "IPAMBlock {range}: no IPPool covers it; its pods go on, without a tunnel, and \
                     no pod gets an address of it: restore the IPPool, or make its pods anew"
                )
            })
            .collect()
    }
}

/// Gives back blocks that this node no longer needs, for ever.
async fn tidy(allocator: Allocator) {
    let mut again = tokio::time::interval(TIDY);
    let mut failed = false;
    loop {
        again.tick().await;
        if !allocator.is_ready() {
            continue;
        }
        match allocator.release_empty_blocks(EMPTY).await {
            Ok(blocks) => {
                failed = false;
                for block in blocks {
                    tracing::info!("block {block} was empty and is given back");
                }
            }
            // Once is enough while an API server is away.
            Err(error) if failed => tracing::debug!("empty blocks cannot be given back: {error}"),
            Err(error) => {
                failed = true;
                tracing::warn!("empty blocks cannot be given back, trying again: {error}");
            }
        }
    }
}

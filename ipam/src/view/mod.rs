//! What one node knows: the blocks in full in which it uses addresses, everyone's in short, the
//! pools and settings.
//!
//! Fed by watch events and by the node's own writes, in any order: an event that is older than
//! what this node wrote itself is recognised by the block's sequence and dropped. Where doubt
//! remains (a write without an answer, an object with a new uid) the block is marked and read
//! again before it is used. A view that lags costs a refused write, never a wrong address.
//!
//! Not here: IO, decisions.

mod choose;
mod rooms;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_crds::field::join;
use margay_crds::{IPAMBlock, IpamSettings, LOAD_BALANCER_NODE, Pool};

pub(crate) use self::choose::unfulfillable;
use self::rooms::{Room, Rooms};
use crate::Family;
use crate::block::{NodeBlock, Rules, size_of};
use crate::ranges::Ranges;
use crate::taken::Taken;

/// A change seen by whoever watches the blocks of *all* nodes.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockEvent {
    /// The whole list, at the start and after each broken watch: what is not in it is gone.
    List(Vec<IPAMBlock>),
    /// A list begins that comes block by block: nobody need hold all of it.
    ListBegin,
    /// A block of the list.
    Listed(IPAMBlock),
    /// The list is whole: what was not in it is gone.
    ListEnd,
    /// A block is new or has changed.
    Apply(IPAMBlock),
    /// A block is gone.
    Delete(IPAMBlock),
}

/// What is known of any block.
#[derive(Debug, Clone)]
struct Known {
    /// Its range, if the object has one that can be read.
    range: Option<IpNetwork>,
    /// Its node; empty if only its existence is known.
    node: Arc<str>,
    /// How many addresses nobody holds, where this node may borrow them.
    room: u32,
    /// The list in which it was seen last.
    list: u64,
}

/// One node's knowledge.
#[derive(Debug, Clone)]
pub struct View {
    node: String,
    listed: bool,
    /// Counts the lists; those seen in the current one bear its number.
    list: u64,
    /// Counts the changes of `held`.
    changes: u64,
    /// In full: this node's blocks, and those of others of which it has borrowed addresses.
    held: BTreeMap<String, NodeBlock>,
    /// Blocks to read before anything else: our knowledge of them is in doubt.
    doubtful: BTreeSet<String>,
    /// In short: every block.
    known: BTreeMap<Arc<str>, Known>,
    /// The other nodes' blocks with room, those with most first.
    rooms: Rooms,
    /// The names of nodes, one copy each.
    nodes: HashSet<Arc<str>>,
    taken: Taken,
    /// The uids of blocks that are gone although a late event may still show them.
    gone: HashSet<String>,
    /// Those of them that the list under way has shown.
    gone_listed: HashSet<String>,
    problems: BTreeMap<String, String>,
    pools: Vec<Pool>,
    settings: IpamSettings,
    rules: Rules,
    labels: BTreeMap<String, String>,
}

impl View {
    /// A node that knows nothing yet.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            listed: false,
            list: 0,
            changes: 0,
            held: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            known: BTreeMap::new(),
            rooms: Rooms::default(),
            nodes: HashSet::new(),
            taken: Taken::default(),
            gone: HashSet::new(),
            gone_listed: HashSet::new(),
            problems: BTreeMap::new(),
            pools: Vec::new(),
            settings: IpamSettings::default(),
            rules: Rules::default(),
            labels: BTreeMap::new(),
        }
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Whether the list of blocks has arrived.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Changes value whenever [`Self::own_blocks`] or [`Self::lenders`] do.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Replaces the pools; they are tried in the order of their names.
    pub fn set_pools(&mut self, mut pools: Vec<Pool>) {
        pools.sort_by(|left, right| left.name.cmp(&right.name));
        self.pools = pools;
    }

    /// Replaces the settings.
    pub fn set_settings(&mut self, settings: IpamSettings) {
        self.settings = settings;
        self.rules.cooldown = Duration::from_secs(u64::from(settings.cooldown_seconds));
    }

    /// Replaces the reserved ranges.
    pub fn set_reserved(&mut self, reserved: Ranges) {
        self.rules.reserved = reserved;
    }

    /// Replaces the node's labels, which pools select.
    pub fn set_node_labels(&mut self, labels: BTreeMap<String, String>) {
        self.labels = labels;
    }

    /// The pools, in the order they are tried.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// This node's blocks, in the order of their names.
    pub fn own_blocks(&self) -> impl Iterator<Item = &NodeBlock> {
        self.held.values().filter(|block| block.node() == self.node)
    }

    /// Other nodes' blocks of which this node has borrowed addresses, in the order of their names.
    pub fn lenders(&self) -> impl Iterator<Item = &NodeBlock> {
        self.held.values().filter(|block| block.node() != self.node)
    }

    /// All blocks in which this node uses addresses, in the order of their names.
    pub fn held_blocks(&self) -> impl Iterator<Item = &NodeBlock> {
        self.held.values()
    }

    /// The addresses of other nodes' blocks that this node uses.
    pub fn borrowed(&self) -> impl Iterator<Item = IpAddr> {
        let used = self.lenders().flat_map(|block| block.used_on(&self.node));
        used.filter_map(|one| one.address.parse().ok())
    }

    /// The addresses of this node's blocks that other nodes use, each with its node.
    pub fn lent(&self) -> impl Iterator<Item = (IpAddr, &str)> {
        self.own_blocks().flat_map(|block| {
            let all = block.allocations().iter();
            let nodes = all.map(move |one| (one, block.node_of(one)));
            let lent = nodes.filter(|(_, node)| *node != self.node);
            lent.filter_map(|(one, node)| Some((one.address.parse().ok()?, node)))
        })
    }

    /// How many blocks are known, whoever's they are.
    pub fn known_blocks(&self) -> usize {
        self.known.len()
    }

    /// Blocks of this node that cannot be used, with the reason: the object's name and every
    /// wrong field.
    pub fn problems(&self) -> &BTreeMap<String, String> {
        &self.problems
    }

    /// How long a released address rests.
    pub fn cooldown(&self) -> Duration {
        self.rules.cooldown
    }

    /// What holds for every address given.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    // ===== what the watch says =====

    /// Takes in what the watch says.
    pub fn handle_event(&mut self, event: BlockEvent) {
        match event {
            BlockEvent::List(blocks) => {
                self.begin_list();
                for block in blocks {
                    self.handle_listed(block);
                }
                self.end_list();
            }
            BlockEvent::ListBegin => self.begin_list(),
            BlockEvent::Listed(block) => self.handle_listed(block),
            BlockEvent::ListEnd => self.end_list(),
            BlockEvent::Apply(block) => self.handle_apply(block),
            BlockEvent::Delete(block) => self.handle_delete(&block),
        }
    }

    fn begin_list(&mut self) {
        self.list += 1;
        self.gone_listed.clear();
    }

    fn handle_listed(&mut self, block: IPAMBlock) {
        let name = name(&block).map(str::to_owned);
        if let Some(uid) = uid(&block).filter(|uid| self.gone.contains(*uid)) {
            self.gone_listed.insert(uid.to_owned());
        }
        self.handle_apply(block);
        let known = name.and_then(|name| self.known.get_mut(name.as_str()));
        if let Some(known) = known {
            known.list = self.list;
        }
    }

    fn end_list(&mut self) {
        self.gone = std::mem::take(&mut self.gone_listed);
        let list = self.list;
        let unlisted = self.known.iter().filter(|(_, known)| known.list != list);
        let unlisted: Vec<String> = unlisted.map(|(name, _)| name.to_string()).collect();
        for name in unlisted {
            // The list may be older than a claim of ours: what it lacks is read, not forgotten.
            if self.held.contains_key(&name) {
                self.doubtful.insert(name);
            } else {
                self.forget(&name);
            }
        }
        self.nodes.retain(|node| Arc::strong_count(node) > 1);
        self.listed = true;
    }

    fn handle_apply(&mut self, block: IPAMBlock) {
        let Some(name) = name(&block).map(str::to_owned) else {
            return;
        };
        if uid(&block).is_some_and(|uid| self.gone.contains(uid)) {
            return;
        }
        if let Some(known) = self.held.get(&name) {
            if uid(known.object()) != uid(&block) {
                self.doubtful.insert(name);
                return;
            }
            if is_older(&block, known.object()) {
                return;
            }
        }
        self.learn(&name, block);
    }

    fn handle_delete(&mut self, block: &IPAMBlock) {
        if let Some(uid) = uid(block) {
            self.gone.remove(uid);
        }
        let Some(name) = name(block) else {
            return;
        };
        let known = self.held.get(name);
        if known.is_none_or(|known| uid(known.object()) == uid(block)) {
            self.forget(name);
        }
    }

    // ===== what this node's own reads and writes say =====

    /// The block as the store just answered it: nothing is newer.
    pub fn put(&mut self, block: IPAMBlock) {
        let Some(name) = name(&block).map(str::to_owned) else {
            return;
        };
        self.doubtful.remove(&name);
        self.learn(&name, block);
    }

    /// The block is not there.
    pub fn put_absent(&mut self, name: &str) {
        self.doubtful.remove(name);
        let known = self.held.get(name).and_then(|known| uid(known.object()));
        if let Some(uid) = known {
            // Late events may still show it.
            self.gone.insert(uid.to_owned());
        }
        self.forget(name);
    }

    /// Our knowledge of the block is in doubt: it is to be read before anything else.
    pub fn doubt(&mut self, name: &str) {
        self.doubtful.insert(name.to_owned());
    }

    /// A block to read before anything else.
    pub fn first_doubtful(&self) -> Option<&str> {
        self.doubtful.first().map(String::as_str)
    }

    /// A claim met a block that is there already: the range is taken, whatever the object says.
    pub fn put_taken(&mut self, name: &str, range: IpNetwork) {
        if !self.known.contains_key(name) {
            self.set_known(name, Some(range), "", 0);
        }
    }

    fn learn(&mut self, name: &str, block: IPAMBlock) {
        let range = block.spec.cidr.parse::<IpNetwork>().ok().and_then(masked);
        let is_own = block.spec.node == self.node;
        let room = match range {
            Some(range) if !is_own && block.spec.node != LOAD_BALANCER_NODE => {
                let room = size_of(range).saturating_sub(block.spec.allocations.len() as u128);
                u32::try_from(room).unwrap_or(u32::MAX)
            }
            _ => 0,
        };
        self.set_known(name, range, &block.spec.node, room);
        let mut allocations = block.spec.allocations.iter();
        if !is_own && !allocations.any(|one| one.owner.node == self.node) {
            self.problems.remove(name);
            self.let_go(name);
            return;
        }
        match NodeBlock::parse(block) {
            Ok(block) => {
                self.problems.remove(name);
                if self.held.get(name) != Some(&block) {
                    self.changes += 1;
                    self.held.insert(name.to_owned(), block);
                }
            }
            Err(errors) => {
                self.problems.insert(name.to_owned(), join(&errors));
                self.let_go(name);
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.forget_known(name);
        self.problems.remove(name);
        self.let_go(name);
    }

    fn let_go(&mut self, name: &str) {
        if self.held.remove(name).is_some() {
            self.changes += 1;
        }
    }

    fn set_known(&mut self, name: &str, range: Option<IpNetwork>, node: &str, room: u32) {
        let list = self.list;
        if let Some(known) = self.known.get_mut(name)
            && known.range == range
            && known.room == room
            && &*known.node == node
        {
            known.list = list;
            return;
        }
        let name: Arc<str> = self.forget_known(name).unwrap_or_else(|| name.into());
        let node = self.interned(node);
        if let Some(range) = range {
            self.taken.insert(range);
            self.rooms.insert(self.room(&name, range, room));
        }
        let known = Known {
            range,
            node,
            room,
            list,
        };
        self.known.insert(name, known);
    }

    fn forget_known(&mut self, name: &str) -> Option<Arc<str>> {
        let (name, known) = self.known.remove_entry(name)?;
        if let Some(range) = known.range {
            self.taken.remove(range);
            self.rooms.remove(&self.room(&name, range, known.room));
        }
        Some(name)
    }

    fn room(&self, name: &Arc<str>, range: IpNetwork, room: u32) -> Room {
        Room::new(&self.node, Family::of_range(range), Arc::clone(name), room)
    }

    fn interned(&mut self, node: &str) -> Arc<str> {
        if let Some(known) = self.nodes.get(node) {
            return Arc::clone(known);
        }
        let node: Arc<str> = node.into();
        self.nodes.insert(Arc::clone(&node));
        node
    }
}

fn uid(block: &IPAMBlock) -> Option<&str> {
    block.metadata.uid.as_deref()
}

fn name(block: &IPAMBlock) -> Option<&str> {
    block.metadata.name.as_deref()
}

/// Host bits cleared, for objects that passed no check.
fn masked(range: IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(range.network(), range.prefix()).ok()
}

/// Whether a version of an object is older than the one known. Each write of addresses raises the
/// sequence; writes of anything else are told apart by the resourceVersion where it is a number,
/// as every API server in use has it. A wrong guess costs one refused write.
fn is_older(block: &IPAMBlock, known: &IPAMBlock) -> bool {
    if block.spec.sequence != known.spec.sequence {
        return block.spec.sequence < known.spec.sequence;
    }
    let version = |block: &IPAMBlock| -> Option<u64> {
        block.metadata.resource_version.as_ref()?.parse().ok()
    };
    match (version(block), version(known)) {
        (Some(new), Some(old)) => new < old,
        _ => false,
    }
}

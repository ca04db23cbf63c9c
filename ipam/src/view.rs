//! What one node knows: its own blocks in full, everyone's block ranges, the pools and settings.
//!
//! Fed by watch events and by the node's own writes, in any order: an event that is older than
//! what this node wrote itself is recognised by the block's sequence and dropped. Where doubt
//! remains (a write without an answer, an object with a new uid) the block is marked and read
//! again before it is used. A view that lags costs a refused write, never a wrong address.
//!
//! Not here: IO, decisions.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_crds::field::join;
use margay_crds::{IPAMBlock, IpamSettings, Pool};

use crate::block::NodeBlock;
use crate::candidates::Candidates;
use crate::taken::Taken;
use crate::{Family, IpamError};

/// A change seen by whoever watches the blocks of *all* nodes.
#[derive(Debug, Clone, PartialEq)]
pub enum BlockEvent {
    /// The whole list, at the start and after each broken watch: what is not in it is gone.
    List(Vec<IPAMBlock>),
    /// A block is new or has changed.
    Apply(IPAMBlock),
    /// A block is gone.
    Delete(IPAMBlock),
}

/// One node's knowledge.
#[derive(Debug, Clone)]
pub struct View {
    node: String,
    listed: bool,
    /// Counts the changes of `own`.
    changes: u64,
    own: BTreeMap<String, NodeBlock>,
    /// Blocks to read before anything else: our knowledge of them is in doubt.
    doubtful: BTreeSet<String>,
    /// The range of every block known, by the object's name.
    ranges: BTreeMap<String, IpNetwork>,
    taken: Taken,
    /// The uids of blocks that are gone although a late event may still show them.
    gone: HashSet<String>,
    problems: BTreeMap<String, String>,
    pools: Vec<Pool>,
    settings: IpamSettings,
    labels: BTreeMap<String, String>,
}

impl View {
    /// A node that knows nothing yet.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            listed: false,
            changes: 0,
            own: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            ranges: BTreeMap::new(),
            taken: Taken::default(),
            gone: HashSet::new(),
            problems: BTreeMap::new(),
            pools: Vec::new(),
            settings: IpamSettings::default(),
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

    /// Changes value whenever [`Self::own_blocks`] does.
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
        self.own.values()
    }

    /// One of this node's blocks.
    pub fn own_block(&self, name: &str) -> Option<&NodeBlock> {
        self.own.get(name)
    }

    /// Blocks of this node that cannot be used, with the reason: the object's name and every
    /// wrong field.
    pub fn problems(&self) -> &BTreeMap<String, String> {
        &self.problems
    }

    /// How long a released address rests.
    pub fn cooldown(&self) -> Duration {
        Duration::from_secs(u64::from(self.settings.cooldown_seconds))
    }

    /// The families of which this node gets addresses: an enabled pool selects it.
    pub fn families(&self) -> BTreeSet<Family> {
        let usable = self.pools.iter().filter(|pool| self.is_open(pool));
        usable.map(|pool| Family::of_range(pool.cidr)).collect()
    }

    /// The pool that a range is part of.
    pub fn pool_of(&self, range: IpNetwork) -> Option<&Pool> {
        self.pools.iter().find(|pool| {
            pool.cidr.is_ipv4() == range.is_ipv4()
                && pool.cidr.prefix() <= range.prefix()
                && pool.cidr.contains(range.network())
        })
    }

    /// Whether new addresses may come from one of this node's blocks: its pool is open to the
    /// node, and no other block covers the same addresses (two pools of different block size,
    /// one after the other, can lead to that; then nobody may know who holds what).
    pub fn may_give_from(&self, block: &NodeBlock) -> bool {
        let open = self
            .pool_of(block.cidr())
            .is_some_and(|pool| self.is_open(pool));
        open && self.taken.overlapping_other(block.cidr()).is_none()
    }

    /// Whether the pool gives addresses to this node.
    pub fn is_open(&self, pool: &Pool) -> bool {
        !pool.disabled && pool.node_selector.matches(&self.labels)
    }

    /// The next block of the family to claim: its pool's name and its range.
    ///
    /// # Errors
    /// [`IpamError::NoPool`], [`IpamError::BlockLimit`] or [`IpamError::Exhausted`].
    pub fn next_claim(
        &self,
        family: Family,
        cooling: usize,
    ) -> Result<(String, IpNetwork), IpamError> {
        let open = self.open_pools(family)?;
        let pools = || open.iter().map(|pool| pool.name.clone()).collect();
        if let Some(limit) = self.settings.max_blocks_per_host {
            let of_family = |block: &&NodeBlock| Family::of_range(block.cidr()) == family;
            let held = self.own.values().filter(of_family).count();
            if held >= usize::try_from(limit).unwrap_or(usize::MAX) {
                return Err(IpamError::BlockLimit {
                    family,
                    limit,
                    held,
                    pools: pools(),
                });
            }
        }
        for pool in &open {
            let mut candidates = Candidates::new(pool.cidr, pool.block_size, &self.node);
            while let Some(candidate) = candidates.peek() {
                match self.taken.overlapping(candidate) {
                    Some(range) => candidates.skip(range),
                    None => return Ok((pool.name.clone(), candidate)),
                }
            }
        }
        Err(IpamError::Exhausted {
            family,
            pools: pools(),
            cooling,
        })
    }

    fn open_pools(&self, family: Family) -> Result<Vec<&Pool>, IpamError> {
        let mut reasons = Vec::new();
        let mut open = Vec::new();
        let of_family = |pool: &&Pool| Family::of_range(pool.cidr) == family;
        for pool in self.pools.iter().filter(of_family) {
            if pool.disabled {
                reasons.push(format!("IPPool {} is disabled", pool.name));
            } else if self.is_open(pool) {
                open.push(pool);
            } else {
                reasons.push(format!(
                    "nodeSelector of IPPool {} ({}) does not select the node",
                    pool.name, pool.node_selector
                ));
            }
        }
        if open.is_empty() {
            return Err(IpamError::NoPool {
                family,
                node: self.node.clone(),
                reasons,
            });
        }
        Ok(open)
    }

    // ===== what the watch says =====

    /// Takes in what the watch says.
    pub fn handle_event(&mut self, event: BlockEvent) {
        match event {
            BlockEvent::List(blocks) => self.handle_list(blocks),
            BlockEvent::Apply(block) => self.handle_apply(block),
            BlockEvent::Delete(block) => self.handle_delete(&block),
        }
    }

    fn handle_list(&mut self, blocks: Vec<IPAMBlock>) {
        let uids: HashSet<&str> = blocks.iter().filter_map(uid).collect();
        self.gone.retain(|uid| uids.contains(uid.as_str()));
        let names: HashSet<&str> = blocks.iter().filter_map(name).collect();
        // The list may be older than a claim of ours: what it lacks is read, not forgotten.
        let missing = self.own.keys().filter(|own| !names.contains(own.as_str()));
        self.doubtful.extend(missing.cloned());
        let is_lost =
            |name: &&String| !names.contains(name.as_str()) && !self.own.contains_key(*name);
        let lost: Vec<String> = self.ranges.keys().filter(is_lost).cloned().collect();
        for name in lost {
            self.forget_range(&name);
        }
        self.problems
            .retain(|name, _| names.contains(name.as_str()));
        self.listed = true;
        for block in blocks {
            self.handle_apply(block);
        }
    }

    fn handle_apply(&mut self, block: IPAMBlock) {
        let Some(name) = name(&block).map(str::to_owned) else {
            return;
        };
        if uid(&block).is_some_and(|uid| self.gone.contains(uid)) {
            return;
        }
        if let Some(known) = self.own.get(&name) {
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
        let known = self.own.get(name);
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
        let known = self.own.get(name).and_then(|known| uid(known.object()));
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

    /// A claim met a block that is not ours: the range is taken, whatever the object says.
    pub fn put_taken(&mut self, name: &str, range: IpNetwork) {
        self.ranges.insert(name.to_owned(), range);
        self.taken.insert(range);
    }

    fn learn(&mut self, name: &str, block: IPAMBlock) {
        let range = block.spec.cidr.parse::<IpNetwork>().ok();
        if let Some(range) = range.and_then(masked) {
            if self.ranges.get(name) != Some(&range) {
                self.forget_range(name);
            }
            self.put_taken(name, range);
        }
        if block.spec.node != self.node {
            self.problems.remove(name);
            self.disown(name);
            return;
        }
        match NodeBlock::parse(block) {
            Ok(block) => {
                self.problems.remove(name);
                if self.own.get(name) != Some(&block) {
                    self.changes += 1;
                    self.own.insert(name.to_owned(), block);
                }
            }
            Err(errors) => {
                self.problems.insert(name.to_owned(), join(&errors));
                self.disown(name);
            }
        }
    }

    fn forget(&mut self, name: &str) {
        self.forget_range(name);
        self.problems.remove(name);
        self.disown(name);
    }

    fn disown(&mut self, name: &str) {
        if self.own.remove(name).is_some() {
            self.changes += 1;
        }
    }

    fn forget_range(&mut self, name: &str) {
        if let Some(range) = self.ranges.remove(name)
            && !self.ranges.values().any(|other| *other == range)
        {
            self.taken.remove(range);
        }
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

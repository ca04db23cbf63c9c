//! The state machine: suspicions with their age.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use margay_crds::{Allocation, IPAMBlock};

use super::facts::{Facts, Reason, Replacements};
use super::order::Order;

/// How patient the collector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long an allocation must seem to be of nobody.
    pub grace: Duration,
    /// How long released addresses rest: a block of a node that is gone is not given back before.
    pub cooldown: Duration,
    /// The most cases that are brought to a verdict at once.
    pub limit: usize,
}

impl Default for Settings {
    /// 15 minutes, no cooldown, 1,000 cases.
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(900),
            cooldown: Duration::ZERO,
            limit: 1000,
        }
    }
}

/// What a case is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// One allocation.
    Address {
        /// The allocation as it was seen.
        allocation: Box<Allocation>,
        /// Why it seems to be of nobody.
        reason: Reason,
    },
    /// An empty block of a node that is gone.
    Block,
}

/// A suspicion that has outlived the grace period: to be judged by fresh facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The block's name.
    pub block: String,
    /// The block's uid.
    pub uid: String,
    /// The node the block belongs to.
    pub node: String,
    /// The allocation, or the block itself.
    pub subject: Subject,
}

/// One allocation for all time: a block's uid, an address, and the sequence it was given with.
/// The block itself has none of the latter two.
type Key = (String, Option<(IpAddr, i64)>);

#[derive(Debug, Clone)]
struct Suspect {
    since: Instant,
    case: Case,
}

/// Keeps the suspicions.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    suspects: HashMap<Key, Suspect>,
}

impl Collector {
    /// Without any suspicion.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            suspects: HashMap::new(),
        }
    }

    /// Other settings; suspicions keep their age.
    pub fn set(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// How many allocations and blocks are under suspicion.
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }

    /// Compares all blocks with all that is there. `facts` must be whole: a list that has not
    /// arrived would make everything garbage (the grace period and the fresh look would still
    /// save it).
    pub fn handle_scan<'a, B>(&mut self, now: Instant, blocks: B, facts: &Facts)
    where
        B: Iterator<Item = &'a IPAMBlock> + Clone,
    {
        let replacements = Replacements::among(blocks.clone(), facts);
        let mut known = std::mem::take(&mut self.suspects);
        for block in blocks {
            for (key, case) in suspicious(block, facts, &replacements) {
                let since = known.remove(&key).map_or(now, |suspect| suspect.since);
                self.suspects.insert(key, Suspect { since, case });
            }
        }
    }

    /// When the next suspicion is due.
    pub fn next_due(&self) -> Option<Instant> {
        let all = self.suspects.values();
        all.filter_map(|suspect| suspect.since.checked_add(self.patience(&suspect.case)))
            .min()
    }

    /// The suspicions that are due, oldest first, at most as many as the settings say.
    pub fn due(&self, now: Instant) -> Vec<Case> {
        let is_due = |suspect: &&Suspect| {
            now.saturating_duration_since(suspect.since) >= self.patience(&suspect.case)
        };
        let mut due: Vec<&Suspect> = self.suspects.values().filter(is_due).collect();
        due.sort_by_cached_key(|suspect| (suspect.since, key(&suspect.case)));
        due.truncate(self.settings.limit);
        due.into_iter()
            .map(|suspect| suspect.case.clone())
            .collect()
    }

    /// Judges a case by facts read just now about its owner and its node: whether to release. If
    /// the owner is there after all, the suspicion is taken back.
    pub fn handle_verdict(&mut self, case: &Case, fresh: &Facts) -> bool {
        let guilty = match &case.subject {
            Subject::Block => fresh.judge_node(&case.node).is_some(),
            Subject::Address { allocation, reason } => {
                fresh.confirm(&case.node, allocation, reason)
            }
        };
        if !guilty {
            self.forget(case);
        }
        guilty
    }

    /// A case is closed: what it was about has been released, or is not there any more.
    pub fn forget(&mut self, case: &Case) {
        self.suspects.remove(&key(case));
    }

    /// An empty block is not given back while its addresses rest.
    fn patience(&self, case: &Case) -> Duration {
        match case.subject {
            Subject::Address { .. } => self.settings.grace,
            Subject::Block => self.settings.grace.max(self.settings.cooldown),
        }
    }

    /// The orders for cases that were found guilty: one for each block.
    pub fn orders<'a>(cases: impl Iterator<Item = &'a Case>) -> Vec<Order> {
        let mut orders: Vec<Order> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for case in cases {
            let Some((address, sequence)) = key(case).1 else {
                continue;
            };
            let place = *places.entry(&case.uid).or_insert_with(|| {
                orders.push(Order {
                    block: case.block.clone(),
                    uid: case.uid.clone(),
                    addresses: Vec::new(),
                });
                orders.len() - 1
            });
            if let Some(order) = orders.get_mut(place) {
                order.addresses.push((address, sequence));
            }
        }
        orders
    }
}

fn key(case: &Case) -> Key {
    let which = match &case.subject {
        Subject::Block => None,
        Subject::Address { allocation, .. } => {
            let address = allocation.address.parse();
            address.ok().map(|address| (address, allocation.sequence))
        }
    };
    (case.uid.clone(), which)
}

/// What is suspicious about a block and its allocations.
fn suspicious(block: &IPAMBlock, facts: &Facts, replacements: &Replacements) -> Vec<(Key, Case)> {
    // Without a uid nothing could be released for sure; the API server gives every object one.
    let Some(uid) = &block.metadata.uid else {
        return Vec::new();
    };
    let node = &block.spec.node;
    let case = |subject| Case {
        block: block.metadata.name.clone().unwrap_or_default(),
        uid: uid.clone(),
        node: node.clone(),
        subject,
    };
    if block.spec.allocations.is_empty() {
        let gone = facts.judge_node(node).is_some();
        let found = gone.then(|| ((uid.clone(), None), case(Subject::Block)));
        return found.into_iter().collect();
    }
    let allocations = block.spec.allocations.iter();
    let found = allocations.filter_map(|allocation| {
        let reason = facts.judge(node, allocation, replacements)?;
        let address = allocation.address.parse().ok()?;
        let key = (uid.clone(), Some((address, allocation.sequence)));
        let allocation = Box::new(allocation.clone());
        Some((key, case(Subject::Address { allocation, reason })))
    });
    found.collect()
}

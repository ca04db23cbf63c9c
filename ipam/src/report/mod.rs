//! What a cluster's addresses look like from outside: how full the pools are, and what is wrong.
//!
//! For people and scripts (`margayctl ipam show|check|release`) and for the pools' status. A
//! report is a value that can be written to a file and compared with a later one: what two
//! reports call a leak, minutes apart, is hardly a pod that was just starting.
//!
//! Not here: reading the API server, and releasing on suspicion over time ([`crate::garbage`]).

mod inspect;
mod usage;

pub(crate) use usage::contains;

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::garbage::Order;

pub use inspect::{Inventory, inspect};
pub use usage::{PoolUse, pool_use};

/// A kind of mistake. The first three cost addresses or connections; each makes `check` fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ProblemKind {
    /// An address is held twice.
    Duplicate,
    /// A running pod uses an address that no block gives it.
    NotAllocated,
    /// An address is held by nobody that is there.
    Leak,
    /// An address or a block lies in no pool.
    OutsidePools,
    /// A block belongs to a node that is gone.
    BlockOfNobody,
    /// Two blocks or two pools share addresses.
    Overlap,
    /// A block contradicts itself.
    Malformed,
}

impl ProblemKind {
    /// The kinds in the order in which people read them.
    pub const ALL: [Self; 7] = [
        Self::Duplicate,
        Self::NotAllocated,
        Self::Leak,
        Self::OutsidePools,
        Self::BlockOfNobody,
        Self::Overlap,
        Self::Malformed,
    ];

    /// What it is, for a head line.
    pub fn title(self) -> &'static str {
        match self {
            Self::Duplicate => "addresses held twice",
            Self::NotAllocated => "addresses in use that nobody was given",
            Self::Leak => "addresses held by nobody that is there (leaks)",
            Self::OutsidePools => "addresses and blocks outside every pool",
            Self::BlockOfNobody => "blocks of nodes that are gone",
            Self::Overlap => "ranges that overlap",
            Self::Malformed => "blocks that contradict themselves",
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What kind of mistake.
    pub kind: ProblemKind,
    /// What is wrong, in a sentence.
    pub message: String,
    /// The block's name, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// The block's uid.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "blockUID")]
    pub block_uid: Option<String>,
    /// The address, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The allocation's sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// One word for why an address is a leak, such as `PodGone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Everything that was found at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When the objects were read, RFC 3339.
    pub time: String,
    /// How many pools there were.
    pub pools: usize,
    /// How many blocks.
    pub blocks: usize,
    /// How many addresses were held.
    pub addresses: usize,
    /// What is wrong, worst first.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// The leaks that could be released.
    pub fn leaks(&self) -> impl Iterator<Item = &Problem> {
        let all = self.problems.iter();
        all.filter(|one| one.kind == ProblemKind::Leak && identity(one).is_some())
    }

    /// What this report and an earlier one both say: a pod that was just starting or ending
    /// between two lists is wrong in one of them at most.
    pub fn confirmed_by(mut self, earlier: &Self) -> Self {
        let same = |one: &Problem, other: &Problem| {
            (one.kind, &one.block_uid, one.address, one.sequence)
                == (other.kind, &other.block_uid, other.address, other.sequence)
        };
        let known = |one: &Problem| earlier.problems.iter().any(|other| same(one, other));
        self.problems.retain(known);
        self
    }

    /// The leaks that every one of the reports names: the same allocation, by block uid, address
    /// and sequence. One order for each block.
    pub fn intersection(reports: &[Report]) -> Vec<Order> {
        let Some((first, others)) = reports.split_first() else {
            return Vec::new();
        };
        let others: Vec<HashSet<Identity<'_>>> = others
            .iter()
            .map(|report| report.leaks().filter_map(identity).collect())
            .collect();
        let mut orders: Vec<Order> = Vec::new();
        for leak in first.leaks() {
            let (Some(id), Some(block)) = (identity(leak), &leak.block) else {
                continue;
            };
            if !others.iter().all(|other| other.contains(&id)) {
                continue;
            }
            let (uid, address, sequence) = id;
            match orders.iter_mut().find(|order| order.uid == uid) {
                Some(order) if !order.addresses.contains(&(address, sequence)) => {
                    order.addresses.push((address, sequence));
                }
                Some(_) => {}
                None => orders.push(Order {
                    block: block.clone(),
                    uid: uid.to_owned(),
                    addresses: vec![(address, sequence)],
                }),
            }
        }
        orders
    }
}

/// What makes an allocation this one and no other.
type Identity<'a> = (&'a str, IpAddr, i64);

fn identity(problem: &Problem) -> Option<Identity<'_>> {
    let uid = problem.block_uid.as_deref()?;
    Some((uid, problem.address?, problem.sequence?))
}

#[cfg(test)]
mod tests;

//! Looks at everything and says what is wrong.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_crds::field::join;
use margay_crds::ip_pool::overlap;
use margay_crds::{Allocation, IPAMBlock, Pool};

use super::{Problem, ProblemKind, Report, contains};
use crate::clock::Timestamp;
use crate::garbage::{Facts, Holder, Replacements};

/// Everything that addresses have to do with, read at one moment.
#[derive(Debug)]
pub struct Inventory<'a> {
    /// The pools, whether or not they are enabled.
    pub pools: &'a [Pool],
    /// All blocks.
    pub blocks: &'a [IPAMBlock],
    /// Nodes, pods and Services.
    pub facts: &'a Facts,
}

/// What is wrong, worst first.
pub fn inspect(inventory: &Inventory<'_>, now: Timestamp) -> Report {
    let mut problems = Vec::new();
    let ranges: Vec<Option<IpNetwork>> = inventory
        .blocks
        .iter()
        .map(|block| block.spec.cidr.parse().ok())
        .collect();
    for (block, range) in inventory.blocks.iter().zip(&ranges) {
        malformed(block, &mut problems);
        outside(block, *range, inventory.pools, &mut problems);
        of_nobody(block, inventory.facts, &mut problems);
    }
    overlapping_pools(inventory.pools, &mut problems);
    overlapping_blocks(inventory.blocks, &ranges, &mut problems);
    leaks(inventory, &mut problems);
    let holders = holders(inventory.blocks);
    held_twice(&holders, &mut problems);
    used_by_pods(inventory, &holders, &mut problems);
    problems.sort_by(|left, right| {
        let of = |one: &Problem| (one.kind, one.address, one.block.clone());
        of(left).cmp(&of(right))
    });
    let held = inventory.blocks.iter();
    Report {
        time: crate::block::written(now),
        pools: inventory.pools.len(),
        blocks: inventory.blocks.len(),
        addresses: held.map(|block| block.spec.allocations.len()).sum(),
        problems,
    }
}

fn problem(kind: ProblemKind, message: String) -> Problem {
    Problem {
        kind,
        message,
        block: None,
        block_uid: None,
        address: None,
        sequence: None,
        reason: None,
    }
}

fn of_block(kind: ProblemKind, block: &IPAMBlock, message: String) -> Problem {
    Problem {
        block: block.metadata.name.clone(),
        block_uid: block.metadata.uid.clone(),
        ..problem(kind, message)
    }
}

fn malformed(block: &IPAMBlock, problems: &mut Vec<Problem>) {
    let name = block.metadata.name.as_deref().unwrap_or_default();
    if let Err(errors) = block.check() {
        let message = format!("IPAMBlock {name}: {}", join(&errors));
        problems.push(of_block(ProblemKind::Malformed, block, message));
    }
    let held = block.spec.allocations.len();
    if usize::try_from(block.spec.used) != Ok(held) {
        let message = format!(
            "IPAMBlock {name}: spec.used says {}, but {held} addresses are held",
            block.spec.used
        );
        problems.push(of_block(ProblemKind::Malformed, block, message));
    }
}

fn outside(
    block: &IPAMBlock,
    range: Option<IpNetwork>,
    pools: &[Pool],
    problems: &mut Vec<Problem>,
) {
    let within = |range| pools.iter().any(|pool| contains(pool.cidr, range));
    if let Some(range) = range.filter(|range| !within(*range)) {
        let message = format!(
            "block {range} of Node {} lies in no IPPool and holds {} addresses: its routes are \
             announced as long as it is there",
            block.spec.node,
            block.spec.allocations.len()
        );
        problems.push(of_block(ProblemKind::OutsidePools, block, message));
    }
}

fn of_nobody(block: &IPAMBlock, facts: &Facts, problems: &mut Vec<Problem>) {
    if let Some(reason) = facts.judge_node(&block.spec.node) {
        let message = format!(
            "block {}: {reason}; it holds {} addresses",
            block.spec.cidr,
            block.spec.allocations.len()
        );
        let found = of_block(ProblemKind::BlockOfNobody, block, message);
        problems.push(Problem {
            reason: Some(reason.word().to_owned()),
            ..found
        });
    }
}

fn overlapping_pools(pools: &[Pool], problems: &mut Vec<Problem>) {
    for (index, pool) in pools.iter().enumerate() {
        for other in pools.iter().skip(index + 1) {
            if overlap(pool.cidr, other.cidr) {
                let message = format!(
                    "IPPool {} ({}) and IPPool {} ({}) overlap",
                    pool.name, pool.cidr, other.name, other.cidr
                );
                problems.push(problem(ProblemKind::Overlap, message));
            }
        }
    }
}

/// Sorted by their first address, wider ranges first, ranges that overlap follow each other.
fn overlapping_blocks(
    blocks: &[IPAMBlock],
    ranges: &[Option<IpNetwork>],
    problems: &mut Vec<Problem>,
) {
    let both = blocks.iter().zip(ranges);
    let mut sorted: Vec<_> = both
        .filter_map(|(block, range)| range.map(|range| (range, block)))
        .collect();
    sorted.sort_by_key(|(range, _)| (range.network(), range.prefix()));
    let mut widest: Option<(IpNetwork, &IPAMBlock)> = None;
    for (range, block) in sorted {
        match widest {
            Some((around, other)) if overlap(around, range) => {
                let message = format!(
                    "block {range} of Node {} and block {around} of Node {} overlap",
                    block.spec.node, other.spec.node
                );
                problems.push(of_block(ProblemKind::Overlap, block, message));
            }
            _ => widest = Some((range, block)),
        }
    }
}

fn leaks(inventory: &Inventory<'_>, problems: &mut Vec<Problem>) {
    let replacements = Replacements::among(inventory.blocks.iter(), inventory.facts);
    for block in inventory.blocks {
        let node = &block.spec.node;
        for allocation in &block.spec.allocations {
            let Some(reason) = inventory.facts.judge(node, allocation, &replacements) else {
                continue;
            };
            let message = format!(
                "{} held by {} since {}: {reason}",
                allocation.address,
                Holder::of(&allocation.owner, node),
                allocation.since
            );
            problems.push(Problem {
                address: allocation.address.parse().ok(),
                sequence: Some(allocation.sequence),
                reason: Some(reason.word().to_owned()),
                ..of_block(ProblemKind::Leak, block, message)
            });
        }
    }
}

type Holders<'a> = BTreeMap<IpAddr, Vec<(&'a IPAMBlock, &'a Allocation)>>;

fn holders(blocks: &[IPAMBlock]) -> Holders<'_> {
    let mut holders = Holders::new();
    for block in blocks {
        for one in &block.spec.allocations {
            if let Ok(address) = one.address.parse() {
                holders.entry(address).or_default().push((block, one));
            }
        }
    }
    holders
}

fn held_twice(holders: &Holders<'_>, problems: &mut Vec<Problem>) {
    for (address, held) in holders.iter().filter(|(_, held)| held.len() > 1) {
        let words: Vec<String> = held
            .iter()
            .map(|(block, one)| {
                let node = &block.spec.node;
                let holder = Holder::of(&one.owner, node);
                format!("{holder} in block {} of Node {node}", block.spec.cidr)
            })
            .collect();
        let message = format!("{address} is held by {}", words.join(" and by "));
        problems.push(Problem {
            address: Some(*address),
            ..problem(ProblemKind::Duplicate, message)
        });
    }
}

/// What running pods say of themselves, against the blocks.
fn used_by_pods(inventory: &Inventory<'_>, holders: &Holders<'_>, problems: &mut Vec<Problem>) {
    let mut users: HashMap<IpAddr, Vec<&str>> = HashMap::new();
    let running = inventory.facts.pods.iter();
    let running = running.filter(|(_, pod)| !pod.finished && !pod.host_network);
    for (key, pod) in running {
        for address in &pod.addresses {
            users.entry(*address).or_default().push(key);
            let in_pool = inventory.pools.iter();
            let in_pool = in_pool.filter(|pool| pool.cidr.contains(*address)).count() > 0;
            let held = holders.get(address).is_some_and(|held| {
                let mut held = held.iter();
                held.any(|(block, one)| {
                    Holder::of(&one.owner, &block.spec.node) == Holder::Pod(key.clone())
                })
            });
            let (kind, words) = match (in_pool, held) {
                (_, true) => continue,
                (true, false) => (
                    ProblemKind::NotAllocated,
                    "which no block says is its own: another pod may get it",
                ),
                (false, false) => (ProblemKind::OutsidePools, "which lies in no IPPool"),
            };
            let message = format!("Pod {key} on Node {} uses {address}, {words}", pod.node);
            problems.push(Problem {
                address: Some(*address),
                ..problem(kind, message)
            });
        }
    }
    for (address, mut keys) in users.into_iter().filter(|(_, keys)| keys.len() > 1) {
        keys.sort_unstable();
        let message = format!("{address} is used by Pods {}", keys.join(" and "));
        problems.push(Problem {
            address: Some(address),
            ..problem(ProblemKind::Duplicate, message)
        });
    }
}

//! `margayctl ipam show`.

use std::net::IpAddr;

use clap::Args;
use ipnetwork::IpNetwork;
use kube::ResourceExt;
use margay_crds::{Allocation, Condition, IPAMBlock};
use margay_e2e::lab::report::{Align, Cell, Screen, Table, Tone};
use margay_ipam::garbage::Replacements;
use margay_ipam::report::{PoolUse, pool_use};
use serde_json::{Value, json};

use super::bar::{bar, count};
use super::cluster::Cluster;
use super::{Answer, Output, Whom};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    whom: Whom,
    /// The blocks too, one line each
    #[arg(long)]
    blocks: bool,
    /// Only this address: who holds it, or why nobody does
    #[arg(long, value_name = "ADDRESS", conflicts_with = "blocks")]
    address: Option<IpAddr>,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(options: Options) -> Result<Answer, String> {
    let client = options.whom.client().await?;
    let cluster = Cluster::read(&client).await?;
    if let Some(address) = options.address {
        return of_address(&cluster, address, options.output);
    }
    let pools = pool_use(&cluster.pools, &cluster.blocks, &cluster.reserved);
    let text = match options.output {
        Output::Json => as_json(&cluster, &pools, options.blocks)?,
        Output::Table => {
            let mut text = table_of_pools(&cluster, &pools);
            if options.blocks {
                text.push('\n');
                text.push_str(&table_of_blocks(&cluster));
            }
            text
        }
    };
    Ok(Answer::well(text))
}

fn text_of(table: &Table) -> String {
    let lines = table.render(Screen::detect());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn uses(cluster: &Cluster, name: &str) -> String {
    let pool = cluster.pools.iter().find(|pool| pool.name == name);
    let uses = pool.iter().flat_map(|pool| &pool.allowed_uses);
    let uses: Vec<String> = uses.map(|one| format!("{one:?}")).collect();
    uses.join(",")
}

fn allocatable<'a>(cluster: &'a Cluster, name: &str) -> Option<&'a Condition> {
    let mut objects = cluster.pool_objects.iter();
    let object = objects.find(|object| object.name_any() == name)?;
    let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.find(|condition| condition.type_ == "Allocatable")
}

/// What new addresses can be expected of a pool, in a word.
fn state(cluster: &Cluster, name: &str) -> Cell {
    match allocatable(cluster, name) {
        Some(condition) if condition.is_true() => Cell::new(Tone::Good, "open"),
        Some(condition) => Cell::new(Tone::Bad, condition.reason.as_str()),
        // No controller has said anything.
        None => Cell::new(Tone::Dim, "unknown"),
    }
}

fn table_of_pools(cluster: &Cluster, pools: &[PoolUse]) -> String {
    if pools.is_empty() {
        return "There is no IPPool: create one, and the nodes take blocks from it.\n".to_owned();
    }
    let columns = [
        ("POOL", Align::Left),
        ("CIDR", Align::Left),
        ("FOR", Align::Left),
        ("STATE", Align::Left),
        ("BLOCKS", Align::Right),
        ("USED", Align::Right),
        ("RESERVED", Align::Right),
        ("FREE", Align::Right),
        ("USE", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for pool in pools {
        let blocks = format!("{}/{}", pool.blocks, count(pool.block_capacity));
        table.row([
            pool.name.as_str().into(),
            pool.cidr.as_str().into(),
            uses(cluster, &pool.name).into(),
            state(cluster, &pool.name),
            blocks.into(),
            count(pool.used).into(),
            count(pool.reserved).into(),
            count(pool.free).into(),
            Cell::new(tone(pool.fraction()), bar(pool.fraction())),
        ]);
    }
    text_of(&table)
}

/// Blocks are claimed whole: a pool is in trouble before its last address is held.
fn tone(fraction: f64) -> Tone {
    match fraction {
        full if full >= 0.95 => Tone::Bad,
        much if much >= 0.8 => Tone::Accent,
        _ => Tone::Good,
    }
}

fn size(block: &IPAMBlock) -> u64 {
    let range: Option<IpNetwork> = block.spec.cidr.parse().ok();
    let bits = range.map_or(0, |range| {
        let all: u32 = if range.is_ipv4() { 32 } else { 128 };
        all.saturating_sub(u32::from(range.prefix()))
    });
    1u64.checked_shl(bits).unwrap_or(u64::MAX)
}

fn fraction(block: &IPAMBlock) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for a bar of some characters")]
    let fraction = block.spec.allocations.len() as f64 / size(block) as f64;
    fraction
}

fn table_of_blocks(cluster: &Cluster) -> String {
    let columns = [
        ("BLOCK", Align::Left),
        ("NODE", Align::Left),
        ("USED", Align::Right),
        ("RESTING", Align::Right),
        ("USE", Align::Left),
    ];
    let mut table = Table::new(&columns);
    let mut blocks: Vec<&IPAMBlock> = cluster.blocks.iter().collect();
    blocks.sort_by_key(|block| {
        let range: Option<IpNetwork> = block.spec.cidr.parse().ok();
        range.map(|range| (range.network(), range.prefix()))
    });
    for block in blocks {
        let used = format!("{}/{}", block.spec.allocations.len(), size(block));
        table.row([
            block.spec.cidr.as_str().into(),
            block.spec.node.as_str().into(),
            used.into(),
            block.spec.released.len().to_string().into(),
            Cell::new(tone(fraction(block)), bar(fraction(block))),
        ]);
    }
    text_of(&table)
}

fn as_json(cluster: &Cluster, pools: &[PoolUse], blocks: bool) -> Result<String, String> {
    let pools: Result<Vec<Value>, _> = pools
        .iter()
        .map(|pool| {
            let mut value = serde_json::to_value(pool)?;
            if let Some(fields) = value.as_object_mut() {
                let condition = allocatable(cluster, &pool.name);
                let uses = uses(cluster, &pool.name);
                let uses: Vec<&str> = uses.split(',').filter(|one| !one.is_empty()).collect();
                fields.insert("allowedUses".to_owned(), json!(uses));
                fields.insert("allocatable".to_owned(), json!(condition));
            }
            Ok(value)
        })
        .collect();
    let pools = pools.map_err(|error: serde_json::Error| error.to_string())?;
    let mut answer = json!({ "pools": pools });
    if blocks && let Some(fields) = answer.as_object_mut() {
        let blocks: Vec<Value> = cluster.blocks.iter().map(block_as_json).collect();
        fields.insert("blocks".to_owned(), json!(blocks));
    }
    super::json(&answer)
}

fn block_as_json(block: &IPAMBlock) -> Value {
    json!({
        "name": block.name_any(), "uid": block.metadata.uid, "cidr": block.spec.cidr,
        "node": block.spec.node, "capacity": size(block), "used": block.spec.allocations.len(),
        "resting": block.spec.released.len(), "allocations": block.spec.allocations,
    })
}

/// The block of an address and its allocation.
fn find(cluster: &Cluster, address: IpAddr) -> (Option<&IPAMBlock>, Option<&Allocation>) {
    let holds = |block: &&IPAMBlock| {
        let range: Option<IpNetwork> = block.spec.cidr.parse().ok();
        range.is_some_and(|range| range.contains(address))
    };
    let block = cluster.blocks.iter().find(holds);
    let mut allocations = block.iter().flat_map(|block| &block.spec.allocations);
    let held = allocations.find(|one| one.address.parse() == Ok(address));
    (block, held)
}

fn of_address(cluster: &Cluster, address: IpAddr, output: Output) -> Result<Answer, String> {
    let pool = cluster.pools.iter();
    let pool = pool
        .filter(|pool| pool.cidr.contains(address))
        .map(|pool| pool.name.as_str());
    let pool = pool.collect::<Vec<_>>().join(",");
    let (block, held) = find(cluster, address);
    let reserved = cluster
        .reserved
        .iter()
        .find(|range| range.contains(address));
    let leaked = block.zip(held).and_then(|(block, held)| {
        let replacements = Replacements::among(cluster.blocks.iter(), &cluster.facts);
        cluster.facts.judge(&block.spec.node, held, &replacements)
    });
    if output == Output::Json {
        let answer = json!({
            "address": address, "pool": pool, "reservedBy": reserved,
            "block": block.map(|block| json!({"name": block.name_any(), "cidr": block.spec.cidr,
                "node": block.spec.node, "uid": block.metadata.uid})),
            "allocation": held,
            "leak": leaked.as_ref().map(|reason| json!({"reason": reason.word(),
                "message": reason.to_string()})),
        });
        return Ok(Answer::well(super::json(&answer)?));
    }
    let mut lines = Vec::new();
    match (block, held) {
        (Some(block), Some(held)) => {
            lines.push(format!("{address} is held by {}", held.owner));
            lines.push(format!("since      {}", held.since));
            lines.push(format!("sequence   {}", held.sequence));
            lines.push(format!(
                "block      {} of {}",
                block.spec.cidr, block.spec.node
            ));
            if !held.owner.container_id.is_empty() {
                let owner = &held.owner;
                lines.push(format!(
                    "sandbox    {} {}",
                    owner.container_id, owner.interface
                ));
            }
        }
        (Some(block), None) => {
            lines.push(format!("{address} is free"));
            lines.push(format!(
                "block      {} of {}",
                block.spec.cidr, block.spec.node
            ));
            let mut released = block.spec.released.iter();
            if let Some(last) = released.find(|one| one.address.parse() == Ok(address)) {
                lines.push(format!("given back {}", last.at));
            }
        }
        (None, _) if pool.is_empty() => {
            lines.push(format!("{address} lies in no IPPool"));
        }
        (None, _) => lines.push(format!("{address} is free, and in no block yet")),
    }
    if !pool.is_empty() {
        lines.push(format!("pool       {pool}"));
    }
    if let Some(range) = reserved {
        lines.push(format!("reserved   by an IPReservation of {range}"));
    }
    if let Some(reason) = leaked {
        lines.push(format!("leaked     {reason}"));
    }
    Ok(Answer::well(lines.join("\n") + "\n"))
}

//! How fast a new block's route reaches another node's kernel: the whole road from the store over
//! one agent, BGP and another agent.
//!
//! The far end is a thread in the remote node's namespace that reads the kernel's routing table
//! from `/proc/thread-self/net/`, a few thousand times a second: no program to start, no buffer
//! in between.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use kube::Client;
use kube::api::{Api, DeleteParams};
use margay_crds::{IPAMBlock, NODE_LABEL};
use serde_json::json;

use super::error::LabError;
use super::namespaces;
use super::objects::ensure;
use super::patience::patience;
use super::spec::{BLOCK_SIZE, Plan};

/// Between two looks at the table.
const LOOK: Duration = Duration::from_micros(200);

/// What became of one block.
#[derive(Debug, Clone)]
pub struct Journey {
    /// The name of the IPAMBlock.
    pub block: String,
    /// When its write began.
    pub written: Instant,
    /// When the remote kernel had its route.
    pub arrived: Instant,
}

impl Journey {
    /// From the one to the other.
    pub fn took(&self) -> Duration {
        self.arrived.saturating_duration_since(self.written)
    }
}

/// From the write of an IPAMBlock on behalf of `owner` until `remote` has its route, so many
/// times; then the block is deleted, and the route's end awaited. Nodes by their indexes.
///
/// # Errors
/// When the store refuses, or a route does not come or go in time.
pub async fn route_latencies(
    client: &Client,
    plan: &Plan,
    owner: usize,
    remote: usize,
    repeats: usize,
) -> Result<Vec<Duration>, LabError> {
    let journeys = journeys(client, plan, owner, remote, repeats).await?;
    Ok(journeys.iter().map(Journey::took).collect())
}

/// As [`route_latencies`], with the moments themselves.
///
/// # Errors
/// As [`route_latencies`].
pub async fn journeys(
    client: &Client,
    plan: &Plan,
    owner: usize,
    remote: usize,
    repeats: usize,
) -> Result<Vec<Journey>, LabError> {
    let name = |index: usize| {
        plan.nodes
            .get(index)
            .map_or("", |node| node.host.name.as_str())
    };
    let namespace = plan.namespace(name(remote));
    let mut all = Vec::with_capacity(repeats);
    for round in 0..repeats {
        let block = high_block(plan.pool, round);
        all.push(one(client, &namespace, name(owner), block).await?);
    }
    Ok(all)
}

/// A block near the end of the pool, where the agents of a lab never get to.
fn high_block(pool: IpNetwork, round: usize) -> IpNetwork {
    let IpAddr::V4(last) = pool.broadcast() else {
        return pool;
    };
    let size = 1u32 << (32 - u32::from(BLOCK_SIZE));
    let back = size * (u32::try_from(round % 64).unwrap_or(0) + 1);
    let first = Ipv4Addr::from(u32::from(last).wrapping_add(1).wrapping_sub(back));
    IpNetwork::new(first.into(), BLOCK_SIZE).unwrap_or(pool)
}

async fn one(
    client: &Client,
    namespace: &str,
    owner: &str,
    block: IpNetwork,
) -> Result<Journey, LabError> {
    let api: Api<IPAMBlock> = Api::all(client.clone());
    let object_name = IPAMBlock::name_of(block);
    let object = json!({
        "metadata": {"name": object_name, "labels": {NODE_LABEL: owner}},
        "spec": {"cidr": block.to_string(), "node": owner},
    });
    let watch = Watch::begin(namespace, block, true)?;
    let written = Instant::now();
    ensure(&api, object).await?;
    let seen = watch.end().await;

    let gone = Watch::begin(namespace, block, false)?;
    let deleted = api.delete(&object_name, &DeleteParams::default()).await;
    deleted
        .map(drop)
        .map_err(LabError::store(format!("delete IPAMBlock {object_name}")))?;
    let arrived = seen?;
    gone.end().await?;
    Ok(Journey {
        block: object_name,
        written,
        arrived,
    })
}

/// A thread that waits for a route to come or go.
#[derive(Debug)]
pub struct Watch {
    what: String,
    limit: Duration,
    answer: tokio::sync::oneshot::Receiver<Option<Instant>>,
}

impl Watch {
    /// Starts waiting for the IPv4 route of exactly `block` in a namespace; returns once the thread
    /// is there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn begin(namespace: &str, block: IpNetwork, present: bool) -> Result<Self, LabError> {
        let (send, answer) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let limit = patience(10);
        let place = namespace.to_owned();
        std::thread::spawn(move || {
            let entered = namespaces::enter(&place);
            let failed = entered.is_err();
            let _ = ready.send(entered);
            let end = Instant::now() + limit;
            while !failed && Instant::now() < end {
                if table_holds(block) == present {
                    let _ = send.send(Some(Instant::now()));
                    return;
                }
                std::thread::sleep(LOOK);
            }
            let _ = send.send(None);
        });
        let entered = is_ready.recv();
        entered.map_err(|_| LabError::Thread {
            namespace: namespace.to_owned(),
        })??;
        let verb = if present { "come to" } else { "leave" };
        Ok(Self {
            what: format!("the route of {block} to {verb} {namespace}"),
            limit,
            answer,
        })
    }

    /// The moment in which the route had come or gone.
    ///
    /// # Errors
    /// When it did not in time.
    pub async fn end(self) -> Result<Instant, LabError> {
        let seen = self.answer.await.ok().flatten();
        seen.ok_or_else(|| LabError::Deadline {
            what: self.what,
            waited: self.limit,
            seen: "no change of the kernel's routes".to_owned(),
            logs: super::state::BASE.into(),
        })
    }
}

/// Whether the calling thread's namespace has a route to exactly this network.
fn table_holds(block: IpNetwork) -> bool {
    let table = fs::read_to_string("/proc/thread-self/net/route");
    table.is_ok_and(|table| parse_holds(&table, block))
}

/// The table writes addresses as hexadecimal numbers in the machine's own byte order.
fn parse_holds(table: &str, block: IpNetwork) -> bool {
    let (IpAddr::V4(network), IpAddr::V4(mask)) = (block.network(), block.mask()) else {
        return false;
    };
    let wanted = (hexadecimal(network), hexadecimal(mask));
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace();
        let (destination, mask) = (fields.nth(1), fields.nth(5));
        destination == Some(&wanted.0) && mask == Some(&wanted.1)
    })
}

fn hexadecimal(address: Ipv4Addr) -> String {
    format!("{:08X}", u32::from_ne_bytes(address.octets()))
}

/// The middle of some times; zero for none.
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_table() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010A0A0A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            *\t0000030A\t00000000\t0001\t0\t0\t0\tC0FFFFFF\t0\t0\t0\n";
        assert!(parse_holds(table, "10.3.0.0/26".parse().unwrap()));
        assert!(!parse_holds(table, "10.3.0.0/24".parse().unwrap()));
        assert!(!parse_holds(table, "10.3.0.64/26".parse().unwrap()));
        assert!(!parse_holds("", "10.3.0.0/26".parse().unwrap()));
    }

    #[test]
    fn high_blocks_are_of_the_pool_and_distinct() {
        let pool: IpNetwork = "10.244.0.0/16".parse().unwrap();
        assert_eq!(high_block(pool, 0).to_string(), "10.244.255.192/26");
        assert_eq!(high_block(pool, 10).to_string(), "10.244.253.64/26");
    }

    #[test]
    fn the_middle() {
        let times = [5, 1, 9].map(Duration::from_millis);
        assert_eq!(median(&times), Duration::from_millis(5));
        assert_eq!(median(&[]), Duration::ZERO);
    }
}

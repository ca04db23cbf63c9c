//! How long an allocation decision takes and how much memory the view takes in a large cluster.
//!
//! `decision [NODES] [BLOCKS]` (5,000 and 20,000) prints one line of JSON:
//! `{"nodes", "blocks", "samples", "decision": {"p50Micros", "p99Micros", "maxMicros"},
//! "claim": {…}, "borrow": {…}, "dualStack": {…}, "viewBytes"}`.
//! A decision is what lies between a request and the block that is to be written, ready to be
//! sent: made anew from the view each time. Memory is what the process has grown by while it took
//! in the list, block by block as a watch delivers it, each with half of its addresses held.
//!
//! Not here: the API server.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

use std::time::Instant;

use margay_crds::{IPAMBlock, IPPool, Owner, Pool};
use margay_ipam::batch::{Batch, Step};
use margay_ipam::{BlockEvent, Family, IpamError, NodeBlock, Operation, Request, Timestamp, View};
use serde_json::{Value, json};

const SAMPLES: u32 = 20_000;

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: u32| match arguments.next() {
        None => Ok(usual),
        Some(text) => text.parse().map_err(|_| format!("{text} is no number")),
    };
    let (nodes, blocks) = (number(5_000)?, number(20_000)?);
    let before = resident()?;
    let view = cluster(nodes, blocks)?;
    let grown = resident()?.saturating_sub(before);
    let report = json!({
        "nodes": nodes,
        "blocks": view.known_blocks(),
        "samples": SAMPLES,
        "decision": measure(&view, &[Family::V4], is_update)?,
        "dualStack": measure(&view, &[Family::V4, Family::V6], is_update)?,
        "claim": measure(&full(&view)?, &[Family::V4], is_create)?,
        "borrow": measure(&nothing_to_claim(&view)?, &[Family::V4], is_read)?,
        "viewBytes": grown,
    });
    println!("{report}");
    Ok(())
}

/// The view of `node-0`: `blocks` blocks, those of IPv6 among them where it is its own.
fn cluster(nodes: u32, blocks: u32) -> Result<View, String> {
    let mut view = View::new("node-0");
    view.set_pools(vec![
        pool("four", json!({"cidr": "10.0.0.0/8", "blockSize": 26}))?,
        pool("six", json!({"cidr": "fd00::/48"}))?,
    ]);
    view.handle_event(BlockEvent::ListBegin);
    for index in 0..blocks {
        let node = format!("node-{}", index % nodes);
        // Not one after the other: as nodes claim them.
        let place = index.wrapping_mul(2_654_435_761) % (1 << 18);
        let first = std::net::Ipv4Addr::from(0x0a00_0000 + place * 64);
        view.handle_event(BlockEvent::Listed(block(
            &format!("{first}/26"),
            &node,
            32,
        )?));
    }
    view.handle_event(BlockEvent::Listed(block("fd00::/122", "node-0", 32)?));
    view.handle_event(BlockEvent::ListEnd);
    Ok(view)
}

/// The same cluster, this node's blocks full: the next request claims one.
fn full(view: &View) -> Result<View, String> {
    let mut view = view.clone();
    let own: Vec<String> = view
        .own_blocks()
        .map(|own| own.cidr().to_string())
        .collect();
    for cidr in own {
        view.put(block(&cidr, "node-0", 64)?);
    }
    Ok(view)
}

/// As [`full`], and every block of the pool is somebody's: the next request borrows.
fn nothing_to_claim(view: &View) -> Result<View, String> {
    let mut view = full(view)?;
    let mut pools = vec![pool("six", json!({"cidr": "fd00::/48"}))?];
    let ranges: Vec<String> = view
        .own_blocks()
        .map(|own| own.cidr().to_string())
        .collect();
    // Only what is claimed already belongs to a pool now.
    for (index, range) in ranges
        .iter()
        .filter(|range| !range.contains(':'))
        .enumerate()
    {
        let spec = json!({"cidr": range, "blockSize": 26});
        pools.push(pool(&format!("four-{index}"), spec)?);
    }
    for index in 0..64_u32 {
        let range = format!("10.255.{}.{}/26", index / 4, index % 4 * 64);
        view.put(block(&range, &format!("node-{}", index + 1), 32)?);
    }
    pools.push(pool(
        "lent",
        json!({"cidr": "10.255.0.0/20", "blockSize": 26}),
    )?);
    view.set_pools(pools);
    Ok(view)
}

fn pool(name: &str, spec: Value) -> Result<Pool, String> {
    let spec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
    let checked = IPPool::new(name, spec).check();
    checked.map_err(|errors| margay_crds::field::join(&errors))
}

fn block(cidr: &str, node: &str, held: u32) -> Result<IPAMBlock, String> {
    let cidr = cidr.parse().map_err(|_| format!("{cidr} is no range"))?;
    let mut block = NodeBlock::claim(cidr, node);
    for index in 0..held {
        let _ = block.assign(
            &owner(&format!("{node}-{cidr}-{index}")),
            now(),
            <_>::default(),
        );
    }
    let mut object = block.into_object();
    object.metadata.uid = Some(format!("uid-{cidr}"));
    object.metadata.resource_version = Some("1".to_owned());
    Ok(object)
}

fn owner(pod: &str) -> Owner {
    Owner {
        namespace: "a-namespace".to_owned(),
        pod: format!("deployment-7d9c6b5f4-{pod}"),
        uid: "0c8d7a52-5b7e-4c0e-9c53-0d9a1f0c6a11".to_owned(),
        container_id: format!("{pod:0>64}"),
        interface: "eth0".to_owned(),
        ..Owner::default()
    }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn measure(
    view: &View,
    families: &[Family],
    is_expected: fn(&Step) -> bool,
) -> Result<Value, String> {
    let mut times = Vec::new();
    for sample in 0..SAMPLES {
        let families = families.iter().copied();
        let request = Request::pod(owner(&format!("new-{sample}")), families);
        let begin = Instant::now();
        let mut batch = Batch::new([Operation::Assign(request)]);
        let step = batch.poll_step(view, now());
        times.push(begin.elapsed());
        if !is_expected(&step) {
            let reply = batch.poll_reply();
            let error = reply.and_then(|(_, outcome): (_, Result<_, IpamError>)| outcome.err());
            return Err(format!("another step than expected: {step:?} {error:?}"));
        }
    }
    times.sort();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).map(|time| time.as_secs_f64() * 1e6)
    };
    Ok(json!({"p50Micros": at(50), "p99Micros": at(99), "maxMicros": at(100)}))
}

fn is_update(step: &Step) -> bool {
    matches!(step, Step::Update(_))
}

fn is_create(step: &Step) -> bool {
    matches!(step, Step::Create(_))
}

fn is_read(step: &Step) -> bool {
    matches!(step, Step::Read(_))
}

/// This process's resident memory in bytes, by /proc/self/statm.
fn resident() -> Result<usize, String> {
    let text = std::fs::read_to_string("/proc/self/statm").map_err(|error| error.to_string())?;
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages
        .map(|pages| pages * 4096)
        .ok_or_else(|| "statm has another shape".to_owned())
}

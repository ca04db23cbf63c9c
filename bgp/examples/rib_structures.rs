//! What it costs to find a prefix's number in several structures: the comparison behind the RIB's table.
//!
//! `cargo run --release -p margay-bgp --example rib_structures`. Each line is a process of its own: 800,000 IPv4 /24 put in,
//! then found again, in nanoseconds each; and the memory it took, per prefix.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::time::Instant;

use margay_bgp::rib::Table;
use margay_bgp::types::Prefix;

type Error = Box<dyn std::error::Error>;

const COUNT: u32 = 800_000;

/// Finds the number of a prefix, a new one if it has none.
trait Index {
    fn number(&mut self, prefix: Prefix, key: u32) -> u32;
}

/// The standard map with the standard hash, beside a vector of destinations.
#[derive(Default)]
struct Hashed(HashMap<Prefix, u32>, Vec<Prefix>);

impl Index for Hashed {
    fn number(&mut self, prefix: Prefix, _: u32) -> u32 {
        let Self(numbers, prefixes) = self;
        *numbers.entry(prefix).or_insert_with(|| {
            prefixes.push(prefix);
            prefixes.len() as u32
        })
    }
}

/// The standard sorted map, beside a vector of destinations.
#[derive(Default)]
struct Sorted(BTreeMap<Prefix, u32>, Vec<Prefix>);

impl Index for Sorted {
    fn number(&mut self, prefix: Prefix, _: u32) -> u32 {
        let Self(numbers, prefixes) = self;
        *numbers.entry(prefix).or_insert_with(|| {
            prefixes.push(prefix);
            prefixes.len() as u32
        })
    }
}

/// A trie that takes 8 bits of the address at a time, beside a vector of destinations; it can do /24 only, which flatters it.
struct Trie(Vec<[u32; 256]>, Vec<Prefix>);

impl Index for Trie {
    fn number(&mut self, prefix: Prefix, key: u32) -> u32 {
        let Self(nodes, prefixes) = self;
        let [_, first, second, third] = key.to_be_bytes();
        let mut node = 0;
        for step in [first, second] {
            let fresh = nodes.len() as u32;
            let child = &mut nodes[node][usize::from(step)];
            if *child == 0 {
                *child = fresh;
                nodes.push([0; 256]);
            }
            node = nodes[node][usize::from(step)] as usize;
        }
        let place = &mut nodes[node][usize::from(third)];
        if *place == 0 {
            prefixes.push(prefix);
            *place = prefixes.len() as u32;
        }
        *place
    }
}

/// The RIB's: an index of numbers alone, compared against the records. Its records hold a path already.
struct Dense(Table);

impl Index for Dense {
    fn number(&mut self, prefix: Prefix, _: u32) -> u32 {
        self.0.find_or_insert(prefix).0
    }
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [structure, order] = arguments.as_slice() {
        return run(structure, order);
    }
    println!(
        "{:<8} {:<9} {:>10} {:>8} {:>12}",
        "index", "prefixes", "insert ns", "find ns", "octets each"
    );
    let program = std::env::current_exe()?;
    for structure in ["hashed", "sorted", "trie", "dense"] {
        for order in ["in-order", "shuffled", "sparse"] {
            std::process::Command::new(&program)
                .args([structure, order])
                .status()?;
        }
    }
    Ok(())
}

fn run(structure: &str, order: &str) -> Result<(), Error> {
    let mut index: Box<dyn Index> = match structure {
        "hashed" => Box::new(Hashed::default()),
        "sorted" => Box::new(Sorted::default()),
        "trie" => Box::new(Trie(vec![[0; 256]], Vec::new())),
        _ => Box::new(Dense(Table::new(42))),
    };
    let key = |number: u32| match order {
        "in-order" => 0x01_0000 + number,
        // A permutation modulo a prime that is near enough to the count.
        "shuffled" => 0x01_0000 + (u64::from(number + 1) * 481_763 % 800_011) as u32,
        // All over the address space: multiplication by an odd number is a permutation of 24 bits.
        _ => number.wrapping_mul(0x9e_3779) & 0xff_ffff,
    };
    let prefix = |key: u32| Prefix::v4(Ipv4Addr::from(key << 8), 24);
    let before = resident()?;
    let mut times = [0.0; 2];
    for time in &mut times {
        let start = Instant::now();
        let mut sum = 0_u64;
        for number in 0..COUNT {
            let key = key(number);
            sum += u64::from(index.number(prefix(key)?, key));
        }
        *time = start.elapsed().as_nanos() as f64 / f64::from(COUNT);
        std::hint::black_box(sum);
    }
    let octets = (resident()? - before) * 1024.0 / f64::from(COUNT);
    let [insert, find] = times;
    println!("{structure:<8} {order:<9} {insert:>10.0} {find:>8.0} {octets:>12.0}");
    Ok(())
}

/// Peak resident memory in kilobytes.
fn resident() -> Result<f64, Error> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    let field = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(field.ok_or("no VmHWM")?.parse()?)
}

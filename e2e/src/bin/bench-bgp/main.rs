//! `make bench-bgp`: Margay's speaker beside BIRD 2, FRR, GoBGP and OpenBGPD, in one run.
//!
//! Every daemon gets the same sessions and octets in the same namespaces, one after the other in
//! turn, several times over. Senders, monitor and observers are threads of this program and share
//! no code with the speaker. Needs root and the daemons' Debian packages; those that are missing
//! are left out. Writes a page of tables and a picture. At the end a lab tells how fast objects
//! become routes, beside BIRD that is fed by files.

mod cases;
mod cluster;
mod daemon;
mod events;
mod failover;
mod fed;
mod measure;
mod net;
mod peer;
mod report;
mod stream;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;

use crate::cases::{Bench, Case};
use crate::daemon::Kind;
use crate::failover::Failure;
use crate::net::Net;
use crate::report::Results;

/// Measures BGP daemons side by side.
#[derive(Debug, Parser)]
struct Options {
    /// The program margay-bgp; left out: static/margay-bgp beside this program
    #[arg(long)]
    margay_bgp: Option<PathBuf>,
    /// The daemons, in turn
    #[arg(long, value_delimiter = ',')]
    daemons: Vec<Kind>,
    /// What to measure; left out: everything. `--cases none` leaves only the failures
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// The failures to measure; left out: all
    #[arg(long, value_delimiter = ',')]
    failures: Vec<String>,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// How often each failure is measured; those that are slow, at most 3 times
    #[arg(long, default_value_t = 7)]
    failure_runs: usize,
    /// Prefixes of a whole table
    #[arg(long, default_value_t = 800_000)]
    prefixes: usize,
    /// Prefixes of a whole table for GoBGP, which takes long
    #[arg(long, default_value_t = 100_000)]
    gobgp_prefixes: usize,
    /// Seconds after which a measurement is given up
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// How often each change of an object is timed in a lab; 0: none
    #[arg(long, default_value_t = 200)]
    cluster_runs: usize,
    /// Where bgp.md, bgp.svg and bgp-cluster.md go; left out: only the table on standard output
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if !rustix::process::geteuid().is_root() {
        bail!("bench-bgp makes network namespaces: run it as root");
    }
    let programs = std::env::current_exe()?.with_file_name("");
    let margay = match options.margay_bgp.take() {
        Some(path) => path,
        None => programs.join("static/margay-bgp"),
    };
    if options.daemons.is_empty() {
        options.daemons = Kind::ALL.into();
    }
    options.daemons.retain(|kind| {
        let there = !kind.version(&margay).is_empty();
        if !there {
            eprintln!("{} is not installed and is left out", kind.name());
        }
        there
    });
    let cases = chosen(&options.cases, &Case::ALL)?;
    let failures = chosen(&options.failures, &Failure::ALL)?;
    let folder = std::env::temp_dir().join("margay-bench-bgp");
    // OpenBGPD's unprivileged processes must be able to look.
    let bench = |kind| Bench {
        margay: &margay,
        folder: &folder,
        count: if kind == Kind::Gobgp {
            options.gobgp_prefixes.min(options.prefixes)
        } else {
            options.prefixes
        },
        patience: Duration::from_secs(options.patience),
    };
    if options.cluster_runs > 0 {
        let page = cluster::measure(&programs, options.cluster_runs)?;
        println!("{page}");
        if let Some(out) = &options.out {
            std::fs::create_dir_all(out)?;
            std::fs::write(out.join("bgp-cluster.md"), page)?;
        }
    }
    if cases.is_empty() && failures.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    let mut results = Results::default();
    for run in 0..options.runs {
        for case in &cases {
            for kind in options.daemons.iter().copied() {
                if !case.applies_to(kind) || results.gave_up(kind, *case) {
                    continue;
                }
                let _net = Net::new(case.senders())?;
                let outcome = bench(kind).measure(kind, *case);
                match &outcome {
                    Ok(figures) => eprintln!("{run} {case:?} {} {figures:?}", kind.name()),
                    Err(error) => eprintln!("{run} {case:?} {}: {error:#}", kind.name()),
                }
                results.add(kind, *case, outcome);
            }
        }
    }
    for run in 0..options.failure_runs {
        for failure in &failures {
            for kind in options.daemons.iter().copied() {
                if !failure.applies_to(kind) || results.is_slow(kind, *failure, run) {
                    continue;
                }
                let _net = Net::new(1)?;
                let outcome = bench(kind).failover(kind, *failure);
                match &outcome {
                    Ok(Some(after)) => eprintln!("{run} {failure:?} {} {after:.3} ms", kind.name()),
                    Ok(None) => eprintln!("{run} {failure:?} {} no withdrawal", kind.name()),
                    Err(error) => eprintln!("{run} {failure:?} {}: {error:#}", kind.name()),
                }
                results.add_failure(kind, *failure, outcome);
            }
        }
    }
    let versions = options
        .daemons
        .iter()
        .map(|kind| (*kind, kind.version(&margay)));
    let page = report::Page {
        results: &results,
        versions: versions.collect(),
        count: options.prefixes,
        gobgp_count: options.gobgp_prefixes.min(options.prefixes),
        took: begun.elapsed(),
    };
    println!("{}", page.tables());
    if let Some(out) = &options.out {
        std::fs::create_dir_all(out)?;
        std::fs::write(out.join("bgp.md"), page.markdown())?;
        std::fs::write(out.join("bgp.svg"), page.picture())?;
    }
    Ok(())
}

/// The values named, or all of them.
fn chosen<T: clap::ValueEnum + Clone>(names: &[String], all: &[T]) -> Result<Vec<T>> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let names = names.iter().filter(|name| *name != "none");
    names
        .map(|name| T::from_str(name, true).map_err(|error| anyhow::anyhow!(error)))
        .collect()
}

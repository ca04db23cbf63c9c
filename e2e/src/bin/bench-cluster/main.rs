//! `make bench-cluster`: what Margay costs on a genuine cluster, beside Debian's reference plugins
//! `ptp` and `host-local` on the same one, by turns.
//!
//! Measured are a pod's way from its creation to its first packet, 30 pods at once until all are
//! Ready, what an idle node asks of the API server, what a change of a pod costs in watches, and
//! the agent's memory and processor time. Unattended it takes half an hour on two processors that
//! have nothing else to do: whole turns are fast or slow, and only many of them tell a tenth. Needs
//! root, `make kube-binaries`, `make image` and `make helm`. Writes a page.

mod idle;
mod report;
mod rounds;
mod stages;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use margay_e2e::cluster::{self, Cluster, Ground};
use margay_e2e::lab::down::Logs;

use crate::report::Results;

/// What the namespaces are called.
const NAME: &str = "benchcluster";

/// Measures Margay on a genuine cluster.
#[derive(Debug, Parser)]
struct Options {
    /// How often the two sides take their turn
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// How many pods are started one after the other in a round
    #[arg(long, default_value_t = 8)]
    alone: usize,
    /// How many pods are started at once
    #[arg(long, default_value_t = 30)]
    at_once: u32,
    /// For how many seconds the idle cluster is looked at
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Where cluster.md goes; left out: only the page on standard output
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if !rustix::process::geteuid().is_root() {
        bail!("bench-cluster makes network namespaces: run it as root");
    }
    // The threads that follow are in the API server's namespace.
    let ground = Ground::lay(NAME)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let results = runtime.block_on(async {
        tokio::select! {
            results = measure(&options, ground) => results,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    });
    let logs = if results.is_ok() {
        Logs::Remove
    } else {
        Logs::Keep
    };
    cluster::clear(NAME, logs)?;
    let page = report::markdown(&results?);
    print!("{page}");
    if let Some(folder) = &options.out {
        std::fs::write(folder.join("cluster.md"), &page)?;
    }
    Ok(())
}

async fn measure(options: &Options, ground: Ground) -> Result<Results> {
    let mut cluster = Cluster::start(ground).await?;
    let mut results = Results::default();
    rounds::prepare(&mut cluster).await?;
    for round in 1..=options.rounds {
        for side in rounds::order(round) {
            rounds::switch(&cluster, side).await?;
            let measured = rounds::run(&cluster, options.alone, options.at_once).await?;
            eprintln!("round {round} of {}: {side:?}: {measured}", options.rounds);
            results.of(side).push(measured);
        }
    }
    rounds::switch(&cluster, rounds::Side::Margay).await?;
    results.changes = idle::changes(&cluster).await?;
    eprintln!("bytes a change: {:?}", results.changes);
    (results.idle, results.controller) =
        idle::look(&cluster, Duration::from_secs(options.idle)).await?;
    idle::prove(&cluster).await?;
    Ok(results)
}

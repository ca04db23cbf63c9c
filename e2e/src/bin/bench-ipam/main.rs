//! `make bench-ipam`: what a pod's address costs, beside Debian's reference plugins `ptp` and
//! `host-local`, in one run.
//!
//! A lab of one node on a real API server with etcd. Both sides are executed in the same way, by
//! turns: the plugin's process with CNI's environment, from its start to its end. The API
//! server's own counters tell how many requests an ADD costs. The decision alone is measured by
//! the example `decision` of the ipam crate. Needs root, the programs of `make kube-binaries` and
//! the package containernetworking-plugins. Writes a page with a picture.

mod api;
mod plugins;
mod report;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use margay_e2e::kube::{ControlPlane, programs};
use margay_e2e::lab::cni::Sandbox;
use margay_e2e::lab::down::{self, Logs};
use margay_e2e::lab::report::Screen;
use margay_e2e::lab::spec::{LabSpec, PodPlan, Tor};
use margay_e2e::lab::state::Folder;
use margay_e2e::lab::up::{self, Cluster, Lab};
use serde_json::Value;

use crate::api::Counters;
use crate::plugins::Contestant;
use crate::report::Results;

/// Measures address management.
#[derive(Debug, Parser)]
struct Options {
    /// Where margay, margay-cni and margayctl are; left out: beside this program
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// The CNI plugin as it is installed; left out: the folder's margay-cni
    #[arg(long)]
    plugin: Option<PathBuf>,
    /// How many pods are started one after the other
    #[arg(long, default_value_t = 40)]
    runs: usize,
    /// How many pods are started at once
    #[arg(long, default_value_t = 100)]
    parallel: usize,
    /// How often that is done
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where ipam.md and ipam.svg go; left out: only the page on standard output
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if !rustix::process::geteuid().is_root() {
        bail!("bench-ipam makes network namespaces: run it as root");
    }
    let runtime = tokio::runtime::Runtime::new()?;
    // On this thread, which stays: the servers end with the thread that started them.
    let results = runtime.block_on(measure(&options))?;
    let page = report::markdown(&results);
    print!("{page}");
    if let Some(folder) = &options.out {
        std::fs::write(folder.join("ipam.md"), &page)?;
        std::fs::write(folder.join("ipam.svg"), report::picture(&results))?;
    }
    Ok(())
}

async fn measure(options: &Options) -> Result<Results> {
    let here = std::env::current_exe()?;
    let beside = here.parent().context("this program is in no folder")?;
    let bin_dir = options.bin_dir.clone().unwrap_or_else(|| beside.to_owned());
    let mut results = Results::new(options.parallel);
    results.decision = decision(&beside.join("examples/decision"))?;

    let folder = tempfile::tempdir()?;
    let server = ControlPlane::start(&programs()?, folder.path()).await?;
    let screen = Screen::plain().silenced();
    let lab = up::Options {
        spec: LabSpec {
            name: "ipambench".to_owned(),
            nodes: 1,
            segments: 1,
            tor: Tor::None,
            tors: 1,
            pods: 0,
        },
        binaries: Some(bin_dir),
        datastore: Some(server.kubeconfig().to_owned()),
        underlay_only: false,
    };
    let (_lock, plan) = up::prepare(&lab, screen)?;
    let state = Folder::of(&plan.spec.name);
    let done = async {
        let mut lab = up::build(&lab, plan, screen).await?;
        let mut cluster = lab.cluster.clone().context("the lab has no cluster")?;
        if let Some(plugin) = &options.plugin {
            cluster.runtime.binaries.cni.clone_from(plugin);
        }
        run(options, &mut lab, &cluster, &mut results).await
    }
    .await;
    down::after_failure(&state, Logs::Remove, screen);
    done?;
    Ok(results)
}

async fn run(
    options: &Options,
    lab: &mut Lab,
    cluster: &Cluster,
    results: &mut Results,
) -> Result<()> {
    let mut sandboxes = Vec::new();
    for n in 0..options.parallel.max(1) {
        let pod = PodPlan {
            name: format!("bench-{n}"),
            app: "bench".to_owned(),
            node: 0,
        };
        sandboxes.push(cluster.runtime.sandbox(&mut lab.ledger, &pod).await?);
    }
    // The agent has seen the pods, and everything has been read once.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let margay = Contestant::margay(&cluster.runtime, lab);
    let reference = Contestant::reference(lab)?;
    for contestant in [&margay, &reference] {
        contestant.add(&sandboxes[0])?;
        contestant.delete(&sandboxes[0])?;
    }

    for run in 0..options.runs {
        let sandbox = &sandboxes[run % sandboxes.len()];
        for (contestant, times) in [
            (&margay, &mut results.margay_alone),
            (&reference, &mut results.reference_alone),
        ] {
            times.push(contestant.add(sandbox)?);
            contestant.delete(sandbox)?;
        }
    }
    alone(options, cluster, &margay, &sandboxes, results).await?;
    for _ in 0..options.rounds {
        let before = Counters::read(&cluster.client).await?;
        results.margay_at_once.push(margay.add_all(&sandboxes)?);
        let spent = Counters::read(&cluster.client).await?.since(&before);
        results.requests_at_once.push(spent);
        margay.delete_all(&sandboxes)?;
        results
            .reference_at_once
            .push(reference.add_all(&sandboxes)?);
        reference.delete_all(&sandboxes)?;
    }
    Ok(())
}

/// The requests of pods that start one after the other.
async fn alone(
    options: &Options,
    cluster: &Cluster,
    margay: &Contestant,
    sandboxes: &[Sandbox],
    results: &mut Results,
) -> Result<()> {
    let count = options.runs.min(sandboxes.len()).min(20);
    let before = Counters::read(&cluster.client).await?;
    for sandbox in &sandboxes[..count] {
        margay.add(sandbox)?;
    }
    results.requests_alone = Counters::read(&cluster.client).await?.since(&before);
    results.pods_alone = count;
    margay.delete_all(&sandboxes[..count])?;
    Ok(())
}

/// What the example `decision` says.
fn decision(program: &PathBuf) -> Result<Value> {
    let output = Command::new(program).output();
    let output = output.with_context(|| {
        let program = program.display();
        format!("{program}: build it with --examples (make bench-ipam does)")
    })?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

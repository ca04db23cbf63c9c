//! Margay on a genuine cluster: etcd, kube-apiserver, controller-manager, scheduler, and three
//! nodes with containerd, kubelet and kube-proxy, on two segments with a ToR each.
//!
//! Run by `make test-cluster`: `cluster run [STEP…]`. The steps build on each other, so a run
//! goes through all of them up to the last that is wanted. Called by another test runner it has
//! nothing to do.

#![allow(unreachable_pub, reason = "a test has no outside")]

mod coexistence;
mod crash;
mod diagnosis;
mod footprint;
mod margay;
mod plugin;
mod rate;
mod reference;
mod rights;
mod steps;
mod tokens;

use std::process::ExitCode;

use margay_e2e::cluster::{self, Cluster, Ground};
use margay_e2e::lab::down::Logs;
use steps::Steps;

/// What the namespaces are called: `mgy-cluster-…`.
const NAME: &str = "cluster";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, wanted)) if first == "run" => run(wanted),
        Some((first, _)) if first == "clear" => ended(cluster::clear(NAME, Logs::Remove)),
        // The run that is to be killed; see `crash`.
        Some((first, _)) if first == "hold" => ended(crash::hold(NAME)),
        // Another runner lists and runs tests by the standard harness's flags.
        _ => ExitCode::SUCCESS,
    }
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[String]) -> ExitCode {
    let mut steps = Steps::new();
    let wreck = is_wanted(wanted, "crash").then(|| {
        steps.run_now("a run is killed when everything runs", || {
            crash::wreck(NAME)
        })
    });
    let Ok(wreck) = wreck.transpose() else {
        return ended(cluster::clear(NAME, Logs::Keep).and(Err(anyhow::anyhow!("see above"))));
    };
    // First of all: the threads that follow are in the API server's namespace.
    let ground = match steps.run_now("fabric: two segments, a BIRD on each router", || {
        Ground::lay(NAME)
    }) {
        Ok(ground) => ground,
        Err(_) => return ExitCode::FAILURE,
    };
    if let Some(wreck) = wreck {
        let cleared = steps.run_now("what it left is gone, and nothing of others", || {
            wreck.check_cleared(NAME)
        });
        let Ok(said) = cleared else {
            return ended(cluster::clear(NAME, Logs::Keep).and(Err(anyhow::anyhow!("see above"))));
        };
        steps.figure(&said);
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return ended(Err(error.into())),
    };
    let kept = std::env::var_os("MARGAY_KEEP_CLUSTER").is_some();
    let passed = runtime.block_on(async {
        tokio::select! {
            passed = all(&mut steps, ground, wanted) => passed,
            () = interrupted() => {
                eprintln!("cluster: interrupted");
                false
            }
        }
    });
    if kept {
        println!("the cluster stays: MARGAY_KEEP_CLUSTER is set");
    } else {
        let logs = if passed { Logs::Remove } else { Logs::Keep };
        if let Err(error) = cluster::clear(NAME, logs) {
            return ended(Err(error));
        }
    }
    if !passed {
        let logs = cluster::folder(NAME).join("logs");
        eprintln!("cluster: the logs are in {}", logs.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn interrupted() {
    let terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let Ok(mut terminated) = terminated else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

fn is_wanted(wanted: &[String], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|one| name.contains(one))
}

/// Whether every step that was done held.
async fn all(steps: &mut Steps, ground: Ground, wanted: &[String]) -> bool {
    let started = steps
        .run("control plane and containerd", Cluster::start(ground))
        .await;
    let Ok(mut cluster) = started else {
        return false;
    };
    let done = journeys(steps, &mut cluster, wanted).await;
    if done.is_err() {
        diagnosis::print(&cluster).await;
    }
    steps.summary();
    done.is_ok()
}

async fn journeys(
    steps: &mut Steps,
    cluster: &mut Cluster,
    wanted: &[String],
) -> Result<(), steps::Failed> {
    if is_wanted(wanted, "reference") {
        reference::journey(steps, cluster).await?;
    }
    if is_wanted(wanted, "margay") {
        margay::journey(steps, cluster).await?;
    }
    Ok(())
}

//! Puts the agent together and runs it.

use std::fs::{File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use margay_dataplane::{Dataplane, Kernel, Monitor, NetlinkKernel, SysctlTree};
use margay_speaker::program::shutdown_signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::addresses::Addresses;
use crate::cni_server::{PodNetwork, Server, Wiring};
use crate::enforcement::Enforcement;
use crate::health::{self, Pulse};
use crate::node_condition;
use crate::node_loop::{Inputs, NodeLoop, Parts};
use crate::notes::Notes;
use crate::options::AgentOptions;
use crate::pods::{PodAddresses, PodLinks, PodPolicy, PodStore};
use crate::routing::Routing;
use crate::services::ServiceWatches;
use crate::status::writer;
use crate::{admin, cni_server, datastore, drain};

/// How often deletes that were written down are tried: usually, and after tries in vain.
const REPLAY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(120));
/// How often it is looked whether the first of them can be tried: while an agent is just coming
/// up, every one would fail.
const READY: Duration = Duration::from_millis(200);

/// Runs the agent until it is told to end.
///
/// # Errors
/// A missing capability, a folder or socket that cannot be made, a kubeconfig that cannot be
/// used. An API server that is away is no error: the agent waits for it.
pub async fn run(options: AgentOptions) -> anyhow::Result<()> {
    check_capabilities()?;
    SysctlTree::set_mounted_at(options.proc_sys.clone());
    make_folder(&options.run_dir, "--run-dir")?;
    make_folder(&options.state_dir, "--state-dir")?;
    let _lock = lock(&options.state_dir, LOCK_PATIENCE)?;
    let connection = datastore::connect(&options).await?;
    let client = connection.client.clone();
    let node = options.node_name.clone();

    let kernel = NetlinkKernel::open().context("cannot talk to the kernel's routing tables")?;
    let routes = kernel.routes().await.context("cannot read the routes")?;
    let links = kernel.links().await.context("cannot read the links")?;
    let pods = PodStore::load(options.state_dir.join("endpoints"), &links)
        .with_context(|| format!("--state-dir {}", options.state_dir.display()))?;
    let pods = Arc::new(pods);
    let dataplane = Dataplane::new(kernel.clone());
    let monitor = Monitor::open(kernel.port(), dataplane.invalidator())
        .context("cannot watch the kernel's links, addresses and routes")?;
    let routing = Routing::start(dataplane, monitor, pods.routes());

    let notes = Notes::new(client.clone(), &node);
    let watches = datastore::watch_all(&client, &options.namespace, notes.clone());
    let enforcement =
        Enforcement::start(&node, &pods.all(), watches.policy, watches.endpoints_wanted);
    enforcement.set_failsafes(options.failsafes());
    let followed = enforcement.follow_interfaces(kernel.clone(), routing.interfaces());
    followed
        .await
        .context("cannot read the node's interfaces")?;
    let addresses = Addresses::start(client.clone(), &node);
    let (pulse, pulses) = watch::channel(Pulse::default());
    health::serve(options.health, options.metrics, pulses, enforcement.clone()).await?;
    let (asked, questions) = mpsc::channel(16);
    admin::serve(&options.run_dir.join("admin.sock"), asked)?;

    let links = PodLinks {
        kernel,
        sysctls: SysctlTree::default(),
        routing: routing.clone(),
        pods: Arc::clone(&pods),
    };
    let policy = PodPolicy {
        enforcement: enforcement.clone(),
        pods: Arc::clone(&pods),
    };
    let journal = options.state_dir.join("cni-delete");
    let pod_addresses = PodAddresses::new(addresses.allocator(), notes);
    let wiring = Wiring::new(pod_addresses, links, policy, journal.clone());
    let stop = CancellationToken::new();
    let cni = serve_cni(
        &options.run_dir.join("cni.sock"),
        wiring,
        journal,
        stop.clone(),
    )?;

    let parts = Parts {
        node: node.clone(),
        routing,
        enforcement,
        addresses,
        services: ServiceWatches::new(client.clone(), watches.reporter),
        pods,
        statuses: writer::start(client.clone(), node.clone()),
        unavailable: node_condition::start(client.clone(), node.clone()),
        pulse,
        restarting: !routes.is_empty(),
        drain_mark: drain::mark(&options.state_dir),
    };
    let inputs = Inputs {
        changes: watches.network,
        failures: watches.failures,
        questions,
    };
    tracing::info!("agent of node {node} started");
    let result = NodeLoop::new(parts).run(inputs, shutdown_signal()).await;
    stop.cancel();
    // An ADD under way is brought to its end, so that nothing half-made stays.
    let _ = cni.await;
    connection.close().await;
    result
}

/// Starts the CNI server, and the task that does the deletes written down while nobody listened.
fn serve_cni(
    socket: &Path,
    wiring: impl PodNetwork,
    journal: PathBuf,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let listener = cni_server::listen(socket)
        .with_context(|| format!("CNI socket {}: cannot listen", socket.display()))?;
    let server = Arc::new(Server::new(Arc::new(wiring)));
    tokio::spawn(replay(Arc::clone(&server), journal));
    Ok(tokio::spawn(server.serve(listener, stop)))
}

/// Does the deletes written down, for ever. While the API server is away they are tried ever more
/// rarely: each try asks it, and says that it was in vain.
async fn replay(server: Arc<Server<impl PodNetwork>>, journal: PathBuf) {
    // Before the lists have arrived no delete can be brought to its end; it needs no MTU.
    while server.network().status(Some(0)).await.is_err() {
        tokio::time::sleep(READY).await;
    }
    let mut wait = REPLAY.0;
    loop {
        match server.replay(&journal).await {
            Ok(replayed) => {
                if replayed.done > 0 {
                    tracing::info!("{} deletes that had waited are done", replayed.done);
                }
                let in_vain = replayed.waiting > 0 && replayed.done == 0;
                wait = if in_vain {
                    (wait * 2).min(REPLAY.1)
                } else {
                    REPLAY.0
                };
            }
            Err(error) => tracing::warn!("{}: {error}", journal.display()),
        }
        tokio::time::sleep(wait).await;
    }
}

/// Says which capability is missing for what, before anything is half done.
fn check_capabilities() -> anyhow::Result<()> {
    use rustix::thread::{CapabilitySet, capabilities};
    let held = capabilities(None)
        .context("cannot read this process's capabilities")?
        .effective;
    let needed = [
        (
            CapabilitySet::NET_ADMIN,
            "CAP_NET_ADMIN",
            "links, routes, tunnels and the policy table",
        ),
        (
            CapabilitySet::SYS_ADMIN,
            "CAP_SYS_ADMIN",
            "entering pods' network namespaces",
        ),
    ];
    for (capability, name, purpose) in needed {
        anyhow::ensure!(
            held.contains(capability),
            "{name} is missing, which is needed for {purpose}: run as root, or give the capability"
        );
    }
    Ok(())
}

/// How long an agent waits for one before it that is on its way out: a killed process is gone from
/// the process table before the kernel has closed its files.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Takes the state for this agent alone, for as long as the file is held: a second one, started by
/// mistake, would take the records of the first for its own.
fn lock(state_dir: &Path, patience: Duration) -> anyhow::Result<File> {
    let path = state_dir.join("lock");
    let cannot = || format!("--state-dir {}: cannot be locked", state_dir.display());
    let file = File::create(&path).with_context(cannot)?;
    let limit = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < limit => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "--state-dir {} is in use by another agent: end that one, or use another folder",
                state_dir.display()
            ),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
    }
}

fn make_folder(folder: &Path, flag: &str) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .with_context(|| format!("{flag} {}: cannot be made", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_does_not_touch_the_state_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path(), Duration::ZERO).unwrap();
        let refused = lock(folder.path(), Duration::ZERO).unwrap_err();
        assert!(refused.to_string().contains("another agent"), "{refused}");
        drop(first);
        lock(folder.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn an_agent_waits_for_one_that_is_ending() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path(), Duration::ZERO).unwrap();
        let ending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        lock(folder.path(), Duration::from_secs(60)).unwrap();
        ending.join().unwrap();
    }
}

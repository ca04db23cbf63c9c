//! Puts the agent together and runs it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::addresses::Addresses;
use crate::cni_server::{PodNetwork, Server, Wiring};
use crate::commands::shutdown_signal;
use crate::dataplane::{Dataplane, Kernel, Monitor, NetlinkKernel, SysctlTree};
use crate::endpoints::Endpoints;
use crate::enforcement::Enforcement;
use crate::health::{self, Pulse};
use crate::node_loop::{Inputs, NodeLoop, Parts};
use crate::options::AgentOptions;
use crate::pods::{PodLinks, PodPolicy, PodStore};
use crate::routing::Routing;
use crate::status::writer;
use crate::{admin, cni_server, datastore};

/// How often deletes that were written down are tried.
const REPLAY: Duration = Duration::from_secs(15);
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
    make_folder(&options.run_dir, "--run-dir")?;
    make_folder(&options.state_dir, "--state-dir")?;
    let connection = datastore::connect(&options).await?;
    let client = connection.client.clone();
    let node = options.node_name.clone();

    let kernel = NetlinkKernel::open().context("cannot talk to the kernel's routing tables")?;
    let restarting = !kernel
        .routes()
        .await
        .context("cannot read the routes")?
        .is_empty();
    let dataplane = Dataplane::new(kernel.clone());
    let monitor = Monitor::open(kernel.port(), dataplane.invalidator())
        .context("cannot watch the kernel's links, addresses and routes")?;
    let routing = Routing::start(dataplane, monitor);

    let endpoints = Endpoints::load(options.state_dir.join("endpoints"))
        .with_context(|| format!("--state-dir {}", options.state_dir.display()))?;
    let pods = Arc::new(PodStore::new(endpoints));
    let enforcement = Enforcement::start(&node, &pods.all());
    let addresses = Addresses::start(client.clone(), &node);
    let (pulse, pulses) = watch::channel(Pulse::default());
    health::serve(options.health, options.metrics, pulses).await?;
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
    let wiring = Wiring::new(addresses.allocator(), links, policy, journal.clone());
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
        pods,
        statuses: writer::start(client.clone(), node.clone()),
        pulse,
        restarting,
    };
    let inputs = Inputs {
        watches: datastore::watch_all(&client),
        questions,
    };
    tracing::info!("agent of node {node} started");
    NodeLoop::new(parts).run(inputs, shutdown_signal()).await;
    stop.cancel();
    // An ADD under way is brought to its end, so that nothing half-made stays.
    let _ = cni.await;
    connection.close().await;
    Ok(())
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
    let replayer = Arc::clone(&server);
    tokio::spawn(async move {
        while replayer.network().status().await.is_err() {
            tokio::time::sleep(READY).await;
        }
        let mut again = tokio::time::interval(REPLAY);
        loop {
            again.tick().await;
            match replayer.replay(&journal).await {
                Ok(replayed) if replayed.done > 0 => {
                    tracing::info!("{} deletes that had waited are done", replayed.done);
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("{}: {error}", journal.display()),
            }
        }
    });
    Ok(tokio::spawn(server.serve(listener, stop)))
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

fn make_folder(folder: &Path, flag: &str) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .with_context(|| format!("{flag} {}: cannot be made", folder.display()))
}

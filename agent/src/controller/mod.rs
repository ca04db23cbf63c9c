//! `margay controller`: what is done once for the cluster.
//!
//! - `collect`: addresses and blocks that nobody holds any more are taken back;
//! - `balancer`: Services of type LoadBalancer get addresses;
//! - `pools`: the pools' status, and their finalizer;
//! - `policies`: what is wrong with policies, as conditions and Events.
//!
//! Any number of controllers may run; the one that holds the Lease works ([`election`],
//! [`lease`]), the others wait. Nothing that an agent does waits for a controller: without one,
//! pods start and stop as always, and only what is left behind stays where it is.
//!
//! The tasks share one knowledge, fed by watches (`world`), and each writes only what names
//! the version it was made from: two leaders for a moment do no harm.

mod balancer;
mod cluster_range;
mod collect;
pub mod election;
mod health;
pub mod lease;
mod policies;
mod pools;
mod world;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use margay_crds::LOAD_BALANCER_NODE;
use margay_ipam::{Allocator, KubeStore, SystemClock};
use margay_speaker::program::shutdown_signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::cluster_range::ClusterRange;
use self::health::{Beat, Vitals};
use self::world::Shared;
use crate::datastore;
use crate::options::ControllerOptions;

/// How long the Lease may take to be given back at the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs the controller until it is told to end.
///
/// # Errors
/// A kubeconfig that cannot be used, an address that cannot be listened on. An API server that is away is no error: it is waited for.
pub async fn run(options: ControllerOptions) -> anyhow::Result<()> {
    let client = datastore::client(options.kubeconfig.as_deref()).await?;
    let identity = options.identity.clone().unwrap_or_else(identity);
    let (leading, mut leads) = watch::channel(false);
    let stop = CancellationToken::new();
    let (known, knowledge) = watch::channel(None);
    let beat = Beat::new();
    let vitals = Vitals {
        beat: beat.clone(),
        known: knowledge,
    };
    health::serve(&options, vitals).await?;
    let elected = tokio::spawn(lease::run(
        client.clone(),
        options.namespace.clone(),
        identity.clone(),
        leading,
        beat,
        stop.clone(),
    ));
    tracing::info!("controller {identity} started");
    let mut end = std::pin::pin!(shutdown_signal());
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut end => break,
            changed = leads.changed() => {
                // The sender lives as long as the election.
                if changed.is_err() {
                    break;
                }
                // What is under way may be cut off anywhere: each write stands for itself.
                tasks.abort_all();
                while tasks.join_next().await.is_some() {}
                let leads = *leads.borrow_and_update();
                let shared = leads.then(|| lead(&client, &options, &mut tasks));
                known.send_replace(shared);
            }
        }
    }
    tasks.shutdown().await;
    stop.cancel();
    // The next one need not wait for the Lease to run out.
    let _ = tokio::time::timeout(FAREWELL, elected).await;
    Ok(())
}

/// Starts the leader's tasks; what they know comes back.
fn lead(client: &Client, options: &ControllerOptions, tasks: &mut JoinSet<()>) -> Shared {
    let unclassed = options.default_load_balancer;
    let grace = Duration::from_secs(options.leak_grace_period);
    let store = Arc::new(KubeStore::new(client.clone()));
    let (allocator, worker) = Allocator::new(LOAD_BALANCER_NODE, store, SystemClock);
    let range = ClusterRange::new(options.cluster_cidr.clone());
    let (shared, feed) = Shared::start(client, unclassed, range, allocator.clone());
    tasks.spawn(worker.run());
    tasks.spawn(feed);
    tasks.spawn(collect::run(
        client.clone(),
        shared.clone(),
        grace,
        unclassed,
    ));
    tasks.spawn(pools::run(client.clone(), shared.clone()));
    tasks.spawn(policies::run(client.clone()));
    tasks.spawn(balancer::run(
        client.clone(),
        shared.clone(),
        allocator,
        unclassed,
    ));
    shared
}

/// The host's name and something that tells two controllers of one host apart.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let random = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    format!("{}_{random:016x}", host.trim())
}

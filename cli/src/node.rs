//! `margayctl node drain|undrain`: takes a node out of BGP in an orderly way, and back in.
//!
//! It sets the annotations that the node's agent follows ([`margay_crds::drain`]) and tells what
//! the agent says of it in the NodeStatus. Pods are `kubectl drain`'s: the one comes after the
//! other.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use margay_crds::drain::{DEFAULT_DRAIN_WAIT, DRAIN_ANNOTATION, DRAIN_WAIT_ANNOTATION};
use margay_crds::{DrainStage, NodeStatus};
use serde_json::{Value, json};

use crate::connect::connect;

/// How often the NodeStatus is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How much longer than the wait itself a drain may take before it is given up on: going around,
/// and an agent that writes its status.
const MARGIN: Duration = Duration::from_secs(30);

/// The arguments of `margayctl node`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Takes a node out of BGP: peers find other ways (GRACEFUL_SHUTDOWN), its routes are
    /// withdrawn, its sessions end with a message. Run `kubectl drain` before.
    Drain {
        #[command(flatten)]
        whom: Whom,
        /// What the peers' operators read
        #[arg(long, value_name = "TEXT", default_value = "")]
        message: String,
        /// Seconds that peers get to find other ways, 0 to 3600
        #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_DRAIN_WAIT.as_secs(), value_parser = clap::value_parser!(u64).range(0..=3600))]
        wait: u64,
        /// Although new pods may come to the node
        #[arg(long)]
        force: bool,
    },
    /// Brings a drained node back
    Undrain {
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(Debug, Args)]
struct Whom {
    /// The Node's name
    node: String,
    /// The cluster, as a kubeconfig file; otherwise KUBECONFIG, ~/.kube/config or the pod's own
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Runs the command; 0 when the node is where it was asked to be, 1 otherwise.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(execute(arguments.command)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("margayctl node: {words}");
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<(), String> {
    match command {
        Command::Drain {
            whom,
            message,
            wait,
            force,
        } => {
            let client = connect(whom.kubeconfig.as_deref()).await?;
            ensure_ready_to_go(&client, &whom.node, force).await?;
            let asked = json!({DRAIN_ANNOTATION: message, DRAIN_WAIT_ANNOTATION: wait.to_string()});
            annotate(&client, &whom.node, asked).await?;
            let limit = Duration::from_secs(wait) + MARGIN;
            until(&client, &whom.node, DrainStage::Drained, limit).await
        }
        Command::Undrain { whom } => {
            let client = connect(whom.kubeconfig.as_deref()).await?;
            let gone = json!({DRAIN_ANNOTATION: null, DRAIN_WAIT_ANNOTATION: null});
            annotate(&client, &whom.node, gone).await?;
            until(&client, &whom.node, DrainStage::No, MARGIN).await
        }
    }
}

/// A node that still takes pods would get some that nobody reaches.
async fn ensure_ready_to_go(client: &Client, name: &str, force: bool) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(name).await.map_err(|error| of(name, &error))?;
    let cordoned = node.spec.and_then(|spec| spec.unschedulable) == Some(true);
    if !cordoned && !force {
        return Err(format!(
            "Node {name} still takes pods, and they would not be reached: \
             kubectl drain {name} before, or --force"
        ));
    }
    let statuses: Api<NodeStatus> = Api::all(client.clone());
    let status = statuses.get_opt(name).await;
    let pods = status.ok().flatten().and_then(|status| status.status);
    if let Some(pods @ 1..) = pods.map(|status| status.pod_count) {
        eprintln!("{pods} pods with addresses are still on {name}; nobody will reach them");
    }
    Ok(())
}

async fn annotate(client: &Client, name: &str, annotations: Value) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    let parameters = PatchParams::default();
    let patched = nodes.patch_metadata(name, &parameters, &patch).await;
    patched.map(drop).map_err(|error| of(name, &error))
}

/// Tells each stage as the agent reports it, until the one that is wanted.
async fn until(
    client: &Client,
    name: &str,
    wanted: DrainStage,
    limit: Duration,
) -> Result<(), String> {
    let statuses: Api<NodeStatus> = Api::all(client.clone());
    let start = Instant::now();
    let mut told = String::new();
    let mut seen = "nothing yet".to_owned();
    while start.elapsed() < limit {
        match statuses.get(name).await {
            Ok(status) => {
                let stage = status.status.unwrap_or_default().drain;
                if stage != told && !stage.is_empty() {
                    println!("{name}: {stage}");
                    told.clone_from(&stage);
                }
                if stage == wanted.to_string() {
                    if wanted == DrainStage::No {
                        println!("{name}: back");
                    }
                    return Ok(());
                }
                seen = format!("it says {stage:?}");
            }
            Err(error) => seen = error.to_string(),
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(format!(
        "NodeStatus {name}: not there within {} seconds ({seen}); what was asked for stands in \
         the Node's annotations: is the node's agent running?",
        limit.as_secs()
    ))
}

fn of(name: &str, error: &kube::Error) -> String {
    format!("Node {name}: {error}")
}

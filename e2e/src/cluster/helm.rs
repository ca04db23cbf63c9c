//! Margay by its chart: what Helm is told, and the values that fit the fabric.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::Cluster;
use crate::lab::command::finish;
use crate::lab::objects;
use crate::lab::patience::patience;

/// The release, and the namespace it is in.
pub const RELEASE: &str = "margay";
/// Where a network belongs.
pub const NAMESPACE: &str = "kube-system";
/// The image's name without its tag.
pub const REPOSITORY: &str = "registry.local/margay";

/// The image that `make image` has made: `MARGAY_IMAGE_TAR`.
///
/// # Errors
/// When it is not there.
pub fn image() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("MARGAY_IMAGE_TAR").map(PathBuf::from);
    let path = path.context("MARGAY_IMAGE_TAR is not set: run it by make test-cluster")?;
    if !path.is_file() {
        bail!("{} is not there: make image", path.display());
    }
    Ok(path)
}

/// The values for the fabric: its pool, with the tunnel that this kernel has, and a session of
/// each node with its ToR.
pub fn values(cluster: &Cluster) -> Value {
    let lab = &cluster.ground.lab;
    let pool = objects::pool(&lab.plan, lab.tunnel);
    let peers = objects::peers(&lab.plan).into_iter().map(|peer| {
        let name = peer["metadata"]["name"].as_str().unwrap_or_default();
        (name.to_owned(), peer["spec"].clone())
    });
    json!({
        "image": {"repository": REPOSITORY, "tag": "dev", "pullPolicy": "Never"},
        "ipPools": {"default-ipv4": null, objects::POOL_NAME: pool["spec"]},
        "bgpPeers": Value::Object(peers.collect()),
        // Of a node that is given up nothing is to be left.
        "uninstall": {"network": true},
        // A test has no quarter of an hour.
        "controller": {"leakGracePeriod": 10},
        // One of each kind that agents write a status of.
        "ipReservations": {"kept-back": {"reservedCIDRs": ["198.51.100.0/24"]}},
        "bgpFilters": {"unused": {"importV4": [{"action": "Accept"}]}},
    })
}

/// Runs `helm VERB RELEASE CHART` with values, and waits until what it made is ready. The server
/// is older than the kinds' rules: it prunes what it does not know, but a server-side apply of
/// it would be refused.
///
/// # Errors
/// When Helm fails; with what it said.
pub fn apply(cluster: &Cluster, verb: &str, values: &Value) -> anyhow::Result<String> {
    let file = cluster.ground.lab.ledger.folder.machine("values.json");
    fs::write(&file, values.to_string())?;
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/margay");
    let mut command = helm(cluster);
    command.args([verb, RELEASE]).arg(chart);
    command.arg("--values").arg(&file);
    command.args(["--server-side=false", "--wait", "--timeout", "180s"]);
    run(command)
}

/// Takes the release away and waits until it is gone.
///
/// # Errors
/// When Helm fails; with what it said.
pub fn uninstall(cluster: &Cluster) -> anyhow::Result<String> {
    let mut command = helm(cluster);
    command.args(["uninstall", RELEASE, "--wait", "--timeout", "180s"]);
    run(command)
}

fn helm(cluster: &Cluster) -> Command {
    let mut command = Command::new("helm");
    command
        .arg("--kubeconfig")
        .arg(&cluster.control_plane.kubeconfig);
    command.args(["--namespace", NAMESPACE]);
    // Nothing of the one who runs the test.
    let home = cluster.ground.lab.ledger.folder.machine("helm");
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, &home);
    }
    command
}

fn run(command: Command) -> anyhow::Result<String> {
    let output = finish(command, None, patience(240))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("helm: {said}{error}");
    }
    Ok(said)
}

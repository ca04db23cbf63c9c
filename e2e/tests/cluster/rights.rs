//! The rights that the chart gives, by the API server's audit log: nothing was refused, and what is
//! granted was used, but for what such a run does not bring about.

use std::collections::BTreeSet;
use std::fs;

use anyhow::ensure;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::Client;
use kube::api::Api;
use margay_e2e::cluster::{Cluster, helm};
use margay_e2e::kube::rights::{self, Right, Usage};

/// Rights that a run may leave unused, each with when it is used.
const RARE: &[(&str, &str)] = &[
    (
        "get pods",
        "an ADD that comes before the watch's news of the pod",
    ),
    ("get namespaces", "the same, for the pod's namespace"),
    (
        "get ipamblocks.margay.dev",
        "after a write that another was faster with",
    ),
    (
        "delete ipamblocks.margay.dev",
        "a block that is empty and one too many",
    ),
    ("list services", "Services that are announced by BGP"),
    ("watch services", "the same"),
    (
        "list endpointslices.discovery.k8s.io",
        "a policy that names a Service, or Services by BGP",
    ),
    ("watch endpointslices.discovery.k8s.io", "the same"),
    (
        "create events.events.k8s.io",
        "a pod that can get no address",
    ),
    (
        "patch events.events.k8s.io",
        "one that can get none for long",
    ),
];

/// What the agents have and use.
///
/// # Errors
/// A right too few or too many; roles or a log that cannot be read.
pub async fn of_agents(cluster: &Cluster, client: &Client) -> anyhow::Result<usize> {
    let name = format!("{}-agent", helm::RELEASE);
    let everywhere: Api<ClusterRole> = Api::all(client.clone());
    let here: Api<Role> = Api::namespaced(client.clone(), helm::NAMESPACE);
    let (everywhere, here) = (everywhere.get(&name).await?, here.get(&name).await?);
    let rules: Vec<PolicyRule> = [everywhere.rules, here.rules]
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    let granted = rights::granted(&rules);
    check(&name, &granted, &usage(cluster, &name, &granted)?, RARE)?;
    Ok(granted.len())
}

/// That nobody of the chart was refused anything, the jobs of its hooks included.
///
/// # Errors
/// A refusal; a log that cannot be read.
pub fn nothing_refused(cluster: &Cluster) -> anyhow::Result<()> {
    for part in ["agent", "controller", "install-crds", "uninstall"] {
        let name = format!("{}-{part}", helm::RELEASE);
        let none = BTreeSet::new();
        check(&name, &none, &usage(cluster, &name, &none)?, &[])?;
    }
    Ok(())
}

fn usage(cluster: &Cluster, account: &str, granted: &BTreeSet<Right>) -> anyhow::Result<Usage> {
    let log = fs::read(&cluster.control_plane.audit_log)?;
    let user = format!("system:serviceaccount:{}:{account}", helm::NAMESPACE);
    let mut usage = rights::usage(&String::from_utf8_lossy(&log), &user);
    // An API server that starts anew refuses for a moment what it allows otherwise: it answers
    // before it has read its roles.
    let allowed = usage.used.iter().chain(granted);
    let allowed: Vec<String> = allowed.map(|right| format!("{right} ")).collect();
    let otherwise = |one: &String| allowed.iter().any(|right| one.starts_with(right));
    usage.refused.retain(|one| !otherwise(one));
    Ok(usage)
}

fn check(
    account: &str,
    granted: &BTreeSet<Right>,
    usage: &Usage,
    excused: &[(&str, &str)],
) -> anyhow::Result<()> {
    ensure!(!usage.used.is_empty(), "{account} asked for nothing at all");
    let complaints = rights::complaints(granted, usage, excused);
    ensure!(
        complaints.is_empty(),
        "{account}:\n    {}",
        complaints.join("\n    ")
    );
    Ok(())
}

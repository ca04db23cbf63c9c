//! `margay cleanup`: takes Margay's marks off the cluster's objects, once its pods have gone.
//!
//! First the DaemonSet that cleans the nodes is waited for. Then the condition
//! `NetworkUnavailable` goes from Nodes where Margay set it, and our finalizer from IPPools, which
//! nobody would ever take off again. The objects themselves stay.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use margay_crds::{BLOCKS_FINALIZER, IPPool};
use serde_json::{Value, json};

use crate::datastore;
use crate::node_condition::{NETWORK_UNAVAILABLE, REASONS};

/// How often the DaemonSet is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// `margay cleanup`: what is left of Margay in the cluster's objects.
#[derive(Debug, Clone, clap::Args)]
pub struct CleanupOptions {
    /// The API server, as a kubeconfig file; without it, as a pod in its cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The DaemonSet that cleans the nodes, to be waited for
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub wait_for: Option<String>,

    /// How long it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub patience: u64,
}

/// Waits for the nodes, and cleans up.
///
/// # Errors
/// Nodes that are not clean in time: what concerns the others is done all the same. What the API
/// server refuses.
pub async fn cleanup(options: CleanupOptions) -> anyhow::Result<()> {
    let client = datastore::client(options.kubeconfig.as_deref()).await?;
    let patience = Duration::from_secs(options.patience);
    let waited = match &options.wait_for {
        Some(name) => wait_for(&client, name, patience).await,
        None => Ok(()),
    };
    clean_nodes(&client).await?;
    release_pools(&client).await?;
    waited
}

async fn wait_for(client: &Client, name: &str, patience: Duration) -> anyhow::Result<()> {
    let (namespace, name) = name
        .split_once('/')
        .with_context(|| format!("--wait-for {name}: must be NAMESPACE/NAME"))?;
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let limit = Instant::now() + patience;
    loop {
        let words = match api.get(name).await {
            Ok(found) => match outstanding(&found) {
                None => return Ok(()),
                Some(words) => words,
            },
            Err(error) => error.to_string(),
        };
        anyhow::ensure!(
            Instant::now() < limit,
            "DaemonSet {namespace}/{name}: {words}; what is left on those nodes is removed by \
             margay uninstall"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// What is not done yet, in words.
fn outstanding(found: &DaemonSet) -> Option<String> {
    let Some(status) = &found.status else {
        return Some("not looked at by its controller yet".to_owned());
    };
    if status.observed_generation < found.metadata.generation {
        return Some("not looked at by its controller yet".to_owned());
    }
    let (ready, all) = (status.number_ready, status.desired_number_scheduled);
    (ready < all).then(|| format!("{ready} of {all} nodes are clean"))
}

async fn clean_nodes(client: &Client) -> anyhow::Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    for node in api.list(&ListParams::default()).await? {
        if !has_our_condition(&node) {
            continue;
        }
        let name = node.name_any();
        let params = PatchParams::default();
        let body = Patch::Strategic(without_condition());
        match api.patch_status(&name, &params, &body).await {
            Ok(_) => tracing::info!("Node {name}: condition {NETWORK_UNAVAILABLE} removed"),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).with_context(|| format!("Node {name}")),
        }
    }
    Ok(())
}

fn has_our_condition(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| &status.conditions);
    conditions.flatten().any(|one| {
        let ours = |reason: &String| REASONS.contains(&reason.as_str());
        one.type_ == NETWORK_UNAVAILABLE && one.reason.as_ref().is_some_and(ours)
    })
}

fn without_condition() -> Value {
    json!({"status": {"conditions": [{"$patch": "delete", "type": NETWORK_UNAVAILABLE}]}})
}

async fn release_pools(client: &Client) -> anyhow::Result<()> {
    let api: Api<IPPool> = Api::all(client.clone());
    let pools = match api.list(&ListParams::default()).await {
        Ok(pools) => pools,
        // The kinds have gone already, and the pools with them.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for pool in pools {
        let name = pool.name_any();
        let Some(finalizers) = without_ours(pool.finalizers()) else {
            continue;
        };
        let metadata = json!({
            "resourceVersion": pool.metadata.resource_version, "finalizers": finalizers,
        });
        let body = Patch::Merge(json!({ "metadata": metadata }));
        match api.patch(&name, &PatchParams::default(), &body).await {
            Ok(_) => tracing::info!("IPPool {name}: may be deleted now"),
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error).with_context(|| format!("IPPool {name}")),
        }
    }
    Ok(())
}

fn without_ours(finalizers: &[String]) -> Option<Vec<String>> {
    let others = finalizers.iter().filter(|one| *one != BLOCKS_FINALIZER);
    let others: Vec<String> = others.cloned().collect();
    (others.len() < finalizers.len()).then_some(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(reason: &str) -> Node {
        let condition = json!({"type": NETWORK_UNAVAILABLE, "status": "False", "reason": reason});
        serde_json::from_value(json!({"status": {"conditions": [condition]}})).unwrap()
    }

    #[test]
    fn only_our_own_condition_is_removed() {
        for reason in REASONS {
            assert!(has_our_condition(&node(reason)));
        }
        assert!(!has_our_condition(&node("RouteCreated")));
        assert!(!has_our_condition(&Node::default()));
    }

    #[test]
    fn only_our_own_finalizer_is_removed() {
        let both = [BLOCKS_FINALIZER.to_owned(), "others/theirs".to_owned()];
        assert_eq!(without_ours(&both).unwrap(), ["others/theirs"]);
        assert_eq!(without_ours(&both[1..]), None);
        assert_eq!(without_ours(&[]), None);
    }

    #[test]
    fn nodes_that_are_not_clean_are_counted() {
        let set = |value: Value| serde_json::from_value::<DaemonSet>(value).unwrap();
        let status = |generation: i64, ready: i32| {
            set(json!({"metadata": {"generation": 2}, "status": {
                "observedGeneration": generation, "currentNumberScheduled": 3,
                "desiredNumberScheduled": 3, "numberMisscheduled": 0, "numberReady": ready}}))
        };
        assert_eq!(outstanding(&status(2, 3)), None);
        assert_eq!(
            outstanding(&status(2, 1)).unwrap(),
            "1 of 3 nodes are clean"
        );
        assert!(outstanding(&status(1, 3)).unwrap().contains("controller"));
        assert!(outstanding(&set(json!({}))).is_some());
    }
}

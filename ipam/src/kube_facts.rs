//! Facts read from the API server at this moment: what a verdict is made of.
//!
//! A read by name without a resourceVersion is answered from the store itself, not from a cache
//! of the server's (a "quorum read").

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::{Api, Client};

use crate::garbage::{Case, Facts, Holder, NodeFacts, PodFacts, ServiceFacts, Subject};
use crate::kube_store::bounded;
use crate::store::StoreError;

/// Reads what a verdict on a case needs: the node, and the pod or the Service that holds the
/// address. `unclassed`: whether a Service that names no class is ours.
///
/// # Errors
/// [`StoreError::Unavailable`] or [`StoreError::Refused`]: then nothing is known, and nothing may
/// be released.
pub async fn of_case(client: &Client, case: &Case, unclassed: bool) -> Result<Facts, StoreError> {
    let mut facts = Facts::default();
    let mut nodes = vec![case.node.clone()];
    if let Subject::Address { allocation, .. } = &case.subject {
        nodes.push(allocation.owner.node.clone());
        match Holder::of(&allocation.owner, &case.node) {
            Holder::Pod(key) => {
                if let Some(pod) = read_pod(client, &key).await? {
                    nodes.push(pod.node.clone());
                    facts.pods.insert(key, pod);
                }
            }
            Holder::Service(key) => {
                if let Some((namespace, name)) = key.split_once('/') {
                    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
                    if let Some(service) = bounded(services.get_opt(name)).await? {
                        let found = ServiceFacts::of(&service, unclassed);
                        facts.services.insert(key, found);
                    }
                }
            }
            Holder::Tunnel(node) => nodes.push(node),
        }
    }
    nodes.retain(|name| !name.is_empty() && name != margay_crds::LOAD_BALANCER_NODE);
    nodes.sort_unstable();
    nodes.dedup();
    let known: Api<Node> = Api::all(client.clone());
    for name in nodes {
        if let Some(node) = bounded(known.get_opt(&name)).await? {
            facts.nodes.insert(name, NodeFacts::of(&node));
        }
    }
    Ok(facts)
}

async fn read_pod(client: &Client, key: &str) -> Result<Option<PodFacts>, StoreError> {
    let Some((namespace, name)) = key.split_once('/') else {
        return Ok(None);
    };
    // A name that cannot be a pod's is nobody's.
    if namespace.is_empty() || name.is_empty() {
        return Ok(None);
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = bounded(pods.get_opt(name)).await?;
    Ok(pod.as_ref().map(PodFacts::of))
}

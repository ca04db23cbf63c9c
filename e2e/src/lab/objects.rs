//! The cluster's content: what an operator and kubelet would put into the API server.

use std::fmt::Debug;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Resource};
use margay_crds::{BGPConfiguration, BGPPeer, IPAMConfiguration, IPPool, NodeStatus};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::LabError;
use super::kernel::Tunnel;
use super::patience::{patience, until};
use super::spec::{BLOCK_SIZE, CLUSTER_AS, POD_NAMESPACE, Plan, SEGMENT_LABEL, Segment, Tor};

/// The name of the lab's IPPool.
pub const POOL_NAME: &str = "lab";

/// A client for a kubeconfig file.
///
/// # Errors
/// When the file makes no sense.
pub async fn client(kubeconfig: &Path) -> Result<Client, LabError> {
    let unusable = |message: String| LabError::Kubeconfig {
        path: kubeconfig.to_owned(),
        message,
    };
    let file = Kubeconfig::read_from(kubeconfig).map_err(|error| unusable(error.to_string()))?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|error| unusable(error.to_string()))?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.write_timeout = Some(patience(20));
    Client::try_from(config).map_err(|error| unusable(error.to_string()))
}

/// Creates everything that the lab starts with.
///
/// # Errors
/// When the store refuses an object, or the new kinds do not become available.
pub async fn create_all(
    client: &Client,
    plan: &Plan,
    tunnel: Tunnel,
    logs: &Path,
) -> Result<(), LabError> {
    create_kinds(client, logs).await?;
    for name in ["default", "kube-system", POD_NAMESPACE] {
        let object =
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}});
        ensure::<Namespace>(&Api::all(client.clone()), object).await?;
    }
    for object in nodes(plan) {
        create_node(client, object).await?;
    }
    ensure::<IPPool>(&Api::all(client.clone()), pool(plan, tunnel)).await?;
    ensure::<IPAMConfiguration>(&Api::all(client.clone()), default_object(json!({}))).await?;
    let bgp = default_object(json!({"asNumber": CLUSTER_AS, "nodeToNodeMeshEnabled": true}));
    ensure::<BGPConfiguration>(&Api::all(client.clone()), bgp).await?;
    for object in peers(plan) {
        ensure::<BGPPeer>(&Api::all(client.clone()), object).await?;
    }
    Ok(())
}

/// Creates the CRDs and waits until the store serves every kind: an API server takes a moment.
async fn create_kinds(client: &Client, logs: &Path) -> Result<(), LabError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in margay_crds::manifests::all() {
        let name = crd.metadata.name.clone().unwrap_or_default();
        let done = api.create(&PostParams::default(), &crd).await.map(drop);
        done.or_else(taken)
            .map_err(LabError::store(format!("create CRD {name}")))?;
    }
    served::<IPPool>(client, logs).await?;
    served::<IPAMConfiguration>(client, logs).await?;
    served::<BGPConfiguration>(client, logs).await?;
    served::<BGPPeer>(client, logs).await?;
    served::<margay_crds::IPAMBlock>(client, logs).await?;
    served::<NodeStatus>(client, logs).await
}

async fn served<K>(client: &Client, logs: &Path) -> Result<(), LabError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let what = format!("the store to serve {}", K::kind(&()));
    until(&what, patience(15), logs, || async {
        let listed = api.list(&kube::api::ListParams::default().limit(1)).await;
        listed.map(drop).map_err(|error| error.to_string())
    })
    .await
}

/// Creates an object written as JSON; one that exists stays as it is.
///
/// # Errors
/// When the store refuses it, or the JSON is no such object.
pub async fn ensure<K>(api: &Api<K>, object: Value) -> Result<(), LabError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let action = format!("create {} {name}", K::kind(&()));
    let object: K = serde_json::from_value(object)
        .map_err(|error| LabError::store(action.clone())(kube::Error::SerdeError(error)))?;
    let done = api.create(&PostParams::default(), &object).await.map(drop);
    done.or_else(taken).map_err(LabError::store(action))
}

fn taken(error: kube::Error) -> Result<(), kube::Error> {
    match error {
        kube::Error::Api(status) if status.code == 409 => Ok(()),
        error => Err(error),
    }
}

/// A node as kubelet registers it: the object, then its status.
///
/// # Errors
/// When the store refuses.
pub async fn create_node(client: &Client, object: Value) -> Result<(), LabError> {
    let api: Api<Node> = Api::all(client.clone());
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let status = json!({"status": object["status"]});
    ensure(&api, object).await?;
    let patched = api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await;
    patched
        .map(drop)
        .map_err(LabError::store(format!("write the status of Node {name}")))
}

fn nodes(plan: &Plan) -> Vec<Value> {
    let objects = plan.nodes.iter().enumerate().map(|(index, node)| {
        let name = &node.host.name;
        let letter = plan.segment_of(index).map_or("", |segment| &segment.letter);
        json!({
            "metadata": {
                "name": name,
                "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", SEGMENT_LABEL: letter},
            },
            "status": {
                "addresses": [
                    {"type": "InternalIP", "address": node.host.address.ip().to_string()},
                    {"type": "Hostname", "address": name},
                ],
                "conditions": [{"type": "Ready", "status": "True", "reason": "Lab", "message": "a node of the lab"}],
            },
        })
    });
    objects.collect()
}

/// The lab's IPPool.
pub fn pool(plan: &Plan, tunnel: Tunnel) -> Value {
    let (ipip, vxlan) = match tunnel {
        Tunnel::Ipip => ("CrossSubnet", "Never"),
        Tunnel::Vxlan => ("Never", "CrossSubnet"),
    };
    json!({
        "metadata": {"name": POOL_NAME},
        "spec": {
            "cidr": plan.pool.to_string(),
            "blockSize": BLOCK_SIZE,
            "ipipMode": ipip,
            "vxlanMode": vxlan,
            "natOutgoing": true,
        },
    })
}

fn default_object(spec: Value) -> Value {
    json!({"metadata": {"name": margay_crds::DEFAULT_NAME}, "spec": spec})
}

/// A BGPPeer for each ToR: the nodes of its segment have the session.
pub fn peers(plan: &Plan) -> Vec<Value> {
    if plan.spec.tor == Tor::None {
        return Vec::new();
    }
    let first = plan.segments.iter().map(|segment| {
        let mut spec = peer(segment, segment.gateway);
        if segment.second.is_some() {
            twofold(plan, &mut spec);
        }
        json!({"metadata": {"name": segment.tor}, "spec": spec})
    });
    let second = plan.segments.iter().filter_map(|segment| {
        let tor = segment.second.as_ref()?;
        let mut spec = peer(segment, tor.address);
        twofold(plan, &mut spec);
        Some(json!({"metadata": {"name": tor.name}, "spec": spec}))
    });
    first.chain(second).collect()
}

fn peer(segment: &Segment, address: std::net::IpAddr) -> Value {
    json!({
        "nodeSelector": format!("{SEGMENT_LABEL} == '{}'", segment.letter),
        "peerIP": address.to_string(),
        "asNumber": segment.as_number,
    })
}

/// With two ToRs the nodes take the way out from both, and know within 150 ms that one is gone.
fn twofold(plan: &Plan, spec: &mut Value) {
    spec["importCIDRs"] = json!([plan.outside_subnet().to_string()]);
    spec["bfd"] = json!({"minTx": 50, "minRx": 50, "multiplier": 3});
}

#[cfg(test)]
mod tests {
    use super::super::spec::LabSpec;
    use super::*;

    fn plan(tor: Tor) -> Plan {
        let spec = LabSpec {
            name: "t".to_owned(),
            nodes: 3,
            segments: 2,
            tor,
            tors: 1,
            pods: 3,
        };
        spec.plan().unwrap()
    }

    #[test]
    fn the_objects_pass_their_own_checks() {
        for tunnel in [Tunnel::Ipip, Tunnel::Vxlan] {
            let pool: IPPool = serde_json::from_value(pool(&plan(Tor::Bird), tunnel)).unwrap();
            pool.check().unwrap();
        }
        let objects = peers(&plan(Tor::Bird));
        assert_eq!(objects.len(), 2);
        for object in objects {
            let peer: BGPPeer = serde_json::from_value(object).unwrap();
            peer.check().unwrap();
        }
        for object in nodes(&plan(Tor::Bird)) {
            serde_json::from_value::<Node>(object).unwrap();
        }
    }

    #[test]
    fn no_router_no_peers() {
        assert!(peers(&plan(Tor::None)).is_empty());
    }
}

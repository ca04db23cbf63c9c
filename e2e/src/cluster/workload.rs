//! What runs in the cluster: Deployments of small web servers that first of all say that they are
//! there, and how to look from inside a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::image::POD;
use super::{Cluster, cgroups};
use crate::lab::command::finish;
use crate::lab::objects::ensure;
use crate::lab::patience::{patience, until};
use crate::lab::spec::SERVED_PORT;

/// The namespace of the pods.
pub const NAMESPACE: &str = "default";

/// A pod that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
}

/// What a pod is made of: it asks `resolver` for its own name, then serves it on
/// [`SERVED_PORT`].
pub fn pod_spec(resolver: IpAddr) -> Value {
    let script = format!(
        "nslookup $NAME. {resolver} >/dev/null 2>&1 & echo $NAME >/www/index.html; exec httpd -f -p {SERVED_PORT} -h /www"
    );
    json!({
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": [resolver.to_string()]},
        "containers": [{
            "name": "web", "image": POD, "imagePullPolicy": "Never",
            "command": ["sh", "-c", script],
            "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "ports": [{"containerPort": SERVED_PORT}],
        }],
    })
}

/// A Deployment of such pods, labelled `app=NAME`.
pub fn deployment(name: &str, replicas: u32, spec: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            "strategy": {"rollingUpdate": {"maxSurge": "100%"}},
        },
    })
}

/// Creates a Deployment.
///
/// # Errors
/// When the server refuses it.
pub async fn deploy(client: &Client, object: Value) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    Ok(ensure(&api, object).await?)
}

/// Waits for the namespace's service account: without it no pod is admitted.
///
/// # Errors
/// When the controller manager does not make it in time.
pub async fn until_pods_are_admitted(cluster: &Cluster, client: &Client) -> anyhow::Result<()> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), NAMESPACE);
    let logs = cluster.logs();
    until(
        "the service account of pods",
        patience(60),
        &logs,
        || async {
            let found = api.get("default").await;
            found.map(drop).map_err(|error| error.to_string())
        },
    )
    .await?;
    Ok(())
}

/// Changes how many pods a Deployment has.
///
/// # Errors
/// When the server refuses.
pub async fn scale(client: &Client, name: &str, replicas: u32) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let patch = json!({"spec": {"replicas": replicas}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// Deletes a Deployment; its pods go after.
///
/// # Errors
/// When the server refuses.
pub async fn delete(client: &Client, name: &str) -> anyhow::Result<()> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    api.delete(name, &DeleteParams::background()).await?;
    Ok(())
}

/// Deletes a Deployment with its pods at once, and waits until none of their processes is left.
/// The API server forgets the pods before: kubelet 1.20 keeps them for up to a minute.
///
/// # Errors
/// When the server refuses, or a process stays.
pub async fn delete_at_once(
    cluster: &Cluster,
    client: &Client,
    name: &str,
    pods: &[Place],
) -> anyhow::Result<()> {
    delete(client, name).await?;
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let now = DeleteParams::default().grace_period(0);
    let selector = ListParams::default().labels(&format!("app={name}"));
    api.delete_collection(&now, &selector).await?;
    let what = format!("the pods of {name} to be gone");
    until(&what, patience(60), &cluster.logs(), || async {
        let left = pods.iter().filter(|pod| {
            let node = cluster.nodes.iter().find(|node| node.name() == pod.node);
            node.is_some_and(|node| !cgroups::of_pod(&node.machine.group, &pod.uid).is_empty())
        });
        match left.count() {
            0 => Ok(()),
            left => Err(format!("{left} run")),
        }
    })
    .await?;
    Ok(())
}

/// Pods with a label that are Ready, and how many there are in all.
///
/// # Errors
/// When the server does not answer.
pub async fn ready(client: &Client, selector: &str) -> anyhow::Result<(Vec<Place>, usize)> {
    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let parameters = ListParams::default().labels(selector).match_any();
    let pods = api.list(&parameters).await?;
    let all = pods.items.len();
    Ok((pods.items.iter().filter_map(place).collect(), all))
}

fn place(pod: &Pod) -> Option<Place> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let mut ready = conditions.filter(|one| one.type_ == "Ready" && one.status == "True");
    ready.next()?;
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    Some(Place {
        name: pod.name_any(),
        uid: pod.uid()?,
        node: pod.spec.as_ref()?.node_name.clone()?,
        address: status.pod_ip.as_ref()?.parse().ok()?,
    })
}

/// Waits until exactly so many pods with a label exist and all are Ready.
///
/// # Errors
/// When they are not within the limit.
pub async fn until_ready(
    cluster: &Cluster,
    client: &Client,
    selector: &str,
    wanted: usize,
    limit: Duration,
) -> anyhow::Result<Vec<Place>> {
    let what = format!("{wanted} pods {selector} to be Ready");
    let found = until(&what, limit, &cluster.logs(), || async {
        // A server that is away for a moment is waited for too.
        let (places, all) = ready(client, selector)
            .await
            .map_err(|error| format!("{error:#}"))?;
        if places.len() == wanted && all == wanted {
            return Ok(places);
        }
        tokio::time::sleep(Duration::from_millis(75)).await;
        Err(format!("{} of {all} are Ready", places.len()))
    })
    .await?;
    Ok(found)
}

/// How many pods are on each node.
pub fn spread(places: &[Place]) -> BTreeMap<&str, usize> {
    let mut spread = BTreeMap::new();
    for place in places {
        *spread.entry(place.node.as_str()).or_default() += 1;
    }
    spread
}

/// A command of the host in the network namespace of a pod.
///
/// # Errors
/// When the pod has no process on its node.
pub fn inside(cluster: &Cluster, pod: &Place, program: &str) -> anyhow::Result<Command> {
    let mut nodes = cluster.nodes.iter();
    let node = nodes.find(|node| node.name() == pod.node);
    let node = node.with_context(|| format!("{} is on no node of ours", pod.name))?;
    let pids = cgroups::of_pod(&node.machine.group, &pod.uid);
    let pid = pids.first();
    let pid = pid.with_context(|| format!("{} has no process on {}", pod.name, pod.node))?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid.to_string(), "--net", "--", program]);
    Ok(command)
}

/// What a web server answers that is asked from a pod: its own name.
///
/// # Errors
/// When there is no answer within two seconds.
pub fn fetch(
    cluster: &Cluster,
    from: &Place,
    address: IpAddr,
    port: u16,
) -> anyhow::Result<String> {
    fetch_with(inside(cluster, from, "busybox")?, address, port)
}

/// The same, asked from a machine of the fabric.
///
/// # Errors
/// When there is no answer within two seconds.
pub fn fetch_from(namespace: &str, address: IpAddr, port: u16) -> anyhow::Result<String> {
    let mut command = Command::new("nsenter");
    let path = Path::new("/run/netns").join(namespace);
    command
        .arg(format!("--net={}", path.display()))
        .args(["--", "busybox"]);
    fetch_with(command, address, port)
}

fn fetch_with(mut command: Command, address: IpAddr, port: u16) -> anyhow::Result<String> {
    let url = match address {
        IpAddr::V4(address) => format!("http://{address}:{port}/"),
        IpAddr::V6(address) => format!("http://[{address}]:{port}/"),
    };
    command.args(["timeout", "2", "busybox", "wget", "-q", "-O", "-", &url]);
    let output = finish(command, None, patience(10))?;
    if !output.status.success() {
        bail!("{url}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

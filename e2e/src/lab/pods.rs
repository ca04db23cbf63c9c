//! Pods, the way kubelet and a container runtime make them: the object, the sandbox, the CNI
//! plugin, the status; and a server inside.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::cluster::Binaries;
use super::cni::{Plugin, Sandbox};
use super::error::LabError;
use super::namespaces;
use super::objects::ensure;
use super::process::{self, Launch};
use super::spec::{OTHER_PORT, POD_NAMESPACE, Plan, PodPlan, SERVED_PORT};
use super::state::{Folder, Ledger, PodRecord, ProcessRecord};

/// The one container of a pod.
const CONTAINER: &str = "echo";
/// What runs in it, by a name: no image is pulled.
const IMAGE: &str = "lab/pod-server";

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct RunningPod {
    /// Its plan.
    pub plan: PodPlan,
    /// Its address.
    pub address: IpAddr,
    /// How long the plugin took to wire it.
    pub add_time: Duration,
    /// Its sandbox.
    pub sandbox: Sandbox,
}

/// Makes pods in one lab.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The lab's plan.
    pub plan: Plan,
    /// The programs.
    pub binaries: Binaries,
    /// The lab's files.
    pub folder: Folder,
    /// The store.
    pub client: PodApi,
}

/// The pods of the lab's Kubernetes namespace.
#[derive(Clone)]
pub struct PodApi(Api<Pod>);

impl std::fmt::Debug for PodApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PodApi")
    }
}

impl PodApi {
    /// The pods of the lab in this store.
    pub fn new(client: &Client) -> Self {
        Self(Api::namespaced(client.clone(), POD_NAMESPACE))
    }
}

impl Runtime {
    /// Makes one pod and starts its server.
    ///
    /// # Errors
    /// When any step fails; what was made is in the ledger.
    pub async fn start(&self, ledger: &mut Ledger, pod: &PodPlan) -> Result<RunningPod, LabError> {
        let sandbox = self.sandbox(ledger, pod).await?;
        let plugin = self.plugin(pod);
        let (addresses, add_time) = blocking(|| plugin.add(&sandbox))?;
        let address = addresses.first().copied().ok_or_else(|| LabError::Cni {
            command: "ADD",
            pod: pod.name.clone(),
            message: "the result holds no address".to_owned(),
        })?;
        ledger.note(|state| {
            let record = state.pods.iter_mut().find(|record| record.name == pod.name);
            if let Some(record) = record {
                record.address = Some(address);
            }
        })?;
        self.report_running(pod, &addresses).await?;
        self.start_server(ledger, pod)?;
        Ok(RunningPod {
            plan: pod.clone(),
            address,
            add_time,
            sandbox,
        })
    }

    /// The object and an empty sandbox for it: all that comes before the plugin.
    ///
    /// # Errors
    /// When the store refuses the object or no namespace can be made.
    pub async fn sandbox(&self, ledger: &mut Ledger, pod: &PodPlan) -> Result<Sandbox, LabError> {
        ensure(&self.client.0, self.object(pod)).await?;
        let read = self.client.0.get(&pod.name).await;
        let object = read.map_err(LabError::store(format!("give Pod {}", pod.name)))?;
        let namespace = self.plan.pod_namespace(&pod.name);
        let container_id = container_id()?;
        ledger.note(|state| {
            state.pods.push(PodRecord {
                name: pod.name.clone(),
                node: self.node_name(pod).to_owned(),
                container_id: container_id.clone(),
                address: None,
            });
        })?;
        ledger.make_namespace(&namespace)?;
        Ok(Sandbox {
            pod: pod.name.clone(),
            uid: object.metadata.uid.unwrap_or_default(),
            container_id,
            namespace,
        })
    }

    /// The plugin on a pod's node.
    pub fn plugin(&self, pod: &PodPlan) -> Plugin {
        let node = self.node_name(pod);
        Plugin::of(&self.plan, &self.folder, &self.binaries, node)
    }

    /// Ends a pod as kubelet does: its processes, DEL, the sandbox, and at last the object. Says
    /// how long DEL took.
    ///
    /// # Errors
    /// When a step fails.
    pub async fn stop(
        &self,
        ledger: &mut Ledger,
        pod: &PodPlan,
        sandbox: &Sandbox,
    ) -> Result<Duration, LabError> {
        let inside = |record: &&ProcessRecord| record.namespace == sandbox.namespace;
        let servers: Vec<_> = ledger
            .state
            .processes
            .iter()
            .filter(inside)
            .cloned()
            .collect();
        servers.iter().for_each(process::stop);
        let plugin = self.plugin(pod);
        let took = blocking(|| plugin.delete(sandbox))?;
        namespaces::remove(&sandbox.namespace)?;
        ledger.note(|state| {
            state.namespaces.retain(|name| *name != sandbox.namespace);
            state
                .processes
                .retain(|record| record.namespace != sandbox.namespace);
            state.pods.retain(|record| record.name != pod.name);
        })?;
        let at_once = DeleteParams::default().grace_period(0);
        let deleted = self.client.0.delete(&pod.name, &at_once).await;
        deleted
            .map(drop)
            .map_err(LabError::store(format!("delete Pod {}", pod.name)))?;
        Ok(took)
    }

    fn node_name(&self, pod: &PodPlan) -> &str {
        let node = self.plan.nodes.get(pod.node);
        node.map_or("", |node| &node.host.name)
    }

    fn object(&self, pod: &PodPlan) -> Value {
        let PodPlan { name, app, .. } = pod;
        json!({
            "metadata": {"name": name, "namespace": POD_NAMESPACE, "labels": {"app": app, "pod": name}},
            "spec": {
                "nodeName": self.node_name(pod),
                "containers": [{
                    "name": CONTAINER,
                    "image": IMAGE,
                    "ports": [
                        {"name": "http", "containerPort": SERVED_PORT, "protocol": "TCP"},
                        {"name": "admin", "containerPort": OTHER_PORT, "protocol": "TCP"},
                    ],
                }],
            },
        })
    }

    async fn report_running(&self, pod: &PodPlan, addresses: &[IpAddr]) -> Result<(), LabError> {
        let host = self
            .plan
            .nodes
            .get(pod.node)
            .map(|node| node.host.address.ip().to_string());
        let all: Vec<Value> = addresses
            .iter()
            .map(|ip| json!({"ip": ip.to_string()}))
            .collect();
        let status = json!({"status": {
            "phase": "Running",
            "hostIP": host,
            "podIP": addresses.first().map(IpAddr::to_string),
            "podIPs": all,
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "ContainersReady", "status": "True"},
            ],
            "containerStatuses": [{
                "name": CONTAINER, "image": IMAGE, "imageID": IMAGE,
                "ready": true, "started": true, "restartCount": 0,
                "state": {"running": {}},
            }],
        }});
        let patch = Patch::Merge(&status);
        let done = self
            .client
            .0
            .patch_status(&pod.name, &PatchParams::default(), &patch)
            .await;
        done.map(drop).map_err(LabError::store(format!(
            "write the status of Pod {}",
            pod.name
        )))
    }

    fn start_server(&self, ledger: &mut Ledger, pod: &PodPlan) -> Result<(), LabError> {
        let mut command = Command::new(&self.binaries.margayctl);
        command.args(["lab", "pod-server", "--pod", &pod.name]);
        for port in [SERVED_PORT, OTHER_PORT] {
            command.args(["--port", &port.to_string()]);
        }
        let namespace = self.plan.pod_namespace(&pod.name);
        let launch = Launch::new(format!("pod {}", pod.name), namespace, command);
        process::start(ledger, launch).map(drop)
    }
}

/// Blocking work of milliseconds, from async code, that a cancellation must not cut in two.
fn blocking<T>(work: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
    tokio::task::block_in_place(work)
}

/// A sandbox id as runtimes give: 64 hexadecimal digits.
pub fn container_id() -> Result<String, LabError> {
    const SOURCE: &str = "/proc/sys/kernel/random/uuid";
    let mut id = String::new();
    while id.len() < 64 {
        let uuid = fs::read_to_string(SOURCE).map_err(LabError::file("cannot read", SOURCE))?;
        id.extend(uuid.chars().filter(char::is_ascii_hexdigit));
    }
    id.truncate(64);
    Ok(id)
}

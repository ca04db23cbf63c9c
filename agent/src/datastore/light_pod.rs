//! Pods as the watches read them: what Margay looks at, and nothing else.
//!
//! Every agent is told of every change of every pod, and a Pod is by far the largest object it is
//! told of. What is asked about (labels, annotations, addresses, named ports, the node) is a small
//! part of it; the rest is skipped over instead of being made into values.
//!
//! Not here: what any of it means. Whoever reads the [`Pod`] finds the other fields empty.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodIP, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::runtime::watcher::Event;
use serde::{Deserialize, Deserializer};

/// A Pod of which only some fields are read.
#[derive(Debug, Clone)]
pub struct LightPod(Pod);

impl LightPod {
    /// The pods that an event is about.
    pub fn open(event: Event<Self>) -> Event<Pod> {
        match event {
            Event::Apply(Self(pod)) => Event::Apply(pod),
            Event::Delete(Self(pod)) => Event::Delete(pod),
            Event::Init => Event::Init,
            Event::InitApply(Self(pod)) => Event::InitApply(pod),
            Event::InitDone => Event::InitDone,
        }
    }
}

impl<'de> Deserialize<'de> for LightPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Fields {
            metadata,
            spec,
            status,
        } = Fields::deserialize(deserializer)?;
        Ok(Self(Pod {
            metadata: metadata.into(),
            spec: spec.map(Into::into),
            status: status.map(Into::into),
        }))
    }
}

impl Resource for LightPod {
    type DynamicType = <Pod as Resource>::DynamicType;
    type Scope = <Pod as Resource>::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        Pod::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        Pod::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        Pod::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        Pod::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: Option<bool>,
    service_account_name: Option<String>,
    containers: Option<Vec<Ports>>,
    init_containers: Option<Vec<Ports>>,
}

/// Of a container.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ports {
    ports: Option<Vec<ContainerPort>>,
    restart_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Option<Vec<PodIP>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            deletion_timestamp: metadata.deletion_timestamp,
            labels: metadata.labels,
            annotations: metadata.annotations,
            ..Self::default()
        }
    }
}

impl From<Spec> for PodSpec {
    fn from(spec: Spec) -> Self {
        let containers = |all: Vec<Ports>| all.into_iter().map(Container::from).collect();
        Self {
            node_name: spec.node_name,
            host_network: spec.host_network,
            service_account_name: spec.service_account_name,
            containers: spec.containers.map(containers).unwrap_or_default(),
            init_containers: spec.init_containers.map(containers),
            ..Self::default()
        }
    }
}

impl From<Ports> for Container {
    fn from(of: Ports) -> Self {
        Self {
            ports: of.ports,
            restart_policy: of.restart_policy,
            ..Self::default()
        }
    }
}

impl From<Status> for PodStatus {
    fn from(status: Status) -> Self {
        Self {
            phase: status.phase,
            pod_ip: status.pod_ip,
            pod_ips: status.pod_ips,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use margay_ipam::garbage::PodFacts;
    use margay_policy::model::Cluster;
    use serde_json::json;

    use super::*;

    /// What is read of a pod is the same as of the whole of it.
    #[test]
    fn nothing_that_is_looked_at_is_lost() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u1", "resourceVersion": "7",
                "labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"margay.dev/pools": "a", "kubernetes.io/config.hash": "h"},
                "managedFields": [{"manager": "kubelet"}], "ownerReferences": [],
            },
            "spec": {
                "nodeName": "n1", "hostNetwork": false, "serviceAccountName": "seller",
                "containers": [{
                    "name": "web", "image": "web:1", "env": [{"name": "A", "value": "b"}],
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                }],
                "initContainers": [{
                    "name": "proxy", "restartPolicy": "Always",
                    "ports": [{"name": "admin", "containerPort": 9}],
                }],
                "tolerations": [{"operator": "Exists"}],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "hostIP": "192.0.2.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        let whole: Pod = serde_json::from_value(object.clone()).unwrap();
        let light: LightPod = serde_json::from_value(object).unwrap();
        assert_eq!(light.meta().resource_version.as_deref(), Some("7"));
        let Event::Apply(light) = LightPod::open(Event::Apply(light)) else {
            panic!("another event");
        };
        assert_eq!(PodFacts::of(&light), PodFacts::of(&whole));
        assert_eq!(light.metadata.annotations, whole.metadata.annotations);
        let deleted = |pod: &Pod| pod.metadata.deletion_timestamp.clone();
        assert_eq!(deleted(&light), deleted(&whole));
        let read = |pod: &Pod| {
            let mut cluster = Cluster::default();
            assert_eq!(cluster.apply_pod(pod), []);
            let pods: Vec<_> = cluster.pods().cloned().collect();
            pods
        };
        assert_eq!(read(&light), read(&whole));
        assert_eq!(read(&light)[0].ports.len(), 2);
    }

    #[test]
    fn a_pod_may_lack_everything() {
        let light: LightPod = serde_json::from_value(json!({"metadata": {}})).unwrap();
        let Event::Apply(pod) = LightPod::open(Event::Apply(light)) else {
            panic!("another event");
        };
        assert_eq!(pod, Pod::default());
    }
}

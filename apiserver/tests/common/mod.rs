//! A server over a temporary directory, and a `kube` client for it.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use margay_apiserver::{Server, ServerBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running store; stops and is deleted when dropped.
pub(crate) struct Rig {
    pub(crate) server: Server,
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) client: Client,
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) directory: TempDir,
}

/// Starts a store as `adjust` wants it.
pub(crate) async fn start(adjust: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let builder = ServerBuilder::new(directory.path()).listen("127.0.0.1:0".parse().unwrap());
    let server = adjust(builder).start().await.unwrap();
    let client = client(&server).await;
    Rig {
        server,
        client,
        directory,
    }
}

/// A client made from the kubeconfig the server wrote.
pub(crate) async fn client(server: &Server) -> Client {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// A cluster-scoped CRD with a schema worth breaking.
#[allow(dead_code, reason = "not every test needs it")]
pub(crate) fn pool_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "pools.test.margay.dev"},
        "spec": {
            "group": "test.margay.dev", "scope": "Cluster",
            "names": {"plural": "pools", "kind": "Pool", "shortNames": ["pl"], "categories": ["margay"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"},
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {"type": "object", "required": ["spec"], "properties": {
                    "spec": {"type": "object", "required": ["cidr"], "properties": {
                        "cidr": {"type": "string"},
                        "blockSize": {"type": "integer", "minimum": 20, "maximum": 32, "default": 26},
                        "mode": {"type": "string", "enum": ["Always", "Never"]},
                    }},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    })
}

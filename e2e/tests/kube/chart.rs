//! The chart on the real server: installation, upgrade, uninstallation by Helm; and that each of
//! the chart's service accounts but the agent's has the rights it needs and no other, by the audit
//! log. Nobody runs pods here, so hooks are not waited for: their programs are run by hand, with
//! their rights. The agent's rights are looked at where agents run (`make test-cluster`).

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use margay_crds::{BGPFilter, BGPPeer, IPPool};
use margay_e2e::kube::{ControlPlane, rights};
use serde_json::json;

use super::controller;
use super::same::programs;

const RELEASE: &str = "margay";
const NAMESPACE: &str = "margay-system";

/// One of each kind that the controller writes a condition of.
const JUDGED: &str = "
apiVersion: margay.dev/v1
kind: NetworkPolicy
metadata: {name: judged, namespace: default}
spec: {selector: all(), types: [Ingress]}
---
apiVersion: margay.dev/v1
kind: GlobalNetworkPolicy
metadata: {name: judged}
spec: {selector: all(), types: [Ingress]}
---
apiVersion: margay.dev/v1
kind: HostEndpoint
metadata: {name: judged}
spec: {node: n1, interfaceName: eth0}
";

/// What Helm is asked to do, and by whom.
struct Chart<'a> {
    server: &'a ControlPlane,
    client: Client,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/margay")
}

/// What a program says; it must end well.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

impl Chart<'_> {
    fn helm(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("helm");
        command.arg("--kubeconfig").arg(self.server.kubeconfig());
        command.args(["--namespace", NAMESPACE]).args(arguments);
        said(&mut command)
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.server.kubeconfig());
        said(command.args(arguments))
    }

    /// Installs or upgrades. This server is older than the rules in the kinds, which it prunes
    /// where a server-side apply would be refused.
    fn apply(&self, verb: &str, values: &Path, more: &[&str]) -> String {
        let (chart, values) = (folder().display().to_string(), values.display().to_string());
        let mut arguments = vec![verb, RELEASE, &chart, "--values", &values];
        arguments.extend(["--server-side=false", "--no-hooks"]);
        arguments.extend(more);
        self.helm(&arguments)
    }

    fn all<K: kube::Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    fn ours<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// A kubeconfig with no more rights than a service account of the chart has.
    async fn kubeconfig_of(&self, account: &str) -> PathBuf {
        let api: Api<ServiceAccount> = self.ours();
        let request = TokenRequest::default();
        let params = PostParams::default();
        let answer = api.create_token_request(account, &params, &request).await;
        let token = answer.unwrap().status.unwrap().token;
        self.server.kubeconfig_of(account, &token).unwrap()
    }

    /// The manifests of a hook, as Helm would make them.
    fn make_hook(&self, template: &str) {
        let chart = folder().display().to_string();
        let file = format!("templates/{template}");
        let text = self.helm(&["template", RELEASE, &chart, "--show-only", &file]);
        self.make(&text);
    }

    fn make(&self, manifests: &str) {
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), manifests).unwrap();
        self.kubectl(&["apply", "--filename", &path.path().display().to_string()]);
    }

    /// What the roles of this name grant.
    async fn rules(&self, name: &str) -> Vec<PolicyRule> {
        let everywhere = self.all::<ClusterRole>().get_opt(name).await.unwrap();
        let here = self.ours::<Role>().get_opt(name).await.unwrap();
        let everywhere = everywhere.and_then(|role| role.rules);
        let here = here.and_then(|role| role.rules);
        [everywhere, here].into_iter().flatten().flatten().collect()
    }

    /// Neither a right too few nor one too many.
    async fn check_rights(&self, account: &str, excused: &[(&str, &str)]) {
        let rules = self.rules(account).await;
        let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
        let usage = rights::usage(&self.server.audit_log().unwrap(), &user);
        let granted = rights::granted(&rules);
        assert!(!granted.is_empty(), "{account} has no rights at all");
        let complaints = rights::complaints(&granted, &usage, excused);
        assert!(complaints.is_empty(), "{account}: {complaints:#?}");
        println!(
            "  {account}: {} rights, each used but {}; nothing refused",
            granted.len(),
            excused.len()
        );
    }
}

pub async fn from_install_to_uninstall(server: ControlPlane) {
    let client = server.client().await.unwrap();
    let chart = Chart {
        server: &server,
        client: client.clone(),
    };
    let full = folder().join("ci/full-values.yaml");
    let notes = chart.apply("install", &full, &["--create-namespace"]);
    assert!(notes.contains("kubectl get nodestatuses"), "{notes}");
    installed(&chart).await;
    upgraded(&chart).await;

    chart.make(JUDGED);
    let controllers = chart.kubeconfig_of("margay-controller").await;
    let admin = server.kubeconfig().to_owned();
    controller::what_is_done_once_for_the_cluster(client, admin, controllers).await;
    let rare = [(
        "patch events.events.k8s.io",
        "an Event that is told again within minutes",
    )];
    chart.check_rights("margay-controller", &rare).await;

    uninstalled(&chart).await;
}

async fn installed(chart: &Chart<'_>) {
    let agent = chart.ours::<DaemonSet>().get("margay-agent").await.unwrap();
    let pod = agent.spec.unwrap().template.spec.unwrap();
    let image = pod.containers[0].image.clone().unwrap();
    assert!(image.contains("@sha256:"), "{image}");
    chart
        .ours::<Deployment>()
        .get("margay-controller")
        .await
        .unwrap();
    let pool = chart.all::<IPPool>().get("racks").await.unwrap();
    assert_eq!(pool.spec.cidr, "10.60.0.0/16");
    chart.all::<BGPFilter>().get("from-tor").await.unwrap();
    let peer = chart.all::<BGPPeer>().get("tor-a").await.unwrap();
    let password = peer.spec.password.unwrap();
    assert_eq!(password.secret_key_ref.name, "bgp-passwords");
    println!("  installed, with pools, peers and filters of the values");
}

/// The next version: its kinds first, by the hook's program with the hook's rights.
async fn upgraded(chart: &Chart<'_>) {
    let kinds: Api<CustomResourceDefinition> = chart.all();
    kinds
        .delete("networksets.margay.dev", &DeleteParams::default())
        .await
        .unwrap();
    let older = json!({"spec": {"names": {"shortNames": ["older"]}}});
    let older = Patch::Merge(older);
    kinds
        .patch("ippools.margay.dev", &PatchParams::default(), &older)
        .await
        .unwrap();
    chart.make_hook("hook-crds.yaml");
    let rights = chart.kubeconfig_of("margay-install-crds").await;
    // What is being deleted is there for a moment yet.
    while kinds
        .get_opt("networksets.margay.dev")
        .await
        .unwrap()
        .is_some()
    {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let mut command = Command::new(programs().join("margay"));
    said(command.arg("install-crds").arg("--kubeconfig").arg(rights));
    kinds.get("networksets.margay.dev").await.unwrap();
    let pools = kinds.get("ippools.margay.dev").await.unwrap();
    assert!(
        pools
            .spec
            .names
            .short_names
            .unwrap()
            .contains(&"ipp".to_owned())
    );
    chart.check_rights("margay-install-crds", &[]).await;

    let values = tempfile::NamedTempFile::new().unwrap();
    let next =
        json!({"ipPools": {"default-ipv4": {"natOutgoing": false}}, "image": {"tag": "next"}});
    std::fs::write(values.path(), next.to_string()).unwrap();
    chart.apply("upgrade", values.path(), &[]);
    let pool = chart.all::<IPPool>().get("default-ipv4").await.unwrap();
    assert!(!pool.spec.nat_outgoing);
    // A peer that is not wanted any more goes; a pool does not go by itself.
    assert!(
        chart
            .all::<BGPPeer>()
            .get_opt("tor-a")
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        chart
            .all::<IPPool>()
            .get_opt("racks")
            .await
            .unwrap()
            .is_some()
    );
    println!("  upgraded: kinds first, then what the values changed; pools stay");
}

async fn uninstalled(chart: &Chart<'_>) {
    let nodes: Api<Node> = chart.all();
    let condition = json!({"status": {"conditions": [
        {"type": "NetworkUnavailable", "status": "False", "reason": "MargayIsReady"},
        {"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    nodes
        .patch_status("n1", &PatchParams::default(), &Patch::Strategic(condition))
        .await
        .unwrap();
    chart.helm(&["uninstall", RELEASE, "--no-hooks"]);
    let left = chart
        .ours::<DaemonSet>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(left.items.len(), 0);
    let pools: Api<IPPool> = chart.all();
    let held = pools.get("default-ipv4").await.unwrap();
    assert!(!held.finalizers().is_empty(), "nothing to take off");

    chart.make_hook("hook-uninstall.yaml");
    let rights = chart.kubeconfig_of("margay-uninstall").await;
    let mut command = Command::new(programs().join("margay"));
    command
        .args(["cleanup", "--patience", "0", "--kubeconfig"])
        .arg(rights);
    command
        .arg("--wait-for")
        .arg(format!("{NAMESPACE}/margay-uninstall"));
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    // There is nobody here who would run it, and that is told.
    assert!(
        !output.status.success() && words.contains("DaemonSet"),
        "{words}"
    );
    let node = nodes.get("n1").await.unwrap();
    let types: Vec<String> = node
        .status
        .unwrap()
        .conditions
        .unwrap()
        .into_iter()
        .map(|one| one.type_)
        .collect();
    assert_eq!(types, ["Ready"]);
    for pool in pools.list(&ListParams::default()).await.unwrap() {
        assert_eq!(pool.finalizers(), &[] as &[String], "{}", pool.name_any());
    }
    chart.check_rights("margay-uninstall", &[]).await;
    println!("  uninstalled: marks taken off Nodes and pools, pools kept");
}

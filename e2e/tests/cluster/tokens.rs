//! The tokens by which Margay's pods sign in are replaced, and the old ones are worth nothing: the
//! hardest form of what a kubelet does all hour, which leaves the old one valid for a while.
//!
//! This Kubernetes (1.20) gives pods a token without an end, kept in a Secret. The test writes
//! another one, with an end, where the pods find theirs, as kubelet would, and deletes the Secret:
//! from then on the API server refuses the old one (401).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, ResourceExt};
use margay_e2e::cluster::workload;
use margay_e2e::cluster::{Cluster, helm};
use margay_e2e::lab::command::finish;
use margay_e2e::lab::patience::{patience, until};
use serde_json::Value;

/// The parts of the chart that sign in, and stay.
const PARTS: [&str; 2] = ["agent", "controller"];
/// Enough that every node has some.
const PODS: u32 = 9;

/// One part's service account.
struct Account {
    part: &'static str,
    /// The Secret of the old token.
    secret: String,
    old: String,
    new: String,
}

/// Replaces every token, and sees every agent and the controller at work after that.
pub async fn replaced(cluster: &Cluster) -> anyhow::Result<String> {
    let client = cluster.client().await?;
    let mut files = 0;
    for part in PARTS {
        let account = Account::of(&client, part).await?;
        files += account.write(cluster, &client).await?;
        let secrets: Api<Secret> = Api::namespaced(client.clone(), helm::NAMESPACE);
        secrets
            .delete(&account.secret, &DeleteParams::default())
            .await?;
        // The server remembers for some seconds whom it has let in.
        until(
            "the old token to be refused",
            patience(30),
            &cluster.logs(),
            || async { account.is_refused(cluster) },
        )
        .await?;
    }
    let from = fs::metadata(&cluster.control_plane.audit_log)?.len();
    let from = usize::try_from(from)?;

    // A client reads its token anew after a minute at the latest.
    let spec = workload::pod_spec(cluster.ground.lab.plan.store.address.ip());
    workload::deploy(&client, workload::deployment("rotated", PODS, &spec)).await?;
    let wanted = usize::try_from(PODS)?;
    workload::until_ready(cluster, &client, "app=rotated", wanted, patience(180)).await?;
    until(
        "every agent and a controller to have written something",
        patience(90),
        &cluster.logs(),
        || async { all_at_work(cluster, from).map_err(|error| format!("{error:#}")) },
    )
    .await?;
    workload::delete(&client, "rotated").await?;
    Ok(format!(
        "{files} pods with another token, at work with it; the old ones are refused"
    ))
}

impl Account {
    async fn of(client: &Client, part: &'static str) -> anyhow::Result<Self> {
        let name = format!("{}-{part}", helm::RELEASE);
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), helm::NAMESPACE);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), helm::NAMESPACE);
        let secret = accounts.get(&name).await?.secrets.unwrap_or_default();
        let secret = secret.into_iter().find_map(|one| one.name);
        let secret = secret.with_context(|| format!("{name} has no Secret"))?;
        let old = secrets.get(&secret).await?.data.unwrap_or_default();
        let old = old.get("token").context("a Secret without a token")?;
        let old = String::from_utf8(old.0.clone())?;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(3600),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(&name, &PostParams::default(), &request)
            .await?;
        let new = answer.status.context("no token was given")?.token;
        ensure!(new != old, "the same token again");
        Ok(Self {
            part,
            secret,
            old,
            new,
        })
    }

    /// Writes the new token where each pod of the part finds it; how many pods there are.
    async fn write(&self, cluster: &Cluster, client: &Client) -> anyhow::Result<usize> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), helm::NAMESPACE);
        let label = format!("app.kubernetes.io/component={}", self.part);
        let pods = pods.list(&ListParams::default().labels(&label)).await?;
        for pod in &pods {
            let file = self.file(cluster, pod)?;
            let fresh = file.with_file_name("token.fresh");
            fs::write(&fresh, &self.new)
                .with_context(|| format!("cannot write {}", fresh.display()))?;
            fs::set_permissions(&fresh, fs::Permissions::from_mode(0o644))?;
            fs::rename(&fresh, &file)?;
        }
        ensure!(pods.items.len() > 1, "no pods of the {}", self.part);
        Ok(pods.items.len())
    }

    fn file(&self, cluster: &Cluster, pod: &Pod) -> anyhow::Result<PathBuf> {
        let place = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let mut nodes = cluster.nodes.iter();
        let node = nodes.find(|node| Some(node.name()) == place);
        let node = node.with_context(|| format!("{} is on no node", pod.name_any()))?;
        let uid = pod.uid().context("a pod without uid")?;
        let file = node.machine.path(&format!(
            "/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~secret/{}/..data/token",
            self.secret
        ));
        let now = fs::read_to_string(&file)
            .with_context(|| format!("{} has no {}", pod.name_any(), file.display()))?;
        ensure!(now == self.old, "{} has another token", pod.name_any());
        Ok(file)
    }

    /// Whether the API server answers the old token with 401.
    fn is_refused(&self, cluster: &Cluster) -> Result<(), String> {
        let mut command = cluster.control_plane.kubectl();
        command.arg(format!("--token={}", self.old));
        command.args(["get", "--raw", "/api"]);
        let output = finish(command, None, patience(20)).map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = !output.status.success()
            && (said.contains("Unauthorized") || said.contains("logged in"));
        refused.then_some(()).ok_or(said)
    }
}

/// By the audit log from an octet on: each node's agent has written to a block, and a controller
/// has written its lease.
fn all_at_work(cluster: &Cluster, from: usize) -> anyhow::Result<()> {
    let log = fs::read(&cluster.control_plane.audit_log)?;
    let log = log.get(from..).context("the audit log was replaced")?;
    let log = String::from_utf8_lossy(log);
    let events: Vec<Value> = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let done = |part: &str, resource: &str, address: Option<&str>| {
        let user = format!(
            "system:serviceaccount:{}:{}-{part}",
            helm::NAMESPACE,
            helm::RELEASE
        );
        events.iter().any(|event| {
            let code = event["responseStatus"]["code"].as_i64().unwrap_or(500);
            let verb = event["verb"].as_str().unwrap_or_default();
            let sources = event["sourceIPs"].as_array();
            let from_there = address.is_none_or(|address| {
                sources.is_some_and(|all| all.iter().any(|one| *one == address))
            });
            event["user"]["username"] == user.as_str()
                && event["objectRef"]["resource"] == resource
                && matches!(verb, "update" | "patch" | "create")
                && code < 300
                && from_there
        })
    };
    for node in &cluster.nodes {
        if !done("agent", "ipamblocks", Some(&node.address.to_string())) {
            bail!("the agent of {} has written no block", node.name());
        }
    }
    ensure!(
        done("controller", "leases", None),
        "no controller has written its lease"
    );
    Ok(())
}

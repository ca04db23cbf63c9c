//! What Margay asks of the API server and of the node: while nothing happens, and for each change
//! of a pod.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use margay_e2e::cluster::node::Node;
use margay_e2e::cluster::workload::{self, NAMESPACE};
use margay_e2e::cluster::{Cluster, cgroups, helm};
use margay_e2e::lab::command::succeed;
use margay_e2e::lab::patience::patience;
use margay_e2e::lab::process::resident_kib;
use serde_json::{Value, json};

/// How many times a label is changed.
const CHANGES: u32 = 40;
/// How many pods are started for the bytes of a start.
const STARTS: u32 = 30;
/// The API server as agents reach it.
const SERVER: &str = "https://10.96.0.1:443";
/// Clock ticks of `/proc/PID/stat` in a second (USER_HZ).
const TICKS: f64 = 100.0;

/// Bytes that one agent received from the API server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bytes {
    /// For a changed label of a pod.
    pub(crate) label: f64,
    /// For a pod from its creation to Ready.
    pub(crate) start: f64,
}

/// One node's agent while nothing happens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Idle {
    pub(crate) node: String,
    /// Requests a minute that are no watches.
    pub(crate) requests: f64,
    /// Watches opened a minute.
    pub(crate) watches: f64,
    /// What the requests were, with their numbers.
    pub(crate) words: String,
    pub(crate) memory_kib: u64,
    /// Of one processor, 0 to 1.
    pub(crate) processor: f64,
}

/// The controllers while nothing happens, for the whole cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Controller {
    /// Requests a minute that are no watches.
    pub(crate) requests: f64,
    /// Watches opened a minute.
    pub(crate) watches: f64,
    /// What the requests were, with their numbers.
    pub(crate) words: String,
}

/// The bytes that changes cost, as the sockets of the first node's agent count them.
pub(crate) async fn changes(cluster: &Cluster) -> Result<Bytes> {
    let client = cluster.client().await?;
    let spec = workload::pod_spec(cluster.ground.lab.plan.store.address.ip());
    let agents = agents(cluster).await?;
    let node = *agents.first().context("no nodes")?;
    let anyway = anyway(node).await?;
    let before = (received(node)?, Instant::now());
    workload::deploy(&client, workload::deployment("idle", STARTS, &spec)).await?;
    let wanted = usize::try_from(STARTS)?;
    let pods = workload::until_ready(cluster, &client, "app=idle", wanted, patience(120)).await?;
    let start = since(node, before, anyway).await? / f64::from(STARTS);

    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let before = (received(node)?, Instant::now());
    for number in 0..CHANGES {
        let pod = &pods[usize::try_from(number)? % pods.len()];
        let patch = json!({"metadata": {"labels": {"changed": number.to_string()}}});
        api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
    }
    let label = since(node, before, anyway).await? / f64::from(CHANGES);
    Ok(Bytes { label, start })
}

/// Bytes a second that come anyway: kubelets report their nodes' status every five seconds here.
async fn anyway(node: (&Node, u32)) -> Result<f64> {
    const TWO_REPORTS: Duration = Duration::from_secs(10);
    let (before, began) = (received(node)?, Instant::now());
    tokio::time::sleep(TWO_REPORTS).await;
    Ok((received(node)? - before) / began.elapsed().as_secs_f64())
}

/// What has been received since some moment, once the last of it has arrived, less what comes
/// anyway.
async fn since(node: (&Node, u32), (before, began): (f64, Instant), anyway: f64) -> Result<f64> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(received(node)? - before - anyway * began.elapsed().as_secs_f64())
}

/// Bytes that the sockets of a node's agent have received from the API server: of this process, for
/// a controller on the same node has the same name.
fn received((node, pid): (&Node, u32)) -> Result<f64> {
    let process = format!("pid={pid},");
    let mut command = Command::new("nsenter");
    let namespace = format!("--net=/run/netns/{}", node.machine.namespace);
    command.args([&namespace, "--", "ss", "-tinpHO", "state", "established"]);
    let text = succeed(command, None)?;
    let ours = text.lines().filter(|line| {
        line.contains(&process) && (line.contains(":443 ") || line.contains(":6443 "))
    });
    let bytes = ours.filter_map(|line| {
        let (_, after) = line.split_once("bytes_received:")?;
        after.split_whitespace().next()?.parse::<f64>().ok()
    });
    let bytes: Vec<f64> = bytes.collect();
    ensure!(
        !bytes.is_empty(),
        "no socket of the agent on {}: {text}",
        node.name()
    );
    Ok(bytes.iter().sum())
}

/// Looks at a cluster with 30 pods on which nothing happens.
pub(crate) async fn look(cluster: &Cluster, time: Duration) -> Result<(Vec<Idle>, Controller)> {
    // What the last changes left to do is done.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let agents = agents(cluster).await?;
    let log = Log::from_now(cluster)?;
    let began = Instant::now();
    let before: Vec<Option<f64>> = agents.iter().map(|(_, pid)| processor_time(*pid)).collect();
    tokio::time::sleep(time).await;
    let seconds = began.elapsed().as_secs_f64();
    let text = log.since()?;
    let mut all = Vec::new();
    for ((node, pid), before) in agents.into_iter().zip(before) {
        let (watches, others) = requests(&text, node);
        let used = processor_time(pid)
            .zip(before)
            .map_or(f64::NAN, |(after, before)| after - before);
        let minutes = seconds / 60.0;
        all.push(Idle {
            node: node.name().to_owned(),
            requests: f64::from(others.values().sum::<u32>()) / minutes,
            watches: f64::from(watches) / minutes,
            words: words(&others),
            memory_kib: resident_kib(pid).unwrap_or_default(),
            processor: used / seconds,
        });
    }
    let minutes = seconds / 60.0;
    let (watches, others) = asked(&text, "controller", None);
    let controller = Controller {
        requests: f64::from(others.values().sum::<u32>()) / minutes,
        watches: f64::from(watches) / minutes,
        words: words(&others),
    };
    Ok((all, controller))
}

fn words(requests: &BTreeMap<String, u32>) -> String {
    let words = requests
        .iter()
        .map(|(what, count)| format!("{count} {what}"));
    let words: Vec<String> = words.collect();
    if words.is_empty() {
        return "none".to_owned();
    }
    words.join(", ")
}

/// The audit log from some moment on.
struct Log<'a> {
    cluster: &'a Cluster,
    from: usize,
}

impl<'a> Log<'a> {
    fn from_now(cluster: &'a Cluster) -> Result<Self> {
        let length = fs::metadata(&cluster.control_plane.audit_log)?.len();
        let from = usize::try_from(length)?;
        Ok(Self { cluster, from })
    }

    fn since(&self) -> Result<String> {
        let text = fs::read(&self.cluster.control_plane.audit_log)?;
        let new = text
            .get(self.from..)
            .context("the audit log was replaced")?;
        Ok(String::from_utf8_lossy(new).into_owned())
    }
}

/// How often [`prove`] asks.
const KNOWN: u32 = 3;

/// Shows that [`look`] counts: requests that are known, as one node's agent and from where it is,
/// are found one by one, and on no other node.
pub(crate) async fn prove(cluster: &Cluster) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client().await?, helm::NAMESPACE);
    let account = format!("{}-agent", helm::RELEASE);
    let wanted = TokenRequest::default();
    let answer = accounts
        .create_token_request(&account, &PostParams::default(), &wanted)
        .await?;
    let token = answer.status.context("no token")?.token;
    let log = Log::from_now(cluster)?;
    let asking = cluster.nodes.first().context("no nodes")?;
    for _ in 0..KNOWN {
        let mut command = asking.machine.command("/run/programs/kubectl");
        command.args(["--server", SERVER, "--insecure-skip-tls-verify"]);
        command.arg(format!("--token={token}"));
        command.args(["get", "--raw", "/api/v1/namespaces/kube-system"]);
        succeed(command, None)?;
    }
    let text = log.since()?;
    for node in &cluster.nodes {
        let counted = requests(&text, node).1.get("get namespaces").copied();
        let expected = (node.name() == asking.name()).then_some(KNOWN);
        ensure!(
            counted == expected,
            "the counter of requests does not count: {counted:?} instead of {expected:?} on {}",
            node.name()
        );
    }
    Ok(())
}

/// The agent's process of each node, as the host numbers it.
async fn agents(cluster: &Cluster) -> Result<Vec<(&Node, u32)>> {
    let api: Api<Pod> = Api::namespaced(cluster.client().await?, helm::NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/component=agent");
    let pods = api.list(&selector).await?;
    let mut found = Vec::new();
    for node in &cluster.nodes {
        let pod = pods.iter().find(|pod| {
            let place = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            place == Some(node.name())
        });
        let uid = pod
            .and_then(ResourceExt::uid)
            .context("a node without an agent")?;
        let pids = cgroups::of_pod(&node.machine.group, &uid);
        let named = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|name| name.trim() == "margay")
        };
        found.push((
            node,
            pids.into_iter()
                .find(named)
                .context("an agent without a process")?,
        ));
    }
    Ok(found)
}

/// Seconds on a processor, of all threads (fields 14 and 15 of `/proc/PID/stat`).
fn processor_time(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text
        .get(text.rfind(')')? + 1..)?
        .split_whitespace()
        .skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

/// The watches that a node's agent has opened, and its other requests by what they were.
fn requests(log: &str, node: &Node) -> (u32, BTreeMap<String, u32>) {
    asked(log, "agent", Some(&node.address.to_string()))
}

/// The watches that a part of Margay has opened, and its other requests by what they were; all of
/// them, or those from one address.
fn asked(log: &str, part: &str, from: Option<&str>) -> (u32, BTreeMap<String, u32>) {
    let account = format!(
        "system:serviceaccount:{}:{}-{part}",
        helm::NAMESPACE,
        helm::RELEASE
    );
    let (mut watches, mut others) = (0, BTreeMap::new());
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let from_here = from.is_none_or(|from| {
            let sources = event["sourceIPs"].as_array();
            sources.is_some_and(|all| all.iter().any(|one| *one == from))
        });
        if event["user"]["username"] != account.as_str() || !from_here {
            continue;
        }
        let verb = event["verb"].as_str().unwrap_or_default();
        match (verb, event["stage"].as_str().unwrap_or_default()) {
            ("watch", "ResponseStarted") => watches += 1,
            ("watch", _) | (_, "ResponseStarted") => {}
            (verb, _) => {
                let resource = event["objectRef"]["resource"].as_str().unwrap_or("?");
                *others.entry(format!("{verb} {resource}")).or_default() += 1;
            }
        }
    }
    (watches, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_and_other_requests() {
        let line = |who: &str, verb: &str, stage: &str, from: &str| {
            let user = format!("system:serviceaccount:kube-system:margay-{who}");
            json!({"user": {"username": user}, "verb": verb, "stage": stage, "sourceIPs": [from],
                "objectRef": {"resource": "pods"}})
            .to_string()
        };
        let log = [
            line("agent", "watch", "ResponseStarted", "10.0.0.1"),
            line("agent", "watch", "ResponseComplete", "10.0.0.1"),
            line("agent", "get", "ResponseComplete", "10.0.0.1"),
            line("agent", "get", "ResponseComplete", "10.0.0.2"),
            line("controller", "get", "ResponseComplete", "10.0.0.1"),
            "{\"half".to_owned(),
        ];
        let (watches, others) = asked(&log.join("\n"), "agent", Some("10.0.0.1"));
        assert_eq!(watches, 1);
        assert_eq!(others, BTreeMap::from([("get pods".to_owned(), 1)]));
        assert_eq!(asked(&log.join("\n"), "agent", None).1["get pods"], 2);
    }
}

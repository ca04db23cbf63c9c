//! What Margay asks of the API server and of the node: while nothing happens, and for each change
//! of a pod.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
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

/// The bytes that changes cost, as the sockets of the first node's agent count them.
pub(crate) async fn changes(cluster: &Cluster) -> Result<Bytes> {
    let client = cluster.client().await?;
    let spec = workload::pod_spec(cluster.ground.lab.plan.store.address.ip());
    let node = cluster.nodes.first().context("no nodes")?;
    let before = received(node)?;
    workload::deploy(&client, workload::deployment("idle", STARTS, &spec)).await?;
    let wanted = usize::try_from(STARTS)?;
    let pods = workload::until_ready(cluster, &client, "app=idle", wanted, patience(120)).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let start = (received(node)? - before) / f64::from(STARTS);

    let api: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let before = received(node)?;
    for number in 0..CHANGES {
        let pod = &pods[usize::try_from(number)? % pods.len()];
        let patch = json!({"metadata": {"labels": {"changed": number.to_string()}}});
        api.patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let label = (received(node)? - before) / f64::from(CHANGES);
    Ok(Bytes { label, start })
}

/// Bytes that the sockets of a node's agent have received from the API server.
fn received(node: &Node) -> Result<f64> {
    let mut command = Command::new("nsenter");
    let namespace = format!("--net=/run/netns/{}", node.machine.namespace);
    command.args([&namespace, "--", "ss", "-tinpHO", "state", "established"]);
    let text = succeed(command, None)?;
    let ours = text.lines().filter(|line| {
        line.contains("\"margay\"") && (line.contains(":443 ") || line.contains(":6443 "))
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
pub(crate) async fn look(cluster: &Cluster, time: Duration) -> Result<Vec<Idle>> {
    // What the last changes left to do is done.
    tokio::time::sleep(Duration::from_secs(30)).await;
    let agents = agents(cluster).await?;
    let log = &cluster.control_plane.audit_log;
    let seen = fs::metadata(log)?.len();
    let began = Instant::now();
    let before: Vec<Option<f64>> = agents.iter().map(|(_, pid)| processor_time(*pid)).collect();
    tokio::time::sleep(time).await;
    let seconds = began.elapsed().as_secs_f64();
    let text = fs::read(log)?;
    let text = String::from_utf8_lossy(text.get(usize::try_from(seen)?..).unwrap_or_default())
        .into_owned();
    let mut all = Vec::new();
    for ((node, pid), before) in agents.into_iter().zip(before) {
        let (watches, others) = requests(&text, node);
        let used = processor_time(pid)
            .zip(before)
            .map_or(f64::NAN, |(after, before)| after - before);
        let minutes = seconds / 60.0;
        let words = others.iter().map(|(what, count)| format!("{count} {what}"));
        all.push(Idle {
            node: node.name().to_owned(),
            requests: f64::from(others.values().sum::<u32>()) / minutes,
            watches: f64::from(watches) / minutes,
            words: words.collect::<Vec<_>>().join(", "),
            memory_kib: resident_kib(pid).unwrap_or_default(),
            processor: used / seconds,
        });
    }
    Ok(all)
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
    let agent = format!(
        "system:serviceaccount:{}:{}-agent",
        helm::NAMESPACE,
        helm::RELEASE
    );
    let address = node.address.to_string();
    let (mut watches, mut others) = (0, BTreeMap::new());
    for line in log.lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let from_here = event["sourceIPs"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| *one == address.as_str()));
        if event["user"]["username"] != agent.as_str() || !from_here {
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

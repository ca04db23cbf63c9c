//! The two sides by turns on one cluster: pods one after the other, then many at once.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use margay_e2e::cluster::first_packet::FirstPackets;
use margay_e2e::cluster::workload::{self, NAMESPACE};
use margay_e2e::cluster::{Cluster, helm, reference};
use margay_e2e::lab::objects;
use margay_e2e::lab::patience::{patience, until};
use serde_json::json;

use crate::stages::{self, Stages};

/// Whose network it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Reference,
    Margay,
}

/// How many pods are started in a turn before those that count: one for each node.
const WARM: usize = 3;
/// How long after a switch a turn begins: what agents do as they start, and kubelets and the
/// runtimes as pods come and go, is over by then.
const CALM: Duration = Duration::from_secs(10);

/// The sides in the order of this round: each comes first as often as the other, so that a machine
/// that becomes slower or faster favours none.
pub(crate) fn order(round: usize) -> [Side; 2] {
    if round.is_multiple_of(2) {
        [Side::Margay, Side::Reference]
    } else {
        [Side::Reference, Side::Margay]
    }
}

/// What one turn of one side has given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    /// The first pods of the turn, on nodes whose network has just been changed: they warm it up.
    pub(crate) warming: Vec<Duration>,
    /// From a pod's creation to its first packet, one pod after the other.
    pub(crate) first_packet: Vec<Duration>,
    /// Where that time went.
    pub(crate) stages: Vec<Stages>,
    /// Many pods at once: until the last first packet.
    pub(crate) last_packet: Duration,
    /// Until all are Ready.
    pub(crate) ready: Duration,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |times: &[Duration]| {
            let times = times.iter().map(Duration::as_millis);
            format!("{:?}", times.collect::<Vec<_>>())
        };
        write!(
            f,
            "warming {} first packets {} ms, at once: last packet {:?}, Ready {:?}",
            words(&self.warming),
            words(&self.first_packet),
            self.last_packet,
            self.ready
        )
    }
}

/// Installs Margay and waits until everything is ready.
pub(crate) async fn prepare(cluster: &mut Cluster) -> Result<()> {
    let image = helm::image()?;
    for node in &cluster.nodes {
        node.import(&image)?;
    }
    cluster.start_kubelets()?;
    let client = cluster.client().await?;
    let nodes: Api<Node> = Api::all(client.clone());
    until(
        "the nodes to be known",
        patience(60),
        &cluster.logs(),
        || async {
            let known = nodes.list(&ListParams::default()).await;
            let known = known.map_err(|error| error.to_string())?.items.len();
            let all = known == cluster.nodes.len();
            all.then_some(()).ok_or(format!("{known} are"))
        },
    )
    .await?;
    let mut values = helm::values(cluster);
    // Like for like: the reference has no plugins for ports and rates after it either.
    values["cni"] = json!({"chain": []});
    helm::apply(cluster, "install", &values)?;
    reference::route(cluster)?;
    workload::until_pods_are_admitted(cluster, &client).await?;
    // Everything has been read and run once.
    run(cluster, 2, 6).await.map(drop)
}

/// Gives the cluster to a side. In the reference's turns nothing of Margay runs.
pub(crate) async fn switch(cluster: &Cluster, side: Side) -> Result<()> {
    let client = cluster.client().await?;
    let daemons: Api<DaemonSet> = Api::namespaced(client.clone(), helm::NAMESPACE);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), helm::NAMESPACE);
    let (place, controllers) = match side {
        Side::Reference => (json!("nowhere"), 0),
        Side::Margay => (json!(null), 2),
    };
    let template = json!({"spec": {"nodeSelector": {"margay.dev/bench": place}}});
    let patch = json!({"spec": {"template": template}});
    let name = format!("{}-agent", helm::RELEASE);
    daemons
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let scale = json!({"spec": {"replicas": controllers}});
    let controller = format!("{}-controller", helm::RELEASE);
    deployments
        .patch(&controller, &PatchParams::default(), &Patch::Merge(&scale))
        .await?;
    match side {
        Side::Reference => reference::install(cluster, reference::FIRST)?,
        Side::Margay => {
            // The first time there is nothing to take away.
            let there = cluster
                .nodes
                .iter()
                .any(|node| node.machine.path(reference::FIRST).exists());
            if there {
                reference::remove(cluster, reference::FIRST)?;
            }
        }
    }
    let wanted = if side == Side::Margay {
        cluster.nodes.len()
    } else {
        0
    };
    let pods: Api<Pod> = Api::namespaced(client, helm::NAMESPACE);
    until(
        "the agents to come or go",
        patience(120),
        &cluster.logs(),
        || async {
            let all = pods
                .list(&ListParams::default())
                .await
                .map_err(|error| error.to_string())?;
            let ready = all.items.iter().filter(|pod| {
                let conditions = pod
                    .status
                    .iter()
                    .flat_map(|status| status.conditions.iter().flatten());
                conditions
                    .into_iter()
                    .any(|one| one.type_ == "Ready" && one.status == "True")
            });
            let ready = ready.count();
            let right = match side {
                Side::Reference => all.items.is_empty(),
                Side::Margay => ready == wanted + 2 && all.items.len() == ready,
            };
            if right {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            Err(format!("{ready} of {} are Ready", all.items.len()))
        },
    )
    .await?;
    // The runtime reads its configuration as it changes; and everybody calms down.
    tokio::time::sleep(CALM).await;
    Ok(())
}

/// One turn.
pub(crate) async fn run(cluster: &Cluster, alone: usize, at_once: u32) -> Result<Turn> {
    let client = cluster.client().await?;
    let packets = FirstPackets::listen().await?;
    let resolver = cluster.ground.lab.plan.store.address.ip();
    let spec = workload::pod_spec(resolver);
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let mut turn = Turn::default();
    let mut moments = Vec::new();
    // The server knows the pods of the last turn for a while.
    let turn_id = Timestamp::now().as_second();
    for number in 0..WARM + alone {
        let name = format!("alone-{turn_id}-{number}");
        let pod = json!({"metadata": {"name": name, "labels": {"app": "alone"}}, "spec": spec});
        let (began, created) = (Instant::now(), Timestamp::now());
        objects::ensure(&pods, pod).await?;
        let time = heard(&packets, &name).await? - began;
        let uid = until_known_to_run(cluster, &pods, &name).await?;
        if number < WARM {
            turn.warming.push(time);
        } else {
            turn.first_packet.push(time);
            moments.push((uid, created, created + time));
        }
        // By kubelet, which takes its interface away at once; one that the server forgets first is
        // found to be an orphan only by the minute.
        pods.delete(&name, &DeleteParams::default()).await?;
        // Its processes are killed a second after it was deleted.
        until_none_is_left(cluster).await?;
        tokio::time::sleep(pause(number)).await;
    }
    turn.stages = stages::of(cluster, &moments)?;

    let before = packets.seen().len();
    let began = Instant::now();
    workload::deploy(&client, workload::deployment("many", at_once, &spec)).await?;
    let wanted = usize::try_from(at_once)?;
    workload::until_ready(cluster, &client, "app=many", wanted, patience(180)).await?;
    turn.ready = began.elapsed();
    let seen = packets.seen();
    if seen.len() < before + wanted {
        bail!("{} of {wanted} pods were heard", seen.len() - before);
    }
    let last = seen
        .iter()
        .filter(|(name, _)| name.starts_with("many-"))
        .map(|(_, at)| *at)
        .max();
    turn.last_packet = last.context("no pod was heard")? - began;
    workload::delete(&client, "many").await?;
    until_none_is_left(cluster).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    Ok(turn)
}

/// How long after a pod is gone the next one is asked for: what is left to do about the last one is
/// not measured with the next; and what kubelet does once a second must not meet each pod of a turn
/// at the same point, or the turn says nothing about the network.
fn pause(number: usize) -> Duration {
    const STEPS: [u64; 10] = [0, 300, 600, 900, 200, 500, 800, 100, 400, 700];
    Duration::from_millis(500 + STEPS[number % STEPS.len()])
}

/// Waits until kubelet has said that the pod runs, and tells its uid. One that is deleted while
/// kubelet starts it may keep its sandbox until kubelet looks for such, minutes later.
async fn until_known_to_run(cluster: &Cluster, pods: &Api<Pod>, name: &str) -> Result<String> {
    let what = format!("{name} to run");
    let logs = cluster.logs();
    let found = until(&what, patience(60), &logs, || async {
        let pod = pods.get(name).await.map_err(|error| error.to_string())?;
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        if phase.as_deref() == Some("Running") {
            return pod.uid().ok_or_else(|| "it has no uid".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(75)).await;
        Err(format!("it is {phase:?}"))
    });
    Ok(found.await?)
}

async fn heard(packets: &FirstPackets, name: &str) -> Result<Instant> {
    let limit = Instant::now() + patience(60);
    loop {
        if let Some(at) = packets.seen().get(name) {
            return Ok(*at);
        }
        if Instant::now() > limit {
            bail!("nothing was heard of {name}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until no node has an interface of a pod any more. Kubelet may forget a pod and find it
/// again some minutes later: no reason to throw away half an hour of measuring.
async fn until_none_is_left(cluster: &Cluster) -> Result<()> {
    let limit = Instant::now() + patience(300);
    loop {
        let mut left = Vec::new();
        for node in &cluster.nodes {
            let links = node.machine.run("ip", &["-o", "link", "show"])?;
            let names = links.lines().filter_map(|line| line.split(": ").nth(1));
            let of_pods = names.filter(|name| name.starts_with("veth") || name.starts_with("mgy"));
            left.extend(of_pods.map(str::to_owned));
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > limit {
            bail!("these interfaces of pods stay: {left:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

//! Margay installed by Helm: from the first node Ready to a node that is as it was.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use margay_e2e::cluster::first_packet::FirstPackets;
use margay_e2e::cluster::flow::Flow;
use margay_e2e::cluster::workload::{self, Place};
use margay_e2e::cluster::{Cluster, helm};
use margay_e2e::lab::command::finish;
use margay_e2e::lab::patience::{patience, until};
use margay_e2e::lab::spec::SERVED_PORT;
use margay_e2e::lab::{fabric, objects};
use serde_json::json;

use crate::coexistence;
use crate::footprint::Footprint;
use crate::rights;
use crate::steps::{self, Failed, Steps};
use crate::tokens;

/// The label of the web servers.
const WEB: &str = "app=web";
/// How many there are.
const PODS: usize = 30;
/// Services' ports.
const PORT: u16 = 80;
const NODE_PORT: u16 = 30080;

pub async fn journey(steps: &mut Steps, cluster: &mut Cluster) -> Result<(), Failed> {
    install(steps, cluster).await?;
    let pods = traffic(steps, cluster).await?;
    coexistence::journey(steps, cluster, &pods).await?;
    disturb(steps, cluster, &pods).await?;
    leave(steps, cluster).await
}

/// From nothing to 30 pods.
async fn install(steps: &mut Steps, cluster: &mut Cluster) -> Result<(), Failed> {
    let image = steps
        .run("the image in every containerd", async {
            let image = helm::image()?;
            for node in &cluster.nodes {
                node.import(&image)?;
                node.tag(
                    &format!("{}:dev", helm::REPOSITORY),
                    &format!("{}:next", helm::REPOSITORY),
                )?;
            }
            Ok(image)
        })
        .await?;
    steps.figure(&format!("{}", image.display()));
    steps
        .run(
            "kubelets start, nodes are NotReady without a network",
            async {
                if !cluster.nodes.iter().any(|node| node.has_kubelet()) {
                    cluster.start_kubelets()?;
                }
                steps::nodes_known(cluster).await?;
                steps::proxies_ready(cluster).await
            },
        )
        .await?;
    let before = steps
        .run("what the nodes look like before", async {
            Footprint::of_all(cluster)
        })
        .await?;
    steps.before = before;
    let values = helm::values(cluster);
    let said = steps
        .run("helm install, waits until all of it is ready", async {
            helm::apply(cluster, "install", &values)
        })
        .await?;
    if said.contains("NOTES") {
        steps.figure("with NOTES");
    }
    steps
        .run("nodes Ready", steps::nodes_ready(cluster))
        .await?;
    steps
        .run("BGP sessions with the ToRs", sessions(cluster))
        .await?;
    Ok(())
}

/// Every ToR has its nodes' sessions.
async fn sessions(cluster: &Cluster) -> anyhow::Result<()> {
    let lab = &cluster.ground.lab;
    let folder = &lab.ledger.folder;
    until(
        "every session to be Established",
        patience(30),
        &cluster.logs(),
        || async {
            for tor in lab.plan.tors() {
                let sessions = fabric::sessions(folder, lab.plan.spec.tor, tor);
                let sessions = sessions.map_err(|error| error.to_string())?;
                for session in sessions {
                    if session.state != "Established" {
                        return Err(format!("{tor} with {}: {}", session.peer, session.state));
                    }
                }
            }
            Ok(())
        },
    )
    .await?;
    Ok(())
}

/// 30 pods, and everything that must reach something.
async fn traffic(steps: &mut Steps, cluster: &mut Cluster) -> Result<Vec<Place>, Failed> {
    let (pods, figure) = steps
        .run("30 pods on 3 nodes get addresses and send", thirty(cluster))
        .await?;
    steps.figure(&figure);
    let figure = steps
        .run(
            "pods reach each other, nodes reach pods, and the ToR side too",
            async { reach(cluster, &pods) },
        )
        .await?;
    steps.figure(&figure);
    steps
        .run(
            "Services through kube-proxy: ClusterIP and NodePort",
            services(cluster, &pods),
        )
        .await?;
    steps
        .run("NetworkPolicy is enforced", policy(cluster, &pods))
        .await?;
    Ok(pods)
}

async fn thirty(cluster: &Cluster) -> anyhow::Result<(Vec<Place>, String)> {
    let client = cluster.client().await?;
    workload::until_pods_are_admitted(cluster, &client).await?;
    let packets = FirstPackets::listen().await?;
    let plan = &cluster.ground.lab.plan;
    let began = Instant::now();
    let spec = workload::pod_spec(plan.store.address.ip());
    workload::deploy(&client, workload::deployment("web", 30, &spec)).await?;
    let pods = workload::until_ready(cluster, &client, WEB, PODS, patience(120)).await?;
    let time = began.elapsed().as_secs_f64();
    let spread = workload::spread(&pods);
    ensure!(
        spread.len() == cluster.nodes.len(),
        "pods on {spread:?} only"
    );
    let addresses: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.address).collect();
    ensure!(
        addresses.len() == PODS,
        "an address was given twice: {pods:?}"
    );
    let strange = addresses
        .iter()
        .find(|address| !plan.pool.contains(**address));
    ensure!(strange.is_none(), "{strange:?} is not of {}", plan.pool);
    let heard = packets.seen().len();
    ensure!(heard >= PODS, "only {heard} pods were heard outside");
    Ok((
        pods.clone(),
        format!("30 pods Ready after {time:.1} s, on {spread:?}"),
    ))
}

/// One pod of each node.
pub fn one_each(pods: &[Place]) -> Vec<&Place> {
    let mut nodes = BTreeSet::new();
    pods.iter()
        .filter(|pod| nodes.insert(pod.node.clone()))
        .collect()
}

fn reach(cluster: &Cluster, pods: &[Place]) -> anyhow::Result<String> {
    let plan = &cluster.ground.lab.plan;
    let mut asked = 0;
    let mut expect = |who: &str, to: &Place, answer: anyhow::Result<String>| {
        asked += 1;
        let answer = answer.with_context(|| format!("{who} to {} on {}", to.name, to.node))?;
        ensure!(answer == to.name, "{answer} answers {who} for {}", to.name);
        anyhow::Ok(())
    };
    for from in one_each(pods) {
        for to in pods {
            let who = format!("{} on {}", from.name, from.node);
            expect(
                &who,
                to,
                workload::fetch(cluster, from, to.address, SERVED_PORT),
            )?;
        }
    }
    let machines = cluster.nodes.iter().map(|node| node.name().to_owned());
    for machine in machines.chain([
        plan.outside.name.clone(),
        plan.tors().next().unwrap_or_default().to_owned(),
    ]) {
        for to in one_each(pods) {
            let answer = workload::fetch_from(&plan.namespace(&machine), to.address, SERVED_PORT);
            expect(&machine, to, answer)?;
        }
    }
    Ok(format!("{asked} fetches"))
}

pub async fn services(cluster: &Cluster, pods: &[Place]) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let api: Api<Service> = Api::namespaced(client, workload::NAMESPACE);
    let object = json!({
        "metadata": {"name": "web"},
        "spec": {
            "type": "NodePort", "selector": {"app": "web"},
            "ports": [{"port": PORT, "targetPort": SERVED_PORT, "nodePort": NODE_PORT}],
        },
    });
    objects::ensure(&api, object).await?;
    let service = api.get("web").await?;
    let address = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("no ClusterIP")?;
    let address: IpAddr = address.parse()?;
    let names: BTreeSet<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    let outside = cluster
        .ground
        .lab
        .plan
        .namespace(&cluster.ground.lab.plan.outside.name);
    until(
        "the Service to answer everywhere",
        patience(30),
        &cluster.logs(),
        || async {
            let mut answers = Vec::new();
            for pod in one_each(pods) {
                answers.push((&pod.name, workload::fetch(cluster, pod, address, PORT)));
            }
            for node in &cluster.nodes {
                let name = &node.machine.name;
                answers.push((
                    name,
                    workload::fetch_from(&node.machine.namespace, address, PORT),
                ));
                answers.push((
                    name,
                    workload::fetch_from(&outside, node.address, NODE_PORT),
                ));
            }
            for (who, answer) in answers {
                match answer {
                    Ok(name) if names.contains(name.as_str()) => {}
                    Ok(name) => return Err(format!("{who} was answered {name:?}")),
                    Err(error) => return Err(format!("{who}: {error:#}")),
                }
            }
            Ok(())
        },
    )
    .await?;
    Ok(())
}

async fn policy(cluster: &Cluster, pods: &[Place]) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let api: Api<NetworkPolicy> = Api::namespaced(client.clone(), workload::NAMESPACE);
    let spec = workload::pod_spec(cluster.ground.lab.plan.store.address.ip());
    workload::deploy(&client, workload::deployment("friend", 3, &spec)).await?;
    let friends = workload::until_ready(cluster, &client, "app=friend", 3, patience(60)).await?;
    let object = json!({
        "metadata": {"name": "friends-only"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": SERVED_PORT}]}],
        },
    });
    objects::ensure(&api, object).await?;
    let outside = cluster
        .ground
        .lab
        .plan
        .namespace(&cluster.ground.lab.plan.outside.name);
    let targets = one_each(pods);
    until(
        "strangers to be kept out",
        patience(20),
        &cluster.logs(),
        || async {
            for to in &targets {
                let strangers = [
                    workload::fetch(cluster, &pods[0], to.address, SERVED_PORT),
                    workload::fetch_from(&outside, to.address, SERVED_PORT),
                ];
                if pods[0] != **to && strangers.iter().any(Result::is_ok) {
                    return Err(format!("{} was reached by a stranger", to.name));
                }
            }
            Ok(())
        },
    )
    .await?;
    for friend in &friends {
        for to in &targets {
            let answer = workload::fetch(cluster, friend, to.address, SERVED_PORT)?;
            ensure!(answer == to.name, "{answer} answered for {}", to.name);
        }
    }
    for to in &targets {
        let node = cluster.nodes.iter().find(|node| node.name() == to.node);
        let node = node.context("a pod on no node")?;
        workload::fetch_from(&node.machine.namespace, to.address, SERVED_PORT)
            .with_context(|| format!("{} to its own pod under a policy", to.node))?;
    }
    api.delete("friends-only", &DeleteParams::default()).await?;
    until(
        "strangers to be let in again",
        patience(20),
        &cluster.logs(),
        || async {
            let answer = workload::fetch_from(&outside, pods[0].address, SERVED_PORT);
            answer.map(drop).map_err(|error| format!("{error:#}"))
        },
    )
    .await?;
    workload::delete(&client, "friend").await
}

/// Flows between pods of one node, of one segment, across segments, and from outside.
fn flows(cluster: &Cluster, pods: &[Place]) -> anyhow::Result<Vec<Flow>> {
    let folder = cluster.logs();
    let each = one_each(pods);
    let mut flows = Vec::new();
    let first = each.first().context("no pods")?;
    let neighbour = pods
        .iter()
        .find(|pod| pod.node == first.node && pod.name != first.name);
    for to in each.iter().skip(1).copied().chain(neighbour) {
        let name = format!("{} to {} {}", first.node, to.node, to.name);
        let ping = workload::inside(cluster, first, "ping")?;
        flows.push(Flow::start(&name, ping, to.address, &folder)?);
    }
    // This process is on the API server's machine: outside of the cluster.
    for to in each {
        let name = format!("outside to {}", to.node);
        let ping = std::process::Command::new("ping");
        flows.push(Flow::start(&name, ping, to.address, &folder)?);
    }
    Ok(flows)
}

/// Every flow's echoes came back; how many there were.
fn none_lost(flows: Vec<Flow>) -> anyhow::Result<String> {
    let mut sent = 0;
    let mut lost = Vec::new();
    let flows_count = flows.len();
    for flow in flows {
        let report = flow.end()?;
        sent += report.sent;
        ensure!(
            report.sent > 50,
            "{} sent only {}",
            report.name,
            report.sent
        );
        if !report.lost.is_empty() {
            lost.push(format!(
                "{}: {} of {} lost, {:?}",
                report.name,
                report.lost.len(),
                report.sent,
                report.lost
            ));
        }
    }
    ensure!(lost.is_empty(), "packets were lost: {}", lost.join("; "));
    Ok(format!("{sent} packets in {flows_count} flows, none lost"))
}

/// Everything that may be taken away for a while, with the packet counter running.
async fn disturb(steps: &mut Steps, cluster: &mut Cluster, pods: &[Place]) -> Result<(), Failed> {
    let figure = steps
        .run(
            "tokens are replaced and the old ones refused, zero loss",
            async {
                let flows = flows(cluster, pods)?;
                let said = tokens::replaced(cluster).await?;
                Ok(format!("{said}; {}", none_lost(flows)?))
            },
        )
        .await?;
    steps.figure(&figure);
    let figure = steps
        .run("helm upgrade to another image, zero loss", async {
            let flows = flows(cluster, pods)?;
            let mut values = helm::values(cluster);
            values["image"]["tag"] = "next".into();
            helm::apply(cluster, "upgrade", &values)?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            none_lost(flows)
        })
        .await?;
    steps.figure(&figure);
    steps
        .run("nothing that Margay asked for was refused", async {
            // Until here: an API server that starts anew does not know its own rules at once.
            let account = format!(
                "system:serviceaccount:{}:{}",
                helm::NAMESPACE,
                helm::RELEASE
            );
            let refused = cluster.control_plane.refusals(&account)?;
            ensure!(refused.is_empty(), "{refused:#?}");
            Ok(())
        })
        .await?;
    let figure = steps
        .run("kubelet restarts on every node, zero loss", async {
            let flows = flows(cluster, pods)?;
            for node in &mut cluster.nodes {
                node.stop_kubelet()?;
                node.start_kubelet(&mut cluster.ground.lab)?;
            }
            new_pods(cluster, "after-kubelet").await?;
            none_lost(flows)
        })
        .await?;
    steps.figure(&figure);
    let figure = steps
        .run("containerd restarts on every node, zero loss", async {
            let flows = flows(cluster, pods)?;
            for node in &mut cluster.nodes {
                node.restart_containerd(&mut cluster.ground.lab)?;
            }
            steps::nodes_ready(cluster).await?;
            new_pods(cluster, "after-containerd").await?;
            none_lost(flows)
        })
        .await?;
    steps.figure(&figure);
    let figure = steps
        .run("the API server dies for 5 s, zero loss", async {
            let flows = flows(cluster, pods)?;
            let dead = Duration::from_secs(5);
            let ground = &mut cluster.ground;
            cluster
                .control_plane
                .restart_apiserver(&mut ground.lab, dead)
                .await?;
            new_pods(cluster, "after-apiserver").await?;
            none_lost(flows)
        })
        .await?;
    steps.figure(&figure);
    steps
        .run("a node is deleted and joins again", rejoin(cluster))
        .await?;
    Ok(())
}

/// Three pods come up and reach each other: the network is not only what it was.
pub async fn new_pods(cluster: &Cluster, name: &str) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let spec = workload::pod_spec(cluster.ground.lab.plan.store.address.ip());
    workload::deploy(&client, workload::deployment(name, 3, &spec)).await?;
    let selector = format!("app={name}");
    let pods = workload::until_ready(cluster, &client, &selector, 3, patience(90)).await?;
    for from in &pods {
        for to in &pods {
            workload::fetch(cluster, from, to.address, SERVED_PORT)
                .with_context(|| format!("{} to {}", from.name, to.name))?;
        }
    }
    workload::delete(&client, name).await
}

async fn rejoin(cluster: &mut Cluster) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let api: Api<Node> = Api::all(client.clone());
    let last = cluster.nodes.len() - 1;
    let name = cluster.nodes[last].name().to_owned();
    cluster.nodes[last].stop_kubelet()?;
    api.delete(&name, &DeleteParams::default()).await?;
    // The pods of a node that is not there any more are deleted for it, and made elsewhere.
    until(
        "the pods to be on other nodes",
        patience(120),
        &cluster.logs(),
        || async {
            let (pods, _) = workload::ready(&client, WEB)
                .await
                .map_err(|error| format!("{error:#}"))?;
            let left = pods.iter().filter(|pod| pod.node == name).count();
            if left == 0 && pods.len() == PODS {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            Err(format!("{} Ready, {left} of them on {name}", pods.len()))
        },
    )
    .await?;
    cluster.nodes[last].start_kubelet(&mut cluster.ground.lab)?;
    steps::nodes_ready(cluster).await?;
    steps::agents_ready(cluster).await?;
    let restart = json!({"spec": {"template": {"metadata": {"annotations": {"again": "1"}}}}});
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(client.clone(), workload::NAMESPACE);
    deployments
        .patch("web", &PatchParams::default(), &Patch::Merge(&restart))
        .await?;
    let fresh = until(
        "fresh pods on every node",
        patience(180),
        &cluster.logs(),
        || async {
            let (pods, all) = workload::ready(&client, WEB)
                .await
                .map_err(|error| format!("{error:#}"))?;
            let spread = workload::spread(&pods).len();
            if spread == 3 && pods.len() == PODS && all == PODS {
                return Ok(pods);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            Err(format!("{} of {all} on {spread} nodes", pods.len()))
        },
    )
    .await?;
    reach(cluster, &fresh)?;
    Ok(())
}

/// Up, down, and out.
async fn leave(steps: &mut Steps, cluster: &mut Cluster) -> Result<(), Failed> {
    let client = steps.run("a client for the rest", cluster.client()).await?;
    steps
        .run("30 pods become 90", async {
            workload::scale(&client, "web", 90).await?;
            let pods = workload::until_ready(cluster, &client, WEB, 90, patience(240)).await?;
            let addresses: BTreeSet<IpAddr> = pods.iter().map(|pod| pod.address).collect();
            ensure!(addresses.len() == 90, "an address was given twice");
            Ok(())
        })
        .await?;
    steps
        .run("90 pods become none, and nothing is left of them", async {
            workload::scale(&client, "web", 0).await?;
            workload::until_ready(cluster, &client, WEB, 0, patience(240)).await?;
            clean(cluster, &client).await
        })
        .await?;
    let granted = steps
        .run("each right of the agents is used, none is missing", async {
            rights::of_agents(cluster, &client).await
        })
        .await?;
    steps.figure(&format!("{granted} rights"));
    let before = std::mem::take(&mut steps.before);
    steps
        .run("helm uninstall leaves the nodes as they were", async {
            let services: Api<Service> = Api::namespaced(client.clone(), workload::NAMESPACE);
            services.delete("web", &DeleteParams::default()).await?;
            helm::uninstall(cluster)?;
            as_before(before, cluster).await
        })
        .await?;
    steps
        .run("nobody of the chart was refused anything", async {
            rights::nothing_refused(cluster)
        })
        .await?;
    Ok(())
}

/// `margayctl ipam check` finds nothing, once the garbage is collected.
async fn clean(cluster: &Cluster, _client: &Client) -> anyhow::Result<()> {
    let bin = std::env::var("MARGAY_BIN_DIR").context("MARGAY_BIN_DIR is not set")?;
    until(
        "margayctl ipam check to be clean",
        patience(60),
        &cluster.logs(),
        || async {
            let mut command = std::process::Command::new(format!("{bin}/margayctl"));
            command.env("KUBECONFIG", &cluster.control_plane.kubeconfig);
            command.args(["ipam", "check"]);
            let output = finish(command, None, patience(20)).map_err(|error| error.to_string())?;
            if output.status.success() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            Err(String::from_utf8_lossy(&output.stdout).into_owned())
        },
    )
    .await?;
    Ok(())
}

/// Compares until it holds: kube-proxy takes its time with a Service that is gone.
async fn as_before(before: Vec<Footprint>, cluster: &Cluster) -> anyhow::Result<()> {
    let limit = Instant::now() + patience(40);
    loop {
        let after = Footprint::of_all(cluster)?;
        let mut differences = Vec::new();
        for (before, after) in before.iter().zip(&after) {
            differences.extend(before.differences(after));
        }
        if differences.is_empty() {
            return Ok(());
        }
        if Instant::now() > limit {
            bail!(
                "the nodes are not as they were:\n    {}",
                differences.join("\n    ")
            );
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

//! The cluster before Margay comes: the same pods with Debian's `ptp` and `host-local`.

use std::time::Instant;

use anyhow::ensure;
use margay_e2e::cluster::first_packet::FirstPackets;
use margay_e2e::cluster::{Cluster, reference, workload};
use margay_e2e::lab::patience::{patience, until};
use margay_e2e::lab::spec::SERVED_PORT;

use crate::steps::{Failed, Steps};

pub async fn journey(steps: &mut Steps, cluster: &mut Cluster) -> Result<(), Failed> {
    steps
        .run("reference: nodes Ready with ptp and host-local", async {
            reference::install(cluster, reference::CONFLIST)?;
            cluster.start_kubelets()?;
            crate::steps::nodes_ready(cluster).await
        })
        .await?;
    let figure = steps
        .run("reference: 30 pods Ready, each sends", thirty(cluster))
        .await?;
    steps.figure(&figure);
    steps
        .run("reference: its configuration and interfaces go", async {
            // In this order: a runtime without a network does not end a sandbox.
            until(
                "the pods' interfaces to be gone",
                patience(60),
                &cluster.logs(),
                || async {
                    for node in &cluster.nodes {
                        let left = node
                            .machine
                            .run("ip", &["-o", "link", "show", "type", "veth"]);
                        let left = left.map_err(|error| format!("{error:#}"))?;
                        if left.contains("veth") {
                            return Err(left);
                        }
                    }
                    Ok(())
                },
            )
            .await?;
            reference::remove(cluster, reference::CONFLIST)
        })
        .await
}

async fn thirty(cluster: &Cluster) -> anyhow::Result<String> {
    let client = cluster.client().await?;
    workload::until_pods_are_admitted(cluster, &client).await?;
    let packets = FirstPackets::listen().await?;
    let resolver = cluster.ground.lab.plan.store.address.ip();
    let began = Instant::now();
    let object = workload::deployment("web", 30, &workload::pod_spec(resolver));
    workload::deploy(&client, object).await?;
    let pods = workload::until_ready(cluster, &client, "app=web", 30, patience(120)).await?;
    let time = began.elapsed().as_secs_f64();
    let seen = packets.seen();
    ensure!(seen.len() == 30, "only {} pods were heard", seen.len());
    let pod = &pods[0];
    let neighbour = pods
        .iter()
        .find(|one| one.node == pod.node && one.name != pod.name);
    if let Some(neighbour) = neighbour {
        let answer = workload::fetch(cluster, pod, neighbour.address, SERVED_PORT)?;
        ensure!(
            answer == neighbour.name,
            "{answer} answered for {}",
            neighbour.name
        );
    }
    workload::delete_at_once(cluster, &client, "web", &pods).await?;
    Ok(format!(
        "30 pods Ready after {time:.1} s, on {:?}",
        workload::spread(&pods)
    ))
}

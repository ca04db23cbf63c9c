//! The wait until the control plane has settled: sessions up, and every block's route where it
//! belongs.

use std::collections::BTreeMap;

use kube::api::{Api, ListParams};
use margay_crds::{IPAMBlock, NodeStatus};

use super::checks::Checks;
use crate::lab::error::LabError;
use crate::lab::patience::{patience, until};
use crate::lab::report::{Screen, Step};
use crate::lab::spec::Plan;
use crate::lab::up::{Cluster, Lab};
use crate::lab::{fabric, routes};

/// Sessions that a node should have: the mesh, and its ToR.
pub(super) fn sessions_of_a_node(plan: &Plan) -> usize {
    let tors = if plan.spec.tor.speaks_bgp() {
        plan.spec.tors
    } else {
        0
    };
    plan.nodes.len() - 1 + tors
}

/// Waits for both; what does not settle in time is a failed check, and the demo goes on to show
/// what there is.
pub(super) async fn wait(
    lab: &Lab,
    cluster: &Cluster,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    let logs = lab.logs();
    let step = Step::begin(screen, "waiting for BGP");
    let wanted = sessions_of_a_node(&lab.plan);
    let up = until("every BGP session", patience(40), &logs, || {
        sessions(lab, cluster, wanted)
    });
    settle(up.await, step, checks, |count| {
        format!("{count} BGP sessions established, told by both ends")
    })?;

    let step = Step::begin(screen, "waiting for routes");
    let there = until("every block's route", patience(20), &logs, || {
        block_routes(lab, cluster)
    });
    settle(there.await, step, checks, |count| {
        format!("{count} routes of blocks in nodes and ToRs")
    })
}

/// Waits for both; what does not settle in time is an error.
pub(super) async fn wait_or_fail(lab: &Lab, cluster: &Cluster) -> Result<(), LabError> {
    let (wanted, logs) = (sessions_of_a_node(&lab.plan), lab.logs());
    until("every BGP session", patience(40), &logs, || {
        sessions(lab, cluster, wanted)
    })
    .await?;
    until("every block's route", patience(20), &logs, || {
        block_routes(lab, cluster)
    })
    .await?;
    Ok(())
}

fn settle(
    outcome: Result<usize, LabError>,
    step: Step,
    checks: &mut Checks,
    words: impl FnOnce(usize) -> String,
) -> Result<(), LabError> {
    match outcome {
        Ok(count) => step.done(&words(count)),
        Err(LabError::Deadline {
            what, waited, seen, ..
        }) => {
            step.failed();
            checks.that(&what, false, &format!("within {waited:?}"), &seen);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Counts the ends of sessions on nodes and ToRs that are up, or says what is missing.
async fn sessions(lab: &Lab, cluster: &Cluster, wanted: usize) -> Result<usize, String> {
    let api: Api<NodeStatus> = Api::all(cluster.client.clone());
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(|error| error.to_string())?;
    let established: BTreeMap<String, usize> = list
        .items
        .into_iter()
        .map(|status| {
            let bgp = status.status.unwrap_or_default().bgp;
            let up = bgp.peers.iter().filter(|peer| peer.state == "Established");
            (status.metadata.name.unwrap_or_default(), up.count())
        })
        .collect();
    let mut ends = 0;
    for node in &lab.plan.nodes {
        let name = &node.host.name;
        match established.get(name) {
            Some(up) if *up == wanted => ends += up,
            Some(up) => return Err(format!("{name} has {up} of {wanted} sessions")),
            None => return Err(format!("no NodeStatus {name}")),
        }
    }
    if lab.plan.spec.tor.speaks_bgp() {
        ends += router_sessions(lab)?;
    }
    // Nodes tell both ends of the mesh, ToRs the other end of theirs.
    Ok(ends / 2)
}

fn router_sessions(lab: &Lab) -> Result<usize, String> {
    let mut ends = 0;
    let tors = lab.plan.tors();
    for machine in tors.chain(["router"]) {
        let sessions = fabric::sessions(&lab.ledger.folder, lab.plan.spec.tor, machine);
        for session in sessions.map_err(|error| error.to_string())? {
            if session.state != "Established" {
                return Err(format!(
                    "{machine} sees {} as {}",
                    session.peer, session.state
                ));
            }
            ends += 1;
        }
    }
    Ok(ends)
}

/// Counts the routes, or says which is missing.
async fn block_routes(lab: &Lab, cluster: &Cluster) -> Result<usize, String> {
    let api: Api<IPAMBlock> = Api::all(cluster.client.clone());
    let list = api
        .list(&ListParams::default())
        .await
        .map_err(|error| error.to_string())?;
    let blocks: Vec<String> = list
        .items
        .into_iter()
        .map(|block| block.spec.cidr)
        .collect();
    if blocks.is_empty() && !cluster.pods.is_empty() {
        return Err("no IPAMBlock at all".to_owned());
    }
    let nodes = lab.plan.nodes.iter().map(|node| node.host.name.as_str());
    let with_bgp = lab.plan.spec.tor.speaks_bgp();
    let tors = lab.plan.tors();
    let fabric = tors.chain(["router"]).filter(|_| with_bgp);
    let mut count = 0;
    for machine in nodes.chain(fabric) {
        let routes =
            routes::all(&lab.plan.namespace(machine)).map_err(|error| error.to_string())?;
        let missing = blocks
            .iter()
            .find(|block| !routes.iter().any(|route| route.dst == **block));
        if let Some(block) = missing {
            return Err(format!("{machine} has no route to {block}"));
        }
        count += blocks.len();
    }
    Ok(count)
}

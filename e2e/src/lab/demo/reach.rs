//! Everyone reaches every pod, and each packet takes the road it should.

use super::checks::Checks;
use super::matrix::{Asker, Matrix, address, askers};
use crate::lab::error::LabError;
use crate::lab::probes::{Outcome, Question};
use crate::lab::report::{Cell, Screen, Step, Tone};
use crate::lab::routes::{self, Route, Way};
use crate::lab::spec::SERVED_PORT;
use crate::lab::up::{Cluster, Lab};

pub(super) async fn show(
    lab: &Lab,
    cluster: &Cluster,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    if cluster.pods.is_empty() {
        return Ok(());
    }
    screen.title("Reachability: ping, and the road by the sender's kernel");
    let matrix = Matrix::ask(lab, cluster, askers(lab, cluster), Question::Ping).await;
    let ways = ways(lab, cluster)?;
    matrix.print(lab, cluster, screen, |asker, pod, outcome| {
        if !outcome.reached() {
            return Cell::new(Tone::Bad, "FAIL");
        }
        let Some(node) = asker.node(cluster) else {
            return Cell::new(Tone::Good, "fabric");
        };
        match way(&ways, node, pod) {
            Some(way) if way.is_tunnel() => Cell::new(Tone::Accent, way.word()),
            Some(way) => Cell::new(Tone::Good, way.word()),
            None => Cell::new(Tone::Bad, "?"),
        }
    });
    let silent: Vec<String> = matrix
        .cells()
        .filter(|(_, _, outcome)| !outcome.reached())
        .map(|(asker, pod, outcome)| format!("{}: {outcome:?}", between(lab, cluster, asker, pod)))
        .collect();
    let count = matrix.cells().count();
    checks.none(&format!("{count} pings come back"), "all of them", &silent);
    let wrong = wrong_ways(lab, cluster, &ways);
    checks.none(
        "packets take the expected road",
        "local on a node, direct on a segment, a tunnel beyond",
        &wrong,
    );
    sources(lab, cluster, checks, screen).await;
    Ok(())
}

fn between(lab: &Lab, cluster: &Cluster, asker: Asker, pod: usize) -> String {
    let to = cluster.pods.get(pod).map_or("", |pod| &pod.plan.name);
    format!("{} to {to}", asker.name(lab, cluster))
}

/// The route of every node to every pod.
fn ways(lab: &Lab, cluster: &Cluster) -> Result<Vec<Vec<Option<Route>>>, LabError> {
    let node_routes = lab.plan.nodes.iter().map(|node| {
        let namespace = lab.plan.namespace(&node.host.name);
        let routes = cluster.pods.iter();
        routes
            .map(|pod| Ok(routes::towards(&namespace, pod.address).ok()))
            .collect()
    });
    node_routes.collect()
}

fn way(ways: &[Vec<Option<Route>>], node: usize, pod: usize) -> Option<Way> {
    ways.get(node)?.get(pod)?.as_ref().map(Route::way)
}

/// What the kernel does with packets, against what the plan says.
fn wrong_ways(lab: &Lab, cluster: &Cluster, ways: &[Vec<Option<Route>>]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (node, routes) in ways.iter().enumerate() {
        for (pod, route) in cluster.pods.iter().zip(routes) {
            let place = lab.plan.nodes.get(node).map_or("", |node| &node.host.name);
            let name = &pod.plan.name;
            let Some(route) = route else {
                wrong.push(format!("{place} has no route to {name}"));
                continue;
            };
            let way = route.way();
            let fits = if node == pod.plan.node {
                way == Way::Local
            } else if lab.plan.same_segment(node, pod.plan.node) {
                way == Way::Direct
            } else {
                way.is_tunnel()
            };
            if !fits {
                wrong.push(format!("{place} to {name} is {}", way.word()));
            }
            let owner = lab
                .plan
                .nodes
                .get(pod.plan.node)
                .map(|node| node.host.address.ip());
            if way != Way::Local && route.gateway != owner {
                let via = route
                    .gateway
                    .map_or("nothing".to_owned(), |via| via.to_string());
                wrong.push(format!(
                    "{place} to {name} goes by {via}, not by the pod's node"
                ));
            }
        }
    }
    wrong
}

/// Over TCP and UDP: the right pod answers, and sees the asking pod's own address.
async fn sources(lab: &Lab, cluster: &Cluster, checks: &mut Checks, screen: Screen) {
    let step = Step::begin(screen, "asking every pod's server over TCP and UDP");
    let mut wrong = Vec::new();
    let mut count = 0;
    for (word, question) in [
        ("TCP", Question::Tcp(SERVED_PORT)),
        ("UDP", Question::Udp(SERVED_PORT)),
    ] {
        let pods = (0..cluster.pods.len()).map(Asker::Pod).collect();
        let matrix = Matrix::ask(lab, cluster, pods, question).await;
        for (asker, pod, outcome) in matrix.cells() {
            count += 1;
            let source = match asker {
                Asker::Pod(index) => address(&cluster.pods, index),
                _ => None,
            };
            let name = cluster.pods.get(pod).map(|pod| pod.plan.name.as_str());
            let right = match outcome {
                Outcome::Answer { by, seen } => Some(by.as_str()) == name && Some(*seen) == source,
                _ => false,
            };
            if !right {
                wrong.push(format!(
                    "{word} {}: {outcome:?}",
                    between(lab, cluster, asker, pod)
                ));
            }
        }
    }
    step.done(&format!("{count} questions over TCP and UDP"));
    checks.none(
        "the right pod answers and sees the sender's own address",
        "every time",
        &wrong,
    );
}

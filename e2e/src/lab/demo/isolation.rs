//! A NetworkPolicy comes and goes: the same questions before, during and after.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::checks::Checks;
use super::matrix::{Asker, Matrix, askers};
use crate::lab::error::LabError;
use crate::lab::objects::ensure;
use crate::lab::patience::{patience, until};
use crate::lab::probes::{Probe, Question, ask_all};
use crate::lab::report::{Cell, Screen, Step, Tone};
use crate::lab::spec::{OTHER_PORT, POD_NAMESPACE, SERVED_PORT};
use crate::lab::up::{Cluster, Lab};

const POLICY: &str = "only-clients";
const QUESTION: Question = Question::Tcp(SERVED_PORT);

pub(super) async fn show(
    lab: &Lab,
    cluster: &Cluster,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    let client = cluster.pods.len().checked_sub(1);
    let (Some(target), Some(client)) = (cluster.pods.first(), client.filter(|client| *client > 0))
    else {
        return Ok(());
    };
    let Some(client_pod) = cluster.pods.get(client) else {
        return Ok(());
    };
    let (target_name, client_name) = (&target.plan.name, &client_pod.plan.name);
    screen.title(&format!("NetworkPolicy: {target_name} takes TCP {SERVED_PORT} from role=client alone, which is {client_name}"));

    let rows = || askers(lab, cluster);
    let before = Matrix::ask(lab, cluster, rows(), QUESTION).await;
    screen.line(&format!("  before, TCP {SERVED_PORT}:"));
    before.print(lab, cluster, screen, |_, _, outcome| {
        mark(outcome.reached(), false)
    });
    label(cluster, client_name, json!("client")).await?;
    let policies: Api<NetworkPolicy> = Api::namespaced(cluster.client.clone(), POD_NAMESPACE);
    let step = Step::begin(screen, "creating the policy");
    ensure(&policies, policy(target_name)).await?;
    let expected = |asker: Asker, pod: usize| {
        // A node always reaches its own pods: kubelet's probes must get through.
        pod != 0 || asker == Asker::Pod(client) || asker == Asker::Node(target.plan.node)
    };
    let during = settled(lab, cluster, expected).await;
    step.done("the policy is created and asked about");
    screen.line("  with it ([ ] marks a change):");
    during.print(lab, cluster, screen, |asker, pod, outcome| {
        let changed = before.reached(asker, pod) != Some(outcome.reached());
        mark(outcome.reached(), changed)
    });
    let wrong = differences(lab, cluster, &during, expected);
    let what =
        format!("only {client_name} and {target_name}'s own node reach it; nothing else changes");
    checks.none(&what, "just that", &wrong);
    closed_otherwise(lab, cluster, client, checks).await;

    let step = Step::begin(screen, "deleting the policy");
    let deleted = policies.delete(POLICY, &DeleteParams::default()).await;
    deleted
        .map(drop)
        .map_err(LabError::store(format!("delete NetworkPolicy {POLICY}")))?;
    label(cluster, client_name, Value::Null).await?;
    let after = settled(lab, cluster, |_, _| true).await;
    step.done("the policy is deleted and asked about");
    let wrong = differences(lab, cluster, &after, |_, _| true);
    checks.none("without it everything is open again", "all answers", &wrong);
    Ok(())
}

fn mark(reached: bool, changed: bool) -> Cell {
    match (reached, changed) {
        (true, false) => Cell::new(Tone::Good, "✓"),
        (false, false) => Cell::new(Tone::Bad, "✗"),
        (true, true) => Cell::new(Tone::Accent, "[✓]"),
        (false, true) => Cell::new(Tone::Accent, "[✗]"),
    }
}

fn policy(target: &str) -> Value {
    json!({
        "metadata": {"name": POLICY, "namespace": POD_NAMESPACE},
        "spec": {
            "podSelector": {"matchLabels": {"pod": target}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"role": "client"}}}],
                "ports": [{"protocol": "TCP", "port": SERVED_PORT}],
            }],
        },
    })
}

/// Sets the label `role` of a pod, or takes it away with null.
async fn label(cluster: &Cluster, pod: &str, role: Value) -> Result<(), LabError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), POD_NAMESPACE);
    let patch = json!({"metadata": {"labels": {"role": role}}});
    let done = pods
        .patch(pod, &PatchParams::default(), &Patch::Merge(&patch))
        .await;
    done.map(drop)
        .map_err(LabError::store(format!("label Pod {pod}")))
}

/// Asks until the answers are the expected ones or the time is over; gives the last answers.
async fn settled(lab: &Lab, cluster: &Cluster, expected: impl Fn(Asker, usize) -> bool) -> Matrix {
    let mut last = None;
    let logs = lab.logs();
    let asked = until("the policy in force", patience(10), &logs, || async {
        let matrix = Matrix::ask(lab, cluster, askers(lab, cluster), QUESTION).await;
        let wrong = differences(lab, cluster, &matrix, &expected);
        if wrong.is_empty() {
            Ok(matrix)
        } else {
            Err(wrong.join("; "))
        }
    });
    if let Ok(matrix) = asked.await {
        last = Some(matrix);
    }
    match last {
        Some(matrix) => matrix,
        None => Matrix::ask(lab, cluster, askers(lab, cluster), QUESTION).await,
    }
}

fn differences(
    lab: &Lab,
    cluster: &Cluster,
    matrix: &Matrix,
    expected: impl Fn(Asker, usize) -> bool,
) -> Vec<String> {
    let wrong = matrix
        .cells()
        .filter(|(asker, pod, outcome)| outcome.reached() != expected(*asker, *pod));
    let tell = wrong.map(|(asker, pod, outcome)| {
        let to = cluster.pods.get(pod).map_or("", |pod| &pod.plan.name);
        let word = if outcome.reached() {
            "is let through"
        } else {
            "is stopped"
        };
        format!("{} to {to} {word}", asker.name(lab, cluster))
    });
    tell.collect()
}

/// Even the client gets through on the one port only.
async fn closed_otherwise(lab: &Lab, cluster: &Cluster, client: usize, checks: &mut Checks) {
    let Some(target) = cluster.pods.first() else {
        return;
    };
    let namespace = Asker::Pod(client).namespace(lab, cluster);
    let questions = [
        ("a ping", Question::Ping),
        ("TCP on the other port", Question::Tcp(OTHER_PORT)),
        ("UDP on the same port", Question::Udp(SERVED_PORT)),
    ];
    let probes = questions.map(|(_, question)| Probe {
        namespace: namespace.clone(),
        to: target.address,
        question,
    });
    let outcomes = ask_all(probes.to_vec()).await;
    let through: Vec<String> = questions
        .iter()
        .zip(&outcomes)
        .filter(|(_, outcome)| outcome.reached())
        .map(|((word, _), _)| format!("{word} gets through"))
        .collect();
    let what = format!("the client's ping, TCP {OTHER_PORT} and UDP {SERVED_PORT} are stopped");
    checks.none(&what, "no answer", &through);
}

//! Who asks whom: the machines and pods of the lab as rows, its pods as columns.

use std::net::IpAddr;

use crate::lab::pods::RunningPod;
use crate::lab::probes::{Outcome, Probe, Question, ask_all};
use crate::lab::report::{Cell, Screen, Table};
use crate::lab::up::{Cluster, Lab};

/// Beyond so many pods a matrix is no longer readable, and only the words below it are printed.
const WIDEST: usize = 12;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A pod, by its index in [`Cluster::pods`].
    Pod(usize),
    /// A node, by its index in the plan.
    Node(usize),
    /// The host outside the cluster.
    Outside,
}

/// The rows of a lab, in order: pods, nodes, and outside where the fabric knows the pods.
pub(super) fn askers(lab: &Lab, cluster: &Cluster) -> Vec<Asker> {
    let pods = (0..cluster.pods.len()).map(Asker::Pod);
    let nodes = (0..lab.plan.nodes.len()).map(Asker::Node);
    let outside = lab.plan.spec.tor.speaks_bgp().then_some(Asker::Outside);
    pods.chain(nodes).chain(outside).collect()
}

impl Asker {
    pub(super) fn name(self, lab: &Lab, cluster: &Cluster) -> String {
        let name = match self {
            Asker::Pod(index) => cluster.pods.get(index).map(|pod| pod.plan.name.clone()),
            Asker::Node(index) => lab.plan.nodes.get(index).map(|node| node.host.name.clone()),
            Asker::Outside => Some(lab.plan.outside.name.clone()),
        };
        name.unwrap_or_default()
    }

    pub(super) fn namespace(self, lab: &Lab, cluster: &Cluster) -> String {
        let name = self.name(lab, cluster);
        match self {
            Asker::Pod(_) => lab.plan.pod_namespace(&name),
            Asker::Node(_) | Asker::Outside => lab.plan.namespace(&name),
        }
    }

    /// The node whose routes decide first, by its index; none for outside.
    pub(super) fn node(self, cluster: &Cluster) -> Option<usize> {
        match self {
            Asker::Pod(index) => cluster.pods.get(index).map(|pod| pod.plan.node),
            Asker::Node(index) => Some(index),
            Asker::Outside => None,
        }
    }
}

/// One asked cell; none where a pod would ask itself.
pub(super) type Row = Vec<Option<Outcome>>;

/// The outcomes, row by row.
#[derive(Debug, Clone)]
pub(super) struct Matrix {
    pub(super) askers: Vec<Asker>,
    pub(super) rows: Vec<Row>,
}

impl Matrix {
    /// Asks everyone about every pod, at the same time.
    pub(super) async fn ask(
        lab: &Lab,
        cluster: &Cluster,
        askers: Vec<Asker>,
        question: Question,
    ) -> Self {
        let mut probes = Vec::new();
        for asker in &askers {
            let namespace = asker.namespace(lab, cluster);
            for (index, pod) in cluster.pods.iter().enumerate() {
                if *asker != Asker::Pod(index) {
                    probes.push(Probe {
                        namespace: namespace.clone(),
                        to: pod.address,
                        question,
                    });
                }
            }
        }
        let mut outcomes = ask_all(probes).await.into_iter();
        let row = |asker: &Asker| -> Row {
            let columns = 0..cluster.pods.len();
            columns
                .map(|index| {
                    if *asker == Asker::Pod(index) {
                        None
                    } else {
                        outcomes.next()
                    }
                })
                .collect()
        };
        let rows = askers.iter().map(row).collect();
        Self { askers, rows }
    }

    /// Every asked cell: who, the pod's index, the outcome.
    pub(super) fn cells(&self) -> impl Iterator<Item = (Asker, usize, &Outcome)> {
        let rows = self.askers.iter().zip(&self.rows);
        rows.flat_map(|(asker, row)| {
            let cells = row.iter().enumerate();
            cells.filter_map(|(pod, outcome)| Some((*asker, pod, outcome.as_ref()?)))
        })
    }

    /// Whether the asker reached the pod of this index.
    pub(super) fn reached(&self, asker: Asker, pod: usize) -> Option<bool> {
        let row = self.askers.iter().position(|one| *one == asker)?;
        let outcome = self.rows.get(row)?.get(pod)?.as_ref()?;
        Some(outcome.reached())
    }

    /// Prints the matrix; `mark` makes a cell of who, whom and what came of it.
    pub(super) fn print(
        &self,
        lab: &Lab,
        cluster: &Cluster,
        screen: Screen,
        mark: impl Fn(Asker, usize, &Outcome) -> Cell,
    ) {
        if cluster.pods.len() > WIDEST {
            screen.line(&format!(
                "  ({} pods are too many for a table)",
                cluster.pods.len()
            ));
            return;
        }
        let heads = cluster.pods.iter().map(|pod| pod.plan.name.clone());
        let mut table = Table::matrix("from \\ to", heads);
        for (asker, row) in self.askers.iter().zip(&self.rows) {
            let mut cells: Vec<Cell> = vec![asker.name(lab, cluster).into()];
            cells.extend(row.iter().enumerate().map(|(pod, outcome)| match outcome {
                Some(outcome) => mark(*asker, pod, outcome),
                None => "·".into(),
            }));
            table.row(cells);
        }
        table.print(screen);
    }
}

/// The address of the pod of this index.
pub(super) fn address(pods: &[RunningPod], index: usize) -> Option<IpAddr> {
    pods.get(index).map(|pod| pod.address)
}

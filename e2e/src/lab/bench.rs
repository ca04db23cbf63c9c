//! `margayctl lab bench`: the figures of a lab, as a table or JSON.

use std::time::Duration;

use serde::Serialize;

use super::cluster::agent_name;
use super::demo::milliseconds;
use super::down::{self, Logs};
use super::error::LabError;
use super::latency::{median, route_latencies};
use super::process;
use super::report::{Align, Screen, Table};
use super::spec::PodPlan;
use super::state::{Folder, ProcessRecord};
use super::status::mebibytes;
use super::up::{self, Cluster, Ended, Lab};

/// How the bench is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The lab to measure.
    pub lab: up::Options,
    /// How often each thing is measured, at least 1.
    pub repeats: usize,
    /// JSON on standard output, and nothing else.
    pub json: bool,
}

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// From the write of an IPAMBlock to its route in a remote node's kernel, in milliseconds.
    pub route_latency_ms: Vec<f64>,
    /// CNI ADD, from the start of the plugin to its end, in milliseconds.
    pub cni_add_ms: Vec<f64>,
    /// CNI DEL, the same.
    pub cni_del_ms: Vec<f64>,
    /// Memory of each agent, in KiB.
    pub agent_rss_kib: Vec<u64>,
    /// Memory of the store, in KiB.
    pub store_rss_kib: Option<u64>,
    /// Nodes of the lab.
    pub nodes: usize,
    /// Pods of the lab while memory was looked at.
    pub pods: usize,
}

impl Figures {
    /// One line for each figure.
    pub fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("", Align::Left),
            ("median", Align::Right),
            ("least", Align::Right),
            ("most", Align::Right),
            ("n", Align::Right),
        ]);
        let times = [
            (
                "block written → route in a remote kernel",
                &self.route_latency_ms,
            ),
            ("CNI ADD", &self.cni_add_ms),
            ("CNI DEL", &self.cni_del_ms),
        ];
        for (name, values) in times {
            let times: Vec<Duration> = values
                .iter()
                .map(|ms| Duration::from_secs_f64(ms / 1000.0))
                .collect();
            let (least, most) = (times.iter().min(), times.iter().max());
            if let (Some(least), Some(most)) = (least, most) {
                let shown = [median(&times), *least, *most].map(|time| milliseconds(time).into());
                let count = times.len().to_string();
                table.row([name.into()].into_iter().chain(shown).chain([count.into()]));
            }
        }
        let mut memory = self.agent_rss_kib.clone();
        memory.sort_unstable();
        if let (Some(least), Some(most)) = (memory.first(), memory.last()) {
            let middle = memory.get(memory.len() / 2).copied().unwrap_or_default();
            let shown = [middle, *least, *most].map(|kib| mebibytes(kib).into());
            let count = memory.len().to_string();
            table.row(
                ["memory of an agent".into()]
                    .into_iter()
                    .chain(shown)
                    .chain([count.into()]),
            );
        }
        if let Some(kib) = self.store_rss_kib {
            table.row(["memory of the store".into(), mebibytes(kib).into()]);
        }
        table
    }
}

/// In milliseconds, to the microsecond.
fn in_milliseconds(times: &[Duration]) -> Vec<f64> {
    let rounded = |time: &Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    times.iter().map(rounded).collect()
}

/// Measures a running lab.
///
/// # Errors
/// When something that is measured does not work.
pub async fn measure(
    lab: &mut Lab,
    cluster: &Cluster,
    repeats: usize,
) -> Result<Figures, LabError> {
    let mut figures = Figures {
        nodes: lab.plan.nodes.len(),
        pods: cluster.pods.len(),
        ..Figures::default()
    };
    let memory = |record: &ProcessRecord| process::resident_kib(record.pid);
    let processes = &lab.ledger.state.processes;
    let agents = lab
        .plan
        .nodes
        .iter()
        .map(|node| agent_name(&node.host.name));
    figures.agent_rss_kib = agents
        .filter_map(|name| {
            processes
                .iter()
                .find(|record| record.name == name)
                .and_then(memory)
        })
        .collect();
    figures.store_rss_kib = processes
        .iter()
        .find(|record| record.name == process::STORE)
        .and_then(memory);

    let last = lab.plan.nodes.len() - 1;
    if last > 0 {
        let times = route_latencies(&cluster.client, &lab.plan, last, 0, repeats).await?;
        figures.route_latency_ms = in_milliseconds(&times);
    }
    let mut adds: Vec<Duration> = cluster.pods.iter().map(|pod| pod.add_time).collect();
    let mut deletes = Vec::new();
    for round in 0..repeats {
        let (add, delete) = add_and_delete(lab, cluster, round).await?;
        adds.push(add);
        deletes.push(delete);
    }
    figures.cni_add_ms = in_milliseconds(&adds);
    figures.cni_del_ms = in_milliseconds(&deletes);
    Ok(figures)
}

/// One more pod on each node in turn, without a server in it.
async fn add_and_delete(
    lab: &mut Lab,
    cluster: &Cluster,
    round: usize,
) -> Result<(Duration, Duration), LabError> {
    let pod = PodPlan {
        name: format!("extra-{round}"),
        app: "extra".to_owned(),
        node: round % lab.plan.nodes.len(),
    };
    let sandbox = cluster.runtime.sandbox(&mut lab.ledger, &pod).await?;
    let plugin = cluster.runtime.plugin(&pod);
    let (_, add) = tokio::task::block_in_place(|| plugin.add(&sandbox))?;
    let delete = cluster
        .runtime
        .stop(&mut lab.ledger, &pod, &sandbox)
        .await?;
    Ok((add, delete))
}

/// Brings a lab up, measures it, and ends it.
///
/// # Errors
/// What kept the lab from coming up or from being measured.
pub async fn bench(
    options: &Options,
    screen: Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Ended, LabError> {
    let screen = if options.json {
        screen.silenced()
    } else {
        screen
    };
    let (lock, plan) = up::prepare(&options.lab, screen)?;
    let folder = Folder::of(&plan.spec.name);
    let work = async {
        let mut lab = up::build(&options.lab, plan, screen).await?;
        let Some(cluster) = lab.cluster.clone() else {
            return Ok(Figures::default());
        };
        super::demo::wait_until_settled(&lab, &cluster, screen).await?;
        measure(&mut lab, &cluster, options.repeats.max(1)).await
    };
    let done: Option<Result<Figures, LabError>> = tokio::select! {
        biased;
        () = interrupted => None,
        done = work => Some(done),
    };
    let failed = matches!(done, Some(Err(_)));
    let logs = if failed { Logs::Keep } else { Logs::Remove };
    down::after_failure(&folder, logs, screen);
    drop(lock);
    match done {
        None => Ok(Ended::Interrupted),
        Some(figures) => {
            tell(&figures?, options.json, screen);
            Ok(Ended::Well)
        }
    }
}

fn tell(figures: &Figures, json: bool, screen: Screen) {
    if json {
        let text = serde_json::to_string_pretty(figures);
        screen.result(&text.unwrap_or_else(|error| error.to_string()));
    } else {
        screen.line("");
        figures.table().print(screen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_a_table() {
        let figures = Figures {
            route_latency_ms: vec![3.0, 1.0, 2.0],
            cni_add_ms: vec![10.0],
            agent_rss_kib: vec![2048, 1024],
            ..Figures::default()
        };
        let text = figures.table().render(Screen::plain()).join("\n");
        assert!(text.contains(" 2.0 ms   1.0 ms   3.0 ms  3"), "{text}");
        assert!(text.contains("2.0 MiB"), "{text}");
        assert!(!text.contains("DEL"), "{text}");
    }
}

//! The page.

use std::fmt::Write;
use std::time::Duration;

use crate::idle::{Bytes, Idle};
use crate::rounds::{Side, Turn};

/// Everything measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    reference: Vec<Turn>,
    margay: Vec<Turn>,
    pub(crate) changes: Bytes,
    pub(crate) idle: Vec<Idle>,
}

impl Results {
    pub(crate) fn of(&mut self, side: Side) -> &mut Vec<Turn> {
        match side {
            Side::Reference => &mut self.reference,
            Side::Margay => &mut self.margay,
        }
    }
}

/// What of a turn is looked at.
type Times = fn(&Turn) -> Vec<Duration>;

fn sorted(times: &[Duration]) -> Vec<f64> {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    times
}

fn median(times: &[Duration]) -> f64 {
    let times = sorted(times);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn spread(times: &[Duration]) -> String {
    let all = sorted(times);
    let (least, most) = (all.first(), all.last());
    format!(
        "{:.0} ({:.0}–{:.0})",
        median(times),
        least.copied().unwrap_or_default(),
        most.copied().unwrap_or_default()
    )
}

/// Whether a figure is where it should be.
fn verdict(good: bool) -> &'static str {
    if good { "yes" } else { "**no**" }
}

/// The page.
pub(crate) fn markdown(results: &Results) -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut text = format!(
        "# A genuine cluster, measured\n\nWritten by `make bench-cluster`: Linux {}, {processors} processors for all of it: etcd, kube-apiserver 1.20, controller-manager, scheduler, and three nodes with containerd, kubelet and kube-proxy.\n\n",
        kernel.trim()
    );
    text += "## Pods\n\nMilliseconds, median (least–most), by turns on one cluster. Compare within a run only.\n\n| | Margay | ptp + host-local | ratio of the medians | at most | reached |\n|---|---|---|---|---|---|\n";
    let all = |turns: &[Turn], of: Times| -> Vec<Duration> { turns.iter().flat_map(of).collect() };
    let rows: [(&str, Times); 3] = [
        (
            "a pod's creation to its first packet, one after the other",
            |turn| turn.first_packet.clone(),
        ),
        ("30 pods at once: to the last one's first packet", |turn| {
            vec![turn.last_packet]
        }),
        ("30 pods at once: until all are Ready", |turn| {
            vec![turn.ready]
        }),
    ];
    for (name, of) in rows {
        let (ours, theirs) = (all(&results.margay, of), all(&results.reference, of));
        let ratio = median(&ours) / median(&theirs).max(f64::MIN_POSITIVE);
        let _ = writeln!(
            text,
            "| {name} ({} times) | {} | {} | **{ratio:.2}x** | 1x | {} |",
            ours.len(),
            spread(&ours),
            spread(&theirs),
            verdict(ratio <= 1.0)
        );
    }
    text += "\n## A node on which nothing happens\n\nWith 10 pods on each, by the API server's audit log and `/proc`.\n\n| node | requests a minute, without watches | at most | reached | watches opened anew a minute | the requests were | agent's memory | of a processor |\n|---|---|---|---|---|---|---|---|\n";
    for idle in &results.idle {
        let _ = writeln!(
            text,
            "| {} | {:.2} | 2 | {} | {:.2} | {} | {:.1} MB | {:.2} % |",
            idle.node,
            idle.requests,
            verdict(idle.requests < 2.0),
            idle.watches,
            if idle.words.is_empty() {
                "none"
            } else {
                &idle.words
            },
            f64::from(u32::try_from(idle.memory_kib).unwrap_or(u32::MAX)) / 1000.0,
            idle.processor * 100.0
        );
    }
    let _ = writeln!(
        text,
        "\n## What an agent receives\n\nBytes of TCP payload (TLS included) from the API server, by the kernel's count of one agent's sockets.\n\n| for | bytes |\n|---|---|\n| a changed label of a pod, wherever it is | {:.0} |\n| a pod from its creation to Ready, wherever it is | {:.0} |\n",
        results.changes.label, results.changes.start
    );
    text + METHOD
}

const METHOD: &str = "\
## How

The cluster is that of `make test-cluster`. The sides take turns on it: in the reference's turns
nothing of Margay runs (its DaemonSet has no node and its Deployment no replicas), in Margay's the
reference's configuration is not there. Pods are of a static busybox that first of all asks a DNS
server beside the API server for the pod's own name: that question is the first packet, and the
time is from before the request that creates the pod (or the Deployment) to its arrival. It needs
no answer, so no route back has to be there. Ready is what kubelet reports, which looks at its
containers once a second. Processors are shared by everything, so what a network uses of them is in
all the times. Neither side has plugins after it (the chart's default has `portmap` and `bandwidth`
behind Margay, which cost each side the same). Margay gives each pod an address that etcd has on disk, a veth pair, routes and the
pod's policy in nftables; `ptp` with `host-local` an address in a file, a veth pair and routes.
";

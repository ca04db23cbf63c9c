//! The page.

use std::fmt::Write;
use std::time::Duration;

use margay_e2e::paired::{self, verdict};

use crate::idle::{Bytes, Controller, Idle};
use crate::rounds::{Side, Turn};
use crate::stages::Stages;

/// Everything measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    reference: Vec<Turn>,
    margay: Vec<Turn>,
    pub(crate) changes: Bytes,
    pub(crate) idle: Vec<Idle>,
    pub(crate) controller: Controller,
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

fn each(turn: &Turn, of: fn(&Stages) -> Duration) -> Vec<Duration> {
    turn.stages.iter().map(of).collect()
}

/// Ratios of turns: the middle one (of an even number the mean of two), the least and the most.
fn in_the_middle(mut ratios: Vec<f64>) -> String {
    ratios.sort_by(f64::total_cmp);
    let half = ratios.len() / 2;
    let around = [ratios.len().saturating_sub(1) / 2, half];
    let middle: f64 = around.iter().filter_map(|at| ratios.get(*at)).sum();
    let ends = (ratios.first(), ratios.last());
    format!(
        "{:.2}x in the middle ({:.2}–{:.2})",
        middle / 2.0,
        ends.0.copied().unwrap_or_default(),
        ends.1.copied().unwrap_or_default()
    )
}

/// The page.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = format!(
        "# A genuine cluster, measured\n\nWritten by `make bench-cluster`{}: {} for all of it: etcd, kube-apiserver 1.20, controller-manager, scheduler, and three nodes with containerd, kubelet and kube-proxy.\n\n",
        if cfg!(debug_assertions) {
            " **of an unoptimised build, whose times say nothing**"
        } else {
            ""
        },
        paired::machine()
    );
    text += "## Pods\n\nMilliseconds, median (least–most), by turns on one cluster. Compare within a run only.\n\n";
    text += paired::HEADING;
    let all = |of: Times| -> [Vec<Duration>; 2] {
        [&results.margay, &results.reference].map(|turns| turns.iter().flat_map(of).collect())
    };
    let rows: [(&str, Times); 3] = [
        (
            "a pod's creation to its first packet, one after the other",
            |turn| turn.first_packet.clone(),
        ),
        (
            "many pods at once: to the last one's first packet",
            |turn| vec![turn.last_packet],
        ),
        ("many pods at once: until all are Ready", |turn| {
            vec![turn.ready]
        }),
    ];
    for (name, of) in rows {
        let [ours, theirs] = all(of);
        let name = format!("{name} ({} times)", ours.len());
        text += &paired::row(&name, &ours, &theirs, 1.0, 0);
    }
    text += "\nWhole turns are fast or slow. Each of Margay's beside the reference's just before or after it, as the ratio of their medians:\n\n";
    for (name, of) in rows {
        let pairs = results.margay.iter().zip(&results.reference);
        let ratios = pairs.map(|(ours, theirs)| paired::ratio(&of(ours), &of(theirs)));
        let _ = writeln!(text, "- {name}: {}", in_the_middle(ratios.collect()));
    }
    let [ours, theirs] = all(|turn| turn.warming.clone());
    let _ = writeln!(
        text,
        "\nNot counted are the first three pods of each turn, on nodes whose network has just been changed: {} with Margay, {} with the reference.",
        paired::spread(&ours, 0),
        paired::spread(&theirs, 0)
    );
    text += "\n### Where the time to the first packet goes\n\nOf the pods one after the other, by containerd's log; medians, so that they need not add up.\n\n| | Margay | ptp + host-local |\n|---|---|---|\n";
    let stages: [(&str, Times); 4] = [
        (
            "from the request until kubelet asks for a sandbox",
            |turn| each(turn, |one| one.until_kubelet),
        ),
        (
            "the sandbox: its process, its namespaces, **the network's ADD**",
            |turn| each(turn, |one| one.sandbox),
        ),
        (
            "from then to the first packet: the container is made and started, the pod asks",
            |turn| each(turn, |one| one.packet),
        ),
        (
            "(from then until containerd has seen the container start)",
            |turn| each(turn, |one| one.container),
        ),
    ];
    for (name, of) in stages {
        let [ours, theirs] = all(of);
        let _ = writeln!(
            text,
            "| {name} | {} | {} |",
            paired::spread(&ours, 0),
            paired::spread(&theirs, 0)
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
            idle.words,
            f64::from(u32::try_from(idle.memory_kib).unwrap_or(u32::MAX)) / 1000.0,
            idle.processor * 100.0
        );
    }
    let controller = &results.controller;
    let _ = writeln!(
        text,
        "\nThe controllers, of which one leads, ask for the whole cluster {:.1} times a minute ({}) and open {:.1} watches. After that the counter was shown requests that are known, made as an agent on its node: it found each, and none on another node.",
        controller.requests, controller.words, controller.watches
    );
    let _ = writeln!(
        text,
        "\n## What an agent receives\n\nBytes of TCP payload (TLS included) from the API server, by the kernel's count of one agent's sockets, less what comes anyway: kubelets here report their nodes' status every five seconds.\n\n| for | bytes |\n|---|---|\n| a changed label of a pod, wherever it is | {:.0} |\n| a pod from its creation to Ready, wherever it is | {:.0} |\n",
        results.changes.label, results.changes.start
    );
    text + METHOD
}

const METHOD: &str = "\
## How

The cluster is that of `make test-cluster`. The sides take turns on it: in the reference's turns
nothing of Margay runs (its DaemonSet has no node and its Deployment no replicas), in Margay's the
reference's configuration is not there. A turn begins ten seconds after that, and each side comes
first in every other round. A pod is deleted once kubelet has said that it runs. Pods are of a static busybox that first of all asks a DNS
server beside the API server for the pod's own name: that question is the first packet, and the
time is from before the request that creates the pod (or the Deployment) to its arrival. It needs
no answer, so no route back has to be there. Ready is what kubelet reports, which looks at its
containers once a second. Processors are shared by everything, so what a network uses of them is in
all the times. Neither side has plugins after it (the chart's default has `portmap` and `bandwidth`
behind Margay, which cost each side the same). Margay gives each pod an address that etcd has on disk, a veth pair, routes and the
pod's policy in nftables; `ptp` with `host-local` an address in a file, a veth pair and routes.
";

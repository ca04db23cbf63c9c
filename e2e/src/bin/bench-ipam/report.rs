//! The page and the picture.

use std::fmt::Write;
use std::time::Duration;

use margay_e2e::paired::{self, ratio, verdict};
use serde_json::Value;

use crate::api::Counters;

/// Everything measured.
#[derive(Debug)]
pub(crate) struct Results {
    parallel: usize,
    pub(crate) margay_alone: Vec<Duration>,
    pub(crate) reference_alone: Vec<Duration>,
    pub(crate) margay_at_once: Vec<Duration>,
    pub(crate) reference_at_once: Vec<Duration>,
    pub(crate) requests_alone: Counters,
    pub(crate) pods_alone: usize,
    pub(crate) requests_at_once: Vec<Counters>,
    pub(crate) decision: Value,
}

impl Results {
    pub(crate) fn new(parallel: usize) -> Self {
        Self {
            parallel,
            margay_alone: Vec::new(),
            reference_alone: Vec::new(),
            margay_at_once: Vec::new(),
            reference_at_once: Vec::new(),
            requests_alone: Counters::default(),
            pods_alone: 0,
            requests_at_once: Vec::new(),
            decision: Value::Null,
        }
    }

    fn ratio_alone(&self) -> f64 {
        ratio(&self.margay_alone, &self.reference_alone)
    }

    fn ratio_at_once(&self) -> f64 {
        ratio(&self.margay_at_once, &self.reference_at_once)
    }

    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn requests_alone(&self) -> f64 {
        self.requests_alone.of_adds() as f64 / self.pods_alone.max(1) as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn requests_at_once(&self) -> f64 {
        let all: u64 = self.requests_at_once.iter().map(Counters::of_adds).sum();
        all as f64 / (self.parallel * self.requests_at_once.len()).max(1) as f64
    }

    fn micros(&self, what: &str, which: &str) -> f64 {
        self.decision[what][which].as_f64().unwrap_or_default()
    }

    #[expect(clippy::cast_precision_loss, reason = "in MB")]
    fn megabytes(&self) -> f64 {
        self.decision["viewBytes"].as_u64().unwrap_or_default() as f64 / 1e6
    }
}

/// The page.
pub(crate) fn markdown(results: &Results) -> String {
    let mut text = format!(
        "# Addresses, measured\n\nWritten by `make bench-ipam`: {}, kube-apiserver and etcd on the same machine.\n\n![Ratios to ptp and host-local](ipam.svg)\n\n",
        paired::machine()
    );
    text += "## ADD: from the plugin's start to its result\n\nMilliseconds, median (least–most), by turns in one run. Compare within a run only.\n\n";
    text += paired::HEADING;
    let alone = format!("one alone ({} times)", results.margay_alone.len());
    text += &paired::row(
        &alone,
        &results.margay_alone,
        &results.reference_alone,
        0.7,
        1,
    );
    let at_once = format!(
        "{} at once, in total ({} times)",
        results.parallel,
        results.margay_at_once.len()
    );
    text += &paired::row(
        &at_once,
        &results.margay_at_once,
        &results.reference_at_once,
        0.5,
        1,
    );
    let (alone, at_once) = (results.requests_alone(), results.requests_at_once());
    text += "\n## Requests to the API server, by its own count\n\n| | requests a pod | at most | reached |\n|---|---|---|---|\n";
    let _ = writeln!(
        text,
        "| one after the other ({}) | {alone:.2} | 1 | {} |",
        results.pods_alone,
        verdict(alone <= 1.0)
    );
    let _ = writeln!(
        text,
        "| {} at once ({} times) | {at_once:.2} | 0.2 | {} |",
        results.parallel,
        results.requests_at_once.len(),
        verdict(at_once <= 0.2)
    );
    let _ = writeln!(
        text,
        "\nEverything counted meanwhile: one after the other {}; at once, first time {}.\n",
        results.requests_alone.words(),
        results
            .requests_at_once
            .first()
            .map(Counters::words)
            .unwrap_or_default()
    );
    let (nodes, blocks) = (&results.decision["nodes"], &results.decision["blocks"]);
    let _ = writeln!(
        text,
        "## The decision, with {nodes} nodes and {blocks} blocks known\n\n| microseconds | median | p99 | at most | reached |\n|---|---|---|---|---|"
    );
    for (key, name) in [
        ("decision", "an address of an own block"),
        ("dualStack", "one of each family"),
        ("claim", "a block to claim"),
        ("borrow", "a block to borrow from"),
    ] {
        let (middle, high) = (
            results.micros(key, "p50Micros"),
            results.micros(key, "p99Micros"),
        );
        let _ = writeln!(
            text,
            "| {name} | {middle:.1} | {high:.1} | 50 | {} |",
            verdict(high < 50.0)
        );
    }
    let memory = results.megabytes();
    let _ = writeln!(
        text,
        "\nMemory for all of it: {memory:.1} MB (at most 30: {}).\n",
        verdict(memory < 30.0)
    );
    text + METHOD
}

/// The picture: two bars for each kind of ADD.
pub(crate) fn picture(results: &Results) -> String {
    let rows = [
        ("one ADD alone", results.ratio_alone(), 0.7),
        ("many ADDs at once", results.ratio_at_once(), 0.5),
    ];
    let mut body = String::new();
    for (index, (name, ratio, limit)) in rows.iter().enumerate() {
        let y = 60 + index * 56;
        let width = (ratio * 400.0).clamp(1.0, 560.0);
        let _ = write!(
            body,
            "<text x=\"20\" y=\"{0}\" font-weight=\"bold\">{name}</text><rect x=\"170\" y=\"{1}\" width=\"{width:.0}\" height=\"14\" fill=\"#1f7a4d\"/><text x=\"{2:.0}\" y=\"{0}\">{ratio:.2}</text><rect x=\"170\" y=\"{3}\" width=\"400\" height=\"14\" fill=\"#b9b4a7\"/><text x=\"576\" y=\"{4}\">ptp + host-local</text><line x1=\"{5:.0}\" y1=\"{6}\" x2=\"{5:.0}\" y2=\"{7}\" stroke=\"#a33\" stroke-dasharray=\"3 3\"/>",
            y + 11,
            y,
            174.0 + width,
            y + 18,
            y + 29,
            170.0 + limit * 400.0,
            y - 4,
            y + 36,
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 740 180\" font-family=\"sans-serif\" font-size=\"11\"><rect width=\"740\" height=\"180\" fill=\"#fff\"/><text x=\"20\" y=\"26\" font-size=\"15\">Time of a CNI ADD as a part of the reference plugins' in the same run</text><text x=\"20\" y=\"44\">shorter is better; dashed: where it should be at most</text>{body}</svg>\n"
    )
}

const METHOD: &str = "\
## How

A lab of one node (a network namespace with an agent and no router) whose objects are on a
kube-apiserver 1.20 with etcd 3.4, both on this machine. The Pod objects and the sandboxes'
namespaces are made before; then the plugin is executed as a container runtime does it, with its
configuration on standard input, and the time is that of the process from its start to its end.
Margay's is linked as in the image, without shared libraries; the others are written in Go. In
Margay's are the address (a write to etcd, with its fsync), the veth pair, the route, and the pod's
policy in nftables; in `ptp`'s are the address (a file), the veth pair and the routes: no policy and
no API server. The two sides take turns, and each ADD is followed by its DEL, which is not measured.

Requests are those of `apiserver_request_total` without watches, which are opened once, and without
what is written as time passes, whether or not pods start: NodeStatus, the controller's Lease and
IPPool status. What was counted is written out above.

The decision is the ipam crate's example `decision`: from the request to the block that is to be
written, 20,000 samples; memory is what the process grows by while it takes in the list of blocks.
";

//! What a node looks like to those who come after: links, addresses, routes, rules, neighbours
//! that are fixed, nftables, settings of the kernel, and files.

use std::collections::BTreeSet;

use margay_e2e::cluster::Cluster;
use margay_e2e::cluster::machine::Machine;

/// One node at one time: lines that a person can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    node: String,
    lines: BTreeSet<String>,
}

/// What is asked: a word for it, and a script that prints it without counters and times.
const QUESTIONS: [(&str, &str); 8] = [
    ("link", "ip -o link | cut -d: -f2 | cut -d@ -f1"),
    ("address", "ip -o addr | awk '{print $2, $3, $4}'"),
    (
        "route",
        "ip route show table all; ip -6 route show table all | sed 's/ expires [0-9]*sec//'",
    ),
    ("rule", "ip rule; ip -6 rule"),
    (
        "neighbour",
        "ip neigh show nud permanent; ip neigh show proxy",
    ),
    // Those of iptables are of whoever called it: kube-proxy, kubelet, portmap.
    (
        "table",
        "nft list tables | grep -vE '^table ip6? (filter|nat|mangle|raw|security)$' || true",
    ),
    (
        "margay in nft",
        "nft -s list ruleset | grep -i margay || true",
    ),
    (
        "sysctl",
        "cd /proc/sys/net; grep -rs . ipv4/ip_forward ipv4/conf/all ipv4/conf/default ipv4/conf/eth0 ipv6/conf/all ipv6/conf/default ipv6/conf/eth0 | grep -v stable_secret",
    ),
];

/// Folders whose files are of those who run pods, of the runtime's and other plugins' own
/// bookkeeping (`/var/lib/cni`), or of nobody.
const OTHERS: [&str; 6] = [
    "/var/lib/cni",
    "/var/log",
    "/tmp",
    "/var/lib/kubelet",
    "/root",
    "/etc/mtab",
];

impl Footprint {
    /// Of every node.
    pub fn of_all(cluster: &Cluster) -> anyhow::Result<Vec<Self>> {
        cluster
            .nodes
            .iter()
            .map(|node| Self::of(&node.machine))
            .collect()
    }

    fn of(machine: &Machine) -> anyhow::Result<Self> {
        let mut lines = BTreeSet::new();
        for (word, script) in QUESTIONS {
            let said = machine.run("sh", &["-c", script])?;
            lines.extend(said.lines().map(|line| format!("{word}: {}", line.trim())));
        }
        for (path, words) in machine.changes()? {
            if !OTHERS.iter().any(|other| path.starts_with(other)) {
                lines.insert(format!("file: {path} {words}"));
            }
        }
        // These are in memory, where no change is told.
        let said = machine.run(
            "sh",
            &[
                "-c",
                "ls -d /run/margay* /run/*/margay* 2>/dev/null || true",
            ],
        )?;
        lines.extend(said.lines().map(|line| format!("file: {line}")));
        Ok(Self {
            node: machine.name.clone(),
            lines,
        })
    }

    /// What one has and the other has not.
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let gone = self.lines.difference(&after.lines);
        let gone = gone.map(|line| format!("{}: gone: {line}", self.node));
        let new = after.lines.difference(&self.lines);
        let new = new.map(|line| format!("{}: new: {line}", self.node));
        gone.chain(new).collect()
    }
}

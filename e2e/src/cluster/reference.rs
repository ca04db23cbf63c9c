//! The cluster's network from Debian's reference plugins, `ptp` with `host-local`: what Margay is
//! measured against, and a network that asks nobody for anything.

use anyhow::Context;
use serde_json::json;

use super::Cluster;
use crate::lab::command::run;

/// Its file on the node, for a runtime that finds no other: the first by name is taken.
pub const CONFLIST: &str = "/etc/cni/net.d/20-reference.conflist";
/// The same in front of all others.
pub const FIRST: &str = "/etc/cni/net.d/00-reference.conflist";

/// Gives each node a range of the pods' space and writes its conflist.
///
/// # Errors
/// When a file cannot be written.
pub fn install(cluster: &Cluster, file: &str) -> anyhow::Result<()> {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let conflist = json!({
            "cniVersion": "0.4.0", "name": "reference",
            "plugins": [{
                "type": "ptp", "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": range(index)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        });
        node.machine.write(file, &conflist.to_string())?;
    }
    Ok(())
}

/// The addresses of a node's pods: not the space that BGP is about.
fn range(node: usize) -> String {
    format!("10.245.{}.0/24", node + 1)
}

/// Tells the fabric where the pods are, as an operator without BGP would.
///
/// # Errors
/// When `ip` refuses.
pub fn route(cluster: &Cluster) -> anyhow::Result<()> {
    let plan = &cluster.ground.lab.plan;
    for (index, node) in cluster.nodes.iter().enumerate() {
        let segment = plan.segment_of(index).context("a node on no segment")?;
        let ways = [
            (segment.tor.as_str(), node.address),
            ("router", segment.tor_end.ip()),
        ];
        for (machine, via) in ways {
            let (namespace, via) = (plan.namespace(machine), via.to_string());
            let range = range(index);
            run(
                "ip",
                &["-n", &namespace, "route", "replace", &range, "via", &via],
            )?;
        }
    }
    Ok(())
}

/// Takes the conflists away.
///
/// # Errors
/// When one cannot be removed.
pub fn remove(cluster: &Cluster, file: &str) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        let path = node.machine.path(file);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

//! The cluster's network from Debian's reference plugins, `ptp` with `host-local`: what Margay is
//! measured against, and a network that asks nobody for anything.

use anyhow::Context;
use serde_json::json;

use super::Cluster;

/// The name of the file in the node's `/etc/cni/net.d`.
pub const CONFLIST: &str = "/etc/cni/net.d/20-reference.conflist";

/// Gives each node a range of the pods' space and writes its conflist.
///
/// # Errors
/// When a file cannot be written.
pub fn install(cluster: &Cluster) -> anyhow::Result<()> {
    for (index, node) in cluster.nodes.iter().enumerate() {
        let conflist = json!({
            "cniVersion": "0.4.0", "name": "reference",
            "plugins": [{
                "type": "ptp", "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": format!("10.244.{}.0/24", index + 1)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }],
        });
        node.machine.write(CONFLIST, &conflist.to_string())?;
    }
    Ok(())
}

/// Takes the conflists away.
///
/// # Errors
/// When one cannot be removed.
pub fn remove(cluster: &Cluster) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        let path = node.machine.path(CONFLIST);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

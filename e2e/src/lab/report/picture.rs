//! The fabric as a tree of lines.

use crate::lab::spec::{CLUSTER_AS, Plan, ROUTER_AS};

/// The lines of the picture. `pods_of` gives what stands behind a node, by its index.
pub fn lines(plan: &Plan, pods_of: impl Fn(usize) -> String) -> Vec<String> {
    let bgp = plan.spec.tor.speaks_bgp();
    let asn = |number: u32| {
        if bgp {
            format!("AS {number}")
        } else {
            String::new()
        }
    };
    let mut lines = vec![
        format!(
            "  {:<8} {:<12} ─┐",
            plan.outside.name,
            plan.outside.address.ip()
        ),
        trim(format!(
            "  {:<8} {:<12} ─┴─ router  {}",
            plan.store.name,
            plan.store.address.ip(),
            asn(ROUTER_AS)
        )),
    ];
    let stem = " ".repeat(25);
    for (index, segment) in plan.segments.iter().enumerate() {
        let last = index + 1 == plan.segments.len();
        let (branch, trunk) = if last {
            ("└─", "  ")
        } else {
            ("├─", "│ ")
        };
        lines.push(trim(format!(
            "{stem} {branch} {}  {:<14} {}",
            segment.tor,
            segment.subnet.to_string(),
            asn(segment.as_number)
        )));
        let nodes: Vec<usize> = (0..plan.nodes.len())
            .filter(|node| {
                plan.nodes
                    .get(*node)
                    .is_some_and(|node| node.segment == index)
            })
            .collect();
        for (place, node) in nodes.iter().enumerate() {
            let Some(host) = plan.nodes.get(*node).map(|node| &node.host) else {
                continue;
            };
            let twig = if place + 1 == nodes.len() {
                "└─"
            } else {
                "├─"
            };
            lines.push(trim(format!(
                "{stem} {trunk}   {twig} {:<6} {:<11}  AS {CLUSTER_AS}  {}",
                host.name,
                host.address.ip(),
                pods_of(*node)
            )));
        }
    }
    lines
}

fn trim(line: String) -> String {
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::spec::{LabSpec, Tor};

    #[test]
    fn a_small_fabric() {
        let spec = LabSpec {
            name: "t".to_owned(),
            nodes: 3,
            segments: 2,
            tor: Tor::Bird,
            tors: 1,
            pods: 3,
        };
        let lines = lines(&spec.plan().unwrap(), |node| format!("web-{}", node + 1));
        let wanted = [
            "  outside  10.20.0.10   ─┐",
            "  store    10.10.0.10   ─┴─ router  AS 65000",
            "                          ├─ tor-a  10.10.1.0/24   AS 65001",
            "                          │    ├─ node1  10.10.1.11   AS 64512  web-1",
            "                          │    └─ node2  10.10.1.12   AS 64512  web-2",
            "                          └─ tor-b  10.10.2.0/24   AS 65002",
            "                               └─ node3  10.10.2.13   AS 64512  web-3",
        ];
        assert_eq!(lines, wanted);
    }
}

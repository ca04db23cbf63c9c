//! The cables and addresses of a lab: bridges in the ToRs, links between the routers, one `eth0`
//! in every host, and the static routes of the underlay.
//!
//! [`script`] is pure and says what `ip` is told; [`build`] makes the namespaces and tells it.
//! Pods' routes are none of its business: those are BGP's.

use std::process::Command;

use super::command::succeed;
use super::error::LabError;
use super::namespaces;
use super::spec::{Host, Plan, SecondTor, Segment};
use super::state::Ledger;

/// The bridge in a ToR that is its segment.
pub const BRIDGE: &str = "br0";
/// A ToR's interface to the router.
pub const UPLINK: &str = "up0";
/// A second ToR's interface to its segment; its port on the bridge is called as the ToR.
pub const SEGMENT_PORT: &str = "seg0";
/// The one interface of a host.
pub const HOST_INTERFACE: &str = "eth0";

/// What a machine that forwards is set to. Routers and nodes alike: a node without forwarding is
/// no node, and strict reverse-path filters would drop what arrives through a tunnel.
const FORWARDING: [(&str, &str); 3] = [
    ("ipv4/ip_forward", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
];

/// What one namespace's `ip -batch` is fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The machine.
    pub machine: String,
    /// The lines.
    pub lines: Vec<String>,
}

/// Everything `ip` is told, in order: the routers make the cables, then each host takes its end.
pub fn script(plan: &Plan) -> Vec<Script> {
    let mut scripts = vec![router(plan)];
    let segments = plan.segments.iter().enumerate();
    scripts.extend(segments.map(|(index, segment)| tor(plan, index, segment)));
    for segment in &plan.segments {
        scripts.extend(segment.second.iter().map(|one| second_tor(segment, one)));
    }
    let hosts = [&plan.store, &plan.outside].into_iter();
    let hosts = hosts.chain(plan.nodes.iter().map(|node| &node.host));
    scripts.extend(hosts.map(host));
    scripts
}

fn cable(plan: &Plan, end: &str, far_end: &str, machine: &str) -> String {
    let namespace = plan.namespace(machine);
    format!("link add {end} type veth peer name {far_end} netns {namespace}")
}

fn router(plan: &Plan) -> Script {
    let mut lines = Vec::new();
    for segment in &plan.segments {
        let tor = &segment.tor;
        lines.push(cable(plan, tor, UPLINK, tor));
        lines.push(format!("addr add {} dev {tor}", segment.router_end));
        lines.push(format!("link set {tor} up"));
        // The carrier comes with the other end; the route does not wait for it.
        let via = segment.tor_end.ip();
        lines.push(format!("route add {} via {via} dev {tor}", segment.subnet));
    }
    for second in plan.segments.iter().filter_map(|one| one.second.as_ref()) {
        let name = &second.name;
        lines.push(cable(plan, name, UPLINK, name));
        lines.push(format!("addr add {} dev {name}", second.router_end));
        lines.push(format!("link set {name} up"));
    }
    for host in [&plan.store, &plan.outside] {
        let name = &host.name;
        let prefix = host.address.prefix();
        lines.push(cable(plan, name, HOST_INTERFACE, name));
        lines.push(format!("addr add {}/{prefix} dev {name}", host.gateway));
        lines.push(format!("link set {name} up"));
    }
    Script {
        machine: "router".to_owned(),
        lines,
    }
}

fn tor(plan: &Plan, index: usize, segment: &Segment) -> Script {
    let mut lines = vec![format!("addr add {} dev {UPLINK}", segment.tor_end)];
    lines.push(format!("link set {UPLINK} up"));
    let via = segment.router_end.ip();
    lines.push(format!("route add default via {via} dev {UPLINK}"));
    lines.push(format!("link add {BRIDGE} type bridge"));
    let prefix = segment.subnet.prefix();
    lines.push(format!(
        "addr add {}/{prefix} dev {BRIDGE}",
        segment.gateway
    ));
    lines.push(format!("link set {BRIDGE} up"));
    for node in plan.nodes.iter().filter(|node| node.segment == index) {
        let name = &node.host.name;
        lines.push(cable(plan, name, HOST_INTERFACE, name));
        lines.push(format!("link set {name} master {BRIDGE} up"));
    }
    if let Some(second) = &segment.second {
        let name = &second.name;
        lines.push(cable(plan, name, SEGMENT_PORT, name));
        lines.push(format!("link set {name} master {BRIDGE} up"));
    }
    Script {
        machine: segment.tor.clone(),
        lines,
    }
}

fn second_tor(segment: &Segment, second: &SecondTor) -> Script {
    let via = second.router_end.ip();
    let prefix = segment.subnet.prefix();
    let address = second.address;
    Script {
        machine: second.name.clone(),
        lines: vec![
            format!("addr add {} dev {UPLINK}", second.tor_end),
            format!("link set {UPLINK} up"),
            format!("route add default via {via} dev {UPLINK}"),
            format!("addr add {address}/{prefix} dev {SEGMENT_PORT}"),
            format!("link set {SEGMENT_PORT} up"),
        ],
    }
}

fn host(host: &Host) -> Script {
    Script {
        machine: host.name.clone(),
        lines: vec![
            format!("addr add {} dev {HOST_INTERFACE}", host.address),
            format!("link set {HOST_INTERFACE} up"),
            format!(
                "route add default via {} dev {HOST_INTERFACE}",
                host.gateway
            ),
        ],
    }
}

/// Makes every namespace and everything between them.
///
/// # Errors
/// When `ip` refuses something; what was made is in the ledger.
pub fn build(ledger: &mut Ledger, plan: &Plan) -> Result<(), LabError> {
    for machine in plan.machines() {
        let namespace = plan.namespace(&machine);
        ledger.make_namespace(&namespace)?;
        let is_end_host = machine == plan.store.name || machine == plan.outside.name;
        if !is_end_host {
            namespaces::set_sysctls(&namespace, &FORWARDING)?;
        }
    }
    for Script { machine, lines } in script(plan) {
        let mut command = Command::new("ip");
        command.args(["-n", &plan.namespace(&machine), "-batch", "-"]);
        let mut input = lines.join("\n");
        input.push('\n');
        succeed(command, Some(input.as_bytes()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::spec::{LabSpec, Tor};
    use super::*;

    #[test]
    fn the_fabric_of_a_small_lab() {
        let spec = LabSpec {
            name: "t".to_owned(),
            nodes: 2,
            segments: 2,
            tor: Tor::None,
            tors: 1,
            pods: 0,
        };
        let scripts = script(&spec.plan().unwrap());
        let of = |machine: &str| {
            let found = scripts.iter().find(|script| script.machine == machine);
            found.unwrap().lines.join("\n")
        };
        assert!(of("router").contains("link add tor-b type veth peer name up0 netns mgy-t-tor-b"));
        assert!(of("router").contains("route add 10.10.2.0/24 via 10.10.254.3 dev tor-b"));
        assert!(of("router").contains("addr add 10.20.0.1/24 dev outside"));
        assert!(of("tor-a").contains("route add default via 10.10.254.0 dev up0"));
        assert!(of("tor-a").contains("link set node1 master br0 up"));
        assert!(!of("tor-a").contains("node2"));
        assert!(of("node2").contains("addr add 10.10.2.12/24 dev eth0"));
        assert!(of("node2").contains("route add default via 10.10.2.1 dev eth0"));
    }
}

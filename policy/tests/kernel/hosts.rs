//! Host endpoints in the kernel: the router is the node, its uplink the endpoint, and the host outside its peer.

use std::process::Command;

use margay_policy::{
    RuleId,
    model::{Direction, PolicyKind, PolicyRef},
    writer::{Netlink, Writer},
};

use crate::{
    cases::{Case, run},
    lab::{Exchange, Lab, NODE, NODE_V6, OUTSIDE, nft, privileged, within},
};

/// The node's uplink.
const UPLINK: &str = "{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up, labels: {role: node}}, \
    spec: {node: n1, interfaceName: up0, expectedIPs: [192.0.2.1, '2001:db8::1'], ports: [{name: web, protocol: TCP, port: 80}]}}";

#[test]
fn netns_host_endpoints() {
    run(
        "netns_host_endpoints",
        &[
            // Another node's endpoint, and another interface's: nothing here.
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: other}, spec: {node: n2, interfaceName: '*'}}
---
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: another}, spec: {node: n1, interfaceName: eth7}}
",
                allowed: "outside 192.0.2.1 TCP/80, router 192.0.2.9 TCP/81, outside 2001:db8::1 UDP/53",
                denied: "",
            },
            // Without policies: failsafe ports and nothing else; what is forwarded and what is local passes.
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up}, spec: {node: n1, interfaceName: up0}}
",
                allowed: "outside 192.0.2.1 TCP/22, outside 2001:db8::1 TCP/22, outside 192.0.2.1 TCP/6443, router 192.0.2.9 TCP/6443, router 2001:db8::9 TCP/6443, \
                    router 192.0.2.9 UDP/53, router a TCP/80, router a6 TCP/80, a 192.0.2.1 TCP/80, a 2001:db8::1 TCP/80, outside a TCP/80, outside a6 UDP/53, a 192.0.2.9 TCP/81, \
                    a 2001:db8::9 TCP/81, a b TCP/80, router 192.0.2.1 TCP/80, router 2001:db8::1 TCP/81",
                denied: "outside 192.0.2.1 TCP/80, outside 2001:db8::1 TCP/81, outside 192.0.2.1 UDP/53, outside 2001:db8::1 UDP/53, router 192.0.2.9 TCP/80, router 2001:db8::9 TCP/81, \
                    router 192.0.2.9 TCP/22, router 192.0.2.9 UDP/4790, outside 192.0.2.1 SCTP/80",
            },
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up, labels: {role: node}}, spec: {node: n1, interfaceName: up0, ports: [{name: web, protocol: TCP, port: 80}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: node}, spec: {selector: \"role == 'node'\", \
  ingress: [{action: Log, protocol: UDP}, {action: Deny, protocol: TCP, source: {nets: ['2001:db8::9/128']}}, \
            {action: Allow, protocol: TCP, source: {selector: \"place == 'outside'\"}, destination: {ports: [web]}}], \
  egress: [{action: Allow, protocol: TCP, destination: {nets: [192.0.2.0/24], ports: ['81:90']}}, {action: Allow, ipVersion: 6, destination: {notNets: ['2001:db8::8/128'], notPorts: [81]}, protocol: TCP}]}}
",
                allowed: "outside 192.0.2.1 TCP/80, outside 192.0.2.1 TCP/22, outside 2001:db8::1 TCP/22, router 192.0.2.9 TCP/81, router 2001:db8::9 TCP/80, router 192.0.2.9 UDP/53, \
                    outside a TCP/81, a 192.0.2.9 TCP/80, a 192.0.2.1 TCP/81, router b TCP/81",
                denied: "outside 192.0.2.1 TCP/81, outside 192.0.2.1 UDP/53, outside 2001:db8::1 TCP/80, router 192.0.2.9 TCP/80, router 2001:db8::9 TCP/81, router 2001:db8::9 UDP/4790",
            },
            // All interfaces at once; the one with an endpoint of its own has that one.
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: all, labels: {role: all}}, spec: {node: n1, interfaceName: '*'}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: node}, spec: {selector: \"role == 'all'\", types: [Ingress, Egress], \
  ingress: [{action: Allow, protocol: UDP}], egress: [{action: Allow, protocol: TCP, destination: {ports: [80]}}]}}
",
                allowed: "outside 192.0.2.1 UDP/53, outside 2001:db8::1 UDP/4790, outside 192.0.2.1 TCP/22, router 192.0.2.9 TCP/80, router 2001:db8::9 TCP/80, router a TCP/81, \
                    a 192.0.2.1 TCP/80, outside a TCP/80, a 192.0.2.9 TCP/81, router 192.0.2.1 TCP/81",
                denied: "outside 192.0.2.1 TCP/80, outside 2001:db8::1 TCP/80, router 192.0.2.9 TCP/81, router 2001:db8::9 TCP/81",
            },
            // Pods' policies say nothing about the node, and a policy about all endpoints does.
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: all}, spec: {node: n1, interfaceName: '*'}}
---
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up, labels: {role: node}}, spec: {node: n1, interfaceName: up0}}
---
{apiVersion: margay.dev/v1, kind: NetworkPolicy, metadata: {name: pods, namespace: x}, spec: {ingress: [{action: Allow}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: spaces}, spec: {namespaceSelector: \"has(team)\", ingress: [{action: Allow}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: every}, spec: {order: 1, ingress: [{action: Allow, protocol: TCP, destination: {ports: [81]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: open, namespace: x}, spec: {podSelector: {}, ingress: [{}]}}
",
                allowed: "outside 192.0.2.1 TCP/81, outside 2001:db8::1 TCP/81, outside a TCP/81, outside a TCP/80, a b6 UDP/53",
                denied: "outside 192.0.2.1 TCP/80, outside 192.0.2.1 UDP/53, router 192.0.2.9 TCP/81",
            },
            // Forwarded traffic, only with applyOnForward; beside the pods' own policies.
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up, labels: {role: node}}, spec: {node: n1, interfaceName: up0}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: through}, spec: {selector: \"role == 'node'\", applyOnForward: true, order: 2, types: [Ingress], \
  ingress: [{action: Allow, protocol: TCP, destination: {selector: \"app in {'a', 'b'}\", ports: [80]}}, {action: Allow, protocol: UDP, destination: {notSelector: \"app == 'a'\"}}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: not-through}, spec: {selector: \"role == 'node'\", order: 1, ingress: [{action: Allow, protocol: TCP, destination: {ports: [81]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b, namespace: x}, spec: {podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {}}]}]}}
",
                allowed: "outside a TCP/80, outside a6 TCP/80, outside c UDP/53, outside c6 UDP/53, a 192.0.2.9 TCP/81, a 2001:db8::9 UDP/53, a b TCP/81, \
                    outside 192.0.2.1 TCP/81, router a TCP/81, c a TCP/81",
                denied: "outside a TCP/81, outside a6 TCP/81, outside c TCP/80, outside c6 TCP/80, outside b TCP/80, outside b6 TCP/80, outside b UDP/53, outside a UDP/53, outside a6 UDP/53, outside c SCTP/80",
            },
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up, labels: {role: node}}, spec: {node: n1, interfaceName: '*'}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: out}, spec: {selector: \"role == 'node'\", applyOnForward: true, types: [Egress], \
  egress: [{action: Deny, source: {selector: \"app == 'c'\"}}, {action: Allow, destination: {selector: \"place == 'outside'\"}, protocol: TCP}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: in}, spec: {selector: \"role == 'node'\", types: [Ingress], ingress: [{action: Allow}]}}
",
                allowed: "a 192.0.2.9 TCP/80, a 2001:db8::9 TCP/81, router 192.0.2.9 TCP/80, outside a TCP/80, outside c6 TCP/80, c a TCP/80, outside 192.0.2.1 TCP/80, c 192.0.2.1 TCP/80",
                denied: "c 192.0.2.9 TCP/80, c 2001:db8::9 TCP/80, a 192.0.2.9 UDP/53, b 2001:db8::9 UDP/53, a 192.0.2.9 SCTP/80, router 192.0.2.9 UDP/4790",
            },
            // Before connections are tracked: answers need rules of their own.
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up, labels: {role: node}}, spec: {node: n1, interfaceName: up0}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: fast}, spec: {selector: \"role == 'node'\", applyOnForward: true, doNotTrack: true, types: [Ingress, Egress], \
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}, {action: Allow, protocol: UDP, destination: {ports: [4790]}}, {action: Deny, protocol: TCP, destination: {ports: [22, 81]}}], \
  egress: [{action: Allow, protocol: UDP, source: {ports: [53]}}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: node}, spec: {selector: \"role == 'node'\", ingress: [{action: Allow, protocol: TCP}]}}
",
                allowed: "outside 192.0.2.1 UDP/53, outside 2001:db8::1 UDP/53, outside 192.0.2.1 TCP/80, outside 2001:db8::1 TCP/80, outside 192.0.2.1 TCP/22, router 192.0.2.9 UDP/53, \
                    router 192.0.2.9 TCP/6443, outside a TCP/80, outside a6 TCP/80, router a UDP/53",
                denied: "outside 192.0.2.1 UDP/4790, outside 2001:db8::1 UDP/4790, outside 192.0.2.1 TCP/81, outside 2001:db8::1 TCP/81, outside a TCP/81, outside a6 TCP/81, router 192.0.2.9 UDP/4790",
            },
            // What is allowed without tracking is not asked before destinations are translated.
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up, labels: {role: node}}, spec: {node: n1, interfaceName: up0}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: fast}, spec: {selector: \"role == 'node'\", applyOnForward: true, doNotTrack: true, types: [Ingress, Egress], \
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}], egress: [{action: Allow, protocol: UDP, source: {ports: [53]}}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: early}, spec: {selector: \"role == 'node'\", applyOnForward: true, preDNAT: true, types: [Ingress], \
  ingress: [{action: Deny, protocol: UDP}]}}
",
                allowed: "outside 192.0.2.1 UDP/53, outside 2001:db8::1 UDP/53, outside a TCP/80",
                denied: "outside 192.0.2.1 UDP/4790, outside 2001:db8::1 UDP/4790, outside a UDP/4790",
            },
            // Before destinations are translated: denied for all that comes in, also when it is forwarded.
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: HostEndpoint, metadata: {name: up, labels: {role: node}}, spec: {node: n1, interfaceName: up0, ports: [{name: web, protocol: TCP, port: 80}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: early}, spec: {selector: \"role == 'node'\", applyOnForward: true, preDNAT: true, types: [Ingress], \
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [web]}}, {action: Deny, protocol: TCP, destination: {ports: ['1:100']}}]}}
",
                allowed: "outside 192.0.2.1 TCP/80, outside 2001:db8::1 TCP/80, outside 192.0.2.1 TCP/22, outside a TCP/80, outside a6 TCP/80, outside a UDP/53, router a TCP/81, a b TCP/81, a 192.0.2.9 TCP/81",
                denied: "outside 192.0.2.1 TCP/81, outside 2001:db8::1 TCP/81, outside a TCP/81, outside a6 TCP/81, outside 192.0.2.1 UDP/53",
            },
        ],
    );
}

/// Loads another table into the router: what somebody else does with packets there.
fn beside(lab: &Lab, table: &str) {
    let router = lab.namespace("router");
    let done = Command::new("ip")
        .args(["netns", "exec", &router, "nft", table])
        .status()
        .unwrap();
    assert!(done.success(), "{table}");
}

#[test]
fn netns_host_endpoints_before_destination_nat() {
    if !privileged("netns_host_endpoints_before_destination_nat") {
        return;
    }
    let mut lab = Lab::new("dnat", &["a", "b"]);
    lab.load(UPLINK);
    lab.sync();
    // Port 8080 of the node is pod a's port 80, as a NodePort would be.
    for (family, pod) in [("ip", "10.77.0.1"), ("ip6", "[fd00:77::1]")] {
        beside(
            &lab,
            &format!(
                "add table {family} other; add chain {family} other pre {{ type nat hook prerouting priority -100; }}; \
                 add rule {family} other pre tcp dport 8080 dnat to {pod}:80"
            ),
        );
    }
    let policy = |extra: &str, rules: &str| {
        format!(
            "{{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {{name: {}}}, \
             spec: {{selector: \"role == 'node'\", applyOnForward: true{extra}, types: [Ingress], ingress: [{rules}]}}}}",
            if extra.is_empty() { "normal" } else { "early" }
        )
    };
    let (node, node6) = ("outside 192.0.2.1 TCP/8080", "outside 2001:db8::1 TCP/8080");
    lab.expect(
        &[node, node6, "outside a TCP/80"],
        &["outside 192.0.2.1 TCP/80"],
    );

    // Without NAT the rule about 8080 sees the pod's port.
    let deny = "{action: Deny, protocol: TCP, destination: {ports: [8080]}}, {action: Allow}";
    lab.load(&policy("", deny));
    lab.sync();
    lab.expect(&[node, node6, "outside a TCP/80"], &[]);
    lab.load(&policy(", preDNAT: true", deny));
    lab.sync();
    lab.expect(
        &["outside a TCP/80", "outside a6 TCP/80", "a b TCP/80"],
        &[node, node6],
    );

    // What is allowed before NAT is not asked after it.
    lab.load(&policy("", "{action: Deny}"));
    lab.load(&policy(
        ", preDNAT: true",
        "{action: Allow, protocol: TCP, source: {nets: [192.0.2.9/32, '2001:db8::9/128']}, destination: {nets: [192.0.2.1/32, '2001:db8::1/128'], ports: [8080]}}",
    ));
    lab.sync();
    lab.expect(
        &[
            node,
            node6,
            "a 192.0.2.9 TCP/80",
            "outside 192.0.2.1 TCP/22",
            "router a TCP/80",
        ],
        &[
            "outside a TCP/80",
            "outside a6 TCP/80",
            "outside 192.0.2.1 TCP/80",
        ],
    );
    // But the pod's own policy is.
    lab.policy(
        "a",
        "{podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 81}]}]}",
    );
    lab.sync();
    lab.expect(&["b a TCP/81"], &[node, node6]);
}

#[test]
fn netns_host_endpoints_judge_open_connections_anew() {
    if !privileged("netns_host_endpoints_judge_open_connections_anew") {
        return;
    }
    let mut lab = Lab::new("hopen", &["a", "b"]);
    lab.sync();
    let (node, outside) = (NODE.parse().unwrap(), OUTSIDE.parse().unwrap());
    let into = Exchange::open(&lab, "outside", node);
    let into6 = Exchange::open(&lab, "outside", NODE_V6.parse().unwrap());
    let out = Exchange::open(&lab, "router", outside);
    let through = Exchange::open(&lab, "outside", lab.address("a"));
    let pods = Exchange::open(&lab, "a", lab.address("b"));
    let local = Exchange::open(&lab, "router", lab.address("a"));
    let expect = |alive: &[&Exchange], cut: &[&Exchange]| {
        for (at, flow) in alive.iter().enumerate() {
            assert!(flow.is_alive(), "the one at {at} is cut");
        }
        for (at, flow) in cut.iter().enumerate() {
            assert!(!flow.is_alive(), "the one at {at} is not cut");
        }
    };
    expect(&[&into, &into6, &out, &through, &pods, &local], &[]);

    // An endpoint without policies closes the interface.
    lab.load(UPLINK);
    lab.sync();
    expect(&[&through, &pods, &local], &[&into, &into6, &out]);

    let policy = |name: &str, spec: &str| {
        format!(
            "{{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {{name: {name}}}, \
             spec: {{selector: \"role == 'node'\", {spec}}}}}"
        )
    };
    let open =
        "ingress: [{action: Allow, protocol: UDP}], egress: [{action: Allow, protocol: UDP}]";
    lab.load(&policy("open", open));
    lab.sync();
    expect(&[&into, &into6, &out, &through, &pods, &local], &[]);

    // What is forwarded.
    let deny = "applyOnForward: true, order: 1, types: [Ingress], ingress: [{action: Deny, destination: {selector: \"app == 'a'\"}}]";
    lab.load(&policy("through", deny));
    lab.sync();
    expect(&[&into, &into6, &out, &pods, &local], &[&through]);
    lab.cluster.remove_global_policy("through");
    lab.sync();
    expect(&[&through], &[]);

    // A pod's policy closes what a host endpoint lets through.
    lab.policy(
        "a",
        "{podSelector: {matchLabels: {app: a}}, ingress: [{ports: [{port: 81}]}]}",
    );
    lab.sync();
    expect(&[&into, &local], &[&through]);
    lab.cluster.remove_network_policy("x", "a");
    lab.sync();
    expect(&[&through], &[]);

    // Before destination NAT; and what is noted there is not asked later.
    let early = |action: &str| {
        let spec = format!(
            "applyOnForward: true, preDNAT: true, types: [Ingress], ingress: [{{action: {action}, protocol: UDP, destination: {{ports: [4790]}}}}]"
        );
        policy("early", &spec)
    };
    lab.load(&early("Deny"));
    lab.sync();
    expect(&[&out, &pods, &local], &[&into, &into6, &through]);
    lab.load(&early("Allow"));
    lab.load(&policy("open", "ingress: [{action: Deny}]"));
    lab.sync();
    expect(&[&into, &into6, &through, &pods, &local], &[&out]);
}

/// What a host endpoint's rules decide is counted and told as what pods' rules do; without tracking there is no connection.
#[test]
fn netns_host_endpoints_are_counted() {
    if !privileged("netns_host_endpoints_are_counted") {
        return;
    }
    let mut lab = Lab::new("hcount", &["a"]);
    lab.load(UPLINK);
    lab.load(
        "
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: fast}, spec: {selector: \"role == 'node'\", applyOnForward: true, doNotTrack: true, \
  ingress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}], egress: [{action: Allow, protocol: UDP, source: {ports: [53]}}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: node}, spec: {selector: \"role == 'node'\", order: 2, \
  ingress: [{action: Pass, protocol: UDP}, {action: Allow, protocol: TCP, destination: {ports: [80]}}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: try}, spec: {selector: \"role == 'node'\", order: 1, staged: true, \
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [80]}}]}}
",
    );
    lab.sync();
    let router = lab.namespace("router");
    let program = nft(&router);
    let netlink = within(&router, move || Netlink::open(program).unwrap());
    lab.expect(
        &["outside 192.0.2.1 UDP/53", "outside 192.0.2.1 TCP/80"],
        &["outside 192.0.2.1 TCP/81", "outside 192.0.2.1 UDP/4790"],
    );
    let tallies = netlink.tallies().unwrap();
    let packets = |word: &str, policy: &str, direction, rule| {
        let policy = PolicyRef::new(PolicyKind::GlobalNetworkPolicy, "", policy);
        let name = format!("host-{word}-{}", RuleId::of(&policy, direction, rule));
        tallies.get(&name).map_or(0, |tally| tally.packets)
    };
    assert_eq!(packets("untrack", "fast", Direction::Ingress, Some(0)), 1);
    assert_eq!(packets("untrack", "fast", Direction::Egress, Some(0)), 1);
    assert_eq!(packets("allow", "node", Direction::Ingress, Some(1)), 1);
    assert_eq!(packets("staged", "try", Direction::Ingress, Some(0)), 1);
    assert_eq!(packets("pass", "node", Direction::Ingress, Some(0)), 1);
    assert!(packets("deny", "node", Direction::Ingress, None) >= 1);
}

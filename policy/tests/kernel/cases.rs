//! Cases in the kernel: policies of every kind, and what gets through under each, with TCP, UDP and SCTP, IPv4 and IPv6.
//! A line is a case: `from to probe`.

use crate::lab::{Lab, privileged};

/// The world around the policies.
const WORLD: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {team: red}}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkSet, metadata: {name: out, labels: {place: outside}}, spec: {nets: [192.0.2.9/32, '2001:db8::9']}}
---
{apiVersion: margay.dev/v1, kind: NetworkSet, metadata: {name: far, namespace: x, labels: {place: far}}, spec: {nets: [198.51.100.0/24]}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: x, labels: {role: any}}}
---
{apiVersion: margay.dev/v1, kind: Tier, metadata: {name: early}, spec: {order: 5, defaultAction: Pass}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-1, namespace: x, labels: {kubernetes.io/service-name: s}}, addressType: IPv4,
  endpoints: [{addresses: [10.77.0.2]}], ports: [{name: web, port: 81, protocol: TCP}]}
";

pub(crate) struct Case {
    pub(crate) policies: &'static str,
    pub(crate) allowed: &'static str,
    pub(crate) denied: &'static str,
}

/// Runs cases one after the other in one lab with the pods a, b and c. Says how many questions were asked.
pub(crate) fn run(test: &str, cases: &[Case]) {
    if !privileged(test) {
        return;
    }
    let mut lab = Lab::new(&test[6..12], &["a", "b", "c"]);
    lab.load(WORLD);
    lab.sync();
    let empty = lab.cluster.clone();
    let mut count = 0;
    for case in cases {
        lab.cluster = empty.clone();
        lab.load(case.policies);
        lab.sync();
        let lines = |text: &'static str| -> Vec<&'static str> {
            text.split(',')
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect()
        };
        let (allowed, denied) = (lines(case.allowed), lines(case.denied));
        lab.expect(&allowed, &denied);
        count += allowed.len() + denied.len();
    }
    println!("{test}: {count} cases");
}

#[test]
fn netns_network_policies() {
    run(
        "netns_network_policies",
        &[
            Case {
                policies: "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {matchLabels: {app: b}}, \
                    ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{protocol: SCTP, port: 80}, {protocol: UDP}]}]}}",
                allowed: "a b SCTP/80, a b6 SCTP/80, a b UDP/53, a b6 UDP/53, a b UDP/4790, a c TCP/80, b a TCP/80, b c6 TCP/80, router b TCP/80",
                denied: "a b TCP/80, a b6 TCP/80, a b SCTP/81, a b6 SCTP/81, c b SCTP/80, c b UDP/53, c b6 UDP/53, outside b UDP/53",
            },
            Case {
                policies: "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {}, policyTypes: [Egress], \
                    egress: [{to: [{ipBlock: {cidr: 10.77.0.0/24, except: [10.77.0.3/32]}}], ports: [{port: 80, endPort: 81}]}, {to: [{ipBlock: {cidr: '2001:db8::/64'}}]}]}}",
                allowed: "a b TCP/80, a b TCP/81, c a TCP/80, a 2001:db8::9 TCP/80, a 2001:db8::9 UDP/53, outside c TCP/80, outside c6 TCP/81, a 192.0.2.1 TCP/80",
                denied: "a c TCP/80, b c TCP/81, a b6 TCP/80, a b UDP/53, a b SCTP/80, a 192.0.2.9 TCP/80, a 192.0.2.9 UDP/53",
            },
        ],
    );
}

#[test]
fn netns_cluster_network_policies() {
    run(
        "netns_cluster_network_policies",
        &[
            Case {
                policies: "
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: admin}, spec: {tier: Admin, priority: 10, subject: {namespaces: {matchLabels: {team: red}}}, \
  ingress: [{action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: a}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}, \
            {action: Pass, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: a}}}}], protocols: [{tcp: {destinationPort: {range: {start: 81, end: 90}}}}]}, \
            {action: Deny, from: [{namespaces: {}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 443}]}]}}
",
                allowed: "a b TCP/80, a b6 TCP/80, a c TCP/80, a c TCP/81, a c6 TCP/81, outside c TCP/80, outside c6 UDP/53, router b TCP/81",
                denied: "a b TCP/81, a b6 TCP/81, a b UDP/53, a b SCTP/80, a c UDP/53, a c SCTP/81, b a TCP/80, c a TCP/80, c b TCP/80, c b6 TCP/80, outside b TCP/80",
            },
            Case {
                policies: "
{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: base}, spec: {tier: Baseline, priority: 1, subject: {namespaces: {}}, \
  egress: [{action: Accept, to: [{networks: [10.77.0.2/32, 'fd00:77::2/128']}]}, {action: Deny, to: [{networks: [0.0.0.0/0, '::/0']}], protocols: [{tcp: {destinationPort: {number: 80}}}, {sctp: {destinationPort: {number: 80}}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {matchLabels: {app: c}}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}}
",
                allowed: "a b TCP/80, a b6 TCP/80, a b SCTP/80, a c TCP/81, a c UDP/53, c a TCP/80, c 192.0.2.9 TCP/80, c a6 TCP/80, a 192.0.2.9 UDP/53, outside a TCP/80",
                denied: "a c TCP/80, a c6 TCP/80, a c SCTP/80, a c6 SCTP/80, b a TCP/80, a 192.0.2.9 TCP/80, a 2001:db8::9 TCP/80, c a TCP/81, c b UDP/53, c a6 UDP/53",
            },
        ],
    );
}

#[test]
fn netns_own_policies() {
    run(
        "netns_own_policies",
        &[
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: early}, spec: {tier: early, order: 1, selector: \"app == 'b'\", types: [Ingress], \
  ingress: [{action: Deny, source: {selector: \"place == 'outside'\"}}, {action: Log, protocol: TCP}, {action: Allow, protocol: TCP, source: {selector: \"app starts with 'a'\", namespaceSelector: \"team == 'red'\"}, destination: {ports: [80]}}, \
            {action: Deny, protocol: TCP, destination: {notPorts: ['81:90']}}, {action: Pass, protocol: UDP}]}}
---
{apiVersion: margay.dev/v1, kind: NetworkPolicy, metadata: {name: late, namespace: x}, spec: {selector: \"app == 'b'\", ingress: [{action: Allow, protocol: UDP, source: {notSelector: \"app == 'c'\"}}, {action: Allow, protocol: TCP, destination: {ports: [81]}}]}}
",
                allowed: "a b TCP/80, a b6 TCP/80, a b TCP/81, c b TCP/81, c b6 TCP/81, a b UDP/53, a b6 UDP/53, a c TCP/80, outside a TCP/80, router b TCP/80",
                denied: "c b TCP/80, c b6 TCP/80, c b UDP/53, c b6 UDP/53, outside b TCP/80, outside b TCP/81, outside b6 TCP/81, outside b UDP/53, a b SCTP/80, a b6 SCTP/81",
            },
            Case {
                policies: "
{apiVersion: margay.dev/v1, kind: NetworkPolicy, metadata: {name: q, namespace: x}, spec: {selector: \"app in {'a', 'c'}\", types: [Egress], \
  egress: [{action: Allow, destination: {services: {name: s}}}, {action: Allow, ipVersion: 6, protocol: TCP, source: {selector: \"app == 'c'\"}, destination: {nets: ['fd00:77::/64'], notNets: ['fd00:77::1/128'], ports: [80]}}, \
           {action: Allow, notProtocol: TCP, destination: {serviceAccounts: {names: [default], selector: \"role == 'any'\"}}}, {action: Allow, destination: {selector: \"place == 'outside'\", namespaceSelector: global()}}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: try}, spec: {staged: true, order: 0, egress: [{action: Deny}], ingress: [{action: Deny}]}}
",
                allowed: "a b TCP/81, c b TCP/81, c b6 TCP/80, a b UDP/53, a b6 UDP/53, a b SCTP/80, a c SCTP/81, a 192.0.2.9 TCP/80, a 2001:db8::9 TCP/80, c 192.0.2.9 UDP/53, b a TCP/80, b c TCP/81, outside a TCP/80",
                denied: "a b TCP/80, a b6 TCP/80, a b6 TCP/81, c b TCP/80, c b6 TCP/81, c a6 TCP/80, a c TCP/81, a c6 TCP/80",
            },
        ],
    );
}

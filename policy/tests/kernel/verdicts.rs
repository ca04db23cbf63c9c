//! What gets through the kernel and what does not.

use std::net::{IpAddr, SocketAddr};

use margay_policy::{
    Pool,
    ruleset::{Command, Elements},
    writer::{Netlink, Writer},
};

use crate::lab::{Flow, Lab, NODE, OUTSIDE, OUTSIDE_V6, ask, nft, privileged, within};

#[test]
fn netns_a_policy_takes_effect_also_on_open_connections() {
    if !privileged("netns_a_policy_takes_effect_also_on_open_connections") {
        return;
    }
    let mut lab = Lab::new("policy", &["a", "b", "c"]);
    lab.sync();
    lab.expect(
        &[
            "a b TCP/80",
            "a b6 TCP/80",
            "a b UDP/53",
            "outside b TCP/81",
            "outside b6 TCP/81",
            "router b TCP/80",
            &format!("a {OUTSIDE} TCP/80"),
            &format!("a {OUTSIDE_V6} TCP/80"),
            &format!("a {NODE} TCP/80"),
        ],
        &[],
    );

    let mut flow = Flow::open(&lab, "c", lab.address("b"));
    let mut kept = Flow::open(&lab, "a", lab.address_v6("b"));
    assert!(flow.is_alive() && kept.is_alive());
    lab.policy(
        "b",
        "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], \
         ports: [{port: 80}, {port: 53, protocol: UDP}]}, {from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.9/32]}}], ports: [{port: 81}]}]}",
    );
    lab.sync();
    lab.expect(
        &[
            "a b TCP/80",
            "a b6 TCP/80",
            "a b UDP/53",
            "a b6 UDP/53",
            "a c TCP/80",
            "b a TCP/80",
            "router b TCP/80",
            "router b6 TCP/81",
            &format!("b {OUTSIDE} TCP/80"),
            "b b TCP/80",
        ],
        &[
            "a b TCP/81",
            "a b6 TCP/81",
            "c b TCP/80",
            "c b6 TCP/80",
            "outside b TCP/80",
            "outside b TCP/81",
            "outside b6 TCP/80",
        ],
    );
    assert!(
        !flow.is_alive(),
        "an open connection outlived its permission"
    );
    assert!(
        kept.is_alive(),
        "an open connection that is allowed was cut"
    );

    // The exception goes, then the whole policy.
    lab.policy("b", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 81}]}]}");
    lab.sync();
    lab.expect(
        &["outside b TCP/81"],
        &["a b TCP/80", "outside b TCP/80", "outside b6 TCP/81"],
    );
    lab.cluster.remove_network_policy("x", "b");
    lab.sync();
    lab.expect(&["c b TCP/80", "outside b TCP/80"], &[]);
    assert!(
        flow.recovers(),
        "an open connection that is allowed again stays cut"
    );
}

#[test]
fn a_label_change_is_one_element_and_takes_effect() {
    if !privileged("a_label_change_is_one_element_and_takes_effect") {
        return;
    }
    let mut lab = Lab::new("label", &["a", "b", "c"]);
    lab.policy("b", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}]}]}");
    lab.policy("more", "{podSelector: {matchLabels: {app: b}}, ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 80}]}]}");
    lab.sync();
    lab.expect(&["a b TCP/80"], &["c b TCP/80"]);
    lab.label("c", "a");
    let transaction = lab.sync();
    let mut elements = 0;
    for command in &transaction.commands {
        match command {
            Command::AddElements(_, Elements::Map(one)) if one.len() == 1 => elements += 1,
            // The generation, so that open connections are judged anew.
            Command::FlushChain(chain) | Command::AddRule(chain, _)
                if ["forward", "remember"].contains(&chain.as_str()) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(elements, 2, "one element per family");
    lab.expect(&["c b TCP/80", "c b6 TCP/81"], &[]);
    lab.label("c", "c");
    lab.sync();
    lab.expect(&["a b TCP/80"], &["c b TCP/80", "c b6 TCP/80"]);
}

#[test]
fn both_sides_must_agree_on_one_node() {
    if !privileged("both_sides_must_agree_on_one_node") {
        return;
    }
    let mut lab = Lab::new("both", &["a", "b", "c"]);
    lab.policy("out", "{podSelector: {matchLabels: {app: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}");
    lab.policy(
        "in",
        "{podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 81}]}]}",
    );
    lab.sync();
    lab.expect(
        &[
            "a c TCP/80",
            "c b TCP/81",
            "c a TCP/81",
            &format!("a {NODE} TCP/80"),
            "router a TCP/80",
        ],
        &[
            "a b TCP/80",
            "a b TCP/81",
            "a c TCP/81",
            "a c6 TCP/81",
            &format!("a {OUTSIDE} TCP/80"),
            &format!("a {OUTSIDE_V6} TCP/80"),
        ],
    );
}

#[test]
fn unknown_interfaces_and_foreign_sources_are_dropped() {
    if !privileged("unknown_interfaces_and_foreign_sources_are_dropped") {
        return;
    }
    let mut lab = Lab::new("spoof", &["a", "b", "late"]);
    let late = lab.input.endpoints.pop().unwrap();
    lab.sync();
    // The interface is there and routed, but no endpoint yet.
    let outside = format!("late {OUTSIDE} TCP/80");
    let node = format!("late {NODE} TCP/80");
    lab.expect(
        &["a b TCP/80"],
        &[
            "late b TCP/80",
            "late b6 TCP/80",
            &outside,
            &node,
            "a late TCP/80",
            "outside late TCP/80",
        ],
    );
    lab.input.endpoints.push(late);
    lab.sync();
    lab.expect(
        &[
            "late b TCP/80",
            "late b6 TCP/80",
            &outside,
            &node,
            "a late TCP/80",
        ],
        &[],
    );

    // An address that is not the pod's, with a route back: only the source check is in the way.
    let (pod, router) = (lab.namespace("a"), lab.namespace("router"));
    for words in [
        format!("-n {pod} addr add 10.77.0.99/32 dev eth0"),
        format!("-n {router} route add 10.77.0.99/32 dev mgya"),
    ] {
        assert!(
            std::process::Command::new("ip")
                .args(words.split_whitespace())
                .status()
                .unwrap()
                .success()
        );
    }
    let b = SocketAddr::new(lab.address("b"), 53);
    let from = |source: &str, to: SocketAddr| {
        let source: IpAddr = source.parse().unwrap();
        within(&pod, move || ask(Some(source), to))
    };
    assert_eq!(from("10.77.0.1", b).as_deref(), Some("10.77.0.1"));
    assert_eq!(from("10.77.0.99", b), None, "a spoofed source got through");
    assert_eq!(
        from("10.77.0.99", SocketAddr::new(NODE.parse().unwrap(), 53)),
        None,
        "to the node itself"
    );
    lab.input.endpoints[0]
        .addresses
        .push("10.77.0.99".parse().unwrap());
    lab.sync();
    assert_eq!(
        from("10.77.0.99", b).as_deref(),
        Some("10.77.0.99"),
        "the probe itself was wrong"
    );

    lab.expect(
        &["a b UDP/4790", "outside b UDP/4789"],
        &[
            "a b UDP/4789",
            &format!("a {OUTSIDE} UDP/4789"),
            &format!("a {NODE} UDP/4789"),
        ],
    );
}

#[test]
fn outgoing_nat_hides_pods_from_outside_only() {
    if !privileged("outgoing_nat_hides_pods_from_outside_only") {
        return;
    }
    let mut lab = Lab::new("nat", &["a", "b"]);
    lab.sync();
    let pod = lab.namespace("a");
    let seen = |to: IpAddr| {
        let answer = within(&pod, move || {
            (0..8).find_map(|_| ask(None, SocketAddr::new(to, 53)))
        });
        answer.unwrap_or_default()
    };
    let outside: IpAddr = OUTSIDE.parse().unwrap();
    let (b, b6) = (lab.address("b"), lab.address_v6("b"));
    assert_eq!(seen(outside), "10.77.0.1");
    for cidr in ["10.77.0.0/16", "fd00:77::/32"] {
        lab.input.pools.push(Pool {
            cidr: cidr.parse().unwrap(),
            nat_outgoing: true,
        });
    }
    lab.sync();
    assert_eq!(seen(outside), NODE);
    assert_eq!(seen(OUTSIDE_V6.parse().unwrap()), "2001:db8::1");
    assert_eq!(
        (seen(b), seen(b6)),
        ("10.77.0.1".to_owned(), "fd00:77::1".to_owned())
    );
    lab.input.node_addresses.insert(outside);
    lab.sync();
    assert_eq!(seen(outside), "10.77.0.1", "an exempted address");
    lab.input.node_addresses.clear();
    lab.input.tunnel_devices.insert("up0".to_owned());
    lab.sync();
    assert_eq!(seen(outside), "10.77.0.1", "through a tunnel device");
    lab.input.pools.clear();
    lab.sync();
    assert_eq!(seen(outside), "10.77.0.1");
}

#[test]
fn netns_a_connection_ends_with_its_address() {
    if !privileged("netns_a_connection_ends_with_its_address") {
        return;
    }
    let mut lab = Lab::new("forget", &["a", "b", "c"]);
    lab.sync();
    let (b, b6) = (lab.address("b"), lab.address_v6("b"));
    let mut flows = [
        Flow::open(&lab, "a", b),
        Flow::open(&lab, "a", b6),
        Flow::open(&lab, "b", lab.address("c")),
        Flow::open(&lab, "a", lab.address("c")),
    ];
    assert!(flows.iter_mut().all(Flow::is_alive));
    let router = lab.namespace("router");
    let program = nft(&router);
    let netlink = within(&router, move || Netlink::open(program).unwrap());
    let tracked = || netlink.tracked(100).unwrap().unwrap();
    assert!(tracked().is_superset(&[b, b6].into()), "{:?}", tracked());
    assert_eq!(netlink.tracked(1).unwrap(), None, "too many to name");
    // The kernel picks one address's connections out of thousands itself.
    let c = lab.address("c");
    within(&lab.namespace("a"), move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for port in 20_000..26_000 {
            let _ = socket.send_to(b"!", (c, port));
        }
    });
    assert_eq!(netlink.tracked(5_000).unwrap(), None);
    let own = Flow::open(&lab, "c", b);
    assert_eq!(netlink.forget(&[b].into()).unwrap(), 3);
    assert_eq!(netlink.forget(&[c].into()).unwrap() / 6_000, 1);
    drop(own);
    let mut flows = flows;
    flows[0] = Flow::open(&lab, "a", b);
    flows[2] = Flow::open(&lab, "b", c);
    flows[3] = Flow::open(&lab, "a", c);
    assert_eq!(
        netlink.forget(&[b, b6].into()).unwrap(),
        3,
        "one to it, one from it, one of the other family"
    );
    assert_eq!(netlink.forget(&[b].into()).unwrap(), 0);
    assert!(!tracked().contains(&b), "{:?}", tracked());
    // What is not tracked is judged like what is new.
    lab.policy(
        "b",
        "{podSelector: {matchLabels: {app: b}}, policyTypes: [Ingress, Egress]}",
    );
    lab.sync();
    let alive: Vec<bool> = flows.iter_mut().map(Flow::is_alive).collect();
    assert_eq!(alive, [false, false, false, true]);
}

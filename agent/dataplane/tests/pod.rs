//! Pods' links on the real kernel: two phases, both families, failures that leave nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::net::IpAddr;

use margay_dataplane::{
    Dataplane, DesiredRoutes, DesiredState, DesiredSysctls, NetlinkKernel, PodLink, SysctlTree,
    pod_link,
};
use support::{Namespace, join, privileged};

fn link(pod: &str, namespace: &Namespace, addresses: &[&str]) -> PodLink {
    let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
    let host_interface = format!("mgy{pod:0>11}");
    PodLink::new(host_interface, namespace.path(), "eth0", addresses, 1400)
}

fn routes(links: &[&PodLink]) -> DesiredRoutes {
    let mut routes = DesiredRoutes::new();
    for link in links {
        for (destination, kind) in link.host_routes() {
            routes.insert(destination, kind);
        }
    }
    routes
}

fn wire(node: &Namespace, link: &PodLink) {
    node.run(|| async {
        let kernel = NetlinkKernel::open().unwrap();
        pod_link::create(&kernel, &SysctlTree::default(), link)
            .await
            .unwrap();
    });
}

fn connect(node: &Namespace, links: &[&PodLink]) {
    node.run(|| async {
        let mut dataplane = Dataplane::new(NetlinkKernel::open().unwrap());
        let desired = DesiredState {
            sysctls: DesiredSysctls::for_node(true, true),
            routes: routes(links),
            ..DesiredState::default()
        };
        for link in links {
            pod_link::activate(dataplane.kernel(), link).await.unwrap();
        }
        let report = dataplane.apply(&desired).await;
        assert!(report.is_clean(), "{report}");
        assert!(dataplane.plan(&desired).await.unwrap().is_empty());
    });
}

#[test]
fn a_pod_is_dark_until_activated_and_then_reaches_node_and_pods() {
    if !privileged("a_pod_is_dark_until_activated_and_then_reaches_node_and_pods") {
        return;
    }
    let node = Namespace::new("pod", "node");
    let pods = [Namespace::new("pod", "a"), Namespace::new("pod", "b")];
    node.ip("addr add 192.0.2.1/32 dev lo");
    node.ip("addr add 2001:db8::1/128 dev lo");
    let a = link("a", &pods[0], &["10.1.0.2", "fd00:1::2"]);
    let b = link("b", &pods[1], &["10.1.0.3", "fd00:1::3"]);
    wire(&node, &a);
    wire(&node, &b);

    // Everything inside the pod is set up, but the node's end is down.
    let host = &node.ip_json(&format!("link show {}", a.host_interface))[0];
    assert_eq!(host["operstate"], "DOWN");
    assert!(!host["flags"].to_string().contains("\"UP\""), "{host}");
    assert_eq!(host["address"], "ee:ee:ee:ee:ee:ee");
    assert_eq!(host["mtu"], 1400);
    assert!(
        pods[0].cannot_ping("192.0.2.1"),
        "traffic before activation"
    );

    connect(&node, &[&a, &b]);
    for (namespace, targets) in [
        (
            &pods[0],
            ["192.0.2.1", "10.1.0.3", "fd00:1::3", "2001:db8::1"],
        ),
        (
            &pods[1],
            ["192.0.2.1", "10.1.0.2", "fd00:1::2", "2001:db8::1"],
        ),
        (&node, ["10.1.0.2", "10.1.0.3", "fd00:1::2", "fd00:1::3"]),
    ] {
        for target in targets {
            assert!(namespace.pings(target), "{} to {target}", namespace.name);
        }
    }
    inspect_pod_side(&pods[0]);
    inspect_host_side(&node, &a);
}

fn inspect_pod_side(pod: &Namespace) {
    let link = &pod.ip_json("link show eth0")[0];
    assert_eq!(link["mtu"], 1400);
    let routes = pod.ip("route show");
    assert_eq!(
        routes.split_whitespace().collect::<Vec<_>>().join(" "),
        "default via 169.254.1.1 dev eth0 169.254.1.1 dev eth0 scope link"
    );
    let route6 = pod.ip("-6 route show default");
    assert!(
        route6.contains("via fe80::ecee:eeff:feee:eeee dev eth0"),
        "{route6}"
    );
    let neighbours = pod.ip("neigh show");
    for gateway in ["169.254.1.1", "fe80::ecee:eeff:feee:eeee"] {
        let line = neighbours.lines().find(|line| line.starts_with(gateway));
        let line = line.unwrap_or_else(|| panic!("no {gateway} in {neighbours}"));
        assert!(
            line.contains("ee:ee:ee:ee:ee:ee") && line.contains("PERMANENT"),
            "{line}"
        );
    }
    let addresses = pod.ip("addr show dev eth0");
    assert!(addresses.contains("10.1.0.2/32") && addresses.contains("fd00:1::2/128"));
    assert!(!addresses.contains("tentative"), "{addresses}");
    assert_eq!(pod.sysctl("net/ipv6/conf/eth0/accept_ra"), "0");
}

fn inspect_host_side(node: &Namespace, link: &PodLink) {
    let host = &link.host_interface;
    let neighbours = node.ip(&format!("neigh show dev {host}"));
    for address in &link.addresses {
        let line = format!("{address} lladdr {} PERMANENT", link.pod_mac);
        assert!(neighbours.contains(&line), "{neighbours}");
    }
    let route = node.ip("route show 10.1.0.2");
    assert!(
        route.contains(host.as_str()) && route.contains("proto 90 scope link"),
        "{route}"
    );
    for (key, value) in [
        ("ipv4/conf/{}/forwarding", "1"),
        ("ipv4/conf/{}/proxy_arp", "1"),
        ("ipv4/conf/{}/rp_filter", "1"),
        ("ipv4/conf/{}/route_localnet", "0"),
        ("ipv4/neigh/{}/proxy_delay", "0"),
        ("ipv6/conf/{}/accept_ra", "0"),
    ] {
        let key = format!("net/{}", key.replace("{}", host));
        assert_eq!(node.sysctl(&key), value, "{key}");
    }
    // The gateway's link-local address really is on the node's end.
    let addresses = node.ip(&format!("-6 addr show dev {host}"));
    assert!(
        addresses.contains("fe80::ecee:eeff:feee:eeee"),
        "{addresses}"
    );
}

#[test]
fn without_the_permanent_entry_the_gateway_answers_arp() {
    if !privileged("without_the_permanent_entry_the_gateway_answers_arp") {
        return;
    }
    let node = Namespace::new("arp", "node");
    let pod = Namespace::new("arp", "pod");
    let outside = Namespace::new("arp", "out");
    join(&node, "eth0", &outside, "eth0");
    node.ip("addr add 192.0.2.1/24 dev eth0");
    node.ip("route add default via 192.0.2.254");
    let wiring = link("a", &pod, &["10.1.0.2"]);
    wire(&node, &wiring);
    connect(&node, &[&wiring]);
    pod.ip("neigh del 169.254.1.1 dev eth0");
    assert!(pod.pings("192.0.2.1"));
}

#[test]
fn check_names_what_differs_and_remove_is_idempotent() {
    if !privileged("check_names_what_differs_and_remove_is_idempotent") {
        return;
    }
    let node = Namespace::new("check", "node");
    let pod = Namespace::new("check", "pod");
    let wiring = link("a", &pod, &["10.1.0.2", "fd00:1::2"]);
    wire(&node, &wiring);
    connect(&node, &[&wiring]);
    let check = || {
        node.run(|| async {
            let kernel = NetlinkKernel::open().unwrap();
            let found = pod_link::check(&kernel, &wiring).await.unwrap();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        })
    };
    assert_eq!(check(), Vec::<String>::new());

    // The last address takes the routes with it.
    pod.ip("addr del 10.1.0.2/32 dev eth0");
    node.ip(&format!("link set {} mtu 1300", wiring.host_interface));
    let found = check().join("\n");
    for part in [
        "address 10.1.0.2 on eth0 in the pod is missing",
        "default route via 169.254.1.1 on eth0 in the pod is missing",
        "is 1300, should be 1400",
    ] {
        assert!(found.contains(part), "{found}");
    }

    for _ in 0..2 {
        node.run(|| async {
            let kernel = NetlinkKernel::open().unwrap();
            pod_link::remove(&kernel, &wiring.host_interface)
                .await
                .unwrap();
        });
    }
    assert!(!pod.ip("link show").contains("eth0"));
    let found = check().join("\n");
    assert!(found.contains("eth0 in the pod is missing"), "{found}");
}

#[test]
fn a_link_left_over_from_a_dead_sandbox_is_replaced() {
    if !privileged("a_link_left_over_from_a_dead_sandbox_is_replaced") {
        return;
    }
    let node = Namespace::new("stale", "node");
    let old = Namespace::new("stale", "old");
    let new = Namespace::new("stale", "new");
    node.ip("addr add 192.0.2.1/32 dev lo");
    wire(&node, &link("a", &old, &["10.1.0.2"]));
    let wiring = link("a", &new, &["10.1.0.9"]);
    wire(&node, &wiring);
    connect(&node, &[&wiring]);
    assert!(node.pings("10.1.0.9"));
    assert!(!old.ip("link show").contains("eth0"));
}

#[test]
fn a_failed_create_leaves_nothing() {
    if !privileged("a_failed_create_leaves_nothing") {
        return;
    }
    let node = Namespace::new("fail", "node");
    let pod = Namespace::new("fail", "pod");
    let try_create = |wiring: &PodLink| {
        node.run(|| async {
            let kernel = NetlinkKernel::open().unwrap();
            let result = pod_link::create(&kernel, &SysctlTree::default(), wiring).await;
            result.unwrap_err().to_string()
        })
    };
    let nothing = || {
        assert!(!node.ip("link show").contains("mgy"), "nothing on the node");
        assert!(!pod.ip("link show").contains("eth0@"), "nothing in the pod");
    };

    // Refused by the kernel after the pair is made: a multicast address.
    let error = try_create(&link("a", &pod, &["10.1.0.2", "ff02::7"]));
    assert!(!error.is_empty());
    nothing();

    let mut elsewhere = link("a", &pod, &["10.1.0.2"]);
    elsewhere.namespace = "/run/netns/mgy-dp-fail-nowhere".into();
    let error = try_create(&elsewhere);
    assert!(error.contains("mgy-dp-fail-nowhere"), "{error}");
    nothing();

    let mut own = link("a", &pod, &["10.1.0.2"]);
    own.namespace = node.path();
    let error = try_create(&own);
    assert!(error.contains("the node's own namespace"), "{error}");
    nothing();

    let mut file = link("a", &pod, &["10.1.0.2"]);
    file.namespace = "/etc/hostname".into();
    try_create(&file);
    nothing();

    let mut name = link("a", &pod, &["10.1.0.2"]);
    name.pod_interface = "a-name-far-too-long".into();
    let error = try_create(&name);
    assert!(error.contains("not an interface name"), "{error}");
    nothing();

    pod.ip("link add eth0 type bridge");
    let error = try_create(&link("a", &pod, &["10.1.0.2"]));
    assert!(error.contains("already exists"), "{error}");
    nothing();
    assert!(
        pod.ip("link show").contains("eth0"),
        "the other's eth0 stays"
    );
}

#[test]
fn forty_pods_are_wired_at_once() {
    if !privileged("forty_pods_are_wired_at_once") {
        return;
    }
    let node = Namespace::new("many", "node");
    node.ip("addr add 192.0.2.1/32 dev lo");
    let pods: Vec<Namespace> = (0..40)
        .map(|number| Namespace::new("many", &number.to_string()))
        .collect();
    let links: Vec<PodLink> = pods
        .iter()
        .enumerate()
        .map(|(number, pod)| link(&number.to_string(), pod, &[&format!("10.1.0.{number}")]))
        .collect();
    let begun = std::time::Instant::now();
    node.run(|| async {
        let kernel = NetlinkKernel::open().unwrap();
        let tree = SysctlTree::default();
        let all = links
            .iter()
            .map(|link| pod_link::create(&kernel, &tree, link));
        for result in futures::future::join_all(all).await {
            result.unwrap();
        }
    });
    eprintln!("40 pods created in {:?}", begun.elapsed());
    let all: Vec<&PodLink> = links.iter().collect();
    connect(&node, &all);
    eprintln!("and reachable in {:?}", begun.elapsed());
    for number in [1, 20, 39] {
        assert!(node.pings(&format!("10.1.0.{number}")));
    }
}

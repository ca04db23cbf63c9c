//! Tunnels on the real kernel: devices, their tables, and packets between two nodes that share
//! no segment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::net::IpAddr;

use margay_dataplane::{
    Dataplane, DesiredState, DesiredSysctls, Encapsulation, NetlinkKernel, Reach, RouteKind,
    TunnelMode, TunnelSpec, VxlanPeer, uplink, vtep_mac,
};
use support::{Namespace, join, privileged};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Two nodes with /32 addresses, each behind a router of its own, in both families.
struct Cluster {
    one: Namespace,
    two: Namespace,
    router: Namespace,
}

impl Cluster {
    fn new(test: &str) -> Self {
        let cluster = Self {
            one: Namespace::new(test, "one"),
            two: Namespace::new(test, "two"),
            router: Namespace::new(test, "router"),
        };
        let router = &cluster.router;
        router.output("sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (number, node) in [(1, &cluster.one), (2, &cluster.two)] {
            let port = format!("port{number}");
            join(router, &port, node, "eth0");
            node.ip(&format!("addr add 192.0.2.{number}/32 dev eth0"));
            node.ip("route add 169.254.0.1 dev eth0 scope link");
            node.ip(&format!(
                "route add default via 169.254.0.1 src 192.0.2.{number}"
            ));
            router.ip(&format!("addr add 169.254.0.1/32 dev {port}"));
            router.ip(&format!("route add 192.0.2.{number} dev {port}"));
            node.ip(&format!("addr add 2001:db8:{number}::1/64 dev eth0 nodad"));
            router.ip(&format!(
                "addr add 2001:db8:{number}::ff/64 dev {port} nodad"
            ));
            node.ip(&format!("route add default via 2001:db8:{number}::ff"));
            // A pod's addresses, on the loopback: wiring is tested elsewhere.
            node.ip(&format!("addr add 10.{number}.0.2/32 dev lo"));
            node.ip(&format!("addr add fd00:{number}::2/128 dev lo nodad"));
        }
        cluster
    }

    /// What node `own` wants when the other is `other`, over the underlay of `node`/`peer`.
    fn desired(own: u8, other: u8, local: IpAddr, peer: IpAddr) -> DesiredState {
        let mut desired = DesiredState {
            sysctls: DesiredSysctls::for_node(true, true),
            tunnels: vec![TunnelSpec::new(TunnelMode::Vxlan, local, 1500).unwrap()],
            vxlan_peers: vec![
                VxlanPeer::new(peer)
                    .with_next_hop(ip(&format!("192.0.2.{other}")))
                    .with_next_hop(ip(&format!("2001:db8:{other}::1"))),
            ],
            ..DesiredState::default()
        };
        let tunnel = |next_hop: String| RouteKind::Tunnel {
            device: TunnelMode::Vxlan.device().to_owned(),
            next_hops: vec![ip(&next_hop)],
        };
        desired.routes.insert_with_source(
            format!("10.{other}.0.0/26").parse().unwrap(),
            tunnel(format!("192.0.2.{other}")),
            Some(ip(&format!("10.{own}.0.2"))),
        );
        desired.routes.insert_with_source(
            format!("fd00:{other}::/122").parse().unwrap(),
            tunnel(format!("2001:db8:{other}::1")),
            Some(ip(&format!("fd00:{own}::2"))),
        );
        desired
    }
}

fn apply(node: &Namespace, desired: &DesiredState) -> String {
    node.run(|| async {
        let mut dataplane = Dataplane::new(NetlinkKernel::open().unwrap());
        let report = dataplane.apply(desired).await;
        assert!(report.is_clean(), "{report}");
        let again = dataplane.plan(desired).await.unwrap();
        assert!(again.is_empty(), "not settled:\n{again}");
        report.to_string()
    })
}

#[test]
fn nodes_that_share_no_segment_reach_each_other_through_vxlan() {
    if !privileged("nodes_that_share_no_segment_reach_each_other_through_vxlan") {
        return;
    }
    let cluster = Cluster::new("vxlan");
    let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
    let first = Cluster::desired(1, 2, a, b);
    apply(&cluster.one, &first);
    apply(&cluster.two, &Cluster::desired(2, 1, b, a));
    assert!(cluster.one.pings("10.2.0.2"));
    assert!(cluster.two.pings("10.1.0.2"));
    assert!(cluster.one.pings("fd00:2::2"), "IPv6 inside IPv4");

    let detail = cluster.one.ip("-d link show margay.vxlan");
    for part in [
        "vxlan id 4096",
        "local 192.0.2.1",
        "dstport 4789",
        "nolearning",
        "mtu 1450",
    ] {
        assert!(detail.contains(part), "{part} in {detail}");
    }
    let route = cluster.one.ip("route show 10.2.0.0/26");
    assert!(
        route.contains("via 192.0.2.2 dev margay.vxlan proto 90"),
        "{route}"
    );
    assert!(route.contains("onlink"), "{route}");
    let mac = vtep_mac(b).to_string();
    assert!(
        cluster
            .one
            .bridge("fdb show dev margay.vxlan")
            .contains(&format!("{mac} dst 192.0.2.2"))
    );
    repair_of_tables(&cluster, &first);
    peers_leave_and_the_device_goes(&cluster, first);
}

fn repair_of_tables(cluster: &Cluster, desired: &DesiredState) {
    let one = &cluster.one;
    let mac = vtep_mac(ip("192.0.2.2"));
    one.bridge(&format!("fdb del {mac} dev margay.vxlan dst 192.0.2.2"));
    one.bridge("fdb add 02:00:00:00:00:09 dev margay.vxlan dst 192.0.2.9");
    one.ip("neigh del 192.0.2.2 dev margay.vxlan");
    one.ip("link set margay.vxlan mtu 1300");
    one.output("sysctl -w net/ipv4/conf/margay.vxlan/rp_filter=1");
    let report = apply(one, desired);
    for line in [
        "link set margay.vxlan mtu 1450",
        "net/ipv4/conf/margay.vxlan/rp_filter = 0 (was 1)",
        &format!("set forwarding {mac} dst 192.0.2.2 dev margay.vxlan"),
        &format!("set neighbour 192.0.2.2 lladdr {mac} dev margay.vxlan"),
        "remove forwarding 02:00:00:00:00:09 dst 192.0.2.9",
    ] {
        assert!(report.contains(line), "{line} in\n{report}");
    }
    assert!(one.pings("10.2.0.2"));
}

fn peers_leave_and_the_device_goes(cluster: &Cluster, mut desired: DesiredState) {
    let one = &cluster.one;
    desired.vxlan_peers.clear();
    desired.routes = Default::default();
    apply(one, &desired);
    assert_eq!(
        one.ip("neigh show dev margay.vxlan nud permanent").trim(),
        ""
    );
    assert!(
        !one.bridge("fdb show dev margay.vxlan")
            .contains("192.0.2.2")
    );
    // A device with other attributes is made anew, with its routes and tables.
    one.ip("link del margay.vxlan");
    one.ip("link add margay.vxlan type vxlan id 7 dstport 4789");
    let report = apply(
        one,
        &Cluster::desired(1, 2, ip("192.0.2.1"), ip("192.0.2.2")),
    );
    assert!(report.contains("link recreate margay.vxlan"), "{report}");
    assert!(report.contains("vxlan id 7"), "{report}");
    assert!(one.pings("10.2.0.2"));
    apply(one, &DesiredState::default());
    assert!(!one.ip("link show").contains("margay.vxlan"));
}

#[test]
fn vxlan_runs_over_an_ipv6_underlay() {
    if !privileged("vxlan_runs_over_an_ipv6_underlay") {
        return;
    }
    let cluster = Cluster::new("vx6");
    let (a, b) = (ip("2001:db8:1::1"), ip("2001:db8:2::1"));
    apply(&cluster.one, &Cluster::desired(1, 2, a, b));
    apply(&cluster.two, &Cluster::desired(2, 1, b, a));
    assert!(
        cluster
            .one
            .ip("link show margay.vxlan")
            .contains("mtu 1430")
    );
    assert!(cluster.one.pings("10.2.0.2"));
    assert!(cluster.one.pings("fd00:2::2"));
}

#[test]
fn a_node_that_moves_onto_the_segment_is_routed_directly() {
    if !privileged("a_node_that_moves_onto_the_segment_is_routed_directly") {
        return;
    }
    let node = Namespace::new("cross", "node");
    let other = Namespace::new("cross", "other");
    join(&node, "eth0", &other, "eth0");
    node.ip("addr add 192.0.2.1/32 dev eth0");
    node.ip("route add 192.0.2.254 dev eth0");
    node.ip("route add default via 192.0.2.254");
    let step = || {
        node.run(|| async {
            let mut dataplane = Dataplane::new(NetlinkKernel::open().unwrap());
            let next_hop = ip("192.0.2.7");
            let reach = dataplane.reach(next_hop).await.unwrap();
            let kind = Encapsulation::CrossSubnet(TunnelMode::Vxlan)
                .route_kind(&[(next_hop, reach.clone())]);
            let mut desired = DesiredState {
                tunnels: vec![TunnelSpec::new(TunnelMode::Vxlan, ip("192.0.2.1"), 1500).unwrap()],
                vxlan_peers: vec![VxlanPeer::new(next_hop)],
                ..DesiredState::default()
            };
            desired.routes.insert("10.7.0.0/26".parse().unwrap(), kind);
            let report = dataplane.apply(&desired).await;
            assert!(report.is_clean(), "{report}");
            (reach, report.to_string())
        })
    };
    let (reach, report) = step();
    assert!(matches!(reach, Reach::Via { .. }), "{reach:?}");
    assert!(
        report.contains("route add 10.7.0.0/26 via 192.0.2.7 dev margay.vxlan onlink"),
        "{report}"
    );
    node.ip("route add 192.0.2.7 dev eth0 scope link");
    let (reach, report) = step();
    assert!(matches!(reach, Reach::OnLink { .. }), "{reach:?}");
    assert_eq!(report, "route replace 10.7.0.0/26 via 192.0.2.7 dev eth0\n");
}

#[test]
fn the_kernel_is_asked_for_its_tunnels_and_the_uplink_for_its_mtu() {
    if !privileged("the_kernel_is_asked_for_its_tunnels_and_the_uplink_for_its_mtu") {
        return;
    }
    let node = Namespace::new("probe", "node");
    let other = Namespace::new("probe", "other");
    join(&node, "eth0", &other, "eth0");
    node.ip("link set eth0 mtu 9000");
    node.ip("addr add 192.0.2.1/24 dev eth0");
    let ipip_by_hand = node
        .output("ip link add probe0 type ipip local 192.0.2.1 remote any")
        .status
        .success();
    node.output("ip link del probe0");
    node.run(|| async {
        let mut dataplane = Dataplane::new(NetlinkKernel::open().unwrap());
        for _ in 0..2 {
            assert!(dataplane.supports(TunnelMode::Vxlan).await.unwrap());
            assert_eq!(
                dataplane.supports(TunnelMode::Ipip).await.unwrap(),
                ipip_by_hand
            );
        }
        let uplink = uplink::find(dataplane.kernel(), ip("192.0.2.1"))
            .await
            .unwrap();
        assert_eq!((uplink.interface.as_str(), uplink.mtu), ("eth0", 9000));
        assert_eq!(uplink.pod_mtu(&[TunnelMode::Vxlan]).unwrap(), 8950);
        let error = uplink::find(dataplane.kernel(), ip("192.0.2.8"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("192.0.2.8"), "{error}");
    });
    assert!(
        !node.ip("link show").contains("margay"),
        "the probe left a device"
    );
}

/// Where the kernel has IPIP (a VM with Debian's kernel), packets pass through it; where it has
/// not, the error says so.
#[test]
fn ipip_carries_packets_or_says_that_the_kernel_cannot() {
    if !privileged("ipip_carries_packets_or_says_that_the_kernel_cannot") {
        return;
    }
    let cluster = Cluster::new("ipip");
    let desired = |own: u8, other: u8| {
        let local = ip(&format!("192.0.2.{own}"));
        let mut desired = DesiredState {
            sysctls: DesiredSysctls::for_node(true, false),
            tunnels: vec![TunnelSpec::new(TunnelMode::Ipip, local, 1500).unwrap()],
            ..DesiredState::default()
        };
        desired.routes.insert_with_source(
            format!("10.{other}.0.0/26").parse().unwrap(),
            RouteKind::Tunnel {
                device: TunnelMode::Ipip.device().to_owned(),
                next_hops: vec![ip(&format!("192.0.2.{other}"))],
            },
            Some(ip(&format!("10.{own}.0.2"))),
        );
        desired
    };
    let report = cluster.one.run(|| async {
        let mut dataplane = Dataplane::new(NetlinkKernel::open().unwrap());
        let supported = dataplane.supports(TunnelMode::Ipip).await.unwrap();
        (supported, dataplane.apply(&desired(1, 2)).await.to_string())
    });
    match report {
        (true, report) => {
            assert!(!report.contains("failed"), "{report}");
            apply(&cluster.one, &desired(1, 2));
            apply(&cluster.two, &desired(2, 1));
            assert!(cluster.one.ip("link show margay.ipip").contains("mtu 1480"));
            assert!(cluster.one.pings("10.2.0.2"));
        }
        (false, report) => {
            eprintln!("this kernel has no ipip: only the refusal is tested");
            assert!(report.contains("failed: link add margay.ipip"), "{report}");
            assert!(report.contains("not supported by this kernel"), "{report}");
            assert!(report.contains("failed: route add 10.2.0.0/26"), "{report}");
        }
    }
}

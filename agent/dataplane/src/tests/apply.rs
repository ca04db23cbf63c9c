//! Plans and their order, failures, repair, and what is left alone.

use super::*;

#[tokio::test]
async fn a_plan_prints_one_change_a_line_in_the_order_that_loses_no_packet() {
    let mut node = Node::new();
    assert_eq!(
        node.plan(&cluster()).await,
        "\
link add margay.vxlan type vxlan id 4096 dstport 4789 nolearning local 192.0.2.1 address 06:4d:c0:00:02:01 mtu 1450 up
sysctl net/ipv4/conf/margay.vxlan/rp_filter = 0
sysctl net/ipv4/ip_forward = 1 (was 0)
set neighbour 198.51.100.7 lladdr 06:4d:c6:33:64:07 dev margay.vxlan
set forwarding 06:4d:c6:33:64:07 dst 198.51.100.7 dev margay.vxlan
route add blackhole 10.1.0.0/26
route add 10.2.0.0/26 via 192.0.2.2 dev eth0
route add 10.7.0.0/26 via 198.51.100.7 dev margay.vxlan onlink
"
    );
    assert!(
        !node.kernel.dump().contains("margay"),
        "a plan changes nothing"
    );
}

#[tokio::test]
async fn applying_twice_changes_nothing_the_second_time() {
    let mut node = Node::new();
    let report = node.dataplane.apply(&cluster()).await;
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.changes.len(), 8);
    assert_eq!(node.apply(&cluster()).await, "");
    assert_eq!(
        node.kernel.dump(),
        "\
link lo mtu 65536 up
link eth0 mtu 1500 up
address 192.0.2.1/24 dev eth0
link margay.vxlan mtu 1450 up
route blackhole 10.1.0.0/26 proto 90
route 10.2.0.0/26 via 192.0.2.2 dev eth0 proto 90
route 10.7.0.0/26 via 198.51.100.7 dev margay.vxlan onlink proto 90
neighbour 198.51.100.7 lladdr 06:4d:c6:33:64:07 dev margay.vxlan
forwarding 06:4d:c6:33:64:07 dst 198.51.100.7 dev margay.vxlan
"
    );
}

#[tokio::test]
async fn what_is_no_longer_wanted_goes_routes_first_and_the_device_last() {
    let mut node = Node::new();
    node.apply(&cluster()).await;
    let mut desired = DesiredState::default();
    desired
        .routes
        .insert(net("10.7.0.0/27"), direct(&["192.0.2.7"]));
    desired
        .routes
        .insert(net("10.2.0.0/26"), RouteKind::Blackhole);
    assert_eq!(
        node.apply(&desired).await,
        "\
route replace blackhole 10.2.0.0/26
route add 10.7.0.0/27 via 192.0.2.7 dev eth0
route delete 10.1.0.0/26
route delete 10.7.0.0/26
link delete margay.vxlan
"
    );
}

#[tokio::test]
async fn a_lost_route_is_put_back_alone() {
    let mut node = Node::new();
    node.apply(&cluster()).await;
    assert!(node.kernel.lose_route(net("10.2.0.0/26")));
    assert_eq!(
        node.apply(&cluster()).await,
        "route add 10.2.0.0/26 via 192.0.2.2 dev eth0\n"
    );
}

#[tokio::test]
async fn one_refused_route_does_not_hold_up_the_others() {
    let mut node = Node::new();
    node.kernel.fail("route add 10.2.0.0/26", Errno::EPERM);
    let report = node.apply(&cluster()).await;
    assert!(
        report.contains(
            "# failed: route add 10.2.0.0/26 via 192.0.2.2 dev eth0: not permitted: the process lacks the capability CAP_NET_ADMIN"
        ),
        "{report}"
    );
    assert!(report.contains("\nroute add 10.7.0.0/26"), "{report}");
}

#[tokio::test]
async fn a_foreign_route_is_reported_and_neither_replaced_nor_removed() {
    let mut node = Node::new();
    let foreign = Route::new(net("10.2.0.0/26"), RouteTarget::Blackhole);
    node.kernel.add_foreign_route(foreign, 4);
    let report = node.apply(&cluster()).await;
    assert!(report.contains("a route of another owner"), "{report}");
    node.apply(&DesiredState::default()).await;
    let dump = node.kernel.dump();
    assert!(
        dump.contains("route blackhole 10.2.0.0/26 proto 4"),
        "{dump}"
    );
}

#[tokio::test]
async fn what_cannot_be_planned_says_why_and_the_route_in_the_kernel_stays() {
    let mut node = Node::new();
    let mut before = DesiredState::default();
    before
        .routes
        .insert(net("10.3.0.0/26"), direct(&["192.0.2.3"]));
    node.apply(&before).await;

    let mut desired = DesiredState::default();
    let routes = &mut desired.routes;
    let pod = RouteKind::Link {
        interface: "mgy0123456789a".into(),
    };
    routes.insert(net("10.1.0.5/32"), pod);
    routes.insert(net("10.2.0.0/26"), direct(&["203.0.113.9"]));
    routes.insert(net("10.3.0.0/26"), direct(&["203.0.113.9", "192.0.2.1"]));
    routes.insert(
        net("10.4.0.0/26"),
        tunnel(TunnelMode::Vxlan, &["203.0.113.9"]),
    );
    routes.insert(
        net("fd00::/122"),
        tunnel(TunnelMode::Ipip, &["203.0.113.9"]),
    );
    routes.insert(net("10.5.0.0/26"), direct(&[]));
    assert_eq!(
        node.plan(&desired).await,
        "\
# route 10.1.0.5/32: interface mgy0123456789a does not exist
# route 10.2.0.0/26: next hop 203.0.113.9 cannot be reached
# route 10.3.0.0/26: next hop 203.0.113.9 cannot be reached; next hop 192.0.2.1 is this node itself
# route 10.4.0.0/26: tunnel device margay.vxlan is not there and not among the wanted tunnels
# route 10.5.0.0/26: it has no next hop
# route fd00::/122: ipip carries IPv4 over IPv4 only: use vxlan for IPv6 pools
"
    );
    node.apply(&desired).await;
    assert!(node.kernel.dump().contains("10.3.0.0/26 via 192.0.2.3"));
}

#[tokio::test]
async fn ecmp_goes_on_over_the_next_hops_that_are_left() {
    let mut node = Node::new();
    let mut desired = DesiredState::default();
    desired.routes.insert(
        net("10.2.0.0/26"),
        direct(&["192.0.2.3", "203.0.113.9", "192.0.2.2"]),
    );
    assert_eq!(
        node.apply(&desired).await,
        "route add 10.2.0.0/26 nexthop via 192.0.2.2 dev eth0 nexthop via 192.0.2.3 dev eth0\n"
    );
}

#[tokio::test]
async fn a_device_with_other_attributes_is_made_anew_with_all_that_was_on_it() {
    let mut node = Node::new();
    node.apply(&cluster()).await;
    node.kernel
        .add_interface("eth1", 9000, Some(net("192.0.2.99/32")));
    let mut moved = cluster();
    moved.tunnels = vec![TunnelSpec::new(TunnelMode::Vxlan, ip("192.0.2.99"), 9000).unwrap()];
    let report = node.apply(&moved).await;
    assert!(report.starts_with("link recreate margay.vxlan"), "{report}");
    for line in [
        "(attributes were vxlan id 4096 dstport 4789 local 192.0.2.1 nolearning)",
        "set neighbour 198.51.100.7",
        "set forwarding 06:4d:c6:33:64:07",
        "route add 10.7.0.0/26 via 198.51.100.7 dev margay.vxlan onlink",
    ] {
        assert!(report.contains(line), "{line} in\n{report}");
    }
    assert!(!report.contains("10.2.0.0/26"), "{report}");
    assert_eq!(node.apply(&moved).await, "");
}

#[tokio::test]
async fn a_kernel_without_ipip_says_so_and_the_rest_is_applied() {
    let mut node = Node::new();
    node.kernel.without(TunnelMode::Ipip);
    assert!(!node.dataplane.supports(TunnelMode::Ipip).await.unwrap());
    assert!(node.dataplane.supports(TunnelMode::Vxlan).await.unwrap());
    let probes = node.kernel.log().len();
    assert!(!node.dataplane.supports(TunnelMode::Ipip).await.unwrap());
    assert_eq!(node.kernel.log().len(), probes, "asked once");

    let mut desired = cluster();
    desired.tunnels = vec![TunnelSpec::new(TunnelMode::Ipip, ip("192.0.2.1"), 1500).unwrap()];
    let kind = tunnel(TunnelMode::Ipip, &["198.51.100.7"]);
    desired.routes.insert(net("10.7.0.0/26"), kind);
    let report = node.apply(&desired).await;
    for line in [
        "# failed: link add margay.ipip type ipip local 192.0.2.1 remote any mtu 1480 up: not supported by this kernel",
        "# failed: route add 10.7.0.0/26 via 198.51.100.7 dev margay.ipip onlink: no such device: margay.ipip",
        "\nroute add 10.2.0.0/26",
    ] {
        assert!(format!("\n{report}").contains(line), "{line} in\n{report}");
    }
    let dump = node.kernel.dump();
    assert!(!dump.contains("margay."), "the probes left nothing: {dump}");
}

#[tokio::test]
async fn another_program_s_vxlan_in_the_way_is_named() {
    let mut node = Node::new();
    let mut theirs = TunnelSpec::new(TunnelMode::Vxlan, ip("192.0.2.1"), 1500).unwrap();
    theirs.name = "vxlan.calico".into();
    node.kernel.create_tunnel(&theirs).await.unwrap();
    let report = node.apply(&cluster()).await;
    assert!(
        report.contains("device vxlan.calico is vxlan id 4096"),
        "{report}"
    );
    assert!(report.contains("remove it"), "{report}");
}

#[tokio::test]
async fn a_pod_s_route_is_put_in_at_once_and_kept_by_the_next_apply() {
    let mut node = Node::new();
    node.apply(&cluster()).await;
    node.kernel.add_interface("mgy0123456789a", 1450, None);
    let mut pod = DesiredRoutes::new();
    for (destination, kind) in pod_link::host_routes("mgy0123456789a", &[ip("10.1.0.5")]) {
        pod.insert(destination, kind);
    }
    for _ in 0..2 {
        let report = node.dataplane.ensure_routes(&pod).await;
        assert!(report.is_clean(), "{report}");
    }
    let mut desired = cluster();
    for (destination, route) in pod.iter() {
        desired.routes.insert(*destination, route.kind.clone());
    }
    assert_eq!(node.apply(&desired).await, "");
}

#[tokio::test]
async fn next_hops_are_looked_up_once_until_invalidated() {
    let mut node = Node::new();
    for _ in 0..3 {
        node.dataplane.reach(ip("192.0.2.2")).await.unwrap();
    }
    let lookups = |node: &Node| {
        let log = node.kernel.log();
        log.iter().filter(|line| line.starts_with("lookup")).count()
    };
    assert_eq!(lookups(&node), 1);
    node.dataplane.invalidator().invalidate();
    node.dataplane.reach(ip("192.0.2.2")).await.unwrap();
    assert_eq!(lookups(&node), 2);
}

#[tokio::test]
async fn unnumbered_next_hops_come_with_their_interface() {
    let mut node = Node::new();
    let mut desired = DesiredState::default();
    let hop = |interface: &str| (ip("fe80::1"), interface.to_owned());
    let kind = RouteKind::Unnumbered {
        next_hops: vec![hop("eth0"), hop("eth7")],
    };
    desired.routes.insert(net("10.2.0.0/26"), kind);
    let kind = RouteKind::Unnumbered {
        next_hops: vec![hop("eth7")],
    };
    desired.routes.insert(net("10.3.0.0/26"), kind);
    assert_eq!(
        node.apply(&desired).await,
        "\
route add 10.2.0.0/26 via fe80::1 dev eth0
# failed: route 10.3.0.0/26: interface eth7 does not exist
"
    );
}

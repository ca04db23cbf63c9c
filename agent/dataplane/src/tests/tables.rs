//! The pure comparisons: routes, neighbours, tunnels, settings, and the fake's own refusals.

use proptest::prelude::*;

use super::super::{neighbours, routes};
use super::*;

#[test]
fn additions_and_replacements_come_before_deletions() {
    let hop = |gateway: &str| {
        RouteTarget::next_hops([NextHop {
            gateway: ip(gateway),
            interface: "eth0".into(),
            onlink: false,
            extra_weight: 0,
        }])
    };
    let actual = [
        Route::new(net("10.1.0.0/26"), RouteTarget::Blackhole),
        Route::new(net("10.2.0.0/26"), RouteTarget::Blackhole),
        Route::new(net("10.3.0.0/26"), RouteTarget::Blackhole),
    ];
    let desired = [
        Route::new(net("10.2.0.0/26"), hop("192.0.2.2")),
        Route::new(net("10.3.0.0/26"), RouteTarget::Blackhole),
        Route::new(net("10.9.0.0/26"), hop("192.0.2.9")),
    ];
    let changes = routes::diff(&desired, &actual);
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "route replace 10.2.0.0/26 via 192.0.2.2 dev eth0",
            "route add 10.9.0.0/26 via 192.0.2.9 dev eth0",
            "route delete 10.1.0.0/26",
        ]
    );
}

#[test]
fn a_route_of_ours_with_a_metric_of_its_own_is_another_route() {
    let mut odd = Route::new(net("10.1.0.0/26"), RouteTarget::Blackhole);
    odd.metric = 5;
    let plain = Route::new(net("10.1.0.0/26"), RouteTarget::Blackhole);
    let changes = routes::diff(std::slice::from_ref(&plain), &[odd]);
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "route add blackhole 10.1.0.0/26",
            "route delete 10.1.0.0/26 metric 5"
        ]
    );
}

#[test]
fn host_bits_of_a_destination_are_dropped() {
    let mut desired = DesiredRoutes::new();
    desired.insert(net("10.1.0.7/26"), RouteKind::Blackhole);
    desired.insert(net("10.1.0.9/26"), RouteKind::Blackhole);
    assert_eq!(desired.len(), 1);
    assert!(desired.remove(net("10.1.0.0/26")).is_some() && desired.is_empty());
}

prop_compose! {
    fn any_route()(octet in 0_u8..24, which in 0_u8..4, hop in 2_u8..6) -> Route {
        let target = match which {
            0 => RouteTarget::Blackhole,
            1 => RouteTarget::Link { interface: "eth0".into() },
            many => RouteTarget::next_hops((0..many - 1).map(|more| NextHop {
                gateway: IpAddr::from([192, 0, 2, hop + more]),
                interface: "eth0".into(),
                onlink: false,
                extra_weight: 0,
            })),
        };
        Route::new(IpNetwork::new(IpAddr::from([10, octet, 0, 0]), 26).unwrap(), target)
    }
}

fn by_key(all: Vec<Route>) -> Vec<Route> {
    let keyed: std::collections::BTreeMap<RouteKey, Route> =
        all.into_iter().map(|route| (route.key(), route)).collect();
    keyed.into_values().collect()
}

proptest! {
    /// Whatever there is and whatever is wanted: one apply gets there, a second has nothing to
    /// do, and no destination that is wanted before and after is ever without a route.
    #[test]
    fn applying_a_difference_gives_what_was_wanted(
        before in proptest::collection::vec(any_route(), 0..24),
        after in proptest::collection::vec(any_route(), 0..24),
    ) {
        let (before, after) = (by_key(before), by_key(after));
        let changes = routes::diff(&after, &before);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let kernel = FakeKernel::new();
        kernel.add_interface("eth0", 1500, Some(net("192.0.2.1/24")));
        runtime.block_on(async {
            let first = routes::diff(&before, &[]);
            for result in kernel.apply_routes(&first).await {
                result.unwrap();
            }
            for change in &changes {
                if let RouteChange::Delete(key) = change {
                    assert!(!after.iter().any(|route| route.key() == *key));
                }
            }
            for result in kernel.apply_routes(&changes).await {
                result.unwrap();
            }
            let now = by_key(kernel.routes().await.unwrap());
            assert_eq!(now, after);
            assert!(routes::diff(&after, &now).is_empty());
        });
    }
}

#[test]
fn a_tunnel_end_s_hardware_address_follows_from_the_node_s_address() {
    assert_eq!(vtep_mac(ip("10.0.0.7")).to_string(), "06:4d:0a:00:00:07");
    // The first five bytes of the SHA-1 of the sixteen octets.
    assert_eq!(vtep_mac(ip("2001:db8::1")).to_string(), "0a:d7:44:a7:bc:2d");
    for address in ["0.0.0.0", "255.255.255.255", "::1", "fd00::ffff"] {
        assert!(vtep_mac(ip(address)).is_local_unicast(), "{address}");
    }
}

#[test]
fn neighbours_are_set_before_others_are_removed() {
    let peers = [
        VxlanPeer::new(ip("10.0.0.2")).with_next_hop(ip("fd00::2")),
        VxlanPeer::new(ip("10.0.0.3")),
    ];
    let (wanted, collisions) = neighbours::desired_neighbours(&peers);
    assert!(collisions.is_empty());
    assert_eq!(wanted.len(), 5);
    let mac = vtep_mac(ip("10.0.0.2"));
    let wrong = vtep_mac(ip("10.0.0.9"));
    let actual = [
        Neighbour::Address {
            address: ip("10.0.0.2"),
            mac,
        },
        Neighbour::Address {
            address: ip("fd00::2"),
            mac: wrong,
        },
        Neighbour::Address {
            address: ip("10.0.0.9"),
            mac: wrong,
        },
        Neighbour::Forwarding {
            mac,
            node: ip("10.0.0.9"),
        },
    ];
    let changes = neighbours::diff(&wanted, &actual);
    let lines: Vec<String> = changes
        .iter()
        .map(|change| match change {
            NeighbourChange::Set(entry) => format!("set {entry}"),
            NeighbourChange::Remove(entry) => format!("remove {entry}"),
        })
        .collect();
    assert_eq!(
        lines,
        [
            "set neighbour 10.0.0.3 lladdr 06:4d:0a:00:00:03",
            "set neighbour fd00::2 lladdr 06:4d:0a:00:00:02",
            "set forwarding 06:4d:0a:00:00:02 dst 10.0.0.2",
            "set forwarding 06:4d:0a:00:00:03 dst 10.0.0.3",
            "remove neighbour 10.0.0.9 lladdr 06:4d:0a:00:00:09",
            "remove forwarding 06:4d:0a:00:00:02 dst 10.0.0.9",
        ]
    );
}

#[test]
fn tunnels_leave_room_and_refuse_what_they_cannot_carry() {
    let spec = TunnelSpec::new(TunnelMode::Ipip, ip("10.0.0.1"), 1500).unwrap();
    assert_eq!(spec.mtu, 1480);
    let spec = TunnelSpec::new(TunnelMode::Vxlan, ip("fd00::1"), 9000).unwrap();
    assert_eq!(spec.mtu, 8930);
    let error = TunnelSpec::new(TunnelMode::Ipip, ip("fd00::1"), 1500).unwrap_err();
    assert!(error.to_string().contains("use vxlan"), "{error}");
    let error = TunnelSpec::new(TunnelMode::Vxlan, ip("10.0.0.1"), 1300).unwrap_err();
    assert!(error.to_string().contains("at least 1330"), "{error}");
}

#[test]
fn encapsulation_follows_how_next_hops_are_reached() {
    let on = Reach::OnLink {
        interface: "eth0".into(),
    };
    let via = Reach::Via {
        gateway: ip("192.0.2.254"),
        interface: "eth0".into(),
    };
    let cross = Encapsulation::CrossSubnet(TunnelMode::Ipip);
    let always = Encapsulation::Always(TunnelMode::Vxlan);
    let near = (ip("192.0.2.2"), on);
    let far = (ip("198.51.100.2"), via);
    for (mode, hops, expected) in [
        (
            Encapsulation::Never,
            vec![far.clone()],
            direct(&["198.51.100.2"]),
        ),
        (cross, vec![near.clone()], direct(&["192.0.2.2"])),
        (
            cross,
            vec![far.clone()],
            tunnel(TunnelMode::Ipip, &["198.51.100.2"]),
        ),
        (
            cross,
            vec![near.clone(), far],
            tunnel(TunnelMode::Ipip, &["192.0.2.2", "198.51.100.2"]),
        ),
        (
            always,
            vec![near],
            tunnel(TunnelMode::Vxlan, &["192.0.2.2"]),
        ),
    ] {
        assert_eq!(mode.route_kind(&hops), expected, "{mode:?}");
    }
}

#[test]
fn settings_are_written_only_where_they_differ() {
    let node = Node::new();
    node.write("net/ipv4/conf/eth0/rp_filter", "2");
    node.write("net/ipv6/conf/eth0/accept_ra", "1");
    let mut wanted = DesiredSysctls::for_node(true, false);
    wanted.set("net/ipv4/conf/eth0/rp_filter", "2");
    wanted.set_if_present("net/ipv6/conf/gone/forwarding", "1");
    wanted.extend(node.tree().keep_router_advertisements("eth0").unwrap());
    let changes = node.tree().ensure(&wanted).unwrap();
    let lines: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "sysctl net/ipv4/ip_forward = 1 (was 0)",
            "sysctl net/ipv6/conf/eth0/accept_ra = 2 (was 1)",
        ]
    );
    assert!(node.tree().ensure(&wanted).unwrap().is_empty());
    wanted.set("net/ipv4/conf/gone/forwarding", "1");
    let error = node.tree().ensure(&wanted).unwrap_err().to_string();
    assert!(error.contains("net/ipv4/conf/gone/forwarding"), "{error}");
}

#[tokio::test]
async fn the_fake_refuses_what_the_kernel_refuses() {
    let node = Node::new();
    node.kernel.add_interface("eth1", 1500, None);
    let down = kernel::LinkChange {
        up: Some(false),
        mtu: None,
    };
    node.kernel.set_link("eth1", &down).await.unwrap();
    let hop = |gateway: &str, interface: &str, onlink: bool| {
        let hop = NextHop {
            gateway: ip(gateway),
            interface: interface.into(),
            onlink,
            extra_weight: 0,
        };
        RouteTarget::next_hops([hop])
    };
    let link = |interface: &str| RouteTarget::Link {
        interface: interface.into(),
    };
    for (target, expected) in [
        (link("eth7"), "no such device: eth7"),
        (link("eth1"), "the device is down"),
        (
            hop("203.0.113.1", "eth0", false),
            "the next hop is unreachable",
        ),
        (hop("192.0.2.2", "lo", false), "the next hop is unreachable"),
        (hop("192.0.2.2", "eth7", true), "no such device: eth7"),
    ] {
        let route = Route::new(net("10.1.0.0/26"), target);
        let results = node
            .kernel
            .apply_routes(&[RouteChange::Replace(route)])
            .await;
        let error = results.into_iter().next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let mut route = Route::new(net("10.1.0.0/26"), RouteTarget::Blackhole);
    route.source = Some(ip("192.0.2.77"));
    let results = node.kernel.apply_routes(&[RouteChange::Add(route)]).await;
    assert!(results[0].is_err(), "a source that is not the node's");
    let spec = TunnelSpec::new(TunnelMode::Vxlan, ip("192.0.2.1"), 1500).unwrap();
    node.kernel.create_tunnel(&spec).await.unwrap();
    assert!(
        node.kernel
            .create_tunnel(&spec)
            .await
            .unwrap_err()
            .is_exists()
    );
    assert!(
        node.kernel
            .delete_link("eth9")
            .await
            .unwrap_err()
            .is_absent()
    );
}

//! Routes on the real kernel: kinds, replacement, repair, others' routes, and what is on-link.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use std::net::IpAddr;
use std::time::Duration;

use margay_dataplane::{
    Dataplane, DesiredState, Invalidator, Kernel, Monitor, NetlinkKernel, Reach, RouteKind,
};
use support::{Namespace, join, privileged, segment};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn state(routes: &[(&str, RouteKind)]) -> DesiredState {
    let mut desired = DesiredState::default();
    for (destination, kind) in routes {
        desired
            .routes
            .insert(destination.parse().unwrap(), kind.clone());
    }
    desired
}

fn direct(next_hops: &[&str]) -> RouteKind {
    RouteKind::Direct {
        next_hops: next_hops.iter().map(|text| ip(text)).collect(),
    }
}

fn unnumbered(next_hops: &[&str]) -> RouteKind {
    let next_hops = next_hops.iter().map(|text| (ip(text), "eth0".to_owned()));
    RouteKind::Unnumbered {
        next_hops: next_hops.collect(),
    }
}

/// Applies and returns the report as text; the state must then need nothing more.
fn apply(node: &Namespace, desired: &DesiredState) -> String {
    node.run(|| async {
        let mut dataplane = Dataplane::new(NetlinkKernel::open().unwrap());
        let report = dataplane.apply(desired).await;
        if report.is_clean() {
            let again = dataplane.plan(desired).await.unwrap();
            assert!(again.is_empty(), "not settled:\n{again}");
        }
        report.to_string()
    })
}

#[test]
fn every_kind_of_route_is_installed_replaced_and_removed() {
    if !privileged("every_kind_of_route_is_installed_replaced_and_removed") {
        return;
    }
    let (node, _other) = segment("kinds");
    let first = state(&[
        ("10.1.0.0/26", RouteKind::Blackhole),
        ("fd00:1::/122", RouteKind::Blackhole),
        ("10.2.0.0/26", direct(&["192.0.2.2"])),
        ("10.3.0.0/26", direct(&["192.0.2.2", "192.0.2.3"])),
        ("fd00:2::/122", direct(&["2001:db8::2"])),
        ("fd00:3::/122", direct(&["2001:db8::2", "2001:db8::3"])),
        ("10.4.0.0/26", direct(&["2001:db8::2"])),
        ("0.0.0.0/0", direct(&["192.0.2.2"])),
        ("10.6.0.0/26", unnumbered(&["fe80::2"])),
        ("fd00:6::/122", unnumbered(&["fe80::2", "fe80::3"])),
        (
            "10.5.0.1/32",
            RouteKind::Link {
                interface: "eth0".into(),
            },
        ),
        (
            "fd00:5::1/128",
            RouteKind::Link {
                interface: "eth0".into(),
            },
        ),
    ]);
    let report = apply(&node, &first);
    assert!(!report.contains("failed"), "{report}");
    let v4 = node.ip("route show proto 90");
    for line in [
        "blackhole 10.1.0.0/26",
        "10.2.0.0/26 via 192.0.2.2 dev eth0",
        "nexthop via 192.0.2.3 dev eth0",
        "10.4.0.0/26 via inet6 2001:db8::2 dev eth0",
        "default via 192.0.2.2",
        "10.6.0.0/26 via inet6 fe80::2 dev eth0",
        "10.5.0.1 dev eth0 scope link",
    ] {
        assert!(v4.contains(line), "{line} in\n{v4}");
    }
    let v6 = node.ip("-6 route show proto 90");
    for line in [
        "blackhole fd00:1::/122",
        "fd00:2::/122 via 2001:db8::2",
        "fd00:5::1 dev eth0",
    ] {
        assert!(v6.contains(line), "{line} in\n{v6}");
    }

    // Every kind turns into every other in place.
    let second = state(&[
        ("10.1.0.0/26", direct(&["192.0.2.2", "192.0.2.3"])),
        ("fd00:1::/122", direct(&["2001:db8::2", "2001:db8::3"])),
        ("10.2.0.0/26", RouteKind::Blackhole),
        ("10.3.0.0/26", direct(&["192.0.2.3"])),
        ("fd00:2::/122", RouteKind::Blackhole),
        ("fd00:3::/122", direct(&["2001:db8::3"])),
        ("10.5.0.1/32", direct(&["192.0.2.9"])),
    ]);
    let report = apply(&node, &second);
    assert!(
        report.contains("route replace 10.2.0.0/26")
            || report.contains("route replace blackhole 10.2.0.0/26"),
        "{report}"
    );
    assert!(!report.contains("failed"), "{report}");

    let report = apply(&node, &DesiredState::default());
    assert!(!report.contains("failed"), "{report}");
    assert_eq!(node.ip("route show proto 90"), "");
    assert_eq!(node.ip("-6 route show proto 90"), "");
}

#[test]
fn routes_of_others_are_never_touched() {
    if !privileged("routes_of_others_are_never_touched") {
        return;
    }
    let (node, _other) = segment("foreign");
    node.ip("route add 10.1.0.0/26 via 192.0.2.9 proto static");
    node.ip("-6 route add fd00:1::/122 via 2001:db8::9 proto static");
    node.ip("route add 10.7.0.0/26 via 192.0.2.9 proto 80");
    node.ip("route add 10.8.0.0/26 via 192.0.2.9 proto 90 table 99");
    // Ours by its number, though its metric is not: nobody wants it, so it goes.
    node.ip("route add 10.9.0.0/26 via 192.0.2.9 proto 90 metric 7");
    let before = (
        node.ip("route show proto static"),
        node.ip("-6 route show proto static"),
    );
    let desired = state(&[
        ("10.1.0.0/26", direct(&["192.0.2.2"])),
        ("fd00:1::/122", direct(&["2001:db8::2"])),
        ("10.2.0.0/26", direct(&["192.0.2.2"])),
    ]);
    let report = apply(&node, &desired);
    for part in [
        "failed: route add 10.1.0.0/26",
        "failed: route add fd00:1::/122",
        "already has a route of another owner",
        "\nroute add 10.2.0.0/26",
        "route delete 10.9.0.0/26 metric 7",
    ] {
        assert!(format!("\n{report}").contains(part), "{part} in\n{report}");
    }
    let after = (
        node.ip("route show proto static"),
        node.ip("-6 route show proto static"),
    );
    assert_eq!(before, after);
    assert!(
        node.ip("route show")
            .contains("10.2.0.0/26 via 192.0.2.2 dev eth0 proto 90")
    );

    apply(&node, &DesiredState::default());
    assert_eq!(before.0, node.ip("route show proto static"));
    assert!(node.ip("route show proto 80").contains("10.7.0.0/26"));
    assert!(node.ip("route show table 99").contains("10.8.0.0/26"));
}

#[test]
fn a_route_deleted_by_hand_is_back_at_once_and_our_own_changes_wake_nobody() {
    let name = "a_route_deleted_by_hand_is_back_at_once_and_our_own_changes_wake_nobody";
    if !privileged(name) {
        return;
    }
    let (node, _other) = segment("repair");
    let desired = state(&[("10.2.0.0/26", direct(&["192.0.2.2"]))]);
    node.run(|| async {
        let kernel = NetlinkKernel::open().unwrap();
        let mut monitor = Monitor::open(kernel.port(), Invalidator::default()).unwrap();
        let mut dataplane = Dataplane::new(kernel);
        assert!(dataplane.apply(&desired).await.is_clean());
        let quiet = tokio::time::timeout(Duration::from_millis(200), monitor.changed()).await;
        assert!(quiet.is_err(), "our own change woke us: {quiet:?}");

        node.ip("route del 10.2.0.0/26");
        let changes = tokio::time::timeout(Duration::from_secs(5), monitor.changed()).await;
        assert!(changes.unwrap().unwrap().our_routes);
        let report = dataplane.apply(&desired).await;
        assert_eq!(
            report.to_string(),
            "route add 10.2.0.0/26 via 192.0.2.2 dev eth0\n"
        );

        node.ip("addr add 198.51.100.1/24 dev eth0");
        let changes = tokio::time::timeout(Duration::from_secs(5), monitor.changed()).await;
        let changes = changes.unwrap().unwrap();
        assert!(changes.addresses && !changes.our_routes, "{changes:?}");
    });
}

/// The agent's parts share one socket, and the kernel refuses a list while another is under way on it.
#[test]
fn lists_asked_for_at_once_are_all_answered() {
    if !privileged("lists_asked_for_at_once_are_all_answered") {
        return;
    }
    let (node, _other) = segment("lists");
    node.run(|| async {
        let kernel = NetlinkKernel::open().unwrap();
        let lists = futures::future::join_all((0..20).map(|_| kernel.links()));
        for links in lists.await {
            assert!(links.unwrap().iter().any(|link| link.name == "eth0"));
        }
    });
}

#[test]
fn a_route_changes_without_a_moment_in_between() {
    if !privileged("a_route_changes_without_a_moment_in_between") {
        return;
    }
    let (node, _other) = segment("nogap");
    let hops = ["192.0.2.2", "192.0.2.3"];
    apply(&node, &state(&[("10.2.0.0/26", direct(&hops[..1]))]));
    node.run(|| async {
        let kernel = NetlinkKernel::open().unwrap();
        let events = Namespace {
            name: node.name.clone(),
        };
        let mut watcher = std::process::Command::new("ip")
            .args(["-n", &events.name, "monitor", "route"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::mem::forget(events);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut dataplane = Dataplane::new(kernel);
        for round in 0..10 {
            let desired = state(&[("10.2.0.0/26", direct(&hops[round % 2..=round % 2]))]);
            assert!(dataplane.apply(&desired).await.is_clean());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        watcher.kill().unwrap();
        let output = watcher.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("10.2.0.0/26 via 192.0.2.3"), "{text}");
        assert!(!text.contains("Deleted"), "{text}");
    });
}

#[test]
fn the_kernel_says_what_is_on_link_whatever_the_mask() {
    if !privileged("the_kernel_says_what_is_on_link_whatever_the_mask") {
        return;
    }
    let node = Namespace::new("onlink", "node");
    let other = Namespace::new("onlink", "other");
    join(&node, "eth0", &other, "eth0");
    join(&node, "eth1", &other, "eth1");
    // A host with a /32, its router on a device route, everybody else behind the router.
    node.ip("addr add 192.0.2.1/32 dev eth0");
    node.ip("route add 192.0.2.254 dev eth0 scope link");
    node.ip("route add default via 192.0.2.254 src 192.0.2.1");
    // And a /31 to a neighbour.
    node.ip("addr add 198.51.100.0/31 dev eth1");
    node.ip("addr add 2001:db8::1/64 dev eth1 nodad");
    node.ip("route add unreachable 203.0.113.0/24");
    let on = |interface: &str| Reach::OnLink {
        interface: interface.to_owned(),
    };
    let via = Reach::Via {
        gateway: ip("192.0.2.254"),
        interface: "eth0".to_owned(),
    };
    let reach = |addresses: &'static [&'static str]| {
        node.run(move || async move {
            let mut dataplane = Dataplane::new(NetlinkKernel::open().unwrap());
            let mut answers = Vec::new();
            for address in addresses {
                answers.push(dataplane.reach(ip(address)).await.unwrap());
            }
            answers
        })
    };
    assert_eq!(
        reach(&[
            "192.0.2.254",
            "192.0.2.2",
            "198.51.100.1",
            "192.0.2.1",
            "203.0.113.1"
        ]),
        vec![
            on("eth0"),
            via,
            on("eth1"),
            Reach::Local,
            Reach::Unreachable
        ]
    );
    assert_eq!(
        reach(&["2001:db8::2", "2001:db8:1::2"]),
        vec![on("eth1"), Reach::Unreachable]
    );

    // A direct route to a node behind the router is refused with the way out.
    let report = apply(&node, &state(&[("10.2.0.0/26", direct(&["192.0.2.2"]))]));
    assert!(
        report.contains("it is behind 192.0.2.254 on eth0"),
        "{report}"
    );
    assert!(report.contains("use a tunnel"), "{report}");
}

#[test]
fn answers_about_next_hops_are_kept_until_something_changes() {
    if !privileged("answers_about_next_hops_are_kept_until_something_changes") {
        return;
    }
    let (node, _other) = segment("cache");
    node.run(|| async {
        let kernel = NetlinkKernel::open().unwrap();
        let port = kernel.port();
        let mut dataplane = Dataplane::new(kernel);
        let mut monitor = Monitor::open(port, dataplane.invalidator()).unwrap();
        let target = ip("198.51.100.9");
        assert_eq!(dataplane.reach(target).await.unwrap(), Reach::Unreachable);
        node.ip("addr add 198.51.100.1/24 dev eth0");
        let changes = tokio::time::timeout(Duration::from_secs(5), monitor.changed()).await;
        assert!(changes.unwrap().unwrap().addresses);
        let reach = dataplane.reach(target).await.unwrap();
        assert!(matches!(reach, Reach::OnLink { .. }), "{reach:?}");
    });
}

#[test]
fn ten_thousand_routes_are_applied_in_batches() {
    if !privileged("ten_thousand_routes_are_applied_in_batches") {
        return;
    }
    let (node, _other) = segment("many");
    let mut desired = DesiredState::default();
    for number in 0..10_000_u32 {
        let base = std::net::Ipv4Addr::from(0x0a00_0000 + number * 64);
        let destination = ipnetwork::IpNetwork::new(base.into(), 26).unwrap();
        desired.routes.insert(destination, direct(&["192.0.2.2"]));
    }
    let begun = std::time::Instant::now();
    apply(&node, &desired);
    eprintln!(
        "10,000 routes applied and compared in {:?}",
        begun.elapsed()
    );
    assert_eq!(node.ip("route show proto 90").lines().count(), 10_000);
}

#[test]
fn a_missing_capability_is_named() {
    if !privileged("a_missing_capability_is_named") {
        return;
    }
    let (node, _other) = segment("caps");
    let report = node.run(|| async {
        // Of this thread only, which ends here.
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_ADMIN);
        set_capabilities(None, sets).unwrap();
        let mut dataplane = Dataplane::new(NetlinkKernel::open().unwrap());
        let desired = state(&[("10.2.0.0/26", direct(&["192.0.2.2"]))]);
        dataplane.apply(&desired).await.to_string()
    });
    assert_eq!(
        report,
        "# failed: route add 10.2.0.0/26 via 192.0.2.2 dev eth0: not permitted: the process lacks the capability CAP_NET_ADMIN\n"
    );
}

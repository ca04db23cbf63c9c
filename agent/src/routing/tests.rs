//! The routing edge over a kernel in memory, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_dataplane::{
    Changes, Dataplane, Encapsulation, Errno, FakeKernel, KernelEvents, Route, RouteTarget,
    SysctlTree, TunnelMode,
};
use tokio::sync::{mpsc, watch};

use super::{Routing, RoutingReport};
use crate::pods::PodRoutes;
use crate::reconcile::routes::{RemoteRoute, RouteIntent};

struct Events(mpsc::Receiver<Changes>);

impl KernelEvents for Events {
    async fn changed(&mut self) -> Option<Changes> {
        self.0.recv().await
    }
}

/// A node at 192.0.2.1/24 on eth0 whose routes are looked after.
struct Node {
    kernel: FakeKernel,
    routing: Routing,
    events: mpsc::Sender<Changes>,
    pods: watch::Sender<PodRoutes>,
    _folder: tempfile::TempDir,
}

impl Node {
    fn start(kernel: FakeKernel) -> Self {
        kernel.add_interface("eth0", 1500, Some(net("192.0.2.1/24")));
        let folder = tempfile::tempdir().unwrap();
        for key in [
            "ip_forward",
            "conf/all/rp_filter",
            "conf/margay.vxlan/rp_filter",
        ] {
            let path = folder.path().join("net/ipv4").join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "0\n").unwrap();
        }
        let sysctls = SysctlTree::new(folder.path());
        let dataplane = Dataplane::with_sysctls(kernel.clone(), sysctls);
        let (events, queue) = mpsc::channel(8);
        let pods = watch::Sender::new(PodRoutes::new());
        let routing = Routing::start(dataplane, Events(queue), pods.subscribe());
        Self {
            kernel,
            routing,
            events,
            pods,
            _folder: folder,
        }
    }

    /// Waits until everything under way is done. Time is virtual: it passes when nobody works.
    async fn settle(&self) -> RoutingReport {
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.routing.report()
    }

    async fn event(&self) {
        self.events.send(Changes::default()).await.unwrap();
    }

    fn has(&self, line: &str) -> bool {
        self.kernel.dump().contains(line)
    }
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// One own block, one block on the segment, one behind another segment.
fn intent() -> RouteIntent {
    let remote = |next_hop: &str| RemoteRoute {
        next_hops: BTreeSet::from([next_hop.parse().unwrap()]),
        on_links: BTreeSet::new(),
        encapsulation: Encapsulation::CrossSubnet(TunnelMode::Vxlan),
        metric: None,
    };
    RouteIntent {
        node_addresses: vec!["192.0.2.1".parse().unwrap()],
        other_nodes: std::sync::Arc::new(
            ["192.0.2.2", "198.51.100.7"]
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
        ),
        tunnel_addresses: BTreeMap::new(),
        tunnels: BTreeSet::from([TunnelMode::Vxlan]),
        blocks: BTreeSet::from([net("10.1.0.0/26")]),
        remote: BTreeMap::from([
            (net("10.2.0.0/26"), remote("192.0.2.2")),
            (net("10.7.0.0/26"), remote("198.51.100.7")),
        ]),
        keep_unwanted: false,
    }
}

fn left_over() -> (FakeKernel, &'static str) {
    let kernel = FakeKernel::new();
    let route = Route::new(net("10.9.0.0/26"), RouteTarget::Blackhole);
    kernel.add_foreign_route(route, margay_dataplane::ROUTE_PROTOCOL);
    (kernel, "blackhole 10.9.0.0/26")
}

#[tokio::test(start_paused = true)]
async fn nothing_is_touched_before_the_first_intent() {
    let (kernel, line) = left_over();
    let node = Node::start(kernel);
    node.event().await;
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert!(node.has(line));
    assert!(!node.routing.report().programmed);
    node.routing.intend(intent());
    assert!(node.settle().await.programmed);
    assert!(!node.has(line));
}

#[tokio::test(start_paused = true)]
async fn an_intent_is_brought_about_and_counted() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    let report = node.settle().await;
    assert_eq!(report.problems, Vec::<String>::new());
    let counts = report.counts;
    assert_eq!(
        (counts.blackhole, counts.direct, counts.tunnelled),
        (1, 1, 1)
    );
    assert_eq!(report.tunnels, [TunnelMode::Vxlan]);
    assert_eq!(report.pod_mtu, Some(1450));
    assert!(node.has("route 10.7.0.0/26 via 198.51.100.7 dev margay.vxlan onlink src 192.0.2.1"));
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_agent_left_stays_until_the_restart_is_over() {
    let (kernel, line) = left_over();
    let node = Node::start(kernel);
    node.routing.intend(intent());
    node.settle().await;
    let waiting = RouteIntent {
        tunnels: BTreeSet::new(),
        remote: BTreeMap::new(),
        keep_unwanted: true,
        ..intent()
    };
    node.routing.intend(waiting.clone());
    node.settle().await;
    assert!(node.has("10.7.0.0/26") && node.has("link margay.vxlan"));

    node.routing.intend(RouteIntent {
        keep_unwanted: false,
        ..waiting
    });
    node.settle().await;
    assert!(!node.has("10.7.0.0/26") && !node.has("link margay.vxlan") && !node.has(line));
}

#[tokio::test(start_paused = true)]
async fn what_the_kernel_cannot_tell_removes_nothing() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    node.settle().await;
    node.kernel.fail("lookup 198.51.100.7", Errno::EINVAL);
    let mut other = intent();
    // Not the node's address any more: no uplink, no tunnel spec.
    other.node_addresses = vec!["192.0.2.99".parse().unwrap()];
    node.routing.intend(other);
    let report = node.settle().await;
    assert!(!report.problems.is_empty());
    assert!(node.has("route 10.7.0.0/26"), "{}", node.kernel.dump());
    assert!(node.has("link margay.vxlan"));
    assert_eq!(report.pod_mtu, Some(1450), "pods are wired meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_route_that_cannot_be_had_is_named_apart_and_not_counted() {
    let node = Node::start(FakeKernel::new());
    let mut broken = intent();
    let remote = broken.remote.get_mut(&net("10.7.0.0/26")).unwrap();
    remote.encapsulation = Encapsulation::Never;
    node.routing.intend(broken);
    let report = node.settle().await;
    assert_eq!(report.problems, Vec::<String>::new());
    assert!(report.missing[0].contains("10.7.0.0/26"), "{report:?}");
    assert_eq!((report.counts.direct, report.counts.tunnelled), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_nodes_interfaces_are_passed_on_and_no_others() {
    let node = Node::start(FakeKernel::new());
    let mut interfaces = node.routing.interfaces();
    interfaces.borrow_and_update();
    let none = Changes::default();
    for (changes, told) in [
        (Changes { pods: true, ..none }, false),
        (
            Changes {
                our_routes: true,
                ..none
            },
            false,
        ),
        (
            Changes {
                links: true,
                ..none
            },
            true,
        ),
        (
            Changes {
                addresses: true,
                ..none
            },
            true,
        ),
        (Changes { lost: true, ..none }, true),
    ] {
        node.events.send(changes).await.unwrap();
        node.settle().await;
        assert_eq!(interfaces.has_changed().unwrap(), told, "{changes:?}");
        interfaces.borrow_and_update();
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_over_unnumbered_links_takes_those_that_are_up() {
    let kernel = FakeKernel::new();
    kernel.add_interface("up1", 1500, None);
    kernel.add_interface("up2", 1500, None);
    let links = margay_dataplane::Kernel::links(&kernel).await.unwrap();
    let index = |name: &str| links.iter().find(|link| link.name == name).unwrap().index;
    let node = Node::start(kernel);
    let mut over = intent();
    let remote = over.remote.get_mut(&net("10.7.0.0/26")).unwrap();
    let router = "fe80::7".parse().unwrap();
    // The last one is gone already.
    remote.metric = Some(77);
    remote.on_links = [
        (router, index("up1")),
        (router, index("up2")),
        (router, 999),
    ]
    .into();
    node.routing.intend(over);
    let report = node.settle().await;
    let dump = node.kernel.dump();
    let line = dump
        .lines()
        .find(|line| line.contains("10.7.0.0/26"))
        .unwrap_or(&dump);
    assert!(
        line.contains("fe80::7 dev up1") && line.contains("fe80::7 dev up2"),
        "{dump}"
    );
    assert!(
        line.contains("metric 77") && !line.contains("margay"),
        "{dump}"
    );
    assert_eq!((report.counts.direct, report.counts.tunnelled), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_node_sends_through_a_tunnel_has_the_tunnels_address() {
    let node = Node::start(FakeKernel::new());
    let source = |node: &Node, destination: &str| {
        let dump = node.kernel.dump();
        let line = dump.lines().find(|line| line.contains(destination));
        let words = line.unwrap_or_default().split(' ');
        words
            .skip_while(|word| *word != "src")
            .nth(1)
            .map(str::to_owned)
    };
    let own = Some("192.0.2.1".to_owned());
    node.routing.intend(intent());
    assert_eq!(node.settle().await.problems, Vec::<String>::new());
    assert_eq!(source(&node, "10.7.0.0/26"), own);

    let address = "10.1.0.5".parse().unwrap();
    let mut with = intent();
    with.tunnel_addresses = [(TunnelMode::Vxlan, BTreeSet::from([address]))].into();
    node.routing.intend(with);
    assert_eq!(node.settle().await.problems, Vec::<String>::new());
    assert_eq!(source(&node, "10.7.0.0/26").as_deref(), Some("10.1.0.5"));
    assert_eq!(source(&node, "10.2.0.0/26"), own);
    let given = margay_dataplane::Kernel::addresses(&node.kernel)
        .await
        .unwrap();
    assert!(given.iter().any(|one| one.address == address));

    node.routing.intend(intent());
    node.settle().await;
    assert_eq!(source(&node, "10.7.0.0/26"), own);
    let given = margay_dataplane::Kernel::addresses(&node.kernel)
        .await
        .unwrap();
    assert!(given.iter().all(|one| one.address != address));
}

#[tokio::test(start_paused = true)]
async fn a_pod_outlives_a_comparison_with_an_older_intent() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    node.settle().await;
    node.kernel.add_interface("mgy0123456789a", 1450, None);
    let address = "10.1.0.5".parse().unwrap();
    node.pods.send_modify(|pods| {
        pods.insert(address, "mgy0123456789a".to_owned());
    });
    let ensured = node
        .routing
        .ensure_pod("mgy0123456789a".to_owned(), vec![address]);
    ensured.await.unwrap();
    assert!(node.has("route 10.1.0.5/32"));
    node.event().await;
    let report = node.settle().await;
    assert!(node.has("route 10.1.0.5/32"));
    assert_eq!(report.counts.local, 1);

    let gone = node
        .routing
        .ensure_pod("mgy-gone".to_owned(), vec![address]);
    assert!(gone.await.unwrap_err().contains("no such device: mgy-gone"));
}

#[tokio::test(start_paused = true)]
async fn events_of_pods_own_interfaces_are_answered_within_a_second() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    node.settle().await;
    assert!(node.kernel.lose_route(net("10.2.0.0/26")));
    let of_pods = Changes {
        pods: true,
        ..Changes::default()
    };
    for _ in 0..3 {
        node.events.send(of_pods).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(!node.has("route 10.2.0.0/26"));
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(node.has("route 10.2.0.0/26"));
}

#[tokio::test(start_paused = true)]
async fn damage_is_repaired_at_once_and_a_flood_of_events_is_not_followed_one_by_one() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    node.settle().await;
    assert!(node.kernel.lose_route(net("10.2.0.0/26")));
    node.event().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(node.has("route 10.2.0.0/26"));

    node.kernel.lose_route(net("10.2.0.0/26"));
    node.event().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!node.has("route 10.2.0.0/26"));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(node.has("route 10.2.0.0/26"));
}

#[tokio::test(start_paused = true)]
async fn a_route_that_comes_or_goes_does_not_wait_for_the_comparison() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    node.settle().await;
    let mut more = intent();
    let near = more.remote[&net("10.2.0.0/26")].clone();
    let far = more.remote[&net("10.7.0.0/26")].clone();
    more.remote.insert(net("10.2.0.64/26"), near);
    more.remote.insert(net("10.7.0.64/26"), far);
    more.blocks.insert(net("10.1.0.64/26"));
    // What only the comparison sees.
    node.kernel.lose_route(net("10.2.0.0/26"));
    node.routing.intend(more.clone());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(node.has("route 10.2.0.64/26 via 192.0.2.2 dev eth0 src 192.0.2.1"));
    assert!(node.has("route 10.7.0.64/26 via 198.51.100.7 dev margay.vxlan onlink src 192.0.2.1"));
    assert!(node.has("blackhole 10.1.0.64/26") && !node.has("route 10.2.0.0/26"));
    let counts = node.settle().await.counts;
    assert!(node.has("route 10.2.0.0/26"));
    assert_eq!(
        (counts.blackhole, counts.direct, counts.tunnelled),
        (2, 2, 2)
    );

    node.kernel.lose_route(net("10.2.0.0/26"));
    node.routing.intend(intent());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!node.has("10.2.0.64/26") && !node.has("10.7.0.64/26") && !node.has("10.1.0.64/26"));
    assert!(!node.has("route 10.2.0.0/26"));
    assert_eq!(node.settle().await.problems, Vec::<String>::new());
    assert!(node.has("route 10.2.0.0/26") && node.has("blackhole 10.1.0.0/26"));
}

#[tokio::test(start_paused = true)]
async fn routes_that_come_all_the_time_do_not_put_off_the_comparison() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    node.settle().await;
    node.kernel.lose_route(net("10.2.0.0/26"));
    let near = intent().remote[&net("10.2.0.0/26")].clone();
    let mut more = intent();
    for number in 0..50 {
        let destination = format!("10.3.{number}.0/26");
        more.remote.insert(net(&destination), near.clone());
        node.routing.intend(more.clone());
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(node.has(&destination));
    }
    assert!(node.has("route 10.2.0.0/26"));
}

#[tokio::test(start_paused = true)]
async fn another_owners_route_is_not_touched_by_the_short_way() {
    let kernel = FakeKernel::new();
    let foreign = Route::new(net("10.2.0.64/26"), RouteTarget::Blackhole);
    kernel.add_foreign_route(foreign, 3);
    let node = Node::start(kernel);
    node.routing.intend(intent());
    node.settle().await;
    let near = intent().remote[&net("10.2.0.0/26")].clone();
    let mut more = intent();
    more.remote.insert(net("10.2.0.64/26"), near);
    node.routing.intend(more);
    let report = node.settle().await;
    let problem = report.problems.first().cloned().unwrap_or_default();
    assert!(problem.contains("10.2.0.64/26"), "{report:?}");
    node.routing.intend(intent());
    assert_eq!(node.settle().await.problems, Vec::<String>::new());
    assert!(node.has("blackhole 10.2.0.64/26"), "{}", node.kernel.dump());
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_report_wakes_nobody() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    node.settle().await;
    let mut reports = node.routing.subscribe();
    reports.borrow_and_update();
    node.event().await;
    node.settle().await;
    assert!(!reports.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn without_kernel_events_the_minute_repairs() {
    let node = Node::start(FakeKernel::new());
    node.routing.intend(intent());
    node.settle().await;
    let Node {
        kernel,
        routing,
        events,
        pods: _pods,
        _folder,
    } = node;
    drop(events);
    kernel.lose_route(net("10.2.0.0/26"));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(kernel.dump().contains("route 10.2.0.0/26"));
    assert!(!routing.has_ended());
}

//! The table's decisions, carried out on a kernel in memory.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_bgp::speaker::{BestPath, RouteBatch, RouteChange};
use margay_dataplane::{FakeKernel, Kernel, ReachCache, RouteTarget};

use super::edge::Edge;
use super::table::{Resolution, Table};

fn path(next_hop: &str) -> BestPath {
    let next_hop: IpAddr = next_hop.parse().unwrap();
    BestPath {
        next_hop,
        scope: 0,
        peer: next_hop,
        internal: false,
        local: false,
        local_pref: 100,
        med: None,
        metric: None,
        as_path_length: 1,
        aggregate: false,
        weight: 1,
    }
}

fn batch(changes: &[(&str, &[&str])], synced: bool) -> RouteBatch {
    let changes = changes.iter().map(|(prefix, hops)| RouteChange {
        prefix: prefix.parse().unwrap(),
        paths: hops.iter().map(|hop| path(hop)).collect(),
    });
    RouteBatch {
        changes: changes.collect(),
        synced,
    }
}

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// A host at 192.0.2.1/24 on eth0.
fn host() -> FakeKernel {
    let kernel = FakeKernel::new();
    kernel.add_interface("eth0", 1500, Some(net("192.0.2.1/24")));
    kernel
}

fn edge(kernel: &FakeKernel) -> Edge<FakeKernel> {
    Edge::new(kernel.clone(), ReachCache::default(), Table::new(Some(32)))
}

async fn routes(kernel: &FakeKernel) -> Vec<String> {
    let routes = kernel.routes().await.unwrap();
    routes.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn best_paths_become_routes_and_go_with_them() {
    let kernel = host();
    let mut edge = edge(&kernel);
    edge.begin().await.unwrap();
    edge.take(batch(
        &[
            ("10.1.0.0/24", &["192.0.2.2"]),
            ("10.2.0.0/24", &["192.0.2.3", "192.0.2.2"]),
            ("10.3.0.0/24", &["198.51.100.1"]),
        ],
        true,
    ))
    .await;
    assert_eq!(
        routes(&kernel).await,
        [
            "10.1.0.0/24 metric 32 via 192.0.2.2 dev eth0",
            "10.2.0.0/24 metric 32 nexthop via 192.0.2.2 dev eth0 nexthop via 192.0.2.3 dev eth0",
        ]
    );
    assert!(edge.problems().contains("198.51.100.1 cannot be reached"));
    edge.take(batch(
        &[("10.1.0.0/24", &[]), ("10.2.0.0/24", &["192.0.2.3"])],
        true,
    ))
    .await;
    assert_eq!(
        routes(&kernel).await,
        ["10.2.0.0/24 metric 32 via 192.0.2.3 dev eth0"]
    );
}

#[tokio::test]
async fn what_an_earlier_process_left_stays_until_the_sessions_have_spoken() {
    let kernel = host();
    let mut before = edge(&kernel);
    let two: &[(&str, &[&str])] = &[
        ("10.1.0.0/24", &["192.0.2.2"]),
        ("10.2.0.0/24", &["192.0.2.2"]),
    ];
    before.take(batch(two, true)).await;
    drop(before);

    let mut after = edge(&kernel);
    after.begin().await.unwrap();
    after
        .take(batch(&[("10.1.0.0/24", &["192.0.2.3"])], true))
        .await;
    assert_eq!(
        routes(&kernel).await,
        [
            "10.1.0.0/24 metric 32 via 192.0.2.3 dev eth0",
            "10.2.0.0/24 metric 32 via 192.0.2.2 dev eth0",
        ]
    );
    after.drop_stale().await;
    assert_eq!(
        routes(&kernel).await,
        ["10.1.0.0/24 metric 32 via 192.0.2.3 dev eth0"]
    );
    after.remove_all().await;
    assert!(routes(&kernel).await.is_empty());
}

#[tokio::test]
async fn a_route_somebody_deleted_comes_back_and_others_routes_are_left_alone() {
    let kernel = host();
    let mut edge = edge(&kernel);
    edge.take(batch(&[("10.1.0.0/24", &["192.0.2.2"])], true))
        .await;
    assert!(kernel.lose_route(net("10.1.0.0/24")));
    edge.compare().await;
    edge.bring().await;
    assert_eq!(routes(&kernel).await.len(), 1);
    let log = kernel.log();
    let replaced = log.iter().filter(|line| line.starts_with("route add"));
    assert_eq!(replaced.count(), 2, "{log:?}");
}

#[test]
fn a_snapshot_takes_away_what_it_does_not_confirm() {
    let mut table = Table::new(None);
    table.handle_routes(batch(
        &[
            ("10.1.0.0/24", &["192.0.2.2"]),
            ("10.2.0.0/24", &["192.0.2.2"]),
        ],
        true,
    ));
    table.begin_snapshot();
    table.handle_routes(batch(&[("10.2.0.0/24", &["192.0.2.2"])], false));
    assert_eq!((table.len(), table.is_complete()), (2, false));
    table.handle_routes(batch(&[], true));
    assert_eq!((table.len(), table.is_complete()), (1, true));
}

#[test]
fn a_next_hop_that_cannot_be_asked_about_changes_nothing() {
    let mut table = Table::new(None);
    table.handle_routes(batch(&[("10.1.0.0/24", &["192.0.2.2"])], true));
    let ways = table.unresolved();
    let unknown = Resolution::Unknown("no answer".to_owned());
    table.handle_resolved(vec![(ways[0].clone(), unknown)]);
    assert!(table.plan().is_empty());
    assert_eq!(table.failed()[&net("10.1.0.0/24")], "no answer");
    let there = Resolution::To(RouteTarget::Link {
        interface: "eth0".to_owned(),
    });
    table.handle_resolved(vec![(ways[0].clone(), there)]);
    assert_eq!(
        table.plan().len(),
        1,
        "an answer has its prefixes looked at"
    );
}

#[tokio::test]
async fn aggregates_and_link_local_next_hops() {
    let kernel = host();
    let links = kernel.links().await.unwrap();
    let index = links.iter().find(|link| link.name == "eth0").unwrap().index;
    let mut edge = edge(&kernel);
    edge.begin().await.unwrap();
    let aggregate = BestPath {
        next_hop: [0; 4].into(),
        local: true,
        aggregate: true,
        ..path("0.0.0.0")
    };
    let own = BestPath {
        aggregate: false,
        ..aggregate.clone()
    };
    let unnumbered = |scope| BestPath {
        scope,
        ..path("fe80::2")
    };
    let changes = [
        ("10.0.0.0/8", aggregate),
        ("10.1.0.0/24", own),
        ("10.2.0.0/24", unnumbered(index)),
        ("10.3.0.0/24", unnumbered(index + 1000)),
    ];
    let changes = changes.map(|(prefix, path)| RouteChange {
        prefix: prefix.parse().unwrap(),
        paths: vec![path],
    });
    edge.take(RouteBatch {
        changes: changes.to_vec(),
        synced: true,
    })
    .await;
    assert_eq!(
        routes(&kernel).await,
        [
            "blackhole 10.0.0.0/8 metric 32",
            "10.2.0.0/24 metric 32 via fe80::2 dev eth0",
        ]
    );
    let problems = edge.problems();
    assert!(problems.contains("is down or gone"), "{problems}");
    edge.take(batch(&[("10.0.0.0/8", &[])], true)).await;
    assert_eq!(
        routes(&kernel).await,
        ["10.2.0.0/24 metric 32 via fe80::2 dev eth0"]
    );
}

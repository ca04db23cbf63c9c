//! Next hops that thousands of routes share, as objects of the real kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod support;

use margay_dataplane::{Kernel, NetlinkKernel, NextHop, Route, RouteChange, RouteTarget};
use support::{Namespace, privileged, segment};

const TABLE: u32 = 1000;
const ROUTES: u32 = 100;

fn route(number: u32, family: u8, gateway: &str) -> Route {
    let destination = match family {
        4 => format!("10.{}.{}.0/24", number / 256, number % 256),
        _ => format!("fd00:{number:x}::/64"),
    };
    let hop = NextHop {
        gateway: gateway.parse().unwrap(),
        interface: "eth0".to_owned(),
        onlink: false,
        extra_weight: 0,
    };
    Route::new(destination.parse().unwrap(), RouteTarget::next_hops([hop]))
}

fn routes(family: u8, gateway: &str) -> Vec<Route> {
    (0..ROUTES)
        .map(|number| route(number, family, gateway))
        .collect()
}

/// Makes the changes, all of which must be made, and reads back the routes of the family.
async fn make(kernel: &NetlinkKernel, changes: Vec<RouteChange>) -> Vec<Route> {
    for result in kernel.apply_routes(&changes).await {
        result.unwrap();
    }
    let mut held = kernel.routes().await.unwrap();
    held.sort_by_key(Route::key);
    held
}

fn sorted(mut routes: Vec<Route>) -> Vec<Route> {
    routes.sort_by_key(Route::key);
    routes
}

fn add(routes: &[Route]) -> Vec<RouteChange> {
    routes.iter().cloned().map(RouteChange::Add).collect()
}

fn open() -> NetlinkKernel {
    NetlinkKernel::open_table(TABLE)
        .unwrap()
        .with_next_hop_objects()
}

/// Waits, 10 s at most.
async fn until(over: impl AsyncFn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !over().await {
        assert!(std::time::Instant::now() < deadline, "not over after 10 s");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// The next hops of the objects that are ours.
fn objects(node: &Namespace) -> Vec<String> {
    let all = node.ip("nexthop show proto 90");
    let via = all
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    via.map(str::to_owned).collect()
}

#[test]
fn netns_many_routes_share_one_object_and_it_goes_with_the_last() {
    if !privileged("netns_many_routes_share_one_object_and_it_goes_with_the_last") {
        return;
    }
    let (node, _other) = segment("nhshare");
    node.run(|| async {
        let kernel = open();
        for (family, gateway, next) in [
            (4, "192.0.2.2", "192.0.2.3"),
            (6, "2001:db8::2", "2001:db8::3"),
        ] {
            let wanted = routes(family, gateway);
            assert_eq!(make(&kernel, add(&wanted)).await, sorted(wanted.clone()));
            assert_eq!(objects(&node), [gateway]);
            let shown = node.ip(&format!("-{family} route show table {TABLE}"));
            assert_eq!(shown.matches("nhid").count(), ROUTES as usize, "{shown}");
            // A next one asks for the same: nothing changes, and it finds the object.
            let after = open();
            assert_eq!(make(&after, Vec::new()).await.len(), ROUTES as usize);
            let one_more = route(ROUTES, family, gateway);
            make(&after, add(std::slice::from_ref(&one_more))).await;
            assert_eq!(objects(&node), [gateway]);
            // All of them elsewhere.
            let moved: Vec<Route> = (0..=ROUTES)
                .map(|number| route(number, family, next))
                .collect();
            let changes = moved.iter().cloned().map(RouteChange::Replace).collect();
            assert_eq!(make(&kernel, changes).await, sorted(moved.clone()));
            assert!(!objects(&node).contains(&gateway.to_owned()));
            let gone = moved.iter().map(|route| RouteChange::Delete(route.key()));
            assert_eq!(make(&kernel, gone.collect()).await, []);
            assert_eq!(objects(&node), [] as [&str; 0]);
        }
    });
}

#[test]
fn netns_others_objects_and_those_of_other_tables_stay() {
    if !privileged("netns_others_objects_and_those_of_other_tables_stay") {
        return;
    }
    let (node, _other) = segment("nhothers");
    node.run(|| async {
        node.ip("nexthop add id 7 via 192.0.2.9 dev eth0 proto 90");
        let elsewhere = NetlinkKernel::open_table(TABLE + 1)
            .unwrap()
            .with_next_hop_objects();
        let wanted = routes(4, "192.0.2.2");
        make(&elsewhere, add(&wanted)).await;
        let kernel = open();
        // Another's object has the number that ours would get: it is left as it is.
        make(&kernel, add(&wanted)).await;
        let number = |table: u32| {
            let shown = node.ip(&format!("route show table {table} 10.0.0.0/24"));
            shown.split_whitespace().nth(2).unwrap().to_owned()
        };
        let taken = number(TABLE);
        assert_ne!(taken, number(TABLE + 1));
        let gone = wanted.iter().map(|route| RouteChange::Delete(route.key()));
        make(&kernel, gone.collect()).await;
        assert_eq!(objects(&node), ["192.0.2.9", "192.0.2.2"]);
        node.ip(&format!(
            "nexthop add id {taken} via 192.0.2.8 dev eth0 proto static"
        ));
        assert_eq!(make(&kernel, add(&wanted)).await, sorted(wanted.clone()));
        assert_ne!(number(TABLE), taken);
        let foreign = node.ip(&format!("nexthop show id {taken}"));
        assert!(foreign.contains("via 192.0.2.8"), "{foreign}");
        assert_eq!(make(&elsewhere, Vec::new()).await.len(), ROUTES as usize);
    });
}

#[test]
fn netns_an_object_removed_under_us_costs_nothing() {
    if !privileged("netns_an_object_removed_under_us_costs_nothing") {
        return;
    }
    let (node, other) = segment("nhgone");
    node.run(|| async {
        let kernel = open();
        let wanted = routes(4, "192.0.2.2");
        make(&kernel, add(&wanted)).await;
        // The routes go with it, and come back when they are wanted again.
        let number = node.ip("nexthop show proto 90");
        let number = number.split_whitespace().nth(1).unwrap();
        node.ip(&format!("nexthop del id {number}"));
        assert!(kernel.routes().await.unwrap().is_empty());
        assert_eq!(make(&kernel, add(&wanted)).await, sorted(wanted.clone()));
        // So with a link that loses its carrier.
        other.ip("link set eth0 down");
        // Linux tells of carrier at most once a second.
        until(async || kernel.routes().await.unwrap().is_empty()).await;
        other.ip("link set eth0 up");
        until(async || node.ip("link show eth0").contains("state UP")).await;
        assert_eq!(make(&kernel, add(&wanted)).await, sorted(wanted.clone()));
        // What the kernel does not want has its reason as ever.
        let results = kernel.apply_routes(&add(&routes(4, "203.0.113.1"))).await;
        let refused = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(refused, ROUTES as usize);
        let reason = results[0].as_ref().unwrap_err().to_string();
        assert!(
            reason.contains("invalid gateway") || reason.contains("exists"),
            "{reason}"
        );
    });
}

//! Best routes of real sessions in the real kernel: what comes and goes, what an earlier process
//! left, what others do to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod dataplane_support;

use std::time::{Duration, Instant};

use dataplane_support::{Namespace, join, privileged};
use margay_agent::install::{Installer, Options};
use margay_bgp::speaker::daemon::{Daemon, File};

/// A speaker's file.
fn file(text: &str) -> File {
    serde_saphyr::from_str(text).unwrap()
}

/// The node at 10.0.0.1 and a router at 10.0.0.2 and 10.0.0.3.
fn segment(test: &str) -> (Namespace, Namespace) {
    let node = Namespace::new(test, "n");
    let router = Namespace::new(test, "r");
    join(&node, "eth0", &router, "eth0");
    node.ip("addr add 10.0.0.1/24 dev eth0");
    router.ip("addr add 10.0.0.2/24 dev eth0");
    router.ip("addr add 10.0.0.3/24 dev eth0");
    (node, router)
}

fn router(address: &str, announce: &str) -> File {
    let asn = if address.ends_with('2') { 65002 } else { 65003 };
    file(&format!(
        "asn: {asn}\nrouterId: {address}\nlisten: []\nrequirePolicy: false\ngracefulRestart: {{}}\nneighbors:\n- {{address: 10.0.0.1, asn: 65001, localAddress: {address}, connectRetryTime: 1}}\nannounce: [{announce}]\n"
    ))
}

fn node(multipath: &str) -> File {
    file(&format!(
        "asn: 65001\nrouterId: 10.0.0.1\nlisten: [{{address: 10.0.0.1}}]\nrequirePolicy: false\n{multipath}\nneighbors:\n- {{address: 10.0.0.2, asn: 65002, passive: true}}\n- {{address: 10.0.0.3, asn: 65003, passive: true}}\n"
    ))
}

/// Waits until the node's routes of protocol 90 in a table are these.
async fn expect(node: &Namespace, table: u32, wanted: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let text = node.ip(&format!("route show table {table} proto 90"));
        let lines = text.lines().map(str::trim_end);
        let joined = lines.collect::<Vec<_>>().join("\n");
        // The ways of one route are on lines of their own, indented by a tab.
        let mut shown: Vec<String> = joined
            .replace("\n\t", " ")
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        shown.sort_unstable();
        if shown == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{shown:#?}\nwanted {wanted:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn netns_best_routes_are_in_the_kernel_and_stay_there() {
    if !privileged("netns_best_routes_are_in_the_kernel_and_stay_there") {
        return;
    }
    let (inside, outside) = segment("inst");
    let table = 1000;
    for left in [
        "20.9.0.0/24 via 10.0.0.2 proto 90",
        "20.2.0.0/24 via 10.0.0.2 proto static",
    ] {
        inside.ip(&format!("route add {left} metric 32 table {table}"));
    }
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let (stop_one, stopped_one) = tokio::sync::oneshot::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            outside.run(|| async {
                let both = "{prefix: 20.1.0.0/24}";
                let two = Daemon::start(&router(
                    "10.0.0.2",
                    &format!("{both}, {{prefix: 20.2.0.0/24}}"),
                ))
                .await
                .unwrap();
                let three = Daemon::start(&router("10.0.0.3", both)).await.unwrap();
                stopped_one.await.unwrap();
                three
                    .speaker()
                    .shutdown(margay_bgp::speaker::Shutdown::Cease {
                        message: String::new(),
                    })
                    .await;
                stopped.await.unwrap();
                two.shutdown().await;
            });
        });
        inside.run(|| async {
            let daemon = Daemon::start(&node("multipath: {max: 4, relax: true}")).await.unwrap();
            let options = Options { table, metric: Some(32), keep: false };
            let installer = Installer::start(daemon.speaker().clone(), options).await.unwrap();
            // The stale route has gone, the other owner's stays as it was.
            let all = "20.1.0.0/24 metric 32 nexthop via 10.0.0.2 dev eth0 weight 1 nexthop via 10.0.0.3 dev eth0 weight 1";
            expect(&inside, table, &[all]).await;
            let others = inside.ip(&format!("route show table {table} proto static"));
            assert!(others.contains("20.2.0.0/24 via 10.0.0.2"), "{others}");
            // Somebody's hand is undone; a link that comes back gets its routes back.
            inside.ip(&format!("route flush table {table} proto 90"));
            expect(&inside, table, &[all]).await;
            // One of two peers goes.
            stop_one.send(()).unwrap();
            expect(&inside, table, &["20.1.0.0/24 via 10.0.0.2 dev eth0 metric 32"]).await;
            // The place is free: the route that was refused follows by itself.
            inside.ip(&format!("route del 20.2.0.0/24 table {table} proto static"));
            expect(&inside, table, &["20.1.0.0/24 via 10.0.0.2 dev eth0 metric 32", "20.2.0.0/24 via 10.0.0.2 dev eth0 metric 32"]).await;
            daemon.shutdown().await;
            installer.stop().await;
            expect(&inside, table, &[]).await;
            stop.send(()).unwrap();
        });
    });
}

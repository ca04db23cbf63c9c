//! Best routes of real sessions in the real kernel: what comes and goes, what an earlier process
//! left, what others do to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "../../dataplane/tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use margay_bgp::speaker::daemon::{Daemon, File};
use margay_speaker::install::{Installer, Options};
use support::{Namespace, join, privileged};

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
            let options = Options { table, metric: Some(32) };
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
            installer.stop(false).await;
            expect(&inside, table, &[]).await;
            stop.send(()).unwrap();
        });
    });
}

/// A speaker that peers with whoever is on its eth0, by link-local addresses.
fn unnumbered(asn: u32, announce: &str) -> File {
    file(&format!(
        "asn: {asn}\nrouterId: 0.0.0.{}\nlisten: [{{address: '::'}}]\nrequirePolicy: false\nneighbors:\n- {{interface: eth0, asn: external, connectRetryTime: 1}}\nannounce: [{announce}]\n",
        asn - 65000
    ))
}

/// The link-local address of eth0, once it may be used.
fn link_local(namespace: &Namespace) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let links = namespace.ip_json("-6 addr show dev eth0 scope link -tentative");
        let address = links
            .first()
            .and_then(|link| link["addr_info"][0]["local"].as_str());
        if let Some(address) = address {
            return address.to_owned();
        }
        assert!(
            Instant::now() < deadline,
            "no link-local address: {links:?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn netns_routes_over_link_local_next_hops_name_their_link() {
    if !privileged("netns_routes_over_link_local_next_hops_name_their_link") {
        return;
    }
    let inside = Namespace::new("unnum", "n");
    let outside = Namespace::new("unnum", "r");
    join(&inside, "eth0", &outside, "eth0");
    outside.ip("addr add 20.1.0.1/32 dev lo");
    inside.ip("addr add 20.2.0.1/32 dev lo");
    let gateway = link_local(&outside);
    let back = link_local(&inside);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let table = 254;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            outside.run(|| async {
                let announce = "{prefix: 20.1.0.0/24}, {prefix: 'fd20:1::/64'}";
                let other = Daemon::start(&unnumbered(65002, announce)).await.unwrap();
                let options = Options {
                    table,
                    metric: None,
                };
                let installer = Installer::start(other.speaker().clone(), options)
                    .await
                    .unwrap();
                stopped.await.unwrap();
                other.shutdown().await;
                installer.stop(false).await;
            });
        });
        inside.run(|| async {
            let ours = unnumbered(65001, "{prefix: 20.2.0.0/24}");
            let daemon = Daemon::start(&ours).await.unwrap();
            let options = Options {
                table,
                metric: None,
            };
            let installer = Installer::start(daemon.speaker().clone(), options)
                .await
                .unwrap();
            let route = format!("20.1.0.0/24 via inet6 {gateway} dev eth0");
            expect(&inside, table, &[&route]).await;
            let v6 = inside.ip("-6 route show proto 90");
            assert!(
                v6.contains(&format!("fd20:1::/64 via {gateway} dev eth0")),
                "{v6}"
            );
            let back = format!("20.2.0.0/24 via inet6 {back} dev eth0");
            expect(&outside, table, &[&back]).await;
            // IPv4 packets take it there and back, with no IPv4 address on the link.
            let ping = inside.output("ping -n -c 1 -w 5 -I 20.2.0.1 20.1.0.1");
            assert!(ping.status.success(), "{ping:?}");
            stop.send(()).unwrap();
            expect(&inside, table, &[]).await;
            daemon.shutdown().await;
            installer.stop(false).await;
        });
    });
}

/// `margay bgp` in a namespace; ended when it is dropped.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn netns_install_and_aggregates_follow_the_file() {
    if !privileged("netns_install_and_aggregates_follow_the_file") {
        return;
    }
    let node = Namespace::new("reload", "n");
    // Of a table that was never used the kernel does not even say that it is empty.
    for table in [1000, 1001] {
        node.ip(&format!("route add 192.0.2.0/24 dev lo table {table}"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bgp.yaml");
    let write = |install: &str, announce: &str| {
        let text = format!(
            "asn: 65001\nrouterId: 10.0.0.1\nlisten: []\ninstall: {install}\nannounce: [{announce}]\naggregates: [{{prefix: 20.0.0.0/8}}, {{prefix: 'fd20::/16'}}]\n"
        );
        std::fs::write(&path, text).unwrap();
    };
    let specific = "{prefix: 20.1.0.0/24}, {prefix: 'fd20:1::/64'}";
    write("{table: 1000, metric: 32}", specific);
    let process = Process(
        std::process::Command::new("ip")
            .args(["netns", "exec", &node.name])
            .args([env!("CARGO_BIN_EXE_margay-bgp"), "--config"])
            .arg(&path)
            .spawn()
            .unwrap(),
    );
    let pid = rustix::process::Pid::from_raw(i32::try_from(process.0.id()).unwrap()).unwrap();
    let reload = || rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let aggregate = "blackhole 20.0.0.0/8 metric 32";
    expect(&node, 1000, &[aggregate]).await;
    let v6 = node.ip("-6 route show table 1000 proto 90");
    assert!(v6.contains("blackhole fd20::/16"), "{v6}");
    // Another metric, another table, no table at all.
    write("{table: 1000, metric: 33}", specific);
    reload();
    expect(&node, 1000, &["blackhole 20.0.0.0/8 metric 33"]).await;
    write("{table: 1001, metric: 32}", specific);
    reload();
    expect(&node, 1001, &[aggregate]).await;
    expect(&node, 1000, &[]).await;
    write("false", specific);
    reload();
    expect(&node, 1001, &[]).await;
    write("{table: 1000, metric: 32}", specific);
    reload();
    expect(&node, 1000, &[aggregate]).await;
    // A mistake changes nothing; without a more specific route there is nothing to stand for.
    write("{table: 0}", specific);
    reload();
    tokio::time::sleep(Duration::from_millis(300)).await;
    expect(&node, 1000, &[aggregate]).await;
    write("{table: 1000, metric: 32}", "");
    reload();
    expect(&node, 1000, &[]).await;
}

//! The plugin's corners: no address left, a pod that cannot be wired, repetitions, and every
//! version's shape.

use ipnetwork::IpNetwork;
use kube::api::Api;
use margay_crds::IPPool;
use margay_e2e::lab::command::run;
use margay_e2e::lab::objects::POOL_NAME;
use margay_e2e::lab::{Tor, namespaces};
use serde_json::{Value, json};

use crate::call::Call;
use crate::ground::{Ground, links, runnable};

const NODE: &str = "node1";

/// A sandbox that is not wired yet, and the plugin for it.
async fn sandbox(ground: &mut Ground, name: &str) -> Call {
    let plan = ground.pod_plan(name, "extra", NODE);
    let ledger = &mut ground.lab.ledger;
    let made = ground.cluster.runtime.sandbox(ledger, &plan).await.unwrap();
    Call::new(ground.plugin(NODE), &made)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_asked_nothing_half_made_stays() {
    if !runnable("whatever_is_asked_nothing_half_made_stays") {
        return;
    }
    let mut ground = Ground::prepare("t-wiring", 1, 1, Tor::None, 2).await;
    repetitions(&mut ground).await;
    failures(&mut ground).await;
    shapes(&mut ground).await;
    broken_pods(&mut ground).await;
    exhausted(&mut ground).await;
    kernel_by_hand(&ground).await;
}

async fn repetitions(ground: &mut Ground) {
    let before = ground.holdings(NODE).await;
    let call = sandbox(ground, "twice").await;
    let first = call.run("ADD").result();
    let again = call.run("ADD").result();
    assert_eq!(first["ips"], again["ips"]);
    let held = ground.holdings(NODE).await;
    assert_eq!(held.allocations.len(), before.allocations.len() + 1);
    assert_eq!(held.links.len(), before.links.len() + 1);
    let check = Call {
        previous: Some(again),
        ..call.clone()
    };
    check.run("CHECK").result();
    call.run("DEL").result();
    ground.until_holdings(NODE, &before).await;
    call.run("DEL").result();
    ground.until_holdings(NODE, &before).await;

    // Wired again, its namespace vanishes: DEL has only the node's side to clear.
    call.run("ADD").result();
    run("ip", &["netns", "delete", &call.netns_name()]).unwrap();
    call.run("DEL").result();
    ground.until_holdings(NODE, &before).await;
    namespaces::create(&call.netns_name()).unwrap();
    let without = Call {
        netns: String::new(),
        ..call.clone()
    };
    call.run("ADD").result();
    without.run("DEL").result();
    ground.until_holdings(NODE, &before).await;
}

async fn failures(ground: &mut Ground) {
    let before = ground.holdings(NODE).await;
    let call = sandbox(ground, "failing").await;
    let folder = ground.lab.logs();
    let file = folder.join("no-namespace");
    std::fs::write(&file, "").unwrap();
    for netns in ["/nonexistent/namespace", &file.display().to_string()] {
        let wrong = Call {
            netns: netns.to_owned(),
            ..call.clone()
        };
        let answer = wrong.run("ADD");
        answer.code();
        assert!(answer.words().contains(netns), "{answer:?}");
        ground.until_holdings(NODE, &before).await;
    }

    // The name is taken in the pod: what is there is not ours and stays.
    let inside = call.netns_name();
    run(
        "ip",
        &["-n", &inside, "link", "add", "eth0", "type", "bridge"],
    )
    .unwrap();
    let answer = call.run("ADD");
    answer.code();
    assert!(answer.words().contains("eth0"), "{answer:?}");
    ground.until_holdings(NODE, &before).await;
    let kept = run("ip", &["-d", "-n", &inside, "link", "show", "eth0"]).unwrap();
    assert!(kept.contains("bridge"), "{kept}");
    run("ip", &["-n", &inside, "link", "delete", "eth0"]).unwrap();

    // Words that are wrong, each named.
    for (ifname, container) in [
        ("eth0/../x", "c1"),
        ("averyveryverylongname", "c1"),
        ("eth0", "../c"),
    ] {
        let wrong = Call {
            ifname: ifname.to_owned(),
            container_id: container.to_owned(),
            ..call.clone()
        };
        assert_eq!(wrong.run("ADD").code(), 4, "{ifname} {container}");
    }
    ground.until_holdings(NODE, &before).await;
    // And the same sandbox can be wired after all that.
    call.run("ADD").result();
    call.run("DEL").result();
    ground.until_holdings(NODE, &before).await;
}

async fn shapes(ground: &mut Ground) {
    let call = sandbox(ground, "shapes").await;
    let versions = call.run("VERSION").result();
    let supported = versions["supportedVersions"].as_array().unwrap();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        assert!(supported.contains(&json!(version)), "{versions}");
        let call = Call {
            version: version.to_owned(),
            ..call.clone()
        };
        let result = call.run("ADD").result();
        assert_eq!(result["cniVersion"], version);
        let ip = &result["ips"][0];
        let address: IpNetwork = ip["address"].as_str().unwrap().parse().unwrap();
        assert_eq!(address.prefix(), 32);
        assert_eq!(ip["gateway"], "169.254.1.1");
        // The family was told until 1.0.0.
        let family = if version < "1.0.0" {
            json!("4")
        } else {
            Value::Null
        };
        assert_eq!(ip["version"], family, "{result}");
        let of_pod =
            &result["interfaces"][usize::try_from(ip["interface"].as_u64().unwrap()).unwrap()];
        assert_eq!(of_pod["name"], "eth0");
        assert_eq!(of_pod["sandbox"], json!(call.netns));
        // The MTU came with 1.1.0.
        assert_eq!(of_pod["mtu"].is_u64(), version == "1.1.0", "{result}");
        let checked = Call {
            previous: Some(result.clone()),
            ..call.clone()
        };
        match version {
            "0.3.1" => assert_eq!(checked.run("CHECK").code(), 1),
            _ => drop(checked.run("CHECK").result()),
        }
        checked.run("DEL").result();
    }

    // Second in a chain: what the first has made comes first.
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "first0", "sandbox": call.netns}],
        "ips": [{"address": "192.0.2.7/24", "interface": 0}],
        "dns": {"nameservers": ["192.0.2.53"]},
    });
    let chained = Call {
        version: "1.0.0".to_owned(),
        previous: Some(previous),
        ..call.clone()
    };
    let result = chained.run("ADD").result();
    assert_eq!(result["interfaces"][0]["name"], "first0", "{result}");
    assert_eq!(result["ips"][0]["address"], "192.0.2.7/24", "{result}");
    let own = &result["ips"][1];
    assert_eq!(
        result["interfaces"][usize::try_from(own["interface"].as_u64().unwrap()).unwrap()]["name"],
        "eth0"
    );
    assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53");
    chained.run("DEL").result();
    let unknown = Call {
        version: "9.9.9".to_owned(),
        ..call
    };
    assert_eq!(unknown.run("ADD").code(), 1);
}

async fn broken_pods(ground: &mut Ground) {
    let breakages: [(&str, &[&str], &str); 3] = [
        (
            "broken-address",
            &["addr", "flush", "dev", "eth0", "scope", "global"],
            "address",
        ),
        (
            "broken-mtu",
            &["link", "set", "eth0", "mtu", "1300"],
            "1300",
        ),
        ("broken-route", &["route", "delete", "default"], "route"),
    ];
    for (name, breakage, words) in breakages {
        let call = sandbox(ground, name).await;
        let result = call.run("ADD").result();
        let check = Call {
            previous: Some(result),
            ..call.clone()
        };
        check.run("CHECK").result();
        let inside = call.netns_name();
        let mut arguments = vec!["-n", &inside];
        arguments.extend(breakage);
        run("ip", &arguments).unwrap();
        let answer = check.run("CHECK");
        assert!(answer.code() >= 100, "{answer:?}");
        assert!(answer.words().contains(words), "{answer:?}");
        call.run("DEL").result();
    }
}

async fn exhausted(ground: &mut Ground) {
    let pools: Api<IPPool> = Api::all(ground.cluster.client.clone());
    ground
        .patch(&pools, POOL_NAME, json!({"spec": {"disabled": true}}))
        .await;
    for (pool, cidr, size) in [
        ("tiny", "10.245.0.0/30", 32),
        ("small", "10.246.0.0/30", 30),
    ] {
        let object = json!({
            "metadata": {"name": pool},
            "spec": {"cidr": cidr, "blockSize": size, "nodeSelector": "all()"},
        });
        ground.create(&pools, object).await;
        let cidr: IpNetwork = cidr.parse().unwrap();
        let mut wired = Vec::new();
        let mut refused = None;
        for number in 1..=5 {
            let call = sandbox(ground, &format!("{pool}-{number}")).await;
            // The agent may not have seen the pool yet.
            let start = std::time::Instant::now();
            let mut answer = call.run("ADD");
            while wired.is_empty() && !answer.ok && start.elapsed().as_secs() < 5 {
                answer = call.run("ADD");
            }
            if !answer.ok {
                refused = Some((call, answer));
                break;
            }
            let address: IpNetwork = answer.address().parse().unwrap();
            assert!(cidr.contains(address.ip()), "{answer:?}");
            wired.push(call);
        }
        let (call, answer) = refused.unwrap();
        assert_eq!(wired.len(), 4, "{answer:?}");
        assert_eq!(answer.code(), 11, "{answer:?}");
        assert!(answer.words().contains(pool), "{answer:?}");
        eprintln!("  exhausted: {} in {:?}", answer.words(), answer.took);

        let full = ground.holdings(NODE).await;
        assert_eq!(call.run("ADD").code(), 11);
        ground.until_holdings(NODE, &full).await;
        assert!(links(&call.netns_name()).is_empty());
        wired[0].run("DEL").result();
        let answer = call.run("ADD");
        assert!(cidr.contains(answer.address().parse::<IpNetwork>().unwrap().ip()));
        for call in wired.iter().chain([&call]) {
            call.run("DEL").result();
        }
        let change = json!({"spec": {"disabled": true}});
        ground.patch(&pools, pool, change).await;
    }
    ground
        .patch(&pools, POOL_NAME, json!({"spec": {"disabled": false}}))
        .await;
}

/// What others have in the kernel is theirs; what is ours comes back.
async fn kernel_by_hand(ground: &Ground) {
    let node = ground.namespace(NODE);
    let foreign = [
        "-n",
        &node,
        "route",
        "add",
        "198.51.100.0/24",
        "dev",
        "eth0",
        "proto",
        "80",
    ];
    run("ip", &foreign).unwrap();
    let nft = |words: &[&str]| {
        let mut arguments = vec!["netns", "exec", &node, "nft"];
        arguments.extend(words);
        run("ip", &arguments).unwrap()
    };
    nft(&["add", "table", "inet", "theirs"]);
    nft(&["add", "chain", "inet", "theirs", "c"]);
    let theirs = nft(&["list", "table", "inet", "theirs"]);

    let blocks = ground.blocks_of(NODE).await;
    // The last of them was claimed a moment ago.
    let before = ground
        .until("every block to have its route", 5, || async {
            let routes = ground.holdings(NODE).await.routes;
            let is_routed = |block: &String| {
                let destination = format!("dst: \"{}\"", block.trim_end_matches("/32"));
                routes.iter().any(|route| route.contains(&destination))
            };
            match blocks.iter().all(is_routed) {
                true => Ok(routes),
                false => Err(format!("{blocks:?}: {routes:?}")),
            }
        })
        .await;
    let pod = ground.pod("web-1");
    let block = &blocks[0];
    for destination in [pod.address.to_string(), format!("blackhole {block}")] {
        let mut arguments = vec!["-n", &node, "route", "delete"];
        arguments.extend(destination.split(' '));
        arguments.extend(["proto", "90"]);
        run("ip", &arguments).unwrap();
        let back = ground
            .time_until("the route to be back", 5, || async {
                let now = ground.holdings(NODE).await.routes;
                (now == before).then_some(()).ok_or(format!("{now:?}"))
            })
            .await;
        eprintln!("  route {destination} is back after {back:?}");
        assert!(
            back.as_secs_f64() < margay_e2e::lab::patience::slowness(),
            "{back:?}"
        );
    }
    assert!(ground.reaches(&node, pod.address));
    let kept = run("ip", &["-n", &node, "route", "show", "proto", "80"]).unwrap();
    assert!(kept.contains("198.51.100.0/24"), "{kept}");
    assert_eq!(nft(&["list", "table", "inet", "theirs"]), theirs);
}

//! The store away, dead or silent: what is stays, DEL succeeds and is caught up with, ADD says
//! soon that it cannot, and everybody is back by themselves.

use std::time::Instant;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams};
use margay_e2e::lab::Tor;
use margay_e2e::lab::process;
use margay_e2e::lab::spec::POD_NAMESPACE;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::call::Call;
use crate::flow::{self, Flow, SECOND};
use crate::ground::{Ground, runnable};

const NODE: &str = "node1";

fn policies(ground: &Ground) -> Api<NetworkPolicy> {
    Api::namespaced(ground.cluster.client.clone(), POD_NAMESPACE)
}

async fn close(ground: &Ground, pod: &str) {
    let object = json!({
        "metadata": {"name": format!("close-{pod}"), "namespace": POD_NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"pod": pod}}, "policyTypes": ["Ingress"]},
    });
    ground.create(&policies(ground), object).await;
}

/// How long until web-2 reaches the pod, or no longer does.
async fn until_reach(ground: &Ground, pod: &str, wanted: bool) -> std::time::Duration {
    let (from, to) = (ground.pod("web-2").sandbox.namespace, ground.pod(pod));
    ground
        .time_until(&format!("{pod} open: {wanted}"), 30, || async {
            match ground.reaches(&from, to.address) == wanted {
                true => Ok(()),
                false => Err("not yet".to_owned()),
            }
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_its_store_goes_on() {
    if !runnable("a_cluster_without_its_store_goes_on") {
        return;
    }
    let mut ground = Ground::prepare("t-store", 2, 2, Tor::Bird, 4).await;
    close(&ground, "job-1").await;
    until_reach(&ground, "job-1", false).await;
    away(&mut ground, Away::Dead).await;
    away(&mut ground, Away::Silent).await;
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Away {
    Dead,
    Silent,
}

fn signal_store(ground: &Ground, signal: Signal) {
    let pid = i32::try_from(ground.process(process::STORE).pid).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

async fn away(ground: &mut Ground, how: Away) {
    eprintln!("the store is {how:?}");
    let word = format!("{how:?}").to_lowercase();
    let leaving = ground
        .start_pod(&format!("leaving-{word}"), "extra", NODE)
        .await;
    let late = ground.pod_plan(&format!("late-{word}"), "extra", NODE);
    let ledger = &mut ground.lab.ledger;
    let late_sandbox = ground.cluster.runtime.sandbox(ledger, &late).await.unwrap();
    let (web1, web2, job1) = (
        ground.pod("web-1"),
        ground.pod("web-2"),
        ground.pod("job-1"),
    );
    let asking = web2.sandbox.namespace.clone();
    let running = vec![
        Flow::start(ground, "without the store", &asking, web1.address),
        Flow::start(
            ground,
            "without the store, from outside",
            &ground.namespace("outside"),
            web1.address,
        ),
    ];
    let denied = Flow::start(ground, "denied without the store", &asking, job1.address);
    flow::advance_all(ground, &running, SECOND / 4).await;
    let before = ground.holdings(NODE).await;

    match how {
        Away::Dead => ground.stop_store(),
        Away::Silent => signal_store(ground, Signal::STOP),
    }
    let add = Call::new(ground.plugin(NODE), &late_sandbox);
    let refused = add.run("ADD");
    eprintln!(
        "  ADD: code {} after {:?}: {}",
        refused.code(),
        refused.took,
        refused.words()
    );
    assert_eq!(refused.code(), 11, "{refused:?}");
    assert!(refused.took.as_secs() < 25, "{refused:?}");
    let gone = Call::new(ground.plugin(NODE), &leaving.sandbox);
    let deleted = gone.run("DEL");
    eprintln!("  DEL: {} after {:?}", deleted.ok, deleted.took);
    let took = deleted.took;
    deleted.result();
    assert!(took.as_secs() < 25, "{took:?}");
    flow::advance_all(ground, &running, SECOND).await;
    assert!(!ground.reaches(&asking, leaving.address));

    let start = Instant::now();
    match how {
        Away::Dead => ground.start_store().await,
        Away::Silent => signal_store(ground, Signal::CONT),
    }
    eprintln!("  the store is back after {:?}", start.elapsed());
    // A change of the first moment arrives.
    close(ground, "web-1").await;
    let arrived = until_reach(ground, "web-1", false).await;
    eprintln!("  a change right after it is in force after {arrived:?}");
    let reports: Vec<_> = running.into_iter().map(Flow::end).collect();
    for report in &reports {
        // What is closed at the end is the policy's doing; before it nothing may be lost.
        let last = (1..=report.sent)
            .rev()
            .find(|one| !report.lost.contains(one))
            .unwrap_or(0);
        let lost = report.lost.iter().filter(|one| **one < last).count();
        eprintln!(
            "  {}: {last} sent before the change, {lost} lost",
            report.name
        );
        assert_eq!(lost, 0, "{report:?}");
        assert!(last > SECOND, "{report:?}");
    }
    let denied = denied.end();
    assert_eq!(denied.received, 0, "{denied:?}");

    let delete = policies(ground)
        .delete("close-web-1", &DeleteParams::default())
        .await;
    delete.unwrap();
    until_reach(ground, "web-1", true).await;

    // The delete is caught up with, and the ADD that failed holds nothing.
    let ids = [&leaving.sandbox.container_id, &late_sandbox.container_id];
    let caught_up = ground
        .time_until("the waiting deletes to be done", 40, || async {
            let now = ground.holdings(NODE).await;
            let held = now
                .allocations
                .iter()
                .any(|one| ids.iter().any(|id| one.contains(*id)));
            match held || !now.waiting_deletes.is_empty() {
                true => Err(format!("{now:#?}")),
                false => Ok(()),
            }
        })
        .await;
    eprintln!("  the waiting deletes are done after another {caught_up:?}");
    ground
        .cluster
        .pods
        .retain(|pod| pod.plan.name != leaving.plan.name);
    let now = ground.holdings(NODE).await;
    assert_eq!(now.links.len(), before.links.len() - 1, "{now:#?}");

    // A pod comes into being again, and is reached.
    let added = add.run("ADD");
    let took = added.took;
    let address: ipnetwork::IpNetwork = added.address().parse().unwrap();
    assert!(ground.reaches(&asking, address.ip()));
    eprintln!("  ADD works, after {took:?}");
    add.run("DEL").result();
}

//! Addresses that a pod names: borrowed from another node's block and reached from everywhere, or
//! refused in one sentence that the pod itself carries.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use margay_crds::{IPPool, IPReservation};
use margay_e2e::lab::Tor;
use margay_e2e::lab::command::run;
use margay_e2e::lab::pods::RunningPod;
use margay_e2e::lab::spec::POD_NAMESPACE;
use serde_json::{Value, json};

use crate::ground::{Ground, runnable};

/// A pod whose object says something before the runtime asks for it.
async fn announce(ground: &Ground, name: &str, node: &str, annotations: Value) {
    let pods: Api<Pod> = Api::namespaced(ground.cluster.client.clone(), POD_NAMESPACE);
    let object = json!({
        "metadata": {"name": name, "namespace": POD_NAMESPACE, "labels": {"app": "named"},
            "annotations": annotations},
        "spec": {"nodeName": node, "containers": [{"name": "web", "image": "web"}]},
    });
    ground.create(&pods, object).await;
}

/// The nth address of a node's first block: far from those that are given by themselves.
async fn address_of(ground: &Ground, node: &str, place: u8) -> IpAddr {
    let block = ground.blocks_of(node).await.remove(0);
    let base: std::net::Ipv4Addr = block.split('/').next().unwrap().parse().unwrap();
    IpAddr::V4((u32::from(base) + u32::from(place)).into())
}

async fn until_reached(ground: &Ground, pod: &RunningPod, from: &str, namespace: &str) {
    ground
        .until(&format!("{from} to reach {}", pod.address), 20, || async {
            match ground.reaches(namespace, pod.address) {
                true => Ok(()),
                false => Err(format!("{from} gets no answer")),
            }
        })
        .await;
}

async fn borrowed(ground: &mut Ground) {
    let address = address_of(ground, "node1", 50).await;
    let wanted = json!({"cni.projectcalico.org/ipAddrs": format!("[\"{address}\"]")});
    announce(ground, "borrower", "node4", wanted).await;
    let pod = ground.start_pod("borrower", "named", "node4").await;
    assert_eq!(pod.address, address);
    let users = ground.blocks().await.into_iter().flat_map(|block| {
        let all = block.spec.allocations.into_iter();
        all.map(move |one| (one.address, one.owner.node, block.spec.node.clone()))
    });
    let user: Vec<_> = users.filter(|one| one.0 == address.to_string()).collect();
    let expected = (address.to_string(), "node4".to_owned(), "node1".to_owned());
    assert_eq!(user, [expected]);

    // The lender and its pods, a node beside each, the ToRs and what lies behind them.
    let machines = ["node1", "node2", "node3", "node4", "tor-a", "outside"];
    for machine in machines {
        until_reached(ground, &pod, machine, &ground.namespace(machine)).await;
    }
    let others: Vec<RunningPod> = ground.cluster.pods.clone();
    for other in others.iter().filter(|other| other.plan.name != "borrower") {
        until_reached(ground, &pod, &other.plan.name, &other.sandbox.namespace).await;
        let back = ground.reaches(&pod.sandbox.namespace, other.address);
        assert!(back, "borrower does not reach {}", other.plan.name);
    }
    eprintln!(
        "  {address} of node1's block is used on node4 and reached by {} machines and {} pods",
        machines.len(),
        others.len() - 1
    );
}

/// How a pod that says this is refused: the words on the pod.
async fn refused(ground: &mut Ground, name: &str, annotations: Value) -> String {
    announce(ground, name, "node2", annotations).await;
    let error = ground.try_start_pod(name, "named", "node2").await;
    let said = error.unwrap_err().to_string();
    let events: Api<Event> = Api::namespaced(ground.cluster.client.clone(), POD_NAMESPACE);
    let words = ground
        .until(&format!("an Event of {name}"), 10, || async {
            let all = events.list(&ListParams::default()).await;
            let all = all.map_err(|error| error.to_string())?.items;
            let mut own = all.into_iter().filter(|event| {
                event.involved_object.name.as_deref() == Some(name)
                    && event.reason.as_deref() == Some("NoAddress")
            });
            let found = own.find_map(|event| event.message);
            found.ok_or_else(|| "none".to_owned())
        })
        .await;
    assert!(said.contains(&words), "{said}\nlacks\n{words}");
    words
}

async fn mistakes(ground: &mut Ground) {
    let taken = ground.pod("borrower").address;
    let wanted = json!({"margay.dev/ip-addresses": taken.to_string()});
    assert_eq!(
        refused(ground, "late", wanted).await,
        format!(
            "annotation margay.dev/ip-addresses of Pod {POD_NAMESPACE}/late asks for {taken}, but \
             pod {POD_NAMESPACE}/borrower holds it"
        )
    );
    let pools: Api<IPPool> = Api::all(ground.cluster.client.clone());
    let there = pools.list(&ListParams::default()).await.unwrap().items;
    let there = there[0].metadata.name.clone().unwrap();
    let wanted = json!({"cni.projectcalico.org/ipv4pools": "[\"nowhere\"]"});
    assert_eq!(
        refused(ground, "lost", wanted).await,
        format!(
            "annotation cni.projectcalico.org/ipv4pools of Pod {POD_NAMESPACE}/lost asks for \
             IPPool nowhere, but there are only the IPPools {there}"
        )
    );
    // A second pool over the same addresses is refused by the store, which can see both.
    let over: IPPool = serde_json::from_value(json!({
        "apiVersion": "margay.dev/v1", "kind": "IPPool", "metadata": {"name": "over"},
        "spec": {"cidr": "10.244.128.0/24"},
    }))
    .unwrap();
    let error = pools.create(&PostParams::default(), &over).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("must not overlap IPPool") && error.contains(&there),
        "{error}"
    );
}

/// What a node sends through its tunnel has an address of its block as its source, and the answer
/// comes back through the tunnel.
async fn tunnelled(ground: &Ground) {
    let block = ground.blocks_of("node1").await.remove(0);
    let block: ipnetwork::IpNetwork = block.parse().unwrap();
    ground
        .until("node1 to have an address on its tunnel", 20, || async {
            let namespace = ground.namespace("node1");
            let shown = run("ip", &["-n", &namespace, "route", "show"]).unwrap();
            let routes: Vec<&str> = shown.lines().collect();
            let mut through = routes.iter().filter(|route| route.contains("dev margay."));
            let source = |route: &str| {
                let source = route.split(' ').skip_while(|word| *word != "src").nth(1);
                source.and_then(|text| text.parse::<IpAddr>().ok())
            };
            let is_own = |route: &&str| source(route).is_some_and(|one| block.contains(one));
            match routes.iter().any(|route| route.contains("dev margay.")) && through.all(is_own) {
                true => Ok(()),
                false => Err(format!("{routes:#?}")),
            }
        })
        .await;
    let far = ground.pod("borrower");
    assert!(ground.reaches(&ground.namespace("node1"), far.address));
}

/// What is reserved goes to nobody who does not name it.
async fn reserved(ground: &mut Ground) {
    let api: Api<IPReservation> = Api::all(ground.cluster.client.clone());
    let mut next = Vec::new();
    for place in 0..40 {
        next.push(format!("{}/32", address_of(ground, "node3", place).await));
    }
    let object = json!({"metadata": {"name": "kept"}, "spec": {"reservedCIDRs": next}});
    ground.create(&api, object).await;
    ground
        .until("the reservation to be accepted", 10, || async {
            let object = api.get("kept").await.map_err(|error| error.to_string())?;
            let status = object.status.unwrap_or_default();
            let accepted = status
                .conditions
                .iter()
                .any(margay_crds::Condition::is_true);
            accepted.then_some(()).ok_or_else(|| format!("{status:?}"))
        })
        .await;
    let pod = ground.start_pod("unnamed", "named", "node3").await;
    assert!(
        !next.contains(&format!("{}/32", pod.address)),
        "{} is reserved",
        pod.address
    );
    api.delete("kept", &DeleteParams::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_by_name_are_reached_or_refused_in_words() {
    if !runnable("addresses_by_name_are_reached_or_refused_in_words") {
        return;
    }
    let mut ground = Ground::prepare("t-address", 4, 2, Tor::Bird, 4).await;
    borrowed(&mut ground).await;
    tunnelled(&ground).await;
    mistakes(&mut ground).await;
    reserved(&mut ground).await;
}

//! Margay among others: kube-proxy's other modes, other configurations in the folder, plugins
//! after ours, and a plugin before ours.

use std::net::IpAddr;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams};
use margay_e2e::cluster::workload::{self, Place};
use margay_e2e::cluster::{Cluster, helm, reference};
use margay_e2e::lab::command::succeed;
use margay_e2e::lab::objects;
use margay_e2e::lab::patience::{patience, until};
use margay_e2e::lab::spec::SERVED_PORT;
use serde_json::{Value, json};

use crate::plugin::{self, Call};
use crate::rate;
use crate::steps::{self, Failed, Steps};

/// A Service's address that kube-proxy does not know.
const CLUSTER_IP: [u8; 4] = [10, 96, 200, 200];
const PORT: u16 = 80;
const HOST_PORT: u16 = 8099;
/// Bits a second into a pod.
const RATE: &str = "10M";

pub async fn journey(
    steps: &mut Steps,
    cluster: &mut Cluster,
    pods: &[Place],
) -> Result<(), Failed> {
    let said = steps
        .run(
            "kube-proxy by IPVS: does this kernel have it",
            ipvs(cluster, pods),
        )
        .await?;
    steps.figure(&said);
    steps
        .run(
            "tables as kube-proxy's nftables mode has them, beside ours",
            nftables(cluster, pods),
        )
        .await?;
    steps
        .run("another conflist in the folder", other_conflist(cluster))
        .await?;
    steps
        .run("the chain: portmap and bandwidth", chain(cluster))
        .await?;
    let said = steps
        .run(
            "bandwidth is limited, by what arrives",
            rate::limited(cluster),
        )
        .await?;
    steps.figure(&said);
    let said = steps
        .run(
            "STATUS and the codes of errors, with and without an agent",
            plugin::codes(cluster),
        )
        .await?;
    steps.figure(&said);
    let said = steps
        .run(
            "called after another plugin, with its prevResult",
            delegation(cluster, pods),
        )
        .await?;
    steps.figure(&said);
    Ok(())
}

/// The mode is tried where the kernel has it; where not, that is said.
async fn ipvs(cluster: &mut Cluster, pods: &[Place]) -> anyhow::Result<String> {
    let machine = &cluster.nodes[0].machine;
    if let Err(error) = machine.run("ipvsadm", &["--list"]) {
        let error = format!("{error:#}");
        let last = error.lines().last().unwrap_or_default();
        return Ok(format!("NOT TESTED: this kernel has no IPVS ({last})"));
    }
    use margay_e2e::cluster::node::ProxyMode;
    for mode in [ProxyMode::Ipvs, ProxyMode::Iptables] {
        for node in &mut cluster.nodes {
            node.stop_proxy()?;
            node.machine
                .run("/run/programs/kube-proxy", &["--cleanup"])?;
            node.proxy_mode = mode;
            node.start_proxy(&mut cluster.ground.lab)?;
        }
        crate::margay::services(cluster, pods).await?;
    }
    Ok("IPVS and back: Services answered".to_owned())
}

/// The shape of kube-proxy's tables from 1.31 on, with one Service of two endpoints.
fn table(one: IpAddr, other: IpAddr) -> String {
    let [a, b, c, d] = CLUSTER_IP;
    format!(
        "table ip kube-proxy {{
  map service-ips {{
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = {{ {a}.{b}.{c}.{d} . tcp . {PORT} : goto service-WEB }}
  }}
  chain filter-forward {{ type filter hook forward priority -110; policy accept; ct state new jump cluster-ips-check; }}
  chain filter-output {{ type filter hook output priority -90; policy accept; }}
  chain cluster-ips-check {{ }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
  chain nat-output {{ type nat hook output priority -100; policy accept; jump services; }}
  chain nat-postrouting {{ type nat hook postrouting priority srcnat; policy accept; jump masquerading; }}
  chain masquerading {{ meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }}
  chain mark-for-masquerade {{ meta mark set meta mark | 0x4000; }}
  chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}
  chain service-WEB {{ numgen random mod 2 vmap {{ 0 : goto endpoint-ONE, 1 : goto endpoint-OTHER }}; }}
  chain endpoint-ONE {{ ip saddr {one} jump mark-for-masquerade; meta l4proto tcp dnat to {one}:{SERVED_PORT}; }}
  chain endpoint-OTHER {{ ip saddr {other} jump mark-for-masquerade; meta l4proto tcp dnat to {other}:{SERVED_PORT}; }}
}}
"
    )
}

async fn nftables(cluster: &Cluster, pods: &[Place]) -> anyhow::Result<()> {
    let each = crate::margay::one_each(pods);
    let [one, .., other] = each.as_slice() else {
        bail!("pods on one node only");
    };
    let text = table(one.address, other.address);
    for node in &cluster.nodes {
        let mut command = node.machine.command("nft");
        command.args(["-f", "-"]);
        succeed(command, Some(text.as_bytes()))?;
    }
    let before = tables(cluster)?;
    ask(cluster, &each, [one, other])?;

    // The agent starts anew, and has its own table to compare.
    restart_agents(cluster).await?;
    ask(cluster, &each, [one, other])?;
    let after = tables(cluster)?;
    ensure!(
        before == after,
        "a table of others was changed: {before:?} became {after:?}"
    );
    for node in &cluster.nodes {
        node.machine
            .run("nft", &["delete", "table", "ip", "kube-proxy"])?;
    }
    Ok(())
}

/// Every pod and node gets an answer of one of the two.
fn ask(cluster: &Cluster, from: &[&Place], endpoints: [&Place; 2]) -> anyhow::Result<()> {
    let address = IpAddr::from(CLUSTER_IP);
    let names = endpoints.map(|pod| pod.name.as_str());
    for _ in 0..4 {
        let mut answers = Vec::new();
        for pod in from {
            answers.push((
                pod.name.as_str(),
                workload::fetch(cluster, pod, address, PORT),
            ));
        }
        for node in &cluster.nodes {
            let answer = workload::fetch_from(&node.machine.namespace, address, PORT);
            answers.push((node.name(), answer));
        }
        for (who, answer) in answers {
            let answer = answer.with_context(|| format!("{who} by kube-proxy's table"))?;
            ensure!(
                names.contains(&answer.as_str()),
                "{who} was answered {answer:?}"
            );
        }
    }
    Ok(())
}

fn tables(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let list = ["-s", "list", "table", "ip", "kube-proxy"];
    cluster
        .nodes
        .iter()
        .map(|node| node.machine.run("nft", &list))
        .collect()
}

/// Deletes the agents' pods and waits for those that come after.
async fn restart_agents(cluster: &Cluster) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client().await?, helm::NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/component=agent");
    let old: Vec<_> = api.list(&selector).await?.items;
    ensure!(!old.is_empty(), "no agent runs");
    api.delete_collection(&DeleteParams::default(), &selector)
        .await?;
    until("other agents", patience(60), &cluster.logs(), || async {
        let now = api
            .list(&selector)
            .await
            .map_err(|error| error.to_string())?
            .items;
        let same = now
            .iter()
            .any(|pod| old.iter().any(|one| one.metadata.uid == pod.metadata.uid));
        if same || now.len() < cluster.nodes.len() {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            return Err("the old ones are there".to_owned());
        }
        Ok(())
    })
    .await?;
    steps::agents_ready(cluster).await
}

/// A file that comes after ours by name is nobody's business: pods are ours, the file stays.
async fn other_conflist(cluster: &Cluster) -> anyhow::Result<()> {
    reference::install(cluster, reference::CONFLIST)?;
    crate::margay::new_pods(cluster, "beside").await?;
    for node in &cluster.nodes {
        let left = node.machine.path("/var/lib/cni/networks/reference");
        let used = std::fs::read_dir(&left).is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| file.file_name().to_string_lossy().starts_with("10."))
            })
        });
        ensure!(
            !used,
            "a pod of {} has an address of the other network",
            node.name()
        );
    }
    restart_agents(cluster).await?;
    for node in &cluster.nodes {
        ensure!(
            node.machine.path(reference::CONFLIST).exists(),
            "the other's file is gone from {}",
            node.name()
        );
    }
    reference::remove(cluster, reference::CONFLIST)
}

/// A port of the node, and a limit of the rate.
async fn chain(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let plan = &cluster.ground.lab.plan;
    let mut spec = workload::pod_spec(plan.store.address.ip());
    spec["containers"][0]["ports"] = json!([{"containerPort": SERVED_PORT, "hostPort": HOST_PORT}]);
    let mut object = workload::deployment("chained", 1, &spec);
    object["spec"]["template"]["metadata"]["annotations"] =
        json!({"kubernetes.io/ingress-bandwidth": RATE});
    workload::deploy(&client, object).await?;
    let pods = workload::until_ready(cluster, &client, "app=chained", 1, patience(60)).await?;
    let pod = &pods[0];
    let node = cluster.nodes.iter().find(|node| node.name() == pod.node);
    let node = node.context("a pod on no node")?;
    let outside = plan.namespace(&plan.outside.name);
    until(
        "the node's port to lead to the pod",
        patience(10),
        &cluster.logs(),
        || async {
            let answer = workload::fetch_from(&outside, node.address, HOST_PORT);
            match answer {
                Ok(name) if name == pod.name => Ok(()),
                Ok(name) => Err(format!("{name} answered")),
                Err(error) => Err(format!("{error:#}")),
            }
        },
    )
    .await?;
    let limits = node.machine.run("tc", &["qdisc", "show"])?;
    ensure!(
        limits.contains("qdisc tbf") && limits.contains("rate 10Mbit"),
        "no limit of 10 Mbit/s: {limits}"
    );
    workload::delete(&client, "chained").await?;
    until(
        "the node's port to be free again",
        patience(60),
        &cluster.logs(),
        || async {
            let rules = node.machine.run("iptables", &["-t", "nat", "-S"]);
            let rules = rules.map_err(|error| format!("{error:#}"))?;
            let left = rules
                .lines()
                .find(|line| line.contains(&HOST_PORT.to_string()));
            left.map_or(Ok(()), |line| Err(line.to_owned()))
        },
    )
    .await?;
    Ok(())
}

/// As Multus does it: another plugin has given the sandbox an interface, and ours is called with
/// what that one said.
async fn delegation(cluster: &Cluster, pods: &[Place]) -> anyhow::Result<String> {
    const POD: &str = "delegated";
    let client = cluster.client().await?;
    let api: Api<Pod> = Api::namespaced(client, workload::NAMESPACE);
    // Nobody schedules it, so that this test plays its runtime.
    let object = json!({
        "metadata": {"name": POD, "labels": {"app": POD}},
        "spec": {"schedulerName": "nobody", "containers": [{"name": "x", "image": "x"}]},
    });
    objects::ensure(&api, object).await?;
    let machine = &cluster.nodes[0].machine;
    machine.run("ip", &["netns", "add", POD])?;
    let call = Call { machine, pod: POD };
    let other = json!({
        "cniVersion": "1.0.0", "name": "other", "type": "ptp",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "192.168.77.0/24"}]]},
    });
    let first = call.must("ptp", "ADD", "net1", &other)?;
    let mut ours = json!({"cniVersion": "1.0.0", "name": "margay", "type": "margay-cni"});
    ours["prevResult"] = first.clone();
    let both = call.must("margay-cni", "ADD", "eth0", &ours)?;
    let count = |result: &Value, field: &str| result[field].as_array().map_or(0, Vec::len);
    ensure!(
        count(&both, "ips") == count(&first, "ips") + 1
            && count(&both, "interfaces") > count(&first, "interfaces"),
        "{first} became {both}"
    );
    let mine = both["ips"].as_array().into_iter().flatten();
    let mine = mine.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
    let mine: Vec<IpAddr> = mine
        .filter(|ip| cluster.ground.lab.plan.pool.contains(*ip))
        .collect();
    ensure!(mine.len() == 1, "{mine:?} of the pool in {both}");
    let interface = ip_index(&both, &mine[0]);
    ensure!(
        interface.as_deref() == Some("eth0"),
        "our address is on {interface:?}: {both}"
    );
    let there = pods
        .iter()
        .find(|pod| pod.node != machine.name)
        .context("pods on one node")?;
    let url = format!("http://{}:{SERVED_PORT}/", there.address);
    let answer = machine.run(
        "ip",
        &[
            "netns", "exec", POD, "busybox", "timeout", "3", "busybox", "wget", "-q", "-O", "-",
            &url,
        ],
    )?;
    ensure!(
        answer.trim() == there.name,
        "{answer:?} answered for {}",
        there.name
    );

    ours["prevResult"] = both;
    call.must("margay-cni", "CHECK", "eth0", &ours)?;
    call.must("margay-cni", "DEL", "eth0", &ours)?;
    let left = machine.run("ip", &["-n", POD, "-o", "link"])?;
    ensure!(
        left.contains("net1") && !left.contains("eth0"),
        "after DEL: {left}"
    );
    call.must("ptp", "DEL", "net1", &other)?;
    machine.run("ip", &["netns", "delete", POD])?;
    api.delete(POD, &DeleteParams::default().grace_period(0))
        .await?;
    Ok(format!("net1 by ptp, eth0 by us with {}", mine[0]))
}

/// The name of the interface that an address of a result is on.
fn ip_index(result: &Value, address: &IpAddr) -> Option<String> {
    let ips = result["ips"].as_array()?;
    let found = ips.iter().find(|ip| {
        ip["address"]
            .as_str()
            .is_some_and(|text| text.split('/').next() == Some(&address.to_string()))
    });
    let index = usize::try_from(found?["interface"].as_u64()?).ok()?;
    Some(result["interfaces"][index]["name"].as_str()?.to_owned())
}

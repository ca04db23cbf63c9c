//! No packet passes that nobody allowed: before a pod's policy is in the kernel, from an unknown
//! interface, from an address that is not the pod's.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams};
use margay_crds as crds;
use margay_e2e::lab::command::run;
use margay_e2e::lab::spec::POD_NAMESPACE;
use margay_e2e::lab::{Tor, namespaces};
use serde_json::json;

use crate::call::Call;
use crate::ground::{Ground, runnable};

/// A port that nothing else of the lab uses.
const PORT: u16 = 7777;
const NODE: &str = "node1";

fn socket(namespace: &str, local: SocketAddr) -> UdpSocket {
    let made = namespaces::inside(namespace, || Ok(UdpSocket::bind(local).unwrap()));
    made.unwrap()
}

fn any(port: u16) -> SocketAddr {
    (IpAddr::from([0, 0, 0, 0]), port).into()
}

/// Counts the datagrams that arrive, by their first byte.
struct Ear {
    stop: Arc<AtomicBool>,
    heard: Arc<[AtomicU64; 256]>,
    thread: Option<JoinHandle<()>>,
}

impl Ear {
    fn new(namespace: &str) -> Self {
        let socket = socket(namespace, any(PORT));
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let heard: Arc<[AtomicU64; 256]> = Arc::new(std::array::from_fn(|_| AtomicU64::new(0)));
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&heard));
        let thread = std::thread::spawn(move || {
            let mut word = [0_u8; 8];
            while !stopped.load(Ordering::Relaxed) {
                if socket.recv(&mut word).is_ok() {
                    counts[usize::from(word[0])].fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self {
            stop,
            heard,
            thread: Some(thread),
        }
    }

    fn heard(&self, mark: u8) -> u64 {
        self.heard[usize::from(mark)].load(Ordering::Relaxed)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Sends datagrams without a pause to each of some addresses, whether there is a road or not.
struct Flood {
    stop: Arc<AtomicBool>,
    tried: Arc<AtomicU64>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn new(namespace: &str, to: Vec<IpAddr>, mark: u8) -> Self {
        let socket = socket(namespace, any(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (tried, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (stopped, tries, count) = (Arc::clone(&stop), Arc::clone(&tried), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for address in &to {
                    tries.fetch_add(1, Ordering::Relaxed);
                    if socket.send_to(&[mark], (*address, PORT)).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // The agent needs a processor too.
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        Self {
            stop,
            tried,
            sent,
            thread: Some(thread),
        }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_packet_passes_that_nobody_allowed() {
    if !runnable("no_packet_passes_that_nobody_allowed") {
        return;
    }
    let mut ground = Ground::prepare("t-policy", 2, 1, Tor::None, 3).await;
    spoofed(&ground).await;
    unknown_interface(&ground).await;
    every_kind(&ground).await;
    first_moment(&mut ground).await;
    two_hundred_starts(&mut ground).await;
}

async fn until_heard(ground: &Ground, ear: &Ear, mark: u8, speak: impl Fn()) {
    ground
        .until("what is allowed to arrive", 10, || async {
            speak();
            (ear.heard(mark) > 0)
                .then_some(())
                .ok_or("nothing".to_owned())
        })
        .await;
}

/// web-1 sends with an address that is not its own: one of its node's, and one of nobody's.
async fn spoofed(ground: &Ground) {
    let (web1, web2) = (ground.pod("web-1"), ground.pod("web-2"));
    let inside = web1.sandbox.namespace.clone();
    let ear = Ear::new(&web2.sandbox.namespace);
    for (mark, false_address) in [
        (1, ground.pod("job-1").address),
        (2, [192, 0, 2, 99].into()),
    ] {
        let text = format!("{false_address}/32");
        run("ip", &["-n", &inside, "addr", "add", &text, "dev", "lo"]).unwrap();
        let liar = socket(&inside, (false_address, 0).into());
        for _ in 0..50 {
            liar.send_to(&[mark], (web2.address, PORT)).unwrap();
        }
        run("ip", &["-n", &inside, "addr", "delete", &text, "dev", "lo"]).unwrap();
    }
    // What came later has arrived: what did not arrive until now never will.
    let honest = socket(&inside, (web1.address, 0).into());
    until_heard(ground, &ear, 3, || {
        honest.send_to(&[3], (web2.address, PORT)).unwrap();
    })
    .await;
    assert_eq!((ear.heard(1), ear.heard(2)), (0, 0));
}

/// An interface with a pod's kind of name that the agent did not make.
async fn unknown_interface(ground: &Ground) {
    let node = ground.namespace(NODE);
    let web2 = ground.pod("web-2");
    let stranger = ground.namespace("tor-a");
    let block: IpNetwork = ground.blocks_of(NODE).await.remove(0).parse().unwrap();
    let IpAddr::V4(first) = block.network() else {
        panic!("{block}")
    };
    let address = IpAddr::from((u32::from(first) + 60).to_be_bytes());
    // The far end is in a namespace of its own, which the lab ends with the others: the ToR has
    // a road to everywhere, so a table of routes of its own is used in it.
    let far = format!("{}-x", ground.namespace("stranger"));
    drop(stranger);
    namespaces::create(&far).unwrap();
    let ip = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        run("ip", &arguments).unwrap()
    };
    ip(&format!(
        "-n {node} link add mgyfffffffffff type veth peer name eth0 netns {far}"
    ));
    ip(&format!("-n {node} link set mgyfffffffffff up"));
    ip(&format!(
        "-n {node} addr add 169.254.9.1/32 dev mgyfffffffffff"
    ));
    ip(&format!(
        "-n {node} route add {address}/32 dev mgyfffffffffff"
    ));
    ip(&format!("-n {far} link set eth0 up"));
    ip(&format!("-n {far} addr add {address}/32 dev eth0"));
    ip(&format!("-n {far} route add 169.254.9.1/32 dev eth0"));
    ip(&format!(
        "-n {far} route add default via 169.254.9.1 dev eth0"
    ));

    let ear = Ear::new(&web2.sandbox.namespace);
    let heard_by_stranger = Ear::new(&far);
    let voice = socket(&far, any(0));
    let pod_voice = socket(&web2.sandbox.namespace, any(0));
    for _ in 0..50 {
        voice.send_to(&[1], (web2.address, PORT)).unwrap();
        pod_voice.send_to(&[1], (address, PORT)).unwrap();
    }
    assert!(!ground.reaches(&far, web2.address));
    assert!(!ground.reaches(&web2.sandbox.namespace, address));
    let honest = socket(&ground.pod("web-1").sandbox.namespace, any(0));
    until_heard(ground, &ear, 3, || {
        honest.send_to(&[3], (web2.address, PORT)).unwrap();
    })
    .await;
    assert_eq!((ear.heard(1), heard_by_stranger.heard(1)), (0, 0));

    // Without the name it is any interface of the node, and the road itself was good.
    ip(&format!("-n {node} link set mgyfffffffffff down"));
    ip(&format!("-n {node} link set mgyfffffffffff name other0"));
    ip(&format!("-n {node} link set other0 up"));
    ip(&format!("-n {node} route replace {address}/32 dev other0"));
    until_heard(ground, &ear, 4, || {
        voice.send_to(&[4], (web2.address, PORT)).unwrap();
    })
    .await;
    drop((voice, heard_by_stranger));
    ip(&format!("-n {node} link delete other0"));
    namespaces::remove(&far).unwrap();
}

/// A policy of each kind and a network set, one overruling the other, and each seen by its effect on an echo.
async fn every_kind(ground: &Ground) {
    let client = || ground.cluster.client.clone();
    let (from, to) = (&ground.pod("web-1"), &ground.pod("web-2"));
    let reaches = |wanted: bool, when: &'static str| async move {
        ground
            .until(when, 10, || async {
                match ground.reaches(&from.sandbox.namespace, to.address) == wanted {
                    true => Ok(()),
                    false => Err(format!("reached: {}", !wanted)),
                }
            })
            .await;
    };
    reaches(true, "an echo without policies").await;
    let own: Api<crds::NetworkPolicy> = Api::namespaced(client(), POD_NAMESPACE);
    let deny = json!({
        "metadata": {"name": "no-echo", "namespace": POD_NAMESPACE},
        "spec": {"selector": "pod == 'web-2'", "ingress": [
            {"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8}},
            {"action": "Allow"},
        ]},
    });
    ground.create(&own, deny).await;
    reaches(false, "NetworkPolicy.margay.dev to deny the echo").await;
    told(ground).await;
    let sets: Api<crds::GlobalNetworkSet> = Api::all(client());
    let set = json!({"metadata": {"name": "friends", "labels": {"friend": "yes"}}, "spec": {"nets": [from.address]}});
    ground.create(&sets, set).await;
    let global: Api<crds::GlobalNetworkPolicy> = Api::all(client());
    let allow = json!({
        "metadata": {"name": "friends"},
        "spec": {"order": 1, "selector": "pod == 'web-2'", "ingress": [
            {"action": "Allow", "source": {"selector": "friend == 'yes'"}}, {"action": "Pass"},
        ]},
    });
    ground.create(&global, allow).await;
    reaches(true, "GlobalNetworkPolicy to allow a network set").await;
    let cluster: Api<crds::ClusterNetworkPolicy> = Api::all(client());
    let deny = json!({
        "metadata": {"name": "nobody"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]},
    });
    ground.create(&cluster, deny).await;
    reaches(false, "ClusterNetworkPolicy to deny before both").await;
    cluster
        .delete("nobody", &DeleteParams::default())
        .await
        .unwrap();
    reaches(true, "the GlobalNetworkPolicy to be next").await;
    global
        .delete("friends", &DeleteParams::default())
        .await
        .unwrap();
    reaches(false, "the NetworkPolicy.margay.dev to be next").await;
    own.delete("no-echo", &DeleteParams::default())
        .await
        .unwrap();
    reaches(true, "an echo without policies again").await;
    sets.delete("friends", &DeleteParams::default())
        .await
        .unwrap();
}

/// The denied echo is told on web-2's node, with pods, policy and rule, and counted.
async fn told(ground: &Ground) {
    let node = &format!("node{}", ground.pod("web-2").plan.node + 1);
    let denial = || async {
        let answer = ground.ask_agent(node, "denials")?;
        let denials = answer["denials"].as_array().cloned().unwrap_or_default();
        let is_it = |one: &&serde_json::Value| {
            let (from, to) = (&one["from"]["endpoint"], &one["to"]["endpoint"]);
            one["verdict"] == "deny"
                && *from == format!("{POD_NAMESPACE}/web-1")
                && *to == format!("{POD_NAMESPACE}/web-2")
        };
        let found = denials.iter().rfind(is_it).cloned();
        found.ok_or_else(|| answer.to_string())
    };
    let told = ground.until("the denied echo to be told", 10, denial).await;
    assert_eq!(told["by"]["kind"], "NetworkPolicy.margay.dev", "{told}");
    assert_eq!(
        (&told["by"]["name"], &told["by"]["rule"]),
        (&json!("no-echo"), &json!("ingress[0]"))
    );
    assert_eq!(
        (&told["protocol"], &told["icmp"]),
        (&json!("ICMP"), &json!([8, 0]))
    );
    let answer = ground.ask_agent(node, "counters").unwrap();
    let counters = answer["counters"].as_array().unwrap();
    let denied = counters
        .iter()
        .find(|one| one["name"] == "no-echo" && one["action"] == "Deny");
    assert!(denied.unwrap()["packets"].as_u64() > Some(0), "{answer}");
    let socket = ground.lab.ledger.folder.admin_socket(node);
    for (command, expected) in [("denials", "web-1 "), ("counters", "no-echo")] {
        let mut margayctl = std::process::Command::new(&ground.binaries.margayctl);
        margayctl.args(["policy", command, "--socket"]).arg(&socket);
        let output = margayctl.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains(expected), "{text}");
    }
}

/// Pods whose policy denies everything, flooded from before their interface exists, both ways.
async fn first_moment(ground: &mut Ground) {
    let policies: Api<NetworkPolicy> =
        Api::namespaced(ground.cluster.client.clone(), POD_NAMESPACE);
    let deny = json!({
        "metadata": {"name": "nothing", "namespace": POD_NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress", "Egress"]},
    });
    ground.create(&policies, deny).await;
    let web2 = ground.pod("web-2");
    let outer = Ear::new(&web2.sandbox.namespace);
    let block: IpNetwork = ground.blocks_of(NODE).await.remove(0).parse().unwrap();
    // Whatever address the pod will get is one of these.
    let addresses: Vec<IpAddr> = block.iter().take(24).collect();
    let flood = Flood::new(&web2.sandbox.namespace, addresses, 7);
    let local_addresses: BTreeSet<IpAddr> = block.iter().take(24).collect();
    let neighbour = Flood::new(
        &ground.pod("job-1").sandbox.namespace,
        local_addresses.into_iter().collect(),
        8,
    );
    let mut pods = Vec::new();
    for number in 1..=6 {
        let plan = ground.pod_plan(&format!("closed-{number}"), "closed", NODE);
        let ledger = &mut ground.lab.ledger;
        let sandbox = ground.cluster.runtime.sandbox(ledger, &plan).await.unwrap();
        let ear = Ear::new(&sandbox.namespace);
        let voice = Flood::new(&sandbox.namespace, vec![web2.address], 9);
        let call = Call::new(ground.plugin(NODE), &sandbox);
        let answer = call.run("ADD");
        let took = answer.took;
        answer.result();
        // Both floods go on well into the time after the interface is up.
        let (from, to) = (flood.sent(), voice.sent());
        ground
            .until("the floods to go on", 20, || async {
                let now = (flood.sent() - from, voice.sent() - to);
                (now.0 > 5000 && now.1 > 300)
                    .then_some(())
                    .ok_or(format!("{now:?}"))
            })
            .await;
        eprintln!(
            "  closed-{number}: ADD {took:?}, {} of {} sent out, {} heard inside",
            voice.sent(),
            voice.tried.load(Ordering::Relaxed),
            ear.heard(7) + ear.heard(8)
        );
        assert_eq!(
            (ear.heard(7), ear.heard(8), outer.heard(9)),
            (0, 0, 0),
            "closed-{number}"
        );
        assert!(voice.sent() > 0 && voice.sent() < voice.tried.load(Ordering::Relaxed));
        pods.push((call, ear, voice));
    }
    // Without the policy the same floods arrive: they were real.
    policies
        .delete("nothing", &DeleteParams::default())
        .await
        .unwrap();
    ground
        .until("the floods to arrive", 10, || async {
            let inside = pods
                .iter()
                .all(|(_, ear, _)| ear.heard(7) > 0 && ear.heard(8) > 0);
            match inside && outer.heard(9) > 0 {
                true => Ok(()),
                false => Err(format!("outside {}", outer.heard(9))),
            }
        })
        .await;
    eprintln!(
        "  flooded with {} and {} datagrams",
        flood.sent(),
        neighbour.sent()
    );
    for (call, ear, voice) in pods {
        drop((ear, voice));
        call.run("DEL").result();
    }
}

/// Sends datagrams from many sockets to one address without a pause, whether there is a road or not.
fn voices(sockets: Vec<UdpSocket>, to: IpAddr, mark: u8) -> Flood {
    let stop = Arc::new(AtomicBool::new(false));
    let (tried, sent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (stopped, tries, count) = (Arc::clone(&stop), Arc::clone(&tried), Arc::clone(&sent));
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for socket in &sockets {
                tries.fetch_add(1, Ordering::Relaxed);
                if socket.send_to(&[mark], (to, PORT)).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    Flood {
        stop,
        tried,
        sent,
        thread: Some(thread),
    }
}

/// A pod that is about to start: the plugin's call, and a socket in it that keeps what arrives.
struct Starting {
    call: Call,
    ear: UdpSocket,
}

impl Starting {
    fn heard(&self) -> usize {
        let mut word = [0; 8];
        let mut count = 0;
        while count < 10_000 && self.ear.recv(&mut word).is_ok() {
            count += 1;
        }
        count
    }
}

/// The plugin for all of them at once.
fn all_at_once(pods: &[Starting], verb: &str) {
    std::thread::scope(|scope| {
        for pod in pods {
            scope.spawn(|| pod.call.run(verb).result());
        }
    });
}

/// How many pods start at once, and how often that is done.
const AT_ONCE: usize = 20;
const ROUNDS: usize = 10;

/// Two hundred starts of pods whose policy denies everything, twenty at once, while every address that they may get is
/// flooded and each of them floods another. What gets through is counted.
async fn two_hundred_starts(ground: &mut Ground) {
    let policies: Api<NetworkPolicy> =
        Api::namespaced(ground.cluster.client.clone(), POD_NAMESPACE);
    let deny = json!({
        "metadata": {"name": "storm", "namespace": POD_NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"app": "storm"}}, "policyTypes": ["Ingress", "Egress"]},
    });
    ground.create(&policies, deny).await;
    let web2 = ground.pod("web-2");
    let outer = Ear::new(&web2.sandbox.namespace);
    let block: IpNetwork = ground.blocks_of(NODE).await.remove(0).parse().unwrap();
    let addresses = || block.iter().collect::<Vec<_>>();
    let flood = Flood::new(&web2.sandbox.namespace, addresses(), 7);
    let neighbour = Flood::new(&ground.pod("job-1").sandbox.namespace, addresses(), 8);
    let (mut starts, mut leaked) = (0, 0);
    for round in 0..ROUNDS {
        let mut pods = Vec::new();
        let mut mouths = Vec::new();
        for number in 0..AT_ONCE {
            let plan = ground.pod_plan(&format!("storm-{round}-{number}"), "storm", NODE);
            let ledger = &mut ground.lab.ledger;
            let sandbox = ground.cluster.runtime.sandbox(ledger, &plan).await.unwrap();
            let ear = socket(&sandbox.namespace, any(PORT));
            ear.set_nonblocking(true).unwrap();
            mouths.push(socket(&sandbox.namespace, any(0)));
            let call = Call::new(ground.plugin(NODE), &sandbox);
            pods.push(Starting { call, ear });
        }
        let voice = voices(mouths, web2.address, 9);
        all_at_once(&pods, "ADD");
        let (from, to) = (flood.sent(), voice.sent());
        ground
            .until("the floods to go on", 60, || async {
                let now = (flood.sent() - from, voice.sent() - to);
                (now.0 > 2000 && now.1 > 2000)
                    .then_some(())
                    .ok_or(format!("{now:?}"))
            })
            .await;
        starts += pods.len();
        leaked += pods.iter().map(Starting::heard).sum::<usize>();
        assert!(voice.sent() < voice.tried.load(Ordering::Relaxed));
        if round + 1 == ROUNDS {
            assert_eq!((leaked, outer.heard(9)), (0, 0), "of {starts} starts");
            // Without the policy the same floods arrive: they were real.
            policies
                .delete("storm", &DeleteParams::default())
                .await
                .unwrap();
            ground
                .until("the floods to arrive", 20, || async {
                    let flooded = pods.iter().filter(|pod| pod.heard() > 0).count();
                    (flooded * 2 > pods.len() && outer.heard(9) > 0)
                        .then_some(())
                        .ok_or(format!("{flooded} flooded, outside {}", outer.heard(9)))
                })
                .await;
        }
        drop(voice);
        all_at_once(&pods, "DEL");
    }
    eprintln!(
        "  {starts} starts, {AT_ONCE} at once: {leaked} packets before policy, of {} and {} sent",
        flood.sent(),
        neighbour.sent()
    );
    assert_eq!(leaked, 0);
}

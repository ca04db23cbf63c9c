//! Packets from one pod through the node to another: without any rules, with ours, and with the rules that others write
//! for the same policies today, by turns in one run.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use margay_policy::{
    Engine, LocalEndpoint,
    writer::{Netlink, Nft, Writer},
};
use serde_json::{Value, json};

use crate::{
    busy,
    network::{self, Network, block_on, run, within},
    quantile,
    world::{Labels, labels, model, namespace, peer, policy, port},
};

const SIZES: [usize; 3] = [1, 100, 10_000];
/// How often all roads are made anew: where in memory the kernel puts what a packet meets makes more of a difference than
/// anything that changes from round to round.
const SETS: usize = 9;
/// Rounds of a set.
const ROUNDS: usize = 3;
/// Packets of a round.
const PACKETS: u16 = 20_000;
const FROM: &str = "10.77.0.1";
const TO: &str = "10.77.0.2";
const STREAM: Duration = Duration::from_millis(1200);

/// Connections tracked and let through by a mark.
const TRACKING: &str = "add table inet part
add chain inet part tracking { type filter hook forward priority 0; }
add rule inet part tracking ct mark 0x10000 accept
add rule inet part tracking ct mark set 0x10000
";
/// Where a pod sends from compared with what it may.
const SOURCES: &str =
    "add map inet part sources { type iface_index . ipv4_addr : verdict; size 4096; }
add element inet part sources { mgya . 10.77.0.1 : accept, mgyb . 10.77.0.2 : accept }
add chain inet part checking { type filter hook prerouting priority -300; }
add rule inet part checking iif . ip saddr vmap @sources
add rule inet part checking drop
";
/// What no policy can do without.
const PARTS: [(&str, &[&str]); 2] = [
    ("tracking", &[TRACKING]),
    ("checking", &[TRACKING, SOURCES]),
];

/// A node between two pods.
struct Road {
    name: String,
    node: String,
    to: String,
    open: UdpSocket,
    source: u16,
    from: String,
    netlink: Arc<Netlink>,
}

pub(crate) fn measure() -> Value {
    let mut taken = Vec::new();
    for set in 0..SETS {
        measure_set(set, &mut taken);
    }
    let mut figures = serde_json::Map::new();
    for times in &taken {
        let none = &taken[0];
        let ratio = |of: fn(&Times) -> &Vec<f64>| {
            // Of each round by itself: what else the machine does changes from round to round.
            let pairs = of(times).iter().zip(of(none));
            let mut ratios: Vec<f64> = pairs.map(|(this, none)| this / none).collect();
            quantile(&mut ratios, 0.5)
        };
        let middle = |of: fn(&Times) -> &Vec<f64>| quantile(&mut of(times).clone(), 0.5);
        let figure = json!({
            "establishedNanos": middle(|times| &times.established), "established": ratio(|times| &times.established),
            "newNanos": middle(|times| &times.fresh), "new": ratio(|times| &times.fresh),
            "gigabits": middle(|times| &times.stream), "stream": ratio(|times| &times.stream),
        });
        figures.insert(times.name.clone(), figure);
    }
    Value::Object(figures)
}

/// What was measured through the roads of one name.
#[derive(Default)]
struct Times {
    name: String,
    established: Vec<f64>,
    fresh: Vec<f64>,
    stream: Vec<f64>,
}

/// Makes the roads and measures them by turns.
fn measure_set(set: usize, taken: &mut Vec<Times>) {
    let mut network = Network::new(&format!("packets-{set}"));
    let mut roads = roads(&mut network);
    taken.resize_with(roads.len(), Times::default);
    for (road, times) in roads.iter_mut().zip(taken.iter_mut()) {
        times.name.clone_from(&road.name);
        road.greet();
    }
    for round in 0..ROUNDS {
        eprintln!(
            "packets: set {} of {SETS}, round {} of {ROUNDS} …",
            set + 1,
            round + 1
        );
        if round == 0 {
            for (road, times) in roads.iter().zip(taken.iter_mut()) {
                times.stream.push(road.stream());
            }
        }
        for (road, times) in roads.iter_mut().zip(taken.iter_mut()) {
            road.mute(true);
            times.established.push(road.established());
            times.fresh.push(road.fresh());
            road.mute(false);
        }
    }
}

fn roads(network: &mut Network) -> Vec<Road> {
    let mut roads = vec![road(network, "none".to_owned())];
    for (name, rules) in PARTS {
        let road = road(network, name.to_owned());
        feed(&road.node, &["nft", "-f", "-"], &rules.concat());
        roads.push(road);
    }
    for count in SIZES {
        eprintln!("packets: {count} policies …");
        let road = road(network, format!("margay-{count}"));
        load_ours(&road, count);
        roads.push(road);
    }
    for count in SIZES {
        eprintln!("packets: {count} policies in iptables …");
        let road = road(network, format!("iptables-{count}"));
        load_theirs(&road, count);
        roads.push(road);
    }
    roads
}

fn road(network: &mut Network, name: String) -> Road {
    let [from, node, to] = ["a", "n", "b"].map(|role| network.make(&format!("{name}-{role}")));
    run(&format!(
        "ip netns exec {node} sysctl -qw net.ipv4.ip_forward=1"
    ));
    for (pod, device, address) in [(&from, "mgya", FROM), (&to, "mgyb", TO)] {
        run(&format!(
            "ip -n {node} link add {device} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {pod}"
        ));
        run(&format!("ip -n {node} link set {device} up"));
        run(&format!("ip -n {pod} addr add {address}/32 dev eth0"));
        run(&format!("ip -n {pod} link set eth0 up"));
        run(&format!(
            "ip -n {pod} neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent"
        ));
        run(&format!(
            "ip -n {pod} route add default via 169.254.1.1 dev eth0 onlink"
        ));
        run(&format!("ip -n {node} route add {address}/32 dev {device}"));
    }
    run(&format!("ip -n {node} addr add 192.0.2.1/32 dev lo"));
    let open = within(&from, || {
        let socket = UdpSocket::bind("0.0.0.0:40000").unwrap();
        socket.connect((TO, 5000)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        socket
    });
    let netlink = within(&node, || Netlink::open(Nft::default()).unwrap());
    Road {
        name,
        node,
        to,
        open,
        source: 20_000,
        from,
        netlink: Arc::new(netlink),
    }
}

/// Policies that select both pods, of which the last alone lets them through.
fn load_ours(road: &Road, count: usize) {
    let mut engine = Engine::new("measured");
    let cluster = engine.cluster();
    cluster.apply_namespace(&namespace("one", Labels::new()));
    for number in 0..count {
        let other = || vec![peer(None, labels(&[("app", format!("app-{number}"))]))];
        let ports = || {
            vec![
                port("UDP", 1000, Some(60_000)),
                port("TCP", 1000, Some(60_000)),
            ]
        };
        cluster.apply_network_policy(&policy(
            "one",
            format!("policy-{number}"),
            Labels::new(),
            Some((other(), ports())),
            Some((other(), ports())),
        ));
    }
    for (number, (name, device, address)) in
        [("a", "mgya", FROM), ("b", "mgyb", TO)].iter().enumerate()
    {
        let mut pod = model(
            "one",
            name,
            labels(&[("app", format!("app-{}", count - 1))]),
            number,
        );
        pod.addresses = vec![address.parse().unwrap()];
        let number = network::device(&road.node, device);
        cluster_pod(&mut engine, pod, (device, number));
    }
    engine.poll();
    let nft = Nft::default().with_program(["ip", "netns", "exec", &road.node, "nft"]);
    block_on(nft.apply(&engine.ruleset().full())).unwrap();
}

fn cluster_pod(engine: &mut Engine, pod: margay_policy::model::Pod, interface: (&str, u32)) {
    engine.handle_endpoint(LocalEndpoint {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        interface: interface.0.to_owned(),
        device: interface.1,
        addresses: pod.addresses.clone(),
        ..LocalEndpoint::default()
    });
    engine.cluster().insert_pod(pod);
}

/// What Felix writes with iptables: a chain for each pod and direction, which asks a chain for each policy, which asks an
/// ipset for its selector; marks carry the answer back. Established connections are let through at the top of each pod's.
fn load_theirs(road: &Road, count: usize) {
    let mut sets = String::new();
    let mut rules = String::from(
        "*filter\n:cali-FORWARD - [0:0]\n:cali-from - [0:0]\n:cali-to - [0:0]\n:cali-fw - [0:0]\n:cali-tw - [0:0]\n",
    );
    for number in 0..count {
        sets += &format!("create cali40s:{number} hash:ip family inet\n");
        let members: &[&str] = if number + 1 == count {
            &[FROM, TO]
        } else {
            &["10.88.0.1"]
        };
        for member in members {
            sets += &format!("add cali40s:{number} {member}\n");
        }
        rules += &format!(":cali-pi-{number} - [0:0]\n:cali-po-{number} - [0:0]\n");
    }
    rules += "-A FORWARD -j cali-FORWARD\n-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000\n\
        -A cali-FORWARD -i mgy+ -j cali-from\n-A cali-FORWARD -o mgy+ -j cali-to\n\
        -A cali-FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT\n\
        -A cali-from -i mgya -g cali-fw\n-A cali-from -i mgyb -g cali-fw\n-A cali-from -j DROP\n\
        -A cali-to -o mgya -g cali-tw\n-A cali-to -o mgyb -g cali-tw\n-A cali-to -j DROP\n";
    for (chain, policies, side) in [("cali-fw", "cali-po", "dst"), ("cali-tw", "cali-pi", "src")] {
        rules += &format!(
            "-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n-A {chain} -m conntrack --ctstate INVALID -j DROP\n\
             -A {chain} -j MARK --set-xmark 0x0/0x10000\n-A {chain} -p udp -m multiport --dports 4789 -j DROP\n-A {chain} -p 4 -j DROP\n\
             -A {chain} -j MARK --set-xmark 0x0/0x20000\n"
        );
        for number in 0..count {
            rules += &format!(
                "-A {chain} -m mark --mark 0x0/0x20000 -j {policies}-{number}\n-A {chain} -m mark --mark 0x10000/0x10000 -j RETURN\n"
            );
            for protocol in ["udp", "tcp"] {
                rules += &format!(
                    "-A {policies}-{number} -p {protocol} -m set --match-set cali40s:{number} {side} -m multiport --dports 1000:60000 -j MARK --set-xmark 0x10000/0x10000\n\
                     -A {policies}-{number} -m mark --mark 0x10000/0x10000 -j RETURN\n"
                );
            }
        }
        rules += &format!("-A {chain} -m mark --mark 0x0/0x20000 -j DROP\n");
    }
    rules += "COMMIT\n";
    feed(&road.node, &["ipset", "restore"], &sets);
    feed(&road.node, &["iptables-nft-restore"], &rules);
}

fn feed(namespace: &str, program: &[&str], input: &str) {
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace])
        .args(program)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program:?}: {said}");
}

impl Road {
    /// Opens the connection: a packet there and one back.
    fn greet(&mut self) {
        let answering = within(&self.to, || UdpSocket::bind((TO, 5000)).unwrap());
        answering
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
        for _ in 0..20 {
            self.open.send(b"hello").unwrap();
            let mut buffer = [0; 64];
            if let Ok((length, from)) = answering.recv_from(&mut buffer) {
                answering.send_to(&buffer[..length], from).unwrap();
                if self.open.recv(&mut buffer).is_ok() {
                    return;
                }
            }
        }
        panic!("{}: the policies let nothing through", self.name);
    }

    /// Whether packets end where they arrive, without an answer.
    fn mute(&self, muted: bool) {
        let rules = match muted {
            true => {
                "add table ip mute; add chain ip mute in { type filter hook prerouting priority -400; }; add rule ip mute in drop"
            }
            false => "delete table ip mute",
        };
        feed(&self.to, &["nft", "-f", "-"], rules);
    }

    /// Nanoseconds of a packet of the open connection.
    fn established(&self) -> f64 {
        let start = busy();
        for _ in 0..PACKETS {
            self.open.send(&[0; 64]).unwrap();
        }
        (busy() - start) as f64 / f64::from(PACKETS)
    }

    /// Nanoseconds of a packet when each opens a connection.
    fn fresh(&mut self) -> f64 {
        self.source += 1;
        let source = self.source;
        let socket = within(&self.from, move || {
            UdpSocket::bind(("0.0.0.0", source)).unwrap()
        });
        // A packet that asks ten thousand chains takes up to 20 milliseconds.
        let packets = match self.name.as_str() {
            "iptables-10000" => PACKETS / 200,
            _ => PACKETS,
        };
        let start = busy();
        for port in 0..packets {
            socket.send_to(&[0; 64], (TO, 10_000 + port)).unwrap();
        }
        let took = busy() - start;
        let from = FROM.parse().unwrap();
        self.netlink.forget(&[from].into()).unwrap();
        self.greet_again();
        took as f64 / f64::from(packets)
    }

    /// The open connection was forgotten with the others.
    fn greet_again(&mut self) {
        self.mute(false);
        self.greet();
        self.mute(true);
    }

    /// Gigabits a second of one TCP connection.
    fn stream(&self) -> f64 {
        let listener = within(&self.to, || TcpListener::bind((TO, 5001)).unwrap());
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        let reader = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 17];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                counter.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        let mut stream = within(&self.from, || TcpStream::connect((TO, 5001)).unwrap());
        let block = vec![0; 1 << 17];
        let start = Instant::now();
        while start.elapsed() < STREAM {
            stream.write_all(&block).unwrap();
        }
        drop(stream);
        reader.join().unwrap();
        received.load(Ordering::Relaxed) as f64 * 8.0 / start.elapsed().as_nanos() as f64
    }
}

//! A node and its pods as network namespaces: a router with one veth to each pod and an uplink to a host outside.

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::sctp;
use margay_policy::{
    Cluster, Compiler, LocalEndpoint, NodeInput, Ruleset, Transaction, diff,
    load::load,
    writer::{Error, Nft, Writer},
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long a probe waits for an answer; a pod answers within a millisecond, a dropped packet never.
const PATIENCE: Duration = Duration::from_millis(400);

/// The router's address, which is the node's.
pub(crate) const NODE: &str = "192.0.2.1";
pub(crate) const NODE_V6: &str = "2001:db8::1";
/// The host behind the uplink.
pub(crate) const OUTSIDE: &str = "192.0.2.9";
pub(crate) const OUTSIDE_V6: &str = "2001:db8::9";

/// Whether the test can run; says loudly when not, and fails where it must not be left out.
pub(crate) fn privileged(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    println!("SKIPPED (needs root): {test}");
    let required = std::env::var("MARGAY_REQUIRE_PRIVILEGED").is_ok_and(|value| value == "1");
    assert!(
        !required,
        "{test} needs root and MARGAY_REQUIRE_PRIVILEGED=1 is set"
    );
    false
}

/// Runs `ip` with these words.
fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {said}");
}

/// The number the kernel gave the interface.
fn device(namespace: &str, interface: &str) -> u32 {
    let path = format!("/sys/class/net/{interface}/ifindex");
    let words = ["netns", "exec", namespace, "cat", &path];
    let output = Command::new("ip").args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap()
}

/// Runs this in the namespace, on a thread of its own: a thread's sockets belong to the namespace it is in.
pub(crate) fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let path = format!("/var/run/netns/{namespace}");
    let worker = thread::spawn(move || {
        let file = std::fs::File::open(&path).unwrap();
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&file),
            Some(LinkNameSpaceType::Network),
        )
        .unwrap();
        work()
    });
    worker.join().unwrap()
}

/// Namespaces made one after the other, deleted on drop.
pub(crate) struct Namespaces {
    prefix: String,
    made: Vec<String>,
}

impl Namespaces {
    pub(crate) fn new(test: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            prefix: format!("mgy-pol-{test}-{}-{next}", std::process::id()),
            made: Vec::new(),
        }
    }

    pub(crate) fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    pub(crate) fn make(&mut self, role: &str) -> String {
        let name = self.name(role);
        ip(&format!("netns add {name}"));
        self.made.push(name.clone());
        ip(&format!("-n {name} link set lo up"));
        // Link-local addresses are needed at once, not after a second of looking for duplicates.
        for scope in ["all", "default"] {
            ip(&format!(
                "netns exec {name} sysctl -qw net.ipv6.conf.{scope}.accept_dad=0"
            ));
        }
        name
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.made {
            // The test's own outcome is what counts; a namespace that is gone already is no trouble.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// `nft` in a namespace.
pub(crate) fn nft(namespace: &str) -> Nft {
    Nft::default().with_program(["ip", "netns", "exec", namespace, "nft"])
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

/// Checks the transaction, then commits it.
pub(crate) fn commit(namespace: &str, transaction: &Transaction) -> Result<(), Error> {
    block_on(async {
        nft(namespace).checking().apply(transaction).await?;
        nft(namespace).apply(transaction).await
    })
}

/// The node, its pods and the host outside.
pub(crate) struct Lab {
    namespaces: Namespaces,
    pub(crate) cluster: Cluster,
    pub(crate) input: NodeInput,
    committed: Option<Ruleset>,
    pods: Vec<&'static str>,
}

impl Lab {
    /// A lab with pods of these names, in Kubernetes' namespace `x` with their name as the label `app`.
    pub(crate) fn new(test: &str, pods: &[&'static str]) -> Self {
        let mut namespaces = Namespaces::new(test);
        let router = namespaces.make("router");
        // Without checksums to check, a probe of SCTP need not bring one.
        for setting in [
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.netfilter.nf_conntrack_checksum=0",
        ] {
            ip(&format!("netns exec {router} sysctl -qw {setting}"));
        }
        let outside = namespaces.make("outside");
        ip(&format!(
            "-n {router} link add up0 type veth peer name eth0 netns {outside}"
        ));
        for (namespace, device, v4, v6) in [
            (&router, "up0", NODE, "2001:db8::1"),
            (&outside, "eth0", OUTSIDE, OUTSIDE_V6),
        ] {
            ip(&format!("-n {namespace} addr add {v4}/24 dev {device}"));
            ip(&format!(
                "-n {namespace} addr add {v6}/64 dev {device} nodad"
            ));
            ip(&format!("-n {namespace} link set {device} up"));
        }
        ip(&format!("-n {outside} route add default via {NODE}"));
        ip(&format!(
            "-n {outside} -6 route add default via 2001:db8::1"
        ));
        let mut lab = Self {
            namespaces,
            cluster: Cluster::new(),
            input: NodeInput {
                node: "n1".to_owned(),
                ..NodeInput::default()
            },
            committed: None,
            pods: pods.to_vec(),
        };
        lab.load(&format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n1}}, status: {{addresses: [{{type: InternalIP, address: {NODE}}}]}}}}"
        ));
        pods.iter().for_each(|pod| lab.add_pod(pod));
        for role in pods.iter().copied().chain(["outside", "router"]) {
            serve(&lab.namespaces.name(role));
        }
        lab.settle();
        lab
    }

    /// Waits until every pod gets through by IPv6 while there is no ruleset: right after a link comes up the first
    /// neighbour solicitation is lost, and a denial must not be mistaken for that.
    fn settle(&self) {
        let outside = OUTSIDE_V6.parse().unwrap();
        for pod in &self.pods {
            let there = (0..20).any(|_| self.reaches(pod, outside, "UDP/53"));
            assert!(
                there,
                "the lab itself does not work: {pod} gets nowhere by IPv6"
            );
        }
    }

    /// The host side of a pod's veth.
    pub(crate) fn interface(pod: &str) -> String {
        format!("mgy{pod}")
    }

    fn number(&self, pod: &str) -> usize {
        1 + self.pods.iter().position(|name| *name == pod).unwrap()
    }

    fn add_pod(&mut self, pod: &'static str) {
        let namespace = self.namespaces.make(pod);
        let (router, host) = (self.namespaces.name("router"), Self::interface(pod));
        let (v4, v6) = (self.address(pod), self.address_v6(pod));
        ip(&format!(
            "-n {router} link add {host} address ee:ee:ee:ee:ee:ee type veth peer name eth0 netns {namespace}"
        ));
        ip(&format!("-n {router} addr add fe80::1/64 dev {host} nodad"));
        ip(&format!("-n {router} link set {host} up"));
        ip(&format!("-n {namespace} addr add {v4}/32 dev eth0"));
        ip(&format!("-n {namespace} addr add {v6}/128 dev eth0 nodad"));
        ip(&format!("-n {namespace} link set eth0 up"));
        ip(&format!(
            "-n {namespace} neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0 nud permanent"
        ));
        ip(&format!(
            "-n {namespace} route add default via 169.254.1.1 dev eth0 onlink"
        ));
        // No permanent neighbour here: the way to the gateway has to be discovered through the ruleset.
        ip(&format!(
            "-n {namespace} -6 route add default via fe80::1 dev eth0"
        ));
        ip(&format!("-n {router} route add {v4}/32 dev {host}"));
        ip(&format!("-n {router} -6 route add {v6}/128 dev {host}"));
        self.label(pod, pod);
        self.input.endpoints.push(LocalEndpoint {
            namespace: "x".to_owned(),
            pod: pod.to_owned(),
            device: device(&router, &host),
            interface: host,
            addresses: vec![v4, v6],
            ..LocalEndpoint::default()
        });
    }

    pub(crate) fn address(&self, pod: &str) -> IpAddr {
        format!("10.77.0.{}", self.number(pod)).parse().unwrap()
    }

    pub(crate) fn address_v6(&self, pod: &str) -> IpAddr {
        format!("fd00:77::{}", self.number(pod)).parse().unwrap()
    }

    pub(crate) fn namespace(&self, role: &str) -> String {
        self.namespaces.name(role)
    }

    /// Gives a pod the label `app`.
    pub(crate) fn label(&mut self, pod: &str, app: &str) {
        let (v4, v6) = (self.address(pod), self.address_v6(pod));
        self.load(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {pod}, namespace: x, labels: {{app: {app}}}}}, \
             spec: {{nodeName: n1, containers: []}}, status: {{podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}}}"
        ));
    }

    /// Takes a policy in the pods' namespace.
    pub(crate) fn policy(&mut self, name: &str, spec: &str) {
        self.load(&format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: {name}, namespace: x}}, spec: {spec}}}"
        ));
    }

    /// Takes objects of any kind.
    pub(crate) fn load(&mut self, documents: &str) {
        assert_eq!(load(documents, &mut self.cluster).unwrap(), []);
    }

    /// Compiles and commits what changed, or everything the first time. Returns the transaction.
    pub(crate) fn sync(&mut self) -> Transaction {
        let (ruleset, problems) = Compiler::new().compile(&self.cluster, &self.input);
        assert_eq!(problems, []);
        let transaction = match &self.committed {
            Some(committed) => diff(committed, &ruleset),
            None => ruleset.full(),
        };
        if let Err(error) = commit(&self.namespaces.name("router"), &transaction) {
            panic!("{error}\n{}", transaction.to_nft_text());
        }
        self.committed = Some(ruleset);
        transaction
    }

    /// Whether a connection from the namespace of this role gets an answer.
    pub(crate) fn reaches(&self, from: &str, to: IpAddr, probe: &str) -> bool {
        let (protocol, port) = probe.split_once('/').unwrap();
        let to = SocketAddr::new(to, port.parse().unwrap());
        let namespace = self.namespaces.name(from);
        match protocol {
            "SCTP" => {
                let receiver = self.role_at(to.ip());
                sctp::reaches(&namespace, &self.namespaces.name(receiver), to, PATIENCE)
            }
            "TCP" => within(&namespace, move || {
                TcpStream::connect_timeout(&to, PATIENCE).is_ok()
            }),
            _ => within(&namespace, move || ask(None, to).is_some()),
        }
    }

    /// Whose address it is.
    fn role_at(&self, address: IpAddr) -> &'static str {
        let has = |pod: &&&str| [self.address(pod), self.address_v6(pod)].contains(&address);
        self.pods.iter().find(has).copied().unwrap_or("outside")
    }

    /// Asserts many probes at once: `from to probe`, pods by name, other destinations by address; `to6` is `to` by IPv6.
    #[track_caller]
    pub(crate) fn expect(&self, allowed: &[&str], denied: &[&str]) {
        for (probes, expected) in [(allowed, true), (denied, false)] {
            for probe in probes {
                let words: Vec<_> = probe.split_whitespace().collect();
                let to = words[1]
                    .parse()
                    .unwrap_or_else(|_| match words[1].strip_suffix('6') {
                        Some(pod) => self.address_v6(pod),
                        None => self.address(words[1]),
                    });
                // What is allowed may take another try: a neighbour that was asked for in vain while the way was closed is
                // asked for again only after a second.
                let tries = if expected { 8 } else { 1 };
                let reached = (0..tries).any(|_| self.reaches(words[0], to, words[2]));
                assert_eq!(reached, expected, "{probe}");
            }
        }
    }
}

/// Sends a datagram from the address, or from any, and returns what the other side says it came from.
pub(crate) fn ask(from: Option<IpAddr>, to: SocketAddr) -> Option<String> {
    let unspecified: IpAddr = if to.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        [0, 0, 0, 0].into()
    };
    let socket = UdpSocket::bind((from.unwrap_or(unspecified), 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Connected, so that an ICMP error is seen as one.
    socket.connect(to).ok()?;
    socket.send(b"who am I").ok()?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Servers on every port the tests use: TCP echoes, UDP says whom it heard. They end with the process.
fn serve(namespace: &str) {
    within(namespace, || {
        for port in [22, 80, 81, 6443] {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    thread::spawn(move || echo(stream));
                }
            });
        }
        for port in [53, 4789, 4790] {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                    let address = peer.ip().to_canonical().to_string();
                    let _ = socket.send_to(address.as_bytes(), peer);
                }
            });
        }
    });
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 64];
    while let Ok(length) = stream.read(&mut buffer) {
        if length == 0 || stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

/// A connection that stays open across changes.
pub(crate) struct Flow(TcpStream);

impl Flow {
    pub(crate) fn open(lab: &Lab, from: &str, to: IpAddr) -> Self {
        let to = SocketAddr::new(to, 80);
        let stream = within(&lab.namespace(from), move || {
            TcpStream::connect_timeout(&to, PATIENCE).unwrap()
        });
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Whether what was sent in vain comes back after all, when TCP tries again.
    pub(crate) fn recovers(&mut self) -> bool {
        self.0.set_read_timeout(Some(10 * PATIENCE)).unwrap();
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).is_ok() && &answer == b"ping"
    }

    /// Whether what is sent comes back.
    pub(crate) fn is_alive(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        self.0.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        loop {
            match self.0.read_exact(&mut answer) {
                Ok(()) => return &answer == b"ping",
                Err(error) if error.kind() == ErrorKind::Interrupted && Instant::now() < end => {}
                Err(_) => return false,
            }
        }
    }
}

/// A UDP connection that stays open across changes. Each datagram is one of its own: where one is lost, the next is not.
pub(crate) struct Exchange(UdpSocket);

impl Exchange {
    pub(crate) fn open(lab: &Lab, from: &str, to: IpAddr) -> Self {
        let to = SocketAddr::new(to, 4790);
        let socket = within(&lab.namespace(from), move || {
            let any: IpAddr = if to.is_ipv6() {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                [0, 0, 0, 0].into()
            };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect(to).unwrap();
            socket
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Whether what is sent is answered.
    pub(crate) fn is_alive(&self) -> bool {
        let mut answer = [0; 64];
        let once = || {
            // What the node itself must not send is refused at once.
            let sent = self.0.send(b"ping").is_ok();
            sent && self.0.recv(&mut [0; 64]).is_ok()
        };
        self.0.set_nonblocking(true).unwrap();
        while self.0.recv(&mut answer).is_ok() {}
        self.0.set_nonblocking(false).unwrap();
        once() || once()
    }
}

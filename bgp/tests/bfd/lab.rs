//! Network namespaces in a star: a speaker of ours in the middle, other routers around it, each on a link of its own.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use margay_bgp::config::SpeakerConfig;
use margay_bgp::fsm::State;
use margay_bgp::speaker::{PeerSummary, Speaker};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the test can run. If not, it says so loudly, or fails where it must run.
pub(crate) fn privileged(test: &str) -> bool {
    let there = |path: &str| std::path::Path::new(path).exists();
    let daemons = there("/usr/sbin/bird") && there("/usr/lib/frr/bfdd");
    if rustix::process::geteuid().is_root() && daemons {
        return true;
    }
    assert_ne!(
        std::env::var("MARGAY_REQUIRE_PRIVILEGED").as_deref(),
        Ok("1"),
        "{test} needs root, BIRD 2 and FRR"
    );
    eprintln!("SKIPPED (needs root): {test}");
    false
}

/// Runs a program to its end and returns what it printed.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn ip(arguments: &str) -> String {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

struct Namespace(String);

impl Namespace {
    fn new(name: String) -> Self {
        // From a run that was killed.
        let _ = Command::new("ip")
            .args(["netns", "del", &name])
            .stderr(Stdio::null())
            .status();
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Address of the middle towards the `n`th router, and that router's.
pub(crate) fn v4(n: usize) -> [String; 2] {
    [format!("10.98.{n}.1"), format!("10.98.{n}.2")]
}

/// As [`v4`].
pub(crate) fn v6(n: usize) -> [String; 2] {
    [1, 2].map(|last| format!("fd98:0:0:{}::{last}", n + 1))
}

pub(crate) struct Lab {
    // Dropped in this order: the processes before the namespaces they live in.
    children: Vec<Child>,
    middle: Namespace,
    around: Vec<Namespace>,
    pub(crate) directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    /// A middle and `count` routers around it; interface `eth0` of each leads to the middle, where it is `eth0`, `eth1` ….
    pub(crate) fn new(test: &str, count: usize) -> Self {
        let middle = Namespace::new(format!("mgy-bfd-{test}-m"));
        let name = |n| format!("mgy-bfd-{test}-{n}");
        let around: Vec<_> = (0..count).map(|n| Namespace::new(name(n))).collect();
        for (n, router) in around.iter().enumerate() {
            let (m, r) = (&middle.0, &router.0);
            ip(&format!(
                "-n {m} link add eth{n} type veth peer name eth0 netns {r}"
            ));
            for (namespace, interface, side) in [(m, format!("eth{n}"), 0), (r, "eth0".into(), 1)] {
                let (v4, v6) = (&v4(n)[side], &v6(n)[side]);
                ip(&format!("-n {namespace} addr add {v4}/24 dev {interface}"));
                ip(&format!(
                    "-n {namespace} addr add {v6}/64 dev {interface} nodad"
                ));
                // Duplicate address detection would delay the link-local address by a second or two.
                let setting = format!("net.ipv6.conf.{interface}.accept_dad=0");
                run(
                    "ip",
                    &["netns", "exec", namespace, "sysctl", "-qw", &setting],
                );
                ip(&format!("-n {namespace} link set {interface} up"));
            }
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            children: Vec::new(),
            middle,
            around,
            directory: tempfile::tempdir().unwrap(),
            runtime,
        }
    }

    /// The namespace of a router; `None`: of the middle.
    pub(crate) fn namespace(&self, router: Option<usize>) -> &str {
        match router {
            Some(n) => &self.around[n].0,
            None => &self.middle.0,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn spawn(&mut self, router: usize, program: &str, arguments: &[&str]) {
        let log = File::create(self.path(&format!("{}.log", program.replace('/', "-")))).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.around[router].0, program])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.children.push(child);
    }

    pub(crate) fn start_bird(&mut self, router: usize, configuration: &str) {
        fs::write(self.path("bird.conf"), configuration).unwrap();
        let (file, socket) = (self.path("bird.conf"), self.path("bird.ctl"));
        let arguments = [
            "-f",
            "-c",
            file.to_str().unwrap(),
            "-s",
            socket.to_str().unwrap(),
        ];
        self.spawn(router, "bird", &arguments);
        wait(
            || self.birdc("show status").contains("up and running"),
            || fs::read_to_string(self.path("bird.log")).unwrap_or_default(),
        );
    }

    pub(crate) fn birdc(&self, command: &str) -> String {
        let output = Command::new("birdc")
            .arg("-s")
            .arg(self.path("bird.ctl"))
            .args(command.split_whitespace())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// zebra, bfdd and bgpd, with their sockets and files in the test's folder.
    pub(crate) fn start_frr(&mut self, router: usize, bgpd: &str) {
        fs::write(self.path("zebra.conf"), "").unwrap();
        fs::write(self.path("bfdd.conf"), "").unwrap();
        fs::write(self.path("bgpd.conf"), bgpd).unwrap();
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd
            .lines()
            .find(|line| line.starts_with("frr:"))
            .unwrap();
        let ids: Vec<u32> = line
            .split(':')
            .skip(2)
            .take(2)
            .map(|id| id.parse().unwrap())
            .collect();
        let own = |path: &std::path::Path| chown(path, Some(ids[0]), Some(ids[1])).unwrap();
        own(self.directory.path());
        let folder = self.directory.path().to_str().unwrap().to_owned();
        for program in ["zebra", "bfdd", "bgpd"] {
            let conf = self.path(&format!("{program}.conf"));
            own(&conf);
            let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
            let (conf, pid) = (
                text(&format!("{program}.conf")),
                text(&format!("{program}.pid")),
            );
            let (zebra, control) = (text("zserv.api"), text("bfdd.ctl"));
            let mut arguments = vec!["-u", "frr", "-g", "frr", "--vty_socket", &folder, "-P", "0"];
            arguments.extend(["-z", &zebra, "-f", &conf, "-i", &pid]);
            if program == "bfdd" {
                arguments.extend(["--bfdctl", &control]);
            }
            self.spawn(router, &format!("/usr/lib/frr/{program}"), &arguments);
            let there = self.path(&format!("{program}.vty"));
            wait(|| there.exists(), || format!("{program} does not start"));
        }
    }

    pub(crate) fn vtysh(&self, command: &str) -> String {
        let folder = self.directory.path().to_str().unwrap();
        let output = Command::new("vtysh")
            .args(["--vty_socket", folder, "-c", command])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A speaker of ours in a namespace. Its sockets belong to the namespace of the thread that opens them, so it gets a
    /// thread and a runtime of its own.
    pub(crate) fn speaker(&self, router: Option<usize>, config: SpeakerConfig) -> Speaker {
        let namespace = File::open(format!("/run/netns/{}", self.namespace(router))).unwrap();
        let (started, speaker) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let speaker = Speaker::start(config).await.unwrap();
                let mut routes = speaker.subscribe().await.unwrap();
                started.send(speaker).unwrap();
                // Until the speaker stops, and then a moment for the connections' last words.
                while routes.next_batch().await.is_some() {}
                tokio::time::sleep(Duration::from_millis(200)).await;
            });
        });
        speaker.recv().unwrap()
    }

    /// Runs something asynchronous to its end.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The summary line of a peer.
    pub(crate) fn line(&self, speaker: &Speaker, peer: &str) -> PeerSummary {
        let lines = self.run(speaker.summary()).unwrap();
        let mut lines = lines.into_iter();
        lines.find(|line| line.address.to_string() == peer).unwrap()
    }

    /// Waits until all BGP sessions are up.
    pub(crate) fn established(&self, speaker: &Speaker) {
        let lines = || self.run(speaker.summary()).unwrap();
        wait(
            || lines().iter().all(|line| line.state == State::Established),
            || format!("{:#?}", lines()),
        );
    }

    /// Waits until a peer's BFD session is in a state.
    pub(crate) fn bfd(&self, speaker: &Speaker, peer: &str, state: margay_bgp::bfd::State) {
        let line = || self.line(speaker, peer).bfd;
        wait(
            || line().is_some_and(|bfd| bfd.state == state && !bfd.polling),
            || format!("{:#?}", line()),
        );
    }

    /// Cuts the link to a router: what arrives is dropped silently at both ends, while the link stays up. The time is when
    /// the last of both rules was known to be active.
    pub(crate) fn cut(&self, router: usize) -> Instant {
        for (namespace, interface) in [
            (self.namespace(Some(router)), "eth0".to_owned()),
            (self.namespace(None), format!("eth{router}")),
        ] {
            let rules = format!(
                "add table inet cut; \
                 add chain inet cut pre {{ type filter hook prerouting priority -300; }}; \
                 add rule inet cut pre iifname {interface} drop"
            );
            run("ip", &["netns", "exec", namespace, "nft", &rules]);
        }
        Instant::now()
    }

    /// Takes the cut back.
    pub(crate) fn mend(&self, router: usize) {
        for namespace in [self.namespace(Some(router)), self.namespace(None)] {
            run(
                "ip",
                &["netns", "exec", namespace, "nft", "delete table inet cut"],
            );
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until a condition holds; says why it does not if it takes too long.
pub(crate) fn wait(condition: impl Fn() -> bool, why: impl Fn() -> String) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {}", why());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Threads that keep every processor busy until dropped.
pub(crate) struct Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<u64>>,
}

impl Load {
    pub(crate) fn new(count: usize) -> Self {
        use std::sync::atomic::{AtomicBool, Ordering};
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|_| {
            let stop = std::sync::Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut turns = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    turns = std::hint::black_box(turns + 1);
                }
                turns
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

//! Two network namespaces with a link between them: a speaker of ours in one, BIRD in the other.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use margay_bgp::config::SpeakerConfig;
use margay_bgp::fsm::State;
use margay_bgp::speaker::{PeerSummary, RouteStream, Speaker};
use margay_bgp::types::Prefix;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Our addresses and BIRD's on the link.
pub(crate) const OURS: [&str; 2] = ["10.99.0.1", "fd99::1"];
/// As [`OURS`].
pub(crate) const THEIRS: [&str; 2] = ["10.99.0.2", "fd99::2"];
const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the test can run. If not, it says so loudly, or fails where it must run.
pub(crate) fn privileged(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let bird = Command::new("bird")
        .arg("--version")
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if root && bird {
        return true;
    }
    assert_ne!(
        std::env::var("MARGAY_REQUIRE_PRIVILEGED").as_deref(),
        Ok("1"),
        "{test} needs root and BIRD 2"
    );
    eprintln!("SKIPPED (needs root): {test}");
    false
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
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

    fn set_up_link(&self, addresses: [&str; 2]) {
        let name = &self.0;
        ip(&format!("-n {name} addr add {}/24 dev eth0", addresses[0]));
        // Without duplicate address detection, which would delay the first connection by a second or two.
        ip(&format!(
            "-n {name} addr add {}/64 dev eth0 nodad",
            addresses[1]
        ));
        ip(&format!("-n {name} link set eth0 up"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// The two namespaces, with BIRD running in the second.
pub(crate) struct Lab {
    // Dropped in this order: the processes before the namespaces they live in.
    bird: Option<Child>,
    ours: Namespace,
    theirs: Namespace,
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    /// Namespaces named after the test, and BIRD with this configuration.
    pub(crate) fn new(test: &str, bird: &str) -> Self {
        let ours = Namespace::new(format!("mgy-bird-{test}-a"));
        let theirs = Namespace::new(format!("mgy-bird-{test}-b"));
        ip(&format!(
            "-n {} link add eth0 type veth peer name eth0 netns {}",
            ours.0, theirs.0
        ));
        ours.set_up_link(OURS);
        theirs.set_up_link(THEIRS);
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("bird.conf"), bird).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut lab = Self {
            bird: None,
            ours,
            theirs,
            directory,
            runtime,
        };
        lab.start_bird(&[]);
        lab
    }

    /// Starts BIRD and waits until it answers.
    pub(crate) fn start_bird(&mut self, options: &[&str]) {
        let path = |name: &str| self.directory.path().join(name);
        let log = File::create(path("bird.log")).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.theirs.0, "bird", "-f", "-c"])
            .arg(path("bird.conf"))
            .arg("-s")
            .arg(path("bird.ctl"))
            .args(options)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.bird = Some(child);
        wait(
            || {
                self.birdc("show status")
                    .contains("Daemon is up and running")
            },
            || fs::read_to_string(path("bird.log")).unwrap_or_default(),
        );
    }

    /// Sends BIRD's process a signal.
    pub(crate) fn signal_bird(&mut self, signal: rustix::process::Signal) {
        let child = self.bird.as_mut().unwrap();
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).unwrap();
        if signal == rustix::process::Signal::KILL {
            child.wait().unwrap();
        }
    }

    /// What BIRD answers to a command.
    pub(crate) fn birdc(&self, command: &str) -> String {
        let output = Command::new("birdc")
            .arg("-s")
            .arg(self.directory.path().join("bird.ctl"))
            .args(command.split_whitespace())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a speaker of ours in the first namespace. Its sockets belong to the namespace of the thread that opens them, so
    /// it gets a thread and a runtime of its own.
    pub(crate) fn speaker(&self, config: SpeakerConfig) -> Speaker {
        let namespace = File::open(format!("/run/netns/{}", self.ours.0)).unwrap();
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
        lines
            .into_iter()
            .find(|line| line.address.to_string() == peer)
            .unwrap()
    }

    /// Waits until all sessions are up and both sides have sent what they had.
    pub(crate) fn established(&self, speaker: &Speaker) {
        let ready = |line: &PeerSummary| {
            line.state == State::Established
                && line
                    .families
                    .iter()
                    .all(|f| f.end_of_rib_received && f.end_of_rib_sent)
        };
        wait(
            || self.run(speaker.summary()).unwrap().iter().all(ready),
            || {
                format!(
                    "{:#?}\n{}",
                    self.run(speaker.summary()),
                    self.birdc("show protocols all")
                )
            },
        );
    }

    /// Waits until BIRD's answer to a command holds, or does not hold, a text.
    pub(crate) fn bird_says(&self, command: &str, text: &str, expected: bool) {
        wait(
            || self.birdc(command).contains(text) == expected,
            || format!("{command}: {text:?} {expected}\n{}", self.birdc(command)),
        );
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(bird) = &mut self.bird {
            let _ = bird.kill();
            let _ = bird.wait();
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

/// Reads a stream until a change of the prefix comes, and returns the next hop of its best path; `None` if it is gone.
pub(crate) async fn next_hop(routes: &mut RouteStream, prefix: &str) -> Option<String> {
    let prefix: Prefix = prefix.parse().unwrap();
    let find = async {
        loop {
            let batch = routes.next_batch().await.unwrap();
            if let Some(change) = batch.changes.iter().find(|change| change.prefix == prefix) {
                return change.paths.first().map(|path| path.next_hop.to_string());
            }
        }
    };
    tokio::time::timeout(PATIENCE, find).await.unwrap()
}

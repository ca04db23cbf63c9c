//! Network namespaces for the dataplane's privileged tests: made under the test's name, entered
//! on threads that end there, and removed when the test ends, however it ends.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]

use std::future::Future;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// Whether privileged tests can run; says so loudly when not, and fails where they must.
pub fn privileged(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("MARGAY_REQUIRE_PRIVILEGED").is_none_or(|value| value != "1"),
        "{test} needs root and MARGAY_REQUIRE_PRIVILEGED=1 is set"
    );
    eprintln!("SKIPPED (needs root): {test}");
    false
}

/// A network namespace that lives as long as this value.
#[derive(Debug)]
pub struct Namespace {
    /// Its name.
    pub name: String,
}

impl Namespace {
    /// A namespace for the role `role` in the test `test`, with its loopback up. One of the same
    /// name left over by a killed run is replaced.
    pub fn new(test: &str, role: &str) -> Self {
        let name = format!("mgy-dp-{test}-{role}");
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
        run("ip", &["netns", "add", &name]);
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// The path that enters it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `ip ARGUMENTS` inside; panics when that fails.
    pub fn ip(&self, arguments: &str) -> String {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments.split_whitespace());
        run("ip", &all)
    }

    /// Runs `ip -j ARGUMENTS` inside and reads the answer.
    pub fn ip_json(&self, arguments: &str) -> Vec<Value> {
        let text = self.ip(&format!("-j {arguments}"));
        if text.trim().is_empty() {
            return Vec::new();
        }
        serde_json::from_str(&text).unwrap()
    }

    /// Runs `bridge ARGUMENTS` inside.
    pub fn bridge(&self, arguments: &str) -> String {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments.split_whitespace());
        run("bridge", &all)
    }

    /// Runs a command inside and returns what it said.
    pub fn output(&self, command: &str) -> Output {
        let path = format!("--net={}", self.path().display());
        Command::new("nsenter")
            .arg(path)
            .args(command.split_whitespace())
            .output()
            .unwrap()
    }

    /// A file under /proc/sys as it is inside.
    pub fn sysctl(&self, key: &str) -> String {
        let output = self.output(&format!("cat /proc/sys/{key}"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Whether a ping is answered within five seconds: an IPv6 segment takes one or two until
    /// its routers speak.
    pub fn pings(&self, target: &str) -> bool {
        self.output(&format!("ping -n -c 1 -i 0.2 -w 5 {target}"))
            .status
            .success()
    }

    /// Whether three pings go unanswered.
    pub fn cannot_ping(&self, target: &str) -> bool {
        let ping = format!("ping -n -c 3 -i 0.1 -W 0.3 {target}");
        !self.output(&ping).status.success()
    }

    /// Runs `work` inside, on a thread and a runtime of its own.
    pub fn run<T, F, Fut>(&self, work: F) -> T
    where
        T: Send,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = T>,
    {
        let file = std::fs::File::open(self.path()).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                use std::os::fd::AsFd;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(work())
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Joins two namespaces by a veth pair that is up on both ends.
pub fn join(left: &Namespace, left_name: &str, right: &Namespace, right_name: &str) {
    left.ip(&format!(
        "link add {left_name} type veth peer name {right_name} netns {}",
        right.name
    ));
    left.ip(&format!("link set {left_name} up"));
    right.ip(&format!("link set {right_name} up"));
}

/// Runs a command and returns what it printed; panics when it fails.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A node with two routers on its segment, in both families.
pub fn segment(test: &str) -> (Namespace, Namespace) {
    let node = Namespace::new(test, "node");
    let other = Namespace::new(test, "other");
    join(&node, "eth0", &other, "eth0");
    node.ip("addr add 192.0.2.1/24 dev eth0");
    node.ip("addr add 2001:db8::1/64 dev eth0 nodad");
    (node, other)
}

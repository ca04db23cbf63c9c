//! Network namespaces of this run, deleted at its end.

use std::{os::fd::AsFd, process::Command, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Runs a program, which must succeed.
pub(crate) fn run(words: &str) {
    let mut words = words.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words.clone())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{:?}: {said}",
        words.collect::<Vec<_>>()
    );
}

/// The number the kernel gave the interface.
pub(crate) fn device(namespace: &str, interface: &str) -> u32 {
    let path = format!("/sys/class/net/{interface}/ifindex");
    let words = ["netns", "exec", namespace, "cat", &path];
    let output = Command::new("ip").args(words).output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .unwrap()
}

/// Runs this in the namespace, on a thread of its own: sockets belong to the namespace of the thread that makes them.
pub(crate) fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let path = format!("/var/run/netns/{namespace}");
    let worker = thread::spawn(move || {
        let file = std::fs::File::open(&path).unwrap();
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    });
    worker.join().unwrap()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

pub(crate) struct Network {
    prefix: String,
    made: Vec<String>,
}

impl Network {
    pub(crate) fn new(part: &str) -> Self {
        Self {
            prefix: format!("mgy-bench-{part}-{}", std::process::id()),
            made: Vec::new(),
        }
    }

    pub(crate) fn make(&mut self, role: &str) -> String {
        let name = format!("{}-{role}", self.prefix);
        run(&format!("ip netns add {name}"));
        self.made.push(name.clone());
        run(&format!("ip -n {name} link set lo up"));
        name
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.made {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

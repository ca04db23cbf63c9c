//! What 10,000 endpoints on other nodes cost, in the agent and in the kernel.

use std::{fs, path::Path};

use margay_policy::{
    Engine,
    writer::{Nft, Writer},
};
use serde_json::{Value, json};

use crate::{
    network::{Network, block_on},
    resident,
    world::{Labels, endpoint, labels, model, namespace, peer, policy, port},
};

const PODS: usize = 10_000;

/// A node with one pod whose policies ask about labels that all others have one way or the other.
fn engine() -> Engine {
    let mut engine = Engine::new("measured");
    let cluster = engine.cluster();
    cluster.apply_namespace(&namespace("here", Labels::new()));
    cluster.apply_namespace(&namespace("there", Labels::new()));
    for app in 0..20 {
        let from = peer(
            Some(Labels::new()),
            labels(&[("app", format!("app-{app}"))]),
        );
        let object = policy(
            "here",
            format!("policy-{app}"),
            Labels::new(),
            Some((vec![from], vec![port("TCP", 80 + app, None)])),
            None,
        );
        cluster.apply_network_policy(&object);
    }
    cluster.insert_pod(model("here", "pod", Labels::new(), 0));
    engine.handle_endpoint(endpoint("here", "pod", 0));
    engine.poll();
    engine
}

fn others(engine: &mut Engine) {
    for number in 1..=PODS {
        let own = labels(&[("app", format!("app-{}", number % 20))]);
        let name = format!("pod-{number}");
        engine
            .cluster()
            .insert_pod(model("there", &name, own, number));
    }
}

pub(crate) fn measure(what: &str) -> Value {
    match what {
        "agent" => agent(),
        _ => kernel(),
    }
}

fn agent() -> Value {
    let mut engine = engine();
    let (before, _) = resident();
    others(&mut engine);
    let (objects, _) = resident();
    drop(engine.poll());
    let (after, _) = resident();
    assert!(engine.ruleset().maps["addresses4"].elements.len() >= PODS);
    json!({
        "pods": PODS, "bytes": after.saturating_sub(before), "objectsBytes": objects.saturating_sub(before),
    })
}

/// The kernel accounts what a process's system calls make it keep to the process's memory group.
fn kernel() -> Value {
    let mut network = Network::new("memory");
    let node = network.make("node");
    let mut engine = engine();
    let program = ["ip", "netns", "exec", &node, "nft"].map(str::to_owned);
    let nft = Nft::default().with_program(program);
    let Some(group) = Group::enter() else {
        return json!({ "pods": PODS, "bytes": null });
    };
    let write = |engine: &Engine| block_on(nft.apply(&engine.ruleset().full())).unwrap();
    // Twice: what the program's start leaves behind is not the table's.
    write(&engine);
    write(&engine);
    let before = group.usage();
    others(&mut engine);
    engine.poll();
    // They are more than there was room for, so that they come with the whole table.
    write(&engine);
    // What the kernel lets go late is not what it keeps.
    std::thread::sleep(std::time::Duration::from_secs(2));
    json!({ "pods": PODS, "bytes": group.usage().saturating_sub(before) })
}

struct Group(String);

impl Group {
    fn enter() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups
            .lines()
            .find_map(|line| line.split_once(":memory:").map(|(_, path)| path))?;
        let parent = format!("/sys/fs/cgroup/memory{own}");
        let path = format!("{parent}/mgy-bench-{}", std::process::id());
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        fs::write(
            Path::new(&group.0).join("cgroup.procs"),
            std::process::id().to_string(),
        )
        .ok()?;
        Some(group)
    }

    fn usage(&self) -> u64 {
        let path = Path::new(&self.0).join("memory.kmem.usage_in_bytes");
        let text = fs::read_to_string(path).unwrap_or_default();
        text.trim().parse().unwrap_or_default()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let parent = Path::new(&self.0)
            .parent()
            .map(|path| path.join("cgroup.procs"));
        let _ = parent.map(|path| fs::write(path, std::process::id().to_string()));
        let _ = fs::remove_dir(&self.0);
    }
}

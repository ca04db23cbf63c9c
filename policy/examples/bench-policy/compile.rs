//! From nothing: objects as they arrive, to the node's whole ruleset.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    core::v1::{Namespace, Pod},
    networking::v1::NetworkPolicy,
};
use margay_policy::{Compiler, Engine, LocalEndpoint, NodeInput};
use serde_json::{Value, json};

use crate::{
    busy, millis, resident,
    world::{Labels, endpoint, labels, namespace, peer, pod, policy, port, three},
};

/// How many objects are made before they are given to the engine: making them is not timed, and there are never so many
/// that they would count as memory.
const AT_ONCE: usize = 5000;

enum Object {
    Namespace(Namespace),
    Pod(Box<Pod>),
    Policy(NetworkPolicy),
    Endpoint(LocalEndpoint),
}

struct Feed {
    engine: Engine,
    waiting: Vec<Object>,
    took: Times,
    pods: usize,
    policies: usize,
}

/// What the clock says, and how long the thread ran: other programs want the processors too.
#[derive(Clone, Copy, Default)]
struct Times {
    clock: Duration,
    ran: u64,
}

impl Times {
    fn take<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (start, ran) = (Instant::now(), busy());
        let result = work();
        self.ran += busy() - ran;
        self.clock += start.elapsed();
        result
    }

    fn ran(self) -> f64 {
        self.ran as f64 / 1e6
    }
}

impl Feed {
    fn give(&mut self, object: Object) {
        self.waiting.push(object);
        if self.waiting.len() >= AT_ONCE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let (engine, waiting) = (&mut self.engine, &mut self.waiting);
        self.took.take(|| {
            for object in &*waiting {
                match object {
                    Object::Namespace(object) => drop(engine.cluster().apply_namespace(object)),
                    Object::Pod(object) => drop(engine.cluster().apply_pod(object)),
                    Object::Policy(object) => drop(engine.cluster().apply_network_policy(object)),
                    Object::Endpoint(local) => engine.handle_endpoint(local.clone()),
                }
            }
        });
        waiting.clear();
    }

    fn namespace(&mut self, name: &str, labels: Labels) {
        self.give(Object::Namespace(namespace(name, labels)));
    }

    fn pod(&mut self, space: &str, name: String, labels: Labels) -> LocalEndpoint {
        let local = endpoint(space, &name, self.pods);
        let object = pod(space, name, labels, self.pods);
        self.give(Object::Pod(Box::new(object)));
        self.pods += 1;
        local
    }

    fn policy(&mut self, object: NetworkPolicy) {
        self.give(Object::Policy(object));
        self.policies += 1;
    }
}

pub(crate) fn measure(world: &str) -> Value {
    let (before, _) = resident();
    let mut feed = Feed {
        engine: Engine::new("measured"),
        waiting: Vec::new(),
        took: Times::default(),
        pods: 0,
        policies: 0,
    };
    match world {
        "all-selecting" => all_selecting(&mut feed, 100),
        "ports" => all_selecting(&mut feed, 10_000),
        _ => large(&mut feed, world == "own-labels"),
    }
    feed.flush();
    let (objects, mut compile, mut reference) = (feed.took, Times::default(), Times::default());
    let change = compile.take(|| feed.engine.poll());
    let commands = change.len();
    drop(change);
    let (_, most) = resident();
    let input = NodeInput {
        endpoints: feed.engine.endpoints().cloned().collect(),
        ..NodeInput::default()
    };
    let (ruleset, _) = reference.take(|| Compiler::new().compile(feed.engine.known(), &input));
    assert_eq!(&ruleset, feed.engine.ruleset(), "both compilers agree");
    json!({
        "pods": feed.pods, "policies": feed.policies, "local": input.endpoints.len(), "commands": commands,
        "objectsMillis": objects.ran(), "compileMillis": compile.ran(), "totalMillis": objects.ran() + compile.ran(),
        "clockMillis": millis(objects.clock + compile.clock), "referenceMillis": reference.ran(),
        "bytes": most.saturating_sub(before),
    })
}

/// 100,000 pods and 75,000 policies in 25,000 namespaces; the node has a pod of every hundredth of them.
fn large(feed: &mut Feed, own_labels: bool) {
    for number in 0..25_000 {
        let space = format!("namespace-{number}");
        feed.namespace(
            &space,
            labels(&[("team", format!("team-{}", number % 500))]),
        );
        for app in 0..4 {
            let name = format!("pod-{number}-{app}");
            let mut own = labels(&[
                ("app", format!("app-{app}")),
                ("release", format!("release-{}", number % 100)),
            ]);
            if own_labels {
                let key = "statefulset.kubernetes.io/pod-name".to_owned();
                own.insert(key, name.clone());
            }
            let local = feed.pod(&space, name, own);
            if number % 100 == 0 && app == number / 100 % 4 {
                feed.give(Object::Endpoint(local));
            }
        }
        for policy in three(&space, number) {
            feed.policy(policy);
        }
    }
}

/// 10,000 pods and 10,000 policies in one namespace, each of which selects all of them on both ends and is about one of so
/// many ports.
fn all_selecting(feed: &mut Feed, ports: i32) {
    feed.namespace("one", Labels::new());
    for number in 0..10_000 {
        let own = labels(&[("app", format!("app-{}", number % 40))]);
        let local = feed.pod("one", format!("pod-{number}"), own);
        if number % 40 == 0 {
            feed.give(Object::Endpoint(local));
        }
    }
    for number in 0..10_000 {
        let everyone = || vec![peer(None, Labels::new())];
        let port = || vec![port("TCP", 1000 + 2 * (number % ports), None)];
        feed.policy(policy(
            "one",
            format!("policy-{number}"),
            Labels::new(),
            Some((everyone(), port())),
            Some((everyone(), port())),
        ));
    }
}

//! From nothing: objects as they arrive, to the node's whole ruleset.

use std::time::{Duration, Instant};

use margay_policy::{Compiler, Engine, LocalEndpoint, NodeInput};
use serde_json::{Value, json};

use crate::{
    millis, resident,
    world::{Labels, endpoint, labels, namespace, peer, pod, policy, port, three},
};

/// Objects are made one at a time, so that what is measured is what is kept of them; making them is not timed.
struct Feed {
    engine: Engine,
    took: Duration,
    pods: usize,
    policies: usize,
}

impl Feed {
    fn timed(&mut self, work: impl FnOnce(&mut Engine)) {
        let start = Instant::now();
        work(&mut self.engine);
        self.took += start.elapsed();
    }

    fn namespace(&mut self, name: &str, labels: Labels) {
        let object = namespace(name, labels);
        self.timed(|engine| drop(engine.cluster().apply_namespace(&object)));
    }

    fn pod(&mut self, space: &str, name: String, labels: Labels) -> LocalEndpoint {
        let local = endpoint(space, &name, self.pods);
        let object = pod(space, name, labels, self.pods);
        self.timed(|engine| drop(engine.cluster().apply_pod(&object)));
        self.pods += 1;
        local
    }

    fn policy(&mut self, object: &k8s_openapi::api::networking::v1::NetworkPolicy) {
        self.timed(|engine| drop(engine.cluster().apply_network_policy(object)));
        self.policies += 1;
    }
}

pub(crate) fn measure(world: &str) -> Value {
    let (before, _) = resident();
    let mut feed = Feed {
        engine: Engine::new("measured"),
        took: Duration::ZERO,
        pods: 0,
        policies: 0,
    };
    match world {
        "all-selecting" => all_selecting(&mut feed),
        _ => large(&mut feed, world == "own-labels"),
    }
    let objects = feed.took;
    let start = Instant::now();
    let change = feed.engine.poll();
    let compile = start.elapsed();
    let commands = change.len();
    drop(change);
    let (_, most) = resident();
    let input = NodeInput {
        endpoints: feed.engine.endpoints().cloned().collect(),
        ..NodeInput::default()
    };
    let start = Instant::now();
    let (ruleset, _) = Compiler::new().compile(feed.engine.known(), &input);
    let reference = start.elapsed();
    assert_eq!(&ruleset, feed.engine.ruleset(), "both compilers agree");
    json!({
        "pods": feed.pods, "policies": feed.policies, "local": input.endpoints.len(), "commands": commands,
        "objectsMillis": millis(objects), "compileMillis": millis(compile), "totalMillis": millis(objects + compile),
        "referenceMillis": millis(reference), "bytes": most.saturating_sub(before),
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
                feed.timed(|engine| engine.handle_endpoint(local));
            }
        }
        for policy in three(&space, number) {
            feed.policy(&policy);
        }
    }
}

/// 10,000 pods and 10,000 policies in one namespace, each of which selects all of them on both ends.
fn all_selecting(feed: &mut Feed) {
    feed.namespace("one", Labels::new());
    for number in 0..10_000 {
        let own = labels(&[("app", format!("app-{}", number % 40))]);
        let local = feed.pod("one", format!("pod-{number}"), own);
        if number % 40 == 0 {
            feed.timed(|engine| engine.handle_endpoint(local));
        }
    }
    for number in 0..10_000 {
        let everyone = || vec![peer(None, Labels::new())];
        let ports = || vec![port("TCP", 1 + number % 5000, None)];
        feed.policy(&policy(
            "one",
            format!("policy-{number}"),
            Labels::new(),
            Some((everyone(), ports())),
            Some((everyone(), ports())),
        ));
    }
}

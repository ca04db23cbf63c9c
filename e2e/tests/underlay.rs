//! The lab's fabric alone, in real namespaces: up, down, and every dirty end in between.
//!
//! No agent, store or pod: those are for the demo's test. Each test has a lab of its own name.

use std::future::{pending, ready};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use margay_e2e::lab::process::{self, Launch};
use margay_e2e::lab::report::Screen;
use margay_e2e::lab::state::{Folder, Lock, Phase};
use margay_e2e::lab::up::{self, Ended, Options};
use margay_e2e::lab::{LabError, LabSpec, Tor};
use margay_e2e::lab::{bird, down, namespaces, probes};

/// Whether this test can run: it makes namespaces.
fn privileged(test: &str) -> bool {
    if up::require_root().is_ok() {
        return true;
    }
    eprintln!("SKIPPED (needs root): {test}");
    let required = std::env::var("MARGAY_REQUIRE_PRIVILEGED").is_ok_and(|value| value == "1");
    assert!(!required, "{test} needs root");
    false
}

fn options(name: &str, tor: Tor) -> Options {
    Options {
        spec: LabSpec {
            name: name.to_owned(),
            nodes: 3,
            segments: 2,
            tor,
            tors: 1,
            pods: 3,
        },
        binaries: None,
        datastore: None,
        underlay_only: true,
    }
}

fn quiet() -> Screen {
    Screen::plain().silenced()
}

/// The namespaces of a lab that exist.
fn namespaces_of(name: &str) -> Vec<String> {
    let prefix = format!("mgy-{name}-");
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

fn assert_nothing_is_left(name: &str) {
    assert_eq!(namespaces_of(name), Vec::<String>::new());
    assert!(!Folder::of(name).path().exists());
}

/// Removes what a failed earlier run of the same test may have left.
fn clear(name: &str) {
    let ended = down::down(name, quiet());
    assert!(
        matches!(ended, Ok(()) | Err(LabError::NotRunning { .. })),
        "{ended:?}"
    );
}

async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fabric_comes_up_and_goes_without_a_trace() {
    if !privileged("a_fabric_comes_up_and_goes_without_a_trace") {
        return;
    }
    const NAME: &str = "t-updown";
    clear(NAME);
    let options = options(NAME, Tor::Bird);
    let ended = up::up(&options, quiet(), pending()).await.unwrap();
    assert_eq!(ended, Ended::Well);
    let plan = options.spec.plan().unwrap();

    // Everyone reaches everyone over the underlay, as hosts in two racks do.
    let mut hosts = vec![plan.store.clone(), plan.outside.clone()];
    hosts.extend(plan.nodes.iter().map(|node| node.host.clone()));
    let mut asked = Vec::new();
    for from in &hosts {
        for to in hosts.iter().filter(|to| to.name != from.name) {
            asked.push(probes::Probe {
                namespace: plan.namespace(&from.name),
                to: to.address.ip(),
                question: probes::Question::Ping,
            });
        }
    }
    for (probe, outcome) in asked.iter().zip(probes::ask_all(asked.clone()).await) {
        assert!(outcome.reached(), "{probe:?}: {outcome:?}");
    }

    // The routers speak BGP with each other; the nodes have no speaker, and BIRD waits for them.
    let folder = Folder::of(NAME);
    wait_for("the routers' sessions", || {
        let sessions = bird::sessions(&folder, "router").unwrap();
        assert_eq!(sessions.len(), 2);
        sessions
            .iter()
            .all(|one| one.state == "Established")
            .then_some(())
    })
    .await;
    let of_tor = bird::sessions(&folder, "tor-a").unwrap();
    let node = of_tor
        .iter()
        .find(|session| session.peer == "node1")
        .unwrap();
    assert_ne!(node.state, "Established");

    // A second one is refused, and refused is all that happens.
    let error = up::up(&options, quiet(), pending()).await.unwrap_err();
    assert!(matches!(error, LabError::Running { .. }), "{error}");
    assert_eq!(folder.read().unwrap().unwrap().alive().count(), 3);

    down::down(NAME, quiet()).unwrap();
    assert_nothing_is_left(NAME);
    let error = down::down(NAME, quiet()).unwrap_err();
    assert!(matches!(error, LabError::NotRunning { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_that_died_while_being_built_is_cleared_away() {
    if !privileged("a_lab_that_died_while_being_built_is_cleared_away") {
        return;
    }
    const NAME: &str = "t-dirty";
    clear(NAME);
    let options = options(NAME, Tor::None);
    let (lock, plan) = up::prepare(&options, quiet()).unwrap();
    let mut lab = up::build(&options, plan.clone(), quiet()).await.unwrap();
    // One process the lab knows of, and one that a crash kept from being written down.
    let mut command = Command::new("sleep");
    command.arg("600");
    let known = Launch::new("known", plan.namespace("node1"), command);
    let known = process::start(&mut lab.ledger, known).unwrap();
    let mut stray = namespaces::inside(&plan.namespace("node2"), || {
        let mut command = Command::new("sleep");
        command
            .arg("600")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(command.spawn().unwrap())
    })
    .unwrap();
    // The lock goes with the process that dies.
    drop((lock, lab));

    assert_eq!(
        Folder::of(NAME).read().unwrap().unwrap().phase,
        Phase::Starting
    );
    let ended = up::up(&options, quiet(), pending()).await.unwrap();
    assert_eq!(ended, Ended::Well);
    assert!(!process::is_alive(&known));
    assert!(!stray.wait().unwrap().success());
    down::down(NAME, quiet()).unwrap();
    assert_nothing_is_left(NAME);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_clears_everything_away() {
    if !privileged("an_interruption_clears_everything_away") {
        return;
    }
    const NAME: &str = "t-interrupted";
    clear(NAME);
    let ended = up::up(&options(NAME, Tor::Bird), quiet(), ready(()))
        .await
        .unwrap();
    assert_eq!(ended, Ended::Interrupted);
    assert_nothing_is_left(NAME);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_in_hand_is_left_alone() {
    if !privileged("a_lab_in_hand_is_left_alone") {
        return;
    }
    const NAME: &str = "t-busy";
    clear(NAME);
    let lock = Lock::take(NAME).unwrap();
    for error in [
        up::up(&options(NAME, Tor::None), quiet(), pending())
            .await
            .unwrap_err(),
        down::down(NAME, quiet()).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(text.contains(&std::process::id().to_string()), "{text}");
    }
    drop(lock);
    assert_nothing_is_left(NAME);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_namespace_is_not_touched() {
    if !privileged("a_strangers_namespace_is_not_touched") {
        return;
    }
    const NAME: &str = "t-stranger";
    const STRANGER: &str = "mgy-t-stranger-node2";
    clear(NAME);
    if namespaces::exists(STRANGER) {
        namespaces::remove(STRANGER).unwrap();
    }
    namespaces::create(STRANGER).unwrap();
    let error = up::up(&options(NAME, Tor::None), quiet(), pending())
        .await
        .unwrap_err();
    assert!(matches!(error, LabError::Taken { .. }), "{error}");
    assert_eq!(namespaces_of(NAME), [STRANGER]);
    namespaces::remove(STRANGER).unwrap();
    // The failure left its logs, and the next lab of the name replaces them.
    assert!(Folder::of(NAME).logs().exists());
    up::up(&options(NAME, Tor::None), quiet(), pending())
        .await
        .unwrap();
    down::down(NAME, quiet()).unwrap();
    assert_nothing_is_left(NAME);
}

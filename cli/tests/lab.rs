//! `margayctl lab` as a program: exit codes, and what is left when it is killed or interrupted.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn margayctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margayctl"));
    command.arg("lab").args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    margayctl(arguments).output().unwrap()
}

/// Whether this test can run: it makes namespaces.
fn privileged(test: &str) -> bool {
    if margay_e2e::lab::up::require_root().is_ok() {
        return true;
    }
    eprintln!("SKIPPED (needs root): {test}");
    let required = std::env::var("MARGAY_REQUIRE_PRIVILEGED").is_ok_and(|value| value == "1");
    assert!(!required, "{test} needs root");
    false
}

fn state_file(name: &str) -> PathBuf {
    Path::new("/run/margay-lab").join(name).join("state.json")
}

fn namespaces_of(name: &str) -> usize {
    let prefix = format!("mgy-{name}-");
    let entries = std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .count()
}

/// Starts a big fabric, and returns as soon as it has a few namespaces.
fn half_built(name: &str) -> Child {
    let _ = run(&["down", "--name", name]);
    let shape = ["--nodes", "32", "--segments", "8", "--underlay-only"];
    let mut command = margayctl(&["up", "--name", name]);
    let child = command
        .args(shape)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while namespaces_of(name) < 5 {
        assert!(Instant::now() < end, "the lab does not come up");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[test]
fn bad_flags_exit_with_2_and_name_the_flag() {
    for (arguments, flag) in [
        (vec!["up", "--nodes", "0"], "--nodes"),
        (vec!["up", "--nodes", "2", "--segments", "3"], "--segments"),
        (vec!["up", "--tor", "quagga"], "--tor"),
        (vec!["up", "--name", "UP"], "--name"),
        (vec!["demo", "--require-tunnel", "gre"], "--require-tunnel"),
        (vec!["demo", "--bin-dir", "/nonexistent"], "--bin-dir"),
        (vec!["demo", "--nodes"], "--nodes"),
        (vec!["bench", "--repeats", "0"], "--repeats"),
        (vec!["exec", "node1"], "COMMAND"),
    ] {
        let output = run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(flag), "{arguments:?}: {said}");
    }
}

#[test]
fn no_lab_no_status() {
    let output = run(&["status", "--name", "t-none"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("lab t-none is not running"), "{said}");
}

#[test]
fn a_killed_up_is_cleared_away_by_the_next() {
    if !privileged("a_killed_up_is_cleared_away_by_the_next") {
        return;
    }
    const NAME: &str = "t-kill";
    let mut child = half_built(NAME);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(state_file(NAME).exists());

    let output = run(&[
        "up",
        "--name",
        NAME,
        "--nodes",
        "1",
        "--segments",
        "1",
        "--underlay-only",
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("cleared away what an earlier lab left"),
        "{said}"
    );
    // router, tor-a, store, outside, node1: nothing of the other 41 namespaces.
    assert_eq!(namespaces_of(NAME), 5);
    assert!(run(&["status", "--name", NAME]).status.success());
    let output = run(&[
        "exec", "--name", NAME, "node1", "--", "ip", "-br", "addr", "show", "eth0",
    ]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("10.10.1.11/24"));
    let output = run(&["exec", "--name", NAME, "node9", "--", "true"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there are router, tor-a"));
    let output = run(&[
        "exec", "--name", NAME, "outside", "--", "sh", "-c", "exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7));

    assert!(run(&["down", "--name", NAME]).status.success());
    assert_eq!(namespaces_of(NAME), 0);
    assert!(!state_file(NAME).exists());
}

#[test]
fn a_killed_up_is_cleared_away_by_down() {
    if !privileged("a_killed_up_is_cleared_away_by_down") {
        return;
    }
    const NAME: &str = "t-killdown";
    let mut child = half_built(NAME);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(run(&["down", "--name", NAME]).status.success());
    assert_eq!(namespaces_of(NAME), 0);
    assert!(!state_file(NAME).exists());
}

#[test]
fn an_interrupted_up_clears_itself_away() {
    if !privileged("an_interrupted_up_clears_itself_away") {
        return;
    }
    const NAME: &str = "t-int";
    let mut child = half_built(NAME);
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(namespaces_of(NAME), 0);
    assert!(!state_file(NAME).exists());
}

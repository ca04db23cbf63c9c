//! `margayctl lab demo` as people run it: the built programs, from nothing to nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Where the built programs are: `MARGAY_BIN_DIR`, or the folder cargo puts them in.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("MARGAY_BIN_DIR") {
        return folder.into();
    }
    // target/PROFILE/deps/demo-HASH
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}

/// The folder of the programs, if this test can run.
fn runnable(test: &str) -> Option<PathBuf> {
    let missing = |what: &str| {
        eprintln!("SKIPPED (needs {what}): {test}");
        let required = std::env::var("MARGAY_REQUIRE_PRIVILEGED").is_ok_and(|value| value == "1");
        assert!(!required, "{test} needs {what}");
        None
    };
    if margay_e2e::lab::up::require_root().is_err() {
        return missing("root");
    }
    let folder = programs();
    let built = ["margay", "margay-cni", "margayctl"]
        .iter()
        .all(|name| folder.join(name).is_file());
    if !built {
        return missing("the built programs: cargo build --workspace");
    }
    Some(folder)
}

fn demo(folder: &Path, arguments: &[&str]) -> (Output, String) {
    let output = Command::new(folder.join("margayctl"))
        .args(["lab", "demo", "--bin-dir"])
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("{text}{}", String::from_utf8_lossy(&output.stderr));
    (output, text)
}

fn assert_nothing_is_left(lab: &str) {
    assert!(!Path::new("/run/margay-lab").join(lab).exists());
    let prefix = format!("mgy-{lab}-");
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!name.starts_with(&prefix), "{name} is left");
    }
}

#[test]
fn the_whole_road() {
    let Some(folder) = runnable("the_whole_road") else {
        return;
    };
    let (output, text) = demo(&folder, &["--name", "t-demo"]);
    assert_eq!(output.status.code(), Some(0));
    // 4 nodes with a full mesh of 6, 4 sessions with ToRs, 2 of the ToRs with the router.
    for line in [
        "12 BGP sessions established, told by both ends",
        "60 pings come back",
        "packets take the expected road",
        "the right pod answers and sees the sender's own address",
        "web-1 to web-2 on segment a: plain ICMP",
        "web-1 to web-3 across segments: in ",
        "only job-4 and web-1's own node reach it; nothing else changes",
        "without it everything is open again",
        "each ToR sends a block's packets to the block's node",
        "block written → route in a remote kernel",
        "every address is given back: addresses held 0",
        "ended: no process, namespace or file of the lab is left",
    ] {
        assert!(text.contains(line), "missing: {line}");
    }
    assert!(!text.contains('\x1b'), "colours in a pipe");
    assert_nothing_is_left("t-demo");
}

#[test]
fn one_segment_without_routers() {
    let Some(folder) = runnable("one_segment_without_routers") else {
        return;
    };
    let arguments = "--name t-small --nodes 2 --segments 1 --tor none --pods 2";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let (output, text) = demo(&folder, &arguments);
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("1 BGP sessions established"), "{text}");
    assert!(text.contains("nothing travels in a tunnel"), "{text}");
    assert_nothing_is_left("t-small");
}

#[test]
fn a_tunnel_that_cannot_be_is_a_failure() {
    let Some(folder) = runnable("a_tunnel_that_cannot_be_is_a_failure") else {
        return;
    };
    let arguments =
        "--name t-notunnel --nodes 2 --segments 1 --tor none --pods 2 --require-tunnel vxlan";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let (output, text) = demo(&folder, &arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("✗ a tunnel between segments"), "{text}");
    // The logs of a demo that failed stay; nothing else does.
    let logs = Path::new("/run/margay-lab/t-notunnel/logs");
    assert!(logs.join("agent-node1.log").exists());
    std::fs::remove_dir_all("/run/margay-lab/t-notunnel").unwrap();
    assert_nothing_is_left("t-notunnel");
}

//! `make bench-policy`: what policy costs, beside the rulesets that people have today, in one run.
//!
//! Compiling, events from their arrival to the kernel's commit, packets through a router, memory. Every part that
//! measures memory is a process of its own. Needs root: the kernel's parts are in network namespaces. Writes a page with
//! a picture. `bench-policy PART …` runs one part and prints its figures as JSON.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measuring tool: it prints, and its input is its own"
)]

mod compile;
mod events;
mod memory;
mod network;
mod packets;
mod report;
mod world;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let figures = match words.as_slice() {
        ["compile", world] => compile::measure(world),
        ["events"] => events::measure(),
        ["packets"] => packets::measure(),
        ["memory", what] => memory::measure(what),
        ["--out", folder] => return all(Some(folder.into())),
        [] => return all(None),
        other => panic!("{other:?}: not a part; give none, or --out FOLDER"),
    };
    println!("{figures}");
}

fn all(out: Option<PathBuf>) {
    assert!(
        rustix::process::geteuid().is_root(),
        "bench-policy makes network namespaces: run it as root"
    );
    let mut figures = serde_json::Map::new();
    for words in [
        &["compile", "large"][..],
        &["compile", "own-labels"],
        &["compile", "all-selecting"],
        &["compile", "ports"],
        &["memory", "agent"],
        &["memory", "kernel"],
        &["events"],
        &["packets"],
    ] {
        let name = words.join(" ");
        eprintln!("{name} …");
        let start = Instant::now();
        figures.insert(name, part(words));
        eprintln!("    {:.0} s", start.elapsed().as_secs_f64());
    }
    let figures = Value::Object(figures);
    let page = report::page(&figures);
    print!("{page}");
    if let Some(folder) = out {
        std::fs::write(folder.join("policy.md"), &page).unwrap();
        std::fs::write(folder.join("policy.svg"), report::picture(&figures)).unwrap();
    }
}

/// A part in a process of its own: what it grows by is not what others have left.
fn part(words: &[&str]) -> Value {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(words).stderr(Stdio::inherit());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value below which this part of all lies.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values[((last as f64) * part).round() as usize]
}

/// What the process has in memory now, and what it has had at most, in bytes.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        let number = line.split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap() * 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// How long this thread has been running, in nanoseconds.
fn busy() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

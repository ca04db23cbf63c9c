//! A ping that runs all the while, every 20 ms, and which of its echoes came back.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use margay_e2e::lab::namespaces;
use rustix::process::{Pid, Signal, kill_process};

use crate::ground::Ground;

/// Between two echoes, in seconds.
const INTERVAL: &str = "0.02";

/// A ping that runs.
pub struct Flow {
    name: String,
    child: Child,
    output: PathBuf,
}

/// What came of a flow.
#[derive(Debug)]
pub struct Report {
    pub name: String,
    pub sent: u32,
    pub received: u32,
    /// The numbers that did not come back.
    pub lost: Vec<u32>,
}

impl Flow {
    /// Starts pinging `to` from a machine or pod.
    pub fn start(ground: &Ground, name: &str, namespace: &str, to: IpAddr) -> Self {
        let output = ground.lab.logs().join(format!("ping {name}"));
        let file = File::create(&output).unwrap();
        let child = namespaces::inside(namespace, || {
            let mut command = Command::new("ping");
            command.args(["-n", "-i", INTERVAL, &to.to_string()]);
            command.stdin(Stdio::null()).stdout(file);
            command
                .spawn()
                .map_err(|error| panic!("ping does not start: {error}"))
        });
        Self {
            name: name.to_owned(),
            child: child.unwrap(),
            output,
        }
    }

    /// The numbers that came back so far.
    pub fn echoes(&self) -> BTreeSet<u32> {
        let text = std::fs::read_to_string(&self.output).unwrap();
        let number = |line: &str| {
            let after = line.split("icmp_seq=").nth(1)?;
            let is_echo = line.contains("bytes from") && line.contains("time=");
            is_echo.then(|| after.split(' ').next()?.parse().ok())?
        };
        text.lines().filter_map(number).collect()
    }

    /// Ends it and counts. An echo that was just under way at the end is not counted.
    pub fn end(mut self) -> Report {
        let pid = Pid::from_child(&self.child);
        let _ = kill_process(pid, Signal::INT);
        self.child.wait().unwrap();
        let text = std::fs::read_to_string(&self.output).unwrap();
        let sent = text.lines().find_map(|line| {
            line.split(" packets transmitted")
                .next()?
                .parse::<u32>()
                .ok()
        });
        let mut sent = sent.unwrap_or_else(|| panic!("{} has no summary: {text}", self.name));
        let echoes = self.echoes();
        if !echoes.is_empty() && !echoes.contains(&sent) {
            sent -= 1;
        }
        Report {
            name: self.name.clone(),
            sent,
            received: u32::try_from(echoes.len()).unwrap(),
            lost: (1..=sent).filter(|one| !echoes.contains(one)).collect(),
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until of each so many more have come back.
pub async fn advance_all(ground: &Ground, flows: &[Flow], count: u32) {
    let last = |flow: &Flow| flow.echoes().last().copied().unwrap_or(0);
    let wanted: Vec<u32> = flows.iter().map(|flow| last(flow) + count).collect();
    ground
        .until(&format!("{count} more echoes"), 20, || async {
            for (flow, wanted) in flows.iter().zip(&wanted) {
                let now = last(flow);
                if now < *wanted {
                    return Err(format!("{}: {now} of {wanted}", flow.name));
                }
            }
            Ok(())
        })
        .await;
}

/// Ends all and gives the sum of what was sent; nothing may be lost.
pub fn all_came_back(flows: Vec<Flow>) -> u32 {
    let reports: Vec<Report> = flows.into_iter().map(Flow::end).collect();
    for report in &reports {
        assert!(report.lost.is_empty(), "lost: {report:?}");
    }
    reports.iter().map(|report| report.sent).sum()
}

/// A second as flows count it.
pub const SECOND: u32 = 50;

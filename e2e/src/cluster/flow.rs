//! The packet counter: a ping that runs all the while, every 20 ms, and which of its echoes came
//! back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Between two echoes, in seconds.
const INTERVAL: &str = "0.02";

/// A ping that runs; it ends when this is dropped.
#[derive(Debug)]
pub struct Flow {
    name: String,
    child: Child,
    output: PathBuf,
}

/// What came of a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// From where to where.
    pub name: String,
    /// Echoes asked for.
    pub sent: u32,
    /// Those that did not come back.
    pub lost: Vec<u32>,
}

impl Flow {
    /// Starts a ping with a command that is `ping` somewhere, such as in a pod. Its output goes
    /// into a folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut ping: Command, to: IpAddr, folder: &Path) -> anyhow::Result<Self> {
        let output = folder.join(format!("ping {name}").replace([' ', '/'], "-"));
        let file = File::create(&output).with_context(|| format!("cannot write {name}"))?;
        ping.args(["-n", "-i", INTERVAL, &to.to_string()]);
        ping.stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Self {
            name: name.to_owned(),
            child: ping.spawn().context("cannot start ping")?,
            output,
        })
    }

    /// Ends it and counts. An echo that was just under way at the end is not counted.
    ///
    /// # Errors
    /// When ping ended before, or its output makes no sense.
    pub fn end(mut self) -> anyhow::Result<Report> {
        if let Some(status) = self.child.try_wait()? {
            let text = fs::read_to_string(&self.output)?;
            bail!("ping {} ended ({status}): {text}", self.name);
        }
        // By SIGINT it says what it sent.
        let _ = kill_process(Pid::from_child(&self.child), Signal::INT);
        self.child.wait()?;
        count(&self.name, &fs::read_to_string(&self.output)?)
    }
}

fn count(name: &str, text: &str) -> anyhow::Result<Report> {
    let echoes: BTreeSet<u32> = text.lines().filter_map(echo).collect();
    let sent = text.lines().find_map(|line| {
        line.split(" packets transmitted")
            .next()?
            .parse::<u32>()
            .ok()
    });
    let mut sent = sent.with_context(|| format!("ping {name} has no summary: {text}"))?;
    if !echoes.is_empty() && !echoes.contains(&sent) {
        sent -= 1;
    }
    Ok(Report {
        name: name.to_owned(),
        sent,
        lost: (1..=sent)
            .filter(|number| !echoes.contains(number))
            .collect(),
    })
}

/// The number of an echo that came back.
fn echo(line: &str) -> Option<u32> {
    let after = line.split("icmp_seq=").nth(1)?;
    let is_echo = line.contains("bytes from") && line.contains("time=");
    is_echo.then(|| after.split(' ').next()?.parse().ok())?
}

impl Drop for Flow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ping_says() {
        let text = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
            64 bytes from 10.0.0.1: icmp_seq=1 ttl=63 time=0.1 ms\n\
            From 10.0.0.2 icmp_seq=2 Destination Host Unreachable\n\
            64 bytes from 10.0.0.1: icmp_seq=3 ttl=63 time=0.1 ms\n\
            \n--- 10.0.0.1 ping statistics ---\n\
            4 packets transmitted, 2 received, 50% packet loss, time 61ms\n";
        let report = count("x", text).unwrap();
        assert_eq!((report.sent, report.lost), (3, vec![2]));
        assert!(count("x", "connect: Network is unreachable").is_err());
    }
}

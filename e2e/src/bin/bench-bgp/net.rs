//! The network of a measurement: the daemon's namespace between those of senders and a monitor.
//!
//! ```text
//!   s ──── 10.1.0.0/16 ──── r (the daemon, .0.1 on both sides) ──── 10.2.0.0/16 ──── m
//! ```

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The daemon's addresses.
pub(crate) const DAEMON: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
pub(crate) const DAEMON_TO_MONITOR: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// The monitor's address.
pub(crate) const MONITOR: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
/// The interface of the daemon's namespace towards the senders.
pub(crate) const TO_SENDERS: &str = "rs";

/// The address of a sender, from 0.
pub(crate) fn sender(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).unwrap_or(u32::MAX) + 2;
    Ipv4Addr::from(u32::from(DAEMON) - 1 + number)
}

/// A namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Senders,
    Daemon,
    Monitor,
}

impl Side {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Senders => "mgy-bench-s",
            Self::Daemon => "mgy-bench-r",
            Self::Monitor => "mgy-bench-m",
        }
    }

    /// A command that will run in the namespace.
    pub(crate) fn command(self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.name(), program]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs `work` on a thread of the namespace; sockets made there stay there.
    pub(crate) fn enter<T: Send>(self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let path = format!("/run/netns/{}", self.name());
                let file = File::open(&path).with_context(|| path.clone())?;
                use std::os::fd::AsFd;
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("entering {path}"))?;
                work()
            });
            inside
                .join()
                .unwrap_or_else(|_| bail!("a thread of {} failed", self.name()))
        })
    }
}

/// The three namespaces; removed when dropped.
pub(crate) struct Net;

impl Net {
    /// Makes the namespaces with addresses for so many senders.
    pub(crate) fn new(senders: usize) -> Result<Self> {
        remove();
        let net = Self;
        let mut lines = String::new();
        for side in [Side::Senders, Side::Daemon, Side::Monitor] {
            lines += &format!("netns add {}\n", side.name());
        }
        let (s, r, m) = (
            Side::Senders.name(),
            Side::Daemon.name(),
            Side::Monitor.name(),
        );
        lines += &format!("link add sr netns {s} type veth peer name {TO_SENDERS} netns {r}\n");
        lines += &format!("link add mr netns {m} type veth peer name rm netns {r}\n");
        batch(None, &lines)?;
        let ups = |links: &[&str]| -> String {
            let up = |link: &&str| format!("link set {link} up\n");
            links.iter().map(up).collect()
        };
        let mut inside = ups(&["lo", "sr"]);
        for number in 0..senders {
            inside += &format!("addr add {}/16 dev sr\n", sender(number));
        }
        batch(Some(Side::Senders), &inside)?;
        let inside = format!(
            "{}addr add {DAEMON}/16 dev {TO_SENDERS}\naddr add {DAEMON_TO_MONITOR}/16 dev rm\n",
            ups(&["lo", TO_SENDERS, "rm"])
        );
        batch(Some(Side::Daemon), &inside)?;
        let inside = format!("{}addr add {MONITOR}/16 dev mr\n", ups(&["lo", "mr"]));
        batch(Some(Side::Monitor), &inside)?;
        Ok(net)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    for side in [Side::Senders, Side::Daemon, Side::Monitor] {
        // Not there is as good.
        let mut command = Command::new("ip");
        command.args(["netns", "del", side.name()]);
        let _ = command.stderr(Stdio::null()).status();
    }
}

/// Runs lines of `ip` in a namespace.
pub(crate) fn batch(side: Option<Side>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(side) = side {
        command.args(["-n", side.name()]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("ip")?;
    use std::io::Write;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    if !child.wait()?.success() {
        bail!("ip -batch failed; this needs root");
    }
    Ok(())
}

//! The daemons: their configurations, how they are started, and how each is asked for its count.

mod config;
mod count;

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::measure;
use crate::net::Side;

/// A daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Kind {
    Margay,
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Margay,
        Self::Bird,
        Self::Frr,
        Self::Gobgp,
        Self::Openbgpd,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Margay => "margay",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgp",
            Self::Openbgpd => "openbgpd",
        }
    }

    /// Whether it puts routes into the kernel by itself, with what it was configured here.
    pub(crate) fn installs(self) -> bool {
        matches!(self, Self::Margay | Self::Bird)
    }

    /// The version, in its own words.
    pub(crate) fn version(self, margay: &Path) -> String {
        let margay = margay.display().to_string();
        let (program, argument) = match self {
            Self::Margay => (margay.as_str(), "--version"),
            Self::Bird => ("bird", "--version"),
            Self::Frr => ("/usr/lib/frr/bgpd", "--version"),
            Self::Gobgp => ("gobgpd", "--version"),
            Self::Openbgpd => ("/usr/sbin/bgpd", "-V"),
        };
        let Ok(output) = Command::new(program).arg(argument).output() else {
            return String::new();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        text.lines().next().unwrap_or_default().trim().to_owned()
    }
}

/// A peer in the daemon's configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbor {
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
    pub(crate) local: Ipv4Addr,
    /// A client of the reflector.
    pub(crate) client: bool,
    /// Whether the daemon waits to be called.
    pub(crate) passive: bool,
    pub(crate) bfd: bool,
}

/// What the daemon is to do.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    pub(crate) neighbors: Vec<Neighbor>,
    /// Give what was received to the others.
    pub(crate) export: bool,
    /// Put routes into the kernel.
    pub(crate) install: bool,
    /// Hold time in seconds.
    pub(crate) hold: u16,
}

/// The daemon's AS.
pub(crate) const ASN: u32 = 65_000;

/// A running daemon.
pub(crate) struct Daemon {
    kind: Kind,
    child: Child,
    folder: PathBuf,
    pids: Vec<u32>,
}

impl Daemon {
    /// Starts a daemon in its namespace and waits until it listens.
    pub(crate) fn start(kind: Kind, setup: &Setup, folder: &Path, margay: &Path) -> Result<Self> {
        // What the last one left must not answer for this one.
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder)?;
        let file = folder.join("conf");
        std::fs::write(&file, config::text(kind, setup, folder))?;
        let log = File::create(folder.join("log"))?;
        let mut command = command(kind, folder, margay);
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| kind.name())?;
        let mut daemon = Self {
            kind,
            child,
            folder: folder.to_owned(),
            pids: Vec::new(),
        };
        daemon.wait_until_it_listens()?;
        // OpenBGPD's processes come one after the other.
        std::thread::sleep(Duration::from_millis(200));
        daemon.pids = measure::processes_of(Side::Daemon)?;
        Ok(daemon)
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}: {}", self.kind.name(), self.log());
            }
            // The port in hexadecimal, and the state "listen", as the kernel lists sockets.
            let pid = self.child.id();
            let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
            let six = std::fs::read_to_string(format!("/proc/{pid}/net/tcp6")).unwrap_or_default();
            let mut lines = table.lines().chain(six.lines());
            if lines.any(|line| line.contains(":00B3 ") && line.contains(" 0A ")) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} does not listen: {}", self.kind.name(), self.log())
    }

    /// The end of what it had to say.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(4)..].join(" | ")
    }

    /// Prefixes received from all peers together, by the daemon's own counters.
    pub(crate) fn received(&self) -> Result<u64> {
        count::received(self.kind, &self.folder)
    }

    /// BIRD 2.0.12 may sleep for seconds with work left; a question on its socket wakes it.
    pub(crate) fn poke(&self) {
        if self.kind == Kind::Bird {
            count::poke_bird(&self.folder);
        }
    }

    /// How long to wait between two questions: asking costs the daemons different amounts.
    pub(crate) fn poll_interval(&self) -> Duration {
        Duration::from_millis(match self.kind {
            Kind::Margay | Kind::Bird => 10,
            Kind::Frr | Kind::Openbgpd => 50,
            Kind::Gobgp => 300,
        })
    }

    /// CPU seconds of all its processes so far.
    pub(crate) fn cpu(&self) -> f64 {
        self.pids.iter().map(|pid| measure::cpu(*pid)).sum()
    }

    /// Waits until it does nothing more, and gives the CPU seconds by then.
    pub(crate) fn cpu_when_idle(&self) -> f64 {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut before = self.cpu();
        loop {
            std::thread::sleep(Duration::from_millis(150));
            let now = self.cpu();
            if now - before < 0.003 || Instant::now() > deadline {
                return now;
            }
            before = now;
        }
    }

    /// The most memory its processes ever had, in kB.
    pub(crate) fn peak_memory(&self) -> u64 {
        let peaks = self.pids.iter().map(|pid| measure::memory(*pid, "VmHWM:"));
        peaks.sum()
    }

    /// The memory its processes have, in kB.
    pub(crate) fn memory(&self) -> u64 {
        let now = self.pids.iter().map(|pid| measure::memory(*pid, "VmRSS:"));
        now.sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for pid in measure::processes_of(Side::Daemon).unwrap_or_default() {
            measure::kill(pid);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(kind: Kind, folder: &Path, margay: &Path) -> Command {
    let path = |name: &str| folder.join(name).display().to_string();
    let conf = path("conf");
    let margay = margay.display().to_string();
    let arguments: Vec<String> = match kind {
        Kind::Margay => vec![margay, "--config".into(), conf],
        Kind::Bird => ["bird", "-f", "-c", &conf, "-s", &path("ctl")]
            .map(String::from)
            .into(),
        Kind::Frr => [
            "/usr/lib/frr/bgpd",
            "-f",
            &conf,
            "-i",
            &path("pid"),
            "-Z",
            "-S",
            "-P",
            "0",
            "--vty_socket",
            &path(""),
        ]
        .map(String::from)
        .into(),
        Kind::Gobgp => ["gobgpd", "-f", &conf, "-t", "yaml", "-l", "error"]
            .map(String::from)
            .into(),
        Kind::Openbgpd => ["/usr/sbin/bgpd", "-d", "-f", &conf]
            .map(String::from)
            .into(),
    };
    let mut command = Side::Daemon.command(&arguments[0]);
    command.args(&arguments[1..]);
    command
}

//! The daemons: one adapter each, behind one trait.

pub mod bird;
pub mod exabgp;
pub mod frr;
pub mod gobgp;
pub mod openbgpd;

use std::path::{Path, PathBuf};

use crate::model::{Seen, Side, State};
use crate::process::wait;

/// The daemons that are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Bird,
    Frr,
    Gobgp,
    Openbgpd,
    Exabgp,
}

/// Where a daemon runs and keeps its files.
#[derive(Debug, Clone)]
pub struct Place {
    pub namespace: String,
    pub folder: PathBuf,
}

impl Place {
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.file(name).to_string_lossy().into_owned()
    }

    pub fn write(&self, name: &str, content: &str) -> Result<(), String> {
        let path = self.file(name);
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.file(name)).unwrap_or_default()).into_owned()
    }
}

/// A daemon with its configuration.
pub trait Daemon {
    /// Starts it and waits until it can be asked. `again`: it is told that it comes back from a restart through which
    /// forwarding went on, if it can be told such a thing.
    fn start(&mut self, again: bool) -> Result<(), String>;

    /// Ends it without a word to its peers, as a crash does.
    fn crash(&mut self);

    /// What it says of the session with this address.
    fn state(&self, remote: &str) -> Result<State, String>;

    /// The paths to a prefix that it has from peers.
    fn paths(&self, prefix: &str) -> Result<Vec<Seen>, String>;

    /// Has it send a ROUTE-REFRESH.
    fn refresh(&self, remote: &str) -> Result<(), String>;

    /// Shuts the session down with a text for the peer (RFC 9003).
    fn shut_down(&self, remote: &str, text: &str) -> Result<(), String>;

    /// Where an operator reads why a session ended: all that it says of it.
    fn complaints(&self, remote: &str) -> Result<String, String>;

    /// Whether its BFD session with this address is up.
    fn bfd_up(&self, _remote: &str) -> Result<bool, String> {
        Err("no BFD".to_owned())
    }
}

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Bird,
        Self::Frr,
        Self::Gobgp,
        Self::Openbgpd,
        Self::Exabgp,
    ];

    /// As on the command line and in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Gobgp => "gobgpd",
            Self::Openbgpd => "openbgpd",
            Self::Exabgp => "exabgp",
        }
    }

    /// Debian's package, whose version is the daemon's.
    pub fn package(self) -> &'static str {
        match self {
            Self::Bird => "bird2",
            other => other.name(),
        }
    }

    /// The version, as Debian counts.
    pub fn version(self) -> Result<String, String> {
        let format = "-f=${Version}";
        let output = margay_e2e::lab::command::run("dpkg-query", &["-W", format, self.package()]);
        output.map_err(|error| {
            format!(
                "{}: {error}; scripts/packages.sh interop installs it",
                self.package()
            )
        })
    }

    pub fn make(
        self,
        namespace: &str,
        folder: &Path,
        side: Side,
    ) -> Result<Box<dyn Daemon>, String> {
        let folder = folder.join(self.name());
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        crate::fabric::world_readable(&folder)?;
        let place = Place {
            namespace: namespace.to_owned(),
            folder,
        };
        Ok(match self {
            Self::Bird => Box::new(bird::Bird::new(place, side)),
            Self::Frr => Box::new(frr::Frr::new(place, side)),
            Self::Gobgp => Box::new(gobgp::Gobgp::new(place, side)),
            Self::Openbgpd => Box::new(openbgpd::Openbgpd::new(place, side)),
            Self::Exabgp => Box::new(exabgp::Exabgp::new(place, side)),
        })
    }
}

/// Waits until the daemon says that the session is up.
pub fn established(daemon: &dyn Daemon, remote: &str) -> Result<(), String> {
    wait("the daemon to see the session", || {
        let state = daemon.state(remote)?;
        if state.established {
            Ok(())
        } else {
            Err(state.text)
        }
    })
}

/// Waits until the daemon has at least so many paths.
pub fn has(daemon: &dyn Daemon, prefix: &str, count: usize) -> Result<Vec<Seen>, String> {
    let mut found = Vec::new();
    wait(
        &format!("{count} path(s) to {prefix} with the daemon"),
        || {
            found = daemon.paths(prefix)?;
            if found.len() >= count {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        },
    )?;
    Ok(found)
}

/// Waits until the daemon complains in these words.
pub fn complains(daemon: &dyn Daemon, remote: &str, text: &str) -> Result<(), String> {
    wait(&format!("the daemon to say {text:?}"), || {
        let said = daemon.complaints(remote)?;
        if said.to_lowercase().contains(&text.to_lowercase()) {
            return Ok(());
        }
        Err(said)
    })
}

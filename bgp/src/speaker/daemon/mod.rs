//! The speaker as a program of its own: `margay bgp --config FILE`.
//!
//! [`File`] is the configuration file's content as a serde type (whoever starts the daemon chooses the syntax and reads it),
//! [`Daemon`] the running program: a [`Speaker`] and, if asked for, a socket that answers questions about it. No Kubernetes,
//! and no root as long as the port is high. Kernel routes are not installed here; [`Daemon::speaker`] can be subscribed to.

mod bfd;
mod control;
mod file;
mod reload;
mod rib;
mod time;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Shutdown, Speaker, SpeakerError};
pub use control::Query;
pub use file::{
    Action, AggregateEntry, AnnounceEntry, AoKeyEntry, File, FileError, FilterEntry, HostOrNetwork,
    InstallEntry, InstallTable, LengthRange, LimitAction, ListenEntry, MatchEntry,
    MaxPrefixesEntry, NeighborEntry, NextHopEntry, PathLengthRange, PrefixEntry, PrefixLists,
    PrependEntry, RuleEntry, TcpAoEntry,
};

use reload::Reloader;
pub use reload::Source;

/// Why the daemon could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// The file says something that cannot be.
    #[error(transparent)]
    File(#[from] FileError),
    /// The speaker refused the configuration or could not listen.
    #[error(transparent)]
    Speaker(#[from] SpeakerError),
    /// The socket for questions could not be opened.
    #[error("socket {path}: {source}; its directory must exist and be writable")]
    Socket {
        /// The path asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    speaker: Speaker,
    reloader: Reloader,
    control: Option<Control>,
    graceful: bool,
}

/// The control socket: its task, and the path to remove at the end.
#[derive(Debug)]
struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Daemon {
    /// Starts what the file asks for.
    ///
    /// # Errors
    /// A [`DaemonError`] that names the field or the address.
    pub async fn start(file: &File) -> Result<Self, DaemonError> {
        Self::start_from(file, None).await
    }

    /// As [`start`](Self::start), and `source` reads the file again when somebody asks for that.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_from(file: &File, source: Option<Source>) -> Result<Self, DaemonError> {
        let config = file.speaker_config()?;
        let graceful = config.graceful_restart.is_some();
        let identity = (config.asn, config.router_id);
        let speaker = Speaker::start(config).await?;
        let reloader = Reloader::new(speaker.clone(), source, file.clone());
        let control = match &file.socket {
            None => None,
            Some(path) => {
                let failed = |source| DaemonError::Socket {
                    path: path.clone(),
                    source,
                };
                let listener = control::bind(path).map_err(failed)?;
                let task = tokio::spawn(control::serve(listener, reloader.clone(), identity));
                Some(Control {
                    path: path.clone(),
                    task,
                })
            }
        };
        Ok(Self {
            speaker,
            reloader,
            control,
            graceful,
        })
    }

    /// The speaker, for whoever wants its routes.
    #[must_use]
    pub fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// The configuration in force, and every one that takes its place: for whoever sees to what the speaker does not, such as
    /// `install`.
    #[must_use]
    pub fn file(&self) -> watch::Receiver<Arc<File>> {
        self.reloader.in_force()
    }

    /// Reads the configuration again and makes it the one in force. What concerns the daemon and not the speaker (`socket`,
    /// `asn` and `routerId` as the socket tells them) counts from the next start on.
    ///
    /// # Errors
    /// What is wrong with it, for people. The configuration that was in force stays so.
    pub async fn reload(&self) -> Result<(), String> {
        self.reloader.reload().await
    }

    /// Ends all sessions: silently if the peers were told of graceful restart, so that they keep our routes for it; otherwise
    /// with a Cease.
    pub async fn shutdown(self) {
        let how = if self.graceful {
            Shutdown::Graceful
        } else {
            Shutdown::Cease {
                message: String::new(),
            }
        };
        self.speaker.shutdown(how).await;
        drop(self.control);
    }
}

/// Runs the daemon until `shutdown` completes.
///
/// # Errors
/// As [`Daemon::start`].
pub async fn run(file: File, shutdown: impl Future<Output = ()>) -> Result<(), DaemonError> {
    let daemon = Daemon::start(&file).await?;
    shutdown.await;
    daemon.shutdown().await;
    Ok(())
}

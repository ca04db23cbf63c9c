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

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::config::SpeakerConfig;

use super::monitor::{self, Monitors};
use super::{Shutdown, Speaker, SpeakerError};
pub use control::Query;
pub use file::{
    Action, AggregateEntry, AnnounceEntry, AoKeyEntry, DumpsEntry, File, FileError, FilterEntry,
    HostOrNetwork, InstallEntry, InstallTable, LengthRange, LimitAction, ListenEntry, MatchEntry,
    MaxPrefixesEntry, Monitoring, MrtEntry, NeighborEntry, NextHopEntry, PathLengthRange,
    PrefixEntry, PrefixLists, PrependEntry, RuleEntry, StationEntry, TcpAoEntry, UpdatesEntry,
};
pub(super) use time::rfc3339;

use reload::Reloader;
pub use reload::Source;

/// How long a recording may take to be written to its end.
const LAST_WORDS: Duration = Duration::from_secs(5);

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
    /// The recording could not be begun.
    #[error("record: {0}")]
    Record(String),
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
    monitors: Arc<Mutex<Monitors>>,
    recorder: Option<JoinHandle<()>>,
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
        let wanted = file.monitor_config()?;
        let (speaker, recorder) = start(config, file.record.as_deref()).await?;
        let monitors = Arc::new(Mutex::new(Monitors::new(speaker.clone())));
        let watched = Arc::clone(&monitors);
        let reloader = Reloader::new(speaker.clone(), watched, source, file.clone());
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
        monitors.lock().await.configure(wanted).await;
        Ok(Self {
            speaker,
            reloader,
            control,
            monitors,
            recorder,
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
        self.monitors.lock().await.shut_down().await;
        if let Some(recorder) = self.recorder {
            // Its last line comes from the speaker, which has stopped.
            let _ = tokio::time::timeout(LAST_WORDS, recorder).await;
        }
        drop(self.control);
    }
}

/// Starts the speaker, with a recorder if there is to be one.
async fn start(
    config: SpeakerConfig,
    record: Option<&Path>,
) -> Result<(Speaker, Option<JoinHandle<()>>), DaemonError> {
    let Some(path) = record else {
        return Ok((Speaker::start(config).await?, None));
    };
    let file = monitor::create(path).await.map_err(DaemonError::Record)?;
    let (speaker, recording) = Speaker::start_recorded(config).await?;
    let recorder = tokio::spawn(monitor::record(recording, file, None));
    Ok((speaker, Some(recorder)))
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

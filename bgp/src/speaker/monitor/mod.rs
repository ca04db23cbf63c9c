//! What is done with observations: stations are told by BMP, files are written in MRT, recordings go to a file.
//!
//! Each of these is a task of its own on the caller's runtime, not on the speaker's thread, so that what they cost is not taken
//! from the sessions. [`Monitors`] compares what is wanted with what runs, and starts and ends only what differs.

mod path;
mod recorder;
mod rib;
mod station;
mod status;
mod updates;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Speaker;
use crate::observe::Interest;

pub use path::{TIME, has_time};
pub use recorder::{create, record};
pub use rib::dump;
use status::Status;

/// How long a monitor may take to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A BMP station (RFC 7854) to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StationConfig {
    /// Where it listens.
    pub address: SocketAddr,
    /// Source address of the connection.
    pub local_address: Option<IpAddr>,
    /// Routes before policy, after it, or both.
    pub stages: Interest,
    /// Time between two statistics reports; `None`: none are sent.
    pub statistics: Option<Duration>,
    /// What this speaker is called.
    pub system_name: String,
    /// What it is.
    pub system_description: String,
}

/// A file of messages and state changes in MRT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdatesConfig {
    /// Where to; [`TIME`] in it stands for the time the file was begun.
    pub path: PathBuf,
    /// Time after which another file is begun.
    pub rotate: Option<Duration>,
    /// Times with microseconds.
    pub extended: bool,
    /// What we send, too.
    pub sent: bool,
}

/// Dumps of the RIB in MRT, at intervals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpsConfig {
    /// Where to; [`TIME`] in it stands for the time of the dump.
    pub path: PathBuf,
    /// Time between two dumps.
    pub interval: Duration,
}

/// Everything that is to be done with observations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MonitorConfig {
    /// The stations, by address and port.
    pub stations: BTreeMap<SocketAddr, StationConfig>,
    /// Messages and state changes.
    pub updates: Option<UpdatesConfig>,
    /// The RIB.
    pub dumps: Option<DumpsConfig>,
}

/// A task, what it was started with, and how it is.
#[derive(Debug)]
struct Running<C> {
    config: C,
    status: Status,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl<C: Clone> Running<C> {
    fn start<F>(config: C, run: impl FnOnce(C, Status, oneshot::Receiver<()>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let status = Status::default();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(run(config.clone(), status.clone(), stopped));
        Self {
            config,
            status,
            stop,
            task,
        }
    }

    async fn end(mut self) {
        // It may have ended already.
        let _ = self.stop.send(());
        if tokio::time::timeout(LAST_WORDS, &mut self.task)
            .await
            .is_err()
        {
            self.task.abort();
        }
    }
}

/// What runs.
#[derive(Debug)]
pub struct Monitors {
    speaker: Speaker,
    stations: BTreeMap<SocketAddr, Running<StationConfig>>,
    updates: Option<Running<UpdatesConfig>>,
    dumps: Option<Running<DumpsConfig>>,
}

impl Monitors {
    /// Nothing yet.
    #[must_use]
    pub fn new(speaker: Speaker) -> Self {
        Self {
            speaker,
            stations: BTreeMap::new(),
            updates: None,
            dumps: None,
        }
    }

    /// Starts and ends what differs from what is wanted.
    pub async fn configure(&mut self, wanted: MonitorConfig) {
        let MonitorConfig {
            stations,
            updates,
            dumps,
        } = wanted;
        for (address, running) in std::mem::take(&mut self.stations) {
            if stations.get(&address) == Some(&running.config) {
                self.stations.insert(address, running);
            } else {
                running.end().await;
            }
        }
        for (address, config) in stations {
            let speaker = &self.speaker;
            self.stations.entry(address).or_insert_with(|| {
                Running::start(config, |c, s, stop| {
                    station::run(speaker.clone(), c, s, stop)
                })
            });
        }
        if self.updates.as_ref().map(|running| &running.config) != updates.as_ref() {
            if let Some(running) = self.updates.take() {
                running.end().await;
            }
            if let Some(config) = updates {
                let speaker = self.speaker.clone();
                // Before anybody is told that it is configured.
                let observed = updates::watch(&speaker, &config).await;
                self.updates = Some(Running::start(config, |c, s, stop| {
                    updates::run(speaker, observed, c, s, stop)
                }));
            }
        }
        if self.dumps.as_ref().map(|running| &running.config) != dumps.as_ref() {
            if let Some(running) = self.dumps.take() {
                running.end().await;
            }
            let speaker = &self.speaker;
            self.dumps = dumps.map(|config| {
                Running::start(config, |c, s, stop| rib::run(speaker.clone(), c, s, stop))
            });
        }
    }

    /// Ends everything, after the speaker: what it did last is still told.
    pub async fn shut_down(&mut self) {
        // Those that read observations see their end by themselves; they get the time for it before they are told to stop.
        let stations = std::mem::take(&mut self.stations).into_values();
        for running in stations {
            finish(running).await;
        }
        if let Some(running) = self.updates.take() {
            finish(running).await;
        }
        if let Some(running) = self.dumps.take() {
            running.end().await;
        }
    }

    /// How everything is, for people: `stations` and `mrt`, where there are any.
    #[must_use]
    pub fn status(&self) -> Map<String, Value> {
        let mut all = Map::new();
        if !self.stations.is_empty() {
            let stations = self.stations.values();
            let stations = stations.map(|running| {
                let mut fields = running.status.show();
                let address = running.config.address;
                fields.insert("address".to_owned(), json!(address.ip()));
                fields.insert("port".to_owned(), json!(address.port()));
                Value::Object(fields)
            });
            all.insert("stations".to_owned(), stations.collect());
        }
        let mut mrt = Map::new();
        if let Some(running) = &self.updates {
            mrt.insert("updates".to_owned(), running.status.show().into());
        }
        if let Some(running) = &self.dumps {
            mrt.insert("rib".to_owned(), running.status.show().into());
        }
        if !mrt.is_empty() {
            all.insert("mrt".to_owned(), mrt.into());
        }
        all
    }
}

/// Waits for a task that comes to its end by itself.
async fn finish<C: Clone>(mut running: Running<C>) {
    if tokio::time::timeout(LAST_WORDS, &mut running.task)
        .await
        .is_err()
    {
        running.end().await;
    }
}

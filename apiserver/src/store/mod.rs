//! The database: objects with resourceVersions, their recent history, and nothing about Kubernetes kinds.
//!
//! * [`record`]: keys, records, events.
//! * [`log`]: the bounded history of one resource, pure.
//! * [`state`]: everything in memory, pure: what is readable, and which writes are allowed.
//! * [`disk`]: the redb file.
//! * [`Store`]: the handle; one writer thread takes writes from a queue, settles all that are waiting in a single transaction
//!   (one `fsync` for all of them), then publishes them to readers and watchers.
//!
//! Readers never touch the disk: all objects are held in memory, as in a Kubernetes API server's watch cache. Watchers do not
//! have queues of their own; each keeps the last resourceVersion it has seen and reads on from the shared history, so a slow
//! watcher costs nothing and is told so (`Compacted`) once the history has moved past it.

pub mod disk;
pub mod log;
pub mod record;
pub mod state;
mod writer;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{mpsc, oneshot, watch};

pub use self::disk::DiskError;
pub use self::log::{Compacted, HistoryLimit};
pub use self::record::{Event, Key, Record};
pub use self::state::{Expect, Page, State, Write, WriteError};

/// Writes that may wait for the writer before senders have to wait too.
const QUEUE: usize = 1024;

/// How much a store may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// History kept per resource.
    pub history: HistoryLimit,
    /// Serialized bytes of all objects together; writes that would exceed it are refused.
    pub total_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history: HistoryLimit::default(),
            total_bytes: 1 << 30,
        }
    }
}

/// A cheap handle to the one open database; the file is closed when the last handle is gone.
#[derive(Debug, Clone)]
pub struct Store {
    state: Arc<RwLock<State>>,
    queue: mpsc::Sender<writer::Job>,
}

impl Store {
    /// Opens or creates the database file at `path` and starts its writer thread.
    ///
    /// # Errors
    /// When another process has the file open, or it cannot be read.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, DiskError> {
        let disk = disk::Disk::open(path)?;
        let (version, records) = disk.load()?;
        let state = Arc::new(RwLock::new(State::new(version, records, limits)));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let shared = Arc::clone(&state);
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer::run(&disk, &shared, jobs))
            .map_err(DiskError::Thread)?;
        Ok(Self { state, queue })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        // A writer never panics while holding the lock; if it did, its state was still whole.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resourceVersion of the newest write.
    pub fn version(&self) -> u64 {
        self.read().version()
    }

    /// One object.
    pub fn get(&self, key: &Key) -> Option<Arc<Record>> {
        self.read().get(key)
    }

    /// The objects of a resource in name order, after `after`, in one namespace or all; and the version they are from.
    pub fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&(String, String)>,
    ) -> Page {
        self.read().list(resource, namespace, after)
    }

    /// Every object of every resource in a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<(Key, Arc<Record>)> {
        self.read().in_namespace(namespace)
    }

    /// The resourceVersion of the last change to any object of `resource`; 0 when there never was one.
    pub fn changed(&self, resource: &str) -> u64 {
        self.read().changed(resource)
    }

    /// Events of `resource` after `since`, and the version up to which that is all of them.
    ///
    /// # Errors
    /// [`Compacted`] when events after `since` are no longer held.
    pub fn events(&self, resource: &str, since: u64) -> Result<(Vec<Arc<Event>>, u64), Compacted> {
        self.read().events(resource, since)
    }

    /// Wakes whenever an object of `resource` changed; the value is the resourceVersion of the change.
    pub fn subscribe(&self, resource: &str) -> watch::Receiver<u64> {
        self.state
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .subscribe(resource)
    }

    /// Makes one write durable; answers the stored record (for a deletion: the last state with the deletion's version).
    ///
    /// # Errors
    /// [`WriteError`] when the expectation does not hold or the disk failed; then nothing was written.
    pub async fn write(&self, write: Write) -> Result<Arc<Record>, WriteError> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(writer::Job { write, reply })
            .await
            .map_err(|_| WriteError::Closed)?;
        answer.await.map_err(|_| WriteError::Closed)?
    }
}

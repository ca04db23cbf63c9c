//! The store's memory: all objects, all histories, and the rule for which writes are allowed. Pure: no disk, no locks, no tasks.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use super::Limits;
use super::log::{Compacted, Log};
use super::record::{Event, Key, Record};
use crate::object::is_terminating;

/// The largest record, with what field managers applied; requests are bounded, but patches could add up.
const LARGEST_RECORD: usize = 8 << 20;

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No such object exists.
    Absent,
    /// The object exists with exactly this resourceVersion.
    Version(u64),
}

/// One write: compare, then put or delete.
#[derive(Debug, Clone)]
pub struct Write {
    /// The object.
    pub key: Key,
    /// The comparison.
    pub expect: Expect,
    /// The new record, or `None` to delete.
    pub put: Option<Record>,
    /// Other objects that must exist and not be terminating (the namespace and the CRD of a new object).
    pub requires: Vec<Key>,
}

/// Why a write did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// [`Expect::Absent`] and there is one.
    #[error("object exists")]
    Exists,
    /// [`Expect::Version`] and there is none.
    #[error("object does not exist")]
    Missing,
    /// [`Expect::Version`] and it has another.
    #[error("object has resourceVersion {0}")]
    Stale(u64),
    /// The required object does not exist or is terminating.
    #[error("required object does not exist or is terminating")]
    Requirement,
    /// The write would make the database larger than allowed.
    #[error("the database would exceed its limit of {0} bytes; delete objects or raise the limit")]
    Full(usize),
    /// The record is larger than a record may be.
    #[error("the object would take {0} bytes, at most {LARGEST_RECORD} are stored; split it")]
    TooLarge(usize),
    /// The disk refused; the write is not in the database.
    #[error("cannot write the database: {0}")]
    Disk(String),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

/// A consistent read of several objects.
#[derive(Debug, Clone)]
pub struct Page {
    /// The objects in order of namespace and name.
    pub records: Vec<Arc<Record>>,
    /// The store's version at the time of reading.
    pub version: u64,
}

/// All objects of one resource, and their history.
#[derive(Debug)]
struct Shelf {
    objects: BTreeMap<(String, String), Arc<Record>>,
    log: Log,
    changed: u64,
    wake: watch::Sender<u64>,
}

impl Shelf {
    fn new(floor: u64, limits: Limits) -> Self {
        Self {
            objects: BTreeMap::new(),
            log: Log::new(floor, limits.history),
            changed: 0,
            wake: watch::Sender::new(floor),
        }
    }
}

/// All objects of all resources.
#[derive(Debug)]
pub struct State {
    shelves: HashMap<String, Shelf>,
    version: u64,
    /// History starts here: nothing older can be watched.
    floor: u64,
    bytes: usize,
    limits: Limits,
}

impl State {
    /// The state as loaded from disk.
    pub fn new(version: u64, records: Vec<(Key, Record)>, limits: Limits) -> Self {
        let mut state = Self {
            shelves: HashMap::new(),
            version,
            floor: version,
            bytes: 0,
            limits,
        };
        for (key, record) in records {
            state.bytes += record.size;
            let version = record.version;
            let shelf = state.shelf(&key.resource);
            shelf.changed = shelf.changed.max(version);
            shelf
                .objects
                .insert((key.namespace, key.name), Arc::new(record));
        }
        state
    }

    fn shelf(&mut self, resource: &str) -> &mut Shelf {
        let (floor, limits) = (self.floor, self.limits);
        self.shelves
            .entry(resource.to_owned())
            .or_insert_with(|| Shelf::new(floor, limits))
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Record>> {
        // The tuple key costs two small copies; a borrowed lookup would need a key type of its own.
        self.shelves
            .get(&key.resource)?
            .objects
            .get(&(key.namespace.clone(), key.name.clone()))
            .cloned()
    }

    pub(super) fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&(String, String)>,
    ) -> Page {
        let start = match (after, namespace) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(namespace)) => Bound::Included((namespace.to_owned(), String::new())),
            (None, None) => Bound::Unbounded,
        };
        let records = self.shelves.get(resource).map(|shelf| {
            shelf
                .objects
                .range((start, Bound::Unbounded))
                .take_while(|((ns, _), _)| namespace.is_none_or(|wanted| ns == wanted))
                .map(|(_, record)| Arc::clone(record))
                .collect()
        });
        Page {
            records: records.unwrap_or_default(),
            version: self.version,
        }
    }

    pub(super) fn in_namespace(&self, namespace: &str) -> Vec<(Key, Arc<Record>)> {
        let mut found = Vec::new();
        for (resource, shelf) in &self.shelves {
            let from = (namespace.to_owned(), String::new());
            let members = shelf
                .objects
                .range(from..)
                .take_while(|((ns, _), _)| ns == namespace);
            found
                .extend(members.map(|((ns, name), record)| {
                    (Key::new(resource, ns, name), Arc::clone(record))
                }));
        }
        found
    }

    pub(super) fn changed(&self, resource: &str) -> u64 {
        self.shelves.get(resource).map_or(0, |shelf| shelf.changed)
    }

    pub(super) fn events(
        &self,
        resource: &str,
        since: u64,
    ) -> Result<(Vec<Arc<Event>>, u64), Compacted> {
        let events = match self.shelves.get(resource) {
            Some(shelf) => shelf.log.since(since)?,
            None if since < self.floor => return Err(Compacted { oldest: self.floor }),
            None => Vec::new(),
        };
        Ok((events, self.version))
    }

    pub(super) fn subscribe(&mut self, resource: &str) -> watch::Receiver<u64> {
        self.shelf(resource).wake.subscribe()
    }

    /// Publishes settled writes.
    pub(super) fn publish(&mut self, batch: Batch) {
        for event in batch.events {
            let Settled { key, event } = event;
            self.version = self.version.max(event.version);
            if let Some(old) = &event.old {
                self.bytes = self.bytes.saturating_sub(old.size);
            }
            let shelf = self.shelf(&key.resource);
            let place = (key.namespace, key.name);
            if event.deleted {
                shelf.objects.remove(&place);
            } else {
                shelf.objects.insert(place, Arc::clone(&event.new));
                self.bytes += event.new.size;
            }
            let shelf = self.shelf(&key.resource);
            shelf.changed = event.version;
            shelf.log.push(Arc::clone(&event));
            shelf.wake.send_replace(event.version);
        }
    }
}

/// A write that was allowed and has its version.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) key: Key,
    pub(super) event: Arc<Event>,
}

/// Writes being settled together: each sees those before it, readers see none of them yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    overlay: HashMap<Key, Option<Arc<Record>>>,
    pub(super) events: Vec<Settled>,
    /// Serialized records in the order of `events`; `None` for deletions.
    pub(super) encoded: Vec<Option<Vec<u8>>>,
    grown: isize,
}

impl Batch {
    fn current(&self, state: &State, key: &Key) -> Option<Arc<Record>> {
        match self.overlay.get(key) {
            Some(record) => record.clone(),
            None => state.get(key),
        }
    }

    /// The version of the last settled write.
    pub(super) fn version(&self, state: &State) -> u64 {
        self.events
            .last()
            .map_or(state.version, |settled| settled.event.version)
    }

    /// Decides one write against the state and the writes already in the batch.
    pub(super) fn settle(
        &mut self,
        state: &State,
        write: Write,
    ) -> Result<Arc<Record>, WriteError> {
        let old = self.current(state, &write.key);
        match (write.expect, &old) {
            (Expect::Absent, Some(_)) => return Err(WriteError::Exists),
            (Expect::Version(_), None) => return Err(WriteError::Missing),
            (Expect::Version(wanted), Some(record)) if record.version != wanted => {
                return Err(WriteError::Stale(record.version));
            }
            _ => {}
        }
        let alive = |key: &Key| {
            self.current(state, key)
                .is_some_and(|record| !is_terminating(&record.object))
        };
        if !write.requires.iter().all(alive) {
            return Err(WriteError::Requirement);
        }
        let deleted = write.put.is_none();
        let mut record = match (write.put, &old) {
            (Some(record), _) => record,
            (None, Some(old)) => Record::clone(old),
            (None, None) => return Err(WriteError::Missing),
        };
        let version = self.version(state) + 1;
        record.stamp(version);
        let bytes =
            serde_json::to_vec(&record).map_err(|error| WriteError::Disk(error.to_string()))?;
        if bytes.len() > LARGEST_RECORD {
            return Err(WriteError::TooLarge(bytes.len()));
        }
        record.size = bytes.len();
        let delta = if deleted { 0 } else { signed(bytes.len()) }
            - old.as_ref().map_or(0, |old| signed(old.size));
        let limit = state.limits.total_bytes;
        if delta > 0 && signed(state.bytes) + self.grown + delta > signed(limit) {
            return Err(WriteError::Full(limit));
        }
        self.grown += delta;
        let new = Arc::new(record);
        self.overlay
            .insert(write.key.clone(), (!deleted).then(|| Arc::clone(&new)));
        self.encoded.push((!deleted).then_some(bytes));
        self.events.push(Settled {
            key: write.key,
            event: Arc::new(Event {
                version,
                old,
                new: Arc::clone(&new),
                deleted,
            }),
        });
        Ok(new)
    }
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

#[cfg(test)]
mod tests;

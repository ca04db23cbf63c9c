//! A store in memory that behaves like an API server, for tests, with faults on request.
//!
//! It checks uid and resourceVersion, refuses bad objects as the server's schema would, counts
//! calls and keeps the events that a watch would deliver.
//!
//! Not here: persistence. The embedded store is another crate.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use margay_crds::IPAMBlock;

use crate::clock::Timestamp;
use crate::store::{Store, StoreError};
use crate::view::BlockEvent;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A write is refused as if another writer had been first: a create with AlreadyExists, an
    /// update or delete with Conflict. Reads pass.
    Conflict,
    /// The call does not arrive.
    Unavailable,
    /// The call is done, and its answer is lost.
    LostAnswer,
    /// The server does not want it.
    Refused,
}

/// Blocks in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, IPAMBlock>,
    version: u64,
    events: Vec<BlockEvent>,
    writes: usize,
    reads: usize,
    faults: VecDeque<Option<Fault>>,
    now: Timestamp,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the coming calls fail, one entry for each; `None` lets a call pass.
    pub fn inject(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.lock().faults.extend(faults);
    }

    /// Drops the faults that have not been met.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Sets the time that new objects carry.
    pub fn set_now(&self, now: Timestamp) {
        self.lock().now = now;
    }

    /// All objects, in the order of their names.
    pub fn list(&self) -> Vec<IPAMBlock> {
        self.lock().objects.values().cloned().collect()
    }

    /// How many events there have been: a place to go on from.
    pub fn position(&self) -> usize {
        self.lock().events.len()
    }

    /// The events since a position.
    pub fn events_since(&self, position: usize) -> Vec<BlockEvent> {
        let state = self.lock();
        state.events.get(position..).unwrap_or_default().to_vec()
    }

    /// Writes that arrived (creates, updates and deletes), refused ones included.
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    /// Reads that arrived.
    pub fn reads(&self) -> usize {
        self.lock().reads
    }

    /// Puts an object as an administrator with a text editor might, unchecked.
    pub fn put(&self, block: IPAMBlock) -> Option<IPAMBlock> {
        let mut state = self.lock();
        let name = block.metadata.name.clone()?;
        let known = state.objects.get(&name);
        let uid = known.and_then(|known| known.metadata.uid.clone());
        Some(state.store(name, block, uid))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write with the fault that is due.
    fn write<T>(
        &self,
        occupied: StoreError,
        write: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.lock();
        state.writes += 1;
        match state.faults.pop_front().flatten() {
            None => write(&mut state),
            Some(Fault::Conflict) => Err(occupied),
            Some(Fault::Unavailable) => Err(unavailable()),
            Some(Fault::Refused) => Err(StoreError::Refused("not allowed".to_owned())),
            Some(Fault::LostAnswer) => {
                let _ = write(&mut state);
                Err(unavailable())
            }
        }
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("connection refused".to_owned())
}

impl State {
    fn store(&mut self, name: String, mut block: IPAMBlock, uid: Option<String>) -> IPAMBlock {
        self.version += 1;
        let version = self.version;
        if uid.is_none() {
            block.metadata.creation_timestamp = Some(Time(self.now));
        }
        block.metadata.uid = Some(uid.unwrap_or_else(|| format!("uid-{version}")));
        block.metadata.resource_version = Some(version.to_string());
        self.objects.insert(name, block.clone());
        self.events.push(BlockEvent::Apply(block.clone()));
        block
    }

    /// The object, if the writer has seen its current version.
    fn current(&self, block: &IPAMBlock) -> Result<(String, IPAMBlock), StoreError> {
        let name = block.metadata.name.clone().unwrap_or_default();
        let known = self.objects.get(&name).ok_or(StoreError::NotFound)?;
        let same = known.metadata.uid == block.metadata.uid
            && known.metadata.resource_version == block.metadata.resource_version;
        if same {
            Ok((name, known.clone()))
        } else {
            Err(StoreError::Conflict)
        }
    }
}

fn check(block: &IPAMBlock) -> Result<(), StoreError> {
    let checked = block.check();
    checked
        .map(|_| ())
        .map_err(|errors| StoreError::Refused(margay_crds::field::join(&errors)))
}

impl Store for MemoryStore {
    async fn get(&self, name: &str) -> Result<Option<IPAMBlock>, StoreError> {
        let mut state = self.lock();
        state.reads += 1;
        match state.faults.pop_front().flatten() {
            None | Some(Fault::Conflict) => Ok(state.objects.get(name).cloned()),
            Some(Fault::Unavailable | Fault::LostAnswer) => Err(unavailable()),
            Some(Fault::Refused) => Err(StoreError::Refused("not allowed".to_owned())),
        }
    }

    async fn create(&self, block: &IPAMBlock) -> Result<IPAMBlock, StoreError> {
        self.write(StoreError::AlreadyExists, |state| {
            check(block)?;
            let name = block.metadata.name.clone().unwrap_or_default();
            if state.objects.contains_key(&name) {
                return Err(StoreError::AlreadyExists);
            }
            Ok(state.store(name, block.clone(), None))
        })
    }

    async fn update(&self, block: &IPAMBlock) -> Result<IPAMBlock, StoreError> {
        self.write(StoreError::Conflict, |state| {
            check(block)?;
            let (name, known) = state.current(block)?;
            let wrong = block.check_update(&known);
            if !wrong.is_empty() {
                return Err(StoreError::Refused(margay_crds::field::join(&wrong)));
            }
            Ok(state.store(name, block.clone(), known.metadata.uid))
        })
    }

    async fn delete(&self, block: &IPAMBlock) -> Result<(), StoreError> {
        self.write(StoreError::Conflict, |state| {
            let (name, known) = state.current(block)?;
            state.version += 1;
            state.objects.remove(&name);
            state.events.push(BlockEvent::Delete(known));
            Ok(())
        })
    }
}

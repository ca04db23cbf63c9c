//! The shell around the state machine: a handle that callers ask, and one worker that talks to
//! the store for all of them.
//!
//! While the worker waits for an answer of the store, requests gather; the next batch takes them
//! all, so a hundred pods that start together cost a handful of writes. A caller that stops
//! waiting does not stop the work: what was given to it stays given until it is released.
//!
//! Not here: decisions ([`crate::batch`]) and watching.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_crds::{IpamSettings, Owner, Pool};
use tokio::sync::{mpsc, oneshot, watch};

use crate::batch::{Answer, Assigned, Batch, Operation, Outcome, Step};
use crate::block::{NodeBlock, Release};
use crate::clock::Clock;
use crate::error::IpamError;
use crate::ranges::Ranges;
use crate::request::Request as Wanted;
use crate::store::{Store, StoreError};
use crate::view::{BlockEvent, View};
use crate::{Family, tidy};

/// Requests that may wait for the worker; more make callers wait.
const QUEUE: usize = 1024;
/// The most requests of one batch: the plan is made anew after every write.
const MAX_BATCH: usize = 256;

/// One node's address management. Cheap to clone; all clones share one view and one worker.
#[derive(Debug, Clone)]
pub struct Allocator {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
struct Shared {
    view: Mutex<View>,
    /// Counts the changes of this node's own blocks.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
enum Request {
    Operation(Operation, oneshot::Sender<Result<Outcome, IpamError>>),
    Tidy(Duration, oneshot::Sender<Result<Vec<IpNetwork>, IpamError>>),
}

impl Allocator {
    /// The handle, and the worker whose [`Worker::run`] must be spawned for requests to be
    /// answered.
    pub fn new<S: Store, C: Clock>(node: &str, store: S, clock: C) -> (Self, Worker<S, C>) {
        let (requests, queue) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            view: Mutex::new(View::new(node)),
            changes: watch::Sender::new(0),
        });
        let worker = Worker {
            shared: Arc::clone(&shared),
            queue,
            held_back: None,
            store,
            clock,
        };
        (Self { shared, requests }, worker)
    }

    // ===== what feeds the view =====

    /// Takes in what a watch of the blocks of all nodes says. Requests fail with
    /// [`IpamError::NotReady`] until the first [`BlockEvent::List`].
    pub fn handle_block_event(&self, event: BlockEvent) {
        self.shared.change(|view| view.handle_event(event));
    }

    /// Replaces the pools: all that passed their checks, whichever node they select.
    pub fn set_pools(&self, pools: Vec<Pool>) {
        self.shared.lock().set_pools(pools);
    }

    /// Replaces the settings.
    pub fn set_settings(&self, settings: IpamSettings) {
        self.shared.lock().set_settings(settings);
    }

    /// Replaces the labels of this node's Node object.
    pub fn set_node_labels(&self, labels: BTreeMap<String, String>) {
        self.shared.lock().set_node_labels(labels);
    }

    // ===== what others look at =====

    /// Whether the list of blocks has arrived.
    pub fn is_ready(&self) -> bool {
        self.shared.lock().is_listed()
    }

    /// Replaces the ranges of which no address is given to who does not name it.
    pub fn set_reserved(&self, reserved: Ranges) {
        self.shared.lock().set_reserved(reserved);
    }

    /// The families of which a pod on this node gets an address if it does not say; without its
    /// namespace's labels no pool that selects namespaces counts.
    pub fn families(
        &self,
        namespace_labels: Option<&BTreeMap<String, String>>,
    ) -> BTreeSet<Family> {
        self.shared.lock().families(namespace_labels)
    }

    /// This node's blocks, as last read or written, in the order of their names.
    pub fn own_blocks(&self) -> Vec<NodeBlock> {
        self.shared.lock().own_blocks().cloned().collect()
    }

    /// This node's blocks that cannot be used: name and reason.
    pub fn problems(&self) -> BTreeMap<String, String> {
        self.shared.lock().problems().clone()
    }

    /// Changes value whenever [`Self::own_blocks`] does: what is claimed is to be announced at
    /// once.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// What `look` finds in the view. It must be quick: requests wait meanwhile.
    pub fn with_view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.shared.lock())
    }

    // ===== requests =====

    /// All the addresses of a request, in the order of its wants, or none. Asking again gives the
    /// same ones.
    ///
    /// # Errors
    /// Any [`IpamError`]; [`IpamError::is_transient`] tells whether trying again may help. After
    /// [`IpamError::StoreUnavailable`] some may be given all the same: the caller releases.
    pub async fn assign_all(&self, request: Wanted) -> Result<Vec<Assigned>, IpamError> {
        match self.ask(Operation::Assign(request)).await? {
            Outcome::Assigned(assigned) => Ok(assigned),
            Outcome::Released(_) => Err(IpamError::Stopped),
        }
    }

    /// An address of the family for an interface of a sandbox, from any pool.
    ///
    /// # Errors
    /// As [`Self::assign_all`].
    pub async fn assign(&self, owner: Owner, family: Family) -> Result<Assigned, IpamError> {
        let assigned = self.assign_all(Wanted::pod(owner, [family])).await?;
        assigned.into_iter().next().ok_or(IpamError::Stopped)
    }

    /// Takes addresses back; answers those that were held. None is no error.
    ///
    /// # Errors
    /// [`IpamError::NotReady`], [`IpamError::StoreUnavailable`], [`IpamError::Refused`],
    /// [`IpamError::TooManyConflicts`] or [`IpamError::Stopped`]: then some may be released, and
    /// the caller asks again.
    pub async fn release(&self, which: Release) -> Result<Vec<IpAddr>, IpamError> {
        match self.ask(Operation::Release(which)).await? {
            Outcome::Released(addresses) => Ok(addresses),
            Outcome::Assigned(_) => Err(IpamError::Stopped),
        }
    }

    /// Gives back the blocks that have been empty for `grace` and that this node does not need
    /// ([`tidy`]); answers them.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub async fn release_empty_blocks(&self, grace: Duration) -> Result<Vec<IpNetwork>, IpamError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Tidy(grace, reply)).await?;
        answer.await.map_err(|_| IpamError::Stopped)?
    }

    async fn ask(&self, operation: Operation) -> Result<Outcome, IpamError> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Operation(operation, reply)).await?;
        answer.await.map_err(|_| IpamError::Stopped)?
    }

    async fn send(&self, request: Request) -> Result<(), IpamError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| IpamError::Stopped)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, View> {
        // A panic elsewhere cannot leave the view half changed in a way that matters: every write
        // is checked by the store.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        let changes = {
            let mut view = self.lock();
            change(&mut view);
            view.changes()
        };
        self.changes.send_if_modified(|known| {
            let changed = *known != changes;
            *known = changes;
            changed
        });
    }
}

/// Does the work; ends when the last [`Allocator`] is dropped.
#[derive(Debug)]
pub struct Worker<S, C> {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Request>,
    /// A request that must not travel with the batch before it.
    held_back: Option<Request>,
    store: S,
    clock: C,
}

impl<S: Store, C: Clock> Worker<S, C> {
    /// Answers requests until nobody can ask any more.
    pub async fn run(mut self) {
        while let Some(request) = self.next_request().await {
            match request {
                Request::Tidy(grace, reply) => {
                    // The caller may have gone; the work is done all the same.
                    let _ = reply.send(self.tidy(grace).await);
                }
                Request::Operation(operation, reply) => {
                    let (operations, replies) = self.gather(operation, reply);
                    self.work(operations, replies).await;
                }
            }
        }
    }

    async fn next_request(&mut self) -> Option<Request> {
        match self.held_back.take() {
            Some(request) => Some(request),
            None => self.queue.recv().await,
        }
    }

    /// The first request and all that wait and may travel with it.
    fn gather(
        &mut self,
        operation: Operation,
        reply: Reply,
    ) -> (Vec<Operation>, Vec<Option<Reply>>) {
        let mut operations = vec![operation];
        let mut replies = vec![Some(reply)];
        while operations.len() < MAX_BATCH {
            match self.queue.try_recv() {
                Ok(Request::Operation(next, reply))
                    if !operations.iter().any(|one| one.clashes(&next)) =>
                {
                    operations.push(next);
                    replies.push(Some(reply));
                }
                Ok(other) => {
                    self.held_back = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        (operations, replies)
    }

    async fn work(&self, operations: Vec<Operation>, mut replies: Vec<Option<Reply>>) {
        let mut batch = Batch::new(operations);
        loop {
            let step = batch.poll_step(&self.shared.lock(), self.clock.now());
            while let Some((ticket, outcome)) = batch.poll_reply() {
                if let Some(reply) = replies.get_mut(ticket).and_then(Option::take) {
                    // The caller may have gone.
                    let _ = reply.send(outcome);
                }
            }
            let answer = match step {
                Step::Done => return,
                Step::Wait(time) => {
                    self.clock.sleep(time).await;
                    continue;
                }
                step => self.perform(step).await,
            };
            self.shared.change(|view| batch.handle_answer(view, answer));
        }
    }

    async fn perform(&self, step: Step) -> Answer {
        match step {
            Step::Read(name) => self.store.get(&name).await,
            Step::Create(block) => self.store.create(&block).await.map(Some),
            Step::Update(block) => self.store.update(&block).await.map(Some),
            Step::Wait(_) | Step::Done => Ok(None),
        }
    }

    async fn tidy(&self, grace: Duration) -> Result<Vec<IpNetwork>, IpamError> {
        let surplus = {
            let view = self.shared.lock();
            if !view.is_listed() {
                return Err(IpamError::NotReady);
            }
            tidy::surplus(&view, self.clock.now(), grace)
        };
        let mut given_back = Vec::new();
        for block in surplus {
            let deleted = self.store.delete(block.object()).await;
            let failed = deleted.as_ref().err().cloned();
            self.shared.change(|view| match deleted {
                Ok(()) | Err(StoreError::NotFound) => view.put_absent(block.name()),
                // Someone wrote it meanwhile, or nobody knows: look again before the next use.
                Err(_) => view.doubt(block.name()),
            });
            match failed {
                None | Some(StoreError::NotFound) => given_back.push(block.cidr()),
                Some(StoreError::Conflict) => {}
                Some(error) => return Err(IpamError::of_store(block.name(), &error)),
            }
        }
        Ok(given_back)
    }
}

type Reply = oneshot::Sender<Result<Outcome, IpamError>>;

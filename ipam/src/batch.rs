//! Many requests of one node turned into few writes: a state machine without IO.
//!
//! Call [`Batch::poll_step`], do what it says, hand the answer to [`Batch::handle_answer`], take
//! what [`Batch::poll_reply`] gives, and begin again until the step is [`Step::Done`]. All
//! requests that touch one block travel in one update; each write carries the resourceVersion
//! that was read, and a refused one leads to a new read and a new plan. A crash between any two
//! calls loses nothing: the plan is made from the view each time, never from memory of a plan.
//!
//! Not here: the store, the clock, and who waits for which reply.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_crds::{IPAMBlock, Owner};

use crate::Family;
use crate::block::{NodeBlock, Release};
use crate::clock::Timestamp;
use crate::error::IpamError;
use crate::store::StoreError;
use crate::view::View;

/// Refused writes in a row that a batch survives.
pub const MAX_CONFLICTS: u32 = 12;
/// Claims that may turn out to be taken before a batch gives up.
pub const MAX_LOST_CLAIMS: u32 = 64;
/// The longest pause between two tries.
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// What a caller wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// An address for an interface of a sandbox; the same one if it already has one.
    Assign {
        /// Who is to hold it.
        owner: Owner,
        /// Of which family.
        family: Family,
    },
    /// Take addresses back.
    Release(Release),
}

impl Operation {
    /// Whether the outcome depends on which of the two comes first.
    pub fn clashes(&self, other: &Operation) -> bool {
        match (self, other) {
            (Self::Assign { owner, .. }, Self::Release(which))
            | (Self::Release(which), Self::Assign { owner, .. }) => which.concerns(owner),
            _ => false,
        }
    }
}

/// An address that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The address.
    pub address: IpAddr,
    /// The block it is in.
    pub block: IpNetwork,
    /// The pool the block is in, as far as it is known.
    pub pool: Option<String>,
    /// The allocation's sequence, to release exactly this allocation later.
    pub sequence: i64,
}

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The address given.
    Assigned(Assigned),
    /// The addresses taken back; none is no error.
    Released(Vec<IpAddr>),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Read the block of this name.
    Read(String),
    /// Claim this block.
    Create(IPAMBlock),
    /// Write this block.
    Update(IPAMBlock),
    /// Pause, then poll again.
    Wait(Duration),
    /// All replies are there.
    Done,
}

/// What the store said to a step: the object as stored, or `None` to a read of nothing.
pub type Answer = Result<Option<IPAMBlock>, StoreError>;

/// Requests that are worked on together.
#[derive(Debug, Default)]
pub struct Batch {
    pending: Vec<Pending>,
    replies: VecDeque<(usize, Result<Outcome, IpamError>)>,
    in_flight: Option<InFlight>,
    wait: Option<Duration>,
    conflicts: u32,
    lost_claims: u32,
    steps: usize,
    /// Blocks that the store answered during this batch: what the view says of them is no older
    /// than the requests.
    answered: BTreeSet<String>,
}

#[derive(Debug)]
struct Pending {
    ticket: usize,
    operation: Operation,
    /// What a release has freed so far, over several blocks.
    freed: Vec<IpAddr>,
}

#[derive(Debug)]
enum InFlight {
    Read(String),
    Create {
        name: String,
        cidr: IpNetwork,
    },
    Update {
        name: String,
        freed: Vec<(usize, IpAddr)>,
    },
}

impl Batch {
    /// A batch of operations; each is answered under its index.
    pub fn new(operations: impl IntoIterator<Item = Operation>) -> Self {
        let pending = operations.into_iter().enumerate();
        Self {
            pending: pending
                .map(|(ticket, operation)| Pending {
                    ticket,
                    operation,
                    freed: Vec::new(),
                })
                .collect(),
            ..Self::default()
        }
    }

    /// A reply that is ready: the operation's index and what it came to.
    pub fn poll_reply(&mut self) -> Option<(usize, Result<Outcome, IpamError>)> {
        self.replies.pop_front()
    }

    /// What to do next. A step of the store must be answered with [`Self::handle_answer`] before
    /// the next poll.
    pub fn poll_step(&mut self, view: &View, now: Timestamp) -> Step {
        if let Some(wait) = self.wait.take() {
            return Step::Wait(wait);
        }
        if !self.pending.is_empty() && !view.is_listed() {
            self.fail_all(&IpamError::NotReady);
        }
        self.bound_steps(view);
        if self.pending.is_empty() {
            return Step::Done;
        }
        if let Some(name) = view.first_doubtful() {
            return self.read(name);
        }
        if let Some(name) = self.answer_held(view) {
            return self.read(&name);
        }
        if let Some(step) = self.write_block(view, now) {
            return step;
        }
        self.finish_releases();
        self.claim(view, now).unwrap_or(Step::Done)
    }

    /// Takes the store's answer to the step before.
    pub fn handle_answer(&mut self, view: &mut View, answer: Answer) {
        let Some(in_flight) = self.in_flight.take() else {
            return;
        };
        if let (
            Ok(_),
            InFlight::Read(name) | InFlight::Create { name, .. } | InFlight::Update { name, .. },
        ) = (&answer, &in_flight)
        {
            self.answered.insert(name.clone());
        }
        match in_flight {
            InFlight::Read(name) => self.handle_read(view, &name, answer),
            InFlight::Create { name, cidr } => self.handle_create(view, &name, cidr, answer),
            InFlight::Update { name, freed } => self.handle_update(view, &name, freed, answer),
        }
    }

    /// Ends a batch that makes no progress: a store that accepts writes and forgets them.
    fn bound_steps(&mut self, view: &View) {
        self.steps += 1;
        let enough = 256 + 4 * (self.pending.len() + view.own_blocks().count());
        if self.steps > enough {
            let tries = u32::try_from(self.steps).unwrap_or(u32::MAX);
            self.fail_all(&IpamError::TooManyConflicts { tries });
        }
    }

    // ===== planning =====

    fn read(&mut self, name: &str) -> Step {
        self.in_flight = Some(InFlight::Read(name.to_owned()));
        Step::Read(name.to_owned())
    }

    /// Answers the requests whose interface holds an address: after a write of ours, after a
    /// write whose answer was lost, and when a sandbox asks again. Then the view alone will not
    /// do, since a garbage collector may have taken the address back without our having seen it:
    /// answers the block to read first.
    fn answer_held(&mut self, view: &View) -> Option<String> {
        let (replies, answered) = (&mut self.replies, &self.answered);
        let mut unsure = None;
        self.pending.retain(|pending| {
            let Operation::Assign { owner, family } = &pending.operation else {
                return true;
            };
            let Some((block, assigned)) = held(view, owner, *family) else {
                return true;
            };
            if !answered.contains(block.name()) {
                unsure = Some(block.name().to_owned());
                return true;
            }
            replies.push_back((pending.ticket, Ok(Outcome::Assigned(assigned))));
            false
        });
        unsure
    }

    /// The first block of ours that the pending operations change, as it is to be written.
    fn write_block(&mut self, view: &View, now: Timestamp) -> Option<Step> {
        for known in view.own_blocks() {
            let mut block = known.clone();
            let mut freed = Vec::new();
            for pending in &self.pending {
                let Operation::Release(which) = &pending.operation else {
                    continue;
                };
                if !block.holds(which) {
                    continue;
                }
                let taken = block.release(which, now);
                let addresses = taken.iter().filter_map(|one| one.address.parse().ok());
                freed.extend(addresses.map(|address| (pending.ticket, address)));
            }
            if view.may_give_from(known) {
                self.fill(&mut block, view.cooldown(), now);
            }
            if block != *known {
                let name = block.name().to_owned();
                self.in_flight = Some(InFlight::Update { name, freed });
                return Some(Step::Update(block.object().clone()));
            }
        }
        None
    }

    /// Gives addresses of a block to the pending requests of its family, as far as they go. The
    /// replies are made once the write is known to have happened.
    fn fill(&self, block: &mut NodeBlock, cooldown: Duration, now: Timestamp) {
        let block_family = Family::of_range(block.cidr());
        for pending in &self.pending {
            let Operation::Assign { owner, family } = &pending.operation else {
                continue;
            };
            let held = block.held_by(&owner.container_id, &owner.interface);
            if *family != block_family || held.is_some() {
                continue;
            }
            if block.assign(owner, now, cooldown).is_none() {
                return;
            }
        }
    }

    /// Releases that match nothing any more have come to their end.
    fn finish_releases(&mut self) {
        let replies = &mut self.replies;
        self.pending.retain_mut(|pending| {
            if matches!(pending.operation, Operation::Assign { .. }) {
                return true;
            }
            let freed = std::mem::take(&mut pending.freed);
            replies.push_back((pending.ticket, Ok(Outcome::Released(freed))));
            false
        });
    }

    /// A new block for the first request that is left; fails those that cannot be served.
    fn claim(&mut self, view: &View, now: Timestamp) -> Option<Step> {
        while let Some(family) = self.first_family() {
            let cooling = cooling(view, family, now);
            match view.next_claim(family, cooling) {
                Ok((_, cidr)) => {
                    let mut block = NodeBlock::claim(cidr, view.node());
                    self.fill(&mut block, view.cooldown(), now);
                    let name = block.name().to_owned();
                    self.in_flight = Some(InFlight::Create { name, cidr });
                    return Some(Step::Create(block.object().clone()));
                }
                Err(error) => self.fail_family(family, &error),
            }
        }
        None
    }

    fn first_family(&self) -> Option<Family> {
        self.pending
            .iter()
            .find_map(|pending| match &pending.operation {
                Operation::Assign { family, .. } => Some(*family),
                Operation::Release(_) => None,
            })
    }

    // ===== answers =====

    fn handle_read(&mut self, view: &mut View, name: &str, answer: Answer) {
        match answer {
            Ok(Some(block)) => view.put(block),
            Ok(None) | Err(StoreError::NotFound) => view.put_absent(name),
            Err(error) => self.fail_all(&IpamError::of_store(name, &error)),
        }
    }

    fn handle_create(&mut self, view: &mut View, name: &str, cidr: IpNetwork, answer: Answer) {
        match answer {
            Ok(Some(block)) => view.put(block),
            // Someone has it. If it is ourselves (a claim whose answer was lost), the read that
            // follows shows it.
            Err(StoreError::AlreadyExists) => {
                view.put_taken(name, cidr);
                view.doubt(name);
                self.lost_claims += 1;
                if self.lost_claims >= MAX_LOST_CLAIMS {
                    let tries = self.lost_claims;
                    self.fail_all(&IpamError::TooManyConflicts { tries });
                }
            }
            Err(StoreError::Conflict) => self.back_off(view, name),
            Ok(None) => self.lose_answer(view, name, &no_object()),
            Err(error) => self.lose_answer(view, name, &error),
        }
    }

    fn handle_update(
        &mut self,
        view: &mut View,
        name: &str,
        freed: Vec<(usize, IpAddr)>,
        answer: Answer,
    ) {
        match answer {
            Ok(Some(block)) => {
                self.conflicts = 0;
                view.put(block);
                for (ticket, address) in freed {
                    let mut all = self.pending.iter_mut();
                    if let Some(pending) = all.find(|pending| pending.ticket == ticket) {
                        pending.freed.push(address);
                    }
                }
            }
            Err(StoreError::Conflict | StoreError::AlreadyExists) => self.back_off(view, name),
            Err(StoreError::NotFound) => view.put_absent(name),
            Ok(None) => self.lose_answer(view, name, &no_object()),
            Err(error) => self.lose_answer(view, name, &error),
        }
    }

    fn back_off(&mut self, view: &mut View, name: &str) {
        view.doubt(name);
        self.conflicts += 1;
        if self.conflicts >= MAX_CONFLICTS {
            let tries = self.conflicts;
            self.fail_all(&IpamError::TooManyConflicts { tries });
            return;
        }
        let doubled = Duration::from_millis(4).saturating_mul(1 << self.conflicts.min(10));
        self.wait = Some(doubled.min(MAX_BACKOFF));
    }

    /// The write may have happened or not: the block is read before its next use.
    fn lose_answer(&mut self, view: &mut View, name: &str, error: &StoreError) {
        view.doubt(name);
        self.fail_all(&IpamError::of_store(name, error));
    }

    fn fail_all(&mut self, error: &IpamError) {
        for pending in self.pending.drain(..) {
            self.replies.push_back((pending.ticket, Err(error.clone())));
        }
    }

    fn fail_family(&mut self, failed: Family, error: &IpamError) {
        let replies = &mut self.replies;
        self.pending.retain(|pending| match &pending.operation {
            Operation::Assign { family, .. } if *family == failed => {
                replies.push_back((pending.ticket, Err(error.clone())));
                false
            }
            _ => true,
        });
    }
}

fn no_object() -> StoreError {
    StoreError::Unavailable("the answer carries no object".to_owned())
}

/// The address of the family that the owner's interface holds, and the block it is in.
fn held<'a>(view: &'a View, owner: &Owner, family: Family) -> Option<(&'a NodeBlock, Assigned)> {
    let of_family = |block: &&NodeBlock| Family::of_range(block.cidr()) == family;
    view.own_blocks().filter(of_family).find_map(|block| {
        let one = block.held_by(&owner.container_id, &owner.interface)?;
        let assigned = Assigned {
            address: one.address.parse().ok()?,
            block: block.cidr(),
            pool: view.pool_of(block.cidr()).map(|pool| pool.name.clone()),
            sequence: one.sequence,
        };
        Some((block, assigned))
    })
}

fn cooling(view: &View, family: Family, now: Timestamp) -> usize {
    let of_family = |block: &&NodeBlock| Family::of_range(block.cidr()) == family;
    let blocks = view.own_blocks().filter(of_family);
    blocks
        .map(|block| block.cooling(now, view.cooldown()))
        .sum()
}

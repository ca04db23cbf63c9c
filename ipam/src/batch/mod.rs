//! Many requests of one node turned into few writes: a state machine without IO.
//!
//! Call [`Batch::poll_step`], do what it says, hand the answer to [`Batch::handle_answer`], take
//! what [`Batch::poll_reply`] gives, and begin again until the step is [`Step::Done`]. All
//! requests that touch one block travel in one update; each write carries the resourceVersion
//! that was read, and a refused one leads to a new read and a new plan. A crash between any two
//! calls loses nothing: the plan is made from the view each time, never from memory of a plan.
//!
//! What a request wants of two families comes together or not at all: if one of them cannot be
//! had, the other is not asked for, or given back before the error is told.
//!
//! Not here: the store, the clock, and who waits for which reply.

mod plan;

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use margay_crds::{IPAMBlock, Owner, OwnerKind};

use self::plan::{Dry, Plan, Planner, Plans, held, serves};
use crate::block::{NodeBlock, Release};
use crate::clock::Timestamp;
use crate::error::IpamError;
use crate::request::{Request, Source};
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
    /// Addresses for a holder; the same ones if it already has them.
    Assign(Request),
    /// Take addresses back.
    Release(Release),
}

impl Operation {
    /// Whether the outcome depends on which of the two comes first.
    pub fn clashes(&self, other: &Operation) -> bool {
        match (self, other) {
            (Self::Assign(request), Self::Release(which))
            | (Self::Release(which), Self::Assign(request)) => which.concerns(&request.owner),
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
    /// The addresses given, in the order in which they were wanted.
    Assigned(Vec<Assigned>),
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
    /// Another node's block as it was just read, to borrow from.
    loan: Option<NodeBlock>,
    /// Other nodes' blocks that turned out to have nothing to lend.
    dry: Dry,
}

#[derive(Debug)]
struct Pending {
    ticket: usize,
    operation: Operation,
    /// Why a request cannot be served: what it has got so far is given back first.
    failed: Option<IpamError>,
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
                    failed: None,
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
        // A turn without a step ends requests or strikes out a lender.
        for _ in 0..=self.pending.len() + view.held_blocks().count() {
            if self.pending.is_empty() {
                return Step::Done;
            }
            let plans = self.plans(view, now);
            if let Some(step) = self.write_block(view, now, &plans) {
                return step;
            }
            let left = self.pending.len();
            self.fail_unserved(view, &plans);
            self.finish_releases();
            if self.pending.len() == left
                && let Some(step) = self.acquire(view, now, &plans)
            {
                return step;
            }
        }
        let tries = u32::try_from(self.steps).unwrap_or(u32::MAX);
        self.fail_all(&IpamError::TooManyConflicts { tries });
        Step::Done
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

    /// Answers the requests that have all they want: after a write of ours, after a write whose
    /// answer was lost, and when a sandbox asks again. Then the view alone will not do, since a
    /// garbage collector may have taken the address back without our having seen it: answers the
    /// block to read first.
    fn answer_held(&mut self, view: &View) -> Option<String> {
        let (replies, answered) = (&mut self.replies, &self.answered);
        let mut unsure = None;
        self.pending.retain(|pending| {
            let (Operation::Assign(request), None) = (&pending.operation, &pending.failed) else {
                return true;
            };
            let Some(all) = assigned(view, request) else {
                return true;
            };
            let mut blocks = all.iter().map(|one| IPAMBlock::name_of(one.block));
            if let Some(name) = blocks.find(|name| !answered.contains(name)) {
                unsure = Some(name);
                return true;
            }
            replies.push_back((pending.ticket, Ok(Outcome::Assigned(all))));
            false
        });
        unsure
    }

    /// A plan for each pending operation; none for those that only give back.
    fn plans(&self, view: &View, now: Timestamp) -> Vec<Plans> {
        let mut planner = Planner::new(view, self, now);
        let pending = self.pending.iter();
        pending
            .map(|pending| match (&pending.operation, &pending.failed) {
                (Operation::Assign(request), None) => planner.plan(request),
                _ => Ok(Vec::new()),
            })
            .collect()
    }

    /// The first block that the pending operations change, as it is to be written.
    fn write_block(&mut self, view: &View, now: Timestamp, plans: &[Plans]) -> Option<Step> {
        for known in view.held_blocks() {
            let releases = self.releases(view, known);
            let gives = known.node() == view.node()
                && view.is_sound(known)
                && self.wants_of(view, known, now, plans);
            if releases.is_empty() && !gives {
                continue;
            }
            let mut block = known.clone();
            let mut freed = Vec::new();
            for (ticket, which) in releases {
                let taken = block.release_on(view.node(), &which, now);
                let addresses = taken.iter().filter_map(|one| one.address.parse().ok());
                freed.extend(addresses.map(|address| (ticket, address)));
            }
            if gives {
                self.fill(view, &mut block, now, plans, |plan| *plan == Plan::Own);
            }
            if block != *known {
                return Some(self.update(block, freed));
            }
        }
        None
    }

    /// What the pending operations take back from a block: releases, and what a request got that
    /// cannot be served in full.
    fn releases(&self, view: &View, block: &NodeBlock) -> Vec<(usize, Release)> {
        let releases = self.pending.iter().filter_map(|pending| {
            let which = match (&pending.operation, &pending.failed) {
                (Operation::Release(which), _) => which.clone(),
                (Operation::Assign(request), Some(_)) => Release::Holder(request.owner.clone()),
                (Operation::Assign(_), None) => return None,
            };
            Some((pending.ticket, which))
        });
        releases
            .filter(|(_, which)| block.holds_on(view.node(), which))
            .collect()
    }

    /// Whether a block of this node serves any of the pending requests.
    fn wants_of(&self, view: &View, block: &NodeBlock, now: Timestamp, plans: &[Plans]) -> bool {
        let mut has_free = None;
        planned(&self.pending, plans).any(|(request, want, plan)| {
            let is_named = matches!(want.source, Source::Address(_));
            *plan == Plan::Own
                && serves(view, block, request, want)
                && (is_named || *has_free.get_or_insert_with(|| block.has_free(now, view.rules())))
        })
    }

    /// Gives addresses of a block to the pending requests with such a plan, as far as they go. The
    /// replies are made once the write is known to have happened.
    fn fill(
        &self,
        view: &View,
        block: &mut NodeBlock,
        now: Timestamp,
        plans: &[Plans],
        is_meant: impl Fn(&Plan) -> bool,
    ) {
        let mut is_full = false;
        for (request, want, plan) in planned(&self.pending, plans) {
            if !is_meant(plan)
                || !serves(view, block, request, want)
                || block.held(&request.owner).is_some()
            {
                continue;
            }
            let owner = owner_in(block, view.node(), &request.owner);
            match want.source {
                Source::Address(address) => {
                    // Who was faster in this very batch is met when the plan is made anew.
                    let _ = block.assign_address(address, &owner, now);
                }
                _ if is_full => {}
                _ => is_full = block.assign_by(&owner, now, view.rules()).is_none(),
            }
        }
    }

    fn update(&mut self, block: NodeBlock, freed: Vec<(usize, IpAddr)>) -> Step {
        let name = block.name().to_owned();
        self.in_flight = Some(InFlight::Update { name, freed });
        Step::Update(block.into_object())
    }

    /// Ends the requests that cannot be served; those that have got something keep waiting until
    /// it has been given back.
    fn fail_unserved(&mut self, view: &View, plans: &[Plans]) {
        let replies = &mut self.replies;
        let mut plans = plans.iter();
        self.pending.retain_mut(|pending| {
            let plan = plans.next();
            let Operation::Assign(request) = &pending.operation else {
                return true;
            };
            if let Some(Err(error)) = plan {
                pending.failed = Some(error.clone());
            }
            let Some(error) = &pending.failed else {
                return true;
            };
            let which = Release::Holder(request.owner.clone());
            let mut blocks = view.held_blocks();
            if blocks.any(|block| block.holds_on(view.node(), &which)) {
                return true;
            }
            replies.push_back((pending.ticket, Err(error.clone())));
            false
        });
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

    /// The next step towards what this node's blocks do not have: a block to claim, or one to
    /// borrow from.
    fn acquire(&mut self, view: &View, now: Timestamp, plans: &[Plans]) -> Option<Step> {
        let mut all = plans.iter().flatten().flatten();
        match all.find(|plan| !matches!(plan, Plan::Held | Plan::Own))? {
            Plan::Held | Plan::Own => None,
            Plan::Read(name) => Some(self.read(name)),
            Plan::Claim(cidr) => {
                let mut block = NodeBlock::claim(*cidr, view.node());
                let is_claim = |plan: &Plan| matches!(plan, Plan::Claim(_));
                self.fill(view, &mut block, now, plans, is_claim);
                let (name, cidr) = (block.name().to_owned(), *cidr);
                self.in_flight = Some(InFlight::Create { name, cidr });
                Some(Step::Create(block.into_object()))
            }
            Plan::Loan(name) => self.borrow(view, now, plans, name),
        }
    }

    /// Borrows from a block, once it has been read; `None` if it has nothing to lend.
    fn borrow(&mut self, view: &View, now: Timestamp, plans: &[Plans], name: &str) -> Option<Step> {
        let mut lenders = view.lenders();
        let known = self.loan.as_ref().filter(|loan| loan.name() == name);
        let Some(known) = known.or_else(|| lenders.find(|lender| lender.name() == name)) else {
            return Some(self.read(name));
        };
        let mut block = known.clone();
        let is_loan = |plan: &Plan| matches!(plan, Plan::Loan(of) if of == name);
        self.fill(view, &mut block, now, plans, is_loan);
        if block != *known {
            return Some(self.update(block, Vec::new()));
        }
        self.loan = None;
        self.dry.insert(name.to_owned());
        None
    }

    // ===== answers =====

    fn handle_read(&mut self, view: &mut View, name: &str, answer: Answer) {
        match answer {
            Ok(Some(block)) => {
                view.put(block.clone());
                let parsed = NodeBlock::parse(block).ok();
                self.loan = parsed.filter(|block| block.node() != view.node());
                if self.loan.is_none() {
                    // A spoiled block lends nothing.
                    self.dry.insert(name.to_owned());
                }
            }
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
                self.loan = None;
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
        self.wait = Some(spread(
            doubled.min(MAX_BACKOFF),
            view.node(),
            self.conflicts,
        ));
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
}

/// All wants of the pending requests that are planned in full, each with its plan.
fn planned<'a>(
    pending: &'a [Pending],
    plans: &'a [Plans],
) -> impl Iterator<Item = (&'a Request, &'a crate::Want, &'a Plan)> {
    let both = pending.iter().zip(plans);
    both.filter_map(|(pending, plans)| match (&pending.operation, plans) {
        (Operation::Assign(request), Ok(plans)) => Some((request, plans)),
        _ => None,
    })
    .flat_map(|(request, plans)| {
        let wants = request.wants.iter().zip(plans);
        wants.map(move |(want, plan)| (request, want, plan))
    })
}

/// What a request wants, if its owner has all of it.
fn assigned(view: &View, request: &Request) -> Option<Vec<Assigned>> {
    let wants = request.wants.iter();
    let all = wants.map(|want| {
        let (block, one) = held(view, &request.owner, want.family)?;
        Some(Assigned {
            address: one.address.parse().ok()?,
            block: block.cidr(),
            pool: view.pool_of(block.cidr()).map(|pool| pool.name.clone()),
            sequence: one.sequence,
        })
    });
    all.collect()
}

/// The owner as a block names it: with the node where that is not the block's.
fn owner_in(block: &NodeBlock, node: &str, owner: &Owner) -> Owner {
    let is_told = owner.kind == OwnerKind::Tunnel || block.node() != node;
    Owner {
        node: if is_told {
            node.to_owned()
        } else {
            String::new()
        },
        ..owner.clone()
    }
}

/// A pause that differs by node and try, from half to one and a half of what is given: those that
/// met once do not meet again.
fn spread(pause: Duration, node: &str, tries: u32) -> Duration {
    let seed = node.bytes().fold(tries, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    pause / 2 + pause.mul_f64(f64::from(seed % 1024) / 1024.0)
}

fn no_object() -> StoreError {
    StoreError::Unavailable("the answer carries no object".to_owned())
}

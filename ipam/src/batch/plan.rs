//! Where each address that is wanted is to come from, by what the view says now.
//!
//! A request one part of which cannot be had is not begun: its plan is the error.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_crds::{LOAD_BALANCER_NODE, Owner, OwnerKind, Pool};

use super::Batch;
use crate::block::NodeBlock;
use crate::clock::Timestamp;
use crate::request::{Request, Source, Want};
use crate::view::{View, unfulfillable};
use crate::{Family, IpamError};

/// Where one address is to come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// The holder has it.
    Held,
    /// One of this node's blocks.
    Own,
    /// A block to be claimed.
    Claim(IpNetwork),
    /// Another node's block, by its name.
    Loan(String),
    /// Nobody can say before this block has been read.
    Read(String),
}

/// The plans of a request's wants, in their order.
pub(super) type Plans = Result<Vec<Plan>, IpamError>;

/// Plans for one moment: what many requests need of the view is looked up once.
pub(super) struct Planner<'a> {
    view: &'a View,
    batch: &'a Batch,
    now: Timestamp,
    shelf: Vec<Shelf<'a>>,
    /// What was found for a family and the names of pools.
    found: Vec<(Family, Vec<&'a str>, Result<Plan, IpamError>)>,
}

/// One of this node's blocks of which addresses may be given.
struct Shelf<'a> {
    block: &'a NodeBlock,
    pool: &'a Pool,
    has_free: bool,
}

impl<'a> Planner<'a> {
    pub(super) fn new(view: &'a View, batch: &'a Batch, now: Timestamp) -> Self {
        let sound = view.own_blocks().filter(|block| view.is_sound(block));
        let shelf = sound.filter_map(|block| {
            Some(Shelf {
                block,
                pool: view.pool_of(block.cidr())?,
                has_free: block.has_free(now, view.rules()),
            })
        });
        Self {
            view,
            batch,
            now,
            shelf: shelf.collect(),
            found: Vec::new(),
        }
    }

    pub(super) fn plan(&mut self, request: &Request) -> Plans {
        let wants = request.wants.iter();
        wants.map(|want| self.plan_want(request, want)).collect()
    }

    fn plan_want(&mut self, request: &Request, want: &Want) -> Result<Plan, IpamError> {
        if held(self.view, &request.owner, want.family).is_some() {
            return Ok(Plan::Held);
        }
        let pools = self.view.pools_for(request, want)?;
        if let (Source::Address(address), [pool]) = (&want.source, &pools[..]) {
            return self.plan_address(request, want, *address, pool);
        }
        let has_free = self.shelf.iter().any(|shelf| {
            shelf.has_free
                && Family::of_range(shelf.block.cidr()) == want.family
                && is_among(&pools, shelf.pool)
        });
        if has_free {
            return Ok(Plan::Own);
        }
        let names: Vec<&str> = pools.iter().map(|pool| &*pool.name).collect();
        let mut known = self.found.iter();
        if let Some((_, _, found)) =
            known.find(|(family, pools, _)| *family == want.family && *pools == names)
        {
            return found.clone();
        }
        let found = self.plan_more(want.family, &pools);
        self.found.push((want.family, names, found.clone()));
        found
    }

    /// This node's blocks are full: a new one, or an address of another node's.
    fn plan_more(&self, family: Family, pools: &[&Pool]) -> Result<Plan, IpamError> {
        let cooling = || cooling(self.view, family, self.now);
        let refusal = match self.view.next_claim(family, pools, cooling) {
            Ok(cidr) => return Ok(Plan::Claim(cidr)),
            Err(refusal) => refusal,
        };
        let loan = self.view.next_loan(family, pools, &self.batch.dry);
        loan.map(|name| Plan::Loan(name.to_owned())).ok_or(refusal)
    }

    fn plan_address(
        &self,
        request: &Request,
        want: &Want,
        address: IpAddr,
        pool: &Pool,
    ) -> Result<Plan, IpamError> {
        let Some((name, node)) = self.view.block_around(address) else {
            return self.view.claim_around(want, address, pool).map(Plan::Claim);
        };
        let is_own = node == self.view.node();
        let in_full = self.view.held_blocks().find(|block| block.name() == name);
        let lent = self.batch.loan.as_ref().filter(|loan| loan.name() == name);
        let Some(block) = lent.or(in_full) else {
            if is_own {
                let problem = format!("IPAMBlock {name} around it is spoiled");
                return Err(unfulfillable(want, address.to_string(), problem));
            }
            if node.is_empty() {
                return Ok(Plan::Read(name.to_owned()));
            }
            self.may_borrow(want, address, name, node)?;
            return Ok(Plan::Loan(name.to_owned()));
        };
        if let Some(holder) = block.holder(address) {
            if !self.batch.answered.contains(name) {
                return Ok(Plan::Read(name.to_owned()));
            }
            return Err(taken(request, want, address, &holder.owner));
        }
        if !self.view.is_sound(block) {
            let problem = format!("IPAMBlock {name} around it overlaps another");
            return Err(unfulfillable(want, address.to_string(), problem));
        }
        if is_own {
            return Ok(Plan::Own);
        }
        self.may_borrow(want, address, name, node)?;
        Ok(Plan::Loan(name.to_owned()))
    }

    fn may_borrow(
        &self,
        want: &Want,
        address: IpAddr,
        name: &str,
        node: &str,
    ) -> Result<(), IpamError> {
        let problem = if node == LOAD_BALANCER_NODE {
            format!("IPAMBlock {name} around it is for Services")
        } else if self.view.may_borrow() {
            return Ok(());
        } else {
            format!(
                "IPAMBlock {name} around it is node {node}'s, the pod is on node {}, and \
                 strictAffinity is true in IPAMConfiguration default",
                self.view.node()
            )
        };
        Err(unfulfillable(want, address.to_string(), problem))
    }
}

/// Whether a block may serve a want, were there room.
pub(super) fn serves(view: &View, block: &NodeBlock, request: &Request, want: &Want) -> bool {
    if Family::of_range(block.cidr()) != want.family {
        return false;
    }
    if let Source::Address(address) = want.source {
        return block.cidr().contains(address);
    }
    let Some(pool) = view.pool_of(block.cidr()) else {
        return false;
    };
    let pools = view.pools_for(request, want);
    pools.is_ok_and(|pools| is_among(&pools, pool))
}

fn is_among(pools: &[&Pool], pool: &Pool) -> bool {
    pools.iter().any(|one| one.name == pool.name)
}

/// The address of the family that a holder has on this node, and the block it is in.
pub(super) fn held<'a>(
    view: &'a View,
    owner: &Owner,
    family: Family,
) -> Option<(&'a NodeBlock, &'a margay_crds::Allocation)> {
    let of_family = |block: &&NodeBlock| Family::of_range(block.cidr()) == family;
    view.held_blocks().filter(of_family).find_map(|block| {
        let one = block.held(owner)?;
        Some((block, one))
    })
}

/// How many addresses of this node's blocks of a family rest.
fn cooling(view: &View, family: Family, now: Timestamp) -> usize {
    let of_family = |block: &&NodeBlock| Family::of_range(block.cidr()) == family;
    let blocks = view.own_blocks().filter(of_family);
    let cooling = blocks.map(|block| block.cooling(now, view.cooldown()));
    cooling.sum()
}

fn taken(request: &Request, want: &Want, address: IpAddr, holder: &Owner) -> IpamError {
    let asks = &request.owner;
    let is_earlier_self = holder.kind == OwnerKind::Pod
        && asks.kind == OwnerKind::Pod
        && (&holder.namespace, &holder.pod) == (&asks.namespace, &asks.pod);
    let who = match want.origin.as_str() {
        "" => asks.to_string(),
        origin => origin.to_owned(),
    };
    IpamError::Taken {
        who,
        address,
        holder: Box::new(holder.clone()),
        is_earlier_self,
    }
}

/// The names of blocks that turned out to have nothing to lend.
pub(super) type Dry = BTreeSet<String>;

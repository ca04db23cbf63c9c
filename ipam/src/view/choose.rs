//! What the view has to offer for a request: which pools serve it, which block to claim next, and
//! which other node's block to borrow from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_crds::{AllowedUse, AssignmentMode, Pool};

use super::View;
use crate::block::NodeBlock;
use crate::candidates::Candidates;
use crate::request::{Request, Source, Want};
use crate::{Family, IpamError};

type Labels = BTreeMap<String, String>;

impl View {
    /// The families of which a pod gets an address if it does not say: an open pool serves it.
    pub fn families(&self, namespace_labels: Option<&Labels>) -> BTreeSet<Family> {
        let serves = |pool: &&Pool| {
            self.refusal(pool, AllowedUse::Workload, namespace_labels)
                .is_none()
        };
        let pools = self.pools.iter().filter(serves);
        pools.map(|pool| Family::of_range(pool.cidr)).collect()
    }

    /// The pool that a range is part of; one that gives addresses, should pools overlap.
    pub fn pool_of(&self, range: IpNetwork) -> Option<&Pool> {
        let mut around = self.pools.iter().filter(|pool| {
            pool.cidr.is_ipv4() == range.is_ipv4()
                && pool.cidr.prefix() <= range.prefix()
                && pool.cidr.contains(range.network())
        });
        let first = around.clone().find(|pool| pool.closed.is_none());
        first.or_else(|| around.next())
    }

    /// Whether new addresses may come from a block: no other block covers the same addresses (two
    /// pools of different block size, one after the other, can lead to that; then nobody may know
    /// who holds what).
    pub(crate) fn is_sound(&self, block: &NodeBlock) -> bool {
        self.taken.overlapping_other(block.cidr()).is_none()
    }

    /// Whether the pool is meant for this node at all: it gives addresses, and selects the node.
    pub fn is_open(&self, pool: &Pool) -> bool {
        pool.closed.is_none() && pool.node_selector.matches(&self.labels)
    }

    /// Why a pool does not serve someone who does not name it.
    fn refusal(
        &self,
        pool: &Pool,
        purpose: AllowedUse,
        namespace_labels: Option<&Labels>,
    ) -> Option<String> {
        let name = &pool.name;
        if let Some(refusal) = hard_refusal(pool, purpose) {
            return Some(refusal);
        }
        if !pool.node_selector.matches(&self.labels) {
            let selector = &pool.node_selector;
            return Some(format!(
                "nodeSelector of IPPool {name} ({selector}) does not select the node"
            ));
        }
        if let Some(selector) = &pool.namespace_selector
            && !namespace_labels.is_some_and(|labels| selector.matches(labels))
        {
            return Some(format!(
                "namespaceSelector of IPPool {name} ({selector}) does not select the namespace"
            ));
        }
        (pool.assignment_mode == AssignmentMode::Manual).then(|| {
            format!("assignmentMode of IPPool {name} is Manual: only who names it is served")
        })
    }

    /// The pools that serve a want, in the order they are tried.
    ///
    /// # Errors
    /// [`IpamError::NoPool`] or [`IpamError::Unfulfillable`].
    pub(crate) fn pools_for(
        &self,
        request: &Request,
        want: &Want,
    ) -> Result<Vec<&Pool>, IpamError> {
        match &want.source {
            Source::Automatic => self.automatic(request, want.family),
            Source::Pools(names) => self.named(request, want, names),
            Source::Address(address) => {
                let pool = self.pool_around(*address);
                let problem = match pool {
                    None => "no IPPool contains it".to_owned(),
                    Some(pool) => match hard_refusal(pool, request.purpose) {
                        None => return Ok(vec![pool]),
                        Some(refusal) => refusal,
                    },
                };
                Err(unfulfillable(want, address.to_string(), problem))
            }
        }
    }

    fn automatic(&self, request: &Request, family: Family) -> Result<Vec<&Pool>, IpamError> {
        let labels = request.namespace_labels.as_deref();
        let mut reasons = Vec::new();
        let mut open = Vec::new();
        let of_family = |pool: &&Pool| Family::of_range(pool.cidr) == family;
        for pool in self.pools.iter().filter(of_family) {
            match self.refusal(pool, request.purpose, labels) {
                None => open.push(pool),
                Some(reason) => reasons.push(reason),
            }
        }
        if open.is_empty() {
            let node = self.node.clone();
            return Err(IpamError::NoPool {
                family,
                node,
                reasons,
            });
        }
        Ok(open)
    }

    fn named(
        &self,
        request: &Request,
        want: &Want,
        names: &[String],
    ) -> Result<Vec<&Pool>, IpamError> {
        let mut open = Vec::new();
        let mut refusals = Vec::new();
        for name in names {
            let of_name =
                |pool: &&Pool| pool.name == *name || name.parse() == Ok::<IpNetwork, _>(pool.cidr);
            let Some(pool) = self.pools.iter().find(of_name) else {
                let known: Vec<&str> = self.pools.iter().map(|pool| &*pool.name).collect();
                let problem = match &known[..] {
                    [] => "there is no IPPool".to_owned(),
                    _ => format!("there are only the IPPools {}", known.join(", ")),
                };
                return Err(unfulfillable(want, format!("IPPool {name}"), problem));
            };
            if Family::of_range(pool.cidr) != want.family {
                let problem = format!("that is {}, no {} pool", pool.cidr, want.family);
                return Err(unfulfillable(want, format!("IPPool {name}"), problem));
            }
            match hard_refusal(pool, request.purpose) {
                None => open.push(pool),
                Some(refusal) => refusals.push(refusal),
            }
        }
        if open.is_empty() {
            let problem = match &refusals[..] {
                [] => "names none".to_owned(),
                _ => refusals.join("; "),
            };
            let wanted = format!("IPPool {}", names.join(", "));
            return Err(unfulfillable(want, wanted, problem));
        }
        Ok(open)
    }

    fn pool_around(&self, address: IpAddr) -> Option<&Pool> {
        self.pool_of(IpNetwork::from(address))
    }

    // ===== claims =====

    /// Why this node may claim no further block of a family, if so.
    fn claim_refusal(&self, family: Family, pools: &[&Pool]) -> Option<IpamError> {
        let names = || pools.iter().map(|pool| pool.name.clone()).collect();
        if !self.settings.auto_allocate_blocks {
            return Some(IpamError::BlocksByHand {
                family,
                node: self.node.clone(),
                pools: names(),
            });
        }
        let limit = self.settings.max_blocks_per_host?;
        let of_family = |block: &&NodeBlock| Family::of_range(block.cidr()) == family;
        let held = self.own_blocks().filter(of_family).count();
        (held >= usize::try_from(limit).unwrap_or(usize::MAX)).then(|| IpamError::BlockLimit {
            family,
            limit,
            held,
            pools: names(),
        })
    }

    /// The next block to claim in one of these pools of a family.
    ///
    /// # Errors
    /// [`IpamError::BlocksByHand`], [`IpamError::BlockLimit`] or [`IpamError::Exhausted`].
    pub(crate) fn next_claim(
        &self,
        family: Family,
        pools: &[&Pool],
        cooling: impl FnOnce() -> usize,
    ) -> Result<IpNetwork, IpamError> {
        if let Some(refusal) = self.claim_refusal(family, pools) {
            return Err(refusal);
        }
        for pool in pools {
            let mut candidates = Candidates::new(pool.cidr, pool.block_size, &self.node);
            while let Some(candidate) = candidates.peek() {
                if let Some(end) = self.taken.end_of_overlap(candidate) {
                    candidates.skip_past(end);
                } else if self.is_all_reserved(candidate) {
                    candidates.skip_one();
                } else {
                    return Ok(candidate);
                }
            }
        }
        Err(IpamError::Exhausted {
            family,
            pools: pools.iter().map(|pool| pool.name.clone()).collect(),
            cooling: cooling(),
        })
    }

    fn is_all_reserved(&self, block: IpNetwork) -> bool {
        let reserved = &self.rules.reserved;
        !reserved.is_empty() && reserved.count_within(block) >= crate::block::size_of(block)
    }

    /// The block of this pool in which an address lies that nobody's block has.
    ///
    /// # Errors
    /// [`IpamError::Unfulfillable`], [`IpamError::BlocksByHand`] or [`IpamError::BlockLimit`].
    pub(crate) fn claim_around(
        &self,
        want: &Want,
        address: IpAddr,
        pool: &Pool,
    ) -> Result<IpNetwork, IpamError> {
        if let Some(refusal) = self.claim_refusal(want.family, &[pool]) {
            return Err(refusal);
        }
        let block = IpNetwork::new(address, pool.block_size).ok();
        let block = block.and_then(|block| IpNetwork::new(block.network(), block.prefix()).ok());
        match block.filter(|block| self.taken.end_of_overlap(*block).is_none()) {
            Some(block) => Ok(block),
            None => {
                let problem = format!(
                    "its block of IPPool {} overlaps a block of another size that is in use",
                    pool.name
                );
                Err(unfulfillable(want, address.to_string(), problem))
            }
        }
    }

    // ===== other nodes' blocks =====

    /// The name of the block around an address, whoever's it is, and its node.
    pub(crate) fn block_around(&self, address: IpAddr) -> Option<(&str, &str)> {
        let range = self.taken.around(address)?;
        let name = margay_crds::IPAMBlock::name_of(range);
        let (name, known) = self.known.get_key_value(name.as_str())?;
        Some((name, &known.node))
    }

    /// Whether addresses of other nodes' blocks may be used.
    pub(crate) fn may_borrow(&self) -> bool {
        !self.settings.strict_affinity
    }

    /// The other node's block with most room in one of these pools, none of those in `dry`; one
    /// of equals that another node would hardly choose.
    pub(crate) fn next_loan(
        &self,
        family: Family,
        pools: &[&Pool],
        dry: &BTreeSet<String>,
    ) -> Option<&str> {
        if !self.may_borrow() {
            return None;
        }
        let mut usable = self.rooms.of_family(family).filter(|room| {
            let range = self.known.get(&room.name).and_then(|known| known.range);
            let pool = range.and_then(|range| self.pool_of(range));
            pool.is_some_and(|pool| pools.iter().any(|one| one.name == pool.name))
                && !dry.contains(&*room.name)
        });
        usable.next().map(|room| &*room.name)
    }
}

/// Why a pool does not even serve who names it.
fn hard_refusal(pool: &Pool, purpose: AllowedUse) -> Option<String> {
    if let Some(closed) = &pool.closed {
        return Some(format!("IPPool {} {closed}", pool.name));
    }
    if pool.allowed_uses.contains(&purpose) {
        return None;
    }
    let uses: Vec<String> = pool
        .allowed_uses
        .iter()
        .map(|one| format!("{one:?}"))
        .collect();
    Some(format!(
        "allowedUses of IPPool {} ({}) lack {purpose:?}",
        pool.name,
        uses.join(", ")
    ))
}

pub(crate) fn unfulfillable(want: &Want, wanted: String, problem: String) -> IpamError {
    let who = match want.origin.as_str() {
        "" => "a request".to_owned(),
        origin => origin.to_owned(),
    };
    IpamError::Unfulfillable {
        who,
        wanted,
        problem,
    }
}

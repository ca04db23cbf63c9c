//! One block of one node as a value: who holds which address, and which comes next.
//!
//! Every address of a block can be given, also the first and the last: a block is routed, it is
//! not a subnet with a network and a broadcast address. An address that was never used comes
//! first, in order; then the one that has been free the longest, once it has rested for the
//! cooldown.
//!
//! Not here: writing the value anywhere.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnetwork::IpNetwork;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use margay_crds::{Allocation, FieldError, IPAMBlock, IPAMBlockSpec, NODE_LABEL, Owner, Released};

use crate::clock::Timestamp;
use crate::error::IpamError;

/// The most addresses a block may hold: what the object's schema allows.
pub const MAX_ADDRESSES: u128 = 4096;

/// Which addresses to take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// What a sandbox holds, on one of its interfaces or on all.
    Container {
        /// CNI_CONTAINERID.
        container_id: String,
        /// CNI_IFNAME; all interfaces if `None`.
        interface: Option<String>,
    },
    /// What a pod holds, whatever its sandbox.
    Pod {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        pod: String,
    },
    /// One address, if it is still the allocation with this sequence (`None`: whichever it is).
    Address {
        /// The address.
        address: IpAddr,
        /// The allocation's sequence.
        sequence: Option<i64>,
    },
    /// All but the listed attachments, as long as the address was given before `before`: an
    /// attachment made while the list travelled must not lose its address.
    AllBut {
        /// Pairs of container and interface.
        attachments: HashSet<(String, String)>,
        /// Younger allocations stay.
        before: Timestamp,
    },
}

impl Release {
    /// Whether an allocation is meant.
    pub fn matches(&self, allocation: &Allocation) -> bool {
        let owner = &allocation.owner;
        match self {
            Self::Container {
                container_id,
                interface,
            } => {
                owner.container_id == *container_id
                    && interface
                        .as_ref()
                        .is_none_or(|name| owner.interface == *name)
            }
            Self::Pod { namespace, pod } => owner.namespace == *namespace && owner.pod == *pod,
            Self::Address { address, sequence } => {
                parse(&allocation.address) == Some(*address)
                    && sequence.is_none_or(|sequence| allocation.sequence == sequence)
            }
            Self::AllBut {
                attachments,
                before,
            } => {
                let key = (owner.container_id.clone(), owner.interface.clone());
                // A time that cannot be read says nothing about youth.
                let old = timestamp(&allocation.since).is_none_or(|since| since < *before);
                old && !attachments.contains(&key)
            }
        }
    }

    /// Whether a future allocation to this owner would be meant: then the order of the two
    /// requests matters.
    pub(crate) fn concerns(&self, owner: &Owner) -> bool {
        match self {
            Self::Address { .. } => true,
            Self::AllBut { .. } => false,
            Self::Container { .. } | Self::Pod { .. } => self.matches(&Allocation {
                address: String::new(),
                owner: owner.clone(),
                sequence: 0,
                since: String::new(),
            }),
        }
    }
}

/// A block of a node, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeBlock {
    cidr: IpNetwork,
    object: IPAMBlock,
}

impl NodeBlock {
    /// Takes an object that was read.
    ///
    /// # Errors
    /// Every field that is wrong, as [`IPAMBlock::check`] finds them.
    pub fn parse(object: IPAMBlock) -> Result<Self, Vec<FieldError>> {
        let checked = object.check()?;
        Ok(Self {
            cidr: checked.cidr,
            object,
        })
    }

    /// An empty block of a node, not written yet: to create it is to claim it.
    pub fn claim(cidr: IpNetwork, node: &str) -> Self {
        let metadata = ObjectMeta {
            name: Some(IPAMBlock::name_of(cidr)),
            labels: Some([(NODE_LABEL.to_owned(), node.to_owned())].into()),
            ..ObjectMeta::default()
        };
        let spec = IPAMBlockSpec {
            cidr: cidr.to_string(),
            node: node.to_owned(),
            sequence: 0,
            used: 0,
            allocations: Vec::new(),
            released: Vec::new(),
        };
        Self {
            cidr,
            object: IPAMBlock { metadata, spec },
        }
    }

    /// The block's range.
    pub fn cidr(&self) -> IpNetwork {
        self.cidr
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// The node that holds the block.
    pub fn node(&self) -> &str {
        &self.object.spec.node
    }

    /// The object as it is to be written.
    pub fn object(&self) -> &IPAMBlock {
        &self.object
    }

    /// The addresses held.
    pub fn allocations(&self) -> &[Allocation] {
        &self.object.spec.allocations
    }

    /// Whether nobody holds an address.
    pub fn is_empty(&self) -> bool {
        self.object.spec.allocations.is_empty()
    }

    /// How many addresses the block has.
    pub fn size(&self) -> u128 {
        let bits = crate::Family::of_range(self.cidr).bits() - self.cidr.prefix();
        1u128
            .checked_shl(u32::from(bits))
            .unwrap_or(MAX_ADDRESSES)
            .min(MAX_ADDRESSES)
    }

    /// The address an interface of a sandbox holds.
    pub fn held_by(&self, container_id: &str, interface: &str) -> Option<&Allocation> {
        let mut all = self.allocations().iter();
        all.find(|one| one.owner.container_id == container_id && one.owner.interface == interface)
    }

    /// How many addresses were released and still rest.
    pub fn cooling(&self, now: Timestamp, cooldown: Duration) -> usize {
        let released = self.object.spec.released.iter();
        released
            .filter(|one| !has_rested(one, now, cooldown))
            .count()
    }

    /// When the block's last address was given back, if it ever held one.
    pub fn last_release(&self) -> Option<Timestamp> {
        let times = self.object.spec.released.iter();
        times.filter_map(|one| timestamp(&one.at)).max()
    }

    /// Gives the next address, or `None` if every address is held or rests.
    pub fn assign(
        &mut self,
        owner: &Owner,
        now: Timestamp,
        cooldown: Duration,
    ) -> Option<Allocation> {
        let address = match self.never_used() {
            Some(address) => address,
            None => self.pop_rested(now, cooldown)?,
        };
        Some(self.write(address, owner, now))
    }

    /// Gives one address that was asked for by name; it need not have rested.
    ///
    /// # Errors
    /// [`IpamError::OutsideBlock`], or [`IpamError::Held`] by someone else.
    pub fn assign_address(
        &mut self,
        address: IpAddr,
        owner: &Owner,
        now: Timestamp,
    ) -> Result<Allocation, IpamError> {
        if !self.cidr.contains(address) {
            let block = self.cidr;
            return Err(IpamError::OutsideBlock { address, block });
        }
        let mut held = self.allocations().iter();
        if let Some(one) = held.find(|one| parse(&one.address) == Some(address)) {
            if one.owner == *owner {
                return Ok(one.clone());
            }
            let holder = &one.owner;
            let holder = format!("{}/{}", holder.namespace, holder.pod);
            return Err(IpamError::Held { address, holder });
        }
        let released = &mut self.object.spec.released;
        released.retain(|one| parse(&one.address) != Some(address));
        Ok(self.write(address, owner, now))
    }

    /// Takes back every address that is meant; answers what was taken.
    pub fn release(&mut self, which: &Release, now: Timestamp) -> Vec<Allocation> {
        let spec = &mut self.object.spec;
        let (freed, kept) = std::mem::take(&mut spec.allocations)
            .into_iter()
            .partition::<Vec<_>, _>(|one| which.matches(one));
        spec.allocations = kept;
        for one in &freed {
            spec.sequence = spec.sequence.saturating_add(1);
            spec.released.push(Released {
                address: one.address.clone(),
                at: written(now),
            });
        }
        self.count();
        freed
    }

    /// Whether any allocation is meant.
    pub fn holds(&self, which: &Release) -> bool {
        self.allocations().iter().any(|one| which.matches(one))
    }

    fn write(&mut self, address: IpAddr, owner: &Owner, now: Timestamp) -> Allocation {
        let spec = &mut self.object.spec;
        spec.sequence = spec.sequence.saturating_add(1);
        let allocation = Allocation {
            address: address.to_string(),
            owner: owner.clone(),
            sequence: spec.sequence,
            since: written(now),
        };
        spec.allocations.push(allocation.clone());
        self.count();
        allocation
    }

    fn count(&mut self) {
        let spec = &mut self.object.spec;
        spec.used = u32::try_from(spec.allocations.len()).unwrap_or(u32::MAX);
    }

    /// The lowest address that is neither held nor was ever given back.
    fn never_used(&self) -> Option<IpAddr> {
        let spec = &self.object.spec;
        let held = spec.allocations.iter().map(|one| &one.address);
        let seen: HashSet<IpAddr> = held
            .chain(spec.released.iter().map(|one| &one.address))
            .filter_map(|text| parse(text))
            .collect();
        // A full block has as many addresses seen as it is large: no walk needed.
        if seen.len() as u128 >= self.size() {
            return None;
        }
        let mut all = (0..self.size()).map(|offset| nth(self.cidr, offset));
        all.find(|address| !seen.contains(address))
    }

    /// The address that has been free the longest, if it has rested.
    fn pop_rested(&mut self, now: Timestamp, cooldown: Duration) -> Option<IpAddr> {
        let released = &mut self.object.spec.released;
        let index = released
            .iter()
            .position(|one| has_rested(one, now, cooldown))?;
        parse(&released.remove(index).address)
    }
}

/// Whether a released address may be given again. A time that cannot be read, or one so far ahead
/// that the clock must have been set back, does not lock an address away for ever.
fn has_rested(one: &Released, now: Timestamp, cooldown: Duration) -> bool {
    let Some(at) = timestamp(&one.at) else {
        return true;
    };
    let rested = now.duration_since(at);
    let cooldown = k8s_openapi::jiff::SignedDuration::try_from(cooldown)
        .unwrap_or(k8s_openapi::jiff::SignedDuration::MAX);
    rested >= cooldown || rested < -cooldown
}

/// A time as blocks carry it: RFC 3339 in UTC with milliseconds.
pub(crate) fn written(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A time that a block carries.
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

fn parse(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// The address at an offset from the start of a range; the caller keeps the offset in the range.
pub(crate) fn nth(range: IpNetwork, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            IpAddr::V4(Ipv4Addr::from(u32::from(first).saturating_add(offset)))
        }
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from(u128::from(first).saturating_add(offset))),
    }
}

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
use k8s_openapi::jiff::{RoundMode, TimestampRound, Unit};
use margay_crds::{
    Allocation, FieldError, IPAMBlock, IPAMBlockSpec, NODE_LABEL, Owner, OwnerKind, Released,
};

use crate::bits::Bits;
use crate::clock::Timestamp;
use crate::error::IpamError;
use crate::ranges::{Ranges, number};

/// The most addresses a block may hold: what the object's schema allows.
pub const MAX_ADDRESSES: u128 = 4096;

/// What holds for every address that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// How long an address rests once it is given back.
    pub cooldown: Duration,
    /// Addresses that only who names them gets.
    pub reserved: Ranges,
}

/// Which addresses to take back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Release {
    /// What one holder has, told apart as [`Owner::is_same_holder`] does.
    Holder(Owner),
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
            Self::Holder(holder) => owner.is_same_holder(holder),
            // A tunnel has no sandbox, and is none that a list of sandboxes could lack.
            Self::Container { .. } | Self::Pod { .. } | Self::AllBut { .. }
                if owner.kind != OwnerKind::Pod =>
            {
                false
            }
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
            Self::Holder(_) | Self::Container { .. } | Self::Pod { .. } => {
                self.matches(&Allocation {
                    address: String::new(),
                    owner: owner.clone(),
                    sequence: 0,
                    since: String::new(),
                })
            }
        }
    }
}

/// A block of a node, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeBlock {
    cidr: IpNetwork,
    object: IPAMBlock,
    /// By their offset, the addresses that are held or were given back: all others were never
    /// used.
    seen: Bits,
}

impl NodeBlock {
    /// Takes an object that was read.
    ///
    /// # Errors
    /// Every field that is wrong, as [`IPAMBlock::check`] finds them.
    pub fn parse(object: IPAMBlock) -> Result<Self, Vec<FieldError>> {
        let checked = object.check()?;
        let mut block = Self {
            cidr: checked.cidr,
            seen: Bits::default(),
            object,
        };
        let spec = &block.object.spec;
        let held = spec.allocations.iter().map(|one| &one.address);
        let seen = held.chain(spec.released.iter().map(|one| &one.address));
        let seen = seen.filter_map(|text| offset(block.cidr, parse(text)?));
        block.seen = seen.collect();
        Ok(block)
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
            seen: Bits::default(),
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

    /// The object, to be written.
    pub fn into_object(self) -> IPAMBlock {
        self.object
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
        size_of(self.cidr)
    }

    /// The node on which an allocation of this block is in use: the block's own, or the one that
    /// has borrowed it. Nobody's node for a Service's address.
    pub fn node_of<'a>(&'a self, allocation: &'a Allocation) -> &'a str {
        let node = &allocation.owner.node;
        if node.is_empty() { self.node() } else { node }
    }

    /// The allocations in use on a node.
    pub fn used_on<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Allocation> {
        let all = self.allocations().iter();
        all.filter(move |one| self.node_of(one) == node)
    }

    /// Whether [`Self::assign_by`] would give an address.
    pub fn has_free(&self, now: Timestamp, rules: &Rules) -> bool {
        self.never_used(&rules.reserved).is_some() || self.rested(now, rules).is_some()
    }

    /// The address that a holder has.
    pub fn held(&self, owner: &Owner) -> Option<&Allocation> {
        let mut all = self.allocations().iter();
        all.find(|one| one.owner.is_same_holder(owner))
    }

    /// Who holds an address.
    pub fn holder(&self, address: IpAddr) -> Option<&Allocation> {
        let mut all = self.allocations().iter();
        all.find(|one| parse(&one.address) == Some(address))
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
        let reserved = Ranges::default();
        self.assign_by(owner, now, &Rules { cooldown, reserved })
    }

    /// Gives the next address, or `None` if every address is held, rests or is reserved.
    pub fn assign_by(
        &mut self,
        owner: &Owner,
        now: Timestamp,
        rules: &Rules,
    ) -> Option<Allocation> {
        let address = match self.never_used(&rules.reserved) {
            Some(address) => address,
            None => {
                let index = self.rested(now, rules)?;
                parse(&self.object.spec.released.remove(index).address)?
            }
        };
        Some(self.write(address, owner, now))
    }

    /// Gives one address that was asked for by name; it need not have rested, and may be reserved.
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
        if let Some(one) = self.holder(address) {
            if one.owner.is_same_holder(owner) {
                return Ok(one.clone());
            }
            let holder = Box::new(one.owner.clone());
            return Err(IpamError::Held { address, holder });
        }
        let released = &mut self.object.spec.released;
        released.retain(|one| parse(&one.address) != Some(address));
        Ok(self.write(address, owner, now))
    }

    /// Takes back every address that is meant; answers what was taken.
    pub fn release(&mut self, which: &Release, now: Timestamp) -> Vec<Allocation> {
        self.release_if(now, |one| which.matches(one))
    }

    /// Takes back every address that is meant and in use on a node.
    pub fn release_on(&mut self, node: &str, which: &Release, now: Timestamp) -> Vec<Allocation> {
        let own = self.node().to_owned();
        self.release_if(now, |one| {
            let user = &one.owner.node;
            let user = if user.is_empty() { &own } else { user };
            user == node && which.matches(one)
        })
    }

    fn release_if(
        &mut self,
        now: Timestamp,
        is_meant: impl Fn(&Allocation) -> bool,
    ) -> Vec<Allocation> {
        let spec = &mut self.object.spec;
        let (freed, kept) = std::mem::take(&mut spec.allocations)
            .into_iter()
            .partition::<Vec<_>, _>(|one| is_meant(one));
        spec.allocations = kept;
        let at = format!("{:.0}", next_second(now));
        for one in &freed {
            spec.sequence = spec.sequence.saturating_add(1);
            spec.released.push(Released {
                address: one.address.clone(),
                at: at.clone(),
            });
        }
        self.count();
        freed
    }

    /// Whether any allocation is meant.
    pub fn holds(&self, which: &Release) -> bool {
        self.allocations().iter().any(|one| which.matches(one))
    }

    /// Whether any allocation in use on a node is meant.
    pub fn holds_on(&self, node: &str, which: &Release) -> bool {
        self.used_on(node).any(|one| which.matches(one))
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
        self.seen.extend(offset(self.cidr, address));
        self.count();
        allocation
    }

    fn count(&mut self) {
        let spec = &mut self.object.spec;
        spec.used = u32::try_from(spec.allocations.len()).unwrap_or(u32::MAX);
    }

    /// The lowest address that is neither reserved nor held nor was ever given back.
    fn never_used(&self, reserved: &Ranges) -> Option<IpAddr> {
        let free = self.seen.zeros().take_while(|at| *at < self.size());
        let mut free = free.map(|at| nth(self.cidr, at));
        free.find(|address| !reserved.contains(*address))
    }

    /// The place in the list of the address that has been free the longest, if it has rested.
    fn rested(&self, now: Timestamp, rules: &Rules) -> Option<usize> {
        self.object.spec.released.iter().position(|one| {
            let reserved = || parse(&one.address).is_none_or(|one| rules.reserved.contains(one));
            has_rested(one, now, rules.cooldown) && (rules.reserved.is_empty() || !reserved())
        })
    }
}

/// How many addresses a block has, as far as the object's schema goes.
pub(crate) fn size_of(cidr: IpNetwork) -> u128 {
    let bits = crate::Family::of_range(cidr).bits() - cidr.prefix();
    let size = 1u128.checked_shl(u32::from(bits));
    size.unwrap_or(MAX_ADDRESSES).min(MAX_ADDRESSES)
}

/// The place of an address in a block; `None` beyond what a block may hold.
fn offset(block: IpNetwork, address: IpAddr) -> Option<u128> {
    let offset = number(address).checked_sub(number(block.network()))?;
    (offset < MAX_ADDRESSES).then_some(offset)
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

/// The first whole second that is not before `at`: what is given back within a second shares a line
/// of the block, and nothing rests for less than its cooldown.
fn next_second(at: Timestamp) -> Timestamp {
    let up = TimestampRound::new()
        .smallest(Unit::Second)
        .mode(RoundMode::Ceil);
    at.round(up).unwrap_or(at)
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

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;
    const MINUTE: Duration = Duration::from_secs(60);

    fn block(cidr: &str) -> NodeBlock {
        NodeBlock::claim(cidr.parse().unwrap(), "n1")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn pod(name: &str) -> Owner {
        Owner {
            namespace: "default".into(),
            pod: name.into(),
            container_id: format!("c-{name}"),
            interface: "eth0".into(),
            ..Owner::default()
        }
    }

    fn of_container(name: &str) -> Release {
        Release::Container {
            container_id: format!("c-{name}"),
            interface: None,
        }
    }

    fn give(block: &mut NodeBlock, name: &str, second: i64, cooldown: Duration) -> Option<String> {
        let given = block.assign(&pod(name), at(second), cooldown);
        given.map(|one| one.address)
    }

    #[test]
    fn every_address_of_a_block_can_be_given() {
        let cases = [
            ("10.0.0.6/31", vec!["10.0.0.6", "10.0.0.7"]),
            ("10.0.0.7/32", vec!["10.0.0.7"]),
            (
                "255.255.255.252/30",
                vec![
                    "255.255.255.252",
                    "255.255.255.253",
                    "255.255.255.254",
                    "255.255.255.255",
                ],
            ),
            ("fd00::/127", vec!["fd00::", "fd00::1"]),
            ("fd00::5/128", vec!["fd00::5"]),
        ];
        for (cidr, expected) in cases {
            let mut block = block(cidr);
            assert_eq!(block.size(), expected.len() as u128, "{cidr}");
            for address in &expected {
                assert_eq!(
                    give(&mut block, address, 0, NONE).as_deref(),
                    Some(*address)
                );
            }
            assert_eq!(give(&mut block, "one-too-many", 0, NONE), None, "{cidr}");
            assert_eq!(block.object().spec.used as usize, expected.len());
            assert!(block.object().check().is_ok());
        }
    }

    #[test]
    fn the_largest_blocks_fit_the_schema() {
        for (cidr, size) in [("10.0.0.0/20", 4096), ("fd00::/116", 4096)] {
            assert_eq!(block(cidr).size(), size);
        }
        // A block that no pool allows is not walked to its end.
        assert_eq!(block("10.0.0.0/8").size(), MAX_ADDRESSES);
        assert_eq!(block("::/0").size(), MAX_ADDRESSES);
    }

    #[test]
    fn never_used_first_then_longest_free() {
        let mut block = block("10.0.0.0/30");
        for name in ["a", "b", "c"] {
            give(&mut block, name, 0, NONE);
        }
        block.release(&of_container("b"), at(1));
        block.release(&of_container("a"), at(2));
        let order: Vec<_> = (0..4)
            .map(|n| give(&mut block, &format!("n{n}"), 3, NONE))
            .collect();
        let expected = [Some("10.0.0.3"), Some("10.0.0.1"), Some("10.0.0.0"), None];
        assert_eq!(order, expected.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn a_released_address_rests() {
        let mut block = block("10.0.0.0/32");
        give(&mut block, "a", 0, MINUTE);
        block.release(&of_container("a"), at(100));
        assert_eq!(block.cooling(at(159), MINUTE), 1);
        assert_eq!(give(&mut block, "b", 159, MINUTE), None);
        assert_eq!(block.cooling(at(160), MINUTE), 0);
        assert!(give(&mut block, "b", 160, MINUTE).is_some());
        assert!(block.object().spec.released.is_empty());
    }

    #[test]
    fn a_released_address_rests_up_to_a_second_longer() {
        let mut block = block("10.0.0.0/32");
        give(&mut block, "a", 0, NONE);
        let millisecond = Duration::from_millis(1);
        block.release(&of_container("a"), at(100) + millisecond);
        assert_eq!(block.object().spec.released[0].at, at(101).to_string());
        assert_eq!(block.cooling(at(160) + millisecond, MINUTE), 1);
        assert_eq!(block.cooling(at(161), MINUTE), 0);
        assert_eq!(block.cooling(at(100) + millisecond, NONE), 0);
    }

    #[test]
    fn a_clock_set_back_or_a_spoiled_time_locks_nothing_away() {
        let mut block = block("10.0.0.0/31");
        give(&mut block, "a", 0, NONE);
        give(&mut block, "b", 0, NONE);
        block.release(&of_container("a"), at(1_000_000));
        block.release(&of_container("b"), at(0));
        block.object.spec.released[1].at = "yesterday".into();
        assert!(give(&mut block, "c", 0, MINUTE).is_some());
        assert!(give(&mut block, "d", 0, MINUTE).is_some());
    }

    #[test]
    fn releases_take_what_is_meant() {
        let filled = || {
            let mut block = block("10.0.0.0/29");
            for (name, second) in [("a", 0), ("b", 10), ("c", 20)] {
                give(&mut block, name, second, NONE);
            }
            let second = Owner {
                interface: "net1".into(),
                ..pod("a")
            };
            block.assign(&second, at(30), NONE);
            block
        };
        let attachment = |name: &str| (format!("c-{name}"), "eth0".to_owned());
        let cases = [
            (of_container("a"), vec!["10.0.0.0", "10.0.0.3"]),
            (
                Release::Container {
                    container_id: "c-a".into(),
                    interface: Some("net1".into()),
                },
                vec!["10.0.0.3"],
            ),
            (
                Release::Pod {
                    namespace: "default".into(),
                    pod: "b".into(),
                },
                vec!["10.0.0.1"],
            ),
            (
                Release::Pod {
                    namespace: "other".into(),
                    pod: "b".into(),
                },
                vec![],
            ),
            (
                Release::Address {
                    address: "10.0.0.2".parse().unwrap(),
                    sequence: Some(3),
                },
                vec!["10.0.0.2"],
            ),
            (
                Release::Address {
                    address: "10.0.0.2".parse().unwrap(),
                    sequence: Some(2),
                },
                vec![],
            ),
            (
                Release::AllBut {
                    attachments: [attachment("a")].into(),
                    before: at(15),
                },
                vec!["10.0.0.1"],
            ),
        ];
        for (which, expected) in cases {
            let mut block = filled();
            let sequence = block.object().spec.sequence;
            assert_eq!(block.holds(&which), !expected.is_empty(), "{which:?}");
            let freed: Vec<String> = block
                .release(&which, at(60))
                .into_iter()
                .map(|one| one.address)
                .collect();
            assert_eq!(freed, expected, "{which:?}");
            let spec = &block.object().spec;
            assert_eq!(spec.used as usize, 4 - expected.len());
            assert_eq!(spec.sequence, sequence + expected.len() as i64);
            assert_eq!(spec.released.len(), expected.len());
        }
    }

    #[test]
    fn an_address_by_name() {
        let mut block = block("10.0.0.0/30");
        let address = "10.0.0.2".parse().unwrap();
        let given = block.assign_address(address, &pod("a"), at(0)).unwrap();
        let again = block.assign_address(address, &pod("a"), at(5)).unwrap();
        assert_eq!(given, again);
        let held = block.assign_address(address, &pod("b"), at(5)).unwrap_err();
        assert_eq!(held.to_string(), "10.0.0.2 is held by pod default/a");
        let outside = "10.0.0.4".parse().unwrap();
        let error = block.assign_address(outside, &pod("b"), at(5)).unwrap_err();
        assert_eq!(error.to_string(), "10.0.0.4 is not in block 10.0.0.0/30");
        block.release(&of_container("a"), at(6));
        assert!(block.assign_address(address, &pod("b"), at(6)).is_ok());
        assert!(block.object().check().is_ok());
    }

    #[test]
    fn a_claim_is_named_and_labelled() {
        let block = block("fd00:10::40/122");
        let metadata = &block.object().metadata;
        assert_eq!(block.name(), "fd00-10-0-0-0-0-0-40-122");
        assert_eq!(metadata.labels.as_ref().unwrap()[NODE_LABEL], "n1");
        assert!(NodeBlock::parse(block.object().clone()).is_ok());
    }
}

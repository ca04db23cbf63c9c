//! Regions: sets of traffic between two given ends, with the algebra that flattening ordered rules needs.
//!
//! What distinguishes traffic between two ends is the address family, the protocol, the source and the destination port,
//! or the ICMP type and code. Equal regions are equal values, however they were put together. Nothing here knows rules.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    hash::{Hash, Hasher},
    sync::{Arc, LazyLock},
};

use crate::{
    port::{PortRange, Protocol},
    ruleset::Family,
};

/// A part of the traffic that has its own notion of what is matched beside the source port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Plane {
    /// TCP, by destination port.
    Tcp,
    /// UDP, by destination port.
    Udp,
    /// SCTP, by destination port.
    Sctp,
    /// ICMP, by 256 x type + code.
    Icmp,
    /// ICMPv6, by 256 x type + code.
    IcmpV6,
    /// Any other protocol, by its number.
    Other,
}

impl Plane {
    pub(crate) const ALL: [Self; 6] = [
        Self::Tcp,
        Self::Udp,
        Self::Sctp,
        Self::Icmp,
        Self::IcmpV6,
        Self::Other,
    ];

    /// The plane of an IP protocol.
    pub(crate) const fn of(protocol: u8) -> Self {
        match protocol {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            1 => Self::Icmp,
            58 => Self::IcmpV6,
            _ => Self::Other,
        }
    }

    /// Its one IP protocol; none for [`Self::Other`].
    pub(crate) const fn protocol(self) -> Option<u8> {
        match self {
            Self::Tcp => Some(6),
            Self::Udp => Some(17),
            Self::Sctp => Some(132),
            Self::Icmp => Some(1),
            Self::IcmpV6 => Some(58),
            Self::Other => None,
        }
    }

    /// The transport protocol, for the planes that have ports.
    pub(crate) const fn transport(self) -> Option<Protocol> {
        match self {
            Self::Tcp => Some(Protocol::Tcp),
            Self::Udp => Some(Protocol::Udp),
            Self::Sctp => Some(Protocol::Sctp),
            Self::Icmp | Self::IcmpV6 | Self::Other => None,
        }
    }

    /// Every value of the plane: one copy for all, as most regions are made of these.
    pub(crate) fn whole(self) -> Area {
        static WHOLE: LazyLock<[Area; 6]> = LazyLock::new(|| Plane::ALL.map(Plane::all_values));
        WHOLE[self as usize].clone()
    }

    fn all_values(self) -> Area {
        match self {
            Self::Other => {
                let named = [1, 6, 17, 58, 132].map(PortRange::single);
                let all = Area::of(PortRange::ALL, &[PortRange::between(0, 255)]);
                all.combine(&Area::of(PortRange::ALL, &named), Operation::Without)
            }
            _ => Area::of(PortRange::ALL, &[PortRange::ALL]),
        }
    }
}

/// Source ports with the same values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Slice {
    /// The source ports; all of them in planes that have none.
    pub(crate) sources: PortRange,
    /// Ascending, neither overlapping nor touching, never none.
    pub(crate) values: Vec<PortRange>,
}

/// A set of pairs of source port and value: ascending slices, touching ones with different values. A copy costs nothing;
/// an empty one has no slices to share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Area(Option<Arc<[Slice]>>);

impl PartialEq for Area {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl Eq for Area {}

impl PartialOrd for Area {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Area {
    fn cmp(&self, other: &Self) -> Ordering {
        self.slices().cmp(other.slices())
    }
}

impl Hash for Area {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.slices().hash(state);
    }
}

impl From<Vec<Slice>> for Area {
    fn from(slices: Vec<Slice>) -> Self {
        Self((!slices.is_empty()).then(|| slices.into()))
    }
}

impl Area {
    /// These values from these source ports. The values may come in any order and overlap.
    pub(crate) fn of(sources: PortRange, values: &[PortRange]) -> Self {
        let values = normal(values.to_vec());
        if values.is_empty() {
            return Self::default();
        }
        vec![Slice { sources, values }].into()
    }

    pub(crate) fn slices(&self) -> &[Slice] {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn combine(&self, other: &Self, operation: Operation) -> Self {
        use Operation::{And, Or, Without};
        match operation {
            Or if self.is_empty() => return other.clone(),
            And | Without if self.is_empty() => return Self::default(),
            Or | Without if other.is_empty() => return self.clone(),
            And if other.is_empty() => return Self::default(),
            Or | And if self == other => return self.clone(),
            Without if self == other => return Self::default(),
            Or | And | Without => {}
        }
        if let (Some(ones), Some(others)) = (self.values(), other.values()) {
            return Self::of_normal(operation.apply(ones, others));
        }
        let mut slices: Vec<Slice> = Vec::new();
        for sources in cuts(self.slices(), other.slices()) {
            let values = operation.apply(self.at(sources.first()), other.at(sources.first()));
            match slices.last_mut() {
                Some(last)
                    if last.values == values
                        && last.sources.last().checked_add(1) == Some(sources.first()) =>
                {
                    last.sources = PortRange::between(last.sources.first(), sources.last());
                }
                _ if values.is_empty() => {}
                _ => slices.push(Slice { sources, values }),
            }
        }
        slices.into()
    }

    /// These values, in their normal form, from all source ports.
    fn of_normal(values: Vec<PortRange>) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let sources = PortRange::ALL;
        vec![Slice { sources, values }].into()
    }

    /// The values, if they do not depend on the source port.
    fn values(&self) -> Option<&[PortRange]> {
        match self.slices() {
            [] => Some(&[]),
            [all] if all.sources == PortRange::ALL => Some(&all.values),
            _ => None,
        }
    }

    fn at(&self, source: u16) -> &[PortRange] {
        let slice = self
            .slices()
            .iter()
            .find(|slice| slice.sources.contains(source));
        slice.map_or(&[], |slice| &slice.values)
    }

    fn contains(&self, source: u16, value: u16) -> bool {
        self.at(source).iter().any(|range| range.contains(value))
    }
}

/// The source ports of both, cut wherever either changes.
fn cuts(one: &[Slice], other: &[Slice]) -> Vec<PortRange> {
    let mut starts: Vec<u32> = vec![0];
    for slice in one.iter().chain(other) {
        starts.push(slice.sources.first().into());
        starts.push(u32::from(slice.sources.last()) + 1);
    }
    starts.push(1 << 16);
    starts.sort_unstable();
    starts.dedup();
    let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let pairs = starts.windows(2);
    pairs
        .filter_map(|pair| match pair {
            [first, after] => Some(PortRange::between(port(*first), port(after - 1))),
            _ => None,
        })
        .collect()
}

/// What is made of two sets. All lists of ranges here are ascending, and their ranges neither overlap nor touch.
#[derive(Clone, Copy)]
enum Operation {
    Or,
    And,
    Without,
}

impl Operation {
    fn apply(self, ones: &[PortRange], others: &[PortRange]) -> Vec<PortRange> {
        match self {
            Self::Or => normal(ones.iter().chain(others).copied().collect()),
            Self::And if ones.len() > others.len() => common(others, ones),
            Self::And => common(ones, others),
            Self::Without => difference(ones, others),
        }
    }
}

/// Those of the ranges that overlap one.
fn overlapping(ranges: &[PortRange], one: PortRange) -> impl Iterator<Item = &PortRange> {
    let from = ranges.partition_point(|range| range.last() < one.first());
    let after = ranges.get(from..).unwrap_or_default().iter();
    after.take_while(move |range| range.first() <= one.last())
}

fn common(few: &[PortRange], many: &[PortRange]) -> Vec<PortRange> {
    let parts = few.iter().flat_map(|one| {
        overlapping(many, *one).map(|other| {
            let first = one.first().max(other.first());
            PortRange::between(first, one.last().min(other.last()))
        })
    });
    parts.collect()
}

fn difference(ones: &[PortRange], others: &[PortRange]) -> Vec<PortRange> {
    let mut left = Vec::with_capacity(ones.len());
    for one in ones {
        let mut next = Some(one.first());
        for other in overlapping(others, *one) {
            if let Some(next) = next.filter(|next| *next < other.first()) {
                left.push(PortRange::between(next, other.first() - 1));
            }
            next = other.last().checked_add(1);
        }
        if let Some(next) = next.filter(|next| *next <= one.last()) {
            left.push(PortRange::between(next, one.last()));
        }
    }
    left
}

/// The same values in order, each once.
fn normal(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable_by_key(|range| range.first());
    let mut merged: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        append(&mut merged, range);
    }
    merged
}

/// Adds a range that begins no earlier than the last one.
fn append(ranges: &mut Vec<PortRange>, range: PortRange) {
    match ranges.last_mut() {
        Some(last) if range.first() <= last.last().saturating_add(1) => {
            *last = PortRange::between(last.first(), last.last().max(range.last()));
        }
        _ => ranges.push(range),
    }
}

/// Of each list what no list before it has. One pass over the ends.
fn shares(lists: &[(usize, Vec<PortRange>)]) -> Vec<(usize, Vec<PortRange>)> {
    let mut ends: Vec<(u32, bool, usize)> = Vec::new();
    for (at, (_, ranges)) in lists.iter().enumerate() {
        for range in ranges {
            ends.push((range.first().into(), true, at));
            ends.push((u32::from(range.last()) + 1, false, at));
        }
    }
    ends.sort_unstable();
    let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let mut shares: Vec<(usize, Vec<PortRange>)> =
        lists.iter().map(|(id, _)| (*id, Vec::new())).collect();
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let mut ends = ends.into_iter().peekable();
    while let Some((number, opens, at)) = ends.next() {
        if opens {
            open.insert(at);
        } else {
            open.remove(&at);
        }
        let Some((next, ..)) = ends.peek().filter(|(next, ..)| *next > number) else {
            continue;
        };
        let first = open.first().and_then(|first| shares.get_mut(*first));
        if let Some((_, ranges)) = first {
            append(ranges, PortRange::between(port(number), port(next - 1)));
        }
    }
    shares
}

/// A set of traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Region {
    /// By [`Family`], then by [`Plane`].
    areas: [[Area; 6]; 2],
}

impl Region {
    /// No traffic.
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    /// All traffic.
    pub(crate) fn everything() -> Self {
        let whole = Plane::ALL.map(Plane::whole);
        Self {
            areas: [whole.clone(), whole],
        }
    }

    /// The traffic of these planes, in both families.
    pub(crate) fn of(areas: impl IntoIterator<Item = (Plane, Area)>) -> Self {
        let mut planes = <[Area; 6]>::default();
        for (plane, area) in areas {
            let there = &mut planes[plane as usize];
            *there = there.combine(&area, Operation::Or);
        }
        Self {
            areas: [planes.clone(), planes],
        }
    }

    /// Ports of a transport protocol.
    pub(crate) fn ports(protocol: Protocol, ranges: &[PortRange]) -> Self {
        let plane = Plane::of(protocol.number());
        Self::of([(plane, Area::of(PortRange::ALL, ranges))])
    }

    /// Only what is of this family.
    #[must_use]
    pub(crate) fn in_family(mut self, family: Family) -> Self {
        self.areas[1 - family as usize] = <[Area; 6]>::default();
        self
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.areas.iter().flatten().all(Area::is_empty)
    }

    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::everything()
    }

    /// One plane of one family.
    pub(crate) fn area(&self, family: Family, plane: Plane) -> &Area {
        &self.areas[family as usize][plane as usize]
    }

    /// Whether both families have the same.
    pub(crate) fn is_alike(&self) -> bool {
        let [one, other] = &self.areas;
        one == other
    }

    #[must_use]
    pub(crate) fn or(&self, other: &Self) -> Self {
        self.combine(other, Operation::Or)
    }

    #[must_use]
    pub(crate) fn and(&self, other: &Self) -> Self {
        self.combine(other, Operation::And)
    }

    #[must_use]
    pub(crate) fn without(&self, other: &Self) -> Self {
        self.combine(other, Operation::Without)
    }

    fn combine(&self, other: &Self, operation: Operation) -> Self {
        let mut combined = Self::default();
        for (family, planes) in combined.areas.iter_mut().enumerate() {
            for (plane, area) in planes.iter_mut().enumerate() {
                *area = self.areas[family][plane].combine(&other.areas[family][plane], operation);
            }
        }
        combined
    }

    /// All of these together, in one pass.
    pub(crate) fn union<'r>(regions: impl IntoIterator<Item = &'r Self>) -> Self {
        let mut values = <[[Vec<PortRange>; 6]; 2]>::default();
        let mut union = Self::default();
        for region in regions {
            for (family, planes) in region.areas.iter().enumerate() {
                for (plane, area) in planes.iter().enumerate() {
                    let all = &mut union.areas[family][plane];
                    match area.values() {
                        Some(more) => values[family][plane].extend(more),
                        None => *all = all.combine(area, Operation::Or),
                    }
                }
            }
        }
        for (family, planes) in values.into_iter().enumerate() {
            for (plane, values) in planes.into_iter().enumerate() {
                let all = &mut union.areas[family][plane];
                *all = all.combine(&Area::of_normal(normal(values)), Operation::Or);
            }
        }
        union
    }

    /// What each of these gets of the whole when one after the other takes what is left of its own: in one pass, where one
    /// by one each would copy what is left. `None` when source ports matter, which that pass knows nothing of.
    pub(crate) fn share_out(whole: &Self, regions: &[Self]) -> Option<Vec<Self>> {
        let mut parts = vec![Self::default(); regions.len()];
        for family in Family::ALL {
            for plane in Plane::ALL {
                let there = whole.area(family, plane).values()?;
                let mut lists = Vec::new();
                for (id, region) in regions.iter().enumerate() {
                    let values = region.area(family, plane).values()?;
                    if !values.is_empty() {
                        lists.push((id, Operation::And.apply(values, there)));
                    }
                }
                for (id, values) in shares(&lists) {
                    if let Some(part) = parts.get_mut(id) {
                        let whole = plane.whole();
                        let area = Area::of_normal(values);
                        part.areas[family as usize][plane as usize] =
                            if area == whole { whole } else { area };
                    }
                }
            }
        }
        Some(parts)
    }

    /// Whether a packet is in the region; `value` is what its plane goes by.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "the kernel looks packets up, not we")
    )]
    pub(crate) fn contains(&self, family: Family, plane: Plane, source: u16, value: u16) -> bool {
        self.area(family, plane).contains(source, value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some() -> impl Strategy<Value = Region> {
        let range = || {
            (0u16..30, 0u16..9).prop_map(|(first, more)| PortRange::between(first, first + more))
        };
        let area = (0usize..6, range(), proptest::collection::vec(range(), 0..3));
        proptest::collection::vec((area, 0..3u8), 0..5).prop_map(|areas| {
            areas.into_iter().fold(
                Region::nothing(),
                |region, ((plane, sources, values), family)| {
                    let next = Region::of([(Plane::ALL[plane], Area::of(sources, &values))]);
                    region.or(&match family {
                        0 => next.in_family(Family::V4),
                        1 => next.in_family(Family::V6),
                        _ => next,
                    })
                },
            )
        })
    }

    #[test]
    fn everything_without_everything_is_nothing() {
        let all = Region::everything();
        assert!(all.is_everything() && all.is_alike());
        assert!(all.without(&all).is_nothing());
        assert_eq!(Region::nothing().or(&all), all);
        assert!(
            !all.contains(Family::V4, Plane::Other, 0, 6),
            "TCP has a plane of its own"
        );
        assert!(all.contains(Family::V4, Plane::Other, 0, 255));
    }

    proptest! {
        #[test]
        fn the_algebra_is_pointwise(one in some(), other in some(), source in 0u16..45, value in 0u16..45) {
            for family in Family::ALL {
                for plane in Plane::ALL {
                    let at = |region: &Region| region.contains(family, plane, source, value);
                    prop_assert_eq!(at(&one.or(&other)), at(&one) || at(&other));
                    prop_assert_eq!(at(&one.and(&other)), at(&one) && at(&other));
                    prop_assert_eq!(at(&one.without(&other)), at(&one) && !at(&other));
                }
            }
            prop_assert_eq!(one.or(&other), other.or(&one));
            prop_assert_eq!(one.without(&other).or(&one.and(&other)), one);
        }

        #[test]
        fn what_is_shared_out_is_what_each_would_take(whole in some(), regions in proptest::collection::vec(some(), 0..5)) {
            let mut left = whole.clone();
            let one_by_one: Vec<Region> = regions
                .iter()
                .map(|region| {
                    let part = region.and(&left);
                    left = left.without(&part);
                    part
                })
                .collect();
            prop_assert_eq!(whole.without(&Region::union(&regions)), left);
            if let Some(shared) = Region::share_out(&whole, &regions) {
                prop_assert_eq!(shared, one_by_one);
            }
        }
    }
}

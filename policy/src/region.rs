//! Regions: sets of traffic between two given ends, with the algebra that flattening ordered rules needs.
//!
//! What distinguishes traffic between two ends is the address family, the protocol, the source and the destination port,
//! or the ICMP type and code. Equal regions are equal values, however they were put together. Nothing here knows rules.

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

    /// Every value of the plane.
    pub(crate) fn whole(self) -> Area {
        match self {
            Self::Other => {
                let named = [1, 6, 17, 58, 132].map(PortRange::single);
                let all = Area::of(PortRange::ALL, &[PortRange::between(0, 255)]);
                all.combine(&Area::of(PortRange::ALL, &named), |all, named| {
                    all && !named
                })
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

/// A set of pairs of source port and value: ascending slices, touching ones with different values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Area(Vec<Slice>);

impl Area {
    /// These values from these source ports. The values may come in any order and overlap.
    pub(crate) fn of(sources: PortRange, values: &[PortRange]) -> Self {
        let values = normal(values.to_vec());
        if values.is_empty() {
            return Self::default();
        }
        Self(vec![Slice { sources, values }])
    }

    pub(crate) fn slices(&self) -> &[Slice] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs for which the answers of both areas satisfy `keep`, which must say no when both say no.
    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let whole = |keep: bool, area: &Self| if keep { area.clone() } else { Self::default() };
        if other.is_empty() {
            return whole(keep(true, false), self);
        }
        if self.is_empty() {
            return whole(keep(false, true), other);
        }
        if self == other {
            return whole(keep(true, true), self);
        }
        let mut slices: Vec<Slice> = Vec::new();
        for sources in cuts(&self.0, &other.0) {
            let values = merge(self.at(sources.first()), other.at(sources.first()), keep);
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
        Self(slices)
    }

    fn at(&self, source: u16) -> &[PortRange] {
        let slice = self.0.iter().find(|slice| slice.sources.contains(source));
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

/// The values for which both answers satisfy `keep`.
fn merge(one: &[PortRange], other: &[PortRange], keep: fn(bool, bool) -> bool) -> Vec<PortRange> {
    let mut edges: Vec<(u32, bool, i32)> = Vec::with_capacity(2 * (one.len() + other.len()));
    for (ranges, is_one) in [(one, true), (other, false)] {
        for range in ranges {
            edges.push((range.first().into(), is_one, 1));
            edges.push((u32::from(range.last()) + 1, is_one, -1));
        }
    }
    edges.sort_unstable();
    let (mut in_one, mut in_other) = (0, 0);
    let mut open: Option<u32> = None;
    let mut merged = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((at, is_one, step)) = edges.next() {
        if is_one {
            in_one += step;
        } else {
            in_other += step;
        }
        if edges.peek().is_some_and(|(next, ..)| *next == at) {
            continue;
        }
        match (keep(in_one > 0, in_other > 0), open) {
            (true, None) => open = Some(at),
            (false, Some(first)) => {
                let port = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
                merged.push(PortRange::between(port(first), port(at - 1)));
                open = None;
            }
            _ => {}
        }
    }
    merged
}

fn normal(ranges: Vec<PortRange>) -> Vec<PortRange> {
    merge(&ranges, &[], |one, other| one || other)
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
            *there = there.combine(&area, |one, other| one || other);
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
        self.combine(other, |one, other| one || other)
    }

    #[must_use]
    pub(crate) fn and(&self, other: &Self) -> Self {
        self.combine(other, |one, other| one && other)
    }

    #[must_use]
    pub(crate) fn without(&self, other: &Self) -> Self {
        self.combine(other, |one, other| one && !other)
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        let mut combined = Self::default();
        for (family, planes) in combined.areas.iter_mut().enumerate() {
            for (plane, area) in planes.iter_mut().enumerate() {
                *area = self.areas[family][plane].combine(&other.areas[family][plane], keep);
            }
        }
        combined
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
    }
}

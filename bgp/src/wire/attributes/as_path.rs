//! AS_PATH: the ASes a route has passed.

use std::fmt;

use crate::types::Asn;

/// One segment of an AS_PATH (RFC 4271 §4.3, RFC 5065 §3). Never empty on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AsSegment {
    /// ASes in no order, which an aggregate passed (type 1).
    Set(Vec<Asn>),
    /// ASes in order, the latest first (type 2).
    Sequence(Vec<Asn>),
    /// Confederation members in order (type 3).
    ConfedSequence(Vec<Asn>),
    /// Confederation members in no order (type 4).
    ConfedSet(Vec<Asn>),
}

impl AsSegment {
    /// The ASes of the segment.
    #[must_use]
    pub fn asns(&self) -> &[Asn] {
        match self {
            Self::Set(asns)
            | Self::Sequence(asns)
            | Self::ConfedSequence(asns)
            | Self::ConfedSet(asns) => asns,
        }
    }

    /// Whether the segment is a confederation's (RFC 5065).
    #[must_use]
    pub const fn is_confederation(&self) -> bool {
        matches!(self, Self::ConfedSequence(_) | Self::ConfedSet(_))
    }

    /// The type code on the wire.
    pub(crate) const fn code(&self) -> u8 {
        match self {
            Self::Set(_) => 1,
            Self::Sequence(_) => 2,
            Self::ConfedSequence(_) => 3,
            Self::ConfedSet(_) => 4,
        }
    }
}

/// The ASes a route has passed, the latest first. Empty for routes of our own AS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath {
    segments: Vec<AsSegment>,
}

impl AsPath {
    /// A path of these segments, empty ones left out and neighbouring sequences joined, so that
    /// paths that mean the same are equal.
    #[must_use]
    pub fn new(segments: impl IntoIterator<Item = AsSegment>) -> Self {
        let mut path = Self::default();
        for segment in segments {
            path.push(segment);
        }
        path
    }

    /// A path of one sequence.
    #[must_use]
    pub fn sequence(asns: impl IntoIterator<Item = Asn>) -> Self {
        Self::new([AsSegment::Sequence(asns.into_iter().collect())])
    }

    /// The segments, the latest first.
    #[must_use]
    pub fn segments(&self) -> &[AsSegment] {
        &self.segments
    }

    /// Whether the path has no segment.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The length that counts when paths are compared: a set counts one, confederation segments
    /// nothing (RFC 4271 §9.1.2.2, RFC 5065 §5.3).
    #[must_use]
    pub fn length(&self) -> usize {
        self.segments
            .iter()
            .map(|segment| match segment {
                AsSegment::Sequence(asns) => asns.len(),
                AsSegment::Set(_) => 1,
                AsSegment::ConfedSequence(_) | AsSegment::ConfedSet(_) => 0,
            })
            .sum()
    }

    /// Every AS number in the path, in order.
    pub fn asns(&self) -> impl Iterator<Item = Asn> {
        self.segments.iter().flat_map(AsSegment::asns).copied()
    }

    /// The AS the route came from: the first of the first sequence, if the path starts with one.
    #[must_use]
    pub fn neighbor(&self) -> Option<Asn> {
        match self.segments.first() {
            Some(AsSegment::Sequence(asns)) => asns.first().copied(),
            _ => None,
        }
    }

    /// The AS that brought the route into BGP: the last of the last sequence, if the path ends
    /// with one.
    #[must_use]
    pub fn origin(&self) -> Option<Asn> {
        match self.segments.last() {
            Some(AsSegment::Sequence(asns)) => asns.last().copied(),
            _ => None,
        }
    }

    /// Whether the path has passed `asn`.
    #[must_use]
    pub fn contains(&self, asn: Asn) -> bool {
        self.asns().any(|other| other == asn)
    }

    /// How often `asn` is in the path.
    #[must_use]
    pub fn count(&self, asn: Asn) -> usize {
        self.asns().filter(|other| *other == asn).count()
    }

    /// Whether any segment is a set (RFC 9774).
    #[must_use]
    pub fn has_set(&self) -> bool {
        let is_set = |s: &AsSegment| matches!(s, AsSegment::Set(_) | AsSegment::ConfedSet(_));
        self.segments.iter().any(is_set)
    }

    /// Whether any segment is a confederation's (RFC 5065).
    #[must_use]
    pub fn has_confederation(&self) -> bool {
        self.segments.iter().any(AsSegment::is_confederation)
    }

    /// The path with `asn` put in front `times` times, as when a route leaves the AS
    /// (RFC 4271 §5.1.2).
    #[must_use]
    pub fn prepended(&self, asn: Asn, times: usize) -> Self {
        let front = AsSegment::Sequence(vec![asn; times]);
        Self::new(std::iter::once(front).chain(self.segments.iter().cloned()))
    }

    /// Appends a segment, keeping the form that [`AsPath::new`] promises.
    pub(crate) fn push(&mut self, segment: AsSegment) {
        if segment.asns().is_empty() {
            return;
        }
        match (self.segments.last_mut(), segment) {
            (Some(AsSegment::Sequence(last)), AsSegment::Sequence(more)) => last.extend(more),
            (_, segment) => self.segments.push(segment),
        }
    }
}

impl fmt::Display for AsPath {
    /// Writes sequences plainly, sets in braces, confederation sequences in parentheses and
    /// confederation sets in brackets: `64512 64513 {1 2}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.segments.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            let (open, close) = match segment {
                AsSegment::Sequence(_) => ("", ""),
                AsSegment::Set(_) => ("{", "}"),
                AsSegment::ConfedSequence(_) => ("(", ")"),
                AsSegment::ConfedSet(_) => ("[", "]"),
            };
            f.write_str(open)?;
            for (index, asn) in segment.asns().iter().enumerate() {
                if index > 0 {
                    f.write_str(" ")?;
                }
                write!(f, "{asn}")?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[AsSegment]) -> AsPath {
        AsPath::new(segments.iter().cloned())
    }

    fn asns(numbers: &[u32]) -> Vec<Asn> {
        numbers.iter().copied().map(Asn).collect()
    }

    #[test]
    fn sets_count_one_and_confederations_nothing() {
        let path = path(&[
            AsSegment::ConfedSequence(asns(&[65001, 65002])),
            AsSegment::Sequence(asns(&[1, 2, 3])),
            AsSegment::Set(asns(&[4, 5])),
        ]);
        assert_eq!(path.length(), 4);
        assert_eq!(path.to_string(), "(65001 65002) 1 2 3 {4 5}");
        assert_eq!(path.neighbor(), None);
        assert_eq!(path.origin(), None);
        assert!(path.has_set() && path.has_confederation() && path.contains(Asn(5)));
    }

    #[test]
    fn prepending_joins_the_first_sequence() {
        let path = AsPath::sequence(asns(&[2, 3]));
        let longer = path.prepended(Asn(1), 2);
        assert_eq!(longer, AsPath::sequence(asns(&[1, 1, 2, 3])));
        assert_eq!(longer.neighbor(), Some(Asn(1)));
        assert_eq!(longer.origin(), Some(Asn(3)));
        assert_eq!(longer.count(Asn(1)), 2);
        assert_eq!(path.prepended(Asn(1), 0), path);
        assert!(AsPath::sequence([]).is_empty());
    }

    #[test]
    fn prepending_a_set_makes_a_sequence() {
        let path = path(&[AsSegment::Set(asns(&[2]))]).prepended(Asn(1), 1);
        assert_eq!(path.to_string(), "1 {2}");
    }
}

//! [`AsPathPattern`]: regular expressions whose letters are AS numbers.
//!
//! The expression becomes a position automaton (Glushkov): one bit for every AS number of the expression, and matching is
//! one pass over the path with a few operations on a 128-bit word for each AS. Nothing can make it slow: neither what people
//! write nor what a peer sends.

mod parse;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::{Asn, AsnRange};
use crate::wire::{AsPath, AsSegment};

/// Most AS positions an expression may have, repetitions written out.
const POSITIONS: usize = 120;

/// A regular expression over the AS numbers of a path.
///
/// | written | matches |
/// |---|---|
/// | `64512`, `64512-65534` | one AS: this one, or one of the range |
/// | `.` | any one AS |
/// | `[64512 65000-65010]`, `[^64512]` | one AS of the list, or any not in it |
/// | `^`, `$` | the beginning (the AS next to us) and the end (the origin) of the path |
/// | `*` `+` `?` `{2}` `{2,}` `{2,4}` | the item before, repeated |
/// | `( … )`, `\|` | groups and alternatives |
/// | a space or `_` | nothing: it separates |
///
/// Without `^` and `$` the expression may match anywhere in the path, so that `_65000_`, `^65001_`, `_65002$` and `^$` mean
/// what they mean in routers' configurations. An AS_SET counts as one AS and matches if one of its members does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AsPathPattern(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    text: String,
    automaton: Automaton,
}

/// What one position of an expression matches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    Any,
    In(Vec<AsnRange>),
    NotIn(Vec<AsnRange>),
}

impl Class {
    fn matches(&self, asn: Asn) -> bool {
        let within = |ranges: &[AsnRange]| ranges.iter().any(|range| range.contains(asn));
        match self {
            Class::Any => true,
            Class::In(ranges) => within(ranges),
            Class::NotIn(ranges) => !within(ranges),
        }
    }
}

/// A parsed expression.
#[derive(Debug, Clone)]
enum Node {
    Empty,
    One(Class),
    Then(Vec<Node>),
    Either(Vec<Node>),
    /// At least so often, at most so often; `None`: no bound.
    Repeat(Box<Node>, usize, Option<usize>),
}

/// Bits are positions of the expression.
#[derive(Debug, Default)]
struct Automaton {
    classes: Vec<Class>,
    follow: Vec<u128>,
    first: u128,
    last: u128,
    nullable: bool,
}

/// The positions an expression can begin and end with, and whether it can be nothing.
#[derive(Clone, Copy)]
struct Ends {
    first: u128,
    last: u128,
    nullable: bool,
}

impl Ends {
    const EMPTY: Self = Self {
        first: 0,
        last: 0,
        nullable: true,
    };
}

impl Automaton {
    fn new(node: &Node) -> Self {
        let mut automaton = Self::default();
        let ends = automaton.add(node);
        automaton.first = ends.first;
        automaton.last = ends.last;
        automaton.nullable = ends.nullable;
        automaton
    }

    fn add(&mut self, node: &Node) -> Ends {
        match node {
            Node::Empty => Ends::EMPTY,
            Node::One(class) => {
                // The parser has bounded the number of positions.
                let bit = 1_u128 << (self.classes.len() % 128);
                self.classes.push(class.clone());
                self.follow.push(0);
                Ends {
                    first: bit,
                    last: bit,
                    nullable: false,
                }
            }
            Node::Then(nodes) => nodes.iter().fold(Ends::EMPTY, |before, node| {
                let after = self.add(node);
                self.join(before, after)
            }),
            Node::Either(nodes) => {
                let nothing = Ends {
                    nullable: false,
                    ..Ends::EMPTY
                };
                nodes.iter().fold(nothing, |all, node| {
                    let one = self.add(node);
                    Ends {
                        first: all.first | one.first,
                        last: all.last | one.last,
                        nullable: all.nullable || one.nullable,
                    }
                })
            }
            Node::Repeat(node, least, most) => self.repeat(node, *least, *most),
        }
    }

    /// `a` and then `b`.
    fn join(&mut self, a: Ends, b: Ends) -> Ends {
        self.link(a.last, b.first);
        Ends {
            first: a.first | if a.nullable { b.first } else { 0 },
            last: b.last | if b.nullable { a.last } else { 0 },
            nullable: a.nullable && b.nullable,
        }
    }

    fn link(&mut self, from: u128, to: u128) {
        for (position, follow) in self.follow.iter_mut().enumerate() {
            if from >> position & 1 != 0 {
                *follow |= to;
            }
        }
    }

    fn repeat(&mut self, node: &Node, least: usize, most: Option<usize>) -> Ends {
        let optional = |ends: Ends| Ends {
            nullable: true,
            ..ends
        };
        let mut all = Ends::EMPTY;
        for _ in 0..least {
            let one = self.add(node);
            all = self.join(all, one);
        }
        match most {
            None => {
                let more = self.add(node);
                self.link(more.last, more.first);
                all = self.join(all, optional(more));
            }
            Some(most) => {
                for _ in least..most {
                    let one = self.add(node);
                    all = self.join(all, optional(one));
                }
            }
        }
        all
    }

    fn matches<'a>(&self, path: impl Iterator<Item = &'a [Asn]>) -> bool {
        let mut allowed = self.first;
        let mut accepted = self.nullable;
        for members in path {
            let mut next = 0;
            accepted = false;
            let mut left = allowed;
            while left != 0 {
                let position = left.trailing_zeros() as usize;
                left &= left - 1;
                let Some(class) = self.classes.get(position) else {
                    break;
                };
                if members.iter().any(|asn| class.matches(*asn)) {
                    next |= self.follow.get(position).copied().unwrap_or(0);
                    accepted |= self.last >> position & 1 != 0;
                }
            }
            allowed = next;
            if allowed == 0 && !accepted {
                return false;
            }
        }
        accepted
    }
}

impl AsPathPattern {
    /// Whether a path matches. Confederation segments are passed over.
    #[must_use]
    pub fn matches(&self, path: &AsPath) -> bool {
        let ases = path.segments().iter().flat_map(|segment| {
            let (one_by_one, together): (&[Asn], Option<&[Asn]>) = match segment {
                AsSegment::Sequence(asns) => (asns, None),
                AsSegment::Set(asns) => (&[], Some(asns)),
                AsSegment::ConfedSequence(_) | AsSegment::ConfedSet(_) => (&[], None),
            };
            one_by_one.iter().map(std::slice::from_ref).chain(together)
        });
        self.0.automaton.matches(ases)
    }
}

/// An expression that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("AS path pattern {text:?}: {problem}, at character {at}")]
pub struct ParseAsPathError {
    text: String,
    problem: &'static str,
    /// From 1.
    at: usize,
}

impl FromStr for AsPathPattern {
    type Err = ParseAsPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let node = parse::parse(text).map_err(|(at, problem)| ParseAsPathError {
            text: text.to_owned(),
            problem,
            at: at + 1,
        })?;
        Ok(Self(Arc::new(Compiled {
            text: text.to_owned(),
            automaton: Automaton::new(&node),
        })))
    }
}

impl TryFrom<String> for AsPathPattern {
    type Error = ParseAsPathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AsPathPattern> for String {
    fn from(pattern: AsPathPattern) -> Self {
        pattern.0.text.clone()
    }
}

impl fmt::Display for AsPathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.text.fmt(f)
    }
}

impl PartialEq for AsPathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for AsPathPattern {}

impl std::hash::Hash for AsPathPattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

#[cfg(test)]
mod tests;

//! The text of an AS path pattern. Recursive descent with bounds on length, depth and positions.

use super::{Class, Node, POSITIONS};
use crate::types::{Asn, AsnRange};

/// Longest text, in octets.
const LENGTH: usize = 1024;
/// Deepest nesting of groups.
const DEPTH: usize = 16;

/// Where something is wrong, and what.
type Problem = (usize, &'static str);

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

/// Reads an expression; what it returns matches whole paths.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    if text.len() > LENGTH {
        return Err((LENGTH, "longer than 1024 characters"));
    }
    let mut parser = Parser {
        text: text.as_bytes(),
        at: 0,
        depth: 0,
    };
    let mut branches = Vec::new();
    loop {
        branches.push(parser.branch()?);
        match parser.peek() {
            Some(b'|') => parser.at += 1,
            None => break,
            Some(_) => return Err(parser.unexpected()),
        }
    }
    let node = Node::Either(branches);
    if positions(&node) > POSITIONS {
        return Err((
            text.len(),
            "more than 120 AS numbers with repetitions written out",
        ));
    }
    Ok(node)
}

/// How many positions the automaton is going to have.
fn positions(node: &Node) -> usize {
    let sum = |nodes: &[Node]| {
        nodes
            .iter()
            .fold(0_usize, |sum, node| sum.saturating_add(positions(node)))
    };
    match node {
        Node::Empty => 0,
        Node::One(_) => 1,
        Node::Then(nodes) | Node::Either(nodes) => sum(nodes),
        Node::Repeat(node, least, most) => {
            positions(node).saturating_mul(most.unwrap_or(least.saturating_add(1)))
        }
    }
}

fn anything() -> Node {
    Node::Repeat(Box::new(Node::One(Class::Any)), 0, None)
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn skip(&mut self) {
        while let Some(b' ' | b'\t' | b'_') = self.peek() {
            self.at += 1;
        }
    }

    fn unexpected(&self) -> Problem {
        let problem = match self.peek() {
            Some(b'^') => {
                "^ stands at the beginning of the whole pattern or of an alternative of it"
            }
            Some(b'$') => "$ stands at the end of the whole pattern or of an alternative of it",
            Some(b'*' | b'+' | b'?' | b'{') => "nothing to repeat before this",
            Some(b')') => "no ( belongs to this )",
            Some(b']') => "no [ belongs to this ]",
            Some(b'\\') => "letters are AS numbers here, there is nothing to escape",
            _ => "not an AS number, ., [ ], ( ), |, ^, $ or a repetition",
        };
        (self.at, problem)
    }

    /// One alternative of the whole, with its anchors.
    fn branch(&mut self) -> Result<Node, Problem> {
        self.skip();
        let anchored = self.take(b'^');
        let mut nodes = Vec::new();
        if !anchored {
            nodes.push(anything());
        }
        nodes.push(self.sequence()?);
        if !self.take(b'$') {
            nodes.push(anything());
        }
        self.skip();
        Ok(Node::Then(nodes))
    }

    fn sequence(&mut self) -> Result<Node, Problem> {
        let mut nodes = Vec::new();
        loop {
            self.skip();
            let node = match self.peek() {
                Some(b'0'..=b'9') => Node::One(Class::In(vec![self.range()?])),
                Some(b'.') => {
                    self.at += 1;
                    Node::One(Class::Any)
                }
                Some(b'[') => self.list()?,
                Some(b'(') => self.group()?,
                None | Some(b'|' | b')' | b'$') => break,
                Some(_) => return Err(self.unexpected()),
            };
            nodes.push(self.repeated(node)?);
        }
        Ok(match nodes.len() {
            0 => Node::Empty,
            _ => Node::Then(nodes),
        })
    }

    fn group(&mut self) -> Result<Node, Problem> {
        let start = self.at;
        self.at += 1;
        self.depth += 1;
        if self.depth > DEPTH {
            return Err((start, "groups nested more than 16 deep"));
        }
        let mut branches = vec![self.sequence()?];
        while self.take(b'|') {
            branches.push(self.sequence()?);
        }
        if !self.take(b')') {
            return Err(match self.peek() {
                None => (start, "no ) for this ("),
                Some(_) => self.unexpected(),
            });
        }
        self.depth -= 1;
        Ok(Node::Either(branches))
    }

    fn list(&mut self) -> Result<Node, Problem> {
        let start = self.at;
        self.at += 1;
        let negated = self.take(b'^');
        let mut ranges = Vec::new();
        loop {
            while let Some(b' ' | b'\t' | b'_' | b',') = self.peek() {
                self.at += 1;
            }
            match self.peek() {
                Some(b'0'..=b'9') => ranges.push(self.range()?),
                Some(b']') if !ranges.is_empty() => break,
                Some(b']') => return Err((start, "an empty list")),
                None => return Err((start, "no ] for this [")),
                Some(_) => return Err((self.at, "a list has AS numbers and ranges of them only")),
            }
        }
        self.at += 1;
        // A list of single digits is what people write who mean letters.
        let digits = matches!(
            ranges[..],
            [AsnRange {
                low: Asn(0),
                high: Asn(9)
            }]
        );
        if digits {
            return Err((start, "letters are AS numbers here, for any AS write ."));
        }
        Ok(Node::One(if negated {
            Class::NotIn(ranges)
        } else {
            Class::In(ranges)
        }))
    }

    fn range(&mut self) -> Result<AsnRange, Problem> {
        let start = self.at;
        let low = self.number()?;
        let high = if self.take(b'-') { self.number()? } else { low };
        if low > high {
            return Err((start, "a range that ends before it begins"));
        }
        Ok(AsnRange {
            low: Asn(low),
            high: Asn(high),
        })
    }

    fn number(&mut self) -> Result<u32, Problem> {
        let start = self.at;
        let mut value = 0_u32;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u32::from(digit - b'0')))
                .ok_or((start, "AS numbers go up to 4294967295"))?;
            self.at += 1;
        }
        if self.at == start {
            return Err((start, "a number is missing here"));
        }
        Ok(value)
    }

    fn repeated(&mut self, mut node: Node) -> Result<Node, Problem> {
        loop {
            let (least, most) = match self.peek() {
                Some(b'*') => (0, None),
                Some(b'+') => (1, None),
                Some(b'?') => (0, Some(1)),
                Some(b'{') => {
                    node = self.counted(node)?;
                    continue;
                }
                _ => return Ok(node),
            };
            self.at += 1;
            node = Node::Repeat(Box::new(node), least, most);
            if positions(&node) > POSITIONS {
                return Err((
                    self.at,
                    "more than 120 AS numbers with repetitions written out",
                ));
            }
        }
    }

    fn counted(&mut self, node: Node) -> Result<Node, Problem> {
        let start = self.at;
        self.at += 1;
        let least = self.number()? as usize;
        let most = match self.take(b',') {
            false => Some(least),
            true if self.peek() == Some(b'}') => None,
            true => Some(self.number()? as usize),
        };
        if !self.take(b'}') {
            return Err((start, "a repetition is {2}, {2,} or {2,4}"));
        }
        if most.is_some_and(|most| most < least) {
            return Err((start, "a repetition that ends before it begins"));
        }
        let node = Node::Repeat(Box::new(node), least, most);
        if positions(&node) > POSITIONS || least > POSITIONS || most > Some(POSITIONS) {
            return Err((
                start,
                "more than 120 AS numbers with repetitions written out",
            ));
        }
        Ok(node)
    }
}

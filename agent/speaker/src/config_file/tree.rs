//! A YAML text as a tree: what is written, and where.
//!
//! Scalars stay the text that they are written as; what they are depends on who asks ([`super::typed`]). Anchors are put
//! in where they are named, and so are merge keys (`<<`), as far as a budget of nodes goes: a short text can stand for
//! a long one.
//!
//! Not here: the grammar, which is the parser's (`granit_parser`).

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Span};

/// The most nodes that a text may stand for: some ten for each of 100,000 neighbors.
const NODES: usize = 1_000_000;
/// The most collections inside one another.
const DEPTH: usize = 64;

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Place {
    fn of(marker: &granit_parser::Marker) -> Self {
        let number = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
        Self {
            line: number(marker.line()),
            column: number(marker.col()).saturating_add(1),
        }
    }
}

/// What is wrong with a text, and where, as far as it is known.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) words: String,
    pub(super) place: Option<Place>,
}

impl Fault {
    pub(super) fn new(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            place: None,
        }
    }

    /// At this place, unless a closer one is known.
    pub(super) fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }
}

/// A value of the text.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    /// Fields, in the order in which they are written.
    Map(Vec<(Node, Node)>),
    List(Vec<Node>),
    /// A text; a plain one, without quotes, may also be a number, a truth value or nothing.
    Scalar {
        text: String,
        is_plain: bool,
    },
}

impl Node {
    /// The value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        let Value::Map(fields) = &self.value else {
            return None;
        };
        let found = fields.iter().find(|(key, _)| key.text() == Some(name));
        found.map(|(_, value)| value)
    }

    /// The entry of a list.
    pub(super) fn entry(&self, index: usize) -> Option<&Self> {
        match &self.value {
            Value::List(entries) => entries.get(index),
            _ => None,
        }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether nothing is written where a value could be.
    pub(super) fn is_nothing(&self) -> bool {
        match &self.value {
            Value::Scalar { text, is_plain } => {
                *is_plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::Map(fields) => fields.iter().map(|(k, v)| k.count() + v.count()).sum(),
            Value::List(entries) => entries.iter().map(Self::count).sum(),
            Value::Scalar { .. } => 0,
        }
    }
}

/// Reads a text of one document.
///
/// # Errors
/// A text that is no YAML, has several documents, a field twice, or stands for too much.
pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
    };
    let mut root = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd => {}
            Event::DocumentStart(..) | Event::DocumentEnd => {}
            _ if root.is_some() => {
                let words = "a second document begins here; one is read";
                return Err(Fault::new(words).at(Place::of(&span.start)));
            }
            event => root = Some(reader.node(event, span, 0)?),
        }
    }
    Ok(root.unwrap_or_else(|| nothing(Place { line: 1, column: 1 })))
}

fn nothing(place: Place) -> Node {
    let value = Value::Scalar {
        text: String::new(),
        is_plain: true,
    };
    Node { place, value }
}

struct Reader<'t> {
    parser: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    /// The next event that is not a comment.
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Fault> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok(event)) => return Ok(Some(event)),
                Some(Err(error)) => {
                    return Err(Fault::new(error.info()).at(Place::of(error.marker())));
                }
                None => return Ok(None),
            }
        }
    }

    fn inside(&mut self, place: Place) -> Result<(Event<'t>, Span), Fault> {
        let next = self.next()?;
        next.ok_or_else(|| Fault::new("the text ends in the middle").at(place))
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fault> {
        let place = Place::of(&span.start);
        if depth > DEPTH {
            let words = format!("more than {DEPTH} lists and mappings inside one another");
            return Err(Fault::new(words).at(place));
        }
        let anchor = event.anchor_id().unwrap_or_default();
        let value = match event {
            Event::Scalar(text, style, _, tag) => Value::Scalar {
                text: text.into_owned(),
                is_plain: style == ScalarStyle::Plain
                    && !tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str")),
            },
            Event::SequenceStart(..) => Value::List(self.list(place, depth)?),
            Event::MappingStart(..) => Value::Map(self.map(place, depth)?),
            Event::Alias(id) => {
                let named = self.anchors.get(&id).cloned();
                let mut node =
                    named.ok_or_else(|| Fault::new("this names what it is part of").at(place))?;
                self.take(node.count(), place)?;
                node.place = place;
                return Ok(node);
            }
            _ => return Err(Fault::new("no value is written here").at(place)),
        };
        self.take(1, place)?;
        let node = Node { place, value };
        // 0 is none.
        if anchor > 0 {
            self.take(node.count(), place)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn take(&mut self, nodes: usize, place: Place) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > NODES {
            let words = format!("the text stands for more than {NODES} values");
            return Err(Fault::new(words).at(place));
        }
        Ok(())
    }

    fn list(&mut self, place: Place, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut entries = Vec::new();
        loop {
            match self.inside(place)? {
                (Event::SequenceEnd, _) => return Ok(entries),
                (event, span) => entries.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, place: Place, depth: usize) -> Result<Vec<(Node, Node)>, Fault> {
        let mut fields: Vec<(Node, Node)> = Vec::new();
        let mut known = HashSet::new();
        let mut merged = Vec::new();
        loop {
            let key = match self.inside(place)? {
                (Event::MappingEnd, _) => break,
                (event, span) => self.node(event, span, depth + 1)?,
            };
            let (event, span) = self.inside(place)?;
            let value = self.node(event, span, depth + 1)?;
            let Some(name) = key.text().map(str::to_owned) else {
                return Err(Fault::new("the name of a field is needed here").at(key.place));
            };
            if name == "<<" {
                merged.push(value);
            } else if !known.insert(name) {
                return Err(Fault::new("a field of this name is there already").at(key.place));
            } else {
                fields.push((key, value));
            }
        }
        for merged in merged {
            for (key, value) in fields_of(merged)? {
                let name = key.text().unwrap_or_default().to_owned();
                // What is written goes before what is merged, and what is merged first before the rest.
                if known.insert(name) {
                    fields.push((key, value));
                }
            }
        }
        Ok(fields)
    }
}

/// The fields that a merge key names.
fn fields_of(merged: Node) -> Result<Vec<(Node, Node)>, Fault> {
    match merged.value {
        Value::Map(fields) => Ok(fields),
        Value::List(entries) => {
            let all: Result<Vec<_>, _> = entries.into_iter().map(fields_of).collect();
            Ok(all?.into_iter().flatten().collect())
        }
        Value::Scalar { .. } => Err(Fault::new("<<: a mapping is needed here").at(merged.place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (String, Option<(u64, u64)>) {
        let fault = read(text).unwrap_err();
        let place = fault.place.map(|place| (place.line, place.column));
        (fault.words, place)
    }

    #[test]
    fn anchors_and_merge_keys_are_put_in() {
        let text = "base: &base {a: 1, b: 2}\nuse:\n  <<: *base\n  b: 3\nlist: [*base]\n";
        let tree = read(text).unwrap();
        let used = tree.field("use").unwrap();
        assert_eq!(used.field("a").unwrap().text(), Some("1"));
        assert_eq!(used.field("b").unwrap().text(), Some("3"));
        let entry = tree.field("list").unwrap().entry(0).unwrap();
        assert_eq!(entry.field("b").unwrap().text(), Some("2"));
        assert_eq!(entry.place, Place { line: 5, column: 8 });
    }

    #[test]
    fn what_is_no_tree_is_told_with_its_place() {
        for (text, words, place) in [
            (
                "a: 1\nb: 2\na: 3\n",
                "a field of this name is there already",
                (3, 1),
            ),
            ("a: 1\n---\nb: 2\n", "a second document", (3, 1)),
            ("[a]: 1\n", "the name of a field", (1, 1)),
            ("a:\n  <<: 1\n", "<<: a mapping", (2, 7)),
        ] {
            let (said, at) = wrong(text);
            assert!(said.starts_with(words), "{text}: {said}");
            assert_eq!(at, Some(place), "{text}: {said}");
        }
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(wrong(&deep).0.contains("inside one another"));
    }

    #[test]
    fn a_short_text_cannot_stand_for_a_long_one() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{before}]\n");
        }
        assert!(wrong(&text).0.contains("stands for more than"));
    }

    #[test]
    fn nothing_is_a_tree() {
        for text in ["", "\n", "# a word\n", "---\n"] {
            assert!(read(text).unwrap().is_nothing(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_ends_in_a_panic(text in "[-a-c:#&*<!{}\\[\\],'\"|>%@ \n\t0-9~é]{0,60}") {
            let _ = read(&text);
        }
    }
}

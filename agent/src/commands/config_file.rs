//! Reads the speaker's configuration file, with errors that name the line.
//!
//! A mistake in the form is found by the YAML reader, one in the meaning by the speaker, which names the field and knows
//! nothing of lines; the line is looked up here. Neither kind shows the line when it may hold a secret, nor any other
//! line: what is said here ends in logs.
//!
//! Not here: what a configuration means (`margay_bgp::speaker::daemon`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use margay_bgp::speaker::daemon::File;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Lines with one of these words are not shown.
const SECRET: [&str; 3] = ["password", "secret", "key"];

/// Reads and checks a configuration.
///
/// # Errors
/// A file that cannot be read, or is wrong: `--config FILE:LINE:COLUMN: FIELD: what is wrong`, with the line and a caret
/// below where it cannot hold a secret.
pub(super) fn read(path: &Path) -> Result<File, String> {
    let file = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("--config {file}: {error}"))?;
    parse(&text).map_err(|mistake| format!("--config {file}{mistake}"))
}

/// As [`read`], of a text.
fn parse(text: &str) -> Result<File, Mistake> {
    let file: File = from_yaml(text)?;
    let checked = match file.speaker_config() {
        Ok(_) => file.monitor_config().map(drop),
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => Ok(file),
        Err(error) => Err(Mistake::in_meaning(text, error.to_string())),
    }
}

fn from_yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|at| (at.line(), at.column()));
        let words = error.to_string();
        // The place is said first here, as compilers do.
        let words = match place.map(|(line, column)| format!(" at line {line}, column {column}")) {
            Some(place) => words.replace(&place, ""),
            None => words,
        };
        Mistake::at(text, place, words)
    })
}

/// What is wrong, and where; begins with a colon.
#[derive(Debug)]
struct Mistake {
    place: Option<(u64, u64)>,
    /// The line, if it may be shown.
    line: Option<String>,
    words: String,
}

impl Mistake {
    fn at(text: &str, place: Option<(u64, u64)>, words: String) -> Self {
        let index = place.and_then(|(line, _)| usize::try_from(line).ok()?.checked_sub(1));
        let line = index.and_then(|index| text.lines().nth(index));
        let line = line.filter(|line| {
            let lower = line.to_lowercase();
            !SECRET.iter().any(|word| lower.contains(word))
        });
        Self {
            place,
            line: line.map(str::to_owned),
            words,
        }
    }

    fn in_meaning(text: &str, words: String) -> Self {
        let tree = from_yaml::<Spanned<Node>>(text).ok();
        let place = tree.map(|tree| tree_place(&tree, &words));
        Self::at(text, place, words)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.words)?;
        if let (Some((_, column)), Some(line)) = (self.place, &self.line) {
            let indent = usize::try_from(column).unwrap_or(1).saturating_sub(1);
            write!(f, "\n  {line}\n  {:indent$}^", "")?;
        }
        Ok(())
    }
}

/// A file as it is written, with the places of its values.
#[derive(Debug)]
enum Node {
    Map(BTreeMap<String, Spanned<Node>>),
    List(Vec<Spanned<Node>>),
    Value(String),
}

/// Where what a message begins with is written: `neighbors[2].holdTime: …`, or `neighbor 10.0.0.1: holdTime: …`. Of a field
/// that is not written, where the object is that should have it.
fn tree_place(tree: &Spanned<Node>, message: &str) -> (u64, u64) {
    let mut place = tree;
    let mut rest = message;
    if let Some(after) = message.strip_prefix("neighbor ") {
        let after = after.strip_prefix("range ").unwrap_or(after);
        let (whom, field) = after.split_once(": ").unwrap_or((after, ""));
        if let Some(found) = neighbor(tree, whom) {
            place = found;
            rest = field;
        }
    }
    let end = rest.find([' ', ':']).unwrap_or(rest.len());
    let path = rest.get(..end).unwrap_or_default();
    for step in path.split(['.', '[']) {
        let next = match &place.value {
            Node::Map(fields) => fields.get(step),
            Node::List(entries) => {
                let index = step.strip_suffix(']').and_then(|step| step.parse().ok());
                index.and_then(|index: usize| entries.get(index))
            }
            Node::Value(_) => None,
        };
        let Some(next) = next else { break };
        place = next;
    }
    (place.referenced.line(), place.referenced.column())
}

/// The entry about this address, range or interface.
fn neighbor<'a>(tree: &'a Spanned<Node>, whom: &str) -> Option<&'a Spanned<Node>> {
    let Node::Map(fields) = &tree.value else {
        return None;
    };
    let Node::List(entries) = &fields.get("neighbors")?.value else {
        return None;
    };
    entries.iter().find(|entry| {
        let Node::Map(fields) = &entry.value else {
            return false;
        };
        ["address", "range", "interface"].into_iter().any(|field| {
            let value = fields.get(field).map(|value| &value.value);
            matches!(value, Some(Node::Value(text)) if text == whom)
        })
    })
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            fields.insert(name, value);
        }
        Ok(Node::Map(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Node::List(entries))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Value(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Value(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Value(String::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    const HEAD: &str = "asn: 65000\nrouterId: 10.0.0.1\n";

    fn error(more: &str) -> String {
        parse(&format!("{HEAD}{more}")).unwrap_err().to_string()
    }

    #[test]
    fn every_mistake_has_its_line() {
        let peer = "neighbors:\n- address: 10.0.0.2\n  asn: 65001\n";
        let mut wrong = String::new();
        for (more, begins) in [
            ("holdtime: 3\n".to_owned(), ":3:1: "),
            ("neighbors: [\n".to_owned(), ":3:12: "),
            (
                format!("{peer}  holdTime: 2\n"),
                ":6:13: neighbor 10.0.0.2: holdTime: 2 s is not allowed",
            ),
            (format!("{peer}  bfd: {{interval: 1}}\n"), ":6:"),
            (
                "neighbors:\n- address: 10.0.0.2\n".to_owned(),
                ":4:3: neighbors[0].asn: say a number",
            ),
            (
                format!("{peer}- address: 10.0.0.2\n  asn: 3\n"),
                ":6:12: neighbors[1].address: 10.0.0.2 is there already",
            ),
            (
                format!("{peer}  import: unheard\n"),
                ":6:11: neighbors[0].import: no filter named",
            ),
            (
                "announce:\n- {prefix: 10.1.0.0/24}\n- {prefix: 10.1.0.0/24}\n".to_owned(),
                ":5:12: announce[1].prefix: 10.1.0.0/24 is there already",
            ),
            (
                "prefixLists:\n  ours:\n  - 10.0.0.0/8 le 4\n".to_owned(),
                ":5:5: ",
            ),
            (
                "mrt:\n  rib:\n    path: /tmp/r\n    interval: 9\n".to_owned(),
                ":6:15: mrt.rib.interval: must be at least 10",
            ),
            ("record: /\n".to_owned(), ":3:9: record: "),
            (
                "multipath: {max: 0}\n".to_owned(),
                ":3:18: multipath.max: 0 paths are not enough",
            ),
        ] {
            let error = error(&more);
            if !error.starts_with(begins) {
                wrong += &format!("{more}{begins}\n{error}\n\n");
            }
        }
        assert!(wrong.is_empty(), "{wrong}");
    }

    #[test]
    fn the_line_is_shown_with_a_caret() {
        let error = error("mrt: {rib: {path: /tmp/r, interval: 9}}\n");
        let expected =
            "\n  mrt: {rib: {path: /tmp/r, interval: 9}}\n                                      ^";
        assert!(error.ends_with(expected), "{error}");
    }

    #[test]
    fn no_secret_is_in_an_error() {
        for more in [
            "password: hunter2\n  unknown: 1\n",
            "unknown: 1\n  password: hunter2\n",
            "password: [hunter2]\n",
            "password: {hunter2: 1}\n",
            "passwordFile: /a\n  password: hunter2\n",
            "tcpAo: {keys: [{id: 1, sceret: hunter2}]}\n",
            "password: \"hunter2\n",
        ] {
            let error = error(&format!(
                "neighbors:\n- address: 10.0.0.2\n  asn: 65001\n  {more}"
            ));
            assert!(!error.contains("hunter2"), "{more}\n{error}");
        }
    }
}

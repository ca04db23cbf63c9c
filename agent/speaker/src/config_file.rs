//! Reads the speaker's configuration file, with errors that name the line.
//!
//! The text becomes a tree ([`tree`]), the tree the file's types ([`typed`]). What does not fit is found at its place; a
//! mistake in the meaning is found by the speaker, which names the field and knows nothing of lines, and the line is looked
//! up here. Neither kind shows the line when it may hold a secret, nor any other line: what is said here ends in logs.
//!
//! Not here: what a configuration means (`margay_bgp::speaker::daemon`).

mod tree;
mod typed;

use std::fmt;
use std::path::Path;

use margay_bgp::speaker::daemon::File;

use tree::{Fault, Node, Place};

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
    let in_form = |fault: Fault| Mistake::at(text, fault.place, fault.words);
    let tree = tree::read(text).map_err(in_form)?;
    let file: File = typed::typed(&tree).map_err(in_form)?;
    let checked = match file.speaker_config() {
        Ok(_) => file.monitor_config().map(drop),
        Err(error) => Err(error),
    };
    match checked {
        Ok(()) => Ok(file),
        Err(error) => {
            let words = error.to_string();
            let place = place_of(&tree, &words);
            Err(Mistake::at(text, Some(place), words))
        }
    }
}

/// What is wrong, and where; begins with a colon.
#[derive(Debug)]
struct Mistake {
    place: Option<Place>,
    /// The line, if it may be shown.
    line: Option<String>,
    words: String,
}

impl Mistake {
    fn at(text: &str, place: Option<Place>, words: String) -> Self {
        let index = place.and_then(|place| usize::try_from(place.line).ok()?.checked_sub(1));
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
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        write!(f, ": {}", self.words)?;
        if let (Some(place), Some(line)) = (self.place, &self.line) {
            let indent = usize::try_from(place.column).unwrap_or(1).saturating_sub(1);
            write!(f, "\n  {line}\n  {:indent$}^", "")?;
        }
        Ok(())
    }
}

/// Where what a message begins with is written: `neighbors[2].holdTime: …`, or `neighbor 10.0.0.1: holdTime: …`. Of a field
/// that is not written, where the object is that should have it.
fn place_of(tree: &Node, message: &str) -> Place {
    let mut node = tree;
    let mut rest = message;
    if let Some(after) = message.strip_prefix("neighbor ") {
        let after = after.strip_prefix("range ").unwrap_or(after);
        let (whom, field) = after.split_once(": ").unwrap_or((after, ""));
        if let Some(found) = neighbor(tree, whom) {
            node = found;
            rest = field;
        }
    }
    let end = rest.find([' ', ':']).unwrap_or(rest.len());
    let path = rest.get(..end).unwrap_or_default();
    for step in path.split(['.', '[']) {
        let index = step.strip_suffix(']').and_then(|step| step.parse().ok());
        let next = match index {
            Some(index) => node.entry(index),
            None => node.field(step),
        };
        let Some(next) = next else { break };
        node = next;
    }
    node.place
}

/// The entry about this address, range or interface.
fn neighbor<'a>(tree: &'a Node, whom: &str) -> Option<&'a Node> {
    let entries = tree.field("neighbors")?;
    let mut entries = (0..).map_while(|index| entries.entry(index));
    entries.find(|entry| {
        let names = ["address", "range", "interface"].into_iter();
        let mut names = names.filter_map(|field| entry.field(field)?.text());
        names.any(|name| name == whom)
    })
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
            "password: {hunter2: 1, hunter2: 2}\n",
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

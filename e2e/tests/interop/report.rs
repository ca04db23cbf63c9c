//! The page docs/interop.md: written from the outcomes, and compared with what is there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::cells::Row;
use crate::daemons::Kind;
use crate::matrix::Outcome;

/// By daemon and row.
pub type Outcomes = BTreeMap<(Kind, usize), Outcome>;

const HEAD: &str = "# Interoperability

What `margay bgp` was seen to do with the BGP daemons of Debian 12, each in network namespaces of its own. Written by
`make test-interop UPDATE=1` from a run of the tests in `e2e/tests/interop`, and compared with a run by `make test-interop`;
do not edit it by hand.

";

/// Writes the page, or compares it; whether it agrees.
pub fn page(
    rows: &[Row],
    versions: &[(Kind, String)],
    outcomes: &Outcomes,
    update: bool,
) -> Result<bool, String> {
    let text = render(rows, versions, outcomes);
    let path = path();
    if update {
        std::fs::write(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("interop: wrote {}", path.display());
        return Ok(true);
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    if there == text {
        return Ok(true);
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (old, new) = (lines(&there), lines(&text));
    for line in old.iter().filter(|line| !new.contains(line)) {
        println!("interop: - {line}");
    }
    for line in new.iter().filter(|line| !old.contains(line)) {
        println!("interop: + {line}");
    }
    println!(
        "interop: docs/interop.md says something else than this run: make test-interop UPDATE=1"
    );
    Ok(false)
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/interop.md")
}

fn render(rows: &[Row], versions: &[(Kind, String)], outcomes: &Outcomes) -> String {
    let mut text = HEAD.to_owned();
    text.push_str("| daemon | Debian's version |\n|---|---|\n");
    for (kind, version) in versions {
        let _ = writeln!(text, "| {} | {version} |", kind.name());
    }
    let mut notes: Vec<String> = Vec::new();
    let mut group = "";
    for (index, row) in rows.iter().enumerate() {
        if row.group != group {
            group = row.group;
            let names: Vec<_> = versions.iter().map(|(kind, _)| kind.name()).collect();
            let _ = write!(text, "\n## {group}\n\n| | {} |\n|---|", names.join(" | "));
            text.push_str(&"---|".repeat(names.len()));
            text.push('\n');
        }
        let cells: Vec<_> = versions
            .iter()
            .map(|(kind, _)| cell(outcomes.get(&(*kind, index)), &mut notes))
            .collect();
        let _ = writeln!(text, "| {} | {} |", row.title, cells.join(" | "));
    }
    if !notes.is_empty() {
        text.push_str("\n## Notes\n\n");
        for (index, note) in notes.iter().enumerate() {
            let _ = writeln!(text, "{}. {note}", index + 1);
        }
    }
    text
}

fn cell(outcome: Option<&Outcome>, notes: &mut Vec<String>) -> String {
    let (word, why) = match outcome {
        Some(Outcome::Yes) => return "yes".to_owned(),
        Some(Outcome::No(why)) => ("**no**", why.as_str()),
        Some(Outcome::Pending(why)) => ("pending", why.as_str()),
        Some(Outcome::Unsupported(why)) => ("not in the daemon", *why),
        None => return "not run".to_owned(),
    };
    let why = why.replace('\n', " ");
    let number = notes
        .iter()
        .position(|note| *note == why)
        .unwrap_or_else(|| {
            notes.push(why);
            notes.len() - 1
        });
    format!("{word} ({})", number + 1)
}

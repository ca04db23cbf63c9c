//! What an allocator's callers were told, line by line: written before anything is asked for and
//! after each answer, so that it is true whenever the process is killed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// What happened to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Its caller was told an address.
    Given,
    /// Its caller is about to ask for the release: from here on it has no claim.
    Returning,
    /// The release was answered.
    Returned,
}

/// A line of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub time: u128,
    pub mark: Mark,
    pub node: String,
    pub sandbox: String,
    pub address: IpAddr,
}

/// A journal that is written.
pub struct Journal {
    file: Mutex<File>,
}

impl Journal {
    pub fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Self {
            file: Mutex::new(file.unwrap()),
        }
    }

    pub fn write(&self, mark: Mark, node: &str, sandbox: &str, address: IpAddr) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let letter = match mark {
            Mark::Given => '+',
            Mark::Returning => '-',
            Mark::Returned => '=',
        };
        let line = format!("{} {letter} {node} {sandbox} {address}\n", time.as_nanos());
        // One write: a process that is killed leaves whole lines.
        self.file
            .lock()
            .unwrap()
            .write_all(line.as_bytes())
            .unwrap();
    }
}

/// The lines of a journal, in the order of their times.
pub fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines: Vec<Line> = text.lines().filter_map(parse).collect();
    lines.sort_by_key(|line| line.time);
    lines
}

fn parse(text: &str) -> Option<Line> {
    let mut words = text.split(' ');
    Some(Line {
        time: words.next()?.parse().ok()?,
        mark: match words.next()? {
            "+" => Mark::Given,
            "-" => Mark::Returning,
            _ => Mark::Returned,
        },
        node: words.next()?.to_owned(),
        sandbox: words.next()?.to_owned(),
        address: words.next()?.parse().ok()?,
    })
}

/// How many operations were answered: addresses given and releases done.
pub fn operations(lines: &[Line]) -> usize {
    let done = lines.iter().filter(|line| line.mark != Mark::Returning);
    done.count()
}

/// The sandboxes whose release was not answered, with their nodes and addresses.
pub fn unreturned(lines: &[Line]) -> BTreeMap<String, (String, IpAddr)> {
    let mut open = BTreeMap::new();
    for line in lines {
        if line.mark == Mark::Returned {
            open.remove(&line.sandbox);
        } else {
            open.insert(line.sandbox.clone(), (line.node.clone(), line.address));
        }
    }
    open
}

/// Addresses that two callers had a claim to at the same time, in words.
pub fn held_twice(journals: &[Vec<Line>]) -> Vec<String> {
    let mut all: Vec<&Line> = journals.iter().flatten().collect();
    all.sort_by_key(|line| line.time);
    let mut holders: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut twice = Vec::new();
    for line in all {
        match line.mark {
            Mark::Given => {
                if let Some(other) = holders.insert(line.address, &line.sandbox) {
                    let (address, sandbox) = (line.address, &line.sandbox);
                    twice.push(format!("{address}: {other} has it, {sandbox} was given it"));
                }
            }
            Mark::Returning => {
                if holders.get(&line.address) == Some(&line.sandbox.as_str()) {
                    holders.remove(&line.address);
                }
            }
            Mark::Returned => {}
        }
    }
    twice
}

/// That the check finds what it is there for.
pub fn ensure_it_finds() {
    let line = |time, mark, sandbox: &str| Line {
        time,
        mark,
        node: "n".into(),
        sandbox: sandbox.into(),
        address: "10.0.0.1".parse().unwrap(),
    };
    let good = vec![
        line(1, Mark::Given, "a"),
        line(2, Mark::Returning, "a"),
        line(4, Mark::Returned, "a"),
    ];
    assert!(held_twice(&[good.clone(), vec![line(3, Mark::Given, "b")]]).is_empty());
    let bad = vec![line(1, Mark::Given, "b")];
    assert_eq!(held_twice(&[good, bad]).len(), 1);
}

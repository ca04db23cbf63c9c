//! Runs the cells, some at once, and says what came of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cells::{AGAIN, Ground, Row, rows};
use crate::daemons::Kind;
use crate::fabric::{Fabric, sweep};
use crate::ours::PENDING;
use crate::report;

/// How often a cell is done at most, where a known fault of the daemon spoils it.
const ATTEMPTS: usize = 3;

/// What came of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Yes,
    No(String),
    /// A part of ours is not there yet.
    Pending(String),
    /// The daemon cannot, and why.
    Unsupported(&'static str),
}

/// The command line.
#[derive(Debug, Default)]
pub struct Options {
    update: bool,
    jobs: Option<usize>,
    wanted: Vec<String>,
}

impl Options {
    pub fn read(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--update" => options.update = true,
                "--jobs" => {
                    let jobs = arguments
                        .next()
                        .and_then(|jobs| jobs.parse().ok())
                        .filter(|jobs| *jobs > 0);
                    options.jobs = Some(jobs.ok_or("--jobs wants a number")?);
                }
                other if other.starts_with('-') => return Err(format!("unknown option {other}")),
                other => options.wanted.push(other.to_owned()),
            }
        }
        Ok(options)
    }

    /// `bird`, `bird/md5` or `md5`.
    fn wants(&self, kind: Kind, row: &Row) -> bool {
        let named = |wanted: &String| match wanted.split_once('/') {
            Some((daemon, id)) => kind.name() == daemon && (id == row.id || id == "*"),
            None => wanted == kind.name() || wanted == row.id,
        };
        self.wanted.is_empty() || self.wanted.iter().any(named)
    }
}

/// One cell that is to be run.
struct Job {
    kind: Kind,
    row: usize,
}

/// Runs what is wanted; whether all is well.
pub fn run(options: &Options) -> Result<bool, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("run it as root: it builds network namespaces".to_owned());
    }
    let margay = margay()?;
    let versions: Vec<_> = Kind::ALL
        .into_iter()
        .map(|kind| kind.version().map(|v| (kind, v)))
        .collect::<Result<_, _>>()?;
    sweep();
    let rows = rows();
    let started = Instant::now();
    let mut outcomes = Vec::new();
    let mut jobs = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        for kind in Kind::ALL
            .into_iter()
            .filter(|kind| options.wants(*kind, row))
        {
            match (row.lacks)(kind) {
                Some(why) => outcomes.push(((kind, index), Outcome::Unsupported(why))),
                None => jobs.push(Job { kind, row: index }),
            }
        }
    }
    // The last one is taken first.
    jobs.sort_by_key(|job| rows[job.row].seconds);
    let count = jobs.len();
    let (queue, results) = (Mutex::new(jobs), Mutex::new(outcomes));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.unwrap_or(8) {
            scope.spawn(|| {
                loop {
                    let Some(job) = queue.lock().unwrap().pop() else {
                        return;
                    };
                    let row = &rows[job.row];
                    let (outcome, took) = run_cell(job.kind, row, &margay);
                    say(job.kind, row, &outcome, took);
                    results.lock().unwrap().push(((job.kind, job.row), outcome));
                }
            });
        }
    });
    let outcomes: report::Outcomes = results.into_inner().unwrap().into_iter().collect();
    let bad = outcomes
        .values()
        .filter(|outcome| matches!(outcome, Outcome::No(_) | Outcome::Pending(_)))
        .count();
    println!(
        "interop: {count} cells in {:.0} s, {bad} of them not as they must be",
        started.elapsed().as_secs_f32()
    );
    if !options.wanted.is_empty() {
        return Ok(bad == 0);
    }
    let agrees = report::page(&rows, &versions, &outcomes, options.update)?;
    Ok(bad == 0 && agrees)
}

/// The binary, where cargo puts it or where MARGAY_BIN_DIR says.
fn margay() -> Result<PathBuf, String> {
    let folder = match std::env::var_os("MARGAY_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        // target/PROFILE/deps/interop-HASH
        None => {
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            own.ancestors().nth(2).ok_or("no folder above")?.to_owned()
        }
    };
    let program = folder.join("margay");
    if program.exists() {
        Ok(program)
    } else {
        Err(format!(
            "{} is not there: build the workspace",
            program.display()
        ))
    }
}

fn run_cell(kind: Kind, row: &Row, margay: &std::path::Path) -> (Outcome, Duration) {
    let started = Instant::now();
    let attempt = || -> Result<(), String> {
        let ground = Ground {
            kind,
            margay: margay.to_owned(),
            fabric: Fabric::new()?,
        };
        (row.run)(&ground)
    };
    let attempt = || {
        catch_unwind(AssertUnwindSafe(attempt))
            .unwrap_or_else(|_| Err("the test itself panicked".to_owned()))
    };
    let mut result = attempt();
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if error.starts_with(AGAIN) => {
                println!("{}/{}: the daemon's fault, {error}", kind.name(), row.id);
                result = attempt();
            }
            _ => break,
        }
    }
    let outcome = match result {
        Ok(()) => Outcome::Yes,
        Err(error) => match error.strip_prefix(PENDING) {
            Some(what) => Outcome::Pending(what.to_owned()),
            None => Outcome::No(error),
        },
    };
    (outcome, started.elapsed())
}

fn say(kind: Kind, row: &Row, outcome: &Outcome, took: Duration) {
    let (word, why) = match outcome {
        Outcome::Yes => ("ok", ""),
        Outcome::No(why) => ("FAILED", why.as_str()),
        Outcome::Pending(why) => ("PENDING", why.as_str()),
        Outcome::Unsupported(why) => ("-", *why),
    };
    println!(
        "{word:8} {:5.1} s  {}/{}  {why}",
        took.as_secs_f32(),
        kind.name(),
        row.id
    );
}

//! Tables and the picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

use crate::cases::{Case, Figures};
use crate::daemon::Kind;
use crate::failover::Failure;

/// Everything measured.
#[derive(Debug, Default)]
pub(crate) struct Results {
    figures: BTreeMap<(Case, Kind), Vec<Figures>>,
    errors: BTreeMap<(Case, Kind), String>,
    failures: BTreeMap<(Failure, Kind), Vec<Option<f64>>>,
    failure_errors: BTreeMap<(Failure, Kind), String>,
}

impl Results {
    pub(crate) fn add(&mut self, kind: Kind, case: Case, outcome: Result<Figures>) {
        match outcome {
            Ok(figures) => self.figures.entry((case, kind)).or_default().push(figures),
            Err(error) => drop(self.errors.insert((case, kind), format!("{error:#}"))),
        }
    }

    /// Whether it failed and never came through: it will not do so the next time.
    pub(crate) fn gave_up(&self, kind: Kind, case: Case) -> bool {
        self.errors.contains_key(&(case, kind)) && !self.figures.contains_key(&(case, kind))
    }

    pub(crate) fn add_failure(
        &mut self,
        kind: Kind,
        failure: Failure,
        outcome: Result<Option<f64>>,
    ) {
        match outcome {
            Ok(after) => self
                .failures
                .entry((failure, kind))
                .or_default()
                .push(after),
            Err(error) => {
                drop(
                    self.failure_errors
                        .insert((failure, kind), format!("{error:#}")),
                );
            }
        }
    }

    /// Whether this failure has been measured often enough for what it takes.
    pub(crate) fn is_slow(&self, kind: Kind, failure: Failure, run: usize) -> bool {
        let never = self.failures.get(&(failure, kind));
        let never = never.is_some_and(|all| all.iter().any(Option::is_none));
        let failed = self.failure_errors.contains_key(&(failure, kind));
        never || failed || (failure == Failure::Hold && run >= 3)
    }
}

/// One column of a table.
#[derive(Clone, Copy)]
enum What {
    Time,
    Cpu,
    Memory,
}

impl What {
    fn of(self, figures: &Figures) -> f64 {
        match self {
            Self::Time => figures.time,
            Self::Cpu => figures.cpu,
            Self::Memory => figures.memory,
        }
    }
}

/// Median, least and most.
#[derive(Clone, Copy)]
struct Spread {
    middle: f64,
    least: f64,
    most: f64,
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let half = values.len() / 2;
    let middle = if values.len().is_multiple_of(2) {
        f64::midpoint(values[half - 1], values[half])
    } else {
        values[half]
    };
    Some(Spread {
        middle,
        least,
        most,
    })
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// What is written.
pub(crate) struct Page<'a> {
    pub(crate) results: &'a Results,
    pub(crate) versions: Vec<(Kind, String)>,
    pub(crate) count: usize,
    pub(crate) gobgp_count: usize,
    pub(crate) took: Duration,
}

impl Page<'_> {
    fn spread(&self, case: Case, kind: Kind, what: What) -> Option<Spread> {
        let all = self.results.figures.get(&(case, kind))?;
        spread(all.iter().map(|figures| what.of(figures)).collect())
    }

    /// The ratio to BIRD; none where the two were not given the same.
    fn ratio(&self, case: Case, kind: Kind, what: What) -> Option<f64> {
        let whole = matches!(
            case,
            Case::Packed | Case::Diverse8 | Case::Scattered | Case::Transit
        );
        if whole && kind == Kind::Gobgp && self.gobgp_count != self.count {
            return None;
        }
        let own = self.spread(case, kind, what)?.middle;
        let bird = self.spread(case, Kind::Bird, what)?.middle;
        (bird > 0.0).then(|| own / bird)
    }

    fn cell(&self, case: Case, kind: Kind, what: What, unit: f64) -> String {
        let Some(spread) = self.spread(case, kind, what) else {
            return "-".to_owned();
        };
        let text = |value: f64| short(value / unit);
        let mut cell = format!(
            "{} ({}–{})",
            text(spread.middle),
            text(spread.least),
            text(spread.most)
        );
        if kind != Kind::Bird
            && let Some(ratio) = self.ratio(case, kind, what)
        {
            let _ = write!(cell, " **{ratio:.2}x**");
        }
        cell
    }

    /// All tables.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        let cases = Case::ALL.iter().filter(|case| {
            let mut keys = self.results.figures.keys();
            keys.any(|(measured, _)| measured == *case)
        });
        for case in cases {
            let each = matches!(case, Case::Mesh1000 | Case::Idle1000);
            let (memory, unit) = if each {
                ("kB a peer", 1.0)
            } else {
                ("peak MB", 1000.0)
            };
            let _ = writeln!(
                text,
                "### {}\n\n| | seconds | CPU seconds | {memory} |\n|---|---|---|---|",
                case.title(self.count)
            );
            for (kind, _) in &self.versions {
                let smaller = *kind == Kind::Gobgp
                    && self.gobgp_count != self.count
                    && case.senders() == 1
                    && *case != Case::Kernel;
                let name = if smaller {
                    format!("{} ({} prefixes)", kind.name(), self.gobgp_count)
                } else {
                    kind.name().to_owned()
                };
                if let Some(error) = self.results.errors.get(&(*case, *kind)) {
                    let _ = writeln!(text, "| {name} | {error} | | |");
                }
                if self.results.figures.contains_key(&(*case, *kind)) {
                    let _ = writeln!(
                        text,
                        "| {name} | {} | {} | {} |",
                        self.cell(*case, *kind, What::Time, 1.0),
                        self.cell(*case, *kind, What::Cpu, 1.0),
                        self.cell(*case, *kind, What::Memory, unit)
                    );
                }
            }
            text.push('\n');
        }
        text + &self.failures()
    }

    fn failures(&self) -> String {
        if self.results.failures.is_empty() {
            return String::new();
        }
        let mut text =
            "### From a failure to the withdrawal at a third peer, milliseconds\n\n|".to_owned();
        for (kind, _) in &self.versions {
            let _ = write!(text, " | {}", kind.name());
        }
        text += " |\n|---";
        text += &"|---".repeat(self.versions.len());
        text += "|\n";
        for failure in Failure::ALL {
            let _ = write!(text, "| {}", failure.title());
            for (kind, _) in &self.versions {
                let _ = write!(text, " | {}", self.failure(failure, *kind));
            }
            text += " |\n";
        }
        text + "\n"
    }

    fn failure(&self, failure: Failure, kind: Kind) -> String {
        let key = (failure, kind);
        let Some(all) = self.results.failures.get(&key) else {
            return match self.results.failure_errors.get(&key) {
                Some(_) => "failed".to_owned(),
                None => "-".to_owned(),
            };
        };
        match spread(all.iter().flatten().copied().collect()) {
            None => "none in 8 s".to_owned(),
            Some(spread) => format!(
                "{} ({}–{})",
                short(spread.middle),
                short(spread.least),
                short(spread.most)
            ),
        }
    }

    /// The page.
    pub(crate) fn markdown(&self) -> String {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut text = format!(
            "# BGP, measured\n\nWritten by `make bench-bgp` in {} s: Linux {}, {processors} processors.\n\n",
            self.took.as_secs(),
            kernel.trim()
        );
        for (kind, version) in &self.versions {
            let _ = writeln!(text, "- {}: {version}", kind.name());
        }
        text += "\n![Ratios to BIRD](bgp.svg)\n\n";
        text += "Median (least–most) of the runs, in turn, in one go; in bold the ratio of the medians to BIRD's. Compare within a run only: the spread from run to run is what the machine gives.\n\n";
        text += &self.tables();
        text += METHOD;
        text
    }

    /// The picture: ratios to BIRD on a logarithmic scale.
    pub(crate) fn picture(&self) -> String {
        let columns = [
            ("time", What::Time),
            ("CPU", What::Cpu),
            ("memory", What::Memory),
        ];
        let mut rows = String::new();
        let mut y = 70;
        for case in Case::ALL {
            if self.spread(case, Kind::Bird, What::Cpu).is_none() {
                continue;
            }
            let _ = write!(
                rows,
                "<text x=\"20\" y=\"{}\" font-weight=\"bold\">{}</text>",
                y + 4,
                case.title(self.count)
            );
            y += 18;
            for (kind, _) in self.versions.iter().filter(|(kind, _)| *kind != Kind::Bird) {
                let ratios: Vec<Option<f64>> = columns
                    .iter()
                    .map(|(_, what)| self.ratio(case, *kind, *what))
                    .collect();
                if ratios.iter().all(Option::is_none) {
                    continue;
                }
                let _ = write!(
                    rows,
                    "<text x=\"110\" y=\"{}\" text-anchor=\"end\">{}</text>",
                    y + 10,
                    kind.name()
                );
                for (column, ratio) in ratios.into_iter().enumerate() {
                    rows += &bar(column, y, ratio, *kind == Kind::Margay);
                }
                y += 15;
            }
            y += 14;
        }
        let mut head = String::new();
        for (column, (name, _)) in columns.iter().enumerate() {
            let left = 130 + 270 * column;
            let _ = write!(
                head,
                "<text x=\"{left}\" y=\"48\">{name}, times BIRD's</text><line x1=\"{0}\" y1=\"56\" x2=\"{0}\" y2=\"{y}\" stroke=\"#888\" stroke-dasharray=\"3 3\"/>",
                left + ONE
            );
        }
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 950 {0}\" font-family=\"sans-serif\" font-size=\"11\"><rect width=\"950\" height=\"{0}\" fill=\"#fff\"/><text x=\"20\" y=\"26\" font-size=\"15\">Ratios to BIRD 2 in the same run; left of the line is less than BIRD, logarithmic</text>{head}{rows}</svg>\n",
            y + 10
        )
    }
}

/// Where a ratio of 1 is, from the left of its column.
const ONE: usize = 70;

fn bar(column: usize, y: usize, ratio: Option<f64>, ours: bool) -> String {
    let Some(ratio) = ratio.filter(|ratio| *ratio > 0.0) else {
        return String::new();
    };
    let one = (130 + 270 * column + ONE) as f64;
    let end = one + (ratio.log10() * 70.0).clamp(-70.0, 140.0);
    let (left, width) = (one.min(end), (end - one).abs().max(1.0));
    let colour = if ours { "#1f7a4d" } else { "#b9b4a7" };
    format!(
        "<rect x=\"{left:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"11\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{ratio:.2}</text>",
        one.max(end) + 4.0,
        y + 10
    )
}

const METHOD: &str = "\
## How

Three network namespaces: senders, the daemon under test, a monitor, joined by two veth pairs.
Senders and monitor are threads of one program that shakes hands by hand and then writes octets
made beforehand, so a sender costs next to nothing and is the same for all. eBGP (iBGP for the
reflector and the mesh), IPv4 unicast, hold time 240 s, the daemon waits to be called, everything
is accepted, nothing is given on unless the table says so. No kernel routes but in the table about
them (the others' need a second daemon or cannot be compared, and are left out there). GoBGP gets a
smaller table, since it would take most of the time; it has no ratio there. Margay's program is the
image's `margay-bgp`, linked statically (`scripts/static.sh`), the others are Debian's.

- *seconds*: from the first octet sent to the last prefix counted by the daemon itself (asked over its
  control socket every 10 ms, FRR and OpenBGPD every 50 ms, GoBGP every 300 ms) or, where something
  is given on, to the last prefix seen at the far end. Of the mesh: from the first connection on.
- *CPU seconds*: what the scheduler counted for all the daemon's threads, from before the first octet
  until it is idle. Answering the questions is in it.
- *peak MB*: the sum of VmHWM of the daemon's processes. *kB a peer*: resident memory, of
  the mesh what its sessions add to the same peers configured, of unreachable peers 1,001 less one.
- Received prefixes are /24s from 20.0.0.0/24 on. *Packed*: one attribute set, 256 prefixes a message.
  *8 an attribute set*: a set of 3 to 6 ASes and two communities for every 8 prefixes. *1 a message*: as
  many sets, mixed, 57 MB.
- *Into the kernel*: to the last RTM_NEWROUTE seen by a listener in the daemon's namespace.
- Failures: one route, withdrawn at the monitor. The clock starts just before the system call that
  ends the session; for the link when its RTM_NEWLINK without carrier arrives in the daemon's namespace
  (negative: the withdrawal was faster than the observer); for BFD when the far end, a BIRD, is
  stopped with SIGSTOP, up to 50 ms after its last packet. *Busy*: twice as many endless loops as
  processors, at the usual priority.
";

//! Times of two sides that took turns, as a bench's page shows them: the middle one, the spread,
//! the ratio, and whether that is where it should be.
//!
//! Not here: how anything is measured.

use std::time::Duration;

/// The heading of a table of [`row`]s.
pub const HEADING: &str = "| | Margay | ptp + host-local | ratio of the medians | at most | reached |\n|---|---|---|---|---|---|\n";

fn sorted(times: &[Duration]) -> Vec<f64> {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// The middle one, in milliseconds; of an even number the upper; 0 of none.
pub fn median(times: &[Duration]) -> f64 {
    let times = sorted(times);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Our median as a multiple of theirs.
pub fn ratio(ours: &[Duration], theirs: &[Duration]) -> f64 {
    median(ours) / median(theirs).max(f64::MIN_POSITIVE)
}

/// Median, least and most in milliseconds, with so many digits after the point.
pub fn spread(times: &[Duration], digits: usize) -> String {
    let all = sorted(times);
    let (least, most) = (all.first(), all.last());
    format!(
        "{:.digits$} ({:.digits$}–{:.digits$})",
        median(times),
        least.copied().unwrap_or_default(),
        most.copied().unwrap_or_default()
    )
}

/// Whether a figure is where it should be.
pub fn verdict(good: bool) -> &'static str {
    if good { "yes" } else { "**no**" }
}

/// A row of the table that [`HEADING`] begins, for a ratio that is to be at most `limit`.
pub fn row(
    name: &str,
    ours: &[Duration],
    theirs: &[Duration],
    limit: f64,
    digits: usize,
) -> String {
    let ratio = ratio(ours, theirs);
    format!(
        "| {name} | {} | {} | **{ratio:.2}x** | {limit}x | {} |\n",
        spread(ours, digits),
        spread(theirs, digits),
        verdict(ratio <= limit)
    )
}

/// The machine: its kernel and how many processors it has.
pub fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    format!("Linux {}, {processors} processors", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row() {
        let all = |times: &[u64]| -> Vec<Duration> {
            times.iter().copied().map(Duration::from_millis).collect()
        };
        let (ours, theirs) = (all(&[30, 10, 20]), all(&[40, 20]));
        assert_eq!(
            row("x", &ours, &theirs, 0.4, 0),
            "| x | 20 (10–30) | 40 (20–40) | **0.50x** | 0.4x | **no** |\n"
        );
        assert_eq!(spread(&[], 1), "0.0 (0.0–0.0)");
    }
}

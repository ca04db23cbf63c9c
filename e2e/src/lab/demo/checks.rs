//! What was checked, and what did not hold.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use crate::lab::report::{Screen, Tone};

/// The checks of a demo.
#[derive(Debug)]
pub(super) struct Checks {
    screen: Screen,
    logs: PathBuf,
    held: usize,
    failed: Vec<String>,
}

impl Checks {
    pub(super) fn new(screen: Screen, logs: PathBuf) -> Self {
        Self {
            screen,
            logs,
            held: 0,
            failed: Vec::new(),
        }
    }

    /// A check that holds or not; told at once.
    pub(super) fn that(&mut self, what: &str, holds: bool, expected: &str, seen: &str) {
        let screen = self.screen;
        if holds {
            self.held += 1;
            let mark = screen.paint(Tone::Good, "✓");
            screen.line(&format!("  {mark} {what}"));
            return;
        }
        self.failed.push(what.to_owned());
        let line = format!("  ✗ {what}: expected {expected}, seen {seen}");
        screen.line(&screen.paint(Tone::Bad, &line));
        let logs = format!("    logs: {}", self.logs.display());
        screen.line(&screen.paint(Tone::Bad, &logs));
    }

    /// A number that must be what was expected.
    pub(super) fn equal<T: PartialEq + Display>(&mut self, what: &str, expected: &T, seen: &T) {
        let what = format!("{what} {expected}");
        self.that(
            &what,
            expected == seen,
            &expected.to_string(),
            &seen.to_string(),
        );
    }

    /// A list that must be empty: what is in it was not as it should be.
    pub(super) fn none(&mut self, what: &str, expected: &str, wrong: &[String]) {
        const TOLD: usize = 4;
        let mut seen = wrong
            .iter()
            .take(TOLD)
            .cloned()
            .collect::<Vec<_>>()
            .join("; ");
        if wrong.len() > TOLD {
            seen.push_str(&format!("; and {} more", wrong.len() - TOLD));
        }
        self.that(what, wrong.is_empty(), expected, &seen);
    }

    /// The last words; whether something failed.
    pub(super) fn verdict(&self, took: Duration) -> bool {
        let screen = self.screen;
        let seconds = took.as_secs_f64();
        screen.line("");
        if self.failed.is_empty() {
            let line = format!(
                "All {} checks hold, {seconds:.1} s from nothing.",
                self.held
            );
            screen.line(&screen.paint(Tone::Good, &line));
            return false;
        }
        let total = self.held + self.failed.len();
        let line = format!(
            "{} of {total} checks do not hold ({seconds:.1} s):",
            self.failed.len()
        );
        screen.line(&screen.paint(Tone::Bad, &line));
        for what in &self.failed {
            screen.line(&screen.paint(Tone::Bad, &format!("  ✗ {what}")));
        }
        let line = format!("  logs: {}", self.logs.display());
        screen.line(&screen.paint(Tone::Bad, &line));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_decides() {
        let mut checks = Checks::new(Screen::plain().silenced(), PathBuf::new());
        checks.equal("a", &1, &1);
        checks.none("b", "nothing", &[]);
        assert!(!checks.verdict(Duration::ZERO));
        checks.none("c", "nothing", &["x".to_owned()]);
        assert!(checks.verdict(Duration::ZERO));
        assert_eq!((checks.held, checks.failed.len()), (2, 1));
    }
}

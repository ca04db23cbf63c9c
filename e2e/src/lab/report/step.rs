//! One step under way: a spinner on a terminal, and a line with the time it took.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::screen::{Screen, Tone};

const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
const FRAME: Duration = Duration::from_millis(80);
/// The column in which the times stand.
const TIME_COLUMN: usize = 68;

/// A step under way. Dropped without [`Step::done`], it leaves a mark that it was not finished.
#[derive(Debug)]
pub struct Step {
    screen: Screen,
    text: String,
    start: Instant,
    spinner: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
    finished: bool,
}

impl Step {
    /// Begins a step; `text` says what is being done.
    pub fn begin(screen: Screen, text: impl Into<String>) -> Self {
        let text = text.into();
        let spinner = screen.live.then(|| {
            let stop = Arc::new(AtomicBool::new(false));
            let (seen, words) = (Arc::clone(&stop), text.clone());
            let spin = move || {
                for frame in FRAMES.iter().cycle() {
                    if seen.load(Ordering::Relaxed) {
                        return;
                    }
                    let mark = screen.paint(Tone::Accent, frame);
                    screen.overwrite(&format!("  {mark} {words}"));
                    std::thread::park_timeout(FRAME);
                }
            };
            (stop, std::thread::spawn(spin))
        });
        Self {
            screen,
            text,
            start: Instant::now(),
            spinner,
            finished: false,
        }
    }

    /// Ends the step well, with what came of it in place of what was being done.
    pub fn done(mut self, result: &str) {
        self.end(Tone::Good, "✓", result);
    }

    /// Ends the step badly; the reason is told elsewhere.
    pub fn failed(mut self) {
        let text = self.text.clone();
        self.end(Tone::Bad, "✗", &text);
    }

    fn end(&mut self, tone: Tone, mark: &str, text: &str) {
        self.finished = true;
        if let Some((stop, thread)) = self.spinner.take() {
            stop.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            let _ = thread.join();
            self.screen.overwrite("");
        }
        let line = format(text, self.start.elapsed());
        let (text, time) = line;
        let time = self.screen.paint(Tone::Dim, &time);
        let mark = self.screen.paint(tone, mark);
        self.screen.line(&format!("  {mark} {text}{time}"));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.finished {
            let text = self.text.clone();
            self.end(Tone::Bad, "✗", &text);
        }
    }
}

/// The text padded to the time's column, and the time.
fn format(text: &str, took: Duration) -> (String, String) {
    let width = text.chars().count();
    let padding = TIME_COLUMN.saturating_sub(width).max(2);
    let time = format!("{:>6.2} s", took.as_secs_f64());
    (format!("{text}{}", " ".repeat(padding)), time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stand_in_a_column() {
        let (one, time) = format("short", Duration::from_millis(1234));
        let (other, _) = format("a somewhat longer text — with a dash", Duration::ZERO);
        assert_eq!(one.chars().count(), other.chars().count());
        assert_eq!(time, "  1.23 s");
    }
}

//! [`Tape`]: the lines of a recording, until somebody takes them.

use std::time::Instant;

use super::{Entry, What};

/// Most octets a tape holds. Whoever records takes them after every event.
const ROOM: usize = 64 << 20;

/// Collects the lines of a recording. One with a gap would be of no use: when the lines are not taken in time the recording
/// ends and says so.
#[derive(Debug)]
pub struct Tape {
    began: Instant,
    last: Instant,
    lines: Vec<u8>,
    ended: Option<String>,
}

impl Tape {
    /// An empty tape that begins now.
    #[must_use]
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            last: began,
            lines: Vec::new(),
            ended: None,
        }
    }

    /// Nanoseconds since the recording began.
    #[must_use]
    pub fn since(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.began).as_nanos();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Writes a line.
    pub fn write(&mut self, now: Instant, what: What) {
        if self.ended.is_some() {
            return;
        }
        if self.lines.len() > ROOM {
            return self.end("the lines were not taken in time");
        }
        self.put(now, what);
    }

    /// Ends the recording at the time of its last line; further ones are not written.
    pub fn end(&mut self, reason: &str) {
        if self.ended.is_none() {
            self.put(self.last, What::End(reason.to_owned()));
            self.ended = Some(reason.to_owned());
        }
    }

    /// Why the recording has ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }

    /// The lines written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.lines)
    }

    fn put(&mut self, now: Instant, what: What) {
        self.last = now;
        let entry = Entry {
            at: self.since(now),
            what,
        };
        // Plain data with string keys cannot fail to be written to memory.
        if serde_json::to_writer(&mut self.lines, &entry).is_ok() {
            self.lines.push(b'\n');
        }
    }
}

//! How the writing on a connection goes: what was given to it and what the kernel has taken.
//!
//! The owner puts chunks into a connection's channel and hears nothing of what becomes of them; whether the peer reads at all
//! (RFC 9687) shows only in this count. It is asked for when something is given, and before timers fire, so that nobody has to
//! be woken for each chunk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The connection's side: counts chunks that the kernel has taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Written(Arc<AtomicU64>);

impl Written {
    /// One more.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The owner's side.
#[derive(Debug, Default)]
pub(super) struct Flow {
    given: u64,
    seen: u64,
    written: Written,
}

/// How it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Everything is written.
    Done,
    /// Not everything, but more than when it was last asked for.
    Some,
    /// Nothing since then.
    None,
}

impl Flow {
    /// For the connection.
    pub(super) fn written(&self) -> Written {
        self.written.clone()
    }

    /// A chunk is given.
    pub(super) fn give(&mut self) {
        self.given += 1;
    }

    /// How it went since this was last asked for.
    pub(super) fn progress(&mut self) -> Progress {
        let written = self.written.0.load(Ordering::Relaxed);
        let before = std::mem::replace(&mut self.seen, written);
        if written == self.given {
            Progress::Done
        } else if written == before {
            Progress::None
        } else {
            Progress::Some
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_what_was_written_since() {
        let mut flow = Flow::default();
        let written = flow.written();
        assert_eq!(flow.progress(), Progress::Done);
        flow.give();
        flow.give();
        assert_eq!(flow.progress(), Progress::None);
        written.add();
        assert_eq!(flow.progress(), Progress::Some);
        assert_eq!(flow.progress(), Progress::None);
        written.add();
        assert_eq!(flow.progress(), Progress::Done);
    }
}

//! The lines of a recording on their way from the owner to a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use crate::observe::record::Recorded;

/// Octets that may wait to be written.
const ROOM: usize = 64 << 20;

/// Where the owner puts the lines.
#[derive(Debug)]
pub(super) struct Sink {
    lines: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

/// Where they come out. When it is dropped the recording ends.
#[derive(Debug)]
pub struct Recording {
    lines: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn channel() -> (Sink, Recording) {
    let (sender, lines) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let sink = Sink {
        lines: sender,
        waiting: Arc::clone(&waiting),
    };
    (sink, Recording { lines, waiting })
}

impl Recording {
    /// The next lines; `None`: the recording has ended, with a line that says why. Cancelling the wait loses nothing.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        let lines = self.lines.recv().await?;
        self.waiting.fetch_sub(lines.len(), Ordering::Relaxed);
        Some(lines)
    }
}

impl Sink {
    /// Takes what was recorded. False: the recording has ended.
    pub(super) fn take(&self, router: &mut Recorded) -> bool {
        let Some(tape) = router.tape_mut() else {
            return false;
        };
        if self.waiting.load(Ordering::Relaxed) > ROOM {
            tape.end("the file was not written as fast as things happened");
        }
        let ended = tape.ended().is_some();
        let lines = tape.take();
        if lines.is_empty() {
            return !ended;
        }
        self.waiting.fetch_add(lines.len(), Ordering::Relaxed);
        self.lines.send(lines).is_ok() && !ended
    }
}

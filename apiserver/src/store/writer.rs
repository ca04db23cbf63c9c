//! The one thread that writes: it takes everything that waits, settles it as one batch, and commits once.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::record::Record;
use super::state::{Batch, State, Write, WriteError};

/// More writes than this do not share a transaction, to bound the wait of the first.
const LARGEST_BATCH: usize = 256;

/// A write and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: oneshot::Sender<Result<Arc<Record>, WriteError>>,
}

/// Runs until every sender is gone.
pub(super) fn run(disk: &Disk, state: &RwLock<State>, mut jobs: mpsc::Receiver<Job>) {
    while let Some(first) = jobs.blocking_recv() {
        let mut waiting = vec![first];
        while waiting.len() < LARGEST_BATCH {
            match jobs.try_recv() {
                Ok(job) => waiting.push(job),
                Err(_) => break,
            }
        }
        settle(disk, state, waiting);
    }
}

fn settle(disk: &Disk, state: &RwLock<State>, waiting: Vec<Job>) {
    let mut batch = Batch::default();
    let mut answers = Vec::with_capacity(waiting.len());
    let version = {
        let state = state.read().unwrap_or_else(PoisonError::into_inner);
        for job in waiting {
            answers.push((job.reply, batch.settle(&state, job.write)));
        }
        batch.version(&state)
    };
    if !batch.events.is_empty() {
        if let Err(error) = disk.commit(&batch, version) {
            tracing::error!(%error, "cannot write the database");
            for (_, answer) in &mut answers {
                if answer.is_ok() {
                    *answer = Err(WriteError::Disk(error.to_string()));
                }
            }
        } else {
            state
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .publish(batch);
        }
    }
    for (reply, answer) in answers {
        // The client may have gone away; its write stands all the same.
        let _ = reply.send(answer);
    }
}

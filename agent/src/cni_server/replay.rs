//! Catching up with deletes that were written down: by the plugin while no agent listened, by the
//! agent while no API server did.

use std::path::Path;

use margay_cni::journal::{self, Entry};
use margay_cni::protocol::Command;

use super::network::{DelOutcome, PodNetwork};
use super::request::Typed;
use super::server::Server;

/// What catching up came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Deletes done.
    pub done: usize,
    /// Deletes that wait on.
    pub waiting: usize,
    /// Files that hold no delete; they were set aside with the ending `.bad`.
    pub unreadable: usize,
}

impl<N: PodNetwork> Server<N> {
    /// Does the deletes that wait in a directory. To be called at the start, once addresses are
    /// ready, and every minute or so: the plugin may have written one just as the agent started.
    ///
    /// # Errors
    /// If the directory cannot be read. Everything else is counted and logged.
    pub async fn replay(&self, directory: &Path) -> std::io::Result<Replayed> {
        let owned = directory.to_owned();
        let entries = tokio::task::spawn_blocking(move || journal::read(&owned)).await??;
        let mut replayed = Replayed::default();
        for entry in entries {
            match self.replay_one(&entry).await {
                Ok(true) => replayed.done += 1,
                Ok(false) => replayed.waiting += 1,
                Err(reason) => {
                    replayed.unreadable += 1;
                    set_aside(&entry, &reason);
                }
            }
        }
        Ok(replayed)
    }

    /// Whether the delete is done; an error if the file holds none.
    async fn replay_one(&self, entry: &Entry) -> Result<bool, String> {
        let request = entry.request.as_ref().map_err(Clone::clone)?;
        if request.command != Command::Del {
            return Err(format!("{} is not a delete", request.command.as_str()));
        }
        let typed = Typed::read(request).map_err(|error| error.to_string())?;
        let Typed::Del(delete) = typed else {
            return Err("not a delete".to_owned());
        };
        // While it waited for its turn, an ADD of the same attachment may have dropped it.
        let path = entry.path.clone();
        match self.delete_if(delete, move || path.exists()).await {
            Ok(DelOutcome::Done) => {
                if let Err(error) = journal::remove(entry) {
                    tracing::warn!(file = %entry.path.display(), %error, "cannot remove a delete that is done");
                }
                Ok(true)
            }
            Ok(DelOutcome::Deferred) => Ok(false),
            Err(error) => {
                tracing::warn!(file = %entry.path.display(), %error, "a delete waits on");
                Ok(false)
            }
        }
    }
}

fn set_aside(entry: &Entry, reason: &str) {
    let aside = entry.path.with_extension("bad");
    let moved = std::fs::rename(&entry.path, &aside);
    tracing::warn!(
        file = %entry.path.display(),
        %reason,
        error = ?moved.err(),
        "not a delete: set aside"
    );
}

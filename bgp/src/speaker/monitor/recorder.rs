//! The file that a recording goes to.

use std::path::Path;

use tokio::io::AsyncWriteExt;
use tracing::{info, warn};

use super::path;
use crate::observe::record::{Entry, What};
use crate::speaker::Recording;

/// The most octets of a recording.
const LIMIT: u64 = 1 << 30;

/// Creates the file, for its owner only: what is announced is in it, if no secrets are.
///
/// # Errors
/// What is wrong with it, for people.
pub async fn create(path: &Path) -> Result<tokio::fs::File, String> {
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let file = options.open(path).await;
    file.map_err(|error| path::problem(path, &error))
}

/// Writes a recording until it ends, or the file is full or cannot be written; the last line says which.
pub async fn record(mut recording: Recording, mut file: tokio::fs::File, limit: Option<u64>) {
    info!("recording what goes into the speaker and comes out of it");
    let limit = limit.unwrap_or(LIMIT);
    let mut written = 0;
    while let Some(lines) = recording.next().await {
        let result = async {
            file.write_all(&lines).await?;
            file.flush().await
        };
        if let Err(error) = result.await {
            warn!(%error, "the recording has ended: its file cannot be written");
            return;
        }
        written += lines.len() as u64;
        if written >= limit {
            let reason = format!("the file has {written} octets, it may have {limit}");
            warn!(reason, "the recording has ended");
            // Nothing can be done about a file that does not take this.
            let _ = file.write_all(&end(reason)).await;
            let _ = file.flush().await;
            return;
        }
    }
}

/// The last line of a recording that is not ended by the speaker.
fn end(reason: String) -> Vec<u8> {
    let entry = Entry {
        at: 0,
        what: What::End(reason),
    };
    let mut line = serde_json::to_vec(&entry).unwrap_or_default();
    line.push(b'\n');
    line
}

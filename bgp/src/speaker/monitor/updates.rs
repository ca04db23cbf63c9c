//! The file of messages and state changes in MRT (RFC 6396, BGP4MP).
//!
//! What cannot be written as fast as it happens is lost and counted; what cannot be written at all is tried again after a
//! while.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use futures::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::status::Status;
use super::{UpdatesConfig, path};
use crate::observe::mrt::{self, Direction, Resolution};
use crate::observe::{Interest, Observation, split};
use crate::speaker::Speaker;
use crate::speaker::watch::{ObservationBatch, Observations, Watching};

/// Octets that may wait to be written, roughly.
const ROOM: usize = 32 << 20;
/// The pause after an error.
const RETRY: Duration = Duration::from_secs(10);
/// What the log calls it.
const NAME: &str = "mrt.updates";

/// Begins to observe; nothing if the speaker has stopped. What happens from now on is going to be in the file.
pub(super) async fn watch(speaker: &Speaker, config: &UpdatesConfig) -> Option<Observations> {
    let how = Watching {
        interest: Interest {
            states: true,
            received: true,
            sent: config.sent,
            ..Interest::default()
        },
        from_the_start: false,
        room: ROOM,
        cut_off: false,
    };
    speaker.watch(how).await.ok()
}

/// Writes until `stop` or the end of the speaker.
pub(super) async fn run(
    speaker: Speaker,
    mut observations: Option<Observations>,
    config: UpdatesConfig,
    status: Status,
    mut stop: oneshot::Receiver<()>,
) {
    loop {
        let Some(mut observed) = observations else {
            return status.set("stopped");
        };
        match write(&config, &mut observed, &status, &mut stop).await {
            Ok(()) => return status.set("stopped"),
            Err(error) => status.failed(NAME, &error),
        }
        drop(observed);
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = &mut stop => return,
        }
        observations = watch(&speaker, &config).await;
    }
}

/// Writes one file after the other. An error is for people.
async fn write(
    config: &UpdatesConfig,
    observations: &mut Observations,
    status: &Status,
    stop: &mut oneshot::Receiver<()>,
) -> Result<(), String> {
    let mut out = BytesMut::new();
    loop {
        let began = SystemTime::now();
        let name = path::at(&config.path, began);
        let problem = |error| path::problem(&name, &error);
        let mut file = open(name.clone()).await.map_err(problem)?;
        status.works(NAME, &name.display().to_string());
        let rotation = rotation(config.rotate, began);
        tokio::pin!(rotation);
        loop {
            let batch = tokio::select! {
                batch = observations.next() => batch,
                () = &mut rotation => break,
                _ = &mut *stop => {
                    // What has happened before is still written.
                    while let Some(Some(batch)) = observations.next().now_or_never() {
                        write_batch(&batch, config, &mut out);
                    }
                    file.write_all(&out).await.map_err(problem)?;
                    return finish(file).await.map_err(problem);
                }
            };
            let Some(batch) = batch else {
                return finish(file).await.map_err(problem);
            };
            status.lost(observations.take_lost());
            let count = write_batch(&batch, config, &mut out);
            file.write_all(&out).await.map_err(problem)?;
            // Readers follow the file while it grows.
            file.flush().await.map_err(problem)?;
            status.wrote(count, out.len() as u64);
            out.clear();
        }
        finish(file).await.map_err(problem)?;
    }
}

async fn open(name: PathBuf) -> std::io::Result<tokio::fs::File> {
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).append(true).open(name).await
}

async fn finish(mut file: tokio::fs::File) -> std::io::Result<()> {
    file.flush().await
}

/// Comes to an end at the next multiple of the time since 1970, so that files begin at full hours.
async fn rotation(every: Option<Duration>, began: SystemTime) {
    let Some(every) = every
        .map(|every| every.as_secs())
        .filter(|every| *every > 0)
    else {
        return std::future::pending().await;
    };
    let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let past = Duration::new(since.as_secs() % every, since.subsec_nanos());
    tokio::time::sleep(Duration::from_secs(every).saturating_sub(past)).await;
}

/// Writes a batch as MRT, and returns how many records that are.
fn write_batch(batch: &ObservationBatch, config: &UpdatesConfig, out: &mut BytesMut) -> u64 {
    let resolution = match config.extended {
        true => Resolution::Microseconds,
        false => Resolution::Seconds,
    };
    let at = (batch.at, resolution);
    let mut count = 0;
    for observation in &batch.observations {
        match observation {
            Observation::State { peer, old, new } => {
                mrt::state_change(at, peer, *old, *new, out);
                count += 1;
            }
            Observation::Received { peer, message } => {
                mrt::bgp_message(at, peer, Direction::Received, message, out);
                count += 1;
            }
            Observation::Sent { peer, messages } => {
                for message in split(messages) {
                    mrt::bgp_message(at, peer, Direction::Sent, message, out);
                    count += 1;
                }
            }
            _ => {}
        }
    }
    count
}

//! Dumps of the RIB in MRT (RFC 6396, TABLE_DUMP_V2), at intervals and on demand.
//!
//! A dump is written beside its place and put there when it is whole: a reader never sees half of one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

use super::status::Status;
use super::{DumpsConfig, path};
use crate::speaker::Speaker;

/// What the log calls it.
const NAME: &str = "mrt.rib";

/// A dump that was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dumped {
    /// The file.
    pub path: PathBuf,
    /// Prefixes in it.
    pub prefixes: u32,
    /// Its size.
    pub octets: u64,
}

/// Why there is no dump.
enum Failure {
    Stopped,
    File(String),
}

/// Writes a dump of the RIB to a file, `{time}` in its name being replaced.
///
/// # Errors
/// What is wrong with the file, for people, or that the speaker has stopped.
pub async fn dump(speaker: &Speaker, path: &Path) -> Result<Dumped, String> {
    match try_dump(speaker, path).await {
        Ok(dumped) => Ok(dumped),
        Err(Failure::File(error)) => Err(error),
        Err(Failure::Stopped) => Err("the speaker has been shut down".to_owned()),
    }
}

/// Writes dumps until `stop` or the end of the speaker; the first one after one interval.
pub(super) async fn run(
    speaker: Speaker,
    config: DumpsConfig,
    status: Status,
    mut stop: oneshot::Receiver<()>,
) {
    status.set("waiting");
    loop {
        tokio::select! {
            () = tokio::time::sleep(config.interval) => {}
            _ = &mut stop => return,
        }
        match try_dump(&speaker, &config.path).await {
            Ok(dumped) => {
                status.works(NAME, &dumped.path.display().to_string());
                status.wrote(dumped.prefixes.into(), dumped.octets);
            }
            Err(Failure::File(error)) => status.failed(NAME, &error),
            Err(Failure::Stopped) => return status.set("stopped"),
        }
    }
}

async fn try_dump(speaker: &Speaker, wanted: &Path) -> Result<Dumped, Failure> {
    let now = SystemTime::now();
    let target = path::at(wanted, now);
    let unfinished = beside(&target);
    let problem = |error| Failure::File(path::problem(&target, &error));
    let written = write(speaker, &unfinished, now, &target).await;
    let dumped = match written {
        Ok(dumped) => tokio::fs::rename(&unfinished, &target)
            .await
            .map(|()| dumped)
            .map_err(problem),
        Err(failure) => Err(failure),
    };
    if dumped.is_err() {
        // It may not even be there.
        let _ = tokio::fs::remove_file(&unfinished).await;
    }
    dumped
}

/// A name in the same directory that nobody else uses.
fn beside(target: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let process = std::process::id();
    target.with_file_name(format!(".{name}.{process}.{number}.unfinished"))
}

async fn write(
    speaker: &Speaker,
    file: &Path,
    now: SystemTime,
    target: &Path,
) -> Result<Dumped, Failure> {
    let problem = |error| Failure::File(path::problem(target, &error));
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let at = since.unwrap_or(Duration::ZERO).into();
    let mut file = tokio::fs::File::create(file).await.map_err(problem)?;
    let mut walk = None;
    let mut octets = 0;
    let prefixes = loop {
        let slice = speaker.dump(at, walk).await;
        let (next, records, more) = slice.map_err(|_| Failure::Stopped)?;
        file.write_all(&records).await.map_err(problem)?;
        octets += records.len() as u64;
        if !more {
            break next.prefixes();
        }
        walk = Some(next);
    };
    file.flush().await.map_err(problem)?;
    file.sync_all().await.map_err(problem)?;
    Ok(Dumped {
        path: target.to_owned(),
        prefixes,
        octets,
    })
}

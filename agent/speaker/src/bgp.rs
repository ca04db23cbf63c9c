//! `margay bgp`: the speaker of a file, until it is told to end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use margay_bgp::speaker::daemon::{Daemon, DaemonError, File, InstallTable, Source};
use margay_dataplane::KernelError;

use crate::config_file;
use crate::install::{self, Installer};
use crate::program::{UsageError, shutdown_signal};

/// `margay bgp`: the speaker alone (door 2).
#[derive(Debug, Clone, clap::Args)]
pub struct BgpOptions {
    /// The speaker's configuration
    #[arg(long, value_name = "FILE.yaml", required_unless_present = "replay")]
    pub config: Option<PathBuf>,

    /// Run a recording again (`record: FILE` in the configuration) instead of a speaker, and say where it does something else
    #[arg(long, value_name = "FILE.jsonl", conflicts_with = "config")]
    pub replay: Option<PathBuf>,
}

/// Turns this process into `margay-bgp`, the program that holds the speaker and nothing else, when
/// it lies in the same folder. Comes back only with the reason why it could not.
pub fn become_speaker(options: &BgpOptions, log_json: bool) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    let beside = match std::env::current_exe() {
        Ok(program) => program.with_file_name("margay-bgp"),
        Err(error) => return error,
    };
    let mut command = std::process::Command::new(beside);
    let files = [
        ("--config=", &options.config),
        ("--replay=", &options.replay),
    ];
    for (flag, file) in files {
        if let Some(file) = file {
            let mut argument = OsString::from(flag);
            argument.push(file);
            command.arg(argument);
        }
    }
    if log_json {
        command.arg("--log-json");
    }
    command.exec()
}

/// Runs the speaker alone until it is told to end.
///
/// # Errors
/// A file that cannot be read or makes no sense ([`UsageError`]), a port that cannot be opened.
pub async fn bgp(options: BgpOptions) -> anyhow::Result<()> {
    let path = match (options.config, options.replay) {
        (_, Some(recording)) => return replay(&recording),
        (Some(path), None) => path,
        // The command line's parser has seen to it.
        (None, None) => return Err(UsageError("--config is missing".to_owned()).into()),
    };
    let file = path.display().to_string();
    let config = config_file::read(&path).map_err(UsageError)?;
    let source: Source = Arc::new(move || config_file::read(&path));
    let daemon = match Daemon::start_from(&config, Some(source)).await {
        Err(DaemonError::File(error)) => {
            return Err(UsageError(format!("--config {file}: {error}")).into());
        }
        other => other.with_context(|| format!("the speaker of {file} failed"))?,
    };
    let mut installation = Installation::default();
    installation
        .follow(&daemon, &config)
        .await
        .with_context(|| format!("--config {file}: install: cannot put routes into the kernel"))?;
    until_shutdown(&daemon, &mut installation).await;
    daemon.shutdown().await;
    // Peers that were told of graceful restart go on sending to us while we are away, so the routes
    // stay; otherwise they end with the sessions.
    installation.end(config.graceful_restart.is_some()).await;
    Ok(())
}

/// Runs a recording again.
fn replay(recording: &Path) -> anyhow::Result<()> {
    use std::io::BufRead;
    let file = recording.display();
    let opened = std::fs::File::open(recording);
    let opened = opened.map_err(|error| UsageError(format!("--replay {file}: {error}")))?;
    let mut unread = None;
    let lines = std::io::BufReader::new(opened).lines();
    let lines = lines.map_while(|line| line.map_err(|error| unread = Some(error)).ok());
    let replayed = margay_bgp::observe::record::replay(lines);
    if let Some(error) = unread {
        return Err(error).with_context(|| format!("--replay {file}"));
    }
    let replayed = replayed.with_context(|| format!("--replay {file}"))?;
    let ended = replayed.ended.as_deref().unwrap_or("it was cut off");
    println!(
        "{file}: {} lines, {:.3} s: the same happens again ({ended})",
        replayed.lines,
        replayed.time.as_secs_f64()
    );
    Ok(())
}

/// Reads the configuration again at each SIGHUP, and installs routes as it says, until the process
/// is asked to end.
async fn until_shutdown(daemon: &Daemon, installation: &mut Installation) {
    use tokio::signal::unix::{SignalKind, signal};
    let end = shutdown_signal();
    tokio::pin!(end);
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        return end.await;
    };
    let mut files = daemon.file();
    loop {
        tokio::select! {
            () = &mut end => return,
            // What is wrong with it has been logged.
            _ = hangup.recv() => drop(daemon.reload().await),
            // The daemon has the other end.
            Ok(()) = files.changed() => {
                let file = Arc::clone(&files.borrow_and_update());
                if let Err(error) = installation.follow(daemon, &file).await {
                    tracing::error!("install: cannot put routes into the kernel: {error}");
                }
            }
        }
    }
}

/// The routes in the kernel, as the file in force wants them.
#[derive(Debug, Default)]
struct Installation(Option<(InstallTable, Installer)>);

impl Installation {
    async fn follow(&mut self, daemon: &Daemon, file: &File) -> Result<(), KernelError> {
        // A table that cannot be has been refused with the file.
        let wanted = file.install.target().ok().flatten();
        let before = self.0.take();
        if before.as_ref().map(|(target, _)| *target) == wanted {
            self.0 = before;
            return Ok(());
        }
        let Some(target) = wanted else {
            end(before, false).await;
            return Ok(());
        };
        // In the same table the next one takes over what this one leaves; in another one the new
        // routes are there before the old ones go.
        let same_table = before
            .as_ref()
            .is_some_and(|(old, _)| old.table == target.table);
        let mut before = before;
        if same_table {
            end(before.take(), true).await;
        }
        let options = install::Options {
            table: target.table,
            metric: target.metric,
        };
        let started = Installer::start(daemon.speaker().clone(), options).await;
        end(before, false).await;
        self.0 = Some((target, started?));
        Ok(())
    }

    async fn end(self, keep: bool) {
        end(self.0, keep).await;
    }
}

async fn end(installer: Option<(InstallTable, Installer)>, keep: bool) {
    if let Some((_, installer)) = installer {
        installer.stop(keep).await;
    }
}

//! Ending a lab: exactly its processes, its namespaces and its folder.
//!
//! A teardown goes on after a failure and tells all of them at the end; the state file stays
//! until nothing is left, so that it can be tried again.

use std::fs;
use std::io;
use std::path::Path;

use super::error::LabError;
use super::report::{Screen, Step, Tone};
use super::state::{Folder, Lock, State};
use super::{diagnosis, namespaces, process};

/// What becomes of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// They stay, for someone has to find out what went wrong; the next lab of the name removes
    /// them.
    Keep,
    /// They go with the rest.
    Remove,
}

/// `margayctl lab down`.
///
/// # Errors
/// When there is no such lab, or something of it could not be removed.
pub fn down(name: &str, screen: Screen) -> Result<(), LabError> {
    super::up::require_root()?;
    let _lock = Lock::take(name)?;
    let folder = Folder::of(name);
    let Some(state) = folder.read()? else {
        return Err(LabError::NotRunning {
            name: name.to_owned(),
        });
    };
    let step = Step::begin(screen, format!("ending lab {name}"));
    let (processes, machines) = (state.alive().count(), state.namespaces.len());
    tear_down(&folder, &state, Logs::Remove)?;
    step.done(&format!(
        "lab {name} is gone: {processes} processes, {machines} namespaces"
    ));
    Ok(())
}

/// Ends whatever the state file knows of.
///
/// # Errors
/// [`LabError::Leftovers`] with everything that could not be ended.
pub fn tear_down(folder: &Folder, state: &State, logs: Logs) -> Result<(), LabError> {
    if logs == Logs::Keep {
        diagnosis::write(folder, state);
    }
    process::stop_all(state);
    let mut problems: Vec<String> = Vec::new();
    let left: Vec<_> = state.alive().map(|record| record.name.clone()).collect();
    problems.extend(left.iter().map(|name| format!("{name} does not end")));
    for namespace in &state.namespaces {
        if let Err(error) = namespaces::remove(namespace) {
            problems.push(error.to_string());
        }
    }
    if problems.is_empty() {
        let removed = remove_files(folder, logs);
        problems.extend(removed.err().map(|error| error.to_string()));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(LabError::Leftovers {
        name: state.spec.name.clone(),
        problems: problems.join("; "),
    })
}

/// The state file goes last: until then the lab can be found again.
fn remove_files(folder: &Folder, logs: Logs) -> Result<(), LabError> {
    let state_file = folder.state_file();
    let path = folder.path();
    for entry in fs::read_dir(path).map_err(LabError::file("cannot read", path))? {
        let entry = entry.map_err(LabError::file("cannot read", path))?.path();
        let stays = entry == state_file || (logs == Logs::Keep && entry == folder.logs());
        if !stays {
            remove_any(&entry).map_err(LabError::file("cannot remove", &entry))?;
        }
    }
    let removed = match logs {
        Logs::Keep => fs::remove_file(&state_file),
        Logs::Remove => fs::remove_dir_all(path),
    };
    removed.map_err(LabError::file("cannot remove", path))
}

fn remove_any(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// Ends a lab that failed or was interrupted, and says so; what is told here must not hide why
/// it failed.
pub fn after_failure(folder: &Folder, logs: Logs, screen: Screen) {
    let step = Step::begin(screen, "clearing everything away");
    let torn_down = folder.read().and_then(|state| match state {
        Some(state) => tear_down(folder, &state, logs),
        None => Ok(()),
    });
    match torn_down {
        Ok(()) => step.done(match logs {
            Logs::Keep => "cleared away, but for the logs",
            Logs::Remove => "cleared away",
        }),
        Err(error) => {
            step.failed();
            screen.line(&screen.paint(Tone::Bad, &format!("  {error}")));
        }
    }
}

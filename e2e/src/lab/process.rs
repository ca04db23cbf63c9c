//! The lab's long-running processes: starting them in a namespace, knowing them again, ending
//! exactly them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::command::{start_error, tail};
use super::error::LabError;
use super::namespaces;
use super::patience::patience;
use super::state::{Ledger, ProcessRecord, State};

/// The name of the store's process.
pub const STORE: &str = "store";

/// What to start.
#[derive(Debug)]
pub struct Launch {
    /// What it is to people, such as `agent node1`; also the log's name.
    pub name: String,
    /// The network namespace to start it in; empty for the one of this process.
    pub namespace: String,
    /// Program, arguments and environment.
    pub command: Command,
    /// Where standard output goes when not to the log.
    pub output: Option<PathBuf>,
}

impl Launch {
    /// A process whose whole output goes to its log.
    pub fn new(name: impl Into<String>, namespace: impl Into<String>, command: Command) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            command,
            output: None,
        }
    }

    /// One that runs beside the lab, not in it.
    pub fn on_the_host(name: impl Into<String>, command: Command) -> Self {
        Self::new(name, String::new(), command)
    }
}

/// Starts a process in its namespace and writes it down. It outlives margayctl: it has a process
/// group of its own and no terminal.
///
/// # Errors
/// When it cannot be started or written down.
pub fn start(ledger: &mut Ledger, launch: Launch) -> Result<ProcessRecord, LabError> {
    let Launch {
        name,
        namespace,
        mut command,
        output,
    } = launch;
    let log = ledger
        .folder
        .logs()
        .join(format!("{}.log", name.replace(' ', "-")));
    let file = File::options().create(true).append(true).open(&log);
    let file = file.map_err(LabError::file("cannot open", &log))?;
    let copy = file
        .try_clone()
        .map_err(LabError::file("cannot open", &log))?;
    let stdout = match &output {
        Some(path) => File::create(path).map_err(LabError::file("cannot make", path))?,
        None => copy,
    };
    command.stdin(Stdio::null()).stdout(stdout).stderr(file);
    command.process_group(0);
    let program = command.get_program().to_string_lossy().into_owned();
    let mut spawn = || command.spawn().map_err(start_error(&program));
    let mut child = if namespace.is_empty() {
        spawn()?
    } else {
        namespaces::inside(&namespace, spawn)?
    };
    let record = ProcessRecord {
        name,
        pid: child.id(),
        start: start_time(child.id()).unwrap_or_default(),
        namespace,
        log,
    };
    // Reaped as soon as it ends, so that it is never mistaken for alive.
    std::thread::spawn(move || child.wait());
    ledger.note(|state| {
        // One that is started again takes the place of its earlier self.
        state
            .processes
            .retain(|old| old.name != record.name || is_alive(old));
        state.processes.push(record.clone());
    })?;
    Ok(record)
}

/// Whether the process of this record still runs, and is not another with the same id.
pub fn is_alive(record: &ProcessRecord) -> bool {
    start_time(record.pid) == Some(record.start)
}

/// The start time of a process in clock ticks since boot; nothing for one that has ended, reaped
/// or not.
pub fn start_time(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name in the second field may hold anything, so the fields count from its last `)`.
fn parse_stat(text: &str) -> Option<u64> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.nth(18)?.parse().ok(),
    }
}

/// Memory that a process has in RAM, in KiB (`VmRSS`).
pub fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The error for a process that should run and does not.
pub fn died(record: &ProcessRecord) -> LabError {
    LabError::Died {
        name: record.name.clone(),
        tail: log_tail(&record.log),
        log: record.log.clone(),
    }
}

/// The end of a log, for people.
pub fn log_tail(log: &Path) -> String {
    match fs::read(log) {
        Ok(text) if !text.is_empty() => tail(&String::from_utf8_lossy(&text)),
        _ => "it said nothing".to_owned(),
    }
}

/// Asks one process to end with SIGTERM and waits for it, for at most a few seconds.
pub fn stop(record: &ProcessRecord) {
    if is_alive(record) {
        signal(record.pid, Signal::TERM);
        wait_until_gone(std::slice::from_ref(record), patience(3));
        if is_alive(record) {
            signal(record.pid, Signal::KILL);
        }
    }
}

/// Ends one process with SIGKILL, as a crash would, and waits until it is gone.
pub fn kill(record: &ProcessRecord) {
    if is_alive(record) {
        signal(record.pid, Signal::KILL);
        wait_until_gone(std::slice::from_ref(record), patience(3));
    }
}

/// Ends every process of the lab: those written down (first asked, then killed), then whatever
/// else runs in the lab's namespaces. The store is the last: an agent that says goodbye needs it.
pub fn stop_all(state: &State) {
    let alive: Vec<ProcessRecord> = state.alive().cloned().collect();
    let (store, others): (Vec<_>, Vec<_>) =
        alive.into_iter().partition(|record| record.name == STORE);
    for group in [others, store] {
        stop_together(&group);
    }
    if state.is_of_this_boot() {
        end_inhabitants(&state.namespaces);
    }
}

fn stop_together(records: &[ProcessRecord]) {
    for record in records {
        signal(record.pid, Signal::TERM);
    }
    wait_until_gone(records, patience(3));
    for record in records.iter().filter(|record| is_alive(record)) {
        signal(record.pid, Signal::KILL);
    }
    wait_until_gone(records, patience(2));
}

/// Kills what still runs in these namespaces: a shell of `lab exec`, a process that was started
/// in the instant before a crash.
pub fn end_inhabitants(namespaces: &[String]) {
    let limit = Instant::now() + patience(2);
    loop {
        let own = std::process::id();
        let left: BTreeSet<u32> = namespaces::inhabitants(namespaces).into_iter().collect();
        let left: Vec<u32> = left.into_iter().filter(|pid| *pid != own).collect();
        if left.is_empty() || Instant::now() > limit {
            return;
        }
        for pid in left {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Signals a process and its group; either may be gone already.
fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

fn wait_until_gone(records: &[ProcessRecord], limit: Duration) {
    let end = Instant::now() + limit;
    while records.iter().any(is_alive) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line = |state: &str| {
            format!("42 (a) b (c) {state} 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 9 9")
        };
        assert_eq!(parse_stat(&line("S")), Some(98765));
        assert_eq!(parse_stat(&line("Z")), None);
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("42 (x"), None);
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn own_memory_is_known() {
        assert!(resident_kib(std::process::id()).unwrap() > 100);
        assert!(start_time(std::process::id()).is_some());
    }
}

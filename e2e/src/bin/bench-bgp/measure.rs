//! What a process has used, from /proc.

use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use crate::net::Side;

/// The processes of a namespace.
pub(crate) fn processes_of(side: Side) -> Result<Vec<u32>> {
    let wanted = std::fs::metadata(format!("/run/netns/{}", side.name()))?;
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let net = std::fs::metadata(format!("/proc/{pid}/ns/net"));
        // Our own threads visit the namespace; the process does not.
        if net.is_ok_and(|net| net.ino() == wanted.ino() && net.dev() == wanted.dev()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// CPU seconds of a process: what the scheduler counted for its threads, in nanoseconds, or what
/// the kernel shows in clock ticks if that is more (threads that have ended count there only).
pub(crate) fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let number = |at: usize| {
        let field = fields.split(' ').nth(at);
        field
            .and_then(|text| text.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    let ticks = (number(11) + number(12)) / 100.0;
    let mut scheduled = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let first = text
            .split(' ')
            .next()
            .and_then(|text| text.parse::<f64>().ok());
        scheduled += first.unwrap_or(0.0) / 1e9;
    }
    // A tick is 10 ms: only a clear difference says that a thread is gone.
    if ticks > scheduled + 0.02 {
        ticks
    } else {
        scheduled
    }
}

/// A line of /proc/PID/status, in kB.
pub(crate) fn memory(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mut lines = status.lines();
    lines
        .find_map(|line| {
            line.strip_prefix(field)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

/// Ends a process at once.
pub(crate) fn kill(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Gone already is as good.
        let _ = kill_process(pid, Signal::KILL);
    }
}

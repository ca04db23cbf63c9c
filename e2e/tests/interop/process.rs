//! Processes in namespaces: started in the foreground with their words in a file, ended by their own id.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use margay_e2e::lab::command::finish;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that should happen soon. The machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(25);
const PAUSE: Duration = Duration::from_millis(50);

/// A running program; it ends when this is dropped.
pub struct Running(Child);

impl Running {
    /// Starts a program in a namespace. Its output is appended to the file.
    pub fn start(
        namespace: &str,
        log: &Path,
        program: &str,
        arguments: &[&str],
    ) -> Result<Self, String> {
        Self::start_with(namespace, log, program, arguments, &[])
    }

    /// As [`Running::start`], with variables for its environment.
    pub fn start_with(
        namespace: &str,
        log: &Path,
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self, String> {
        let open = || -> std::io::Result<(File, File)> {
            let file = OpenOptions::new().create(true).append(true).open(log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = open().map_err(|error| format!("{}: {error}", log.display()))?;
        let child = Command::new("ip")
            .args(["netns", "exec", namespace, program])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        Ok(Self(child))
    }

    pub fn signal(&self, signal: Signal) {
        send(self.0.id(), signal);
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// Sends the signal and waits for the end.
    pub fn end(&mut self, signal: Signal) {
        if self.ended() {
            return;
        }
        self.signal(signal);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
}

/// Runs a program in a namespace to its end; what it printed, whatever its exit status.
pub fn ask(namespace: &str, program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("ip");
    command
        .args(["netns", "exec", namespace, program])
        .args(arguments);
    let output = finish(command, None, PATIENCE).map_err(|error| error.to_string())?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

/// Polls until the condition holds; the error says what was waited for and what was seen last.
pub fn wait(what: &str, condition: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    wait_for(PATIENCE, what, condition)
}

/// As [`wait`], for a time of one's own.
pub fn wait_for(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let end = Instant::now() + limit;
    loop {
        match condition() {
            Ok(()) => return Ok(()),
            Err(seen) if Instant::now() > end => {
                return Err(format!("waited in vain for {what}: {}", tail(&seen)));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Watches for a while that the condition keeps holding.
pub fn holds(
    time: Duration,
    mut condition: impl FnMut() -> Result<(), String>,
) -> Result<(), String> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        condition()?;
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// An error unless it is so.
pub fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}

/// The end of what a daemon said, on one line.
fn tail(text: &str) -> String {
    const MOST: usize = 500;
    let skipped = text.chars().count().saturating_sub(MOST);
    let end: String = text.chars().skip(skipped).collect();
    end.split_whitespace().collect::<Vec<_>>().join(" ")
}

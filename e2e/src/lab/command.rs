//! Runs short programs to their end, with a deadline and errors that quote them.
//!
//! Everything here blocks. Each program has a process group of its own, so that a Ctrl-C at the
//! terminal reaches margayctl alone, which then ends things in order.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::error::LabError;
use super::patience::patience;

/// How much of a failed program's output an error quotes, in bytes.
const QUOTED: usize = 600;

/// Runs a program to its end with nothing on its standard input.
///
/// # Errors
/// When it cannot start, fails, or takes longer than half a minute.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, LabError> {
    let mut command = Command::new(program);
    command.args(arguments);
    succeed(command, None)
}

/// Runs a prepared command, feeding it `input`, and wants exit status 0.
///
/// # Errors
/// As [`run`].
pub fn succeed(command: Command, input: Option<&[u8]>) -> Result<String, LabError> {
    let line = line_of(&command);
    let output = finish(command, input, patience(30))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = output.stderr;
    said.extend(output.stdout);
    Err(LabError::Command {
        command: line,
        status: output.status.to_string(),
        output: tail(&String::from_utf8_lossy(&said)),
    })
}

/// Runs a prepared command to its end, whatever its exit status.
///
/// # Errors
/// When it cannot start, or runs longer than `limit`; it is killed then.
pub fn finish(
    mut command: Command,
    input: Option<&[u8]>,
    limit: Duration,
) -> Result<Output, LabError> {
    let line = line_of(&command);
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0);
    let mut child = command.spawn().map_err(start_error(&program))?;
    let pid = child.id();
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        // A program that does not read its input says why on its own.
        let _ = pipe.write_all(input);
    }
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    match receive.recv_timeout(limit) {
        Ok(output) => output.map_err(start_error(&program)),
        Err(_) => {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            Err(LabError::Hung {
                command: line,
                waited: limit,
            })
        }
    }
}

/// For `map_err` on starting a program: says which package brings it.
pub(crate) fn start_error(program: &str) -> impl FnOnce(std::io::Error) -> LabError {
    let name = program.rsplit('/').next().unwrap_or(program);
    let hint = match name {
        "ip" => " (Debian package iproute2)",
        "bird" | "birdc" => " (Debian package bird2, or use --tor none)",
        "zebra" | "bgpd" | "vtysh" => " (Debian package frr, or use --tor bird)",
        "tcpdump" => " (Debian package tcpdump)",
        "ping" => " (Debian package iputils-ping)",
        "margay" | "margay-cni" => " (build it, or say where it is with --bin-dir)",
        _ => "",
    };
    let program = program.to_owned();
    move |source| LabError::Start {
        program,
        source,
        hint,
    }
}

/// The end of a text, cut at a line where possible.
pub(crate) fn tail(text: &str) -> String {
    let text = text.trim();
    if text.len() <= QUOTED {
        return text.to_owned();
    }
    let mut from = text.len() - QUOTED;
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let end = &text[from..];
    let line = end.find('\n').map_or(end, |at| &end[at + 1..]);
    format!("… {line}")
}

fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_program() {
        let error = run("sh", &["-c", "echo no such cable >&2; exit 3"]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no such cable") && text.contains('3'),
            "{text}"
        );
    }

    #[test]
    fn a_hanging_program_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let error = finish(command, None, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, LabError::Hung { .. }), "{error}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let text = run("/nonexistent/birdc", &[]).unwrap_err().to_string();
        assert!(text.contains("bird2"), "{text}");
    }

    #[test]
    fn input_reaches_the_program() {
        let output = succeed(Command::new("cat"), Some(b"hello")).unwrap();
        assert_eq!(output, "hello");
    }

    #[test]
    fn a_long_text_keeps_its_end() {
        let text = format!("{}\nlast line", "x".repeat(2000));
        assert_eq!(tail(&text), "… last line");
        assert!(tail(&"ö".repeat(2000)).starts_with('…'));
    }
}

//! Runs `nft -f -`.
//!
//! The child gets the transaction on stdin and has its stderr read to the end, both at once so that neither side can
//! block the other; it is killed when it takes too long.

use std::{process::Stdio, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{Applied, Error, Writer, text};
use crate::ruleset::Transaction;

/// How long one run may take. A full load of 100,000 elements takes half a second.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How much of what `nft` says is kept: it may repeat every line it was given.
const MESSAGE_LIMIT: usize = 2048;

/// The `nft` program.
#[derive(Clone, Debug)]
pub struct Nft {
    program: Vec<String>,
    timeout: Duration,
    check: bool,
}

impl Default for Nft {
    fn default() -> Self {
        Self {
            program: vec!["nft".to_owned()],
            timeout: TIMEOUT,
            check: false,
        }
    }
}

impl Nft {
    /// Runs this instead of `nft`: a path, or a wrapper and its arguments such as `ip netns exec NAME nft`.
    #[must_use]
    pub fn with_program<S: Into<String>>(mut self, program: impl IntoIterator<Item = S>) -> Self {
        self.program = program.into_iter().map(Into::into).collect();
        self
    }

    /// Kills the program after this long instead of 30 s.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Only asks whether the kernel would take the transaction (`nft --check`).
    #[must_use]
    pub fn checking(mut self) -> Self {
        self.check = true;
        self
    }

    async fn run(&self, input: &str) -> Result<(), Error> {
        let none = || {
            Error::Run(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "no program given",
            ))
        };
        let (program, arguments) = self.program.split_first().ok_or_else(none)?;
        let mut command = Command::new(program);
        command.args(arguments);
        if self.check {
            command.arg("--check");
        }
        // Messages are told apart by their text, so it must not be translated.
        command.args(["-f", "-"]).env("LC_ALL", "C");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(Error::Run)?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let talk = async {
            let write = async {
                if let Some(mut stdin) = stdin {
                    // It may stop reading at the first error: then its message tells why, not the broken pipe.
                    let _ = stdin.write_all(input.as_bytes()).await;
                }
            };
            let read = async {
                let mut said = Vec::new();
                if let Some(mut stderr) = stderr {
                    let _ = stderr.read_to_end(&mut said).await;
                }
                said
            };
            let ((), said) = tokio::join!(write, read);
            (child.wait().await, said)
        };
        let (status, said) = timeout(self.timeout, talk)
            .await
            .map_err(|_| Error::Timeout(self.timeout))?;
        if status.map_err(Error::Run)?.success() {
            return Ok(());
        }
        Err(classify(&String::from_utf8_lossy(&said)))
    }
}

impl Writer for Nft {
    fn apply<'a>(&'a self, transaction: &'a Transaction) -> Applied<'a> {
        Box::pin(async move {
            if transaction.is_empty() {
                return Ok(());
            }
            self.run(&text::transaction(transaction)).await
        })
    }
}

/// What the program's message means. It ends its lines with the text of the kernel's error number.
fn classify(said: &str) -> Error {
    let said = said.trim();
    let end = (0..=said.len().min(MESSAGE_LIMIT))
        .rev()
        .find(|end| said.is_char_boundary(*end));
    let message = said.get(..end.unwrap_or(0)).unwrap_or_default().to_owned();
    let first = said
        .lines()
        .find(|line| line.contains("Error:"))
        .unwrap_or(said);
    if first.contains("No such file or directory") || first.contains("does not exist") {
        Error::Missing(message)
    } else if first.contains("File exists") {
        Error::Exists(message)
    } else if first.contains("Device or resource busy") {
        Error::Busy(message)
    } else if first.contains("Too many open files in system") {
        Error::Full(message)
    } else if first.contains("Operation not permitted") || said.contains("you must be root") {
        Error::Permission(message)
    } else {
        Error::Refused(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Transaction {
        crate::Ruleset::new().full()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn messages_are_told_apart() {
        let cases = [
            (
                "/dev/stdin:1:1-2: Error: No such file or directory; did you mean set",
                "missing",
            ),
            (
                "/dev/stdin:1:1-2: Error: Could not process rule: File exists\nadd map",
                "exists",
            ),
            (
                "/dev/stdin:1:1-2: Error: Could not process rule: Device or resource busy",
                "busy",
            ),
            (
                "Error: Could not process rule: Too many open files in system",
                "full",
            ),
            (
                "Error: Could not process rule: Operation not permitted",
                "permission",
            ),
            (
                "/dev/stdin:1:1-2: Error: syntax error, unexpected string",
                "refused",
            ),
        ];
        for (said, expected) in cases {
            let found = match classify(said) {
                Error::Missing(_) => "missing",
                Error::Exists(_) => "exists",
                Error::Busy(_) => "busy",
                Error::Full(_) => "full",
                Error::Permission(_) => "permission",
                _ => "refused",
            };
            assert_eq!(found, expected, "{said}");
        }
    }

    #[test]
    fn what_the_program_says_is_kept() {
        let nft =
            Nft::default().with_program(["sh", "-c", "echo 'Error: File exists' >&2; exit 1"]);
        let error = block_on(nft.apply(&some())).unwrap_err();
        assert!(
            matches!(&error, Error::Exists(said) if said.contains("File exists")),
            "{error}"
        );
        assert!(error.wants_replacement());
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let nft = Nft::default()
            .with_program(["sh", "-c", "exec sleep 60"])
            .with_timeout(Duration::from_millis(50));
        assert!(matches!(
            block_on(nft.apply(&some())),
            Err(Error::Timeout(_))
        ));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error =
            block_on(Nft::default().with_program(["/nowhere/nft"]).apply(&some())).unwrap_err();
        assert!(
            error.to_string().starts_with("nft cannot be run: "),
            "{error}"
        );
    }

    #[test]
    fn an_empty_transaction_starts_nothing() {
        let nft = Nft::default().with_program(["/nowhere/nft"]);
        assert!(block_on(nft.apply(&Transaction::default())).is_ok());
    }
}

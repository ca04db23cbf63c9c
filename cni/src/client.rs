//! One request to the agent and its reply, within a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::protocol::{MAX_MESSAGE, Reply, Request};

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens: the agent does not run, or has not started yet.
    #[error("no agent at {path}: {source}")]
    NoAgent {
        /// The socket.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The agent took the request and did not answer, or not in time. Whether it acts on it is
    /// not known.
    #[error("no answer from the agent at {path}: {source}")]
    NoAnswer {
        /// The socket.
        path: String,
        /// What happened to the connection.
        source: io::Error,
    },
    /// The answer is not one of the protocol.
    #[error("the agent's answer is not understood: {0}")]
    Answer(serde_json::Error),
}

/// Sends a request and waits for the reply, at most for `timeout` in all.
///
/// # Errors
/// [`ClientError`].
pub fn ask(socket: &Path, request: &Request, timeout: Duration) -> Result<Reply, ClientError> {
    // Connecting to a unix socket may block as long as the listener's queue is full, and has no
    // timeout of its own: so all of it happens in a thread that is left behind if it is late.
    let (done, answer) = mpsc::channel();
    let path = socket.to_owned();
    let message = serde_json::to_vec(request).map_err(ClientError::Answer)?;
    std::thread::spawn(move || {
        // The receiver may have given up.
        let _ = done.send(exchange(&path, message, timeout));
    });
    match answer.recv_timeout(timeout) {
        Ok(reply) => reply,
        Err(_) => Err(ClientError::NoAnswer {
            path: socket.display().to_string(),
            source: io::Error::new(
                io::ErrorKind::TimedOut,
                format!("timed out after {} s", timeout.as_secs_f32()),
            ),
        }),
    }
}

fn exchange(socket: &Path, mut message: Vec<u8>, timeout: Duration) -> Result<Reply, ClientError> {
    let path = || socket.display().to_string();
    let mut stream = UnixStream::connect(socket).map_err(|source| ClientError::NoAgent {
        path: path(),
        source,
    })?;
    let no_answer = |source| ClientError::NoAnswer {
        path: path(),
        source,
    };
    stream.set_read_timeout(Some(timeout)).map_err(no_answer)?;
    stream.set_write_timeout(Some(timeout)).map_err(no_answer)?;
    message.push(b'\n');
    stream.write_all(&message).map_err(no_answer)?;
    let mut line = Vec::new();
    let limit = u64::try_from(MAX_MESSAGE).unwrap_or(u64::MAX);
    let mut reader = BufReader::new(stream.take(limit));
    reader.read_until(b'\n', &mut line).map_err(no_answer)?;
    if line.last() != Some(&b'\n') {
        return Err(no_answer(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed before the end of the answer",
        )));
    }
    serde_json::from_slice(&line).map_err(ClientError::Answer)
}

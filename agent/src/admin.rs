//! The admin socket: one JSON request a line, one JSON reply a line, for `margayctl` on the node.
//!
//! Requests: `{"query": "status" | "bgp" | "rib" | "routes" | "blocks" | "policy" |
//! "services" | "denials" | "counters"}`; with `denials` those after `"after": NUMBER`. It answers what the agent knows of itself and changes nothing. Only root may connect.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// The longest request in bytes.
const MAX_REQUEST: u64 = 4096;
/// How long a client may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many clients are served at once.
const MAX_CLIENTS: usize = 16;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Query {
    /// The NodeStatus as it would be written now.
    Status,
    /// The speaker's sessions.
    Bgp,
    /// The speaker's routes.
    Rib,
    /// What the routing edge has brought about, and what not.
    Routes,
    /// The policy table's state.
    Policy,
    /// This node's blocks.
    Blocks,
    /// What is announced of the cluster's Services, and why.
    Services,
    /// The packets that policy denied or logged last.
    Denials,
    /// What each rule of each policy in force here has counted.
    Counters,
}

/// A query and what belongs to it.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Request {
    /// What is asked.
    pub query: Query,
    /// Of denials only those with a higher number.
    #[serde(default)]
    pub after: Option<u64>,
}

/// A query on its way to the agent's loop.
pub type Question = (Request, oneshot::Sender<Value>);

/// Listens on `path`, which is replaced, and passes queries on to `questions`.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(path: &Path, questions: mpsc::Sender<Question>) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let cannot = || format!("admin socket {}: cannot listen", path.display());
    // A socket left by an agent that is gone would refuse the bind.
    if path.exists() {
        std::fs::remove_file(path).with_context(cannot)?;
    }
    let listener = UnixListener::bind(path).with_context(cannot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(cannot)?;
    let places = Arc::new(tokio::sync::Semaphore::new(MAX_CLIENTS));
    tokio::spawn(async move {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: the next client may fare better.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let questions = questions.clone();
            tokio::spawn(async move {
                let _ = tokio::time::timeout(TIMEOUT, client(stream, questions)).await;
                drop(place);
            });
        }
    });
    Ok(())
}

async fn client(stream: UnixStream, questions: mpsc::Sender<Question>) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    BufReader::new(reader.take(MAX_REQUEST))
        .read_line(&mut line)
        .await?;
    let mut reply = answer(&line, &questions).await.to_string();
    reply.push('\n');
    writer.write_all(reply.as_bytes()).await
}

async fn answer(line: &str, questions: &mpsc::Sender<Question>) -> Value {
    let request: Request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => {
            let words = format!("not a request such as {{\"query\":\"status\"}}: {error}");
            return json!({"error": words});
        }
    };
    let (reply, answer) = oneshot::channel();
    let stopping = json!({"error": "the agent is stopping"});
    if questions.send((request, reply)).await.is_err() {
        return stopping;
    }
    answer.await.unwrap_or(stopping)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn questions_get_answers_and_nonsense_gets_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        std::fs::write(&path, "left over").unwrap();
        let (sender, mut questions) = mpsc::channel::<Question>(1);
        serve(&path, sender).unwrap();
        tokio::spawn(async move {
            while let Some((request, reply)) = questions.recv().await {
                reply.send(json!({"asked": request.query})).unwrap();
            }
        });
        for (request, expected) in [
            ("{\"query\":\"bgp\"}\n", "\"asked\":\"bgp\""),
            ("{\"query\":\"all\"}\n", "not a request"),
            ("\n", "not a request"),
        ] {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert!(reply.contains(expected), "{request}: {reply}");
        }
    }
}

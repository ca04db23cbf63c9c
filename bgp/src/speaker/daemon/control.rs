//! The socket that answers questions: one JSON request line, one JSON reply line.
//!
//! Requests are `{"query":"summary"}`, `{"query":"neighbors"}`, `{"query":"mrt","path":"FILE"}`, `{"query":"reload"}`, `{"query":"refresh","neighbor":"ADDRESS"}`
//! and `{"query":"rib"}`, the last with `"neighbor":"ADDRESS"`, `"prefix":"PREFIX"` or `"prefix":"ADDRESS"` for less than
//! everything, and answered while the table is walked. Several may follow one another on a connection. Replies are objects, with the one key `error` if the request could not be understood.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tracing::debug;

use super::reload::Reloader;
use super::time::rfc3339;
use crate::router::PeerSummary;
use crate::speaker::{SpeakerError, monitor};
use crate::types::{Asn, RouterId};

/// Longest request, in octets.
const REQUEST: u64 = 64 * 1024;
/// How long a client may take to send a request or to read the reply.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Query {
    /// The speaker, and a line for each neighbor.
    Summary,
    /// Everything known of each neighbor.
    Neighbors,
    /// The paths held, all or by `prefix` and `neighbor`.
    Rib,
    /// Read the configuration file again; one with a mistake in it changes nothing.
    Reload,
    /// Write the RIB in MRT to the file named by `path`.
    Mrt,
    /// Ask the neighbor named by `neighbor`, its address, for all its routes again (RFC 2918).
    Refresh,
}

#[derive(Deserialize)]
struct Request {
    query: Query,
    #[serde(default)]
    neighbor: Option<IpAddr>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    path: Option<PathBuf>,
}

/// Opens the socket, in place of one that a dead process left behind. Only its owner may connect.
pub(super) fn bind(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until the task is aborted.
pub(super) async fn serve(listener: UnixListener, reloader: Reloader, identity: (Asn, RouterId)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let reloader = reloader.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &reloader, identity).await {
                        debug!(%error, "a client of the control socket went away");
                    }
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(
    stream: UnixStream,
    reloader: &Reloader,
    identity: (Asn, RouterId),
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(REQUEST);
        let length = tokio::time::timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await??;
        if length == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(Request {
                query: Query::Reload,
                ..
            }) => match reloader.reload().await {
                Ok(()) => json!({ "reloaded": true }),
                Err(error) => json!({ "error": error }),
            },
            Ok(Request {
                query: Query::Rib,
                neighbor,
                prefix,
                ..
            }) => match super::rib::query(neighbor, prefix.as_deref()) {
                Ok(query) => {
                    super::rib::write(query, &reloader.speaker, &mut writer).await?;
                    continue;
                }
                Err(error) => json!({ "error": error }),
            },
            Ok(Request {
                query: Query::Mrt,
                path,
                ..
            }) => dump(reloader, path).await,
            Ok(Request {
                query, neighbor, ..
            }) => match answer(query, neighbor, reloader, identity).await {
                Ok(reply) => reply,
                Err(error) => json!({ "error": error.to_string() }),
            },
            Err(error) => {
                let help = "ask {\"query\":\"summary\"}, \"neighbors\", \"rib\", \"mrt\", \"refresh\" or \"reload\"";
                json!({ "error": format!("request not understood: {error}; {help}") })
            }
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        tokio::time::timeout(PATIENCE, writer.write_all(&text)).await??;
    }
}

async fn answer(
    query: Query,
    whom: Option<IpAddr>,
    reloader: &Reloader,
    (asn, router_id): (Asn, RouterId),
) -> Result<Value, SpeakerError> {
    let speaker = &reloader.speaker;
    Ok(match query {
        Query::Summary | Query::Neighbors => {
            let moment = (Instant::now(), SystemTime::now());
            let lines = speaker.summary().await?;
            let neighbors: Vec<_> = lines
                .iter()
                .map(|line| neighbor(line, query, moment))
                .collect();
            let mut all = reloader.monitors.lock().await.status();
            all.insert("asn".to_owned(), json!(asn));
            all.insert("routerId".to_owned(), json!(router_id));
            all.insert("neighbors".to_owned(), json!(neighbors));
            Value::Object(all)
        }
        // Answered before they come here.
        Query::Rib | Query::Reload | Query::Mrt => Value::Null,
        Query::Refresh => match whom {
            None => {
                let help = "say whom to ask: {\"query\":\"refresh\",\"neighbor\":\"ADDRESS\"}";
                json!({ "error": help })
            }
            Some(address) if speaker.refresh(address).await? => json!({ "asked": address }),
            Some(address) => {
                let why = format!(
                    "{address} cannot be asked: there is no session with it, or it did not offer route refresh"
                );
                json!({ "error": why })
            }
        },
    })
}

/// Writes a dump of the RIB.
async fn dump(reloader: &Reloader, path: Option<PathBuf>) -> Value {
    let Some(path) = path.filter(|path| path.is_absolute() && path.file_name().is_some()) else {
        let help = "say where to: {\"query\":\"mrt\",\"path\":\"/ABSOLUTE/FILE\"}";
        return json!({ "error": help });
    };
    match monitor::dump(&reloader.speaker, &path).await {
        Ok(dumped) => json!(dumped),
        Err(error) => json!({ "error": error }),
    }
}

/// One neighbor as JSON. `moment` is one instant on both clocks.
fn neighbor(line: &PeerSummary, query: Query, (now, wall): (Instant, SystemTime)) -> Value {
    let age = now.saturating_duration_since(line.since);
    let since = wall.checked_sub(age).unwrap_or(wall);
    let mut value = json!({
        "name": line.name,
        "address": line.address,
        "asn": line.asn,
        "range": line.range,
        "state": line.state,
        "since": rfc3339(since),
        "lastError": line.last_error,
        "heldOffUntil": line.held_until.map(|at| rfc3339(wall + at.saturating_duration_since(now))),
        "warning": line.warning,
        "prefixesReceived": line.prefixes_received,
        "prefixesAccepted": line.prefixes_accepted,
        "prefixesSent": line.prefixes_sent,
        "messagesReceived": line.messages_received.total(),
        "messagesSent": line.messages_sent.total(),
        "flaps": line.flaps,
        "notes": line.notes,
    });
    if let (Some(bfd), Value::Object(fields)) = (&line.bfd, &mut value) {
        let bfd = match query {
            Query::Neighbors => {
                let age = now.saturating_duration_since(bfd.since);
                super::bfd::session(bfd, wall.checked_sub(age).unwrap_or(wall))
            }
            _ => json!({ "state": bfd.state }),
        };
        fields.insert("bfd".to_owned(), bfd);
    }
    if query == Query::Neighbors
        && let Value::Object(fields) = &mut value
    {
        fields.insert("localAddress".to_owned(), json!(line.local_address));
        fields.insert("routerId".to_owned(), json!(line.router_id));
        fields.insert("holdTime".to_owned(), json!(line.hold_time));
        fields.insert("families".to_owned(), json!(line.families));
        fields.insert("maxPrefixes".to_owned(), json!(line.max_prefixes));
        fields.insert("faults".to_owned(), json!(line.faults));
        fields.insert("agreed".to_owned(), json!(line.agreed));
        let at = |until: &Instant| {
            let left = until.saturating_duration_since(now);
            rfc3339(wall.checked_add(left).unwrap_or(wall))
        };
        let longer = &line.long_lived_until;
        let longer: BTreeMap<_, _> = longer.iter().map(|(f, until)| (f, at(until))).collect();
        fields.insert("staleRoutes".to_owned(), json!(line.stale_routes));
        fields.insert("longLivedRoutes".to_owned(), json!(line.long_lived_routes));
        fields.insert(
            "staleUntil".to_owned(),
            json!(line.stale_until.as_ref().map(at)),
        );
        fields.insert("longLivedUntil".to_owned(), json!(longer));
        fields.insert("refreshing".to_owned(), json!(line.refreshing));
        fields.insert(
            "messagesReceivedByType".to_owned(),
            json!(line.messages_received),
        );
        fields.insert("refused".to_owned(), json!(line.refused));
        fields.insert("messagesSentByType".to_owned(), json!(line.messages_sent));
    }
    value
}

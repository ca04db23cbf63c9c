//! Our side: `margay bgp --config FILE` in a namespace, and its control socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Map, Value, json};

use crate::model::{Extended, OUR_AS, OUR_ID, Seen, THEIR_AS, THEIRS, THIRD_AS, THIRD_AT_OURS};
use crate::process::{PATIENCE, Running, wait};

/// What a configuration field that this build does not know yet is reported as.
pub const PENDING: &str = "pending: ";

/// Our configuration, as the file's fields.
#[derive(Debug, Clone)]
pub struct Config(pub Value);

impl Config {
    /// Without neighbors.
    pub fn new() -> Self {
        Self(json!({
            "asn": OUR_AS,
            "routerId": OUR_ID,
            "listen": [{"address": "0.0.0.0"}, {"address": "::"}],
            "requirePolicy": false,
            "neighbors": [],
            "announce": [],
        }))
    }

    /// With one session with the daemon over IPv4 (0) or IPv6 (1).
    pub fn with_them(version: usize) -> Self {
        Self::new().neighbor(them(version, json!({})))
    }

    pub fn neighbor(mut self, neighbor: Value) -> Self {
        self.list("neighbors").push(neighbor);
        self
    }

    pub fn announcing(mut self, prefixes: &[&str]) -> Self {
        for prefix in prefixes {
            self.list("announce").push(json!({ "prefix": prefix }));
        }
        self
    }

    pub fn announce(mut self, entry: Value) -> Self {
        self.list("announce").push(entry);
        self
    }

    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }

    /// Sets a field of one neighbor.
    pub fn set_neighbor(mut self, index: usize, field: &str, value: Value) -> Self {
        self.0["neighbors"][index][field] = value;
        self
    }

    fn list(&mut self, field: &str) -> &mut Vec<Value> {
        self.0[field].as_array_mut().unwrap()
    }
}

/// A neighbor entry for the daemon, with more fields.
pub fn them(version: usize, more: Value) -> Value {
    merged(
        json!({"address": THEIRS[version], "asn": THEIR_AS, "holdTime": 9, "connectRetryTime": 1}),
        more,
    )
}

/// A neighbor entry for the third peer, which dials.
pub fn third(index: usize, more: Value) -> Value {
    merged(
        json!({"address": THIRD_AT_OURS[index], "asn": THIRD_AS[index], "passive": true}),
        more,
    )
}

fn merged(mut entry: Value, more: Value) -> Value {
    if let (Some(fields), Value::Object(more)) = (entry.as_object_mut(), more) {
        fields.extend(more);
    }
    entry
}

/// A running daemon of ours.
pub struct Ours {
    process: Option<Running>,
    program: PathBuf,
    namespace: String,
    folder: PathBuf,
}

impl Ours {
    pub fn start(
        program: &Path,
        namespace: &str,
        folder: &Path,
        config: &Config,
    ) -> Result<Self, String> {
        let mut ours = Self {
            process: None,
            program: program.to_owned(),
            namespace: namespace.to_owned(),
            folder: folder.to_owned(),
        };
        ours.start_again(config)?;
        Ok(ours)
    }

    pub fn start_again(&mut self, config: &Config) -> Result<(), String> {
        self.write(config)?;
        let file = self.folder.join("margay.yaml");
        let log = self.folder.join("margay.log");
        let program = self.program.to_string_lossy().into_owned();
        let arguments = ["bgp", "--config", &file.to_string_lossy()];
        let environment = [("RUST_LOG", "info,margay_bgp=debug")];
        let running =
            Running::start_with(&self.namespace, &log, &program, &arguments, &environment)?;
        self.process = Some(running);
        let mut failed = None;
        let answers = wait("our daemon to answer", || {
            let Err(error) = self.ask("summary") else {
                return Ok(());
            };
            if self.process.as_mut().is_some_and(Running::ended) {
                // Nothing to wait for.
                failed = Some(error);
                return Ok(());
            }
            Err(error)
        });
        match answers.err().or(failed) {
            None => Ok(()),
            Some(error) => Err(self.explain(error)),
        }
    }

    /// A field that is not there yet is told apart from a failure, as early as it is known.
    fn explain(&mut self, error: String) -> String {
        let log = fs::read_to_string(self.folder.join("margay.log")).unwrap_or_default();
        match log.lines().find(|line| line.contains("unknown field")) {
            Some(line) => format!("{PENDING}{line}"),
            None => format!(
                "{error}; it said: {}",
                log.lines().last().unwrap_or_default()
            ),
        }
    }

    fn write(&self, config: &Config) -> Result<(), String> {
        let mut value = config.0.clone();
        value["socket"] = json!(self.socket());
        let file = self.folder.join("margay.yaml");
        fs::write(&file, format!("{value:#}\n"))
            .map_err(|error| format!("{}: {error}", file.display()))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("margay.sock")
    }

    /// Ends the process. SIGTERM is a planned end, SIGKILL a crash.
    pub fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            process.end(signal);
        }
    }

    /// Has it read a new configuration.
    pub fn reload(&self, config: &Config) -> Result<(), String> {
        self.write(config)?;
        let reply = self.request(&json!({ "query": "reload" }))?;
        match reply.get("error").and_then(Value::as_str) {
            Some(error) if error.contains("unknown variant") || error.contains("unknown field") => {
                Err(format!("{PENDING}{error}"))
            }
            Some(error) => Err(format!("reload: {error}")),
            None => Ok(()),
        }
    }

    pub fn ask(&self, query: &str) -> Result<Value, String> {
        self.request(&json!({ "query": query }))
    }

    pub fn request(&self, request: &Value) -> Result<Value, String> {
        if let Some(error) = self.dead() {
            return Err(error);
        }
        let talk = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(format!("{request}\n").as_bytes())?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        };
        let line = talk().map_err(|error| format!("our control socket: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("our control socket: {error}: {line}"))
    }

    fn dead(&self) -> Option<String> {
        self.process
            .is_none()
            .then(|| "our daemon is not running".to_owned())
    }

    /// Everything known of a neighbor.
    pub fn neighbor(&self, address: &str) -> Result<Map<String, Value>, String> {
        let reply = self.ask("neighbors")?;
        let mut list = reply["neighbors"].as_array().into_iter().flatten();
        let found = list.find(|neighbor| neighbor["address"] == address);
        let found = found.and_then(Value::as_object).cloned();
        found.ok_or_else(|| format!("our daemon knows no neighbor {address}: {reply}"))
    }

    pub fn is_established(&self, address: &str) -> Result<(), String> {
        let neighbor = self.neighbor(address)?;
        if neighbor["state"]
            .as_str()
            .is_some_and(|state| state.eq_ignore_ascii_case("established"))
        {
            return Ok(());
        }
        Err(format!(
            "{} is {} with us, {}",
            address, neighbor["state"], neighbor["lastError"]
        ))
    }

    /// Waits until the session is up.
    pub fn established(&self, address: &str) -> Result<(), String> {
        wait("the session", || self.is_established(address))
    }

    /// Waits until the session is up and the routes of both sides are exchanged.
    pub fn exchanged(&self, address: &str) -> Result<(), String> {
        wait("the session and both End-of-RIB", || {
            self.is_established(address)?;
            let neighbor = self.neighbor(address)?;
            let families = neighbor["families"].as_array().cloned().unwrap_or_default();
            let done = |f: &Value| f["endOfRibReceived"] == true && f["endOfRibSent"] == true;
            if families.iter().all(done) {
                Ok(())
            } else {
                Err(format!("{families:?}"))
            }
        })
    }

    /// Waits until the last error of the neighbor has one of these texts in it; returns it.
    pub fn complains(&self, address: &str, texts: &[&str]) -> Result<String, String> {
        let mut found = String::new();
        wait(&format!("an error that says {texts:?}"), || {
            let neighbor = self.neighbor(address)?;
            let error = neighbor["lastError"].as_str().unwrap_or_default();
            found = error.to_owned();
            let lower = error.to_lowercase();
            if texts
                .iter()
                .any(|text| lower.contains(&text.to_lowercase()))
            {
                return Ok(());
            }
            Err(format!("state {}, last error {error:?}", neighbor["state"]))
        })?;
        Ok(found)
    }

    /// A counter such as `messagesReceivedByType.routeRefresh`.
    pub fn counter(&self, address: &str, path: &str) -> Result<u64, String> {
        let neighbor = Value::Object(self.neighbor(address)?);
        let value = path.split('.').fold(&neighbor, |value, key| &value[key]);
        value
            .as_u64()
            .ok_or_else(|| format!("{address} has no counter {path}: {neighbor}"))
    }

    /// The paths to a prefix that we hold from peers and use, best first.
    pub fn paths(&self, prefix: &str) -> Result<Vec<Seen>, String> {
        let reply = self.request(&json!({ "query": "rib" }))?;
        let routes = reply["routes"].as_array().cloned().unwrap_or_default();
        let wanted = |route: &&Value| {
            route["prefix"] == prefix && route["accepted"] == true && !route["peer"].is_null()
        };
        Ok(routes.iter().filter(wanted).map(seen).collect())
    }

    /// Waits for at least so many paths.
    pub fn has(&self, prefix: &str, count: usize) -> Result<Vec<Seen>, String> {
        let mut found = Vec::new();
        wait(&format!("{count} path(s) to {prefix} with us"), || {
            found = self.paths(prefix)?;
            if found.len() >= count {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        })?;
        Ok(found)
    }
}

fn seen(route: &Value) -> Seen {
    let texts = |key: &str| -> Vec<String> {
        let list = route[key].as_array().into_iter().flatten();
        list.filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
    Seen {
        as_path: text("asPath"),
        next_hop: text("nextHop"),
        communities: texts("communities"),
        large: texts("largeCommunities"),
        extended: texts("extendedCommunities")
            .iter()
            .map(|text| extended(text))
            .collect(),
        originator: text("originatorId"),
        clusters: texts("clusterList"),
    }
    .sorted()
}

/// From our hexadecimal form to the harness's.
fn extended(text: &str) -> String {
    let number = text
        .strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    number
        .and_then(Extended::from_number)
        .map_or_else(|| text.to_owned(), |e| e.to_string())
}

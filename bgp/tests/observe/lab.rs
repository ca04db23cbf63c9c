//! Two daemons on the loopback: one that is watched and one that has routes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use margay_bgp::fsm::State;
use margay_bgp::speaker::daemon::{Daemon, File};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The watched one is 127.0.0.1 in AS 64512, the other one 127.0.0.2 in AS 64513.
pub(crate) struct Lab {
    pub(crate) watched: Daemon,
    pub(crate) other: Daemon,
    pub(crate) folder: tempfile::TempDir,
    file: Arc<Mutex<Value>>,
    others: Arc<Mutex<Value>>,
}

impl Lab {
    /// Starts both; `more` is what the watched one's file says beside the session, with `FOLDER` for a folder of its own.
    pub(crate) async fn start(more: Value, announce: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let others = json!({
            "asn": 64513,
            "routerId": "10.0.0.2",
            "listen": [{"address": "127.0.0.2", "port": 0}],
            "neighbors": [{"address": "127.0.0.1", "asn": 64512, "passive": true,
                           "families": ["ipv4-unicast", "ipv6-unicast"]}],
            "nextHop": {"ipv6": "2001:db8::2"},
            "requirePolicy": false,
            "announce": announce,
        });
        let (other, others) = start(others).await;
        let port = other.speaker().listening().await.unwrap()[0].port();
        let mut file = json!({
            "asn": 64512,
            "routerId": "10.0.0.1",
            "listen": [],
            "neighbors": [{"address": "127.0.0.2", "port": port, "asn": 64513, "localAddress": "127.0.0.1",
                           "families": ["ipv4-unicast", "ipv6-unicast"]}],
            "requirePolicy": false,
            "socket": folder.path().join("socket"),
        });
        let text = more.to_string();
        let text = text.replace("FOLDER", folder.path().to_str().unwrap());
        merge(&mut file, serde_json::from_str(&text).unwrap());
        let (watched, file) = start(file).await;
        let lab = Self {
            watched,
            other,
            folder,
            file,
            others,
        };
        lab.established().await;
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn established(&self) {
        let up = async {
            while self.watched.speaker().summary().await.unwrap()[0].state != State::Established {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.unwrap();
    }

    /// Waits until the watched one has so many prefixes.
    pub(crate) async fn received(&self, count: u64) {
        let there = async {
            while self.watched.speaker().summary().await.unwrap()[0].prefixes_received != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, there).await.unwrap();
    }

    /// Changes the file of the watched one and has it read.
    pub(crate) async fn reload(&self, change: impl FnOnce(&mut Value)) -> Result<(), String> {
        change(&mut self.file.lock().unwrap());
        self.watched.reload().await
    }

    /// Changes what the other one announces.
    pub(crate) async fn announce(&self, announce: Value) {
        self.others.lock().unwrap()["announce"] = announce;
        self.other.reload().await.unwrap();
    }

    /// Asks the watched one by its socket.
    pub(crate) async fn ask(&self, request: Value) -> Value {
        let stream = UnixStream::connect(self.path("socket")).await.unwrap();
        let mut stream = BufReader::new(stream);
        let request = format!("{request}\n");
        stream
            .get_mut()
            .write_all(request.as_bytes())
            .await
            .unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

async fn start(file: Value) -> (Daemon, Arc<Mutex<Value>>) {
    let file = Arc::new(Mutex::new(file));
    let source = {
        let file = Arc::clone(&file);
        move || {
            let value = file.lock().unwrap().clone();
            serde_json::from_value::<File>(value).map_err(|error| error.to_string())
        }
    };
    let first = source().unwrap();
    let daemon = Daemon::start_from(&first, Some(Arc::new(source))).await;
    (daemon.unwrap(), file)
}

pub(crate) fn merge(file: &mut Value, more: Value) {
    let more: serde_json::Map<_, _> = serde_json::from_value(more).unwrap();
    file.as_object_mut().unwrap().extend(more);
}

/// Announcements of these prefixes, with a next hop that is none of the loopback.
pub(crate) fn announcements(prefixes: &[&str]) -> Value {
    let entry = |prefix: &&str| match prefix.contains(':') {
        true => json!({"prefix": prefix, "nextHop": "2001:db8::1", "communities": ["64513:7"]}),
        false => json!({"prefix": prefix, "nextHop": "192.0.2.1", "communities": ["64513:7"]}),
    };
    prefixes.iter().map(entry).collect()
}

//! How a monitor is, for people who ask by the control socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::path::rfc3339;

/// Shared between the task and whoever asks.
#[derive(Debug, Clone, Default)]
pub(super) struct Status(Arc<Mutex<Fields>>);

#[derive(Debug)]
struct Fields {
    state: &'static str,
    since: SystemTime,
    last_error: Option<String>,
    target: Option<String>,
    messages: u64,
    octets: u64,
    lost: u64,
    failures: u64,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            state: "starting",
            since: SystemTime::now(),
            last_error: None,
            target: None,
            messages: 0,
            octets: 0,
            lost: 0,
            failures: 0,
        }
    }
}

impl Status {
    fn with(&self, change: impl FnOnce(&mut Fields)) {
        // A task that panicked in between has left plain numbers.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// It is in another state from now on.
    pub(super) fn set(&self, state: &'static str) {
        self.with(|fields| {
            if fields.state != state {
                fields.state = state;
                fields.since = SystemTime::now();
            }
        });
    }

    /// It works, and writes there.
    pub(super) fn works(&self, what: &str, target: &str) {
        self.set("up");
        self.with(|fields| fields.target = Some(target.to_owned()));
        info!("{what}: {target}");
    }

    /// It does not work, for now.
    pub(super) fn failed(&self, what: &str, error: &str) {
        self.set("waiting");
        warn!("{what}: {error}");
        self.with(|fields| {
            fields.last_error = Some(error.to_owned());
            fields.failures += 1;
        });
    }

    /// So much has been written.
    pub(super) fn wrote(&self, messages: u64, octets: u64) {
        self.with(|fields| {
            fields.messages += messages;
            fields.octets += octets;
        });
    }

    /// So many observations were lost.
    pub(super) fn lost(&self, count: u64) {
        if count > 0 {
            self.with(|fields| fields.lost += count);
        }
    }

    pub(super) fn show(&self) -> Map<String, Value> {
        let mut shown = Map::new();
        self.with(|fields| {
            let all = [
                ("state", json!(fields.state)),
                ("since", json!(rfc3339(fields.since))),
                ("lastError", json!(fields.last_error)),
                ("target", json!(fields.target)),
                ("messages", json!(fields.messages)),
                ("octets", json!(fields.octets)),
                ("lost", json!(fields.lost)),
                ("failures", json!(fields.failures)),
            ];
            shown.extend(all.map(|(name, value)| (name.to_owned(), value)));
        });
        shown
    }
}

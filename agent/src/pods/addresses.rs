//! [`Addresses`] by what is written on the pods: the node's allocator, with their annotations
//! read, and what cannot be had told as an Event of the pod.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use margay_cni::config::Attachment;
use margay_crds::Owner;
use margay_ipam::{Allocator, IpamError};

use crate::cni_server::{Addresses, Holder, assign_addresses};
use crate::notes::Notes;

/// The same words of the same pod are told again after so long: runtimes try every few seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest note an Event may carry, in bytes.
const MAX_NOTE: usize = 1000;
/// How long an Event may take to be written.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The allocator, and what the pods say.
#[derive(Debug)]
pub struct PodAddresses {
    allocator: Allocator,
    notes: Notes,
    told: Mutex<HashMap<(String, String), Instant>>,
}

impl PodAddresses {
    /// Addresses of this allocator for pods that say this.
    pub fn new(allocator: Allocator, notes: Notes) -> Self {
        Self {
            allocator,
            notes,
            told: Mutex::default(),
        }
    }

    /// Tells on the pod why it gets no address. Nobody waits for it, and what cannot be told is in
    /// the log all the same.
    fn tell(&self, owner: &Owner, error: &IpamError) {
        let pod = format!("{}/{}", owner.namespace, owner.pod);
        let words = error.to_string();
        if !is_news(&self.told, (pod.clone(), words.clone()), Instant::now()) {
            return;
        }
        let reporter = Reporter {
            controller: "margay.dev/agent".to_owned(),
            instance: Some(self.notes.node().to_owned()),
        };
        let recorder = Recorder::new(self.notes.client().clone(), reporter);
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(owner.namespace.clone()),
            name: Some(owner.pod.clone()),
            uid: (!owner.uid.is_empty()).then(|| owner.uid.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "NoAddress".to_owned(),
            note: Some(shortened(&words).to_owned()),
            action: "AssignAddress".to_owned(),
            secondary: None,
        };
        tokio::spawn(async move {
            let publish = recorder.publish(&event, &reference);
            match tokio::time::timeout(TIMEOUT, publish).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(pod, "an Event cannot be written: {error}"),
                Err(_) => tracing::warn!(pod, "an Event could not be written in time"),
            }
        });
    }
}

impl Addresses for PodAddresses {
    async fn assign(&self, owner: &Owner) -> Result<Vec<IpAddr>, IpamError> {
        self.ready()?;
        let note = self.notes.of(owner).await?;
        let assigned = assign_addresses(&self.allocator, owner, &note).await;
        if let Err(error) = &assigned
            && concerns_people(error)
        {
            self.tell(owner, error);
        }
        assigned
    }

    async fn release(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, IpamError> {
        Addresses::release(&self.allocator, attachment).await
    }

    fn holders(&self) -> Vec<Holder> {
        self.allocator.holders()
    }

    fn ready(&self) -> Result<(), IpamError> {
        self.allocator.ready()
    }
}

/// Whether somebody should do something about it.
fn concerns_people(error: &IpamError) -> bool {
    error.is_request_wrong() || !error.is_transient() || matches!(error, IpamError::Taken { .. })
}

/// Whether this has not been told lately; notes that it is told now.
fn is_news(
    told: &Mutex<HashMap<(String, String), Instant>>,
    words: (String, String),
    now: Instant,
) -> bool {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.retain(|_, at| now.saturating_duration_since(*at) < SILENCE);
    if told.contains_key(&words) {
        return false;
    }
    told.insert(words, now);
    true
}

/// As much of a text as an Event bears, cut between characters.
fn shortened(text: &str) -> &str {
    let ends = text.char_indices().map(|(at, one)| at + one.len_utf8());
    let end = ends.take_while(|end| *end <= MAX_NOTE).last();
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_told_once_a_minute() {
        let told = Mutex::default();
        let begin = Instant::now();
        let words = |pod: &str| (pod.to_owned(), "no address".to_owned());
        assert!(is_news(&told, words("a"), begin));
        assert!(!is_news(&told, words("a"), begin + Duration::from_secs(30)));
        assert!(is_news(&told, words("b"), begin + Duration::from_secs(30)));
        assert!(is_news(&told, words("a"), begin + SILENCE));
        assert_eq!(shortened(&"ä".repeat(501)).len(), MAX_NOTE);
    }
}

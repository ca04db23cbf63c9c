//! What the loop announces of Services: the core, the watches that feed it, and how long the
//! speaker waits for them.

use std::time::{Duration, Instant};

use margay_crds::BgpSettings;
use serde_json::{Value, json};

use crate::services::{Reason, ServiceEvent, ServiceWatches, Services, Watching};
use crate::view::ClusterNode;

/// How long a speaker that has not started waits for the lists of Services and EndpointSlices. It
/// must not tell its peers that it has sent all (End-of-RIB) before it knows what to announce; but
/// pods must not go without routes because nobody may list Services.
const PATIENCE: Duration = Duration::from_secs(10);

/// Services, as the loop deals with them.
#[derive(Debug)]
pub(super) struct Announcing {
    services: Services,
    watches: ServiceWatches,
    watching: Watching,
    waiting: Waiting,
}

/// A speaker that has not started, and the lists of Services.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    /// It need not wait, as far as is known.
    Not,
    /// It waits.
    Since(Instant),
    /// It has waited in vain, and waits no more.
    Over,
}

impl Announcing {
    /// Nothing yet, on the node of this name.
    pub(super) fn new(node: &str, watches: ServiceWatches) -> Self {
        Self {
            services: Services::new(node),
            watches,
            watching: Watching::default(),
            waiting: Waiting::Not,
        }
    }

    /// What is to be announced.
    pub(super) fn services(&self) -> &Services {
        &self.services
    }

    /// The next event of the watches; for ever while none run. Cancelling loses nothing.
    pub(super) async fn next_event(&mut self) -> Box<ServiceEvent> {
        self.watching.next().await
    }

    /// Takes in an event, and up to `most` that have arrived with it.
    pub(super) fn handle(&mut self, first: Box<ServiceEvent>, most: usize) {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(event) = next {
            match *event {
                ServiceEvent::Service(event) => self.services.handle_service(event),
                ServiceEvent::EndpointSlice(event) => self.services.handle_endpoint_slice(event),
            }
            taken += 1;
            next = match taken < most {
                true => self.watching.next_waiting(),
                false => None,
            };
        }
    }

    /// Takes in the settings and this node; starts and ends the watches accordingly.
    pub(super) fn configure(&mut self, settings: &BgpSettings, own: &ClusterNode) {
        self.services.handle_configuration(settings);
        self.services.handle_node(&own.labels);
        match (self.services.is_wanted(), self.watching.is_running()) {
            (true, false) => self.watching = self.watches.start(),
            (false, true) => {
                self.watching = Watching::default();
                self.services.forget();
            }
            _ => {}
        }
    }

    /// Whether the speaker must be told: what is announced has changed, or it has waited for the
    /// lists, which are there now.
    pub(super) fn poll_news(&mut self) -> bool {
        let changes = self.services.poll_changes();
        for change in &changes {
            let what = match change.announcement {
                Some(_) => "announced",
                None => "withdrawn",
            };
            tracing::debug!("Services: {} {what}", change.prefix);
        }
        let waits = matches!(self.waiting, Waiting::Since(_));
        !changes.is_empty() || (waits && self.has_lists())
    }

    fn has_lists(&self) -> bool {
        self.services.missing().next().is_none()
    }

    /// Whether a speaker that has not started should wait a little longer for the lists.
    pub(super) fn holds_back(&mut self, now: Instant) -> bool {
        match self.waiting {
            _ if self.has_lists() => self.waiting = Waiting::Not,
            Waiting::Not => self.waiting = Waiting::Since(now),
            Waiting::Since(_) if self.is_over_waiting(now) => {
                let seconds = PATIENCE.as_secs();
                tracing::error!("BGP starts without Services: no list of them in {seconds} s");
                self.waiting = Waiting::Over;
            }
            Waiting::Since(_) | Waiting::Over => {}
        }
        matches!(self.waiting, Waiting::Since(_))
    }

    /// Whether a speaker waits, and has waited long enough.
    pub(super) fn is_over_waiting(&self, now: Instant) -> bool {
        match self.waiting {
            Waiting::Since(since) => now.duration_since(since) >= PATIENCE,
            Waiting::Not | Waiting::Over => false,
        }
    }

    /// What is announced and why, for people.
    pub(super) fn tell(&self) -> Value {
        let reasons = self.services.reasons();
        let announcements = self.services.announcements().iter();
        let told = announcements.map(|(prefix, announcement)| {
            let because = reasons.get(prefix).into_iter().flatten();
            let because = because.map(|reason| match reason {
                Reason::Range => "BGPConfiguration default".to_owned(),
                Reason::Service(key) => format!("Service {key}"),
            });
            json!({
                "prefix": prefix,
                "communities": announcement.communities,
                "largeCommunities": announcement.large_communities,
                "because": because.collect::<Vec<_>>(),
            })
        });
        Value::Array(told.collect())
    }
}

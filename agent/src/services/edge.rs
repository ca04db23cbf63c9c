//! The edge: watches of Services and EndpointSlices, for as long as somebody wants them.
//!
//! A cluster's endpoints change all the time, and most clusters announce none of them: so nothing
//! is watched until a range is configured.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIGroupList;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};

use super::slice::{EndpointSlice, SliceVersion};
use crate::datastore::{Ended, Failures, Follower, Kind, Retry};

/// How many events may wait before the watches wait.
const QUEUE: usize = 256;
/// How long the server may take to say which versions it has.
const DISCOVERY: Duration = Duration::from_secs(10);
/// Endpoints of headless Services, often the most by far: nothing is announced of them.
const NOT_HEADLESS: &str = "!service.kubernetes.io/headless";

/// One event of one of the watches.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is an event of the kind of its name")]
#[expect(clippy::large_enum_variant, reason = "it travels in a box")]
pub enum ServiceEvent {
    Service(Event<Service>),
    EndpointSlice(Event<EndpointSlice>),
}

/// Starts the watches when they are wanted.
#[derive(Clone)]
pub struct ServiceWatches {
    client: Client,
    failures: watch::Sender<Failures>,
}

impl std::fmt::Debug for ServiceWatches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceWatches")
    }
}

/// Watches that run, or none. They end with this value, and what they had under way with them.
#[derive(Debug, Default)]
pub struct Watching {
    events: Option<mpsc::Receiver<Box<ServiceEvent>>>,
}

impl Watching {
    /// Whether watches run.
    pub fn is_running(&self) -> bool {
        self.events.is_some()
    }

    /// The next event; waits for ever while nothing is watched. Cancelling loses nothing.
    pub async fn next(&mut self) -> Box<ServiceEvent> {
        let next = match &mut self.events {
            Some(events) => events.recv().await,
            None => None,
        };
        match next {
            Some(event) => event,
            // The watches end only when they are not wanted any more.
            None => std::future::pending().await,
        }
    }

    /// An event that is there already.
    pub fn next_waiting(&mut self) -> Option<Box<ServiceEvent>> {
        self.events.as_mut()?.try_recv().ok()
    }
}

impl ServiceWatches {
    /// Watches through this client; what fails is told in `failures`.
    pub fn new(client: Client, failures: watch::Sender<Failures>) -> Self {
        Self { client, failures }
    }

    /// Starts the watches, from the first list on.
    pub fn start(&self) -> Watching {
        let (sender, events) = mpsc::channel(QUEUE);
        let follower = |kind| Follower::new(kind, self.failures.clone());
        let services = Api::all(self.client.clone());
        let (mut of_services, to_services) = (follower(Kind::Service), sender.clone());
        tokio::spawn(async move {
            let config = watcher::Config::default();
            let wrap = ServiceEvent::Service;
            of_services
                .follow(services, config, &to_services, wrap)
                .await;
        });
        let of_slices = follower(Kind::EndpointSlice).leaving_if_not_served();
        tokio::spawn(watch_slices(self.client.clone(), of_slices, sender));
        Watching {
            events: Some(events),
        }
    }
}

/// Watches EndpointSlices in the version that the server has, which another may be after an
/// upgrade.
async fn watch_slices(
    client: Client,
    mut follower: Follower,
    sender: mpsc::Sender<Box<ServiceEvent>>,
) {
    let mut retry = Retry::default();
    loop {
        match version(&client).await {
            Ok(version) => {
                let api = Api::all_with(client.clone(), &version);
                let config = watcher::Config::default().labels(NOT_HEADLESS);
                let wrap = ServiceEvent::EndpointSlice;
                if follower.follow(api, config, &sender, wrap).await == Ended::NotWanted {
                    return;
                }
            }
            Err(words) => follower.fails(words),
        }
        if !pause(&mut retry, &sender).await {
            return;
        }
    }
}

/// Waits before the next try; false if nobody wants it any more.
async fn pause(retry: &mut Retry, sender: &mpsc::Sender<Box<ServiceEvent>>) -> bool {
    tokio::select! {
        () = sender.closed() => false,
        () = tokio::time::sleep(retry.next_wait()) => true,
    }
}

async fn version(client: &Client) -> Result<SliceVersion, String> {
    let groups = tokio::time::timeout(DISCOVERY, client.list_api_groups())
        .await
        .map_err(|_| "the server does not say which API groups it has".to_owned())?
        .map_err(|error| error.to_string())?;
    newest(&groups).ok_or_else(|| {
        "the server has no EndpointSlices (discovery.k8s.io/v1 or v1beta1): Services with local \
         policies are not announced"
            .to_owned()
    })
}

/// The newest version of EndpointSlices among the groups of a server.
fn newest(groups: &APIGroupList) -> Option<SliceVersion> {
    let group = groups
        .groups
        .iter()
        .find(|group| group.name == "discovery.k8s.io")?;
    let has = |version: &str| group.versions.iter().any(|one| one.version == version);
    match (has("v1"), has("v1beta1")) {
        (true, _) => Some(SliceVersion::V1),
        (false, true) => Some(SliceVersion::V1beta1),
        (false, false) => None,
    }
}

#[cfg(test)]
#[path = "tests/edge.rs"]
mod tests;

//! The agent's one loop: takes in what the watches, the speaker and the pods' wiring say, and
//! hands each edge its whole desired value.
//!
//! It never waits for the kernel or the API server: the edges have tasks of their own. What it
//! decides is in [`crate::reconcile`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use margay_bgp::fsm::State;
use margay_bgp::speaker::{PeerSummary, RouteBatch, RouteStream, Shutdown, Speaker};
use margay_crds::Condition;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::addresses::Addresses;
use crate::admin::{Query, Question};
use crate::datastore::{Change, Kind, WatchEvent};
use crate::enforcement::Enforcement;
use crate::health::Pulse;
use crate::pods::PodStore;
use crate::reconcile::routes::BestPaths;
use crate::reconcile::{routes, speaker};
use crate::routing::Routing;
use crate::status::node::{self, Reports, WallClock};
use crate::status::{conditions, writer::Wish};
use crate::view::{View, ViewChange};

/// How often the loop looks at the sessions and writes what changed.
const TICK: Duration = Duration::from_secs(1);
/// How long a restarted agent leaves routes alone that no session has confirmed: as long as the
/// restart time it announces (RFC 4724).
const RESTART_TIME: Duration = Duration::from_secs(120);
/// How many events are taken in before the edges are told: a list of ten thousand objects is one
/// change, not ten thousand.
const BURST: usize = 512;

/// The parts the loop drives.
#[derive(Debug)]
pub struct Parts {
    /// This node's name.
    pub node: String,
    /// Routes and tunnels.
    pub routing: Routing,
    /// The policy table.
    pub enforcement: Enforcement,
    /// Addresses.
    pub addresses: Addresses,
    /// The wired pods.
    pub pods: Arc<PodStore>,
    /// What should stand in the datastore.
    pub statuses: watch::Sender<Wish>,
    /// What health and metrics show.
    pub pulse: watch::Sender<Pulse>,
    /// An earlier agent's routes were found in the kernel.
    pub restarting: bool,
}

/// The loop's inputs.
#[derive(Debug)]
pub struct Inputs {
    /// The watches.
    pub watches: mpsc::Receiver<WatchEvent>,
    /// The admin socket.
    pub questions: mpsc::Receiver<Question>,
}

/// The loop and what it knows.
#[derive(Debug)]
pub struct NodeLoop {
    parts: Parts,
    view: View,
    best: BestPaths,
    speaker: Option<Speaker>,
    reports: Reports,
    clock: WallClock,
    started: Instant,
    keep_unwanted: bool,
    /// The edges have been told of the whole view. Which list comes last is chance, and the one of
    /// blocks is no change of the view.
    followed: bool,
    failed: BTreeSet<Kind>,
}

impl NodeLoop {
    /// A loop over these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            keep_unwanted: parts.restarting,
            parts,
            view: View::default(),
            best: BestPaths::default(),
            speaker: None,
            reports: Reports::default(),
            clock: WallClock::start(),
            started: Instant::now(),
            followed: false,
            failed: BTreeSet::new(),
        }
    }

    /// Turns until `shutdown` ends, then lets the speaker go without a NOTIFICATION, so that
    /// peers keep the routes over a restart.
    pub async fn run(mut self, mut inputs: Inputs, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pods = self.parts.pods.subscribe();
        let mut routed = self.parts.routing.subscribe();
        let mut blocks = self.parts.addresses.changes();
        let mut batches: Option<RouteStream> = None;
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                event = inputs.watches.recv() => match event {
                    Some(event) => self.handle_watches(event, &mut inputs.watches).await,
                    None => break,
                },
                batch = next_batch(&mut batches) => self.handle_batch(batch),
                Ok(()) = blocks.changed() => self.follow_blocks().await,
                Ok(()) = pods.changed() => self.intend_routes(),
                Ok(()) = routed.changed() => self.handle_routed().await,
                Some((query, reply)) = inputs.questions.recv() => {
                    let _ = reply.send(self.answer(query).await);
                }
                _ = tick.tick() => self.handle_tick().await,
            }
            if batches.is_none()
                && let Some(speaker) = &self.speaker
            {
                batches = speaker.subscribe().await.ok();
            }
        }
        if let Some(speaker) = self.speaker.take() {
            tracing::info!("stopping; peers keep our routes over a restart");
            speaker.shutdown(Shutdown::Graceful).await;
        }
    }

    async fn handle_watches(&mut self, first: WatchEvent, more: &mut mpsc::Receiver<WatchEvent>) {
        let mut changes = Vec::new();
        let mut next = Some(first);
        for _ in 0..BURST {
            match next {
                Some(event) => changes.extend(self.handle_watch(event).await),
                None => break,
            }
            next = more.try_recv().ok();
        }
        if let Some(event) = next {
            changes.extend(self.handle_watch(event).await);
        }
        self.follow(&changes).await;
    }

    async fn handle_watch(&mut self, event: WatchEvent) -> Vec<ViewChange> {
        match event {
            WatchEvent::Failed(kind, words) => {
                if self.failed.insert(kind) {
                    tracing::warn!("watch of {kind} failed, trying again: {words}");
                }
                Vec::new()
            }
            WatchEvent::Change(change) => {
                self.failed.clear();
                match *change {
                    change @ (Change::Pod(_) | Change::Namespace(_) | Change::NetworkPolicy(_)) => {
                        self.parts.enforcement.handle(change).await;
                        Vec::new()
                    }
                    Change::IPAMBlock(event) => {
                        self.parts.addresses.handle(event);
                        Vec::new()
                    }
                    other => self.view.handle(other),
                }
            }
        }
    }

    /// Tells the edges what a change of the view means for them.
    async fn follow(&mut self, changes: &[ViewChange]) {
        if (changes.is_empty() && self.followed) || !self.is_synced() {
            return;
        }
        self.followed = true;
        self.parts.addresses.configure(&self.view, &self.parts.node);
        self.parts.enforcement.configure(&self.view).await;
        self.configure_speaker().await;
        self.intend_routes();
    }

    /// A block of this node came or went.
    async fn follow_blocks(&mut self) {
        if self.is_synced() {
            self.configure_speaker().await;
            self.intend_routes();
        }
    }

    fn is_synced(&self) -> bool {
        self.view.is_synced() && self.parts.addresses.is_ready()
    }

    async fn configure_speaker(&mut self) {
        let report = &mut self.reports.speaker;
        let blocks = self.parts.addresses.own_blocks();
        let restarting = self.parts.restarting;
        let desired = match speaker::desired(&self.view, &self.parts.node, &blocks, restarting) {
            Ok(desired) => desired,
            Err(words) => {
                if report.problem.as_ref() != Some(&words) {
                    tracing::error!("{words}");
                }
                report.problem = Some(words);
                return;
            }
        };
        report.origins = desired.origins;
        if report.config.as_ref() == Some(&desired.config) && self.speaker.is_some() {
            return;
        }
        let result = match &self.speaker {
            Some(speaker) => speaker.configure(desired.config.clone()).await,
            None => Speaker::start(desired.config.clone()).await.map(|speaker| {
                tracing::info!("speaker started, AS {}", desired.config.asn);
                self.speaker = Some(speaker);
            }),
        };
        let report = &mut self.reports.speaker;
        report.problem = result.err().map(|error| error.to_string());
        match &report.problem {
            Some(problem) => tracing::error!("BGP: {problem}"),
            None => report.config = Some(desired.config),
        }
    }

    fn handle_batch(&mut self, batch: RouteBatch) {
        self.best.handle(batch);
        self.intend_routes();
    }

    fn intend_routes(&mut self) {
        if !self.is_synced() {
            return;
        }
        let pods = self.parts.pods.interfaces();
        let node = &self.parts.node;
        let blocks = self.parts.addresses.own_blocks();
        let keep = self.keep_unwanted;
        let intent = routes::intent(&self.view, node, &blocks, &self.best, pods, keep);
        self.parts.routing.intend(intent);
    }

    async fn handle_routed(&mut self) {
        let report = self.parts.routing.report();
        self.parts.pods.set_mtu(report.pod_mtu);
        self.parts.enforcement.set_tunnels(&report.tunnels).await;
    }

    async fn handle_tick(&mut self) {
        if self.speaker.is_none() && self.is_synced() {
            self.follow(&[ViewChange::Bgp]).await;
        }
        if let Some(speaker) = &self.speaker {
            self.reports.speaker.peers = speaker.summary().await.unwrap_or_default();
        }
        self.settle();
        self.collect_reports();
        self.wish_statuses();
        self.parts.pulse.send_replace(Pulse {
            at: Instant::now(),
            reports: self.reports.clone(),
        });
    }

    /// After a restart: once every session is up again and has sent all it has, or the restart
    /// time is over, routes that nobody confirmed go.
    fn settle(&mut self) {
        if !self.keep_unwanted {
            return;
        }
        let peers = &self.reports.speaker.peers;
        let confirmed = self.speaker.is_some() && peers.iter().all(is_settled);
        if confirmed || self.started.elapsed() > RESTART_TIME {
            tracing::info!("restart is over: routes that no session confirmed are removed");
            self.keep_unwanted = false;
            self.intend_routes();
        }
    }

    fn collect_reports(&mut self) {
        self.reports.routing = self.parts.routing.report();
        self.reports.policy = self.parts.enforcement.report();
        self.reports.pods = self.parts.pods.len();
        self.reports.blocks = self.parts.addresses.own_blocks().len();
        self.reports.addresses = self.parts.addresses.problems();
    }

    /// Says what should stand in the datastore; a task of its own writes it.
    fn wish_statuses(&self) {
        if !self.is_synced() {
            return;
        }
        let now = node::rfc3339(Timestamp::now());
        let mut wish = Wish {
            node: node::status(&self.reports, &self.clock),
            ready: Some(ready_condition(&self.reports, &now)),
            accepted: Vec::new(),
        };
        for pool in self.view.pool_objects() {
            let standing = pool
                .status
                .as_ref()
                .map_or(&[][..], |status| &status.conditions);
            self.wish_accepted(&mut wish, Kind::IPPool, pool.meta(), standing, &now);
        }
        for peer in self.view.peer_objects() {
            let standing = peer
                .status
                .as_ref()
                .map_or(&[][..], |status| &status.conditions);
            self.wish_accepted(&mut wish, Kind::BGPPeer, peer.meta(), standing, &now);
        }
        self.parts.statuses.send_replace(wish);
    }

    /// `Accepted` on what people wrote. Every agent finds the same; the first to write wins and
    /// the others see it.
    fn wish_accepted(
        &self,
        wish: &mut Wish,
        kind: Kind,
        meta: &ObjectMeta,
        standing: &[Condition],
        now: &str,
    ) {
        let name = meta.name.clone().unwrap_or_default();
        let refusal = self.view.refusal(kind, &name);
        if let Some(conditions) = conditions::accepted(standing, meta.generation, refusal, now) {
            wish.accepted.push((kind, name, conditions));
        }
    }

    async fn answer(&self, query: Query) -> Value {
        match query {
            Query::Status => json!(node::status(&self.reports, &self.clock)),
            Query::Bgp => json!(node::status(&self.reports, &self.clock).bgp),
            Query::Rib => match &self.speaker {
                Some(speaker) => json!(speaker.rib().await.unwrap_or_default()),
                None => json!([]),
            },
            Query::Routes => {
                let report = self.parts.routing.report();
                json!({"counts": report.counts, "problems": report.problems})
            }
            Query::Blocks => {
                let own = self.parts.addresses.own_block_objects();
                json!(own.iter().map(|block| &block.spec).collect::<Vec<_>>())
            }
        }
    }
}

/// Waits for the speaker's next batch, for ever while there is no speaker.
async fn next_batch(batches: &mut Option<RouteStream>) -> RouteBatch {
    if let Some(stream) = batches {
        if let Some(batch) = stream.next_batch().await {
            return batch;
        }
        *batches = None;
    }
    std::future::pending().await
}

/// Whether a session is up and the peer has sent all it has (End-of-RIB, RFC 4724 section 2).
fn is_settled(peer: &PeerSummary) -> bool {
    peer.state == State::Established
        && peer
            .families
            .iter()
            .all(|family| family.end_of_rib_received)
}

fn ready_condition(reports: &Reports, now: &str) -> Condition {
    let (status, reason, message) = match node::readiness(reports) {
        Ok(()) => (
            "True",
            "InOrder",
            "the node's network is in order".to_owned(),
        ),
        Err(words) => ("False", "NotInOrder", words),
    };
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: None,
        last_transition_time: now.to_owned(),
    }
}

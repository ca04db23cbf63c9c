//! The agent's one loop: takes in what the watches and the speaker say, and hands each edge its
//! whole desired value.
//!
//! It never waits for the kernel, the disk or the API server: the edges have tasks of their own,
//! and what they are handed is a value that replaces the last one. The speaker answers at once
//! whatever its peers do. What the loop decides is in [`crate::reconcile`].

mod announcing;
mod speaking;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use k8s_openapi::jiff::Timestamp;
use margay_crds::DrainStage;
use margay_dataplane::TunnelMode;
use margay_speaker::restart::Restart;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use self::announcing::Announcing;
use self::speaking::{Ended, Speaking};
use crate::addresses::Addresses;
use crate::admin::{Query, Question, Request};
use crate::datastore::{Change, Failures, Kind};
use crate::drain::{self, Drain};
use crate::enforcement::Enforcement;
use crate::health::Pulse;
use crate::node_condition;
use crate::pods::PodStore;
use crate::reconcile::routes::RouteIntent;
use crate::reconcile::{routes, speaker};
use crate::routing::Routing;
use crate::services::{ServiceEvent, ServiceWatches};
use crate::settling::Settling;
use crate::status::node::{self, Reports, WallClock};
use crate::status::wish::{self, Wish};
use crate::view::{ClusterNode, View};

/// How often the loop looks at the sessions and writes what changed.
const TICK: Duration = Duration::from_secs(1);
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
    /// Watches of Services.
    pub services: ServiceWatches,
    /// The wired pods.
    pub pods: Arc<PodStore>,
    /// What should stand in the datastore.
    pub statuses: watch::Sender<Wish>,
    /// What the Node's condition `NetworkUnavailable` should say, if another thing than it does.
    pub unavailable: watch::Sender<Option<bool>>,
    /// What health and metrics show.
    pub pulse: watch::Sender<Pulse>,
    /// An earlier agent's routes were found in the kernel.
    pub restarting: bool,
    /// The file that says that the node is drained.
    pub drain_mark: PathBuf,
}

/// The loop's inputs.
#[derive(Debug)]
pub struct Inputs {
    /// The watches but for those of policy.
    pub changes: mpsc::Receiver<Box<Change>>,
    /// Watches that failed.
    pub failures: watch::Receiver<Failures>,
    /// The admin socket.
    pub questions: mpsc::Receiver<Question>,
}

/// The loop and what it knows.
#[derive(Debug)]
pub struct NodeLoop {
    parts: Parts,
    view: View,
    /// This node as last seen with an address. It stays as it was while its Node object is gone:
    /// an object deleted by mistake must not tear the network down.
    own: Option<ClusterNode>,
    own_blocks: Vec<IpNetwork>,
    /// Addresses of other nodes' blocks in use here.
    borrowed: Vec<IpNetwork>,
    /// Addresses of this node's blocks in use elsewhere.
    lent: BTreeSet<IpAddr>,
    /// This node's addresses on its tunnels.
    on_tunnels: BTreeMap<TunnelMode, BTreeSet<IpAddr>>,
    announcing: Announcing,
    /// Something has changed that the edges have not been told.
    is_news: bool,
    /// The other nodes' addresses, as of the last news.
    others: Arc<BTreeSet<IpAddr>>,
    speaking: Speaking,
    restart: Restart,
    settling: Settling,
    drain: Drain,
    reports: Reports,
    clock: WallClock,
}

impl NodeLoop {
    /// A loop over these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            restart: Restart::begin(parts.restarting, Instant::now()),
            settling: Settling::begin(),
            announcing: Announcing::new(&parts.node, parts.services.clone()),
            drain: Drain::begin(drain::is_marked(&parts.drain_mark), Instant::now()),
            parts,
            view: View::default(),
            own: None,
            own_blocks: Vec::new(),
            borrowed: Vec::new(),
            lent: BTreeSet::new(),
            on_tunnels: BTreeMap::new(),
            is_news: true,
            others: Arc::default(),
            speaking: Speaking::default(),
            reports: Reports::default(),
            clock: WallClock::start(),
        }
    }

    /// Turns until `shutdown` ends, then lets the speaker go without a NOTIFICATION, so that
    /// peers keep the routes over a restart. While the node is drained, its sessions end for good.
    ///
    /// # Errors
    /// A part has ended that never should. What it did stays in force in the kernel; a new start
    /// of the agent brings everything up in order.
    pub async fn run(
        mut self,
        inputs: Inputs,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let result = self.turn(inputs, shutdown).await;
        self.speaking.stop(self.drain.message()).await;
        result
    }

    async fn turn(
        &mut self,
        mut inputs: Inputs,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        tokio::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut routed = self.parts.routing.subscribe();
        let mut blocks = self.parts.addresses.changes();
        loop {
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                change = inputs.changes.recv() => match change {
                    Some(change) => self.handle_changes(change, &mut inputs.changes).await?,
                    None => anyhow::bail!("the watches have ended"),
                },
                event = self.announcing.next_event() => self.handle_services(event).await?,
                batches = self.speaking.next_batches() => {
                    batches?;
                    self.handle_batches().await?;
                }
                // These two end with their parts, which the tick sees.
                Ok(()) = blocks.changed() => self.follow().await?,
                Ok(()) = routed.changed() => self.handle_routed(),
                Some((request, reply)) = inputs.questions.recv() => self.answer(request, reply),
                _ = tick.tick() => self.handle_tick(&inputs.failures).await?,
            }
        }
    }

    async fn handle_changes(
        &mut self,
        first: Box<Change>,
        more: &mut mpsc::Receiver<Box<Change>>,
    ) -> anyhow::Result<()> {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(change) = next {
            match *change {
                Change::IPAMBlock(event) => self.parts.addresses.handle(event),
                other => self.is_news |= self.view.handle(other),
            }
            taken += 1;
            next = if taken < BURST {
                more.try_recv().ok()
            } else {
                None
            };
        }
        self.follow().await
    }

    async fn handle_services(&mut self, first: Box<ServiceEvent>) -> anyhow::Result<()> {
        self.announcing.handle(first, BURST);
        self.follow().await
    }

    fn is_synced(&self) -> bool {
        self.view.is_synced() && self.parts.addresses.is_ready()
    }

    /// Tells the edges what is news, once every list has arrived.
    async fn follow(&mut self) -> anyhow::Result<()> {
        if !self.is_synced() {
            return Ok(());
        }
        let own_blocks = self.parts.addresses.own_blocks();
        let (borrowed, lent) = (self.parts.addresses.borrowed(), self.parts.addresses.lent());
        let on_tunnels = self.parts.addresses.tunnels().held();
        let mut blocks_differ = false;
        if self.own_blocks != own_blocks
            || self.borrowed != borrowed
            || self.lent != lent
            || self.on_tunnels != on_tunnels
        {
            self.on_tunnels = on_tunnels;
            self.own_blocks = own_blocks;
            self.borrowed = borrowed;
            self.lent = lent;
            blocks_differ = true;
        }
        if !std::mem::take(&mut self.is_news) {
            // Service addresses concern nobody but the speaker, blocks nobody but it and the routes.
            if self.announcing.poll_news() || blocks_differ {
                self.announce().await?;
            }
            if blocks_differ {
                self.intend_routes();
            }
            return Ok(());
        }
        self.find_own_node();
        self.handle_drain();
        let own = self.own.as_ref();
        self.others = routes::other_nodes(&self.view, own);
        self.parts.addresses.configure(&self.view, own);
        self.parts.enforcement.configure(self.view.pools());
        self.configure_speaker().await?;
        self.intend_routes();
        Ok(())
    }

    fn find_own_node(&mut self) {
        let name = &self.parts.node;
        let problem = match self.view.node(name) {
            Some(node) if !node.addresses.is_empty() => {
                self.own = Some(node.clone());
                None
            }
            Some(_) => Some(format!("Node {name} has no InternalIP in status.addresses")),
            None => Some(format!(
                "there is no Node {name} (is --node-name right, is the node registered?)"
            )),
        };
        if let Some(problem) = &problem
            && self.reports.node.as_ref() != Some(problem)
        {
            let meanwhile = if self.own.is_some() {
                "; it goes on as it was"
            } else {
                ""
            };
            tracing::error!("{problem}{meanwhile}");
        }
        self.reports.node = problem;
    }

    /// Looks how far the drain is that the Node asks for; true if it has come further.
    fn handle_drain(&mut self) -> bool {
        let Some(own) = &self.own else { return false };
        let before = self.drain.stage();
        let differs = self.drain.handle(Instant::now(), own.drain.as_ref());
        let stage = self.drain.stage();
        if stage == before {
            return differs;
        }
        match self.drain.words() {
            Some(words) => tracing::info!("Node {}: {words}", own.name),
            None => tracing::info!("Node {}: its drain is over", own.name),
        }
        let drained = |stage| stage == DrainStage::Drained;
        if drained(before) != drained(stage) {
            drain::set_mark(self.parts.drain_mark.clone(), drained(stage));
        }
        true
    }

    async fn configure_speaker(&mut self) -> Result<(), Ended> {
        let Some(own) = &self.own else {
            return Ok(());
        };
        let settings = self.view.bgp_settings_of(&own.name);
        self.announcing.configure(&settings, own);
        if !self.speaking.is_running() && self.announcing.holds_back(Instant::now()) {
            return Ok(());
        }
        let announced = [&self.own_blocks[..], &self.borrowed].concat();
        let mut desired = speaker::desired(
            &self.view,
            own,
            &announced,
            self.announcing.services().announcements(),
            self.restart.is_under_way(),
        );
        if let Ok(desired) = &mut desired {
            self.drain.apply(&mut desired.config);
        }
        self.speaking.bring(desired).await
    }

    /// Tells the speaker what to announce, where nothing else has changed: a mesh of a thousand sessions is not worked out anew
    /// for a block.
    async fn announce(&mut self) -> Result<(), Ended> {
        if let (Some(own), DrainStage::No) = (&self.own, self.drain.stage()) {
            let blocks = [&self.own_blocks[..], &self.borrowed].concat();
            let services = self.announcing.services().announcements();
            let announced = speaker::announced(&self.view, own, &blocks, services);
            if self.speaking.announce(announced).await? {
                return Ok(());
            }
        }
        self.configure_speaker().await
    }

    async fn handle_batches(&mut self) -> anyhow::Result<()> {
        if self.restart.handle_synced(self.speaking.best.is_synced()) {
            tracing::info!("restart is over: routes that no session confirmed are removed");
            self.is_news = true;
            return self.follow().await;
        }
        self.intend_routes();
        Ok(())
    }

    /// Until the speaker has given all it holds, the routes stay as they are.
    fn intend_routes(&mut self) {
        if !self.is_synced() || self.speaking.is_catching_up() {
            return;
        }
        let Some(own) = &self.own else { return };
        let best = &self.speaking.best;
        let keep = self.restart.is_under_way();
        let others = Arc::clone(&self.others);
        let blocks = (&*self.own_blocks, &self.lent);
        let intent = routes::intent(&self.view, own, others, blocks, best, keep);
        let asks = routes::tunnel_families(&self.view);
        self.parts.addresses.tunnels().want(asks);
        let intent = RouteIntent {
            tunnel_addresses: self.on_tunnels.clone(),
            ..intent
        };
        self.parts.routing.intend(intent);
    }

    fn handle_routed(&self) {
        let tunnels = self.parts.routing.report().tunnels;
        self.parts.enforcement.set_tunnels(&tunnels);
    }

    async fn handle_tick(&mut self, failures: &watch::Receiver<Failures>) -> anyhow::Result<()> {
        if let Some(part) = self.ended_part() {
            anyhow::bail!("{part} has ended unexpectedly");
        }
        let drains_on = self.is_synced() && self.handle_drain();
        let waits_over = self.announcing.is_over_waiting(Instant::now());
        if drains_on || waits_over || self.speaking.has_problem() {
            self.configure_speaker().await?;
        }
        if self.speaking.look().await? {
            let (established, all) = self.speaking.report.sessions();
            self.reports.settling = self
                .settling
                .handle_sessions(Instant::now(), established, all);
            let peers = &self.speaking.report.peers;
            if self.restart.handle_peers(Instant::now(), peers) {
                self.speaking.listen_anew().await?;
            }
        }
        self.collect_reports(failures);
        if self.is_synced() {
            let now = (Instant::now(), Timestamp::now());
            let wish = wish::wish(
                &self.view,
                &self.parts.node,
                &self.reports,
                &self.clock,
                now,
            );
            self.parts.statuses.send_replace(wish);
            self.tell_kubernetes();
        }
        self.parts.pulse.send_replace(Pulse {
            at: Instant::now(),
            reports: self.reports.clone(),
        });
        Ok(())
    }

    /// Whether pods may be put on this node.
    fn tell_kubernetes(&self) {
        // Without a Node there is nothing to write to.
        let Some(node) = self.view.node(&self.parts.node) else {
            return;
        };
        let is_ready = node::serves(&self.reports).is_ok();
        let wanted = node_condition::wanted(node.network_unavailable, is_ready);
        let unavailable = &self.parts.unavailable;
        unavailable.send_if_modified(|known| std::mem::replace(known, wanted) != wanted);
    }

    /// A part whose task is gone, which only a mistake in the program brings about. Going on
    /// without it would look well and be none.
    fn ended_part(&self) -> Option<&'static str> {
        let parts = [
            (self.parts.routing.has_ended(), "the routing edge"),
            (self.parts.enforcement.has_ended(), "the policy edge"),
            (self.parts.addresses.has_ended(), "the allocator"),
            (self.parts.statuses.is_closed(), "the writer of statuses"),
        ];
        let ended = parts.iter().find(|(ended, _)| *ended);
        ended.map(|(_, name)| *name)
    }

    fn collect_reports(&mut self, failures: &watch::Receiver<Failures>) {
        self.reports.speaker.clone_from(&self.speaking.report);
        self.reports.routing = self.parts.routing.report();
        self.reports.policy = self.parts.enforcement.report();
        self.reports.pods = self.parts.pods.len();
        self.reports.blocks = self.own_blocks.len();
        self.reports.addresses = self.parts.addresses.problems();
        self.reports.remarks = match self.is_synced() {
            true => self.parts.addresses.remarks(),
            false => Vec::new(),
        };
        let services = self.announcing.services();
        self.reports.remarks.extend(services.problems());
        self.reports.services = services.announcements().len();
        self.reports.remarks.extend(self.drain.words());
        self.reports.drain = self.drain.stage();
        let blocks = (!self.parts.addresses.is_ready()).then_some(Kind::IPAMBlock);
        // The policy edge always waits for the pools, which only the loop can give it.
        let policy = self.reports.policy.waiting_for;
        let policy = policy.filter(|kind| *kind != Kind::IPPool);
        let missing = self.view.missing().chain(blocks).chain(policy);
        let missing = missing.chain(services.missing());
        self.reports.waiting = waiting(missing, &failures.borrow());
    }

    fn answer(&self, request: Request, reply: oneshot::Sender<Value>) {
        let status = || {
            let mut status = node::status(&self.reports, &self.clock);
            let now = node::rfc3339(Timestamp::now());
            status.conditions = vec![wish::ready(&self.reports, &now)];
            status
        };
        let answer = match request.query {
            Query::Status => json!(status()),
            Query::Bgp => json!(status().bgp),
            Query::Routes => {
                let report = &self.reports.routing;
                json!({
                    "counts": report.counts,
                    "problems": report.problems,
                    "missing": report.missing,
                })
            }
            Query::Policy => {
                let report = &self.reports.policy;
                json!({
                    "programmed": report.programmed,
                    "problem": report.problem,
                    "objects": report.objects,
                })
            }
            Query::Services => self.announcing.tell(),
            Query::Blocks => {
                let own = self.parts.addresses.own_block_objects();
                json!(own.iter().map(|block| &block.spec).collect::<Vec<_>>())
            }
            Query::Denials => json!(self.parts.enforcement.denials(request.after)),
            // The policy edge may be busy; the loop does not wait for it.
            Query::Counters => {
                let enforcement = self.parts.enforcement.clone();
                tokio::spawn(async move {
                    let counts = enforcement.counts().await;
                    let _ = reply.send(json!({ "counters": counts }));
                });
                return;
            }
            // A whole RIB takes its time; the loop does not wait for it.
            Query::Rib => return self.speaking.tell_rib(reply),
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    }
}

/// The lists that have not arrived, in words.
fn waiting(missing: impl Iterator<Item = Kind>, failures: &Failures) -> Vec<String> {
    let words = missing.map(|kind| match failures.get(&kind) {
        Some(reason) => format!("waiting for the list of {kind} objects: {reason}"),
        None => format!("waiting for the list of {kind} objects"),
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_named_with_its_reason() {
        let failures = Failures::from([
            (Kind::BGPPeer, "404 page not found".to_owned()),
            (Kind::Node, "old".to_owned()),
        ]);
        let words = waiting([Kind::IPPool, Kind::BGPPeer].into_iter(), &failures);
        assert_eq!(
            words,
            [
                "waiting for the list of IPPool objects",
                "waiting for the list of BGPPeer objects: 404 page not found",
            ]
        );
    }
}

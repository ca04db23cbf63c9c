//! The task of the policy edge.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use margay_policy::writer::{Error, Reports, Writer};
use margay_policy::{Engine, Failsafes, LocalEndpoint, Pool, Transaction};
use tokio::sync::{mpsc, oneshot, watch};

use super::PolicyReport;
use super::connections::Connections;
use super::objects::Objects;
use super::seen::{Count, Ring, Seen};
use crate::datastore::{Change, Kind};

/// How long after a failed commit the next is tried without a new reason.
const RETRY: Duration = Duration::from_secs(5);
/// How often the kernel's table is read back: something else may have changed it.
const AUDIT: Duration = Duration::from_secs(180);
/// For how long the kernel is not asked again what it has counted.
const COUNTED: Duration = Duration::from_secs(2);
/// The most changes taken in before a commit: those that wait for one must get their turn.
const BURST: usize = 4096;

pub(super) type Reply = oneshot::Sender<Result<(), String>>;

/// What the CNI server asks for.
#[derive(Debug)]
pub(super) enum Request {
    Put(LocalEndpoint, Reply),
    Take(String),
}

/// What the task is told, by whom.
pub(super) struct Inputs {
    /// The CNI server.
    pub(super) queue: mpsc::Receiver<Request>,
    /// The watches.
    pub(super) changes: mpsc::Receiver<Box<Change>>,
    /// The agent's loop.
    pub(super) settings: watch::Receiver<Settings>,
    /// The table, about packets.
    pub(super) reported: mpsc::Receiver<Reports>,
    /// Who wants to know what rules have counted.
    pub(super) counted: mpsc::Receiver<oneshot::Sender<Vec<Count>>>,
}

/// What the agent's loop knows better.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Settings {
    /// The pools; none before their list has arrived.
    pub(super) pools: Option<Vec<Pool>>,
    pub(super) tunnel_devices: BTreeSet<String>,
    /// The node's interfaces and their addresses.
    pub(super) interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
    pub(super) failsafes: Failsafes,
}

pub(super) struct Edge<W> {
    writer: Arc<W>,
    reports: watch::Sender<PolicyReport>,
    objects: Objects,
    engine: Engine,
    pools_known: bool,
    /// Whether the kernel holds what the engine last said: not before the first commit and after
    /// one that failed.
    committed: bool,
    /// What makes the kernel's table right again that somebody has changed.
    repair: Option<Transaction>,
    /// What the last failed commit said.
    failure: Option<String>,
    connections: Connections,
    repairs: usize,
    seen: Seen,
    /// When the kernel was last asked what it has counted.
    counted: Option<Instant>,
}

impl<W: Writer + 'static> Edge<W> {
    pub(super) fn new(
        node: &str,
        endpoints: impl Iterator<Item = LocalEndpoint>,
        endpoints_wanted: watch::Sender<bool>,
        writer: W,
        reports: watch::Sender<PolicyReport>,
    ) -> Self {
        let mut engine = Engine::new(node);
        endpoints.for_each(|one| engine.handle_endpoint(one));
        let writer = Arc::new(writer);
        let connections = Connections::start(&writer);
        Self {
            writer,
            reports,
            objects: Objects::new(endpoints_wanted),
            engine,
            pools_known: false,
            committed: false,
            repair: None,
            failure: None,
            connections,
            repairs: 0,
            seen: Seen::default(),
            counted: None,
        }
    }

    /// Reported packets go there.
    pub(super) fn telling(mut self, ring: Ring) -> Self {
        self.seen = Seen::new(ring);
        self
    }

    /// Runs until nobody can ask any more.
    pub(super) async fn run(mut self, inputs: Inputs) {
        let Inputs {
            mut queue,
            mut changes,
            mut settings,
            mut reported,
            mut counted,
        } = inputs;
        let mut waiting = Vec::new();
        let mut audits = tokio::time::interval(AUDIT);
        audits.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = queue.recv() => match request {
                    Some(request) => self.handle(request, &mut waiting),
                    None => return,
                },
                // Without watches there is no more news; what is known stays in force.
                Some(change) = changes.recv() => {
                    self.objects.handle(*change, self.engine.cluster());
                }
                Ok(()) = settings.changed() => {}
                // Neither changes what is wanted of the kernel.
                Some(reports) = reported.recv() => {
                    let endpoints = self.engine.endpoints();
                    self.seen.take(&reports, self.engine.known(), endpoints);
                    continue;
                }
                Some(reply) = counted.recv() => {
                    self.count(COUNTED);
                    // Whoever asked may have given up.
                    let _ = reply.send(self.seen.counts(self.engine.known()));
                    continue;
                }
                walked = self.connections.walked() => {
                    self.connections.handle_walked(walked);
                    if self.committed {
                        self.connections.end_due(&self.writer);
                    }
                    continue;
                }
                _ = audits.tick() => self.audit(),
                () = tokio::time::sleep(RETRY), if self.failure.is_some() => {}
            }
            self.take_settings(&settings.borrow_and_update());
            for _ in 0..BURST {
                let Ok(change) = changes.try_recv() else {
                    break;
                };
                self.objects.handle(*change, self.engine.cluster());
            }
            while let Ok(request) = queue.try_recv() {
                self.handle(request, &mut waiting);
            }
            let result = self.commit().await;
            for (addresses, reply) in waiting.drain(..) {
                match &result {
                    Ok(()) => self.connections.answer(addresses, reply),
                    Err(error) => {
                        // Whoever asked may have given up.
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn handle(&mut self, request: Request, waiting: &mut Vec<(Vec<IpAddr>, Reply)>) {
        match request {
            Request::Put(endpoint, reply) => {
                if self.engine.endpoint(&endpoint.interface).is_none() {
                    self.connections.handle_new(&endpoint.addresses);
                }
                waiting.push((endpoint.addresses.clone(), reply));
                self.engine.handle_endpoint(endpoint);
            }
            Request::Take(interface) => {
                if let Some(gone) = self.engine.handle_endpoint_gone(&interface) {
                    self.connections.handle_gone(&gone.addresses);
                }
            }
        }
    }

    /// Asks the kernel what its chains have counted, unless it was asked so recently.
    fn count(&mut self, recently: Duration) {
        if self.counted.is_some_and(|at| at.elapsed() < recently) {
            return;
        }
        match self.writer.tallies() {
            Ok(tallies) => self.seen.count(tallies),
            Err(error) => tracing::warn!("policy: the kernel's counters cannot be read: {error}"),
        }
        self.counted = Some(Instant::now());
    }

    /// Reads the kernel's table back; if it is not as committed the next commit repairs it.
    fn audit(&mut self) {
        if !self.committed {
            return;
        }
        match self.writer.audit(self.engine.ruleset()) {
            Ok(found) if found.differences.is_empty() => {}
            Ok(found) => {
                let words = found.differences.join("; ");
                tracing::error!(
                    "policy: somebody changed the kernel's table, it is repaired: {words}"
                );
                self.repairs += 1;
                self.repair = Some(found.repair);
            }
            Err(error) => tracing::warn!("policy: the kernel's table cannot be read back: {error}"),
        }
    }

    fn take_settings(&mut self, settings: &Settings) {
        self.engine.handle_tunnels(&settings.tunnel_devices);
        self.engine
            .handle_host(&settings.interfaces, &settings.failsafes);
        if let Some(pools) = &settings.pools {
            self.engine.handle_pools(pools);
            self.pools_known = true;
        }
    }

    fn missing(&self) -> Option<Kind> {
        let pools = (!self.pools_known).then_some(Kind::IPPool);
        pools.or_else(|| self.objects.missing(self.engine.known()))
    }

    async fn commit(&mut self) -> Result<(), String> {
        if let Some(kind) = self.missing() {
            self.reports
                .send_if_modified(|report| report.waiting_for.replace(kind) != Some(kind));
            return Err(format!(
                "the list of {kind} objects has not arrived yet: try again when the API server is reachable"
            ));
        }
        let result = self.bring().await.map_err(|error| error.to_string());
        if result.is_ok() {
            self.connections.end_due(&self.writer);
        }
        self.say(result.as_ref().err());
        let problems = self.engine.problems().chain(self.objects.problems());
        let objects = problems.map(ToString::to_string).collect();
        self.reports.send_if_modified(|known| {
            let report = PolicyReport {
                programmed: known.programmed || result.is_ok(),
                waiting_for: None,
                problem: result.as_ref().err().cloned(),
                objects,
                repairs: self.repairs,
            };
            let differs = *known != report;
            *known = report;
            differs
        });
        result
    }

    /// Commits what has changed, after a repair if one is due. If either is refused, or what the
    /// kernel holds is not known, commits the whole table, in one transaction: until that succeeds
    /// the last table is in force.
    async fn bring(&mut self) -> Result<(), Error> {
        let repair = self.repair.take();
        let change = self.engine.poll();
        if self.committed {
            // A difference that nothing but the whole table repairs.
            let hopeless = repair.as_ref().is_some_and(Transaction::is_empty);
            self.committed = false;
            if !hopeless {
                match self.bring_changes(repair, change).await {
                    Ok(()) => {
                        self.committed = true;
                        return Ok(());
                    }
                    // Nothing that the whole table would do better.
                    Err(error @ (Error::Run(_) | Error::Permission(_))) => return Err(error),
                    Err(error @ Error::Full(_)) => {
                        tracing::info!("{error}; it is made larger, with the whole table");
                    }
                    Err(error) => tracing::warn!("{error}; the table is replaced as a whole"),
                }
            }
        }
        // A new table counts from 0.
        self.count(Duration::ZERO);
        self.writer.apply(&self.engine.ruleset().full()).await?;
        self.committed = true;
        Ok(())
    }

    async fn bring_changes(
        &mut self,
        repair: Option<Transaction>,
        change: Transaction,
    ) -> Result<(), Error> {
        for transaction in repair.into_iter().chain([change]) {
            if !transaction.is_empty() {
                self.seen.forget_names();
                self.writer.apply(&transaction).await?;
            }
        }
        Ok(())
    }

    /// Logs a failure when it is news and not again while it lasts.
    fn say(&mut self, failure: Option<&String>) {
        match failure {
            Some(error) if self.failure.as_ref() != Some(error) => {
                tracing::error!("policy: {error}");
            }
            None if self.failure.is_some() => tracing::info!("policy: the table is written again"),
            _ => {}
        }
        self.failure = failure.cloned();
    }
}

//! The policy edge: keeps the table `inet margay` at what pods, namespaces, policies and the
//! pods wired here make of it.
//!
//! One task owns the picture and the table. It takes in whatever waits, compiles once, and
//! commits the difference in one transaction. Until every list has arrived it commits nothing: a
//! restarted agent leaves the table of the earlier one in force, and a new pod waits (fail
//! closed). What a policy means is the policy crate's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use margay_policy::writer::{Nft, Writer};
use margay_policy::{Cluster, Compiler, LocalEndpoint, NodeInput, Pool, Problem, Ruleset, diff};
use tokio::sync::{mpsc, oneshot, watch};

use crate::dataplane::TunnelMode;
use crate::datastore::{Change, Roster, RosterChange};
use crate::endpoints::Endpoint;
use crate::status::node::PolicyReport;
use crate::view::View;

/// Requests that may wait; more make the watches wait.
const QUEUE: usize = 1024;
/// How long after a failed commit the next is tried without a new reason.
const RETRY: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum Request {
    Change(Box<Change>),
    Pools(Vec<Pool>),
    Tunnels(BTreeSet<String>),
    Put(LocalEndpoint, oneshot::Sender<Result<(), String>>),
    Take(String, oneshot::Sender<Result<(), String>>),
}

/// A handle to the policy edge.
#[derive(Debug, Clone)]
pub struct Enforcement {
    requests: mpsc::Sender<Request>,
    report: watch::Receiver<PolicyReport>,
}

impl Enforcement {
    /// Starts the edge for `node`, with the pods that an earlier agent wired.
    pub fn start(node: &str, endpoints: &[Endpoint]) -> Self {
        Self::start_with(node, endpoints, Nft::default())
    }

    /// As [`Self::start`], with another way to the kernel.
    pub fn start_with(node: &str, endpoints: &[Endpoint], writer: impl Writer + 'static) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let (reports, report) = watch::channel(PolicyReport::default());
        let known = endpoints
            .iter()
            .map(|one| (one.host_interface.clone(), local(one)));
        let edge = Edge {
            writer,
            reports,
            endpoints: known.collect(),
            input: NodeInput {
                node: node.to_owned(),
                ..NodeInput::default()
            },
            cluster: Cluster::new(),
            compiler: Compiler::new(),
            rosters: Rosters::default(),
            problems: BTreeMap::new(),
            committed: None,
            pools_known: false,
        };
        tokio::spawn(edge.run(queue));
        Self { requests, report }
    }

    /// Takes in a change of a pod, a namespace or a policy; other kinds change nothing.
    pub async fn handle(&self, change: Change) {
        self.send(Request::Change(Box::new(change))).await;
    }

    /// Takes in the pools.
    pub async fn configure(&self, view: &View) {
        let pools = view.pools().into_iter().map(|pool| Pool {
            cidr: pool.cidr,
            nat_outgoing: pool.nat_outgoing,
        });
        self.send(Request::Pools(pools.collect())).await;
    }

    /// Takes in which tunnels are in use.
    pub async fn set_tunnels(&self, tunnels: &[TunnelMode]) {
        let devices = tunnels.iter().map(|mode| mode.device().to_owned());
        self.send(Request::Tunnels(devices.collect())).await;
    }

    /// Brings a pod's policy into the kernel; it is in force when this returns.
    ///
    /// # Errors
    /// Why it is not, in words.
    pub async fn put(&self, endpoint: &Endpoint) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Put(local(endpoint), reply)).await;
        answer
            .await
            .unwrap_or_else(|_| Err("the agent is stopping".to_owned()))
    }

    /// Takes a pod's policy out again.
    ///
    /// # Errors
    /// Why it is still there, in words.
    pub async fn take(&self, host_interface: &str) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Take(host_interface.to_owned(), reply))
            .await;
        answer
            .await
            .unwrap_or_else(|_| Err("the agent is stopping".to_owned()))
    }

    /// What has been brought about so far.
    pub fn report(&self) -> PolicyReport {
        self.report.borrow().clone()
    }

    async fn send(&self, request: Request) {
        // The edge ends only with the agent; whoever waits for an answer is told.
        let _ = self.requests.send(request).await;
    }
}

fn local(endpoint: &Endpoint) -> LocalEndpoint {
    LocalEndpoint {
        namespace: endpoint.namespace.clone(),
        pod: endpoint.pod.clone(),
        uid: endpoint.uid.clone(),
        labels: None,
        interface: endpoint.host_interface.clone(),
        addresses: endpoint.addresses.clone(),
    }
}

/// Which lists have arrived, and what they named.
#[derive(Debug, Default)]
struct Rosters {
    pods: Roster,
    namespaces: Roster,
    policies: Roster,
}

struct Edge<W> {
    writer: W,
    reports: watch::Sender<PolicyReport>,
    endpoints: BTreeMap<String, LocalEndpoint>,
    input: NodeInput,
    cluster: Cluster,
    compiler: Compiler,
    rosters: Rosters,
    /// What is wrong with an object, by kind and key.
    problems: BTreeMap<(&'static str, String), Vec<Problem>>,
    /// What the kernel holds; none before the first commit and after one whose outcome is open.
    committed: Option<Ruleset>,
    pools_known: bool,
}

type Waiting = Vec<oneshot::Sender<Result<(), String>>>;

impl<W: Writer> Edge<W> {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut failed = false;
        let mut waiting = Waiting::new();
        loop {
            tokio::select! {
                request = queue.recv() => match request {
                    Some(request) => self.handle(request, &mut waiting),
                    None => return,
                },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
            while let Ok(request) = queue.try_recv() {
                self.handle(request, &mut waiting);
            }
            let result = self.commit().await;
            failed = result.is_err();
            for reply in waiting.drain(..) {
                // Whoever asked may have given up.
                let _ = reply.send(result.clone());
            }
        }
    }

    fn handle(&mut self, request: Request, waiting: &mut Waiting) {
        match request {
            Request::Change(change) => self.handle_change(*change),
            Request::Pools(pools) => {
                self.input.pools = pools;
                self.pools_known = true;
            }
            Request::Tunnels(devices) => self.input.tunnel_devices = devices,
            Request::Put(endpoint, reply) => {
                self.endpoints.insert(endpoint.interface.clone(), endpoint);
                waiting.push(reply);
            }
            Request::Take(interface, reply) => {
                self.endpoints.remove(&interface);
                waiting.push(reply);
            }
        }
    }

    fn handle_change(&mut self, change: Change) {
        match change {
            Change::Pod(event) => {
                for change in self.rosters.pods.handle(event) {
                    self.pod(change);
                }
            }
            Change::Namespace(event) => {
                for change in self.rosters.namespaces.handle(event) {
                    self.namespace(change);
                }
            }
            Change::NetworkPolicy(event) => {
                for change in self.rosters.policies.handle(event) {
                    self.policy(change);
                }
            }
            _ => {}
        }
    }

    fn pod(&mut self, change: RosterChange<Pod>) {
        match change {
            RosterChange::Present(key, pod) => {
                let found = self.cluster.apply_pod(&pod);
                self.note("Pod", key, found);
            }
            RosterChange::Gone(key) => {
                let (namespace, name) = split(&key);
                self.cluster.remove_pod(namespace, name);
                self.note("Pod", key, Vec::new());
            }
        }
    }

    fn namespace(&mut self, change: RosterChange<Namespace>) {
        match change {
            RosterChange::Present(key, namespace) => {
                let found = self.cluster.apply_namespace(&namespace);
                self.note("Namespace", key, found);
            }
            RosterChange::Gone(key) => {
                self.cluster.remove_namespace(&key);
                self.note("Namespace", key, Vec::new());
            }
        }
    }

    fn policy(&mut self, change: RosterChange<NetworkPolicy>) {
        match change {
            RosterChange::Present(key, policy) => {
                let found = self.cluster.apply_network_policy(&policy);
                self.note("NetworkPolicy", key, found);
            }
            RosterChange::Gone(key) => {
                let (namespace, name) = split(&key);
                self.cluster.remove_network_policy(namespace, name);
                self.note("NetworkPolicy", key, Vec::new());
            }
        }
    }

    /// Remembers what is wrong with an object, and says it when it is news.
    fn note(&mut self, kind: &'static str, key: String, found: Vec<Problem>) {
        let known = self.problems.get(&(kind, key.clone()));
        if known.map_or(&[][..], Vec::as_slice) != found {
            for problem in &found {
                tracing::error!("{problem}");
            }
        }
        if found.is_empty() {
            self.problems.remove(&(kind, key));
        } else {
            self.problems.insert((kind, key), found);
        }
    }

    fn missing(&self) -> Option<&'static str> {
        let lists = [
            (self.pools_known, "IPPools"),
            (self.rosters.namespaces.is_synced(), "Namespaces"),
            (self.rosters.pods.is_synced(), "Pods"),
            (self.rosters.policies.is_synced(), "NetworkPolicies"),
        ];
        lists
            .iter()
            .find(|(known, _)| !known)
            .map(|(_, name)| *name)
    }

    async fn commit(&mut self) -> Result<(), String> {
        if let Some(name) = self.missing() {
            return Err(format!(
                "the list of {name} has not arrived yet: try again when the API server is reachable"
            ));
        }
        self.input.endpoints = self.endpoints.values().cloned().collect();
        let (wanted, mut found) = self.compiler.compile(&self.cluster, &self.input);
        let result = self.bring(wanted).await;
        found.extend(self.problems.values().flatten().cloned());
        let mut problems: Vec<String> = found.iter().map(ToString::to_string).collect();
        problems.extend(result.clone().err());
        self.reports.send_if_modified(|report| {
            let new = PolicyReport {
                programmed: report.programmed || result.is_ok(),
                problems,
            };
            let differs = *report != new;
            *report = new;
            differs
        });
        result
    }

    /// Commits the difference; if the kernel's table turns out to be another than was committed,
    /// or that is not known, the whole table, in one transaction.
    async fn bring(&mut self, wanted: Ruleset) -> Result<(), String> {
        if let Some(committed) = &self.committed {
            let transaction = diff(committed, &wanted);
            if transaction.is_empty() {
                return Ok(());
            }
            match self.writer.apply(&transaction).await {
                Ok(()) => {
                    self.committed = Some(wanted);
                    return Ok(());
                }
                Err(error) if error.wants_replacement() => {
                    tracing::warn!("{error}; the table is replaced as a whole");
                }
                Err(error) => {
                    tracing::error!("policy: {error}");
                    return Err(error.to_string());
                }
            }
        }
        match self.writer.apply(&wanted.full()).await {
            Ok(()) => {
                self.committed = Some(wanted);
                Ok(())
            }
            Err(error) => {
                tracing::error!("policy: {error}");
                self.committed = None;
                Err(error.to_string())
            }
        }
    }
}

/// The namespace and the name of a key.
fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::runtime::watcher::Event;
    use margay_policy::writer::{Applied, Memory};

    use super::*;

    /// The in-memory table, shared with the test.
    struct Shared(Arc<Memory>);

    impl Writer for Shared {
        fn apply<'a>(&'a self, transaction: &'a margay_policy::Transaction) -> Applied<'a> {
            self.0.apply(transaction)
        }
    }

    fn endpoint() -> Endpoint {
        Endpoint {
            container_id: "c1".into(),
            interface: "eth0".into(),
            namespace: "default".into(),
            pod: "web".into(),
            uid: None,
            host_interface: "mgy0123456789a".into(),
            netns: "/run/netns/web".into(),
            addresses: vec!["10.244.0.1".parse().unwrap()],
            mtu: 1450,
        }
    }

    async fn empty_lists(edge: &Enforcement) {
        edge.handle(Change::Namespace(Event::Init)).await;
        edge.handle(Change::Namespace(Event::InitDone)).await;
        edge.handle(Change::Pod(Event::Init)).await;
        edge.handle(Change::Pod(Event::InitDone)).await;
        edge.handle(Change::NetworkPolicy(Event::Init)).await;
        edge.handle(Change::NetworkPolicy(Event::InitDone)).await;
        edge.configure(&View::default()).await;
    }

    #[tokio::test]
    async fn nothing_is_committed_before_every_list_has_arrived() {
        let table = Arc::new(Memory::new());
        let edge = Enforcement::start_with("n1", &[], Shared(Arc::clone(&table)));
        let refused = edge.put(&endpoint()).await.unwrap_err();
        assert!(refused.contains("has not arrived yet"), "{refused}");
        assert_eq!(table.commits(), 0);
        assert!(!edge.report().programmed);

        empty_lists(&edge).await;
        edge.put(&endpoint()).await.unwrap();
        assert!(edge.report().programmed);
        assert!(format!("{:?}", table.table()).contains("mgy0123456789a"));

        edge.take("mgy0123456789a").await.unwrap();
        assert!(!format!("{:?}", table.table()).contains("mgy0123456789a"));
    }

    #[tokio::test]
    async fn pods_of_an_earlier_agent_are_in_the_first_commit() {
        let table = Arc::new(Memory::new());
        let edge = Enforcement::start_with("n1", &[endpoint()], Shared(Arc::clone(&table)));
        empty_lists(&edge).await;
        edge.take("mgy-absent").await.unwrap();
        assert!(format!("{:?}", table.table()).contains("mgy0123456789a"));
    }
}

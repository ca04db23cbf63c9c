//! What is said of policies: the `Accepted` condition on those of ours and on host endpoints, and Events about
//! Kubernetes' kinds, whose status is not ours to write.
//!
//! Every agent fails closed by itself on what it does not understand; this is how people hear of it, once for the
//! cluster and not once from each node. Nothing is written while nothing changes: a condition is written when it differs
//! from the one that stands, an Event when the words about an object do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event as Told, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds as crds;
use margay_crds::field::join;
use margay_crds::{Condition, FieldError, PolicyStatus};
use margay_ipam::{SystemClock, clock::Clock};
use margay_policy::{Cluster, Problem};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::datastore::{Failures, Follower, Kind, Mirror, Roster, RosterChange};
use crate::status::conditions;

/// How many events may wait before the watches wait.
const QUEUE: usize = 256;
/// How long changes gather.
const GATHER: Duration = Duration::from_millis(500);
/// How long it takes until what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long it takes until a kind that is not served is asked for again.
const UNSERVED: Duration = Duration::from_secs(60);
/// How long one write may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest note of an Event, in bytes.
const NOTE: usize = 1000;

/// One event of one of the watches.
enum Change {
    Own(Event<crds::NetworkPolicy>),
    Global(Event<crds::GlobalNetworkPolicy>),
    Host(Event<crds::HostEndpoint>),
    Tier(Event<crds::Tier>),
    Kubernetes(Event<NetworkPolicy>),
    Cluster(Event<crds::ClusterNetworkPolicy>),
}

/// A kind of ours whose objects carry the condition.
trait Judged: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug {
    fn errors(&self) -> Vec<FieldError>;
    fn standing(&self) -> &[Condition];
    /// The tier it names.
    fn tier(&self) -> Option<&str>;
    fn api(&self, client: &Client) -> Api<Self>;
}

fn of(status: Option<&PolicyStatus>) -> &[Condition] {
    status.map_or(&[], |status| &status.conditions)
}

impl Judged for crds::NetworkPolicy {
    fn errors(&self) -> Vec<FieldError> {
        self.read().errors
    }
    fn standing(&self) -> &[Condition] {
        of(self.status.as_ref())
    }
    fn tier(&self) -> Option<&str> {
        Some(&self.spec.tier)
    }
    fn api(&self, client: &Client) -> Api<Self> {
        Api::namespaced(client.clone(), &self.namespace().unwrap_or_default())
    }
}

impl Judged for crds::GlobalNetworkPolicy {
    fn errors(&self) -> Vec<FieldError> {
        self.read().errors
    }
    fn standing(&self) -> &[Condition] {
        of(self.status.as_ref())
    }
    fn tier(&self) -> Option<&str> {
        Some(&self.spec.tier)
    }
    fn api(&self, client: &Client) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl Judged for crds::HostEndpoint {
    fn errors(&self) -> Vec<FieldError> {
        self.read().errors
    }
    fn standing(&self) -> &[Condition] {
        of(self.status.as_ref())
    }
    fn tier(&self) -> Option<&str> {
        None
    }
    fn api(&self, client: &Client) -> Api<Self> {
        Api::all(client.clone())
    }
}

/// The conditions that should stand on an object, or none if they do.
fn wanted<K: Judged>(
    object: &K,
    has_tier: impl Fn(&str) -> bool,
    now: &str,
) -> Option<Vec<Condition>> {
    let errors = object.errors();
    let missing = object.tier().filter(|tier| !has_tier(tier));
    let (status, reason, message) = match missing {
        _ if !errors.is_empty() => (
            "False",
            "Invalid",
            format!(
                "in part not understood, which allows nothing: {}",
                join(&errors)
            ),
        ),
        Some(tier) => (
            "False",
            "TierNotFound",
            format!(
                "spec.tier: {tier:?}: there is no such Tier: the policy comes after all others; create the Tier"
            ),
        ),
        None => ("True", "Valid", "in force".to_owned()),
    };
    let condition = Condition {
        type_: conditions::ACCEPTED.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: object.meta().generation,
        last_transition_time: now.to_owned(),
    };
    conditions::with(object.standing(), condition)
}

/// The objects of a kind of ours, and which of them have to be looked at.
struct Objects<K> {
    mirror: Mirror<K>,
    dirty: BTreeSet<String>,
}

impl<K: Judged + PartialEq> Objects<K> {
    fn new() -> Self {
        Self {
            mirror: Mirror::default(),
            dirty: BTreeSet::new(),
        }
    }

    fn handle(&mut self, event: Event<K>) {
        for change in self.mirror.handle(event) {
            match change {
                RosterChange::Present(key, _) => self.dirty.insert(key),
                RosterChange::Gone(key) => self.dirty.remove(&key),
            };
        }
    }

    fn look_at_all(&mut self) {
        let keys = self.mirror.values().map(|object| {
            let name = object.name_any();
            match object.namespace() {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name,
            }
        });
        self.dirty = keys.collect();
    }

    /// Writes what differs. What could not be written stays to be looked at.
    async fn write(&mut self, client: &Client, has_tier: impl Fn(&str) -> bool) {
        let now = format!("{:.0}", SystemClock.now());
        for key in std::mem::take(&mut self.dirty) {
            let Some(object) = self.mirror.get(&key) else {
                continue;
            };
            let Some(conditions) = wanted(object, &has_tier, &now) else {
                continue;
            };
            let body = json!({
                "metadata": {"resourceVersion": object.resource_version()},
                "status": {"conditions": conditions},
            });
            let (api, name) = (object.api(client), object.name_any());
            let (parameters, body) = (PatchParams::default(), Patch::Merge(body));
            let written = api.patch_status(&name, &parameters, &body);
            match tokio::time::timeout(TIMEOUT, written).await {
                // A newer version is on its way here by the watch.
                Ok(Ok(_)) => {}
                Ok(Err(kube::Error::Api(status))) if [404, 409].contains(&status.code) => {}
                Ok(Err(error)) => {
                    tracing::debug!("{} {key}: status: {error}", K::kind(&()));
                    self.dirty.insert(key);
                }
                Err(_) => {
                    self.dirty.insert(key);
                }
            }
        }
    }
}

/// What has been told of the objects of a kind of Kubernetes'.
struct Reports {
    roster: Roster,
    /// By key: the object, and the words.
    told: BTreeMap<String, String>,
    pending: BTreeMap<String, (ObjectReference, String)>,
}

impl Reports {
    fn new() -> Self {
        Self {
            roster: Roster::default(),
            told: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    fn handle<K>(&mut self, event: Event<K>, check: impl Fn(&K) -> Vec<Problem>)
    where
        K: Resource<DynamicType = ()>,
    {
        for change in self.roster.handle(event) {
            match change {
                RosterChange::Present(key, object) => {
                    let problems = check(&object);
                    if problems.is_empty() {
                        self.told.remove(&key);
                        self.pending.remove(&key);
                        continue;
                    }
                    let words = note(&problems);
                    if self.told.get(&key) != Some(&words) {
                        let mut reference = object.object_ref(&());
                        // An Event lives in a namespace, which servers compare with its object's.
                        let namespace = reference.namespace.take();
                        reference.namespace = namespace.or_else(|| Some("default".to_owned()));
                        self.pending.insert(key, (reference, words));
                    }
                }
                RosterChange::Gone(key) => {
                    self.told.remove(&key);
                    self.pending.remove(&key);
                }
            }
        }
    }

    async fn write(&mut self, recorder: &Recorder) {
        for (key, (object, words)) in std::mem::take(&mut self.pending) {
            let event = Told {
                type_: EventType::Warning,
                reason: "NotUnderstood".to_owned(),
                note: Some(words.clone()),
                action: "Enforce".to_owned(),
                secondary: None,
            };
            let published = recorder.publish(&event, &object);
            let failed = match tokio::time::timeout(TIMEOUT, published).await {
                Ok(Ok(())) => {
                    self.told.insert(key, words);
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
            };
            tracing::warn!("{key}: the Event that says {words:?} cannot be written yet: {failed}");
            self.pending.insert(key, (object, words));
        }
    }
}

/// What is wrong with an object, as an Event can hold it.
fn note(problems: &[Problem]) -> String {
    let words = problems
        .iter()
        .map(|problem| match problem.field.is_empty() {
            true => problem.reason.clone(),
            false => format!("{}: {}", problem.field, problem.reason),
        });
    let mut words = words.collect::<Vec<_>>().join("; ");
    if words.len() > NOTE {
        let end = (0..=NOTE).rev().find(|end| words.is_char_boundary(*end));
        words.truncate(end.unwrap_or_default());
        words.push('…');
    }
    words
}

/// Everything this task knows.
struct Policies {
    own: Objects<crds::NetworkPolicy>,
    global: Objects<crds::GlobalNetworkPolicy>,
    hosts: Objects<crds::HostEndpoint>,
    tiers: Mirror<crds::Tier>,
    kubernetes: Reports,
    cluster: Reports,
}

impl Policies {
    fn new() -> Self {
        Self {
            own: Objects::new(),
            global: Objects::new(),
            hosts: Objects::new(),
            tiers: Mirror::default(),
            kubernetes: Reports::new(),
            cluster: Reports::new(),
        }
    }

    fn handle(&mut self, change: Change) {
        match change {
            Change::Own(event) => self.own.handle(event),
            Change::Global(event) => self.global.handle(event),
            Change::Host(event) => self.hosts.handle(event),
            Change::Tier(event) => {
                let was_synced = self.tiers.is_synced();
                let changed = !self.tiers.handle(event).is_empty();
                if changed || was_synced != self.tiers.is_synced() {
                    self.own.look_at_all();
                    self.global.look_at_all();
                }
            }
            Change::Kubernetes(event) => self
                .kubernetes
                .handle(event, |policy| Cluster::new().apply_network_policy(policy)),
            Change::Cluster(event) => self
                .cluster
                .handle(event, |policy| Cluster::new().apply_cluster_policy(policy)),
        }
    }

    /// Whether something is left to be written.
    fn has_work(&self) -> bool {
        !(self.own.dirty.is_empty()
            && self.global.dirty.is_empty()
            && self.hosts.dirty.is_empty()
            && self.kubernetes.pending.is_empty()
            && self.cluster.pending.is_empty())
    }

    async fn write(&mut self, client: &Client, recorder: &Recorder) {
        // Before the tiers are known none is missing.
        let tiers = self.tiers.is_synced().then_some(&self.tiers);
        let has_tier = |name: &str| {
            let built_in = || {
                crds::Tier::BUILT_IN
                    .iter()
                    .any(|(there, ..)| *there == name)
            };
            tiers.is_none_or(|tiers| tiers.get(name).is_some() || built_in())
        };
        self.own.write(client, has_tier).await;
        self.global.write(client, has_tier).await;
        self.hosts.write(client, has_tier).await;
        self.kubernetes.write(recorder).await;
        self.cluster.write(recorder).await;
    }
}

/// Says what there is to say of policies for as long as this process leads.
pub(super) async fn run(client: Client) {
    let (sender, mut changes) = mpsc::channel::<Box<Change>>(QUEUE);
    let (failures, _) = watch::channel(Failures::new());
    follow(
        &client,
        Kind::OwnNetworkPolicy,
        &sender,
        &failures,
        Change::Own,
    );
    follow(
        &client,
        Kind::GlobalNetworkPolicy,
        &sender,
        &failures,
        Change::Global,
    );
    follow(
        &client,
        Kind::HostEndpoint,
        &sender,
        &failures,
        Change::Host,
    );
    follow(&client, Kind::Tier, &sender, &failures, Change::Tier);
    follow(
        &client,
        Kind::NetworkPolicy,
        &sender,
        &failures,
        Change::Kubernetes,
    );
    follow(
        &client,
        Kind::ClusterNetworkPolicy,
        &sender,
        &failures,
        Change::Cluster,
    );
    drop(sender);
    let reporter = Reporter {
        controller: "margay-controller".to_owned(),
        instance: None,
    };
    let recorder = Recorder::new(client.clone(), reporter);
    let mut policies = Policies::new();
    loop {
        let next = match policies.has_work() {
            true => tokio::time::timeout(RETRY, changes.recv()).await.ok(),
            false => Some(changes.recv().await),
        };
        match next {
            Some(Some(change)) => policies.handle(*change),
            Some(None) => return,
            None => {}
        }
        tokio::time::sleep(GATHER).await;
        while let Ok(change) = changes.try_recv() {
            policies.handle(*change);
        }
        policies.write(&client, &recorder).await;
    }
}

/// Follows a kind until nobody takes its events; while it is not served there are no such objects.
fn follow<K>(
    client: &Client,
    kind: Kind,
    sender: &mpsc::Sender<Box<Change>>,
    failures: &watch::Sender<Failures>,
    wrap: fn(Event<K>) -> Change,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let api: Api<K> = Api::all(client.clone());
    let (sender, failures) = (sender.clone(), failures.clone());
    tokio::spawn(async move {
        let mut follower = Follower::new(kind, failures).leaving_if_not_served();
        loop {
            let config = watcher::Config::default();
            follower.follow(api.clone(), config, &sender, wrap).await;
            tokio::select! {
                () = sender.closed() => return,
                () = tokio::time::sleep(UNSERVED) => {}
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(spec: serde_json::Value) -> crds::GlobalNetworkPolicy {
        let mut policy = crds::GlobalNetworkPolicy::new("p", serde_json::from_value(spec).unwrap());
        policy.metadata.generation = Some(3);
        policy
    }

    #[test]
    fn conditions_name_the_field_and_are_written_once() {
        let say = |spec| {
            let policy = global(spec);
            let found = wanted(&policy, |tier| tier == "default", "t")
                .unwrap()
                .remove(0);
            (found.status, found.reason, found.message)
        };
        assert_eq!(say(json!({})).1, "Valid");
        let (status, reason, message) = say(json!({"selector": "a ="}));
        assert_eq!((status.as_str(), reason.as_str()), ("False", "Invalid"));
        assert!(message.contains("spec.selector"), "{message}");
        let (status, reason, message) = say(json!({"tier": "nowhere"}));
        assert_eq!(
            (status.as_str(), reason.as_str()),
            ("False", "TierNotFound")
        );
        assert!(message.contains("\"nowhere\""), "{message}");

        let mut policy = global(json!({"preDNAT": true}));
        let conditions = wanted(&policy, |_| true, "t").unwrap();
        assert!(
            conditions[0].message.contains("spec.preDNAT"),
            "{conditions:?}"
        );
        policy.status = Some(PolicyStatus { conditions });
        assert_eq!(wanted(&policy, |_| true, "t2"), None);
    }

    #[test]
    fn an_event_is_told_once_and_again_when_the_words_change() {
        let policy = |cidr: &str| -> NetworkPolicy {
            serde_json::from_value(json!({
                "metadata": {"name": "p", "namespace": "s", "uid": "u"},
                "spec": {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]},
            }))
            .unwrap()
        };
        let check = |policy: &NetworkPolicy| Cluster::new().apply_network_policy(policy);
        let mut reports = Reports::new();
        let mut pending = |cidr: &str| {
            reports.handle(Event::Apply(policy(cidr)), check);
            let pending = std::mem::take(&mut reports.pending);
            let words = pending.values().map(|(_, words)| words.clone()).next();
            reports
                .told
                .extend(pending.into_iter().map(|(key, (_, words))| (key, words)));
            words
        };
        let first = pending("010.0.0.0/8").unwrap();
        assert!(
            first.contains("spec.ingress[0].from[0].ipBlock.cidr"),
            "{first}"
        );
        assert_eq!(pending("010.0.0.0/8"), None);
        assert!(pending("nonsense").is_some());
        assert_eq!(pending("10.0.0.0/8"), None);
        assert!(pending("nonsense").is_some(), "it was mended in between");
    }

    #[test]
    fn notes_are_as_long_as_events_may_be() {
        let problem = Problem {
            kind: "NetworkPolicy".into(),
            namespace: "s".into(),
            name: "p".into(),
            field: "spec".into(),
            reason: "ä".repeat(2000),
        };
        let note = note(&[problem]);
        assert!(note.len() <= 1024 && note.ends_with('…'));
    }
}

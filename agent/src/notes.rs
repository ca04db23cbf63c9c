//! What this node's pods and the namespaces say of addresses: annotations and labels, kept current
//! by the watches that are there for policy anyway, so that an ADD need not ask for them.
//!
//! A pod that the watch has not shown yet is waited for shortly, then asked for. The answer goes to
//! policy as if the watch had brought it: else a pod that is wired while a watch is away, as after
//! the API server's restart, would be closed until the watch is back. A pod that is not there at
//! all says nothing: whoever made it has no API server to write it to.
//!
//! Not here: what the annotations mean (the ipam crate).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use margay_crds::Owner;
use margay_ipam::IpamError;
use margay_ipam::annotations::concerns_addresses;
use margay_ipam::garbage::PodFacts;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, mpsc};

use crate::cni_server::PodNote;
use crate::datastore::Change;

/// How long the watch is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long a question to the API server may take.
const TIMEOUT: Duration = Duration::from_secs(5);

type Words = Arc<BTreeMap<String, String>>;

/// The notes; clones share them.
#[derive(Debug, Clone)]
pub struct Notes {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    node: String,
    state: Mutex<State>,
    news: Notify,
    /// Where the watch of pods sends what it sees.
    policy: OnceLock<mpsc::Sender<Box<Change>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("node", &self.node)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    pods: Kept<PodWords>,
    namespaces: Kept<NamespaceWords>,
}

/// What a pod says.
#[derive(Debug, Clone, Default)]
struct PodWords {
    uids: Vec<String>,
    annotations: Words,
}

/// What a namespace says.
#[derive(Debug, Clone, Default)]
struct NamespaceWords {
    annotations: Words,
    labels: Words,
}

/// Objects of a kind, and those of the list under way.
#[derive(Debug)]
struct Kept<T> {
    all: HashMap<String, T>,
    listed: HashSet<String>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            all: HashMap::new(),
            listed: HashSet::new(),
        }
    }
}

impl<T> Kept<T> {
    /// Takes in an event; `read` gives nothing for an object that is not to be kept.
    fn handle<K: ResourceExt>(&mut self, event: &Event<K>, read: impl Fn(&K) -> Option<T>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(key(object));
                self.put(object, read);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.all.retain(|key, _| listed.contains(key));
            }
            Event::Apply(object) => self.put(object, read),
            Event::Delete(object) => drop(self.all.remove(&key(object))),
        }
    }

    fn put<K: ResourceExt>(&mut self, object: &K, read: impl Fn(&K) -> Option<T>) {
        match read(object) {
            Some(words) => drop(self.all.insert(key(object), words)),
            None => drop(self.all.remove(&key(object))),
        }
    }
}

fn key(object: &impl ResourceExt) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

impl Notes {
    /// Without any, for the pods of `node`.
    pub fn new(client: Client, node: &str) -> Self {
        let shared = Shared {
            client,
            node: node.to_owned(),
            state: Mutex::default(),
            news: Notify::new(),
            policy: OnceLock::new(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Sends pods that were asked for to where the watch of pods sends those that it sees. Only the
    /// first call counts.
    pub fn send_found(&self, policy: mpsc::Sender<Box<Change>>) {
        let _ = self.shared.policy.set(policy);
    }

    /// Takes in what the watch of pods says.
    pub fn handle_pod(&self, event: &Event<Pod>) {
        let node = &self.shared.node;
        let is_here = |pod: &Pod| {
            let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            on == Some(node)
        };
        let read = |pod: &Pod| is_here(pod).then(|| pod_words(pod));
        self.lock().pods.handle(event, read);
        self.shared.news.notify_waiters();
    }

    /// Takes in what the watch of namespaces says.
    pub fn handle_namespace(&self, event: &Event<Namespace>) {
        let read = |namespace: &Namespace| Some(namespace_words(namespace));
        self.lock().namespaces.handle(event, read);
        self.shared.news.notify_waiters();
    }

    /// The API server's client.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// What the pod and its namespace say.
    ///
    /// # Errors
    /// [`IpamError::StoreUnavailable`] if the watch has not shown them and nobody answers.
    pub async fn of(&self, owner: &Owner) -> Result<PodNote, IpamError> {
        let shown = async {
            loop {
                // Before the look: what comes between the two is not missed.
                let news = self.shared.news.notified();
                if let (Some(pod), Some(namespace)) = self.known(owner) {
                    return note(pod, Some(namespace));
                }
                news.await;
            }
        };
        if let Ok(note) = tokio::time::timeout(PATIENCE, shown).await {
            return Ok(note);
        }
        let (pod, namespace) = self.known(owner);
        let pod = match pod {
            Some(pod) => pod,
            None => self.ask_pod(owner).await?,
        };
        let namespace = match namespace {
            Some(namespace) => Some(namespace),
            None => {
                let api: Api<Namespace> = Api::all(self.shared.client.clone());
                let found = ask(api, &owner.namespace, "Namespace").await?;
                found.as_ref().map(namespace_words)
            }
        };
        Ok(note(pod, namespace))
    }

    async fn ask_pod(&self, owner: &Owner) -> Result<PodWords, IpamError> {
        let api: Api<Pod> = Api::namespaced(self.shared.client.clone(), &owner.namespace);
        let found: Option<Pod> = ask(api, &owner.pod, "Pod").await?;
        // Another pod of the same name does not speak for this one.
        let own = found.filter(|pod| is_of(&pod_words(pod), owner));
        let words = own.as_ref().map(pod_words);
        if let Some(pod) = own {
            self.send_to_policy(pod);
        }
        Ok(words.unwrap_or_default())
    }

    /// Unless the watch has shown the pod meanwhile: it is told under this lock before it sends, so
    /// that what it sends comes later than this and is newer.
    fn send_to_policy(&self, pod: Pod) {
        let state = self.lock();
        let shown = state.pods.all.get(&key(&pod));
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if shown.is_some_and(|words| uid.is_empty() || words.uids.contains(&uid)) {
            return;
        }
        if let Some(policy) = self.shared.policy.get() {
            // A queue that is full, or that nobody reads: the watch brings it in its time.
            let _ = policy.try_send(Box::new(Change::Pod(Event::Apply(pod))));
        }
    }

    fn known(&self, owner: &Owner) -> (Option<PodWords>, Option<NamespaceWords>) {
        let state = self.lock();
        let pod = format!("{}/{}", owner.namespace, owner.pod);
        let pod = state.pods.all.get(&pod);
        let pod = pod.filter(|words| is_of(words, owner)).cloned();
        let namespace = state.namespaces.all.get(&owner.namespace).cloned();
        (pod, namespace)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_of(words: &PodWords, owner: &Owner) -> bool {
    owner.uid.is_empty() || words.uids.contains(&owner.uid)
}

fn note(pod: PodWords, namespace: Option<NamespaceWords>) -> PodNote {
    let labels = namespace.as_ref().map(|words| Arc::clone(&words.labels));
    PodNote {
        annotations: pod.annotations,
        namespace_annotations: namespace.unwrap_or_default().annotations,
        namespace_labels: labels,
    }
}

fn pod_words(pod: &Pod) -> PodWords {
    PodWords {
        uids: PodFacts::of(pod).uids,
        annotations: of_interest(pod.annotations()),
    }
}

fn namespace_words(namespace: &Namespace) -> NamespaceWords {
    NamespaceWords {
        annotations: of_interest(namespace.annotations()),
        labels: Arc::new(namespace.labels().clone()),
    }
}

fn of_interest(annotations: &BTreeMap<String, String>) -> Words {
    let all = annotations.iter();
    let ours = all.filter(|(key, _)| concerns_addresses(key));
    let ours = ours.map(|(key, value)| (key.clone(), value.clone()));
    Arc::new(ours.collect())
}

async fn ask<K>(api: Api<K>, name: &str, kind: &str) -> Result<Option<K>, IpamError>
where
    K: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let unavailable = |reason: String| IpamError::StoreUnavailable {
        object: format!("{kind} {name}"),
        reason,
    };
    match tokio::time::timeout(TIMEOUT, api.get_opt(name)).await {
        Ok(answer) => answer.map_err(|error| unavailable(error.to_string())),
        Err(_) => Err(unavailable(format!(
            "no answer within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn notes() -> Notes {
        // Nobody listens there: whoever asks is told so.
        let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
        Notes::new(Client::try_from(config).unwrap(), "n1")
    }

    fn pod(node: &str, uid: &str, annotations: &serde_json::Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "default", "name": "web", "uid": uid,
                "annotations": annotations},
            "spec": {"nodeName": node, "containers": []},
        }))
        .unwrap()
    }

    fn namespace() -> Namespace {
        serde_json::from_value(json!({
            "metadata": {"name": "default", "labels": {"team": "red"},
                "annotations": {"margay.dev/ipv4-pools": "red", "other": "x"}},
        }))
        .unwrap()
    }

    fn owner(uid: &str) -> Owner {
        Owner {
            namespace: "default".into(),
            pod: "web".into(),
            uid: uid.into(),
            ..Owner::default()
        }
    }

    #[tokio::test]
    async fn what_the_watches_showed_is_not_asked_for() {
        let notes = notes();
        notes.handle_namespace(&Event::Apply(namespace()));
        let said = json!({"margay.dev/ip-addresses": "10.0.0.1", "other": "x"});
        notes.handle_pod(&Event::Apply(pod("n1", "u1", &said)));
        for uid in ["u1", ""] {
            let note = notes.of(&owner(uid)).await.unwrap();
            assert_eq!(note.annotations.len(), 1);
            assert_eq!(note.namespace_annotations["margay.dev/ipv4-pools"], "red");
            assert_eq!(note.namespace_labels.unwrap()["team"], "red");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_pod_of_the_name_does_not_speak_for_this_one() {
        let notes = notes();
        notes.handle_namespace(&Event::Apply(namespace()));
        notes.handle_pod(&Event::Apply(pod("n1", "old", &json!({}))));
        let late = notes.clone();
        let answer = tokio::spawn(async move { late.of(&owner("new")).await });
        tokio::task::yield_now().await;
        let said = json!({"margay.dev/ip-families": "IPv4"});
        notes.handle_pod(&Event::Apply(pod("n1", "new", &said)));
        let note = answer.await.unwrap().unwrap();
        assert_eq!(note.annotations["margay.dev/ip-families"], "IPv4");
    }

    #[tokio::test]
    async fn a_pod_that_was_asked_for_goes_to_policy_unless_the_watch_has_shown_it() {
        let notes = notes();
        let (policy, mut sent) = mpsc::channel(4);
        notes.send_found(policy);
        notes.send_to_policy(pod("n1", "u1", &json!({})));
        let change = *sent.try_recv().unwrap();
        let Change::Pod(Event::Apply(found)) = change else {
            panic!("{change:?}");
        };
        assert_eq!(found.metadata.uid.as_deref(), Some("u1"));
        notes.handle_pod(&Event::Apply(pod("n1", "u1", &json!({}))));
        notes.send_to_policy(pod("n1", "u1", &json!({})));
        assert!(sent.try_recv().is_err());
        // Its successor of the same name is another pod.
        notes.send_to_policy(pod("n1", "u2", &json!({})));
        assert!(sent.try_recv().is_ok());
    }

    #[tokio::test]
    async fn who_was_not_shown_is_asked_for() {
        let notes = notes();
        notes.handle_namespace(&Event::Apply(namespace()));
        notes.handle_pod(&Event::Apply(pod("n2", "u1", &json!({}))));
        let error = notes.of(&owner("u1")).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        // A list in which the pod is not forgets it.
        notes.handle_pod(&Event::Apply(pod("n1", "u1", &json!({}))));
        assert!(notes.of(&owner("u1")).await.is_ok());
        notes.handle_pod(&Event::Init);
        notes.handle_pod(&Event::InitDone);
        assert!(notes.of(&owner("u1")).await.is_err());
    }
}

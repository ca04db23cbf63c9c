//! Which pods are wired on this node, in memory and on disk, and which of them are routed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use margay_dataplane::Link;
use tokio::sync::watch;

use crate::endpoints::{Endpoint, EndpointFolder, EndpointKey};

/// The interface behind which each pod address lives.
pub type PodRoutes = BTreeMap<IpAddr, String>;

/// The wired pods, shared by the CNI server and the routing edge.
///
/// The disk is touched on threads of its own and never under the lock: a disk that hangs holds up
/// the pod concerned and nothing else. Calls about one pod must come one after the other, as the
/// CNI server makes them.
#[derive(Debug)]
pub struct PodStore {
    folder: EndpointFolder,
    state: Mutex<State>,
    routes: watch::Sender<PodRoutes>,
    length: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    endpoints: BTreeMap<EndpointKey, Endpoint>,
    /// Those whose link is up.
    routed: BTreeSet<EndpointKey>,
}

impl PodStore {
    /// The pods that an earlier agent left in `folder`, as far as their host interfaces are among
    /// `links`. The others did not survive (the node was restarted) and are forgotten; their
    /// addresses stay held until the runtime's DEL or GC. One whose interface is not up was being
    /// wired when the earlier agent ended: the runtime tries again.
    ///
    /// # Errors
    /// The folder cannot be made or listed.
    pub fn load(folder: PathBuf, links: &[Link]) -> std::io::Result<Self> {
        let (folder, endpoints) = EndpointFolder::open(folder)?;
        let links: BTreeMap<&str, &Link> = links
            .iter()
            .map(|link| (link.name.as_str(), link))
            .collect();
        let mut state = State::default();
        for mut endpoint in endpoints {
            let key = endpoint.key();
            let Some(link) = links.get(endpoint.host_interface.as_str()) else {
                tracing::info!(
                    "pod {}/{}: interface {} is gone, the pod is forgotten",
                    endpoint.namespace,
                    endpoint.pod,
                    endpoint.host_interface
                );
                folder.remove(&key);
                continue;
            };
            if link.up {
                state.routed.insert(key.clone());
            }
            endpoint.device = link.index;
            state.endpoints.insert(key, endpoint);
        }
        Ok(Self {
            folder,
            routes: watch::Sender::new(state.routes()),
            length: AtomicUsize::new(state.endpoints.len()),
            state: Mutex::new(state),
        })
    }

    /// The routes to the pods that are up; never older than the last call of this store.
    pub fn routes(&self) -> watch::Receiver<PodRoutes> {
        self.routes.subscribe()
    }

    /// Every pod.
    pub fn all(&self) -> Vec<Endpoint> {
        self.lock().endpoints.values().cloned().collect()
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Whether there is no pod.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes note of a pod whose link is about to be made. It is not on disk yet: were the agent
    /// to end now, the runtime would detach what it was not told is attached.
    pub(super) fn expect(&self, endpoint: Endpoint) {
        let mut state = self.lock();
        let key = endpoint.key();
        state.routed.remove(&key);
        state.endpoints.insert(key, endpoint);
        self.publish(&state);
    }

    /// Records a pod. An older sandbox of the same pod has lost its link to this one and is
    /// forgotten. It is on disk when this returns; after an error nothing has changed.
    pub(super) async fn insert(this: &Arc<Self>, endpoint: Endpoint) -> std::io::Result<()> {
        let written = endpoint.clone();
        Self::on_disk(this, move |folder| folder.write(&written)).await??;
        let key = endpoint.key();
        let older: Vec<EndpointKey> = {
            let mut state = this.lock();
            let same = state
                .endpoints
                .values()
                .filter(|one| one.host_interface == endpoint.host_interface && one.key() != key);
            let older = same.map(Endpoint::key).collect();
            for key in &older {
                state.forget(key);
            }
            state.routed.remove(&key);
            state.endpoints.insert(key, endpoint);
            this.publish(&state);
            older
        };
        if older.is_empty() {
            return Ok(());
        }
        Self::on_disk(this, move |folder| {
            older.iter().for_each(|key| folder.remove(key))
        })
        .await
    }

    /// Forgets a pod.
    pub(super) async fn remove(this: &Arc<Self>, key: EndpointKey) {
        {
            let mut state = this.lock();
            state.forget(&key);
            this.publish(&state);
        }
        if let Err(error) = Self::on_disk(this, move |folder| folder.remove(&key)).await {
            tracing::warn!("a pod's record stays on disk: {error}");
        }
    }

    /// The pod's link is up: its addresses are routed there.
    pub(super) fn route(&self, key: &EndpointKey) {
        let mut state = self.lock();
        if state.endpoints.contains_key(key) {
            state.routed.insert(key.clone());
        }
        self.publish(&state);
    }

    /// The pod's link is about to go.
    pub(super) fn unroute(&self, key: &EndpointKey) {
        let mut state = self.lock();
        state.routed.remove(key);
        self.publish(&state);
    }

    pub(super) fn get(&self, key: &EndpointKey) -> Option<Endpoint> {
        self.lock().endpoints.get(key).cloned()
    }

    /// Whether another sandbox's pair now has this name: a late DEL of an old sandbox must not
    /// take the new pod's link away.
    pub(super) fn is_taken_over(&self, key: &EndpointKey, host_interface: &str) -> bool {
        let state = self.lock();
        let mut endpoints = state.endpoints.values();
        endpoints.any(|one| one.host_interface == host_interface && one.key() != *key)
    }

    async fn on_disk<T: Send + 'static>(
        this: &Arc<Self>,
        work: impl FnOnce(&EndpointFolder) -> T + Send + 'static,
    ) -> std::io::Result<T> {
        let folder = this.folder.clone();
        Ok(tokio::task::spawn_blocking(move || work(&folder)).await?)
    }

    fn publish(&self, state: &State) {
        self.length.store(state.endpoints.len(), Ordering::Relaxed);
        let routes = state.routes();
        self.routes.send_if_modified(|known| {
            let differs = *known != routes;
            *known = routes;
            differs
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The maps are changed in one step each; a panic elsewhere leaves them whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, key: &EndpointKey) {
        self.endpoints.remove(key);
        self.routed.remove(key);
    }

    fn routes(&self) -> PodRoutes {
        let routed = self.routed.iter().filter_map(|key| self.endpoints.get(key));
        let each = routed.flat_map(|endpoint| {
            let interface = &endpoint.host_interface;
            let addresses = endpoint.addresses.iter();
            addresses.map(|address| (*address, interface.clone()))
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use margay_dataplane::LinkKind;

    fn endpoint(container: &str, interface: &str, address: &str) -> Endpoint {
        Endpoint {
            container_id: container.to_owned(),
            interface: "eth0".to_owned(),
            namespace: "default".to_owned(),
            pod: "web".to_owned(),
            uid: None,
            host_interface: interface.to_owned(),
            netns: "/run/netns/x".into(),
            addresses: vec![address.parse().unwrap()],
            mtu: 1450,
            device: 1,
        }
    }

    fn link(name: &str, up: bool) -> Link {
        Link {
            index: 1,
            name: name.to_owned(),
            mtu: 1450,
            up,
            mac: None,
            kind: LinkKind::Veth,
        }
    }

    fn routed(pods: &PodStore) -> Vec<String> {
        let routes = pods.routes();
        let routes = routes.borrow();
        routes.keys().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn after_a_reboot_pods_without_an_interface_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = EndpointFolder::open(folder.path().to_owned()).unwrap();
        for (container, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
            let interface = format!("mgy-{container}");
            files
                .write(&endpoint(container, &interface, address))
                .unwrap();
        }
        let links = [link("mgy-a", true), link("mgy-b", false)];
        let pods = PodStore::load(folder.path().to_owned(), &links).unwrap();
        assert_eq!(pods.len(), 2);
        assert_eq!(routed(&pods), ["10.0.0.1"]);
        assert!(pods.all().iter().all(|pod| pod.device == 1), "the kernel's");
        let (_, left) = EndpointFolder::open(folder.path().to_owned()).unwrap();
        assert_eq!(left.len(), 2);
    }

    #[tokio::test]
    async fn a_pod_is_routed_only_while_its_link_is_up() {
        let folder = tempfile::tempdir().unwrap();
        let pods = Arc::new(PodStore::load(folder.path().to_owned(), &[]).unwrap());
        let pod = endpoint("a", "mgy-a", "10.0.0.1");
        PodStore::insert(&pods, pod.clone()).await.unwrap();
        assert_eq!(routed(&pods), Vec::<String>::new());
        pods.route(&pod.key());
        assert_eq!(routed(&pods), ["10.0.0.1"]);
        pods.unroute(&pod.key());
        assert_eq!(routed(&pods), Vec::<String>::new());
        assert_eq!(pods.len(), 1);
        PodStore::remove(&pods, pod.key()).await;
        assert!(pods.is_empty());
        pods.route(&pod.key());
        assert_eq!(routed(&pods), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_new_sandbox_takes_the_interface_over_with_its_own_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let pods = Arc::new(PodStore::load(folder.path().to_owned(), &[]).unwrap());
        let old = endpoint("old", "mgy-a", "10.0.0.1");
        let new = endpoint("new", "mgy-a", "10.0.0.2");
        PodStore::insert(&pods, old.clone()).await.unwrap();
        pods.route(&old.key());
        PodStore::insert(&pods, new.clone()).await.unwrap();
        assert_eq!(routed(&pods), Vec::<String>::new());
        assert!(pods.is_taken_over(&old.key(), "mgy-a"));
        assert!(!pods.is_taken_over(&new.key(), "mgy-a"));
        let (_, left) = EndpointFolder::open(folder.path().to_owned()).unwrap();
        // What is on disk does not say the interface's number.
        assert_eq!(left, [Endpoint { device: 0, ..new }]);
    }

    #[tokio::test]
    async fn a_pod_that_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("endpoints");
        let pods = Arc::new(PodStore::load(gone.clone(), &[]).unwrap());
        let old = endpoint("old", "mgy-a", "10.0.0.1");
        PodStore::insert(&pods, old.clone()).await.unwrap();
        pods.route(&old.key());
        std::fs::remove_dir_all(&gone).unwrap();
        let new = endpoint("new", "mgy-a", "10.0.0.2");
        PodStore::insert(&pods, new.clone()).await.unwrap_err();
        assert_eq!(pods.all(), [old]);
        assert_eq!(routed(&pods), ["10.0.0.1"]);
        // So that undoing the failed try leaves the old sandbox's link alone.
        assert!(pods.is_taken_over(&new.key(), "mgy-a"));
    }
}

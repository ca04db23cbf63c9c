//! The pods wired on this node, and the edges through which the CNI server wires them.
//!
//! The order of an ADD is the server's ([`crate::cni_server::Wiring`]); here its edges meet the
//! kernel, the routing edge and the policy edge. A pod is recorded before its link exists and
//! forgotten after the link is gone, so that whatever happens in between is repaired or removed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use margay_cni::config::Attachment;
use tokio::sync::watch;

use crate::cni_server::{BoxError, LinkMade, LinkSpec, Links, PodIdentity, Policy};
use crate::dataplane::pod_link;
use crate::dataplane::{PodKernel, PodLink, SysctlTree};
use crate::endpoints::{Endpoint, EndpointKey, Endpoints};
use crate::enforcement::Enforcement;
use crate::routing::Routing;

/// The wired pods, shared by the CNI server and the agent's loop.
#[derive(Debug)]
pub struct PodStore {
    endpoints: Mutex<Endpoints>,
    changes: watch::Sender<u64>,
    mtu: watch::Sender<Option<u32>>,
}

impl PodStore {
    /// The pods that an earlier agent left.
    pub fn new(endpoints: Endpoints) -> Self {
        Self {
            endpoints: Mutex::new(endpoints),
            changes: watch::Sender::new(0),
            mtu: watch::Sender::new(None),
        }
    }

    /// Tells when a pod came or went.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The interface behind which each pod address lives.
    pub fn interfaces(&self) -> BTreeMap<IpAddr, String> {
        self.lock().interfaces()
    }

    /// Every pod.
    pub fn all(&self) -> Vec<Endpoint> {
        self.lock().iter().cloned().collect()
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.lock().iter().count()
    }

    /// Whether there is no pod.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The MTU that pods get unless the network configuration says otherwise, in bytes.
    pub fn set_mtu(&self, mtu: Option<u32>) {
        self.mtu.send_replace(mtu);
    }

    fn mtu(&self) -> Option<u32> {
        *self.mtu.borrow()
    }

    /// Records a pod. An older sandbox of the same pod has lost its link to this one.
    fn insert(&self, endpoint: Endpoint) -> std::io::Result<()> {
        let mut endpoints = self.lock();
        let older = endpoints.iter().filter(|one| {
            one.host_interface == endpoint.host_interface && one.key() != endpoint.key()
        });
        for key in older.map(Endpoint::key).collect::<Vec<_>>() {
            endpoints.remove(&key);
        }
        endpoints.insert(endpoint)?;
        drop(endpoints);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    fn remove(&self, key: &EndpointKey) {
        if self.lock().remove(key).is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    fn get(&self, key: &EndpointKey) -> Option<Endpoint> {
        self.lock().get(key).cloned()
    }

    /// Whether another sandbox's pair now has this name: a late DEL of an old sandbox must not
    /// take the new pod's link away.
    fn is_taken_over(&self, key: &EndpointKey, host_interface: &str) -> bool {
        let endpoints = self.lock();
        endpoints
            .iter()
            .any(|one| one.host_interface == host_interface && one.key() != *key)
    }

    fn lock(&self) -> MutexGuard<'_, Endpoints> {
        // The map is changed in one step each; a panic elsewhere leaves it whole.
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Links`] over the kernel and the routing edge.
#[derive(Debug)]
pub struct PodLinks<K> {
    /// The kernel.
    pub kernel: K,
    /// The settings under /proc/sys.
    pub sysctls: SysctlTree,
    /// The routes.
    pub routing: Routing,
    /// The wired pods.
    pub pods: Arc<PodStore>,
}

impl<K: PodKernel> PodLinks<K> {
    fn mtu(&self, spec: &LinkSpec) -> Result<u32, BoxError> {
        let mtu = spec.mtu.or_else(|| self.pods.mtu());
        mtu.ok_or_else(|| "the MTU of the uplink is not known yet: try again".into())
    }

    fn link(&self, spec: &LinkSpec) -> Result<PodLink, BoxError> {
        Ok(PodLink::new(
            &spec.pod.namespace,
            &spec.pod.name,
            &spec.netns,
            &spec.attachment.ifname,
            spec.addresses.clone(),
            self.mtu(spec)?,
        ))
    }
}

impl<K: PodKernel + 'static> Links for PodLinks<K> {
    async fn create(&self, spec: &LinkSpec) -> Result<LinkMade, BoxError> {
        let link = self.link(spec)?;
        self.pods
            .insert(endpoint(spec, &link.host_interface, link.mtu))?;
        match pod_link::create(&self.kernel, &self.sysctls, &link).await {
            Ok(made) => Ok(LinkMade {
                host_interface: link.host_interface,
                host_mac: Some(made.host_mac.to_string()),
                pod_mac: Some(made.pod_mac.to_string()),
                mtu: Some(link.mtu),
            }),
            Err(error) => {
                self.pods.remove(&key(&spec.attachment));
                Err(error.into())
            }
        }
    }

    async fn activate(&self, spec: &LinkSpec, made: &LinkMade) -> Result<(), BoxError> {
        let link = self.link(spec)?;
        pod_link::activate(&self.kernel, &link).await?;
        let routed = self
            .routing
            .ensure_pod(made.host_interface.clone(), spec.addresses.clone());
        routed.await.map_err(Into::into)
    }

    async fn remove(&self, pod: &PodIdentity, attachment: &Attachment) -> Result<(), BoxError> {
        let key = key(attachment);
        let host_interface = pod_link::host_interface(&pod.namespace, &pod.name);
        if !self.pods.is_taken_over(&key, &host_interface) {
            pod_link::remove(&self.kernel, &host_interface).await?;
        }
        self.pods.remove(&key);
        Ok(())
    }

    async fn check(&self, spec: &LinkSpec) -> Result<Vec<String>, BoxError> {
        let known = self.pods.get(&key(&spec.attachment));
        let mut spec = spec.clone();
        spec.mtu = spec.mtu.or(known.map(|endpoint| endpoint.mtu));
        let link = self.link(&spec)?;
        let differences = pod_link::check(&self.kernel, &link).await?;
        Ok(differences.iter().map(ToString::to_string).collect())
    }

    fn gateway(&self, address: IpAddr) -> IpAddr {
        pod_link::gateway(address)
    }
}

/// [`Policy`] over the policy edge.
#[derive(Debug)]
pub struct PodPolicy {
    /// The policy edge.
    pub enforcement: Enforcement,
    /// The wired pods.
    pub pods: Arc<PodStore>,
}

impl Policy for PodPolicy {
    async fn commit(&self, spec: &LinkSpec, made: &LinkMade) -> Result<(), BoxError> {
        let endpoint = endpoint(spec, &made.host_interface, made.mtu.unwrap_or_default());
        self.enforcement.put(&endpoint).await.map_err(Into::into)
    }

    async fn withdraw(&self, pod: &PodIdentity, attachment: &Attachment) -> Result<(), BoxError> {
        let host_interface = pod_link::host_interface(&pod.namespace, &pod.name);
        if self.pods.is_taken_over(&key(attachment), &host_interface) {
            return Ok(());
        }
        self.enforcement
            .take(&host_interface)
            .await
            .map_err(Into::into)
    }

    fn ready(&self) -> Result<(), BoxError> {
        if self.enforcement.report().programmed {
            Ok(())
        } else {
            Err("the policy table has not been written yet".into())
        }
    }
}

fn key(attachment: &Attachment) -> EndpointKey {
    (attachment.container_id.clone(), attachment.ifname.clone())
}

fn endpoint(spec: &LinkSpec, host_interface: &str, mtu: u32) -> Endpoint {
    Endpoint {
        container_id: spec.attachment.container_id.clone(),
        interface: spec.attachment.ifname.clone(),
        namespace: spec.pod.namespace.clone(),
        pod: spec.pod.name.clone(),
        uid: spec.pod.uid.clone(),
        host_interface: host_interface.to_owned(),
        netns: spec.netns.clone(),
        addresses: spec.addresses.clone(),
        mtu,
    }
}

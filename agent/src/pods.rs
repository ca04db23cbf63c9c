//! The edges through which the CNI server wires pods.
//!
//! The order of an ADD is the server's ([`crate::cni_server::Wiring`]); here its edges meet the
//! kernel, the routing edge and the policy edge. A pod is known ([`PodStore`]) before its link
//! exists, on disk before it is set up, and forgotten after the link is gone, so that whatever
//! happens in between is repaired or removed; it is routed only between being set up and being
//! taken down.

mod addresses;
mod store;

use std::net::IpAddr;
use std::sync::Arc;

use margay_cni::config::Attachment;
use margay_dataplane::pod_link::{self, HOST_MAC, Prepared};
use margay_dataplane::{KernelError, PodKernel, PodLink, SysctlTree};
use margay_policy::compile::interface_name;

pub use self::addresses::PodAddresses;
pub use self::store::{PodRoutes, PodStore};
use crate::cni_server::{BoxError, LinkMade, LinkSpec, Links, PodIdentity, Policy};
use crate::endpoints::{Endpoint, EndpointKey};
use crate::enforcement::Enforcement;
use crate::routing::Routing;

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
    fn mtu(&self, wanted: Option<u32>) -> Result<u32, BoxError> {
        let mtu = wanted.or_else(|| self.routing.pod_mtu());
        mtu.ok_or_else(|| "the MTU of the uplink is not known yet: try again".into())
    }

    fn link(&self, spec: &LinkSpec, mtu: u32) -> PodLink {
        PodLink::new(
            interface_name(&spec.pod.namespace, &spec.pod.name),
            &spec.netns,
            &spec.attachment.ifname,
            spec.addresses.clone(),
            mtu,
        )
    }

    /// A pod whose link could not be made is not one of this node's.
    async fn forget_if_failed<T>(
        &self,
        spec: &LinkSpec,
        result: Result<T, KernelError>,
    ) -> Result<T, BoxError> {
        if result.is_err() {
            PodStore::remove(&self.pods, key(&spec.attachment)).await;
        }
        result.map_err(Into::into)
    }
}

impl<K: PodKernel + 'static> Links for PodLinks<K> {
    type Prepared = Prepared<K::Visit>;

    async fn prepare(&self, spec: &LinkSpec) -> Result<(LinkMade, Self::Prepared), BoxError> {
        let link = self.link(spec, self.mtu(spec.mtu)?);
        let mut made = LinkMade {
            host_interface: link.host_interface.clone(),
            host_mac: Some(HOST_MAC.to_string()),
            pod_mac: Some(link.pod_mac.to_string()),
            mtu: Some(link.mtu),
            device: 0,
        };
        self.pods.expect(endpoint(spec, &made));
        let prepared = pod_link::prepare(&self.kernel, &self.sysctls, &link).await;
        let prepared = self.forget_if_failed(spec, prepared).await?;
        made.device = prepared.device;
        Ok((made, prepared))
    }

    async fn create(
        &self,
        spec: &LinkSpec,
        made: &LinkMade,
        prepared: Self::Prepared,
    ) -> Result<(), BoxError> {
        // The MTU that the pair was made with: the uplink's may have changed meanwhile.
        let link = self.link(spec, made.mtu.unwrap_or_default());
        let (recorded, finished) = tokio::join!(
            PodStore::insert(&self.pods, endpoint(spec, made)),
            pod_link::finish(&self.kernel, &self.sysctls, &link, prepared)
        );
        self.forget_if_failed(spec, finished).await?;
        Ok(recorded?)
    }

    async fn activate(&self, spec: &LinkSpec, made: &LinkMade) -> Result<(), BoxError> {
        // Neither the links' state nor the routes depend on the MTU any more.
        let link = self.link(spec, made.mtu.unwrap_or_default());
        pod_link::activate(&self.kernel, &link).await?;
        // In this order: a comparison of the whole table in between must not take them out again.
        self.pods.route(&key(&spec.attachment));
        let routed = self
            .routing
            .ensure_pod(made.host_interface.clone(), spec.addresses.clone());
        routed.await.map_err(Into::into)
    }

    async fn remove(&self, pod: &PodIdentity, attachment: &Attachment) -> Result<(), BoxError> {
        let key = key(attachment);
        let host_interface = interface_name(&pod.namespace, &pod.name);
        self.pods.unroute(&key);
        if !self.pods.is_taken_over(&key, &host_interface) {
            pod_link::remove(&self.kernel, &host_interface).await?;
        }
        PodStore::remove(&self.pods, key).await;
        Ok(())
    }

    async fn check(&self, spec: &LinkSpec) -> Result<Vec<String>, BoxError> {
        let known = self.pods.get(&key(&spec.attachment));
        let mtu = spec.mtu.or(known.map(|endpoint| endpoint.mtu));
        let mtu = mtu.map_or_else(|| self.mtu(spec.mtu), Ok)?;
        let differences = pod_link::check(&self.kernel, &self.link(spec, mtu)).await?;
        Ok(differences.iter().map(ToString::to_string).collect())
    }

    fn ready(&self, mtu: Option<u32>) -> Result<(), BoxError> {
        self.mtu(mtu).map(drop)
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
        let endpoint = endpoint(spec, made);
        self.enforcement.put(&endpoint).await.map_err(Into::into)
    }

    async fn withdraw(&self, pod: &PodIdentity, attachment: &Attachment) -> Result<(), BoxError> {
        let host_interface = interface_name(&pod.namespace, &pod.name);
        if self.pods.is_taken_over(&key(attachment), &host_interface) {
            return Ok(());
        }
        self.enforcement
            .take(&host_interface)
            .await
            .map_err(Into::into)
    }

    fn ready(&self) -> Result<(), BoxError> {
        if self.enforcement.is_programmed() {
            Ok(())
        } else {
            Err("the policy table has not been written yet".into())
        }
    }
}

fn key(attachment: &Attachment) -> EndpointKey {
    (attachment.container_id.clone(), attachment.ifname.clone())
}

fn endpoint(spec: &LinkSpec, made: &LinkMade) -> Endpoint {
    Endpoint {
        container_id: spec.attachment.container_id.clone(),
        interface: spec.attachment.ifname.clone(),
        namespace: spec.pod.namespace.clone(),
        pod: spec.pod.name.clone(),
        uid: spec.pod.uid.clone(),
        host_interface: made.host_interface.clone(),
        netns: spec.netns.clone(),
        addresses: spec.addresses.clone(),
        mtu: made.mtu.unwrap_or_default(),
        device: made.device,
    }
}

#[cfg(test)]
mod tests {
    use margay_dataplane::is_pod_interface;
    use margay_policy::compile::interface_name;

    /// Policy makes the names, and the dataplane knows a pod's interface by its name.
    #[test]
    fn the_dataplane_knows_the_names_that_policy_makes() {
        for (namespace, pod) in [("kube-system", "coredns"), ("a", "b"), ("", "")] {
            let name = interface_name(namespace, pod);
            assert!(is_pod_interface(&name), "{name}");
        }
    }
}

//! The three edges that wiring a pod touches, each as a small trait.
//!
//! Implementations must bear repetition: each call may come again after a failure or a restart.

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;

use margay_cni::config::Attachment;
use margay_crds::Owner;
use margay_ipam::{IpamError, Timestamp};

use super::network::PodIdentity;

/// An error of an edge: it is only told, never examined.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Who holds addresses of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The sandbox and its interface.
    pub attachment: Attachment,
    /// The pod.
    pub pod: PodIdentity,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// When the youngest of them was given; `None` if the block does not say.
    pub since: Option<Timestamp>,
}

/// The node's addresses.
pub trait Addresses: Send + Sync + 'static {
    /// One address of each family that pods on this node get; the same ones if asked again. If
    /// one family fails, what was given of the other may stay given: the caller releases.
    fn assign(&self, owner: &Owner) -> impl Future<Output = Result<Vec<IpAddr>, IpamError>> + Send;

    /// Takes back what an attachment holds; nothing is no error.
    fn release(
        &self,
        attachment: &Attachment,
    ) -> impl Future<Output = Result<Vec<IpAddr>, IpamError>> + Send;

    /// Everyone who holds addresses of this node, as far as it is known without asking anyone.
    fn holders(&self) -> Vec<Holder>;

    /// Whether addresses can be given.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> Result<(), IpamError>;
}

/// A pod's pair as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// The pod.
    pub pod: PodIdentity,
    /// The sandbox and its interface.
    pub attachment: Attachment,
    /// The sandbox's network namespace.
    pub netns: PathBuf,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The MTU in bytes that the network configuration asks for.
    pub mtu: Option<u32>,
}

/// A pair that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkMade {
    /// The name of the node's end.
    pub host_interface: String,
    /// The hardware address of the node's end.
    pub host_mac: Option<String>,
    /// The hardware address of the pod's end.
    pub pod_mac: Option<String>,
    /// The MTU of both ends in bytes.
    pub mtu: Option<u32>,
    /// The number the kernel gave the node's end.
    pub device: u32,
}

/// The pods' interfaces.
pub trait Links: Send + Sync + 'static {
    /// A pair that waits for its addresses.
    type Prepared: Send;

    /// Makes a pair, before the pod's addresses are known: `spec` has none. A pair left over
    /// under the same name is replaced. After an error nothing is left.
    fn prepare(
        &self,
        spec: &LinkSpec,
    ) -> impl Future<Output = Result<(LinkMade, Self::Prepared), BoxError>> + Send;

    /// Sets up the rest of what [`Links::prepare`] made, inside the pod, and leaves the node's end
    /// down. After an error nothing is left.
    fn create(
        &self,
        spec: &LinkSpec,
        made: &LinkMade,
        prepared: Self::Prepared,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Sets the node's end up and makes the routes to the pod: from here on packets pass.
    fn activate(
        &self,
        spec: &LinkSpec,
        made: &LinkMade,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Removes a pod's pair and the routes to it; none is no error, nor is a namespace that is
    /// gone.
    fn remove(
        &self,
        pod: &PodIdentity,
        attachment: &Attachment,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// The attachment has ended, but a younger sandbox of the same pod holds addresses: whatever
    /// is remembered of the attachment goes, a pair that the younger one has made stays. Unless
    /// written otherwise this is [`Links::remove`], which must then tell the two apart.
    fn forget(
        &self,
        pod: &PodIdentity,
        attachment: &Attachment,
    ) -> impl Future<Output = Result<(), BoxError>> + Send {
        self.remove(pod, attachment)
    }

    /// What is not as it should be, in words; empty when all is well.
    fn check(&self, spec: &LinkSpec) -> impl Future<Output = Result<Vec<String>, BoxError>> + Send;

    /// Whether pairs can be made, with this MTU or one that is chosen.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self, _mtu: Option<u32>) -> Result<(), BoxError> {
        Ok(())
    }

    /// The gateway of a pod with this address.
    fn gateway(&self, address: IpAddr) -> IpAddr;
}

/// The pods' policy.
pub trait Policy: Send + Sync + 'static {
    /// Brings the pod's policy into the kernel; when this returns it is in force.
    fn commit(
        &self,
        spec: &LinkSpec,
        made: &LinkMade,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Takes the pod's policy out again; none is no error.
    fn withdraw(
        &self,
        pod: &PodIdentity,
        attachment: &Attachment,
    ) -> impl Future<Output = Result<(), BoxError>> + Send;

    /// Whether policy can be committed at all.
    ///
    /// # Errors
    /// Why not.
    fn ready(&self) -> Result<(), BoxError> {
        Ok(())
    }
}

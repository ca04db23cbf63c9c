//! The operations that the CNI server drives, as typed requests.

use std::collections::HashSet;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;
use margay_cni::CniError;
use margay_cni::config::Attachment;
use margay_cni::result::{Address, CniResult, Interface, Route};

/// A pod by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodIdentity {
    /// K8S_POD_NAMESPACE.
    pub namespace: String,
    /// K8S_POD_NAME.
    pub name: String,
    /// K8S_POD_UID, which not every runtime gives.
    pub uid: Option<String>,
}

impl PodIdentity {
    /// Whether both are the same name; one of them may not know its uid.
    pub fn is_same_name(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.name == other.name
    }
}

/// Attach a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddRequest {
    /// The sandbox and its interface.
    pub attachment: Attachment,
    /// The pod.
    pub pod: PodIdentity,
    /// The sandbox's network namespace.
    pub netns: PathBuf,
    /// The MTU in bytes, if the network configuration asks for one.
    pub mtu: Option<u32>,
}

/// Detach a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelRequest {
    /// The sandbox and its interface.
    pub attachment: Attachment,
    /// The pod, if the runtime says.
    pub pod: Option<PodIdentity>,
    /// The sandbox's network namespace, if it is still there.
    pub netns: Option<PathBuf>,
}

/// How a detachment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelOutcome {
    /// Nothing is left.
    Done,
    /// The interface is gone; the release of the address is written down and happens later.
    Deferred,
}

/// What an attachment came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The node's end.
    pub host_interface: String,
    /// The hardware address of the node's end.
    pub host_mac: Option<String>,
    /// The hardware address of the pod's end.
    pub pod_mac: Option<String>,
    /// The MTU of both ends in bytes.
    pub mtu: Option<u32>,
    /// The pod's addresses, each with its gateway.
    pub addresses: Vec<(IpAddr, IpAddr)>,
}

impl Added {
    /// The result for the runtime, in the newest form.
    pub fn to_result(&self, request: &AddRequest) -> CniResult {
        let host = Interface {
            name: self.host_interface.clone(),
            mac: self.host_mac.clone(),
            mtu: self.mtu,
            ..Interface::default()
        };
        let pod = Interface {
            name: request.attachment.ifname.clone(),
            mac: self.pod_mac.clone(),
            mtu: self.mtu,
            sandbox: Some(request.netns.display().to_string()),
            ..Interface::default()
        };
        let ips = self.addresses.iter().map(|(address, gateway)| Address {
            interface: Some(1),
            address: IpNetwork::from(*address),
            gateway: Some(*gateway),
        });
        let routes = self.addresses.iter().filter_map(|(address, gateway)| {
            let everywhere = if address.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            Some(Route::by(everywhere.parse().ok()?, *gateway))
        });
        CniResult {
            interfaces: vec![host, pod],
            ips: ips.collect(),
            routes: routes.collect(),
            ..CniResult::default()
        }
    }
}

/// Who does the operations. The server calls at most one of them at a time for a container, and
/// lets each come to its end even if the caller has gone.
pub trait PodNetwork: Send + Sync + 'static {
    /// Attaches. Repeating it for the same attachment gives the same addresses. After an error
    /// nothing is left behind.
    fn add(&self, request: AddRequest) -> impl Future<Output = Result<Added, CniError>> + Send;

    /// Detaches. What is not there is no error.
    fn del(&self, request: DelRequest)
    -> impl Future<Output = Result<DelOutcome, CniError>> + Send;

    /// Compares an attachment with what it should be.
    fn check(&self, request: AddRequest) -> impl Future<Output = Result<(), CniError>> + Send;

    /// Whether [`PodNetwork::add`] can be served, with this MTU or one that is chosen.
    fn status(&self, mtu: Option<u32>) -> impl Future<Output = Result<(), CniError>> + Send;

    /// The attachments of this node that are not in the list and old enough that the list must
    /// have known them. The server detaches each.
    fn stale(&self, valid: &HashSet<Attachment>) -> impl Future<Output = Vec<DelRequest>> + Send;
}

//! [`Addresses`] over the node's allocator.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use margay_cni::config::Attachment;
use margay_crds::{Owner, OwnerKind};
use margay_ipam::annotations::Reading;
use margay_ipam::{Allocator, Family, IpamError, Release, Request, Want};

use super::edges::{Addresses, Holder};
use super::network::PodIdentity;

/// What is written on a pod and its namespace, as far as addresses are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodNote {
    /// The pod's annotations.
    pub annotations: Arc<BTreeMap<String, String>>,
    /// The namespace's annotations.
    pub namespace_annotations: Arc<BTreeMap<String, String>>,
    /// The namespace's labels, if they are known.
    pub namespace_labels: Option<Arc<BTreeMap<String, String>>>,
}

/// Asks for what a pod wants: one address of each family that is usual or named, or what its
/// annotations say.
///
/// # Errors
/// Any [`IpamError`].
pub async fn assign(
    allocator: &Allocator,
    owner: &Owner,
    note: &PodNote,
) -> Result<Vec<IpAddr>, IpamError> {
    Addresses::ready(allocator)?;
    let reading = Reading {
        namespace: &owner.namespace,
        pod: &owner.pod,
        on_pod: &note.annotations,
        on_namespace: &note.namespace_annotations,
    };
    let usual = allocator.families(note.namespace_labels.as_deref());
    let mut wants = reading.wants(&usual)?;
    if wants.is_empty() {
        // Asking tells why there is none, pool by pool.
        wants.push(Want::automatic(Family::V4));
    }
    let request = Request {
        namespace_labels: note.namespace_labels.clone(),
        wants,
        ..Request::pod(owner.clone(), [])
    };
    let assigned = allocator.assign_all(request).await?;
    Ok(assigned.into_iter().map(|one| one.address).collect())
}

impl Addresses for Allocator {
    async fn assign(&self, owner: &Owner) -> Result<Vec<IpAddr>, IpamError> {
        assign(self, owner, &PodNote::default()).await
    }

    async fn release(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, IpamError> {
        let which = Release::Container {
            container_id: attachment.container_id.clone(),
            interface: Some(attachment.ifname.clone()),
        };
        Allocator::release(self, which).await
    }

    fn holders(&self) -> Vec<Holder> {
        self.with_view(|view| {
            let mut holders: BTreeMap<Attachment, Holder> = BTreeMap::new();
            for block in view.held_blocks() {
                for one in block.used_on(view.node()) {
                    add_holder(&mut holders, one);
                }
            }
            holders.into_values().collect()
        })
    }

    fn ready(&self) -> Result<(), IpamError> {
        if self.is_ready() {
            Ok(())
        } else {
            Err(IpamError::NotReady)
        }
    }
}

fn add_holder(holders: &mut BTreeMap<Attachment, Holder>, one: &margay_crds::Allocation) {
    let owner = &one.owner;
    let address = one.address.parse::<IpAddr>();
    let (OwnerKind::Pod, Ok(address)) = (owner.kind, address) else {
        return;
    };
    let attachment = Attachment {
        container_id: owner.container_id.clone(),
        ifname: owner.interface.clone(),
    };
    let entry = holders.entry(attachment.clone());
    let holder = entry.or_insert_with(|| Holder {
        attachment,
        pod: PodIdentity {
            namespace: owner.namespace.clone(),
            name: owner.pod.clone(),
            uid: None,
        },
        addresses: Vec::new(),
        since: None,
    });
    holder.addresses.push(address);
    holder.since = holder.since.max(one.since.parse().ok());
}

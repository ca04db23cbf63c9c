//! [`Addresses`] over the node's allocator.

use std::collections::BTreeMap;
use std::net::IpAddr;

use margay_cni::config::Attachment;
use margay_crds::Owner;
use margay_ipam::{Allocator, Family, IpamError, Release};

use super::edges::{Addresses, Holder};
use super::network::PodIdentity;

impl Addresses for Allocator {
    async fn assign(&self, owner: &Owner) -> Result<Vec<IpAddr>, IpamError> {
        self.ready()?;
        let wanted = self.families();
        if wanted.is_empty() {
            // Asking tells why there is none, pool by pool.
            let assigned = Allocator::assign(self, owner.clone(), Family::V4).await?;
            return Ok(vec![assigned.address]);
        }
        // Both at once: they travel in one batch. IPv4 comes first in the result.
        let ask = |family: Family| async move {
            if !self.families().contains(&family) {
                return Ok(None);
            }
            let assigned = Allocator::assign(self, owner.clone(), family).await;
            assigned.map(|assigned| Some(assigned.address))
        };
        let (v4, v6) = tokio::join!(ask(Family::V4), ask(Family::V6));
        Ok([v4?, v6?].into_iter().flatten().collect())
    }

    async fn release(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, IpamError> {
        let which = Release::Container {
            container_id: attachment.container_id.clone(),
            interface: Some(attachment.ifname.clone()),
        };
        Allocator::release(self, which).await
    }

    fn holders(&self) -> Vec<Holder> {
        let mut holders: BTreeMap<Attachment, Holder> = BTreeMap::new();
        for block in self.own_blocks() {
            for one in block.allocations() {
                let Ok(address) = one.address.parse::<IpAddr>() else {
                    continue;
                };
                let attachment = Attachment {
                    container_id: one.owner.container_id.clone(),
                    ifname: one.owner.interface.clone(),
                };
                let since = one.since.parse().ok();
                let entry = holders.entry(attachment.clone());
                let holder = entry.or_insert_with(|| Holder {
                    attachment,
                    pod: PodIdentity {
                        namespace: one.owner.namespace.clone(),
                        name: one.owner.pod.clone(),
                        uid: None,
                    },
                    addresses: Vec::new(),
                    since: None,
                });
                holder.addresses.push(address);
                holder.since = holder.since.max(since);
            }
        }
        holders.into_values().collect()
    }

    fn ready(&self) -> Result<(), IpamError> {
        if self.is_ready() {
            Ok(())
        } else {
            Err(IpamError::NotReady)
        }
    }
}

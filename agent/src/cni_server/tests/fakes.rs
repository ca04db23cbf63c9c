//! Edges in memory that share one diary and fail where they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use margay_cni::config::Attachment;
use margay_crds::Owner;
use margay_ipam::{IpamError, Timestamp};

use crate::cni_server::edges::{Addresses, BoxError, Holder, LinkMade, LinkSpec, Links, Policy};
use crate::cni_server::network::{AddRequest, DelRequest, PodIdentity};
use crate::cni_server::wiring::Wiring;

/// What the three edges share.
#[derive(Debug, Clone, Default)]
pub(super) struct World(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// Every step, in order.
    pub(super) diary: Vec<String>,
    /// Steps that fail.
    pub(super) broken: BTreeSet<&'static str>,
    /// Addresses held.
    pub(super) held: BTreeMap<Attachment, Holder>,
    /// Pods with a pair, and whether the node's end is up.
    pub(super) links: BTreeMap<String, bool>,
    /// Pods with a policy.
    pub(super) policies: BTreeSet<String>,
    pub(super) clock: i64,
}

impl World {
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    pub(super) fn break_steps(&self, steps: &[&'static str]) {
        self.with(|state| state.broken = steps.iter().copied().collect());
    }

    pub(super) fn diary(&self) -> Vec<String> {
        self.with(|state| std::mem::take(&mut state.diary))
    }

    /// Whether nothing of any pod is there.
    pub(super) fn is_clean(&self) -> bool {
        self.with(|state| {
            state.held.is_empty() && state.links.is_empty() && state.policies.is_empty()
        })
    }

    pub(super) fn wiring(&self, journal: &Path) -> Wiring<World, World, World> {
        Wiring::new(self.clone(), self.clone(), self.clone(), journal.to_owned())
    }

    /// Writes a step down; whether it fails.
    fn step(&self, name: &'static str) -> Result<(), BoxError> {
        self.with(|state| {
            state.diary.push(name.to_owned());
            if state.broken.contains(name) {
                return Err(format!("{name} is broken").into());
            }
            Ok(())
        })
    }
}

pub(super) fn pod(name: &str) -> PodIdentity {
    PodIdentity {
        namespace: "default".into(),
        name: name.into(),
        uid: None,
    }
}

pub(super) fn attachment(container: &str) -> Attachment {
    Attachment {
        container_id: container.into(),
        ifname: "eth0".into(),
    }
}

pub(super) fn add(container: &str, name: &str) -> AddRequest {
    AddRequest {
        attachment: attachment(container),
        pod: pod(name),
        netns: PathBuf::from("/var/run/netns/x"),
        mtu: None,
    }
}

pub(super) fn del(container: &str, name: Option<&str>) -> DelRequest {
    DelRequest {
        attachment: attachment(container),
        pod: name.map(pod),
        netns: None,
    }
}

fn exhausted() -> IpamError {
    IpamError::Exhausted {
        family: margay_ipam::Family::V4,
        pools: vec!["small".into()],
        cooling: 0,
    }
}

fn away() -> IpamError {
    IpamError::StoreUnavailable {
        object: "IPAMBlock b".into(),
        reason: "connection refused".into(),
    }
}

impl Addresses for World {
    async fn assign(&self, owner: &Owner) -> Result<Vec<IpAddr>, IpamError> {
        let key = Attachment {
            container_id: owner.container_id.clone(),
            ifname: owner.interface.clone(),
        };
        let outcome = self.step("assign");
        // A dual-stack node whose second family is exhausted: the first is given already.
        let half = self.with(|state| state.broken.contains("assign half"));
        if outcome.is_err() {
            return Err(exhausted());
        }
        let addresses = self.with(|state| {
            state.clock += 1;
            let now = Timestamp::from_second(1_000_000 + state.clock).ok();
            let next = u8::try_from(state.held.len() + 1).unwrap();
            let holder = state.held.entry(key.clone()).or_insert_with(|| Holder {
                attachment: key,
                pod: PodIdentity {
                    namespace: owner.namespace.clone(),
                    name: owner.pod.clone(),
                    uid: None,
                },
                addresses: vec![[10, 0, 0, next].into()],
                since: now,
            });
            holder.addresses.clone()
        });
        if half {
            Err(exhausted())
        } else {
            Ok(addresses)
        }
    }

    async fn release(&self, attachment: &Attachment) -> Result<Vec<IpAddr>, IpamError> {
        self.step("release").map_err(|_| away())?;
        let freed = self.with(|state| state.held.remove(attachment));
        Ok(freed.map(|holder| holder.addresses).unwrap_or_default())
    }

    fn holders(&self) -> Vec<Holder> {
        self.with(|state| state.held.values().cloned().collect())
    }

    fn ready(&self) -> Result<(), IpamError> {
        if self.with(|state| state.broken.contains("ready")) {
            return Err(IpamError::NotReady);
        }
        Ok(())
    }
}

impl Links for World {
    type Prepared = ();

    async fn prepare(&self, spec: &LinkSpec) -> Result<(LinkMade, ()), BoxError> {
        self.step("prepare")?;
        assert!(spec.addresses.is_empty(), "no address is known yet");
        self.with(|state| state.links.insert(spec.pod.name.clone(), false));
        let made = LinkMade {
            host_interface: format!("mgy-{}", spec.pod.name),
            host_mac: Some("ee:ee:ee:ee:ee:ee".into()),
            pod_mac: Some("02:00:00:00:00:01".into()),
            mtu: spec.mtu.or(Some(1500)),
            device: 1,
        };
        Ok((made, ()))
    }

    async fn create(&self, spec: &LinkSpec, _: &LinkMade, (): ()) -> Result<(), BoxError> {
        self.step("create")?;
        self.with(|state| {
            assert!(
                state.held.contains_key(&spec.attachment),
                "an address comes first"
            );
            assert_eq!(state.links.get(&spec.pod.name), Some(&false), "prepared");
        });
        Ok(())
    }

    async fn activate(&self, spec: &LinkSpec, _made: &LinkMade) -> Result<(), BoxError> {
        self.step("activate")?;
        self.with(|state| {
            assert!(
                state.policies.contains(&spec.pod.name),
                "no packet before its policy"
            );
            state.links.insert(spec.pod.name.clone(), true);
        });
        Ok(())
    }

    async fn remove(&self, pod: &PodIdentity, _: &Attachment) -> Result<(), BoxError> {
        self.step("remove")?;
        self.with(|state| state.links.remove(&pod.name));
        Ok(())
    }

    async fn forget(&self, _: &PodIdentity, _: &Attachment) -> Result<(), BoxError> {
        self.step("forget")
    }

    fn ready(&self, mtu: Option<u32>) -> Result<(), BoxError> {
        if mtu.is_none() && self.with(|state| state.broken.contains("links ready")) {
            return Err("the MTU of the uplink is not known yet".into());
        }
        Ok(())
    }

    async fn check(&self, spec: &LinkSpec) -> Result<Vec<String>, BoxError> {
        self.step("check")?;
        let up = self.with(|state| state.links.get(&spec.pod.name).copied());
        Ok(match up {
            Some(true) => Vec::new(),
            Some(false) => vec!["the interface is down, should be up".into()],
            None => vec!["the interface is missing, should be there".into()],
        })
    }

    fn gateway(&self, _: IpAddr) -> IpAddr {
        [169, 254, 1, 1].into()
    }
}

impl Policy for World {
    async fn commit(&self, spec: &LinkSpec, _made: &LinkMade) -> Result<(), BoxError> {
        self.step("commit")?;
        self.with(|state| {
            assert_eq!(state.links.get(&spec.pod.name), Some(&false));
            state.policies.insert(spec.pod.name.clone());
        });
        Ok(())
    }

    async fn withdraw(&self, pod: &PodIdentity, _: &Attachment) -> Result<(), BoxError> {
        self.step("withdraw")?;
        self.with(|state| {
            assert!(
                !state.links.contains_key(&pod.name),
                "no interface without its policy"
            );
            state.policies.remove(&pod.name);
        });
        Ok(())
    }

    fn ready(&self) -> Result<(), BoxError> {
        if self.with(|state| state.broken.contains("policy ready")) {
            return Err("the policy table has not been written yet".into());
        }
        Ok(())
    }
}

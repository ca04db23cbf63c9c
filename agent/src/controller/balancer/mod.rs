//! LoadBalancer addresses: a Service of our class gets one of each of its families from the pools
//! for that use, and has it in its status; the nodes announce it from there
//! ([`crate::services`]).
//!
//! The addresses are in blocks of the pseudo-node `margay-loadbalancer`, which only the leading
//! controller writes, by the same allocator that a node has. A Service that is deleted, or of
//! another type or class, loses its address as soon as the API server itself has said so.

mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds::ip_pool::allocatable::resolve;
use margay_crds::{Allocation, IPReservation, IpamSettings, LOAD_BALANCER_NODE, OwnerKind, Pool};
use margay_ipam::garbage::{Case, Holder, Reason, Replacements, Subject};
use margay_ipam::ranges::Ranges;
use margay_ipam::{Allocator, Release, kube_facts};
use serde_json::json;

use self::wish::{Held, Wish};
use super::world::Shared;

/// How long changes gather.
const GATHER: Duration = Duration::from_millis(100);
/// How often what did not work is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long a block must have been empty to be given back, and how often that is looked at.
const GRACE: Duration = Duration::from_secs(60);
/// How long one write may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Gives and takes addresses for as long as this process leads.
pub(super) async fn run(client: Client, shared: Shared, allocator: Allocator, unclassed: bool) {
    let reporter = Reporter {
        controller: "margay-controller".to_owned(),
        instance: None,
    };
    let mut balancer = Balancer {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        allocator,
        unclassed,
        problems: BTreeMap::new(),
    };
    let mut changes = shared.changes();
    let mut tidied = tokio::time::Instant::now();
    loop {
        let seen = changes.borrow_and_update().services;
        let known = shared.with(|world| {
            let services: Vec<Service> = world.services.values().cloned().collect();
            let pools = resolve(world.pools.values());
            world
                .is_synced()
                .then(|| (services, pools, world.settings()))
        });
        let is_ready = known.is_some() && balancer.allocator.is_ready();
        if let Some((services, pools, settings)) = known.filter(|_| is_ready) {
            balancer.serve(&services, pools, settings).await;
        }
        if is_ready && tidied.elapsed() > GRACE {
            tidied = tokio::time::Instant::now();
            balancer.tidy().await;
        }
        tokio::time::sleep(GATHER).await;
        if is_ready {
            let other = changes.wait_for(|counts| counts.services != seen);
            // The watches end only with this task.
            let _ = tokio::time::timeout(RETRY, other).await;
        }
    }
}

struct Balancer {
    client: Client,
    recorder: Recorder,
    allocator: Allocator,
    unclassed: bool,
    /// What was told of each Service last, so that it is told once.
    problems: BTreeMap<String, String>,
}

impl Balancer {
    async fn serve(&mut self, services: &[Service], pools: Vec<Pool>, settings: IpamSettings) {
        self.allocator.set_pools(pools);
        // Nobody else has blocks for this use, and nobody limits them.
        self.allocator.set_settings(IpamSettings {
            strict_affinity: true,
            auto_allocate_blocks: true,
            max_blocks_per_host: None,
            ..settings
        });
        let mut present = BTreeSet::new();
        let mut problems = std::mem::take(&mut self.problems);
        for service in services {
            let done = match Wish::of(service, self.unclassed) {
                Ok(None) => continue,
                Ok(Some(wish)) => self.fulfil(service, &wish).await,
                Err(words) => Err(words),
            };
            let key = super::world::key(service);
            match done {
                Ok(()) => {}
                Err(words) => {
                    if problems.remove(&key).as_ref() != Some(&words) {
                        self.tell(service, &words).await;
                    }
                    self.problems.insert(key.clone(), words);
                }
            }
            present.insert(key);
        }
        for (node, one) in self.held() {
            let Holder::Service(key) = Holder::of(&one.owner, &node) else {
                continue;
            };
            let known = services
                .iter()
                .find(|service| super::world::key(*service) == key);
            let same = known
                .and_then(ResourceExt::uid)
                .is_some_and(|uid| uid == one.owner.uid);
            if !present.contains(&key) || !same {
                self.take_back(&key, known, &one).await;
            }
        }
    }

    /// Every address held, as last read or written.
    fn held(&self) -> Vec<(String, Allocation)> {
        let blocks = self.allocator.own_blocks();
        let held = blocks.iter().flat_map(|block| {
            let all = block.allocations().iter();
            all.map(|one| (block.name().to_owned(), one.clone()))
        });
        held.filter(|(_, one)| one.owner.kind == OwnerKind::LoadBalancer)
            .collect()
    }

    fn held_by(&self, wish: &Wish) -> Vec<Held> {
        let held = self.held().into_iter();
        let same = held.filter(|(_, one)| one.owner == wish.owner);
        same.filter_map(|(_, one)| {
            Some(Held {
                address: one.address.parse().ok()?,
                sequence: one.sequence,
            })
        })
        .collect()
    }

    /// Brings one Service's addresses and status to what it asks for.
    async fn fulfil(&self, service: &Service, wish: &Wish) -> Result<(), String> {
        let change = wish.change(&self.held_by(wish));
        for one in &change.release {
            let which = Release::Address {
                address: one.address,
                sequence: Some(one.sequence),
            };
            let released = self.allocator.release(which).await;
            released.map_err(|error| error.to_string())?;
            tracing::info!("Service {}: {} given back", wish.key, one.address);
        }
        let mut failed = None;
        if !change.wants.is_empty() {
            self.allocator.set_reserved(self.reserved().await?);
            let request = wish.request(change.wants);
            match self.allocator.assign_all(request).await {
                Ok(given) => {
                    for one in given {
                        tracing::info!("Service {}: has {}", wish.key, one.address);
                    }
                }
                Err(error) => failed = Some(error.to_string()),
            }
        }
        let ingress = wish.ingress(&self.held_by(wish));
        if ingress != wish.standing {
            self.write_status(service, &ingress).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes an address back whose Service is gone or not ours any more, if the API server says
    /// so too.
    async fn take_back(&self, key: &str, known: Option<&Service>, one: &Allocation) {
        let case = Case {
            block: String::new(),
            uid: String::new(),
            node: LOAD_BALANCER_NODE.to_owned(),
            subject: Subject::Address {
                allocation: Box::new(one.clone()),
                reason: Reason::ServiceGone,
            },
        };
        let fresh = match kube_facts::of_case(&self.client, &case, self.unclassed).await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::debug!("Service {key}: {error}");
                return;
            }
        };
        let none = Replacements::default();
        let Some(reason) = fresh.judge(LOAD_BALANCER_NODE, one, &none) else {
            return;
        };
        let Ok(address) = one.address.parse::<IpAddr>() else {
            return;
        };
        // The status first: nobody should be sent to an address that is another's.
        let of_this = known.filter(|service| service.uid().as_ref() == Some(&one.owner.uid));
        if let Some(service) = of_this {
            let mut standing = wish::standing(service);
            if standing.contains(&one.address) {
                standing.retain(|ip| *ip != one.address);
                if let Err(words) = self.write_status(service, &standing).await {
                    tracing::debug!("Service {key}: {words}");
                    return;
                }
            }
        }
        let which = Release::Address {
            address,
            sequence: Some(one.sequence),
        };
        match self.allocator.release(which).await {
            Ok(_) => tracing::info!("Service {key}: {address} given back: {reason}"),
            Err(error) => tracing::warn!("Service {key}: {address} cannot be given back: {error}"),
        }
    }

    /// The addresses that are kept back, read when one is to be given: that is rare, and a watch
    /// would have to be waited for.
    async fn reserved(&self) -> Result<Ranges, String> {
        let api: Api<IPReservation> = Api::all(self.client.clone());
        let params = ListParams::default();
        let list = tokio::time::timeout(TIMEOUT, api.list(&params)).await;
        let list = list.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?;
        let list = list.map_err(|error| format!("cannot list IPReservations: {error}"))?;
        let ranges = list.items.iter().filter_map(|object| object.check().ok());
        Ok(Ranges::of(ranges.flatten()))
    }

    async fn write_status(&self, service: &Service, ingress: &[String]) -> Result<(), String> {
        let namespace = service.namespace().unwrap_or_default();
        let api: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        let ingress: Vec<_> = ingress.iter().map(|ip| json!({ "ip": ip })).collect();
        let body = Patch::Merge(json!({
            "metadata": {"uid": service.uid()},
            "status": {"loadBalancer": {"ingress": ingress}},
        }));
        let parameters = PatchParams::default();
        let name = service.name_any();
        let patch = api.patch_status(&name, &parameters, &body);
        match tokio::time::timeout(TIMEOUT, patch).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("its status cannot be written: {error}")),
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }

    /// Says on the Service why it has no address.
    async fn tell(&self, service: &Service, words: &str) {
        tracing::warn!("Service {}: {words}", super::world::key(service));
        let event = Event {
            type_: EventType::Warning,
            reason: "NoLoadBalancerAddress".to_owned(),
            note: Some(words.chars().take(1000).collect()),
            action: "Allocate".to_owned(),
            secondary: None,
        };
        let reference = service.object_ref(&());
        let told = self.recorder.publish(&event, &reference);
        if let Ok(Err(error)) = tokio::time::timeout(TIMEOUT, told).await {
            tracing::debug!("Event cannot be written: {error}");
        }
    }

    async fn tidy(&self) {
        match self.allocator.release_empty_blocks(GRACE).await {
            Ok(blocks) => {
                for block in blocks {
                    tracing::info!("block {block} of LoadBalancer addresses given back");
                }
            }
            Err(error) => tracing::debug!("empty blocks stay: {error}"),
        }
    }
}

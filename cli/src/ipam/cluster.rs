//! Everything of a cluster that has to do with addresses, read in one go.

use std::fmt::Debug;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds::field::join;
use margay_crds::{IPAMBlock, IPPool, IPReservation, Pool};
use margay_ipam::Timestamp;
use margay_ipam::garbage::{Facts, NodeFacts, PodFacts, ServiceFacts};
use margay_ipam::report::{Inventory, Report, inspect};
use serde::de::DeserializeOwned;

/// How many objects come in one answer.
const PAGE: u32 = 1000;

/// The objects of a cluster.
pub(super) struct Cluster {
    pub(super) pool_objects: Vec<IPPool>,
    pub(super) pools: Vec<Pool>,
    pub(super) blocks: Vec<IPAMBlock>,
    pub(super) reserved: Vec<IpNetwork>,
    pub(super) facts: Facts,
}

impl Cluster {
    /// Reads everything. Objects that make no sense are told on standard error and left out.
    pub(super) async fn read(client: &Client) -> Result<Self, String> {
        let (pool_objects, reserved) = read_pools(client).await?;
        let mut pools = Vec::new();
        for object in &pool_objects {
            match object.check() {
                Ok(pool) => pools.push(pool),
                Err(errors) => warn("IPPool", &object.name_any(), &join(&errors)),
            }
        }
        let (nodes, pods, services, blocks) = tokio::try_join!(
            list::<Node>(client, "Nodes"),
            list::<Pod>(client, "Pods"),
            list::<Service>(client, "Services"),
            list::<IPAMBlock>(client, "IPAMBlocks"),
        )?;
        let facts = Facts {
            nodes: nodes
                .iter()
                .map(|node| (node.name_any(), NodeFacts::of(node)))
                .collect(),
            pods: pods
                .iter()
                .map(|pod| (key(pod), PodFacts::of(pod)))
                .collect(),
            // Whether the controller serves those without a class is its own flag's to say.
            services: services
                .iter()
                .map(|service| (key(service), ServiceFacts::of(service, true)))
                .collect(),
        };
        Ok(Self {
            pool_objects,
            pools,
            blocks,
            reserved,
            facts,
        })
    }

    /// What is wrong with it.
    pub(super) fn report(&self) -> Report {
        let inventory = Inventory {
            pools: &self.pools,
            blocks: &self.blocks,
            facts: &self.facts,
        };
        inspect(&inventory, Timestamp::now())
    }
}

/// The pools, and the ranges kept back from them.
async fn read_pools(client: &Client) -> Result<(Vec<IPPool>, Vec<IpNetwork>), String> {
    let (mut pools, reservations) = tokio::try_join!(
        list::<IPPool>(client, "IPPools"),
        list::<IPReservation>(client, "IPReservations"),
    )?;
    pools.sort_by_key(ResourceExt::name_any);
    let mut reserved = Vec::new();
    for object in &reservations {
        match object.check() {
            Ok(ranges) => reserved.extend(ranges),
            Err(errors) => warn("IPReservation", &object.name_any(), &join(&errors)),
        }
    }
    Ok((pools, reserved))
}

fn warn(kind: &str, name: &str, words: &str) {
    eprintln!("margayctl ipam: {kind} {name} is left out: {words}");
}

/// All objects of a kind, page by page.
pub(super) async fn list<K>(client: &Client, plural: &str) -> Result<Vec<K>, String>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let mut all = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await;
        let list =
            list.map_err(|error| format!("cannot list {plural}: {}", super::words(&error)))?;
        all.extend(list.items);
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page = page.continue_token(&token),
            _ => return Ok(all),
        }
    }
}

fn key(object: &impl ResourceExt) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{namespace}/{}", object.name_any())
}

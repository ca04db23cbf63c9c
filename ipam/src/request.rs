//! What a holder asks for: one address of each of some families, all of them or none.
//!
//! Not here: reading it off a pod ([`crate::annotations`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use margay_crds::{AllowedUse, Owner};

use crate::Family;

/// Addresses for one holder: all that is wanted, or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Who is to hold them.
    pub owner: Owner,
    /// What they are for: pools may not serve it.
    pub purpose: AllowedUse,
    /// The labels of the pod's namespace; `None` if they are not known: then a pool that selects
    /// namespaces does not serve it.
    pub namespace_labels: Option<Arc<BTreeMap<String, String>>>,
    /// One for each family; a second one of a family is not served.
    pub wants: Vec<Want>,
}

/// An address of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The family.
    pub family: Family,
    /// Where it may come from.
    pub source: Source,
    /// Who says so, such as `annotation margay.dev/ipv4-pools of Pod default/web`.
    pub origin: String,
}

/// Where an address may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Any pool that is meant for everyone and selects the node and the namespace.
    Automatic,
    /// These pools, by name or CIDR, in this order; their selectors and their mode do not count.
    Pools(Vec<String>),
    /// This address and no other.
    Address(IpAddr),
}

impl Want {
    /// An address of a family from any pool.
    pub fn automatic(family: Family) -> Self {
        Self {
            family,
            source: Source::Automatic,
            origin: String::new(),
        }
    }
}

impl Request {
    /// Addresses of these families for a pod, from any pool.
    pub fn pod(owner: Owner, families: impl IntoIterator<Item = Family>) -> Self {
        Self {
            owner,
            purpose: AllowedUse::Workload,
            namespace_labels: None,
            wants: families.into_iter().map(Want::automatic).collect(),
        }
    }

    /// An address of a family for a tunnel device of a node.
    pub fn tunnel(node: &str, interface: &str, family: Family) -> Self {
        Self {
            owner: Owner::tunnel(node, interface),
            purpose: AllowedUse::Tunnel,
            namespace_labels: None,
            wants: vec![Want::automatic(family)],
        }
    }
}

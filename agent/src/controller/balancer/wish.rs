//! What a Service asks for, and what is to be changed so that it has it.
//!
//! | where | what |
//! |---|---|
//! | `spec.ipFamilies` | one address of each; without it, of the family of `spec.clusterIP` |
//! | `spec.loadBalancerIP` | this address |
//! | annotation `margay.dev/load-balancer-ips` | these addresses, at most one a family |
//! | annotation `margay.dev/ipv4-pools`, `margay.dev/ipv6-pools` | only from these IPPools |
//!
//! The annotations' values are a JSON list of strings, or the strings with commas between them;
//! Calico's `projectcalico.org/loadBalancerIPs`, `…/ipv4pools` and `…/ipv6pools` mean the same.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use kube::ResourceExt;
use margay_crds::{AllowedUse, Owner};
use margay_ipam::Family;
use margay_ipam::garbage::ServiceFacts;
use margay_ipam::request::{Request, Source, Want};

const ADDRESSES: [&str; 2] = [
    "margay.dev/load-balancer-ips",
    "projectcalico.org/loadBalancerIPs",
];
const V4_POOLS: [&str; 2] = ["margay.dev/ipv4-pools", "projectcalico.org/ipv4pools"];
const V6_POOLS: [&str; 2] = ["margay.dev/ipv6-pools", "projectcalico.org/ipv6pools"];

/// A Service that is to have addresses of ours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wish {
    /// `namespace/name`.
    pub(super) key: String,
    /// Who will hold them.
    pub(super) owner: Owner,
    /// One for each family.
    pub(super) wants: Vec<Want>,
    /// The addresses in its status.
    pub(super) standing: Vec<String>,
}

/// An address that a Service holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) address: IpAddr,
    pub(super) sequence: i64,
}

/// What is to be changed for one Service.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Change {
    /// To be given back first.
    pub(super) release: Vec<Held>,
    /// Then to be asked for.
    pub(super) wants: Vec<Want>,
}

impl Wish {
    /// Reads a Service; `None` if it is not ours.
    ///
    /// # Errors
    /// What is wrong with it, naming the field.
    pub(super) fn of(service: &Service, unclassed: bool) -> Result<Option<Self>, String> {
        if !ServiceFacts::of(service, unclassed).is_ours {
            return Ok(None);
        }
        let namespace = service.namespace().unwrap_or_default();
        let name = service.name_any();
        let uid = service.uid().unwrap_or_default();
        Ok(Some(Self {
            key: format!("{namespace}/{name}"),
            owner: Owner::load_balancer(&namespace, &name, &uid),
            wants: wants(service)?,
            standing: standing(service),
        }))
    }

    /// The request for some of the wants.
    pub(super) fn request(&self, wants: Vec<Want>) -> Request {
        Request {
            owner: self.owner.clone(),
            purpose: AllowedUse::LoadBalancer,
            namespace_labels: None,
            wants,
        }
    }

    /// What is to be changed, given what the Service holds. An address that is held stays, unless
    /// another one is asked for by name.
    pub(super) fn change(&self, held: &[Held]) -> Change {
        let mut change = Change::default();
        let mut kept: Vec<IpAddr> = Vec::new();
        for want in &self.wants {
            let of_family = |one: &&Held| Family::of(one.address) == want.family;
            let found = match want.source {
                Source::Address(address) => held.iter().find(|one| one.address == address),
                Source::Automatic | Source::Pools(_) => held.iter().find(of_family),
            };
            match found {
                Some(one) => kept.push(one.address),
                None => change.wants.push(want.clone()),
            }
        }
        let others = held.iter().filter(|one| !kept.contains(&one.address));
        change.release = others.cloned().collect();
        change
    }

    /// The addresses as the status should have them: in the order of the families.
    pub(super) fn ingress(&self, held: &[Held]) -> Vec<String> {
        let of_family = |want: &Want| {
            let mut held = held.iter();
            held.find(|one| Family::of(one.address) == want.family)
        };
        let found = self.wants.iter().filter_map(of_family);
        found.map(|one| one.address.to_string()).collect()
    }
}

/// The addresses in a Service's status.
pub(super) fn standing(service: &Service) -> Vec<String> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let ips = ingress.into_iter().flatten();
    ips.filter_map(|one| one.ip.clone()).collect()
}

fn wants(service: &Service) -> Result<Vec<Want>, String> {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let fixed = fixed(service, spec)?;
    let families = families(spec);
    if let Some((address, origin)) = fixed
        .iter()
        .find(|(address, _)| !families.contains(&Family::of(*address)))
    {
        return Err(format!(
            "{origin} names {address}, and the Service has no {} (spec.ipFamilies)",
            Family::of(*address)
        ));
    }
    let mut wants = Vec::new();
    for family in families {
        let named = |(address, _): &&(IpAddr, String)| Family::of(*address) == family;
        let keys = match family {
            Family::V4 => V4_POOLS,
            Family::V6 => V6_POOLS,
        };
        let (source, origin) = match fixed.iter().find(named) {
            Some((address, origin)) => (Source::Address(*address), origin.clone()),
            None => match annotation(service, keys)? {
                Some((pools, origin)) => (Source::Pools(pools), origin),
                None => (Source::Automatic, String::new()),
            },
        };
        wants.push(Want {
            family,
            source,
            origin,
        });
    }
    Ok(wants)
}

fn families(spec: &ServiceSpec) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten();
    let mut families: Vec<Family> = named
        .filter_map(|name| match name.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    families.dedup();
    if families.is_empty() {
        // A server before dual stack.
        let cluster = spec.cluster_ip.as_ref().and_then(|ip| ip.parse().ok());
        families.push(cluster.map_or(Family::V4, Family::of));
    }
    families
}

/// The addresses asked for by name, each with where it is named.
fn fixed(service: &Service, spec: &ServiceSpec) -> Result<Vec<(IpAddr, String)>, String> {
    let (texts, origin) = match annotation(service, ADDRESSES)? {
        Some(found) => found,
        None => match spec.load_balancer_ip.as_deref() {
            Some(ip) if !ip.is_empty() => (vec![ip.to_owned()], "spec.loadBalancerIP".to_owned()),
            _ => return Ok(Vec::new()),
        },
    };
    let mut found: Vec<(IpAddr, String)> = Vec::new();
    for text in texts {
        let address: IpAddr = text
            .parse()
            .map_err(|_| format!("{origin}: {text:?} is not an IP address"))?;
        let same = |(other, _): &&(IpAddr, String)| other.is_ipv4() == address.is_ipv4();
        if let Some((other, _)) = found.iter().find(same) {
            let family = Family::of(address);
            return Err(format!(
                "{origin} names two {family} addresses, {other} and {address}: leave one of them \
                 out"
            ));
        }
        found.push((address, origin.clone()));
    }
    Ok(found)
}

/// The strings of the first of these annotations that is there, and its name.
fn annotation(service: &Service, keys: [&str; 2]) -> Result<Option<(Vec<String>, String)>, String> {
    let annotations = service.annotations();
    let Some((key, value)) = keys
        .iter()
        .find_map(|key| annotations.get(*key).map(|value| (*key, value.trim())))
    else {
        return Ok(None);
    };
    let origin = format!("annotation {key}");
    let strings: Vec<String> = if value.starts_with('[') {
        serde_json::from_str(value)
            .map_err(|_| format!("{origin}: {value:?} is not a JSON list of strings"))?
    } else {
        let parts = value.split(',').map(str::trim);
        parts
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    if strings.is_empty() {
        return Err(format!("{origin} is empty: name something, or remove it"));
    }
    Ok(Some((strings, origin)))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

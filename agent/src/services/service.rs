//! A Service as announcing needs it.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use margay_bgp::types::Prefix;

/// The label or annotation by which a Service opts out: `"false"`.
pub const ADVERTISE: &str = "margay.dev/advertise";

/// The most addresses taken of one Service; people have a handful.
const MAX_ADDRESSES: usize = 1024;

/// What an address is, which says which ranges and which policy are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// `spec.clusterIPs`.
    Cluster,
    /// `spec.externalIPs`.
    External,
    /// `status.loadBalancer.ingress`, or `spec.loadBalancerIP`.
    LoadBalancer,
}

/// What counts of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ServiceFacts {
    /// Its addresses.
    pub(super) addresses: Vec<(Class, IpAddr)>,
    /// The cluster IPs belong to nodes with endpoints.
    internal_local: bool,
    /// The other addresses do.
    external_local: bool,
    /// What is wrong with it, in words that name the field.
    pub(super) problems: Vec<String>,
}

impl ServiceFacts {
    /// Whether addresses of this class belong to nodes with endpoints only.
    pub(super) fn is_local(&self, class: Class) -> bool {
        match class {
            Class::Cluster => self.internal_local || self.external_local,
            Class::External | Class::LoadBalancer => self.external_local,
        }
    }

    /// Reads a Service.
    pub(super) fn of(service: &Service) -> Self {
        let mut facts = Self::default();
        let Some(spec) = &service.spec else {
            return facts;
        };
        if !facts.is_advertised(service)
            || spec.type_.as_deref() == Some("ExternalName")
            || cluster_ips(spec).any(|(_, ip)| ip == "None")
        {
            return facts;
        }
        facts.internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        facts.external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        for (path, ip) in cluster_ips(spec) {
            facts.add(Class::Cluster, &path, ip);
        }
        for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
            facts.add(Class::External, &format!("spec.externalIPs[{index}]"), ip);
        }
        if spec.type_.as_deref() == Some("LoadBalancer") {
            facts.add_load_balancer(service, spec);
        }
        facts
    }

    fn is_advertised(&mut self, service: &Service) -> bool {
        let places = [
            ("labels", &service.metadata.labels),
            ("annotations", &service.metadata.annotations),
        ];
        let mut advertised = true;
        for (place, map) in places {
            match map.as_ref().and_then(|map| map.get(ADVERTISE)) {
                Some(value) if value == "false" => advertised = false,
                Some(value) if value != "true" => self.problems.push(format!(
                    "metadata.{place}[{ADVERTISE}]: {value:?} means nothing, use \"false\" or \
                     leave it out"
                )),
                _ => {}
            }
        }
        advertised
    }

    fn add_load_balancer(&mut self, service: &Service, spec: &ServiceSpec) {
        let balancer = service.status.as_ref();
        let balancer = balancer.and_then(|status| status.load_balancer.as_ref());
        let given = balancer.and_then(|balancer| balancer.ingress.as_deref());
        let mut named = false;
        for (index, ingress) in given.unwrap_or_default().iter().enumerate() {
            // A hostname is for clients to look up.
            let Some(ip) = ingress.ip.as_deref().filter(|ip| !ip.is_empty()) else {
                continue;
            };
            named = true;
            if ingress.ip_mode.as_deref() == Some("Proxy") {
                continue;
            }
            let path = format!("status.loadBalancer.ingress[{index}].ip");
            self.add(Class::LoadBalancer, &path, ip);
        }
        if let Some(asked) = spec.load_balancer_ip.as_deref()
            && !named
        {
            self.add(Class::LoadBalancer, "spec.loadBalancerIP", asked);
        }
    }

    /// Takes an address; empty ones are not given yet.
    fn add(&mut self, class: Class, path: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.addresses.len() == MAX_ADDRESSES {
            let words = format!("{path}: more than {MAX_ADDRESSES} addresses, the rest is ignored");
            if self
                .problems
                .last()
                .is_none_or(|last| !last.ends_with("the rest is ignored"))
            {
                self.problems.push(words);
            }
            return;
        }
        match text.parse::<IpAddr>() {
            Ok(address) if is_announceable(address) => {
                if !self.addresses.contains(&(class, address)) {
                    self.addresses.push((class, address));
                }
            }
            Ok(_) => self.problems.push(format!(
                "{path}: {text} is no address that routes lead to, ignored"
            )),
            Err(_) => self.problems.push(format!(
                "{path}: {text:?} is not an IP address, ignored: correct or remove it"
            )),
        }
    }
}

fn is_announceable(address: IpAddr) -> bool {
    !address.is_unspecified() && Prefix::host(address).is_unicast()
}

/// `spec.clusterIPs`, or what servers before dual stack have instead.
fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = (String, &str)> {
    let several = spec.cluster_ips.as_deref().unwrap_or_default();
    let only = spec.cluster_ip.as_deref().filter(|_| several.is_empty());
    let several = several.iter().enumerate();
    let several = several.map(|(index, ip)| (format!("spec.clusterIPs[{index}]"), ip.as_str()));
    several.chain(only.map(|ip| ("spec.clusterIP".to_owned(), ip)))
}

/// The key of a Service, `namespace/name`.
pub(super) fn key(namespace: Option<String>, name: &str) -> String {
    format!("{}/{name}", namespace.unwrap_or_default())
}

//! The ranges of BGPConfiguration, asked by address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_bgp::types::Prefix;
use margay_crds::{Aggregation, Pool, ServiceRanges};

use super::service::Class;

/// How a range covers an address of a Service whose policy is not `Local`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    /// The range is announced, and the address with it.
    Whole,
    /// The range is this one address: announced as long as a Service has it.
    Alone,
    /// Each address is announced as long as its Service has a usable endpoint.
    Each,
}

fn of_class(ranges: &ServiceRanges, class: Class) -> &[IpNetwork] {
    match class {
        Class::Cluster => &ranges.cluster,
        Class::External => &ranges.external,
        Class::LoadBalancer => &ranges.load_balancer,
    }
}

/// How the ranges of its class cover an address; none if they do not.
pub(super) fn cover(ranges: &ServiceRanges, class: Class, address: IpAddr) -> Option<Cover> {
    let mut covering = of_class(ranges, class)
        .iter()
        .filter(|range| range.contains(address))
        .peekable();
    covering.peek()?;
    if class == Class::LoadBalancer && ranges.load_balancer_aggregation == Aggregation::Disabled {
        return Some(Cover::Each);
    }
    let alone = covering.any(|range| Prefix::from(*range).is_host());
    Some(if alone { Cover::Alone } else { Cover::Whole })
}

/// The ranges that are announced whole.
pub(super) fn aggregates(ranges: &ServiceRanges) -> BTreeSet<Prefix> {
    let load_balancer = match ranges.load_balancer_aggregation {
        Aggregation::Enabled => &ranges.load_balancer[..],
        Aggregation::Disabled => &[],
    };
    let whole = ranges.cluster.iter().chain(&ranges.external);
    let prefixes = whole.chain(load_balancer).map(|range| Prefix::from(*range));
    prefixes.filter(|prefix| !prefix.is_host()).collect()
}

/// Whether a destination belongs to Services and not to pods: it lies within a range of
/// `services` or a pool for Services, and no other pool that it lies within is longer than that one.
pub fn is_service_space(destination: &Prefix, services: &ServiceRanges, pools: &[Pool]) -> bool {
    let ranges = |for_services: bool| {
        let pools = pools.iter();
        let pools = pools.filter(move |pool| pool.is_for_services() == for_services);
        pools.map(|pool| &pool.cidr)
    };
    let service = longest(destination, services.all().chain(ranges(true)));
    service.is_some() && service >= longest(destination, ranges(false))
}

/// The length of the longest range that holds a prefix.
fn longest<'a>(prefix: &Prefix, ranges: impl Iterator<Item = &'a IpNetwork>) -> Option<u8> {
    let ranges = ranges.map(|range| Prefix::from(*range));
    let holding = ranges.filter(|range| range.contains(prefix));
    holding.map(|range| range.length()).max()
}

#[cfg(test)]
mod tests {
    use margay_crds::IPPool;

    use super::*;

    #[test]
    fn the_longer_of_two_ranges_says_whose_space_it_is() {
        let range = |text: &str| text.parse::<IpNetwork>().unwrap();
        let services = ServiceRanges {
            cluster: vec![range("10.0.0.0/8"), range("fd00:96::/112")],
            external: vec![range("10.244.9.0/24")],
            ..ServiceRanges::default()
        };
        let pool = |cidr: &str, uses: &[&str]| {
            let spec = serde_json::json!({"cidr": cidr, "allowedUses": uses});
            let pool = IPPool::new("p", serde_json::from_value(spec).unwrap());
            pool.check().unwrap()
        };
        let pods = ["Workload", "Tunnel"];
        let pools = [
            pool("10.244.0.0/16", &pods),
            pool("172.16.0.0/12", &pods),
            pool("10.244.77.0/24", &["LoadBalancer"]),
            pool("198.51.100.0/24", &["LoadBalancer"]),
        ];
        for (destination, expected) in [
            ("10.96.0.7/32", true),
            ("10.96.0.0/16", true),
            ("10.0.0.0/8", true),
            ("fd00:96::7/128", true),
            // Pods' blocks, although somebody wrote a range over them.
            ("10.244.1.0/26", false),
            ("10.244.9.7/32", true),
            ("172.16.3.0/26", false),
            ("192.0.2.0/24", false),
            // A pool that gives Services their addresses.
            ("198.51.100.7/32", true),
            ("10.244.77.7/32", true),
            ("10.244.78.7/32", false),
            // More than the range: a router's aggregate.
            ("0.0.0.0/0", false),
        ] {
            let prefix = destination.parse().unwrap();
            let found = is_service_space(&prefix, &services, &pools);
            assert_eq!(found, expected, "{destination}");
        }
        assert!(!is_service_space(
            &"10.96.0.7/32".parse().unwrap(),
            &ServiceRanges::default(),
            &pools
        ));
    }
}

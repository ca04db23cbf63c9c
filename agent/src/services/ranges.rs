//! The ranges of BGPConfiguration, asked by address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use margay_bgp::types::Prefix;
use margay_crds::{Aggregation, ServiceRanges};

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
/// `services`, and no range of `pools` that it lies within is longer than that one.
pub fn is_service_space<'a>(
    destination: &Prefix,
    services: &ServiceRanges,
    pools: impl Iterator<Item = &'a IpNetwork>,
) -> bool {
    let service = longest(destination, services.all());
    service.is_some() && service >= longest(destination, pools)
}

/// The length of the longest range that holds a prefix.
fn longest<'a>(prefix: &Prefix, ranges: impl Iterator<Item = &'a IpNetwork>) -> Option<u8> {
    let ranges = ranges.map(|range| Prefix::from(*range));
    let holding = ranges.filter(|range| range.contains(prefix));
    holding.map(|range| range.length()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_of_two_ranges_says_whose_space_it_is() {
        let range = |text: &str| text.parse::<IpNetwork>().unwrap();
        let services = ServiceRanges {
            cluster: vec![range("10.0.0.0/8"), range("fd00:96::/112")],
            external: vec![range("10.244.9.0/24")],
            ..ServiceRanges::default()
        };
        let pools = [range("10.244.0.0/16"), range("172.16.0.0/12")];
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
            // More than the range: a router's aggregate.
            ("0.0.0.0/0", false),
        ] {
            let prefix = destination.parse().unwrap();
            let found = is_service_space(&prefix, &services, pools.iter());
            assert_eq!(found, expected, "{destination}");
        }
        assert!(!is_service_space(
            &"10.96.0.7/32".parse().unwrap(),
            &ServiceRanges::default(),
            pools.iter()
        ));
    }
}

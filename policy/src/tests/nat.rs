//! Outgoing NAT.

use std::collections::BTreeSet;

use super::fabric::ip;
use crate::{
    Cluster, Compiler, NodeInput, Pool,
    ruleset::simulate::{Packet, is_masqueraded},
};

#[test]
fn only_what_leaves_all_pools_by_no_tunnel_is_masqueraded() {
    let pool = |cidr: &str, nat_outgoing| Pool {
        cidr: cidr.parse().unwrap(),
        nat_outgoing,
    };
    let input = NodeInput {
        node: "n1".to_owned(),
        pools: vec![
            pool("10.0.0.0/16", true),
            pool("10.1.0.0/16", false),
            pool("fd00::/48", true),
        ],
        node_addresses: BTreeSet::from([ip("192.0.2.2")]),
        tunnel_devices: BTreeSet::from(["margay.ipip".to_owned()]),
        ..NodeInput::default()
    };
    let (ruleset, _) = Compiler::new().compile(&Cluster::new(), &input);
    for (source, destination, by, expected) in [
        ("10.0.0.1", "203.0.113.1", "eth0", true),
        ("10.0.0.1", "203.0.113.1", "margay.ipip", false),
        ("10.0.0.1", "10.0.7.7", "eth0", false),
        ("10.0.0.1", "10.1.7.7", "eth0", false),
        ("10.0.0.1", "192.0.2.2", "eth0", false),
        ("10.0.0.1", "192.0.2.3", "eth0", true),
        ("10.1.0.1", "203.0.113.1", "eth0", false),
        ("192.0.2.1", "203.0.113.1", "eth0", false),
        ("fd00::1", "2001:db8::1", "eth0", true),
        ("fd00::1", "fd00::2", "eth0", false),
    ] {
        let packet = Packet {
            in_interface: String::new(),
            out_interface: by.to_owned(),
            source: ip(source),
            destination: ip(destination),
            protocol: 17,
            source_port: 40_000,
            port: 53,
            icmp: (0, 0),
            state: None,
            reply: false,
            mark: 0,
            from_node: false,
        };
        assert_eq!(
            is_masqueraded(&ruleset, &packet),
            expected,
            "{source} -> {destination} by {by}"
        );
    }
}

//! Each sentence of what is announced, as a line of a table.

use super::*;

/// Ranges of all three kinds, in both families.
fn ranges() -> Value {
    json!({
        "serviceClusterIPs": [{"cidr": "10.96.0.0/16"}, {"cidr": "fd00:96::/112"}],
        "serviceExternalIPs": [{"cidr": "192.0.2.0/24"}, {"cidr": "2001:db8:e::/64"}],
        "serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}, {"cidr": "2001:db8:b::/64"}],
    })
}

const RANGES: [&str; 6] = [
    "10.96.0.0/16",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "2001:db8:b::/64",
    "2001:db8:e::/64",
    "fd00:96::/112",
];

/// Ranges with the load balancers' ones taken apart.
fn disaggregated() -> Value {
    json!({
        "serviceLoadBalancerIPs": [{"cidr": "198.51.100.0/24"}, {"cidr": "2001:db8:b::/64"}],
        "serviceLoadBalancerAggregation": "Disabled",
    })
}

/// What is announced beside the ranges.
fn beside_ranges(services: &[Service], slices: &[EndpointSlice]) -> Vec<String> {
    let all = announced(&core(ranges(), &[], services, slices));
    let (ranges, rest): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|prefix| RANGES.contains(&prefix.as_str()));
    assert_eq!(ranges.len(), RANGES.len(), "{ranges:?}");
    rest
}

fn local_balancer() -> Service {
    let spec = json!({"clusterIP": "10.96.0.7", "externalTrafficPolicy": "Local"});
    balancer("web", spec, &["198.51.100.7"])
}

#[test]
fn ranges_are_announced_by_every_node_whether_there_are_services_or_not() {
    assert_eq!(announced(&core(ranges(), &[], &[], &[])), RANGES);
    assert!(announced(&core(json!({}), &[], &[local_balancer()], &[])).is_empty());
}

#[test]
fn policy_cluster_is_left_to_the_range() {
    let spec = json!({
        "clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.7"],
        "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
    });
    let service = balancer("web", spec, &["198.51.100.7"]);
    let slices = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    assert!(beside_ranges(&[service], &slices).is_empty());
}

#[test]
fn addresses_of_policy_local_are_where_usable_endpoints_are() {
    let cluster = "10.96.0.7/32";
    let given = "198.51.100.7/32";
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("a ready endpoint here", &["n1 ready"], &[cluster, given]),
        (
            "one of several",
            &["n2 ready", "n1 ready"],
            &[cluster, given],
        ),
        ("only elsewhere", &["n2 ready"], &[]),
        ("none at all", &[], &[]),
        ("not ready", &["n1 unready"], &[]),
        (
            "serving, but neither ready nor ending",
            &["n1 starting"],
            &[],
        ),
        ("ending, still serving", &["n1 draining"], &[cluster, given]),
        (
            "ending here, ready elsewhere: connections drain here",
            &["n1 draining", "n2 ready"],
            &[cluster, given],
        ),
        ("ending, serves no more", &["n1 ended"], &[]),
        (
            "ending beside a ready one",
            &["n1 ended", "n1 ready"],
            &[cluster, given],
        ),
        ("conditions unknown", &["n1 unknown"], &[cluster, given]),
        ("from before there was serving", &["n1 old"], &[]),
        ("of no node", &["- ready"], &[]),
    ];
    for (what, endpoints, expected) in cases {
        let slices = [slice("web-1", "web", "IPv4", endpoints)];
        assert_eq!(
            beside_ranges(&[local_balancer()], &slices),
            *expected,
            "{what}"
        );
    }
}

#[test]
fn each_class_of_address_follows_its_policy_and_its_ranges() {
    let here = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    let all = json!({"clusterIP": "10.96.0.7", "externalIPs": ["192.0.2.7"]});
    let with = |extra: Value| {
        let mut spec = all.clone();
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        balancer("web", spec, &["198.51.100.7"])
    };
    let cases: &[(&str, Service, &[&str])] = &[
        (
            "externalTrafficPolicy: all of them",
            with(json!({"externalTrafficPolicy": "Local"})),
            &["10.96.0.7/32", "192.0.2.7/32", "198.51.100.7/32"],
        ),
        (
            "internalTrafficPolicy: the cluster IP",
            with(json!({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Cluster"})),
            &["10.96.0.7/32"],
        ),
        (
            "an address outside the ranges of its class",
            with(json!({
                "externalTrafficPolicy": "Local",
                "clusterIP": "192.0.2.9", "externalIPs": ["198.51.100.9", "203.0.113.7"],
            })),
            &["198.51.100.7/32"],
        ),
        (
            "external IPs of a plain Service",
            service(
                "web",
                json!({"externalIPs": ["192.0.2.7"], "externalTrafficPolicy": "Local"}),
            ),
            &["192.0.2.7/32"],
        ),
        (
            "a status that the type does not go with",
            {
                let mut service = with(json!({"externalTrafficPolicy": "Local"}));
                service.spec.as_mut().unwrap().type_ = Some("NodePort".to_owned());
                service
            },
            &["10.96.0.7/32", "192.0.2.7/32"],
        ),
    ];
    for (what, service, expected) in cases {
        let found = beside_ranges(std::slice::from_ref(service), &here);
        assert_eq!(found, *expected, "{what}");
    }
}

#[test]
fn a_balancers_address_is_what_the_status_gives_or_else_what_was_asked_for() {
    let here = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    let asked = |given: &[&str]| {
        let spec = json!({"loadBalancerIP": "198.51.100.9", "externalTrafficPolicy": "Local"});
        balancer("web", spec, given)
    };
    assert_eq!(beside_ranges(&[asked(&[])], &here), ["198.51.100.9/32"]);
    assert_eq!(
        beside_ranges(&[asked(&["198.51.100.7"])], &here),
        ["198.51.100.7/32"]
    );

    let mut named = asked(&[]);
    named.status = serde_json::from_value(json!({"loadBalancer": {"ingress": [
        {"hostname": "lb.example"}, {"ip": "198.51.100.7", "ipMode": "Proxy"},
        {"ip": "198.51.100.8", "ipMode": "VIP"},
    ]}}))
    .unwrap();
    assert_eq!(beside_ranges(&[named], &here), ["198.51.100.8/32"]);
}

#[test]
fn families_are_judged_apart() {
    let spec = json!({
        "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
        "externalTrafficPolicy": "Local",
    });
    let both = balancer("web", spec, &["198.51.100.7", "2001:db8:b::7"]);
    let v4 = slice("web-4", "web", "IPv4", &["n1 ready"]);
    let v6 = |endpoints| slice("web-6", "web", "IPv6", endpoints);
    let names = slice("web-n", "web", "FQDN", &["n1 ready"]);
    let services = std::slice::from_ref(&both);
    assert_eq!(
        beside_ranges(services, &[v4.clone(), v6(&["n2 ready"]), names.clone()]),
        ["10.96.0.7/32", "198.51.100.7/32"]
    );
    assert_eq!(
        beside_ranges(services, &[v4, v6(&["n1 draining"])]),
        [
            "10.96.0.7/32",
            "198.51.100.7/32",
            "2001:db8:b::7/128",
            "fd00:96::7/128"
        ]
    );
    assert!(beside_ranges(services, &[names]).is_empty());
}

#[test]
fn endpoints_count_over_all_slices_of_the_service() {
    let far = slice("web-1", "web", "IPv4", &["n2 ready"]);
    let near = slice("web-2", "web", "IPv4", &["n1 ready"]);
    let mut foreign = slice("web-3", "web", "IPv4", &["n1 ready"]);
    foreign.metadata.namespace = Some("other".to_owned());
    let mut nobodys = slice("web-4", "web", "IPv4", &["n1 ready"]);
    nobodys.metadata.labels = None;
    let services = [local_balancer()];
    assert_eq!(beside_ranges(&services, &[far.clone(), near]).len(), 2);
    // A Service without a selector has slices that somebody else writes: the label counts.
    assert!(beside_ranges(&services, &[far, foreign, nobodys]).is_empty());
}

#[test]
fn a_range_of_one_address_is_announced_as_the_services_that_have_it() {
    let spec = json!({
        "serviceExternalIPs": [{"cidr": "192.0.2.7/32"}, {"cidr": "2001:db8:e::7/128"}],
        "serviceLoadBalancerIPs": [{"cidr": "198.51.100.7/32"}],
        "serviceClusterIPs": [{"cidr": "10.96.0.7/32"}],
    });
    let announced_with = |services: &[Service], slices: &[EndpointSlice]| {
        announced(&core(spec.clone(), &[], services, slices))
    };
    assert!(announced_with(&[], &[]).is_empty());
    let addresses = |policy: &str| {
        let spec = json!({
            "externalTrafficPolicy": policy, "clusterIP": "10.96.0.7",
            "externalIPs": ["192.0.2.7", "2001:db8:e::7"],
        });
        balancer("web", spec, &["198.51.100.7"])
    };
    let four = ["10.96.0.7/32", "192.0.2.7/32", "198.51.100.7/32"];
    let all = [&four[..], &["2001:db8:e::7/128"]].concat();
    assert_eq!(announced_with(&[addresses("Cluster")], &[]), all);
    let far = [slice("web-1", "web", "IPv4", &["n2 ready"])];
    let near = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    assert!(announced_with(&[addresses("Local")], &far).is_empty());
    assert_eq!(announced_with(&[addresses("Local")], &near), four);
}

#[test]
fn overlapping_and_repeated_ranges_are_announced_once_each() {
    let spec = json!({
        "serviceExternalIPs": [
            {"cidr": "192.0.2.0/24"}, {"cidr": "192.0.2.0/24"}, {"cidr": "192.0.2.0/25"},
            {"cidr": "192.0.2.7/32"},
        ],
        "serviceLoadBalancerIPs": [{"cidr": "192.0.2.0/24"}],
        "serviceLoadBalancerAggregation": "Disabled",
    });
    let spec_of = json!({"externalIPs": ["192.0.2.7", "192.0.2.8", "192.0.2.7"]});
    let found = announced(&core(
        spec,
        &[],
        &[balancer("web", spec_of, &["192.0.2.9"])],
        &[],
    ));
    // .7 by its own range, .8 by the larger ones, .9 not without an endpoint.
    assert_eq!(found, ["192.0.2.0/24", "192.0.2.0/25", "192.0.2.7/32"]);
}

#[test]
fn without_aggregation_each_balancer_is_announced_while_it_has_an_endpoint() {
    let cluster = balancer("web", json!({}), &["198.51.100.7", "2001:db8:b::7"]);
    let cases: &[(&[&str], &[&str])] = &[
        (&["n2 ready"], &["198.51.100.7/32"]),
        (&["n2 draining"], &["198.51.100.7/32"]),
        (&["- ready"], &["198.51.100.7/32"]),
        (&["n1 unready", "n2 ended"], &[]),
        (&[], &[]),
    ];
    for (endpoints, expected) in cases {
        let slices = [slice("web-1", "web", "IPv4", endpoints)];
        let services = std::slice::from_ref(&cluster);
        let found = announced(&core(disaggregated(), &[], services, &slices));
        assert_eq!(found, *expected, "{endpoints:?}");
    }
    let far = [slice("web-1", "web", "IPv4", &["n2 ready"])];
    let local = [local_balancer()];
    assert!(announced(&core(disaggregated(), &[], &local, &far)).is_empty());
}

#[test]
fn an_excluded_node_announces_nothing_of_services() {
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    let here = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    for (value, count) in [
        ("true", 0),
        ("", 0),
        ("yes", 0),
        ("false", RANGES.len() + 2),
    ] {
        let core = core(ranges(), &[(label, value)], &[local_balancer()], &here);
        assert_eq!(announced(&core).len(), count, "{value:?}");
    }
}

#[test]
fn services_that_have_no_addresses_of_their_own_are_left_out() {
    let here = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    let local = |spec: Value| {
        let mut spec = spec;
        spec["externalIPs"] = json!(["192.0.2.7"]);
        spec["externalTrafficPolicy"] = json!("Local");
        service("web", spec)
    };
    for (spec, count) in [
        (json!({"clusterIP": "None"}), 0),
        (json!({"clusterIPs": ["None"]}), 0),
        (
            json!({"type": "ExternalName", "externalName": "x.example"}),
            0,
        ),
        // Its cluster IP is not given yet; the rest counts.
        (json!({"clusterIP": ""}), 1),
    ] {
        let found = beside_ranges(&[local(spec.clone())], &here);
        assert_eq!(found.len(), count, "{spec}");
    }
}

#[test]
fn a_service_opts_out_by_label_or_annotation() {
    let here = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    for (value, count) in [("false", 0), ("true", 2), ("no", 2)] {
        for as_label in [false, true] {
            let mut service = local_balancer();
            let map = labels_of(&[(crate::services::ADVERTISE, value)]);
            if as_label {
                service.metadata.labels = Some(map);
            } else {
                service.metadata.annotations = Some(map);
            }
            let core = core(ranges(), &[], &[service], &here);
            assert_eq!(announced(&core).len(), RANGES.len() + count, "{value}");
            let problems: Vec<String> = core.problems().collect();
            assert_eq!(problems.is_empty(), value != "no", "{problems:?}");
        }
    }
}

#[test]
fn what_is_wrong_is_named_and_the_rest_counts() {
    let here = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    let spec = json!({
        "clusterIP": "10.96.0.7",
        "externalIPs": ["192.0.2.777", "192.0.2.7", "127.0.0.1", "0.0.0.0", ""],
        "externalTrafficPolicy": "Local",
    });
    let services = [balancer("web", spec, &["lb", "198.51.100.7"])];
    let expected = ["10.96.0.7/32", "192.0.2.7/32", "198.51.100.7/32"];
    assert_eq!(beside_ranges(&services, &here), expected);
    let core = core(ranges(), &[], &services, &here);
    let problems: Vec<String> = core.problems().collect();
    assert_eq!(problems.len(), 4, "{problems:?}");
    for (problem, words) in problems.iter().zip([
        "Service d/web: spec.externalIPs[0]: \"192.0.2.777\" is not an IP address",
        "Service d/web: spec.externalIPs[2]: 127.0.0.1 is no address",
        "Service d/web: spec.externalIPs[3]: 0.0.0.0 is no address",
        "Service d/web: status.loadBalancer.ingress[0].ip: \"lb\" is not an IP address",
    ]) {
        assert!(problem.starts_with(words), "{problem}");
    }
}

#[test]
fn one_service_cannot_take_all_there_is() {
    let many: Vec<String> = (0..70_000_u32)
        .map(|n| format!("2001:db8:e::{:x}:{:x}", n >> 8, n & 255))
        .collect();
    let spec = json!({"externalIPs": many, "externalTrafficPolicy": "Local"});
    let here = [slice("web-1", "web", "IPv6", &["n1 ready"])];
    let core = core(ranges(), &[], &[service("web", spec)], &here);
    assert_eq!(announced(&core).len(), RANGES.len() + 1024);
    assert_eq!(core.problems().count(), 1);
}

#[test]
fn prefixes_carry_the_communities_of_every_range_they_lie_within() {
    let mut spec = ranges();
    spec["communities"] = json!([{"name": "services", "value": "64512:100"}]);
    spec["prefixAdvertisements"] = json!([
        {"cidr": "198.51.100.0/24", "communities": ["services"]},
        {"cidr": "198.51.100.7/32", "communities": ["64512:7", "64512:1:2"]},
        {"cidr": "10.0.0.0/8", "communities": ["64512:8"]},
    ]);
    let here = [slice("web-1", "web", "IPv4", &["n1 ready"])];
    let core = core(spec, &[], &[local_balancer()], &here);
    let communities = |prefix: &str| {
        let announcement = &core.announcements()[&prefix.parse().unwrap()];
        let standard = announcement.communities.iter().map(ToString::to_string);
        let large = announcement.large_communities.iter();
        standard
            .chain(large.map(ToString::to_string))
            .collect::<Vec<_>>()
    };
    assert_eq!(communities("198.51.100.0/24"), ["64512:100"]);
    assert_eq!(
        communities("198.51.100.7/32"),
        ["64512:7", "64512:100", "64512:1:2"]
    );
    assert_eq!(communities("10.96.0.7/32"), ["64512:8"]);
    assert!(communities("192.0.2.0/24").is_empty());
}

#[test]
fn slices_of_the_older_version_name_hosts() {
    let v1beta1: EndpointSlice = serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1", "namespace": "d", "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.244.0.1"], "conditions": {"ready": true},
            "topology": {"kubernetes.io/hostname": "host-1", "topology.kubernetes.io/zone": "z"},
        }],
        "ports": [{"name": "http", "port": 80}],
    }))
    .unwrap();
    let slices = std::slice::from_ref(&v1beta1);
    let hostname = "kubernetes.io/hostname";
    for (labels, count) in [
        (&[(hostname, "host-1")][..], 2),
        (&[(hostname, "host-2")], 0),
        (&[], 0),
    ] {
        let core = core(ranges(), labels, &[local_balancer()], slices);
        assert_eq!(announced(&core).len(), RANGES.len() + count, "{labels:?}");
    }
}

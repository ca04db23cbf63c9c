//! What Services ask for, and what is changed for them.

use margay_ipam::garbage::LOAD_BALANCER_CLASS;
use serde_json::{Value, json};

use super::*;

fn service(spec: Value, annotations: Value) -> Service {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u1", "annotations": annotations},
        "spec": {"type": "LoadBalancer", "loadBalancerClass": LOAD_BALANCER_CLASS},
    });
    let fields = object["spec"].as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn wish(spec: Value, annotations: Value) -> Wish {
    Wish::of(&service(spec, annotations), false)
        .unwrap()
        .unwrap()
}

fn held(address: &str) -> Held {
    Held {
        address: address.parse().unwrap(),
        sequence: 1,
    }
}

#[test]
fn families_follow_the_service() {
    let of = |spec: Value| -> Vec<Family> {
        let wants = wish(spec, json!({})).wants;
        wants.iter().map(|want| want.family).collect()
    };
    assert_eq!(of(json!({})), [Family::V4]);
    assert_eq!(of(json!({"clusterIP": "fd00::1"})), [Family::V6]);
    assert_eq!(
        of(json!({"ipFamilies": ["IPv6", "IPv4"], "clusterIP": "fd00::1"})),
        [Family::V6, Family::V4]
    );
}

#[test]
fn addresses_and_pools_are_named() {
    let source = |spec: Value, annotations: Value| wish(spec, annotations).wants[0].source.clone();
    let address = |text: &str| Source::Address(text.parse().unwrap());
    let pools = |names: &[&str]| Source::Pools(names.iter().map(ToString::to_string).collect());
    let cases = [
        (json!({}), json!({}), Source::Automatic),
        (
            json!({"loadBalancerIP": "10.9.0.1"}),
            json!({}),
            address("10.9.0.1"),
        ),
        (json!({"loadBalancerIP": ""}), json!({}), Source::Automatic),
        (
            json!({"loadBalancerIP": "10.9.0.1"}),
            json!({"margay.dev/load-balancer-ips": "10.9.0.2"}),
            address("10.9.0.2"),
        ),
        (
            json!({}),
            json!({"projectcalico.org/loadBalancerIPs": "[\"10.9.0.3\"]"}),
            address("10.9.0.3"),
        ),
        (
            json!({}),
            json!({"margay.dev/ipv4-pools": "a, b"}),
            pools(&["a", "b"]),
        ),
        (
            json!({}),
            json!({"projectcalico.org/ipv4pools": "[\"c\"]"}),
            pools(&["c"]),
        ),
    ];
    for (spec, annotations, expected) in cases {
        assert_eq!(
            source(spec.clone(), annotations.clone()),
            expected,
            "{spec} {annotations}"
        );
    }
}

#[test]
fn mistakes_are_named() {
    let cases = [
        (
            json!({"loadBalancerIP": "ten"}),
            json!({}),
            "spec.loadBalancerIP: \"ten\" is not an IP address",
        ),
        (
            json!({}),
            json!({"margay.dev/load-balancer-ips": "10.9.0.1,10.9.0.2"}),
            "names two IPv4 addresses, 10.9.0.1 and 10.9.0.2",
        ),
        (
            json!({"ipFamilies": ["IPv4"]}),
            json!({"margay.dev/load-balancer-ips": "fd00::1"}),
            "names fd00::1, and the Service has no IPv6",
        ),
        (
            json!({}),
            json!({"margay.dev/ipv4-pools": "[broken"}),
            "is not a JSON list of strings",
        ),
        (
            json!({}),
            json!({"margay.dev/ipv4-pools": " , "}),
            "is empty",
        ),
    ];
    for (spec, annotations, words) in cases {
        let error = Wish::of(&service(spec, annotations), false).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let of = |spec: Value| Wish::of(&service(spec, json!({})), false).unwrap();
    assert!(of(json!({"type": "ClusterIP"})).is_none());
    assert!(of(json!({"loadBalancerClass": "other.io/x"})).is_none());
    assert!(of(json!({"loadBalancerClass": null})).is_none());
    let unclassed = service(json!({"loadBalancerClass": null}), json!({}));
    assert!(Wish::of(&unclassed, true).unwrap().is_some());
}

#[test]
fn an_address_stays_until_another_is_asked_for() {
    let both = wish(json!({"ipFamilies": ["IPv4", "IPv6"]}), json!({}));
    let (v4, v6) = (held("10.9.0.1"), held("fd00::1"));
    let change = both.change(&[]);
    assert_eq!((change.wants.len(), change.release.len()), (2, 0));
    let change = both.change(std::slice::from_ref(&v6));
    assert_eq!(change.wants[0].family, Family::V4);
    assert_eq!(both.change(&[v6.clone(), v4.clone()]), Change::default());
    assert_eq!(
        both.ingress(&[v6.clone(), v4.clone()]),
        ["10.9.0.1", "fd00::1"]
    );

    let one = wish(json!({"loadBalancerIP": "10.9.0.7"}), json!({}));
    let change = one.change(&[v4.clone(), v6.clone()]);
    assert_eq!(change.release, [v4, v6]);
    assert_eq!(
        change.wants[0].source,
        Source::Address("10.9.0.7".parse().unwrap())
    );
    assert_eq!(one.change(&[held("10.9.0.7")]), Change::default());
}

//! Pods' links: names, the two phases, and failures.

use super::*;

const KEYS_V4: [&str; 6] = [
    "forwarding",
    "proxy_arp",
    "rp_filter",
    "route_localnet",
    "accept_redirects",
    "send_redirects",
];

fn wiring(node: &Node) -> PodLink {
    let link = PodLink::new(
        "mgy96971f43451",
        "/ns/web",
        "eth0",
        vec![ip("10.1.0.5")],
        1450,
    );
    for key in KEYS_V4 {
        node.write(&format!("net/ipv4/conf/{}/{key}", link.host_interface), "7");
    }
    let delay = format!("net/ipv4/neigh/{}/proxy_delay", link.host_interface);
    node.write(&delay, "80");
    node.kernel.add_namespace("/ns/web");
    link
}

#[test]
fn our_interfaces_are_known_by_their_names() {
    assert!(is_pod_interface("mgy96971f43451"));
    for other in [
        "mgy",
        "mgy0123",
        "mgy0123456789g",
        "eth0",
        "cali0123456789a",
        "margay.vxlan",
    ] {
        assert!(!is_pod_interface(other), "{other}");
    }
    assert!(is_ours("margay.ipip") && !is_ours("tunl0"));
}

#[test]
fn pods_hardware_addresses_are_stable_local_and_unicast() {
    let macs: std::collections::BTreeSet<Mac> = (0..1000)
        .map(|number| pod_link::pod_mac(&format!("mgy{number:011x}")))
        .inspect(|mac| assert!(mac.is_local_unicast(), "{mac}"))
        .collect();
    assert_eq!(macs.len(), 1000);
}

#[test]
fn the_ipv6_gateway_is_the_link_local_address_of_the_host_s_hardware_address() {
    let [a, b, c, d, e, f] = pod_link::HOST_MAC.0;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let derived = std::net::Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        word(a ^ 2, b),
        word(c, 0xff),
        word(0xfe, d),
        word(e, f),
    );
    assert_eq!(derived, pod_link::GATEWAY_V6);
}

#[tokio::test]
async fn the_node_s_end_stays_down_until_activated() {
    let node = Node::new();
    let link = wiring(&node);
    let host = link.host_interface.clone();
    pod_link::create(&node.kernel, &node.tree(), &link)
        .await
        .unwrap();
    let dump = node.kernel.dump();
    assert!(
        dump.contains(&format!("link {host} mtu 1450 down")),
        "{dump}"
    );
    assert!(
        dump.contains("pod /ns/web eth0 addresses [10.1.0.5] via [169.254.1.1]"),
        "{dump}"
    );
    let proxy = format!("net/ipv4/conf/{host}/proxy_arp");
    assert_eq!(node.tree().read(&proxy).unwrap().as_deref(), Some("1"));

    let differences = pod_link::check(&node.kernel, &link).await.unwrap();
    let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(texts, [format!("state of {host} is down, should be up")]);

    pod_link::activate(&node.kernel, &link).await.unwrap();
    pod_link::activate(&node.kernel, &link).await.unwrap();
    assert!(
        pod_link::check(&node.kernel, &link)
            .await
            .unwrap()
            .is_empty()
    );
    let entry = format!("neighbour 10.1.0.5 lladdr {} dev {host}", link.pod_mac);
    assert!(node.kernel.dump().contains(&entry));

    for _ in 0..2 {
        pod_link::remove(&node.kernel, &host).await.unwrap();
    }
    assert!(
        !node.kernel.dump().contains("mgy"),
        "{}",
        node.kernel.dump()
    );
    let differences = pod_link::check(&node.kernel, &link).await.unwrap();
    assert_eq!(differences.len(), 2, "{differences:?}");
}

#[tokio::test]
async fn whatever_fails_nothing_is_left_behind() {
    for (failing, errno) in [
        ("veth add", Errno::EPERM),
        ("pod enter", Errno::EINVAL),
        ("pod configure", Errno::EINVAL),
    ] {
        let node = Node::new();
        let link = wiring(&node);
        node.kernel.fail(failing, errno);
        let error = pod_link::create(&node.kernel, &node.tree(), &link).await;
        assert!(error.is_err(), "{failing}");
        let dump = node.kernel.dump();
        assert!(
            !dump.contains("mgy") && !dump.contains("eth0 addresses"),
            "{dump}"
        );
    }
    // A setting that cannot be written.
    let node = Node::new();
    let link = PodLink::new(
        "mgy0123456789a",
        "/ns/other",
        "eth0",
        vec![ip("10.1.0.5")],
        1450,
    );
    node.kernel.add_namespace("/ns/other");
    let error = pod_link::create(&node.kernel, &node.tree(), &link)
        .await
        .unwrap_err();
    assert!(error.to_string().contains(&link.host_interface), "{error}");
    assert!(!node.kernel.dump().contains("mgy"));
}

#[tokio::test]
async fn only_pods_interfaces_are_removed() {
    let node = Node::new();
    let error = pod_link::remove(&node.kernel, "eth0").await.unwrap_err();
    assert!(
        error.to_string().contains("not a pod's interface"),
        "{error}"
    );
    assert!(node.kernel.dump().contains("link eth0"));
}

//! Every message but UPDATE, as octets and as a value.

use super::*;

const MARKER: &str = "ffffffffffffffff ffffffffffffffff";

fn open(capabilities: Vec<Capability>) -> Open {
    Open {
        asn: Asn(64512),
        hold_time: 90,
        router_id: router_id("10.0.0.1"),
        capabilities,
    }
}

#[test]
fn keepalive() {
    let octets = hex(&format!("{MARKER} 0013 04"));
    same(&octets, &Message::Keepalive, &Context::default());
}

#[test]
fn open_without_parameters() {
    let octets = hex(&format!("{MARKER} 001d 01 04 fc00 005a 0a000001 00"));
    same(&octets, &Message::Open(open(vec![])), &Context::default());
}

#[test]
fn open_with_every_capability() {
    let octets = hex(&format!(
        "{MARKER} 0077 01 04 5ba0 005a 0a000001 5a 02 58
         01 04 0001 00 01
         01 04 0002 00 01
         02 00
         05 06 0001 0001 0002
         06 00
         09 01 03
         40 0a 80b4 0001 01 80 0002 01 00
         41 04 000186a0
         45 08 0001 01 01 0002 01 03
         46 00
         47 0e 0001 01 80 015180 0002 01 00 000001
         49 07 05 6e6f646531 00
         01 04 0019 00 46"
    ));
    let capabilities = vec![
        Capability::Multiprotocol(Family::Ipv4Unicast),
        Capability::Multiprotocol(Family::Ipv6Unicast),
        Capability::RouteRefresh,
        Capability::ExtendedNextHop(vec![ExtendedNextHop {
            family: Family::Ipv4Unicast,
            next_hop_afi: 2,
        }]),
        Capability::ExtendedMessage,
        Capability::Role(Role::Customer),
        Capability::GracefulRestart(GracefulRestart {
            restarting: true,
            notification: false,
            restart_time: 180,
            families: vec![
                GracefulRestartFamily {
                    family: Family::Ipv4Unicast,
                    forwarding: true,
                },
                GracefulRestartFamily {
                    family: Family::Ipv6Unicast,
                    forwarding: false,
                },
            ],
        }),
        Capability::FourOctetAsn(Asn(100_000)),
        Capability::AddPath(vec![
            (Family::Ipv4Unicast, AddPathMode::Receive),
            (Family::Ipv6Unicast, AddPathMode::Both),
        ]),
        Capability::EnhancedRouteRefresh,
        Capability::LongLivedGracefulRestart(vec![
            LongLivedFamily {
                family: Family::Ipv4Unicast,
                forwarding: true,
                stale_time: 86_400,
            },
            LongLivedFamily {
                family: Family::Ipv6Unicast,
                forwarding: false,
                stale_time: 1,
            },
        ]),
        Capability::Unknown {
            code: 73,
            value: hex("056e6f64653100").into(),
        },
        // Multiprotocol for EVPN.
        Capability::Unknown {
            code: 1,
            value: hex("00190046").into(),
        },
    ];
    let message = Message::Open(Open {
        asn: Asn(100_000),
        ..open(capabilities)
    });
    same(&octets, &message, &Context::default());
}

#[test]
fn open_with_a_parameter_for_each_capability() {
    let octets = hex(&format!(
        "{MARKER} 002d 01 04 fc00 005a 0a000001 10  02 02 0200  02 06 4104 0000fc00  02 02 4600"
    ));
    let decoded = decode(&octets, &Context::default()).unwrap();
    let expected = open(vec![
        Capability::RouteRefresh,
        Capability::FourOctetAsn(Asn(64512)),
        Capability::EnhancedRouteRefresh,
    ]);
    assert_eq!(decoded.message, Message::Open(expected));
}

#[test]
fn open_with_the_extended_length() {
    // RFC 9072 §2, once as a router sends it that does so without need.
    let octets = hex(&format!(
        "{MARKER} 0025 01 04 fc00 005a 0a000001 ff ff 0005 02 0002 0200"
    ));
    let decoded = decode(&octets, &Context::default()).unwrap();
    assert_eq!(
        decoded.message,
        Message::Open(open(vec![Capability::RouteRefresh]))
    );
    // And once where there is need.
    let large = Capability::Unknown {
        code: 200,
        value: vec![7; 252].into(),
    };
    let octets = hex(&format!(
        "{MARKER} 0121 01 04 fc00 005a 0a000001 ff ff 0101 02 00fe c8 fc {}",
        "07".repeat(252)
    ));
    same(
        &octets,
        &Message::Open(open(vec![large])),
        &Context::default(),
    );
}

#[test]
fn capability_entries_of_other_families_and_undefined_modes_are_left_out() {
    let octets = hex(&format!(
        "{MARKER} 004a 01 04 fc00 005a 0a000001 2d 02 2b
         40 0a 4078 0019 46 80 0001 01 80
         45 0c 0019 46 03 0001 01 04 0002 01 02
         05 0c 0001 0080 0002 0001 0001 0002
         09 01 07"
    ));
    let decoded = decode(&octets, &Context::default()).unwrap();
    let expected = open(vec![
        Capability::GracefulRestart(GracefulRestart {
            restarting: false,
            notification: true,
            restart_time: 120,
            families: vec![GracefulRestartFamily {
                family: Family::Ipv4Unicast,
                forwarding: true,
            }],
        }),
        Capability::AddPath(vec![(Family::Ipv6Unicast, AddPathMode::Send)]),
        Capability::ExtendedNextHop(vec![ExtendedNextHop {
            family: Family::Ipv4Unicast,
            next_hop_afi: 2,
        }]),
        Capability::Role(Role::Unknown(7)),
    ]);
    assert_eq!(decoded.message, Message::Open(expected));
}

#[test]
fn an_open_that_does_not_fit_is_an_error_and_leaves_nothing() {
    let oversized = Capability::Unknown {
        code: 200,
        value: vec![0; 256].into(),
    };
    let many = vec![
        Capability::Unknown {
            code: 200,
            value: vec![0; 255].into(),
        };
        16
    ];
    let late = Capability::GracefulRestart(GracefulRestart {
        restart_time: 4096,
        ..GracefulRestart::default()
    });
    for capabilities in [vec![oversized], many, vec![late]] {
        let mut out = BytesMut::from(&b"before"[..]);
        let message = Message::Open(open(capabilities));
        assert!(encode(&message, &external(), &mut out).is_err());
        assert_eq!(out, b"before"[..]);
    }
}

#[test]
fn notification() {
    let octets = hex(&format!("{MARKER} 001a 03 06 02 04 62796521"));
    let message = Message::Notification(Notification::administrative_shutdown("bye!"));
    same(&octets, &message, &Context::default());
    assert_eq!(
        Notification::administrative_shutdown("bye!").to_string(),
        "administrative shutdown (6/2): \"bye!\""
    );
}

#[test]
fn notification_data_is_cut_to_the_session_limit() {
    let long = Notification::optional_attribute_error(&[1; 5000]);
    let octets = encoded(&Message::Notification(long), &external());
    assert_eq!(octets.len(), MAX_MESSAGE_LENGTH);
    assert!(decode(&octets, &external()).is_ok());
}

#[test]
fn shutdown_communication_is_bounded_and_made_printable() {
    // Two octets a letter: 255 is inside one.
    let sent = Notification::administrative_reset(&"é".repeat(200));
    assert_eq!(sent.data.len(), 1 + 254);
    assert_eq!(sent.shutdown_communication(), Some("é".repeat(127)));
    for (data, expected) in [
        ("", None),
        ("00", None),
        ("05 6162", None),
        ("02 6162", Some("ab")),
        ("02 6162 63", Some("ab")),
        ("02 c328", None),
        ("04 611b5b6d", Some("a\\u{1b}[m")),
    ] {
        let received = Notification {
            data: hex(data).into(),
            ..Notification::cease(Cease::AdministrativeShutdown)
        };
        assert_eq!(
            received.shutdown_communication().as_deref(),
            expected,
            "{data}"
        );
    }
    let other = Notification {
        data: hex("026162").into(),
        ..Notification::cease(Cease::PeerDeconfigured)
    };
    assert_eq!(other.shutdown_communication(), None);
}

#[test]
fn hard_reset_holds_another_notification() {
    let inner = Notification::administrative_shutdown("bye!");
    let outer = Notification::hard_reset(&inner);
    assert_eq!(outer.data, hex("0602 04 62796521"));
    assert_eq!(outer.hard_reset_inner(), Some(inner));
    assert_eq!(
        outer.to_string(),
        "hard reset (6/9) for administrative shutdown (6/2): \"bye!\""
    );
    assert_eq!(
        Notification::cease(Cease::HardReset).hard_reset_inner(),
        None
    );
}

#[test]
fn every_constructor_has_its_code_and_a_name_of_its_own() {
    let all = [
        (Notification::connection_not_synchronized(), 1, 1, ""),
        (Notification::bad_message_length(4097), 1, 2, "1001"),
        (Notification::bad_message_type(99), 1, 3, "63"),
        (Notification::malformed_open(), 2, 0, ""),
        (Notification::unsupported_version(), 2, 1, "0004"),
        (Notification::bad_peer_as(), 2, 2, ""),
        (Notification::bad_router_id(), 2, 3, ""),
        (Notification::unsupported_optional_parameter(), 2, 4, ""),
        (Notification::unacceptable_hold_time(), 2, 6, ""),
        (Notification::unsupported_capability(&[2, 0]), 2, 7, "0200"),
        (Notification::role_mismatch(), 2, 11, ""),
        (Notification::malformed_attribute_list(), 3, 1, ""),
        (
            Notification::unrecognized_well_known_attribute(&[1]),
            3,
            2,
            "01",
        ),
        (Notification::missing_well_known_attribute(2), 3, 3, "02"),
        (Notification::attribute_flags_error(&[1]), 3, 4, "01"),
        (Notification::attribute_length_error(&[1]), 3, 5, "01"),
        (Notification::invalid_origin(&[1]), 3, 6, "01"),
        (Notification::invalid_next_hop(&[1]), 3, 8, "01"),
        (Notification::optional_attribute_error(&[1]), 3, 9, "01"),
        (Notification::invalid_network_field(), 3, 10, ""),
        (Notification::malformed_as_path(), 3, 11, ""),
        (Notification::hold_timer_expired(), 4, 0, ""),
        (Notification::unexpected_in_open_sent(4), 5, 1, "04"),
        (Notification::unexpected_in_open_confirm(2), 5, 2, "02"),
        (Notification::unexpected_in_established(1), 5, 3, "01"),
        (
            Notification::maximum_prefixes(Family::Ipv6Unicast, 100),
            6,
            1,
            "00020100000064",
        ),
        (Notification::administrative_shutdown(""), 6, 2, "00"),
        (Notification::cease(Cease::PeerDeconfigured), 6, 3, ""),
        (Notification::administrative_reset(""), 6, 4, "00"),
        (Notification::cease(Cease::ConnectionRejected), 6, 5, ""),
        (
            Notification::cease(Cease::OtherConfigurationChange),
            6,
            6,
            "",
        ),
        (Notification::cease(Cease::ConnectionCollision), 6, 7, ""),
        (Notification::cease(Cease::OutOfResources), 6, 8, ""),
        (Notification::cease(Cease::HardReset), 6, 9, ""),
        (Notification::cease(Cease::BfdDown), 6, 10, ""),
        (Notification::invalid_refresh_length(&[]), 7, 1, ""),
        (Notification::send_hold_timer_expired(), 8, 0, ""),
    ];
    let mut names = std::collections::HashSet::new();
    for (notification, code, subcode, data) in all {
        assert_eq!((notification.code, notification.subcode), (code, subcode));
        assert_eq!(notification.data, hex(data), "{notification}");
        assert!(names.insert(notification.name()), "{notification}");
    }
    assert_eq!(Notification::new(99, 0).name(), "unknown error");
}

#[test]
fn route_refresh() {
    for (octets, family, subtype) in [
        ("0001 00 01", Family::Ipv4Unicast, RefreshSubtype::Request),
        ("0002 01 01", Family::Ipv6Unicast, RefreshSubtype::Begin),
        ("0002 02 01", Family::Ipv6Unicast, RefreshSubtype::End),
        (
            "0001 09 01",
            Family::Ipv4Unicast,
            RefreshSubtype::Unknown(9),
        ),
    ] {
        let octets = hex(&format!("{MARKER} 0017 05 {octets}"));
        let message = Message::RouteRefresh(RouteRefresh { family, subtype });
        same(&octets, &message, &Context::default());
    }
}

#[test]
fn route_refresh_for_other_families_is_ignored_and_filters_are_left_unread() {
    let other = hex(&format!("{MARKER} 0017 05 0019 00 46"));
    let decoded = decode(&other, &external()).unwrap();
    assert_eq!(decoded.message, Message::Ignored(MessageType::RouteRefresh));
    let mut out = BytesMut::new();
    assert_eq!(encode(&decoded.message, &external(), &mut out), Ok(0));
    assert!(out.is_empty());
    let filters = hex(&format!("{MARKER} 001e 05 0001 00 01 01 40 0003 010203"));
    let decoded = decode(&filters, &external()).unwrap();
    assert_eq!(
        decoded.message,
        Message::RouteRefresh(RouteRefresh {
            family: Family::Ipv4Unicast,
            subtype: RefreshSubtype::Request,
        })
    );
}

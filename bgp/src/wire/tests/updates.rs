//! Well-formed UPDATE messages as octets and as values.

use super::*;
use crate::types::{Community, ExtendedCommunity, LargeCommunity};

const ORIGIN: &str = "40 01 01 00";

fn update(octets: &[u8], context: &Context) -> Update {
    let decoded = decode(octets, context).unwrap();
    assert_eq!(decoded.verdict, Verdict::Accept);
    match decoded.message {
        Message::Update(update) => update,
        other => panic!("{other:?}"),
    }
}

#[test]
fn announces_ipv4_in_the_fields() {
    let octets = update_of(
        &[],
        &hex(&format!(
            "{ORIGIN} 40 02 0a 02 02 0000fc00 000186a0 40 03 04 0a000001"
        )),
        &hex("08 0a 1a c0000240"),
    );
    let message = Message::Update(Update {
        withdrawn: vec![],
        reach: vec![reach(
            Family::Ipv4Unicast,
            v4("10.0.0.1"),
            &[nlri("10.0.0.0/8"), nlri("192.0.2.64/26")],
        )],
        attributes: PathAttributes {
            as_path: asns(&[64512, 100_000]),
            ..PathAttributes::default()
        },
    });
    same(&octets, &message, &external());
}

#[test]
fn withdraws_ipv4_in_the_fields() {
    let octets = update_of(&hex("08 0a 20 0a000001"), &[], &[]);
    let message = Message::Update(Update {
        withdrawn: vec![nlri("10.0.0.0/8"), nlri("10.0.0.1/32")],
        ..Update::default()
    });
    same(&octets, &message, &external());
}

#[test]
fn announces_and_withdraws_ipv6_in_attributes() {
    let global = "20010db8000000000000000000000001";
    let local = "fe800000000000000000000000000001";
    for (next_hop_octets, next_hop) in [
        (format!("10 {global}"), v6("2001:db8::1")),
        (
            format!("20 {global} {local}"),
            NextHop::V6 {
                global: "2001:db8::1".parse().unwrap(),
                link_local: Some("fe80::1".parse().unwrap()),
            },
        ),
    ] {
        let value = hex(&format!(
            "0002 01 {next_hop_octets} 00 40 fd00000000000001 00"
        ));
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        let mut attributes = hex("90 0e");
        attributes.extend(length);
        attributes.extend(value);
        attributes.extend(hex(&format!("{ORIGIN} 40 02 06 02 01 0000fc00")));
        let message = Message::Update(Update {
            reach: vec![reach(
                Family::Ipv6Unicast,
                next_hop,
                &[nlri("fd00:0:0:1::/64"), nlri("::/0")],
            )],
            attributes: PathAttributes {
                as_path: asns(&[64512]),
                ..PathAttributes::default()
            },
            ..Update::default()
        });
        same(&update_of(&[], &attributes, &[]), &message, &external());
    }
    let octets = update_of(&[], &hex("90 0f 000c 0002 01 40 fd00000000000001"), &[]);
    let message = Message::Update(Update {
        withdrawn: vec![nlri("fd00:0:0:1::/64")],
        ..Update::default()
    });
    same(&octets, &message, &external());
}

#[test]
fn announces_ipv4_with_an_ipv6_next_hop() {
    let context = Context {
        extended_next_hop: true,
        ..external()
    };
    let octets = update_of(
        &[],
        &hex(&format!(
            "90 0e 0017 0001 01 10 fe800000000000000000000000000001 00 08 0a {ORIGIN} 40 02 00"
        )),
        &[],
    );
    let message = Message::Update(Update {
        reach: vec![reach(
            Family::Ipv4Unicast,
            v6("fe80::1"),
            &[nlri("10.0.0.0/8")],
        )],
        ..Update::default()
    });
    same(&octets, &message, &context);
}

#[test]
fn carries_every_attribute() {
    let octets = update_of(
        &[],
        &hex("40 01 01 02
              40 02 0c 01 02 00000001 00000002 00
              40 02 00"),
        &[],
    );
    // A path whose second segment is cut off, in a message without routes: no way to be sure.
    assert!(decode(&octets, &internal()).is_err());

    let octets = update_of(
        &[],
        &hex("40 01 01 02
              40 02 10 01 02 00000001 00000002 02 01 0000fc00
              40 03 04 0a000001
              80 04 04 00000064
              40 05 04 000000c8
              40 06 00
              c0 07 08 000186a0 0a000002
              c0 08 08 fc000064 ffffff01
              80 09 04 0a000003
              80 0a 08 0a000004 0a000005
              e0 0b 01 aa
              c0 10 08 0002fc0000000064
              e0 19 14 0002000000000000000000000000000000000001
              c0 20 0c 0000fc00 00000001 00000002
              c0 23 04 0000fc01
              e0 28 0a 01 0007 00000000000001
              e0 ff 02 bbcc"),
        &hex("08 0a"),
    );
    let unknown = |code, value| UnknownAttribute {
        code,
        value: hex(value).into(),
    };
    let message = Message::Update(Update {
        reach: vec![reach(
            Family::Ipv4Unicast,
            v4("10.0.0.1"),
            &[nlri("10.0.0.0/8")],
        )],
        attributes: PathAttributes {
            origin: Origin::Incomplete,
            as_path: AsPath::new([
                AsSegment::Set(vec![Asn(1), Asn(2)]),
                AsSegment::Sequence(vec![Asn(64512)]),
            ]),
            med: Some(100),
            local_pref: Some(200),
            atomic_aggregate: true,
            aggregator: Some(Aggregator {
                asn: Asn(100_000),
                router_id: router_id("10.0.0.2"),
            }),
            communities: vec![Community::new(64512, 100), Community::NO_EXPORT],
            originator_id: Some(router_id("10.0.0.3")),
            cluster_list: vec![router_id("10.0.0.4"), router_id("10.0.0.5")],
            extended_communities: vec![ExtendedCommunity(0x0002_fc00_0000_0064)],
            large_communities: vec![LargeCommunity {
                global: 64512,
                local1: 1,
                local2: 2,
            }],
            only_to_customer: Some(Asn(64513)),
            unknown: vec![
                unknown(11, "aa"),
                unknown(25, "0002000000000000000000000000000000000001"),
                unknown(40, "01 0007 00000000000001"),
                unknown(255, "bbcc"),
            ],
        },
        ..Update::default()
    });
    same(&octets, &message, &internal());
}

#[test]
fn what_is_internal_stays_inside_the_as() {
    let message = Message::Update(Update {
        reach: vec![reach(
            Family::Ipv4Unicast,
            v4("10.0.0.1"),
            &[nlri("10.0.0.0/8")],
        )],
        attributes: PathAttributes {
            local_pref: Some(1),
            originator_id: Some(RouterId(1)),
            cluster_list: vec![RouterId(1)],
            ..PathAttributes::default()
        },
        ..Update::default()
    });
    let octets = encoded(&message, &external());
    assert_eq!(
        update(&octets, &external()).attributes,
        PathAttributes::default()
    );
}

#[test]
fn unknown_attributes_go_on_marked_partial_unless_non_transitive() {
    let head = format!("{ORIGIN} 40 02 00 40 03 04 0a000001");
    // Non-transitive 26 (AIGP) is dropped, transitive 99 is kept, both without a word.
    let octets = update_of(
        &[],
        &hex(&format!("c0 63 01 07 {head} 80 1a 01 08")),
        &hex("08 0a"),
    );
    let read = update(&octets, &external());
    assert_eq!(read.attributes.unknown.len(), 1);
    let expected = update_of(&[], &hex(&format!("{head} e0 63 01 07")), &hex("08 0a"));
    assert_eq!(encoded(&Message::Update(read), &external()), expected);
}

#[test]
fn add_path_identifiers_are_read_and_written_where_negotiated() {
    let context = Context {
        add_path_receive: FamilySet::ALL,
        add_path_send: FamilySet::ALL,
        ..external()
    };
    let octets = update_of(&hex("00000001 08 0a 00000002 08 0a"), &[], &[]);
    let with_id = |id| Nlri {
        prefix: prefix("10.0.0.0/8"),
        path_id: Some(id),
    };
    let message = Message::Update(Update {
        withdrawn: vec![with_id(1), with_id(2)],
        ..Update::default()
    });
    same(&octets, &message, &context);
    let octets = update_of(&[], &hex("90 0f 0008 0002 01 00000009 00"), &[]);
    let message = Message::Update(Update {
        withdrawn: vec![Nlri {
            prefix: prefix("::/0"),
            path_id: Some(9),
        }],
        ..Update::default()
    });
    same(&octets, &message, &context);
}

#[test]
fn four_octet_numbers_pass_a_two_octet_peer() {
    let context = Context {
        four_octet_asn: false,
        ..external()
    };
    let octets = update_of(
        &[],
        &hex(&format!(
            "{ORIGIN} 40 02 06 02 02 fc00 5ba0 40 03 04 0a000001 c0 07 06 5ba0 0a000002
             c0 11 0a 02 02 0000fc00 000186a0 c0 12 08 000186a0 0a000002"
        )),
        &hex("08 0a"),
    );
    let message = Message::Update(Update {
        reach: vec![reach(
            Family::Ipv4Unicast,
            v4("10.0.0.1"),
            &[nlri("10.0.0.0/8")],
        )],
        attributes: PathAttributes {
            as_path: asns(&[64512, 100_000]),
            aggregator: Some(Aggregator {
                asn: Asn(100_000),
                router_id: router_id("10.0.0.2"),
            }),
            ..PathAttributes::default()
        },
        ..Update::default()
    });
    same(&octets, &message, &context);
}

#[test]
fn end_of_rib_of_both_families() {
    for (octets, family) in [
        (update_of(&[], &[], &[]), Family::Ipv4Unicast),
        (
            update_of(&[], &hex("90 0f 0003 0002 01"), &[]),
            Family::Ipv6Unicast,
        ),
    ] {
        same(&octets, &Message::EndOfRib(family), &external());
    }
    // As others write it: with the short length, and for IPv4 in the attribute.
    for (attributes, family) in [
        ("80 0f 03 0002 01", Family::Ipv6Unicast),
        ("80 0f 03 0001 01", Family::Ipv4Unicast),
    ] {
        let decoded = decode(&update_of(&[], &hex(attributes), &[]), &external()).unwrap();
        assert_eq!(decoded.message, Message::EndOfRib(family));
    }
    // Not one: withdrawals come with it.
    let octets = update_of(&hex("08 0a"), &hex("80 0f 03 0002 01"), &[]);
    assert_eq!(update(&octets, &external()).withdrawn, [nlri("10.0.0.0/8")]);
}

#[test]
fn both_encodings_and_both_directions_in_one_message() {
    let octets = update_of(
        &hex("08 0b"),
        &hex(&format!(
            "{ORIGIN} 40 02 00 40 03 04 0a000001
             80 0e 16 0002 01 10 20010db8000000000000000000000001 00 00
             80 0f 05 0002 01 08 fd"
        )),
        &hex("08 0a"),
    );
    let expected = Update {
        withdrawn: vec![nlri("11.0.0.0/8"), nlri("fd00::/8")],
        reach: vec![
            reach(Family::Ipv4Unicast, v4("10.0.0.1"), &[nlri("10.0.0.0/8")]),
            reach(Family::Ipv6Unicast, v6("2001:db8::1"), &[nlri("::/0")]),
        ],
        attributes: PathAttributes::default(),
    };
    assert_eq!(update(&octets, &external()), expected);
}

#[test]
fn next_hops_as_others_write_them() {
    let global = "20010db8000000000000000000000001";
    let local = "fe800000000000000000000000000001";
    let zero = "00".repeat(16);
    for (octets, expected) in [
        (format!("{global}{zero}"), v6("2001:db8::1")),
        (format!("{global}{global}"), v6("2001:db8::1")),
        (format!("{zero}{local}"), v6("fe80::1")),
        (
            format!("{local}{local}"),
            NextHop::V6 {
                global: "fe80::1".parse().unwrap(),
                link_local: Some("fe80::1".parse().unwrap()),
            },
        ),
    ] {
        let attributes = format!("80 0e 26 0002 01 20 {octets} 00 00 {ORIGIN} 40 02 00");
        let read = update(&update_of(&[], &hex(&attributes), &[]), &external());
        assert_eq!(read.reach[0].next_hop, expected, "{octets}");
    }
}

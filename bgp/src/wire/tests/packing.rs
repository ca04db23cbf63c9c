//! That the encoder fills messages and never exceeds them.

use super::*;

/// Cuts a stream into its messages.
fn messages(mut octets: &[u8], context: &Context) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(length) = frame_length(octets, context).unwrap() {
        let (message, rest) = octets.split_at(length);
        all.push(message.to_vec());
        octets = rest;
    }
    assert!(octets.is_empty());
    all
}

fn routes(family: Family, count: u32) -> Vec<Nlri> {
    let prefix = |i: u32| match family {
        Family::Ipv4Unicast => Prefix::v4((i << 8).into(), 24).unwrap(),
        Family::Ipv6Unicast => Prefix::v6((u128::from(i) << 64).into(), 64).unwrap(),
    };
    (0..count).map(|i| prefix(i).into()).collect()
}

fn attributes() -> PathAttributes {
    PathAttributes {
        as_path: asns(&[64512, 64513]),
        ..PathAttributes::default()
    }
}

#[test]
fn messages_are_packed_full() {
    let long = Context {
        extended_messages: true,
        ..external()
    };
    let with_ids = Context {
        add_path_send: FamilySet::ALL,
        add_path_receive: FamilySet::ALL,
        ..external()
    };
    for (context, each) in [(external(), [4, 9]), (long, [4, 9]), (with_ids, [8, 13])] {
        for (family, next_hop, each) in [
            (Family::Ipv4Unicast, v4("10.0.0.1"), each[0]),
            (Family::Ipv6Unicast, v6("2001:db8::1"), each[1]),
        ] {
            let all = routes(family, 20_000);
            let mut announced = BytesMut::new();
            let stream = all.iter().copied();
            let attributes = attributes();
            let announced_count = encode_reach(
                &attributes,
                family,
                &next_hop,
                stream,
                &context,
                &mut announced,
            );
            let mut withdrawn = BytesMut::new();
            let withdrawn_count =
                encode_withdraw(family, all.iter().copied(), &context, &mut withdrawn);
            for (octets, count) in [(announced, announced_count), (withdrawn, withdrawn_count)] {
                let messages = messages(&octets, &context);
                assert_eq!(Ok(messages.len()), count);
                let limit = context.max_message_length();
                for message in &messages[..messages.len() - 1] {
                    assert!(message.len() <= limit && message.len() > limit - each);
                }
                let mut found = Vec::new();
                for message in &messages {
                    let decoded = decode(message, &context).unwrap();
                    assert_eq!(decoded.verdict, Verdict::Accept);
                    let Message::Update(update) = decoded.message else {
                        panic!("{decoded:?}");
                    };
                    found.extend(update.withdrawn);
                    for reach in update.reach {
                        assert_eq!(update.attributes, attributes);
                        assert_eq!(reach.next_hop, next_hop);
                        found.extend(reach.nlri);
                    }
                }
                assert!(
                    found
                        .iter()
                        .map(|n| n.prefix)
                        .eq(all.iter().map(|n| n.prefix))
                );
            }
        }
    }
}

#[test]
fn no_routes_make_no_message() {
    let mut out = BytesMut::new();
    for family in Family::ALL {
        assert_eq!(encode_withdraw(family, [], &external(), &mut out), Ok(0));
    }
    let next_hop = v4("10.0.0.1");
    let count = encode_reach(
        &attributes(),
        Family::Ipv4Unicast,
        &next_hop,
        [],
        &external(),
        &mut out,
    );
    assert_eq!(count, Ok(0));
    assert!(out.is_empty());
}

/// Attributes that take `length` octets beside their mandatory ones.
fn attributes_of(length: usize) -> PathAttributes {
    PathAttributes {
        unknown: vec![UnknownAttribute {
            code: 200,
            value: vec![1; length - 4].into(),
        }],
        ..PathAttributes::default()
    }
}

#[test]
fn attributes_may_leave_room_for_one_route_but_not_for_none() {
    // 23 for the message, 4 for ORIGIN, 3 for AS_PATH; NEXT_HOP 7 or MP_REACH_NLRI 4 + 21.
    for (family, next_hop, fixed, each) in [
        (Family::Ipv4Unicast, v4("10.0.0.1"), 23 + 7 + 7, 4),
        (Family::Ipv6Unicast, v6("2001:db8::1"), 23 + 7 + 25, 9),
    ] {
        let fits = MAX_MESSAGE_LENGTH - fixed - each;
        for (length, expected) in [
            (fits, Ok(3)),
            (
                fits + 1,
                Err(EncodeError::TooLong {
                    length: MAX_MESSAGE_LENGTH + 1,
                    limit: MAX_MESSAGE_LENGTH,
                }),
            ),
        ] {
            let mut out = BytesMut::from(&b"before"[..]);
            let count = encode_reach(
                &attributes_of(length),
                family,
                &next_hop,
                routes(family, 3),
                &external(),
                &mut out,
            );
            assert_eq!(count, expected);
            let written = out.split_off(6);
            assert_eq!(out, b"before"[..]);
            assert_eq!(messages(&written, &external()).len(), expected.unwrap_or(0));
        }
    }
}

#[test]
fn a_later_route_that_does_not_fit_undoes_all() {
    // Room for /8 but not for /24.
    let length = MAX_MESSAGE_LENGTH - 37 - 2;
    let mut out = BytesMut::new();
    let routes = [nlri("10.0.0.0/8"), nlri("11.0.0.0/8"), nlri("12.0.0.0/24")];
    let result = encode_reach(
        &attributes_of(length),
        Family::Ipv4Unicast,
        &v4("10.0.0.1"),
        routes,
        &external(),
        &mut out,
    );
    assert!(matches!(result, Err(EncodeError::TooLong { .. })));
    assert!(out.is_empty());
}

#[test]
fn what_the_session_cannot_say_is_an_error() {
    let v4_routes = routes(Family::Ipv4Unicast, 1);
    let v6_routes = routes(Family::Ipv6Unicast, 1);
    let next_hop = |family| Err(EncodeError::NextHop { family });
    let mismatch = |family| Err(EncodeError::FamilyMismatch { family });
    let (ipv4, ipv6) = (Family::Ipv4Unicast, Family::Ipv6Unicast);
    for (family, hop, routes, expected) in [
        (ipv6, v4("10.0.0.1"), &v6_routes, next_hop(ipv6)),
        (ipv4, v6("2001:db8::1"), &v4_routes, next_hop(ipv4)),
        (ipv6, v6("2001:db8::1"), &v4_routes, mismatch(ipv6)),
        (ipv4, v4("10.0.0.1"), &v6_routes, mismatch(ipv4)),
    ] {
        let mut out = BytesMut::new();
        let stream = routes.iter().copied();
        let result = encode_reach(&attributes(), family, &hop, stream, &external(), &mut out);
        assert_eq!(result, expected);
        assert!(out.is_empty());
    }
    for code in [1, 2, 14, 17, 35] {
        let attributes = PathAttributes {
            unknown: vec![UnknownAttribute {
                code,
                value: vec![].into(),
            }],
            ..attributes()
        };
        let stream = v4_routes.iter().copied();
        let mut out = BytesMut::new();
        let result = encode_reach(
            &attributes,
            ipv4,
            &v4("10.0.0.1"),
            stream,
            &external(),
            &mut out,
        );
        assert_eq!(result, Err(EncodeError::KnownAttribute { code }));
    }
}

#[test]
fn unknown_attributes_are_written_once_and_in_order() {
    let unknown = |code, value: &'static [u8]| UnknownAttribute {
        code,
        value: bytes::Bytes::from_static(value),
    };
    let attributes = PathAttributes {
        unknown: vec![unknown(99, b"b"), unknown(12, b"a"), unknown(99, b"c")],
        ..PathAttributes::default()
    };
    let mut out = BytesMut::new();
    let route = [nlri("0.0.0.0/0")];
    let family = Family::Ipv4Unicast;
    encode_reach(
        &attributes,
        family,
        &v4("10.0.0.1"),
        route,
        &external(),
        &mut out,
    )
    .unwrap();
    let decoded = decode(&out, &external()).unwrap();
    assert_eq!(decoded.verdict, Verdict::Accept);
    let Message::Update(update) = decoded.message else {
        panic!("{decoded:?}");
    };
    assert_eq!(
        update.attributes.unknown,
        [unknown(12, b"a"), unknown(99, b"b")]
    );
}

#[test]
fn long_paths_are_cut_into_segments_and_joined_again() {
    let numbers: Vec<u32> = (1..=600).collect();
    for four_octet_asn in [true, false] {
        let context = Context {
            four_octet_asn,
            ..external()
        };
        let attributes = PathAttributes {
            as_path: asns(&numbers),
            ..PathAttributes::default()
        };
        let update = Update {
            reach: vec![reach(
                Family::Ipv4Unicast,
                v4("10.0.0.1"),
                &[nlri("0.0.0.0/0")],
            )],
            attributes,
            ..Update::default()
        };
        let message = Message::Update(update);
        let decoded = decode(&encoded(&message, &context), &context).unwrap();
        assert_eq!(decoded.message, message);
    }
}

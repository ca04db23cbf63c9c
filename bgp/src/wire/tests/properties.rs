//! Properties over generated messages: what is written is read back, and nothing that can be
//! received makes the decoder panic, spin or hold more than the message is worth.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::types::{Community, ExtendedCommunity, LargeCommunity};

fn any_family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
}

fn any_context() -> impl Strategy<Value = Context> {
    let families = prop_oneof![
        Just(FamilySet::EMPTY),
        Just(FamilySet::only(Family::Ipv4Unicast)),
        Just(FamilySet::only(Family::Ipv6Unicast)),
        Just(FamilySet::ALL),
    ];
    (any::<[bool; 5]>(), families).prop_map(|(flags, add_path)| Context {
        four_octet_asn: flags[0],
        extended_messages: flags[1],
        session: if flags[2] {
            SessionKind::Internal
        } else {
            SessionKind::External
        },
        families: FamilySet::ALL,
        add_path_receive: add_path,
        add_path_send: add_path,
        extended_next_hop: flags[3],
    })
}

fn any_asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=u32::from(u16::MAX), 1..=u32::MAX].prop_map(Asn)
}

fn any_prefix(family: Family) -> BoxedStrategy<Prefix> {
    match family {
        Family::Ipv4Unicast => (any::<u32>(), 0..=32_u8)
            .prop_map(|(address, length)| Prefix::v4(address.into(), length).unwrap())
            .boxed(),
        Family::Ipv6Unicast => (any::<u128>(), 0..=128_u8)
            .prop_map(|(address, length)| Prefix::v6(address.into(), length).unwrap())
            .boxed(),
    }
}

fn any_routes(family: Family, context: &Context, least: usize) -> BoxedStrategy<Vec<Nlri>> {
    let add_path = context.add_path_send.contains(family);
    let route = (any_prefix(family), any::<u32>()).prop_map(move |(prefix, id)| Nlri {
        prefix,
        path_id: add_path.then_some(id),
    });
    vec(route, least..40).boxed()
}

fn any_next_hop(family: Family, context: &Context) -> BoxedStrategy<NextHop> {
    let v4 = (1..127_u8, any::<[u8; 3]>())
        .prop_map(|(a, [b, c, d])| NextHop::V4([a, b, c, d].into()))
        .boxed();
    // Global unicast or link-local, with and without the second address.
    let first = prop_oneof![Just(0x2001_u16), Just(0xfe80), Just(0xfd00)];
    let v6 = (first, any::<u64>(), any::<Option<u64>>())
        .prop_map(|(first, low, local)| {
            let address =
                |first: u16, low: u64| (u128::from(first) << 112 | u128::from(low)).into();
            NextHop::V6 {
                global: address(first, low),
                link_local: local.map(|low| address(0xfe80, low)),
            }
        })
        .boxed();
    match family {
        Family::Ipv6Unicast => v6,
        Family::Ipv4Unicast if context.extended_next_hop => prop_oneof![v4, v6].boxed(),
        Family::Ipv4Unicast => v4,
    }
}

fn any_as_path() -> impl Strategy<Value = AsPath> {
    // Sequences may exceed one segment; sets longer than one are cut for good.
    let segment = prop_oneof![
        3 => vec(any_asn(), 1..300).prop_map(AsSegment::Sequence),
        1 => vec(any_asn(), 1..20).prop_map(AsSegment::Set),
    ];
    vec(segment, 0..3).prop_map(AsPath::new)
}

fn any_unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let code = prop_oneof![11..=13_u8, 19..=24_u8, 26..=31_u8, 41..=255_u8];
    let value = prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 250..300)];
    proptest::collection::btree_map(code, value, 0..3).prop_map(|all| {
        let attribute = |(code, value): (u8, Vec<u8>)| UnknownAttribute {
            code,
            value: value.into(),
        };
        all.into_iter().map(attribute).collect()
    })
}

fn any_attributes() -> impl Strategy<Value = PathAttributes> {
    let origin = prop_oneof![
        Just(Origin::Igp),
        Just(Origin::Egp),
        Just(Origin::Incomplete)
    ];
    let aggregator = proptest::option::of((any_asn(), any::<u32>()));
    let numbers = (any::<Option<u32>>(), any::<Option<u32>>(), any::<bool>());
    let internal = (any::<Option<u32>>(), vec(any::<u32>(), 0..5));
    let communities = (
        vec(any::<u32>().prop_map(Community), 0..80),
        vec(any::<u64>().prop_map(ExtendedCommunity), 0..5),
        vec(any::<[u32; 3]>(), 0..5),
    );
    let rest = (proptest::option::of(any::<u32>()), any_unknown());
    (
        origin,
        any_as_path(),
        aggregator,
        numbers,
        internal,
        communities,
        rest,
    )
        .prop_map(
            |(origin, as_path, aggregator, numbers, internal, communities, rest)| PathAttributes {
                origin,
                as_path,
                med: numbers.0,
                local_pref: numbers.1,
                atomic_aggregate: numbers.2,
                aggregator: aggregator.map(|(asn, id)| Aggregator {
                    asn,
                    router_id: RouterId(id),
                }),
                communities: communities.0,
                originator_id: internal.0.map(RouterId),
                cluster_list: internal.1.into_iter().map(RouterId).collect(),
                extended_communities: communities.1,
                large_communities: communities
                    .2
                    .into_iter()
                    .map(|[global, local1, local2]| LargeCommunity {
                        global,
                        local1,
                        local2,
                    })
                    .collect(),
                only_to_customer: rest.0.map(Asn),
                unknown: rest.1,
            },
        )
}

fn any_capability() -> impl Strategy<Value = Capability> {
    let modes = prop_oneof![
        Just(AddPathMode::Receive),
        Just(AddPathMode::Send),
        Just(AddPathMode::Both)
    ];
    let restart_families = vec((any_family(), any::<bool>()), 0..4);
    let long_lived = vec((any_family(), any::<bool>(), 0..1_u32 << 24), 0..4);
    prop_oneof![
        any_family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        vec((any_family(), any::<u16>()), 0..4).prop_map(|all| {
            let entry = |(family, next_hop_afi)| ExtendedNextHop {
                family,
                next_hop_afi,
            };
            Capability::ExtendedNextHop(all.into_iter().map(entry).collect())
        }),
        Just(Capability::ExtendedMessage),
        (5..=255_u8).prop_map(|code| Capability::Role(Role::Unknown(code))),
        Just(Capability::Role(Role::RouteServerClient)),
        (any::<bool>(), any::<bool>(), 0..4096_u16, restart_families).prop_map(
            |(restarting, notification, restart_time, families)| {
                let family = |(family, forwarding)| GracefulRestartFamily { family, forwarding };
                Capability::GracefulRestart(GracefulRestart {
                    restarting,
                    notification,
                    restart_time,
                    families: families.into_iter().map(family).collect(),
                })
            }
        ),
        vec((any_family(), modes), 0..4).prop_map(Capability::AddPath),
        Just(Capability::EnhancedRouteRefresh),
        long_lived.prop_map(|all| {
            let entry = |(family, forwarding, stale_time)| LongLivedFamily {
                family,
                forwarding,
                stale_time,
            };
            Capability::LongLivedGracefulRestart(all.into_iter().map(entry).collect())
        }),
        (72..=255_u8, vec(any::<u8>(), 0..=255)).prop_map(|(code, value)| Capability::Unknown {
            code,
            value: value.into(),
        }),
    ]
}

fn any_open() -> impl Strategy<Value = Open> {
    let hold_time = prop_oneof![Just(0_u16), 3..=u16::MAX];
    let capabilities = vec(any_capability(), 0..12);
    (
        any_asn(),
        hold_time,
        1..=u32::MAX,
        capabilities,
        0..12_usize,
    )
        .prop_map(|(asn, hold_time, router_id, mut capabilities, position)| {
            if !asn.fits_two_octets() {
                let position = position.min(capabilities.len());
                capabilities.insert(position, Capability::FourOctetAsn(asn));
            }
            Open {
                asn,
                hold_time,
                router_id: RouterId(router_id),
                capabilities,
            }
        })
}

/// Every message but UPDATE.
fn any_plain_message() -> impl Strategy<Value = Message> {
    let subtype = prop_oneof![
        Just(RefreshSubtype::Request),
        Just(RefreshSubtype::Begin),
        Just(RefreshSubtype::End),
        (3..=255_u8).prop_map(RefreshSubtype::Unknown),
    ];
    let notification = (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..300));
    prop_oneof![
        any_open().prop_map(Message::Open),
        Just(Message::Keepalive),
        any_family().prop_map(Message::EndOfRib),
        notification.prop_map(|(code, subcode, data)| {
            Message::Notification(Notification {
                code,
                subcode,
                data: data.into(),
            })
        }),
        (any_family(), subtype)
            .prop_map(|(family, subtype)| Message::RouteRefresh(RouteRefresh { family, subtype })),
    ]
}

/// A context and an UPDATE that it can carry.
fn any_update() -> impl Strategy<Value = (Context, Update)> {
    any_context().prop_flat_map(|context| {
        let withdrawn = Family::ALL.map(|family| any_routes(family, &context, 0));
        let reach = any_family().prop_flat_map(move |family| {
            (
                any_next_hop(family, &context),
                any_routes(family, &context, 1),
            )
                .prop_map(move |(next_hop, nlri)| Reach {
                    family,
                    next_hop,
                    nlri,
                })
        });
        (withdrawn, vec(reach, 0..3), any_attributes()).prop_map(
            move |([mut withdrawn, more], reach, mut attributes)| {
                withdrawn.extend(more);
                if context.session == SessionKind::External {
                    attributes.local_pref = None;
                    attributes.originator_id = None;
                    attributes.cluster_list.clear();
                }
                let update = Update {
                    withdrawn,
                    reach,
                    attributes,
                };
                (context, update)
            },
        )
    })
}

/// Reads every message of a stream.
fn decode_all(mut octets: &[u8], context: &Context) -> Vec<Decoded> {
    let mut all = Vec::new();
    while let Some(length) = frame_length(octets, context).unwrap() {
        let (message, rest) = octets.split_at(length);
        all.push(decode(message, context).unwrap());
        octets = rest;
    }
    all
}

/// What a receiver knows after an UPDATE: withdrawals, and each announcement on its own.
type Effect = (Vec<Nlri>, Vec<(Family, NextHop, Nlri, PathAttributes)>);

fn effect<'a>(updates: impl IntoIterator<Item = &'a Update>) -> Effect {
    let mut effect: Effect = Default::default();
    for update in updates {
        effect.0.extend(&update.withdrawn);
        for reach in &update.reach {
            let one = |nlri: &Nlri| {
                let attributes = update.attributes.clone();
                (reach.family, reach.next_hop, *nlri, attributes)
            };
            effect.1.extend(reach.nlri.iter().map(one));
        }
    }
    effect
}

/// What must hold for any octets of one message.
fn survives(octets: &[u8], context: &Context) -> Result<(), TestCaseError> {
    let Ok(decoded) = decode(octets, context) else {
        return Ok(());
    };
    if let Message::Update(update) = &decoded.message {
        let routes =
            update.withdrawn.len() + update.reach.iter().map(|r| r.nlri.len()).sum::<usize>();
        prop_assert!(routes <= octets.len());
        if matches!(decoded.verdict, Verdict::TreatAsWithdraw(_)) {
            prop_assert!(update.reach.is_empty());
        }
    }
    if let Message::Notification(notification) = &decoded.message {
        let _ = notification.to_string();
    }
    // What was accepted can be passed on, and means the same then.
    let mut out = BytesMut::new();
    if encode(&decoded.message, context, &mut out).is_err() {
        return Ok(());
    }
    for message in decode_all(&out, context) {
        prop_assert_eq!(message.verdict, Verdict::Accept);
    }
    if let Message::Update(update) = &decoded.message {
        let again = decode_all(&out, context);
        let again = again.iter().filter_map(|decoded| match &decoded.message {
            Message::Update(update) => Some(update),
            _ => None,
        });
        let (mut withdrawn, announced) = effect(again);
        let (mut expected, expected_announced) = effect([update]);
        // Families are withdrawn one after the other.
        withdrawn.sort();
        expected.sort();
        prop_assert_eq!(withdrawn, expected);
        prop_assert_eq!(announced, expected_announced);
    }
    Ok(())
}

/// An attribute: mostly with flags and a length that may be right, or the search never gets past
/// the first one.
fn any_attribute() -> impl Strategy<Value = Vec<u8>> {
    let flags = prop_oneof![Just(0x40), Just(0x80), Just(0xc0), any::<u8>()];
    let lie = prop_oneof![9 => Just(0_i16), 1 => -3..=3_i16];
    (flags, 0..45_u8, vec(any::<u8>(), 0..40), lie).prop_map(|(flags, code, value, lie)| {
        let length = (i16::try_from(value.len()).unwrap() + lie).max(0);
        let mut octets = Vec::from([flags & !0x10, code, u8::try_from(length).unwrap()]);
        octets.extend(value);
        octets
    })
}

/// A message with its length set to what it is after a change.
fn repaired(mut octets: Vec<u8>) -> Vec<u8> {
    octets.truncate(MAX_MESSAGE_LENGTH);
    let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
    octets[16..18].copy_from_slice(&length);
    octets
}

proptest! {
    #[test]
    fn plain_messages_survive_a_round_trip(message in any_plain_message(), context in any_context()) {
        let decoded = decode(&encoded(&message, &context), &context).unwrap();
        prop_assert_eq!(decoded.message, message);
        prop_assert_eq!(decoded.verdict, Verdict::Accept);
    }

    #[test]
    fn updates_survive_a_round_trip((context, update) in any_update()) {
        let mut out = BytesMut::new();
        // Attributes as large as generated here may exceed a message; that is an error, no more.
        match encode(&Message::Update(update.clone()), &context, &mut out) {
            Err(EncodeError::TooLong { .. }) => prop_assert!(out.is_empty()),
            Err(error) => prop_assert!(false, "{}", error),
            Ok(count) => {
                let decoded = decode_all(&out, &context);
                prop_assert_eq!(decoded.len(), count);
                let mut updates = Vec::new();
                for decoded in decoded {
                    prop_assert_eq!(&decoded.verdict, &Verdict::Accept);
                    match decoded.message {
                        Message::Update(update) => updates.push(update),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                prop_assert_eq!(effect(&updates), effect([&update]));
            }
        }
    }

    #[test]
    fn any_octets_are_survived(octets in vec(any::<u8>(), 0..200), context in any_context()) {
        let _ = frame_length(&octets, &context);
        survives(&octets, &context)?;
    }

    #[test]
    fn any_body_is_survived(
        kind in 1..=5_u8,
        body in vec(any::<u8>(), 0..300),
        context in any_context(),
    ) {
        let octets = framed(MessageType::from_code(kind).unwrap(), &body);
        survives(&octets, &context)?;
    }

    #[test]
    fn any_attributes_are_survived(
        attributes in vec(any_attribute(), 0..6),
        nlri in vec(any::<u8>(), 0..6),
        context in any_context(),
    ) {
        survives(&update_of(&[], &attributes.concat(), &nlri), &context)?;
    }

    #[test]
    fn damaged_messages_are_survived(
        (context, update) in any_update(),
        open in any_open(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        for message in [Message::Update(update), Message::Open(open)] {
            let mut out = BytesMut::new();
            if encode(&message, &context, &mut out).is_err() || out.is_empty() {
                continue;
            }
            let length = frame_length(&out, &context).unwrap().unwrap();
            let mut octets = out[..length].to_vec();
            for (position, octet) in &damage {
                let position = HEADER_LENGTH + position.index(octets.len() - HEADER_LENGTH);
                octets[position] = *octet;
            }
            if let Some(cut) = cut {
                octets.truncate(23.max(cut.index(octets.len())));
            }
            survives(&repaired(octets), &context)?;
        }
    }
}

//! UPDATE messages that are wrong, each with the reaction that RFC 7606 asks for. The incidents
//! that other routers had with such messages are named where one is known.

use super::*;

/// The reaction to a message, in short.
#[derive(Debug, PartialEq, Eq)]
enum Reaction {
    Accept,
    /// The codes of the attributes left out.
    Discard(Vec<u8>),
    /// The codes of the attributes at fault, discarded ones included.
    Withdraw(Vec<u8>),
    Reset(u8, u8),
}

use Reaction::{Accept, Discard, Reset, Withdraw};

fn reaction(octets: &[u8], context: &Context) -> (Reaction, Update) {
    let codes = |faults: &[AttributeFault]| faults.iter().map(|fault| fault.code).collect();
    match decode(octets, context) {
        Err(n) => (Reset(n.code, n.subcode), Update::default()),
        Ok(Decoded { message, verdict }) => {
            let Message::Update(update) = message else {
                panic!("{message:?}");
            };
            let reaction = match &verdict {
                Verdict::Accept => Accept,
                Verdict::DiscardedAttributes(faults) => Discard(codes(faults)),
                Verdict::TreatAsWithdraw(faults) => Withdraw(codes(faults)),
            };
            for fault in verdict.faults() {
                assert!(!fault.to_string().is_empty());
            }
            (reaction, update)
        }
    }
}

const ORIGIN: &str = "40 01 01 00";
const AS_PATH: &str = "40 02 06 02 01 0000fc00";
const NEXT_HOP: &str = "40 03 04 0a000001";

/// Everything mandatory for an IPv4 route.
fn mandatory() -> String {
    format!("{ORIGIN} {AS_PATH} {NEXT_HOP}")
}

/// A route in the NLRI field, with these attributes.
fn with_route(attributes: &str) -> Vec<u8> {
    update_of(&[], &hex(attributes), &hex("08 0a"))
}

/// Checks a table of attributes sent with one IPv4 route, and what has become of the route.
#[track_caller]
fn check(context: &Context, table: Vec<(String, Reaction)>) {
    for (attributes, expected) in table {
        let (reaction, update) = reaction(&with_route(&attributes), context);
        assert_eq!(reaction, expected, "{attributes}");
        let announced: Vec<_> = update.reach.iter().flat_map(|r| &r.nlri).copied().collect();
        let route = vec![nlri("10.0.0.0/8")];
        match reaction {
            Accept | Discard(_) => {
                assert_eq!(announced, route, "{attributes}");
                assert!(update.withdrawn.is_empty(), "{attributes}");
            }
            Withdraw(_) => {
                assert!(announced.is_empty(), "{attributes}");
                assert_eq!(update.withdrawn, route, "{attributes}");
                assert_eq!(update.attributes, PathAttributes::default());
            }
            Reset(..) => {}
        }
    }
}

#[test]
fn mandatory_attributes() {
    check(
        &external(),
        vec![
            (mandatory(), Accept),
            // CVE-2023-46753: none of them, once with an unknown attribute; CVE-2023-41358.
            (String::new(), Withdraw(vec![1, 2, 3])),
            ("c0 1f 01 00".into(), Withdraw(vec![1, 2, 3])),
            (format!("{AS_PATH} {NEXT_HOP}"), Withdraw(vec![1])),
            (format!("{ORIGIN} {NEXT_HOP}"), Withdraw(vec![2])),
            (format!("{ORIGIN} {AS_PATH}"), Withdraw(vec![3])),
            // In another order.
            (format!("{NEXT_HOP} {AS_PATH} {ORIGIN}"), Accept),
            // Longer length fields than needed.
            (
                "50 01 0001 00 50 02 0006 02 01 0000fc00 50 03 0004 0a000001".into(),
                Accept,
            ),
        ],
    );
}

#[test]
fn flags_that_conflict_with_the_type() {
    let mut table = Vec::new();
    // Optional and transitive, each alone and both, as they must not be.
    for (code, length, wrong) in [
        (1, 1, [0x00, 0x80, 0xc0]),
        (2, 0, [0x00, 0x80, 0xc0]),
        (3, 4, [0x00, 0x80, 0xc0]),
        (4, 4, [0x00, 0x40, 0xc0]),
        (5, 4, [0x00, 0x80, 0xc0]),
        (6, 0, [0x00, 0x80, 0xc0]),
        (7, 8, [0x00, 0x40, 0x80]),
        (8, 4, [0x00, 0x40, 0x80]),
        (9, 4, [0x00, 0x40, 0xc0]),
        (10, 4, [0x00, 0x40, 0xc0]),
        (16, 8, [0x00, 0x40, 0x80]),
        (17, 0, [0x00, 0x40, 0x80]),
        (18, 8, [0x00, 0x40, 0x80]),
        (25, 20, [0x00, 0x40, 0x80]),
        (32, 12, [0x00, 0x40, 0x80]),
        (35, 4, [0x00, 0x40, 0x80]),
        (40, 10, [0x00, 0x40, 0x80]),
    ] {
        let rest: String = [(1, ORIGIN), (2, AS_PATH), (3, NEXT_HOP)]
            .iter()
            .filter(|(other, _)| *other != code)
            .map(|(_, text)| *text)
            .collect();
        for flags in wrong {
            let attribute = format!(
                "{flags:02x} {code:02x} {length:02x} {}",
                "01".repeat(length)
            );
            table.push((format!("{rest} {attribute}"), Withdraw(vec![code])));
        }
    }
    // The Partial bit, the unused bits and a needless extended length do no harm.
    let head = mandatory();
    for attribute in [
        "ef 08 04 00000001",
        "f0 08 0004 00000001",
        "a0 04 04 00000001",
        "60 06 00",
    ] {
        table.push((format!("{head} {attribute}"), Accept));
    }
    check(&internal(), table);
}

#[test]
fn values_and_lengths_of_mandatory_attributes() {
    let rest = format!("{AS_PATH} {NEXT_HOP}");
    let mut table: Vec<_> = ["40 01 00", "40 01 02 0000", "40 01 01 03", "40 01 01 ff"]
        .map(|origin| (format!("{origin} {rest}"), Withdraw(vec![1])))
        .into();
    let rest = format!("{ORIGIN} {NEXT_HOP}");
    for path in [
        // Undefined segment types.
        "00 01 0000fc00",
        "05 01 0000fc00",
        // Cut off in the header, in the numbers; empty segments; octets to spare.
        "02",
        "02 02 0000fc00",
        "02 01 0000fc",
        "02 ff 0000fc00",
        "02 00",
        "02 01 0000fc00 02 00",
        "02 01 0000fc00 00",
        // AS 0 (RFC 7607).
        "02 02 0000fc00 00000000",
        "01 01 00000000",
        // Confederation segments from outside one.
        "03 01 0000fc00",
        "04 01 0000fc00 02 01 0000fc00",
    ] {
        let path = hex(path);
        let attribute: String = path.iter().map(|octet| format!("{octet:02x}")).collect();
        let attribute = format!("40 02 {:02x} {attribute}", path.len());
        table.push((format!("{attribute} {rest}"), Withdraw(vec![2])));
    }
    let rest = format!("{ORIGIN} {AS_PATH}");
    // CVE-2026-30405 for the short ones.
    for next_hop in [
        "00",
        "03 0a0000",
        "05 0a00000100",
        "10 20010db8000000000000000000000001",
        "04 00000000",
        "04 00000001",
        "04 e0000001",
        "04 f0000001",
        "04 ffffffff",
    ] {
        table.push((format!("{rest} 40 03 {next_hop}"), Withdraw(vec![3])));
    }
    // Loopback: whether that is an address to send to depends on where the session runs.
    table.push((format!("{rest} 40 03 04 7f000001"), Accept));
    check(&external(), table);
}

#[test]
fn as_paths_that_are_only_unusual() {
    // More than 255 ASes, in two segments.
    let long = format!(
        "{ORIGIN} {NEXT_HOP} 50 02 0408 02ff {} 0201 0000fc00 ",
        "0000fc00".repeat(255)
    );
    let long = long.replace("0408", &format!("{:04x}", 2 + 255 * 4 + 6));
    let set = format!("{ORIGIN} {NEXT_HOP} 40 02 06 01 01 0000fc00");
    let empty = format!("{ORIGIN} {NEXT_HOP} 40 02 00");
    check(
        &external(),
        vec![(long, Accept), (set, Accept), (empty, Accept)],
    );
}

#[test]
fn other_attributes_of_a_wrong_length() {
    let head = mandatory();
    let mut table = Vec::new();
    for (flags, code, wrong, expected) in [
        (0x80, 4, &[0_usize, 3, 5][..], Withdraw(vec![4])),
        (0x40, 5, &[0, 3, 5], Withdraw(vec![5])),
        (0x40, 6, &[1, 4], Discard(vec![6])),
        // Six octets would be right from a two-octet peer.
        (0xc0, 7, &[0, 6, 7, 9], Discard(vec![7])),
        (0xc0, 8, &[0, 1, 3, 5, 7], Withdraw(vec![8])),
        (0x80, 9, &[0, 3, 5, 8], Withdraw(vec![9])),
        (0x80, 10, &[0, 3, 5], Withdraw(vec![10])),
        (0xc0, 16, &[0, 4, 7, 9, 12], Withdraw(vec![16])),
        // CVE-2026-37461.
        (0xc0, 25, &[0, 8, 19, 21], Withdraw(vec![25])),
        (0xc0, 32, &[0, 4, 11, 13], Withdraw(vec![32])),
        (0xc0, 35, &[0, 3, 5], Withdraw(vec![35])),
        // CVE-2023-31490, CVE-2024-31948.
        (0xc0, 40, &[0, 1, 2, 5, 10], Discard(vec![40])),
    ] {
        for length in wrong {
            let value = "01".repeat(*length);
            let attribute = format!("{flags:02x} {code:02x} {length:02x} {value}");
            let expected = match &expected {
                Discard(codes) => Discard(codes.clone()),
                _ => Withdraw(vec![code]),
            };
            table.push((format!("{head} {attribute}"), expected));
        }
    }
    check(&internal(), table);
}

#[test]
fn values_that_are_wrong() {
    let head = mandatory();
    check(
        &internal(),
        vec![
            (
                format!("{head} c0 07 08 00000000 0a000001"),
                Discard(vec![7]),
            ),
            // A label index of a wrong length inside a well-formed list.
            (
                format!("{head} c0 28 09 01 0006 000000000000"),
                Discard(vec![40]),
            ),
            (format!("{head} c0 28 03 63 0000"), Accept),
        ],
    );
}

#[test]
fn what_an_external_peer_may_not_send_is_left_out() {
    let head = mandatory();
    check(
        &external(),
        vec![
            (format!("{head} 40 05 04 00000001"), Discard(vec![5])),
            (format!("{head} 40 05 01 00"), Discard(vec![5])),
            (format!("{head} 80 09 04 00000001"), Discard(vec![9])),
            (format!("{head} 80 09 01 00"), Discard(vec![9])),
            (format!("{head} 80 0a 04 00000001"), Discard(vec![10])),
            (format!("{head} 80 0a 01 00"), Discard(vec![10])),
            // The Prefix-SID incidents of 2025.
            (
                format!("{head} c0 28 0a 01 0007 00000000000001"),
                Discard(vec![40]),
            ),
            (format!("{head} c0 28 01 00"), Discard(vec![40])),
        ],
    );
}

#[test]
fn attributes_we_do_not_know() {
    let head = mandatory();
    check(
        &external(),
        vec![
            // 2010's attribute 99, 128 (VU#347067), tunnel encapsulation (CVE-2023-38802,
            // CVE-2024-44070), 255 (CVE-2019-5892): carried, whatever is in them.
            (format!("{head} c0 63 04 deadbeef"), Accept),
            (format!("{head} e0 80 01 00"), Accept),
            (format!("{head} c0 17 04 00ffffff"), Accept),
            (format!("{head} c0 ff 00"), Accept),
            // Not transitive, malformed AIGP (CVE-2023-41359) among them: dropped.
            (format!("{head} 80 1a 01 ff"), Accept),
            (format!("{head} 80 00 00"), Accept),
            // Marked well-known (CVE-2026-41642).
            (format!("{head} 40 63 01 00"), Reset(3, 2)),
            (format!("{head} 00 63 01 00"), Reset(3, 2)),
            (format!("40 00 00 {head}"), Reset(3, 2)),
        ],
    );
}

#[test]
fn repeated_attributes() {
    let head = mandatory();
    check(
        &internal(),
        vec![
            (format!("{head} 40 01 01 02"), Discard(vec![1])),
            (format!("{head} 40 01 01 ff"), Discard(vec![1])),
            (format!("{head} c0 63 00 c0 63 00"), Discard(vec![99])),
            (format!("{head} 80 1a 00 80 1a 00"), Discard(vec![26])),
            (
                format!("{head} 80 0f 04 0002 01 00 80 0f 04 0002 01 00"),
                Reset(3, 1),
            ),
            (
                format!("{head} 80 0e 05 0019 46 00 00 80 0e 05 0019 46 00 00"),
                Reset(3, 1),
            ),
        ],
    );
    let (_, update) = reaction(&with_route(&format!("{head} 40 01 01 02")), &external());
    assert_eq!(update.attributes.origin, Origin::Igp);
}

#[test]
fn attributes_that_run_over_the_end() {
    let head = mandatory();
    check(
        &external(),
        vec![
            (format!("{head} c0"), Withdraw(vec![0])),
            (format!("{head} c0 08"), Withdraw(vec![8])),
            (format!("{head} d0 08 00"), Withdraw(vec![8])),
            (format!("{head} c0 08 04"), Withdraw(vec![8])),
            (format!("{head} c0 08 04 000000"), Withdraw(vec![8])),
            (format!("{head} d0 08 ffff 00000001"), Withdraw(vec![8])),
            (
                format!("{ORIGIN} {AS_PATH} 40 03 ff 0a000001"),
                Withdraw(vec![3]),
            ),
            // The attributes before it are lost just as much when it is the first.
            (format!("40 ff ff {head}"), Withdraw(vec![255, 1, 2, 3])),
            // Routes are lost: no way to withdraw them.
            (format!("{head} 80 0e ff 0002 01"), Reset(3, 9)),
            (format!("{head} 90 0f ffff"), Reset(3, 9)),
        ],
    );
}

#[test]
fn parts_that_do_not_add_up() {
    for (body, expected) in [
        // Lengths beyond the message (CVE-2026-37462 for the underflow).
        ("0001 0000", Reset(3, 1)),
        ("ffff 0000", Reset(3, 1)),
        ("0000 0001", Reset(3, 1)),
        ("0000 ffff", Reset(3, 1)),
        ("0002 0000 00", Reset(3, 1)),
        ("0003 00 00 00 00", Reset(3, 1)),
        // Prefixes too long or cut off.
        ("0002 21 0a 0000", Reset(3, 10)),
        ("0001 08 0000", Reset(3, 10)),
        ("0000 0000 21 0a000000 00", Reset(3, 10)),
        ("0000 0000 18 0a00", Reset(3, 10)),
        ("0000 0000 08", Reset(3, 10)),
    ] {
        let octets = framed(MessageType::Update, &hex(body));
        assert_eq!(reaction(&octets, &external()).0, expected, "{body}");
    }
}

#[test]
fn errors_without_any_route_announced_end_the_session() {
    // RFC 7606 §5.2. CVE-2023-47234 and 47235 are near to these.
    for (withdrawn, attributes, expected) in [
        ("", "40 01 01 ff", Reset(3, 6)),
        ("", "40 01 02 0000", Reset(3, 5)),
        ("", "80 01 01 00", Reset(3, 4)),
        ("", "40 02 01 00", Reset(3, 11)),
        ("", "40 03 04 00000000", Reset(3, 8)),
        ("", "c0 08 03 000000", Reset(3, 5)),
        ("", "c0 08", Reset(3, 5)),
        ("08 0a", "40 01 01 ff", Reset(3, 6)),
        ("", "80 0f 04 0002 01 00 40 01 01 ff", Reset(3, 6)),
        // Errors that only leave attributes out do not.
        ("", "40 05 04 00000000", Discard(vec![5])),
        ("08 0a", "40 06 01 00", Discard(vec![6])),
        // And without any error, attributes that belong to nothing are nothing.
        ("", "40 01 01 00", Accept),
        ("", "c0 63 00", Accept),
        // Wrong flags on what only withdraws.
        ("", "c0 0f 04 0002 01 00", Withdraw(vec![15])),
        ("", "40 0f 03 0002 01", Withdraw(vec![15])),
    ] {
        let octets = update_of(&hex(withdrawn), &hex(attributes), &[]);
        assert_eq!(reaction(&octets, &external()).0, expected, "{attributes}");
    }
}

#[test]
fn multiprotocol_attributes() {
    let global = "20010db8000000000000000000000001";
    let rest = format!("{ORIGIN} {AS_PATH}");
    let reach = |next_hop: &str, nlri: &str| {
        let value = hex(&format!("0002 01 {next_hop} 00 {nlri}"));
        let text: String = value.iter().map(|octet| format!("{octet:02x}")).collect();
        format!("80 0e {:02x} {text}", value.len())
    };
    let good = reach(&format!("10 {global}"), "08 fd");
    for (attributes, expected) in [
        (format!("{good} {rest}"), Accept),
        (format!("{rest} {good}"), Accept),
        // NEXT_HOP beside it does not matter (RFC 4760 §3).
        (format!("{good} {rest} 40 03 04 00000000"), Accept),
        (format!("{good} {rest} 40 03 01 00"), Accept),
        (good.clone(), Withdraw(vec![1, 2])),
        (format!("{good} 40 01 01 ff {AS_PATH}"), Withdraw(vec![1])),
        (format!("{good} {rest} c0 08 01 00"), Withdraw(vec![8])),
        (format!("c0{} {rest}", &good[2..]), Withdraw(vec![14])),
        // Next hops that are no router's.
        (
            format!(
                "{} {rest}",
                reach(&format!("10 {}", "00".repeat(16)), "08 fd")
            ),
            Withdraw(vec![14]),
        ),
        (
            format!(
                "{} {rest}",
                reach(&format!("10 {}01", "00".repeat(15)), "08 fd")
            ),
            // Loopback: that is for whoever knows where the session runs.
            Accept,
        ),
        (
            format!(
                "{} {rest}",
                reach(&format!("10 ff{}", "00".repeat(15)), "08 fd")
            ),
            Withdraw(vec![14]),
        ),
        // Next hops of a length that hides where the routes start.
        (format!("{} {rest}", reach("00", "08 fd")), Reset(3, 9)),
        (
            format!("{} {rest}", reach("04 0a000001", "08 fd")),
            Reset(3, 9),
        ),
        (
            format!(
                "{} {rest}",
                reach(&format!("18 {global} {}", "00".repeat(8)), "08 fd")
            ),
            Reset(3, 9),
        ),
        (
            format!(
                "{} {rest}",
                reach(&format!("30 {global}{global}{global}"), "08 fd")
            ),
            Reset(3, 9),
        ),
        (
            format!("{} {rest}", reach(&format!("ff {global}"), "08 fd")),
            Reset(3, 9),
        ),
        // Cut off (CVE-2023-46752), and prefixes that are wrong.
        (format!("80 0e 00 {rest}"), Reset(3, 9)),
        (format!("80 0e 04 0002 01 00 {rest}"), Reset(3, 9)),
        (format!("80 0e 14 0002 01 10 {global} {rest}"), Reset(3, 9)),
        (
            format!("{} {rest}", reach(&format!("10 {global}"), "81 fd")),
            Reset(3, 9),
        ),
        (
            format!("{} {rest}", reach(&format!("10 {global}"), "10 fd")),
            Reset(3, 9),
        ),
        ("80 0f 00".into(), Reset(3, 9)),
        ("80 0f 02 0002".into(), Reset(3, 9)),
        ("80 0f 04 0002 01 81".into(), Reset(3, 9)),
        // An IPv6 next hop for IPv4 that was not negotiated: the routes are told, but useless.
        (
            format!("80 0e 17 0001 01 10 {global} 00 08 0a {rest}"),
            Withdraw(vec![14]),
        ),
        // IPv4 in the attribute is as good as in the fields.
        (
            format!("80 0e 0b 0001 01 04 0a000001 00 08 0a {rest}"),
            Accept,
        ),
        // Families that were not negotiated: skipped, whatever is in them.
        (
            format!("80 0e 06 0019 46 01 00 00 {rest}"),
            Discard(vec![14]),
        ),
        (
            format!("80 0e 08 0001 80 00 00 ffffff {rest}"),
            Discard(vec![14]),
        ),
        ("80 0f 06 0019 46 ffffff".into(), Discard(vec![15])),
        (
            "80 0e 05 0019 46 00 00 40 01 01 ff".into(),
            Withdraw(vec![14, 1]),
        ),
    ] {
        let octets = update_of(&[], &hex(&attributes), &[]);
        assert_eq!(reaction(&octets, &external()).0, expected, "{attributes}");
    }
}

#[test]
fn treat_as_withdraw_covers_every_route_of_the_message() {
    let attributes = format!(
        "{} 80 0e 16 0002 01 10 20010db8000000000000000000000001 00 00 80 0f 05 0002 01 08 fd
         c0 08 01 00",
        mandatory()
    );
    let octets = update_of(&hex("08 0b"), &hex(&attributes), &hex("08 0a"));
    let (reaction, update) = reaction(&octets, &external());
    assert_eq!(reaction, Withdraw(vec![8]));
    let expected = ["11.0.0.0/8", "fd00::/8", "10.0.0.0/8", "::/0"].map(nlri);
    assert_eq!(update.withdrawn, expected);
}

#[test]
fn routes_of_a_family_that_was_not_negotiated_are_skipped() {
    let only_v6 = Context {
        families: FamilySet::only(Family::Ipv6Unicast),
        ..external()
    };
    let octets = update_of(&hex("08 0b"), &hex(&mandatory()), &hex("08 0a"));
    let (found, update) = reaction(&octets, &only_v6);
    assert_eq!(found, Discard(vec![0]));
    assert_eq!(update, Update::default());
    // What cannot be read ends the session all the same.
    let octets = update_of(&[], &hex(&mandatory()), &hex("ff 0a"));
    assert_eq!(reaction(&octets, &only_v6).0, Reset(3, 10));
}

#[test]
fn four_octet_attributes() {
    let four = external();
    let two = Context {
        four_octet_asn: false,
        ..external()
    };
    let head = format!("{ORIGIN} {NEXT_HOP}");
    let path = "40 02 06 02 02 5ba0 fc00";
    // Between four-octet speakers they are left out.
    check(
        &four,
        vec![
            (
                format!("{} c0 11 06 02 01 000186a0", mandatory()),
                Discard(vec![17]),
            ),
            (
                format!("{} c0 12 08 000186a0 0a000001", mandatory()),
                Discard(vec![18]),
            ),
        ],
    );
    check(
        &two,
        vec![
            (
                format!("{head} {path} c0 11 0a 02 02 000186a0 0000fc00"),
                Accept,
            ),
            // Before AS_PATH and malformed (CVE-2026-41643).
            (
                format!("c0 11 03 02 01 00 {head} {path}"),
                Discard(vec![17]),
            ),
            (format!("{head} {path} c0 11 02 02 00"), Discard(vec![17])),
            (
                format!("{head} {path} c0 11 06 09 01 000186a0"),
                Discard(vec![17]),
            ),
            (
                format!("{head} {path} c0 11 06 02 01 00000000"),
                Discard(vec![17]),
            ),
            (
                format!("{head} {path} c0 11 06 02 02 000186a0"),
                Discard(vec![17]),
            ),
            // Confederation segments (2008): only these are taken out.
            (
                format!("{head} {path} c0 11 10 03 01 0000fde8 02 02 000186a0 0000fc00"),
                Discard(vec![17]),
            ),
            (
                format!("{head} {path} c0 12 06 5ba0 0a000001"),
                Discard(vec![18]),
            ),
            (
                format!("{head} {path} c0 12 08 00000000 0a000001"),
                Discard(vec![18]),
            ),
            (
                format!("{head} {path} c0 07 08 000186a0 0a000001"),
                Discard(vec![7]),
            ),
            // Four-octet numbers where two are due: three of them, of which one is 0.
            (
                format!("{head} 40 02 0e 02 03 0000fc00 0000fc01 0000fc02"),
                Withdraw(vec![2]),
            ),
        ],
    );
    for (attribute, expected) in [
        ("c0 11 0a 02 02 000186a0 0000fc00", asns(&[100_000, 64512])),
        (
            "c0 11 10 03 01 0000fde8 02 02 000186a0 0000fc00",
            asns(&[100_000, 64512]),
        ),
        ("c0 11 02 02 00", asns(&[23456, 64512])),
    ] {
        let octets = with_route(&format!("{head} {path} {attribute}"));
        let (_, update) = reaction(&octets, &two);
        assert_eq!(update.attributes.as_path, expected, "{attribute}");
    }
}

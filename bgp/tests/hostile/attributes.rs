//! Attributes other than paths and routes (RFC 7606 sections 3 and 7, RFC 4456, RFC 8092, RFC 8669, RFC 9234).

use super::case::{Case, Expect, From, case, plain, run_all};
use super::messages::{
    EXTENDED, OPTIONAL, PARTIAL, TRANSITIVE, VICTIM, as_path, attribute, lying_attribute, next_hop,
    origin, update,
};

/// The victim announced with one attribute more.
fn with(from: From, extra: Vec<u8>) -> Vec<u8> {
    let mut attributes = plain(from);
    attributes.push(extra);
    update(&[], &attributes, VICTIM)
}

/// The victim announced with the attribute at `index` of origin, path and next hop replaced.
fn replaced(index: usize, by: Vec<u8>) -> Vec<u8> {
    let mut attributes = plain(From::External);
    attributes[index] = by;
    update(&[], &attributes, VICTIM)
}

fn without(index: usize) -> Vec<u8> {
    replaced(index, Vec::new())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = well_known();
    cases.extend(optional());
    cases.extend(unknown());
    cases
}

fn well_known() -> Vec<Case> {
    let w = || Expect::Withdrawn;
    let mut cases = Vec::new();
    for (name, value) in [
        ("ORIGIN 3", &[3][..]),
        ("ORIGIN 255", &[255]),
        ("ORIGIN empty", &[]),
        ("ORIGIN of two octets", &[0, 0]),
    ] {
        cases.push(case(
            "RFC 7606 7.1",
            name,
            replaced(0, attribute(TRANSITIVE, 1, value)),
            w(),
        ));
    }
    for (name, flags) in [
        ("ORIGIN marked optional", OPTIONAL | TRANSITIVE),
        ("ORIGIN marked non-transitive", 0),
        ("ORIGIN marked optional and non-transitive", OPTIONAL),
    ] {
        cases.push(case(
            "RFC 7606 3 c",
            name,
            replaced(0, attribute(flags, 1, &[0])),
            w(),
        ));
    }
    cases.push(case(
        "RFC 7606 3 c",
        "AS_PATH marked optional",
        replaced(
            1,
            attribute(OPTIONAL | TRANSITIVE, 2, &as_path(&[65001])[3..]),
        ),
        w(),
    ));
    for (name, value) in [
        ("NEXT_HOP of 3 octets", &[192, 0, 2][..]),
        ("NEXT_HOP of 5 octets", &[192, 0, 2, 1, 0]),
        ("NEXT_HOP of no octet (CVE-2026-30405)", &[]),
        ("NEXT_HOP 0.0.0.0", &[0, 0, 0, 0]),
        ("NEXT_HOP multicast", &[224, 0, 0, 1]),
        ("NEXT_HOP broadcast", &[255, 255, 255, 255]),
        ("NEXT_HOP in class E", &[240, 0, 0, 1]),
        ("NEXT_HOP our own address", &[127, 0, 0, 1]),
    ] {
        cases.push(case(
            "RFC 7606 7.3, RFC 4271 6.3",
            name,
            replaced(2, attribute(TRANSITIVE, 3, value)),
            w(),
        ));
    }
    for (name, index) in [
        ("ORIGIN missing", 0),
        ("AS_PATH missing", 1),
        ("NEXT_HOP missing", 2),
    ] {
        cases.push(case("RFC 7606 3 d", name, without(index), w()));
    }
    let twice = [
        origin(),
        as_path(&[65001]),
        next_hop([192, 0, 2, 1]),
        attribute(TRANSITIVE, 1, &[2]),
    ];
    cases.push(case(
        "RFC 7606 3 g",
        "ORIGIN twice: the first counts",
        update(&[], &twice, VICTIM),
        Expect::Announced(|a| a.origin as u8 == 0),
    ));
    cases.push(case(
        "RFC 7606 7.5",
        "LOCAL_PREF from outside is ignored",
        with(From::External, attribute(TRANSITIVE, 5, &[0, 0, 0, 9])),
        Expect::Kept,
    ));
    cases.push(case(
        "RFC 7606 7.5",
        "LOCAL_PREF of 3 octets from outside is ignored",
        with(From::External, attribute(TRANSITIVE, 5, &[0, 0, 9])),
        Expect::Kept,
    ));
    let mut short = plain(From::Internal);
    short[3] = attribute(TRANSITIVE, 5, &[0, 0, 9]);
    cases.push(
        case(
            "RFC 7606 7.5",
            "LOCAL_PREF of 3 octets from inside",
            update(&[], &short, VICTIM),
            w(),
        )
        .from(From::Internal),
    );
    cases.push(case(
        "RFC 7606 7.6",
        "ATOMIC_AGGREGATE with a value",
        with(From::External, attribute(TRANSITIVE, 6, &[1])),
        Expect::Announced(|a| !a.atomic_aggregate),
    ));
    cases.push(case(
        "RFC 4271 4.3",
        "the extended length bit on a short attribute",
        replaced(0, vec![TRANSITIVE | EXTENDED, 1, 0, 1, 0]),
        Expect::Kept,
    ));
    cases.push(case(
        "RFC 4271 4.3",
        "the unused flag bits set",
        replaced(0, attribute(TRANSITIVE | 0x0f, 1, &[0])),
        Expect::Kept,
    ));
    cases
}

fn optional() -> Vec<Case> {
    let ot = OPTIONAL | TRANSITIVE;
    let mut cases = Vec::new();
    for (source, name, flags, code, length) in [
        (
            "RFC 7606 7.4",
            "MULTI_EXIT_DISC of 3 octets",
            OPTIONAL,
            4,
            3,
        ),
        (
            "RFC 7606 7.4",
            "MULTI_EXIT_DISC of 5 octets",
            OPTIONAL,
            4,
            5,
        ),
        (
            "RFC 7606 3 c",
            "MULTI_EXIT_DISC marked transitive",
            ot,
            4,
            4,
        ),
        ("RFC 7606 7.8", "COMMUNITIES of 3 octets", ot, 8, 3),
        ("RFC 7606 7.8", "COMMUNITIES empty", ot, 8, 0),
        (
            "RFC 7606 7.14",
            "EXTENDED COMMUNITIES of 7 octets",
            ot,
            16,
            7,
        ),
        ("RFC 7606 7.14", "EXTENDED COMMUNITIES empty", ot, 16, 0),
        (
            "RFC 7606 7.15",
            "IPv6 EXTENDED COMMUNITIES of 19 octets (CVE-2026-37461)",
            ot,
            25,
            19,
        ),
        ("RFC 8092 6", "LARGE_COMMUNITY of 11 octets", ot, 32, 11),
        ("RFC 8092 6", "LARGE_COMMUNITY empty", ot, 32, 0),
        ("RFC 9234 5", "OTC of 3 octets", ot, 35, 3),
        ("RFC 9234 5", "OTC of 8 octets", ot, 35, 8),
    ] {
        let message = with(From::External, attribute(flags, code, &vec![1; length]));
        cases.push(case(source, name, message, Expect::Withdrawn));
    }
    for (name, code, length) in [
        ("ORIGINATOR_ID of 3 octets from inside", 9, 3),
        ("CLUSTER_LIST of 6 octets from inside", 10, 6),
        ("CLUSTER_LIST empty from inside", 10, 0),
    ] {
        let message = with(From::Internal, attribute(OPTIONAL, code, &vec![1; length]));
        cases.push(
            case("RFC 7606 7.9, 7.10", name, message, Expect::Withdrawn).from(From::Internal),
        );
    }
    let ours = attribute(OPTIONAL, 9, &[10, 0, 0, 1]);
    cases.push(
        case(
            "RFC 4456 8",
            "our own ORIGINATOR_ID",
            with(From::Internal, ours),
            Expect::Withdrawn,
        )
        .from(From::Internal),
    );
    let ours = attribute(OPTIONAL, 10, &[9, 9, 9, 9, 10, 0, 0, 1]);
    cases.push(
        case(
            "RFC 4456 8",
            "our own cluster in CLUSTER_LIST",
            with(From::Internal, ours),
            Expect::Withdrawn,
        )
        .from(From::Internal),
    );
    for (source, name, flags, code, value) in [
        (
            "RFC 7606 7.9",
            "ORIGINATOR_ID from outside is ignored",
            OPTIONAL,
            9,
            &[1, 2, 3][..],
        ),
        (
            "RFC 7606 7.10",
            "CLUSTER_LIST from outside is ignored",
            OPTIONAL,
            10,
            &[1, 2, 3],
        ),
        (
            "RFC 7606 7.7",
            "AGGREGATOR of 6 octets is discarded",
            ot,
            7,
            &[0, 1, 1, 1, 1, 1],
        ),
        (
            "RFC 7606 7.7",
            "AGGREGATOR of 9 octets is discarded",
            ot,
            7,
            &[0, 0, 0, 1, 1, 1, 1, 1, 1],
        ),
        (
            "RFC 6793 4.1",
            "AS4_AGGREGATOR on a four-octet session is discarded",
            ot,
            18,
            &[0; 8],
        ),
        (
            "RFC 8669 6, CVE-2023-31490, CVE-2024-31948",
            "a short Prefix-SID is discarded",
            ot,
            40,
            &[1, 0],
        ),
        (
            "incident of March 2025",
            "a Prefix-SID from outside is discarded",
            ot,
            40,
            &[1, 0, 7, 0, 0, 0, 0, 0, 0, 1],
        ),
    ] {
        let message = with(From::External, attribute(flags, code, value));
        let plain: fn(&margay_bgp::wire::PathAttributes) -> bool = |a| {
            a.aggregator.is_none()
                && a.originator_id.is_none()
                && a.cluster_list.is_empty()
                && a.unknown.is_empty()
        };
        cases.push(case(source, name, message, Expect::Announced(plain)));
    }
    cases
}

fn unknown() -> Vec<Case> {
    let ot = OPTIONAL | TRANSITIVE;
    let mut cases = Vec::new();
    for (source, name, code) in [
        (
            "RFC 4271 5",
            "an unknown optional transitive attribute goes on",
            200,
        ),
        ("VU#347067", "attribute 28 with rubbish goes on", 28),
        ("RIPE 2010", "attribute 99 goes on", 99),
        ("CVE-2019-5892", "attribute 255 goes on", 255),
        ("RFC 6368", "attribute 128 goes on", 128),
        (
            "CVE-2023-38802, CVE-2024-44070",
            "a corrupt tunnel encapsulation goes on",
            23,
        ),
        (
            "CVE-2023-41359",
            "an AIGP marked transitive does no harm",
            26,
        ),
    ] {
        let message = with(From::External, attribute(ot, code, &[0xff, 0xff, 0, 9, 1]));
        cases.push(case(source, name, message, Expect::Kept));
    }
    let forwarded = with(From::External, attribute(ot, 200, &[1, 2, 3]));
    cases.push(case(
        "RFC 4271 5",
        "its value is not changed",
        forwarded,
        Expect::Announced(|a| {
            a.unknown
                .iter()
                .any(|u| u.code == 200 && u.value[..] == [1, 2, 3])
        }),
    ));
    let local = with(From::External, attribute(OPTIONAL, 200, &[1, 2, 3]));
    cases.push(case(
        "RFC 4271 5",
        "an unknown non-transitive attribute stays here",
        local,
        Expect::Announced(|a| a.unknown.is_empty()),
    ));
    let partial = with(From::External, attribute(ot | PARTIAL, 8, &[0, 1, 0, 2]));
    cases.push(case(
        "RFC 4271 5",
        "the partial bit on a known attribute",
        partial,
        Expect::Announced(|a| a.communities.len() == 1),
    ));
    let well_known = attribute(TRANSITIVE, 99, &[1]);
    let message = with(From::External, well_known.clone());
    cases.push(case(
        "RFC 4271 6.3, CVE-2026-41642",
        "an unknown well-known attribute",
        message,
        Expect::Reset(3, 2, Some(well_known)),
    ));
    let mut attributes = plain(From::External);
    attributes.push(lying_attribute(ot, 200, 50, &[1, 2, 3]));
    cases.push(case(
        "RFC 7606 4",
        "an attribute longer than all attributes",
        update(&[], &attributes, VICTIM),
        Expect::Withdrawn,
    ));
    let mut attributes = plain(From::External);
    attributes.push(vec![ot, 200]);
    cases.push(case(
        "RFC 7606 4",
        "an attribute without its length",
        update(&[], &attributes, VICTIM),
        Expect::Withdrawn,
    ));
    let mut attributes = plain(From::External);
    attributes.push(vec![ot]);
    cases.push(case(
        "RFC 7606 4",
        "one octet after the attributes",
        update(&[], &attributes, VICTIM),
        Expect::Withdrawn,
    ));
    let mut attributes = plain(From::External);
    attributes.push(vec![ot | EXTENDED, 200, 0]);
    cases.push(case(
        "RFC 7606 4",
        "an extended length cut off",
        update(&[], &attributes, VICTIM),
        Expect::Withdrawn,
    ));
    let many: Vec<_> = (200..250)
        .map(|code| attribute(ot, code, &[0; 40]))
        .collect();
    let all = [plain(From::External), many].concat();
    cases.push(case(
        "RFC 4271 5",
        "fifty unknown attributes",
        update(&[], &all, VICTIM),
        Expect::Announced(|a| a.unknown.len() == 50),
    ));
    cases
}

#[test]
fn path_attributes() {
    run_all(cases());
}

//! Withdrawn routes, NLRI, MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 7606 sections 5 and 7.11, RFC 4760).

use super::case::{Case, Expect, From, case, plain, run_all};
use super::messages::{
    OPTIONAL, VICTIM, as_path, attribute, lying_attribute, message, mp_reach, mp_unreach, origin,
    update,
};

const GLOBAL: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// 2001:db8:1::/48.
const ROUTE6: &[u8] = &[48, 0x20, 1, 0xd, 0xb8, 0, 1];

fn announced(nlri: &[u8]) -> Vec<u8> {
    update(&[], &plain(From::External), nlri)
}

fn multiprotocol(attributes: &[Vec<u8>]) -> Vec<u8> {
    let all = [vec![origin(), as_path(&[65001])], attributes.to_vec()].concat();
    update(&[], &all, &[])
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = fields();
    cases.extend(reach());
    cases.extend(unreach());
    cases
}

fn fields() -> Vec<Case> {
    let network = || Expect::Reset(3, 10, None);
    let list = || Expect::Reset(3, 1, None);
    let all = plain(From::External).concat();
    let lengths = |withdrawn: u16, attributes: u16, rest: &[u8]| {
        let body = [
            &withdrawn.to_be_bytes()[..],
            &attributes.to_be_bytes(),
            rest,
        ]
        .concat();
        message(2, &body)
    };
    vec![
        case(
            "RFC 7606 5.3",
            "a prefix of 33 bits",
            announced(&[33, 203, 0, 113, 0, 0]),
            network(),
        ),
        case(
            "RFC 7606 5.3",
            "a prefix of 255 bits",
            announced(&[255; 40]),
            network(),
        ),
        case(
            "RFC 7606 5.3",
            "a prefix cut off",
            announced(&[24, 203, 0]),
            network(),
        ),
        case(
            "RFC 7606 5.3",
            "a second prefix cut off",
            announced(&[24, 203, 0, 113, 32, 1]),
            network(),
        ),
        case(
            "RFC 7606 5.3",
            "a withdrawn prefix of 33 bits",
            update(&[33, 1, 2, 3, 4, 5], &[], &[]),
            network(),
        ),
        case(
            "RFC 7606 5.3",
            "a withdrawn prefix cut off",
            update(&[24, 203], &[], &[]),
            network(),
        ),
        case(
            "RFC 4271 6.3",
            "withdrawn routes longer than the message",
            lengths(500, 0, &[]),
            list(),
        ),
        case(
            "CVE-2026-37462",
            "withdrawn routes one octet too long",
            lengths(3, 0, &[0, 0]),
            list(),
        ),
        case(
            "RFC 4271 6.3",
            "attributes longer than the message",
            lengths(0, 500, &all),
            list(),
        ),
        case(
            "CVE-2026-37462",
            "both lengths at their most",
            lengths(0xffff, 0xffff, &[]),
            list(),
        ),
        case(
            "CVE-2023-41358",
            "routes without attributes",
            update(&[], &[], VICTIM),
            Expect::Withdrawn,
        ),
        case(
            "CVE-2023-46753",
            "routes with an unknown attribute only",
            update(&[], &[attribute(0xc0, 31, &[])], VICTIM),
            Expect::Withdrawn,
        ),
        case(
            "RFC 4271 4.3",
            "bits set beyond the prefix length",
            announced(&[20, 203, 0, 0x7f]),
            Expect::Accepted("203.0.112.0/20"),
        ),
        case(
            "RFC 4271 4.3",
            "the default route",
            announced(&[0]),
            Expect::Accepted("0.0.0.0/0"),
        ),
        case(
            "RFC 4271 4.3",
            "one prefix twice",
            announced(&[VICTIM, VICTIM].concat()),
            Expect::Kept,
        ),
        case(
            "RFC 4271 4.3",
            "a prefix withdrawn and announced at once",
            update(VICTIM, &plain(From::External), VICTIM),
            Expect::Kept,
        ),
        case(
            "RFC 4271 9",
            "the withdrawal of what was never announced",
            update(&[32, 1, 2, 3, 4], &[], &[]),
            Expect::Kept,
        ),
        case(
            "RFC 4271 9",
            "an ordinary withdrawal",
            update(VICTIM, &[], &[]),
            Expect::Withdrawn,
        ),
        case(
            "RFC 4271 9",
            "attributes without routes",
            update(&[], &plain(From::External), &[]),
            Expect::Kept,
        ),
    ]
}

fn reach() -> Vec<Case> {
    let optional = || Expect::Reset(3, 9, None);
    let good = mp_reach(2, 1, &GLOBAL, ROUTE6);
    let mut beside_field = plain(From::External);
    beside_field.push(good.clone());
    let mut no_origin = vec![as_path(&[65001])];
    no_origin.push(good.clone());
    vec![
        case(
            "RFC 4760",
            "an IPv6 route",
            multiprotocol(std::slice::from_ref(&good)),
            Expect::Accepted("2001:db8:1::/48"),
        ),
        case(
            "RFC 4760",
            "an IPv6 route beside IPv4 ones",
            update(&[], &beside_field, VICTIM),
            Expect::Accepted("2001:db8:1::/48"),
        ),
        case(
            "RFC 2545",
            "a next hop of 32 octets",
            multiprotocol(&[mp_reach(2, 1, &[GLOBAL, GLOBAL].concat(), ROUTE6)]),
            Expect::Kept,
        ),
        case(
            "RFC 7606 7.11",
            "a next hop of 15 octets",
            multiprotocol(&[mp_reach(2, 1, &GLOBAL[..15], ROUTE6)]),
            optional(),
        ),
        case(
            "RFC 7606 7.11",
            "a next hop of 4 octets for IPv6",
            multiprotocol(&[mp_reach(2, 1, &[192, 0, 2, 1], ROUTE6)]),
            optional(),
        ),
        case(
            "RFC 7606 7.11",
            "no next hop",
            multiprotocol(&[mp_reach(2, 1, &[], ROUTE6)]),
            optional(),
        ),
        // Its length leaves no doubt about the routes, so that they can be withdrawn and the session kept.
        case(
            "RFC 8950",
            "an IPv6 next hop for IPv4 without the capability",
            multiprotocol(&[mp_reach(1, 1, &GLOBAL, VICTIM)]),
            Expect::Withdrawn,
        ),
        case(
            "CVE-2023-46752",
            "MP_REACH_NLRI of 3 octets",
            multiprotocol(&[attribute(OPTIONAL, 14, &[0, 2, 1])]),
            optional(),
        ),
        case(
            "RFC 7606 7.11",
            "MP_REACH_NLRI empty",
            multiprotocol(&[attribute(OPTIONAL, 14, &[])]),
            optional(),
        ),
        case(
            "RFC 7606 7.11",
            "a next hop longer than the attribute",
            multiprotocol(&[attribute(OPTIONAL, 14, &[0, 2, 1, 200, 1, 2])]),
            optional(),
        ),
        case(
            "RFC 7606 5.3",
            "an IPv6 prefix of 129 bits",
            multiprotocol(&[mp_reach(2, 1, &GLOBAL, &[&[129][..], &[0; 17]].concat())]),
            optional(),
        ),
        case(
            "RFC 7606 5.3",
            "an IPv6 prefix cut off",
            multiprotocol(&[mp_reach(2, 1, &GLOBAL, &[48, 0x20, 1])]),
            optional(),
        ),
        case(
            "RFC 7606 3 g",
            "MP_REACH_NLRI twice",
            multiprotocol(&[good.clone(), good.clone()]),
            Expect::Reset(3, 1, None),
        ),
        case(
            "RFC 7606 3 j",
            "MP_REACH_NLRI past the end",
            multiprotocol(&[lying_attribute(OPTIONAL, 14, 100, &[0, 2, 1])]),
            optional(),
        ),
        case(
            "RFC 4760 6",
            "a family nobody negotiated",
            multiprotocol(&[mp_reach(25, 70, &[1, 2, 3, 4], &[1, 2, 3])]),
            Expect::Kept,
        ),
        case(
            "RFC 7606 3 d",
            "an IPv6 route without ORIGIN",
            update(&[], &no_origin, &[]),
            Expect::Kept,
        ),
        case(
            "RFC 4760 3",
            "the reserved octet set",
            multiprotocol(&[attribute(
                OPTIONAL,
                14,
                &[&[0, 2, 1, 16][..], &GLOBAL, &[7], ROUTE6].concat(),
            )]),
            Expect::Accepted("2001:db8:1::/48"),
        ),
    ]
}

fn unreach() -> Vec<Case> {
    let optional = || Expect::Reset(3, 9, None);
    vec![
        case(
            "RFC 7606 5.3",
            "MP_UNREACH_NLRI of 2 octets",
            update(&[], &[attribute(OPTIONAL, 15, &[0, 2])], &[]),
            optional(),
        ),
        case(
            "RFC 7606 5.3",
            "a withdrawn IPv6 prefix of 129 bits",
            update(&[], &[mp_unreach(2, 1, &[129, 0])], &[]),
            optional(),
        ),
        case(
            "RFC 7606 3 g",
            "MP_UNREACH_NLRI twice",
            update(
                &[],
                &[mp_unreach(2, 1, ROUTE6), mp_unreach(2, 1, ROUTE6)],
                &[],
            ),
            Expect::Reset(3, 1, None),
        ),
        case(
            "CVE-2023-47235",
            "End-of-RIB of a family nobody negotiated",
            update(&[], &[mp_unreach(25, 70, &[])], &[]),
            Expect::Kept,
        ),
        case(
            "RFC 4760 4",
            "IPv4 routes withdrawn by MP_UNREACH_NLRI",
            update(&[], &[mp_unreach(1, 1, VICTIM)], &[]),
            Expect::Withdrawn,
        ),
        case(
            "CVE-2023-47234",
            "MP_UNREACH_NLRI beside a malformed ORIGIN",
            update(
                &[],
                &[attribute(0x40, 1, &[9]), mp_unreach(2, 1, ROUTE6)],
                &[],
            ),
            Expect::Reset(3, 6, None),
        ),
    ]
}

#[test]
fn routes() {
    run_all(cases());
}

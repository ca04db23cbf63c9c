//! AS_PATH and AS4_PATH (RFC 7606 section 7.2, RFC 6793, RFC 7607, RFC 9774, RFC 5065).

use super::case::{Case, Expect, From, case, plain, run_all};
use super::messages::{
    OPTIONAL, TRANSITIVE, VICTIM, as_path, attribute, next_hop, old_segment, origin, segment,
    update,
};

/// The victim announced with this value of AS_PATH.
fn path(value: &[u8]) -> Vec<u8> {
    let attributes = [
        origin(),
        attribute(TRANSITIVE, 2, value),
        next_hop([192, 0, 2, 1]),
    ];
    update(&[], &attributes, VICTIM)
}

fn old(as4: &[u8]) -> Vec<u8> {
    let mut attributes = plain(From::OldExternal);
    attributes[1] = attribute(TRANSITIVE, 2, &old_segment(2, &[65001, 23456]));
    attributes.push(attribute(OPTIONAL | TRANSITIVE, 17, as4));
    update(&[], &attributes, VICTIM)
}

pub(crate) fn cases() -> Vec<Case> {
    let w = Expect::Withdrawn;
    let ours: Vec<u32> = [65001]
        .into_iter()
        .chain(std::iter::repeat_n(64999, 200))
        .collect();
    let long = [segment(2, &ours), segment(2, &ours[1..])].concat();
    let long_path = {
        let mut octets = vec![TRANSITIVE | 0x10, 2];
        octets.extend(u16::try_from(long.len()).unwrap().to_be_bytes());
        octets.extend(&long);
        update(&[], &[origin(), octets, next_hop([192, 0, 2, 1])], VICTIM)
    };
    vec![
        case(
            "RFC 7606 7.2",
            "a segment of type 0",
            path(&segment(0, &[65001])),
            w.clone(),
        ),
        case(
            "RFC 7606 7.2",
            "a segment of type 5",
            path(&segment(5, &[65001])),
            w.clone(),
        ),
        case(
            "RFC 7606 7.2",
            "a segment of type 255",
            path(&segment(255, &[65001])),
            w.clone(),
        ),
        case(
            "RFC 7606 7.2",
            "an empty segment",
            path(&[segment(2, &[65001]), segment(2, &[])].concat()),
            w.clone(),
        ),
        case(
            "RFC 7606 7.2",
            "a segment longer than the attribute",
            path(&[2, 3, 0, 0, 0xfd, 0xe9]),
            w.clone(),
        ),
        case(
            "RFC 7606 7.2",
            "one octet after the last segment",
            path(&[segment(2, &[65001]), vec![2]].concat()),
            w.clone(),
        ),
        case(
            "RFC 7606 7.2",
            "two-octet numbers where four are agreed",
            path(&old_segment(2, &[65001])),
            w.clone(),
        ),
        case(
            "RFC 7607",
            "AS 0 in the path",
            path(&segment(2, &[65001, 0, 64999])),
            w.clone(),
        ),
        case(
            "RFC 4271 6.3",
            "an empty AS_PATH from outside",
            path(&[]),
            w.clone(),
        ),
        case(
            "RFC 4271 6.3",
            "another AS first",
            path(&segment(2, &[64999, 65001])),
            w.clone(),
        ),
        case(
            "RFC 9774",
            "an AS_SET",
            path(&[segment(2, &[65001]), segment(1, &[64998, 64999])].concat()),
            w.clone(),
        ),
        case(
            "RFC 9774",
            "an AS_SET first",
            path(&segment(1, &[65001, 64999])),
            w.clone(),
        ),
        case(
            "RFC 5065",
            "a confederation sequence from outside",
            path(&[segment(3, &[64999]), segment(2, &[65001])].concat()),
            w.clone(),
        ),
        case(
            "RFC 5065",
            "a confederation set from outside",
            path(&[segment(2, &[65001]), segment(4, &[64999])].concat()),
            w.clone(),
        ),
        case(
            "RFC 4271 9.1.2",
            "our own AS in the path: the implicit withdrawal counts",
            path(&segment(2, &[65001, 65000])),
            w.clone(),
        ),
        case(
            "RFC 4271 4.3",
            "401 ASes",
            long_path,
            Expect::Announced(|a| a.as_path.asns().count() == 402),
        ),
        case(
            "RFC 6793 4.1",
            "AS4_PATH on a four-octet session",
            {
                let mut attributes = plain(From::External);
                attributes.push(attribute(OPTIONAL | TRANSITIVE, 17, &segment(2, &[64999])));
                update(&[], &attributes, VICTIM)
            },
            Expect::Announced(|a| a.as_path.asns().count() == 2),
        ),
        case(
            "RFC 6793 6",
            "a malformed AS4_PATH",
            old(&[2, 9, 0, 1]),
            Expect::Announced(|a| a.as_path.asns().any(|asn| asn.0 == 23456)),
        )
        .from(From::OldExternal),
        case(
            "RFC 6793 6",
            "a confederation segment in AS4_PATH",
            old(&[segment(3, &[1]), segment(2, &[131_072])].concat()),
            Expect::Announced(|a| a.as_path.asns().any(|asn| asn.0 == 131_072)),
        )
        .from(From::OldExternal),
        case(
            "RFC 6793 4.2.3",
            "AS4_PATH as it should be",
            old(&segment(2, &[131_072])),
            Expect::Announced(|a| a.as_path.asns().any(|asn| asn.0 == 131_072)),
        )
        .from(From::OldExternal),
        case(
            "RFC 6793 4.2.3",
            "an AS4_PATH longer than AS_PATH",
            old(&segment(2, &[1, 2, 3, 4, 5])),
            Expect::Announced(|a| a.as_path.asns().any(|asn| asn.0 == 23456)),
        )
        .from(From::OldExternal),
        case(
            "CVE-2026-41643",
            "a malformed AS4_PATH before AS_PATH",
            {
                let mut attributes = plain(From::OldExternal);
                attributes.insert(0, attribute(OPTIONAL | TRANSITIVE, 17, &[2, 9, 0]));
                update(&[], &attributes, VICTIM)
            },
            Expect::Announced(|a| a.as_path.asns().count() == 2),
        )
        .from(From::OldExternal),
        case(
            "RFC 4271 5.1.2",
            "an empty AS_PATH from inside",
            {
                let mut attributes = plain(From::Internal);
                attributes.push(attribute(OPTIONAL, 4, &[0, 0, 0, 1]));
                update(&[], &attributes, VICTIM)
            },
            Expect::Kept,
        )
        .from(From::Internal),
        case(
            "RFC 4271 6.3",
            "AS_PATH twice: the first counts",
            {
                let mut attributes = plain(From::External);
                attributes.push(as_path(&[65001, 1, 2, 3]));
                update(&[], &attributes, VICTIM)
            },
            Expect::Announced(|a| a.as_path.asns().count() == 2),
        ),
    ]
}

#[test]
fn as_paths() {
    run_all(cases());
}

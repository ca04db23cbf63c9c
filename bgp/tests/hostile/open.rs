//! The OPEN (RFC 4271 section 6.2, RFC 5492, RFC 6286, RFC 6793, RFC 9072).

use super::case::{ATTACKER_ID, Case, Expect, From, When, case, run_all};
use super::messages::{MP_IPV4, as4, capabilities, open, open_raw};

fn at_open(source: &'static str, name: &'static str, message: Vec<u8>, expect: Expect) -> Case {
    case(source, name, message, expect).when(When::InsteadOfOpen)
}

fn with(parameters: &[u8]) -> Vec<u8> {
    open(4, 65001, 90, ATTACKER_ID, parameters)
}

pub(crate) fn cases() -> Vec<Case> {
    let usual = capabilities(&[MP_IPV4, &as4(65001)]);
    let reset = |subcode, data: Option<&[u8]>| Expect::Reset(2, subcode, data.map(<[u8]>::to_vec));
    let s = "RFC 4271 6.2";
    let mut cases = vec![
        at_open(
            s,
            "version 3",
            open(3, 65001, 90, ATTACKER_ID, &usual),
            reset(1, Some(&[0, 4])),
        ),
        at_open(
            s,
            "version 5",
            open(5, 65001, 90, ATTACKER_ID, &usual),
            reset(1, Some(&[0, 4])),
        ),
        at_open(
            s,
            "an AS that is not configured",
            open(
                4,
                65009,
                90,
                ATTACKER_ID,
                &capabilities(&[MP_IPV4, &as4(65009)]),
            ),
            reset(2, None),
        ),
        at_open(
            "RFC 7607",
            "AS 0",
            open(4, 0, 90, ATTACKER_ID, &capabilities(&[MP_IPV4, &as4(0)])),
            reset(2, None),
        ),
        at_open(
            "RFC 7607",
            "AS 0 in the capability only",
            open(
                4,
                65001,
                90,
                ATTACKER_ID,
                &capabilities(&[MP_IPV4, &as4(0)]),
            ),
            reset(2, None),
        ),
        at_open(
            "RFC 6793",
            "AS_TRANS without the capability",
            open(4, 23456, 90, ATTACKER_ID, &capabilities(&[MP_IPV4])),
            reset(2, None),
        ),
        at_open(
            "RFC 6286",
            "identifier 0.0.0.0",
            open(4, 65001, 90, [0; 4], &usual),
            reset(3, None),
        ),
        at_open(
            "RFC 6286",
            "our own identifier inside the AS",
            open(
                4,
                65000,
                90,
                [10, 0, 0, 1],
                &capabilities(&[MP_IPV4, &as4(65000)]),
            ),
            reset(3, None),
        )
        .from(From::Internal),
        at_open(
            s,
            "hold time 1",
            open(4, 65001, 1, ATTACKER_ID, &usual),
            reset(6, None),
        ),
        at_open(
            s,
            "hold time 2",
            open(4, 65001, 2, ATTACKER_ID, &usual),
            reset(6, None),
        ),
        at_open(
            s,
            "an unknown optional parameter",
            with(&[9, 1, 0]),
            reset(4, None),
        ),
        at_open(
            s,
            "authentication, which is deprecated",
            with(&[1, 1, 0]),
            reset(4, None),
        ),
        at_open(s, "a parameter cut off", with(&[2]), reset(0, None)),
        at_open(
            s,
            "a parameter longer than the message",
            with(&[2, 20, 1, 4]),
            reset(0, None),
        ),
        at_open(
            s,
            "parameters shorter than their length field",
            open_raw(4, 65001, 90, ATTACKER_ID, &[10, 2, 2, 65]),
            reset(0, None),
        ),
        at_open(
            s,
            "octets after the parameters",
            open_raw(4, 65001, 90, ATTACKER_ID, &[0, 1, 2, 3]),
            reset(0, None),
        ),
        at_open(
            "RFC 5492",
            "a capability longer than its parameter",
            with(&[2, 2, 1, 4]),
            reset(0, None),
        ),
        at_open(
            "RFC 5492",
            "a capability cut off after its code",
            with(&[2, 1, 65]),
            reset(0, None),
        ),
        at_open(
            "RFC 4760",
            "a multiprotocol capability of 3 octets",
            with(&[2, 5, 1, 3, 0, 1, 0]),
            reset(0, None),
        ),
        at_open(
            "RFC 6793",
            "a four-octet AS capability of 3 octets",
            with(&[2, 5, 65, 3, 0, 0, 1]),
            reset(0, None),
        ),
        at_open(
            "RFC 5492",
            "no family in common",
            with(&capabilities(&[&[1, 4, 0, 25, 0, 70], &as4(65001)])),
            reset(7, None),
        ),
    ];
    // The three of 2022: extended parameters cut off in three places.
    for (name, rest) in [
        (
            "extended parameters cut off in the length",
            &[255, 255, 0][..],
        ),
        (
            "extended parameters longer than the message",
            &[255, 255, 1, 0, 2, 0, 1],
        ),
        (
            "an extended parameter longer than the rest",
            &[255, 255, 0, 4, 2, 0, 9, 65],
        ),
        (
            "an extended parameter without its length",
            &[255, 255, 0, 2, 2, 0],
        ),
        ("extended parameters announced and missing", &[255]),
    ] {
        cases.push(at_open(
            "CVE-2022-40302, 40318, 43681",
            name,
            open_raw(4, 65001, 90, ATTACKER_ID, rest),
            reset(0, None),
        ));
    }
    cases
}

#[test]
fn opens() {
    run_all(cases());
}

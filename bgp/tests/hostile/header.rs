//! The message header (RFC 4271 section 6.1).

use super::case::{Case, Expect, case, run_all};
use super::messages::{message, with_length};

const S: &str = "RFC 4271 6.1";

fn bad_length(length: u16) -> Expect {
    Expect::Reset(1, 2, Some(length.to_be_bytes().to_vec()))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut wrong = message(4, &[]);
    wrong[0] = 0;
    cases.push(case(
        S,
        "marker wrong at its first octet",
        wrong,
        Expect::Reset(1, 1, None),
    ));
    let mut wrong = message(4, &[]);
    wrong[15] = 0xfe;
    cases.push(case(
        S,
        "marker wrong at its last octet",
        wrong,
        Expect::Reset(1, 1, None),
    ));
    cases.push(case(
        S,
        "an HTTP request",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        Expect::Reset(1, 1, None),
    ));
    for (name, kind, length) in [
        ("length 0", 4, 0),
        ("length 18", 4, 18),
        ("length 4097 without RFC 8654", 2, 4097),
        ("length 65535", 2, 65535),
        ("KEEPALIVE of 20 octets", 4, 20),
        ("UPDATE of 22 octets", 2, 22),
        ("NOTIFICATION of 20 octets", 3, 20),
        ("OPEN of 28 octets", 1, 28),
    ] {
        let body = vec![0; usize::from(length.clamp(19, 64)) - 19];
        cases.push(case(
            S,
            name,
            with_length(kind, length, &body),
            bad_length(length),
        ));
    }
    for (name, kind) in [
        ("type 0", 0),
        ("type 6", 6),
        ("type 99", 99),
        ("type 255", 255),
    ] {
        cases.push(case(
            S,
            name,
            message(kind, &[0; 4]),
            Expect::Reset(1, 3, Some(vec![kind])),
        ));
    }
    let two = [message(4, &[]), message(4, &[])].concat();
    cases.push(case(
        "RFC 4271 4.4",
        "KEEPALIVEs back to back",
        two,
        Expect::Kept,
    ));
    let end = message(2, &[0, 0, 0, 0]);
    cases.push(case(
        "RFC 4724 2",
        "End-of-RIB again and again",
        end.repeat(50),
        Expect::Kept,
    ));
    cases
}

#[test]
fn headers() {
    run_all(cases());
}

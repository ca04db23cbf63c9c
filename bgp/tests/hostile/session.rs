//! Messages that a state does not allow, and the ends of sessions (RFC 4271 sections 6.4 to 6.6 and 8, RFC 6608).

use super::case::{ATTACKER_ID, Case, Expect, When, case, plain, run_all};
use super::messages::{VICTIM, message, update};
use super::peer::Peer;

pub(crate) fn cases() -> Vec<Case> {
    let s = "RFC 6608";
    let open = Peer::usual_open(65001, ATTACKER_ID);
    let routes = update(&[], &plain(super::case::From::External), VICTIM);
    let keepalive = message(4, &[]);
    let refresh = message(5, &[0, 1, 0, 1]);
    let reset = |subcode, kind: u8| Expect::Reset(5, subcode, Some(vec![kind]));
    let first = When::InsteadOfOpen;
    let second = When::AfterOpen;
    vec![
        case(s, "KEEPALIVE before OPEN", keepalive, reset(1, 4)).when(first),
        case(s, "UPDATE before OPEN", routes.clone(), reset(1, 2)).when(first),
        case(s, "ROUTE-REFRESH before OPEN", refresh.clone(), reset(1, 5)).when(first),
        case(
            "RFC 4271 8.2.2",
            "NOTIFICATION before OPEN",
            message(3, &[6, 2]),
            Expect::Closed,
        )
        .when(first),
        case(
            s,
            "a second OPEN before KEEPALIVE",
            open.clone(),
            reset(2, 1),
        )
        .when(second),
        case(s, "UPDATE before KEEPALIVE", routes, reset(2, 2)).when(second),
        case(
            s,
            "ROUTE-REFRESH before KEEPALIVE",
            refresh.clone(),
            reset(2, 5),
        )
        .when(second),
        case(
            "RFC 4271 8.2.2",
            "NOTIFICATION after OPEN",
            message(3, &[6, 4]),
            Expect::Closed,
        )
        .when(second),
        case(s, "OPEN on an established session", open, reset(3, 1)),
        case(
            "RFC 4271 6.5",
            "NOTIFICATION Cease",
            message(3, &[6, 2]),
            Expect::Closed,
        ),
        case(
            "RFC 4271 6.4",
            "NOTIFICATION of an unknown code",
            message(3, &[99, 99, 1, 2, 3]),
            Expect::Closed,
        ),
        case(
            "RFC 9003",
            "a shutdown text longer than the message",
            message(3, &[6, 2, 200, b'x']),
            Expect::Closed,
        ),
        case(
            "RFC 9003",
            "a shutdown text that is no UTF-8",
            message(3, &[6, 2, 3, 0xff, 0xfe, 0x1b]),
            Expect::Closed,
        ),
        case(
            "RFC 2918",
            "ROUTE-REFRESH for a family not carried",
            message(5, &[0, 25, 0, 70]),
            Expect::Kept,
        ),
        case(
            "RFC 2918",
            "ROUTE-REFRESH a hundred times",
            refresh.repeat(100),
            Expect::Kept,
        ),
        case(
            "RFC 5291",
            "ROUTE-REFRESH with filters nobody negotiated",
            message(5, &[0, 1, 0, 1, 1, 64, 0, 3, 1, 2, 3]),
            Expect::Kept,
        ),
        case(
            "RFC 7313",
            "ROUTE-REFRESH of an unknown kind",
            message(5, &[0, 1, 77, 1]),
            Expect::Kept,
        ),
        case(
            "RFC 7313",
            "BoRR with octets after it",
            message(5, &[0, 1, 1, 1, 0]),
            Expect::Reset(7, 1, Some(message(5, &[0, 1, 1, 1, 0]))),
        ),
        case(
            "RFC 7313",
            "EoRR without a BoRR",
            message(5, &[0, 1, 2, 1]),
            Expect::Kept,
        ),
    ]
}

#[test]
fn states() {
    run_all(cases());
}

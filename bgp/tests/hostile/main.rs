//! What a hostile or clumsy peer can send, and what must become of it: a black-box matrix over real TCP.
//!
//! In each case a speaker runs with two peers, played by the test octet by octet. The attacker announces the victim prefix,
//! the observer (a third AS) sees it; then the attacker sends what the case is about. The observer sees the effect on the
//! victim, and a good prefix sent afterwards proves that the session still works; or the attacker receives the NOTIFICATION
//! that the case names, and the observer the withdrawal.
//!
//! | file | what |
//! |---|---|
//! | `messages` | octets of messages, right and wrong |
//! | `peer` | a peer played by hand |
//! | `case` | one case: its form and how it is run |
//! | `header`, `open`, `session` | RFC 4271 sections 6.1, 6.2, 6.5 and 8 |
//! | `attributes`, `paths`, `routes` | RFC 4271 section 6.3 as RFC 7606 revised it |
//! | `incidents` | what has brought down other implementations |
//! | `floods`, `slow`, `exhaustion` | too many connections, too little reading, too few descriptors |

#![cfg(feature = "speaker")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod attributes;
mod case;
mod exhaustion;
mod floods;
mod header;
mod incidents;
mod messages;
mod open;
mod paths;
mod peer;
mod routes;
mod session;
mod slow;

#[test]
fn the_matrix_has_a_hundred_messages() {
    let count = header::cases().len()
        + open::cases().len()
        + session::cases().len()
        + attributes::cases().len()
        + paths::cases().len()
        + routes::cases().len()
        + incidents::cases().len();
    assert!(count >= 100, "{count} cases");
}

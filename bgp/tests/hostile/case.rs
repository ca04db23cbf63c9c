//! One case of the matrix: its form, and how it is run.

use std::net::{IpAddr, SocketAddr};

use margay_bgp::speaker::daemon::{Daemon, File};
use margay_bgp::wire::{Notification, PathAttributes};
use serde_json::json;

use super::messages::{GOOD, VICTIM, as_path, attribute, next_hop, old_segment, origin, update};
use super::peer::{Ended, Peer, prefix};

/// What the attacker is to the speaker, which is AS 65000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// AS 65001 with four-octet AS numbers.
    External,
    /// AS 65001 without.
    OldExternal,
    /// AS 65000.
    Internal,
}

/// What must become of the message.
#[derive(Debug, Clone)]
pub(crate) enum Expect {
    /// The victim is withdrawn; the session goes on.
    Withdrawn,
    /// Nothing changes; the session goes on.
    Kept,
    /// The victim is announced anew, and its attributes pass the check; the session goes on.
    Announced(fn(&PathAttributes) -> bool),
    /// This prefix is there afterwards; the session goes on.
    Accepted(&'static str),
    /// The session ends with this code and subcode, and these data if they matter.
    Reset(u8, u8, Option<Vec<u8>>),
    /// The connection is closed without a word.
    Closed,
}

/// When the message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// In place of the attacker's OPEN.
    InsteadOfOpen,
    /// After the OPEN, in place of the KEEPALIVE.
    AfterOpen,
    /// On the established session.
    Established,
}

pub(crate) struct Case {
    /// The section that asks for it, or the incident.
    pub(crate) source: &'static str,
    pub(crate) name: &'static str,
    pub(crate) from: From,
    pub(crate) when: When,
    pub(crate) message: Vec<u8>,
    pub(crate) expect: Expect,
}

/// A case on an established external session.
pub(crate) fn case(
    source: &'static str,
    name: &'static str,
    message: Vec<u8>,
    expect: Expect,
) -> Case {
    Case {
        source,
        name,
        from: From::External,
        when: When::Established,
        message,
        expect,
    }
}

impl Case {
    pub(crate) fn from(self, from: From) -> Self {
        Self { from, ..self }
    }

    pub(crate) fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

/// Runs all cases, each with a speaker of its own, and reports every one that failed.
pub(crate) fn run_all(cases: Vec<Case>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let failures: Vec<_> = cases
        .iter()
        .filter_map(|case| {
            let failure = run(&runtime, case).err()?;
            Some(format!("{} ({}): {failure}", case.name, case.source))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {} cases failed:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}

pub(crate) const ATTACKER: [u8; 4] = [127, 0, 0, 2];
pub(crate) const OBSERVER: [u8; 4] = [127, 0, 0, 3];
pub(crate) const ATTACKER_ID: [u8; 4] = [10, 0, 0, 2];
pub(crate) const OBSERVER_ID: [u8; 4] = [10, 0, 0, 3];

/// A speaker with both peers configured, and where it listens.
pub(crate) fn start(runtime: &tokio::runtime::Runtime, from: From) -> (Daemon, SocketAddr) {
    start_with(runtime, from, json!({}))
}

/// The same, with other fields in the attacker's entry.
pub(crate) fn start_with(
    runtime: &tokio::runtime::Runtime,
    from: From,
    fields: serde_json::Value,
) -> (Daemon, SocketAddr) {
    let asn = if from == From::Internal { 65000 } else { 65001 };
    let mut file = json!({
        "asn": 65000,
        "routerId": "10.0.0.1",
        "listen": [{ "address": "127.0.0.1", "port": 0 }],
        "requirePolicy": false,
        "neighbors": [
            { "address": IpAddr::from(ATTACKER), "asn": asn, "passive": true,
              "families": ["ipv4-unicast", "ipv6-unicast"] },
            { "address": IpAddr::from(OBSERVER), "asn": 65002, "passive": true,
              "families": ["ipv4-unicast", "ipv6-unicast"] },
        ],
        // A next hop for IPv6 routes on a session over IPv4.
        "nextHop": { "ipv6": "2001:db8::1" },
    });
    for (field, value) in fields.as_object().unwrap() {
        file["neighbors"][0][field] = value.clone();
    }
    let file: File = serde_json::from_value(file).unwrap();
    runtime.block_on(async {
        let daemon = Daemon::start(&file).await.unwrap();
        let address = daemon.speaker().listening().await.unwrap()[0];
        (daemon, address)
    })
}

/// The attributes of a plain announcement by the attacker.
pub(crate) fn plain(from: From) -> Vec<Vec<u8>> {
    let path = match from {
        From::External => as_path(&[65001]),
        From::OldExternal => attribute(0x40, 2, &old_segment(2, &[65001])),
        From::Internal => attribute(0x40, 2, &[]),
    };
    let mut list = vec![origin(), path, next_hop([192, 0, 2, 1])];
    if from == From::Internal {
        list.push(attribute(0x40, 5, &[0, 0, 0, 100]));
    }
    list
}

fn run(runtime: &tokio::runtime::Runtime, case: &Case) -> Result<(), String> {
    let (daemon, address) = start(runtime, case.from);
    let outcome = play(case, address);
    runtime.block_on(daemon.shutdown());
    outcome
}

fn play(case: &Case, address: SocketAddr) -> Result<(), String> {
    let mut observer = Peer::connect(OBSERVER.into(), address);
    observer.establish(&Peer::usual_open(65002, OBSERVER_ID), true);
    let mut attacker = Peer::connect(ATTACKER.into(), address);
    match case.when {
        When::InsteadOfOpen => attacker.send(&case.message),
        When::AfterOpen => {
            attacker.send(&open_of(case.from));
            attacker.send(&case.message);
        }
        When::Established => {
            establish(&mut attacker, case.from);
            attacker.send(&update(&[], &plain(case.from), VICTIM));
            if !observer.wait_until(|peer| peer.routes.contains_key(&victim())) {
                return Err("the victim never arrived".to_owned());
            }
            attacker.send(&case.message);
        }
    }
    judge(case, &mut attacker, &mut observer)
}

fn victim() -> margay_bgp::types::Prefix {
    prefix("203.0.113.0/24")
}

fn open_of(from: From) -> Vec<u8> {
    match from {
        From::External => Peer::usual_open(65001, ATTACKER_ID),
        From::OldExternal => Peer::old_open(65001, ATTACKER_ID),
        From::Internal => Peer::usual_open(65000, ATTACKER_ID),
    }
}

pub(crate) fn establish(attacker: &mut Peer, from: From) {
    if from == From::Internal {
        attacker.set_internal();
    }
    attacker.establish(&open_of(from), from != From::OldExternal);
}

fn judge(case: &Case, attacker: &mut Peer, observer: &mut Peer) -> Result<(), String> {
    match &case.expect {
        Expect::Reset(code, subcode, data) => {
            let ended = attacker.end();
            let Some(Ended::Notified(notification)) = &ended else {
                return Err(format!(
                    "expected NOTIFICATION {code}/{subcode}, got {ended:?}"
                ));
            };
            check_notification(notification, *code, *subcode, data.as_deref())?;
            gone(case, observer)
        }
        Expect::Closed => {
            let ended = attacker.end();
            if ended != Some(Ended::Closed) {
                return Err(format!("expected a silent close, got {ended:?}"));
            }
            gone(case, observer)
        }
        living => {
            attacker.send(&update(&[], &plain(case.from), GOOD));
            let good = prefix("198.51.100.0/24");
            if !observer.wait_until(|peer| peer.routes.contains_key(&good)) {
                attacker.drain();
                return Err(format!("the session works no more: {:?}", attacker.ended));
            }
            observer.drain();
            check_routes(living, observer)
        }
    }
}

fn check_notification(
    notification: &Notification,
    code: u8,
    subcode: u8,
    data: Option<&[u8]>,
) -> Result<(), String> {
    let got = (notification.code, notification.subcode);
    if got != (code, subcode) {
        return Err(format!(
            "expected NOTIFICATION {code}/{subcode}, got {got:?}"
        ));
    }
    match data {
        Some(data) if data != &notification.data[..] => Err(format!(
            "NOTIFICATION {code}/{subcode}: expected data {data:?}, got {:?}",
            &notification.data[..]
        )),
        _ => Ok(()),
    }
}

/// After the end of the session the observer must not have the victim any more, and still be connected.
fn gone(case: &Case, observer: &mut Peer) -> Result<(), String> {
    if case.when == When::Established
        && !observer.wait_until(|peer| !peer.routes.contains_key(&victim()))
    {
        return Err("the victim was not withdrawn after the session's end".to_owned());
    }
    observer.drain();
    match &observer.ended {
        None => Ok(()),
        Some(ended) => Err(format!("the observer's session ended too: {ended:?}")),
    }
}

fn check_routes(expect: &Expect, observer: &Peer) -> Result<(), String> {
    let attributes = observer.routes.get(&victim());
    match (expect, attributes) {
        (Expect::Withdrawn, Some(_)) => Err("the victim was not withdrawn".to_owned()),
        (Expect::Kept | Expect::Announced(_) | Expect::Accepted(_), None) => {
            Err("the victim was withdrawn".to_owned())
        }
        (Expect::Announced(check), Some(attributes)) if !check(attributes) => {
            Err(format!("the victim's attributes are {attributes:?}"))
        }
        (Expect::Accepted(text), _) if !observer.routes.contains_key(&prefix(text)) => Err(
            format!("{text} was not announced: {:?}", observer.routes.keys()),
        ),
        _ => Ok(()),
    }
}

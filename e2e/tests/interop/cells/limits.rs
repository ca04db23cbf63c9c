//! Too many prefixes: whoever limits, the other learns why the session ended (RFC 4486 subcode 1).

use serde_json::json;

use super::{Ground, Row, US, all};
use crate::daemons::{Kind, complains};
use crate::model::{Session, Side, THEIRS};
use crate::ours::{Config, them};
use crate::process::{ensure, wait};

const GROUP: &str = "Prefix limit";
const OF_THEIRS: [&str; 5] = [
    "10.2.0.0/24",
    "10.2.1.0/24",
    "10.2.2.0/24",
    "10.2.3.0/24",
    "10.2.4.0/24",
];
const OF_OURS: [&str; 5] = [
    "10.1.0.0/24",
    "10.1.1.0/24",
    "10.1.2.0/24",
    "10.1.3.0/24",
    "10.1.4.0/24",
];

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "we-limit",
            title: "the daemon sends more than we take: Cease/1, and both sides say why",
            run: we_limit,
            lacks: all,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "they-limit",
            title: "we send more than the daemon takes: Cease/1, and our state says why",
            run: they_limit,
            lacks: cannot_limit,
            seconds: 4,
        },
    ]
}

fn cannot_limit(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Exabgp).then_some("it has no limit")
}

fn we_limit(ground: &Ground) -> Result<(), String> {
    let daemon = ground.daemon(Side::new(vec![Session::with_us(0)]).announcing(&OF_THEIRS))?;
    let limit = json!({ "maxPrefixes": { "limit": 3, "action": "teardown" } });
    let ours = ground.ours(&Config::new().neighbor(them(0, limit)))?;
    ours.complains(THEIRS[0], &["prefixes", "6/1"])?;
    wait("the routes to be gone", || {
        let left = ours.counter(THEIRS[0], "prefixesReceived")?;
        ensure(left == 0 && ours.is_established(THEIRS[0]).is_err(), || {
            format!("{left} left")
        })
    })?;
    let words = match ground.kind {
        Kind::Bird => "Maximum number of prefixes reached",
        Kind::Frr => "Maximum Number of Prefixes Reached",
        Kind::Gobgp => "code 6(cease) subcode 1(maximum number of prefixes reached)",
        Kind::Openbgpd => "Last error received: Cease, received max-prefix exceeded",
        Kind::Exabgp => "Maximum Number of Prefixes Reached",
    };
    complains(&*daemon, US, words)
}

fn they_limit(ground: &Ground) -> Result<(), String> {
    let session = Session {
        max_prefixes: Some(3),
        ..Session::with_us(0)
    };
    let daemon = ground.daemon(Side::new(vec![session]))?;
    let ours = ground.ours(&Config::with_them(0).announcing(&OF_OURS))?;
    let error = ours.complains(THEIRS[0], &["maximum number of prefixes", "6/1"])?;
    ensure(error.contains("6/1"), || error.clone())?;
    drop(daemon);
    Ok(())
}

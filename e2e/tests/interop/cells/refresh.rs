//! Route refresh (RFC 2918): the request, and that everything comes again.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Ground, Row, US};
use crate::daemons::{Kind, has};
use crate::model::{Session, Side, THEIRS};
use crate::ours::Config;
use crate::process::{ensure, wait};

const GROUP: &str = "Route refresh";

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "they-refresh",
            title: "the daemon asks, we send everything again",
            run: they_ask,
            lacks: cannot_ask,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "we-refresh",
            title: "we ask, the daemon sends everything again",
            run: we_ask,
            lacks: cannot_answer,
            seconds: 4,
        },
    ]
}

fn cannot_ask(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Gobgp).then_some("`softresetin` goes through what it has kept; it never asks")
}

fn cannot_answer(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Openbgpd).then_some(
        "this version answers no request, BIRD's neither: it logs \"route refresh: AID IPv4 unicast not negotiated\" of a family \
         that is",
    )
}

fn they_ask(ground: &Ground) -> Result<(), String> {
    let daemon =
        ground.daemon(Side::new(vec![Session::with_us(0)]).announcing(&["10.2.0.0/24"]))?;
    let ours = ground.ours(&Config::with_them(0).announcing(&["10.1.0.0/24"]))?;
    ours.established(THEIRS[0])?;
    has(&*daemon, "10.1.0.0/24", 1)?;
    let before = ours.counter(THEIRS[0], "messagesSentByType.update")?;
    daemon.refresh(US)?;
    wait("the request and our answer", || {
        let asked = ours.counter(THEIRS[0], "messagesReceivedByType.routeRefresh")?;
        let sent = ours.counter(THEIRS[0], "messagesSentByType.update")?;
        ensure(asked > 0 && sent > before, || {
            format!("{asked} request(s), UPDATEs sent: {before}, then {sent}")
        })
    })?;
    has(&*daemon, "10.1.0.0/24", 1)?;
    ours.is_established(THEIRS[0])
}

fn we_ask(ground: &Ground) -> Result<(), String> {
    // With graceful restart, which is what brings an End-of-RIB: FRR 8.4 leaves a request unanswered until it has sent one.
    // Only we dial: when two connections collide, ExaBGP may close the one that was chosen.
    let session = Session {
        passive: true,
        graceful_restart: true,
        ..Session::with_us(0)
    };
    let _daemon = ground.daemon(Side::new(vec![session]).announcing(&["10.2.0.0/24"]))?;
    let config = Config::with_them(0).set("gracefulRestart", json!({ "restartTime": 30 }));
    let ours = ground.ours(&config.announcing(&["10.1.0.0/24"]))?;
    ours.established(THEIRS[0])?;
    ours.has("10.2.0.0/24", 1)?;
    let before = ours.counter(THEIRS[0], "messagesReceivedByType.update")?;
    let mut asked: Option<Instant> = None;
    wait("the daemon's answer", || {
        // Once is not enough for a daemon that is still busy with its first table.
        if asked.is_none_or(|last| last.elapsed() > Duration::from_secs(2)) {
            let reply = ours.request(&json!({ "query": "refresh", "neighbor": THEIRS[0] }))?;
            if let Some(error) = reply["error"].as_str() {
                return Err(error.to_owned());
            }
            asked = Some(Instant::now());
        }
        let sent = ours.counter(THEIRS[0], "messagesSentByType.routeRefresh")?;
        let received = ours.counter(THEIRS[0], "messagesReceivedByType.update")?;
        ensure(sent > 0 && received > before, || {
            format!("{sent} request(s), UPDATEs received: {before}, then {received}")
        })
    })?;
    ours.has("10.2.0.0/24", 1)?;
    ours.is_established(THEIRS[0])
}

//! What is set up wrongly is said in the neighbor's state. (The wrong password is under security.)

use serde_json::json;

use super::{Ground, Row, all};
use crate::daemons::Kind;
use crate::model::{OUR_AS, OUR_ID, Session, Side, THEIRS, THIRD_AT_OURS};
use crate::monitor::{Event, Monitor, Plan};
use crate::ours::{Config, them, third};
use crate::process::{ensure, wait};

const GROUP: &str = "Reasons in our state";

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "wrong-as",
            title: "the daemon has another AS than we expect, and we than it expects",
            run: wrong_as,
            lacks: all,
            seconds: 6,
        },
        Row {
            group: GROUP,
            id: "same-id",
            title: "the daemon has our router id, inside one AS (RFC 6286)",
            run: same_id,
            lacks: all,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "hold-time",
            title: "the daemon does not accept our hold time",
            run: hold_time,
            lacks: no_least_hold_time,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "our-hold-time",
            title: "we do not accept a peer's hold time of 1 s (the third peer's, beside a session with the daemon)",
            run: hold_time_of_third,
            lacks: all,
            seconds: 4,
        },
    ]
}

fn no_least_hold_time(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Frr | Kind::Openbgpd => None,
        Kind::Bird => Some("this version takes any hold time from 3 s on"),
        Kind::Gobgp | Kind::Exabgp => Some("it takes any hold time from 3 s on"),
    }
}

fn wrong_as(ground: &Ground) -> Result<(), String> {
    // Over IPv4 we expect another AS, over IPv6 the daemon does.
    let other = Session {
        remote_asn: 64599,
        ..Session::with_us(1)
    };
    let _daemon = ground.daemon(Side::new(vec![Session::with_us(0), other]))?;
    let config = Config::new()
        .neighbor(them(0, json!({ "asn": 64598 })))
        .neighbor(them(1, json!({})));
    let ours = ground.ours(&config)?;
    let error = ours.complains(THEIRS[0], &["64598"])?;
    ensure(error.contains("64513"), || error.clone())?;
    // Whoever reads the OPEN first says so; from us it is the AS, from the daemon its NOTIFICATION.
    ours.complains(THEIRS[1], &["2/2", "bad peer as"]).map(drop)
}

fn same_id(ground: &Ground) -> Result<(), String> {
    let session = Session {
        remote_asn: OUR_AS,
        ..Session::with_us(0)
    };
    let side = Side {
        asn: OUR_AS,
        router_id: OUR_ID.to_owned(),
        ..Side::new(vec![session])
    };
    let _daemon = ground.daemon(side)?;
    let ours = ground.ours(&Config::new().neighbor(them(0, json!({ "asn": OUR_AS }))))?;
    ours.complains(THEIRS[0], &["bgp identifier", "router id", "2/3"])
        .map(drop)
}

fn hold_time(ground: &Ground) -> Result<(), String> {
    let session = Session {
        least_hold_time: Some(60),
        ..Session::with_us(0)
    };
    let _daemon = ground.daemon(Side::new(vec![session]))?;
    let ours = ground.ours(&Config::with_them(0))?;
    ours.complains(THEIRS[0], &["hold time", "2/6"]).map(drop)
}

fn hold_time_of_third(ground: &Ground) -> Result<(), String> {
    let _daemon = ground.daemon(Side::new(vec![Session::with_us(0)]))?;
    let ours = ground.ours(&Config::with_them(0).neighbor(third(0, json!({}))))?;
    ours.established(THEIRS[0])?;
    let monitor = Monitor::start(Plan {
        hold_time: 1,
        ..ground.third_at_us(0)
    });
    ours.complains(THIRD_AT_OURS[0], &["hold time"])?;
    wait("the NOTIFICATION", || {
        let events = monitor.events();
        ensure(events.contains(&Event::Notified(2, 6)), || {
            format!("{events:?}")
        })
    })?;
    ours.is_established(THEIRS[0])
}

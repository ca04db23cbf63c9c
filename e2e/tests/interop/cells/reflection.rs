//! Route reflection (RFC 4456), with either side as the reflector. The third peer is in the same AS.

use serde_json::json;

use super::{Ground, Row, all};
use crate::daemons::{Kind, has};
use crate::model::{
    OUR_AS, OUR_ID, Session, Side, THEIR_ID, THEIRS, THIRD_AT_OURS, THIRD_AT_THEIRS,
};
use crate::monitor::{Monitor, Plan};
use crate::ours::{Config, them, third};
use crate::process::ensure;

const GROUP: &str = "Route reflection";
const FROM_THIRD: &str = "10.3.0.0/24";

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "we-reflect",
            title: "the daemon is our client: its routes go to a peer of ours and that peer's to it",
            run: we_reflect,
            lacks: all,
            seconds: 5,
        },
        Row {
            group: GROUP,
            id: "they-reflect",
            title: "we are the daemon's client: our routes go to a peer of it and that peer's to us",
            run: they_reflect,
            lacks: cannot_reflect,
            seconds: 5,
        },
    ]
}

fn cannot_reflect(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Exabgp).then_some("it passes no routes on")
}

fn inside(plan: Plan) -> Plan {
    Plan {
        asn: OUR_AS,
        internal: true,
        announce: vec![FROM_THIRD.to_owned()],
        ..plan
    }
}

fn we_reflect(ground: &Ground) -> Result<(), String> {
    let side = Side {
        asn: OUR_AS,
        ..Side::new(vec![Session::with_us(0)])
    };
    let daemon = ground.daemon(side.announcing(&["10.2.0.0/24"]))?;
    let client = json!({ "asn": OUR_AS, "routeReflectorClient": true });
    let config = Config::new()
        .neighbor(them(0, client))
        .neighbor(third(0, json!({ "asn": OUR_AS })));
    let ours = ground.ours(&config)?;
    let monitor = Monitor::start(inside(ground.third_at_us(0)));
    ours.established(THEIRS[0])?;
    let reflected = monitor.has("10.2.0.0/24")?;
    let marks = (
        reflected.originator.map(|id| id.to_string()),
        reflected.clusters.len(),
    );
    ensure(marks == (Some(THEIR_ID.to_owned()), 1), || {
        format!("at the third peer: {reflected:?}")
    })?;
    let found = has(&*daemon, FROM_THIRD, 1)?;
    let good = found[0].as_path.is_empty()
        && found[0].originator == THIRD_AT_OURS[0]
        && found[0].clusters == [OUR_ID];
    ensure(good, || format!("with the daemon: {found:?}"))
}

fn they_reflect(ground: &Ground) -> Result<(), String> {
    let us = Session {
        remote_asn: OUR_AS,
        client: true,
        ..Session::with_us(0)
    };
    // Towards a peer that is not a client itself GoBGP 3.10 leaves the marks of reflection out.
    let peer = Session {
        remote_asn: OUR_AS,
        client: ground.kind == Kind::Gobgp,
        ..Session::with_third(0)
    };
    let daemon = ground.daemon(Side {
        asn: OUR_AS,
        ..Side::new(vec![us, peer])
    })?;
    let config = Config::new().neighbor(them(0, json!({ "asn": OUR_AS })));
    let ours = ground.ours(&config.announcing(&["10.1.0.0/24"]))?;
    let monitor = Monitor::start(inside(ground.third_at_them(0)));
    ours.established(THEIRS[0])?;
    has(&*daemon, "10.1.0.0/24", 1)?;
    let reflected = monitor.has("10.1.0.0/24")?;
    let marks = (
        reflected.originator.map(|id| id.to_string()),
        reflected.clusters.len(),
    );
    ensure(marks == (Some(OUR_ID.to_owned()), 1), || {
        format!("at the third peer: {reflected:?}")
    })?;
    let found = ours.has(FROM_THIRD, 1)?;
    let good = found[0].as_path.is_empty() && found[0].next_hop == THIRD_AT_THEIRS[0];
    ensure(good, || format!("with us: {found:?}"))
}

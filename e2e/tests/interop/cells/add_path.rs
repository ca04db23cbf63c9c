//! More than one path to a prefix (RFC 7911). The paths come from two sessions of the third peer, with two ASes.

use serde_json::json;

use super::{Ground, Row, all};
use crate::daemons::{Kind, has};
use crate::model::{Session, Side, THEIRS};
use crate::monitor::{Monitor, Plan};
use crate::ours::{Config, them, third};
use crate::process::{ensure, wait};

const GROUP: &str = "Add-path";
const PREFIX: &str = "10.3.0.0/24";

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "add-path-in",
            title: "the daemon sends two paths, we hold both",
            run: from_them,
            lacks: all,
            seconds: 5,
        },
        Row {
            group: GROUP,
            id: "add-path-out",
            title: "we send two paths, the daemon holds both; one goes, one stays",
            run: to_them,
            lacks: all,
            seconds: 6,
        },
    ]
}

fn announcing(plan: Plan) -> Plan {
    Plan {
        announce: vec![PREFIX.to_owned()],
        ..plan
    }
}

fn from_them(ground: &Ground) -> Result<(), String> {
    let session = Session {
        add_path_send: true,
        ..Session::with_us(0)
    };
    // ExaBGP passes nothing on, but can announce two paths of its own.
    let alone = ground.kind == Kind::Exabgp;
    let side = if alone {
        Side::new(vec![session]).announcing(&[PREFIX])
    } else {
        Side::new(vec![
            session,
            Session::with_third(0),
            Session::with_third(1),
        ])
    };
    let daemon = ground.daemon(side)?;
    let _third: Vec<_> = (0..2)
        .map(|index| Monitor::start(announcing(ground.third_at_them(index))))
        .collect();
    if !alone {
        has(&*daemon, PREFIX, 2)?;
    }
    let ours =
        ground.ours(&Config::new().neighbor(them(0, json!({ "addPath": { "receive": true } }))))?;
    let found = ours.has(PREFIX, 2)?;
    ensure(
        found.len() == 2 && found[0].as_path != found[1].as_path,
        || format!("{found:?}"),
    )
}

fn to_them(ground: &Ground) -> Result<(), String> {
    let session = Session {
        add_path_receive: true,
        ..Session::with_us(0)
    };
    let daemon = ground.daemon(Side::new(vec![session]))?;
    let config = Config::new().neighbor(them(0, json!({ "addPath": { "send": 4 } })));
    let ours = ground.ours(
        &config
            .neighbor(third(0, json!({})))
            .neighbor(third(1, json!({}))),
    )?;
    let mut sessions: Vec<_> = (0..2)
        .map(|index| Monitor::start(announcing(ground.third_at_us(index))))
        .collect();
    ours.has(PREFIX, 2)?;
    ours.established(THEIRS[0])?;
    let found = has(&*daemon, PREFIX, 2)?;
    let differ = found.len() == 2 && found[0].as_path != found[1].as_path;
    ensure(differ, || format!("with the daemon: {found:?}"))?;
    sessions.pop();
    wait("one of two paths to go", || {
        let found = daemon.paths(PREFIX)?;
        ensure(
            found.len() == 1 && found[0].as_path == "64512 64520",
            || format!("with the daemon: {found:?}"),
        )
    })
}

//! Who may speak: TCP-MD5 and GTSM.

use std::time::Duration;

use serde_json::json;

use super::{Ground, Row, all};
use crate::daemons::{Daemon, established};
use crate::model::{OURS, Session, Side, THEIRS};
use crate::ours::{Config, Ours, them};
use crate::process::holds;

const GROUP: &str = "Security";
/// Longer than both sides' connect retry time.
const A_WHILE: Duration = Duration::from_millis(2500);

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "md5",
            title: "TCP-MD5 with the same password, over IPv4 and over IPv6 (RFC 2385)",
            run: right_password,
            lacks: all,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "md5-wrong",
            title: "another password, and none at all: no session, and our state says why",
            run: wrong_password,
            lacks: all,
            seconds: 8,
        },
        Row {
            group: GROUP,
            id: "gtsm",
            title: "GTSM on both sides, over IPv4 and over IPv6 (RFC 5082)",
            run: hop_limit,
            lacks: all,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "gtsm-refused",
            title: "GTSM on our side alone: no session",
            run: hop_limit_refused,
            lacks: all,
            seconds: 4,
        },
    ]
}

fn secret(version: usize, password: &str) -> Session {
    Session {
        password: Some(password.to_owned()),
        ..Session::with_us(version)
    }
}

fn right_password(ground: &Ground) -> Result<(), String> {
    let daemon = ground.daemon(Side::new(vec![secret(0, "spotted"), secret(1, "spotted")]))?;
    let neighbor = |version| them(version, json!({ "password": "spotted" }));
    let ours = ground.ours(&Config::new().neighbor(neighbor(0)).neighbor(neighbor(1)))?;
    both_up(&ours, &*daemon)
}

fn both_up(ours: &Ours, daemon: &dyn Daemon) -> Result<(), String> {
    for version in 0..2 {
        ours.established(THEIRS[version])?;
        established(daemon, OURS[version])?;
    }
    Ok(())
}

fn wrong_password(ground: &Ground) -> Result<(), String> {
    // Over IPv4 the passwords differ, over IPv6 the daemon has none.
    let daemon = ground.daemon(Side::new(vec![secret(0, "spotted"), Session::with_us(1)]))?;
    let neighbor = |version| them(version, json!({ "password": "striped" }));
    let ours = ground.ours(&Config::new().neighbor(neighbor(0)).neighbor(neighbor(1)))?;
    for address in THEIRS {
        ours.complains(address, &["md5", "password"])?;
    }
    never_up(&ours, &*daemon, &[0, 1])
}

fn never_up(ours: &Ours, daemon: &dyn Daemon, versions: &[usize]) -> Result<(), String> {
    holds(A_WHILE, || {
        for &version in versions {
            if ours.is_established(THEIRS[version]).is_ok()
                || daemon.state(OURS[version])?.established
            {
                return Err(format!("the session over {} came up", OURS[version]));
            }
        }
        Ok(())
    })
}

fn hop_limit(ground: &Ground) -> Result<(), String> {
    let session = |version| Session {
        ttl_security: true,
        ..Session::with_us(version)
    };
    let daemon = ground.daemon(Side::new(vec![session(0), session(1)]))?;
    let neighbor = |version| them(version, json!({ "ttlSecurity": 1 }));
    let ours = ground.ours(&Config::new().neighbor(neighbor(0)).neighbor(neighbor(1)))?;
    both_up(&ours, &*daemon)?;
    // A session that stood on a TTL that is not kept up would not last.
    holds(Duration::from_secs(1), || {
        THEIRS
            .iter()
            .try_for_each(|address| ours.is_established(address))
    })
}

fn hop_limit_refused(ground: &Ground) -> Result<(), String> {
    let daemon = ground.daemon(Side::new(vec![Session::with_us(0), Session::with_us(1)]))?;
    let neighbor = |version| them(version, json!({ "ttlSecurity": 1 }));
    let ours = ground.ours(&Config::new().neighbor(neighbor(0)).neighbor(neighbor(1)))?;
    never_up(&ours, &*daemon, &[0, 1])
}

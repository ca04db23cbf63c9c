//! BFD (RFC 5880, 5881): up on both sides, and the session goes when packets no longer pass.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Ground, Row, US};
use crate::daemons::Kind;
use crate::model::{Session, Side, THEIRS};
use crate::ours::{Config, them};
use crate::process::{ask, ensure, wait, wait_for};

pub fn rows() -> Vec<Row> {
    vec![Row {
        group: "BFD",
        id: "bfd",
        title: "up at 50 ms; when packets are lost both drop the session, long before the hold time",
        run: bfd,
        lacks,
        seconds: 6,
    }]
}

fn lacks(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Bird | Kind::Frr => None,
        Kind::Gobgp => Some("this version has no BFD"),
        Kind::Openbgpd | Kind::Exabgp => Some("it has no BFD"),
    }
}

fn bfd(ground: &Ground) -> Result<(), String> {
    let session = |version| Session {
        bfd: true,
        ..Session::with_us(version)
    };
    let daemon = ground.daemon(
        Side::new(vec![session(0), session(1)]).announcing(&["10.2.0.0/24", "fd02::/64"]),
    )?;
    let fast = json!({ "bfd": { "minTx": 50, "minRx": 50, "multiplier": 3 } });
    let neighbor = |version| them(version, fast.clone());
    let ours = ground.ours(&Config::new().neighbor(neighbor(0)).neighbor(neighbor(1)))?;
    ours.has("10.2.0.0/24", 1)?;
    ours.has("fd02::/64", 1)?;
    for (version, address) in THEIRS.iter().enumerate() {
        wait("BFD to be up on both sides", || {
            let neighbor = ours.neighbor(address)?;
            let state = neighbor
                .get("bfd")
                .map(|bfd| bfd["state"].to_string().to_lowercase());
            let state = state.unwrap_or_default();
            let theirs = daemon.bfd_up(crate::model::OURS[version])?;
            ensure(state.contains("up") && theirs, || {
                format!("ours {state}, the daemon's up: {theirs}")
            })
        })?;
    }
    // Silence, as when a switch between the two dies.
    let rules = "table inet silence { chain in { type filter hook input priority 0; iifname eth0 drop; }; \
                 chain out { type filter hook output priority 0; oifname eth0 drop; }; }";
    let cut = Instant::now();
    let said = ask(&ground.fabric.them, "nft", &[rules])?;
    ensure(said.is_empty(), || said.clone())?;
    wait_for(Duration::from_secs(3), "the routes to go with us", || {
        let left = ours.paths("10.2.0.0/24")?.len() + ours.paths("fd02::/64")?.len();
        ensure(left == 0, || format!("{left} left"))
    })?;
    ensure(cut.elapsed() < Duration::from_secs(3), || {
        format!("it took {:?}", cut.elapsed())
    })?;
    ours.complains(THEIRS[0], &["bfd"])?;
    wait_for(
        Duration::from_secs(3),
        "the daemon to drop the session",
        || {
            let state = daemon.state(US)?;
            ensure(!state.established, || state.text.clone())
        },
    )
}

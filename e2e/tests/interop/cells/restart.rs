//! Graceful restart in both roles (RFC 4724): a third peer, next to the one that stays, sees no route go.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{AGAIN, Ground, Row, US};
use crate::daemons::{Daemon, Kind, established, has};
use crate::model::{Session, Side, THEIRS};
use crate::monitor::Monitor;
use crate::ours::{Config, them, third};
use crate::process::{ensure, holds, wait};

const GROUP: &str = "Graceful restart";

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "they-restart",
            title: "the daemon restarts: no route is withdrawn from a third peer of ours",
            run: they_restart,
            lacks: cannot_restart,
            seconds: 12,
        },
        Row {
            group: GROUP,
            id: "we-restart",
            title: "we restart, in order and by a crash: no route is withdrawn from a third peer of the daemon",
            run: we_restart,
            lacks: cannot_help,
            seconds: 14,
        },
    ]
}

fn cannot_restart(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Openbgpd => Some(
            "it helps others, but does not restart gracefully itself (bgpd.conf(5), announce restart)",
        ),
        _ => None,
    }
}

fn cannot_help(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Exabgp => Some("it passes no routes on and keeps none"),
        _ => None,
    }
}

fn restart() -> Value {
    json!({ "restartTime": 30, "forwardingPreserved": true })
}

fn they_restart(ground: &Ground) -> Result<(), String> {
    let session = Session {
        graceful_restart: true,
        ..Session::with_us(0)
    };
    let side = Side::new(vec![session]).announcing(&["10.2.0.0/24", "10.2.1.0/24"]);
    let mut daemon = ground.daemon(side)?;
    let config = Config::with_them(0)
        .neighbor(third(0, json!({})))
        .set("gracefulRestart", restart());
    let ours = ground.ours(&config.announcing(&["10.1.0.0/24"]))?;
    let monitor = Monitor::start(ground.third_at_us(0));
    ours.exchanged(THEIRS[0])?;
    for prefix in ["10.2.0.0/24", "10.2.1.0/24"] {
        monitor.has(prefix)?;
    }
    has(&*daemon, "10.1.0.0/24", 1)?;
    monitor.forget();
    daemon.crash();
    wait("our side to notice", || {
        let up = ours.is_established(THEIRS[0]).is_ok();
        ensure(!up, || "the session is still up".to_owned())
    })?;
    daemon.start(true)?;
    ours.exchanged(THEIRS[0])?;
    established(&*daemon, US)?;
    for prefix in ["10.2.0.0/24", "10.2.1.0/24"] {
        ours.has(prefix, 1)?;
    }
    has(&*daemon, "10.1.0.0/24", 1)?;
    holds(Duration::from_millis(500), || monitor.lost_nothing())
}

fn we_restart(ground: &Ground) -> Result<(), String> {
    let session = Session {
        graceful_restart: true,
        ..Session::with_us(0)
    };
    let daemon = ground
        .daemon(Side::new(vec![session, Session::with_third(0)]).announcing(&["10.2.0.0/24"]))?;
    let config = Config::new()
        .neighbor(them(0, json!({})))
        .set("gracefulRestart", restart());
    let mut config = config.announcing(&["10.1.0.0/24", "10.1.1.0/24"]);
    let mut ours = ground.ours(&config)?;
    let monitor = Monitor::start(ground.third_at_them(0));
    ours.exchanged(THEIRS[0])?;
    for prefix in ["10.1.0.0/24", "10.1.1.0/24"] {
        monitor.has(prefix)?;
    }
    monitor.forget();
    config.0["gracefulRestart"]["restarting"] = json!(true);
    for signal in [Signal::TERM, Signal::KILL] {
        ours.end(signal);
        wait("the daemon to notice", || {
            let state = daemon.state(US)?;
            ensure(!state.established, || state.text.clone())
        })?;
        ours.start_again(&config)?;
        ours.exchanged(THEIRS[0])?;
        ours.has("10.2.0.0/24", 1)?;
        established(&*daemon, US)?;
        for prefix in ["10.1.0.0/24", "10.1.1.0/24"] {
            has(&*daemon, prefix, 1)?;
        }
        holds(Duration::from_millis(500), || monitor.lost_nothing())
            .map_err(|error| format!("{signal:?}: {error}"))
            .map_err(|error| told_apart(&*daemon, error))?;
    }
    Ok(())
}

/// OpenBGPD 7.7 that connects in the very moment in which our process ends takes the failed connection for an open one, and
/// sends what it had for that on the next: a second OPEN in OpenConfirm, to which there is no answer but a NOTIFICATION (RFC
/// 4271 section 8.2.2), and that ends its keeping of routes. Its log tells.
fn told_apart(daemon: &dyn Daemon, error: String) -> String {
    let log = daemon.complaints(US).unwrap_or_default();
    let is_its_own = log.contains("getpeername: Transport endpoint is not connected")
        && log.contains("received unexpected message in OpenConfirm");
    match is_its_own {
        true => format!("{AGAIN}{error}"),
        false => error,
    }
}

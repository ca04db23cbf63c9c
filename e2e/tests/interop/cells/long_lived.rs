//! Long-lived graceful restart (RFC 9494) in both roles: who stays away beyond the restart time is the last resort.

use serde_json::{Value, json};

use super::{Ground, Row, US};
use crate::daemons::{Kind, has};
use crate::model::{Session, Side, THEIRS};
use crate::monitor::Monitor;
use crate::ours::{Config, Ours, them, third};
use crate::process::{ensure, wait};

const GROUP: &str = "Long-lived graceful restart";
const STALE: &str = "65535:6";
const THEIR_ROUTE: &str = "10.2.0.0/24";
const OUR_ROUTE: &str = "10.1.0.0/24";

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "llgr-helper",
            title: "the daemon stays away beyond its restart time: we keep its routes, and not for a third peer without the capability; it comes back (RFC 9494)",
            run: we_help,
            lacks,
            seconds: 16,
        },
        Row {
            group: GROUP,
            id: "llgr-restarter",
            title: "we stay away beyond our restart time: the daemon keeps our routes, marked LLGR_STALE; we come back",
            run: they_help,
            lacks,
            seconds: 16,
        },
    ]
}

fn lacks(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Openbgpd | Kind::Exabgp => Some("it has no long-lived graceful restart"),
        _ => None,
    }
}

fn restart() -> Value {
    json!({ "restartTime": 2, "forwardingPreserved": true, "longLivedTime": 600 })
}

fn session() -> Session {
    Session {
        graceful_restart: true,
        long_lived: true,
        ..Session::with_us(0)
    }
}

/// Whether our path to the daemon's route is the last resort.
fn is_last_resort(ours: &Ours) -> Result<bool, String> {
    let reply = ours.ask("rib")?;
    let mut routes = reply["routes"].as_array().into_iter().flatten();
    let route = routes.find(|route| route["prefix"] == THEIR_ROUTE);
    let route = route.ok_or_else(|| format!("{THEIR_ROUTE} is gone: {reply}"))?;
    Ok(route["longLivedStale"] == true)
}

fn we_help(ground: &Ground) -> Result<(), String> {
    let mut daemon = ground.daemon(Side::new(vec![session()]).announcing(&[THEIR_ROUTE]))?;
    let config = Config::with_them(0)
        .neighbor(third(0, json!({})))
        .set("gracefulRestart", restart());
    let ours = ground.ours(&config.announcing(&[OUR_ROUTE]))?;
    let monitor = Monitor::start(ground.third_at_us(0));
    ours.exchanged(THEIRS[0])?;
    monitor.has(THEIR_ROUTE)?;
    let agreed = ours.neighbor(THEIRS[0])?["agreed"].clone();
    ensure(
        agreed["longLivedTimes"]["ipv4-unicast"]
            .as_u64()
            .is_some_and(|t| t > 0),
        || format!("not agreed on: {agreed}"),
    )?;
    daemon.crash();
    wait("the route to be the last resort", || {
        let is = is_last_resort(&ours)?;
        ensure(is, || "it is not".to_owned())
    })?;
    wait("the third peer to have it no more", || {
        let held = monitor.held();
        ensure(!held.contains(THEIR_ROUTE), || format!("{held:?}"))
    })?;
    let line = ours.neighbor(THEIRS[0])?;
    // FRR sends our own route back as well, which counts although it is not used.
    let kept = line["longLivedRoutes"].as_u64().unwrap_or_default();
    ensure(kept >= 1, || format!("{line:?}"))?;
    ensure(line["longLivedUntil"]["ipv4-unicast"].is_string(), || {
        format!("{line:?}")
    })?;
    daemon.start(true)?;
    ours.exchanged(THEIRS[0])?;
    monitor.has(THEIR_ROUTE)?;
    let is = is_last_resort(&ours)?;
    ensure(!is, || "it is still the last resort".to_owned())?;
    has(&*daemon, OUR_ROUTE, 1).map(drop)
}

fn they_help(ground: &Ground) -> Result<(), String> {
    let daemon = ground.daemon(Side::new(vec![session()]).announcing(&[THEIR_ROUTE]))?;
    let config = Config::new()
        .neighbor(them(0, json!({})))
        .set("gracefulRestart", restart());
    let mut config = config.announcing(&[OUR_ROUTE]);
    let mut ours = ground.ours(&config)?;
    ours.exchanged(THEIRS[0])?;
    has(&*daemon, OUR_ROUTE, 1)?;
    ours.end(rustix::process::Signal::KILL);
    let marked = |wanted: bool| {
        wait("the daemon to see what the route is", || {
            let paths = daemon.paths(OUR_ROUTE)?;
            let is = |stale| {
                paths
                    .iter()
                    .any(|p| p.communities.iter().any(|c| c == STALE) == stale)
            };
            ensure(is(wanted), || {
                format!("{paths:?}; {}", daemon.state(US).unwrap_or_default().text)
            })
        })
    };
    marked(true)?;
    config.0["gracefulRestart"]["restarting"] = json!(true);
    ours.start_again(&config)?;
    ours.exchanged(THEIRS[0])?;
    ours.has(THEIR_ROUTE, 1)?;
    marked(false)
}

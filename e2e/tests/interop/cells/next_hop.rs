//! IPv4 routes over an IPv6 session, with IPv6 next hops (RFC 8950).

use serde_json::json;

use super::{Ground, Row};
use crate::daemons::{Kind, has};
use crate::model::{Families, OURS, Session, Side, THEIRS};
use crate::ours::{Config, them};
use crate::process::ensure;

pub fn rows() -> Vec<Row> {
    vec![Row {
        group: "IPv4 over an IPv6 next hop",
        id: "rfc8950",
        title: "IPv4 routes both ways over an IPv6 session, with its addresses as next hops (RFC 8950)",
        run: extended,
        lacks,
        seconds: 4,
    }]
}

fn lacks(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Openbgpd => Some("this version has no extended next hops"),
        _ => None,
    }
}

fn extended(ground: &Ground) -> Result<(), String> {
    let session = Session {
        families: Families::Both,
        extended_next_hop: true,
        ..Session::with_us(1)
    };
    let daemon = ground.daemon(Side::new(vec![session]).announcing(&["10.2.0.0/24"]))?;
    let fields = json!({ "families": ["ipv4-unicast", "ipv6-unicast"], "extendedNextHop": true });
    let ours = ground.ours(
        &Config::new()
            .neighbor(them(1, fields))
            .announcing(&["10.1.0.0/24"]),
    )?;
    let found = ours.has("10.2.0.0/24", 1)?;
    ensure(found[0].next_hop == THEIRS[1], || {
        format!("with us: {found:?}")
    })?;
    let found = has(&*daemon, "10.1.0.0/24", 1)?;
    // Some show the link-local address beside the global one.
    let hop = found[0]
        .next_hop
        .split_whitespace()
        .next()
        .unwrap_or_default();
    ensure(hop == OURS[1], || format!("with the daemon: {found:?}"))
}

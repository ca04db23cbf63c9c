//! Sessions: who dials, over which version of IP, with which routes and AS numbers.

use serde_json::json;

use super::{Ground, Row, all};
use crate::daemons::{Daemon, Kind, established, has};
use crate::model::{Families, OURS, Session, Side, THEIRS};
use crate::ours::{Config, Ours, them};
use crate::process::ensure;

const GROUP: &str = "Session";

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "we-dial",
            title: "we dial, over IPv4 and over IPv6",
            run: we_dial,
            lacks: all,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "they-dial",
            title: "the daemon dials, over IPv4 and over IPv6",
            run: they_dial,
            lacks: all,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "routes",
            title: "IPv4 and IPv6 routes both ways, each over a session of its own",
            run: routes,
            lacks: all,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "both-families",
            title: "IPv4 and IPv6 routes both ways over one session (RFC 4760)",
            run: both_families,
            lacks: no_next_hop,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "as4",
            title: "4-octet AS numbers on both sides (RFC 6793)",
            run: four_octets,
            lacks: all,
            seconds: 4,
        },
    ]
}

fn no_next_hop(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Openbgpd).then_some(
        "on Linux it gives ::1 as the next hop of IPv6 routes over IPv4, whatever `local-address` and `set nexthop` say; \
         we refuse such routes",
    )
}

fn we_dial(ground: &Ground) -> Result<(), String> {
    let passive = |version| Session {
        passive: true,
        ..Session::with_us(version)
    };
    let daemon = ground.daemon(Side::new(vec![passive(0), passive(1)]))?;
    let ours = ground.ours(&Config::with_them(0).neighbor(them(1, json!({}))))?;
    both_up(&ours, &*daemon)
}

fn they_dial(ground: &Ground) -> Result<(), String> {
    let daemon = ground.daemon(Side::new(vec![Session::with_us(0), Session::with_us(1)]))?;
    let passive = |version| them(version, json!({ "passive": true }));
    let ours = ground.ours(&Config::new().neighbor(passive(0)).neighbor(passive(1)))?;
    both_up(&ours, &*daemon)
}

fn both_up(ours: &Ours, daemon: &dyn Daemon) -> Result<(), String> {
    for version in 0..2 {
        ours.established(THEIRS[version])?;
        established(daemon, OURS[version])?;
    }
    Ok(())
}

fn routes(ground: &Ground) -> Result<(), String> {
    let side = Side::new(vec![Session::with_us(0), Session::with_us(1)]);
    let daemon = ground.daemon(side.announcing(&["10.2.0.0/24", "fd02::/64"]))?;
    let config = Config::with_them(0).neighbor(them(1, json!({})));
    let ours = ground.ours(&config.announcing(&["10.1.0.0/24", "fd01::/64"]))?;
    exchange(&ours, &*daemon, ["64513", "64512"])
}

fn both_families(ground: &Ground) -> Result<(), String> {
    let session = Session {
        families: Families::Both,
        ..Session::with_us(0)
    };
    let daemon =
        ground.daemon(Side::new(vec![session]).announcing(&["10.2.0.0/24", "fd02::/64"]))?;
    let both = json!({ "families": ["ipv4-unicast", "ipv6-unicast"] });
    let config = Config::new()
        .neighbor(them(0, both))
        .set("nextHop", json!({ "ipv6": OURS[1] }));
    let ours = ground.ours(&config.announcing(&["10.1.0.0/24", "fd01::/64"]))?;
    // What GoBGP gives as an IPv6 next hop over IPv4 is its IPv4 address, mapped.
    let hop = if ground.kind == Kind::Gobgp {
        "::ffff:10.99.0.2"
    } else {
        THEIRS[1]
    };
    exchange_with(&ours, &*daemon, ["64513", "64512"], hop)
}

fn four_octets(ground: &Ground) -> Result<(), String> {
    const FAR: [u32; 2] = [4_200_000_001, 4_200_000_002];
    let session = |version| Session {
        remote_asn: FAR[0],
        ..Session::with_us(version)
    };
    let side = Side {
        asn: FAR[1],
        ..Side::new(vec![session(0), session(1)])
    };
    let daemon = ground.daemon(side.announcing(&["10.2.0.0/24", "fd02::/64"]))?;
    let neighbor = |version| them(version, json!({ "asn": FAR[1] }));
    let config = Config::new()
        .set("asn", json!(FAR[0]))
        .neighbor(neighbor(0))
        .neighbor(neighbor(1));
    let ours = ground.ours(&config.announcing(&["10.1.0.0/24", "fd01::/64"]))?;
    exchange(&ours, &*daemon, ["4200000002", "4200000001"])
}

fn exchange(ours: &Ours, daemon: &dyn Daemon, paths: [&str; 2]) -> Result<(), String> {
    exchange_with(ours, daemon, paths, THEIRS[1])
}

/// Both have both prefixes of the other, with its AS and its address.
fn exchange_with(
    ours: &Ours,
    daemon: &dyn Daemon,
    paths: [&str; 2],
    hop: &str,
) -> Result<(), String> {
    for (prefix, next_hop) in [("10.2.0.0/24", THEIRS[0]), ("fd02::/64", hop)] {
        let found = ours.has(prefix, 1)?;
        ensure(
            found[0].as_path == paths[0] && found[0].next_hop == next_hop,
            || format!("with us: {found:?}"),
        )?;
    }
    for (prefix, next_hop) in [("10.1.0.0/24", OURS[0]), ("fd01::/64", OURS[1])] {
        let found = has(daemon, prefix, 1)?;
        let good = found[0].as_path == paths[1] && found[0].next_hop == next_hop;
        ensure(good, || format!("with the daemon: {found:?}"))?;
    }
    Ok(())
}

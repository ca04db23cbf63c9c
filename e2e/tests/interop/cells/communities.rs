//! Communities of the three kinds: from us to the daemon, and from the daemon to us.

use serde_json::json;

use super::{Ground, Row, all};
use crate::daemons::has;
use crate::model::{Extended, Route, Seen, Session, Side};
use crate::ours::Config;
use crate::process::ensure;

const GROUP: &str = "Communities";
const STANDARD: [&str; 2] = ["64512:77", "65001:1"];
const LARGE: [&str; 2] = ["4200000001:2:3", "65001:4294967295:0"];
const EXTENDED: [Extended; 2] = [
    Extended {
        target: false,
        asn: 65000,
        value: 8,
    },
    Extended {
        target: true,
        asn: 65000,
        value: 4_000_000_000,
    },
];

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "communities-out",
            title: "standard, large and extended ones arrive at the daemon (RFC 1997, 8092, 4360)",
            run: to_them,
            lacks: all,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "communities-in",
            title: "standard, large and extended ones arrive at ours",
            run: to_us,
            lacks: all,
            seconds: 4,
        },
    ]
}

fn to_them(ground: &Ground) -> Result<(), String> {
    let daemon = ground.daemon(Side::new(vec![Session::with_us(0)]))?;
    let extended: Vec<_> = EXTENDED
        .iter()
        .map(|e| format!("{:#018x}", e.number()))
        .collect();
    let config = Config::with_them(0).announce(json!({
        "prefix": "10.1.0.0/24", "communities": STANDARD, "largeCommunities": LARGE, "extendedCommunities": extended,
    }));
    let _ours = ground.ours(&config)?;
    compare(&has(&*daemon, "10.1.0.0/24", 1)?[0])
}

fn to_us(ground: &Ground) -> Result<(), String> {
    let texts = |list: [&str; 2]| list.map(str::to_owned).to_vec();
    let route = Route {
        prefix: "10.2.0.0/24".to_owned(),
        communities: texts(STANDARD),
        large: texts(LARGE),
        extended: EXTENDED.to_vec(),
    };
    let side = Side {
        routes: vec![route],
        ..Side::new(vec![Session::with_us(0)])
    };
    let _daemon = ground.daemon(side)?;
    let ours = ground.ours(&Config::with_them(0))?;
    compare(&ours.has("10.2.0.0/24", 1)?[0])
}

fn compare(seen: &Seen) -> Result<(), String> {
    ensure(seen.communities == STANDARD, || {
        format!("communities {:?}", seen.communities)
    })?;
    ensure(seen.large == LARGE, || {
        format!("large communities {:?}", seen.large)
    })?;
    let extended = EXTENDED.map(|e| e.to_string());
    ensure(seen.extended == extended, || {
        format!("extended communities {:?}", seen.extended)
    })
}

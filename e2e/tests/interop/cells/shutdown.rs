//! An administrator ends the session with a text for the other side (RFC 9003).

use serde_json::json;

use super::{Ground, Row, US};
use crate::daemons::{Kind, complains, established};
use crate::model::{Session, Side, THEIRS};
use crate::ours::Config;
use crate::process::ensure;

const GROUP: &str = "Shutdown message";
const TEXT: &str = "cable-works-until-noon";

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            group: GROUP,
            id: "we-shut-down",
            title: "ours is read at the daemon",
            run: we_shut_down,
            lacks: cannot_read,
            seconds: 4,
        },
        Row {
            group: GROUP,
            id: "they-shut-down",
            title: "the daemon's is read in our state",
            run: they_shut_down,
            lacks: cannot_speak,
            seconds: 4,
        },
    ]
}

fn cannot_read(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Exabgp).then_some(
        "this version fails on any text: it reports `can not decode update message of type \"3\"` (its decoder formats a str \
         into bytes)",
    )
}

fn cannot_speak(kind: Kind) -> Option<&'static str> {
    (kind == Kind::Exabgp).then_some("its command `teardown` takes a subcode and no text")
}

fn we_shut_down(ground: &Ground) -> Result<(), String> {
    let daemon = ground.daemon(Side::new(vec![Session::with_us(0)]))?;
    let config = Config::with_them(0);
    let ours = ground.ours(&config)?;
    ours.established(THEIRS[0])?;
    established(&*daemon, US)?;
    ours.reload(&config.set_neighbor(0, "adminDown", json!(TEXT)))?;
    complains(&*daemon, US, TEXT)
}

fn they_shut_down(ground: &Ground) -> Result<(), String> {
    let daemon = ground.daemon(Side::new(vec![Session::with_us(0)]))?;
    let ours = ground.ours(&Config::with_them(0))?;
    ours.established(THEIRS[0])?;
    established(&*daemon, US)?;
    daemon.shut_down(US, TEXT)?;
    let error = ours.complains(THEIRS[0], &[TEXT])?;
    ensure(error.contains("6/2"), || error.clone())
}

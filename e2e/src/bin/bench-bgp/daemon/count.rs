//! The daemons' own counters of prefixes received, asked for over their control sockets.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Kind;
use crate::net::Side;

pub(super) fn received(kind: Kind, folder: &Path) -> Result<u64> {
    match kind {
        Kind::Margay => margay(folder),
        Kind::Bird => bird(folder),
        Kind::Frr => frr(folder),
        Kind::Gobgp => gobgp(),
        Kind::Openbgpd => openbgpd(folder),
    }
}

fn connect(path: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(path).with_context(|| path.display().to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// Sends a question and reads until `over`.
fn ask(stream: &mut UnixStream, question: &[u8], over: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    stream.write_all(question)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 65_536];
    while !over(&answer) {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..count]);
    }
    Ok(answer)
}

fn margay(folder: &Path) -> Result<u64> {
    let mut stream = connect(&folder.join("ctl"))?;
    let answer = ask(&mut stream, b"{\"query\":\"summary\"}\n", |all| {
        all.ends_with(b"\n")
    })?;
    let answer: Value = serde_json::from_slice(&answer)?;
    let neighbors = answer["neighbors"].as_array().context("no neighbors")?;
    Ok(neighbors
        .iter()
        .filter_map(|n| n["prefixesReceived"].as_u64())
        .sum())
}

fn bird(folder: &Path) -> Result<u64> {
    let mut stream = connect(&folder.join("ctl"))?;
    let over = |all: &[u8]| {
        let last = all
            .split(|byte| *byte == b'\n')
            .rev()
            .nth(1)
            .unwrap_or_default();
        all.ends_with(b"\n")
            && (last.starts_with(b"0000 ")
                || last.starts_with(b"0001 ")
                || last.starts_with(b"0013 "))
    };
    ask(&mut stream, b"", |all| all.ends_with(b"\n"))?;
    let answer = ask(&mut stream, b"show protocols all\n", over)?;
    let answer = String::from_utf8_lossy(&answer);
    let counts = answer.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("Routes:")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(counts.sum())
}

/// Asks something that costs nothing; without an answer nothing is lost.
pub(super) fn poke_bird(folder: &Path) {
    if let Ok(mut stream) = connect(&folder.join("ctl")) {
        let _ = ask(&mut stream, b"", |all| all.ends_with(b"\n"));
    }
}

/// `vtysh`'s socket: commands end with a zero octet, answers with three and a status.
fn frr(folder: &Path) -> Result<u64> {
    let mut stream = connect(&folder.join("bgpd.vty"))?;
    let over = |all: &[u8]| all.len() >= 4 && all[all.len() - 4..all.len() - 1] == [0, 0, 0];
    ask(&mut stream, b"enable\0", over)?;
    let mut answer = ask(&mut stream, b"show bgp ipv4 unicast summary json\0", over)?;
    answer.truncate(answer.len().saturating_sub(4));
    let answer: Value = serde_json::from_slice(&answer)?;
    let peers = answer["peers"].as_object().context("no peers")?;
    Ok(peers
        .values()
        .filter_map(|peer| peer["pfxRcd"].as_u64())
        .sum())
}

/// `gobgp neighbor`: received and accepted are the last two columns.
fn gobgp() -> Result<u64> {
    let output = Side::Daemon.command("gobgp").arg("neighbor").output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let counts = text.lines().skip(1).filter_map(|line| {
        let (_, numbers) = line.rsplit_once('|')?;
        numbers.split_whitespace().next()?.parse::<u64>().ok()
    });
    Ok(counts.sum())
}

fn openbgpd(folder: &Path) -> Result<u64> {
    let socket = folder.join("ctl").display().to_string();
    let mut command = Side::Daemon.command("bgpctl");
    let output = command.args(["-s", &socket, "show", "summary"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let counts = text.lines().skip(1).filter_map(|line| {
        line.split_whitespace()
            .last()?
            .split('/')
            .next()?
            .parse::<u64>()
            .ok()
    });
    Ok(counts.sum())
}

//! OpenBGPD. Its control socket is in our folder; its processes drop to Debian's user `_openbgpd` in an empty folder under
//! /run, which has to be there.

use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;

use super::{Daemon, Place};
use crate::model::{Extended, Route, Seen, Session, Side, State};
use crate::process::{Running, ask, ensure, wait};

/// Where the unprivileged processes lock themselves in.
const JAIL: &str = "/run/openbgpd";

pub struct Openbgpd {
    place: Place,
    side: Side,
    process: Option<Running>,
}

impl Openbgpd {
    pub fn new(place: Place, side: Side) -> Self {
        Self {
            place,
            side,
            process: None,
        }
    }

    fn bgpctl(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.place.text("ctl");
        ask(
            &self.place.namespace,
            "bgpctl",
            &[&["-s", &socket], arguments].concat(),
        )
    }

    fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.bgpctl(&[&["-j"], arguments].concat())?;
        serde_json::from_str(&text)
            .map_err(|error| format!("bgpctl {arguments:?}: {error}: {text}"))
    }
}

impl Daemon for Openbgpd {
    fn start(&mut self, _again: bool) -> Result<(), String> {
        std::fs::create_dir_all(JAIL).map_err(|error| format!("{JAIL}: {error}"))?;
        self.place
            .write("bgpd.conf", &configuration(&self.side, &self.place))?;
        let file = self.place.file("bgpd.conf");
        // Others must not be able to read it.
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| error.to_string())?;
        let log = self.place.file("bgpd.log");
        let arguments = ["-d", "-v", "-f", &*file.to_string_lossy()];
        self.process = Some(Running::start(
            &self.place.namespace,
            &log,
            "/usr/sbin/bgpd",
            &arguments,
        )?);
        wait("OpenBGPD to answer", || {
            self.json(&["show", "neighbor"]).map(drop)
        })
        .map_err(|error| format!("{error}: {}", self.place.read("bgpd.log")))
    }

    fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::KILL);
        }
    }

    fn state(&self, remote: &str) -> Result<State, String> {
        let reply = self.json(&["show", "neighbor", remote])?;
        let neighbor = &reply["neighbors"][0];
        let established = neighbor["state"] == "Established";
        let text = format!("{} {}", neighbor["state"], neighbor["last_error_sent"]);
        Ok(State { established, text })
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Seen>, String> {
        let reply = self.json(&["show", "rib", "detail", prefix])?;
        let paths = reply["rib"].as_array().cloned().unwrap_or_default();
        let ours = |path: &&Value| path["neighbor"]["description"] == "LOCAL";
        Ok(paths.iter().filter(|path| !ours(path)).map(seen).collect())
    }

    fn refresh(&self, remote: &str) -> Result<(), String> {
        let answer = self.bgpctl(&["neighbor", remote, "refresh"])?;
        ensure(answer.contains("request processed"), || answer.clone())
    }

    fn shut_down(&self, remote: &str, text: &str) -> Result<(), String> {
        let answer = self.bgpctl(&["neighbor", remote, "down", text])?;
        ensure(answer.contains("request processed"), || answer.clone())
    }

    fn complaints(&self, remote: &str) -> Result<String, String> {
        Ok(self.bgpctl(&["show", "neighbor", remote])? + &self.place.read("bgpd.log"))
    }
}

fn seen(path: &Value) -> Seen {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let extended = list(&path["extended_communities"]);
    // Attributes that are rare come in a list of their own.
    let rare = |name: &str| -> Value {
        let mut all = path["attributes"].as_array().into_iter().flatten();
        all.find_map(|attribute| attribute.get(name))
            .cloned()
            .unwrap_or_default()
    };
    Seen {
        as_path: text(&path["aspath"]),
        next_hop: text(&path["exit_nexthop"]),
        communities: list(&path["communities"]),
        large: list(&path["large_communities"]),
        extended: extended
            .iter()
            .map(|one| one.replace("soo ", "ro:").replace(' ', ":"))
            .collect(),
        originator: text(&rare("originator")),
        clusters: list(&rare("cluster_list")),
    }
    .sorted()
}

fn configuration(side: &Side, place: &Place) -> String {
    let mut text = format!(
        "AS {}\nrouter-id {}\nfib-update no\nsocket \"{}\"\nconnect-retry 1\nholdtime 9\nnexthop qualify via default\nlog updates\n",
        side.asn,
        side.router_id,
        place.text("ctl"),
    );
    let mut listening: Vec<_> = side.sessions.iter().map(|session| session.local).collect();
    listening.sort_unstable();
    listening.dedup();
    for address in listening {
        let _ = writeln!(text, "listen on {address}");
    }
    for route in &side.routes {
        let _ = writeln!(text, "network {}{}", route.prefix, attributes(route));
    }
    for session in &side.sessions {
        neighbor(&mut text, session);
    }
    text.push_str("allow from any\nallow to any\n");
    text
}

fn attributes(route: &Route) -> String {
    if !route.has_attributes() {
        return String::new();
    }
    let mut text = " set {".to_owned();
    for community in &route.communities {
        let _ = write!(text, " community {community}");
    }
    for community in &route.large {
        let _ = write!(text, " large-community {community}");
    }
    for Extended { target, asn, value } in &route.extended {
        let _ = write!(
            text,
            " ext-community {} {asn}:{value}",
            if *target { "rt" } else { "soo" }
        );
    }
    text + " }"
}

fn neighbor(text: &mut String, session: &Session) {
    let Session {
        local,
        remote,
        remote_asn,
        families,
        ..
    } = session;
    let _ = write!(
        text,
        "neighbor {remote} {{\n  remote-as {remote_asn}\n  local-address {local}\n"
    );
    let mut line = |what: &str| _ = writeln!(text, "  {what}");
    let word = |wanted| if wanted { "unicast" } else { "none" };
    line(&format!("announce IPv4 {}", word(families.v4())));
    line(&format!("announce IPv6 {}", word(families.v6())));
    for (wanted, what) in [
        (session.passive, "passive"),
        (session.ttl_security, "ttl-security yes"),
        (session.client, "route-reflector"),
        (session.add_path_receive, "announce add-path recv yes"),
        (session.add_path_send, "announce add-path send all"),
        (session.graceful_restart, "announce restart yes"),
    ] {
        if wanted {
            line(what);
        }
    }
    if let Some(password) = &session.password {
        line(&format!("tcp md5sig password {password}"));
    }
    if let Some(limit) = session.max_prefixes {
        line(&format!("max-prefix {limit}"));
    }
    if let Some(seconds) = session.least_hold_time {
        line(&format!("holdtime min {seconds}"));
    }
    text.push_str("}\n");
}

//! ExaBGP: no routing table of its own. A script that it runs writes down what it reports as JSON and hands it commands; the
//! table here is made from that.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;

use super::{Daemon, Place};
use crate::model::{Extended, Route, Seen, Session, Side, State, THEIRS};
use crate::process::{Running, ensure, wait};

pub struct Exabgp {
    place: Place,
    side: Side,
    process: Option<Running>,
    /// Each life has files of its own.
    life: Cell<u32>,
}

impl Exabgp {
    pub fn new(place: Place, side: Side) -> Self {
        Self {
            place,
            side,
            process: None,
            life: Cell::new(0),
        }
    }

    fn file(&self, name: &str) -> String {
        format!("{name}.{}", self.life.get())
    }

    fn events(&self) -> Vec<Value> {
        let text = self.place.read(&self.file("events"));
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    fn command(&self, command: &str) -> Result<(), String> {
        let path = self.place.file(&self.file("commands"));
        let append = || -> std::io::Result<()> {
            let mut file = std::fs::OpenOptions::new().append(true).open(&path)?;
            writeln!(file, "{command}")
        };
        append().map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Daemon for Exabgp {
    fn start(&mut self, _again: bool) -> Result<(), String> {
        self.life.set(self.life.get() + 1);
        let (events, commands) = (self.file("events"), self.file("commands"));
        self.place.write(&events, "")?;
        self.place.write(&commands, "")?;
        let (events, commands) = (self.place.text(&events), self.place.text(&commands));
        let script = format!(
            "#!/bin/sh\ntail --pid=$$ -n +1 -s 0.05 -f {commands} &\nexec cat >>{events}\n"
        );
        self.place.write("api.sh", &script)?;
        let path = self.place.file("api.sh");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
            .map_err(|error| error.to_string())?;
        self.place
            .write("exabgp.conf", &configuration(&self.side, &self.place))?;
        let mut addresses: Vec<_> = self
            .side
            .sessions
            .iter()
            .map(|session| session.local.to_string())
            .collect();
        addresses.dedup();
        let (file, bind) = (self.place.text("exabgp.conf"), addresses.join(" "));
        let environment = [
            ("exabgp.daemon.user", "root"),
            ("exabgp.tcp.bind", &*bind),
            ("exabgp.api.cli", "false"),
            ("exabgp.api.ack", "false"),
            ("exabgp.log.level", "DEBUG"),
            ("exabgp.log.all", "false"),
            ("exabgp.log.network", "true"),
            ("exabgp.log.configuration", "false"),
            ("exabgp.log.processes", "true"),
            ("exabgp.log.message", "true"),
        ];
        let log = self.place.file("exabgp.log");
        let program = Running::start_with(
            &self.place.namespace,
            &log,
            "exabgp",
            &[&file],
            &environment,
        )?;
        self.process = Some(program);
        wait("ExaBGP to run", || {
            let log = self.place.read("exabgp.log");
            let process = |line: &str| line.contains("forked process");
            ensure(
                log.lines().filter(|line| process(line)).count() >= self.life.get() as usize,
                || log.clone(),
            )
        })
    }

    fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::KILL);
        }
    }

    fn state(&self, remote: &str) -> Result<State, String> {
        let events = self.events();
        let mut states = events.iter().filter(|event| event["type"] == "state");
        let last = states.rfind(|event| event["neighbor"]["address"]["peer"] == remote);
        let neighbor = last
            .map(|event| event["neighbor"].clone())
            .unwrap_or_default();
        Ok(State {
            established: neighbor["state"] == "up",
            text: neighbor.to_string(),
        })
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Seen>, String> {
        let mut held: BTreeMap<String, Seen> = BTreeMap::new();
        for event in self.events() {
            let neighbor = &event["neighbor"];
            let peer = neighbor["address"]["peer"].as_str().unwrap_or_default();
            if event["type"] == "state" && neighbor["state"] != "connected" {
                held.retain(|key, _| !key.starts_with(&format!("{peer} ")));
            }
            let update = &neighbor["message"]["update"];
            for (_, routes) in update["withdraw"].as_object().into_iter().flatten() {
                for key in keys(peer, routes, prefix) {
                    held.remove(&key);
                }
            }
            for (_, hops) in update["announce"].as_object().into_iter().flatten() {
                for (next_hop, routes) in hops.as_object().into_iter().flatten() {
                    for key in keys(peer, routes, prefix) {
                        held.insert(key, seen(next_hop, &update["attribute"]));
                    }
                }
            }
        }
        Ok(held.into_values().collect())
    }

    fn refresh(&self, remote: &str) -> Result<(), String> {
        self.command(&format!(
            "neighbor {remote} announce route-refresh ipv4 unicast"
        ))
    }

    fn shut_down(&self, remote: &str, _text: &str) -> Result<(), String> {
        self.command(&format!("neighbor {remote} teardown 2"))
    }

    fn complaints(&self, _remote: &str) -> Result<String, String> {
        Ok(self.place.read(&self.file("events")) + &self.place.read("exabgp.log"))
    }
}

/// What tells the paths of a message apart: peer, prefix and path identifier.
fn keys(peer: &str, routes: &Value, prefix: &str) -> Vec<String> {
    let routes = routes.as_array().into_iter().flatten();
    let matching = routes.filter(|route| route["nlri"] == prefix);
    matching
        .map(|route| format!("{peer} {prefix} {}", route["path-information"]))
        .collect()
}

fn seen(next_hop: &str, attributes: &Value) -> Seen {
    let list = |name: &str| attributes[name].as_array().cloned().unwrap_or_default();
    let joined = |value: &Value| {
        let parts = value
            .as_array()
            .into_iter()
            .flatten()
            .map(ToString::to_string);
        parts.collect::<Vec<_>>().join(":")
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let extended = |value: &Value| {
        let number = value["value"].as_u64().and_then(Extended::from_number);
        number.map_or_else(|| value.to_string(), |e| e.to_string())
    };
    let as_path: Vec<_> = list("as-path").iter().map(ToString::to_string).collect();
    Seen {
        as_path: as_path.join(" "),
        next_hop: next_hop.to_owned(),
        communities: list("community").iter().map(joined).collect(),
        large: list("large-community").iter().map(joined).collect(),
        extended: list("extended-community").iter().map(extended).collect(),
        originator: text(&attributes["originator-id"]),
        clusters: list("cluster-list").iter().map(text).collect(),
    }
    .sorted()
}

fn configuration(side: &Side, place: &Place) -> String {
    let mut text = format!(
        "process api {{\n  run {};\n  encoder json;\n}}\n",
        place.text("api.sh")
    );
    for session in &side.sessions {
        neighbor(&mut text, side, session);
    }
    text
}

fn neighbor(text: &mut String, side: &Side, session: &Session) {
    let Session {
        local,
        remote,
        remote_asn,
        families,
        ..
    } = session;
    let _ = write!(
        text,
        "neighbor {remote} {{\n  router-id {};\n  local-address {local};\n  local-as {};\n  peer-as {remote_asn};\n  \
         hold-time 9;\n  passive {};\n",
        side.router_id, side.asn, session.passive
    );
    if let Some(password) = &session.password {
        let _ = writeln!(text, "  md5-password \"{password}\";");
    }
    if session.ttl_security {
        text.push_str("  outgoing-ttl 255;\n  incoming-ttl 255;\n");
    }
    let names = [("ipv4", families.v4()), ("ipv6", families.v6())];
    let names: Vec<_> = names
        .into_iter()
        .filter(|(_, wanted)| *wanted)
        .map(|(name, _)| name)
        .collect();
    let each = |what: &str| {
        names
            .iter()
            .fold(String::new(), |all, name| all + &format!(" {name} {what};"))
    };
    let _ = writeln!(text, "  family {{{} }}", each("unicast"));
    text.push_str("  capability {\n    route-refresh enable;\n");
    if session.graceful_restart {
        text.push_str("    graceful-restart 30;\n");
    }
    if session.extended_next_hop {
        text.push_str("    nexthop enable;\n");
    }
    match (session.add_path_send, session.add_path_receive) {
        (true, true) => text.push_str("    add-path send/receive;\n"),
        (true, false) => text.push_str("    add-path send;\n"),
        (false, true) => text.push_str("    add-path receive;\n"),
        (false, false) => {}
    }
    text.push_str("  }\n");
    if session.add_path_send || session.add_path_receive {
        let _ = writeln!(text, "  add-path {{{} }}", each("unicast"));
    }
    if session.extended_next_hop {
        text.push_str("  nexthop { ipv4 unicast ipv6; }\n");
    }
    text.push_str("  api {\n    processes [ api ];\n    neighbor-changes;\n    receive { parsed; update; notification; open; refresh; }\n  }\n");
    text.push_str("  static {\n");
    for route in &side.routes {
        if if route.is_v6() {
            families.v6()
        } else {
            families.v4()
        } {
            announce(text, side, session, route);
        }
    }
    text.push_str("  }\n}\n");
}

/// Where paths are added there are two of each route, since nobody else gives ExaBGP any.
fn announce(text: &mut String, side: &Side, session: &Session, route: &Route) {
    let next_hop = match (route.is_v6(), session.local.is_ipv6()) {
        (true, false) => THEIRS[1].to_owned(),
        // Of itself it takes its router id.
        (false, true) if session.extended_next_hop => THEIRS[1].to_owned(),
        (false, true) => THEIRS[0].to_owned(),
        _ => "self".to_owned(),
    };
    let mut line = |more: &str| {
        let _ = writeln!(
            text,
            "    route {} next-hop {next_hop}{more}{};",
            route.prefix,
            attributes(route)
        );
    };
    if session.add_path_send {
        line(" path-information 0.0.0.1");
        line(&format!(
            " path-information 0.0.0.2 as-path [ {} 64520 ]",
            side.asn
        ));
    } else {
        line("");
    }
}

fn attributes(route: &Route) -> String {
    let mut text = String::new();
    let extended: Vec<_> = route
        .extended
        .iter()
        .map(|e| {
            format!(
                "{}:{}:{}",
                if e.target { "target" } else { "origin" },
                e.asn,
                e.value
            )
        })
        .collect();
    for (name, list) in [
        ("community", &route.communities),
        ("large-community", &route.large),
        ("extended-community", &extended),
    ] {
        if !list.is_empty() {
            let _ = write!(text, " {name} [ {} ]", list.join(" "));
        }
    }
    text
}

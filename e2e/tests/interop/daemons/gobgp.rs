//! GoBGP. Its API listens inside its namespace; its own routes are added by the command line tool, as its users do.

use std::fmt::Write;

use rustix::process::Signal;
use serde_json::Value;

use super::{Daemon, Place};
use crate::model::{Extended, Route, Seen, Session, Side, State};
use crate::process::{Running, ask, ensure, wait};

pub struct Gobgp {
    place: Place,
    side: Side,
    process: Option<Running>,
}

impl Gobgp {
    pub fn new(place: Place, side: Side) -> Self {
        Self {
            place,
            side,
            process: None,
        }
    }

    fn gobgp(&self, arguments: &[&str]) -> Result<String, String> {
        ask(&self.place.namespace, "gobgp", arguments)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.gobgp(&[&["-j"], arguments].concat())?;
        serde_json::from_str(&text).map_err(|error| format!("gobgp {arguments:?}: {error}: {text}"))
    }

    /// Has the kernel keep its peers away, or lets them in again.
    fn fence(&self, rule: &str) -> Result<(), String> {
        let said = ask(&self.place.namespace, "nft", &[rule])?;
        ensure(said.is_empty(), || said.clone())
    }

    fn add(&self, route: &Route) -> Result<(), String> {
        let family = if route.is_v6() { "ipv6" } else { "ipv4" };
        let (communities, large) = (route.communities.join(","), route.large.join(","));
        let mut arguments = vec!["global", "rib", "add", &route.prefix, "-a", family];
        for (name, value) in [("community", &communities), ("large-community", &large)] {
            if !value.is_empty() {
                arguments.extend([name, value]);
            }
        }
        let answer = self.gobgp(&arguments)?;
        ensure(answer.trim().is_empty(), || answer.clone())
    }
}

impl Daemon for Gobgp {
    fn start(&mut self, again: bool) -> Result<(), String> {
        self.place
            .write("gobgpd.toml", &configuration(&self.side))?;
        let file = self.place.text("gobgpd.toml");
        let mut arguments = vec![
            "-f",
            &file,
            "-p",
            "-l",
            "debug",
            "--pprof-disable",
            "--api-hosts",
            "127.0.0.1:50051",
        ];
        if again {
            arguments.push("-r");
        }
        if again {
            // It is not to promise that this is all before its routes are there.
            self.fence("add table inet fence { chain in { type filter hook input priority 0; tcp dport 179 drop; tcp sport 179 drop; }; }")?;
        }
        let log = self.place.file("gobgpd.log");
        self.process = Some(Running::start(
            &self.place.namespace,
            &log,
            "gobgpd",
            &arguments,
        )?);
        wait("GoBGP to answer", || self.json(&["neighbor"]).map(drop))
            .map_err(|error| format!("{error}: {}", self.place.read("gobgpd.log")))?;
        self.side
            .routes
            .iter()
            .try_for_each(|route| self.add(route))?;
        if again {
            self.fence("delete table inet fence")
        } else {
            Ok(())
        }
    }

    fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::KILL);
        }
    }

    fn state(&self, remote: &str) -> Result<State, String> {
        let neighbor = self.json(&["neighbor", remote])?;
        // As GoBGP numbers the states.
        let established = neighbor["state"]["session_state"] == 6;
        Ok(State {
            established,
            text: neighbor["state"].to_string(),
        })
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Seen>, String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let text = self.gobgp(&["-j", "global", "rib", prefix, "-a", family])?;
        if text.contains("not in table") {
            return Ok(Vec::new());
        }
        let reply: Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let paths = match &reply {
            Value::Array(paths) => paths.clone(),
            other => other[prefix].as_array().cloned().unwrap_or_default(),
        };
        Ok(paths
            .iter()
            .filter(|path| path["source-id"].is_string())
            .map(seen)
            .collect())
    }

    fn refresh(&self, remote: &str) -> Result<(), String> {
        self.gobgp(&["neighbor", remote, "softresetin"]).map(drop)
    }

    /// The command is called deprecated, but its successor `disable` does not send the reason.
    fn shut_down(&self, remote: &str, text: &str) -> Result<(), String> {
        self.gobgp(&["neighbor", remote, "shutdown", "--reason", text])
            .map(drop)
    }

    fn complaints(&self, remote: &str) -> Result<String, String> {
        Ok(self.gobgp(&["neighbor", remote])? + &self.place.read("gobgpd.log"))
    }
}

fn seen(path: &Value) -> Seen {
    let mut seen = Seen::default();
    for attribute in path["attrs"].as_array().into_iter().flatten() {
        let value = &attribute["value"];
        let list = || value.as_array().into_iter().flatten();
        match attribute["type"].as_u64() {
            Some(2) => seen.as_path = as_path(&attribute["as_paths"]),
            Some(3 | 14) => {
                seen.next_hop = attribute["nexthop"].as_str().unwrap_or_default().to_owned()
            }
            Some(8) => {
                let numbers = attribute["communities"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_u64);
                seen.communities = numbers
                    .map(|n| format!("{}:{}", n >> 16, n & 0xffff))
                    .collect();
            }
            Some(9) => seen.originator = value.as_str().unwrap_or_default().to_owned(),
            Some(10) => {
                seen.clusters = list()
                    .filter_map(|id| id.as_str().map(str::to_owned))
                    .collect()
            }
            Some(16) => seen.extended = list().map(extended).collect(),
            Some(32) => {
                let one =
                    |c: &Value| format!("{}:{}:{}", c["ASN"], c["LocalData1"], c["LocalData2"]);
                seen.large = list().map(one).collect();
            }
            _ => {}
        }
    }
    seen.sorted()
}

fn as_path(segments: &Value) -> String {
    let segments = segments.as_array().into_iter().flatten();
    let numbers = segments.flat_map(|segment| segment["asns"].as_array().into_iter().flatten());
    numbers
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Value as text `asn:value`; type 0 subtype 2 is a route target, 3 a route origin.
fn extended(value: &Value) -> String {
    let kind = match value["subtype"].as_u64() {
        Some(2) => "rt",
        Some(3) => "ro",
        _ => "?",
    };
    format!("{kind}:{}", value["value"].as_str().unwrap_or_default())
}

fn configuration(side: &Side) -> String {
    let mut text = format!(
        "[global.config]\n  as = {}\n  router-id = \"{}\"\n",
        side.asn, side.router_id
    );
    let marked: Vec<_> = side
        .routes
        .iter()
        .filter(|route| !route.extended.is_empty())
        .collect();
    if !marked.is_empty() {
        text.push_str("[global.apply-policy.config]\n  import-policy-list = [\"mark\"]\n  default-import-policy = \"accept-route\"\n");
    }
    for session in &side.sessions {
        neighbor(&mut text, side, session);
    }
    policy(&mut text, &marked);
    text
}

fn neighbor(text: &mut String, side: &Side, session: &Session) {
    let Session {
        local,
        remote,
        remote_asn,
        ..
    } = session;
    let _ = write!(
        text,
        "[[neighbors]]\n  [neighbors.config]\n    neighbor-address = \"{remote}\"\n    peer-as = {remote_asn}\n"
    );
    if let Some(password) = &session.password {
        let _ = writeln!(text, "    auth-password = \"{password}\"");
    }
    let _ = write!(
        text,
        "  [neighbors.timers.config]\n    connect-retry = 1\n    hold-time = 9\n    keepalive-interval = 3\n    \
         idle-hold-time-after-reset = 1\n  \
         [neighbors.transport.config]\n    local-address = \"{local}\"\n    passive-mode = {}\n",
        session.passive
    );
    if session.ttl_security {
        text.push_str("  [neighbors.ttl-security.config]\n    enabled = true\n    ttl-min = 255\n");
    }
    if session.graceful_restart {
        let seconds = if session.long_lived { 2 } else { 30 };
        let _ = write!(
            text,
            "  [neighbors.graceful-restart.config]\n    enabled = true\n    restart-time = {seconds}\n    long-lived-enabled = {}\n",
            session.long_lived
        );
    }
    if session.client {
        let id = &side.router_id;
        let _ = write!(
            text,
            "  [neighbors.route-reflector.config]\n    route-reflector-client = true\n    route-reflector-cluster-id = \"{id}\"\n"
        );
    }
    for (name, wanted) in [
        ("ipv4-unicast", session.families.v4()),
        ("ipv6-unicast", session.families.v6()),
    ] {
        if wanted {
            family(text, name, session);
        }
    }
}

fn family(text: &mut String, name: &str, session: &Session) {
    let _ = write!(
        text,
        "  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = \"{name}\"\n"
    );
    if session.graceful_restart {
        text.push_str(
            "    [neighbors.afi-safis.mp-graceful-restart.config]\n      enabled = true\n",
        );
    }
    if session.long_lived {
        text.push_str(
            "    [neighbors.afi-safis.long-lived-graceful-restart.config]\n      enabled = true\n      restart-time = 600\n",
        );
    }
    if session.add_path_send || session.add_path_receive {
        let most = if session.add_path_send { 8 } else { 0 };
        let _ = write!(
            text,
            "    [neighbors.afi-safis.add-paths.config]\n      receive = {}\n      send-max = {most}\n",
            session.add_path_receive
        );
    }
    if let Some(limit) = session.max_prefixes {
        let _ = write!(
            text,
            "    [neighbors.afi-safis.prefix-limit.config]\n      max-prefixes = {limit}\n"
        );
    }
}

/// The command line tool cannot give a route extended communities; a policy can.
fn policy(text: &mut String, marked: &[&Route]) {
    for (index, route) in marked.iter().enumerate() {
        let _ = write!(
            text,
            "[[defined-sets.prefix-sets]]\n  prefix-set-name = \"p{index}\"\n  \
             [[defined-sets.prefix-sets.prefix-list]]\n    ip-prefix = \"{}\"\n",
            route.prefix
        );
    }
    if marked.is_empty() {
        return;
    }
    text.push_str("[[policy-definitions]]\n  name = \"mark\"\n");
    for (index, route) in marked.iter().enumerate() {
        let one = |e: &Extended| {
            format!(
                "\"{}:{}:{}\"",
                if e.target { "rt" } else { "soo" },
                e.asn,
                e.value
            )
        };
        let list: Vec<_> = route.extended.iter().map(one).collect();
        let _ = write!(
            text,
            "  [[policy-definitions.statements]]\n    name = \"s{index}\"\n    \
             [policy-definitions.statements.conditions.match-prefix-set]\n      prefix-set = \"p{index}\"\n    \
             [policy-definitions.statements.actions.bgp-actions.set-ext-community]\n      options = \"add\"\n      \
             [policy-definitions.statements.actions.bgp-actions.set-ext-community.set-ext-community-method]\n        \
             communities-list = [{}]\n",
            list.join(", ")
        );
    }
}

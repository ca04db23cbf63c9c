//! FRR: zebra (which bgpd and bfdd talk through), bgpd and, where BFD is wanted, bfdd. All sockets are in a folder of their
//! own, which belongs to Debian's user `frr`: the daemons refuse to be root.

use std::fmt::Write;
use std::os::unix::fs::chown;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use super::{Daemon, Place};
use crate::model::{Extended, Route, Seen, Session, Side, State};
use crate::process::{Running, ask, ensure, wait};

pub struct Frr {
    place: Place,
    side: Side,
    bgpd: Option<Running>,
    others: Vec<Running>,
}

impl Frr {
    pub fn new(place: Place, side: Side) -> Self {
        Self {
            place,
            side,
            bgpd: None,
            others: Vec::new(),
        }
    }

    fn launch(&self, program: &str, options: &[&str]) -> Result<Running, String> {
        let (file, pid) = (
            self.place.text(&format!("{program}.conf")),
            self.place.text(&format!("{program}.pid")),
        );
        let (folder, zebra) = (
            self.place.folder.to_string_lossy(),
            self.place.text("zserv.api"),
        );
        let mut arguments = vec![
            "-u",
            "frr",
            "-g",
            "frr",
            "--vty_socket",
            &folder,
            "-z",
            &zebra,
        ];
        arguments.extend(["-P", "0", "-f", &file, "-i", &pid]);
        arguments.extend(options);
        let log = self.place.file(&format!("{program}.out"));
        Running::start(
            &self.place.namespace,
            &log,
            &format!("/usr/lib/frr/{program}"),
            &arguments,
        )
    }

    fn vtysh(&self, commands: &[&str]) -> Result<String, String> {
        let folder = self.place.folder.to_string_lossy();
        let mut arguments = vec!["--vty_socket", &folder];
        for command in commands {
            arguments.extend(["-c", command]);
        }
        ask(&self.place.namespace, "vtysh", &arguments)
    }

    fn json(&self, command: &str) -> Result<Value, String> {
        let text = self.vtysh(&[command])?;
        serde_json::from_str(&text).map_err(|error| format!("{command}: {error}: {text}"))
    }

    fn neighbor(&self, remote: &str) -> Result<Value, String> {
        Ok(self.json(&format!("show bgp neighbors {remote} json"))?[remote].take())
    }

    /// Files and the folder for the user that the daemons run as.
    fn own(&self) -> Result<(), String> {
        let (user, group) = identity("frr")?;
        let entries = std::fs::read_dir(&self.place.folder).map_err(|error| error.to_string())?;
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.push(self.place.folder.clone());
        let own =
            |path: &Path| chown(path, Some(user), Some(group)).map_err(|error| error.to_string());
        paths.iter().try_for_each(|path| own(path))
    }

    /// One command, since each knows the daemon only while its socket is there.
    fn answers(&self, program: &str) -> Result<(), String> {
        wait(&format!("{program} to answer"), || {
            let folder = self.place.folder.to_string_lossy();
            let arguments = ["--vty_socket", &folder, "-d", program, "-c", "show version"];
            let answer = ask(&self.place.namespace, "vtysh", &arguments)?;
            ensure(answer.contains("FRRouting"), || answer)
        })
        .map_err(|error| format!("{error}: {}", self.place.read(&format!("{program}.out"))))
    }
}

/// A user's and its group's ids in /etc/passwd.
fn identity(user: &str) -> Result<(u32, u32), String> {
    let text = std::fs::read_to_string("/etc/passwd").map_err(|error| error.to_string())?;
    let line = text
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == user);
    let ids =
        line.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
    ids.ok_or_else(|| format!("no user {user}: is the package installed?"))
}

impl Daemon for Frr {
    fn start(&mut self, _again: bool) -> Result<(), String> {
        let bfd = self.side.sessions.iter().any(|session| session.bfd);
        self.place
            .write("bgpd.conf", &configuration(&self.side, &self.place))?;
        if self.others.is_empty() {
            self.place.write("zebra.conf", "")?;
            self.place.write(
                "bfdd.conf",
                "bfd\n profile fast\n  receive-interval 50\n  transmit-interval 50\n",
            )?;
            self.own()?;
            let zebra = self.launch("zebra", &[])?;
            self.others.push(zebra);
            self.answers("zebra")?;
            if bfd {
                let socket = self.place.text("bfdd.sock");
                let bfdd = self.launch("bfdd", &["--bfdctl", &socket])?;
                self.others.push(bfdd);
                self.answers("bfdd")?;
            }
        }
        self.own()?;
        self.bgpd = Some(self.launch("bgpd", &[])?);
        self.answers("bgpd")
    }

    fn crash(&mut self) {
        if let Some(mut bgpd) = self.bgpd.take() {
            bgpd.end(Signal::KILL);
        }
    }

    fn state(&self, remote: &str) -> Result<State, String> {
        let neighbor = self.neighbor(remote)?;
        let established = neighbor["bgpState"] == "Established";
        let text = format!(
            "{} {} {}",
            neighbor["bgpState"], neighbor["lastResetDueTo"], neighbor["lastNotificationReason"]
        );
        Ok(State { established, text })
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Seen>, String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let reply = self.json(&format!("show bgp {family} unicast {prefix} json"))?;
        let paths = reply["paths"].as_array().cloned().unwrap_or_default();
        Ok(paths
            .iter()
            .filter(|path| path["sourced"] != true)
            .map(seen)
            .collect())
    }

    fn refresh(&self, remote: &str) -> Result<(), String> {
        self.vtysh(&[&format!("clear bgp {remote} soft in")])
            .map(drop)
    }

    fn shut_down(&self, remote: &str, text: &str) -> Result<(), String> {
        let router = format!("router bgp {}", self.side.asn);
        let shutdown = format!("neighbor {remote} shutdown message {text}");
        let answer = self.vtysh(&["configure terminal", &router, &shutdown])?;
        ensure(!answer.contains('%'), || answer.clone())
    }

    fn complaints(&self, remote: &str) -> Result<String, String> {
        Ok(self.neighbor(remote)?.to_string() + &self.place.read("bgpd.log"))
    }

    fn bfd_up(&self, remote: &str) -> Result<bool, String> {
        let peers = self.json("show bfd peers json")?;
        let mut peers = peers.as_array().into_iter().flatten();
        Ok(peers.any(|peer| peer["peer"] == remote && peer["status"] == "up"))
    }
}

fn seen(path: &Value) -> Seen {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(text).collect()
    };
    let extended = text(&path["extendedCommunity"]["string"]);
    let extended = extended.split_whitespace();
    // The link-local next hop, if there is one, comes second.
    let next_hop = &path["nexthops"][0]["ip"];
    let as_path = text(&path["aspath"]["string"]);
    Seen {
        as_path: if as_path == "Local" {
            String::new()
        } else {
            as_path
        },
        next_hop: text(next_hop),
        communities: list(&path["community"]["list"])
            .into_iter()
            .map(|one| match one.as_str() {
                "llgrStale" | "llgr-stale" => "65535:6".to_owned(),
                _ => one,
            })
            .collect(),
        large: list(&path["largeCommunity"]["list"]),
        extended: extended
            .map(|one| one.to_lowercase().replace("soo:", "ro:"))
            .collect(),
        originator: text(&path["originatorId"]),
        clusters: list(&path["clusterList"]["list"]),
    }
    .sorted()
}

fn configuration(side: &Side, place: &Place) -> String {
    let mut text = format!(
        "log file {}\nlog timestamp precision 3\ndebug bgp neighbor-events\nrouter bgp {}\n bgp router-id {}\n \
         no bgp ebgp-requires-policy\n no bgp network import-check\n no bgp default ipv4-unicast\n \
         bgp log-neighbor-changes\n",
        place.text("bgpd.log"),
        side.asn,
        side.router_id
    );
    if side.sessions.iter().any(|session| session.graceful_restart) {
        let long_lived = side.sessions.iter().any(|session| session.long_lived);
        let seconds = if long_lived { 2 } else { 30 };
        let _ = writeln!(
            text,
            " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n bgp graceful-restart restart-time {seconds}"
        );
        if long_lived {
            text.push_str(" bgp long-lived-graceful-restart stale-time 600\n");
        }
    }
    if let Some(seconds) = side
        .sessions
        .iter()
        .find_map(|session| session.least_hold_time)
    {
        let _ = writeln!(text, " bgp minimum-holdtime {seconds}");
    }
    for session in &side.sessions {
        neighbor(&mut text, session);
    }
    family(&mut text, side, "ipv4", false);
    family(&mut text, side, "ipv6", true);
    text.push_str("exit\n");
    for (index, route) in side
        .routes
        .iter()
        .enumerate()
        .filter(|(_, route)| route.has_attributes())
    {
        route_map(&mut text, index, route);
    }
    text
}

fn neighbor(text: &mut String, session: &Session) {
    let remote = session.remote;
    let mut line = |what: &str| _ = writeln!(text, " neighbor {remote} {what}");
    line(&format!("remote-as {}", session.remote_asn));
    line("timers 3 9");
    line("timers connect 1");
    line("advertisement-interval 0");
    for (wanted, what) in [
        (session.passive, "passive"),
        (session.ttl_security, "ttl-security hops 1"),
        (session.bfd, "bfd profile fast"),
        (session.extended_next_hop, "capability extended-nexthop"),
    ] {
        if wanted {
            line(what);
        }
    }
    if let Some(password) = &session.password {
        line(&format!("password {password}"));
    }
}

fn family(text: &mut String, side: &Side, name: &str, v6: bool) {
    let _ = writeln!(text, " address-family {name} unicast");
    for (index, route) in side
        .routes
        .iter()
        .enumerate()
        .filter(|(_, route)| route.is_v6() == v6)
    {
        let map = if route.has_attributes() {
            format!(" route-map R{index}")
        } else {
            String::new()
        };
        let _ = writeln!(text, "  network {}{map}", route.prefix);
    }
    for session in &side.sessions {
        if !(if v6 {
            session.families.v6()
        } else {
            session.families.v4()
        }) {
            continue;
        }
        let remote = session.remote;
        let mut line = |what: &str| _ = writeln!(text, "  neighbor {remote} {what}");
        line("activate");
        if session.client {
            line("route-reflector-client");
        }
        if session.add_path_send {
            line("addpath-tx-all-paths");
        }
        if let Some(limit) = session.max_prefixes {
            line(&format!("maximum-prefix {limit}"));
        }
    }
    text.push_str(" exit-address-family\n");
}

fn route_map(text: &mut String, index: usize, route: &Route) {
    let _ = writeln!(text, "route-map R{index} permit 10");
    if !route.communities.is_empty() {
        let _ = writeln!(text, " set community {}", route.communities.join(" "));
    }
    if !route.large.is_empty() {
        let _ = writeln!(text, " set large-community {}", route.large.join(" "));
    }
    for Extended { target, asn, value } in &route.extended {
        let kind = if *target { "rt" } else { "soo" };
        let _ = writeln!(text, " set extcommunity {kind} {asn}:{value}");
    }
    text.push_str("exit\n");
}

//! BIRD 2. One protocol for each session, named after its place in the list.

use std::fmt::Write;

use rustix::process::Signal;

use super::{Daemon, Place};
use crate::model::{Families, Route, Seen, Session, Side, State, THEIRS};
use crate::process::{Running, ask, wait};

pub struct Bird {
    place: Place,
    side: Side,
    process: Option<Running>,
}

impl Bird {
    pub fn new(place: Place, side: Side) -> Self {
        Self {
            place,
            side,
            process: None,
        }
    }

    fn birdc(&self, command: &str) -> Result<String, String> {
        let socket = self.place.text("bird.ctl");
        let mut arguments = vec!["-s", &socket];
        arguments.extend(command.split_whitespace());
        ask(&self.place.namespace, "birdc", &arguments)
    }

    fn protocol(&self, remote: &str) -> String {
        let index = self
            .side
            .sessions
            .iter()
            .position(|s| s.remote.to_string() == remote);
        format!("m{}", index.unwrap_or_default())
    }

    fn details(&self, remote: &str) -> Result<String, String> {
        self.birdc(&format!("show protocols all {}", self.protocol(remote)))
    }
}

impl Daemon for Bird {
    fn start(&mut self, again: bool) -> Result<(), String> {
        self.place.write("bird.conf", &configuration(&self.side))?;
        let (file, socket) = (self.place.text("bird.conf"), self.place.text("bird.ctl"));
        let mut arguments = vec!["-f", "-c", &file, "-s", &socket];
        if again {
            arguments.push("-R");
        }
        let log = self.place.file("bird.log");
        self.process = Some(Running::start(
            &self.place.namespace,
            &log,
            "bird",
            &arguments,
        )?);
        wait("BIRD to answer", || {
            let answer = self.birdc("show status")?;
            if answer.contains("Daemon is up and running") {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .map_err(|error| format!("{error}: {}", self.place.read("bird.log")))
    }

    fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::KILL);
        }
    }

    fn state(&self, remote: &str) -> Result<State, String> {
        let text = self.details(remote)?;
        let state = text
            .lines()
            .find(|line| line.contains("BGP state:"))
            .unwrap_or_default();
        Ok(State {
            established: state.contains("Established"),
            text,
        })
    }

    fn paths(&self, prefix: &str) -> Result<Vec<Seen>, String> {
        Ok(read_paths(
            &self.birdc(&format!("show route {prefix} all"))?,
        ))
    }

    fn refresh(&self, remote: &str) -> Result<(), String> {
        self.birdc(&format!("reload in {}", self.protocol(remote)))
            .map(drop)
    }

    fn shut_down(&self, remote: &str, text: &str) -> Result<(), String> {
        self.birdc(&format!("disable {} \"{text}\"", self.protocol(remote)))
            .map(drop)
    }

    fn complaints(&self, remote: &str) -> Result<String, String> {
        Ok(self.details(remote)? + &self.place.read("bird.log"))
    }

    fn bfd_up(&self, remote: &str) -> Result<bool, String> {
        let text = self.birdc("show bfd sessions")?;
        Ok(text
            .lines()
            .any(|line| line.starts_with(remote) && line.contains(" Up ")))
    }
}

fn configuration(side: &Side) -> String {
    let mut text = format!(
        "log stderr all;\nrouter id {};\nprotocol device {{ }}\n",
        side.router_id
    );
    for (family, v6) in [("ipv4", false), ("ipv6", true)] {
        let _ = writeln!(text, "protocol static {{\n  {family};");
        for route in side.routes.iter().filter(|route| route.is_v6() == v6) {
            let _ = writeln!(
                text,
                "  route {} blackhole{};",
                route.prefix,
                attributes(route)
            );
        }
        text.push_str("}\n");
    }
    if side.sessions.iter().any(|session| session.bfd) {
        text.push_str("protocol bfd {\n  interface \"*\" { interval 50 ms; multiplier 3; };\n}\n");
    }
    for (index, session) in side.sessions.iter().enumerate() {
        protocol(&mut text, side.asn, index, session);
    }
    text
}

fn attributes(route: &Route) -> String {
    if !route.has_attributes() {
        return String::new();
    }
    let mut text = " {".to_owned();
    for community in &route.communities {
        let _ = write!(
            text,
            " bgp_community.add(({}));",
            community.replace(':', ",")
        );
    }
    for community in &route.large {
        let _ = write!(
            text,
            " bgp_large_community.add(({}));",
            community.replace(':', ",")
        );
    }
    for one in &route.extended {
        let kind = if one.target { "rt" } else { "ro" };
        let _ = write!(
            text,
            " bgp_ext_community.add(({kind}, {}, {}));",
            one.asn, one.value
        );
    }
    text + " }"
}

fn protocol(text: &mut String, asn: u32, index: usize, session: &Session) {
    let Session {
        local,
        remote,
        remote_asn,
        ..
    } = session;
    let _ = write!(
        text,
        "protocol bgp m{index} {{\n  local {local} as {asn};\n  neighbor {remote} as {remote_asn};\n  \
         hold time 9;\n  connect delay time 1;\n  connect retry time 1;\n  error wait time 1, 2;\n"
    );
    if session.passive {
        text.push_str("  passive;\n");
    }
    if let Some(password) = &session.password {
        let _ = writeln!(text, "  password \"{password}\";");
    }
    if session.ttl_security {
        text.push_str("  ttl security;\n");
    }
    if session.graceful_restart {
        let seconds = if session.long_lived { 2 } else { 30 };
        let _ = writeln!(
            text,
            "  graceful restart on;\n  graceful restart time {seconds};"
        );
    }
    if session.long_lived {
        text.push_str("  long lived graceful restart on;\n  long lived stale time 600;\n");
    }
    if session.bfd {
        text.push_str("  bfd;\n");
    }
    if session.client {
        text.push_str("  rr client;\n");
    }
    for (family, wanted) in [
        ("ipv4", session.families.v4()),
        ("ipv6", session.families.v6()),
    ] {
        if wanted {
            channel(text, family, session);
        }
    }
    text.push_str("}\n");
}

fn channel(text: &mut String, family: &str, session: &Session) {
    let _ = write!(text, "  {family} {{\n    import all;\n    export all;\n");
    // Of itself BIRD does not know its address of the other family.
    if session.families == Families::Both && family == "ipv6" && session.local.is_ipv4() {
        let _ = writeln!(text, "    next hop address {};", THEIRS[1]);
    }
    match (session.add_path_send, session.add_path_receive) {
        (true, true) => text.push_str("    add paths on;\n"),
        (true, false) => text.push_str("    add paths tx;\n"),
        (false, true) => text.push_str("    add paths rx;\n"),
        (false, false) => {}
    }
    if session.extended_next_hop {
        text.push_str("    extended next hop on;\n");
    }
    if let Some(limit) = session.max_prefixes {
        let _ = writeln!(text, "    import limit {limit} action disable;");
    }
    text.push_str("  };\n");
}

/// From `show route PREFIX all`: a line that names the protocol in brackets, then its attributes.
fn read_paths(text: &str) -> Vec<Seen> {
    let mut paths: Vec<Option<Seen>> = Vec::new();
    for line in text.lines() {
        if line.contains(" [") && !line.starts_with('\t') {
            paths.push(line.contains(" [m").then(Seen::default));
            continue;
        }
        let (Some(Some(path)), Some((name, value))) =
            (paths.last_mut(), line.trim().split_once(": "))
        else {
            continue;
        };
        let value = value.trim();
        match name {
            "BGP.as_path" => value.clone_into(&mut path.as_path),
            "BGP.next_hop" => value.clone_into(&mut path.next_hop),
            "BGP.community" => path.communities = tuples(value),
            "BGP.large_community" => path.large = tuples(value),
            "BGP.ext_community" => path.extended = tuples(value),
            "BGP.originator_id" => value.clone_into(&mut path.originator),
            "BGP.cluster_list" => {
                path.clusters = value.split_whitespace().map(str::to_owned).collect()
            }
            _ => {}
        }
    }
    paths.into_iter().flatten().map(Seen::sorted).collect()
}

/// `(1,2) (3,4)` and `(1, 2, 3)` as `1:2` and so on.
fn tuples(text: &str) -> Vec<String> {
    let parts = text
        .split(['(', ')'])
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| part.split(',').map(str::trim).collect::<Vec<_>>().join(":"))
        .collect()
}

//! FRR on the lab's routers: zebra, which puts routes into the kernel, and bgpd, with all sockets
//! in the router's folder.
//!
//! Configuration and parsing are pure. The daemons refuse to be root, so the folder belongs to
//! Debian's user `frr`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::command::run;
use super::error::LabError;
use super::fabric::{Given, Neighbor, Router, Session, routers};
use super::patience::{patience, until_blocking};
use super::process::{self, Launch};
use super::spec::Plan;
use super::state::{Folder, Ledger};

/// Where Debian has the daemons.
const PROGRAMS: &str = "/usr/lib/frr";
/// The user that the daemons run as.
const USER: &str = "frr";
/// What the route map is called that lets the pods' space through, and nothing else.
const PODS: &str = "pods";
/// What the route map is called that lets nothing through.
const NOTHING: &str = "nothing";

/// The configuration of a router's bgpd.
pub fn configuration(plan: &Plan, router: &Router) -> String {
    let pool = plan.pool;
    let Router {
        router_id,
        as_number,
        ..
    } = router;
    let mut text = format!(
        "log stdout\n\
         log timestamp precision 3\n\
         ip prefix-list {PODS} seq 5 permit {pool} le 32\n\
         route-map {PODS} permit 10\n match ip address prefix-list {PODS}\nexit\n\
         route-map {NOTHING} deny 10\nexit\n\
         router bgp {as_number}\n \
         bgp router-id {router_id}\n \
         bgp log-neighbor-changes\n \
         no bgp default ipv4-unicast\n"
    );
    for neighbor in &router.neighbors {
        session(&mut text, neighbor);
    }
    text.push_str(" address-family ipv4 unicast\n");
    for Neighbor { remote, given, .. } in &router.neighbors {
        let given = match given {
            Given::Fabric => PODS,
            Given::Outside | Given::Nothing => NOTHING,
        };
        let _ = write!(
            text,
            "  neighbor {remote} activate\n  \
               neighbor {remote} next-hop-self\n  \
               neighbor {remote} route-map {PODS} in\n  \
               neighbor {remote} route-map {given} out\n"
        );
    }
    text.push_str(" exit-address-family\nexit\n");
    text
}

/// Short retry times, since a lab's nodes come up after their routers.
fn session(text: &mut String, neighbor: &Neighbor) {
    let Neighbor {
        name,
        local,
        remote,
        remote_as,
        ..
    } = neighbor;
    let _ = write!(
        text,
        " neighbor {remote} remote-as {remote_as}\n \
          neighbor {remote} description {name}\n \
          neighbor {remote} update-source {local}\n \
          neighbor {remote} timers connect 2\n \
          neighbor {remote} advertisement-interval 0\n"
    );
}

/// Where the daemons of a router have their sockets.
pub fn sockets(folder: &Folder, machine: &str) -> PathBuf {
    folder.machine(machine).join("frr")
}

/// Starts zebra and bgpd on every router and waits until each answers.
///
/// # Errors
/// When one does not start, or the user `frr` is missing.
pub fn start(ledger: &mut Ledger, plan: &Plan) -> Result<(), LabError> {
    for router in routers(plan) {
        let folder = sockets(&ledger.folder, &router.machine);
        fs::create_dir_all(&folder).map_err(LabError::file("cannot make", &folder))?;
        let files = [
            ("zebra", "log stdout\n".to_owned()),
            ("bgpd", configuration(plan, &router)),
        ];
        for (daemon, text) in files {
            let file = folder.join(format!("{daemon}.conf"));
            fs::write(&file, text).map_err(LabError::file("cannot write", &file))?;
            own(&file)?;
        }
        own(&folder)?;
        for daemon in ["zebra", "bgpd"] {
            launch(ledger, plan, &router.machine, daemon)?;
        }
    }
    Ok(())
}

/// Starts one daemon of a router and waits until it answers.
fn launch(ledger: &mut Ledger, plan: &Plan, machine: &str, daemon: &str) -> Result<(), LabError> {
    let folder = sockets(&ledger.folder, machine);
    let mut command = Command::new(format!("{PROGRAMS}/{daemon}"));
    command.args(["-u", USER, "-g", USER, "-P", "0"]);
    command.arg("--vty_socket").arg(&folder);
    command.arg("-z").arg(folder.join("zserv.api"));
    command.arg("-f").arg(folder.join(format!("{daemon}.conf")));
    command.arg("-i").arg(folder.join(format!("{daemon}.pid")));
    let name = format!("{daemon} {machine}");
    let launch = Launch::new(name, plan.namespace(machine), command);
    let record = process::start(ledger, launch)?;
    let what = format!("{daemon} on {machine} to answer");
    until_blocking(&what, patience(10), &record.log, || {
        if !process::is_alive(&record) {
            return Ok(Err(process::died(&record)));
        }
        let answer = vtysh(&folder, &["-d", daemon, "-c", "show version"]);
        match answer {
            Ok(text) if text.contains("FRRouting") => Ok(Ok(())),
            Ok(text) => Err(text),
            Err(error) => Err(error.to_string()),
        }
    })?
}

fn own(path: &Path) -> Result<(), LabError> {
    let (user, group) = identity()?;
    chown(path, Some(user), Some(group)).map_err(LabError::file("cannot give away", path))
}

/// The ids of the user and its group.
fn identity() -> Result<(u32, u32), LabError> {
    let file = Path::new("/etc/passwd");
    let text = fs::read_to_string(file).map_err(LabError::file("cannot read", file))?;
    ids_of(USER, &text).ok_or_else(|| LabError::Spec {
        field: "--tor",
        message: format!("frr needs the user {USER}, which Debian's package frr makes: install it"),
    })
}

fn ids_of(user: &str, passwd: &str) -> Option<(u32, u32)> {
    let mut lines = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let fields = lines.find(|fields| fields.first() == Some(&user))?;
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}

fn vtysh(folder: &Path, arguments: &[&str]) -> Result<String, LabError> {
    let folder = folder.to_string_lossy();
    let mut all = vec!["--vty_socket", &folder];
    all.extend(arguments);
    run("vtysh", &all)
}

/// Asks the bgpd of a router something.
///
/// # Errors
/// When it does not answer.
pub fn ask(folder: &Folder, machine: &str, question: &str) -> Result<String, LabError> {
    vtysh(&sockets(folder, machine), &["-d", "bgpd", "-c", question])
}

/// The sessions of one router.
///
/// # Errors
/// When its bgpd does not answer.
pub fn sessions(folder: &Folder, machine: &str) -> Result<Vec<Session>, LabError> {
    let answer = ask(folder, machine, "show bgp ipv4 unicast summary json")?;
    parse_sessions(&answer).ok_or_else(|| LabError::Answer {
        program: "vtysh",
        message: format!("no sessions in {answer}"),
    })
}

/// The sessions in the answer to `show bgp ipv4 unicast summary json`.
pub fn parse_sessions(answer: &str) -> Option<Vec<Session>> {
    let summary: Value = serde_json::from_str(answer).ok()?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let peers = summary.get("peers")?.as_object()?.iter();
    let sessions = peers.map(|(address, peer)| Session {
        peer: text(peer.get("desc")).unwrap_or_else(|| address.clone()),
        since: text(peer.get("peerUptime")).unwrap_or_default(),
        state: text(peer.get("state")).unwrap_or_default(),
    });
    Some(sessions.collect())
}

#[cfg(test)]
mod tests {
    use super::super::spec::{LabSpec, Tor};
    use super::*;

    #[test]
    fn a_tor_peers_with_its_segment_and_the_router() {
        let spec = LabSpec {
            name: "t".to_owned(),
            nodes: 4,
            segments: 2,
            tor: Tor::Frr,
            tors: 1,
            pods: 0,
        };
        let plan = spec.plan().unwrap();
        let text = configuration(&plan, &routers(&plan)[2]);
        assert_eq!(text.matches("remote-as").count(), 3, "{text}");
        assert!(text.contains("router bgp 65002\n"), "{text}");
        assert!(
            text.contains(" neighbor 10.10.2.13 remote-as 64512\n"),
            "{text}"
        );
        assert!(
            text.contains("  neighbor 10.10.2.13 route-map nothing out\n"),
            "{text}"
        );
        assert!(
            text.contains("  neighbor 10.10.254.2 route-map pods out\n"),
            "{text}"
        );
    }

    #[test]
    fn sessions_of_an_answer() {
        let answer = r#"{"routerId":"1.1.1.1","peers":{
            "10.10.1.11":{"state":"Established","peerUptime":"00:01:02","desc":"node1"},
            "10.10.1.12":{"state":"Active","peerUptime":"never"}}}"#;
        let sessions = parse_sessions(answer).unwrap();
        assert_eq!(sessions[0].peer, "node1");
        assert_eq!(sessions[1].peer, "10.10.1.12");
        assert_eq!(sessions[1].state, "Active");
        assert!(parse_sessions("% no").is_none());
    }

    #[test]
    fn ids_of_a_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nfrr:x:105:110::/nonexistent:/bin/false\n";
        assert_eq!(ids_of("frr", passwd), Some((105, 110)));
        assert_eq!(ids_of("fr", passwd), None);
    }
}

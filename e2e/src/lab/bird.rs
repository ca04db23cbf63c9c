//! BIRD on the lab's routers: its configuration, its start, and what `birdc` says.
//!
//! Configuration and parsing are pure. Imports from nodes accept the pool's space only, as a
//! careful network would. Who speaks with whom is in [`super::fabric`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::run;
use super::error::LabError;
use super::fabric::{Given, Neighbor, Router, Session, routers};
use super::patience::{patience, until_blocking};
use super::process::{self, Launch};
use super::spec::{CLUSTER_AS, Plan, ROUTER_AS};
use super::state::{Folder, Ledger};

/// In front of every session's name: `router` alone is a word of BIRD's own.
const PEER: &str = "to-";

/// The configuration of every router, by machine name.
pub fn configurations(plan: &Plan) -> Vec<(String, String)> {
    let all = routers(plan).into_iter();
    all.map(|router| (router.machine.clone(), configuration(plan, &router)))
        .collect()
}

fn configuration(plan: &Plan, router: &Router) -> String {
    let pool = plan.pool;
    let router_id = router.router_id;
    // Only where there are two ToRs is there anything to choose between on the way out.
    let outside = match plan.spec.tors {
        2 => format!(", {}", plan.outside_subnet()),
        _ => String::new(),
    };
    let mut text = format!(
        "log stderr all;\n\
         router id {router_id};\n\
         \n\
         # The pods' space, and nothing else, comes from the nodes and goes around.\n\
         filter pods {{\n  if net ~ [ {pool}+ ] then accept;\n  reject;\n}}\n\
         filter fabric {{\n  if net ~ [ {pool}+{outside} ] then accept;\n  reject;\n}}\n\
         filter outside {{\n  if net = {} then accept;\n  reject;\n}}\n\
         \n\
         protocol device {{ scan time 10; }}\n\
         protocol kernel {{ merge paths yes; ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n",
        plan.outside_subnet()
    );
    if router.as_number == ROUTER_AS && !outside.is_empty() {
        let interface = &plan.outside.name;
        text.push_str(&format!(
            "protocol direct {{ ipv4; interface \"{interface}\"; }}\n"
        ));
    }
    if router.neighbors.iter().any(|neighbor| neighbor.bfd) {
        text.push_str(BFD);
    }
    for neighbor in &router.neighbors {
        text.push_str(&protocol(router.as_number, neighbor));
    }
    text
}

/// A path that is dead for 150 ms is known to be.
const BFD: &str = "protocol bfd { interface \"*\" { min rx interval 50 ms; min tx interval 50 ms; multiplier 3; }; }\n";

/// Short retry times, since a lab's nodes come up after their routers. The name is quoted: it has
/// a hyphen.
fn protocol(local_as: u32, neighbor: &Neighbor) -> String {
    let Neighbor {
        name,
        local,
        remote,
        remote_as,
        given,
        bfd,
    } = neighbor;
    let import = if *remote_as == CLUSTER_AS {
        "pods"
    } else {
        "fabric"
    };
    let export = match given {
        Given::Fabric => "filter fabric",
        Given::Outside => "filter outside",
        Given::Nothing => "none",
    };
    let bfd = if *bfd { "  bfd on;\n" } else { "" };
    format!(
        "\nprotocol bgp '{PEER}{name}' {{\n  \
           local {local} as {local_as};\n  \
           neighbor {remote} as {remote_as};\n\
         {bfd}  \
           connect delay time 1;\n  \
           connect retry time 2;\n  \
           error wait time 1, 5;\n  \
           ipv4 {{ import filter {import}; export {export}; next hop self; }};\n\
         }}\n"
    )
}

/// Where a router's BIRD listens to `birdc`.
pub fn control_socket(folder: &Folder, machine: &str) -> PathBuf {
    folder.machine(machine).join("bird.ctl")
}

/// Starts BIRD on every router and waits until each answers.
///
/// # Errors
/// When one does not start.
pub fn start(ledger: &mut Ledger, plan: &Plan) -> Result<(), LabError> {
    for (machine, text) in configurations(plan) {
        let folder = ledger.folder.machine(&machine);
        fs::create_dir_all(&folder).map_err(LabError::file("cannot make", &folder))?;
        let file = folder.join("bird.conf");
        fs::write(&file, text).map_err(LabError::file("cannot write", &file))?;
        let socket = control_socket(&ledger.folder, &machine);
        let mut command = Command::new("bird");
        command
            .arg("-f")
            .arg("-c")
            .arg(&file)
            .arg("-s")
            .arg(&socket);
        command.arg("-P").arg(folder.join("bird.pid"));
        let launch = Launch::new(format!("bird {machine}"), plan.namespace(&machine), command);
        let record = process::start(ledger, launch)?;
        let what = format!("bird on {machine} to answer");
        until_blocking(&what, patience(10), &record.log, || {
            if !process::is_alive(&record) {
                return Ok(Err(process::died(&record)));
            }
            ask(&socket, &["show", "status"])
                .map(Ok)
                .map_err(|error| error.to_string())
        })??;
    }
    Ok(())
}

/// Asks a BIRD something through its socket.
///
/// # Errors
/// When it does not answer.
pub fn ask(socket: &Path, question: &[&str]) -> Result<String, LabError> {
    let socket = socket.to_string_lossy();
    let mut arguments = vec!["-r", "-s", &socket];
    arguments.extend(question);
    run("birdc", &arguments)
}

/// The BGP sessions in the answer to `show protocols`.
pub fn parse_sessions(answer: &str) -> Vec<Session> {
    let bgp = answer.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [peer, "BGP", _table, _state, since, info @ ..] => Some(Session {
                peer: peer.strip_prefix(PEER).unwrap_or(peer).to_owned(),
                since: (*since).to_owned(),
                state: info.first().copied().unwrap_or("down").to_owned(),
            }),
            _ => None,
        }
    });
    bgp.collect()
}

/// The sessions of one router.
///
/// # Errors
/// When its BIRD does not answer.
pub fn sessions(folder: &Folder, machine: &str) -> Result<Vec<Session>, LabError> {
    let answer = ask(&control_socket(folder, machine), &["show", "protocols"])?;
    Ok(parse_sessions(&answer))
}

#[cfg(test)]
mod tests {
    use super::super::spec::{LabSpec, Tor};
    use super::*;

    fn plan() -> Plan {
        let spec = LabSpec {
            name: "t".to_owned(),
            nodes: 4,
            segments: 2,
            tor: Tor::Bird,
            tors: 1,
            pods: 0,
        };
        spec.plan().unwrap()
    }

    #[test]
    fn a_tor_peers_with_its_segment_and_the_router() {
        let all = configurations(&plan());
        let (name, text) = &all[2];
        assert_eq!(name, "tor-b");
        assert_eq!(text.matches("protocol bgp").count(), 3);
        assert!(text.contains("protocol bgp 'to-node3' {"), "{text}");
        assert!(text.contains("neighbor 10.10.2.13 as 64512;"), "{text}");
        assert!(text.contains("local 10.10.254.3 as 65002;"), "{text}");
        assert!(text.contains("[ 10.244.0.0/16+ ]"), "{text}");
        assert!(all[0].1.contains("protocol bgp 'to-tor-a' {"));
    }

    #[test]
    fn bird_accepts_the_configurations() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in configurations(&plan()) {
            let file = folder.path().join(name);
            fs::write(&file, &text).unwrap();
            let file = file.to_string_lossy().into_owned();
            match run("bird", &["-p", "-c", &file]) {
                Err(LabError::Start { .. }) => {
                    eprintln!("SKIPPED (needs bird): bird_accepts_the_configurations");
                    let required = std::env::var("MARGAY_REQUIRE_PRIVILEGED").is_ok();
                    assert!(!required, "bird is not installed");
                }
                answer => drop(answer.unwrap()),
            }
        }
    }

    #[test]
    fn sessions_of_an_answer() {
        let answer = "BIRD 2.0.12 ready.\n\
            Name       Proto      Table      State  Since         Info\n\
            device1    Device     ---        up     03:50:01.000  \n\
            kernel1    Kernel     master4    up     03:50:01.000  \n\
            to-router  BGP        ---        up     03:50:02.123  Established   \n\
            node1      BGP        ---        start  03:50:01.000  Active        Socket: Connection refused\n\
            node2      BGP        ---        down   03:50:01.000\n";
        let sessions = parse_sessions(answer);
        let seen: Vec<_> = sessions
            .iter()
            .map(|s| (s.peer.as_str(), s.state.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("router", "Established"),
                ("node1", "Active"),
                ("node2", "down")
            ]
        );
    }
}

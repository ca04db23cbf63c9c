//! The last look at a lab that failed: what every kernel, router and agent says, kept beside the
//! logs before it is all gone.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::bird;
use super::command::finish;
use super::frr;
use super::namespaces;
use super::state::{Folder, State};

/// What is asked in every namespace.
const QUESTIONS: [&[&str]; 6] = [
    &["ip", "-d", "addr"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "neigh"],
    &["bridge", "fdb"],
    &["ss", "-tanp"],
    &["nft", "list", "ruleset"],
];
/// What is asked of every agent.
const QUERIES: [&str; 5] = ["status", "bgp", "routes", "blocks", "policy"];
/// How long an answer may take: a diagnosis must not hang on what is broken.
const LIMIT: Duration = Duration::from_secs(2);

/// Writes one file for each namespace into the logs. What cannot be found out is left out.
pub fn write(folder: &Folder, state: &State) {
    let prefix = format!("mgy-{}-", state.spec.name);
    for namespace in state
        .namespaces
        .iter()
        .filter(|name| namespaces::exists(name))
    {
        let machine = namespace.strip_prefix(&prefix).unwrap_or(namespace);
        let mut text = String::new();
        for question in QUESTIONS {
            let answer = ask(namespace, question);
            let _ = writeln!(text, "# {}\n{answer}", question.join(" "));
        }
        let socket = bird::control_socket(folder, machine);
        if socket.exists() {
            for question in [["show", "protocols", "all"], ["show", "route", "all"]] {
                let answer =
                    bird::ask(&socket, &question).unwrap_or_else(|error| error.to_string());
                let _ = writeln!(text, "# birdc {}\n{answer}", question.join(" "));
            }
        }
        if frr::sockets(folder, machine).exists() {
            for question in ["show bgp neighbors", "show bgp ipv4 unicast"] {
                let answer = frr::ask(folder, machine, question);
                let answer = answer.unwrap_or_else(|error| error.to_string());
                let _ = writeln!(text, "# vtysh {question}\n{answer}");
            }
        }
        let socket = folder.run_dir(machine).join("admin.sock");
        if socket.exists() {
            for query in QUERIES {
                let answer = query_agent(&socket, query).unwrap_or_else(|error| error.to_string());
                let _ = writeln!(text, "# admin.sock {query}\n{answer}");
            }
        }
        let _ = std::fs::write(folder.logs().join(format!("diagnosis-{machine}.txt")), text);
    }
}

fn ask(namespace: &str, question: &[&str]) -> String {
    let Some((program, arguments)) = question.split_first() else {
        return String::new();
    };
    let mut command = Command::new(program);
    command.args(arguments);
    match namespaces::inside(namespace, || finish(command, None, LIMIT)) {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&said).into_owned()
        }
        Err(error) => error.to_string(),
    }
}

fn query_agent(socket: &Path, query: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    writeln!(stream, "{{\"query\":\"{query}\"}}")?;
    let mut answer = Vec::new();
    // One line; an agent that keeps the connection open is cut off by the timeout.
    let mut piece = [0; 4096];
    while !answer.ends_with(b"\n") {
        match stream.read(&mut piece)? {
            0 => break,
            length => answer.extend(piece.get(..length).unwrap_or_default()),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

//! A router beside the lab's own: a namespace on a segment's bridge or on links of its own, with
//! BIRD, FRR or GoBGP in it. It ends with the lab.

use std::path::PathBuf;
use std::process::Command;

use margay_e2e::lab::command::{finish, run};
use margay_e2e::lab::namespaces;
use margay_e2e::lab::patience::{patience, until_blocking};
use margay_e2e::lab::process::{self, Launch};
use margay_e2e::lab::topology::BRIDGE;

use crate::ground::Ground;

/// Where Debian has FRR's daemons.
const FRR: &str = "/usr/lib/frr";

pub struct Router {
    pub machine: String,
    pub namespace: String,
    folder: PathBuf,
}

impl Router {
    /// A machine without links that forwards.
    pub fn make(ground: &mut Ground, machine: &str) -> Self {
        let namespace = ground.namespace(machine);
        let ledger = &mut ground.lab.ledger;
        ledger.make_namespace(&namespace).unwrap();
        let forwarding = [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")];
        namespaces::set_sysctls(&namespace, &forwarding).unwrap();
        let folder = ledger.folder.machine(machine);
        std::fs::create_dir_all(&folder).unwrap();
        let router = Self {
            machine: machine.to_owned(),
            namespace,
            folder,
        };
        router.ip("link set lo up");
        router
    }

    /// A machine on the first segment, with these addresses.
    pub fn on_segment(ground: &mut Ground, machine: &str, addresses: &[&str]) -> Self {
        let router = Self::make(ground, machine);
        let tor = ground.namespace("tor-a");
        let Self { namespace, .. } = &router;
        ip(&format!(
            "-n {tor} link add {machine} type veth peer name eth0 netns {namespace}"
        ));
        ip(&format!("-n {tor} link set {machine} master {BRIDGE} up"));
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            router.ip(&format!("addr add {address} dev eth0{nodad}"));
        }
        router.ip("link set eth0 up");
        router
    }

    /// A link to a node with link-local addresses alone: `here` on the router, `there` on the node.
    pub fn link(&self, ground: &Ground, node: &str, here: &str, there: &str) {
        let node = ground.namespace(node);
        self.ip(&format!(
            "link add {here} type veth peer name {there} netns {node}"
        ));
        self.ip(&format!("link set {here} up"));
        ip(&format!("-n {node} link set {there} up"));
    }

    /// `ip` in the router's namespace.
    pub fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.namespace));
    }

    fn write(&self, name: &str, text: &str) -> String {
        let file = self.folder.join(name);
        std::fs::write(&file, text).unwrap();
        file.to_string_lossy().into_owned()
    }

    /// Starts a program in the namespace and waits until `answers` says so.
    fn start(
        &self,
        ground: &mut Ground,
        what: &str,
        command: Command,
        answers: impl Fn() -> Result<(), String>,
    ) {
        let name = format!("{what} {}", self.machine);
        let launch = Launch::new(name.clone(), self.namespace.clone(), command);
        let record = process::start(&mut ground.lab.ledger, launch).unwrap();
        let answer = || answers().map(Ok::<(), ()>);
        let limit = patience(10);
        until_blocking(&format!("{name} to answer"), limit, &record.log, answer)
            .unwrap()
            .unwrap();
    }

    // ===== BIRD =====

    /// Starts BIRD with this configuration.
    pub fn start_bird(&self, ground: &mut Ground, text: &str) {
        let file = self.write("bird.conf", &bird_head(text));
        let mut command = Command::new("bird");
        command.args(["-f", "-c", &file]);
        command.arg("-s").arg(self.folder.join("bird.ctl"));
        command.arg("-P").arg(self.folder.join("bird.pid"));
        self.start(ground, "bird", command, || {
            self.birdc(&["show", "status"]).map(drop)
        });
    }

    /// Has it read another configuration.
    pub fn reconfigure_bird(&self, text: &str) {
        self.write("bird.conf", &bird_head(text));
        let answer = self.birdc_writing(&["configure"]).unwrap();
        let done =
            answer.contains("Reconfigured") || answer.contains("Reconfiguration in progress");
        assert!(done, "{answer}");
    }

    /// Asks it something.
    pub fn birdc(&self, question: &[&str]) -> Result<String, String> {
        self.birdc_with(&["-r"], question)
    }

    /// Has it do something.
    pub fn birdc_writing(&self, question: &[&str]) -> Result<String, String> {
        self.birdc_with(&[], question)
    }

    fn birdc_with(&self, first: &[&str], question: &[&str]) -> Result<String, String> {
        let socket = self.folder.join("bird.ctl").to_string_lossy().into_owned();
        let mut arguments = first.to_vec();
        arguments.extend(["-s", &socket]);
        arguments.extend(question);
        run("birdc", &arguments).map_err(|error| error.to_string())
    }

    // ===== FRR =====

    /// Starts zebra and bgpd with this configuration of bgpd.
    pub fn start_frr(&self, ground: &mut Ground, text: &str) {
        std::fs::create_dir_all(&self.folder).unwrap();
        self.write("zebra.conf", "log stdout\n");
        self.write("bgpd.conf", &format!("log stdout\n{text}"));
        run("chown", &["-R", "frr:frr", &self.folder.to_string_lossy()]).unwrap();
        for daemon in ["zebra", "bgpd"] {
            let mut command = Command::new(format!("{FRR}/{daemon}"));
            command.args(["-u", "frr", "-g", "frr", "-P", "0"]);
            command.arg("--vty_socket").arg(&self.folder);
            command.arg("-z").arg(self.folder.join("zserv.api"));
            let config = self.folder.join(format!("{daemon}.conf"));
            command.arg("-f").arg(config);
            command
                .arg("-i")
                .arg(self.folder.join(format!("{daemon}.pid")));
            self.start(ground, daemon, command, || {
                self.vtysh(daemon, "show version").map(drop)
            });
        }
    }

    /// Asks a daemon of FRR something.
    pub fn vtysh(&self, daemon: &str, question: &str) -> Result<String, String> {
        let folder = self.folder.to_string_lossy().into_owned();
        let arguments = ["--vty_socket", &folder, "-d", daemon, "-c", question];
        run("vtysh", &arguments).map_err(|error| error.to_string())
    }

    // ===== GoBGP =====

    /// Starts GoBGP with this configuration.
    pub fn start_gobgp(&self, ground: &mut Ground, text: &str) {
        let file = self.write("gobgpd.toml", text);
        let mut command = Command::new("gobgpd");
        command.args(["-f", &file, "-p", "--pprof-disable"]);
        command.args(["--api-hosts", "127.0.0.1:50051"]);
        self.start(ground, "gobgpd", command, || {
            self.gobgp(&["neighbor"]).map(drop)
        });
    }

    /// Asks it something, or has it do something.
    pub fn gobgp(&self, arguments: &[&str]) -> Result<String, String> {
        let output = namespaces::inside(&self.namespace, || {
            let mut command = Command::new("gobgp");
            command.args(arguments);
            finish(command, None, patience(10))
        });
        let output = output.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.success() {
            true => Ok(text),
            false => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
        }
    }
}

fn bird_head(text: &str) -> String {
    format!("log stderr all;\nprotocol device {{ scan time 5; }}\n{text}")
}

/// `ip` with these arguments, separated by spaces.
pub fn ip(arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    run("ip", &arguments).unwrap()
}

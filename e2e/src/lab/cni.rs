//! The CNI plugin as a container runtime executes it: environment, configuration on standard
//! input, a result or an error on standard output.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use serde::Deserialize;
use serde_json::{Value, json};

use super::cluster::Binaries;
use super::command::{finish, tail};
use super::error::LabError;
use super::namespaces;
use super::patience::patience;
use super::spec::{POD_NAMESPACE, Plan};
use super::state::Folder;

/// The interface in every pod.
const INTERFACE: &str = "eth0";

/// The plugin on one node.
#[derive(Debug, Clone)]
pub struct Plugin {
    /// The program.
    pub program: PathBuf,
    /// The node's network namespace.
    pub node: String,
    /// The agent's socket.
    pub socket: PathBuf,
    /// Where deletes wait while no agent listens.
    pub journal: PathBuf,
}

/// A pod's sandbox.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The pod's name.
    pub pod: String,
    /// The pod object's uid.
    pub uid: String,
    /// The sandbox's id.
    pub container_id: String,
    /// Its network namespace, by name.
    pub namespace: String,
}

#[derive(Deserialize)]
struct Success {
    #[serde(default)]
    ips: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    address: IpNetwork,
}

#[derive(Deserialize)]
struct Failure {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

impl Plugin {
    /// The plugin on a node of a lab.
    pub fn of(plan: &Plan, folder: &Folder, binaries: &Binaries, node: &str) -> Self {
        Self {
            program: binaries.cni.clone(),
            node: plan.namespace(node),
            socket: folder.cni_socket(node),
            journal: folder.cni_journal(node),
        }
    }

    /// The network configuration that the plugin is given, in this version of CNI.
    pub fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "margay", "type": "margay-cni",
            "socket": self.socket, "journal": self.journal, "mtu": 0,
        })
    }

    /// ADD: wires the sandbox; gives its addresses and how long it took. Blocks.
    ///
    /// # Errors
    /// What the plugin said, or that it gave no address.
    pub fn add(&self, sandbox: &Sandbox) -> Result<(Vec<IpAddr>, Duration), LabError> {
        let start = Instant::now();
        let output = self.execute("ADD", sandbox)?;
        let took = start.elapsed();
        let addresses = parse_success(&output).map_err(|message| LabError::Cni {
            command: "ADD",
            pod: sandbox.pod.clone(),
            message,
        })?;
        Ok((addresses, took))
    }

    /// DEL: takes the sandbox's network away; says how long it took. Blocks.
    ///
    /// # Errors
    /// What the plugin said.
    pub fn delete(&self, sandbox: &Sandbox) -> Result<Duration, LabError> {
        let start = Instant::now();
        self.execute("DEL", sandbox)?;
        Ok(start.elapsed())
    }

    /// STATUS: whether the node can wire pods, and if not, why not. Blocks.
    ///
    /// # Errors
    /// What the plugin said.
    pub fn status(&self) -> Result<(), LabError> {
        self.run("STATUS", "(none)", &[]).map(drop)
    }

    fn execute(&self, verb: &'static str, sandbox: &Sandbox) -> Result<String, LabError> {
        let netns = namespaces::path(&sandbox.namespace).display().to_string();
        let environment = [
            ("CNI_CONTAINERID", sandbox.container_id.clone()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", INTERFACE.to_owned()),
            ("CNI_ARGS", arguments(sandbox)),
        ];
        self.run(verb, &sandbox.pod, &environment)
    }

    fn run(
        &self,
        verb: &'static str,
        pod: &str,
        environment: &[(&str, String)],
    ) -> Result<String, LabError> {
        let mut command = Command::new(&self.program);
        let folder = self.program.parent().unwrap_or(Path::new("/opt/cni/bin"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", folder)
            .envs(environment.iter().map(|(name, value)| (name, value)));
        let config = self.config("1.1.0").to_string();
        let limit = patience(30);
        let output = namespaces::inside(&self.node, || {
            finish(command, Some(config.as_bytes()), limit)
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        let mut message = parse_failure(&text);
        let said = String::from_utf8_lossy(&output.stderr);
        if !said.trim().is_empty() {
            message = format!("{message}; it also said: {}", tail(&said));
        }
        Err(LabError::Cni {
            command: verb,
            pod: pod.to_owned(),
            message,
        })
    }
}

fn arguments(sandbox: &Sandbox) -> String {
    let Sandbox {
        pod,
        uid,
        container_id,
        ..
    } = sandbox;
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={POD_NAMESPACE};K8S_POD_NAME={pod};\
         K8S_POD_INFRA_CONTAINER_ID={container_id};K8S_POD_UID={uid}"
    )
}

fn parse_success(text: &str) -> Result<Vec<IpAddr>, String> {
    let result: Success = serde_json::from_str(text)
        .map_err(|error| format!("{error} in the result {:?}", tail(text)))?;
    let addresses: Vec<IpAddr> = result.ips.iter().map(|one| one.address.ip()).collect();
    if addresses.is_empty() {
        return Err("the result holds no address".to_owned());
    }
    Ok(addresses)
}

fn parse_failure(text: &str) -> String {
    match serde_json::from_str::<Failure>(text) {
        Ok(Failure { code, msg, details }) if details.is_empty() => format!("{msg} (code {code})"),
        Ok(Failure { code, msg, details }) => format!("{msg} (code {code}): {details}"),
        Err(_) => format!("it failed and gave no CNI error: {:?}", tail(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_errors() {
        let result = r#"{"cniVersion":"1.1.0","interfaces":[],"ips":[{"address":"10.244.0.7/32","interface":0}]}"#;
        assert_eq!(
            parse_success(result).unwrap(),
            ["10.244.0.7".parse::<IpAddr>().unwrap()]
        );
        assert!(parse_success(r#"{"cniVersion":"1.1.0"}"#).is_err());
        assert!(parse_success("").is_err());
        let error =
            r#"{"cniVersion":"1.1.0","code":11,"msg":"try again","details":"no block is free"}"#;
        assert_eq!(
            parse_failure(error),
            "try again (code 11): no block is free"
        );
        assert!(parse_failure("oops").contains("oops"));
    }
}

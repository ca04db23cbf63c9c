//! The cluster's own processes: the embedded store and an agent on every node.
//!
//! They are the binaries that people run, found beside margayctl or in `--bin-dir`, and started
//! with the arguments of the documented doors.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use kube::Client;
use rustix::io::{FdFlags, fcntl_setfd};

use super::cni::Plugin;
use super::error::LabError;
use super::objects;
use super::patience::{patience, until};
use super::process::{self, Launch, STORE};
use super::spec::{Plan, STORE_PORT};
use super::state::{Folder, Ledger, ProcessRecord};

/// The programs that the lab starts.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The agent and the store.
    pub margay: PathBuf,
    /// The CNI plugin.
    pub cni: PathBuf,
    /// This tool, for what runs in pods.
    pub margayctl: PathBuf,
}

impl Binaries {
    /// Finds the programs in a folder; without one, beside the program that runs now.
    ///
    /// # Errors
    /// When one is missing.
    pub fn find(folder: Option<&Path>) -> Result<Self, LabError> {
        let own = std::env::current_exe().map_err(LabError::file("cannot find", "margayctl"))?;
        let beside = own.parent().unwrap_or(Path::new("."));
        let folder = folder.unwrap_or(beside);
        let find = |name: &str| {
            let path = folder.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(LabError::Spec {
                field: "--bin-dir",
                message: format!(
                    "there is no {name} in {}: build it (cargo build --workspace) or name another folder",
                    folder.display()
                ),
            })
        };
        Ok(Self {
            margay: find("margay")?,
            cni: find("margay-cni")?,
            margayctl: find("margayctl")?,
        })
    }
}

/// Starts the store in its namespace, writes a kubeconfig for the host, and waits until the
/// store answers.
///
/// The store listens in its namespace, where the nodes reach it, and on a loopback port of the
/// host, which is opened here and inherited: so the port is free for certain.
///
/// # Errors
/// When the store does not come up.
pub async fn start_store(
    ledger: &mut Ledger,
    plan: &Plan,
    binaries: &Binaries,
) -> Result<Client, LabError> {
    let data = ledger.folder.store();
    fs::create_dir_all(&data).map_err(LabError::file("cannot make", &data))?;
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let no_port = LabError::file("cannot listen on", "127.0.0.1");
    let listener = TcpListener::bind(loopback).map_err(no_port)?;
    let no_port = LabError::file("cannot listen on", "127.0.0.1");
    let port = listener.local_addr().map_err(no_port)?.port();
    ledger.note(|state| state.store_port = Some(port))?;

    let address = plan.store.address.ip();
    let mut command = Command::new(&binaries.margay);
    command.arg("apiserver").arg("--data").arg(&data);
    command
        .arg("--listen")
        .arg(SocketAddr::new(address, STORE_PORT).to_string());
    command
        .arg("--listen")
        .arg(format!("fd:{}", listener.as_raw_fd()));
    command.args(["--san", "127.0.0.1", "--san", &address.to_string()]);
    fcntl_setfd(listener.as_fd(), FdFlags::empty()).map_err(|errno| LabError::Start {
        program: "margay apiserver".to_owned(),
        source: errno.into(),
        hint: "",
    })?;
    let launch = Launch::new(STORE, plan.namespace(&plan.store.name), command);
    let record = process::start(ledger, launch)?;
    drop(listener);

    let source = data.join("kubeconfig");
    until(
        "the store's kubeconfig",
        patience(20),
        &record.log,
        || async {
            running_or(&record, || {
                source
                    .is_file()
                    .then_some(())
                    .ok_or("no file yet".to_owned())
            })
        },
    )
    .await??;
    let target = ledger.folder.kubeconfig();
    write_host_kubeconfig(&source, &target, port)?;
    let client = objects::client(&target).await?;
    until("the store to answer", patience(20), &record.log, || async {
        if !process::is_alive(&record) {
            return Ok(Err(process::died(&record)));
        }
        let version = client.apiserver_version().await;
        version.map(|_| Ok(())).map_err(|error| error.to_string())
    })
    .await??;
    Ok(client)
}

/// A look at something that only a living process can bring about.
fn running_or<T>(
    record: &ProcessRecord,
    look: impl FnOnce() -> Result<T, String>,
) -> Result<Result<T, LabError>, String> {
    match look() {
        Ok(value) => Ok(Ok(value)),
        Err(_) if !process::is_alive(record) => Ok(Err(process::died(record))),
        Err(seen) => Err(seen),
    }
}

/// The store's kubeconfig with the loopback port for its server, readable by its owner only.
fn write_host_kubeconfig(source: &Path, target: &Path, port: u16) -> Result<(), LabError> {
    let text = fs::read_to_string(source).map_err(LabError::file("cannot read", source))?;
    let server = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    let text = with_server(&text, &format!("https://{server}")).map_err(|message| {
        LabError::Kubeconfig {
            path: source.to_owned(),
            message,
        }
    })?;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(target);
    file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(LabError::file("cannot write", target))
}

fn with_server(kubeconfig: &str, server: &str) -> Result<String, String> {
    let parsed = serde_saphyr::from_str(kubeconfig);
    let mut value: serde_json::Value = parsed.map_err(|error| error.to_string())?;
    let old = value.pointer_mut("/clusters/0/cluster/server");
    *old.ok_or("it names no cluster with a server")? = server.into();
    serde_saphyr::to_string(&value).map_err(|error| error.to_string())
}

/// Starts an agent on every node and waits until each can wire pods, as the CNI plugin's STATUS
/// says: before that no runtime gives the node a pod.
///
/// # Errors
/// When one does not come up.
pub async fn start_agents(
    ledger: &mut Ledger,
    plan: &Plan,
    binaries: &Binaries,
) -> Result<(), LabError> {
    let mut started = Vec::new();
    for node in &plan.nodes {
        let name = &node.host.name;
        let record = launch_agent(ledger, plan, binaries, name)?;
        started.push((record, Plugin::of(plan, &ledger.folder, binaries, name)));
    }
    for (record, plugin) in &started {
        until_able_to_wire(record, plugin).await?;
    }
    Ok(())
}

/// Starts the controller, beside the store. Nothing waits for it.
///
/// # Errors
/// When it cannot be started.
pub fn start_controller(
    ledger: &mut Ledger,
    plan: &Plan,
    binaries: &Binaries,
) -> Result<ProcessRecord, LabError> {
    let mut command = Command::new(&binaries.margay);
    command.arg("controller").arg("--kubeconfig");
    command.arg(ledger.folder.store().join("kubeconfig"));
    command.args(["--namespace", "kube-system", "--default-load-balancer"]);
    let launch = Launch::new(CONTROLLER, plan.namespace(&plan.store.name), command);
    process::start(ledger, launch)
}

/// Starts the agent of one node, as after it was ended, and waits until it can wire pods.
///
/// # Errors
/// When it does not come up.
pub async fn start_agent(
    ledger: &mut Ledger,
    plan: &Plan,
    binaries: &Binaries,
    node: &str,
) -> Result<ProcessRecord, LabError> {
    let record = launch_agent(ledger, plan, binaries, node)?;
    let plugin = Plugin::of(plan, &ledger.folder, binaries, node);
    until_able_to_wire(&record, &plugin).await?;
    Ok(record)
}

fn launch_agent(
    ledger: &mut Ledger,
    plan: &Plan,
    binaries: &Binaries,
    node: &str,
) -> Result<ProcessRecord, LabError> {
    let command = agent_command(&ledger.folder, node, binaries)?;
    let launch = Launch::new(agent_name(node), plan.namespace(node), command);
    process::start(ledger, launch)
}

async fn until_able_to_wire(record: &ProcessRecord, plugin: &Plugin) -> Result<(), LabError> {
    let what = format!("{} to be able to wire pods", record.name);
    until(&what, patience(30), &record.log, || async {
        running_or(record, || {
            plugin.status().map_err(|error| error.to_string())
        })
    })
    .await?
}

/// The controller's name in the state file and of its log.
pub const CONTROLLER: &str = "controller";

/// The agent's name in the state file and of its log.
pub fn agent_name(node: &str) -> String {
    format!("agent {node}")
}

fn agent_command(folder: &Folder, node: &str, binaries: &Binaries) -> Result<Command, LabError> {
    let (run_dir, state_dir) = (folder.run_dir(node), folder.state_dir(node));
    for path in [&run_dir, &state_dir] {
        fs::create_dir_all(path).map_err(LabError::file("cannot make", path))?;
    }
    let mut command = Command::new(&binaries.margay);
    command.arg("agent");
    command
        .arg("--kubeconfig")
        .arg(folder.store().join("kubeconfig"));
    command.args(["--node-name", node]);
    command.arg("--run-dir").arg(run_dir);
    command.arg("--state-dir").arg(state_dir);
    // Each node has a loopback of its own, so the usual ports are free.
    command.args(["--health", "127.0.0.1:9190", "--metrics", "127.0.0.1:9191"]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_changes() {
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: https://10.10.0.10:6443\n    certificate-authority-data: QUJD\nusers:\n- name: u\n  user:\n    token: \"123\"\n";
        let changed = with_server(text, "https://127.0.0.1:4000").unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&changed).unwrap();
        assert_eq!(
            value["clusters"][0]["cluster"]["server"],
            "https://127.0.0.1:4000"
        );
        assert_eq!(
            value["clusters"][0]["cluster"]["certificate-authority-data"],
            "QUJD"
        );
        assert_eq!(value["users"][0]["user"]["token"], "123");
        assert!(with_server("kind: Config", "x").is_err());
    }

    #[test]
    fn a_missing_program_says_where_it_was_sought() {
        let folder = tempfile::tempdir().unwrap();
        let text = Binaries::find(Some(folder.path())).unwrap_err().to_string();
        assert!(
            text.contains("--bin-dir") && text.contains("margay"),
            "{text}"
        );
    }
}

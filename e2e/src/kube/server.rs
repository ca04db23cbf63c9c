//! Starting and ending etcd and kube-apiserver.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::Client;
use serde_json::json;

use super::certificates;
use super::flags::{AUDIT_LOG, Place};
use crate::lab::objects;
use crate::lab::patience::patience;

/// The token of the one user there is, who may do everything.
const TOKEN: &str = "of-a-server-that-lives-for-one-test";

/// A running control plane. Its processes end when this is dropped, or when the thread that
/// started it ends, so start it from one that stays.
#[derive(Debug)]
pub struct ControlPlane {
    // In the order in which they end.
    apiserver: Process,
    etcd: Process,
    programs: PathBuf,
    folder: PathBuf,
    /// Where etcd and the API server listen.
    ports: (u16, u16),
    kubeconfig: PathBuf,
    started_in: Duration,
}

#[derive(Debug)]
struct Process {
    child: Child,
    name: &'static str,
    log: PathBuf,
}

impl ControlPlane {
    /// Starts one with the programs of a folder and waits until it is ready. Everything it
    /// writes is in `folder`, which should be empty.
    ///
    /// # Errors
    /// When one of them does not come up; with the end of its log.
    pub async fn start(programs: &Path, folder: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"];
        certificates::make(folder, &names.map(str::to_owned))?;
        certificates::write_private(
            &folder.join("tokens.csv"),
            &format!("{TOKEN},admin,1,\"system:masters\"\n"),
        )?;
        let [client, peer, api] = free_ports()?;
        let etcd = start_etcd(programs, folder, client, peer)?;
        let apiserver = start_apiserver(programs, folder, client, api)?;
        let kubeconfig = folder.join("kubeconfig");
        certificates::write_private(&kubeconfig, &kubeconfig_text(folder, api, TOKEN)?)?;
        let mut started = Self {
            apiserver,
            etcd,
            programs: programs.to_owned(),
            folder: folder.to_owned(),
            ports: (client, api),
            kubeconfig,
            started_in: Duration::ZERO,
        };
        started.wait_until_ready().await?;
        started.started_in = began.elapsed();
        Ok(started)
    }

    /// Kills the API server (SIGKILL), leaves it dead for a time, and starts it again on the same
    /// port and the same data. Comes back when it is ready. To be called from the thread that
    /// started it, or another one that stays.
    ///
    /// # Errors
    /// When it does not come up again; with the end of its log.
    pub async fn restart_apiserver(&mut self, dead: Duration) -> anyhow::Result<()> {
        self.apiserver.child.kill()?;
        self.apiserver.child.wait()?;
        tokio::time::sleep(dead).await;
        let (etcd, port) = self.ports;
        self.apiserver = start_apiserver(&self.programs, &self.folder, etcd, port)?;
        self.wait_until_ready().await
    }

    /// A kubeconfig for the one user there is.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What everybody has done so far, one request a line.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn audit_log(&self) -> std::io::Result<String> {
        let text = fs::read(self.folder.join(AUDIT_LOG))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// A kubeconfig for whoever has this token, in a file of this name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_of(&self, name: &str, token: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        let text = kubeconfig_text(&self.folder, self.ports.1, token)?;
        certificates::write_private(&path, &text)?;
        Ok(path)
    }

    /// How long it took to become ready.
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// A client.
    ///
    /// # Errors
    /// When the kubeconfig makes no sense, which would be a mistake here.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(objects::client(&self.kubeconfig).await?)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client = self.client().await?;
        let limit = Instant::now() + patience(120);
        loop {
            self.etcd.must_run()?;
            self.apiserver.must_run()?;
            let request = http_get("/readyz")?;
            let seen = match client.request_text(request).await {
                // The namespace is made after the start: before, nothing can be put into it.
                Ok(_) => match client
                    .request_text(http_get("/api/v1/namespaces/default")?)
                    .await
                {
                    Ok(_) => return Ok(()),
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            if Instant::now() > limit {
                bail!(
                    "kube-apiserver did not become ready: {seen}; its log: {}",
                    self.apiserver.last_words()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

fn start_etcd(programs: &Path, folder: &Path, client: u16, peer: u16) -> anyhow::Result<Process> {
    let (client, peer) = (
        format!("http://127.0.0.1:{client}"),
        format!("http://127.0.0.1:{peer}"),
    );
    let mut command = command(&programs.join("etcd"));
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", &client]);
    command.args(["--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer]);
    command.args(["--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    Process::start("etcd", command, folder)
}

fn start_apiserver(
    programs: &Path,
    folder: &Path,
    etcd: u16,
    port: u16,
) -> anyhow::Result<Process> {
    let mut command = command(&programs.join("kube-apiserver"));
    let place = Place {
        folder,
        etcd,
        bind: "127.0.0.1",
        advertise: "127.0.0.1",
        port,
    };
    command.args(place.flags()?);
    // Nobody runs here who would give a pod its service account.
    command.arg("--disable-admission-plugins=ServiceAccount");
    command.arg("--endpoint-reconciler-type=none");
    Process::start("kube-apiserver", command, folder)
}

/// A program that the kernel ends with the thread that started it: a test that is killed
/// leaves nothing behind.
fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

impl Process {
    fn start(name: &'static str, mut command: Command, folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?);
        let child = command.stderr(file).spawn();
        let child = child.with_context(|| format!("cannot start {name} (with setpriv)"))?;
        Ok(Self { child, name, log })
    }

    fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.last_words()),
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ports that were free a moment ago, all different.
fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind(any).context("cannot listen on 127.0.0.1")?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn kubeconfig_text(folder: &Path, port: u16, token: &str) -> anyhow::Result<String> {
    let authority = folder.join("ca.crt");
    let value = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": authority,
        }}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
    });
    Ok(serde_saphyr::to_string(&value)?)
}

//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler in the fabric's `store`
//! namespace, as an installer would set them up: RBAC and the Node authorizer, service accounts,
//! and an audit log of every request.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::bail;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::kube::certificates::{self, write_private};
use crate::kube::flags::{AUDIT_LOG, Place};
use crate::lab::objects;
use crate::lab::patience::patience;
use crate::lab::process::{self, Launch};
use crate::lab::spec::{Plan, STORE_PORT};
use crate::lab::state::ProcessRecord;
use crate::lab::up::Lab;

/// What of Kubernetes a cluster needs.
pub const PROGRAMS: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
];

/// Where etcd listens unless it is told.
const ETCD_PORT: u16 = 2379;
/// The API server as a Service.
const KUBERNETES: &str = "10.96.0.1";

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// For the one who may do everything.
    pub kubeconfig: PathBuf,
    /// A line of JSON for each request, once it is answered.
    pub audit_log: PathBuf,
    /// How long it took to become ready.
    pub started_in: Duration,
    folder: PathBuf,
    programs: PathBuf,
    address: IpAddr,
    apiserver: ProcessRecord,
}

/// Who may sign in: user, uid, groups.
fn users(plan: &Plan) -> Vec<(String, &'static str)> {
    let mut users = vec![
        ("admin".to_owned(), "system:masters"),
        ("system:kube-controller-manager".to_owned(), ""),
        ("system:kube-scheduler".to_owned(), ""),
        ("system:kube-proxy".to_owned(), ""),
    ];
    let nodes = plan.nodes.iter();
    users.extend(nodes.map(|node| (node_user(&node.host.name), "system:nodes")));
    users
}

/// A kubelet's name, by which the Node authorizer knows its node.
pub fn node_user(node: &str) -> String {
    format!("system:node:{node}")
}

fn token(user: &str) -> String {
    format!("of-one-test-{}", user.replace(':', "-"))
}

impl ControlPlane {
    /// Starts it and waits until the API server is ready.
    ///
    /// # Errors
    /// When one of them does not come up; with the end of its log.
    pub async fn start(lab: &mut Lab, programs: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        let folder = lab.ledger.folder.store();
        fs::create_dir_all(&folder)?;
        let address = lab.plan.store.address.ip();
        let names = [
            "127.0.0.1",
            &address.to_string(),
            KUBERNETES,
            "kubernetes.default.svc",
        ];
        certificates::make(&folder, &names.map(str::to_owned))?;
        let mut rows = String::new();
        for (number, (user, groups)) in users(&lab.plan).iter().enumerate() {
            rows.push_str(&format!("{},{user},{number},\"{groups}\"\n", token(user)));
        }
        write_private(&folder.join("tokens.csv"), &rows)?;

        etcd(lab, programs, &folder)?;
        let apiserver = apiserver(lab, programs, &folder, address)?;
        let mut started = Self {
            kubeconfig: lab.ledger.folder.kubeconfig(),
            audit_log: folder.join(AUDIT_LOG),
            started_in: Duration::ZERO,
            folder,
            programs: programs.to_owned(),
            address,
            apiserver,
        };
        started.write_kubeconfig(&started.kubeconfig, "admin")?;
        started.until_ready().await?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            started.start_server(lab, name)?;
        }
        started.started_in = began.elapsed();
        Ok(started)
    }

    /// Kills the API server, leaves it dead for a time, and starts it again on the same data.
    ///
    /// # Errors
    /// When it does not come up again; with the end of its log.
    pub async fn restart_apiserver(&mut self, lab: &mut Lab, dead: Duration) -> anyhow::Result<()> {
        process::kill(&self.apiserver);
        tokio::time::sleep(dead).await;
        self.apiserver = apiserver(lab, &self.programs, &self.folder, self.address)?;
        self.until_ready().await
    }

    /// What was refused (403) to users whose names begin so, each once: who, verb and resource.
    ///
    /// # Errors
    /// When the audit log cannot be read.
    pub fn refusals(&self, users: &str) -> anyhow::Result<BTreeSet<String>> {
        let text = fs::read_to_string(&self.audit_log)?;
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let refused = events.filter(|event| {
            let user = event["user"]["username"].as_str().unwrap_or_default();
            user.starts_with(users) && event["responseStatus"]["code"] == 403
        });
        let words = refused.map(|event| {
            let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let object = &event["objectRef"];
            let (user, verb) = (word(&event["user"]["username"]), word(&event["verb"]));
            let (group, resource) = (word(&object["apiGroup"]), word(&object["resource"]));
            format!(
                "{user}: {verb} {resource} of {group} ({})",
                word(&event["requestURI"])
            )
        });
        Ok(words.collect())
    }

    /// `kubectl` for the one who may do everything.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }

    /// Writes a kubeconfig for one of the users.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, user: &str) -> anyhow::Result<()> {
        // Whole in itself: a node sees other files than the host does.
        let authority = ByteString(fs::read(self.folder.join("ca.crt"))?);
        let value = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "cluster",
            "clusters": [{"name": "cluster", "cluster": {
                "server": format!("https://{}:{STORE_PORT}", self.address),
                "certificate-authority-data": authority,
            }}],
            "users": [{"name": user, "user": {"token": token(user)}}],
            "contexts": [{"name": "cluster", "context": {"cluster": "cluster", "user": user}}],
        });
        write_private(path, &serde_saphyr::to_string(&value)?)
    }

    fn start_server(&self, lab: &mut Lab, name: &str) -> anyhow::Result<()> {
        let kubeconfig = self.folder.join(format!("{name}.kubeconfig"));
        self.write_kubeconfig(&kubeconfig, &format!("system:{name}"))?;
        let mut command = Command::new(self.programs.join(name));
        command.arg("--kubeconfig").arg(&kubeconfig);
        // One of each: nobody to elect among.
        command.args([
            "--leader-elect=false",
            "--port=0",
            "--bind-address=127.0.0.1",
        ]);
        command.args(["--kube-api-qps=200", "--kube-api-burst=400"]);
        command.arg("--cert-dir").arg(self.folder.join(name));
        if name == "kube-controller-manager" {
            let file = |name: &str| self.folder.join(name).display().to_string();
            command.arg("--use-service-account-credentials=true");
            command.arg(format!(
                "--service-account-private-key-file={}",
                file("sa.key")
            ));
            command.arg(format!("--root-ca-file={}", file("ca.crt")));
            // A node that is gone is known to be within a test's patience.
            command.args([
                "--node-monitor-grace-period=20s",
                "--node-monitor-period=2s",
            ]);
            command.arg("--concurrent-deployment-syncs=10");
        }
        let namespace = lab.plan.namespace(&lab.plan.store.name);
        process::start(&mut lab.ledger, Launch::new(name, namespace, command))?;
        Ok(())
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        let client = objects::client(&self.kubeconfig).await?;
        let limit = Instant::now() + patience(120);
        loop {
            if !process::is_alive(&self.apiserver) {
                return Err(process::died(&self.apiserver).into());
            }
            // The namespace is made after the start: before, nothing can be put into it.
            let mut seen = String::new();
            for path in ["/readyz", "/api/v1/namespaces/default"] {
                let request = http::Request::get(path).body(Vec::new())?;
                if let Err(error) = client.request_text(request).await {
                    seen = error.to_string();
                }
            }
            if seen.is_empty() {
                return Ok(());
            }
            if Instant::now() > limit {
                let said = process::log_tail(&self.apiserver.log);
                bail!("kube-apiserver did not become ready: {seen}; its log: {said}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn etcd(lab: &mut Lab, programs: &Path, folder: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(programs.join("etcd"));
    command.arg("--data-dir").arg(folder.join("etcd"));
    let namespace = lab.plan.namespace(&lab.plan.store.name);
    process::start(&mut lab.ledger, Launch::new("etcd", namespace, command))?;
    Ok(())
}

fn apiserver(
    lab: &mut Lab,
    programs: &Path,
    folder: &Path,
    address: IpAddr,
) -> anyhow::Result<ProcessRecord> {
    let mut command = Command::new(programs.join("kube-apiserver"));
    let place = Place {
        folder,
        etcd: ETCD_PORT,
        bind: "0.0.0.0",
        advertise: &address.to_string(),
        port: STORE_PORT,
    };
    command.args(place.flags()?);
    command.args([
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",
        "--audit-log-maxsize=1000",
    ]);
    let namespace = lab.plan.namespace(&lab.plan.store.name);
    let launch = Launch::new("kube-apiserver", namespace, command);
    Ok(process::start(&mut lab.ledger, launch)?)
}

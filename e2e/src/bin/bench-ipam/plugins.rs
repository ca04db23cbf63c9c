//! The two sides, executed as a container runtime executes them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use margay_e2e::lab::cni::{Plugin, Sandbox};
use margay_e2e::lab::command::finish;
use margay_e2e::lab::namespaces;
use margay_e2e::lab::pods::Runtime;
use margay_e2e::lab::spec::PodPlan;
use margay_e2e::lab::up::Lab;
use serde_json::{Value, json};

/// Where Debian puts the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";
/// How long one execution may take.
const LIMIT: Duration = Duration::from_secs(60);

/// One side.
#[derive(Debug)]
pub(crate) struct Contestant {
    program: PathBuf,
    node: String,
    config: Value,
    /// Where the reference's host-local keeps its files.
    _state: Option<tempfile::TempDir>,
}

impl Contestant {
    /// The lab's own plugin and agent.
    pub(crate) fn margay(runtime: &Runtime, lab: &Lab) -> Self {
        let pod = PodPlan {
            name: String::new(),
            app: String::new(),
            node: 0,
        };
        let plugin: Plugin = runtime.plugin(&pod);
        Self {
            config: plugin.config("1.0.0"),
            program: plugin.program,
            node: lab.plan.namespace(&lab.plan.nodes[0].host.name),
            _state: None,
        }
    }

    /// `ptp` with `host-local`: a veth pair, a host route, an address from a file.
    pub(crate) fn reference(lab: &Lab) -> Result<Self> {
        let program = Path::new(REFERENCE).join("ptp");
        if !program.is_file() {
            bail!("{} is missing: scripts/packages.sh cni", program.display());
        }
        let state = tempfile::tempdir()?;
        Ok(Self {
            program,
            node: lab.plan.namespace(&lab.plan.nodes[0].host.name),
            config: json!({
                "cniVersion": "1.0.0", "name": "reference", "type": "ptp", "ipMasq": false,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]],
                    "dataDir": state.path()},
            }),
            _state: Some(state),
        })
    }

    /// ADD: how long it took.
    pub(crate) fn add(&self, sandbox: &Sandbox) -> Result<Duration> {
        let began = Instant::now();
        self.execute("ADD", sandbox)?;
        Ok(began.elapsed())
    }

    /// DEL.
    pub(crate) fn delete(&self, sandbox: &Sandbox) -> Result<()> {
        self.execute("DEL", sandbox)
    }

    /// An ADD for each sandbox, all at once: how long until the last is done.
    pub(crate) fn add_all(&self, sandboxes: &[Sandbox]) -> Result<Duration> {
        let began = Instant::now();
        self.all("ADD", sandboxes)?;
        Ok(began.elapsed())
    }

    /// The same with DEL.
    pub(crate) fn delete_all(&self, sandboxes: &[Sandbox]) -> Result<()> {
        self.all("DEL", sandboxes)
    }

    fn all(&self, verb: &str, sandboxes: &[Sandbox]) -> Result<()> {
        std::thread::scope(|scope| {
            let running: Vec<_> = sandboxes
                .iter()
                .map(|sandbox| scope.spawn(|| self.execute(verb, sandbox)))
                .collect();
            running.into_iter().try_for_each(|one| {
                let ended = one.join();
                ended.unwrap_or_else(|_| bail!("a thread of the bench panicked"))
            })
        })
    }

    fn execute(&self, verb: &str, sandbox: &Sandbox) -> Result<()> {
        let mut command = Command::new(&self.program);
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};\
             K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            margay_e2e::lab::spec::POD_NAMESPACE,
            sandbox.pod,
            sandbox.container_id,
            sandbox.uid
        );
        let folder = self
            .program
            .parent()
            .context("the plugin is in no folder")?;
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", folder)
            .env("CNI_CONTAINERID", &sandbox.container_id)
            .env("CNI_NETNS", namespaces::path(&sandbox.namespace))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", arguments);
        let config = self.config.to_string();
        let output = namespaces::inside(&self.node, || {
            finish(command, Some(config.as_bytes()), LIMIT)
        })?;
        if !output.status.success() {
            bail!(
                "{} {verb} of {}: {}{}",
                self.program.display(),
                sandbox.pod,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

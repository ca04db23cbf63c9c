//! A node of the cluster: its machine, and containerd, kubelet and kube-proxy on it, each of
//! which can be ended and started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::control_plane::{ControlPlane, node_user};
use super::image::PAUSE;
use super::machine::{Machine, Service};
use crate::lab::patience::{patience, until_blocking};
use crate::lab::spec::SEGMENT_LABEL;
use crate::lab::up::Lab;

/// Where the node finds what the control plane's user knows.
const KUBELET_CONFIG: &str = "/run/machine/kubelet.json";
const PROXY_CONFIG: &str = "/run/machine/kube-proxy.json";

/// How kube-proxy does Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// iptables (here by nf_tables, as Debian has it).
    Iptables,
    /// IPVS: only where the kernel has it.
    Ipvs,
}

/// A node whose containerd runs.
#[derive(Debug)]
pub struct Node {
    /// Its namespaces and files.
    pub machine: Machine,
    /// Its address.
    pub address: std::net::IpAddr,
    /// How its kube-proxy does Services; looked at when it starts.
    pub proxy_mode: ProxyMode,
    segment: String,
    containerd: Service,
    kubelet: Option<Service>,
    proxy: Option<Service>,
}

impl Node {
    /// Makes the machine and starts containerd on it.
    ///
    /// # Errors
    /// When a namespace, mount or file is refused.
    pub fn start(
        lab: &mut Lab,
        index: usize,
        programs: &Path,
        control_plane: &ControlPlane,
    ) -> anyhow::Result<Self> {
        let plan = &lab.plan.nodes[index].host;
        let (name, address) = (plan.name.clone(), plan.address.ip());
        let segment = lab.plan.segment_of(index).context("a node on no segment")?;
        let segment = segment.letter.clone();
        let machine = Machine::start(lab, &name, programs)?;
        let configs = [
            ("kubelet", node_user(&name), kubelet_config(&machine)),
            ("kube-proxy", "system:kube-proxy".to_owned(), Value::Null),
        ];
        for (program, user, config) in configs {
            let file = |end: &str| machine.folder.join(format!("{program}.{end}"));
            control_plane.write_kubeconfig(&file("kubeconfig"), &user)?;
            std::fs::write(file("json"), config.to_string())?;
        }
        let config = machine.folder.join("containerd.toml");
        std::fs::write(config, containerd_config())?;
        let containerd = start_containerd(&machine, lab)?;
        Ok(Self {
            machine,
            address,
            proxy_mode: ProxyMode::Iptables,
            segment,
            containerd,
            kubelet: None,
            proxy: None,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Waits until containerd answers.
    ///
    /// # Errors
    /// When it does not within half a minute.
    pub fn until_containerd_answers(&self, lab: &Lab) -> anyhow::Result<()> {
        let what = format!("containerd of {}", self.name());
        until_blocking(&what, patience(30), &lab.logs(), || {
            let answer = self.machine.run("ctr", &["--timeout", "2s", "version"]);
            answer.map_err(|error| format!("{error:#}"))
        })?;
        Ok(())
    }

    /// Gives containerd an image archive of the host, for the pods.
    ///
    /// # Errors
    /// When it refuses it.
    pub fn import(&self, archive: &Path) -> anyhow::Result<()> {
        let mut command = self.machine.command("ctr");
        // The archive is the host's; the node sees other files.
        command.args([
            "--namespace",
            "k8s.io",
            "images",
            "import",
            "--all-platforms",
            "-",
        ]);
        let file = File::open(archive);
        let file = file.with_context(|| format!("cannot open {}", archive.display()))?;
        command
            .stdin(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = command.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{} does not take {}: {said}",
                self.name(),
                archive.display()
            );
        }
        Ok(())
    }

    /// Gives an image that containerd has another name.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn tag(&self, image: &str, name: &str) -> anyhow::Result<()> {
        let arguments = [
            "--namespace",
            "k8s.io",
            "images",
            "tag",
            "--force",
            image,
            name,
        ];
        self.machine.run("ctr", &arguments)?;
        Ok(())
    }

    /// Whether kubelet was started.
    pub fn has_kubelet(&self) -> bool {
        self.kubelet.is_some()
    }

    /// Starts kubelet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_kubelet(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        let mut command = self.machine.command("/run/programs/kubelet");
        command.args(["--kubeconfig", "/run/machine/kubelet.kubeconfig"]);
        command.args(["--config", KUBELET_CONFIG, "--container-runtime", "remote"]);
        command.args([
            "--container-runtime-endpoint",
            "unix:///run/containerd/containerd.sock",
        ]);
        command.args(["--hostname-override", self.name()]);
        command.args(["--node-ip", &self.address.to_string()]);
        command.arg(format!("--node-labels={SEGMENT_LABEL}={}", self.segment));
        self.kubelet = Some(self.machine.serve(lab, "kubelet", command)?);
        Ok(())
    }

    /// Starts kube-proxy in [`Self::proxy_mode`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_proxy(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        let kubeconfig = Path::new("/run/machine/kube-proxy.kubeconfig");
        let config = proxy_config(self.name(), kubeconfig, self.proxy_mode);
        std::fs::write(
            self.machine.folder.join("kube-proxy.json"),
            config.to_string(),
        )?;
        let mut command = self.machine.command("/run/programs/kube-proxy");
        command.args(["--config", PROXY_CONFIG]);
        self.proxy = Some(self.machine.serve(lab, "kube-proxy", command)?);
        Ok(())
    }

    /// Ends kubelet; its pods go on.
    ///
    /// # Errors
    /// When it does not run or does not end.
    pub fn stop_kubelet(&mut self) -> anyhow::Result<()> {
        self.kubelet
            .take()
            .context("kubelet was not started")?
            .stop()
    }

    /// Ends kube-proxy; what it has programmed stays.
    ///
    /// # Errors
    /// When it does not run or does not end.
    pub fn stop_proxy(&mut self) -> anyhow::Result<()> {
        self.proxy
            .take()
            .context("kube-proxy was not started")?
            .stop()
    }

    /// Ends containerd and starts it anew; its pods go on.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn restart_containerd(&mut self, lab: &mut Lab) -> anyhow::Result<()> {
        self.containerd.stop()?;
        self.containerd = start_containerd(&self.machine, lab)?;
        self.until_containerd_answers(lab)
    }

    /// The logs of what runs on it.
    pub fn logs(&self) -> Vec<PathBuf> {
        let services = [
            Some(&self.containerd),
            self.kubelet.as_ref(),
            self.proxy.as_ref(),
        ];
        let services = services.into_iter().flatten();
        services.map(|service| service.log().to_owned()).collect()
    }
}

fn start_containerd(machine: &Machine, lab: &mut Lab) -> anyhow::Result<Service> {
    let mut command = machine.command("containerd");
    command.args(["--config", "/run/machine/containerd.toml"]);
    machine.serve(lab, "containerd", command)
}

/// The machine may lack the right to lower an OOM score; and nothing can be pulled.
fn containerd_config() -> String {
    format!(
        "version = 2\n\
         [plugins.\"io.containerd.grpc.v1.cri\"]\n\
         restrict_oom_score_adj = true\n\
         sandbox_image = \"{PAUSE}\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".cni]\n\
         bin_dir = \"/opt/cni/bin\"\n\
         conf_dir = \"/etc/cni/net.d\"\n"
    )
}

fn kubelet_config(machine: &Machine) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        // Or the kubelets of the other nodes delete its pods.
        "cgroupRoot": format!("/{}", machine.group),
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "evictionHard": {},
        "imageGCHighThresholdPercent": 100,
        "oomScoreAdj": 0,
        "readOnlyPort": 0,
        // The defaults, 5 and 10, are a client's that shares a large cluster's server.
        "kubeAPIQPS": 100, "kubeAPIBurst": 200,
        "nodeStatusUpdateFrequency": "5s",
    })
}

/// What kube-proxy is told on a node that is a network namespace.
pub fn proxy_config(node: &str, kubeconfig: &Path, mode: ProxyMode) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": node,
        "mode": match mode { ProxyMode::Iptables => "iptables", ProxyMode::Ipvs => "ipvs" },
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        // Settings of the kernel that a namespace may not change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    })
}

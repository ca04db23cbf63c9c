//! A whole genuine Kubernetes on one machine: etcd, kube-apiserver, kube-controller-manager,
//! kube-scheduler, and nodes that each have their own containerd, kubelet and kube-proxy.
//!
//! The fabric is the lab's: segments, ToRs with BIRD, cables. A node is a network namespace of
//! it, plus a file system, a process tree and a branch of the control groups of its own
//! ([`machine`]), so that paths such as `/etc/cni/net.d` are the node's and what was changed on
//! it can be told file by file. The programs come from `make kube-binaries` and Debian's packages
//! (`scripts/packages.sh cluster`).
//!
//! Everything is in the lab's record before it exists: whoever comes after a crash clears it
//! away. Not here: Margay. What it does in such a cluster is in `e2e/tests/cluster` and
//! `bench-cluster`.

pub mod cgroups;
pub mod control_plane;
pub mod first_packet;
pub mod flow;
pub mod helm;
pub mod image;
pub mod machine;
pub mod node;
pub mod reference;
pub mod workload;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::Client;

use crate::lab::down::{self, Logs};
use crate::lab::report::Screen;
use crate::lab::spec::{LabSpec, Tor};
use crate::lab::state::{BASE, Folder, Lock};
use crate::lab::up::{self, Lab, Options};
use crate::lab::{namespaces, objects};
use control_plane::ControlPlane;
use node::Node;

/// Where nodes keep what is too large for `/run`: images and the pods' file systems.
const DISKS: &str = "/var/lib/margay-lab";

/// How many nodes a cluster has: two on the first segment, one on the second.
pub const NODES: usize = 3;

/// The fabric, before anything of Kubernetes runs on it.
#[derive(Debug)]
pub struct Ground {
    /// Namespaces, cables and ToRs.
    pub lab: Lab,
    programs: PathBuf,
    _lock: Lock,
}

impl Ground {
    /// Clears away what an earlier cluster of this name left, builds the fabric, and moves the
    /// calling thread into the namespace of the API server, for good: threads that it starts from
    /// then on reach everything in the cluster, and nothing else. To be called before there are
    /// any.
    ///
    /// # Errors
    /// Not root, missing programs, a cluster of this name in other hands.
    pub fn lay(name: &str) -> anyhow::Result<Self> {
        let programs = crate::kube::programs_of(control_plane::PROGRAMS)?;
        let options = Options {
            spec: LabSpec {
                name: name.to_owned(),
                nodes: NODES,
                segments: 2,
                tor: Tor::Bird,
                tors: 1,
                pods: 0,
            },
            binaries: None,
            datastore: None,
            underlay_only: true,
        };
        let screen = Screen::plain().silenced();
        let (lock, plan) = up::prepare(&options, screen)?;
        clear_beside(name)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let lab = match runtime.block_on(up::build(&options, plan, screen)) {
            Ok(lab) => lab,
            Err(error) => {
                clear(name, Logs::Keep)?;
                return Err(error.into());
            }
        };
        namespaces::enter(&lab.plan.namespace(&lab.plan.store.name))?;
        Ok(Self {
            lab,
            programs,
            _lock: lock,
        })
    }

    /// The name of the cluster.
    pub fn name(&self) -> &str {
        &self.lab.plan.spec.name
    }
}

/// A running cluster. [`clear`] ends it; dropping it does not.
#[derive(Debug)]
pub struct Cluster {
    /// What it stands on.
    pub ground: Ground,
    /// etcd and the three servers.
    pub control_plane: ControlPlane,
    /// The nodes, in the order of the plan.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Starts the control plane, then containerd on every node with the pods' image in it. No
    /// kubelet runs yet: the network comes first or later, as the caller likes.
    ///
    /// # Errors
    /// The first thing that does not come up.
    pub async fn start(mut ground: Ground) -> anyhow::Result<Self> {
        let programs = ground.programs.clone();
        let control_plane = ControlPlane::start(&mut ground.lab, &programs).await?;
        let image = image::pod_image(&ground.lab.ledger.folder.machine("images"))?;
        let mut nodes = Vec::new();
        for index in 0..ground.lab.plan.nodes.len() {
            let node = Node::start(&mut ground.lab, index, &programs, &control_plane)?;
            nodes.push(node);
        }
        for node in &nodes {
            node.until_containerd_answers(&ground.lab)?;
            node.import(&image)?;
        }
        Ok(Self {
            ground,
            control_plane,
            nodes,
        })
    }

    /// Starts kubelet and kube-proxy on every node.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn start_kubelets(&mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.start_kubelet(&mut self.ground.lab)?;
            node.start_proxy(&mut self.ground.lab)?;
        }
        Ok(())
    }

    /// A client that may do everything.
    ///
    /// # Errors
    /// When the kubeconfig makes no sense, which would be a mistake here.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(objects::client(&self.control_plane.kubeconfig).await?)
    }

    /// Where the logs are.
    pub fn logs(&self) -> PathBuf {
        self.ground.lab.logs()
    }
}

/// Ends a cluster by name: its processes, mounts, control groups, namespaces and files. The logs
/// stay if asked to. A cluster that is not there is fine.
///
/// # Errors
/// With everything that could not be ended.
pub fn clear(name: &str, logs: Logs) -> anyhow::Result<()> {
    let folder = Folder::of(name);
    let torn_down = match folder.read()? {
        Some(state) => down::tear_down(&folder, &state, logs),
        None => Ok(()),
    };
    // Also when that failed: what is beside is often why.
    clear_beside(name)?;
    torn_down?;
    Ok(())
}

/// What a cluster has beyond a lab: control groups and disks, both known by name alone.
fn clear_beside(name: &str) -> anyhow::Result<()> {
    cgroups::remove_all(&format!("mgy-{name}-node"))?;
    let disks = disks(name);
    match fs::remove_dir_all(&disks) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", disks.display()))
        }
        _ => Ok(()),
    }
}

fn disks(name: &str) -> PathBuf {
    Path::new(DISKS).join(name)
}

/// The folder of a lab, for people who look for its logs.
pub fn folder(name: &str) -> PathBuf {
    Path::new(BASE).join(name)
}

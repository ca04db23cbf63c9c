//! BIRD on two nodes of a lab, fed by files as confd feeds it: a program watches the blocks, renders
//! a file anew at each change, puts it in place and has BIRD read its configuration.
//!
//! What confd does at each change, and its configuration in Calico, are followed step by step: the file is rendered beside
//! the old one, compared with it, checked by a command if there is one, renamed, and a shell runs the reload command. For
//! blocks Calico has no check command and its reload command sends SIGHUP ([`Manner::Calico`]); the file with the peers has
//! both ([`Manner::Checked`], here with `birdc configure`, which other users of confd have).
//!
//! What takes time in Calico and not here: the template language, the copy of the store's objects that it is filled from,
//! `sv` to find BIRD's process, and a log line at each step.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use kube::Client;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use margay_crds::IPAMBlock;
use margay_e2e::lab::command::run;
use margay_e2e::lab::process::{self, Launch};
use margay_e2e::lab::spec::{CLUSTER_AS, Plan};
use margay_e2e::lab::state::ProcessRecord;
use margay_e2e::lab::up::Lab;

/// Two BIRDs and the program that feeds one of them; all end with this.
pub(crate) struct Fed {
    processes: Vec<ProcessRecord>,
    feeder: tokio::task::JoinHandle<()>,
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.feeder.abort();
        for record in &self.processes {
            process::stop(record);
        }
    }
}

/// How BIRD is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// A file with the blocks alone is written, and BIRD gets SIGHUP.
    Calico,
    /// The whole configuration is written, checked by `bird -p`, and read by `birdc configure`.
    Checked,
}

impl Manner {
    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Calico => "as in Calico for blocks: SIGHUP, no check",
            Self::Checked => "with a check: `bird -p`, `birdc configure`",
        }
    }
}

/// One node's BIRD.
#[derive(Clone)]
struct Speaker {
    manner: Manner,
    folder: PathBuf,
    address: String,
    /// The other one, and as many more as the mesh has, which never answer.
    other: String,
    strangers: usize,
}

impl Fed {
    /// Starts BIRD on the `owner` of blocks and on the node that learns of them, as in a mesh of so
    /// many nodes, and waits until the two speak.
    pub(crate) async fn start(
        lab: &mut Lab,
        client: &Client,
        (owner, remote): (usize, usize),
        mesh: usize,
        manner: Manner,
    ) -> Result<Self> {
        let strangers = mesh.saturating_sub(2);
        let first = Speaker::of(lab, owner, remote, strangers, manner)?;
        let second = Speaker::of(lab, remote, owner, strangers, manner)?;
        let mut processes = Vec::new();
        for (speaker, index) in [(&first, owner), (&second, remote)] {
            std::fs::write(speaker.blocks_file(), "")?;
            std::fs::write(speaker.file(), speaker.text(&BTreeSet::new()))?;
            processes.push(speaker.launch(lab, index, mesh)?);
        }
        let name = name(&lab.plan, owner);
        let feeder = tokio::spawn(feed(client.clone(), name, first.clone()));
        let fed = Self { processes, feeder };
        for _ in 0..200 {
            if first.is_up() && second.is_up() {
                return Ok(fed);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("the two BIRDs do not speak with each other")
    }
}

fn name(plan: &Plan, index: usize) -> String {
    let node = plan.nodes.get(index);
    node.map(|node| node.host.name.clone()).unwrap_or_default()
}

fn address(plan: &Plan, index: usize) -> String {
    let node = plan.nodes.get(index);
    node.map(|node| node.host.address.ip().to_string())
        .unwrap_or_default()
}

impl Speaker {
    fn of(lab: &Lab, own: usize, other: usize, strangers: usize, manner: Manner) -> Result<Self> {
        let folder = lab.ledger.folder.machine(&name(&lab.plan, own)).join("fed");
        std::fs::create_dir_all(&folder)?;
        Ok(Self {
            manner,
            folder,
            address: address(&lab.plan, own),
            other: address(&lab.plan, other),
            strangers,
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("bird.conf")
    }

    fn socket(&self) -> String {
        let socket = self.folder.join("bird.ctl");
        socket.to_string_lossy().into_owned()
    }

    fn launch(&self, lab: &mut Lab, index: usize, mesh: usize) -> Result<ProcessRecord> {
        let name = name(&lab.plan, index);
        let mut command = Command::new("bird");
        command.args(["-f", "-s", &self.socket()]);
        command.arg("-c").arg(self.file());
        command.arg("-P").arg(self.folder.join("bird.pid"));
        let launch = Launch::new(
            format!("bird {name} of {mesh}"),
            lab.plan.namespace(&name),
            command,
        );
        Ok(process::start(&mut lab.ledger, launch)?)
    }

    fn is_up(&self) -> bool {
        let shown = run(
            "birdc",
            &[
                "-r",
                "-s",
                &self.socket(),
                "show",
                "protocols",
                "Mesh_other",
            ],
        );
        shown.is_ok_and(|text| text.contains("Established"))
    }

    /// The configuration, much as Calico's template gives it.
    fn text(&self, blocks: &BTreeSet<String>) -> String {
        let Self { address, other, .. } = self;
        let mut text = format!(
            "log stderr {{ fatal }};\nrouter id {address};\n\
             protocol device {{ scan time 2; }}\n\
             protocol kernel {{ persist; scan time 2; ipv4 {{ import none; export where source = RTS_BGP; }}; }}\n\
             protocol static blocks {{ ipv4;\n"
        );
        match self.manner {
            Manner::Calico => {
                let file = self.blocks_file();
                let _ = writeln!(text, "include \"{}\";", file.display());
            }
            Manner::Checked => text.push_str(&routes(blocks)),
        }
        text.push_str("}\n");
        let mut peer = |name: &str, peer: &str, passive: &str| {
            let _ = write!(
                text,
                "protocol bgp {name} {{ local {address} as {CLUSTER_AS}; neighbor {peer} as {CLUSTER_AS}; {passive}\
                 multihop; connect delay time 1; connect retry time 1; error wait time 1, 2; graceful restart on;\n  \
                 ipv4 {{ add paths on; import all; export where source = RTS_STATIC; next hop self; }}; }}\n"
            );
        };
        peer("Mesh_other", other, "");
        for stranger in 0..self.strangers {
            let peer_address = format!("10.11.{}.{}", stranger / 250, stranger % 250 + 1);
            peer(&format!("Mesh_{stranger}"), &peer_address, "passive on; ");
        }
        text
    }

    fn blocks_file(&self) -> PathBuf {
        self.folder.join("blocks.conf")
    }

    /// What confd does at a change.
    fn feed(&self, blocks: &BTreeSet<String>) -> Result<()> {
        let (file, text) = match self.manner {
            Manner::Calico => (self.blocks_file(), routes(blocks)),
            Manner::Checked => (self.file(), self.text(blocks)),
        };
        let fresh = self.folder.join(".fresh");
        std::fs::write(&fresh, text)?;
        if std::fs::read(&fresh)? == std::fs::read(&file)? {
            return Ok(());
        }
        if self.manner == Manner::Checked {
            shell(&format!("bird -p -c {}", fresh.display()))?;
        }
        std::fs::rename(&fresh, &file)?;
        match self.manner {
            Manner::Calico => {
                let process = std::fs::read_to_string(self.folder.join("bird.pid"))?;
                shell(&format!("kill -HUP {} || true", process.trim()))
            }
            Manner::Checked => shell(&format!("birdc -s {} configure", self.socket())),
        }
    }
}

fn routes(blocks: &BTreeSet<String>) -> String {
    blocks
        .iter()
        .map(|block| format!("  route {block} blackhole;\n"))
        .collect()
}

/// Commands are run by a shell, as confd runs them.
fn shell(line: &str) -> Result<()> {
    run("/bin/sh", &["-c", line])?;
    Ok(())
}

/// Watches the blocks of a node for ever.
async fn feed(client: Client, node: String, speaker: Speaker) {
    if let Err(error) = watch(client, &node, &speaker).await {
        eprintln!("the feeder has ended: {error:#}");
    }
}

async fn watch(client: Client, node: &str, speaker: &Speaker) -> Result<()> {
    let api: Api<IPAMBlock> = Api::all(client);
    let listed = api.list(&ListParams::default()).await?;
    let version = listed.metadata.resource_version.unwrap_or_default();
    let mut blocks = BTreeSet::new();
    let mut events = Box::pin(api.watch(&WatchParams::default(), &version).await?);
    while let Some(event) = events.next().await {
        let differs = match event? {
            WatchEvent::Added(block) if block.spec.node == node => blocks.insert(block.spec.cidr),
            WatchEvent::Deleted(block) => blocks.remove(&block.spec.cidr),
            _ => false,
        };
        if differs {
            let (speaker, now) = (speaker.clone(), blocks.clone());
            let fed = tokio::task::spawn_blocking(move || speaker.feed(&now));
            fed.await.context("the feeder's thread")??;
        }
    }
    bail!("the watch has ended")
}

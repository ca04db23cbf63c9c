//! A node's machine: namespaces for its network, files and processes, and its control groups.
//!
//! The process that holds them is the first of a process namespace, so its end is the end of
//! everything on the node: containerd, its shims, pods, and every mount. Files of the node are
//! reached through `/proc/PID/root`. A program is started in it by `nsenter`; `ip netns exec`
//! would mount `/sys` anew, and the control groups would be gone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::cgroups;
use crate::lab::command::succeed;
use crate::lab::patience::{patience, until_blocking};
use crate::lab::process::{self, Launch};
use crate::lab::state::ProcessRecord;
use crate::lab::up::Lab;

/// What the first process of a machine runs.
const SCRIPT: &str = include_str!("machine.sh");

/// Joins the node's control groups, then becomes the program.
const JOIN: &str = r#"group=$0; for branch in /sys/fs/cgroup/*/"$group"/system; do echo 0 >"$branch/cgroup.procs"; done; exec "$@""#;

/// A running machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The node's name.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Its branch of the control groups: the same name.
    pub group: String,
    /// `/run/machine` of the node, as the host sees it.
    pub folder: PathBuf,
    /// The first process, as the host numbers it.
    pid: u32,
}

impl Machine {
    /// Makes the machine of a node of the fabric.
    ///
    /// # Errors
    /// When one of the namespaces or mounts is refused; with what the kernel said.
    pub fn start(lab: &mut Lab, name: &str, programs: &Path) -> anyhow::Result<Self> {
        let namespace = lab.plan.namespace(name);
        cgroups::make(&namespace)?;
        let folder = lab.ledger.folder.machine(name);
        let disk = super::disks(&lab.plan.spec.name).join(name);
        for path in [&folder.join("root"), &folder.join("machine"), &disk] {
            fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        let script = folder.join("machine.sh");
        fs::write(&script, SCRIPT)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--uts", "--fork", "--kill-child"]);
        command.arg("bash").arg(&script);
        command
            .arg(&folder)
            .arg(&disk)
            .arg(programs)
            .arg(&namespace);
        let launch = Launch::new(format!("machine {name}"), &namespace, command);
        let record = process::start(&mut lab.ledger, launch)?;
        let folder = folder.join("machine");
        let what = format!("the machine of {name}");
        until_blocking(&what, patience(20), &record.log, || {
            if !process::is_alive(&record) {
                return Ok(Err(process::died(&record)));
            }
            let ready = folder.join("ready").exists();
            ready.then_some(Ok(())).ok_or("not ready".to_owned())
        })??;
        let pid = only_child(record.pid).context("the machine has no first process")?;
        Ok(Self {
            name: name.to_owned(),
            group: namespace.clone(),
            namespace,
            folder,
            pid,
        })
    }

    /// A command in this machine; its paths are the node's.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.pid.to_string();
        command.args(["--target", &pid, "--mount", "--pid", "--net", "--uts", "--"]);
        command.args(["sh", "-c", JOIN, &self.group, program]);
        command
    }

    /// Runs a short program in this machine to its end.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        succeed(command, None).with_context(|| format!("on {}", self.name))
    }

    /// Where the host sees a path of the node.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.pid))
    }

    /// Writes a file of the node, and the folders above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.path(path);
        let write = || -> std::io::Result<()> {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, text)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts a program that stays, as the node's service manager would.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn serve(&self, lab: &mut Lab, name: &str, command: Command) -> anyhow::Result<Service> {
        let name = format!("{name} {}", self.name);
        let record = process::start(&mut lab.ledger, Launch::on_the_host(name, command))?;
        Ok(Service { record })
    }

    /// Every file that the node has written since its start, by its path on the node: what kind
    /// it is, and its length. Files under the folders that kubelet and containerd keep are theirs.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn changes(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let base = self.path("/run/changes");
        let mut found = BTreeMap::new();
        let mut folders = vec![base.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let meta = fs::symlink_metadata(&path)?;
                let kind = meta.file_type();
                let words = match () {
                    () if kind.is_dir() => {
                        folders.push(path.clone());
                        "folder".to_owned()
                    }
                    () if kind.is_char_device() && meta.rdev() == 0 => "removed".to_owned(),
                    () if kind.is_symlink() => "link".to_owned(),
                    () => format!("{} bytes", meta.len()),
                };
                let name = path.strip_prefix(&base)?.display().to_string();
                found.insert(format!("/{name}"), words);
            }
        }
        Ok(found)
    }
}

/// A program that runs on a machine.
#[derive(Debug, Clone)]
pub struct Service {
    record: ProcessRecord,
}

impl Service {
    /// Its log.
    pub fn log(&self) -> &Path {
        &self.record.log
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        process::is_alive(&self.record)
    }

    /// The process itself, as the host numbers it: `nsenter` waits for it.
    pub fn pid(&self) -> Option<u32> {
        only_child(self.record.pid)
    }

    /// Asks it to end (SIGTERM) and waits until it has; its own children stay, as a shim must
    /// when containerd is started anew.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.end(Signal::TERM)
    }

    /// The same with SIGKILL.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&self) -> anyhow::Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&self, signal: Signal) -> anyhow::Result<()> {
        let raw = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = raw.and_then(Pid::from_raw) else {
            bail!("{} does not run", self.record.name);
        };
        kill_process(pid, signal)?;
        let what = format!("the end of {}", self.record.name);
        until_blocking(&what, patience(20), &self.record.log, || {
            let alive = process::is_alive(&self.record);
            (!alive).then_some(()).ok_or("it runs".to_owned())
        })?;
        Ok(())
    }
}

/// The one child of a process that starts another and waits for it.
fn only_child(pid: u32) -> Option<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

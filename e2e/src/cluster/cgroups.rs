//! The branch of the control groups (version 1) that a node's processes are in, under the same
//! name in every hierarchy: kubelet takes it for the root, so that kubelets beside each other do
//! not delete each other's pods, and whoever clears up finds every process of the node there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::patience::patience;

const BASE: &str = "/sys/fs/cgroup";

/// The hierarchies that this machine has: folders with the file that version 2 does not have.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(BASE).with_context(|| format!("cannot read {BASE}"))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found: Vec<PathBuf> = paths.filter(|path| path.join("tasks").exists()).collect();
    if found.is_empty() {
        bail!("{BASE} has no control groups of version 1, which kubelet 1.20 needs here");
    }
    Ok(found)
}

/// Makes the branch of a node, and in it `system` for what is no pod.
///
/// # Errors
/// When the kernel refuses, or the machine has no control groups of version 1.
pub fn make(name: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        for path in [hierarchy.join(name), hierarchy.join(name).join("system")] {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                inherit(&path, file)?;
            }
        }
    }
    Ok(())
}

/// A new group has no processors and no memory, and nobody can join it, until it is given some.
fn inherit(group: &Path, file: &str) -> anyhow::Result<()> {
    let path = group.join(file);
    let Some(parent) = group.parent().filter(|_| path.exists()) else {
        return Ok(());
    };
    let value = fs::read_to_string(parent.join(file))?;
    fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
}

/// Kills whatever is in the branches whose names are this and a number, and removes them.
///
/// # Errors
/// When one is still there after some seconds.
pub fn remove_all(prefix: &str) -> anyhow::Result<()> {
    let Ok(hierarchies) = hierarchies() else {
        return Ok(());
    };
    for hierarchy in hierarchies {
        for entry in fs::read_dir(&hierarchy)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_numbered(&name.to_string_lossy(), prefix) {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// Not merely a name that begins so: it may be another cluster's.
fn is_numbered(name: &str, prefix: &str) -> bool {
    let number = name.strip_prefix(prefix).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn remove(branch: &Path) -> anyhow::Result<()> {
    let limit = Instant::now() + patience(10);
    loop {
        let groups = groups(branch);
        for pid in groups.iter().flat_map(|group| processes(group)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        // Leaves first: a group with a group in it stays.
        let removed: io::Result<()> = groups.iter().rev().try_for_each(fs::remove_dir);
        match removed {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if Instant::now() > limit => {
                return Err(error).with_context(|| format!("cannot remove {}", branch.display()));
            }
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
        if !branch.exists() {
            return Ok(());
        }
    }
}

/// A group and those in it, each before its own.
fn groups(branch: &Path) -> Vec<PathBuf> {
    let mut found = vec![branch.to_owned()];
    let mut next = 0;
    while let Some(group) = found.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(group).into_iter().flatten();
        let inner = entries.filter_map(|entry| Some(entry.ok()?.path()));
        found.extend(inner.filter(|path| path.is_dir()));
    }
    found
}

fn processes(group: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let pids = text.lines().filter_map(|line| line.parse().ok());
    pids.filter_map(Pid::from_raw).collect()
}

/// The processes of a pod on a node, by the pod's uid, as the host numbers them.
pub fn of_pod(node: &str, uid: &str) -> Vec<u32> {
    let Some(branch) = hierarchies().ok().and_then(|all| {
        let pids = all.into_iter().find(|path| path.ends_with("pids"));
        pids.map(|path| path.join(node).join("kubepods"))
    }) else {
        return Vec::new();
    };
    let pod = format!("pod{uid}");
    let mut found = Vec::new();
    for group in groups(&branch) {
        if group
            .components()
            .any(|part| part.as_os_str() == pod.as_str())
        {
            let pids = processes(&group).into_iter();
            found.extend(pids.filter_map(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::is_numbered;

    #[test]
    fn nodes_of_one_cluster() {
        assert!(is_numbered("mgy-a-node12", "mgy-a-node"));
        for other in ["mgy-a-b-node1", "mgy-a-node", "mgy-a-nodes-node1", "x"] {
            assert!(!is_numbered(other, "mgy-a-node"), "{other}");
        }
    }
}

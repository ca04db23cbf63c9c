//! A run that is killed leaves everything it has started; the next one takes it away first, and
//! nothing of others.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use margay_e2e::cluster::{Cluster, Ground};
use margay_e2e::lab::command::run;
use margay_e2e::lab::patience::patience;
use margay_e2e::lab::process;
use margay_e2e::lab::state::{Folder, ProcessRecord};

/// What [`hold`] says when everything runs.
const UP: &str = "up";
/// A node of a lab whose name begins like the cluster's; nobody has such a lab.
const NEIGHBOUR: &str = "mgy-cluster-neighbour-node1";
const GROUPS: &str = "/sys/fs/cgroup/pids";

/// What a killed run has left, and what is not its own.
#[derive(Debug)]
pub struct Wreck {
    left: Vec<ProcessRecord>,
    neighbour: Neighbour,
}

/// Starts a cluster and waits to be killed.
///
/// # Errors
/// When the cluster does not come up.
pub fn hold(name: &str) -> anyhow::Result<()> {
    let ground = Ground::lay(name)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut cluster = Cluster::start(ground).await?;
        cluster.start_kubelets()?;
        println!("{UP}");
        std::future::pending::<anyhow::Result<()>>().await
    })
}

/// Has another process start a cluster, and kills it (SIGKILL) when all of it runs.
///
/// # Errors
/// When the cluster does not come up, or ends by itself with its creator.
pub fn wreck(name: &str) -> anyhow::Result<Wreck> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("hold").stdout(Stdio::piped());
    let mut holder = command.spawn().context("cannot start another run")?;
    let up = until_up(&mut holder);
    let _ = holder.kill();
    holder.wait()?;
    up?;
    let state = Folder::of(name).read()?;
    let state = state.context("a run that was killed has no record")?;
    let left: Vec<ProcessRecord> = state.alive().cloned().collect();
    let words: Vec<&str> = left.iter().map(|one| one.name.as_str()).collect();
    for expected in [
        "etcd",
        "kube-apiserver",
        "machine node1",
        "kubelet node3",
        "containerd node2",
    ] {
        ensure!(
            words.contains(&expected),
            "{expected} has ended with the one who started it: {words:?}"
        );
    }
    let neighbour = Neighbour::start()?;
    Ok(Wreck { left, neighbour })
}

fn until_up(holder: &mut Child) -> anyhow::Result<()> {
    let output = holder.stdout.take().context("no output")?;
    let (said, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).lines();
        lines
            .map_while(Result::ok)
            .try_for_each(|line| said.send(line))
    });
    let line = lines.recv_timeout(patience(180));
    match line.as_deref() {
        Ok(UP) => Ok(()),
        other => bail!("the other run did not come up: {other:?}"),
    }
}

impl Wreck {
    /// Looks at what is there once the next run has its ground.
    ///
    /// # Errors
    /// With everything that is left, or what of others was taken away.
    pub fn check_cleared(mut self, name: &str) -> anyhow::Result<String> {
        let alive = self.left.iter().filter(|one| process::is_alive(one));
        let alive: Vec<&str> = alive.map(|one| one.name.as_str()).collect();
        ensure!(alive.is_empty(), "still there: {alive:?}");
        let groups = fs::read_dir(GROUPS)?;
        let groups = groups.filter_map(|entry| Some(entry.ok()?.file_name()));
        let groups: Vec<String> = groups
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let own = format!("mgy-{name}-node");
        let left = groups.iter().find(|group| group.starts_with(&own));
        ensure!(left.is_none(), "the control group {left:?} is left");
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let folder = Folder::of(name).path().display().to_string();
        let left = mounts.lines().find(|line| line.contains(&folder));
        ensure!(left.is_none(), "{left:?} is left");
        self.neighbour.check()?;
        Ok(format!(
            "{} processes ended, the neighbour's goes on",
            self.left.len()
        ))
    }
}

/// A process in a namespace and a control group of others.
#[derive(Debug)]
struct Neighbour {
    process: Child,
    group: PathBuf,
}

impl Neighbour {
    fn start() -> anyhow::Result<Self> {
        // What an earlier run's has left, if that was killed in turn.
        let _ = run("ip", &["netns", "delete", NEIGHBOUR]);
        run("ip", &["netns", "add", NEIGHBOUR])?;
        let group = PathBuf::from(GROUPS).join(NEIGHBOUR);
        fs::create_dir_all(&group)?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NEIGHBOUR, "sleep", "600"]);
        let process = command.spawn()?;
        let neighbour = Self { process, group };
        let members = neighbour.group.join("cgroup.procs");
        fs::write(members, neighbour.process.id().to_string())?;
        Ok(neighbour)
    }

    fn check(&mut self) -> anyhow::Result<()> {
        ensure!(
            self.process.try_wait()?.is_none(),
            "a process of a neighbour was ended"
        );
        ensure!(
            self.group.exists(),
            "a control group of a neighbour was removed"
        );
        let namespaces = run("ip", &["netns", "list"])?;
        ensure!(
            namespaces.contains(NEIGHBOUR),
            "a namespace of a neighbour was removed"
        );
        Ok(())
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = run("ip", &["netns", "delete", NEIGHBOUR]);
        for _ in 0..50 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

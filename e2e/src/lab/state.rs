//! The record of a lab on disk, which makes every end a clean one.
//!
//! Everything is written down *before* it is made, under `/run/margay-lab/<lab>/state.json`.
//! Whoever comes later (`down`, or `up` after a crash, a Ctrl-C or a `kill -9`) therefore knows
//! every namespace and process that may exist, and touches nothing else. A process is known by
//! its id together with its start time, so an id that the kernel has given to someone else since
//! is never signalled. The one thing that cannot be written in advance is a new process's id:
//! should the lab die in that instant, the process is still found by the namespace it runs in.
//!
//! A lock beside the folder says who has the lab in hand; the kernel drops it with its holder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::spec::{LabSpec, Plan};
use super::{namespaces, process};

/// Under this folder every lab has its own.
pub const BASE: &str = "/run/margay-lab";

/// The shape of the file; another number is refused.
const VERSION: u32 = 1;

/// How far a lab has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Being built or shown by the holder of the lock; without a holder, a dirty end.
    Starting,
    /// Left running by `up`.
    Running,
}

/// A process of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// What it is, such as `agent node1`.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// Its start in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start: u64,
    /// The network namespace it runs in.
    pub namespace: String,
    /// Where its output goes.
    pub log: PathBuf,
}

/// A pod of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Its name.
    pub name: String,
    /// Its node's name.
    pub node: String,
    /// Its sandbox, as the CNI plugin was told.
    pub container_id: String,
    /// Its address, once the plugin gave one.
    pub address: Option<std::net::IpAddr>,
}

/// All that is known of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The shape of this file.
    pub version: u32,
    /// What was asked for.
    pub spec: LabSpec,
    /// How far it has come.
    pub phase: Phase,
    /// The kernel's boot id: after a reboot nothing of the lab exists but files.
    pub boot_id: String,
    /// Network namespaces, by name.
    pub namespaces: Vec<String>,
    /// Processes.
    pub processes: Vec<ProcessRecord>,
    /// Pods.
    pub pods: Vec<PodRecord>,
    /// The store's port on the host's loopback.
    pub store_port: Option<u16>,
}

impl State {
    /// A lab of which nothing exists yet.
    pub fn new(spec: LabSpec) -> Self {
        Self {
            version: VERSION,
            spec,
            phase: Phase::Starting,
            boot_id: boot_id(),
            namespaces: Vec::new(),
            processes: Vec::new(),
            pods: Vec::new(),
            store_port: None,
        }
    }

    /// Whether it is from this boot: otherwise its processes and namespaces are gone.
    pub fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }

    /// The processes that still run.
    pub fn alive(&self) -> impl Iterator<Item = &ProcessRecord> {
        let here = self.is_of_this_boot();
        let alive = move |record: &&ProcessRecord| here && process::is_alive(record);
        self.processes.iter().filter(alive)
    }
}

fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Where a lab keeps its files.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of the lab of this name.
    pub fn of(name: &str) -> Self {
        Self(Path::new(BASE).join(name))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The state file.
    pub fn state_file(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// Logs of everything.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The kubeconfig for the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// The store's data; its `kubeconfig` there is the nodes'.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// What belongs to one machine of the lab.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The run-dir of a node's agent.
    pub fn run_dir(&self, node: &str) -> PathBuf {
        self.machine(node).join("run")
    }

    /// The state-dir of a node's agent.
    pub fn state_dir(&self, node: &str) -> PathBuf {
        self.machine(node).join("state")
    }

    /// The agent's socket for the CNI plugin.
    pub fn cni_socket(&self, node: &str) -> PathBuf {
        self.run_dir(node).join("cni.sock")
    }

    /// Where the deletes of a node's pods wait while its agent does not listen.
    pub fn cni_journal(&self, node: &str) -> PathBuf {
        self.state_dir(node).join("cni-delete")
    }

    /// The agent's socket for operators.
    pub fn admin_socket(&self, node: &str) -> PathBuf {
        self.run_dir(node).join("admin.sock")
    }

    /// Reads the state, or nothing if there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or says what this version does not understand.
    pub fn read(&self) -> Result<Option<State>, LabError> {
        let path = self.state_file();
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LabError::file("cannot read", path)(error)),
        };
        parse(&text)
            .map(Some)
            .map_err(|message| LabError::State { path, message })
    }
}

fn parse(text: &str) -> Result<State, String> {
    let state: State = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if state.version == VERSION {
        Ok(state)
    } else {
        Err(format!(
            "it has version {}, this margayctl writes {VERSION}: use the margayctl that made it to end the lab",
            state.version
        ))
    }
}

/// The lock of a lab: one margayctl at a time builds, shows or ends it.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do: a child that is just being started may still have a copy.
        let _ = self.file.unlock();
    }
}

impl Lock {
    /// Takes the lock, without waiting.
    ///
    /// # Errors
    /// [`LabError::Busy`] when another process has it.
    pub fn take(name: &str) -> Result<Self, LabError> {
        fs::create_dir_all(BASE).map_err(LabError::file("cannot make", BASE))?;
        let path = Path::new(BASE).join(format!("{name}.lock"));
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = open.map_err(LabError::file("cannot open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                let said = file.read_to_string(&mut owner).is_ok() && !owner.is_empty();
                return Err(LabError::Busy {
                    name: name.to_owned(),
                    owner: if said { owner } else { "unknown".to_owned() },
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(LabError::file("cannot lock", &path)(error));
            }
        }
        // Only for the message of the next one who comes too early.
        let noted = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        noted.map_err(LabError::file("cannot write", &path))?;
        Ok(Self { file })
    }
}

/// The state in hand, saved at every change.
#[derive(Debug)]
pub struct Ledger {
    /// Where the lab keeps its files.
    pub folder: Folder,
    /// What is known.
    pub state: State,
}

impl Ledger {
    /// Opens a new lab's record. The folder is made anew: what may be in it are the logs of a lab
    /// that failed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(plan: &Plan) -> Result<Self, LabError> {
        let folder = Folder::of(&plan.spec.name);
        match fs::remove_dir_all(folder.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LabError::file("cannot remove", folder.path())(error));
            }
            _ => {}
        }
        let logs = folder.logs();
        fs::create_dir_all(&logs).map_err(LabError::file("cannot make", &logs))?;
        let ledger = Self {
            folder,
            state: State::new(plan.spec.clone()),
        };
        ledger.save()?;
        Ok(ledger)
    }

    /// Writes a change down.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn note(&mut self, change: impl FnOnce(&mut State)) -> Result<(), LabError> {
        change(&mut self.state);
        self.save()
    }

    /// Makes a namespace that is then the lab's own.
    ///
    /// # Errors
    /// When one of this name exists, which is then someone else's and stays; or `ip` refuses.
    pub fn make_namespace(&mut self, namespace: &str) -> Result<(), LabError> {
        if namespaces::exists(namespace) {
            return Err(LabError::Taken {
                namespace: namespace.to_owned(),
            });
        }
        self.note(|state| state.namespaces.push(namespace.to_owned()))?;
        namespaces::create(namespace)
    }

    /// Replaces the file in one step, so that no reader ever sees half of it.
    fn save(&self) -> Result<(), LabError> {
        let path = self.folder.state_file();
        let fresh = path.with_extension("json.new");
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec_pretty(&self.state)?;
            fs::write(&fresh, text)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(LabError::file("cannot write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Tor;
    use super::*;

    fn state() -> State {
        let mut state = State::new(LabSpec {
            name: "t".to_owned(),
            nodes: 2,
            segments: 1,
            tor: Tor::None,
            tors: 1,
            pods: 3,
        });
        state.namespaces.push("mgy-t-node1".to_owned());
        state.processes.push(ProcessRecord {
            name: "self".to_owned(),
            pid: std::process::id(),
            start: process::start_time(std::process::id()).unwrap(),
            namespace: "mgy-t-node1".to_owned(),
            log: PathBuf::from("/nowhere"),
        });
        state
    }

    #[test]
    fn a_state_survives_the_disk() {
        let state = state();
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(parse(&text).unwrap(), state);
    }

    #[test]
    fn another_version_is_refused() {
        let mut state = state();
        state.version = 7;
        let error = parse(&serde_json::to_string(&state).unwrap()).unwrap_err();
        assert!(error.contains("version 7"), "{error}");
        assert!(parse("{}").is_err());
    }

    #[test]
    fn a_recycled_pid_is_not_ours() {
        let mut state = state();
        assert_eq!(state.alive().count(), 1);
        state.processes[0].start += 1;
        assert_eq!(state.alive().count(), 0);
    }

    #[test]
    fn nothing_runs_after_a_reboot() {
        let mut state = state();
        state.boot_id = "another".to_owned();
        assert_eq!(state.alive().count(), 0);
    }
}

//! Kernel settings under /proc/sys: which there should be, which differ, and writing those.
//!
//! The tree is the one of the network namespace of the calling thread; the root is a parameter
//! so that tests use a folder. Reading and writing procfs does not block in any way worth a
//! thread, so these are plain calls.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, openat};

use super::error::KernelError;

/// Where the kernel's tree is.
const USUAL_ROOT: &str = "/proc/sys";

/// The settings wanted, by key with slashes (`net/ipv4/conf/margay.ipip/rp_filter`): interface
/// names hold dots, so dots cannot separate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredSysctls {
    settings: BTreeMap<String, Setting>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    value: String,
    optional: bool,
}

impl DesiredSysctls {
    /// No settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants `key` to be `value`.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.insert(key.into(), value.into(), false);
    }

    /// Wants `key` to be `value` where the kernel has such a key (IPv6 may be switched off).
    pub fn set_if_present(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.insert(key.into(), value.into(), true);
    }

    fn insert(&mut self, key: String, value: String, optional: bool) {
        self.settings.insert(key, Setting { value, optional });
    }

    /// Adds every setting of `other`.
    pub fn extend(&mut self, other: Self) {
        self.settings.extend(other.settings);
    }

    /// Every setting as a change, whatever the value is now: for a device about to be made.
    pub(super) fn unconditional(self) -> impl Iterator<Item = SysctlChange> {
        self.settings
            .into_iter()
            .map(|(key, setting)| SysctlChange {
                key,
                from: None,
                to: setting.value,
            })
    }

    /// What a node that forwards for pods needs, in the families its pods have.
    ///
    /// Before turning IPv6 forwarding on, see [`SysctlTree::keep_router_advertisements`].
    pub fn for_node(ipv4: bool, ipv6: bool) -> Self {
        let mut all = Self::new();
        if ipv4 {
            all.set("net/ipv4/ip_forward", "1");
        }
        if ipv6 {
            all.set("net/ipv6/conf/all/forwarding", "1");
        }
        all
    }

    /// What a tunnel device needs: packets come in through it whose source the kernel would
    /// reach another way (a node's own address), so any reverse-path check would drop them. Even
    /// the loose one does on a device without an address, hence 0. The kernel takes the stricter
    /// of `all` and the device: see [`SysctlTree::strict_everywhere`].
    pub fn for_tunnel(device: &str) -> Self {
        let mut all = Self::new();
        all.set(format!("net/ipv4/conf/{device}/rp_filter"), "0");
        all
    }
}

/// One setting to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysctlChange {
    /// The key, with slashes.
    pub key: String,
    /// What it is now, if it could be read.
    pub from: Option<String>,
    /// What it is to be.
    pub to: String,
}

impl fmt::Display for SysctlChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sysctl {} = {}", self.key, self.to)?;
        match &self.from {
            Some(from) => write!(f, " (was {from})"),
            None => Ok(()),
        }
    }
}

/// A tree of settings.
#[derive(Debug, Clone)]
pub struct SysctlTree {
    root: PathBuf,
}

/// Where the kernel's tree is mounted, if not at its usual place.
static MOUNTED: OnceLock<PathBuf> = OnceLock::new();

impl Default for SysctlTree {
    /// The kernel's.
    fn default() -> Self {
        let usual = || PathBuf::from(USUAL_ROOT);
        Self::new(MOUNTED.get().cloned().unwrap_or_else(usual))
    }
}

impl SysctlTree {
    /// Says once for the process where the kernel's tree is mounted. A container without
    /// privileges sees `/proc/sys` read-only; what is mounted elsewhere it may write. The mount
    /// shows, as the usual place does, the network namespace of the thread that looks.
    pub fn set_mounted_at(root: PathBuf) {
        // A second one would be the same.
        let _ = MOUNTED.set(root);
    }

    /// The tree below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(Path::new(key))
    }

    /// The value of `key`, or none where the kernel has no such key.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(&self, key: &str) -> Result<Option<String>, KernelError> {
        let path = self.path(key);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(KernelError::Sysctl { path, source }),
        }
    }

    /// Whether the reverse-path check is on for every interface, which no setting of one
    /// interface can undo: packets of nodes themselves are then dropped as they leave a tunnel.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn strict_everywhere(&self) -> Result<bool, KernelError> {
        let all = self.read("net/ipv4/conf/all/rp_filter")?;
        Ok(all.is_some_and(|value| value != "0"))
    }

    /// What keeps a node's default route that came by router advertisement: with forwarding on,
    /// an interface with `accept_ra` 1 ignores them, one with 2 does not. Empty unless `uplink`
    /// has 1 now.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn keep_router_advertisements(&self, uplink: &str) -> Result<DesiredSysctls, KernelError> {
        let key = format!("net/ipv6/conf/{uplink}/accept_ra");
        let mut all = DesiredSysctls::new();
        if self.read(&key)?.as_deref() == Some("1") {
            all.set(key, "2");
        }
        Ok(all)
    }

    /// Which settings differ. A key the kernel lacks is passed over when it was wanted
    /// [only if present](DesiredSysctls::set_if_present), else it is a change that will fail
    /// with the file's name.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn diff(&self, desired: &DesiredSysctls) -> Result<Vec<SysctlChange>, KernelError> {
        let mut changes = Vec::new();
        for (key, setting) in &desired.settings {
            let from = self.read(key)?;
            let differs = match &from {
                Some(value) => *value != setting.value,
                None => !setting.optional,
            };
            if differs {
                changes.push(SysctlChange {
                    key: key.clone(),
                    from,
                    to: setting.value.clone(),
                });
            }
        }
        Ok(changes)
    }

    /// Writes one setting.
    ///
    /// # Errors
    /// The file is missing or cannot be written (/proc/sys is read-only in an unprivileged
    /// container).
    pub fn apply(&self, change: &SysctlChange) -> Result<(), KernelError> {
        let path = self.path(&change.key);
        // Not fs::write: creating or truncating has no meaning here, and a test's folder must
        // fail for a missing key as procfs does.
        let written = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(change.to.as_bytes()));
        written.map_err(|source| KernelError::Sysctl { path, source })
    }

    /// Writes the settings of something just made, whatever they are: most differ, and a look
    /// at each costs as much as writing it. Stops at the first that cannot be written.
    ///
    /// # Errors
    /// As [`Self::apply`]; a setting wanted only if present may be missing.
    pub fn write(&self, desired: &DesiredSysctls) -> Result<(), KernelError> {
        // In order of the keys, so that those of one folder follow each other: the way to the
        // folder is most of what a setting costs.
        let mut folder: Option<(&Path, File)> = None;
        for (key, setting) in &desired.settings {
            let failed = |source| KernelError::Sysctl {
                path: self.path(key),
                source,
            };
            let key = Path::new(key);
            let parent = key.parent().unwrap_or(Path::new(""));
            let opened = match folder.take() {
                Some((path, open)) if path == parent => Ok(open),
                _ => File::open(self.root.join(parent)),
            };
            let written = opened.and_then(|open| {
                let name = key.file_name().unwrap_or_default();
                let written = write_in(&open, name, &setting.value);
                folder = Some((parent, open));
                written
            });
            match written {
                Err(error) if error.kind() == io::ErrorKind::NotFound && setting.optional => {}
                other => other.map_err(failed)?,
            }
        }
        Ok(())
    }

    /// Writes every setting that differs and stops at the first that cannot be.
    ///
    /// # Errors
    /// As [`Self::diff`] and [`Self::apply`].
    pub fn ensure(&self, desired: &DesiredSysctls) -> Result<Vec<SysctlChange>, KernelError> {
        let changes = self.diff(desired)?;
        for change in &changes {
            self.apply(change)?;
        }
        Ok(changes)
    }
}

fn write_in(folder: &File, name: &OsStr, value: &str) -> io::Result<()> {
    let file = openat(
        folder,
        name,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    File::from(file).write_all(value.as_bytes())
}

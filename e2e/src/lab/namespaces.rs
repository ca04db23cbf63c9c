//! Network namespaces: making, entering, finding who is inside, removing.
//!
//! A namespace is entered only by threads made for it, which end with the work: the namespace
//! belongs to a thread, and a worker of the async runtime that moved would take strangers' work
//! with it. Only the network is another: files, `/sys` and processes stay the host's.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command::run;
use super::error::LabError;

/// Where `ip netns` keeps namespaces.
pub fn path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// Whether a namespace of this name exists.
pub fn exists(namespace: &str) -> bool {
    path(namespace).exists()
}

/// Makes a namespace, with its loopback up and without IPv6 router advertisements to wait for.
///
/// # Errors
/// When `ip` refuses.
pub fn create(namespace: &str) -> Result<(), LabError> {
    run("ip", &["netns", "add", namespace])?;
    run("ip", &["-n", namespace, "link", "set", "lo", "up"]).map(drop)
}

/// Removes a namespace; one that is gone already is fine.
///
/// # Errors
/// When it is still there afterwards.
pub fn remove(namespace: &str) -> Result<(), LabError> {
    match run("ip", &["netns", "delete", namespace]) {
        Err(error) if exists(namespace) => Err(error),
        _ => Ok(()),
    }
}

/// Moves the calling thread into a namespace, for good.
///
/// # Errors
/// When there is no such namespace or the caller may not.
pub fn enter(namespace: &str) -> Result<(), LabError> {
    let error = |source| LabError::Namespace {
        namespace: namespace.to_owned(),
        source,
    };
    let file = File::open(path(namespace)).map_err(error)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|errno| error(errno.into()))
}

/// Does some blocking work inside a namespace, on a thread of its own.
///
/// # Errors
/// When the namespace cannot be entered, or the work's own.
pub fn inside<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    let thread = || enter(namespace).and_then(|()| work());
    std::thread::scope(|scope| scope.spawn(thread).join()).unwrap_or_else(|_| {
        Err(LabError::Thread {
            namespace: namespace.to_owned(),
        })
    })
}

/// Writes settings under `/proc/sys/net`, such as `("ipv4/ip_forward", "1")`, in a namespace.
///
/// # Errors
/// When one cannot be written.
pub fn set_sysctls(namespace: &str, settings: &[(&str, &str)]) -> Result<(), LabError> {
    inside(namespace, || {
        for (name, value) in settings {
            let path = Path::new("/proc/sys/net").join(name);
            fs::write(&path, value).map_err(LabError::file("cannot write", &path))?;
        }
        Ok(())
    })
}

/// The ids of all processes in one of these namespaces.
pub fn inhabitants(namespaces: &[String]) -> Vec<u32> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|data| (data.dev(), data.ino()));
    let wanted: Vec<_> = namespaces
        .iter()
        .filter_map(|namespace| identity(&path(namespace)))
        .collect();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        identity(Path::new(&format!("/proc/{pid}/ns/net"))).is_some_and(|id| wanted.contains(&id))
    })
    .collect()
}

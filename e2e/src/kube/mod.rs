//! A real Kubernetes API server with etcd, for tests: on loopback, on free ports, with
//! certificates of its own, in a folder of its own, ended by process id when dropped.
//!
//! The programs come from `make kube-binaries`. Not here: controllers, scheduler and kubelets;
//! what Margay does with the server (`e2e/tests/kube`).

pub(crate) mod certificates;
pub mod flags;
pub mod rights;
mod server;

pub(crate) use certificates::write_private;
pub use server::ControlPlane;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// The folder with `etcd` and `kube-apiserver`: `MARGAY_KUBE_DIR`, or what
/// `scripts/kube-binaries.sh --path` of this checkout says.
///
/// # Errors
/// When they are not there; the message says how to get them.
pub fn programs() -> anyhow::Result<PathBuf> {
    programs_of(&["kube-apiserver"])
}

/// The same for more programs of Kubernetes than the API server alone.
///
/// # Errors
/// As [`programs`].
pub fn programs_of(names: &[&str]) -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("MARGAY_KUBE_DIR") {
        return whole(folder.into(), names);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/kube-binaries.sh");
    let output = Command::new(&script)
        .arg("--path")
        .env("MARGAY_KUBE_PROGRAMS", names.join(" "))
        .output()
        .with_context(|| format!("cannot run {}", script.display()))?;
    if !output.status.success() {
        let names = names.join(", ");
        bail!("there is no {names} yet: run make kube-binaries");
    }
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    whole(path.into(), names)
}

fn whole(folder: PathBuf, names: &[&str]) -> anyhow::Result<PathBuf> {
    for program in std::iter::once(&"etcd").chain(names) {
        if !folder.join(program).is_file() {
            bail!(
                "there is no {program} in {}: run make kube-binaries",
                folder.display()
            );
        }
    }
    Ok(folder)
}

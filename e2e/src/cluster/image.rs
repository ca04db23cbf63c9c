//! The image that pods run, made here: Debian's static busybox with a link for each of its
//! programs, as the archive that `docker save` writes. No registry is asked for anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::json;

use crate::lab::command::{run, succeed};

/// What holds a pod's namespaces.
pub const PAUSE: &str = "registry.local/pause:1";
/// What a pod runs: the same content.
pub const POD: &str = "registry.local/pod:1";

/// Makes the archive in a folder of its own.
///
/// # Errors
/// When busybox is missing, or `tar` and `sha256sum` fail.
pub fn pod_image(folder: &Path) -> anyhow::Result<PathBuf> {
    let root = folder.join("root");
    for name in ["bin", "etc", "tmp", "www", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"];
    let busybox = busybox.into_iter().find(|path| Path::new(path).is_file());
    let Some(busybox) = busybox else {
        bail!("there is no busybox: scripts/packages.sh cluster");
    };
    fs::copy(busybox, root.join("bin/busybox"))?;
    for name in run(busybox, &["--list"])?
        .lines()
        .filter(|name| *name != "busybox")
    {
        symlink("busybox", root.join("bin").join(name))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n")?;
    tar(&root, &folder.join("layer.tar"), &["."])?;

    let layer = run("sha256sum", &[&folder.join("layer.tar").to_string_lossy()])?;
    let layer = layer
        .split_whitespace()
        .next()
        .context("sha256sum said nothing")?;
    let config = json!({
        "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "2147483647"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    let manifest =
        json!([{"Config": "config.json", "RepoTags": [PAUSE, POD], "Layers": ["layer.tar"]}]);
    fs::write(folder.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("pod.tar");
    tar(
        folder,
        &archive,
        &["manifest.json", "config.json", "layer.tar"],
    )?;
    Ok(archive)
}

fn tar(folder: &Path, archive: &Path, names: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(folder);
    command.args(["--numeric-owner", "--owner=0", "--group=0", "-cf"]);
    command.arg(archive).args(names);
    succeed(command, None)?;
    Ok(())
}

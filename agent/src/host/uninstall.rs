//! `margay uninstall`: takes away what Margay put on a node.
//!
//! Always the network's configuration, the plugin and the sockets. With `--network` also what is
//! in the kernel (routes, pods' interfaces, tunnel devices, the policy table) and the state on
//! disk: then the node is as it was, but for the settings under /proc/sys, which others may rely
//! on by now. Pods that still run lose their network with it.
//!
//! What is not there is no error; what cannot be taken away is told, and the rest goes on.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use margay_dataplane::{Kernel, NetlinkKernel, RouteChange, is_ours};

use super::cni::{CniPlace, HALF, PLUGIN};

/// How often it is looked whether the agent has gone.
const LOOK: Duration = Duration::from_millis(100);
/// Makes the table and removes it, so that none is no error.
const NO_TABLE: &str = "add table inet margay; delete table inet margay";

/// `margay uninstall`: leaves the node without Margay.
#[derive(Debug, Clone, clap::Args)]
pub struct UninstallOptions {
    /// Where the plugin and the configuration were installed.
    #[command(flatten)]
    pub place: CniPlace,

    /// Where the sockets live
    #[arg(long, value_name = "DIR", default_value = "/var/run/margay")]
    pub run_dir: PathBuf,

    /// Where the last-known state lives
    #[arg(long, value_name = "DIR", default_value = "/var/lib/margay")]
    pub state_dir: PathBuf,

    /// Take away routes, pods' interfaces, tunnel devices, the policy table and the state, too
    #[arg(long)]
    pub network: bool,

    /// How long to wait for a running agent to end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,

    /// Do nothing but wait until told to end, as a pod of a DaemonSet whose work is done must
    #[arg(long)]
    pub idle: bool,
}

/// Takes everything away.
///
/// # Errors
/// An agent that does not end; otherwise all that could not be taken away, in words.
pub async fn uninstall(options: UninstallOptions) -> anyhow::Result<()> {
    if options.idle {
        margay_speaker::program::shutdown_signal().await;
        return Ok(());
    }
    // An agent that runs would make anew what is removed.
    let patience = Duration::from_secs(options.patience);
    let _lock = wait_for_agent(&options.state_dir, patience).await?;
    let mut problems = Vec::new();
    let conf = [
        options.place.conf_name.clone(),
        format!(".{}.{HALF}", options.place.conf_name),
    ];
    let plugin = [PLUGIN.to_owned(), format!(".{PLUGIN}.{HALF}")];
    // First what says that there is a network here.
    for name in &conf {
        remove_file(&options.place.conf_dir.join(name), &mut problems);
    }
    if options.network {
        match NetlinkKernel::open() {
            Ok(kernel) => problems.extend(clear_network(&kernel).await),
            Err(error) => problems.push(format!("the kernel's routing tables: {error}")),
        }
        remove_table(&mut problems);
        remove_folder(&options.state_dir, &mut problems);
    }
    for name in &plugin {
        remove_file(&options.place.bin_dir.join(name), &mut problems);
    }
    remove_folder(&options.run_dir, &mut problems);
    anyhow::ensure!(problems.is_empty(), "{}", problems.join("; "));
    Ok(())
}

/// Holds the agent's place until this process ends; none where there was never an agent.
async fn wait_for_agent(state_dir: &Path, patience: Duration) -> anyhow::Result<Option<File>> {
    let path = state_dir.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => anyhow::bail!("{}: {error}", path.display()),
    };
    let limit = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < limit => {
                tokio::time::sleep(LOOK).await;
            }
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "an agent still runs on this node ({} is locked): end it first",
                path.display()
            ),
            Err(TryLockError::Error(error)) => anyhow::bail!("{}: {error}", path.display()),
        }
    }
}

/// Takes our interfaces and routes out of the kernel; what could not be, in words.
async fn clear_network(kernel: &impl Kernel) -> Vec<String> {
    let mut problems = Vec::new();
    match kernel.links().await {
        Ok(links) => {
            for link in links.iter().filter(|link| is_ours(&link.name)) {
                match kernel.delete_link(&link.name).await {
                    Ok(()) => tracing::info!("interface {} removed", link.name),
                    // A pod may have ended meanwhile.
                    Err(error) if still_there(kernel, &link.name).await => {
                        problems.push(format!("interface {}: {error}", link.name));
                    }
                    Err(_) => {}
                }
            }
        }
        Err(error) => problems.push(format!("interfaces: {error}")),
    }
    // Those over the interfaces have gone with them.
    match kernel.routes().await {
        Ok(routes) => {
            let changes: Vec<RouteChange> = routes
                .iter()
                .map(|route| RouteChange::Delete(route.key()))
                .collect();
            let results = kernel.apply_routes(&changes).await;
            let failed = results.iter().filter_map(|result| result.as_ref().err());
            problems.extend(failed.map(|error| format!("routes: {error}")));
            tracing::info!("{} routes removed", changes.len());
        }
        Err(error) => problems.push(format!("routes: {error}")),
    }
    problems
}

async fn still_there(kernel: &impl Kernel, name: &str) -> bool {
    !matches!(kernel.link(name).await, Ok(None))
}

fn remove_table(problems: &mut Vec<String>) {
    let output = std::process::Command::new("nft").arg(NO_TABLE).output();
    match output {
        Ok(output) if output.status.success() => tracing::info!("policy table removed"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            problems.push(format!("policy table: {}", said.trim()));
        }
        Err(error) => problems.push(format!("policy table: cannot run nft: {error}")),
    }
}

fn remove_file(path: &Path, problems: &mut Vec<String>) {
    match fs::remove_file(path) {
        Ok(()) => tracing::info!("{} removed", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.push(format!("{}: {error}", path.display())),
    }
}

fn remove_folder(path: &Path, problems: &mut Vec<String>) {
    match fs::remove_dir_all(path) {
        Ok(()) => tracing::info!("{} removed", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.push(format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
#[path = "tests/uninstall.rs"]
mod tests;

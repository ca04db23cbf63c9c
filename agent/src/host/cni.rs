//! `margay install-cni`: puts the plugin and the network's configuration where the runtime looks.
//!
//! Each file is there whole or not at all: a runtime may read at any moment, and an older plugin
//! may be running. The plugin comes first, the configuration that names it last. What is there
//! already, octet by octet, is not written again, so that a restart wakes nobody.
//!
//! Not here: what the plugin does.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Map, Value, json};

use margay_speaker::program::UsageError;

/// The plugin's file.
pub const PLUGIN: &str = "margay-cni";
/// The configuration's file.
pub const CONFLIST: &str = "10-margay.conflist";
/// What a file ends with while it is written.
pub(super) const HALF: &str = "half";

/// Where a node's runtime looks: the same for what is installed and what is taken away.
#[derive(Debug, Clone, clap::Args)]
pub struct CniPlace {
    /// Where the runtime looks for plugins
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub bin_dir: PathBuf,

    /// Where the runtime looks for configurations
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub conf_dir: PathBuf,

    /// The configuration's file; the runtime takes the first by name
    #[arg(long, value_name = "FILE", default_value = CONFLIST)]
    pub conf_name: String,
}

/// `margay install-cni`: what a node's runtime needs.
#[derive(Debug, Clone, clap::Args)]
pub struct InstallCniOptions {
    /// Where it goes.
    #[command(flatten)]
    pub place: CniPlace,

    /// The plugin to install [default: margay-cni beside this program]
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,

    /// The version of the CNI specification that the configuration asks for
    #[arg(long, value_name = "VERSION", default_value = "1.0.0")]
    pub cni_version: String,

    /// The MTU of pods' interfaces in bytes; 0 lets the agent choose
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub mtu: u32,

    /// Another plugin to call after Margay's, by its name or as a JSON object with `type`; left
    /// out, with a warning, when --bin-dir has no such program. May be given several times
    #[arg(long, value_name = "PLUGIN")]
    pub chain: Vec<String>,
}

/// Installs the plugin, and then the configuration.
///
/// # Errors
/// A flag that makes no sense ([`UsageError`]); a folder or file that cannot be written, by name.
pub fn install(options: &InstallCniOptions) -> anyhow::Result<()> {
    check_name(&options.place.conf_name)?;
    if margay_cni::Version::parse(&options.cni_version).is_none() {
        let wrong = format!("--cni-version {}: not a known version", options.cni_version);
        return Err(UsageError(wrong).into());
    }
    let chain: Vec<Value> = options
        .chain
        .iter()
        .map(|text| chained(text))
        .collect::<Result<_, _>>()
        .map_err(UsageError)?;
    let plugin = match &options.plugin {
        Some(plugin) => plugin.clone(),
        None => std::env::current_exe()?.with_file_name(PLUGIN),
    };
    let program = fs::read(&plugin).with_context(|| format!("plugin {}", plugin.display()))?;
    put(&options.place.bin_dir, PLUGIN, &program, 0o755)?;
    let chain = chain
        .into_iter()
        .filter(|plugin| is_installed(&options.place.bin_dir, plugin))
        .collect();
    let text = conflist(&options.cni_version, options.mtu, chain)?;
    put(
        &options.place.conf_dir,
        &options.place.conf_name,
        &text,
        0o644,
    )?;
    for other in sorted_before(&options.place.conf_dir, &options.place.conf_name) {
        tracing::warn!(
            "{}: {other} comes before {}: the runtime uses that, and pods get no network of \
             Margay's until it is gone",
            options.place.conf_dir.display(),
            options.place.conf_name
        );
    }
    Ok(())
}

/// A runtime passes over files of other endings.
fn check_name(name: &str) -> Result<(), UsageError> {
    if name.ends_with(".conflist") && !name.contains('/') {
        return Ok(());
    }
    Err(UsageError(format!(
        "--conf-name {name}: must be the name of a file that ends with .conflist"
    )))
}

/// One plugin of the chain, with the capabilities that the well-known ones need.
fn chained(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        let plugin: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("--chain {text}: {error}"))?;
        return match plugin.get("type") {
            Some(Value::String(name)) if is_program(name) => Ok(Value::Object(plugin)),
            _ => Err(format!(
                "--chain {text}: must have a type, the plugin's name"
            )),
        };
    }
    if !is_program(text) {
        return Err(format!("--chain {text}: must be a plugin's name"));
    }
    let capability = match text {
        "portmap" => "portMappings",
        "bandwidth" => "bandwidth",
        _ => return Ok(json!({ "type": text })),
    };
    Ok(json!({ "type": text, "capabilities": { capability: true } }))
}

fn is_program(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && !name.starts_with('.')
}

/// Without its program, a plugin of the chain would make every pod fail.
fn is_installed(bin_dir: &Path, plugin: &Value) -> bool {
    let name = plugin.get("type").and_then(Value::as_str).unwrap_or("");
    let there = bin_dir.join(name).is_file();
    if !there {
        tracing::warn!(
            "{}: no {name}, which is to be called after {PLUGIN}: left out; pods' {} do nothing \
             until it is installed and the agent's pod made anew",
            bin_dir.display(),
            match name {
                "portmap" => "hostPorts",
                "bandwidth" => "bandwidth annotations",
                _ => "settings for it",
            }
        );
    }
    there
}

fn conflist(version: &str, mtu: u32, chain: Vec<Value>) -> anyhow::Result<Vec<u8>> {
    let mut own = json!({ "type": PLUGIN });
    if mtu != 0 {
        own["mtu"] = mtu.into();
    }
    let plugins: Vec<Value> = std::iter::once(own).chain(chain).collect();
    let list = json!({ "cniVersion": version, "name": "margay", "plugins": plugins });
    let mut text = serde_json::to_vec_pretty(&list)?;
    text.push(b'\n');
    Ok(text)
}

/// The configurations that a runtime prefers to ours: the first by name is used.
fn sorted_before(folder: &Path, name: &str) -> BTreeSet<String> {
    let is_config = |name: &str| {
        let ending = Path::new(name).extension().and_then(|one| one.to_str());
        matches!(ending, Some("conf" | "conflist" | "json"))
    };
    let listing = fs::read_dir(folder).into_iter().flatten().flatten();
    listing
        .filter_map(|file| file.file_name().into_string().ok())
        .filter(|other| is_config(other) && other.as_str() < name)
        .collect()
}

/// Writes a file whole, unless it is there as it should be.
fn put(folder: &Path, name: &str, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let path = folder.join(name);
    if is_as_wanted(&path, content, mode) {
        tracing::info!("{}: is there already", path.display());
        return Ok(());
    }
    let half = folder.join(format!(".{name}.{HALF}"));
    let written = fs::create_dir_all(folder)
        .and_then(|()| write_whole(&half, content, mode))
        .and_then(|()| fs::rename(&half, &path));
    if written.is_err() {
        // The error matters, not whether the remains could be removed.
        let _ = fs::remove_file(&half);
    }
    written.with_context(|| format!("{}: cannot be written", path.display()))?;
    // The new name is on disk, too, before anybody relies on it.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("{}: cannot be written", folder.display()))?;
    tracing::info!("{}: installed", path.display());
    Ok(())
}

fn is_as_wanted(path: &Path, content: &[u8], mode: u32) -> bool {
    let right_mode = fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o7777 == mode);
    right_mode && fs::read(path).is_ok_and(|found| found == content)
}

fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // A half of an earlier try may be somebody's link.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(path)?;
    file.write_all(content)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
#[path = "tests/cni.rs"]
mod tests;

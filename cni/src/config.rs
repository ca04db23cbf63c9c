//! The network configuration as the runtime hands it to the plugin on standard input.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{CniError, Code};
use crate::version::Version;

/// The agent's socket unless the configuration names another.
pub const DEFAULT_SOCKET: &str = "/var/run/margay/cni.sock";
/// Where deletes wait for an absent agent unless the configuration names another directory.
pub const DEFAULT_JOURNAL: &str = "/var/lib/margay/cni-delete";
/// The longest configuration that is read, in bytes; a result of another plugin may be in it.
pub const MAX_CONFIG: usize = 1 << 20;

/// The fields that the plugin knows; others are passed over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// The version of the specification in which to answer.
    #[serde(default)]
    pub cni_version: String,
    /// The network's name.
    #[serde(default)]
    pub name: String,
    /// The plugin's file name.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// The agent's socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// The directory of deletes that wait for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<PathBuf>,
    /// Seconds to wait for the agent's answer, at most 600; 0 is the default of each command.
    #[serde(default)]
    pub timeout: u32,
    /// MTU of the pod's interface in bytes; 0 lets the agent choose.
    #[serde(default)]
    pub mtu: u32,
    /// Another plugin's address management: not supported, named so that it can be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Value>,
    /// What the plugins before this one made (ADD), or the whole chain (CHECK, DEL).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_result: Option<Value>,
    /// GC: the attachments that are in use; everything else may go.
    #[serde(
        default,
        rename = "cni.dev/valid-attachments",
        skip_serializing_if = "Option::is_none"
    )]
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// One interface of one container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

impl NetworkConfig {
    /// Reads a configuration and its version. Nothing but JSON and version is checked.
    ///
    /// # Errors
    /// Code 6 if it is not JSON, 7 if a field is of the wrong type, 1 if the version is unknown.
    pub fn parse(text: &[u8]) -> Result<(Self, Version), CniError> {
        let value: Value = serde_json::from_slice(text).map_err(|error| {
            CniError::new(Code::DECODE, "network configuration is not JSON")
                .with_details(error.to_string())
        })?;
        let config: Self = serde_json::from_value(value).map_err(|error| {
            CniError::new(Code::INVALID_CONFIG, "network configuration is not valid")
                .with_details(error.to_string())
        })?;
        let version = Version::parse(&config.cni_version).ok_or_else(|| {
            let known: Vec<&str> = Version::ALL.iter().map(|one| one.as_str()).collect();
            CniError::new(
                Code::INCOMPATIBLE_VERSION,
                format!("cniVersion {:?} is not supported", config.cni_version),
            )
            .with_details(format!("supported are {}", known.join(", ")))
        })?;
        Ok((config, version))
    }

    /// Checks the fields that every command but VERSION needs.
    ///
    /// # Errors
    /// Code 7 for the name, 2 for a field that asks for what Margay does not do.
    pub fn check(&self) -> Result<(), CniError> {
        if !is_name(&self.name) {
            return Err(CniError::new(
                Code::INVALID_CONFIG,
                format!("network configuration's name {:?} is not valid", self.name),
            )
            .with_details(
                "must begin with a letter or digit, followed by letters, digits, '_', '.', '-'",
            ));
        }
        if let Some(ipam) = self.ipam.as_ref().filter(|ipam| !is_nothing(ipam)) {
            return Err(CniError::new(
                Code::UNSUPPORTED_FIELD,
                format!("network configuration's field ipam: {ipam} is not supported"),
            )
            .with_details("addresses come from IPPools: remove the field"));
        }
        Ok(())
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        let default = || PathBuf::from(DEFAULT_SOCKET);
        self.socket.clone().unwrap_or_else(default)
    }

    /// The journal's directory.
    pub fn journal(&self) -> PathBuf {
        let default = || PathBuf::from(DEFAULT_JOURNAL);
        self.journal.clone().unwrap_or_else(default)
    }

    /// How long to wait for the agent, all in all.
    pub fn timeout_or(&self, default: Duration) -> Duration {
        match self.timeout {
            0 => default,
            seconds => Duration::from_secs(u64::from(seconds.min(600))),
        }
    }
}

/// Whether a value says nothing: runtimes' templates leave empty sections.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// What the specification allows as a network's name and as a container's ID.
pub(crate) fn is_name(text: &str) -> bool {
    let mut all = text.chars();
    all.next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && all.all(|one| one.is_ascii_alphanumeric() || "_.-".contains(one))
}

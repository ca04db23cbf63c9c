//! What plugin and agent say to each other: one JSON object and a newline each way, one
//! connection a request.
//!
//! The agent always answers in the newest form of the specification; the plugin turns it into the
//! version the runtime asked for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::NetworkConfig;
use crate::error::CniError;

/// The longest request or reply, in bytes, newline included.
pub const MAX_MESSAGE: usize = 2 << 20;

/// The keys of CNI_ARGS that name a pod.
pub mod args {
    /// The pod's namespace.
    pub const POD_NAMESPACE: &str = "K8S_POD_NAMESPACE";
    /// The pod's name.
    pub const POD_NAME: &str = "K8S_POD_NAME";
    /// The pod's uid.
    pub const POD_UID: &str = "K8S_POD_UID";
}

/// What the runtime wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// Is the attachment as it was made?
    Check,
    /// Remove what belongs to no valid attachment.
    Gc,
    /// Can ADD be served?
    Status,
    /// Which versions are spoken? Never sent to the agent.
    Version,
}

impl Command {
    /// Reads CNI_COMMAND.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }

    /// The command as CNI_COMMAND has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// What the plugin asks the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// CNI_CONTAINERID; empty for GC and STATUS.
    #[serde(default)]
    pub container_id: String,
    /// CNI_NETNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// CNI_IFNAME; empty for GC and STATUS.
    #[serde(default)]
    pub ifname: String,
    /// CNI_ARGS.
    #[serde(default)]
    pub args: BTreeMap<String, String>,
    /// The network configuration, without `prevResult`.
    #[serde(default)]
    pub config: NetworkConfig,
    /// `prevResult` of the configuration, in the newest form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev_result: Option<Value>,
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// It is done: a [`crate::CniResult`] for ADD, an empty object for the others.
    Result(Value),
    /// It is not done.
    Error(CniError),
}

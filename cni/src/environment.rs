//! The environment variables by which the runtime says what to do (section "Parameters").

use std::collections::BTreeMap;

use crate::config::is_name;
use crate::error::{CniError, Code};
use crate::protocol::Command;

/// The longest value that is accepted, in bytes: the kernel's limit for a path.
const MAX_VALUE: usize = 4096;
/// The longest interface name, in bytes: the kernel's limit without the closing zero.
const MAX_IFNAME: usize = 15;
/// The longest container ID, in bytes: it becomes part of a file's name.
const MAX_CONTAINER_ID: usize = 200;

/// What the environment says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// CNI_CONTAINERID; empty for GC and STATUS.
    pub container_id: String,
    /// CNI_NETNS; `None` if absent, which DEL allows.
    pub netns: Option<String>,
    /// CNI_IFNAME; empty for GC and STATUS.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: BTreeMap<String, String>,
}

/// Reads CNI_COMMAND.
///
/// # Errors
/// Code 4.
pub fn command(look_up: impl Fn(&str) -> Option<String>) -> Result<Command, CniError> {
    let text = look_up("CNI_COMMAND").unwrap_or_default();
    Command::parse(&text).ok_or_else(|| {
        invalid(
            "CNI_COMMAND",
            &text,
            "must be ADD, DEL, CHECK, GC, STATUS or VERSION",
        )
    })
}

impl Environment {
    /// Reads what a command needs; what it does not need is not looked at.
    ///
    /// # Errors
    /// Code 4 with the variable's name in the message.
    pub fn read(
        command: Command,
        look_up: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, CniError> {
        let look_up = |name: &str| look_up(name).filter(|value| !value.is_empty());
        let of_container = matches!(command, Command::Add | Command::Del | Command::Check);
        if !of_container {
            return Ok(Self {
                container_id: String::new(),
                netns: None,
                ifname: String::new(),
                args: BTreeMap::new(),
            });
        }
        let container_id = look_up("CNI_CONTAINERID").unwrap_or_default();
        if !is_name(&container_id) || container_id.len() > MAX_CONTAINER_ID {
            return Err(invalid(
                "CNI_CONTAINERID",
                &container_id,
                "must begin with a letter or digit, followed by letters, digits, '_', '.', '-', \
                 at most 200",
            ));
        }
        let ifname = look_up("CNI_IFNAME").unwrap_or_default();
        if !is_interface_name(&ifname) {
            return Err(invalid(
                "CNI_IFNAME",
                &ifname,
                "must be 1 to 15 characters without '/', ':' and blanks, and not '.' or '..'",
            ));
        }
        let netns = look_up("CNI_NETNS");
        if netns.is_none() && command != Command::Del {
            return Err(invalid("CNI_NETNS", "", "must be a path"));
        }
        if let Some(path) = netns.as_ref().filter(|path| path.len() > MAX_VALUE) {
            let start: String = path.chars().take(64).collect();
            return Err(invalid("CNI_NETNS", &start, "must be at most 4096 bytes"));
        }
        Ok(Self {
            container_id,
            netns,
            ifname,
            args: arguments(&look_up("CNI_ARGS").unwrap_or_default())?,
        })
    }
}

/// Reads `KEY=VALUE;KEY=VALUE`.
fn arguments(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    if text.len() > MAX_VALUE {
        let start: String = text.chars().take(64).collect();
        return Err(invalid("CNI_ARGS", &start, "must be at most 4096 bytes"));
    }
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(invalid(
                "CNI_ARGS",
                pair,
                "must be KEY=VALUE pairs joined by ';'",
            )),
        })
        .collect()
}

fn is_interface_name(text: &str) -> bool {
    let allowed = |one: char| !one.is_whitespace() && !one.is_control() && !"/:".contains(one);
    !text.is_empty()
        && text.len() <= MAX_IFNAME
        && text.chars().all(allowed)
        && text != "."
        && text != ".."
}

fn invalid(variable: &str, value: &str, message: &str) -> CniError {
    let msg = if value.is_empty() {
        format!("environment variable {variable} is missing")
    } else {
        format!("environment variable {variable}={value:?} is not valid")
    };
    CniError::new(Code::INVALID_ENVIRONMENT, msg).with_details(format!("{variable} {message}"))
}

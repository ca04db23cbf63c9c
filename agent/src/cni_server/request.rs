//! From the protocol's words to typed requests. The plugin has checked them already; the socket
//! is a door of its own, so they are checked again.

use std::collections::HashSet;
use std::path::PathBuf;

use margay_cni::config::Attachment;
use margay_cni::environment::Environment;
use margay_cni::protocol::{Command, Request, args};
use margay_cni::{CniError, Code};

use super::network::{AddRequest, DelRequest, PodIdentity};

/// The longest name of an object in Kubernetes.
const MAX_NAME: usize = 253;
/// The smallest MTU that carries IPv6 (RFC 8200 section 5); IPv4 alone would bear less.
const MIN_MTU: u32 = 1280;
/// The largest MTU of a veth pair.
const MAX_MTU: u32 = 65535;

/// A request, typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// Attach.
    Add(AddRequest),
    /// Detach.
    Del(DelRequest),
    /// Compare.
    Check(AddRequest),
    /// Detach all but these.
    Gc(HashSet<Attachment>),
    /// Can ADD be served, with this MTU or one that is chosen?
    Status(Option<u32>),
}

impl Typed {
    /// Reads a request.
    ///
    /// # Errors
    /// Codes 4 and 7, with the variable or the field in the message.
    pub fn read(request: &Request) -> Result<Self, CniError> {
        let environment = environment(request)?;
        let attachment = Attachment {
            container_id: environment.container_id,
            ifname: environment.ifname,
        };
        let netns = environment.netns.map(PathBuf::from);
        Ok(match request.command {
            Command::Status => Self::Status(mtu(request)?),
            Command::Gc => Self::Gc(valid_attachments(request)?),
            Command::Del => Self::Del(DelRequest {
                attachment,
                pod: pod(request)?,
                netns,
            }),
            Command::Add => Self::Add(attach(request, attachment, netns)?),
            Command::Check => Self::Check(attach(request, attachment, netns)?),
            Command::Version => {
                return Err(CniError::new(
                    Code::INVALID_ENVIRONMENT,
                    "CNI_COMMAND VERSION is answered by the plugin",
                ));
            }
        })
    }

    /// What the operation must be alone with: its container, and its pod, whose interface two
    /// sandboxes of the pod share one after the other.
    pub fn lock_keys(&self) -> Vec<String> {
        match self {
            Self::Add(request) | Self::Check(request) => {
                keys(&request.attachment, Some(&request.pod))
            }
            Self::Del(request) => keys(&request.attachment, request.pod.as_ref()),
            Self::Gc(_) | Self::Status(_) => Vec::new(),
        }
    }
}

/// Containers before pods, always: two operations never wait for each other.
pub(crate) fn keys(attachment: &Attachment, pod: Option<&PodIdentity>) -> Vec<String> {
    let container = format!("container {}", attachment.container_id);
    let pod = pod.map(|pod| format!("pod {}/{}", pod.namespace, pod.name));
    [Some(container), pod].into_iter().flatten().collect()
}

/// The same checks as the plugin's, by the same code.
fn environment(request: &Request) -> Result<Environment, CniError> {
    Environment::read(request.command, |name| match name {
        "CNI_CONTAINERID" => Some(request.container_id.clone()),
        "CNI_IFNAME" => Some(request.ifname.clone()),
        "CNI_NETNS" => request.netns.clone(),
        _ => None,
    })
}

fn attach(
    request: &Request,
    attachment: Attachment,
    netns: Option<PathBuf>,
) -> Result<AddRequest, CniError> {
    let pod = pod(request)?.ok_or_else(|| {
        CniError::new(
            Code::INVALID_ENVIRONMENT,
            "environment variable CNI_ARGS lacks K8S_POD_NAMESPACE and K8S_POD_NAME",
        )
        .with_details("Margay wires pods: the runtime must say which")
    })?;
    Ok(AddRequest {
        attachment,
        pod,
        netns: netns.unwrap_or_default(),
        mtu: mtu(request)?,
    })
}

/// The MTU of the configuration; none if the agent is to choose.
fn mtu(request: &Request) -> Result<Option<u32>, CniError> {
    let mtu = request.config.mtu;
    if mtu != 0 && !(MIN_MTU..=MAX_MTU).contains(&mtu) {
        return Err(CniError::new(
            Code::INVALID_CONFIG,
            format!(
                "network configuration's mtu {mtu} is not valid: must be 0 (automatic) or \
                 {MIN_MTU} to {MAX_MTU}"
            ),
        ));
    }
    Ok((mtu != 0).then_some(mtu))
}

/// The pod by CNI_ARGS; none if neither namespace nor name is there.
fn pod(request: &Request) -> Result<Option<PodIdentity>, CniError> {
    let get = |key: &str| request.args.get(key).filter(|value| !value.is_empty());
    let (Some(namespace), Some(name)) = (get(args::POD_NAMESPACE), get(args::POD_NAME)) else {
        return Ok(None);
    };
    for (key, value) in [(args::POD_NAMESPACE, namespace), (args::POD_NAME, name)] {
        let allowed = |one: char| one.is_ascii_alphanumeric() || "-._".contains(one);
        if value.len() > MAX_NAME || !value.chars().all(allowed) {
            return Err(CniError::new(
                Code::INVALID_ENVIRONMENT,
                format!("environment variable CNI_ARGS: {key}={value:.64} is not a name"),
            ));
        }
    }
    Ok(Some(PodIdentity {
        namespace: namespace.clone(),
        name: name.clone(),
        uid: get(args::POD_UID).cloned(),
    }))
}

fn valid_attachments(request: &Request) -> Result<HashSet<Attachment>, CniError> {
    // Without the list everything would look like garbage.
    let list = request.config.valid_attachments.as_ref().ok_or_else(|| {
        CniError::new(
            Code::INVALID_CONFIG,
            "network configuration's cni.dev/valid-attachments is missing: GC needs it",
        )
    })?;
    Ok(list.iter().cloned().collect())
}

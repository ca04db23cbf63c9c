//! The record of a pod wired on this node, kept on disk so that a restarted agent takes up where it was
//! without asking anybody.
//!
//! One small file a sandbox, written whole and renamed into place: a crash leaves the old file,
//! the new one or none, never half of one. A file that cannot be read is set aside with a log
//! line and costs only that pod its entry.
//!
//! Not here: which of them still stand ([`crate::pods`]).

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A pod's sandbox on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The sandbox (CNI_CONTAINERID).
    pub container_id: String,
    /// The interface within the sandbox (CNI_IFNAME).
    pub interface: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid, if the runtime told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The node's end of the pair.
    pub host_interface: String,
    /// The pod's network namespace as the runtime named it.
    pub netns: PathBuf,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The MTU of the pair in bytes.
    pub mtu: u32,
    /// The number the kernel gave the node's end. Not kept on disk: the node may have been
    /// restarted.
    #[serde(skip)]
    pub device: u32,
}

impl Endpoint {
    /// What tells this endpoint from others: the sandbox and the interface.
    pub fn key(&self) -> EndpointKey {
        (self.container_id.clone(), self.interface.clone())
    }
}

/// Sandbox and interface.
pub type EndpointKey = (String, String);

/// The folder with one file an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointFolder {
    folder: PathBuf,
}

impl EndpointFolder {
    /// Opens `folder`, which is made if it is not there, and reads what an earlier agent left.
    ///
    /// # Errors
    /// The folder cannot be made or listed.
    pub fn open(folder: PathBuf) -> std::io::Result<(Self, Vec<Endpoint>)> {
        std::fs::create_dir_all(&folder)?;
        let mut endpoints = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(endpoint) => endpoints.push(endpoint),
                Err(error) => {
                    tracing::error!("{}: {error}; the file is set aside", path.display());
                    std::fs::rename(&path, path.with_extension("unreadable"))?;
                }
            }
        }
        Ok((Self { folder }, endpoints))
    }

    /// Writes an endpoint, in place of an earlier one of its key.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed then.
    pub fn write(&self, endpoint: &Endpoint) -> std::io::Result<()> {
        let path = self.path(&endpoint.key());
        let partial = path.with_extension("partial");
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(&serde_json::to_vec(endpoint)?)?;
        std::fs::rename(&partial, &path)
    }

    /// Removes an endpoint. A file that cannot be removed is logged: the next agent finds that
    /// its interface is gone.
    pub fn remove(&self, key: &EndpointKey) {
        let path = self.path(key);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{}: {error}", path.display());
            }
            _ => {}
        }
    }

    /// A name for the file that any two strings make safe and distinct.
    fn path(&self, (container_id, interface): &EndpointKey) -> PathBuf {
        use sha1::Digest;
        let digest = sha1::Sha1::digest(format!("{container_id}/{interface}"));
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{name}.json"))
    }
}

fn read(path: &Path) -> std::io::Result<Endpoint> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(container_id: &str, address: &str) -> Endpoint {
        Endpoint {
            container_id: container_id.to_owned(),
            interface: "eth0".to_owned(),
            namespace: "default".to_owned(),
            pod: format!("pod-{container_id}"),
            uid: None,
            host_interface: "mgy0123456789a".to_owned(),
            netns: "/run/netns/x".into(),
            addresses: vec![address.parse().unwrap()],
            mtu: 1450,
            device: 0,
        }
    }

    #[test]
    fn endpoints_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (files, none) = EndpointFolder::open(folder.path().to_owned()).unwrap();
        assert!(none.is_empty());
        files.write(&endpoint("../../a", "10.0.0.1")).unwrap();
        files.write(&endpoint("b", "10.0.0.2")).unwrap();
        files.remove(&("b".to_owned(), "eth0".to_owned()));
        files.remove(&("never".to_owned(), "eth0".to_owned()));

        let (_, again) = EndpointFolder::open(folder.path().to_owned()).unwrap();
        assert_eq!(again, [endpoint("../../a", "10.0.0.1")]);
    }

    #[test]
    fn a_broken_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.json"), "{").unwrap();
        let (_, endpoints) = EndpointFolder::open(folder.path().to_owned()).unwrap();
        assert!(endpoints.is_empty());
        assert!(folder.path().join("x.unreadable").exists());
    }
}

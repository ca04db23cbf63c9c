//! Secrets of the configuration file: those in files of their own, and TCP-AO keys.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{AoAlgorithm, AoKey, Secret};

/// The most of a file that is looked at, in octets: more than any secret has.
const LONGEST: u64 = 4096;

/// TCP-AO (RFC 5925).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpAoEntry {
    /// The keys; the first one is signed with, the others are understood.
    pub keys: Vec<AoKeyEntry>,
}

/// One TCP-AO key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AoKeyEntry {
    /// The KeyID in both directions, 0 to 255; where they differ, `sendId` and `recvId` say.
    #[serde(default)]
    pub id: Option<u8>,
    /// The KeyID in what we send; left out: `id`.
    #[serde(default)]
    pub send_id: Option<u8>,
    /// The KeyID in what the neighbor sends; left out: `id`.
    #[serde(default)]
    pub recv_id: Option<u8>,
    /// `hmac-sha1` (left out: this), `cmac-aes128`, or `hmac-sha256`.
    #[serde(default)]
    pub algorithm: AoAlgorithm,
    /// The master key, 1 to 80 octets.
    #[serde(default)]
    pub secret: Option<Secret>,
    /// A file whose content is the master key; a newline at its end does not count.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
}

impl TcpAoEntry {
    /// The keys, or which field is wrong and why.
    pub(super) fn keys(&self) -> Result<Vec<AoKey>, String> {
        if self.keys.is_empty() {
            return Err(
                "keys: at least one is needed; leave tcpAo out for a session without".to_owned(),
            );
        }
        let keys = self.keys.iter().enumerate();
        let keys = keys.map(|(index, key)| {
            key.key()
                .map_err(|(field, problem)| format!("keys[{index}]{field}: {problem}"))
        });
        keys.collect()
    }
}

impl AoKeyEntry {
    fn key(&self) -> Result<AoKey, (&'static str, String)> {
        let id = |own: Option<u8>, field| {
            own.or(self.id)
                .ok_or_else(|| (field, "say id, or sendId and recvId".to_owned()))
        };
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), None) => secret.clone(),
            (None, Some(path)) => {
                let error = |reason| (".secretFile", format!("{}: {reason}", path.display()));
                read_secret(path).map_err(error)?
            }
            _ => {
                return Err((
                    "",
                    "exactly one of secret and secretFile is needed".to_owned(),
                ));
            }
        };
        Ok(AoKey {
            send_id: id(self.send_id, ".sendId")?,
            receive_id: id(self.recv_id, ".recvId")?,
            algorithm: self.algorithm,
            secret,
        })
    }
}

/// Reads a secret out of a file, without a newline at its end. A device or a pipe is none: they may have no end, or not even a
/// beginning.
pub(super) fn read_secret(path: &Path) -> Result<Secret, String> {
    use std::os::unix::fs::OpenOptionsExt;
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(nonblocking).open(path);
    let file = file.map_err(|error| error.to_string())?;
    let data = file.metadata().map_err(|error| error.to_string())?;
    if !data.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    let length = read.map_err(|error| error.to_string())?;
    if length as u64 > LONGEST {
        return Err(format!(
            "has more than {LONGEST} octets, which no secret has"
        ));
    }
    Ok(Secret::from(text.trim_end_matches(['\r', '\n'])))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn keys(value: Value) -> Result<Vec<AoKey>, String> {
        serde_json::from_value::<TcpAoEntry>(value).unwrap().keys()
    }

    #[test]
    fn keys_have_ids_an_algorithm_and_a_secret() {
        let both = keys(json!({ "keys": [
            { "id": 7, "secret": "one" },
            { "id": 8, "sendId": 1, "recvId": 2, "algorithm": "cmac-aes128", "secret": "two" },
        ]}));
        let both = both.unwrap();
        let ids: Vec<_> = both
            .iter()
            .map(|key| (key.send_id, key.receive_id))
            .collect();
        assert_eq!(ids, [(7, 7), (1, 2)]);
        assert_eq!(both[0].algorithm, AoAlgorithm::HmacSha1);
        assert_eq!(both[1].algorithm, AoAlgorithm::CmacAes128);
        for (value, expected) in [
            (json!({ "keys": [] }), "keys: at least one"),
            (
                json!({ "keys": [{ "secret": "x" }] }),
                "keys[0].sendId: say id",
            ),
            (
                json!({ "keys": [{ "sendId": 1, "secret": "x" }] }),
                "keys[0].recvId: say id",
            ),
            (
                json!({ "keys": [{ "id": 1 }] }),
                "keys[0]: exactly one of secret",
            ),
            (
                json!({ "keys": [{ "id": 1, "secretFile": "/nonexistent/key" }] }),
                "keys[0].secretFile: /nonexistent/key: No such file",
            ),
        ] {
            let error = keys(value).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_secret_is_read_from_files_and_from_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "hunter2\n").unwrap();
        assert_eq!(read_secret(&path).unwrap().reveal(), "hunter2");
        std::fs::write(&path, vec![b'x'; 5000]).unwrap();
        assert!(
            read_secret(&path)
                .unwrap_err()
                .contains("more than 4096 octets")
        );
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        // Neither endless nor waiting for a writer.
        for path in [Path::new("/dev/zero"), &pipe, folder.path()] {
            assert!(read_secret(path).is_err(), "{}", path.display());
        }
    }
}

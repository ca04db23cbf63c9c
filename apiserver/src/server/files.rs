//! The files of the data directory other than the database: token and kubeconfig.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::ByteString;
use serde_json::json;

use super::StartError;
use crate::object::entropy;
use crate::options::ListenAddress;

pub(super) fn failed(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |error| StartError::File { path, error }
}

/// Creates the data directory, readable by its owner only.
pub(super) fn prepare_directory(path: &Path) -> Result<(), StartError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path))
}

/// Makes the database file private before anything is in it: the directory may be an older, more open one.
pub(super) fn prepare_database(path: &Path) -> Result<(), StartError> {
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(failed(path))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(failed(path))
}

/// Writes a file only its owner can read, whole or not at all.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), StartError> {
    write(path, text, 0o600)
}

/// Writes a file everybody may read, whole or not at all.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), StartError> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), StartError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".new");
    let partial = Path::new(&partial);
    let written = || -> io::Result<()> {
        // A leftover of a crash may have other permissions.
        let _ = fs::remove_file(partial);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(partial, path)
    };
    written().map_err(failed(path))
}

/// Reads a file, or `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, StartError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// The token's text; made at first start.
pub(super) fn token(path: &Path) -> Result<String, StartError> {
    if let Some(text) = read(path)? {
        return Ok(text);
    }
    let text = entropy::hex(&entropy::bytes::<32>().map_err(failed(path))?);
    write_private(path, &format!("{text}\n"))?;
    Ok(text)
}

/// The URL of the first listener with an address of its own; unspecified addresses are reached over loopback.
pub(super) fn url(asked: &[ListenAddress], bound: &[SocketAddr]) -> String {
    let named = asked
        .iter()
        .position(|address| matches!(address, ListenAddress::Address(_)))
        .unwrap_or(0);
    let address = bound
        .get(named)
        .copied()
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 443)));
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        other => other,
    };
    format!("https://{}", SocketAddr::new(host, address.port()))
}

/// A kubeconfig with everything inline. JSON is YAML, and every reader of kubeconfigs takes it.
pub(super) fn kubeconfig(url: &str, authority: &str, token: &str) -> String {
    let authority =
        serde_json::to_value(ByteString(authority.as_bytes().to_vec())).unwrap_or_default();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "margay", "cluster": {"server": url, "certificate-authority-data": authority}}],
        "users": [{"name": "margay", "user": {"token": token}}],
        "contexts": [{"name": "margay", "context": {"cluster": "margay", "user": "margay"}}],
        "current-context": "margay",
        "preferences": {},
    });
    serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let first = token(&path).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(token(&path).unwrap().trim(), first);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn urls() {
        let address = |text: &str| (vec![text.parse().unwrap()], vec![text.parse().unwrap()]);
        for (listen, expected) in [
            ("10.0.0.1:6443", "https://10.0.0.1:6443"),
            ("0.0.0.0:6443", "https://127.0.0.1:6443"),
            ("[::]:6443", "https://[::1]:6443"),
        ] {
            let (asked, bound) = address(listen);
            assert_eq!(url(&asked, &bound), expected);
        }
        let asked = [
            ListenAddress::Descriptor(3),
            ListenAddress::Address("127.0.0.1:0".parse().unwrap()),
        ];
        let bound = [
            "10.9.9.9:1".parse().unwrap(),
            "127.0.0.1:7".parse().unwrap(),
        ];
        assert_eq!(url(&asked, &bound), "https://127.0.0.1:7");
    }
}

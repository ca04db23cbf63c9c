//! Deletes that wait for the agent: one file each, written whole or not at all.
//!
//! A pod's end must not wait for an agent or an API server. Where neither can act, the delete is
//! written down, the runtime is told that it is done, and the agent catches up.
//!
//! Not here: catching up.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::protocol::Request;

/// The ending of an entry; anything else in the directory is not one.
const ENDING: &str = "json";
/// The longest entry that is read, in bytes.
const MAX_ENTRY: u64 = 2 << 20;

/// A delete that was written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The file.
    pub path: PathBuf,
    /// The request; an error in words if the file does not hold one.
    pub request: Result<Request, String>,
}

/// Writes a delete down. The same attachment's delete replaces the earlier one.
///
/// # Errors
/// Any of the file system's; then nothing was written.
pub fn write(directory: &Path, request: &Request) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let name = name_of(&request.container_id, &request.ifname)?;
    let path = directory.join(format!("{name}.{ENDING}"));
    let half = directory.join(format!(".{name}.{}.half", std::process::id()));
    let written = write_whole(&half, request).and_then(|()| fs::rename(&half, &path));
    if let Err(error) = written {
        // The error matters, not whether the remains could be removed.
        let _ = fs::remove_file(&half);
        return Err(error);
    }
    File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Drops the delete of an attachment, if there is one: the attachment is made anew.
///
/// # Errors
/// Any of the file system's but that there is none.
pub fn discard(directory: &Path, container_id: &str, ifname: &str) -> io::Result<()> {
    let name = name_of(container_id, ifname)?;
    absent_is_fine(fs::remove_file(directory.join(format!("{name}.{ENDING}"))))
}

/// Container and interface were checked to hold no separator; a request that did not come through
/// the plugin may not have been.
fn name_of(container_id: &str, ifname: &str) -> io::Result<String> {
    let name = format!("{container_id}@{ifname}");
    if name.contains('/') || name.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "container ID or interface holds a path separator",
        ));
    }
    Ok(name)
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_whole(path: &Path, request: &Request) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&serde_json::to_vec(request)?)?;
    file.sync_all()
}

/// The deletes that wait, in the order of their names. A directory that is not there holds none.
///
/// # Errors
/// If the directory cannot be read; a file that cannot be read is an entry with an error.
pub fn read(directory: &Path) -> io::Result<Vec<Entry>> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut entries = Vec::new();
    for file in listing {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            let request = read_entry(&path).map_err(|error| error.to_string());
            entries.push(Entry { path, request });
        }
    }
    entries.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(entries)
}

fn read_entry(path: &Path) -> io::Result<Request> {
    let mut text = Vec::new();
    File::open(path)?.take(MAX_ENTRY).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Removes an entry that was caught up with.
///
/// # Errors
/// Any of the file system's but that the file is gone.
pub fn remove(entry: &Entry) -> io::Result<()> {
    absent_is_fine(fs::remove_file(&entry.path))
}

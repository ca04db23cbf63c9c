//! The redb file: one table of records, one of counters. A batch of writes is one durable transaction.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::record::{Key, Record};
use super::state::Batch;

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const VERSION: &str = "resourceVersion";
/// Counts up when the layout of this file changes; a store refuses files newer than itself.
const LAYOUT: &str = "layout";
const LAYOUT_NOW: u64 = 1;
/// Objects live in memory anyway: the page cache only serves the writer.
const CACHE_BYTES: usize = 16 << 20;

/// Why the database file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process holds the lock.
    #[error(
        "{0}: the store is already open in another process; stop it first, or choose another --data directory"
    )]
    InUse(PathBuf),
    /// The file was written by a newer version.
    #[error(
        "{path}: the store has layout {found}, this version knows up to {LAYOUT_NOW}; use the newer version"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout number.
        found: u64,
    },
    /// A record that cannot be read back.
    #[error("the stored object {key:?} is damaged: {error}")]
    Damaged {
        /// The record's key.
        key: String,
        /// What the decoder says.
        error: String,
    },
    /// The file or disk failed.
    #[error("{path}: {error}")]
    Redb {
        /// The file.
        path: PathBuf,
        /// What the database says.
        #[source]
        error: Box<redb::Error>,
    },
    /// The writer thread could not be started.
    #[error("cannot start the writer thread: {0}")]
    Thread(std::io::Error),
}

/// The open file.
#[derive(Debug)]
pub struct Disk {
    database: Database,
    path: PathBuf,
}

impl Disk {
    /// Opens or creates the file and locks it against other processes.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => DiskError::InUse(path.to_owned()),
                other => DiskError::Redb {
                    path: path.to_owned(),
                    error: Box::new(other.into()),
                },
            })?;
        let disk = Self {
            database,
            path: path.to_owned(),
        };
        disk.prepare()?;
        Ok(disk)
    }

    fn failed(&self, error: impl Into<redb::Error>) -> DiskError {
        DiskError::Redb {
            path: self.path.clone(),
            error: Box::new(error.into()),
        }
    }

    fn prepare(&self) -> Result<(), DiskError> {
        let transaction = self.database.begin_write().map_err(|e| self.failed(e))?;
        {
            transaction
                .open_table(OBJECTS)
                .map_err(|e| self.failed(e))?;
            let mut counters = transaction
                .open_table(COUNTERS)
                .map_err(|e| self.failed(e))?;
            let found = counters
                .get(LAYOUT)
                .map_err(|e| self.failed(e))?
                .map(|found| found.value());
            match found {
                Some(found) if found > LAYOUT_NOW => {
                    return Err(DiskError::Newer {
                        path: self.path.clone(),
                        found,
                    });
                }
                Some(_) => {}
                None => {
                    counters
                        .insert(LAYOUT, LAYOUT_NOW)
                        .map_err(|e| self.failed(e))?;
                    counters.insert(VERSION, 1).map_err(|e| self.failed(e))?;
                }
            }
        }
        transaction.commit().map_err(|e| self.failed(e))
    }

    /// The last version and all records.
    ///
    /// # Errors
    /// See [`DiskError`].
    pub fn load(&self) -> Result<(u64, Vec<(Key, Record)>), DiskError> {
        let transaction = self.database.begin_read().map_err(|e| self.failed(e))?;
        let counters = transaction
            .open_table(COUNTERS)
            .map_err(|e| self.failed(e))?;
        let version = counters
            .get(VERSION)
            .map_err(|e| self.failed(e))?
            .map_or(1, |found| found.value());
        let objects = transaction
            .open_table(OBJECTS)
            .map_err(|e| self.failed(e))?;
        let mut records = Vec::new();
        for entry in objects.iter().map_err(|e| self.failed(e))? {
            let (key, bytes) = entry.map_err(|e| self.failed(e))?;
            let damaged = |error: String| DiskError::Damaged {
                key: key.value().to_owned(),
                error,
            };
            let decoded =
                Key::decode(key.value()).ok_or_else(|| damaged("unreadable key".into()))?;
            let mut record: Record = serde_json::from_slice(bytes.value())
                .map_err(|error| damaged(error.to_string()))?;
            record.size = bytes.value().len();
            records.push((decoded, record));
        }
        Ok((version, records))
    }

    /// Writes a batch; returns once it is on the disk.
    ///
    /// # Errors
    /// See [`DiskError`]; then nothing of the batch is in the file.
    pub(super) fn commit(&self, batch: &Batch, version: u64) -> Result<(), DiskError> {
        // redb's default durability is an fsync before commit returns.
        let transaction = self.database.begin_write().map_err(|e| self.failed(e))?;
        {
            let mut objects = transaction
                .open_table(OBJECTS)
                .map_err(|e| self.failed(e))?;
            for (settled, bytes) in batch.events.iter().zip(&batch.encoded) {
                let key = settled.key.encode();
                match bytes {
                    Some(bytes) => objects.insert(key.as_str(), bytes.as_slice()).map(drop),
                    None => objects.remove(key.as_str()).map(drop),
                }
                .map_err(|e| self.failed(e))?;
            }
            let mut counters = transaction
                .open_table(COUNTERS)
                .map_err(|e| self.failed(e))?;
            counters
                .insert(VERSION, version)
                .map_err(|e| self.failed(e))?;
        }
        transaction.commit().map_err(|e| self.failed(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.redb");
        let _first = Disk::open(&path).unwrap();
        let error = Disk::open(&path).unwrap_err();
        assert!(matches!(error, DiskError::InUse(_)), "{error}");
        assert!(error.to_string().contains("already open"));
    }
}

//! The field `install`: `true`, `false`, or where to.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::FileError;

/// The kernel's main table.
const MAIN_TABLE: u32 = 254;
/// The kernel's own table of local addresses.
const LOCAL_TABLE: u32 = 255;

/// Whether and where best routes go into the kernel. In the file `true`, `false`, or the fields of
/// [`InstallTable`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InstallEntry(pub Option<InstallTable>);

/// Where best routes go in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstallTable {
    /// The routing table's number, neither 0 nor 255; left out: 254, which is table main.
    #[serde(default = "main_table")]
    pub table: u32,
    /// The metric of the routes; left out: the kernel's, 0 for IPv4 and 1024 for IPv6.
    #[serde(default)]
    pub metric: Option<u32>,
}

impl Default for InstallTable {
    fn default() -> Self {
        Self {
            table: MAIN_TABLE,
            metric: None,
        }
    }
}

impl InstallEntry {
    /// Where routes go, if they do.
    ///
    /// # Errors
    /// A table that cannot be.
    pub fn target(&self) -> Result<Option<InstallTable>, FileError> {
        match self.0 {
            Some(InstallTable {
                table: table @ (0 | LOCAL_TABLE),
                ..
            }) => Err(FileError::InstallTable { table }),
            other => Ok(other),
        }
    }
}

impl Serialize for InstallEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => serializer.serialize_bool(false),
            Some(table) => table.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for InstallEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = InstallEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false, or {table: NUMBER, metric: NUMBER}")
            }

            fn visit_bool<E>(self, value: bool) -> Result<InstallEntry, E> {
                Ok(InstallEntry(value.then(InstallTable::default)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<InstallEntry, A::Error> {
                let table = InstallTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(InstallEntry(Some(table)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

const fn main_table() -> u32 {
    MAIN_TABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Result<InstallEntry, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn install_is_a_word_or_a_place() {
        assert_eq!(entry("false"), Ok(InstallEntry(None)));
        let main = InstallTable::default();
        assert_eq!(entry("true"), Ok(InstallEntry(Some(main))));
        let there = InstallTable {
            table: 1000,
            metric: Some(32),
        };
        assert_eq!(
            entry("{table: 1000, metric: 32}"),
            Ok(InstallEntry(Some(there)))
        );
        assert_eq!(entry("{}"), Ok(InstallEntry(Some(main))));
        let wrong = entry("yes please").unwrap_err();
        assert!(wrong.contains("{table: NUMBER, metric: NUMBER}"), "{wrong}");
        assert!(entry("{tabel: 3}").unwrap_err().contains("tabel"));
    }

    #[test]
    fn the_kernels_own_tables_are_refused() {
        let error = entry("{table: 255}").unwrap().target().unwrap_err();
        assert!(
            error.to_string().starts_with("install.table: 255"),
            "{error}"
        );
    }
}

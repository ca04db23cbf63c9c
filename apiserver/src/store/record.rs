//! What the database holds: keys, records, and the events they turn into.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::object::{child, root};

/// The place of an object: resource (`plural.group`, or just `plural` in the core group), namespace (empty when
/// cluster-scoped) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// `plural.group`.
    pub resource: String,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name.
    pub name: String,
}

impl Key {
    /// A key from its three parts.
    pub fn new(resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The key as it is ordered on disk. None of the parts can hold a `/`.
    pub(crate) fn encode(&self) -> String {
        format!("{}/{}/{}", self.resource, self.namespace, self.name)
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        Some(Self::new(parts.next()?, parts.next()?, parts.next()?))
    }
}

/// A stored object and what the store remembers beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The resourceVersion of the last write.
    #[serde(rename = "v")]
    pub version: u64,
    /// The object, `metadata.resourceVersion` included.
    #[serde(rename = "o")]
    pub object: Value,
    /// What each field manager applied last (server-side apply).
    #[serde(rename = "a", default, skip_serializing_if = "Map::is_empty")]
    pub applied: Map<String, Value>,
    /// Serialized size in bytes, for the limits.
    #[serde(skip)]
    pub size: usize,
}

impl Record {
    /// A record that has not been written yet.
    pub fn new(object: Value, applied: Map<String, Value>) -> Self {
        Self {
            version: 0,
            object,
            applied,
            size: 0,
        }
    }

    /// Stamps `version` into the record and its object.
    pub(crate) fn stamp(&mut self, version: u64) {
        self.version = version;
        child(root(&mut self.object), "metadata")
            .insert("resourceVersion".into(), json!(version.to_string()));
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Event {
    /// The resourceVersion the change got.
    pub version: u64,
    /// The object before; `None` for a creation.
    pub old: Option<Arc<Record>>,
    /// The object after; for a deletion its last state, with the deletion's version.
    pub new: Arc<Record>,
    /// Whether the object is gone.
    pub deleted: bool,
}

//! The verbs of the API without HTTP: create, get, list, update, patch, delete, each with Kubernetes' semantics.
//!
//! A write is computed from the stored object by pure functions and committed by compare-and-swap; when somebody else was faster
//! it is computed anew, unless the client named the version it wants to change.

mod change;
mod create;
mod delete;
mod listing;
mod patching;
mod reaper;
mod validator;
pub mod watching;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Notify;

pub use self::delete::{DeleteOptions, Deleted, success};
pub use self::listing::{ListPage, ListQuery, Selectors};
pub use self::patching::Patch;
pub(crate) use self::reaper::reap;
pub use self::validator::{GroupVersionKind, Validator};
use crate::error::{ApiError, FieldError};
use crate::object::{self, meta};
use crate::registry::{CRDS, Registry, Resource};
use crate::store::{Key, Record, Store, WriteError};

/// How often a write is computed anew before the client is told of the conflict.
const ATTEMPTS: usize = 32;

/// What to do about fields nobody knows (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so in a `Warning` header; the default.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// Options of a write request.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Compute the result, store nothing.
    pub dry_run: bool,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// The field manager, for server-side apply.
    pub manager: String,
}

/// Which part of an object a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The object without its status (all of it, where there is no status subresource).
    Main,
    /// Only the status.
    Status,
}

/// The answer to a write.
#[derive(Debug)]
pub struct Written {
    /// The object in served form.
    pub object: Value,
    /// Whether it is new.
    pub created: bool,
    /// Sentences for `Warning` headers.
    pub warnings: Vec<String>,
}

/// An object's name within its resource.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Namespace; empty for cluster-scoped resources.
    pub namespace: &'a str,
    /// Object name.
    pub name: &'a str,
}

/// All verbs over one store.
pub struct Service {
    store: Store,
    registry: RwLock<Arc<Registry>>,
    rebuilding: Mutex<()>,
    validators: Vec<Box<dyn Validator>>,
    /// Told whenever something may have become deletable.
    reaping: Notify,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Service {
    /// The verbs over `store`; `validators` see every write after the built-in checks.
    pub fn new(store: Store, validators: Vec<Box<dyn Validator>>) -> Self {
        Self {
            store,
            registry: RwLock::new(Arc::new(Registry::build(std::iter::empty(), 0))),
            rebuilding: Mutex::new(()),
            validators,
            reaping: Notify::new(),
        }
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The resources served right now; made anew when a CRD changed.
    pub fn registry(&self) -> Arc<Registry> {
        let current = || Arc::clone(&self.registry.read().unwrap_or_else(PoisonError::into_inner));
        if current().made_from == self.store.changed(CRDS) {
            return current();
        }
        // One rebuild at a time: a burst of requests after a CRD write must not compile every schema each.
        let _turn = self
            .rebuilding
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let changed = self.store.changed(CRDS);
        if current().made_from == changed {
            return current();
        }
        let page = self.store.list(CRDS, None, None);
        let rebuilt = Arc::new(Registry::build(
            page.records.iter().map(|record| &record.object),
            changed,
        ));
        *self
            .registry
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&rebuilt);
        rebuilt
    }

    /// One object.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, resource: &Resource, place: Place<'_>) -> Result<Value, ApiError> {
        let record = self.read(resource, place)?;
        Ok(resource.serve(&record.object))
    }

    fn read(&self, resource: &Resource, place: Place<'_>) -> Result<Arc<Record>, ApiError> {
        self.store
            .get(&key(resource, place))
            .ok_or_else(|| ApiError::not_found(&resource.subject(place.name)))
    }

    /// All checks of an object about to be written, in stored form.
    fn check(
        &self,
        resource: &Resource,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let mut errors = meta::check(object);
        errors.extend(resource.validate(object, old));
        if errors.is_empty() && !self.validators.is_empty() {
            let kind = GroupVersionKind {
                group: resource.group.clone(),
                version: resource.version.clone(),
                kind: resource.kind.clone(),
            };
            let (new, old) = (resource.serve(object), old.map(|old| resource.serve(old)));
            let validators = self.validators.iter();
            errors.extend(validators.flat_map(|one| one.validate(&kind, &new, old.as_ref())));
            let others = || {
                let page = self.store.list(&resource.shelf, None, None);
                let all = page.records.iter();
                all.map(|record| resource.serve(&record.object)).collect()
            };
            if errors.is_empty() {
                let validators = self.validators.iter();
                errors.extend(validators.flat_map(|one| one.validate_beside(&kind, &new, &others)));
            }
        }
        refuse(resource, object::name(object), &errors)
    }
}

fn refuse(resource: &Resource, name: &str, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(&resource.subject(name), errors))
    }
}

fn key(resource: &Resource, place: Place<'_>) -> Key {
    Key::new(&resource.shelf, place.namespace, place.name)
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// A write error nobody expected, as an answer.
fn failed(error: &WriteError) -> ApiError {
    match error {
        WriteError::Closed => ApiError::unavailable(),
        WriteError::TooLarge(_) | WriteError::Full(_) => ApiError::no_room(error),
        other => ApiError::internal(other),
    }
}

/// Turns the list of unknown fields into warnings or a refusal.
fn unknown_fields(
    resource: &Resource,
    unknown: &[String],
    wanted: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let told: Vec<String> = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""))
        .collect();
    match wanted {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(told),
        FieldValidation::Strict if told.is_empty() => Ok(told),
        FieldValidation::Strict => Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            told.join(", "),
            kind = resource.kind,
            version = resource.version,
        ))),
    }
}

/// Whether the body names the kind the URL is about.
fn check_kind(resource: &Resource, body: &Value) -> Result<(), ApiError> {
    if !body.is_object() {
        return Err(ApiError::bad_request("the body must be one object"));
    }
    let (kind, version) = (
        object::text(body, &["kind"]),
        object::text(body, &["apiVersion"]),
    );
    let fits = (kind.is_empty() || kind == resource.kind)
        && (version.is_empty() || version == resource.api_version());
    if fits {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "the object in the body ({version}, Kind={kind}) is not what the URL is about ({}, Kind={})",
        resource.api_version(),
        resource.kind
    )))
}

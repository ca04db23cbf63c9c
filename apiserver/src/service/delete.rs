//! Deleting objects: preconditions, finalizers, whole collections.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ATTEMPTS, ListQuery, Place, Service, failed, key, now};
use crate::error::ApiError;
use crate::object::{self, is_terminating, meta};
use crate::registry::{NAMESPACES, Resource};
use crate::store::{Expect, Key, Record, Write, WriteError};

/// The options of a deletion that matter here. Grace periods and propagation policies are accepted and have no effect: nothing
/// runs the pods, and owner references are not followed.
#[derive(Debug, Clone, Default)]
pub struct DeleteOptions {
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object has this resourceVersion.
    pub resource_version: Option<String>,
    /// Compute the answer, delete nothing.
    pub dry_run: bool,
}

impl DeleteOptions {
    /// Reads a `DeleteOptions` body.
    pub fn from_body(body: &Value) -> Self {
        let precondition = |field| {
            object::at(body, &["preconditions", field])
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let dry_run = object::at(body, &["dryRun"])
            .and_then(Value::as_array)
            .is_some_and(|all| !all.is_empty());
        Self {
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
            dry_run,
        }
    }
}

/// What became of a deletion.
#[derive(Debug)]
pub enum Deleted {
    /// The object is gone; its last state in served form.
    Gone(Value),
    /// The object waits for its finalizers.
    Waiting(Value),
}

/// Namespaces the store keeps.
const IMMORTAL: [&str; 2] = ["default", "kube-system"];

impl Service {
    /// Deletes one object.
    ///
    /// # Errors
    /// 403 (the namespaces `default` and `kube-system`), 404, 409 when a precondition does not hold.
    pub async fn delete(
        &self,
        resource: &Resource,
        place: Place<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, ApiError> {
        let subject = || resource.subject(place.name);
        if resource.shelf == NAMESPACES && IMMORTAL.contains(&place.name) {
            return Err(ApiError::forbidden(
                &subject(),
                "this namespace may not be deleted",
            ));
        }
        for _ in 0..ATTEMPTS {
            let record = self.read(resource, place)?;
            check(resource, place, &record, options)?;
            let waits = waits(&resource.shelf, &record.object);
            if options.dry_run || (waits && is_terminating(&record.object)) {
                let object = resource.serve(&record.object);
                return Ok(if waits {
                    Deleted::Waiting(object)
                } else {
                    Deleted::Gone(object)
                });
            }
            match self
                .delete_stored(resource, key(resource, place), &record)
                .await
            {
                Ok(stored) => {
                    let object = resource.serve(&stored.object);
                    return Ok(if waits {
                        Deleted::Waiting(object)
                    } else {
                        Deleted::Gone(object)
                    });
                }
                Err(WriteError::Stale(_)) if options.resource_version.is_some() => {
                    return Err(ApiError::stale(&subject()));
                }
                Err(WriteError::Stale(_)) => {}
                Err(WriteError::Missing) => return Err(ApiError::not_found(&subject())),
                Err(error) => return Err(failed(&error)),
            }
        }
        Err(ApiError::stale(&subject()))
    }

    /// Removes a record, or marks it when something has to happen first.
    pub(super) async fn delete_stored(
        &self,
        resource: &Resource,
        key: Key,
        record: &Record,
    ) -> Result<Arc<Record>, WriteError> {
        let put = waits(&key.resource, &record.object).then(|| {
            let mut object = record.object.clone();
            let now = now();
            meta::mark_deleted(&mut object, now);
            // Phases and conditions of namespaces and CRDs follow from being deleted.
            if resource.is_builtin() {
                resource.prepare(&mut object, Some(&record.object), now);
            }
            Record::new(object, record.applied.clone())
        });
        let write = Write {
            key,
            expect: Expect::Version(record.version),
            put,
            requires: Vec::new(),
        };
        let stored = self.store.write(write).await?;
        self.reaping.notify_one();
        Ok(stored)
    }

    /// Deletes every object a query selects; answers them in served form.
    ///
    /// # Errors
    /// The first deletion that fails for another reason than that somebody else was faster.
    pub async fn delete_collection(
        &self,
        resource: &Resource,
        query: &ListQuery,
        options: &DeleteOptions,
    ) -> Result<Vec<Value>, ApiError> {
        let mut deleted = Vec::new();
        for object in self.list(resource, query)?.objects {
            let place = Place {
                namespace: object::namespace(&object),
                name: object::name(&object),
            };
            match self.delete(resource, place, options).await {
                Ok(Deleted::Gone(object) | Deleted::Waiting(object)) => deleted.push(object),
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

/// Whether a deletion of this object has to wait for somebody.
fn waits(shelf: &str, object: &Value) -> bool {
    shelf == NAMESPACES || !object::finalizers(object).is_empty()
}

fn check(
    resource: &Resource,
    place: Place<'_>,
    record: &Record,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let actual = object::text(&record.object, &["metadata", "uid"]);
    if let Some(wanted) = options.uid.as_deref().filter(|wanted| *wanted != actual) {
        let message = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}"
        );
        return Err(ApiError::conflict(&resource.subject(place.name), &message));
    }
    let actual = record.version.to_string();
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != actual)
    {
        let message = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {actual}"
        );
        return Err(ApiError::conflict(&resource.subject(place.name), &message));
    }
    Ok(())
}

/// The `Status` Kubernetes answers a finished deletion with.
pub fn success(resource: &Resource, object: &Value) -> Value {
    let mut details = json!({"name": object::name(object), "kind": resource.plural, "uid": object::text(object, &["metadata", "uid"])});
    if let (false, Value::Object(details)) = (resource.group.is_empty(), &mut details) {
        details.insert("group".into(), json!(resource.group));
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

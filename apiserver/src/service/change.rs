//! Replacing objects, and the compare-and-swap loop all changes go through.

use serde_json::{Map, Value, json};

use super::create::undecodable;
use super::{
    ATTEMPTS, Part, Place, Service, WriteOptions, Written, check_kind, failed, key, now, refuse,
    unknown_fields,
};
use crate::error::{ApiError, FieldError};
use crate::object::{self, child, is_terminating, meta, root};
use crate::registry::{NAMESPACES, Resource};
use crate::store::{Expect, Record, Write, WriteError};

/// What a change makes of an object.
pub(super) struct Changed {
    /// The object in served form, as the client wants it.
    pub(super) object: Value,
    /// What the field managers applied.
    pub(super) applied: Map<String, Value>,
}

impl Service {
    /// Replaces an object, or its status.
    ///
    /// # Errors
    /// 400, 404, 409 `Conflict`, 422.
    pub async fn update(
        &self,
        resource: &Resource,
        place: Place<'_>,
        part: Part,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        check_kind(resource, &body)?;
        check_place(resource, place, &body)?;
        if !resource.is_builtin()
            && object::text(&body, &["metadata", "resourceVersion"]).is_empty()
        {
            let error = FieldError::invalid(
                "metadata.resourceVersion",
                json!(0),
                "must be specified for an update",
            );
            return Err(ApiError::invalid(&resource.subject(place.name), &[error]));
        }
        self.change(resource, place, part, options, |record| {
            Ok(Changed {
                object: body.clone(),
                applied: record.applied.clone(),
            })
        })
        .await
    }

    /// Computes a change from the stored object and commits it, anew as long as others are faster and the client did not name
    /// a version.
    pub(super) async fn change(
        &self,
        resource: &Resource,
        place: Place<'_>,
        part: Part,
        options: &WriteOptions,
        compute: impl Fn(&Record) -> Result<Changed, ApiError>,
    ) -> Result<Written, ApiError> {
        for _ in 0..ATTEMPTS {
            let record = self.read(resource, place)?;
            let changed = compute(&record)?;
            check_preconditions(resource, &record, &changed.object)?;
            let pinned = pins_version(&changed.object, &record);
            let decoded = resource
                .decode(changed.object)
                .map_err(|problem| undecodable(resource, &problem))?;
            let warnings = unknown_fields(resource, &decoded.unknown, options.field_validation)?;
            let object = self.successor(resource, &record.object, decoded.object, part)?;
            if options.dry_run || (object == record.object && changed.applied == record.applied) {
                return Ok(Written {
                    object: resource.serve(&object),
                    created: false,
                    warnings,
                });
            }
            let put = (!finished(resource, &object))
                .then(|| Record::new(object.clone(), changed.applied));
            let gone = put.is_none();
            let write = Write {
                key: key(resource, place),
                expect: Expect::Version(record.version),
                put,
                requires: Vec::new(),
            };
            match self.store.write(write).await {
                Ok(stored) => {
                    if gone || is_terminating(&stored.object) {
                        self.reaping.notify_one();
                    }
                    let shown = if gone { &object } else { &stored.object };
                    return Ok(Written {
                        object: resource.serve(shown),
                        created: false,
                        warnings,
                    });
                }
                Err(WriteError::Stale(_)) if pinned => {
                    return Err(ApiError::stale(&resource.subject(place.name)));
                }
                Err(WriteError::Stale(_)) => {}
                Err(WriteError::Missing) => {
                    return Err(ApiError::not_found(&resource.subject(place.name)));
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        Err(ApiError::stale(&resource.subject(place.name)))
    }

    /// The object that follows `old` when a client wants `wanted`; both in stored form.
    fn successor(
        &self,
        resource: &Resource,
        old: &Value,
        wanted: Value,
        part: Part,
    ) -> Result<Value, ApiError> {
        refuse(
            resource,
            object::name(old),
            &meta::check_update(&wanted, old),
        )?;
        let mut new = wanted;
        if part == Part::Status {
            let status = root(&mut new).remove("status");
            new = old.clone();
            put_status(&mut new, status);
        } else if resource.status {
            put_status(&mut new, old.get("status").cloned());
        }
        meta::prepare_update(&mut new, old, false);
        resource.prepare(&mut new, Some(old), now());
        if part == Part::Main && !meta::same_spec(&new, old) {
            let generation = object::at(old, &["metadata", "generation"])
                .and_then(Value::as_i64)
                .unwrap_or(0);
            child(root(&mut new), "metadata")
                .insert("generation".into(), json!(generation.saturating_add(1)));
        }
        self.check(resource, &new, Some(old))?;
        Ok(new)
    }
}

fn put_status(object: &mut Value, status: Option<Value>) {
    match status {
        Some(status) => root(object).insert("status".into(), status),
        None => root(object).remove("status"),
    };
}

/// Whether a deletion that was waiting is complete. Namespaces wait for their content, which the reaper looks after.
pub(super) fn finished(resource: &Resource, object: &Value) -> bool {
    is_terminating(object) && object::finalizers(object).is_empty() && resource.shelf != NAMESPACES
}

/// Whether the client said which version it means to change. A patch computed from the stored object carries that object's
/// version without meaning it, so callers strip it there.
fn pins_version(wanted: &Value, record: &Record) -> bool {
    object::text(wanted, &["metadata", "resourceVersion"]) == record.version.to_string()
}

fn check_preconditions(
    resource: &Resource,
    record: &Record,
    wanted: &Value,
) -> Result<(), ApiError> {
    let subject = || resource.subject(object::name(&record.object));
    let version = object::text(wanted, &["metadata", "resourceVersion"]);
    if !version.is_empty() && version != "0" && version != record.version.to_string() {
        return Err(ApiError::stale(&subject()));
    }
    let (wanted, actual) = (
        object::text(wanted, &["metadata", "uid"]),
        object::text(&record.object, &["metadata", "uid"]),
    );
    if !wanted.is_empty() && wanted != actual {
        let message = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}"
        );
        return Err(ApiError::conflict(&subject(), &message));
    }
    Ok(())
}

/// Whether name and namespace in the body are those of the URL.
fn check_place(resource: &Resource, place: Place<'_>, body: &Value) -> Result<(), ApiError> {
    let (name, namespace) = (object::name(body), object::namespace(body));
    if name != place.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            place.name
        )));
    }
    if resource.namespaced && !namespace.is_empty() && namespace != place.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the URL ({})",
            place.namespace
        )));
    }
    Ok(())
}

//! Patching objects in any of the four ways, server-side apply included.

use serde_json::{Map, Value, json};

use super::change::Changed;
use super::{Part, Place, Service, WriteOptions, Written, check_kind};
use crate::error::{ApiError, FieldError};
use crate::object::patch::{PatchError, apply, json_merge, json_patch, strategic};
use crate::object::{self, child, root};
use crate::registry::Resource;
use crate::store::Record;

/// A patch as it came in.
#[derive(Debug, Clone)]
pub enum Patch {
    /// `application/merge-patch+json`
    Merge(Value),
    /// `application/json-patch+json`
    Json(Value),
    /// `application/strategic-merge-patch+json`
    Strategic(Value),
    /// `application/apply-patch+yaml`
    Apply(Value),
}

impl Service {
    /// Patches an object or its status; an apply patch creates what is absent.
    ///
    /// # Errors
    /// 400, 404, 409, 415 (strategic merge patch on a custom resource), 422.
    pub async fn patch(
        &self,
        resource: &Resource,
        place: Place<'_>,
        part: Part,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        match patch {
            Patch::Apply(body) => self.apply(resource, place, part, body, options).await,
            Patch::Strategic(_) if !resource.is_builtin() => Err(ApiError::unsupported_media(
                "application/strategic-merge-patch+json",
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
            patch => {
                self.change(resource, place, part, options, |record| {
                    let object = patched(resource, record, &patch)?;
                    Ok(Changed {
                        object,
                        applied: record.applied.clone(),
                    })
                })
                .await
            }
        }
    }

    async fn apply(
        &self,
        resource: &Resource,
        place: Place<'_>,
        part: Part,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        check_kind(resource, &body)?;
        if options.manager.is_empty() {
            let error = FieldError::required("fieldManager", "is required for apply patch");
            return Err(ApiError::invalid(&resource.subject(place.name), &[error]));
        }
        if object::at(&body, &["metadata", "managedFields"]).is_some_and(|fields| !fields.is_null())
        {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        let manager = match part {
            Part::Main => options.manager.clone(),
            Part::Status => format!("{}/status", options.manager),
        };
        let config = remembered(&body);
        loop {
            let changed = self
                .change(resource, place, part, options, |record| {
                    Ok(applied(resource, record, &manager, &config, &body))
                })
                .await;
            match changed {
                Err(error) if error.code == 404 && part == Part::Main => {}
                other => return other,
            }
            if !object::text(&body, &["metadata", "uid"]).is_empty() {
                return Err(ApiError::conflict(
                    &resource.subject(place.name),
                    "uid mismatch: the object does not exist",
                ));
            }
            let mut object = body.clone();
            child(root(&mut object), "metadata").remove("resourceVersion");
            let all = Map::from_iter([(manager.clone(), config.clone())]);
            match self
                .create_named(resource, place, object, all, options)
                .await
            {
                // Somebody else created it between the two looks: then there is something to merge with.
                Err(error) if error.reason == "AlreadyExists" => {}
                other => return other,
            }
        }
    }
}

/// The part of an applied configuration a manager owns.
fn remembered(body: &Value) -> Value {
    let mut config = body.clone();
    let map = root(&mut config);
    map.remove("apiVersion");
    map.remove("kind");
    let meta = child(map, "metadata");
    for field in [
        "name",
        "namespace",
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "managedFields",
    ] {
        meta.remove(field);
    }
    config
}

fn applied(
    resource: &Resource,
    record: &Record,
    manager: &str,
    config: &Value,
    body: &Value,
) -> Changed {
    let mut object = resource.serve(&record.object);
    let others: Vec<&Value> = record
        .applied
        .iter()
        .filter(|(name, _)| *name != manager)
        .map(|(_, value)| value)
        .collect();
    apply::apply(
        &mut object,
        record.applied.get(manager),
        config,
        &others,
        resource.list_rules(),
    );
    let meta = child(root(&mut object), "metadata");
    for field in ["resourceVersion", "uid"] {
        match object::at(body, &["metadata", field]) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
    let mut all = record.applied.clone();
    all.insert(manager.to_owned(), config.clone());
    Changed {
        object,
        applied: all,
    }
}

fn patched(resource: &Resource, record: &Record, patch: &Patch) -> Result<Value, ApiError> {
    let mut object = resource.serve(&record.object);
    // The version the patch starts from is not a precondition; one the patch itself sets is.
    let meta = child(root(&mut object), "metadata");
    let version = meta.remove("resourceVersion");
    let result = match patch {
        Patch::Merge(patch) if patch.is_object() => {
            json_merge::merge(&mut object, patch);
            Ok(())
        }
        Patch::Strategic(patch) if patch.is_object() => {
            strategic::merge(&mut object, patch, resource.list_rules())
        }
        Patch::Json(patch) => {
            // `test` operations on the version are the way JSON patches ask for a precondition.
            if let Some(version) = version.clone() {
                child(root(&mut object), "metadata").insert("resourceVersion".into(), version);
            }
            let result = json_patch::apply(&mut object, patch);
            let names_version = patch.as_array().into_iter().flatten().any(|operation| {
                operation.get("path") == Some(&json!("/metadata/resourceVersion"))
            });
            if !names_version && object.get("metadata").is_some_and(Value::is_object) {
                child(root(&mut object), "metadata").remove("resourceVersion");
            }
            result
        }
        _ => Err(PatchError::Malformed("the patch must be one object".into())),
    };
    result.map_err(|error| match error {
        PatchError::Malformed(text) => ApiError::bad_request(text),
        PatchError::DoesNotApply(text) => {
            let error = FieldError::invalid("patch", json!("patch"), text);
            ApiError::invalid(&resource.subject(object::name(&record.object)), &[error])
        }
    })?;
    if !object.is_object() {
        return Err(ApiError::bad_request("the patch does not leave an object"));
    }
    Ok(object)
}

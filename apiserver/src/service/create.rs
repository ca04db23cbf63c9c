//! Creating objects.

use serde_json::{Map, Value};

use super::{
    Place, Service, WriteOptions, Written, check_kind, failed, key, now, refuse, unknown_fields,
};
use crate::error::{ApiError, FieldError, Subject};
use crate::object::{self, entropy, is_terminating, meta, root};
use crate::registry::{CRDS, NAMESPACES, Resource};
use crate::store::{Expect, Key, Record, Write, WriteError};

/// The longest prefix of a generated name, so that prefix and suffix fit a label.
const LONGEST_PREFIX: usize = 58;
/// Tries for a generated name that is free.
const NAME_ATTEMPTS: usize = 8;

impl Service {
    /// Creates `body` in `namespace` (empty for cluster-scoped resources).
    ///
    /// # Errors
    /// 400, 403, 404 (namespace), 409 `AlreadyExists`, 422.
    pub async fn create(
        &self,
        resource: &Resource,
        namespace: &str,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        check_kind(resource, &body)?;
        let version = object::text(&body, &["metadata", "resourceVersion"]);
        if !version.is_empty() && version != "0" {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let given = object::namespace(&body);
        if resource.namespaced && !given.is_empty() && given != namespace {
            return Err(ApiError::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if !resource.namespaced && !given.is_empty() {
            return Err(ApiError::bad_request(format!(
                "{} is not namespaced, but the object has a namespace",
                resource.plural
            )));
        }
        let prefix = object::text(&body, &["metadata", "generateName"]).to_owned();
        let fixed = object::name(&body).to_owned();
        if !fixed.is_empty() || prefix.is_empty() {
            return self
                .create_named(
                    resource,
                    Place {
                        namespace,
                        name: &fixed,
                    },
                    body,
                    Map::new(),
                    options,
                )
                .await;
        }
        let cut = prefix
            .char_indices()
            .nth(LONGEST_PREFIX)
            .map_or(prefix.len(), |(at, _)| at);
        let prefix = prefix.get(..cut).unwrap_or_default();
        let mut last = ApiError::internal("no name could be generated");
        for _ in 0..NAME_ATTEMPTS {
            let name = format!(
                "{prefix}{}",
                entropy::suffix(entropy::bytes().map_err(ApiError::internal)?)
            );
            match self
                .create_named(
                    resource,
                    Place {
                        namespace,
                        name: &name,
                    },
                    body.clone(),
                    Map::new(),
                    options,
                )
                .await
            {
                Err(error) if error.reason == "AlreadyExists" => last = error,
                other => return other,
            }
        }
        Err(last)
    }

    /// Creates `body` under a name that is decided.
    pub(super) async fn create_named(
        &self,
        resource: &Resource,
        place: Place<'_>,
        body: Value,
        applied: Map<String, Value>,
        options: &WriteOptions,
    ) -> Result<Written, ApiError> {
        let Place { namespace, name } = place;
        if name.is_empty() {
            let error = FieldError::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(&resource.subject(""), &[error]));
        }
        if let Some(problem) = resource.name_rule().check(name) {
            let error = FieldError::invalid("metadata.name", Value::from(name), problem);
            return Err(ApiError::invalid(&resource.subject(name), &[error]));
        }
        let decoded = resource
            .decode(body)
            .map_err(|problem| undecodable(resource, &problem))?;
        let warnings = unknown_fields(resource, &decoded.unknown, options.field_validation)?;
        let mut object = decoded.object;
        // Kubelets register nodes with their status; for every other kind the status has its own door.
        if resource.status && !(resource.is_builtin() && resource.plural == "nodes") {
            root(&mut object).remove("status");
        }
        let uid = entropy::uuid(entropy::bytes().map_err(ApiError::internal)?);
        let now = now();
        meta::prepare_create(&mut object, name, namespace, uid, now);
        resource.prepare(&mut object, None, now);
        let requires = self.requirements(resource, namespace)?;
        self.check(resource, &object, None)?;
        let exists = || ApiError::already_exists(&resource.subject(name));
        if options.dry_run {
            return match self.store.get(&key(resource, place)) {
                Some(_) => Err(exists()),
                None => Ok(Written {
                    object: resource.serve(&object),
                    created: true,
                    warnings,
                }),
            };
        }
        let write = Write {
            key: key(resource, place),
            expect: Expect::Absent,
            put: Some(Record::new(object, applied)),
            requires,
        };
        match self.store.write(write).await {
            Ok(record) => Ok(Written {
                object: resource.serve(&record.object),
                created: true,
                warnings,
            }),
            Err(WriteError::Exists) => Err(exists()),
            Err(WriteError::Requirement) => {
                self.requirements(resource, namespace)?;
                Err(ApiError::conflict(
                    &resource.subject(name),
                    "its namespace or definition changed meanwhile",
                ))
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// What must exist for an object of `resource` in `namespace` to be created.
    fn requirements(&self, resource: &Resource, namespace: &str) -> Result<Vec<Key>, ApiError> {
        let mut requires = Vec::new();
        if resource.namespaced {
            let subject = Subject {
                resource: "namespaces".into(),
                name: namespace.into(),
                ..Subject::default()
            };
            let key = Key::new(NAMESPACES, "", namespace);
            match self.store.get(&key) {
                None => return Err(ApiError::not_found(&subject)),
                Some(record) if is_terminating(&record.object) => {
                    let reason = format!(
                        "unable to create new content in namespace {namespace} because it is being terminated"
                    );
                    return Err(ApiError::forbidden(&resource.subject(""), &reason));
                }
                Some(_) => requires.push(key),
            }
        }
        if !resource.is_builtin() {
            let key = Key::new(CRDS, "", &resource.shelf);
            if self
                .store
                .get(&key)
                .is_none_or(|record| is_terminating(&record.object))
            {
                refuse(
                    resource,
                    "",
                    &[FieldError::forbidden(
                        "kind",
                        "the definition of this kind is being deleted",
                    )],
                )?;
            }
            requires.push(key);
        }
        Ok(requires)
    }
}

/// 400 for an object whose fields have wrong types.
pub(super) fn undecodable(resource: &Resource, problem: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {kind}: {problem}",
        kind = resource.kind,
        version = resource.version
    ))
}

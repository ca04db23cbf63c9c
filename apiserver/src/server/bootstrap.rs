//! The objects every store has: two namespaces, and the manifests the program brings along.

use serde_json::{Value, json};

use super::StartError;
use crate::error::ApiError;
use crate::object;
use crate::service::{FieldValidation, Part, Patch, Place, Service, WriteOptions};

/// Applies the namespaces and `manifests`, in this order.
pub(super) async fn run(service: &Service, manifests: Vec<Value>) -> Result<(), StartError> {
    let namespaces = ["default", "kube-system"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    for manifest in namespaces.into_iter().chain(manifests) {
        let what = format!(
            "{} {:?}",
            object::text(&manifest, &["kind"]),
            object::name(&manifest)
        );
        apply(service, manifest)
            .await
            .map_err(|error| StartError::Bootstrap {
                what,
                error: Box::new(error),
            })?;
    }
    Ok(())
}

async fn apply(service: &Service, manifest: Value) -> Result<(), ApiError> {
    let api_version = object::text(&manifest, &["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = object::text(&manifest, &["kind"]);
    let registry = service.registry();
    let resource = registry
        .all()
        .find(|resource| {
            resource.group == group && resource.version == version && resource.kind == kind
        })
        .ok_or_else(|| ApiError::bad_request(format!("no resource serves {api_version} {kind}")))?;
    let (namespace, name) = (
        object::namespace(&manifest).to_owned(),
        object::name(&manifest).to_owned(),
    );
    let options = WriteOptions {
        manager: "margay-apiserver".into(),
        field_validation: FieldValidation::Ignore,
        dry_run: false,
    };
    let place = Place {
        namespace: &namespace,
        name: &name,
    };
    service
        .patch(
            resource,
            place,
            Part::Main,
            Patch::Apply(manifest),
            &options,
        )
        .await
        .map(drop)
}

//! The embedded store as Margay uses it: with Margay's CRDs in it and Margay's checks in force.

use anyhow::Context;
use margay_apiserver::{FieldError, FieldErrorKind, GroupVersionKind, ServerBuilder, Validator};
use margay_crds::field::FieldErrorKind as Wrong;
use margay_speaker::program::shutdown_signal;
use serde_json::Value;

/// Adds Margay's CRDs and checks to a store.
///
/// # Errors
/// A CRD that is no JSON, which would be a mistake in the types.
pub fn margay_store(builder: ServerBuilder) -> anyhow::Result<ServerBuilder> {
    let crds = margay_crds::manifests::all();
    let manifests = crds
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<Vec<_>, _>>();
    let manifests = manifests.context("cannot write the CRDs as JSON")?;
    Ok(builder.validator(Checks).manifests(manifests))
}

/// Runs the embedded store until it is told to end.
///
/// # Errors
/// A folder that is in use or cannot be written, a port that cannot be opened.
pub async fn serve(options: margay_apiserver::Options) -> anyhow::Result<()> {
    let builder = margay_store(options.into())?;
    margay_apiserver::run(builder, shutdown_signal()).await?;
    Ok(())
}

/// The rules that a Kubernetes API server would find in the CRDs as CEL, and those about two
/// objects that it could not.
#[derive(Debug)]
struct Checks;

impl Validator for Checks {
    fn validate(
        &self,
        kind: &GroupVersionKind,
        new: &Value,
        old: Option<&Value>,
    ) -> Vec<FieldError> {
        let is_of_ours = kind.group == margay_crds::GROUP || kind.kind == "ClusterNetworkPolicy";
        if !is_of_ours {
            return Vec::new();
        }
        let errors = margay_crds::validate::validate(&kind.kind, new, old);
        errors.into_iter().map(in_the_stores_words).collect()
    }

    fn validate_beside(
        &self,
        kind: &GroupVersionKind,
        new: &Value,
        others: &dyn Fn() -> Vec<Value>,
    ) -> Vec<FieldError> {
        if kind.group != margay_crds::GROUP {
            return Vec::new();
        }
        let errors = margay_crds::validate::validate_beside(&kind.kind, new, others);
        errors.into_iter().map(in_the_stores_words).collect()
    }
}

fn in_the_stores_words(error: margay_crds::FieldError) -> FieldError {
    let kind = match error.kind {
        Wrong::Invalid => FieldErrorKind::Invalid,
        Wrong::Required => FieldErrorKind::Required,
        Wrong::Forbidden => FieldErrorKind::Forbidden,
    };
    let value = serde_json::from_str(&error.value).ok();
    FieldError {
        value: value.filter(|_| error.kind == Wrong::Invalid),
        path: error.path,
        message: error.message,
        kind,
    }
}

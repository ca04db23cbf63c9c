//! The door for semantic checks the store cannot make itself: it has no CEL engine, so CRDs' `x-kubernetes-validations` are
//! mirrored by whoever ships the CRDs.

use serde_json::Value;

use crate::error::FieldError;

/// Which kind an object is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupVersionKind {
    /// API group, empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
}

/// Checks objects after the schema has; an empty answer accepts. Any `Fn` of the same shape is a validator.
pub trait Validator: Send + Sync {
    /// Every field of `new` that is wrong; `old` is the stored object when this is an update.
    fn validate(
        &self,
        kind: &GroupVersionKind,
        new: &Value,
        old: Option<&Value>,
    ) -> Vec<FieldError>;

    /// Every field of `new` that is wrong beside the objects of its kind that are there, which
    /// `others` lists (an older version of `new` among them). Asked once the object itself is
    /// found right. Two objects written at the same moment may not see each other.
    fn validate_beside(
        &self,
        _kind: &GroupVersionKind,
        _new: &Value,
        _others: &dyn Fn() -> Vec<Value>,
    ) -> Vec<FieldError> {
        Vec::new()
    }
}

impl<F> Validator for F
where
    F: Fn(&GroupVersionKind, &Value, Option<&Value>) -> Vec<FieldError> + Send + Sync,
{
    fn validate(
        &self,
        kind: &GroupVersionKind,
        new: &Value,
        old: Option<&Value>,
    ) -> Vec<FieldError> {
        self(kind, new, old)
    }
}

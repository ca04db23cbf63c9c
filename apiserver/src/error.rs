//! What a request can fail with, and how that failure is written as a `metav1.Status`.
//!
//! Every error a client sees is built here, so that codes, reasons and wording stay those Kubernetes clients already match on.
//! Errors of starting the server live in [`crate::server`].

use serde_json::{Map, Value, json};

/// A refused request: HTTP code, machine-readable reason and a sentence for people.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code, also `Status.code`.
    pub code: u16,
    /// `Status.reason`, for example `AlreadyExists`.
    pub reason: &'static str,
    /// `Status.message`.
    pub message: String,
    /// `Status.details`, when there is an object to name.
    pub details: Option<Value>,
}

/// Which kind of mistake a field holds; the names are those of Kubernetes' field errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// The value is not allowed here.
    Invalid,
    /// The field must be given.
    Required,
    /// The value is not one of the supported ones.
    Unsupported,
    /// The value occurs twice in a list that must not hold it twice.
    Duplicate,
    /// The field may not be set or changed.
    Forbidden,
    /// The string is longer than allowed.
    TooLong,
    /// The list or map holds more entries than allowed.
    TooMany,
}

impl FieldErrorKind {
    /// The cause's `reason` in `Status.details.causes`.
    fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::Unsupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid value",
            Self::Required => "Required value",
            Self::Unsupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

/// One wrong field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Path from the object's root, for example `spec.blockSize` or `spec.ingress[0].from`.
    pub path: String,
    /// What is wrong and what would be right; may be empty for [`FieldErrorKind::Required`].
    pub message: String,
    /// The kind of mistake.
    pub kind: FieldErrorKind,
    /// The offending value, printed for [`FieldErrorKind::Invalid`], `Unsupported` and `Duplicate`.
    pub value: Option<Value>,
}

impl FieldError {
    /// A field error of any kind without the value.
    pub fn new(kind: FieldErrorKind, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            kind,
            value: None,
        }
    }

    /// The value at `path` is not allowed.
    pub fn invalid(path: impl Into<String>, value: Value, message: impl Into<String>) -> Self {
        Self {
            value: Some(value),
            ..Self::new(FieldErrorKind::Invalid, path, message)
        }
    }

    /// The field at `path` is missing.
    pub fn required(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, message)
    }

    /// The field at `path` may not be set or changed.
    pub fn forbidden(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, message)
    }

    /// The part after the path: `Invalid value: 99: should be …`.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(&shown(value));
        }
        if !self.message.is_empty() {
            text.push_str(": ");
            text.push_str(&self.message);
        }
        text
    }

    fn cause(&self) -> Value {
        json!({"reason": self.kind.reason(), "message": self.body(), "field": self.path})
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// Values are echoed to whoever sent them, but a megabyte of echo helps nobody.
fn shown(value: &Value) -> String {
    const LONGEST: usize = 256;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

/// The names an error about an object carries: `resource.group "name"`.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// API group, empty for the core group.
    pub group: String,
    /// Plural resource name (or the kind, where Kubernetes prints the kind).
    pub resource: String,
    /// Kind, used by validation errors.
    pub kind: String,
    /// Object name, may be empty.
    pub name: String,
}

impl Subject {
    fn qualified(&self, what: &str) -> String {
        if self.group.is_empty() {
            what.to_owned()
        } else {
            format!("{what}.{}", self.group)
        }
    }

    fn titled(&self) -> String {
        format!("{} \"{}\"", self.qualified(&self.resource), self.name)
    }

    fn details(&self, kind: &str) -> Map<String, Value> {
        let mut details = Map::new();
        for (key, value) in [
            ("name", self.name.as_str()),
            ("group", self.group.as_str()),
            ("kind", kind),
        ] {
            if !value.is_empty() {
                details.insert(key.to_owned(), json!(value));
            }
        }
        details
    }
}

impl ApiError {
    fn plain(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(code: u16, reason: &'static str, subject: &Subject, message: String) -> Self {
        Self {
            code,
            reason,
            message,
            details: Some(Value::Object(subject.details(&subject.resource))),
        }
    }

    /// 400: the request itself is malformed.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(400, "BadRequest", message)
    }

    /// 401: no or a wrong bearer token.
    pub fn unauthorized() -> Self {
        Self::plain(401, "Unauthorized", "Unauthorized")
    }

    /// 403: the object may not be changed this way.
    pub fn forbidden(subject: &Subject, message: &str) -> Self {
        Self::about(
            403,
            "Forbidden",
            subject,
            format!("{} is forbidden: {message}", subject.titled()),
        )
    }

    /// 404 for an object.
    pub fn not_found(subject: &Subject) -> Self {
        Self::about(
            404,
            "NotFound",
            subject,
            format!("{} not found", subject.titled()),
        )
    }

    /// 404 for a path or resource nobody serves.
    pub fn unknown_path() -> Self {
        Self::plain(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// 405: the resource exists but has no such verb.
    pub fn method_not_allowed() -> Self {
        Self::plain(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406: no representation the client accepts.
    pub fn not_acceptable() -> Self {
        Self::plain(
            406,
            "NotAcceptable",
            "only the following media types are served: application/json, application/yaml",
        )
    }

    /// 408: the body did not arrive in time.
    pub fn body_timeout() -> Self {
        Self::plain(408, "Timeout", "the request body did not arrive in time")
    }

    /// 409 on create.
    pub fn already_exists(subject: &Subject) -> Self {
        Self::about(
            409,
            "AlreadyExists",
            subject,
            format!("{} already exists", subject.titled()),
        )
    }

    /// 409 on update or delete.
    pub fn conflict(subject: &Subject, message: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{}\": {message}",
            subject.qualified(&subject.resource),
            subject.name
        );
        Self::about(409, "Conflict", subject, message)
    }

    /// 409 because somebody else wrote the object in between.
    pub fn stale(subject: &Subject) -> Self {
        Self::conflict(
            subject,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 410: the requested resourceVersion is no longer in the event history.
    pub fn expired(requested: u64, oldest: u64) -> Self {
        Self::plain(
            410,
            "Expired",
            format!("too old resource version: {requested} ({oldest})"),
        )
    }

    /// 413: the body is larger than allowed.
    pub fn too_large(limit: usize) -> Self {
        Self::plain(
            413,
            "RequestEntityTooLarge",
            format!("the request body is larger than {limit} bytes"),
        )
    }

    /// 413: the object, or all objects together, would become larger than allowed.
    pub fn no_room(message: impl std::fmt::Display) -> Self {
        Self::plain(413, "RequestEntityTooLarge", message.to_string())
    }

    /// 415: a body in an encoding the store does not read.
    pub fn unsupported_media(media: &str, supported: &str) -> Self {
        Self::plain(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unsupported format {media:?}, send one of: {supported}"
            ),
        )
    }

    /// 422: the object was understood and is wrong.
    pub fn invalid(subject: &Subject, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let listed = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind = if subject.kind.is_empty() {
            &subject.resource
        } else {
            &subject.kind
        };
        let mut details = subject.details(kind);
        details.insert(
            "causes".to_owned(),
            errors.iter().map(FieldError::cause).collect(),
        );
        Self {
            code: 422,
            reason: "Invalid",
            message: format!(
                "{} \"{}\" is invalid: {listed}",
                subject.qualified(kind),
                subject.name
            ),
            details: Some(Value::Object(details)),
        }
    }

    /// 429: too many watches or connections.
    pub fn too_many(message: impl Into<String>) -> Self {
        let mut error = Self::plain(429, "TooManyRequests", message);
        error.details = Some(json!({"retryAfterSeconds": 1}));
        error
    }

    /// 500: the store itself failed.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::plain(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        )
    }

    /// 503: the server is shutting down.
    pub fn unavailable() -> Self {
        Self::plain(503, "ServiceUnavailable", "the store is shutting down")
    }

    /// The `metav1.Status` body of this error.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let (Some(details), Value::Object(map)) = (&self.details, &mut status) {
            map.insert("details".to_owned(), details.clone());
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_names_the_field_and_the_value() {
        let subject = Subject {
            group: "margay.dev".into(),
            resource: "ippools".into(),
            kind: "IPPool".into(),
            name: "a".into(),
        };
        let error = ApiError::invalid(
            &subject,
            &[FieldError::invalid(
                "spec.blockSize",
                json!(99),
                "must be at most 32",
            )],
        );
        assert_eq!(
            error.message,
            "IPPool.margay.dev \"a\" is invalid: spec.blockSize: Invalid value: 99: must be at most 32"
        );
        assert_eq!(
            error.status()["details"]["causes"][0]["field"],
            "spec.blockSize"
        );
        assert_eq!(error.status()["code"], 422);
    }

    #[test]
    fn long_values_are_cut_on_a_character() {
        let text = FieldError::invalid("x", json!("é".repeat(10_000)), "m").to_string();
        assert!(text.len() < 700 && text.contains('…'), "{}", text.len());
    }
}

//! One wrong field of one object, in the words of a Kubernetes API server.

use std::fmt;

use ipnetwork::IpNetwork;

/// Why a field is wrong, as the cause reasons of the Kubernetes API distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueRequired`
    Required,
    /// `FieldValueForbidden`
    Forbidden,
}

/// A field that is wrong: its path, the value found and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The path from the object's root, such as `spec.blockSize`.
    pub path: String,
    /// The value found, as JSON.
    pub value: String,
    /// What is wrong and what would be right: a lowercase fragment.
    pub message: String,
    /// The kind of the mistake.
    pub kind: FieldErrorKind,
}

impl FieldError {
    /// A value that cannot be.
    pub fn invalid(path: &str, value: impl serde::Serialize, message: impl Into<String>) -> Self {
        Self::new(path, value, message, FieldErrorKind::Invalid)
    }

    /// A value that is missing.
    pub fn required(path: &str, message: impl Into<String>) -> Self {
        Self::new(path, "", message, FieldErrorKind::Required)
    }

    /// A change or a combination that is not allowed.
    pub fn forbidden(path: &str, value: impl serde::Serialize, message: impl Into<String>) -> Self {
        Self::new(path, value, message, FieldErrorKind::Forbidden)
    }

    fn new(
        path: &str,
        value: impl serde::Serialize,
        message: impl Into<String>,
        kind: FieldErrorKind,
    ) -> Self {
        let value = serde_json::to_string(&value).unwrap_or_default();
        Self {
            path: path.to_owned(),
            value,
            message: message.into(),
            kind,
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            FieldErrorKind::Invalid => {
                write!(
                    f,
                    "{}: Invalid value: {}: {}",
                    self.path, self.value, self.message
                )
            }
            FieldErrorKind::Required => {
                write!(f, "{}: Required value: {}", self.path, self.message)
            }
            FieldErrorKind::Forbidden => write!(f, "{}: Forbidden: {}", self.path, self.message),
        }
    }
}

/// Several field errors in one line, as a condition message or a log line wants them.
pub fn join(errors: &[FieldError]) -> String {
    let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
    words.join("; ")
}

/// Collects the errors of a check, so that one pass reports them all.
#[derive(Debug, Default)]
pub(crate) struct Errors(pub(crate) Vec<FieldError>);

impl Errors {
    pub(crate) fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    /// Keeps the value of a step, or its error.
    pub(crate) fn keep<T>(&mut self, step: Result<T, FieldError>) -> Option<T> {
        match step {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.push(error);
                None
            }
        }
    }

    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

/// A CIDR whose host bits are zero.
pub(crate) fn cidr(path: &str, text: &str) -> Result<IpNetwork, FieldError> {
    let network: IpNetwork = text.parse().map_err(|_| {
        FieldError::invalid(
            path,
            text,
            "must be a CIDR such as 10.244.0.0/16 or fd00:10::/48",
        )
    })?;
    if !text.contains('/') {
        return Err(FieldError::invalid(
            path,
            text,
            "must carry a prefix length, such as 10.244.0.0/16",
        ));
    }
    if network.ip() != network.network() {
        let masked = format!("{}/{}", network.network(), network.prefix());
        return Err(FieldError::invalid(
            path,
            text,
            format!("must have no host bits set, did you mean {masked}?"),
        ));
    }
    Ok(network)
}

/// The CIDRs of a list that can be used; the others are reported by their place in it.
pub(crate) fn cidrs(errors: &mut Errors, path: &str, texts: &[String]) -> Vec<IpNetwork> {
    let texts = texts.iter().enumerate();
    texts
        .filter_map(|(index, text)| errors.keep(cidr(&format!("{path}[{index}]"), text)))
        .collect()
}

//! What is wrong with an object, in words an operator can act on.
//!
//! A problem never stops the compiler: the part that is wrong is lost in the closed direction, the rest goes on.

use std::fmt;

/// One thing that is wrong with one object. Displayed as `Kind namespace/name: field: reason`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The object's kind, as in its manifest.
    pub kind: String,
    /// The object's namespace; empty for objects that have none.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The path of the field, such as `spec.ingress[0].ports[1].endPort`; empty when the whole object is meant.
    pub field: String,
    /// What is wrong and what was done about it.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}: ", self.name)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

/// Collects the problems of one object while it is read.
#[derive(Debug)]
pub(crate) struct Problems {
    kind: String,
    namespace: String,
    name: String,
    found: Vec<Problem>,
}

impl Problems {
    pub(crate) fn of(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            found: Vec::new(),
        }
    }

    pub(crate) fn report(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.found.push(Problem {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            field: field.into(),
            reason: reason.into(),
        });
    }

    /// Reports what a check of the API types found, with what was done about it.
    pub(crate) fn fields(&mut self, errors: &[margay_crds::FieldError], done: &str) {
        for error in errors {
            self.report(
                &error.path,
                format!("{}: {}{done}", error.value, error.message),
            );
        }
    }

    pub(crate) fn into_found(self) -> Vec<Problem> {
        self.found
    }
}

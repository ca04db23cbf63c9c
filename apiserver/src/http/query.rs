//! The query string.

use std::collections::HashMap;

use http::Uri;

use crate::error::ApiError;
use crate::service::{FieldValidation, WriteOptions};

/// Parameters by name; of repeated ones the last counts.
#[derive(Debug, Default)]
pub(super) struct Query {
    values: HashMap<String, String>,
}

impl Query {
    pub(super) fn parse(uri: &Uri) -> Self {
        let parsed = axum::extract::Query::<HashMap<String, String>>::try_from_uri(uri);
        Self {
            values: parsed.map(|query| query.0).unwrap_or_default(),
        }
    }

    /// A query of one parameter.
    pub(super) fn only(name: &str, value: &str) -> Self {
        Self {
            values: HashMap::from([(name.to_owned(), value.to_owned())]),
        }
    }

    /// The parameter's text, or the empty string.
    pub(super) fn text(&self, name: &str) -> &str {
        self.values
            .get(name)
            .map(String::as_str)
            .unwrap_or_default()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1" | "True" | "t")
    }

    /// The parameter as a number; absent or empty counts as 0.
    pub(super) fn number(&self, name: &str) -> Result<u64, ApiError> {
        match self.text(name) {
            "" => Ok(0),
            text => text
                .parse()
                .map_err(|_| ApiError::bad_request(format!("{name}: {text:?} is not a number"))),
        }
    }

    pub(super) fn write_options(&self) -> Result<WriteOptions, ApiError> {
        let field_validation = match self.text("fieldValidation") {
            "Strict" => FieldValidation::Strict,
            "Ignore" => FieldValidation::Ignore,
            "" | "Warn" => FieldValidation::Warn,
            other => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: unsupported value {other:?}"
                )));
            }
        };
        Ok(WriteOptions {
            dry_run: self.dry_run(),
            field_validation,
            manager: self.text("fieldManager").to_owned(),
        })
    }

    pub(super) fn dry_run(&self) -> bool {
        !self.text("dryRun").is_empty()
    }
}

//! Lists: selectors, pages, continue tokens.
//!
//! All pages of a list report the version of the first, so that a watch from it sees every change made while paging. Later pages
//! may already contain newer objects; the watch then repeats those changes, which converges to the same state.

use serde_json::{Value, json};

use super::Service;
use crate::error::ApiError;
use crate::object;
use crate::registry::Resource;
use crate::selector::{FieldSelector, LabelSelector};

/// Which objects a request is about.
#[derive(Debug, Clone, Default)]
pub struct Selectors {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selectors {
    /// Parses both selectors for `resource`.
    ///
    /// # Errors
    /// 400 naming what is not understood or not supported.
    pub fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Self {
            labels: LabelSelector::parse(labels).map_err(ApiError::bad_request)?,
            fields: FieldSelector::parse(fields, &|field| resource.selectable(field))
                .map_err(ApiError::bad_request)?,
        })
    }

    /// Whether an object in served form is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.matches(object::labels(object)) && self.fields.matches(object)
    }

    fn is_empty(&self) -> bool {
        self.labels == LabelSelector::default() && self.fields == FieldSelector::default()
    }
}

/// A list request.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Which objects.
    pub selectors: Selectors,
    /// At most this many objects; 0 = all.
    pub limit: usize,
    /// The token of the page before.
    pub continue_token: String,
    /// `resourceVersion`, only looked at together with `exact`.
    pub version: u64,
    /// `resourceVersionMatch=Exact`.
    pub exact: bool,
}

/// A page of objects.
#[derive(Debug)]
pub struct ListPage {
    /// Objects in served form.
    pub objects: Vec<Value>,
    /// `ListMeta`.
    pub metadata: Value,
}

impl Service {
    /// The objects a query selects.
    ///
    /// # Errors
    /// 400 for a bad token, 410 for an exact version that is not the current one.
    pub fn list(&self, resource: &Resource, query: &ListQuery) -> Result<ListPage, ApiError> {
        let token = Token::parse(&query.continue_token)?;
        let after = token.as_ref().map(|token| &token.after);
        let page = self
            .store
            .list(&resource.shelf, query.namespace.as_deref(), after);
        if query.exact && token.is_none() && query.version != page.version {
            return Err(ApiError::expired(query.version, page.version));
        }
        let version = token.map_or(page.version, |token| token.version);
        let limit = if query.limit == 0 {
            usize::MAX
        } else {
            query.limit
        };
        let mut metadata = json!({"resourceVersion": version.to_string()});
        let mut objects: Vec<Value> = Vec::new();
        for (index, record) in page.records.iter().enumerate() {
            let object = resource.serve(&record.object);
            if !query.selectors.matches(&object) {
                continue;
            }
            if objects.len() == limit {
                let last = objects
                    .last()
                    .map(|o| (object::namespace(o).to_owned(), object::name(o).to_owned()));
                metadata["continue"] = json!(
                    Token {
                        version,
                        after: last.unwrap_or_default()
                    }
                    .print()
                );
                if query.selectors.is_empty() {
                    metadata["remainingItemCount"] = json!(page.records.len() - index);
                }
                break;
            }
            objects.push(object);
        }
        Ok(ListPage { objects, metadata })
    }
}

/// Where the next page starts.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    version: u64,
    after: (String, String),
}

impl Token {
    /// `version/namespace/name`; none of them can hold a `/`.
    fn print(&self) -> String {
        format!("{}/{}/{}", self.version, self.after.0, self.after.1)
    }

    fn parse(text: &str) -> Result<Option<Self>, ApiError> {
        if text.is_empty() {
            return Ok(None);
        }
        let mut parts = text.splitn(3, '/');
        let version = parts.next().and_then(|part| part.parse().ok());
        match (version, parts.next(), parts.next()) {
            (Some(version), Some(namespace), Some(name)) => Ok(Some(Self {
                version,
                after: (namespace.to_owned(), name.to_owned()),
            })),
            _ => Err(ApiError::bad_request(format!(
                "continue key is not valid: {text:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_trip() {
        let token = Token {
            version: 7,
            after: ("default".into(), "a.b".into()),
        };
        assert_eq!(Token::parse(&token.print()).unwrap(), Some(token));
        assert_eq!(Token::parse("").unwrap(), None);
        assert!(Token::parse("nonsense").is_err());
    }
}

//! Which representation a client wants. Pure.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::error::ApiError;

/// What objects are turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The object or list itself.
    Plain,
    /// A `meta.k8s.io/v1` Table.
    Table,
    /// Metadata only.
    Partial,
    /// Aggregated discovery (only at `/api` and `/apis`).
    Discovery,
}

/// The encoding of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Yaml,
}

/// A representation that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) shape: Shape,
    pub(super) encoding: Encoding,
}

impl Accepted {
    const PLAIN: Self = Self {
        shape: Shape::Plain,
        encoding: Encoding::Json,
    };

    /// The first media range of `Accept` that is served.
    ///
    /// # Errors
    /// 406 when none is.
    pub(super) fn negotiate(headers: &HeaderMap) -> Result<Self, ApiError> {
        let header = headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if header.trim().is_empty() {
            return Ok(Self::PLAIN);
        }
        header
            .split(',')
            .find_map(range)
            .ok_or_else(ApiError::not_acceptable)
    }
}

fn range(text: &str) -> Option<Accepted> {
    let mut parts = text.split(';').map(str::trim);
    let encoding = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut shape, mut version) = ("", "");
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => shape = value,
            Some(("v", value)) => version = value,
            _ => {}
        }
    }
    let shape = match (shape, version) {
        ("", _) => Shape::Plain,
        ("Table", "v1") => Shape::Table,
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1") => Shape::Partial,
        ("APIGroupDiscoveryList", "v2") => Shape::Discovery,
        _ => return None,
    };
    Some(Accepted { shape, encoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        for (header, expected) in [
            ("", Some((Shape::Plain, Encoding::Json))),
            ("*/*", Some((Shape::Plain, Encoding::Json))),
            ("application/yaml", Some((Shape::Plain, Encoding::Yaml))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some((Shape::Plain, Encoding::Json)),
            ),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
                Some((Shape::Table, Encoding::Json)),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some((Shape::Plain, Encoding::Json)),
            ),
            (
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
                Some((Shape::Discovery, Encoding::Json)),
            ),
            ("application/vnd.kubernetes.protobuf", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, header.parse().unwrap());
            let found = Accepted::negotiate(&headers)
                .ok()
                .map(|a| (a.shape, a.encoding));
            assert_eq!(found, expected, "{header}");
        }
    }
}

//! `meta.k8s.io/v1` Tables: what `kubectl get` prints. Pure; the time is an argument.

pub mod builtin;
pub mod human;
pub mod jsonpath;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use self::jsonpath::JsonPath;
use crate::object::{name, text};
use crate::registry::{Model, Resource};

/// A column a CRD asks for.
#[derive(Debug)]
pub struct PrinterColumn {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
    path: JsonPath,
}

impl PrinterColumn {
    /// Reads an entry of `additionalPrinterColumns`.
    ///
    /// # Errors
    /// The column's name and what is wrong with its path.
    pub fn parse(source: &Value) -> Result<Self, String> {
        let name = text(source, &["name"]).to_owned();
        let path = JsonPath::parse(text(source, &["jsonPath"]))
            .map_err(|problem| format!("additionalPrinterColumns[{name}].jsonPath: {problem}"))?;
        Ok(Self {
            name,
            kind: text(source, &["type"]).to_owned(),
            format: text(source, &["format"]).to_owned(),
            description: text(source, &["description"]).to_owned(),
            priority: source.get("priority").and_then(Value::as_i64).unwrap_or(0),
            path,
        })
    }

    /// The column a CRD without columns has.
    pub fn age() -> Self {
        Self {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: "time since creation".into(),
            priority: 0,
            path: JsonPath::of(&["metadata", "creationTimestamp"]),
        }
    }

    fn definition(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.find(object);
        match (self.kind.as_str(), found.as_slice()) {
            (_, []) | (_, [Value::Null]) => Value::Null,
            ("date", [value, ..]) => match value
                .as_str()
                .and_then(|text| text.parse::<Timestamp>().ok())
            {
                Some(then) => json!(human::duration(then, now)),
                None => json!("<invalid>"),
            },
            ("integer" | "number" | "boolean", [value, ..]) if !value.is_string() => {
                (*value).clone()
            }
            (_, many) => json!(
                many.iter()
                    .map(|value| plain(value))
                    .collect::<Vec<_>>()
                    .join(",")
            ),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Which object a row carries beside its cells (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// None.
    Nothing,
    /// Its metadata; the default.
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads the `includeObject` parameter; anything else is the default.
    pub fn parse(text: &str) -> Self {
        match text {
            "None" => Self::Nothing,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// A Table of `objects` (in served form). `list` is the metadata of the list.
pub fn table(
    resource: &Resource,
    objects: &[Value],
    list: Value,
    include: Include,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| row(resource, object, include, now))
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list,
        "columnDefinitions": columns(resource), "rows": rows,
    })
}

fn columns(resource: &Resource) -> Vec<Value> {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "name of the object",
    });
    match &resource.model {
        Model::Builtin(builtin) => builtin
            .layout
            .columns
            .iter()
            .map(|(name, kind, priority)| {
                let format = if *name == "Name" { "name" } else { "" };
                json!({"name": name, "type": kind, "format": format, "description": "", "priority": priority})
            })
            .collect(),
        Model::Custom(custom) => {
            std::iter::once(name).chain(custom.columns.iter().map(PrinterColumn::definition)).collect()
        }
    }
}

fn row(resource: &Resource, object: &Value, include: Include, now: Timestamp) -> Value {
    let cells = match &resource.model {
        Model::Builtin(builtin) => (builtin.layout.cells)(object, now),
        Model::Custom(custom) => {
            let others = custom.columns.iter().map(|column| column.cell(object, now));
            std::iter::once(json!(name(object))).chain(others).collect()
        }
    };
    let mut row = json!({"cells": cells});
    let carried = match include {
        Include::Nothing => None,
        Include::Metadata => Some(partial(object)),
        Include::Object => Some(object.clone()),
    };
    if let (Some(carried), Value::Object(row)) = (carried, &mut row) {
        row.insert("object".into(), carried);
    }
    row
}

/// The `PartialObjectMetadata` of an object.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.get("metadata")})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-02T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn custom_columns() {
        let definition = json!({"spec": {
            "group": "margay.dev", "scope": "Cluster", "names": {"plural": "ippools", "kind": "IPPool"},
            "versions": [{"name": "v1", "served": true, "storage": true, "additionalPrinterColumns": [
                {"name": "CIDR", "type": "string", "jsonPath": ".spec.cidr"},
                {"name": "Size", "type": "integer", "jsonPath": ".spec.blockSize", "priority": 1},
                {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ]}],
        }});
        let resource = crate::registry::crd::compile(&definition)
            .unwrap()
            .remove(0);
        let pool = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T21:30:00Z"},
            "spec": {"cidr": "10.0.0.0/8", "blockSize": 26},
            "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        let table = table(
            &resource,
            &[pool, json!({"metadata": {"name": "b"}})],
            json!({}),
            Include::Nothing,
            now(),
        );
        assert_eq!(
            table["rows"][0],
            json!({"cells": ["a", "10.0.0.0/8", 26, "True", "150m"]})
        );
        assert_eq!(
            table["rows"][1],
            json!({"cells": ["b", null, null, null, null]})
        );
        assert_eq!(table["columnDefinitions"][2]["priority"], 1);
    }

    #[test]
    fn rows_have_a_cell_for_every_column_even_of_empty_objects() {
        let registry = crate::registry::Registry::build(std::iter::empty(), 0);
        for resource in registry.all() {
            let table = table(
                resource,
                &[json!({"metadata": {"name": "x"}})],
                json!({}),
                Include::Metadata,
                now(),
            );
            let (columns, cells) = (&table["columnDefinitions"], &table["rows"][0]["cells"]);
            assert_eq!(
                columns.as_array().unwrap().len(),
                cells.as_array().unwrap().len(),
                "{}",
                resource.kind
            );
            assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "x");
        }
    }
}

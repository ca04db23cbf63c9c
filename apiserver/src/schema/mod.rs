//! Structural schemas of custom resources: compiled once from `openAPIV3Schema`, then used to prune, default and validate.
//!
//! What is honoured: types, nullable, properties, additionalProperties, items, required, enum, pattern, bounds of numbers, strings,
//! lists and maps, uniqueItems, multipleOf, allOf/anyOf/oneOf/not, defaults, `x-kubernetes-int-or-string`,
//! `x-kubernetes-preserve-unknown-fields`, `x-kubernetes-embedded-resource`, and list types for server-side apply.
//! What is not: `x-kubernetes-validations` (CEL; the store has no CEL engine, see [`crate::Validator`]) and `format`.

pub mod default;
pub mod prune;
pub mod validate;

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::object::patch::lists::{ListMerge, ListRules};

/// A JSON type a schema asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A map.
    Object,
    /// A list.
    Array,
    /// A string.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl Type {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The type's name in a schema.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// What a map may hold beyond its named properties.
#[derive(Debug, Default)]
pub enum Additional {
    /// Nothing said: unknown fields are pruned.
    #[default]
    Unsaid,
    /// `additionalProperties: true`.
    Any,
    /// Values of one schema.
    Schema(Box<Schema>),
}

/// A number's bound.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// The limit.
    pub limit: f64,
    /// Whether the limit itself is not allowed.
    pub exclusive: bool,
}

/// A compiled schema node.
#[derive(Debug, Default)]
pub struct Schema {
    pub(crate) kind: Option<Type>,
    pub(crate) nullable: bool,
    pub(crate) int_or_string: bool,
    pub(crate) preserve_unknown: bool,
    pub(crate) embedded_resource: bool,
    pub(crate) properties: BTreeMap<String, Schema>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<Box<Schema>>,
    pub(crate) required: Vec<String>,
    pub(crate) default: Option<Value>,
    pub(crate) list_type: Option<String>,
    pub(crate) list_keys: Vec<String>,
    pub(crate) checks: Checks,
    pub(crate) all_of: Vec<Schema>,
    pub(crate) any_of: Vec<Schema>,
    pub(crate) one_of: Vec<Schema>,
    pub(crate) not: Option<Box<Schema>>,
}

/// The value validations of a node.
#[derive(Debug, Default)]
pub struct Checks {
    pub(crate) allowed: Option<Vec<Value>>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) minimum: Option<Bound>,
    pub(crate) maximum: Option<Bound>,
    pub(crate) multiple_of: Option<f64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) min_items: Option<u64>,
    pub(crate) max_items: Option<u64>,
    pub(crate) min_properties: Option<u64>,
    pub(crate) max_properties: Option<u64>,
    pub(crate) unique_items: bool,
}

/// Compiled patterns larger than this are refused; the schema's author is trusted, his mistakes are not.
const PATTERN_BYTES: usize = 1 << 20;

impl Schema {
    /// Compiles an `openAPIV3Schema` value.
    ///
    /// # Errors
    /// `path: problem` of the first thing that cannot be compiled.
    pub fn compile(source: &Value) -> Result<Self, String> {
        compile(source, "openAPIV3Schema")
    }

    /// A schema that accepts any object, for CRDs without one.
    pub fn anything() -> Self {
        Self {
            kind: Some(Type::Object),
            preserve_unknown: true,
            ..Self::default()
        }
    }
}

fn compile(source: &Value, path: &str) -> Result<Schema, String> {
    let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or(false);
    let kind = match source
        .get("type")
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
    {
        Some(text) => Some(
            Type::parse(text).ok_or_else(|| format!("{path}.type: unsupported type {text:?}"))?,
        ),
        None => None,
    };
    let nested = |key: &str| -> Result<Vec<Schema>, String> {
        let list = source.get(key).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .enumerate()
            .map(|(i, each)| compile(each, &format!("{path}.{key}[{i}]")))
            .collect()
    };
    let boxed = |key: &str| -> Result<Option<Box<Schema>>, String> {
        source
            .get(key)
            .filter(|v| v.is_object())
            .map(|v| compile(v, &format!("{path}.{key}")).map(Box::new))
            .transpose()
    };
    let mut properties = BTreeMap::new();
    for (name, property) in source
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        properties.insert(
            name.clone(),
            compile(property, &format!("{path}.properties[{name}]"))?,
        );
    }
    let additional = match source.get("additionalProperties") {
        Some(Value::Bool(true)) => Additional::Any,
        Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(compile(
            schema,
            &format!("{path}.additionalProperties"),
        )?)),
        _ => Additional::Unsaid,
    };
    Ok(Schema {
        kind,
        nullable: flag("nullable"),
        int_or_string: flag("x-kubernetes-int-or-string"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded_resource: flag("x-kubernetes-embedded-resource"),
        properties,
        additional,
        items: boxed("items")?,
        required: strings(source, "required"),
        default: source.get("default").cloned(),
        list_type: source
            .get("x-kubernetes-list-type")
            .and_then(Value::as_str)
            .map(str::to_owned),
        list_keys: strings(source, "x-kubernetes-list-map-keys"),
        checks: checks(source, path)?,
        all_of: nested("allOf")?,
        any_of: nested("anyOf")?,
        one_of: nested("oneOf")?,
        not: boxed("not")?,
    })
}

fn strings(source: &Value, key: &str) -> Vec<String> {
    let list = source.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn checks(source: &Value, path: &str) -> Result<Checks, String> {
    let number = |key: &str| source.get(key).and_then(Value::as_f64);
    let count = |key: &str| source.get(key).and_then(Value::as_u64);
    let flag = |key: &str| source.get(key).and_then(Value::as_bool).unwrap_or(false);
    let pattern = match source
        .get("pattern")
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
    {
        Some(text) => {
            let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES).build();
            Some(built.map_err(|error| format!("{path}.pattern: {error}"))?)
        }
        None => None,
    };
    Ok(Checks {
        allowed: source.get("enum").and_then(Value::as_array).cloned(),
        pattern,
        minimum: number("minimum").map(|limit| Bound {
            limit,
            exclusive: flag("exclusiveMinimum"),
        }),
        maximum: number("maximum").map(|limit| Bound {
            limit,
            exclusive: flag("exclusiveMaximum"),
        }),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        min_properties: count("minProperties"),
        max_properties: count("maxProperties"),
        unique_items: flag("uniqueItems"),
    })
}

impl ListRules for Schema {
    fn rule(&self, path: &[String]) -> ListMerge {
        if path.first().is_some_and(|first| first == "metadata") {
            return crate::object::patch::lists::BuiltinRules.rule(path);
        }
        let mut schema = self;
        for field in path {
            // Paths have no indexes: a field below a list is a field of its items.
            while let Some(items) = &schema.items {
                schema = items;
            }
            schema = match (schema.properties.get(field), &schema.additional) {
                (Some(property), _) => property,
                (None, Additional::Schema(values)) => values,
                _ => return ListMerge::Atomic,
            };
        }
        match schema.list_type.as_deref() {
            Some("map") => ListMerge::Keys(schema.list_keys.clone()),
            Some("set") => ListMerge::Set,
            _ => ListMerge::Atomic,
        }
    }
}

/// Whether the schema is for one of the three root fields every object has; those are handled by the metadata rules.
pub(crate) fn is_type_meta(field: &str) -> bool {
    matches!(field, "apiVersion" | "kind" | "metadata")
}

/// `path.field`, without a leading dot.
pub(crate) fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

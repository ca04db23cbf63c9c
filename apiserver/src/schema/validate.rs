//! Checking a value against a schema; the wording follows kube-apiserver's, which people and scripts already match on. Pure.

use std::collections::HashSet;

use serde_json::Value;

use super::{Additional, Checks, Schema, Type, is_type_meta, join};
use crate::error::{FieldError, FieldErrorKind};

/// Errors beyond this many are not collected: nobody reads them, and the answer must stay small.
const MOST_ERRORS: usize = 50;

/// Every field of `object` that breaks its schema.
pub fn validate(object: &Value, schema: &Schema) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check(object, schema, "", true, &mut errors);
    errors
}

fn check(value: &Value, schema: &Schema, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    if errors.len() >= MOST_ERRORS || (value.is_null() && schema.nullable) {
        return;
    }
    if let Some(problem) = type_problem(value, schema, path) {
        errors.push(problem);
        return;
    }
    check_value(value, &schema.checks, path, errors);
    match value {
        Value::Object(map) => {
            for field in &schema.required {
                if !map.contains_key(field) {
                    errors.push(FieldError::required(join(path, field), ""));
                }
            }
            let type_meta = root || schema.embedded_resource;
            for (field, child) in map
                .iter()
                .filter(|(field, _)| !(type_meta && is_type_meta(field)))
            {
                match (schema.properties.get(field), &schema.additional) {
                    (Some(property), _) => {
                        check(child, property, &join(path, field), false, errors)
                    }
                    (None, Additional::Schema(values)) => {
                        check(child, values, &join(path, field), false, errors)
                    }
                    _ => {}
                }
            }
            if root
                && let Some(name) = schema
                    .properties
                    .get("metadata")
                    .and_then(|meta| meta.properties.get("name"))
                && let Some(value) = value.pointer("/metadata/name")
            {
                check(value, name, "metadata.name", false, errors);
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, item) in list.iter().enumerate() {
                    check(item, items, &format!("{path}[{index}]"), false, errors);
                }
            }
            check_list_keys(list, schema, path, errors);
        }
        _ => {}
    }
    check_combinations(value, schema, path, root, errors);
}

fn type_problem(value: &Value, schema: &Schema, path: &str) -> Option<FieldError> {
    if schema.int_or_string {
        let fits = value.is_string() || is_integer(value);
        return (!fits).then(|| wrong_type(value, path, "integer,string"));
    }
    let kind = schema.kind?;
    let fits = match kind {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => is_integer(value),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    };
    (!fits).then(|| wrong_type(value, path, kind.name()))
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn wrong_type(value: &Value, path: &str, wanted: &str) -> FieldError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    FieldError::invalid(
        path,
        Value::from(found),
        format!("{path} in body must be of type {wanted}: {found:?}"),
    )
}

fn check_value(value: &Value, checks: &Checks, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(allowed) = &checks.allowed
        && !allowed.iter().any(|each| equal(each, value))
    {
        let listed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let message = format!("supported values: {}", listed.join(", "));
        errors.push(FieldError {
            value: Some(value.clone()),
            ..FieldError::new(FieldErrorKind::Unsupported, path, message)
        });
    }
    match value {
        Value::Number(number) => check_number(
            value,
            number.as_f64().unwrap_or(f64::NAN),
            checks,
            path,
            errors,
        ),
        Value::String(text) => check_string(value, text, checks, path, errors),
        Value::Array(list) => {
            check_count(
                list.len(),
                checks.min_items,
                checks.max_items,
                path,
                "items",
                errors,
            );
            if checks.unique_items && !duplicates(list.iter().map(Value::to_string)).is_empty() {
                errors.push(FieldError::new(
                    FieldErrorKind::Duplicate,
                    path,
                    "entries must be unique",
                ));
            }
        }
        Value::Object(map) => {
            check_count(
                map.len(),
                checks.min_properties,
                checks.max_properties,
                path,
                "properties",
                errors,
            );
        }
        _ => {}
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    // 1 and 1.0 are the same number in JSON.
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

fn check_number(
    value: &Value,
    number: f64,
    checks: &Checks,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let mut wrong = |text: String| {
        errors.push(FieldError::invalid(
            path,
            value.clone(),
            format!("{path} in body should be {text}"),
        ))
    };
    if let Some(bound) = checks.minimum {
        if bound.exclusive && number <= bound.limit {
            wrong(format!("greater than {}", bound.limit));
        } else if number < bound.limit {
            wrong(format!("greater than or equal to {}", bound.limit));
        }
    }
    if let Some(bound) = checks.maximum {
        if bound.exclusive && number >= bound.limit {
            wrong(format!("less than {}", bound.limit));
        } else if number > bound.limit {
            wrong(format!("less than or equal to {}", bound.limit));
        }
    }
    if let Some(factor) = checks.multiple_of
        && (number / factor).fract() != 0.0
    {
        wrong(format!("a multiple of {factor}"));
    }
}

fn check_string(
    value: &Value,
    text: &str,
    checks: &Checks,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    if let Some(least) = checks.min_length.filter(|least| length < *least) {
        errors.push(FieldError::invalid(
            path,
            value.clone(),
            format!("{path} in body should be at least {least} chars long"),
        ));
    }
    if let Some(most) = checks.max_length.filter(|most| length > *most) {
        errors.push(FieldError::new(
            FieldErrorKind::TooLong,
            path,
            format!("may not be more than {most} bytes"),
        ));
    }
    if let Some(pattern) = checks
        .pattern
        .as_ref()
        .filter(|pattern| !pattern.is_match(text))
    {
        errors.push(FieldError::invalid(
            path,
            value.clone(),
            format!("{path} in body should match '{pattern}'"),
        ));
    }
}

fn check_count(
    count: usize,
    least: Option<u64>,
    most: Option<u64>,
    path: &str,
    what: &str,
    errors: &mut Vec<FieldError>,
) {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if let Some(least) = least.filter(|least| count < *least) {
        let message = format!("{path} in body should have at least {least} {what}");
        errors.push(FieldError::invalid(path, Value::from(count), message));
    }
    if let Some(most) = most.filter(|most| count > *most) {
        errors.push(FieldError::new(
            FieldErrorKind::TooMany,
            path,
            format!("{count}: must have at most {most} {what}"),
        ));
    }
}

/// Lists of type `map` must not hold two entries with the same keys, sets not the same entry twice.
fn check_list_keys(list: &[Value], schema: &Schema, path: &str, errors: &mut Vec<FieldError>) {
    let repeated = match schema.list_type.as_deref() {
        Some("map") => duplicates(list.iter().map(|item| {
            let keys: Vec<String> = schema
                .list_keys
                .iter()
                .map(|key| item.get(key).unwrap_or(&Value::Null).to_string())
                .collect();
            keys.join("\n")
        })),
        Some("set") => duplicates(list.iter().map(Value::to_string)),
        _ => return,
    };
    for index in repeated.into_iter().take(MOST_ERRORS) {
        let value = list.get(index).cloned();
        errors.push(FieldError {
            value,
            ..FieldError::new(FieldErrorKind::Duplicate, format!("{path}[{index}]"), "")
        });
    }
}

/// The indexes of entries that occurred before; by their text, so that long lists stay cheap.
fn duplicates(entries: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen = HashSet::new();
    entries
        .enumerate()
        .filter_map(|(index, entry)| (!seen.insert(entry)).then_some(index))
        .collect()
}

fn check_combinations(
    value: &Value,
    schema: &Schema,
    path: &str,
    root: bool,
    errors: &mut Vec<FieldError>,
) {
    let problems = |schema: &Schema| {
        let mut found = Vec::new();
        check(value, schema, path, root, &mut found);
        found
    };
    for each in &schema.all_of {
        errors.extend(problems(each));
    }
    let invalid =
        |text: &str| FieldError::invalid(path, value.clone(), format!("{path} in body {text}"));
    // int-or-string carries an anyOf of two types that says nothing new.
    if !schema.any_of.is_empty()
        && !schema.int_or_string
        && !schema.any_of.iter().any(|each| problems(each).is_empty())
    {
        errors.push(invalid("must validate at least one schema (anyOf)"));
    }
    if !schema.one_of.is_empty() {
        match schema
            .one_of
            .iter()
            .filter(|each| problems(each).is_empty())
            .count()
        {
            1 => {}
            0 => errors.push(invalid(
                "must validate one and only one schema (oneOf). Found none valid",
            )),
            n => errors.push(invalid(&format!(
                "must validate one and only one schema (oneOf). Found {n} valid alternatives"
            ))),
        }
    }
    if schema
        .not
        .as_ref()
        .is_some_and(|not| problems(not).is_empty())
    {
        errors.push(invalid("must not validate the schema (not)"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(schema: Value, value: Value) -> Vec<String> {
        let schema =
            Schema::compile(&json!({"type": "object", "properties": {"spec": schema}})).unwrap();
        validate(&json!({"spec": value}), &schema)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn table() {
        for (schema, value, expected) in [
            (json!({"type": "integer"}), json!(1), ""),
            (json!({"type": "integer"}), json!(1.0), ""),
            (
                json!({"type": "integer"}),
                json!("x"),
                "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\"",
            ),
            (
                json!({"type": "string"}),
                Value::Null,
                "spec: Invalid value: \"null\": spec in body must be of type string: \"null\"",
            ),
            (
                json!({"type": "string", "nullable": true, "enum": ["a"]}),
                Value::Null,
                "",
            ),
            (
                json!({"type": "integer", "maximum": 32.0}),
                json!(99),
                "spec: Invalid value: 99: spec in body should be less than or equal to 32",
            ),
            (
                json!({"type": "integer", "minimum": 20, "exclusiveMinimum": true}),
                json!(20),
                "spec: Invalid value: 20: spec in body should be greater than 20",
            ),
            (
                json!({"type": "string", "enum": ["A", "B"]}),
                json!("C"),
                "spec: Unsupported value: \"C\": supported values: \"A\", \"B\"",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                "spec: Invalid value: \"b\": spec in body should match '^a+$'",
            ),
            (
                json!({"type": "string", "maxLength": 1}),
                json!("bé"),
                "spec: Too long: may not be more than 1 bytes",
            ),
            (
                json!({"type": "object", "required": ["cidr"]}),
                json!({}),
                "spec.cidr: Required value",
            ),
            (
                json!({"type": "array", "maxItems": 1}),
                json!([1, 2]),
                "spec: Too many: 2: must have at most 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                json!(["a", 1]),
                "spec[1]: Invalid value: \"integer\": spec[1] in body must be of type string: \"integer\"",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                json!({"k": 1}),
                "spec.k: Invalid value: \"integer\": spec.k in body must be of type string: \"integer\"",
            ),
            (
                json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
                json!("80"),
                "",
            ),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                "spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
            ),
            (
                json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}),
                json!([{"n": 1}, {"n": 1}]),
                "spec[1]: Duplicate value: {\"n\":1}",
            ),
            (
                json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({"a": 1}),
                "",
            ),
            (
                json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({"a": 1, "b": 1}),
                "spec: Invalid value: {\"a\":1,\"b\":1}: spec in body must validate one and only one schema (oneOf). Found 2 valid alternatives",
            ),
            (
                json!({"not": {"required": ["a"]}}),
                json!({"a": 1}),
                "spec: Invalid value: {\"a\":1}: spec in body must not validate the schema (not)",
            ),
        ] {
            assert_eq!(
                errors(schema.clone(), value.clone()).join("; "),
                expected,
                "{schema} {value}"
            );
        }
    }

    #[test]
    fn a_pattern_that_does_not_compile_names_its_place() {
        let error =
            Schema::compile(&json!({"properties": {"spec": {"pattern": "("}}})).unwrap_err();
        assert!(
            error.starts_with("openAPIV3Schema.properties[spec].pattern"),
            "{error}"
        );
    }

    #[test]
    fn errors_are_bounded() {
        let value: Vec<Value> = (0..10_000).map(|_| json!(1)).collect();
        assert!(
            errors(
                json!({"type": "array", "items": {"type": "string"}}),
                json!(value)
            )
            .len()
                <= MOST_ERRORS
        );
    }
}

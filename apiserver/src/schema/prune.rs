//! Removing fields a schema does not know. Pure.

use serde_json::Value;

use super::{Additional, Schema, is_type_meta, join};

/// Removes every field of `object` the schema neither names nor preserves; answers their paths.
pub fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut removed = Vec::new();
    walk(object, schema, true, "", &mut removed);
    removed
}

fn walk(value: &mut Value, schema: &Schema, root: bool, path: &str, removed: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let type_meta = root || schema.embedded_resource;
            map.retain(|field, child| {
                if type_meta && is_type_meta(field) {
                    return true;
                }
                if let Some(property) = schema.properties.get(field) {
                    walk(child, property, false, &join(path, field), removed);
                    return true;
                }
                match &schema.additional {
                    Additional::Schema(values) => {
                        walk(child, values, false, &join(path, field), removed);
                        true
                    }
                    Additional::Any => true,
                    Additional::Unsaid if schema.preserve_unknown => true,
                    Additional::Unsaid => {
                        removed.push(join(path, field));
                        false
                    }
                }
            });
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, item) in list.iter_mut().enumerate() {
                    walk(item, items, false, &format!("{path}[{index}]"), removed);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_schema_knows_stays() {
        let schema = Schema::compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"inner": {"type": "object"}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
            }},
        }})).unwrap();
        let mut object = json!({"apiVersion": "v", "kind": "k", "metadata": {"name": "x"}, "junk": 1, "spec": {
            "a": "1", "b": 2, "open": {"any": 1, "inner": {"gone": 1}}, "map": {"x": {"k": "1", "l": 2}}, "list": [{"k": "1"}, {"l": 1}],
        }});
        let mut removed = prune(&mut object, &schema);
        removed.sort();
        assert_eq!(
            removed,
            [
                "junk",
                "spec.b",
                "spec.list[1].l",
                "spec.map.x.l",
                "spec.open.inner.gone"
            ]
        );
        assert_eq!(
            object["spec"],
            json!({"a": "1", "open": {"any": 1, "inner": {}}, "map": {"x": {"k": "1"}}, "list": [{"k": "1"}, {}]})
        );
    }
}

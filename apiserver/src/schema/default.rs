//! Filling in defaults. Pure.

use serde_json::Value;

use super::{Additional, Schema};

/// Sets every absent field that has a default, from the root inwards; `null` where null is not allowed counts as absent.
pub fn fill(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (field, property) in &schema.properties {
                let Some(default) = &property.default else {
                    continue;
                };
                match map.get(field) {
                    None => {
                        map.insert(field.clone(), default.clone());
                    }
                    Some(Value::Null) if !property.nullable => {
                        map.insert(field.clone(), default.clone());
                    }
                    Some(_) => {}
                }
            }
            for (field, child) in map.iter_mut() {
                match (schema.properties.get(field), &schema.additional) {
                    (Some(property), _) => fill(child, property),
                    (None, Additional::Schema(values)) => fill(child, values),
                    _ => {}
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|item| fill(item, items));
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
    fn defaults_reach_into_defaults_lists_and_maps() {
        let schema = Schema::compile(&json!({"type": "object", "properties": {"spec": {"type": "object", "default": {}, "properties": {
            "size": {"type": "integer", "default": 26},
            "mode": {"type": "string", "nullable": true, "default": "Never"},
            "list": {"type": "array", "items": {"type": "object", "properties": {"on": {"type": "boolean", "default": true}}}},
            "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}},
        }}}})).unwrap();
        let mut empty = json!({});
        fill(&mut empty, &schema);
        assert_eq!(empty, json!({"spec": {"size": 26, "mode": "Never"}}));
        let mut given = json!({"spec": {"size": null, "mode": null, "list": [{}, {"on": false}], "map": {"a": {}}}});
        fill(&mut given, &schema);
        assert_eq!(
            given,
            json!({"spec": {"size": 26, "mode": null, "list": [{"on": true}, {"on": false}], "map": {"a": {"n": 1}}}})
        );
    }
}

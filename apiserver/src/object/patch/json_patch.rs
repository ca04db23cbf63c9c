//! JSON patch, RFC 6902, with JSON pointers as in RFC 6901.

use serde_json::Value;

use super::PatchError;

/// More operations than any client sends; the same bound as kube-apiserver's.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes all `copy` operations of a patch may copy together; each could otherwise double the object.
const MAX_COPIED: usize = 3 << 20;

/// Applies all operations in order; on an error `target` is left half-changed and must be thrown away.
///
/// # Errors
/// [`PatchError::Malformed`] for a patch that is no list of operations, [`PatchError::DoesNotApply`] for a path that does not
/// exist or a `test` that fails.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), PatchError> {
    let operations = patch
        .as_array()
        .ok_or_else(|| malformed("a JSON patch is a list of operations"))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(malformed("a JSON patch may hold at most 10000 operations"));
    }
    let mut copied = 0;
    operations
        .iter()
        .try_for_each(|operation| step(target, operation, &mut copied))
}

fn malformed(text: &str) -> PatchError {
    PatchError::Malformed(text.to_owned())
}

fn step(target: &mut Value, operation: &Value, total: &mut usize) -> Result<(), PatchError> {
    let field = |name: &str| operation.get(name).and_then(Value::as_str);
    let path = field("path").ok_or_else(|| malformed("a JSON patch operation needs a path"))?;
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| malformed("this JSON patch operation needs a value"))
    };
    let from = || field("from").ok_or_else(|| malformed("this JSON patch operation needs a from"));
    match field("op") {
        Some("add") => add(target, path, value()?),
        Some("remove") => remove(target, path).map(drop),
        Some("replace") => {
            let slot = target
                .pointer_mut(path)
                .ok_or_else(|| missing("replace", path))?;
            *slot = value()?;
            Ok(())
        }
        Some("move") => {
            let from = from()?;
            if path
                .strip_prefix(from)
                .is_some_and(|rest| rest.starts_with('/'))
            {
                return Err(PatchError::DoesNotApply(format!(
                    "move operation: {from:?} cannot move into itself"
                )));
            }
            let moved = remove(target, from)?;
            add(target, path, moved)
        }
        Some("copy") => {
            let from = from()?;
            let copied = target
                .pointer(from)
                .cloned()
                .ok_or_else(|| missing("copy", from))?;
            *total += copied.to_string().len();
            if *total > MAX_COPIED {
                return Err(malformed(
                    "the copy operations of this JSON patch copy more than 3 MiB",
                ));
            }
            add(target, path, copied)
        }
        Some("test") => match target.pointer(path) {
            found if found.unwrap_or(&Value::Null) == &value()? => Ok(()),
            _ => Err(PatchError::DoesNotApply(format!(
                "testing value {path} failed"
            ))),
        },
        other => Err(PatchError::Malformed(format!(
            "unexpected JSON patch operation {:?}",
            other.unwrap_or_default()
        ))),
    }
}

fn missing(operation: &str, path: &str) -> PatchError {
    PatchError::DoesNotApply(format!(
        "{operation} operation does not apply: doc is missing path: {path:?}"
    ))
}

/// Parent pointer and unescaped last token.
fn split(path: &str) -> Result<(&str, String), PatchError> {
    let (parent, token) = path.rsplit_once('/').ok_or_else(|| {
        PatchError::Malformed(format!(
            "{path:?} is not a JSON pointer: it must start with '/'"
        ))
    })?;
    Ok((parent, token.replace("~1", "/").replace("~0", "~")))
}

fn index(token: &str, end: usize) -> Option<usize> {
    let plain =
        token == "0" || (!token.starts_with('0') && token.bytes().all(|c| c.is_ascii_digit()));
    if plain {
        token.parse().ok().filter(|&i: &usize| i <= end)
    } else {
        None
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Result<(), PatchError> {
    if path.is_empty() {
        *target = value;
        return Ok(());
    }
    let (parent, token) = split(path)?;
    match target
        .pointer_mut(parent)
        .ok_or_else(|| missing("add", path))?
    {
        Value::Object(map) => {
            map.insert(token, value);
        }
        Value::Array(list) if token == "-" => list.push(value),
        Value::Array(list) => {
            let at = index(&token, list.len()).ok_or_else(|| missing("add", path))?;
            list.insert(at, value);
        }
        _ => return Err(missing("add", path)),
    }
    Ok(())
}

fn remove(target: &mut Value, path: &str) -> Result<Value, PatchError> {
    if path.is_empty() {
        return Ok(std::mem::take(target));
    }
    let (parent, token) = split(path)?;
    let removed = match target.pointer_mut(parent) {
        Some(Value::Object(map)) => map.remove(&token),
        Some(Value::Array(list)) => index(&token, list.len())
            .filter(|&at| at < list.len())
            .map(|at| list.remove(at)),
        _ => None,
    };
    removed.ok_or_else(|| missing("remove", path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rfc_examples() {
        for (target, patch, result) in [
            (
                json!({"foo":"bar"}),
                json!([{"op":"add","path":"/baz","value":"qux"}]),
                json!({"baz":"qux","foo":"bar"}),
            ),
            (
                json!({"foo":["a","b"]}),
                json!([{"op":"add","path":"/foo/1","value":"c"}]),
                json!({"foo":["a","c","b"]}),
            ),
            (
                json!({"baz":1,"foo":2}),
                json!([{"op":"remove","path":"/baz"}]),
                json!({"foo":2}),
            ),
            (
                json!({"foo":[1,2,3]}),
                json!([{"op":"remove","path":"/foo/1"}]),
                json!({"foo":[1,3]}),
            ),
            (
                json!({"a":1}),
                json!([{"op":"replace","path":"/a","value":2}]),
                json!({"a":2}),
            ),
            (
                json!({"a":{"b":1},"c":{}}),
                json!([{"op":"move","from":"/a/b","path":"/c/d"}]),
                json!({"a":{},"c":{"d":1}}),
            ),
            (
                json!({"a":[1,2,3]}),
                json!([{"op":"move","from":"/a/0","path":"/a/2"}]),
                json!({"a":[2,3,1]}),
            ),
            (
                json!({"a":1}),
                json!([{"op":"copy","from":"/a","path":"/b"}]),
                json!({"a":1,"b":1}),
            ),
            (
                json!({"a":1}),
                json!([{"op":"test","path":"/a","value":1}]),
                json!({"a":1}),
            ),
            (
                json!({"a":[1]}),
                json!([{"op":"add","path":"/a/-","value":2}]),
                json!({"a":[1,2]}),
            ),
            (
                json!({"/":9,"~1":10}),
                json!([{"op":"test","path":"/~01","value":10}]),
                json!({"/":9,"~1":10}),
            ),
            (
                json!({"m":{"x/y":1}}),
                json!([{"op":"remove","path":"/m/x~1y"}]),
                json!({"m":{}}),
            ),
        ] {
            let mut patched = target.clone();
            apply(&mut patched, &patch)
                .unwrap_or_else(|error| panic!("{target} + {patch}: {error}"));
            assert_eq!(patched, result, "{target} + {patch}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (target, patch) in [
            (json!({}), json!([{"op":"remove","path":"/a"}])),
            (json!({}), json!([{"op":"replace","path":"/a","value":1}])),
            (json!({}), json!([{"op":"add","path":"/a/b","value":1}])),
            (
                json!({"a":[1]}),
                json!([{"op":"add","path":"/a/2","value":1}]),
            ),
            (json!({"a":[1]}), json!([{"op":"remove","path":"/a/01"}])),
            (json!({"a":1}), json!([{"op":"test","path":"/a","value":2}])),
            (
                json!({"a":{}}),
                json!([{"op":"move","from":"/a","path":"/a/b"}]),
            ),
        ] {
            let error = apply(&mut target.clone(), &patch).unwrap_err();
            assert!(
                matches!(error, PatchError::DoesNotApply(_)),
                "{patch}: {error}"
            );
        }
        for patch in [
            json!({}),
            json!([{"op":"add"}]),
            json!([{"op":"x","path":"/a"}]),
            json!([{"op":"add","path":"a","value":1}]),
        ] {
            let error = apply(&mut json!({"a":1}), &patch).unwrap_err();
            assert!(
                matches!(error, PatchError::Malformed(_)),
                "{patch}: {error}"
            );
        }
    }

    #[test]
    fn copies_cannot_double_for_ever() {
        let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
        let patch = Value::Array(vec![double; 64]);
        let error = apply(&mut json!({"a": ["x"]}), &patch).unwrap_err();
        assert!(matches!(error, PatchError::Malformed(_)), "{error}");
    }
}

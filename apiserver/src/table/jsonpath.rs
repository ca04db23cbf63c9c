//! The JSONPath subset of printer columns: `.a.b`, `['a']`, `.a\.b`, `[0]`, `[*]`, `[?(@.type=="Ready")]`.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
    All,
    Where(Vec<String>, Option<Value>),
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

impl JsonPath {
    /// The path of plain field names.
    pub fn of(fields: &[&str]) -> Self {
        Self {
            steps: fields
                .iter()
                .map(|field| Step::Field((*field).to_owned()))
                .collect(),
        }
    }

    /// Parses a path, with or without the surrounding braces.
    ///
    /// # Errors
    /// A sentence about the first part that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text.trim();
        let inner = inner
            .strip_prefix('{')
            .and_then(|t| t.strip_suffix('}'))
            .unwrap_or(inner);
        let mut rest = inner.strip_prefix('$').unwrap_or(inner);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) =
                step(rest).ok_or_else(|| format!("{text:?} is not understood at {rest:?}"))?;
            steps.extend(step);
            rest = after;
        }
        if steps.is_empty() {
            Err(format!("{text:?} names no field"))
        } else {
            Ok(Self { steps })
        }
    }

    /// Every value the path leads to.
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        self.steps.iter().fold(vec![root], |found, step| {
            found
                .into_iter()
                .flat_map(|value| -> Vec<&'a Value> {
                    match step {
                        Step::Field(field) => value.get(field).into_iter().collect(),
                        Step::Index(index) => value.get(index).into_iter().collect(),
                        Step::All => children(value),
                        Step::Where(path, wanted) => {
                            let holds = |child: &&'a Value| {
                                let found = path
                                    .iter()
                                    .try_fold(*child, |value, field| value.get(field));
                                match wanted {
                                    Some(wanted) => found == Some(wanted),
                                    None => found.is_some(),
                                }
                            };
                            children(value).into_iter().filter(holds).collect()
                        }
                    }
                })
                .collect()
        })
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// The first step of `text` and what follows it.
fn step(text: &str) -> Option<(Option<Step>, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        if rest.is_empty() || rest.starts_with('[') {
            return Some((None, rest));
        }
        if let Some(rest) = rest.strip_prefix('*') {
            return Some((Some(Step::All), rest));
        }
        let (field, rest) = field(rest);
        return (!field.is_empty()).then_some((Some(Step::Field(field)), rest));
    }
    let inside = text.strip_prefix('[')?;
    if let Some(filter) = inside.strip_prefix("?(") {
        let (condition, rest) = filter.split_once(")]")?;
        return Some((Some(condition_step(condition)?), rest));
    }
    for quote in ['\'', '"'] {
        if let Some(quoted) = inside.strip_prefix(quote) {
            let (name, rest) = quoted.split_once(quote)?;
            return Some((
                Some(Step::Field(name.replace("\\.", "."))),
                rest.strip_prefix(']')?,
            ));
        }
    }
    let (index, rest) = inside.split_once(']')?;
    match index {
        "*" => Some((Some(Step::All), rest)),
        index => Some((Some(Step::Index(index.parse().ok()?)), rest)),
    }
}

/// A field name up to the next unescaped `.` or `[`.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => name.extend(characters.next().map(|(_, c)| c)),
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            c => name.push(c),
        }
    }
    (name, "")
}

fn condition_step(condition: &str) -> Option<Step> {
    let fields = |path: &str| {
        let path = path.trim().strip_prefix("@.")?;
        Some(path.split('.').map(str::to_owned).collect::<Vec<_>>())
    };
    let Some((path, wanted)) = condition.split_once("==") else {
        return Some(Step::Where(fields(condition)?, None));
    };
    let wanted = wanted.trim();
    let text = ['"', '\'']
        .iter()
        .find_map(|&q| wanted.strip_prefix(q)?.strip_suffix(q));
    let wanted = match text {
        Some(text) => Value::from(text),
        None => serde_json::from_str(wanted).ok()?,
    };
    Some(Step::Where(fields(path)?, Some(wanted)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn table() {
        let value = json!({"a": {"b": 1, "x.y": 2}, "l": [{"t": "A", "s": 3}, {"t": "B", "s": 4}], "m": {"margay.dev/z": 5}});
        for (path, expected) in [
            (".a.b", json!([1])),
            ("{.a.b}", json!([1])),
            ("$.a.b", json!([1])),
            (r".a.x\.y", json!([2])),
            (".a['x.y']", json!([2])),
            (".l[0].s", json!([3])),
            (".l[*].s", json!([3, 4])),
            (".l[?(@.t==\"B\")].s", json!([4])),
            (".l[?(@.t=='A')].s", json!([3])),
            (".l[?(@.s==4)].t", json!(["B"])),
            (".l[?(@.q)].t", json!([])),
            (r".m.margay\.dev/z", json!([5])),
            (".absent.b", json!([])),
        ] {
            assert_eq!(
                json!(JsonPath::parse(path).unwrap().find(&value)),
                expected,
                "{path}"
            );
        }
        for bad in ["", "a", ".a[", ".a[x]", ".a[?(b)]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}

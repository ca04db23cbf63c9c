//! Label selectors: `a=b,c!=d,e in (f,g),h notin (i),j,!k`, also `=`/`==` and the numeric `>`/`<`.

use serde_json::{Map, Value};

use crate::object::names;

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Greater(i64),
    Less(i64),
}

/// A parsed `labelSelector`; the empty selector selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

impl LabelSelector {
    /// Parses the text of a `labelSelector` parameter.
    ///
    /// # Errors
    /// A sentence naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let requirements = split(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(requirement)
            .collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }

    /// Whether `labels` fulfil every requirement.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels
                .and_then(|labels| labels.get(&requirement.key))
                .and_then(Value::as_str);
            match &requirement.operator {
                Operator::In(values) => {
                    value.is_some_and(|value| values.iter().any(|v| v == value))
                }
                Operator::NotIn(values) => {
                    value.is_none_or(|value| !values.iter().any(|v| v == value))
                }
                Operator::Exists => value.is_some(),
                Operator::Absent => value.is_none(),
                Operator::Greater(bound) => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| v > *bound),
                Operator::Less(bound) => value
                    .and_then(|v| v.parse::<i64>().ok())
                    .is_some_and(|v| v < *bound),
            }
        })
    }
}

/// Splits at commas outside parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let made = |key: &str, operator| {
        let key = key.trim();
        match names::key(key) {
            Some(problem) => Err(format!(
                "unable to parse requirement {part:?}: key {key:?}: {problem}"
            )),
            None => Ok(Requirement {
                key: key.to_owned(),
                operator,
            }),
        }
    };
    if let Some(inner) = part.strip_suffix(')') {
        let (head, values) = inner
            .split_once('(')
            .ok_or_else(|| format!("unable to parse requirement {part:?}"))?;
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_owned()).collect();
        checked(part, &values)?;
        return match head.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => made(key, Operator::In(values)),
            Some((key, "notin")) => made(key, Operator::NotIn(values)),
            _ => Err(format!(
                "unable to parse requirement {part:?}: expected 'in' or 'notin' before '('"
            )),
        };
    }
    if let Some(key) = part.strip_prefix('!') {
        return made(key, Operator::Absent);
    }
    for (sign, negative) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(sign) {
            let values = vec![value.trim().to_owned()];
            checked(part, &values)?;
            return made(
                key,
                if negative {
                    Operator::NotIn(values)
                } else {
                    Operator::In(values)
                },
            );
        }
    }
    for (sign, greater) in [('>', true), ('<', false)] {
        if let Some((key, bound)) = part.split_once(sign) {
            let bound = bound.trim().parse().map_err(|_| {
                format!("unable to parse requirement {part:?}: {bound:?} is not a number")
            })?;
            return made(
                key,
                if greater {
                    Operator::Greater(bound)
                } else {
                    Operator::Less(bound)
                },
            );
        }
    }
    made(part, Operator::Exists)
}

fn checked(part: &str, values: &[String]) -> Result<(), String> {
    match values.iter().find_map(|value| names::label_value(value)) {
        Some(problem) => Err(format!("unable to parse requirement {part:?}: {problem}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn table() {
        let labels = json!({"app": "web", "tier": "1", "margay.dev/node": "n1"});
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app == web", true),
            ("app=db", false),
            ("app!=db", true),
            ("absent!=x", true),
            ("app in (db, web),tier", true),
            ("app notin (db,web)", false),
            ("absent notin (x)", true),
            ("!absent", true),
            ("!app", false),
            ("tier>0,tier<2", true),
            ("tier>1", false),
            ("margay.dev/node=n1", true),
        ] {
            let selector = LabelSelector::parse(text).unwrap();
            assert_eq!(selector.matches(labels.as_object()), expected, "{text}");
        }
        assert!(!LabelSelector::parse("app").unwrap().matches(None));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a b", "=x", "a in x", "a over (x)", "a>b", "a=b c", ")("] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }
}

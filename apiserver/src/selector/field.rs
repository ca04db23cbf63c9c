//! Field selectors: `metadata.name=x,status.phase!=Failed`. Only fields a resource declares may be used.

use serde_json::Value;

/// A parsed `fieldSelector`; the empty selector selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    path: Vec<String>,
    value: String,
    negated: bool,
}

impl FieldSelector {
    /// Parses the text of a `fieldSelector` parameter; `supported` says which fields the resource knows.
    ///
    /// # Errors
    /// A sentence naming the term that is malformed or the field that is not supported.
    pub fn parse(text: &str, supported: &dyn Fn(&str) -> bool) -> Result<Self, String> {
        let terms = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let (field, value, negated) = if let Some((field, value)) = part.split_once("!=") {
                    (field, value, true)
                } else if let Some((field, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                    (field, value, false)
                } else {
                    return Err(format!("invalid selector: {part:?}; can't understand it, write field=value or field!=value"));
                };
                let field = field.trim();
                if !supported(field) {
                    return Err(format!("field label not supported: {field}"));
                }
                Ok(Term { path: field.split('.').map(str::to_owned).collect(), value: value.trim().to_owned(), negated })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { terms })
    }

    /// The name the selector asks for, when it asks for one.
    pub fn wanted_name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| !term.negated && term.path == ["metadata", "name"])
            .map(|term| term.value.as_str())
    }

    /// Whether `object` fulfils every term; an absent field counts as the empty string.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let found = term
                .path
                .iter()
                .try_fold(object, |value, key| value.get(key));
            let equal = match found {
                Some(Value::String(text)) => *text == term.value,
                None | Some(Value::Null) => {
                    term.value.is_empty()
                        || (term.value == "false" && defaults_to_false(&term.path))
                }
                Some(Value::Bool(flag)) => term.value == if *flag { "true" } else { "false" },
                Some(other) => term
                    .value
                    .parse::<Value>()
                    .is_ok_and(|wanted| wanted == *other),
            };
            equal != term.negated
        })
    }
}

/// Booleans Kubernetes leaves out of the object when they are false.
fn defaults_to_false(path: &[String]) -> bool {
    path == ["spec", "unschedulable"] || path == ["spec", "hostNetwork"]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn table() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        for (text, expected) in [
            ("", true),
            ("metadata.name=p", true),
            ("metadata.name==q", false),
            (
                "spec.nodeName=n,status.phase!=Failed,status.phase!=Succeeded",
                true,
            ),
            ("spec.hostNetwork=false", true),
            ("spec.absent=", true),
            ("spec.absent!=", false),
        ] {
            assert_eq!(
                FieldSelector::parse(text, &|_| true).unwrap().matches(&pod),
                expected,
                "{text}"
            );
        }
        let error =
            FieldSelector::parse("spec.x=1", &|field| field == "metadata.name").unwrap_err();
        assert_eq!(error, "field label not supported: spec.x");
        assert!(FieldSelector::parse("nonsense", &|_| true).is_err());
    }
}

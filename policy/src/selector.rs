//! Kubernetes label selectors (`matchLabels`, `matchExpressions`) in a normal form that can be compared and shared.
//!
//! Calico's selector language is another thing and lives with the API types that use it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

pub use crate::labels::Labels;

/// One condition on one label key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The key is there and has one of the values.
    In(String, BTreeSet<String>),
    /// The key is absent or has none of the values.
    NotIn(String, BTreeSet<String>),
    /// The key is there.
    Exists(String),
    /// The key is absent.
    DoesNotExist(String),
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

/// All of its requirements must hold; without any it matches everything. A copy costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// Ascending, each once.
    requirements: Arc<[Requirement]>,
}

/// Why a label selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SelectorError {
    /// The path inside the selector, such as `matchExpressions[0].values`.
    pub field: String,
    /// What is wrong there.
    pub reason: String,
}

impl Selector {
    /// The selector that matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Whether it asks for nothing.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The selector that asks for exactly these labels.
    pub fn labels<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let requirements = pairs
            .into_iter()
            .map(|(key, value)| Requirement::In(key.into(), BTreeSet::from([value.into()])));
        Self::new(requirements)
    }

    /// A selector of these requirements.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let requirements: BTreeSet<Requirement> = requirements.into_iter().collect();
        Self {
            requirements: requirements.into_iter().collect(),
        }
    }

    /// Reads the API's form.
    ///
    /// # Errors
    /// An operator that is not In, NotIn, Exists or DoesNotExist; values where there must be none, or none where there
    /// must be some; an empty key.
    pub fn read(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = BTreeSet::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            check_key(key, "matchLabels")?;
            requirements.insert(Requirement::In(
                key.clone(),
                BTreeSet::from([value.clone()]),
            ));
        }
        for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
            requirements.insert(read_expression(
                expression,
                &format!("matchExpressions[{index}]"),
            )?);
        }
        Ok(Self::new(requirements))
    }

    /// The requirements, in their order.
    pub(crate) fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether nobody else holds this copy.
    pub(crate) fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.requirements) < 2
    }

    /// Whether these labels satisfy every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }
}

fn check_key(key: &str, field: &str) -> Result<(), SelectorError> {
    if key.is_empty() {
        return Err(SelectorError {
            field: field.to_owned(),
            reason: "a label key must not be empty".to_owned(),
        });
    }
    Ok(())
}

fn read_expression(
    expression: &LabelSelectorRequirement,
    path: &str,
) -> Result<Requirement, SelectorError> {
    let key = expression.key.clone();
    check_key(&key, &format!("{path}.key"))?;
    let values: BTreeSet<String> = expression.values.iter().flatten().cloned().collect();
    let wants_values = match expression.operator.as_str() {
        "In" | "NotIn" => true,
        "Exists" | "DoesNotExist" => false,
        other => {
            return Err(SelectorError {
                field: format!("{path}.operator"),
                reason: format!(
                    "{other:?} is not an operator: use In, NotIn, Exists or DoesNotExist"
                ),
            });
        }
    };
    if wants_values == values.is_empty() {
        let reason = if wants_values {
            format!("{} needs at least one value", expression.operator)
        } else {
            format!("{} takes no values", expression.operator)
        };
        return Err(SelectorError {
            field: format!("{path}.values"),
            reason,
        });
    }
    Ok(match expression.operator.as_str() {
        "In" => Requirement::In(key, values),
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        _ => Requirement::DoesNotExist(key),
    })
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("everything");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(", ");
        match self {
            Self::In(key, values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Self::In(key, values) => write!(f, "{key} in ({})", list(values)),
            Self::NotIn(key, values) => write!(f, "{key} notin ({})", list(values)),
            Self::Exists(key) => f.write_str(key),
            Self::DoesNotExist(key) => write!(f, "!{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            ..LabelSelector::default()
        }
    }

    #[test]
    fn operators_follow_the_api_text() {
        let cases: [(&str, &[&str], [bool; 3]); 4] = [
            // Against app=a, app=b and no label at all.
            ("In", &["a"], [true, false, false]),
            ("NotIn", &["a"], [false, true, true]),
            ("Exists", &[], [true, true, false]),
            ("DoesNotExist", &[], [false, false, true]),
        ];
        for (operator, values, expected) in cases {
            let selector = Selector::read(&expression("app", operator, values)).unwrap();
            let found = [
                labels(&[("app", "a")]),
                labels(&[("app", "b")]),
                labels(&[]),
            ]
            .map(|labels| selector.matches(&labels));
            assert_eq!(found, expected, "{operator}");
        }
        assert!(
            Selector::read(&LabelSelector::default())
                .unwrap()
                .matches(&labels(&[]))
        );
    }

    #[test]
    fn broken_expressions_are_named() {
        for (operator, values, message) in [
            (
                "In",
                &[][..],
                "matchExpressions[0].values: In needs at least one value",
            ),
            (
                "Exists",
                &["a"][..],
                "matchExpressions[0].values: Exists takes no values",
            ),
            (
                "Equals",
                &["a"][..],
                "matchExpressions[0].operator: \"Equals\" is not an operator: use In, NotIn, Exists or DoesNotExist",
            ),
        ] {
            let error = Selector::read(&expression("app", operator, values)).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn equal_conditions_written_differently_are_one_selector() {
        let by_labels = Selector::labels([("app", "a")]);
        assert_eq!(
            Selector::read(&expression("app", "In", &["a"])).unwrap(),
            by_labels
        );
        assert_eq!(by_labels.to_string(), "app=a");
    }
}

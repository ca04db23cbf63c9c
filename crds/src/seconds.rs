//! A time in an object: a number of seconds, or a duration as Kubernetes writes them (`90s`, `1m30s`).

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::field::FieldError;

/// What people write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Seconds {
    /// Seconds. Of what a server takes everything can be read, so that one wrong object is refused and not the list it is in.
    Number(i64),
    /// A duration.
    Text(String),
}

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

impl Seconds {
    /// The time in whole seconds, `least` to `most`.
    pub(crate) fn check(&self, path: &str, least: u64, most: u64) -> Result<Duration, FieldError> {
        let seconds = match self {
            Self::Number(seconds) => u64::try_from(*seconds).ok(),
            Self::Text(text) => parse(text),
        };
        match seconds {
            Some(seconds) if (least..=most).contains(&seconds) => Ok(Duration::from_secs(seconds)),
            _ => Err(FieldError::invalid(
                path,
                self,
                format!(
                    "must be {least} to {most} seconds, as a number or as a duration such as 90s or 1m30s"
                ),
            )),
        }
    }
}

/// Hours, minutes and seconds, each at most once and in that order.
fn parse(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    for (unit, worth) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((number, after)) = rest.split_once(unit) else {
            continue;
        };
        let digits = !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit());
        let number: u64 = digits.then(|| number.parse().ok())??;
        total = total.checked_add(number.checked_mul(worth)?)?;
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations() {
        for (json, seconds) in [
            ("90", Some(90)),
            ("\"90s\"", Some(90)),
            ("\"1m30s\"", Some(90)),
            ("\"1h\"", Some(3600)),
            ("\"\"", None),
            ("\"90\"", None),
            ("\"1.5s\"", None),
            ("\"1s1s\"", None),
            ("\"-1s\"", None),
            ("\"99999999999999999999h\"", None),
            ("2", None),
            ("70000", None),
        ] {
            let value: Seconds = serde_json::from_str(json).unwrap();
            let checked = value.check("spec.x", 3, 65_535);
            assert_eq!(checked.ok().map(|time| time.as_secs()), seconds, "{json}");
        }
    }
}

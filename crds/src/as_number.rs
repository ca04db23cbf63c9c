//! AS numbers in objects: a number, the dotted text of RFC 5396, or for a peer what it is to us.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::field::FieldError;

/// What people write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AsNumber {
    /// A number. Of what a server takes everything can be read, so that one wrong object is refused and not the list it is in.
    Number(i64),
    /// `64512`, `1.10`, and where a peer is meant `internal` or `external`.
    Text(String),
}

/// The AS a peer must present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerAs {
    /// This one.
    Number(u32),
    /// The node's own.
    Internal,
    /// Any but the node's own.
    External,
}

impl JsonSchema for AsNumber {
    fn schema_name() -> Cow<'static, str> {
        "AsNumber".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

impl AsNumber {
    /// The AS of a peer.
    pub(crate) fn check_peer(&self, path: &str) -> Result<PeerAs, FieldError> {
        match self {
            Self::Text(text) if text == "internal" => Ok(PeerAs::Internal),
            Self::Text(text) if text == "external" => Ok(PeerAs::External),
            _ => self
                .check(path, ", internal or external")
                .map(PeerAs::Number),
        }
    }

    /// An AS by its number.
    pub(crate) fn check_number(&self, path: &str) -> Result<u32, FieldError> {
        self.check(path, "")
    }

    fn check(&self, path: &str, others: &str) -> Result<u32, FieldError> {
        let number = match self {
            Self::Number(number) => u32::try_from(*number).ok(),
            Self::Text(text) => parse_as_number(text),
        };
        let Some(number) = number else {
            let words = format!("must be an AS number such as 64512 or 1.10{others}");
            return Err(FieldError::invalid(path, self, words));
        };
        check_as_number(path, number)
    }
}

/// `64512` or, in halves of 16 bits, `1.10`.
#[must_use]
pub fn parse_as_number(text: &str) -> Option<u32> {
    // `parse` would take a sign.
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_digit());
    match text.split_once('.') {
        None => digits(text).then(|| text.parse().ok())?,
        Some((high, low)) => {
            let half = |part: &str| digits(part).then(|| part.parse::<u16>().ok())?;
            Some((u32::from(half(high)?) << 16) | u32::from(half(low)?))
        }
    }
}

/// As [`parse_as_number`], if a speaker may have the number as its own.
#[must_use]
pub fn parse_own_as_number(text: &str) -> Option<u32> {
    check_as_number("", parse_as_number(text)?).ok()
}

/// An AS number that may stand in an OPEN: not 0 (RFC 7607), not AS_TRANS (RFC 6793 section 9),
/// not 65535 (RFC 7300).
pub(crate) fn check_as_number(path: &str, value: u32) -> Result<u32, FieldError> {
    match value {
        0 => Err(FieldError::invalid(path, value, "must be 1 to 4294967294")),
        23456 => Err(FieldError::invalid(
            path,
            value,
            "is AS_TRANS, which no speaker may use",
        )),
        65535 | u32::MAX => Err(FieldError::invalid(path, value, "is reserved by RFC 7300")),
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_numbers_are_nobodys_own() {
        assert_eq!(parse_own_as_number("1.10"), Some(65_546));
        for text in ["0", "23456", "65535", "4294967295", "many"] {
            assert_eq!(parse_own_as_number(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_dotted_and_plain() {
        for (json, number) in [
            ("64512", Some(PeerAs::Number(64_512))),
            ("\"64512\"", Some(PeerAs::Number(64_512))),
            ("\"1.10\"", Some(PeerAs::Number(65_546))),
            ("\"internal\"", Some(PeerAs::Internal)),
            ("\"external\"", Some(PeerAs::External)),
            ("\"1.65536\"", None),
            ("\"1.\"", None),
            ("\"+1\"", None),
            ("\"any\"", None),
            ("0", None),
            ("23456", None),
            ("\"0.65535\"", None),
        ] {
            let value: AsNumber = serde_json::from_str(json).unwrap();
            assert_eq!(value.check_peer("spec.asNumber").ok(), number, "{json}");
        }
        let text = AsNumber::Text("internal".to_owned());
        assert!(text.check_number("spec.localASNumber").is_err());
    }
}

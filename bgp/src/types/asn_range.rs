//! Ranges of AS numbers: `64512` or `64512-65534`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

use super::Asn;

/// AS numbers from one to another, both included. Written as a number or as `LOW-HIGH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsnRange {
    /// The lowest.
    pub low: Asn,
    /// The highest.
    pub high: Asn,
}

impl AsnRange {
    /// Whether the range holds `asn`.
    #[must_use]
    pub fn contains(self, asn: Asn) -> bool {
        self.low <= asn && asn <= self.high
    }
}

impl From<Asn> for AsnRange {
    fn from(asn: Asn) -> Self {
        Self {
            low: asn,
            high: asn,
        }
    }
}

/// A text that is not a range of AS numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAsnRangeError {
    /// No numbers.
    #[error("{0:?} is neither an AS number nor a range such as 65100-65199")]
    Numbers(String),
    /// The wrong way round.
    #[error("{0:?}: the lower number comes first")]
    Order(String),
}

impl FromStr for AsnRange {
    type Err = ParseAsnRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        match (low.trim().parse(), high.trim().parse()) {
            (Ok(low), Ok(high)) if low <= high => Ok(Self { low, high }),
            (Ok(_), Ok(_)) => Err(ParseAsnRangeError::Order(text.to_owned())),
            _ => Err(ParseAsnRangeError::Numbers(text.to_owned())),
        }
    }
}

impl fmt::Display for AsnRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            self.low.fmt(f)
        } else {
            write!(f, "{}-{}", self.low, self.high)
        }
    }
}

impl Serialize for AsnRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.low == self.high {
            self.low.serialize(serializer)
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for AsnRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = AsnRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number or a range LOW-HIGH of them")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<AsnRange, E> {
                let number = u32::try_from(number);
                let number = number.map_err(|_| E::custom("an AS number is at most 4294967295"))?;
                Ok(Asn(number).into())
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<AsnRange, E> {
                let number = u64::try_from(number);
                self.visit_u64(number.map_err(|_| E::custom("an AS number is not negative"))?)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<AsnRange, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges() {
        let ranges: Vec<AsnRange> = serde_json::from_str(r#"[64512, "65100-65199", "7"]"#).unwrap();
        assert!(ranges[0].contains(Asn(64512)) && !ranges[0].contains(Asn(64513)));
        assert!(ranges[1].contains(Asn(65199)) && !ranges[1].contains(Asn(65200)));
        assert_eq!(
            serde_json::to_string(&ranges).unwrap(),
            r#"[64512,"65100-65199",7]"#
        );
        for text in ["\"9-1\"", "\"a\"", "-1", "4294967296", "\"1-2-3\"", "true"] {
            assert!(serde_json::from_str::<AsnRange>(text).is_err(), "{text}");
        }
    }
}

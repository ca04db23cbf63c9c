//! From the tree to values of types, by serde.
//!
//! What fits what is asked for is decided here, once for all types: a program for YAML that is made anew for each of them is
//! ten times the size. A fault gets the place of the node that it was found at. Words about a value that does not fit
//! never say the value: it may be a secret.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use super::tree::{Fault, Node, Value};

/// The value that is written.
///
/// # Errors
/// The first thing that does not fit, with its place.
pub(super) fn typed<T: DeserializeOwned>(node: &Node) -> Result<T, Fault> {
    T::deserialize(node).map_err(|fault| fault.at(node.place))
}

impl serde::de::Error for Fault {
    fn custom<T: std::fmt::Display>(words: T) -> Self {
        Self::new(words.to_string())
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Fault {}

/// A plain scalar as a number.
enum Number {
    Positive(u64),
    Negative(i64),
    Fraction(f64),
}

impl Node {
    fn wrong(&self, needed: &str) -> Fault {
        let written = match &self.value {
            Value::Map(_) => "a mapping",
            Value::List(_) => "a list",
            Value::Scalar { .. } if self.is_nothing() => "nothing",
            Value::Scalar { .. } => "another value",
        };
        Fault::new(format!("{needed} is needed here, {written} is written")).at(self.place)
    }

    fn plain(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, is_plain } if *is_plain => Some(text),
            _ => None,
        }
    }

    fn truth(&self) -> Option<bool> {
        match self.plain()? {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    /// By the core schema of YAML 1.2: decimal, 0o and 0x.
    fn number(&self) -> Option<Number> {
        let text = self.plain()?;
        let radix = |prefix, radix| {
            let digits = text.strip_prefix(prefix)?;
            u64::from_str_radix(digits, radix).ok()
        };
        if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
            return None;
        }
        if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
            return Some(Number::Positive(number));
        }
        let positive = text.parse().map(Number::Positive);
        let whole = positive.or_else(|_| text.parse().map(Number::Negative));
        whole.or_else(|_| text.parse().map(Number::Fraction)).ok()
    }

    fn words(&self) -> Result<&str, Fault> {
        match self.text() {
            Some(text) if !self.is_nothing() => Ok(text),
            _ => Err(self.wrong("a text")),
        }
    }

    fn fields(&self) -> Result<&[(Node, Node)], Fault> {
        match &self.value {
            Value::Map(fields) => Ok(fields),
            _ if self.is_nothing() => Ok(&[]),
            _ => Err(self.wrong("a mapping")),
        }
    }

    fn entries(&self) -> Result<&[Node], Fault> {
        match &self.value {
            Value::List(entries) => Ok(entries),
            _ if self.is_nothing() => Ok(&[]),
            _ => Err(self.wrong("a list")),
        }
    }

    fn visit_number<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Fault> {
        match self.number() {
            Some(Number::Positive(number)) => visitor.visit_u64(number),
            Some(Number::Negative(number)) => visitor.visit_i64(number),
            Some(Number::Fraction(number)) => visitor.visit_f64(number),
            None => Err(self.wrong("a number")),
        }
    }
}

macro_rules! by {
    ($method:ident: $($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.$method(visitor).map_err(|fault| fault.at(self.place))
        }
    )*};
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Map(_) => self.deserialize_map(visitor),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Scalar { .. } if self.is_nothing() => visitor.visit_unit(),
            Value::Scalar { text, .. } => match (self.truth(), self.number()) {
                (Some(truth), _) => visitor.visit_bool(truth),
                (None, Some(_)) => self.visit_number(visitor),
                (None, None) => visitor.visit_str(text),
            },
        }
        .map_err(|fault| fault.at(self.place))
    }

    by!(visit_number: deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let truth = self.truth().ok_or_else(|| self.wrong("true or false"))?;
        visitor
            .visit_bool::<Fault>(truth)
            .map_err(|fault| fault.at(self.place))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let visited = visitor.visit_str::<Fault>(self.words()?);
        visited.map_err(|fault| fault.at(self.place))
    }

    by!(deserialize_str: deserialize_string deserialize_char deserialize_bytes deserialize_byte_buf
        deserialize_identifier);

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_nothing() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_nothing() {
            visitor.visit_unit()
        } else {
            Err(self.wrong("nothing"))
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let visited = visitor.visit_newtype_struct(self);
        visited.map_err(|fault| fault.at(self.place))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = Entries(self.entries()?.iter());
        let visited = visitor.visit_seq(entries);
        visited.map_err(|fault| fault.at(self.place))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let fields = Fields {
            rest: self.fields()?.iter(),
            value: None,
        };
        let visited = visitor.visit_map(fields);
        visited.map_err(|fault| fault.at(self.place))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let variant = match &self.value {
            Value::Map(fields) => match fields.as_slice() {
                [(name, content)] => Variant {
                    name,
                    content: Some(content),
                },
                _ => return Err(self.wrong("a mapping with one field")),
            },
            Value::Scalar { .. } => Variant {
                name: self,
                content: None,
            },
            Value::List(_) => return Err(self.wrong("a word")),
        };
        let visited = visitor.visit_enum(variant);
        visited.map_err(|fault| fault.at(self.place))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

struct Entries<'t>(std::slice::Iter<'t, Node>);

impl<'de> SeqAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.0.next() else {
            return Ok(None);
        };
        let read = seed.deserialize(node);
        read.map(Some).map_err(|fault| fault.at(node.place))
    }
}

struct Fields<'t> {
    rest: std::slice::Iter<'t, (Node, Node)>,
    value: Option<&'t Node>,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        let read = seed.deserialize(key);
        read.map(Some).map_err(|fault| fault.at(key.place))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let node = self.value.take();
        let node = node.ok_or_else(|| Fault::new("a value is asked for before its name"))?;
        seed.deserialize(node).map_err(|fault| fault.at(node.place))
    }
}

/// One of several, with what belongs to it.
struct Variant<'t> {
    name: &'t Node,
    content: Option<&'t Node>,
}

impl<'t> Variant<'t> {
    fn content(self) -> Result<&'t Node, Fault> {
        let content = self.content;
        content.ok_or_else(|| Fault::new("more than this word is needed here").at(self.name.place))
    }
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name = self.name.words()?;
        let read = seed.deserialize(IntoDeserializer::<Fault>::into_deserializer(name));
        let read = read.map_err(|fault| fault.at(self.name.place))?;
        Ok((read, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        match self.content {
            Some(content) if !content.is_nothing() => Err(content.wrong("nothing")),
            _ => Ok(()),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        let content = self.content()?;
        seed.deserialize(content)
            .map_err(|fault| fault.at(content.place))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.content()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.content()?.deserialize_map(visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::super::tree::read;
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Whole {
        number: u16,
        #[serde(default)]
        text: Option<String>,
        #[serde(default)]
        list: Vec<i8>,
        #[serde(default)]
        truth: bool,
        #[serde(default)]
        by_name: BTreeMap<String, f64>,
        #[serde(default)]
        one: Option<One>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum One {
        Bare,
        With(u8),
        Fields {
            a: bool,
        },
        #[serde(untagged)]
        Other(String),
    }

    fn whole(text: &str) -> Result<Whole, Fault> {
        typed(&read(text).unwrap())
    }

    #[test]
    fn each_kind_of_value_is_read() {
        let text = "number: 0x10\ntext: 007\nlist: [-1, +2]\ntruth: true\nbyName: {a: 1, b: .5}\none: {with: 3}\n";
        let expected = Whole {
            number: 16,
            text: Some("007".to_owned()),
            list: vec![-1, 2],
            truth: true,
            by_name: BTreeMap::from([("a".to_owned(), 1.0), ("b".to_owned(), 0.5)]),
            one: Some(One::With(3)),
        };
        assert_eq!(whole(text).unwrap(), expected);
        for (more, one) in [
            ("one: bare", Some(One::Bare)),
            ("one: {fields: {a: false}}", Some(One::Fields { a: false })),
            ("one: else", Some(One::Other("else".to_owned()))),
            ("one:", None),
            ("list:\nbyName:", None),
        ] {
            assert_eq!(
                whole(&format!("number: 1\n{more}\n")).unwrap().one,
                one,
                "{more}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_told_at_its_place_and_not_shown() {
        for (text, words, place) in [
            (
                "number: hidden",
                "a number is needed here, another value is written",
                (1, 9),
            ),
            ("number: '1'", "a number is needed here", (1, 9)),
            ("number: 70000", "invalid value", (1, 9)),
            (
                "number: [hidden]",
                "a number is needed here, a list is written",
                (1, 9),
            ),
            (
                "number: 1\ntext: {hidden: 1}",
                "a text is needed here, a mapping",
                (2, 7),
            ),
            (
                "number: 1\ntruth: hidden",
                "true or false is needed here",
                (2, 8),
            ),
            ("number: 1\nlist: hidden", "a list is needed here", (2, 7)),
            (
                "number: 1\nlist:\n- 1\n- hidden",
                "a number is needed here",
                (4, 3),
            ),
            (
                "number: 1\nbyName: hidden",
                "a mapping is needed here",
                (2, 9),
            ),
            ("number: 1\nother: hidden", "unknown field `other`", (2, 1)),
            ("text: hidden", "missing field `number`", (1, 1)),
            (
                "- hidden",
                "a mapping is needed here, a list is written",
                (1, 1),
            ),
        ] {
            let fault = whole(text).unwrap_err();
            assert!(fault.words.starts_with(words), "{text}: {fault}");
            assert!(!fault.words.contains("hidden"), "{fault}");
            let at = fault.place.map(|place| (place.line, place.column));
            assert_eq!(at, Some(place), "{text}: {fault}");
        }
    }
}

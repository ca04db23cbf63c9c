//! The selector language: Calico's, so that people's selectors carry over.
//!
//! ```text
//! role == 'db' && (zone in {'a', 'b'} || !has(temporary)) && name starts with "x"
//! ```
//!
//! Grammar by rising strength: `||`, `&&`, `!`, then `( … )`, `all()`, `global()`, `has(key)`,
//! `key == 'v'`, `key != 'v'`, `key in { … }`, `key not in { … }`, `key contains 'v'`,
//! `key starts with 'v'`, `key ends with 'v'`. A key that an object does not carry makes `!=` and
//! `not in` true and everything else false. `global()` selects what is in no namespace: objects in
//! one carry [`NAMESPACE_KEY`] as a label of ours.
//!
//! Not here: label selectors as Kubernetes writes them in policies, and any index over objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while1};
use nom::character::complete::{char, multispace0, multispace1};
use nom::combinator::{map, not, peek, value};
use nom::multi::{many0, separated_list0};
use nom::sequence::{delimited, preceded, terminated};
use nom::{IResult, Parser};

use crate::field::FieldError;

/// The longest selector that is read, in bytes: as long as the CRDs allow.
pub const MAX_LENGTH: usize = 1024;
/// The label that whoever matches selectors gives every object in a namespace, with its name.
pub const NAMESPACE_KEY: &str = "projectcalico.org/namespace";
/// How deep parentheses and `!` may nest: far more than people write, far less than a stack.
const MAX_DEPTH: usize = 32;

/// A parsed selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(Expression);

/// The tree of a selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Expression {
    All,
    Global,
    Has(String),
    Equals(String, String),
    In(String, BTreeSet<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

impl Selector {
    /// The selector that matches everything.
    pub fn all() -> Self {
        Self(Expression::All)
    }

    /// The selector of objects that carry the label, whatever its value.
    pub fn has(key: impl Into<String>) -> Self {
        Self(Expression::Has(key.into()))
    }

    /// The selector of objects whose label has one of these values.
    pub fn any_of(key: impl Into<String>, values: BTreeSet<String>) -> Self {
        Self(Expression::In(key.into(), values))
    }

    /// The selector of what every one of these selects.
    pub fn all_of(selectors: impl IntoIterator<Item = Self>) -> Self {
        let mut parts: Vec<Expression> = selectors
            .into_iter()
            .map(|selector| selector.0)
            .filter(|part| *part != Expression::All)
            .collect();
        match (parts.pop(), parts.is_empty()) {
            (None, _) => Self::all(),
            (Some(only), true) => Self(only),
            (Some(last), false) => {
                parts.push(last);
                Self(Expression::And(parts))
            }
        }
    }

    /// The same selector over labels whose keys begin with `prefix` beside others.
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Self {
        Self(self.0.prefixed(prefix))
    }

    /// Whether it asks for what is in no namespace, and nothing else.
    pub fn is_global(&self) -> bool {
        self.0 == Expression::Global
    }

    /// Reads a selector; the empty text matches everything.
    ///
    /// # Errors
    /// A lowercase fragment that says at which character the text stops making sense.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("must be at most {MAX_LENGTH} characters"));
        }
        if text.trim().is_empty() {
            return Ok(Self::all());
        }
        match disjunction(text, 0) {
            Ok((rest, expression)) if rest.trim().is_empty() => Ok(Self(expression)),
            Ok((rest, _)) => Err(not_understood(text, rest)),
            Err(nom::Err::Error(error) | nom::Err::Failure(error)) => {
                Err(not_understood(text, error.input))
            }
            Err(nom::Err::Incomplete(_)) => Err("is cut off".to_owned()),
        }
    }

    /// Reads a selector that stands in a field.
    ///
    /// # Errors
    /// The field, with what [`Selector::parse`] says.
    pub fn parse_field(path: &str, text: &str) -> Result<Self, FieldError> {
        Self::parse(text).map_err(|message| FieldError::invalid(path, text, message))
    }

    /// Labels that whatever is selected carries, each with the values of which it has one where only some will do. There
    /// may be more to it: this is for finding what may be selected.
    pub fn needed(&self) -> Vec<(String, Option<BTreeSet<String>>)> {
        let mut needed = Vec::new();
        self.0.needed(&mut needed);
        needed
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &impl Tagged) -> bool {
        self.0.matches(labels)
    }
}

/// Something with labels.
pub trait Tagged {
    /// The value of the label with this key.
    fn value(&self, key: &str) -> Option<&str>;
}

impl Tagged for BTreeMap<String, String> {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

fn not_understood(text: &str, rest: &str) -> String {
    let at = text.len().saturating_sub(rest.trim_start().len());
    let here: String = rest.trim_start().chars().take(20).collect();
    if here.is_empty() {
        "ends too early: expected an expression such as role == 'db', has(role) or all()".to_owned()
    } else {
        format!(
            "is not understood at character {at} ({here:?}): expected an expression such as \
             role == 'db', has(role) or all()"
        )
    }
}

impl Expression {
    fn needed(&self, needed: &mut Vec<(String, Option<BTreeSet<String>>)>) {
        match self {
            Expression::Equals(key, v) => {
                needed.push((key.clone(), Some(BTreeSet::from([v.clone()]))));
            }
            Expression::In(key, set) => needed.push((key.clone(), Some(set.clone()))),
            Expression::Has(key)
            | Expression::Contains(key, _)
            | Expression::StartsWith(key, _)
            | Expression::EndsWith(key, _) => needed.push((key.clone(), None)),
            Expression::And(parts) => parts.iter().for_each(|part| part.needed(needed)),
            Expression::All | Expression::Global | Expression::Not(_) | Expression::Or(_) => {}
        }
    }

    fn matches(&self, labels: &impl Tagged) -> bool {
        let with = |key: &str, test: &dyn Fn(&str) -> bool| labels.value(key).is_some_and(test);
        match self {
            Expression::All => true,
            Expression::Global => labels.value(NAMESPACE_KEY).is_none(),
            Expression::Has(key) => labels.value(key).is_some(),
            Expression::Equals(key, wanted) => with(key, &|found| found == wanted),
            Expression::In(key, set) => with(key, &|found| set.contains(found)),
            Expression::Contains(key, part) => with(key, &|found| found.contains(part.as_str())),
            Expression::StartsWith(key, part) => {
                with(key, &|found| found.starts_with(part.as_str()))
            }
            Expression::EndsWith(key, part) => with(key, &|found| found.ends_with(part.as_str())),
            Expression::Not(inner) => !inner.matches(labels),
            Expression::And(parts) => parts.iter().all(|part| part.matches(labels)),
            Expression::Or(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }

    fn prefixed(&self, prefix: &str) -> Self {
        let key = |key: &String| format!("{prefix}{key}");
        let all = |parts: &[Expression]| parts.iter().map(|part| part.prefixed(prefix)).collect();
        match self {
            Expression::All => Expression::All,
            Expression::Global => Expression::Global,
            Expression::Has(k) => Expression::Has(key(k)),
            Expression::Equals(k, v) => Expression::Equals(key(k), v.clone()),
            Expression::In(k, set) => Expression::In(key(k), set.clone()),
            Expression::Contains(k, v) => Expression::Contains(key(k), v.clone()),
            Expression::StartsWith(k, v) => Expression::StartsWith(key(k), v.clone()),
            Expression::EndsWith(k, v) => Expression::EndsWith(key(k), v.clone()),
            Expression::Not(inner) => Expression::Not(Box::new(inner.prefixed(prefix))),
            Expression::And(parts) => Expression::And(all(parts)),
            Expression::Or(parts) => Expression::Or(all(parts)),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expression::All => f.write_str("all()"),
            Expression::Global => f.write_str("global()"),
            Expression::Has(key) => write!(f, "has({key})"),
            Expression::Equals(key, v) => write!(f, "{key} == {}", Quoted(v)),
            Expression::In(key, set) => {
                let values: Vec<String> = set.iter().map(|v| Quoted(v).to_string()).collect();
                write!(f, "{key} in {{{}}}", values.join(", "))
            }
            Expression::Contains(key, v) => write!(f, "{key} contains {}", Quoted(v)),
            Expression::StartsWith(key, v) => write!(f, "{key} starts with {}", Quoted(v)),
            Expression::EndsWith(key, v) => write!(f, "{key} ends with {}", Quoted(v)),
            Expression::Not(inner) => write!(f, "!({inner})"),
            Expression::And(parts) => write_joined(f, parts, " && "),
            Expression::Or(parts) => write_joined(f, parts, " || "),
        }
    }
}

fn write_joined(f: &mut fmt::Formatter<'_>, parts: &[Expression], word: &str) -> fmt::Result {
    f.write_str("(")?;
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        write!(f, "{part}")?;
    }
    f.write_str(")")
}

/// A value in the kind of quotes that it does not contain.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('\'') { '"' } else { '\'' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

// ===== the parser =====

type Parsed<'a, T> = IResult<&'a str, T>;

fn disjunction(input: &str, depth: usize) -> Parsed<'_, Expression> {
    list(input, depth, "||", conjunction, Expression::Or)
}

fn conjunction(input: &str, depth: usize) -> Parsed<'_, Expression> {
    list(input, depth, "&&", negation, Expression::And)
}

/// One or more parts joined by an operator; one part alone stays itself.
fn list<'a>(
    input: &'a str,
    depth: usize,
    operator: &'static str,
    part: fn(&'a str, usize) -> Parsed<'a, Expression>,
    join: fn(Vec<Expression>) -> Expression,
) -> Parsed<'a, Expression> {
    let (mut rest, first) = part(input, depth)?;
    let mut parts = vec![first];
    while let Ok((after, ())) = symbol(rest, operator) {
        let (next, more) = part(after, depth)?;
        parts.push(more);
        rest = next;
    }
    let only = parts.len() == 1;
    match parts.pop() {
        Some(one) if only => Ok((rest, one)),
        last => {
            parts.extend(last);
            Ok((rest, join(parts)))
        }
    }
}

fn symbol<'a>(input: &'a str, text: &'static str) -> Parsed<'a, ()> {
    value((), preceded(multispace0, tag(text))).parse(input)
}

fn negation(input: &str, depth: usize) -> Parsed<'_, Expression> {
    if depth > MAX_DEPTH {
        return Err(nom::Err::Failure(nom::error::Error::new(
            input,
            nom::error::ErrorKind::TooLarge,
        )));
    }
    if let Ok((rest, ())) = symbol(input, "!") {
        let (rest, inner) = negation(rest, depth + 1)?;
        return Ok((rest, Expression::Not(Box::new(inner))));
    }
    if let Ok((rest, ())) = symbol(input, "(") {
        let (rest, inner) = disjunction(rest, depth + 1)?;
        let (rest, ()) = symbol(rest, ")")?;
        return Ok((rest, inner));
    }
    term(input)
}

fn term(input: &str) -> Parsed<'_, Expression> {
    let (input, _) = multispace0(input)?;
    alt((function, comparison)).parse(input)
}

fn function(input: &str) -> Parsed<'_, Expression> {
    let open = || (multispace0, char('('), multispace0);
    let close = || (multispace0, char(')'));
    alt((
        value(Expression::All, (tag("all"), open(), close())),
        value(Expression::Global, (tag("global"), open(), close())),
        map(
            delimited((tag("has"), open()), key, close()),
            |key: &str| Expression::Has(key.to_owned()),
        ),
    ))
    .parse(input)
}

fn comparison(input: &str) -> Parsed<'_, Expression> {
    let (input, key) = key(input)?;
    let key = key.to_owned();
    let (input, _) = multispace0(input)?;
    let word = |text| (tag(text), multispace1);
    let negated = |inner| Expression::Not(Box::new(inner));
    alt((
        map(preceded((tag("=="), multispace0), literal), |v| {
            Expression::Equals(key.clone(), v)
        }),
        map(preceded((tag("!="), multispace0), literal), |v| {
            negated(Expression::Equals(key.clone(), v))
        }),
        map(
            preceded((word("not"), tag("in"), multispace0), set),
            |set| negated(Expression::In(key.clone(), set)),
        ),
        map(preceded((tag("in"), multispace0), set), |set| {
            Expression::In(key.clone(), set)
        }),
        map(preceded((tag("contains"), multispace0), literal), |v| {
            Expression::Contains(key.clone(), v)
        }),
        map(
            preceded((word("starts"), tag("with"), multispace0), literal),
            |v| Expression::StartsWith(key.clone(), v),
        ),
        map(
            preceded((word("ends"), tag("with"), multispace0), literal),
            |v| Expression::EndsWith(key.clone(), v),
        ),
    ))
    .parse(input)
}

fn key(input: &str) -> Parsed<'_, &str> {
    let of_key = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    // `!` binds before a key begins, never inside it.
    preceded(peek(not(char('!'))), take_while1(of_key)).parse(input)
}

fn literal(input: &str) -> Parsed<'_, String> {
    let quoted = |quote: char| delimited(char(quote), take_till(move |c| c == quote), char(quote));
    map(alt((quoted('\''), quoted('"'))), str::to_owned).parse(input)
}

fn set(input: &str) -> Parsed<'_, BTreeSet<String>> {
    let comma = delimited(multispace0, char(','), multispace0);
    let items = separated_list0(comma, literal);
    let open = terminated(char('{'), multispace0);
    let close = preceded((multispace0, many0(char(' '))), char('}'));
    map(delimited(open, items, close), |items| {
        items.into_iter().collect()
    })
    .parse(input)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    #[test]
    fn every_operator() {
        let object = labels(&[
            ("role", "db"),
            ("zone", "a-1"),
            ("kubernetes.io/os", "linux"),
        ]);
        let cases = [
            ("", true),
            ("all()", true),
            ("role == 'db'", true),
            ("role==\"db\"", true),
            ("role != 'db'", false),
            ("absent != 'x'", true),
            ("role in {'db', 'web'}", true),
            ("role in {}", false),
            ("role not in { 'web' }", true),
            ("absent not in {'web'}", true),
            ("has(role)", true),
            ("!has(absent)", true),
            ("zone contains '-'", true),
            ("zone starts with 'a'", true),
            ("zone ends with '2'", false),
            ("kubernetes.io/os == 'linux'", true),
            ("role == 'web' || zone == 'a-1' && has(role)", true),
            ("(role == 'web' || zone == 'a-1') && !has(role)", false),
            ("!(role == 'web')", true),
            ("in == 'x'", false),
            ("global()", true),
            ("! global () || role == 'db'", true),
        ];
        for (text, expected) in cases {
            let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(selector.matches(&object), expected, "{text}");
            let again = Selector::parse(&selector.to_string()).unwrap();
            assert_eq!(again.matches(&object), expected, "{text} as {selector}");
        }
    }

    #[test]
    fn mistakes_are_placed() {
        for text in [
            "role =",
            "role == db",
            "(role == 'a'",
            "has()",
            "role == 'a' &&",
            "x in 'a'",
            "!",
        ] {
            let error = Selector::parse(text).unwrap_err();
            assert!(error.contains("expected an expression"), "{text}: {error}");
        }
        assert!(Selector::parse(&"!".repeat(1000)).is_err());
        assert!(
            Selector::parse(&"a".repeat(2000))
                .unwrap_err()
                .contains("at most")
        );
    }

    proptest! {
        #[test]
        fn any_text_terminates(text in "\\PC{0,200}") {
            let _ = Selector::parse(&text);
        }

        #[test]
        fn any_shuffle_of_tokens_terminates(
            tokens in proptest::collection::vec(
                prop_oneof!["\\(", "\\)", "!", "&&", "\\|\\|", "a", "==", "'v'", "in", "\\{", "\\}", "all\\(\\)"],
                0..60,
            )
        ) {
            if let Ok(selector) = Selector::parse(&tokens.join(" ")) {
                let again = Selector::parse(&selector.to_string());
                prop_assert!(again.is_ok(), "{selector}");
            }
        }
    }
}

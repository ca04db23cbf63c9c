//! The labels of an object, in little space: one text of all keys and values, which copies share.
//!
//! A cluster has hundreds of thousands of them and changes few. What asks them looks through the text, which for as many
//! labels as objects have takes no longer than a tree does.

use std::{collections::BTreeMap, fmt, sync::Arc};

use margay_crds::selector::Tagged;

/// Between keys and values, and after both: no label has it. In one that came from a file all the same, another stands in
/// its place.
const END: char = '\0';

/// The labels of a pod or a namespace. A copy costs nothing, and a change the writing anew of all.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Option<Arc<str>>);

impl Labels {
    /// No labels.
    pub const fn new() -> Self {
        Self(None)
    }

    /// These labels. Keys must ascend, each once.
    fn ascending<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let length = pairs
            .clone()
            .map(|(key, value)| key.len() + value.len() + 2);
        let mut text = String::with_capacity(length.sum());
        for part in pairs.flat_map(|(key, value)| [key, value]) {
            match part.contains(END) {
                true => text.push_str(&part.replace(END, "\u{fffd}")),
                false => text.push_str(part),
            }
            text.push(END);
        }
        Self((!text.is_empty()).then(|| text.into()))
    }

    /// Whether these are not only equal but one and the same copy.
    #[cfg(test)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.address() == other.address()
    }

    /// What tells this copy from others; it stays as long as the copy is held.
    pub(crate) fn address(&self) -> usize {
        self.0
            .as_ref()
            .map_or(0, |text| Arc::as_ptr(text).cast::<u8>() as usize)
    }

    /// Whether nobody else holds this copy.
    pub(crate) fn is_unshared(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|text| Arc::strong_count(text) < 2)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.0.as_deref().unwrap_or_default())
    }

    /// The value under this key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.iter();
        pairs.find_map(|(known, value)| (known == key).then_some(value))
    }

    /// Whether there is a label of this key.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Sets a label, in the place of one of the same key.
    pub fn insert(&mut self, key: String, value: String) {
        self.extend([(key, value)]);
    }

    /// Takes a label away.
    pub fn remove(&mut self, key: &str) {
        if self.contains_key(key) {
            *self = Self::ascending(self.iter().filter(|(known, _)| *known != key));
        }
    }
}

/// The labels of an object, by key.
#[derive(Clone, Debug)]
pub struct Iter<'a>(&'a str);

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = self.0.split_once(END)?;
        let (value, rest) = rest.split_once(END)?;
        self.0 = rest;
        Some((key, value))
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Labels {
    type Item = (String, String);
    type IntoIter = std::collections::btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        let pairs = self.iter();
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        pairs.collect::<BTreeMap<_, _>>().into_iter()
    }
}

impl Extend<(String, String)> for Labels {
    fn extend<T: IntoIterator<Item = (String, String)>>(&mut self, pairs: T) {
        let all = std::mem::take(self).into_iter().chain(pairs);
        *self = all.collect();
    }
}

impl From<&BTreeMap<String, String>> for Labels {
    fn from(map: &BTreeMap<String, String>) -> Self {
        Self::ascending(
            map.iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        )
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self::from(&map)
    }
}

impl From<Option<&BTreeMap<String, String>>> for Labels {
    fn from(map: Option<&BTreeMap<String, String>>) -> Self {
        map.map(Self::from).unwrap_or_default()
    }
}

impl<const N: usize> From<[(String, String); N]> for Labels {
    fn from(pairs: [(String, String); N]) -> Self {
        BTreeMap::from(pairs).into()
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(pairs: T) -> Self {
        BTreeMap::from_iter(pairs).into()
    }
}

impl Tagged for Labels {
    fn value(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_put_in_is_found_by_key() {
        let mut one = labels(&[("b", "2"), ("a", ""), ("", "empty")]);
        assert_eq!(one.get("a"), Some(""));
        assert_eq!(one.get(""), Some("empty"));
        assert_eq!((one.get("2"), one.get("c")), (None, None));
        one.insert("c".to_owned(), "3".to_owned());
        one.insert("b".to_owned(), "4".to_owned());
        one.remove("");
        one.remove("d");
        let pairs: Vec<_> = one.iter().collect();
        assert_eq!(pairs, [("a", ""), ("b", "4"), ("c", "3")]);
        assert_eq!(one, labels(&[("c", "3"), ("b", "4"), ("a", "")]));
        for key in ["a", "b", "c"] {
            one.remove(key);
        }
        assert!(one.is_empty() && one == Labels::new());
    }

    #[test]
    fn no_value_reads_as_another_label() {
        let one = labels(&[("a", "1\0b\u{0}2"), ("c\0d", "3")]);
        assert_eq!(one.iter().count(), 2);
        assert!(!one.contains_key("b") && !one.contains_key("d"));
    }
}

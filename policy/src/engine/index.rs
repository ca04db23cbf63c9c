//! Indexes by label: from labels to the selectors that may ask for them, and from selectors to what may carry them.
//!
//! Both find candidates, of which every one still has to be asked: an index never says that something matches. What they
//! never do is to leave out one that does.

use std::collections::{BTreeSet, HashMap};

use crate::{
    identity::TermId,
    selector::{Labels, Requirement, Selector},
};

/// What something that is selected must carry: a label, with one of these values if there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) key: String,
    pub(super) values: Option<BTreeSet<String>>,
}

/// The conditions of which every one must hold.
pub(super) fn anchors(selector: &Selector) -> Vec<Anchor> {
    let requirements = selector.requirements().iter();
    let anchors = requirements.filter_map(|requirement| match requirement {
        Requirement::In(key, values) => Some(Anchor {
            key: key.clone(),
            values: Some(values.clone()),
        }),
        Requirement::Exists(key) => Some(Anchor {
            key: key.clone(),
            values: None,
        }),
        Requirement::NotIn(..) | Requirement::DoesNotExist(_) => None,
    });
    anchors.collect()
}

/// The one to go by: values tell more apart than a key alone.
fn sharpest(anchors: Vec<Anchor>) -> Option<Anchor> {
    let size = |anchor: &Anchor| anchor.values.as_ref().map_or(usize::MAX, BTreeSet::len);
    anchors.into_iter().min_by_key(size)
}

/// Things by their labels.
#[derive(Debug, Default)]
pub(super) struct ByLabel {
    keys: HashMap<String, HashMap<String, BTreeSet<u32>>>,
}

impl ByLabel {
    pub(super) fn add(&mut self, labels: &Labels, id: u32) {
        for (key, value) in labels {
            if !self.keys.contains_key(key) {
                self.keys.insert(key.to_owned(), HashMap::new());
            }
            let Some(values) = self.keys.get_mut(key) else {
                continue;
            };
            match values.get_mut(value) {
                Some(ids) => {
                    ids.insert(id);
                }
                None => {
                    values.insert(value.to_owned(), BTreeSet::from([id]));
                }
            }
        }
    }

    pub(super) fn remove(&mut self, labels: &Labels, id: u32) {
        for (key, value) in labels {
            let Some(values) = self.keys.get_mut(key) else {
                continue;
            };
            if let Some(ids) = values.get_mut(value) {
                ids.remove(&id);
                if ids.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    /// How many carry what the anchor asks for.
    pub(super) fn count(&self, anchor: &Anchor) -> usize {
        let Some(known) = self.keys.get(&anchor.key) else {
            return 0;
        };
        let of = |value: &String| known.get(value).map_or(0, BTreeSet::len);
        match &anchor.values {
            Some(values) => values.iter().map(of).sum(),
            None => known.values().map(BTreeSet::len).sum(),
        }
    }

    /// Those that carry what the anchor asks for.
    pub(super) fn find(&self, anchor: &Anchor) -> Vec<u32> {
        let Some(known) = self.keys.get(&anchor.key) else {
            return Vec::new();
        };
        match &anchor.values {
            Some(values) => {
                let found = values.iter().filter_map(|value| known.get(value));
                found.flatten().copied().collect()
            }
            None => known.values().flatten().copied().collect(),
        }
    }
}

/// Terms by what their selectors ask for.
#[derive(Debug, Default)]
pub(super) struct Asking {
    by_value: HashMap<String, HashMap<String, Vec<TermId>>>,
    by_key: HashMap<String, Vec<TermId>>,
    rest: Vec<TermId>,
    count: usize,
}

impl Asking {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn add(&mut self, anchors: Vec<Anchor>, id: TermId) {
        self.count += 1;
        match sharpest(anchors) {
            None => self.rest.push(id),
            Some(Anchor { key, values: None }) => self.by_key.entry(key).or_default().push(id),
            Some(Anchor {
                key,
                values: Some(values),
            }) => {
                let known = self.by_value.entry(key).or_default();
                for value in values {
                    known.entry(value).or_default().push(id);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, anchors: Vec<Anchor>, id: TermId) {
        self.count = self.count.saturating_sub(1);
        let cut = |ids: &mut Vec<TermId>| ids.retain(|known| *known != id);
        match sharpest(anchors) {
            None => cut(&mut self.rest),
            Some(Anchor { key, values: None }) => {
                let Some(ids) = self.by_key.get_mut(&key) else {
                    return;
                };
                cut(ids);
                if ids.is_empty() {
                    self.by_key.remove(&key);
                }
            }
            Some(Anchor {
                key,
                values: Some(values),
            }) => {
                let Some(known) = self.by_value.get_mut(&key) else {
                    return;
                };
                for value in values {
                    if let Some(ids) = known.get_mut(&value) {
                        cut(ids);
                        if ids.is_empty() {
                            known.remove(&value);
                        }
                    }
                }
                if known.is_empty() {
                    self.by_value.remove(&key);
                }
            }
        }
    }

    /// The terms that may ask for what carries these labels.
    pub(super) fn find<'s>(&'s self, labels: &'s Labels) -> impl Iterator<Item = TermId> + 's {
        let by_labels = labels.iter().flat_map(|(key, value)| {
            let by_value = self.by_value.get(key).and_then(|known| known.get(value));
            let by_key = self.by_key.get(key);
            by_value.into_iter().chain(by_key).flatten()
        });
        by_labels.chain(&self.rest).copied()
    }
}

/// Things with a number each; numbers of what has gone are given again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(super) fn add(&mut self, item: T) -> u32 {
        if let Some(id) = self.free.pop()
            && let Some(place) = self.items.get_mut(id as usize)
        {
            *place = Some(item);
            return id;
        }
        let id = u32::try_from(self.items.len()).unwrap_or(u32::MAX);
        self.items.push(Some(item));
        id
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.items.get(id as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.items.get_mut(id as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let item = self.items.get_mut(id as usize)?.take()?;
        self.free.push(id);
        Some(item)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let items = self.items.iter().enumerate();
        items.filter_map(|(id, item)| Some((id as u32, item.as_ref()?)))
    }
}

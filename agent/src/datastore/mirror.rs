//! A local copy of all objects of one kind, kept current by a watch.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

use super::roster::{Roster, RosterChange};

/// The objects of one kind by `namespace/name`, or `name` for those without a namespace.
#[derive(Debug)]
pub struct Mirror<T> {
    roster: Roster,
    objects: BTreeMap<String, T>,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        Self {
            roster: Roster::default(),
            objects: BTreeMap::new(),
        }
    }
}

impl<T: ResourceExt + Clone + PartialEq> Mirror<T> {
    /// Takes in one event and says what it changed: nothing, one object, or at the end of a
    /// list all objects that are no longer there.
    pub fn handle(&mut self, event: Event<T>) -> Vec<RosterChange<T>> {
        let mut changes = self.roster.handle(event);
        changes.retain(|change| match change {
            RosterChange::Present(key, object) if self.objects.get(key) == Some(object) => false,
            RosterChange::Present(key, object) => {
                self.objects.insert(key.clone(), object.clone());
                true
            }
            RosterChange::Gone(key) => self.objects.remove(key).is_some(),
        });
        changes
    }

    /// Whether a first list has been taken in whole.
    pub fn is_synced(&self) -> bool {
        self.roster.is_synced()
    }

    /// The object of this key.
    pub fn get(&self, key: &str) -> Option<&T> {
        self.objects.get(key)
    }

    /// All objects in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &T> + Clone {
        self.objects.values()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Namespace;

    use super::*;

    fn object(name: &str, version: &str) -> Namespace {
        let mut object = Namespace::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    #[test]
    fn a_list_removes_what_it_does_not_name() {
        let mut mirror = Mirror::default();
        assert!(!mirror.is_synced());
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "1")),
            Event::InitDone,
        ] {
            mirror.handle(event);
        }
        assert!(mirror.is_synced());
        assert_eq!(mirror.values().count(), 2);

        mirror.handle(Event::Init);
        assert!(mirror.handle(Event::InitApply(object("b", "1"))).is_empty());
        let gone = mirror.handle(Event::InitDone);
        assert_eq!(gone, [RosterChange::Gone("a".into())]);
        assert!(mirror.get("b").is_some());
    }

    #[test]
    fn deleting_what_is_not_there_changes_nothing() {
        let mut mirror = Mirror::default();
        assert!(mirror.handle(Event::Delete(object("a", "1"))).is_empty());
        assert_eq!(mirror.handle(Event::Apply(object("a", "1"))).len(), 1);
        assert_eq!(mirror.handle(Event::Delete(object("a", "2"))).len(), 1);
    }
}

//! What a watch sees: events filtered by namespace and selectors. Pure.

use serde_json::Value;

use super::Selectors;
use crate::object;
use crate::registry::Resource;
use crate::store::{Event, Record};

/// What a watcher wants to see.
#[derive(Debug, Clone)]
pub struct Filter {
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Which objects.
    pub selectors: Selectors,
}

impl Filter {
    /// The served form of a record the watcher wants to see.
    pub fn see(&self, resource: &Resource, record: &Record) -> Option<Value> {
        if self
            .namespace
            .as_deref()
            .is_some_and(|wanted| wanted != object::namespace(&record.object))
        {
            return None;
        }
        let served = resource.serve(&record.object);
        self.selectors.matches(&served).then_some(served)
    }

    /// The watch event for a change: an object that begins to match is added, one that ceases to is deleted.
    pub fn translate(&self, resource: &Resource, event: &Event) -> Option<(&'static str, Value)> {
        let before = event.old.as_ref().and_then(|old| self.see(resource, old));
        let after = if event.deleted {
            None
        } else {
            self.see(resource, &event.new)
        };
        match (before, after) {
            (None, Some(object)) => Some(("ADDED", object)),
            (Some(_), Some(object)) => Some(("MODIFIED", object)),
            // The last state the watcher knew or the one that no longer matches, with the version of this event.
            (Some(_), None) => Some(("DELETED", resource.serve(&event.new.object))),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Map, json};

    use super::*;
    use crate::registry::Registry;

    #[test]
    fn selectors_turn_changes_into_additions_and_deletions() {
        let registry = Registry::build(std::iter::empty(), 0);
        let resource = registry.find("", "v1", "pods").unwrap();
        let filter = Filter {
            namespace: Some("d".into()),
            selectors: Selectors::parse(&resource, "app=web", "spec.nodeName=n1").unwrap(),
        };
        let pod = |namespace: &str, app: &str, node: &str| {
            let object = json!({"metadata": {"name": "p", "namespace": namespace, "labels": {"app": app}}, "spec": {"nodeName": node}});
            Some(Arc::new(Record::new(object, Map::new())))
        };
        for (old, new, deleted, expected) in [
            (None, pod("d", "web", "n1"), false, Some("ADDED")),
            (None, pod("d", "db", "n1"), false, None),
            (None, pod("e", "web", "n1"), false, None),
            (
                pod("d", "web", ""),
                pod("d", "web", "n1"),
                false,
                Some("ADDED"),
            ),
            (
                pod("d", "web", "n1"),
                pod("d", "web", "n1"),
                false,
                Some("MODIFIED"),
            ),
            (
                pod("d", "web", "n1"),
                pod("d", "db", "n1"),
                false,
                Some("DELETED"),
            ),
            (
                pod("d", "web", "n1"),
                pod("d", "web", "n1"),
                true,
                Some("DELETED"),
            ),
            (pod("d", "db", "n1"), pod("d", "db", "n1"), true, None),
        ] {
            let event = Event {
                version: 1,
                old,
                new: new.unwrap(),
                deleted,
            };
            assert_eq!(
                filter.translate(&resource, &event).map(|(kind, _)| kind),
                expected,
                "{event:?}"
            );
        }
    }
}

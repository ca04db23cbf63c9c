//! Which objects of a kind exist, from the events of a watch: the part of a mirror that knows
//! when a list is whole and what it left out.

use std::collections::BTreeSet;

use kube::ResourceExt;
use kube::runtime::watcher::Event;

/// What one watch event means.
#[derive(Debug, Clone, PartialEq)]
pub enum RosterChange<T> {
    /// The object is there in this form (as before, perhaps).
    Present(String, T),
    /// The object of this key is gone.
    Gone(String),
}

/// The keys of the objects of one kind: `namespace/name`, or `name` for those without one.
#[derive(Debug, Default)]
pub struct Roster {
    present: BTreeSet<String>,
    /// What the list under way has named so far; what it does not name is gone.
    listed: Option<BTreeSet<String>>,
    synced: bool,
}

impl Roster {
    /// Takes in one event and says what it means for each object concerned.
    pub fn handle<T: ResourceExt>(&mut self, event: Event<T>) -> Vec<RosterChange<T>> {
        match event {
            Event::Init => {
                self.listed = Some(BTreeSet::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = key(&object);
                if let Some(listed) = &mut self.listed {
                    listed.insert(key.clone());
                }
                self.present.insert(key.clone());
                vec![RosterChange::Present(key, object)]
            }
            Event::Apply(object) => {
                let key = key(&object);
                self.present.insert(key.clone());
                vec![RosterChange::Present(key, object)]
            }
            Event::InitDone => {
                self.synced = true;
                let gone = self.sweep();
                gone.into_iter().map(RosterChange::Gone).collect()
            }
            Event::Delete(object) => {
                let key = key(&object);
                let gone = self.present.remove(&key).then_some(RosterChange::Gone(key));
                gone.into_iter().collect()
            }
        }
    }

    fn sweep(&mut self) -> Vec<String> {
        let Some(listed) = self.listed.take() else {
            return Vec::new();
        };
        let gone = self.present.difference(&listed).cloned().collect();
        self.present = listed;
        gone
    }

    /// Whether a first list has been taken in whole.
    pub fn is_synced(&self) -> bool {
        self.synced
    }
}

fn key(object: &impl ResourceExt) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}

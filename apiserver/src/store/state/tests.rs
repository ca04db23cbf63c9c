//! The store against a model simple enough to be obviously right.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::store::HistoryLimit;

fn limits() -> Limits {
    Limits {
        history: HistoryLimit {
            entries: 16,
            bytes: 1 << 20,
        },
        total_bytes: 1 << 20,
    }
}

fn put(name: &str, expect: Expect, content: u8) -> Write {
    let object = json!({"metadata": {"name": name}, "content": content});
    Write {
        key: Key::new("things", "", name),
        expect,
        put: Some(Record::new(object, Map::new())),
        requires: Vec::new(),
    }
}

fn delete(name: &str, version: u64) -> Write {
    Write {
        key: Key::new("things", "", name),
        expect: Expect::Version(version),
        put: None,
        requires: Vec::new(),
    }
}

fn settle_all(state: &mut State, writes: Vec<Write>) -> Vec<Result<Arc<Record>, WriteError>> {
    let mut batch = Batch::default();
    let results = writes
        .into_iter()
        .map(|write| batch.settle(state, write))
        .collect();
    state.publish(batch);
    results
}

#[test]
fn writes_in_one_batch_see_each_other() {
    let mut state = State::new(7, Vec::new(), limits());
    let results = settle_all(
        &mut state,
        vec![
            put("a", Expect::Absent, 1),
            put("a", Expect::Absent, 2),
            put("a", Expect::Version(8), 3),
            put("a", Expect::Version(8), 4),
            delete("a", 9),
            put("a", Expect::Version(9), 5),
        ],
    );
    assert_eq!(results[0].as_ref().unwrap().version, 8);
    assert_eq!(results[1], Err(WriteError::Exists));
    assert_eq!(results[2].as_ref().unwrap().version, 9);
    assert_eq!(results[3], Err(WriteError::Stale(9)));
    assert_eq!(
        results[4].as_ref().unwrap().object["metadata"]["resourceVersion"],
        "10"
    );
    assert_eq!(results[5], Err(WriteError::Missing));
    assert_eq!(state.version(), 10);
}

#[test]
fn a_required_object_must_live() {
    let mut state = State::new(0, Vec::new(), limits());
    let mut needy = put("a", Expect::Absent, 1);
    needy.requires = vec![Key::new("things", "", "home")];
    assert_eq!(
        settle_all(&mut state, vec![needy.clone()])[0],
        Err(WriteError::Requirement)
    );
    settle_all(&mut state, vec![put("home", Expect::Absent, 0)]);
    assert!(settle_all(&mut state, vec![needy])[0].is_ok());
}

#[test]
fn a_full_database_refuses_growth_and_takes_deletions() {
    let mut state = State::new(
        0,
        Vec::new(),
        Limits {
            total_bytes: 200,
            ..limits()
        },
    );
    let results = settle_all(
        &mut state,
        (0..4)
            .map(|i| put(&format!("n{i}"), Expect::Absent, 1))
            .collect(),
    );
    assert!(results[0].is_ok());
    assert_eq!(results[3], Err(WriteError::Full(200)));
    let version = results[0].as_ref().unwrap().version;
    assert!(settle_all(&mut state, vec![delete("n0", version)])[0].is_ok());
    assert!(settle_all(&mut state, vec![put("n3", Expect::Absent, 1)])[0].is_ok());
}

/// An operation of the random runs; `guess` picks between the right expectation and a wrong one.
#[derive(Debug, Clone)]
struct Step {
    name: u8,
    content: Option<u8>,
    guess: u8,
    new_batch: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        0..4u8,
        prop::option::weighted(0.7, any::<u8>()),
        0..4u8,
        any::<bool>(),
    )
        .prop_map(|(name, content, guess, new_batch)| Step {
            name,
            content,
            guess,
            new_batch,
        });
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever the order and the batching: the same answers as a plain map, versions strictly rising, and a watcher that
    /// replays the events ends up with the same objects.
    #[test]
    fn behaves_like_a_map(steps in steps()) {
        let mut state = State::new(0, Vec::new(), Limits { history: HistoryLimit { entries: 1000, bytes: 1 << 20 }, ..limits() });
        let mut model: BTreeMap<String, (u64, u8)> = BTreeMap::new();
        let mut version = 0;
        let mut batch = Batch::default();
        for step in steps {
            if step.new_batch {
                state.publish(std::mem::take(&mut batch));
            }
            let name = format!("n{}", step.name);
            let actual = model.get(&name).map(|(version, _)| *version);
            let expect = match (step.guess, actual) {
                (0, _) => Expect::Absent,
                (1, _) => Expect::Version(1),
                (_, Some(version)) => Expect::Version(version),
                (_, None) => Expect::Absent,
            };
            let allowed = match expect {
                Expect::Absent => actual.is_none() && step.content.is_some(),
                Expect::Version(wanted) => actual == Some(wanted),
            };
            let mut write = put(&name, expect, step.content.unwrap_or(0));
            if step.content.is_none() {
                write.put = None;
            }
            let result = batch.settle(&state, write);
            prop_assert_eq!(result.is_ok(), allowed, "{:?} {:?}", expect, result);
            if allowed {
                version += 1;
                prop_assert_eq!(result.unwrap().version, version);
                match step.content {
                    Some(content) => model.insert(name, (version, content)),
                    None => model.remove(&name),
                };
            }
        }
        state.publish(batch);
        let stored: BTreeMap<String, (u64, u8)> = state
            .list("things", None, None)
            .records
            .iter()
            .map(|r| (crate::object::name(&r.object).to_owned(), (r.version, r.object["content"].as_u64().unwrap() as u8)))
            .collect();
        prop_assert_eq!(&stored, &model);
        let mut replayed: BTreeMap<String, (u64, u8)> = BTreeMap::new();
        let mut last = 0;
        for event in state.events("things", 0).unwrap().0 {
            prop_assert!(event.version > last);
            last = event.version;
            let name = crate::object::name(&event.new.object).to_owned();
            if event.deleted {
                replayed.remove(&name);
            } else {
                replayed.insert(name, (event.version, event.new.object["content"].as_u64().unwrap() as u8));
            }
        }
        prop_assert_eq!(replayed, model);
    }
}

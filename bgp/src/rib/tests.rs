//! The RIB against a naive model of it: all paths in a sorted map, and the best worked out from nothing each time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::policy::Refusal;
use crate::types::{Asn, Family, FamilySet, Prefix, RouterId};
use crate::wire::{AsPath, NextHop, PathAttributes};

const SOURCES: u32 = 4;
const NEXT_HOPS: u8 = 3;
/// How many kinds of routes there are from one neighbouring AS.
const KINDS: u8 = 24;

#[derive(Debug, Clone)]
enum Step {
    Announce {
        prefix: u8,
        source: u32,
        path_id: u32,
        kind: u8,
    },
    Withdraw {
        prefix: u8,
        source: u32,
        path_id: u32,
    },
    Retain {
        source: u32,
        families: FamilySet,
    },
    RetainLongLived {
        source: u32,
        families: FamilySet,
    },
    Sweep {
        source: u32,
        families: FamilySet,
    },
    Reconsider {
        source: u32,
        refused: u8,
    },
    Remove {
        source: u32,
    },
    Cost {
        next_hop: u8,
        cost: Option<u32>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Known {
    kind: u8,
    refused: bool,
    stale: bool,
    long_lived: bool,
}

/// A path's key: its prefix, source and identifier.
type Key = (Prefix, u32, u32);

#[derive(Default)]
struct Model {
    paths: BTreeMap<Key, Known>,
    costs: BTreeMap<u8, Option<u32>>,
}

/// LOCAL_PREF, AS path length, MED and next hop of a kind of route.
fn parts(kind: u8) -> (u32, usize, u32, u8) {
    let kind = u32::from(kind);
    (
        100 + kind % 2,
        1 + (kind / 2 % 2) as usize,
        kind / 4 % 2,
        (kind / 8) as u8 % NEXT_HOPS,
    )
}

fn next_hop(index: u8) -> std::net::IpAddr {
    [10, 0, 0, index].into()
}

fn route(kind: u8) -> Route {
    let (local_pref, length, med, index) = parts(kind);
    Route {
        next_hop: Some(NextHop::from(next_hop(index))),
        attributes: PathAttributes {
            local_pref: Some(local_pref),
            // One neighbouring AS in the model, so that its paths have an order.
            as_path: AsPath::sequence(vec![Asn(1 + u32::from(kind / KINDS)); length]),
            med: Some(med),
            ..PathAttributes::default()
        },
        metric: None,
    }
}

fn prefix(index: u8) -> Prefix {
    let number = u32::from(index / 2);
    match index % 2 {
        0 => Prefix::v4((0x0a00_0000 + (number << 8)).into(), 24).unwrap(),
        _ => Prefix::v6((u128::from(number + 1) << 100).into(), 64).unwrap(),
    }
}

fn neighbor(source: u32) -> Neighbor {
    Neighbor {
        address: [10, 1, 0, source as u8].into(),
        // The higher the number, the lower the identifier.
        router_id: RouterId(100 - source),
        internal: source.is_multiple_of(2),
        client: false,
        scope: 0,
    }
}

/// What a destination looks like from outside: every path with whether it is best and used, and what else is said of it.
type Picture = BTreeMap<Key, (u8, bool, bool, bool, bool)>;

impl Model {
    fn picture(&self) -> Picture {
        let mut picture = Picture::new();
        let prefixes: BTreeSet<Prefix> = self.paths.keys().map(|(prefix, ..)| *prefix).collect();
        for prefix in prefixes {
            let of_prefix = self.paths.iter().filter(|((p, ..), _)| *p == prefix);
            let rank = |(key, known): &(&Key, &Known)| {
                let (local_pref, length, med, index) = parts(known.kind);
                let cost = self.costs.get(&index).copied().unwrap_or(Some(0))?;
                let first = (known.long_lived, u32::MAX - local_pref, length, med);
                let second = (neighbor(key.1).internal, cost);
                (!known.refused).then_some((first, second, (100 - key.1, key.1, key.2)))
            };
            let best = of_prefix.clone().filter_map(|path| rank(&path)).min();
            for path in of_prefix {
                let rank = rank(&path);
                let equal = rank.is_some() && rank.map(|r| (r.0, r.1)) == best.map(|b| (b.0, b.1));
                let known = path.1;
                let is_best = rank.is_some() && rank == best;
                picture.insert(
                    *path.0,
                    (known.kind, is_best, equal, known.stale, known.long_lived),
                );
            }
        }
        picture
    }

    fn apply(&mut self, step: &Step) {
        let in_families = |prefix: &Prefix, families: FamilySet| families.contains(prefix.family());
        match step {
            Step::Announce {
                prefix: p,
                source,
                path_id,
                kind,
            } => {
                let known = Known {
                    kind: *kind,
                    refused: kind % 5 == 4,
                    stale: false,
                    long_lived: false,
                };
                self.paths.insert((prefix(*p), *source, *path_id), known);
            }
            Step::Withdraw {
                prefix: p,
                source,
                path_id,
            } => {
                self.paths.remove(&(prefix(*p), *source, *path_id));
            }
            Step::Retain { source, families } => {
                self.paths.retain(|(p, s, _), known| {
                    known.stale |= s == source;
                    s != source || in_families(p, *families)
                });
            }
            Step::RetainLongLived { source, families } => {
                for ((p, s, _), known) in &mut self.paths {
                    let marked = s == source && known.stale && in_families(p, *families);
                    known.long_lived |= marked;
                }
            }
            Step::Sweep { source, families } => {
                self.paths.retain(|(p, s, _), known| {
                    s != source || !known.stale || !in_families(p, *families)
                });
            }
            Step::Reconsider { source, refused } => {
                for ((_, s, _), known) in &mut self.paths {
                    if s == source {
                        known.refused = known.kind == *refused;
                    }
                }
            }
            Step::Remove { source } => self.paths.retain(|(_, s, _), _| s != source),
            Step::Cost { next_hop, cost } => drop(self.costs.insert(*next_hop, *cost)),
        }
    }
}

fn apply(rib: &mut Rib, step: &Step) -> Vec<DestinationId> {
    match step {
        Step::Announce {
            prefix: p,
            source,
            path_id,
            kind,
        } => {
            rib.add_source(Source(*source), neighbor(*source));
            let route = rib.intern(route(*kind));
            let refused = kind % 5 == 4;
            let effective = if refused {
                Err(Refusal::Filter)
            } else {
                Ok(route)
            };
            let path = Path::new(Source(*source), route, effective).with_path_id(Some(*path_id));
            rib.announce(prefix(*p), path).into_iter().collect()
        }
        Step::Withdraw {
            prefix: p,
            source,
            path_id,
        } => {
            let changed = rib.withdraw(&prefix(*p), Source(*source), Some(*path_id));
            changed.into_iter().collect()
        }
        Step::Retain { source, families } => rib.retain_stale(Source(*source), *families),
        Step::RetainLongLived { source, families } => {
            rib.retain_long_lived(Source(*source), *families)
        }
        Step::Sweep { source, families } => rib.sweep_stale(Source(*source), *families),
        Step::Reconsider { source, refused } => {
            let refused = rib.intern(route(*refused));
            rib.reconsider(Source(*source), |_, _, received| {
                if received == refused {
                    Err(Refusal::Filter)
                } else {
                    Ok(received)
                }
            })
        }
        Step::Remove { source } => rib.remove_source(Source(*source)),
        Step::Cost {
            next_hop: index,
            cost,
        } => rib.set_costs([(next_hop(*index), *cost)]),
    }
}

fn picture(rib: &Rib) -> Picture {
    let mut picture = Picture::new();
    for destination in rib.table().iter() {
        for path in destination.paths() {
            let received = rib.route(path.received()).into_owned();
            let kind = (0..32).find(|kind| route(*kind) == received).unwrap();
            let key = (destination.prefix(), path.source().0, path.path_id());
            let seen = (
                kind,
                path.is_best(),
                path.is_multipath(),
                path.is_stale(),
                path.is_long_lived_stale(),
            );
            assert_eq!(picture.insert(key, seen), None, "twice");
        }
    }
    picture
}

/// What is used of a destination, for telling whether it changed: kinds and who they are from.
fn used(picture: &Picture, prefix: Prefix) -> Vec<(u32, u32, u8, bool, bool)> {
    let of_prefix = picture
        .iter()
        .filter(|((p, ..), seen)| *p == prefix && seen.2);
    of_prefix
        .map(|((_, s, id), seen)| (*s, *id, seen.0, seen.1, seen.4))
        .collect()
}

fn step(kinds: u8) -> impl Strategy<Value = Step> {
    let (prefix, source, path_id) = (0..8_u8, 0..SOURCES, 0..2_u32);
    let families = || {
        prop::sample::select(vec![
            FamilySet::EMPTY,
            FamilySet::only(Family::Ipv4Unicast),
            FamilySet::only(Family::Ipv6Unicast),
            FamilySet::ALL,
        ])
    };
    prop_oneof![
        12 => (prefix.clone(), source.clone(), path_id.clone(), 0..kinds).prop_map(
            |(prefix, source, path_id, kind)| Step::Announce { prefix, source, path_id, kind }),
        5 => (prefix, source.clone(), path_id).prop_map(
            |(prefix, source, path_id)| Step::Withdraw { prefix, source, path_id }),
        1 => (source.clone(), families()).prop_map(
            |(source, families)| Step::Retain { source, families }),
        1 => (source.clone(), families()).prop_map(
            |(source, families)| Step::RetainLongLived { source, families }),
        1 => (source.clone(), families()).prop_map(
            |(source, families)| Step::Sweep { source, families }),
        1 => (source.clone(), 0..kinds).prop_map(
            |(source, refused)| Step::Reconsider { source, refused }),
        1 => source.prop_map(|source| Step::Remove { source }),
        1 => (0..NEXT_HOPS, prop::option::of(0..3_u32)).prop_map(
            |(next_hop, cost)| Step::Cost { next_hop, cost }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(steps in prop::collection::vec(step(KINDS), 1..120)) {
        let (mut rib, mut model) = (Rib::new(1), Model::default());
        let mut before = Picture::new();
        for step in steps {
            // A destination that is gone after the step has no prefix to ask for; there is nothing of it before either.
            let changed = apply(&mut rib, &step);
            model.apply(&step);
            let after = picture(&rib);
            prop_assert_eq!(&after, &model.picture(), "{:?}", step);
            prop_assert!(changed.is_sorted_by(|a, b| a < b), "{:?}", changed);
            let told: BTreeSet<Prefix> = changed
                .iter()
                .map(|id| rib.table().get(*id).unwrap().prefix())
                .collect();
            for prefix in (0..8).map(prefix) {
                if used(&before, prefix) != used(&after, prefix) {
                    prop_assert!(told.contains(&prefix), "{prefix} changed: {step:?}");
                }
            }
            for id in changed {
                rib.table_mut().collect(id);
            }
            let destinations: BTreeSet<Prefix> = after.keys().map(|(prefix, ..)| *prefix).collect();
            prop_assert_eq!(rib.table().len(), destinations.len());
            for source in 0..SOURCES {
                let held = model.paths.iter().filter(|((_, s, _), _)| *s == source);
                let accepted = held.clone().filter(|(_, known)| !known.refused).count();
                let counts = rib.counts(Source(source));
                let stale = held.clone().filter(|(_, known)| known.stale).count();
                let long_lived = held.clone().filter(|(_, known)| known.long_lived).count();
                prop_assert_eq!(counts.received, held.count() as u64);
                prop_assert_eq!(counts.accepted, accepted as u64);
                prop_assert_eq!(counts.stale, stale as u64);
                prop_assert_eq!(counts.long_lived, long_lived as u64);
            }
            before = after;
        }
        for source in 0..SOURCES {
            for id in rib.remove_source(Source(source)) {
                rib.table_mut().collect(id);
            }
        }
        prop_assert!(rib.table().is_empty());
    }

    /// What is left out of the decision process because it cannot change anything would not have.
    #[test]
    fn deciding_again_changes_nothing(
        steps in prop::collection::vec(step(2 * KINDS), 1..120),
        max in prop::sample::select(vec![1, 2, usize::MAX]),
    ) {
        let mut rib = Rib::new(1);
        rib.set_multipath(Multipath { max, relax: true });
        for step in steps {
            for id in apply(&mut rib, &step) {
                rib.table_mut().collect(id);
            }
            for id in (0..rib.table().end().0).map(DestinationId) {
                prop_assert!(!rib.reselect(id), "{step:?}");
            }
        }
    }
}

/// A RIB whose walks are done in steps, as the router does them.
struct Stepwise {
    rib: Rib,
    tasks: Vec<Task>,
    /// The kind of route that each source's policy refuses.
    refused: BTreeMap<u32, u8>,
    /// What the RIB said has changed.
    told: BTreeSet<Prefix>,
}

impl Stepwise {
    fn tell(&mut self, changed: Vec<DestinationId>) {
        for id in changed {
            self.told.insert(self.rib.table().get(id).unwrap().prefix());
            self.rib.table_mut().collect(id);
        }
    }

    fn step(&mut self, at: usize, effort: usize) {
        let mut task = self.tasks.remove(at);
        let changed = if task.reconsiders() {
            let source = task.source().unwrap();
            let refused = self.refused[&source.0];
            let refused = self.rib.intern(route(refused));
            self.rib
                .reconsider_step(&mut task, effort, |_, _, received| {
                    if received == refused {
                        Err(Refusal::Filter)
                    } else {
                        Ok(received)
                    }
                })
        } else {
            self.rib.step(&mut task, effort)
        };
        if !task.is_done() {
            self.tasks.insert(at, task);
        }
        self.tell(changed);
    }

    /// All that is to be done about a source, in order.
    fn finish(&mut self, source: u32) {
        let of_source = |task: &Task| task.source() == Some(Source(source));
        while let Some(at) = self.tasks.iter().position(of_source) {
            self.step(at, usize::MAX);
        }
    }

    fn apply(&mut self, step: &Step) {
        let (Step::Announce { source, .. }
        | Step::Withdraw { source, .. }
        | Step::Retain { source, .. }
        | Step::RetainLongLived { source, .. }
        | Step::Sweep { source, .. }
        | Step::Reconsider { source, .. }
        | Step::Remove { source }) = step
        else {
            let Step::Cost { next_hop: n, cost } = step else {
                unreachable!()
            };
            let task = self.rib.new_costs([(next_hop(*n), *cost)]);
            return self.tasks.extend(task);
        };
        let from = Source(*source);
        let begin = match step {
            Step::Retain { families, .. } => self.rib.retention(from, *families),
            Step::RetainLongLived { families, .. } => self.rib.longer_retention(from, *families),
            Step::Sweep { families, .. } => self.rib.sweeping(from, *families),
            Step::Reconsider { refused, .. } => {
                self.refused.insert(*source, *refused);
                self.tasks
                    .retain(|task| !task.reconsiders() || task.source() != Some(from));
                self.rib.reconsideration(from)
            }
            Step::Remove { .. } => self.rib.removal(from),
            _ => {
                self.finish(*source);
                let changed = announce(&mut self.rib, step, &self.refused);
                return self.tell(changed);
            }
        };
        let ends_session = !matches!(step, Step::Sweep { .. } | Step::Reconsider { .. });
        let reconsiders = |task: &Task| task.reconsiders() && task.source() == Some(from);
        if ends_session && self.tasks.iter().any(reconsiders) {
            self.finish(*source);
        }
        self.tasks.push(begin);
    }
}

/// A route comes or goes, under the policy of its source.
fn announce(rib: &mut Rib, step: &Step, refused: &BTreeMap<u32, u8>) -> Vec<DestinationId> {
    let Step::Announce {
        prefix: p,
        source,
        path_id,
        kind,
    } = step
    else {
        return apply(rib, step);
    };
    rib.add_source(Source(*source), neighbor(*source));
    let route = rib.intern(route(*kind));
    let effective = match refused.get(source) {
        Some(refused) if refused == kind => Err(Refusal::Filter),
        _ => Ok(route),
    };
    let path = Path::new(Source(*source), route, effective).with_path_id(Some(*path_id));
    rib.announce(prefix(*p), path).into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn steps_come_to_the_same_as_one_walk(
        steps in prop::collection::vec((step(24), prop::collection::vec(1..60_usize, 0..3)), 1..80),
    ) {
        let mut stepwise = Stepwise {
            rib: Rib::new(1),
            tasks: Vec::new(),
            refused: BTreeMap::new(),
            told: BTreeSet::new(),
        };
        let mut at_once = Rib::new(1);
        let mut before = Picture::new();
        let last = steps.len();
        for (index, (step, efforts)) in steps.into_iter().enumerate() {
            stepwise.apply(&step);
            let walked = match &step {
                Step::Announce { .. } => announce(&mut at_once, &step, &stepwise.refused),
                step => apply(&mut at_once, step),
            };
            walked.into_iter().for_each(|id| at_once.table_mut().collect(id));
            for effort in efforts {
                if !stepwise.tasks.is_empty() {
                    stepwise.step(0, effort);
                }
            }
            while index + 1 == last && !stepwise.tasks.is_empty() {
                stepwise.step(0, 7);
            }
            let after = picture(&stepwise.rib);
            let told = std::mem::take(&mut stepwise.told);
            for prefix in (0..8).map(prefix) {
                if used(&before, prefix) != used(&after, prefix) {
                    prop_assert!(told.contains(&prefix), "{} changed: {:?}", prefix, step);
                }
            }
            before = after;
        }
        prop_assert_eq!(&before, &picture(&at_once));
        prop_assert_eq!(stepwise.rib.table().len(), at_once.table().len());
        for source in (0..SOURCES).map(Source) {
            let mut counts = stepwise.rib.counts(source);
            counts.excess = at_once.counts(source).excess;
            prop_assert_eq!(counts, at_once.counts(source));
        }
    }
}

/// A path of another AS stands beside the best one for its next hop, until one that is no better puts it out by its MED.
#[test]
fn a_path_behind_the_best_one_can_put_out_one_beside_it() {
    let mut rib = Rib::new(1);
    rib.set_multipath(Multipath {
        max: 1,
        relax: true,
    });
    for (source, kind) in [(1, 31), (3, 3), (0, 35)] {
        let step = Step::Announce {
            prefix: 5,
            source,
            path_id: 0,
            kind,
        };
        for id in apply(&mut rib, &step) {
            assert!(!rib.reselect(id));
        }
        for id in (0..rib.table().end().0).map(DestinationId) {
            assert!(!rib.reselect(id), "{step:?}");
        }
    }
}

#[test]
fn a_peer_that_flaps_leaves_nothing_behind() {
    let mut rib = Rib::new(3);
    for round in 0..50_u32 {
        rib.add_source(Source(round), neighbor(round % SOURCES));
        let route = rib.intern(route((round % 24) as u8));
        for index in 0..200 {
            // Different prefixes each time, and each withdrawn and announced again.
            let prefix = Prefix::v4(((round << 20) + (index << 8)).into(), 24).unwrap();
            let path = Path::new(Source(round), route, Ok(route));
            for _ in 0..3 {
                let id = rib.announce(prefix, path).unwrap();
                assert_eq!(rib.withdraw(&prefix, Source(round), None), Some(id));
                rib.table_mut().collect(id);
            }
            rib.announce(prefix, path);
        }
        assert_eq!(rib.table().len(), 200);
        for id in rib.remove_source(Source(round)) {
            rib.table_mut().collect(id);
        }
        assert!(rib.table().is_empty() && rib.table().end().0 <= 200);
        rib.tidy();
    }
}

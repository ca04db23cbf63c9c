//! The table: numbers, prefixes, what is freed when.

use super::*;
use crate::policy::Refusal;
use crate::rib::RouteId;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

#[test]
fn stays_small() {
    assert_eq!(size_of::<Record>(), 32);
}

#[test]
fn a_number_is_free_only_when_nobody_holds_it() {
    let mut table = Table::new(1);
    for (a, b, c) in [
        ("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"),
        ("fd00::/64", "fd00:1::/64", "fd00:2::/64"),
    ] {
        let (a, b, c) = (prefix(a), prefix(b), prefix(c));
        let id = table.find_or_insert(a);
        table.hold(id);
        table.collect(id);
        assert_eq!(table.find(&a), Some(id));
        assert_eq!(table.get(id).map(|d| d.prefix()), Some(a));
        assert_ne!(table.find_or_insert(b), id);
        table.release(id);
        assert_eq!(table.find(&a), None);
        assert!(table.get(id).is_none());
        assert_eq!(table.find_or_insert(c), id);
    }
    assert_eq!(table.len(), 4);
}

#[test]
fn finds_what_was_put_in_and_tells_lengths_and_families_apart() {
    let mut table = Table::new(7);
    let all: Vec<Prefix> = (0..2000_u32)
        .map(|i| Prefix::v4((i << 12).into(), 20 + (i % 13) as u8).unwrap())
        .chain((0..2000_u128).map(|i| Prefix::v6((i << 70).into(), 60).unwrap()))
        .chain(["0.0.0.0/0", "::/0", "0.0.0.0/1"].map(prefix))
        .collect();
    let ids: Vec<_> = all.iter().map(|p| table.find_or_insert(*p)).collect();
    for (prefix, id) in all.iter().zip(&ids) {
        assert_eq!(table.find(prefix), Some(*id), "{prefix}");
        assert_eq!(table.find_or_insert(*prefix), *id);
        assert_eq!(table.get(*id).unwrap().prefix(), *prefix);
    }
    assert_eq!(table.len(), all.len());
    assert!(table.iter().map(|d| d.prefix()).eq(all));
}

#[test]
fn hashes_spread_over_neighbouring_prefixes() {
    let hash = |i: u32| Key::of(&Prefix::v4((0x0a00_0000 + (i << 8)).into(), 24).unwrap());
    for shift in [0, 20, 57] {
        let low: std::collections::HashSet<u64> = (0..4096_u32)
            .map(|i| hash(i).hash(0x1234_5678_9abc_def0) >> shift & 0xfff)
            .collect();
        // 4096 balls in 4096 bins leave about 37 % empty; the top 7 bits are 128 bins.
        let most = if shift == 57 { 120 } else { 2300 };
        assert!(low.len() > most, "{shift}: {}", low.len());
    }
}

#[test]
fn one_path_for_each_source_and_identifier() {
    let mut table = Table::new(0);
    let id = table.find_or_insert(prefix("10.0.0.0/24"));
    let path = |source, path_id| {
        Path::new(Source(source), RouteId(0), Err(Refusal::Filter)).with_path_id(Some(path_id))
    };
    let count = |table: &Table| table.get(id).unwrap().paths().len();
    for (source, path_id) in [(1, 0), (2, 0), (2, 1), (3, 0), (2, 0)] {
        table.insert(id, path(source, path_id));
    }
    assert_eq!(count(&table), 4);
    assert!(table.remove(id, Source(9), 0).is_none());
    assert!(table.remove(id, Source(1), 1).is_none());
    for (source, path_id, left) in [(1, 0, 3), (2, 1, 2), (3, 0, 1), (2, 0, 0)] {
        let removed = table.remove(id, Source(source), path_id).unwrap();
        assert!(removed.is_from(Source(source), path_id));
        assert_eq!(count(&table), left);
    }
    table.collect(id);
    assert!(table.is_empty());
}

#[test]
fn coming_and_going_keeps_the_index_right_and_small() {
    let mut table = Table::new(3);
    let prefix = |i: u32| Prefix::v4((i << 8).into(), 24).unwrap();
    // Never more than 500 at a time, ten thousand in all: what is free is used again, and what the index keeps of those that
    // are gone is cleared away when it makes room.
    for i in 0..10_000_u32 {
        let id = table.find_or_insert(prefix(i));
        assert!(id.0 < 500, "{id:?}");
        table.warm([prefix(i), prefix(i + 1)].iter());
        if let Some(old) = i.checked_sub(499) {
            let old = table.find(&prefix(old)).unwrap();
            table.collect(old);
        }
    }
    assert_eq!(table.len(), 499);
    assert!(table.index.capacity() <= 1792, "{}", table.index.capacity());
    for i in 0..10_000 {
        let found = table.find(&prefix(i));
        assert_eq!(found.is_some(), i >= 9501, "{i}");
        assert_eq!(
            found.and_then(|id| table.get(id)).map(|d| d.prefix()),
            found.map(|_| prefix(i))
        );
    }
}

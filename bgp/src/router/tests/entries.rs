//! What is shown of the RIB, in slices.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::entries::{RibPrefix, RibQuery};
use super::super::*;
use crate::config::Announcement;
use crate::types::{Asn, Prefix, RouterId};

fn router(routes: u32) -> Router {
    let mut config = SpeakerConfig::new(Asn(64512), RouterId(1));
    for number in 0..routes {
        let prefix = Prefix::v4((0x0a00_0000 + (number << 8)).into(), 24).unwrap();
        config.announcements.insert(prefix, Announcement::default());
    }
    for prefix in ["10.0.0.0/8", "10.0.3.128/25", "fd00::/16", "fd00:1::/32"] {
        let prefix = prefix.parse().unwrap();
        config.announcements.insert(prefix, Announcement::default());
    }
    Router::new(Instant::now(), config, 1).unwrap()
}

#[test]
fn slices_are_small_and_tell_everything_once() {
    let router = router(3000);
    let query = RibQuery::default();
    let mut told = BTreeSet::new();
    let (mut next, mut slices) = (Some(DestinationId(0)), 0);
    while let Some(from) = next {
        let slice = router.rib_slice(&query, from);
        assert!(slice.entries.len() <= 600, "{}", slice.entries.len());
        for entry in slice.entries {
            assert!(told.insert(entry.prefix), "{} again", entry.prefix);
        }
        (next, slices) = (slice.next, slices + 1);
    }
    assert_eq!(told.len(), 3004);
    assert!(slices >= 5, "{slices}");
    let sorted: Vec<_> = router.rib().iter().map(|entry| entry.prefix).collect();
    assert_eq!(sorted, Vec::from_iter(told));
    // A peer that is nobody's has none, however long that takes to find out.
    let query = RibQuery {
        neighbor: Some(IpAddr::from([10, 0, 0, 1])),
        prefix: None,
    };
    assert!(
        router
            .rib_slice(&query, DestinationId(0))
            .entries
            .is_empty()
    );
}

#[test]
fn one_destination_by_prefix_or_address() {
    let router = router(8);
    let find = |prefix| {
        let query = RibQuery {
            prefix: Some(prefix),
            neighbor: None,
        };
        let slice = router.rib_slice(&query, DestinationId(0));
        assert_eq!(slice.next, None);
        let mut found = slice.entries.into_iter();
        found.next().map(|entry| entry.prefix.to_string())
    };
    for (address, prefix) in [
        ("10.0.3.1", Some("10.0.3.0/24")),
        ("10.0.3.200", Some("10.0.3.128/25")),
        ("10.200.0.1", Some("10.0.0.0/8")),
        ("192.0.2.1", None),
        ("fd00:1::7", Some("fd00:1::/32")),
        ("fd00:2::7", Some("fd00::/16")),
        ("fe80::1", None),
    ] {
        let found = find(RibPrefix::Covering(address.parse().unwrap()));
        assert_eq!(found.as_deref(), prefix, "{address}");
    }
    let exact = |prefix: &str| find(RibPrefix::Exact(prefix.parse().unwrap()));
    assert_eq!(exact("10.0.3.0/24").as_deref(), Some("10.0.3.0/24"));
    assert_eq!(exact("10.0.3.0/25"), None);
}

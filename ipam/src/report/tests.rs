//! Each kind of mistake is found, a sound cluster has none, and two reports agree only on what
//! both name.

use std::collections::HashMap;

use ipnetwork::IpNetwork;
use margay_crds::{IPAMBlock, IPPool, Owner, Pool};
use serde_json::json;

use super::*;
use crate::garbage::{Facts, NodeFacts, PodFacts};
use crate::{NodeBlock, Timestamp};

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn pool(name: &str, cidr: &str) -> Pool {
    let spec = serde_json::from_value(json!({"cidr": cidr, "blockSize": 30})).unwrap();
    IPPool::new(name, spec).check().unwrap()
}

fn owner(name: &str) -> Owner {
    Owner {
        namespace: "default".into(),
        pod: name.into(),
        container_id: format!("c-{name}"),
        interface: "eth0".into(),
        ..Owner::default()
    }
}

fn block(cidr: &str, node: &str, pods: &[&str]) -> IPAMBlock {
    let mut block = NodeBlock::claim(cidr.parse().unwrap(), node);
    for name in pods {
        block
            .assign(&owner(name), now(), std::time::Duration::ZERO)
            .unwrap();
    }
    let mut object = block.object().clone();
    object.metadata.uid = Some(format!("uid-{cidr}"));
    object
}

fn pod(node: &str, address: &str) -> PodFacts {
    PodFacts {
        node: node.into(),
        addresses: vec![address.parse().unwrap()],
        ..PodFacts::default()
    }
}

struct World {
    pools: Vec<Pool>,
    blocks: Vec<IPAMBlock>,
    facts: Facts,
}

/// Two nodes with a pod each.
fn sound() -> World {
    let node = |name: &str| (name.to_owned(), NodeFacts { name: name.into() });
    World {
        pools: vec![pool("p", "10.0.0.0/28")],
        blocks: vec![
            block("10.0.0.0/30", "n1", &["a"]),
            block("10.0.0.4/30", "n2", &["b"]),
        ],
        facts: Facts {
            nodes: HashMap::from([node("n1"), node("n2")]),
            pods: HashMap::from([
                ("default/a".into(), pod("n1", "10.0.0.0")),
                ("default/b".into(), pod("n2", "10.0.0.4")),
            ]),
            services: HashMap::new(),
        },
    }
}

fn report(world: &World) -> Report {
    let inventory = Inventory {
        pools: &world.pools,
        blocks: &world.blocks,
        facts: &world.facts,
    };
    inspect(&inventory, now())
}

#[test]
fn a_sound_cluster_is_clean() {
    let report = report(&sound());
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.pools, report.blocks, report.addresses), (1, 2, 2));
}

#[test]
fn each_mistake_is_found() {
    type Spoil = fn(&mut World);
    let cases: [(Spoil, ProblemKind, &str); 10] = [
        (
            |world| {
                world.facts.pods.remove("default/a");
            },
            ProblemKind::Leak,
            "10.0.0.0 held by Pod default/a since",
        ),
        (
            |world| world.blocks[0] = block("10.0.0.0/30", "n1", &[]),
            ProblemKind::NotAllocated,
            "Pod default/a on Node n1 uses 10.0.0.0, which no block",
        ),
        (
            |world| {
                world.facts.nodes.remove("n2");
            },
            ProblemKind::BlockOfNobody,
            "block 10.0.0.4/30: Node n2 is gone; it holds 1 addresses",
        ),
        (
            |world| world.pools[0] = pool("p", "10.0.0.0/30"),
            ProblemKind::OutsidePools,
            "block 10.0.0.4/30 of Node n2 lies in no IPPool",
        ),
        (
            |world| {
                let stray = pod("n1", "192.168.1.1");
                world.facts.pods.insert("default/c".into(), stray);
            },
            ProblemKind::OutsidePools,
            "Pod default/c on Node n1 uses 192.168.1.1, which lies in no IPPool",
        ),
        (
            |world| {
                let twin = pod("n2", "10.0.0.0");
                world.facts.pods.insert("default/c".into(), twin);
            },
            ProblemKind::Duplicate,
            "10.0.0.0 is used by Pods default/a and default/c",
        ),
        (
            |world| {
                let mut wide = block("10.0.0.0/29", "n2", &[]);
                wide.spec.allocations = world.blocks[0].spec.allocations.clone();
                wide.spec.used = 1;
                world.blocks.push(wide);
            },
            ProblemKind::Duplicate,
            "10.0.0.0 is held by Pod default/a in block 10.0.0.0/30 of Node n1 and by Pod \
             default/a in block 10.0.0.0/29 of Node n2",
        ),
        (
            |world| world.blocks.push(block("10.0.0.0/29", "n2", &[])),
            ProblemKind::Overlap,
            "block 10.0.0.0/30 of Node n1 and block 10.0.0.0/29 of Node n2 overlap",
        ),
        (
            |world| world.pools.push(pool("q", "10.0.0.8/29")),
            ProblemKind::Overlap,
            "IPPool p (10.0.0.0/28) and IPPool q (10.0.0.8/29) overlap",
        ),
        (
            |world| world.blocks[0].spec.used = 3,
            ProblemKind::Malformed,
            "IPAMBlock 10-0-0-0-30: spec.used says 3, but 1 addresses are held",
        ),
    ];
    for (spoil, kind, words) in cases {
        let mut world = sound();
        spoil(&mut world);
        let report = report(&world);
        let found = report.problems.iter();
        let found = found.filter(|one| one.kind == kind);
        let texts: Vec<&str> = found.map(|one| one.message.as_str()).collect();
        assert!(
            texts.iter().any(|text| text.starts_with(words)),
            "{kind}: {words}: {report:#?}"
        );
    }
}

#[test]
fn blocks_that_overlap_a_wide_one_are_all_found() {
    let mut world = sound();
    world.blocks.push(block("10.0.0.0/28", "n1", &[]));
    let report = report(&world);
    let overlaps = report.problems.iter();
    let overlaps = overlaps.filter(|one| one.kind == ProblemKind::Overlap);
    assert_eq!(overlaps.count(), 2, "{:#?}", report.problems);
}

#[test]
fn reports_travel_as_json_and_agree_on_the_same_allocation_only() {
    let mut world = sound();
    world.facts.pods.clear();
    let first = report(&world);
    assert_eq!(first.leaks().count(), 2);
    let text = serde_json::to_string(&first).unwrap();
    let read: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(read, first);

    // Meanwhile b's address was released and given again: another sequence.
    let mut block = NodeBlock::parse(world.blocks[1].clone()).unwrap();
    let which = crate::Release::Pod {
        namespace: "default".into(),
        pod: "b".into(),
    };
    block.release(&which, now());
    let address = "10.0.0.4".parse().unwrap();
    block.assign_address(address, &owner("b"), now()).unwrap();
    world.blocks[1] = block.object().clone();
    let second = report(&world);
    assert_eq!(second.leaks().count(), 2);
    let orders = Report::intersection(&[first.clone(), second]);
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].block, "10-0-0-0-30");
    assert_eq!(orders[0].addresses, [("10.0.0.0".parse().unwrap(), 1)]);
    assert_eq!(Report::intersection(&[first]).len(), 2);
    assert!(Report::intersection(&[]).is_empty());
}

#[test]
fn the_use_of_pools() {
    let world = sound();
    let pools = [
        pool("p", "10.0.0.0/28"),
        pool("q", "10.1.0.0/16"),
        Pool {
            block_size: 122,
            ..pool_v6()
        },
    ];
    let reserved: Vec<IpNetwork> = ["10.0.0.0/31", "10.0.0.1/32", "10.0.0.8/32", "10.1.0.0/8"]
        .iter()
        .map(|text| {
            let range: IpNetwork = text.parse().unwrap();
            IpNetwork::new(range.network(), range.prefix()).unwrap()
        })
        .collect();
    let counted = pool_use(&pools, &world.blocks, &reserved[..3]);
    assert_eq!((counted[0].capacity, counted[0].used), (16, 2));
    assert_eq!((counted[0].blocks, counted[0].block_capacity), (2, 4));
    // Three addresses are reserved, and one of them was given before.
    assert_eq!((counted[0].reserved, counted[0].free), (2, 12));
    assert_eq!((counted[1].used, counted[1].free), (0, 65_536));
    assert_eq!(counted[2].capacity, u64::MAX, "2^80 does not fit");
    assert!((counted[0].fraction() - 0.125).abs() < 1e-9);
    let counted = pool_use(&pools, &world.blocks, &reserved);
    assert_eq!(counted[1].free, 0, "reserved as a whole");
}

fn pool_v6() -> Pool {
    let spec = serde_json::from_value(json!({"cidr": "fd00::/48"})).unwrap();
    IPPool::new("six", spec).check().unwrap()
}

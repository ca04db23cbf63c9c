//! What is written on pools, and when a pool may go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use margay_ipam::NodeBlock;

use super::*;

fn pool(name: &str, cidr: &str) -> IPPool {
    let mut pool = IPPool::new(name, serde_json::from_value(json!({"cidr": cidr})).unwrap());
    pool.metadata.generation = Some(1);
    pool.metadata.resource_version = Some("7".into());
    pool
}

fn block(cidr: &str) -> IPAMBlock {
    let block = NodeBlock::claim(cidr.parse().unwrap(), "n1");
    block.object().clone()
}

fn look(pools: &[IPPool], blocks: &[IPAMBlock]) -> Vec<Wish> {
    let blocks: Vec<&IPAMBlock> = blocks.iter().collect();
    wishes(pools, &blocks, &ClusterRange::default(), "t1")
}

fn delete(pool: &mut IPPool) {
    pool.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
}

/// The pool with the wish fulfilled.
fn fulfilled(mut pool: IPPool, wish: &Wish) -> IPPool {
    if let Some(finalizers) = &wish.finalizers {
        pool.metadata.finalizers = Some(finalizers.clone());
    }
    if let Some(status) = &wish.status {
        pool.status = serde_json::from_value(status.clone()).unwrap();
    }
    pool
}

#[test]
fn a_pool_is_counted_once() {
    let blocks = [
        block("10.0.0.0/26"),
        block("10.0.0.64/26"),
        block("10.9.0.0/26"),
    ];
    let fresh = pool("p", "10.0.0.0/16");
    let wish = look(std::slice::from_ref(&fresh), &blocks).remove(0);
    assert_eq!(wish.finalizers.as_deref().unwrap(), [BLOCKS_FINALIZER]);
    let status = wish.status.clone().unwrap();
    assert_eq!(status["capacity"], 65_536);
    assert_eq!((&status["used"], &status["blocks"]), (&json!(0), &json!(2)));
    assert_eq!(status["conditions"][0]["reason"], "OK");
    let settled = fulfilled(fresh, &wish);
    assert_eq!(look(&[settled], &blocks), []);
}

#[test]
fn counts_alone_wait_and_the_rest_does_not() {
    let fresh = pool("p", "10.0.0.0/16");
    let first = look(std::slice::from_ref(&fresh), &[]);
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut pace = Pace::default();
    assert_eq!(pace.due(first.clone(), start), (first.clone(), REFRESH));
    assert_eq!(
        pace.due(first.clone(), start),
        (first.clone(), REFRESH),
        "one that failed is tried again"
    );
    pace.written(&first[0], start);

    let mut settled = fulfilled(fresh, &first[0]);
    let counts = look(std::slice::from_ref(&settled), &[block("10.0.0.0/26")]);
    assert!(counts[0].only_counts, "{counts:?}");
    let rest = COUNTS.saturating_sub(Duration::from_secs(4));
    assert_eq!(pace.due(counts.clone(), after(4)), (vec![], rest));
    let (due, _) = pace.due(counts.clone(), start + COUNTS);
    assert_eq!(due, counts);

    settled.spec.disabled = true;
    let disabled = look(&[settled], &[block("10.0.0.0/26")]);
    assert!(!disabled[0].only_counts, "{disabled:?}");
    let (due, _) = pace.due(disabled.clone(), start + COUNTS);
    assert_eq!(due, disabled);
}

#[test]
fn other_conditions_stay() {
    let mut fresh = pool("p", "10.0.0.0/16");
    let accepted = conditions::accepted(&[], Some(1), None, "t0").unwrap();
    fresh.status = Some(margay_crds::IPPoolStatus {
        conditions: accepted,
        ..Default::default()
    });
    let status = look(&[fresh], &[]).remove(0).status.unwrap();
    let types = status["conditions"].as_array().unwrap().iter();
    let types: Vec<_> = types.map(|one| one["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["Accepted", "Allocatable"]);
}

#[test]
fn each_state_has_its_reason() {
    let mut disabled = pool("a", "10.0.0.0/16");
    disabled.spec.disabled = true;
    let second = pool("c", "10.1.0.0/24");
    let wrong = pool("d", "10.2.0.1/16");
    let mut going = pool("e", "10.3.0.0/16");
    going.metadata.finalizers = Some(vec![BLOCKS_FINALIZER.into()]);
    delete(&mut going);
    let pools = [disabled, pool("b", "10.1.0.0/16"), second, wrong, going];
    let blocks = [block("10.3.0.0/26")];
    let found = look(&pools, &blocks);
    let said: Vec<(String, String)> = found
        .iter()
        .map(|wish| {
            let condition = &wish.status.as_ref().unwrap()["conditions"][0];
            let text = |key: &str| condition[key].as_str().unwrap().to_owned();
            (text("reason"), text("message"))
        })
        .collect();
    let reasons: Vec<&str> = said.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "PoolDisabled",
            "OK",
            "CIDROverlap",
            "Invalid",
            "Terminating"
        ]
    );
    assert!(said[3].1.contains("spec.cidr"), "{said:?}");
    assert!(said[4].1.contains("the last of its 1 blocks"), "{said:?}");
}

#[test]
fn a_pool_goes_when_no_block_is_left() {
    let mut going = pool("p", "10.0.0.0/16");
    going.metadata.finalizers = Some(vec!["other.io/x".into(), BLOCKS_FINALIZER.into()]);
    delete(&mut going);
    let finalizers = |others: &[IPPool], blocks: &[IPAMBlock]| {
        let mut pools = vec![going.clone()];
        pools.extend_from_slice(others);
        look(&pools, blocks).remove(0).finalizers
    };
    let held = [block("10.0.0.0/26")];
    assert_eq!(finalizers(&[], &held), None);
    let gone = Some(vec!["other.io/x".to_owned()]);
    assert_eq!(finalizers(&[], &[]), gone);
    // The halves of a split have the block, disabled or not; one that goes too has not.
    let mut half = pool("p-0", "10.0.0.0/17");
    half.spec.disabled = true;
    assert_eq!(finalizers(&[half.clone()], &held), gone);
    delete(&mut half);
    assert_eq!(finalizers(&[half], &held), None);
}

#[test]
fn a_pool_being_deleted_gets_no_finalizer() {
    let mut going = pool("p", "10.0.0.0/16");
    delete(&mut going);
    assert_eq!(look(&[going], &[]).remove(0).finalizers, None);
}

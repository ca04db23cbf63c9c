//! The journey of an address, failing at every step.

use std::collections::HashSet;

use margay_cni::{Code, journal};

use super::fakes::{World, add, attachment, del, pod};
use crate::cni_server::network::{DelOutcome, PodNetwork};
use crate::cni_server::wiring::Wiring;

fn place() -> (tempfile::TempDir, World, Wiring<World, World, World>) {
    let place = tempfile::tempdir().unwrap();
    let world = World::default();
    let wiring = world.wiring(&place.path().join("journal"));
    (place, world, wiring)
}

#[tokio::test]
async fn policy_is_in_force_before_the_interface_is_up() {
    let (_place, world, wiring) = place();
    let added = wiring.add(add("c1", "web")).await.unwrap();
    assert_eq!(
        world.diary(),
        ["assign", "prepare", "create", "commit", "activate"]
    );
    assert_eq!(added.host_interface, "mgy-web");
    assert_eq!(
        added.addresses,
        [([10, 0, 0, 1].into(), [169, 254, 1, 1].into())]
    );

    let result = added
        .to_result(&add("c1", "web"))
        .to_version(margay_cni::Version::NEWEST);
    assert_eq!(result["ips"][0]["address"], "10.0.0.1/32");
    assert_eq!(result["ips"][0]["interface"], 1);
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["interfaces"][1]["sandbox"], "/var/run/netns/x");
    assert_eq!(result["routes"][0]["dst"], "0.0.0.0/0");

    assert_eq!(wiring.check(add("c1", "web")).await, Ok(()));
    assert_eq!(
        wiring.del(del("c1", Some("web"))).await,
        Ok(DelOutcome::Done)
    );
    assert_eq!(world.diary(), ["check", "remove", "withdraw", "release"]);
    assert!(world.is_clean());
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_nothing() {
    let made = ["assign", "prepare"];
    let undone = ["remove", "release"];
    let undone_with_policy = ["remove", "withdraw", "release"];
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("assign", &[], &undone),
        ("assign half", &[], &undone),
        ("prepare", &[], &undone),
        ("create", &["create", "commit"], &undone_with_policy),
        ("commit", &["create", "commit"], &undone_with_policy),
        (
            "activate",
            &["create", "commit", "activate"],
            &undone_with_policy,
        ),
    ];
    for (step, there, back) in cases {
        let (_place, world, wiring) = place();
        world.break_steps(&[step]);
        let error = wiring.add(add("c1", "web")).await.unwrap_err();
        assert_eq!(world.diary(), [&made[..], there, back].concat(), "{step}");
        assert!(world.is_clean(), "{step}");
        if step.starts_with("assign") {
            assert_eq!(error.code, Code::TRY_AGAIN);
            assert_eq!(error.msg, "no free IPv4 address in IPPool small");
            assert!(error.details.contains("add an IPPool"), "{error}");
        } else {
            assert_eq!(error.code, Code::WIRING);
            assert!(
                error.details.contains(&format!("{step} is broken")),
                "{error}"
            );
        }
        // And then it works.
        world.break_steps(&[]);
        assert!(wiring.add(add("c1", "web")).await.is_ok(), "{step}");
    }
}

#[tokio::test]
async fn failures_while_undoing_are_told_and_the_rest_is_undone() {
    let (_place, world, wiring) = place();
    world.break_steps(&["activate", "withdraw"]);
    let error = wiring.add(add("c1", "web")).await.unwrap_err();
    assert_eq!(error.msg, "cannot set the pod's interface up");
    assert!(error.details.contains("activate is broken"), "{error}");
    assert!(
        error
            .details
            .contains("cannot withdraw the pod's policy: withdraw is broken")
    );
    // The address is held until the runtime's DEL has removed all before it.
    assert!(!world.is_clean());
    world.break_steps(&[]);
    wiring.del(del("c1", Some("web"))).await.unwrap();
    assert!(world.is_clean());
}

#[tokio::test]
async fn an_interface_that_cannot_be_removed_keeps_its_address() {
    let (_place, world, wiring) = place();
    wiring.add(add("c1", "web")).await.unwrap();
    world.break_steps(&["remove"]);
    let error = wiring.del(del("c1", Some("web"))).await.unwrap_err();
    assert!(error.details.contains("remove is broken"), "{error}");
    assert_eq!(world.with(|state| state.held.len()), 1);
    world.break_steps(&[]);
    assert_eq!(
        wiring.del(del("c1", Some("web"))).await,
        Ok(DelOutcome::Done)
    );
    assert!(world.is_clean());
}

#[tokio::test]
async fn adding_twice_gives_the_same() {
    let (_place, _world, wiring) = place();
    let first = wiring.add(add("c1", "web")).await.unwrap();
    let other = wiring.add(add("c2", "db")).await.unwrap();
    assert_eq!(wiring.add(add("c1", "web")).await.unwrap(), first);
    assert_ne!(other.addresses, first.addresses);
}

#[tokio::test]
async fn one_interface_a_pod() {
    let (_place, world, wiring) = place();
    wiring.add(add("c1", "web")).await.unwrap();
    let mut second = add("c1", "web");
    second.attachment.ifname = "net1".into();
    let error = wiring.add(second).await.unwrap_err();
    assert_eq!(error.code, Code::INVALID_CONFIG);
    assert!(
        error.msg.contains("default/web has interface eth0"),
        "{error}"
    );
    assert!(world.with(|state| state.links["web"]));
}

#[tokio::test]
async fn unknown_containers_are_gone_already() {
    let (_place, world, wiring) = place();
    assert_eq!(wiring.del(del("c9", None)).await, Ok(DelOutcome::Done));
    // Without a name and without an address there is nothing to remove by.
    assert_eq!(world.diary(), ["release"]);
    assert_eq!(
        wiring.del(del("c9", Some("web"))).await,
        Ok(DelOutcome::Done)
    );
}

#[tokio::test]
async fn a_runtime_that_names_no_pod_is_helped_by_the_block() {
    let (_place, world, wiring) = place();
    wiring.add(add("c1", "web")).await.unwrap();
    wiring.del(del("c1", None)).await.unwrap();
    assert!(world.is_clean());
}

#[tokio::test]
async fn a_late_delete_leaves_the_pods_new_sandbox_alone() {
    let (_place, world, wiring) = place();
    wiring.add(add("old", "web")).await.unwrap();
    wiring.add(add("new", "web")).await.unwrap();
    world.diary();
    wiring.del(del("old", Some("web"))).await.unwrap();
    assert_eq!(world.diary(), ["forget", "release"]);
    assert!(world.with(|state| state.links["web"]));
    // Once more, when nothing tells any more that the old one ever was.
    wiring.del(del("old", Some("web"))).await.unwrap();
    assert!(world.with(|state| state.links["web"]));
    wiring.del(del("new", Some("web"))).await.unwrap();
    assert!(world.is_clean());
}

#[tokio::test]
async fn without_an_api_server_the_release_waits() {
    let (place, world, wiring) = place();
    wiring.add(add("c1", "web")).await.unwrap();
    world.break_steps(&["release"]);
    assert_eq!(
        wiring.del(del("c1", Some("web"))).await,
        Ok(DelOutcome::Deferred)
    );
    assert!(world.with(|state| state.links.is_empty() && state.policies.is_empty()));
    let entries = journal::read(&place.path().join("journal")).unwrap();
    assert_eq!(entries.len(), 1);
    let request = entries[0].request.as_ref().unwrap();
    assert_eq!(request.container_id, "c1");
    assert_eq!(request.args["K8S_POD_NAME"], "web");
    // A failed ADD whose address cannot be given back leaves a note as well.
    world.break_steps(&["create", "release"]);
    let error = wiring.add(add("c2", "db")).await.unwrap_err();
    assert!(error.details.contains("create is broken"), "{error}");
    assert_eq!(
        journal::read(&place.path().join("journal")).unwrap().len(),
        2
    );
}

#[tokio::test]
async fn a_delete_that_waits_does_not_outlive_a_new_try() {
    let (place, world, wiring) = place();
    world.break_steps(&["create", "release"]);
    assert!(wiring.add(add("c1", "web")).await.is_err());
    let journal = place.path().join("journal");
    assert_eq!(journal::read(&journal).unwrap().len(), 1);
    world.break_steps(&[]);
    assert!(wiring.add(add("c1", "web")).await.is_ok());
    assert!(journal::read(&journal).unwrap().is_empty());
}

#[tokio::test]
async fn a_release_that_cannot_even_be_written_down_is_an_error() {
    let world = World::default();
    let wiring = world.wiring(std::path::Path::new("/proc/margay-nowhere"));
    wiring.add(add("c1", "web")).await.unwrap();
    world.break_steps(&["release"]);
    let error = wiring.del(del("c1", Some("web"))).await.unwrap_err();
    assert_eq!(error.code, Code::TRY_AGAIN);
    assert!(error.details.contains("/proc/margay-nowhere"), "{error}");
    assert!(error.details.contains("connection refused"), "{error}");
}

#[tokio::test]
async fn status_says_what_is_missing() {
    let (_place, world, wiring) = place();
    assert_eq!(wiring.status(None).await, Ok(()));
    for (missing, words) in [
        ("ready", "list of IPAMBlocks"),
        ("links ready", "the MTU"),
        ("policy ready", "policy table"),
    ] {
        world.break_steps(&[missing]);
        let error = wiring.status(None).await.unwrap_err();
        assert_eq!(error.code, Code::NOT_AVAILABLE);
        assert!(error.details.contains(words), "{error}");
        // ADD is turned away before it begins.
        let error = wiring.add(add("c1", "web")).await.unwrap_err();
        assert_eq!(error.code, Code::TRY_AGAIN);
        assert!(world.diary().is_empty());
    }
    // Where the configuration says the MTU, nobody waits for the uplink's.
    world.break_steps(&["links ready"]);
    assert_eq!(wiring.status(Some(1400)).await, Ok(()));
}

#[tokio::test]
async fn check_names_the_difference() {
    let (_place, world, wiring) = place();
    let error = wiring.check(add("c1", "web")).await.unwrap_err();
    assert_eq!(error.code, Code::CHECK_FAILED);
    assert!(error.msg.contains("container c1"), "{error}");
    wiring.add(add("c1", "web")).await.unwrap();
    world.with(|state| state.links.insert("web".into(), false));
    let error = wiring.check(add("c1", "web")).await.unwrap_err();
    assert_eq!(error.details, "the interface is down, should be up");
}

#[tokio::test]
async fn stale_is_what_no_list_has_and_is_no_longer_young() {
    let (_place, world, wiring) = place();
    for (container, name) in [("c1", "a"), ("c2", "b"), ("c3", "c")] {
        wiring.add(add(container, name)).await.unwrap();
    }
    // The fakes' time is long ago; one attachment is of this moment.
    let now = margay_ipam::Timestamp::now();
    world.with(|state| {
        let young = state.held.get_mut(&attachment("c3")).unwrap();
        young.since = Some(now);
    });
    let valid = HashSet::from([attachment("c1")]);
    let stale = wiring.stale(&valid).await;
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].attachment, attachment("c2"));
    assert_eq!(stale[0].pod, Some(pod("b")));
}

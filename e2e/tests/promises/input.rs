//! Input that is wrong: refused with the field's path, or, where it slips through, told in a
//! condition and otherwise ignored.

use std::process::Command;

use kube::api::Api;
use margay_crds::{IPPool, NodeStatus};
use margay_e2e::lab::Tor;
use margay_e2e::lab::command::finish;
use margay_e2e::lab::objects::POOL_NAME;
use margay_e2e::lab::patience::patience;
use margay_e2e::lab::process;
use serde_json::json;

use crate::ground::{Ground, programs, runnable};

fn kubectl(ground: &Ground, arguments: &[&str], input: Option<&str>) -> (bool, String) {
    let mut command = Command::new("kubectl");
    command
        .arg("--kubeconfig")
        .arg(ground.lab.ledger.folder.kubeconfig())
        .args(arguments);
    let output = finish(command, input.map(str::as_bytes), patience(30)).unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn pool(name: &str, spec: &str) -> String {
    format!("apiVersion: margay.dev/v1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_input_is_named_and_the_rest_goes_on() {
    if !runnable("wrong_input_is_named_and_the_rest_goes_on") {
        return;
    }
    let mut ground = Ground::prepare("t-input", 1, 1, Tor::None, 1).await;
    for (spec, field) in [
        ("{cidr: 10.250.0.1/16}", "spec.cidr"),
        ("{cidr: 10.250.0.0/33}", "spec.cidr"),
        ("{cidr: pods}", "spec.cidr"),
        (
            "{cidr: 10.250.0.0/16, nodeSelector: \"rack ==\"}",
            "spec.nodeSelector",
        ),
        ("{cidr: 10.250.0.0/16, blockSize: 8}", "spec.blockSize"),
        ("{cidr: 10.250.0.0/28, blockSize: 26}", "spec.blockSize"),
        (
            "{cidr: 10.250.0.0/16, ipipMode: Sometimes}",
            "spec.ipipMode",
        ),
    ] {
        let (accepted, said) = kubectl(&ground, &["apply", "-f", "-"], Some(&pool("bad", spec)));
        assert!(!accepted && said.contains(field), "{spec}: {said}");
    }
    let change = r#"{"spec":{"cidr":"10.251.0.0/16"}}"#;
    let arguments = ["patch", "ippool", POOL_NAME, "--type=merge", "-p", change];
    let (accepted, said) = kubectl(&ground, &arguments, None);
    assert!(
        !accepted && said.contains("spec.cidr") && said.contains("cannot be changed"),
        "{said}"
    );
    eprintln!("  {}", said.trim());

    slipped_through(&mut ground).await;
}

/// A store without the checks, on the same data: as a Kubernetes that drops CEL rules.
async fn slipped_through(ground: &mut Ground) {
    let lenient = programs().join("examples/apiserver");
    if !lenient.is_file() {
        eprintln!("SKIPPED (needs the example apiserver): slipped_through");
        let required = std::env::var("MARGAY_REQUIRE_PRIVILEGED").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "needs {}: cargo build --workspace --all-targets",
            lenient.display()
        );
        return;
    }
    ground.stop_store();
    let checked = ground.binaries.margay.clone();
    // The lab starts `margay apiserver …`; the example takes the same flags.
    let wrapper = ground.lab.logs().join("lenient-store");
    std::fs::write(
        &wrapper,
        format!("#!/bin/sh\nshift\nexec {} \"$@\"\n", lenient.display()),
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&wrapper, mode).unwrap();
    ground.binaries.margay = wrapper;
    ground.start_store().await;
    ground.binaries.margay = checked;

    let (accepted, said) = kubectl(
        ground,
        &["apply", "-f", "-"],
        Some(&pool("slipped", "{cidr: 10.250.0.1/16}")),
    );
    assert!(accepted, "{said}");
    let pools: Api<IPPool> = Api::all(ground.cluster.client.clone());
    let condition = ground
        .until("the condition on the pool", 30, || async {
            let found = pools
                .get("slipped")
                .await
                .map_err(|error| error.to_string())?;
            let conditions = found
                .status
                .map(|status| status.conditions)
                .unwrap_or_default();
            conditions
                .into_iter()
                .find(|one| one.type_ == "Accepted")
                .ok_or("none".to_owned())
        })
        .await;
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("False", "Invalid")
    );
    assert!(condition.message.contains("spec.cidr"), "{condition:?}");
    eprintln!("  {}", condition.message);
    let log = ground.log_of("agent node1");
    let told = log
        .lines()
        .any(|line| line.contains("slipped") && line.contains("spec.cidr"));
    assert!(told, "{log}");

    // It is otherwise ignored: the node is in order and the next pod's address is the good pool's.
    let pod = ground.start_pod("after", "extra", "node1").await;
    assert!(ground.lab.plan.pool.contains(pod.address));
    let statuses: Api<NodeStatus> = Api::all(ground.cluster.client.clone());
    ground
        .until("the node to be Ready", 15, || async {
            let found = statuses
                .get("node1")
                .await
                .map_err(|error| error.to_string())?;
            let conditions = found
                .status
                .map(|status| status.conditions)
                .unwrap_or_default();
            let ready = conditions.iter().find(|one| one.type_ == "Ready");
            match ready {
                Some(ready) if ready.is_true() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;

    // Put right, it is taken.
    let good = json!({"spec": {"cidr": "10.250.0.0/16"}});
    ground.patch(&pools, "slipped", good).await;
    ground
        .until("the pool to be accepted", 15, || async {
            let found = pools
                .get("slipped")
                .await
                .map_err(|error| error.to_string())?;
            let conditions = found
                .status
                .map(|status| status.conditions)
                .unwrap_or_default();
            let accepted = conditions
                .iter()
                .any(|one| one.type_ == "Accepted" && one.is_true());
            accepted.then_some(()).ok_or(format!("{conditions:?}"))
        })
        .await;
    process::stop(&ground.process(process::STORE));
}

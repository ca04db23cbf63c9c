//! The store as the real kubectl sees it, with no extra flags.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Rig, pool_definition, start};
use serde_json::{Value, json};

/// Whether kubectl is here; without it the test is skipped loudly, or fails where skipping is not allowed.
fn have_kubectl(test: &str) -> bool {
    let found = Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .is_ok_and(|out| out.status.success());
    if !found {
        println!("SKIPPED (needs kubectl): {test}");
        assert_ne!(
            std::env::var("MARGAY_REQUIRE_PRIVILEGED").as_deref(),
            Ok("1"),
            "kubectl is required"
        );
    }
    found
}

struct Kubectl {
    rig: Arc<Rig>,
}

impl Kubectl {
    /// Runs kubectl with `input` as its standard input; answers success, standard output and standard error.
    async fn raw(&self, arguments: &str, input: &str, editor: &str) -> (bool, String, String) {
        let mut command = Command::new("kubectl");
        command
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", self.rig.server.kubeconfig())
            .env("HOME", self.rig.directory.path())
            .env("EDITOR", editor)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.success(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    async fn ok(&self, arguments: &str) -> String {
        self.fed(arguments, "").await
    }

    async fn fed(&self, arguments: &str, input: &str) -> String {
        let (success, out, err) = self.raw(arguments, input, "true").await;
        assert!(success, "kubectl {arguments}: {out}{err}");
        out
    }

    async fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ok(arguments).await).unwrap()
    }

    async fn refused(&self, arguments: &str, input: &str) -> String {
        let (success, out, err) = self.raw(arguments, input, "true").await;
        assert!(!success, "kubectl {arguments} should fail: {out}");
        err
    }
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

async fn kubectl() -> Kubectl {
    Kubectl {
        rig: Arc::new(start(|builder| builder).await),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_kinds() {
    if !have_kubectl("built_in_kinds") {
        return;
    }
    let k = kubectl().await;
    // `create` of these kinds speaks protobuf.
    k.ok("create namespace blue").await;
    k.ok("create configmap c --from-literal=a=b").await;
    k.ok("create secret generic s --from-literal=a=b").await;
    k.ok("create serviceaccount bob").await;
    k.ok("create service clusterip web --tcp=80:8080").await;
    assert_eq!(
        k.json("get secret s -o json").await["data"],
        json!({"a": "Yg=="})
    );
    assert_eq!(
        k.json("get svc web -o json").await["spec"]["ports"][0]["targetPort"],
        8080
    );
    k.refused("create namespace blue", "").await;
    let namespaces = k.ok("get ns").await;
    let names: Vec<&str> = namespaces.lines().map(|line| words(line)[0]).collect();
    assert_eq!(names, ["NAME", "blue", "default", "kube-system"]);

    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    });
    assert!(
        k.fed("apply -f -", &pod.to_string())
            .await
            .contains("created")
    );
    assert!(
        k.fed("apply -f -", &pod.to_string())
            .await
            .contains("unchanged")
    );
    let mut changed = pod.clone();
    changed["spec"]["containers"][0]["image"] = json!("j");
    assert!(
        k.fed("apply -f -", &changed.to_string())
            .await
            .contains("configured")
    );
    assert_eq!(
        k.json("get pod p -o json").await["spec"]["containers"][0]["image"],
        "j"
    );
    k.ok("label pod p tier=front").await;
    k.ok("annotate pod p note=hello").await;
    k.ok("label pod p app-").await;
    assert_eq!(
        k.json("get pod p -o json").await["metadata"]["labels"],
        json!({"tier": "front"})
    );
    let (edited, out, err) = k
        .raw("edit pod p", "", "sed -i s/tier:.front/tier:\\ back/")
        .await;
    assert!(edited, "{out}{err}");
    let wide = k
        .ok("get pods -l tier=back --field-selector spec.nodeName=n1 -o wide")
        .await;
    let lines: Vec<Vec<&str>> = wide.lines().map(words).collect();
    assert_eq!(
        &lines[0][..8],
        [
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP",
            "NODE",
            "NOMINATED"
        ]
    );
    assert_eq!(
        (lines[1][0], lines[1][2], lines[1][6]),
        ("p", "Pending", "n1")
    );
    for described in ["pod p", "ns blue", "svc web", "cm c", "secret s", "sa bob"] {
        assert!(
            k.ok(&format!("describe {described}"))
                .await
                .contains("Name:"),
            "{described}"
        );
    }
    assert!(k.ok("get pod p -o yaml").await.contains("kind: Pod"));
    assert!(k.ok("get events").await.is_empty());
    let error = k
        .refused(
            "apply -f -",
            &pod.to_string().replace("containers", "kontainers"),
        )
        .await;
    assert!(
        error.contains("unknown field \"spec.kontainers\""),
        "{error}"
    );
    k.ok("delete pod p").await;
    k.ok("delete ns blue").await;
    k.refused("get ns blue", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources() {
    if !have_kubectl("custom_resources") {
        return;
    }
    let k = kubectl().await;
    k.fed("apply -f -", &pool_definition().to_string()).await;
    k.ok("wait --for=condition=Established crd/pools.test.margay.dev --timeout=10s")
        .await;
    let pool = |spec: Value| {
        json!({"apiVersion": "test.margay.dev/v1", "kind": "Pool", "metadata": {"name": "a"}, "spec": spec}).to_string()
    };
    k.fed("apply -f -", &pool(json!({"cidr": "10.0.0.0/8"})))
        .await;
    let table = k.ok("get pl").await;
    let lines: Vec<Vec<&str>> = table.lines().map(words).collect();
    assert_eq!(
        (&lines[0][..], &lines[1][..2]),
        (&["NAME", "CIDR", "AGE"][..], &["a", "10.0.0.0/8"][..])
    );
    assert!(
        k.ok("get margay").await.contains("10.0.0.0/8"),
        "categories"
    );
    let error = k
        .refused("apply -f -", &pool(json!({"cidr": "c", "blockSize": 99})))
        .await;
    assert!(
        error.contains("spec.blockSize: Invalid value: 99"),
        "{error}"
    );
    let error = k
        .refused("apply -f -", &pool(json!({"cidr": "c", "bogus": 1})))
        .await;
    assert!(error.contains("unknown field \"spec.bogus\""), "{error}");
    k.fed(
        "apply --server-side -f -",
        &pool(json!({"cidr": "11.0.0.0/8", "mode": "Never"})),
    )
    .await;
    k.fed(
        "apply --server-side -f -",
        &pool(json!({"cidr": "11.0.0.0/8"})),
    )
    .await;
    let (edited, out, err) = k
        .raw("edit pool a", "", "sed -i s/blockSize:.26/blockSize:\\ 28/")
        .await;
    assert!(edited, "{out}{err}");
    assert_eq!(
        k.json("get pool a -o json").await["spec"],
        json!({"cidr": "11.0.0.0/8", "blockSize": 28})
    );
    k.ok(r#"patch pool a --type=merge -p {"spec":{"mode":"Always"}}"#)
        .await;
    k.ok(r#"patch pool a --subresource=status --type=merge -p {"status":{"n":1}}"#)
        .await;
    assert_eq!(
        k.json("get pool a -o json").await["status"],
        json!({"n": 1})
    );
    assert!(k.ok("describe pool a").await.contains("Block Size:  28"));
    assert!(k.ok("explain pool.spec").await.contains("blockSize"));
    k.ok("delete crd pools.test.margay.dev").await;
    k.refused("get pools", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watching() {
    if !have_kubectl("watching") {
        return;
    }
    let k = kubectl().await;
    k.ok("create configmap first").await;
    let watched = k.raw("get cm -w --request-timeout=4s", "", "true");
    let changed = async {
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        k.ok("create configmap second --from-literal=a=b").await;
    };
    let ((_, out, err), ()) = tokio::join!(watched, changed);
    let names: Vec<&str> = out.lines().map(|line| words(line)[0]).collect();
    assert_eq!(names, ["NAME", "first", "second"], "{err}");
}

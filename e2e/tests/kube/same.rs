//! The embedded store asked the same as the real server: codes, reasons and objects are alike.
//!
//! A script of requests is run against both, step by step. What is each server's own (versions,
//! times, ids, the words of a message) is left out before the answers are compared. Where they
//! differ knowingly, the step says why; a difference that has gone away is a failure too.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kube::Client;
use margay_e2e::lab::objects;
use serde_json::{Value, json};

/// The embedded store as people run it.
struct Embedded {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the built programs are.
pub fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("MARGAY_BIN_DIR") {
        return folder.into();
    }
    // target/PROFILE/deps/kube-HASH
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().to_owned()
}

async fn embedded() -> (Embedded, Client) {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let mut command = Command::new(programs().join("margay"));
    command
        .arg("apiserver")
        .arg("--data")
        .arg(folder.path())
        .args(["--listen", &address]);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let store = Embedded {
        child: child.unwrap(),
        folder,
    };
    let kubeconfig = store.folder.path().join("kubeconfig");
    for attempt in 0.. {
        if let Ok(client) = objects::client(&kubeconfig).await
            && client.apiserver_version().await.is_ok()
        {
            return (store, client);
        }
        assert!(attempt < 400, "the embedded store does not answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!()
}

/// One request of the script.
struct Step {
    what: &'static str,
    method: &'static str,
    path: String,
    kind: &'static str,
    accept: &'static str,
    body: String,
    /// Why the answers differ, where they do.
    differs: Option<&'static str>,
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const POOLS: &str = "/apis/margay.dev/v1/ippools";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCH: &str = "application/json-patch+json";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

fn step(what: &'static str, method: &'static str, path: impl Into<String>, body: Value) -> Step {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    Step {
        what,
        method,
        path: path.into(),
        kind: JSON,
        accept: JSON,
        body,
        differs: None,
    }
}

impl Step {
    fn patch(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    fn differs(self, why: &'static str) -> Self {
        Self {
            differs: Some(why),
            ..self
        }
    }
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": "script"}}, "data": data})
}

fn pool(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "margay.dev/v1", "kind": "IPPool", "metadata": {"name": name}, "spec": spec})
}

/// Writes and what refuses them. `{version}`, `{first}` and `{uid}` stand for the latest and the
/// first version of the object last answered, and its id.
fn writes() -> Vec<Step> {
    let a = format!("{MAPS}/a");
    let with_version = |version: &str| {
        let mut object = map("a", json!({"v": "1b"}));
        object["metadata"]["resourceVersion"] = version.into();
        object
    };
    vec![
        step("create", "POST", MAPS, map("a", json!({"v": "1"}))),
        step("create what is there", "POST", MAPS, map("a", json!({}))),
        step("get", "GET", &a, Value::Null),
        step(
            "get what is not there",
            "GET",
            format!("{MAPS}/no"),
            Value::Null,
        ),
        step("replace", "PUT", &a, with_version("{version}")),
        step(
            "replace a stale version",
            "PUT",
            &a,
            with_version("{first}"),
        ),
        step(
            "replace without a version",
            "PUT",
            &a,
            map("a", json!({"v": "2"})),
        ),
        step("replace by another name", "PUT", &a, map("b", json!({}))),
        step(
            "replace what is not there",
            "PUT",
            format!("{MAPS}/no"),
            map("no", json!({})),
        ),
        step("merge", "PATCH", &a, json!({"data": {"w": "2"}})).patch(MERGE),
        step("merge a null", "PATCH", &a, json!({"data": {"w": null}})).patch(MERGE),
        step(
            "merge a stale version",
            "PATCH",
            &a,
            json!({"metadata": {"resourceVersion": "{first}"}, "data": {"x": "1"}}),
        )
        .patch(MERGE),
        step("strategic merge", "PATCH", &a, json!({"data": {"s": "1"}})).patch(STRATEGIC),
        step(
            "json patch",
            "PATCH",
            &a,
            json!([{"op": "add", "path": "/data/j", "value": "1"}]),
        )
        .patch(PATCH),
        step(
            "json patch whose test fails",
            "PATCH",
            &a,
            json!([{"op": "test", "path": "/data/j", "value": "9"}]),
        )
        .patch(PATCH)
        .differs("the embedded store names the object and the field"),
        step(
            "json patch of what is not there",
            "PATCH",
            &a,
            json!([{"op": "remove", "path": "/data/none"}]),
        )
        .patch(PATCH)
        .differs("the embedded store names the object and the field"),
        step("a patch that is none", "PATCH", &a, json!({"op": "add"})).patch(PATCH),
        step("a patch of an unknown kind", "PATCH", &a, json!({})).patch("application/x-patch"),
        step(
            "a patch of what is not there",
            "PATCH",
            format!("{MAPS}/no"),
            json!({}),
        )
        .patch(MERGE),
        step("an impossible name", "POST", MAPS, map("A_B", json!({}))),
        step(
            "no name",
            "POST",
            MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}),
        ),
        step(
            "another namespace",
            "POST",
            MAPS,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "other"}}),
        ),
        step(
            "a namespace that is not there",
            "POST",
            "/api/v1/namespaces/nowhere/configmaps",
            map("a", json!({})),
        ),
        step(
            "another kind",
            "POST",
            MAPS,
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}}),
        ),
        Step {
            body: "{".into(),
            ..step("no JSON", "POST", MAPS, Value::Null)
        },
        step(
            "try a write",
            "POST",
            format!("{MAPS}?dryRun=All"),
            map("dry", json!({"v": "1"})),
        ),
        step(
            "it was only tried",
            "GET",
            format!("{MAPS}/dry"),
            Value::Null,
        ),
        step(
            "delete another",
            "DELETE",
            &a,
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}),
        ),
        step("get once more", "GET", &a, Value::Null),
        step(
            "delete a stale version",
            "DELETE",
            &a,
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "{uid}", "resourceVersion": "{first}"}}),
        ),
        step(
            "delete",
            "DELETE",
            &a,
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "{uid}", "resourceVersion": "{version}"}}),
        ),
        step("delete what is gone", "DELETE", &a, Value::Null),
        step(
            "an unknown kind",
            "GET",
            "/apis/margay.dev/v1/unknowns",
            Value::Null,
        )
        .differs("Kubernetes answers in plain text, not with a Status"),
        step(
            "an unknown group",
            "GET",
            "/apis/none.margay.dev/v1/things",
            Value::Null,
        )
        .differs("Kubernetes answers in plain text, not with a Status"),
        step("a method that is none", "PUT", MAPS, map("a", json!({}))),
    ]
}

fn reads() -> Vec<Step> {
    let list = |what, query: &str| step(what, "GET", format!("{MAPS}?{query}"), Value::Null);
    vec![
        step("create one", "POST", MAPS, map("l1", json!({"v": "1"}))),
        step("create two", "POST", MAPS, map("l2", json!({"v": "2"}))),
        step("create three", "POST", MAPS, map("l3", json!({"v": "3"}))),
        list("list by label", "labelSelector=of%3Dscript"),
        list(
            "list by a set of labels",
            "labelSelector=of+in+(script,other),!none",
        ),
        list("list by a label nobody has", "labelSelector=of%3Dnobody"),
        list(
            "list by a selector that is none",
            "labelSelector=of%3D%3D%3D",
        ),
        list("list by name", "fieldSelector=metadata.name%3Dl2"),
        list("list by a field that cannot be", "fieldSelector=data.v%3D1"),
        list("a page", "labelSelector=of%3Dscript&limit=2"),
        list("a limit that is none", "limit=x"),
        step(
            "delete by label",
            "DELETE",
            format!("{MAPS}?labelSelector=of%3Dscript"),
            Value::Null,
        ),
        list("nothing is left", "labelSelector=of%3Dscript"),
        step(
            "what a group serves",
            "GET",
            "/apis/margay.dev/v1",
            Value::Null,
        ),
        step("what a group is", "GET", "/apis/margay.dev", Value::Null),
    ]
}

fn custom() -> Vec<Step> {
    let p = format!("{POOLS}/p");
    let status = format!("{p}/status");
    let condition = json!([{"type": "Accepted", "status": "True", "reason": "OK", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let table = |what, path: &str| Step {
        accept: TABLE,
        ..step(what, "GET", path, Value::Null)
    };
    vec![
        step(
            "create a pool: defaults",
            "POST",
            POOLS,
            pool("p", json!({"cidr": "10.0.0.0/16"})),
        ),
        step(
            "fields nobody knows are dropped",
            "POST",
            POOLS,
            pool("q", json!({"cidr": "10.1.0.0/16", "unknown": 1})),
        ),
        step(
            "a status with it is dropped",
            "POST",
            POOLS,
            json!({"apiVersion": "margay.dev/v1", "kind": "IPPool", "metadata": {"name": "r"}, "spec": {"cidr": "10.2.0.0/16"}, "status": {"conditions": condition}}),
        ),
        step("a required field", "POST", POOLS, pool("bad", json!({}))),
        step(
            "a number too small",
            "POST",
            POOLS,
            pool("bad", json!({"cidr": "10.0.0.0/16", "blockSize": 1})),
        ),
        step(
            "a word that is none",
            "POST",
            POOLS,
            pool("bad", json!({"cidr": "10.0.0.0/16", "ipipMode": "x"})),
        ),
        step(
            "another type",
            "POST",
            POOLS,
            pool("bad", json!({"cidr": 7})),
        ),
        step(
            "a pattern",
            "POST",
            POOLS,
            pool("bad", json!({"cidr": "x"})),
        ),
        step(
            "replace without a version",
            "PUT",
            &p,
            pool("p", json!({"cidr": "10.0.0.0/16"})),
        ),
        step("merge", "PATCH", &p, json!({"spec": {"natOutgoing": true}})).patch(MERGE),
        step(
            "nothing changes",
            "PATCH",
            &p,
            json!({"spec": {"natOutgoing": true}}),
        )
        .patch(MERGE),
        step("strategic merge", "PATCH", &p, json!({"spec": {}})).patch(STRATEGIC),
        step(
            "status by its door, the rest stays",
            "PATCH",
            &status,
            json!({"spec": {"natOutgoing": false}, "status": {"conditions": condition}}),
        )
        .patch(MERGE),
        step(
            "the rest by its door, status stays",
            "PATCH",
            &p,
            json!({"spec": {"disabled": true}, "status": null}),
        )
        .patch(MERGE),
        step("get the status", "GET", &status, Value::Null),
        table("a table of pools", POOLS),
        table("a table of one pool", &p),
        step(
            "a finalizer",
            "PATCH",
            &p,
            json!({"metadata": {"finalizers": ["margay.dev/test"]}}),
        )
        .patch(MERGE),
        step("delete waits for it", "DELETE", &p, Value::Null),
        step("get what is being deleted", "GET", &p, Value::Null),
        step(
            "no finalizer may be added",
            "PATCH",
            &p,
            json!({"metadata": {"finalizers": ["margay.dev/test", "margay.dev/more"]}}),
        )
        .patch(MERGE),
        step(
            "the last finalizer ends it",
            "PATCH",
            &p,
            json!({"metadata": {"finalizers": null}}),
        )
        .patch(MERGE),
        step("it is gone", "GET", &p, Value::Null),
        step("delete all", "DELETE", POOLS, Value::Null),
        step("none is left", "GET", POOLS, Value::Null),
    ]
}

/// One side of the comparison, with what its placeholders stand for.
struct Side {
    client: Client,
    first: String,
    version: String,
    uid: String,
}

impl Side {
    fn new(client: Client) -> Self {
        let none = String::new;
        Self {
            client,
            first: none(),
            version: none(),
            uid: none(),
        }
    }

    async fn ask(&mut self, step: &Step) -> Value {
        let fill = |text: &str| {
            text.replace("{version}", &self.version)
                .replace("{first}", &self.first)
                .replace("{uid}", &self.uid)
        };
        let request = http::Request::builder()
            .method(step.method)
            .uri(&step.path)
            .header("accept", step.accept)
            .header("content-type", step.kind)
            .body(kube::client::Body::from(fill(&step.body).into_bytes()))
            .unwrap();
        let answer = self.client.send(request).await.unwrap();
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        self.remember(&body);
        json!({"code": code, "body": comparable(body)})
    }

    fn remember(&mut self, body: &Value) {
        let text = |path: &str| {
            body.pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        if let (Some(uid), Some(version)) =
            (text("/metadata/uid"), text("/metadata/resourceVersion"))
        {
            if uid != self.uid {
                self.first = version.clone();
            }
            (self.uid, self.version) = (uid, version);
        }
    }
}

/// An answer without what is a server's own.
fn comparable(mut body: Value) -> Value {
    if body["kind"] == "Status" {
        let causes = body.pointer("/details/causes").and_then(Value::as_array);
        let mut causes: Vec<_> = causes
            .into_iter()
            .flatten()
            .map(|cause| json!({"reason": cause["reason"], "field": cause["field"]}))
            .collect();
        causes.sort_by_key(Value::to_string);
        // Two rules may find the same fault.
        causes.dedup();
        return json!({"status": body["status"], "reason": body["reason"], "code": body["code"],
            "name": body["details"]["name"], "causes": causes});
    }
    strip(&mut body);
    body
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in [
                "uid",
                "resourceVersion",
                "creationTimestamp",
                "deletionTimestamp",
                "managedFields",
                "selfLink",
                "storageVersionHash",
                "remainingItemCount",
            ] {
                map.remove(key);
            }
            // That there is more matters, not how a server finds it again.
            if let Some(next) = map.remove("continue")
                && next.as_str().is_some_and(|next| !next.is_empty())
            {
                map.insert("continue".into(), true.into());
            }
            // Kubernetes counts the generations of kinds with a spec only, and says the kind of
            // items only of custom kinds: the embedded store always.
            if map.get("kind").is_some_and(|kind| kind == "ConfigMap")
                && let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut)
            {
                metadata.remove("generation");
            }
            if map.get("kind").is_some_and(|kind| kind == "ConfigMapList") {
                for item in map["items"].as_array_mut().into_iter().flatten() {
                    strip(item);
                    let item = item.as_object_mut().into_iter();
                    item.for_each(|item| {
                        item.retain(|key, _| key != "kind" && key != "apiVersion")
                    });
                }
            }
            // Discovery is in the order of making here and of names there.
            for list in ["resources", "verbs"] {
                if let Some(list) = map.get_mut(list).and_then(Value::as_array_mut) {
                    list.iter_mut().for_each(strip);
                    list.sort_by_key(Value::to_string);
                }
            }
            // Ages and descriptions are for people; the names and the other cells are compared.
            if map.contains_key("columnDefinitions") {
                table(map);
            }
            map.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

fn table(map: &mut serde_json::Map<String, Value>) {
    let columns: Vec<Value> = map["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| json!([column["name"], column["type"], column["priority"]]))
        .collect();
    let age = columns.iter().position(|column| column[0] == "Age");
    for row in map["rows"].as_array_mut().into_iter().flatten() {
        if let (Some(age), Some(cells)) = (age, row["cells"].as_array_mut()) {
            cells[age] = Value::Null;
        }
    }
    map.insert("columnDefinitions".into(), columns.into());
}

pub async fn the_embedded_store_answers_alike(client: Client) {
    let (_store, own) = embedded().await;
    let (mut real, mut own) = (Side::new(client), Side::new(own));
    let steps: Vec<Step> = writes()
        .into_iter()
        .chain(reads())
        .chain(custom())
        .collect();
    let mut wrong = Vec::new();
    for step in &steps {
        let (theirs, ours) = (real.ask(step).await, own.ask(step).await);
        match (theirs == ours, step.differs) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(why)) => {
                wrong.push(format!("{}: no difference any more ({why})", step.what))
            }
            (false, None) => wrong.push(format!(
                "{}: {} {}\n  Kubernetes: {theirs}\n  embedded:   {ours}",
                step.what, step.method, step.path
            )),
        }
    }
    let known = steps.iter().filter(|step| step.differs.is_some()).count();
    println!(
        "  {} requests, {known} with a known difference",
        steps.len()
    );
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

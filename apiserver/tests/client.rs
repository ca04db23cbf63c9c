//! The store as the `kube` client sees it, over real TLS.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Rig, pool_definition, start};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
    WatchEvent, WatchParams,
};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::{wait, watcher};
use kube::{Api, Client, ResourceExt};
use margay_apiserver::FieldError;
use margay_apiserver::store::{HistoryLimit, Limits};
use serde_json::{Value, json};

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"v": value}})).unwrap()
}

fn code(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not an answer of the server: {other}"),
    }
}

fn pools(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("test.margay.dev", "v1", "Pool");
    Api::all_with(
        client.clone(),
        &ApiResource::from_gvk_with_plural(&kind, "pools"),
    )
}

fn pool(client: &Client, name: &str, spec: Value) -> DynamicObject {
    let _ = client;
    let kind = GroupVersionKind::gvk("test.margay.dev", "v1", "Pool");
    DynamicObject::new(name, &ApiResource::from_gvk_with_plural(&kind, "pools"))
        .data(json!({ "spec": spec }))
}

async fn install(rig: &Rig) {
    let definitions: Api<CustomResourceDefinition> = Api::all(rig.client.clone());
    let definition = serde_json::from_value(pool_definition()).unwrap();
    definitions
        .create(&PostParams::default(), &definition)
        .await
        .unwrap();
    let established = wait::conditions::is_crd_established();
    wait::await_condition(definitions, "pools.test.margay.dev", established)
        .await
        .unwrap();
}

#[tokio::test]
async fn create_read_update_delete() {
    let rig = start(|builder| builder).await;
    let api: Api<ConfigMap> = Api::default_namespaced(rig.client.clone());
    let created = api
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    let again = api
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(code(again), (409, "AlreadyExists".into()));

    let mut changed = created.clone();
    changed.data = Some(BTreeMap::from([("v".into(), "2".into())]));
    let changed = api
        .replace("a", &PostParams::default(), &changed)
        .await
        .unwrap();
    let stale = api
        .replace("a", &PostParams::default(), &created)
        .await
        .unwrap_err();
    assert_eq!(code(stale), (409, "Conflict".into()));
    assert_eq!(api.get("a").await.unwrap().data, changed.data);

    let wrong_uid = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some("x".into()),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    assert_eq!(
        code(api.delete("a", &wrong_uid).await.unwrap_err()),
        (409, "Conflict".into())
    );
    let old = Preconditions {
        uid: created.uid(),
        resource_version: created.resource_version(),
    };
    let old_version = DeleteParams {
        preconditions: Some(old),
        ..DeleteParams::default()
    };
    assert_eq!(
        code(api.delete("a", &old_version).await.unwrap_err()),
        (409, "Conflict".into())
    );
    let right = Preconditions {
        uid: changed.uid(),
        resource_version: changed.resource_version(),
    };
    let right = DeleteParams {
        preconditions: Some(right),
        ..DeleteParams::default()
    };
    assert!(api.delete("a", &right).await.unwrap().is_right());
    assert_eq!(
        code(api.get("a").await.unwrap_err()),
        (404, "NotFound".into())
    );

    let absent: Api<ConfigMap> = Api::namespaced(rig.client.clone(), "nowhere");
    let error = absent
        .create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap_err();
    assert_eq!(code(error), (404, "NotFound".into()));
    rig.server.stop().await;
}

#[tokio::test]
async fn patches_of_every_kind() {
    let rig = start(|builder| builder).await;
    let api: Api<ConfigMap> = Api::default_namespaced(rig.client.clone());
    api.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let params = PatchParams::default();
    let data = |map: ConfigMap| serde_json::to_value(map.data).unwrap();
    let merged = api
        .patch("a", &params, &Patch::Merge(json!({"data": {"w": "2"}})))
        .await
        .unwrap();
    assert_eq!(data(merged), json!({"v": "1", "w": "2"}));
    let strategic = api
        .patch(
            "a",
            &params,
            &Patch::Strategic(json!({"data": {"v": null}})),
        )
        .await
        .unwrap();
    assert_eq!(data(strategic), json!({"w": "2"}));
    let operations = serde_json::from_value(json!([{"op": "test", "path": "/data/w", "value": "2"}, {"op": "replace", "path": "/data/w", "value": "3"}])).unwrap();
    let patched = api
        .patch("a", &params, &Patch::Json::<()>(operations))
        .await
        .unwrap();
    assert_eq!(data(patched), json!({"w": "3"}));
    let operations =
        serde_json::from_value(json!([{"op": "test", "path": "/data/w", "value": "2"}])).unwrap();
    assert_eq!(
        code(
            api.patch("a", &params, &Patch::Json::<()>(operations))
                .await
                .unwrap_err()
        )
        .0,
        422
    );

    // Server-side apply: creates, takes back what it no longer says, leaves alone what others said.
    let apply = PatchParams::apply("tester");
    let body = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": data});
    let applied = api
        .patch(
            "b",
            &apply,
            &Patch::Apply(body(json!({"x": "1", "y": "1"}))),
        )
        .await
        .unwrap();
    assert_eq!(data(applied), json!({"x": "1", "y": "1"}));
    api.patch("b", &params, &Patch::Merge(json!({"data": {"z": "9"}})))
        .await
        .unwrap();
    let applied = api
        .patch("b", &apply, &Patch::Apply(body(json!({"y": "2"}))))
        .await
        .unwrap();
    assert_eq!(data(applied.clone()), json!({"y": "2", "z": "9"}));
    let same = api
        .patch("b", &apply, &Patch::Apply(body(json!({"y": "2"}))))
        .await
        .unwrap();
    assert_eq!(
        same.resource_version(),
        applied.resource_version(),
        "nothing changed, nothing is written"
    );
    // A stale version in a patch is a precondition.
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"y": "3"}});
    assert_eq!(
        code(
            api.patch("b", &params, &Patch::Merge(stale))
                .await
                .unwrap_err()
        ),
        (409, "Conflict".into())
    );
    rig.server.stop().await;
}

#[tokio::test]
async fn many_writers_of_one_object_lose_nothing() {
    let rig = start(|builder| builder).await;
    let api: Api<ConfigMap> = Api::default_namespaced(rig.client.clone());
    api.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    let writers = (0..16).map(|i| {
        let api = api.clone();
        async move {
            api.patch(
                "a",
                &PatchParams::default(),
                &Patch::Merge(json!({"data": {format!("k{i}"): "x"}})),
            )
            .await
        }
    });
    futures::future::try_join_all(writers).await.unwrap();
    assert_eq!(api.get("a").await.unwrap().data.unwrap().len(), 17);
    // The race to create one name has one winner.
    let racers = (0..16).map(|i| {
        let api = api.clone();
        async move {
            api.create(&PostParams::default(), &config_map("race", &i.to_string()))
                .await
                .is_ok()
        }
    });
    let won = futures::future::join_all(racers)
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(won, 1);
    rig.server.stop().await;
}

#[tokio::test]
async fn custom_resources_are_pruned_defaulted_and_validated() {
    let refuse_ten =
        |kind: &margay_apiserver::GroupVersionKind, new: &Value, old: Option<&Value>| {
            let changed = old.is_some_and(|old| old["spec"]["cidr"] != new["spec"]["cidr"]);
            if kind.kind == "Pool" && changed {
                vec![FieldError::forbidden("spec.cidr", "may not change")]
            } else {
                Vec::new()
            }
        };
    let rig = start(|builder| builder.validator(refuse_ten)).await;
    install(&rig).await;
    let api = pools(&rig.client);
    let params = PostParams::default();
    let created = api
        .create(
            &params,
            &pool(&rig.client, "a", json!({"cidr": "10.0.0.0/8", "junk": 1})),
        )
        .await
        .unwrap();
    assert_eq!(
        created.data["spec"],
        json!({"cidr": "10.0.0.0/8", "blockSize": 26})
    );
    assert_eq!(created.metadata.generation, Some(1));

    let error = api
        .create(
            &params,
            &pool(&rig.client, "b", json!({"blockSize": 99, "mode": "X"})),
        )
        .await
        .unwrap_err();
    let kube::Error::Api(status) = error else {
        panic!("{error}")
    };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert!(
        status
            .message
            .contains("spec.blockSize: Invalid value: 99: "),
        "{}",
        status.message
    );
    let fields: Vec<String> = status
        .details
        .unwrap()
        .causes
        .into_iter()
        .map(|cause| cause.field)
        .collect();
    assert_eq!(fields, ["spec.cidr", "spec.blockSize", "spec.mode"]);

    // The status has its own door, in both directions.
    let patch = json!({"spec": {"blockSize": 30}, "status": {"used": 1}});
    let updated = api
        .patch_status("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(
        (
            &updated.data["spec"]["blockSize"],
            &updated.data["status"]["used"]
        ),
        (&json!(26), &json!(1))
    );
    assert_eq!(updated.metadata.generation, Some(1));
    let patch = json!({"spec": {"blockSize": 30}, "status": {"used": 2}});
    let updated = api
        .patch("a", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    assert_eq!(
        (
            &updated.data["spec"]["blockSize"],
            &updated.data["status"]["used"]
        ),
        (&json!(30), &json!(1))
    );
    assert_eq!(updated.metadata.generation, Some(2));

    let error = api
        .patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"cidr": "11.0.0.0/8"}})),
        )
        .await
        .unwrap_err();
    assert_eq!(code(error).0, 422, "the validator's word counts");
    let error = api
        .patch("a", &PatchParams::default(), &Patch::Strategic(json!({})))
        .await
        .unwrap_err();
    assert_eq!(code(error).0, 415);

    // Deleting the definition deletes its objects and ends the resource.
    let definitions: Api<CustomResourceDefinition> = Api::all(rig.client.clone());
    let uid = definitions
        .get("pools.test.margay.dev")
        .await
        .unwrap()
        .uid()
        .unwrap();
    definitions
        .delete("pools.test.margay.dev", &DeleteParams::default())
        .await
        .unwrap();
    let gone = wait::conditions::is_deleted(&uid);
    let waited = wait::await_condition(definitions, "pools.test.margay.dev", gone);
    tokio::time::timeout(Duration::from_secs(10), waited)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(code(api.get("a").await.unwrap_err()).0, 404);
    rig.server.stop().await;
}

#[tokio::test]
async fn selectors_and_pages() {
    let rig = start(|builder| builder).await;
    let api: Api<ConfigMap> = Api::default_namespaced(rig.client.clone());
    for i in 0..7 {
        let mut map = config_map(&format!("m{i}"), "x");
        map.labels_mut().insert(
            "parity".into(),
            if i % 2 == 0 { "even" } else { "odd" }.into(),
        );
        api.create(&PostParams::default(), &map).await.unwrap();
    }
    let names = |list: kube::api::ObjectList<ConfigMap>| {
        list.items
            .iter()
            .map(ResourceExt::name_any)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(
            api.list(&ListParams::default().labels("parity=odd"))
                .await
                .unwrap()
        ),
        ["m1", "m3", "m5"]
    );
    assert_eq!(
        names(
            api.list(&ListParams::default().fields("metadata.name=m2"))
                .await
                .unwrap()
        ),
        ["m2"]
    );
    assert_eq!(
        code(
            api.list(&ListParams::default().fields("data.v=x"))
                .await
                .unwrap_err()
        )
        .0,
        400
    );
    let (mut all, mut token) = (Vec::new(), None::<String>);
    loop {
        let mut params = ListParams::default().limit(3);
        params.continue_token = token.take();
        let page = api.list(&params).await.unwrap();
        token = page
            .metadata
            .continue_
            .clone()
            .filter(|token| !token.is_empty());
        all.push(names(page));
        if token.is_none() {
            break;
        }
    }
    assert_eq!(
        all,
        [vec!["m0", "m1", "m2"], vec!["m3", "m4", "m5"], vec!["m6"]]
    );
    api.delete_collection(
        &DeleteParams::default(),
        &ListParams::default().labels("parity=odd"),
    )
    .await
    .unwrap();
    assert_eq!(
        api.list(&ListParams::default()).await.unwrap().items.len(),
        4
    );
    rig.server.stop().await;
}

#[tokio::test]
async fn a_watcher_sees_the_state_and_every_change() {
    let rig = start(|builder| builder).await;
    let api: Api<ConfigMap> = Api::default_namespaced(rig.client.clone());
    api.create(&PostParams::default(), &config_map("a", "1"))
        .await
        .unwrap();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let mut events = watcher(api.clone(), config).boxed();
        let mut next = async || {
            let event = tokio::time::timeout(Duration::from_secs(10), events.try_next())
                .await
                .unwrap()
                .unwrap();
            match event.unwrap() {
                watcher::Event::Init => "init".to_owned(),
                watcher::Event::InitApply(map) => format!("had {}", map.name_any()),
                watcher::Event::InitDone => "done".to_owned(),
                watcher::Event::Apply(map) => format!("put {}", map.name_any()),
                watcher::Event::Delete(map) => format!("gone {}", map.name_any()),
            }
        };
        assert_eq!(
            [next().await, next().await, next().await],
            ["init", "had a", "done"]
        );
        api.create(&PostParams::default(), &config_map("b", "1"))
            .await
            .unwrap();
        assert_eq!(next().await, "put b");
        api.delete("b", &DeleteParams::default()).await.unwrap();
        assert_eq!(next().await, "gone b");
    }
    rig.server.stop().await;
}

#[tokio::test]
async fn a_forgotten_version_is_gone_and_a_watcher_recovers() {
    let history = HistoryLimit {
        entries: 4,
        bytes: 1 << 20,
    };
    let rig = start(|builder| {
        builder.limits(Limits {
            history,
            ..Limits::default()
        })
    })
    .await;
    let api: Api<ConfigMap> = Api::default_namespaced(rig.client.clone());
    let first = api
        .create(&PostParams::default(), &config_map("a", "0"))
        .await
        .unwrap()
        .resource_version()
        .unwrap();
    for i in 1..20 {
        api.patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"v": i.to_string()}})),
        )
        .await
        .unwrap();
    }
    // Told in the stream: kube's watcher lists anew for an event only, and would ask for ever
    // for the version of an answer that is 410 as a whole.
    let newest = api.get("a").await.unwrap().resource_version().unwrap();
    let from_the_future = (newest.parse::<u64>().unwrap() + 1000).to_string();
    for version in [&first, &from_the_future] {
        let stream = api.watch(&WatchParams::default(), version).await.unwrap();
        let events: Vec<_> = stream.try_collect().await.unwrap();
        match events.as_slice() {
            [WatchEvent::Error(status)] => assert_eq!(status.code, 410),
            other => panic!("{other:?}"),
        }
    }

    // A watch that does not end by itself still ends when its time is up.
    let params = WatchParams::default().timeout(1);
    let stream = api.watch(&params, &newest).await.unwrap().boxed();
    let events: Vec<_> =
        tokio::time::timeout(Duration::from_secs(10), stream.try_collect::<Vec<_>>())
            .await
            .unwrap()
            .unwrap();
    assert!(
        events
            .iter()
            .all(|event| matches!(event, WatchEvent::Bookmark(_))),
        "{events:?}"
    );
    rig.server.stop().await;
}

#[tokio::test]
async fn a_namespace_takes_its_content_along_and_finalizers_hold_it() {
    let rig = start(|builder| builder).await;
    let namespaces: Api<Namespace> = Api::all(rig.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "blue"}})).unwrap();
    let uid = namespaces
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap()
        .uid()
        .unwrap();
    let api: Api<ConfigMap> = Api::namespaced(rig.client.clone(), "blue");
    api.create(&PostParams::default(), &config_map("plain", "1"))
        .await
        .unwrap();
    let mut held = config_map("held", "1");
    held.finalizers_mut().push("test.margay.dev/hold".into());
    api.create(&PostParams::default(), &held).await.unwrap();
    namespaces
        .delete("blue", &DeleteParams::default())
        .await
        .unwrap();
    let plain_gone = async {
        while api.get_opt("plain").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), plain_gone)
        .await
        .unwrap();
    let error = api
        .create(&PostParams::default(), &config_map("late", "1"))
        .await
        .unwrap_err();
    assert_eq!(code(error), (403, "Forbidden".into()));
    assert!(
        namespaces.get_opt("blue").await.unwrap().is_some(),
        "a finalizer holds it"
    );
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("held", &PatchParams::default(), &release)
        .await
        .unwrap();
    let waited = wait::await_condition(
        namespaces.clone(),
        "blue",
        wait::conditions::is_deleted(&uid),
    );
    tokio::time::timeout(Duration::from_secs(10), waited)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        code(
            namespaces
                .delete("default", &DeleteParams::default())
                .await
                .unwrap_err()
        )
        .0,
        403
    );
    rig.server.stop().await;
}

#[tokio::test]
async fn built_in_kinds_are_checked() {
    let rig = start(|builder| builder).await;
    let raw = async |path: &str, body: Value| {
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .unwrap();
        rig.client.request::<Value>(request).await
    };
    let wrong_type = json!({"metadata": {"name": "p"}, "spec": {"containers": "x"}});
    let kube::Error::Api(status) = raw("/api/v1/namespaces/default/pods", wrong_type)
        .await
        .unwrap_err()
    else {
        panic!()
    };
    assert_eq!(status.code, 400);
    assert!(
        status.message.contains("spec.containers: invalid type"),
        "{}",
        status.message
    );
    let bad_name = json!({"metadata": {"name": "A_b"}, "spec": {"containers": [{"name": "c"}]}});
    assert_eq!(
        code(
            raw("/api/v1/namespaces/default/pods", bad_name)
                .await
                .unwrap_err()
        )
        .0,
        422
    );
    let strict =
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], "bogus": 1}});
    assert_eq!(
        code(
            raw(
                "/api/v1/namespaces/default/pods?fieldValidation=Strict",
                strict
            )
            .await
            .unwrap_err()
        )
        .0,
        400
    );
    let pods: Api<Pod> = Api::default_namespaced(rig.client.clone());
    let generated = serde_json::from_value(
        json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c"}]}}),
    )
    .unwrap();
    let pod = pods
        .create(&PostParams::default(), &generated)
        .await
        .unwrap();
    assert!(pod.name_any().starts_with("p-") && pod.name_any().len() == 7);
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
    let secrets: Api<Secret> = Api::default_namespaced(rig.client.clone());
    let secret =
        serde_json::from_value(json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}}))
            .unwrap();
    let secret = secrets
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    assert_eq!(secret.data.unwrap()["a"].0, b"b");
    let huge = json!({"metadata": {"name": "h"}, "data": {"x": "x".repeat(4 << 20)}});
    assert_eq!(
        code(
            raw("/api/v1/namespaces/default/configmaps", huge)
                .await
                .unwrap_err()
        )
        .0,
        413
    );
    rig.server.stop().await;
}

#[tokio::test]
async fn no_token_no_answer() {
    let rig = start(|builder| builder).await;
    let kubeconfig = std::fs::read_to_string(rig.server.kubeconfig()).unwrap();
    let token = std::fs::read_to_string(rig.directory.path().join("token")).unwrap();
    let forged = kubeconfig.replace(token.trim(), &"0".repeat(64));
    let config = kube::config::Kubeconfig::from_yaml(&forged).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default())
            .await
            .unwrap();
    let stranger = Client::try_from(config).unwrap();
    let api: Api<Namespace> = Api::all(stranger);
    assert_eq!(
        code(api.list(&ListParams::default()).await.unwrap_err()),
        (401, "Unauthorized".into())
    );
    rig.server.stop().await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let rig = start(|builder| builder).await;
    install(&rig).await;
    let created = pools(&rig.client)
        .create(
            &PostParams::default(),
            &pool(&rig.client, "a", json!({"cidr": "c"})),
        )
        .await
        .unwrap();
    let second = margay_apiserver::ServerBuilder::new(rig.directory.path())
        .listen("127.0.0.1:0".parse().unwrap())
        .start()
        .await;
    assert!(
        second.unwrap_err().to_string().contains("already open"),
        "one directory, one process"
    );
    let Rig {
        server,
        directory,
        client,
    } = rig;
    drop(client);
    server.stop().await;
    // The database closes when the last request's handle is gone.
    let mut restarted = None;
    for _ in 0..100 {
        match margay_apiserver::ServerBuilder::new(directory.path())
            .listen("127.0.0.1:0".parse().unwrap())
            .start()
            .await
        {
            Ok(server) => {
                restarted = Some(server);
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let server = restarted.unwrap();
    let client = common::client(&server).await;
    let found = pools(&client).get("a").await.unwrap();
    assert_eq!(
        (found.uid(), found.resource_version()),
        (created.uid(), created.resource_version())
    );
    let next = pools(&client)
        .create(
            &PostParams::default(),
            &pool(&client, "b", json!({"cidr": "c"})),
        )
        .await
        .unwrap();
    let version =
        |object: &DynamicObject| object.resource_version().unwrap().parse::<u64>().unwrap();
    assert!(version(&next) > version(&created));
    server.stop().await;
}

#[tokio::test]
async fn both_apis_of_events_show_the_same_events() {
    let rig = start(|builder| builder).await;
    let old: Api<k8s_openapi::api::core::v1::Event> = Api::default_namespaced(rig.client.clone());
    let new: Api<k8s_openapi::api::events::v1::Event> = Api::default_namespaced(rig.client.clone());
    let event = json!({
        "metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "note": "hello",
        "reason": "Because", "type": "Normal", "eventTime": "2026-01-02T03:04:05.000006Z", "action": "Test",
        "reportingController": "test", "reportingInstance": "one",
    });
    new.create(
        &PostParams::default(),
        &serde_json::from_value(event).unwrap(),
    )
    .await
    .unwrap();
    let found = old
        .list(&ListParams::default().fields("involvedObject.name=p"))
        .await
        .unwrap()
        .items
        .remove(0);
    assert_eq!(
        (
            found.message.as_deref(),
            found.reporting_component.as_deref()
        ),
        (Some("hello"), Some("test"))
    );
    assert_eq!(
        new.get("e")
            .await
            .unwrap()
            .regarding
            .unwrap()
            .name
            .as_deref(),
        Some("p")
    );
    rig.server.stop().await;
}

//! The CRDs as they are checked in, on the real server.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Client, ResourceExt};

/// Installs every CRD and waits until its kind is served.
pub async fn install(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in margay_crds::manifests::all() {
        api.create(&PostParams::default(), &crd).await.unwrap();
    }
    for crd in margay_crds::manifests::all() {
        let (name, is_there) = (crd.name_any(), conditions::is_crd_established());
        let done = await_condition(api.clone(), &name, is_there);
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, done).await.unwrap().unwrap();
    }
    // Established is said a moment before the kind is served.
    for crd in margay_crds::manifests::all() {
        let (group, version) = (&crd.spec.group, &crd.spec.versions[0].name);
        let path = format!("/apis/{group}/{version}/{}", crd.spec.names.plural);
        for attempt in 0.. {
            let request = http::Request::get(&path).body(Vec::new()).unwrap();
            match client.request_text(request).await {
                Ok(_) => break,
                Err(error) if attempt > 100 => panic!("{path}: {error}"),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
    }
}

/// Nothing about them is wrong: names accepted, established, schema structural.
pub async fn every_crd_is_established(client: Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in margay_crds::manifests::all() {
        let seen = api.get(&crd.name_any()).await.unwrap();
        let conditions = seen.status.unwrap_or_default().conditions;
        let is = |kind: &str| {
            let found = conditions.iter().flatten().find(|one| one.type_ == kind);
            found.map(|one| one.status.clone())
        };
        let name = crd.name_any();
        assert_eq!(is("Established").as_deref(), Some("True"), "{name}");
        assert_eq!(is("NamesAccepted").as_deref(), Some("True"), "{name}");
        assert_eq!(is("NonStructuralSchema"), None, "{name}");
        // Said only of the one that is in a group of Kubernetes' own.
        let approved = (crd.spec.group != margay_crds::GROUP).then_some("True");
        let conformant = is("KubernetesAPIApprovalPolicyConformant");
        assert_eq!(conformant.as_deref(), approved, "{name}");
        // What the server keeps is what was sent, but for the rules, which it does not know yet.
        let version = |crd: &CustomResourceDefinition| {
            let mut value = serde_json::to_value(&crd.spec.versions[0]).unwrap();
            without_rules(&mut value);
            value
        };
        assert_eq!(
            version(&crd),
            version(&api.get(&name).await.unwrap()),
            "{name}"
        );
    }
}

fn without_rules(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.remove("x-kubernetes-validations");
            map.values_mut().for_each(without_rules);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(without_rules),
        _ => {}
    }
}

//! Policies that the server takes and the agents cannot understand in part: what they select is isolated, by packets
//! between pods of a lab with its objects on that server, the rest goes on, and the object or an Event names the field.
//!
//! What a server lets through: networks that no rule of the CRD checks, selectors that are no selectors. Of Kubernetes'
//! own NetworkPolicies it refuses itself what the agents would not understand; that is asked too.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use margay_crds as crds;
use margay_e2e::lab::patience::{patience, until};
use margay_e2e::lab::pods::RunningPod;
use margay_e2e::lab::probes::{Probe, Question, ask_all};
use margay_e2e::lab::spec::{OTHER_PORT, POD_NAMESPACE, PodPlan, SERVED_PORT};
use serde_json::{Value, json};

use super::small_lab::SmallLab;

const NAME: &str = "closed";

/// Who asks, and whom; each of the others is selected by one policy.
const PODS: [&str; 7] = [
    "friend", "other", "plain", "native", "outward", "own", "global",
];

struct Ground {
    client: Client,
    pods: Vec<RunningPod>,
    logs: PathBuf,
    _lab: SmallLab,
}

pub async fn what_is_not_understood_isolates(kubeconfig: PathBuf) {
    let mut small = SmallLab::build(NAME, kubeconfig).await;
    let mut pods = Vec::new();
    for (number, name) in PODS.into_iter().enumerate() {
        let plan = PodPlan {
            name: name.to_owned(),
            app: name.to_owned(),
            // Some ask on their own node, some across.
            node: number % 2,
        };
        let started = small.cluster.runtime.start(&mut small.lab.ledger, &plan);
        pods.push(started.await.unwrap());
    }
    let ground = Ground {
        client: small.cluster.client.clone(),
        pods,
        logs: small.lab.logs(),
        _lab: small,
    };
    ground.reach("before any policy", |_| true).await;
    the_parts_that_are_read_hold(&ground).await;
    a_subject_that_is_no_selector_is_everyone(&ground).await;
}

/// One policy of each kind, all that may with a part that cannot be read beside one that can.
async fn the_parts_that_are_read_hold(ground: &Ground) {
    let friend = json!({"podSelector": {"matchLabels": {"app": "friend"}}});
    let native = json!({"metadata": {"name": "native", "namespace": POD_NAMESPACE}, "spec": {
        "podSelector": {"matchLabels": {"app": "native"}},
        "ingress": [{"from": [friend], "ports": [{"port": SERVED_PORT}]}]}});
    for rule in [
        json!({"from": [{"ipBlock": {"cidr": "010.0.0.0/8"}}]}),
        json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}),
        json!({"ports": [{"port": 0}]}),
        json!({"ports": [{"port": 80, "protocol": "ICMP"}]}),
        json!({"from": [{}]}),
    ] {
        let mut wrong = native.clone();
        wrong["spec"]["ingress"] = json!([rule]);
        let refused = ground
            .create::<NetworkPolicy>(Some(POD_NAMESPACE), wrong)
            .await;
        let (code, _) = super::refusal(refused.unwrap_err());
        assert_eq!(code, 422, "{rule}");
    }
    ground
        .make::<NetworkPolicy>(Some(POD_NAMESPACE), native)
        .await;
    let outward = json!({"metadata": {"name": "outward"}, "spec": {
        "tier": "Admin", "priority": 1,
        "subject": {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "outward"}}}},
        "egress": [{"action": "Deny", "to": [{"networks": ["nonsense"]}]}]}});
    ground
        .make::<crds::ClusterNetworkPolicy>(None, outward)
        .await;
    let allow = |source: Value, ports: Value| json!({"action": "Allow", "protocol": "TCP", "source": source, "destination": ports});
    let rules = || {
        json!([
            allow(json!({"selector": "app =="}), json!({})),
            allow(
                json!({"selector": "app == 'friend'"}),
                json!({"ports": [SERVED_PORT]})
            )
        ])
    };
    let own = json!({"metadata": {"name": "own", "namespace": POD_NAMESPACE}, "spec": {
        "selector": "app == 'own'", "types": ["Ingress"], "ingress": rules()}});
    ground
        .make::<crds::NetworkPolicy>(Some(POD_NAMESPACE), own)
        .await;
    let global = json!({"metadata": {"name": "global"}, "spec": {
        "selector": "app == 'global'", "types": ["Ingress"], "ingress": rules()}});
    ground.make::<crds::GlobalNetworkPolicy>(None, global).await;

    let passes = |asked: &Asked| {
        let is_selected = ["native", "own", "global"].contains(&asked.to);
        asked.from != "outward"
            && (!is_selected || asked.from == "friend" && asked.port == SERVED_PORT)
    };
    ground
        .reach("what is read of each is in force", passes)
        .await;

    let field = "spec.egress[0].to[0].networks[0]";
    ground.event("outward", field).await;
    let field = "spec.ingress[0].source.selector";
    let own: Api<crds::NetworkPolicy> = Api::namespaced(ground.client.clone(), POD_NAMESPACE);
    let global: Api<crds::GlobalNetworkPolicy> = Api::all(ground.client.clone());
    ground
        .until("the policy's condition", || async {
            condition(own.get("own").await.unwrap().status, field)
        })
        .await;
    ground
        .until("the global policy's condition", || async {
            condition(global.get("global").await.unwrap().status, field)
        })
        .await;
    println!(
        "  three kinds, each in part not understood: what they select is isolated, what is read is in force"
    );
}

/// And it ends with the policy: an object goes, or is put right, without anything being started anew.
async fn a_subject_that_is_no_selector_is_everyone(ground: &Ground) {
    let unread = json!({"metadata": {"name": "unread", "namespace": POD_NAMESPACE}, "spec": {
        "selector": "app in {", "types": ["Ingress"], "ingress": [{"action": "Allow"}]}});
    ground
        .make::<crds::NetworkPolicy>(Some(POD_NAMESPACE), unread)
        .await;
    // It isolates and allows nothing; what others allow their subjects stays allowed.
    let passes = |asked: &Asked| {
        let is_allowed = ["native", "own", "global"].contains(&asked.to);
        is_allowed && asked.from == "friend" && asked.port == SERVED_PORT
    };
    ground
        .reach("a policy whose selector nobody can read", passes)
        .await;
    let own: Api<crds::NetworkPolicy> = Api::namespaced(ground.client.clone(), POD_NAMESPACE);
    ground
        .until("the condition", || async {
            condition(own.get("unread").await.unwrap().status, "spec.selector")
        })
        .await;
    let at_once = DeleteParams::default();
    for name in ["unread", "own"] {
        own.delete(name, &at_once).await.unwrap();
    }
    let global: Api<crds::GlobalNetworkPolicy> = Api::all(ground.client.clone());
    global.delete("global", &at_once).await.unwrap();
    let cluster: Api<crds::ClusterNetworkPolicy> = Api::all(ground.client.clone());
    cluster.delete("outward", &at_once).await.unwrap();
    let native: Api<NetworkPolicy> = Api::namespaced(ground.client.clone(), POD_NAMESPACE);
    native.delete("native", &at_once).await.unwrap();
    ground.reach("after the policies", |_| true).await;
}

fn condition(status: Option<crds::PolicyStatus>, field: &str) -> Result<(), String> {
    let conditions = status.map(|status| status.conditions).unwrap_or_default();
    let mut conditions = conditions.iter();
    let is_it = |one: &crds::Condition| {
        one.type_ == "Accepted" && one.status == "False" && one.message.contains(field)
    };
    let found = conditions.any(is_it).then_some(());
    found.ok_or_else(|| format!("no condition names {field}"))
}

/// A connection that is tried.
struct Asked {
    from: &'static str,
    to: &'static str,
    port: u16,
}

impl Ground {
    async fn make<K>(&self, namespace: Option<&str>, object: Value)
    where
        K: kube::Resource<DynamicType = ()>,
    {
        self.create::<K>(namespace, object).await.unwrap();
    }

    /// As people write it: the client's types must not put it right on the way.
    async fn create<K>(
        &self,
        namespace: Option<&str>,
        mut object: Value,
    ) -> kube::Result<DynamicObject>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        object["apiVersion"] = K::api_version(&()).into();
        object["kind"] = K::kind(&()).into();
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await
    }

    /// Waits until every pod reaches just whom it should.
    async fn reach(&self, when: &str, expected: impl Fn(&Asked) -> bool) {
        let mut asked = Vec::new();
        for from in PODS {
            for to in PODS.into_iter().filter(|to| *to != from) {
                asked.extend([SERVED_PORT, OTHER_PORT].map(|port| Asked { from, to, port }));
            }
        }
        let pod = |name: &str| self.pods.iter().find(|pod| pod.plan.name == name).unwrap();
        let probes = || {
            let probes = asked.iter().map(|one| Probe {
                namespace: pod(one.from).sandbox.namespace.clone(),
                to: pod(one.to).address,
                question: Question::Tcp(one.port),
            });
            probes.collect::<Vec<_>>()
        };
        self.until(when, || async {
            let outcomes = ask_all(probes()).await;
            let wrong = asked
                .iter()
                .zip(&outcomes)
                .filter(|(one, outcome)| outcome.reached() != expected(one));
            let wrong: Vec<String> = wrong
                .map(|(one, outcome)| {
                    format!("{} to {}:{} {outcome:?}", one.from, one.to, one.port)
                })
                .collect();
            wrong
                .is_empty()
                .then_some(())
                .ok_or_else(|| wrong.join(", "))
        })
        .await;
    }

    /// Waits for the Event about the object that names the field.
    async fn event(&self, about: &str, field: &str) {
        let events: Api<Event> = Api::all(self.client.clone());
        self.until(&format!("an Event about {about}"), || async {
            let list = events.list(&ListParams::default()).await.unwrap().items;
            let mut notes = list.iter().filter(|event| {
                event.involved_object.name.as_deref() == Some(about)
                    && event.reason.as_deref() == Some("NotUnderstood")
            });
            let names =
                |event: &Event| event.message.as_deref().unwrap_or_default().contains(field);
            notes
                .any(names)
                .then_some(())
                .ok_or_else(|| format!("none names {field}"))
        })
        .await;
    }

    async fn until<F>(&self, what: &str, look: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), String>>,
    {
        until(what, patience(30), &self.logs, look).await.unwrap();
    }
}

//! A server from before EndpointSlices of v1: Services are announced and withdrawn by those of v1beta1, in a lab with its
//! objects on that server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use margay_crds::{BGPConfiguration, DEFAULT_NAME};
use margay_e2e::lab::bird;
use margay_e2e::lab::command::run;
use margay_e2e::lab::latency::Watch;
use margay_e2e::lab::up::Lab;
use serde_json::{Value, json};

use super::small_lab::SmallLab;

const NAME: &str = "slices";
const TOR: &str = "tor-a";
const RANGE: &str = "198.51.100.0/24";
const ADDRESS: &str = "198.51.100.7";
/// How often the endpoint comes and goes.
const ROUNDS: usize = 10;

pub async fn endpoints_of_an_older_server_are_followed(kubeconfig: PathBuf) {
    let SmallLab { lab, cluster, .. } = &SmallLab::build(NAME, kubeconfig).await;
    let client = &cluster.client;
    the_server_is_an_older_one(client).await;
    take_services(lab);
    let settings: Api<BGPConfiguration> = Api::all(client.clone());
    let change = json!({"spec": {"serviceLoadBalancerIPs": [{"cidr": RANGE}]}});
    merge(&settings, DEFAULT_NAME, &change).await;
    write_service(client).await;

    let slices = Slices::of(client);
    slices.create("node2").await;
    let mut times = [Vec::new(), Vec::new()];
    expect(lab, true, std::future::ready(())).await;
    for _ in 0..ROUNDS {
        times[0].push(expect(lab, false, slices.set_ready(false)).await);
        times[1].push(expect(lab, true, slices.set_ready(true)).await);
    }
    expect(lab, false, slices.delete()).await;
    let [gone, come] = times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2].as_secs_f64() * 1e3
    });
    println!("  by v1beta1: withdrawn at the ToR after {gone:.1} ms, announced after {come:.1} ms");
}

async fn the_server_is_an_older_one(client: &Client) {
    let groups = client.list_api_groups().await.unwrap().groups;
    let group = groups.iter().find(|one| one.name == "discovery.k8s.io");
    let versions = group.unwrap().versions.iter();
    let versions: Vec<&str> = versions.map(|one| &*one.version).collect();
    assert_eq!(versions, ["v1beta1"], "this server proves nothing");
}

/// The lab's routers take the Services' range as they take the pods'.
fn take_services(lab: &Lab) {
    for machine in [TOR, "router"] {
        let folder = &lab.ledger.folder;
        let file = folder.machine(machine).join("bird.conf");
        let pool = format!("{}+", lab.plan.pool);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace(&pool, &format!("{pool}, {RANGE}+"))).unwrap();
        let socket = bird::control_socket(folder, machine);
        run("birdc", &["-s", &socket.to_string_lossy(), "configure"]).unwrap();
    }
}

async fn merge<K>(api: &Api<K>, name: &str, change: &Value)
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let parameters = PatchParams::default();
    api.patch(name, &parameters, &Patch::Merge(change))
        .await
        .unwrap();
}

async fn write_service(client: &Client) {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerIP": ADDRESS,
            "ports": [{"port": 80}]},
    });
    let service: Service = serde_json::from_value(service).unwrap();
    let parameters = PostParams::default();
    services.create(&parameters, &service).await.unwrap();
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}});
    let parameters = PatchParams::default();
    services
        .patch_status("web", &parameters, &Patch::Merge(&status))
        .await
        .unwrap();
}

/// How long it takes from the beginning of a change until the route at the ToR has come or gone.
async fn expect(lab: &Lab, present: bool, change: impl Future<Output = ()>) -> Duration {
    let route = format!("{ADDRESS}/32").parse().unwrap();
    let watch = Watch::begin(&lab.plan.namespace(TOR), route, present).unwrap();
    let start = Instant::now();
    change.await;
    let seen = watch.end().await.unwrap();
    seen.saturating_duration_since(start)
}

/// EndpointSlices of v1beta1.
pub(crate) fn old_slices(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("discovery.k8s.io", "v1beta1", "EndpointSlice");
    let resource = ApiResource::from_gvk_with_plural(&kind, "endpointslices");
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// The Service's one EndpointSlice.
struct Slices(Api<DynamicObject>);

impl Slices {
    fn of(client: &Client) -> Self {
        Self(old_slices(client, "default"))
    }

    /// Where an endpoint is, was among its topology then.
    fn endpoints(node: &str, ready: bool) -> Value {
        json!([{"addresses": ["10.244.9.1"], "conditions": {"ready": ready},
            "topology": {"kubernetes.io/hostname": node}}])
    }

    async fn create(&self, node: &str) {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "namespace": "default",
                "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": Self::endpoints(node, true),
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        });
        let slice: DynamicObject = serde_json::from_value(slice).unwrap();
        let parameters = PostParams::default();
        self.0.create(&parameters, &slice).await.unwrap();
    }

    async fn set_ready(&self, ready: bool) {
        let change = json!({"endpoints": Self::endpoints("node2", ready)});
        merge(&self.0, "web-1", &change).await;
    }

    async fn delete(&self) {
        let parameters = DeleteParams::default();
        self.0.delete("web-1", &parameters).await.unwrap();
    }
}

//! `margay controller` and `margayctl ipam` on the real server: addresses of Services, garbage,
//! the pools' status and finalizer, a pool halved.
//!
//! This server (1.20) drops `spec.loadBalancerClass`, so that Services name the class by the
//! annotation.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Node, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use margay_crds::{IPAMBlock, IPPool, LOAD_BALANCER_NODE, Owner};
use margay_ipam::{NodeBlock, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::same::programs;

/// How long the controller may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);
const GRACE: &str = "2";

struct Controller(Child);

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    client: Client,
    kubeconfig: PathBuf,
    /// The controllers', who have no more rights than the chart gives them.
    controllers: PathBuf,
}

impl World {
    fn start_controller(&self, name: &str) -> Controller {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(programs().join("margay"));
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(&self.controllers);
        command.args(["--identity", name, "--leak-grace-period", GRACE]);
        command.args(["--health=127.0.0.1:0", "--metrics=127.0.0.1:0"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Controller(command.spawn().unwrap())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::default_namespaced(self.client.clone())
    }

    fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    async fn make<K>(&self, api: &Api<K>, object: Value) -> K
    where
        K: DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap()
    }

    async fn pool(&self, name: &str, spec: Value) {
        let object = json!({"apiVersion": "margay.dev/v1", "kind": "IPPool",
            "metadata": {"name": name}, "spec": spec});
        self.make::<IPPool>(&self.all(), object).await;
    }

    async fn service(&self, name: &str, annotations: Value, spec: Value) {
        let mut all = json!({"margay.dev/load-balancer-class": "margay.dev/loadbalancer"});
        let fields = all.as_object_mut().unwrap();
        fields.extend(annotations.as_object().unwrap().clone());
        let mut object = json!({"metadata": {"name": name, "annotations": all},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
        let fields = object["spec"].as_object_mut().unwrap();
        fields.extend(spec.as_object().unwrap().clone());
        self.make::<Service>(&self.api(), object).await;
    }

    /// The addresses in a Service's status.
    async fn ingress(&self, name: &str) -> Vec<String> {
        let service = self.api::<Service>().get(name).await.unwrap();
        let balancer = service.status.and_then(|status| status.load_balancer);
        let ingress = balancer.and_then(|balancer| balancer.ingress);
        let ips = ingress.unwrap_or_default().into_iter();
        ips.filter_map(|one| one.ip).collect()
    }

    /// The addresses that a Service holds.
    async fn held(&self, service: &str) -> Vec<String> {
        let blocks = self
            .all::<IPAMBlock>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let of_services = blocks.items.into_iter();
        let of_services = of_services.filter(|block| block.spec.node == LOAD_BALANCER_NODE);
        let held = of_services.flat_map(|block| block.spec.allocations);
        held.filter(|one| one.owner.service == service)
            .map(|one| one.address)
            .collect()
    }

    /// A block of a node in which pods of these names and uids hold an address each.
    async fn block(&self, cidr: &str, node: &str, pods: &[(&str, &str)]) -> IPAMBlock {
        let mut block = NodeBlock::claim(cidr.parse().unwrap(), node);
        for (name, uid) in pods {
            let owner = Owner {
                namespace: "default".into(),
                pod: (*name).into(),
                container_id: format!("c-{name}"),
                interface: "eth0".into(),
                uid: (*uid).into(),
                ..Owner::default()
            };
            block
                .assign(&owner, Timestamp::now(), Duration::ZERO)
                .unwrap();
        }
        let created = self
            .all()
            .create(&PostParams::default(), block.object())
            .await;
        created.unwrap()
    }

    async fn allocatable(&self, pool: &str) -> (String, i64) {
        let Some(pool) = self.all::<IPPool>().get_opt(pool).await.unwrap() else {
            return ("gone".to_owned(), 0);
        };
        let status = pool.status.unwrap_or_default();
        let mut conditions = status.conditions.into_iter();
        let found = conditions.find(|one| one.type_ == "Allocatable");
        let reason = found.map_or(String::new(), |one| one.reason);
        (reason, status.used.unwrap_or(-1))
    }

    /// margayctl's exit code and what it says.
    async fn ctl(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(programs().join("margayctl"));
        command
            .arg("ipam")
            .args(arguments)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code().unwrap(), text)
    }
}

/// Looks until it is as it should be.
async fn until<T, F>(what: &str, expected: T, mut look: impl FnMut() -> F)
where
    T: PartialEq + std::fmt::Debug,
    F: Future<Output = T>,
{
    let began = Instant::now();
    loop {
        let seen = look().await;
        if seen == expected {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{what}: {seen:?}, not {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub async fn what_is_done_once_for_the_cluster(
    client: Client,
    kubeconfig: PathBuf,
    controllers: PathBuf,
) {
    let world = World {
        client,
        kubeconfig,
        controllers,
    };
    for name in ["n1", "n2"] {
        world
            .make::<Node>(&world.all(), json!({"metadata": {"name": name}}))
            .await;
    }
    world
        .pool(
            "services",
            json!({"cidr": "10.70.0.0/24", "blockSize": 28, "allowedUses": ["LoadBalancer"]}),
        )
        .await;
    world.pool("pods", json!({"cidr": "10.71.0.0/16"})).await;
    let first = world.start_controller("first");
    let _second = world.start_controller("second");

    policies(&world).await;
    services(&world).await;
    garbage(&world).await;
    split(&world).await;
    finalizer(&world).await;

    // The other one takes over, and goes on where the first was.
    drop(first);
    world.service("later", json!({}), json!({})).await;
    let began = Instant::now();
    while world.ingress("later").await.is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "nobody took over"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!(
        "  another controller led {:.0} s after a kill -9",
        began.elapsed().as_secs_f64()
    );
}

/// What is wrong with policies is said on ours and beside Kubernetes' own, and once.
async fn policies(world: &World) {
    use margay_crds::{GlobalNetworkPolicy, HostEndpoint, Tier};
    let globals: Api<GlobalNetworkPolicy> = world.all();
    let of = |name: &str, kind: &str, spec: Value| json!({"apiVersion": "margay.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    for (name, spec) in [
        ("good", json!({"ingress": [{"action": "Allow"}]})),
        ("bad", json!({"selector": "a ="})),
        ("early", json!({"tier": "first"})),
    ] {
        world
            .make::<GlobalNetworkPolicy>(&globals, of(name, "GlobalNetworkPolicy", spec))
            .await;
    }
    let hosts: Api<HostEndpoint> = world.all();
    let host = json!({"node": "n1", "interfaceName": "lo"});
    world
        .make::<HostEndpoint>(&hosts, of("h", "HostEndpoint", host))
        .await;
    let reason = |name: &'static str| {
        let globals = globals.clone();
        move || {
            let globals = globals.clone();
            async move {
                let status = globals.get(name).await.unwrap().status.unwrap_or_default();
                let first = status.conditions.first();
                first.map(|one| one.reason.clone()).unwrap_or_default()
            }
        }
    };
    until("a good policy", "Valid".to_owned(), reason("good")).await;
    until("a bad policy", "Invalid".to_owned(), reason("bad")).await;
    until("a tier", "TierNotFound".to_owned(), reason("early")).await;
    world
        .make::<Tier>(&world.all(), of("first", "Tier", json!({"order": 1})))
        .await;
    until(
        "the tier that is there",
        "Valid".to_owned(),
        reason("early"),
    )
    .await;
    let bad = globals.get("bad").await.unwrap();
    let condition = &bad.status.as_ref().unwrap().conditions[0];
    assert!(condition.message.contains("spec.selector"), "{condition:?}");
    let said = || async {
        let status = hosts.get("h").await.unwrap().status.unwrap_or_default();
        let first = status.conditions.first();
        first.is_some_and(|one| one.message.contains("spec.interfaceName"))
    };
    until("a host endpoint without an interface", true, said).await;

    // The server takes it, for only its rules of the API would not, and it has none yet.
    let policy = json!({"apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy", "metadata": {"name": "torn"},
        "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "egress": [{"action": "Deny", "to": [{"networks": ["nonsense"]}]}]}});
    world
        .make::<margay_crds::ClusterNetworkPolicy>(&world.all(), policy)
        .await;
    let events = || async {
        let events = Api::<Event>::all(world.client.clone());
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let about = events.into_iter();
        let about = about.filter(|event| event.involved_object.name.as_deref() == Some("torn"));
        let messages = about.map(|event| event.message.unwrap_or_default());
        messages.collect::<Vec<_>>()
    };
    let told = || async {
        let events = events().await;
        events.len() == 1 && events[0].contains("spec.egress[0].to[0].networks[0]")
    };
    until("an Event about a ClusterNetworkPolicy", true, told).await;

    // Nothing is written while nothing changes.
    let versions = || async {
        let list = globals.list(&ListParams::default()).await.unwrap().items;
        list.into_iter()
            .map(|one| one.metadata.resource_version)
            .collect::<Vec<_>>()
    };
    let before = versions().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(versions().await, before);
    assert_eq!(events().await.len(), 1);
}

async fn services(world: &World) {
    world.service("web", json!({}), json!({})).await;
    until("an address of the pool", true, || async {
        let ingress = world.ingress("web").await;
        ingress.len() == 1 && ingress[0].starts_with("10.70.0.")
    })
    .await;
    let address = world.ingress("web").await;
    assert_eq!(world.held("web").await, address);

    world
        .service("fixed", json!({}), json!({"loadBalancerIP": "10.70.0.77"}))
        .await;
    until(
        "the address asked for",
        vec!["10.70.0.77".to_owned()],
        || world.ingress("fixed"),
    )
    .await;
    world
        .service(
            "rival",
            json!({"margay.dev/load-balancer-ips": "10.70.0.77"}),
            json!({}),
        )
        .await;
    until("an Event that names both sides", true, || async {
        let events = world
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let mut notes = events.items.iter().filter_map(|event| {
            let of_rival = event.involved_object.name.as_deref() == Some("rival");
            event.message.as_deref().filter(|_| of_rival)
        });
        notes.any(|note| note.contains("10.70.0.77") && note.contains("fixed"))
    })
    .await;
    assert!(world.ingress("rival").await.is_empty());

    // Another type: the address goes, and who waited for it gets it.
    let patch = json!({"spec": {"type": "ClusterIP", "loadBalancerIP": null,
        "ports": [{"port": 80, "nodePort": null}]}});
    let services: Api<Service> = world.api();
    services
        .patch("fixed", &PatchParams::default(), &Patch::Merge(patch))
        .await
        .unwrap();
    until("the address gone", Vec::<String>::new(), || {
        world.ingress("fixed")
    })
    .await;
    until("the rival's turn", vec!["10.70.0.77".to_owned()], || {
        world.ingress("rival")
    })
    .await;

    services
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    until("nothing held", Vec::<String>::new(), || world.held("web")).await;
    println!("  Services: automatic, fixed, contested, given back by type and by deletion");
}

async fn garbage(world: &World) {
    let pod = json!({"metadata": {"name": "alive"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let pod: Pod = world.make(&world.api(), pod).await;
    let uid = pod.uid().unwrap();
    let pods = [("alive", uid.as_str()), ("lost", "x"), ("lost-too", "y")];
    world.block("10.71.0.0/26", "n1", &pods).await;
    world
        .block("10.71.0.64/26", "n9", &[("elsewhere", "z")])
        .await;
    let (code, text) = world.ctl(&["check", "--confirm-after", "0"]).await;
    assert_eq!(code, 1, "{text}");
    for words in [
        "3 addresses held by nobody",
        "1 blocks of nodes that are gone",
    ] {
        assert!(text.contains(words), "{text}");
    }
    until("a clean check", 0, || async {
        world.ctl(&["check", "--confirm-after", "0"]).await.0
    })
    .await;
    let block = world.all::<IPAMBlock>().get("10-71-0-0-26").await.unwrap();
    let held: Vec<&str> = block
        .spec
        .allocations
        .iter()
        .map(|one| one.owner.pod.as_str())
        .collect();
    assert_eq!(held, ["alive"]);
    let gone = world
        .all::<IPAMBlock>()
        .get_opt("10-71-0-64-26")
        .await
        .unwrap();
    assert!(gone.is_none());
    until("the pool's figures", ("OK".to_owned(), 1), || {
        world.allocatable("pods")
    })
    .await;

    // By hand, the owner is asked for too.
    let (code, text) = world.ctl(&["release", "--address", "10.71.0.0"]).await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("kept: pod default/alive is there"), "{text}");
    println!(
        "  garbage: two leaks and the block of a node that is gone; a running pod kept its address"
    );
}

async fn split(world: &World) {
    let before = world.all::<IPAMBlock>().get("10-71-0-0-26").await.unwrap();
    let (code, text) = world.ctl(&["split", "pods"]).await;
    assert_eq!(code, 0, "{text}");
    for half in ["pods-0", "pods-1"] {
        until(half, "OK".to_owned(), || async {
            world.allocatable(half).await.0
        })
        .await;
    }
    assert_eq!(world.allocatable("pods").await.0, "gone");
    let after = world.all::<IPAMBlock>().get("10-71-0-0-26").await.unwrap();
    assert_eq!((after.uid(), after.spec), (before.uid(), before.spec));
    let (code, text) = world.ctl(&["show"]).await;
    assert!(code == 0 && text.contains("10.71.128.0/17"), "{text}");
    assert_eq!(world.ctl(&["check", "--confirm-after", "0"]).await.0, 0);
    println!("  split: two halves, no block touched");
}

async fn finalizer(world: &World) {
    let pools: Api<IPPool> = world.all();
    pools
        .delete("pods-0", &DeleteParams::default())
        .await
        .unwrap();
    until("waiting for a block", "Terminating".to_owned(), || async {
        world.allocatable("pods-0").await.0
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.allocatable("pods-0").await.0, "Terminating");
    let params = DeleteParams::default();
    world
        .all::<IPAMBlock>()
        .delete("10-71-0-0-26", &params)
        .await
        .unwrap();
    until("the pool gone", "gone".to_owned(), || async {
        world.allocatable("pods-0").await.0
    })
    .await;
    println!("  finalizer: a pool waited for its last block");
}

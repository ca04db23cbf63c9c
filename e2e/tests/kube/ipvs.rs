//! Policies hold for what reaches pods through kube-proxy's IPVS mode, in which packets to a Service never pass the
//! kernel's forward hook: the real kube-proxy on a node of a lab with its objects on that server.
//!
//! It needs a kernel with IPVS, so it is not among what runs unasked: `make test-vm`. The lab has no controllers, so the
//! EndpointSlices are the test's.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, DeleteParams, PostParams};
use margay_e2e::cluster::node::{ProxyMode, proxy_config};
use margay_e2e::lab::command::{finish, run};
use margay_e2e::lab::patience::{patience, until};
use margay_e2e::lab::pods::RunningPod;
use margay_e2e::lab::probes::{Probe, Question, answer_time, ask_all};
use margay_e2e::lab::process::{self, Launch};
use margay_e2e::lab::spec::{POD_NAMESPACE, PodPlan, SERVED_PORT};
use margay_e2e::lab::{namespaces, objects};
use serde_json::{Value, json};

use super::slices::old_slices;
use super::small_lab::SmallLab;

const NAME: &str = "ipvs";
/// The node with kube-proxy.
const NODE: &str = "node1";
const TOR: &str = "tor-a";
/// The pods and the indexes of their nodes; the first two have a Service each.
const PODS: [(&str, usize); 4] = [("near", 0), ("far", 1), ("client", 0), ("stranger", 0)];
const SERVICE_PORT: u16 = 80;
const NODE_PORT: u16 = 30080;

/// What is asked through Services: who asks (a pod, the node or the ToR), and whose Service.
const WAYS: [(&str, &str); 7] = [
    ("client", "near"),
    ("stranger", "near"),
    (NODE, "near"),
    // By the node's own address.
    (TOR, "near"),
    ("client", "far"),
    ("stranger", "far"),
    ("near", "far"),
];

struct Ground {
    small: SmallLab,
    pods: Vec<RunningPod>,
    /// The addresses of the Services, by pod.
    services: Vec<(&'static str, IpAddr)>,
}

pub async fn policies_hold_behind_kube_proxy(kubeconfig: PathBuf, programs: PathBuf) {
    let mut small = SmallLab::build(NAME, kubeconfig).await;
    let mut pods = Vec::new();
    for (name, node) in PODS {
        let plan = PodPlan {
            name: name.to_owned(),
            app: name.to_owned(),
            node,
        };
        let started = small.cluster.runtime.start(&mut small.lab.ledger, &plan);
        pods.push(started.await.unwrap());
    }
    let mut services = Vec::new();
    for pod in &pods[..2] {
        let address = write_service(&small, pod).await;
        let name = PODS.iter().find(|(name, _)| *name == pod.plan.name);
        services.push((name.unwrap().0, address));
    }
    start_proxy(&mut small, &programs);
    let ground = Ground {
        small,
        pods,
        services,
    };
    ground.until_balanced().await;
    ground.reach("without policies", |_, _| true).await;
    ground.ingress_is_judged().await;
    ground.egress_is_judged().await;
    ground.open_connections_are_judged().await;
    ground.without_the_interface_nothing_is_left().await;
}

/// A Service with one endpoint, and its address.
async fn write_service(small: &SmallLab, pod: &RunningPod) -> IpAddr {
    let client = &small.cluster.client;
    let (name, address) = (&pod.plan.name, pod.address);
    let ports = ["TCP", "UDP"].map(|protocol| {
        let mut port = json!({"name": protocol.to_lowercase(), "port": SERVICE_PORT,
            "targetPort": SERVED_PORT, "protocol": protocol});
        if name == "near" {
            port["nodePort"] = NODE_PORT.into();
        }
        port
    });
    let kind = if name == "near" {
        "NodePort"
    } else {
        "ClusterIP"
    };
    let service = json!({
        "metadata": {"name": name, "namespace": POD_NAMESPACE},
        "spec": {"type": kind, "ports": ports},
    });
    let services: Api<Service> = Api::namespaced(client.clone(), POD_NAMESPACE);
    let service: Service = serde_json::from_value(service).unwrap();
    let made = services.create(&PostParams::default(), &service).await;
    let made = made.unwrap().spec.unwrap().cluster_ip.unwrap();

    let ports = ["TCP", "UDP"].map(|protocol| {
        json!({"name": protocol.to_lowercase(), "port": SERVED_PORT, "protocol": protocol})
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": POD_NAMESPACE,
            "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": ports,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    let slices = old_slices(client, POD_NAMESPACE);
    let slice = serde_json::from_value(slice).unwrap();
    slices.create(&PostParams::default(), &slice).await.unwrap();
    made.parse().unwrap()
}

fn start_proxy(small: &mut SmallLab, programs: &Path) {
    let lab = &mut small.lab;
    let kubeconfig = lab.ledger.folder.store().join("kubeconfig");
    let config = proxy_config(NODE, &kubeconfig, ProxyMode::Ipvs);
    let file = lab.ledger.folder.machine(NODE).join("kube-proxy.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(programs.join("kube-proxy"));
    command.arg("--config").arg(&file);
    let launch = Launch::new("kube-proxy", lab.plan.namespace(NODE), command);
    process::start(&mut lab.ledger, launch).unwrap();
}

/// What a command in the node's namespace prints.
fn on_node(namespace: &str, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    let output = namespaces::inside(namespace, || {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        finish(command, None, patience(10))
    });
    let output = output.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Ground {
    fn namespace(&self, machine: &str) -> String {
        self.small.lab.plan.namespace(machine)
    }

    async fn until<F>(&self, what: &str, look: impl FnMut() -> F)
    where
        F: Future<Output = Result<(), String>>,
    {
        let found = until(what, patience(30), &self.small.lab.logs(), look).await;
        found.unwrap_or_else(|error| {
            let log = self.small.lab.logs().join("kube-proxy.log");
            let said = std::fs::read_to_string(log).unwrap_or_default();
            panic!("{error}\nkube-proxy said:\n{said}")
        });
    }

    /// Waits until kube-proxy serves both Services, and the agent has seen its interface.
    async fn until_balanced(&self) {
        let node = self.namespace(NODE);
        self.until("kube-proxy to balance by IPVS", || async {
            let servers = on_node(&node, "ipvsadm --list --numeric");
            let missing = self.pods[..2].iter().any(|pod| {
                let server = format!("{}:{SERVED_PORT}", pod.address);
                !servers.contains(&server)
            });
            if missing { Err(servers) } else { Ok(()) }
        })
        .await;
        self.until("the agent to see kube-ipvs0", || async {
            let table = on_node(&node, "nft list table inet margay");
            let has_part = table.contains("map senders4");
            has_part.then_some(()).ok_or("no part for IPVS".to_owned())
        })
        .await;
    }

    fn pod(&self, name: &str) -> Option<&RunningPod> {
        self.pods.iter().find(|pod| pod.plan.name == name)
    }

    fn probe(&self, from: &str, to: &str) -> Probe {
        let service = self.services.iter().find(|(name, _)| *name == to).unwrap();
        let node = &self.small.lab.plan.nodes[0].host;
        let (to, port) = match from {
            TOR => (node.address.ip(), NODE_PORT),
            _ => (service.1, SERVICE_PORT),
        };
        let namespace = match self.pod(from) {
            Some(pod) => pod.sandbox.namespace.clone(),
            None => self.namespace(from),
        };
        Probe {
            namespace,
            to,
            question: Question::Tcp(port),
        }
    }

    /// Waits until just those ways are open that should be.
    async fn reach(&self, when: &str, expected: impl Fn(&str, &str) -> bool) {
        self.until(when, || async {
            let probes = WAYS.iter().map(|(from, to)| self.probe(from, to));
            let outcomes = ask_all(probes.collect()).await;
            let both = WAYS.iter().zip(&outcomes);
            let wrong = both.filter(|((from, to), one)| one.reached() != expected(from, to));
            let wrong: Vec<String> = wrong
                .map(|((from, to), one)| format!("{from} to {to}: {one:?}"))
                .collect();
            match wrong.is_empty() {
                true => Ok(()),
                false => Err(wrong.join(", ")),
            }
        })
        .await;
        println!(
            "  {when}: {} ways are open or closed as they should",
            WAYS.len()
        );
    }

    fn policies(&self) -> Api<NetworkPolicy> {
        Api::namespaced(self.small.cluster.client.clone(), POD_NAMESPACE)
    }

    /// Writes the policy of one pod, in the place of the one it has.
    async fn restrict(&self, app: &str, mut spec: Value) {
        spec["podSelector"] = json!({"matchLabels": {"app": app}});
        let policy = json!({"metadata": {"name": app, "namespace": POD_NAMESPACE}, "spec": spec});
        self.relax(app).await;
        objects::ensure(&self.policies(), policy).await.unwrap();
    }

    /// Takes it away, if there is one.
    async fn relax(&self, app: &str) {
        let deleted = self.policies().delete(app, &DeleteParams::default()).await;
        let is_gone =
            |error: &kube::Error| matches!(error, kube::Error::Api(one) if one.code == 404);
        if let Err(error) = deleted {
            assert!(is_gone(&error), "{error}");
        }
    }

    async fn ingress_is_judged(&self) {
        self.restrict("near", json!({"policyTypes": ["Ingress"]}))
            .await;
        self.reach("ingress denied, but from the own node", |from, to| {
            to != "near" || from == NODE
        })
        .await;
        let from = json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]);
        self.restrict("near", json!({"policyTypes": ["Ingress"], "ingress": from}))
            .await;
        self.reach("ingress allowed from one", |from, to| {
            to != "near" || [NODE, "client"].contains(&from)
        })
        .await;
        self.relax("near").await;
    }

    async fn egress_is_judged(&self) {
        self.restrict("client", json!({"policyTypes": ["Egress"]}))
            .await;
        self.reach("egress denied", |from, _| from != "client")
            .await;
        let far = format!("{}/32", self.pod("far").unwrap().address);
        let to = json!([{"to": [{"ipBlock": {"cidr": far}}]}]);
        self.restrict("client", json!({"policyTypes": ["Egress"], "egress": to}))
            .await;
        self.reach("egress allowed to one behind another node", |from, to| {
            from != "client" || to == "far"
        })
        .await;
        self.relax("client").await;
        self.reach("the policies gone", |_, _| true).await;
    }

    /// One socket all the while, so that it is one connection to IPVS and to connection tracking.
    async fn open_connections_are_judged(&self) {
        let asking = &self.pod("client").unwrap().sandbox.namespace;
        let any = (Ipv4Addr::UNSPECIFIED, 0);
        let socket = namespaces::inside(asking, || Ok(UdpSocket::bind(any).unwrap())).unwrap();
        let (_, service) = self
            .services
            .iter()
            .find(|(name, _)| *name == "near")
            .unwrap();
        socket.connect((*service, SERVICE_PORT)).unwrap();
        socket.set_read_timeout(Some(answer_time())).unwrap();
        let is_answered = || {
            // What was asked before may still be answered.
            std::iter::from_fn(|| {
                socket.set_nonblocking(true).ok()?;
                socket.recv(&mut [0; 64]).ok()
            })
            .for_each(drop);
            socket.set_nonblocking(false).unwrap();
            socket.send(b"who?").is_ok() && socket.recv(&mut [0; 64]).is_ok()
        };
        let answers = async |what: &str, wanted: bool| {
            self.until(what, || async {
                match is_answered() == wanted {
                    true => Ok(()),
                    false => Err(format!("answered: {}", !wanted)),
                }
            })
            .await;
            println!("  {what}");
        };
        answers("an open connection is answered", true).await;
        self.restrict("near", json!({"policyTypes": ["Ingress"]}))
            .await;
        answers("ingress denied: it is not answered any more", false).await;
        self.relax("near").await;
        answers("the policy gone: it is answered again", true).await;
    }

    async fn without_the_interface_nothing_is_left(&self) {
        let node = self.namespace(NODE);
        run("ip", &["-n", &node, "link", "delete", "kube-ipvs0"]).unwrap();
        let started = Instant::now();
        self.until("the table without a part for IPVS", || async {
            let table = on_node(&node, "nft list table inet margay");
            let is_left = table.contains("balanced") || table.contains("senders");
            (!is_left).then_some(()).ok_or(table)
        })
        .await;
        let took: Duration = started.elapsed();
        println!("  the interface gone: its part of the table went after {took:.1?}");
    }
}

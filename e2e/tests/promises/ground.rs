//! A lab for one test, and what the tests look at in it.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kube::api::{Api, ListParams, Patch, PatchParams};
use margay_crds::IPAMBlock;
use margay_e2e::lab::cluster::{self, Binaries};
use margay_e2e::lab::cni::Plugin;
use margay_e2e::lab::command::{finish, run};
use margay_e2e::lab::demo;
use margay_e2e::lab::patience::{patience, until};
use margay_e2e::lab::pods::{PodApi, RunningPod};
use margay_e2e::lab::process;
use margay_e2e::lab::report::Screen;
use margay_e2e::lab::routes;
use margay_e2e::lab::spec::PodPlan;
use margay_e2e::lab::state::{Lock, ProcessRecord};
use margay_e2e::lab::up::{self, Cluster, Lab, Options};
use margay_e2e::lab::{LabError, LabSpec, Tor, down, namespaces};
use serde_json::Value;

/// Where the built programs are: `MARGAY_BIN_DIR`, or the folder cargo puts them in.
pub fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("MARGAY_BIN_DIR") {
        return folder.into();
    }
    // target/PROFILE/deps/promises-HASH
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Whether this test can run: it needs root and the built programs.
pub fn runnable(test: &str) -> bool {
    let built = Binaries::find(Some(&programs())).is_ok();
    let missing = match (up::require_root().is_ok(), built) {
        (true, true) => return true,
        (false, _) => "root",
        (_, false) => "the built programs: cargo build --workspace",
    };
    eprintln!("SKIPPED (needs {missing}): {test}");
    let required = std::env::var("MARGAY_REQUIRE_PRIVILEGED").is_ok_and(|value| value == "1");
    assert!(!required, "{test} needs {missing}");
    false
}

/// A lab that ends with the test; its logs stay if the test failed.
pub struct Ground {
    pub lab: Lab,
    pub cluster: Cluster,
    pub binaries: Binaries,
    _lock: Lock,
}

impl Drop for Ground {
    fn drop(&mut self) {
        let logs = match std::thread::panicking() {
            true => down::Logs::Keep,
            false => down::Logs::Remove,
        };
        let ended = down::tear_down(&self.lab.ledger.folder, &self.lab.ledger.state, logs);
        if let Err(error) = ended {
            eprintln!("the lab does not end: {error}");
            assert!(std::thread::panicking(), "the lab does not end: {error}");
        }
    }
}

/// What a node holds for its pods. What is left of a pod shows as a difference.
#[derive(Debug, PartialEq, Eq)]
pub struct Holdings {
    pub links: BTreeSet<String>,
    pub routes: BTreeSet<String>,
    pub endpoints: BTreeSet<String>,
    pub waiting_deletes: BTreeSet<String>,
    pub table: BTreeSet<String>,
    pub allocations: BTreeSet<String>,
}

impl Ground {
    /// Builds a lab and waits until its routes have settled.
    pub async fn prepare(name: &str, nodes: usize, segments: usize, tor: Tor, pods: usize) -> Self {
        Self::build(LabSpec {
            name: name.to_owned(),
            nodes,
            segments,
            tor,
            tors: 1,
            pods,
        })
        .await
    }

    /// The same from all numbers of a lab.
    pub async fn build(spec: LabSpec) -> Self {
        let screen = Screen::plain().silenced();
        let name = spec.name.clone();
        let options = Options {
            spec,
            binaries: Some(programs()),
            datastore: None,
            underlay_only: false,
        };
        let (lock, plan) = up::prepare(&options, screen).unwrap();
        let folder = margay_e2e::lab::state::Folder::of(&name);
        let built = up::build(&options, plan, screen).await;
        let lab = built.unwrap_or_else(|error| {
            down::after_failure(&folder, down::Logs::Keep, screen);
            panic!("{error}");
        });
        let cluster = lab.cluster.clone().unwrap();
        let ground = Self {
            lab,
            cluster,
            binaries: Binaries::find(Some(&programs())).unwrap(),
            _lock: lock,
        };
        let settled = demo::wait_until_settled(&ground.lab, &ground.cluster, screen).await;
        settled.unwrap();
        ground
    }

    // ===== names =====

    pub fn namespace(&self, machine: &str) -> String {
        self.lab.plan.namespace(machine)
    }

    pub fn pod(&self, name: &str) -> RunningPod {
        let mut pods = self.cluster.pods.iter();
        pods.find(|pod| pod.plan.name == name).unwrap().clone()
    }

    pub fn plugin(&self, node: &str) -> Plugin {
        Plugin::of(
            &self.lab.plan,
            &self.lab.ledger.folder,
            &self.binaries,
            node,
        )
    }

    pub fn process(&self, name: &str) -> ProcessRecord {
        let mut all = self.lab.ledger.state.processes.iter();
        all.find(|record| record.name == name).unwrap().clone()
    }

    pub fn log_of(&self, process: &str) -> String {
        let name = format!("{}.log", process.replace(' ', "-"));
        std::fs::read_to_string(self.lab.logs().join(name)).unwrap_or_default()
    }

    // ===== pods and processes =====

    /// One more pod, made as kubelet makes it; how it went.
    pub async fn try_start_pod(
        &mut self,
        name: &str,
        app: &str,
        node: &str,
    ) -> Result<RunningPod, LabError> {
        let plan = self.pod_plan(name, app, node);
        let started = self
            .cluster
            .runtime
            .start(&mut self.lab.ledger, &plan)
            .await;
        if let Ok(pod) = &started {
            self.cluster.pods.push(pod.clone());
        }
        started
    }

    pub async fn start_pod(&mut self, name: &str, app: &str, node: &str) -> RunningPod {
        self.try_start_pod(name, app, node).await.unwrap()
    }

    pub fn pod_plan(&self, name: &str, app: &str, node: &str) -> PodPlan {
        PodPlan {
            name: name.to_owned(),
            app: app.to_owned(),
            node: self.lab.plan.node_index(node).unwrap(),
        }
    }

    pub async fn start_agent(&mut self, node: &str) {
        let Lab { plan, ledger, .. } = &mut self.lab;
        let started = cluster::start_agent(ledger, plan, &self.binaries, node);
        started.await.unwrap();
    }

    /// Starts the store again, which has ended. Its port on the loopback is a new one.
    pub async fn start_store(&mut self) {
        let Lab { plan, ledger, .. } = &mut self.lab;
        let started = cluster::start_store(ledger, plan, &self.binaries);
        let client = started.await.unwrap();
        self.cluster.runtime.client = PodApi::new(&client);
        self.cluster.client = client;
    }

    pub fn stop_store(&self) {
        process::stop(&self.process(process::STORE));
    }

    // ===== the API =====

    pub async fn create<K>(&self, api: &Api<K>, object: Value)
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + serde::Serialize,
    {
        let made = margay_e2e::lab::objects::ensure(api, object).await;
        made.unwrap();
    }

    pub async fn patch<K>(&self, api: &Api<K>, name: &str, change: Value)
    where
        K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let patch = Patch::Merge(&change);
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub async fn blocks(&self) -> Vec<IPAMBlock> {
        let api: Api<IPAMBlock> = Api::all(self.cluster.client.clone());
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// The blocks of a node, as text.
    pub async fn blocks_of(&self, node: &str) -> Vec<String> {
        let blocks = self.blocks().await.into_iter();
        let own = blocks.filter(|block| block.spec.node == node);
        own.map(|block| block.spec.cidr).collect()
    }

    // ===== looks =====

    pub async fn holdings(&self, node: &str) -> Holdings {
        let folder = &self.lab.ledger.folder;
        let namespace = self.namespace(node);
        let mut allocations = BTreeSet::new();
        for block in self.blocks().await {
            let held = block.spec.allocations.into_iter();
            allocations.extend(held.map(|one| {
                let owner = one.owner;
                format!("{} {} {}", one.address, owner.container_id, owner.interface)
            }));
        }
        Holdings {
            links: links(&namespace),
            routes: routes_of(&namespace),
            endpoints: files(&folder.state_dir(node).join("endpoints")),
            waiting_deletes: files(&folder.cni_journal(node)),
            table: table(&namespace),
            allocations,
        }
    }

    /// Waits until a node holds what it held.
    pub async fn until_holdings(&self, node: &str, wanted: &Holdings) {
        self.until(&format!("{node} to hold what it held"), 10, || async {
            let seen = self.holdings(node).await;
            if seen == *wanted {
                return Ok(());
            }
            Err(format!("{seen:#?}\ninstead of\n{wanted:#?}"))
        })
        .await;
    }

    /// What the agent of a node answers on its admin socket.
    pub fn ask_agent(&self, node: &str, query: &str) -> Result<Value, String> {
        let ask = || -> std::io::Result<Value> {
            let socket = self.lab.ledger.folder.admin_socket(node);
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(patience(5)))?;
            writeln!(stream, "{{\"query\":\"{query}\"}}")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(serde_json::from_str(&line)?)
        };
        ask().map_err(|error| error.to_string())
    }

    /// Waits until the agent of a node has this many sessions.
    pub async fn until_sessions(&self, node: &str, wanted: u64) {
        self.until(&format!("{wanted} sessions of {node}"), 40, || async {
            let answer = self.ask_agent(node, "bgp")?;
            let up = answer
                .pointer("/result/established")
                .or(answer.get("established"));
            match up.and_then(Value::as_u64) {
                Some(up) if up == wanted => Ok(()),
                _ => Err(answer.to_string()),
            }
        })
        .await;
    }

    pub async fn until<T, F>(&self, what: &str, seconds: u32, look: impl FnMut() -> F) -> T
    where
        F: Future<Output = Result<T, String>>,
    {
        let found = until(what, patience(seconds), &self.lab.logs(), look).await;
        found.unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`Self::until`], and says how long it took.
    pub async fn time_until<F>(&self, what: &str, seconds: u32, look: impl FnMut() -> F) -> Duration
    where
        F: Future<Output = Result<(), String>>,
    {
        let start = Instant::now();
        self.until(what, seconds, look).await;
        start.elapsed()
    }

    /// Whether one echo from a machine or pod comes back.
    pub fn reaches(&self, namespace: &str, to: IpAddr) -> bool {
        namespaces::inside(namespace, || {
            let mut command = Command::new("ping");
            command.args(["-n", "-q", "-c", "1", "-W", "1", &to.to_string()]);
            finish(command, None, patience(10))
        })
        .unwrap()
        .status
        .success()
    }
}

/// The pods' interfaces of a node.
pub fn links(namespace: &str) -> BTreeSet<String> {
    let listed = run("ip", &["-o", "-n", namespace, "link", "show"]).unwrap();
    let names = listed
        .lines()
        .filter_map(|line| line.split(": ").nth(1)?.split('@').next());
    let pods = names.filter(|name| name.starts_with("mgy"));
    pods.map(str::to_owned).collect()
}

/// Margay's routes of a node, each as text.
pub fn routes_of(namespace: &str) -> BTreeSet<String> {
    let all = routes::of_margay(namespace).unwrap();
    all.iter().map(|route| format!("{route:?}")).collect()
}

/// The table `inet margay` as its words, without counts and order. Empty without a table.
pub fn table(namespace: &str) -> BTreeSet<String> {
    let listed = namespaces::inside(namespace, || {
        let mut command = Command::new("nft");
        command.args(["-s", "list", "table", "inet", "margay"]);
        finish(command, None, patience(10))
    });
    let listed = listed.unwrap();
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let elements = text.split(['\n', ',']);
    elements.map(|word| word.trim().to_owned()).collect()
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

//! From an object to a route, in a lab: a block and a Service's endpoint, by Margay's agents, and
//! the block once more by BIRD that is fed by files ([`crate::fed`]).
//!
//! The clock starts before the write to the store and stops when a thread in the other machine's
//! namespace sees the kernel's table change. Store, namespaces and watching thread are the same for all. How long the store
//! itself takes to tell a watcher of the write is measured beside it: what remains is the speakers' own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use margay_crds::{BGPConfiguration, DEFAULT_NAME, IPAMBlock};
use margay_e2e::lab::cluster::agent_name;
use margay_e2e::lab::latency::{Journey, Watch, journeys};
use margay_e2e::lab::report::Screen;
use margay_e2e::lab::state::Folder;
use margay_e2e::lab::up::{self, Cluster, Lab, Options};
use margay_e2e::lab::{LabSpec, bird, demo, down, objects, process};
use serde_json::json;

use crate::fed::{Fed, Manner};

const NAME: &str = "bench-bgp";
/// The node that gets blocks, and the one whose kernel is watched.
const OWNER: usize = 1;
const REMOTE: usize = 0;
const TOR: &str = "tor-a";
const RANGE: &str = "198.51.100.0/24";
const ADDRESS: &str = "198.51.100.7";
/// How many nodes the mesh is of: the lab's, and those of a large cluster, of which all but the lab's never answer.
const MESHES: [usize; 2] = [2, 1000];
/// Objects written at a time while a large cluster is made.
const WRITERS: usize = 16;

/// Times of one thing.
struct Row {
    name: String,
    times: Vec<Duration>,
}

/// When the store told a watcher of each block.
struct Told {
    notes: Arc<Mutex<BTreeMap<String, Instant>>>,
    watcher: tokio::task::JoinHandle<()>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Told {
    /// Begins to watch.
    async fn begin(client: &Client) -> Result<Self> {
        let notes = Arc::<Mutex<BTreeMap<String, Instant>>>::default();
        let api: Api<IPAMBlock> = Api::all(client.clone());
        let listed = api.list(&ListParams::default()).await?;
        let version = listed.metadata.resource_version.unwrap_or_default();
        let mut events = Box::pin(api.watch(&WatchParams::default(), &version).await?);
        let written = Arc::clone(&notes);
        let watcher = tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                if let WatchEvent::Added(block) = event {
                    let name = block.metadata.name.unwrap_or_default();
                    let mut notes = written.lock().unwrap_or_else(PoisonError::into_inner);
                    notes.insert(name, Instant::now());
                }
            }
        });
        Ok(Self { notes, watcher })
    }

    /// How long the store took, and how long the rest, of the journeys it told of.
    fn parts(&self, journeys: &[Journey]) -> (Vec<Duration>, Vec<Duration>) {
        let told = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = journeys.iter().filter_map(|journey| {
            let told = told.get(&journey.block)?;
            let store = told.saturating_duration_since(journey.written);
            Some((store, journey.arrived.saturating_duration_since(*told)))
        });
        parts.unzip()
    }
}

/// Measures, and gives a page of Markdown.
///
/// # Errors
/// The lab does not come up, or a route does not come or go.
pub(crate) fn measure(programs: &Path, runs: usize) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(1)
        .build()?;
    let options = Options {
        spec: LabSpec::segment(NAME, 2),
        binaries: Some(programs.to_owned()),
        datastore: None,
        underlay_only: false,
    };
    let screen = Screen::plain().silenced();
    let (_lock, plan) = up::prepare(&options, screen)?;
    let folder = Folder::of(NAME);
    let rows = runtime.block_on(async {
        let mut lab = up::build(&options, plan, screen).await?;
        let cluster = lab.cluster.clone().context("the lab has no cluster")?;
        demo::wait_until_settled(&lab, &cluster, screen).await?;
        rows(&mut lab, &cluster, runs).await
    });
    let logs = match &rows {
        Ok(_) => down::Logs::Remove,
        Err(_) => down::Logs::Keep,
    };
    down::after_failure(&folder, logs, screen);
    Ok(page(&rows?, runs))
}

async fn rows(lab: &mut Lab, cluster: &Cluster, runs: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let client = &cluster.client;
    blocks(lab, client, runs, "Margay, 2 nodes", &mut rows).await?;
    let (come, gone) = endpoints(lab, cluster, runs).await?;
    let mut row = |name: &str, times| {
        rows.push(Row {
            name: name.to_owned(),
            times,
        });
    };
    row("endpoint ready → route at the ToR, Margay", come);
    row(
        "last endpoint gone → route withdrawn at the ToR, Margay",
        gone,
    );
    let strangers = MESHES[1] - MESHES[0];
    add_nodes(client, strangers).await?;
    let name = format!("Margay, {} nodes", MESHES[1]);
    blocks(lab, client, runs, &name, &mut rows).await?;

    // The agents make room; what they left in the kernels is none of the blocks to come.
    for node in lab.plan.nodes.clone() {
        let name = agent_name(&node.host.name);
        let records = &lab.ledger.state.processes;
        if let Some(record) = records.iter().find(|record| record.name == name) {
            process::stop(record);
        }
    }
    for mesh in MESHES {
        for manner in [Manner::Calico, Manner::Checked] {
            let fed = Fed::start(lab, client, (OWNER, REMOTE), mesh, manner).await?;
            let name = format!("BIRD fed by a file for {mesh} nodes, {}", manner.words());
            blocks(lab, client, runs, &name, &mut rows).await?;
            drop(fed);
        }
    }
    Ok(rows)
}

/// The journeys of so many blocks, and of which parts they are made.
async fn blocks(
    lab: &Lab,
    client: &Client,
    runs: usize,
    who: &str,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let mut taken = Vec::with_capacity(runs);
    let (mut by_store, mut beyond) = (Vec::new(), Vec::new());
    while taken.len() < runs {
        // The names come again after some rounds.
        let round = (runs - taken.len()).min(32);
        let told = Told::begin(client).await?;
        let journeys = journeys(client, &lab.plan, OWNER, REMOTE, round).await?;
        let (store, rest) = told.parts(&journeys);
        by_store.extend(store);
        beyond.extend(rest);
        taken.extend(journeys.iter().map(Journey::took));
    }
    let named = [
        (
            format!("block written → route in a remote kernel, {who}"),
            taken,
        ),
        (
            "— the store's part: written → a watcher is told".to_owned(),
            by_store,
        ),
        (
            "— the rest: a watcher is told → route in the kernel".to_owned(),
            beyond,
        ),
    ];
    rows.extend(named.map(|(name, times)| Row { name, times }));
    Ok(())
}

/// Nodes of the mesh that are nowhere.
async fn add_nodes(client: &Client, count: usize) -> Result<()> {
    let made = futures::stream::iter(0..count).map(|number| async move {
        let address = format!("10.11.{}.{}", number / 250, number % 250 + 1);
        let node = json!({
            "metadata": {"name": format!("stranger-{number}")},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        });
        objects::create_node(client, node).await
    });
    let mut made = made.buffer_unordered(WRITERS);
    while let Some(result) = made.next().await {
        result?;
    }
    // Until the agents have taken them in and dialled each for the first time.
    tokio::time::sleep(Duration::from_secs(10)).await;
    Ok(())
}

/// From the write of an EndpointSlice to the route of its Service at the ToR, and to its end.
async fn endpoints(
    lab: &Lab,
    cluster: &Cluster,
    runs: usize,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    take_services(lab)?;
    let client = &cluster.client;
    let settings: Api<BGPConfiguration> = Api::all(client.clone());
    let change = json!({"spec": {"serviceLoadBalancerIPs": [{"cidr": RANGE}]}});
    let parameters = PatchParams::default();
    settings
        .patch(DEFAULT_NAME, &parameters, &Patch::Merge(&change))
        .await?;
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7"], "loadBalancerIP": ADDRESS, "ports": [{"port": 80}]},
    });
    objects::ensure(&services, service).await?;
    let place = lab.plan.namespace(TOR);
    let route = format!("{ADDRESS}/32").parse()?;
    let (mut come, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        for (ready, times) in [(true, &mut come), (false, &mut gone)] {
            let watch = Watch::begin(&place, route, ready)?;
            let start = Instant::now();
            write_endpoint(cluster, ready).await?;
            times.push(watch.end().await?.saturating_duration_since(start));
        }
    }
    Ok((come, gone))
}

async fn write_endpoint(cluster: &Cluster, ready: bool) -> Result<()> {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.9.1"], "nodeName": "node2",
            "conditions": {"ready": ready, "serving": ready, "terminating": !ready}}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), "default");
    let parameters = PatchParams::apply("bench");
    api.patch("web-1", &parameters, &Patch::Apply(&slice))
        .await?;
    Ok(())
}

/// The lab's routers take the Services' range as they take the pods'.
fn take_services(lab: &Lab) -> Result<()> {
    for machine in [TOR, "router"] {
        let folder = &lab.ledger.folder;
        let file = folder.machine(machine).join("bird.conf");
        let pool = format!("{}+", lab.plan.pool);
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, text.replace(&pool, &format!("{pool}, {RANGE}+")))?;
        let socket = bird::control_socket(folder, machine);
        let socket = socket.to_string_lossy().into_owned();
        margay_e2e::lab::command::run("birdc", &["-s", &socket, "configure"])?;
    }
    Ok(())
}

fn page(rows: &[Row], runs: usize) -> String {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let mut text = format!(
        "# Objects to routes\n\n\
         `make bench-routes`: {runs} changes of each kind in one lab of two nodes and a ToR, {processors} processors, load average {load}. The clock runs\n\
         from before the write to the store until the kernel's table at the other end has changed. The store's own part, which is\n\
         the same for all, is told apart: until a watcher in the measuring program has the event.\n\n\
         \"Fed by a file\" is BIRD 2 on the same nodes with a program that does step by step what confd does at a change of the\n\
         same store, at once and without confd's templates: render, compare, check if there is a command for it, rename, reload by\n\
         a shell. \"As in Calico for blocks\" is Calico's configuration of confd for the file with a node's blocks (`bird_aggr.cfg`,\n\
         which its `bird.cfg` includes): no check, and SIGHUP. With 1000 nodes BIRD reads a configuration of 999 peers at\n\
         each change, and Margay has 999 sessions configured; 998 of them are with addresses at which nobody answers.\n\n\
         | | p50 | p99 | longest |\n|---|---|---|---|\n"
    );
    for Row { name, times } in rows {
        let shown = [0.5, 0.99, 1.0].map(|share| quantile(times, share));
        let [p50, p99, longest] = shown.map(|time| format!("{:.2} ms", time.as_secs_f64() * 1e3));
        let _ = writeln!(text, "| {name} | {p50} | {p99} | {longest} |");
    }
    text
}

/// The value that this share of the times does not exceed; zero of none.
fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index within the list"
    )]
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

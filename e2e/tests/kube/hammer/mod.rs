//! The hammer: two processes of fifty allocators each on one pool, against a real API server with
//! etcd, while blocks are meddled with, processes are killed, the API server is killed and
//! started again, and two controllers collect garbage. At no time may two callers have one
//! address; in the end, when everything has been given back and the controller has taken what
//! the killed ones left behind, `margayctl ipam check` finds nothing wrong.
//!
//! `make test-kube` runs a part of it (`HAMMER` says how many operations); the whole is
//! `make test-kube ONLY=hammer HAMMER=100000`.

mod journal;
mod worker;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use margay_crds::{IPAMBlock, IPPool};
use margay_e2e::kube::ControlPlane;
use serde_json::{Value, json};

use super::same::programs;

pub use worker::{Arguments, run as work};

/// How many allocators a process has.
const ALLOCATORS: usize = 50;
/// How many processes there are.
const PROCESSES: usize = 2;
/// How many operations are a part: what fits into every run of `make test-kube`.
const PART: usize = 6_000;
/// How long an allocation must seem to be of nobody while the hammer strikes: longer than the API
/// server is ever away, since its callers have no Pod objects and hold what they cannot give back.
const GRACE: &str = "120";
/// And at the end, when nobody holds anything.
const GRACE_AT_THE_END: &str = "2";
/// How many others write blocks.
const MEDDLERS: u64 = 4;
/// How long all of it may take for each thousand operations; far more than it does.
const PATIENCE: Duration = Duration::from_secs(40);

/// Numbers that look random: a generator of xorshift's kind (Marsaglia 2003).
pub struct Random(pub u64);

impl Random {
    /// Something from 0 to `limit`, exclusive.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x ^= x >> 30;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x ^= x >> 27;
        x = x.wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % limit
    }
}

/// The pool: fewer blocks than a hundred nodes would like to have at a time.
fn pool() -> Value {
    json!({"cidr": "10.60.0.0/21", "blockSize": 29})
}

fn node(process: usize, n: usize) -> String {
    format!("hammer-{process}-{n:02}")
}

/// How many operations are wanted.
fn operations() -> usize {
    let set = std::env::var("HAMMER").ok().filter(|text| !text.is_empty());
    set.map_or(PART, |text| match text.parse() {
        Ok(count) => count,
        Err(error) => panic!("HAMMER={text}: {error}"),
    })
}

/// A child that ends with this value.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program that the kernel ends with this process's thread, should it be killed.
fn command(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

struct Hammer {
    folder: PathBuf,
    kubeconfig: PathBuf,
    share: usize,
    lives: u64,
    workers: Vec<Running>,
    controllers: Vec<Running>,
}

impl Hammer {
    fn journal(&self, number: usize) -> PathBuf {
        self.folder.join(format!("journal-{number}"))
    }

    fn start_worker(&mut self, number: usize) -> Running {
        self.lives += 1;
        let mut command = command(&std::env::current_exe().unwrap());
        command.arg("hammer-worker").arg(&self.kubeconfig);
        command.arg(self.journal(number));
        command.args([number, self.share].map(|value| value.to_string()));
        command.arg(self.lives.to_string());
        Running::start(command)
    }

    fn start_controller(&self, name: &str, grace: &str) -> Running {
        let mut command = command(&programs().join("margay"));
        command
            .arg("controller")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig);
        command.args(["--identity", name, "--leak-grace-period", grace]);
        command.args(["--health=127.0.0.1:0", "--metrics=127.0.0.1:0"]);
        let path = self.folder.join("controllers.log");
        let mut log = std::fs::File::options();
        let log = log.create(true).append(true).open(path).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Running::start(command)
    }

    fn lines(&self) -> Vec<Vec<journal::Line>> {
        (0..PROCESSES)
            .map(|n| journal::read(&self.journal(n)))
            .collect()
    }

    fn done(&self) -> usize {
        self.lines()
            .iter()
            .map(|lines| journal::operations(lines))
            .sum()
    }

    /// Whether all workers have ended well; those that ended otherwise are a failure.
    fn all_ended(&mut self) -> bool {
        let mut ended = true;
        for (number, worker) in self.workers.iter_mut().enumerate() {
            match worker.0.try_wait().unwrap() {
                Some(status) => assert!(status.success(), "worker {number} ended: {status}"),
                None => ended = false,
            }
        }
        ended
    }
}

/// What was done to make it hard.
#[derive(Debug, Default)]
struct Blows {
    workers: usize,
    controllers: usize,
    servers: usize,
}

pub async fn no_address_twice_and_none_lost(mut server: ControlPlane, folder: PathBuf) {
    journal::ensure_it_finds();
    let client = server.client().await.unwrap();
    prepare(&client).await;
    let wanted = operations();
    let mut hammer = Hammer {
        kubeconfig: server.kubeconfig().to_owned(),
        folder,
        share: wanted / PROCESSES,
        lives: 0,
        workers: Vec::new(),
        controllers: Vec::new(),
    };
    let began = Instant::now();
    for number in 0..PROCESSES {
        let worker = hammer.start_worker(number);
        hammer.workers.push(worker);
        let controller = hammer.start_controller(&format!("c{number}"), GRACE);
        hammer.controllers.push(controller);
    }
    let meddling: Vec<_> = (0..MEDDLERS)
        .map(|seed| tokio::spawn(meddle(client.clone(), seed)))
        .collect();
    let blows = strike(&mut hammer, &mut server, wanted).await;
    let time = began.elapsed();
    meddling.iter().for_each(tokio::task::JoinHandle::abort);
    let journals = hammer.lines();
    let done: usize = journals
        .iter()
        .map(|lines| journal::operations(lines))
        .sum();
    println!(
        "  {done} operations in {:.0} s ({:.0}/s); killed: {} allocator processes, {} controllers, \
         {} API servers; {} blocks written by others",
        time.as_secs_f64(),
        done as f64 / time.as_secs_f64(),
        blows.workers,
        blows.controllers,
        blows.servers,
        MEDDLED.load(Ordering::Relaxed),
    );
    let twice = journal::held_twice(&journals);
    assert!(
        twice.is_empty(),
        "{} addresses held twice: {twice:#?}",
        twice.len()
    );
    assert!(done >= wanted, "{done} of {wanted}");
    assert!(blows.workers >= 2 && blows.servers >= 1, "{blows:?}");
    for lines in &journals {
        assert!(journal::unreturned(lines).is_empty());
    }
    settle(&mut hammer).await;
}

/// Kills one thing after another, at parts of the way, until the workers have ended.
async fn strike(hammer: &mut Hammer, server: &mut ControlPlane, wanted: usize) -> Blows {
    let mut blows = Blows::default();
    let rounds = (wanted / 10_000).clamp(1, 10) * 5;
    let mut round = 1;
    let thousands = u32::try_from(wanted / 1000 + 5).unwrap();
    let limit = Instant::now() + PATIENCE * thousands;
    while !hammer.all_ended() {
        assert!(
            Instant::now() < limit,
            "{} of {wanted} operations",
            hammer.done()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        if round >= rounds || hammer.done() < wanted * round / rounds {
            continue;
        }
        match round % 5 {
            3 => {
                let dead = Duration::from_millis(500);
                server.restart_apiserver(dead).await.unwrap();
                blows.servers += 1;
            }
            2 => {
                let number = (round / 5) % PROCESSES;
                hammer.controllers[number].kill();
                hammer.controllers[number] = hammer.start_controller(&format!("c{round}"), GRACE);
                blows.controllers += 1;
            }
            _ => {
                let number = round % PROCESSES;
                hammer.workers[number].kill();
                hammer.workers[number] = hammer.start_worker(number);
                blows.workers += 1;
            }
        }
        round += 1;
    }
    blows
}

/// When nobody asks any more, the controller takes what the killed ones left, and all is well.
async fn settle(hammer: &mut Hammer) {
    let (_, left) = check(&hammer.kubeconfig).await;
    let leaks = left["problems"].as_array().map_or(0, Vec::len);
    for controller in &mut hammer.controllers {
        controller.kill();
    }
    let _controller = hammer.start_controller("last", GRACE_AT_THE_END);
    let began = Instant::now();
    loop {
        let (well, report) = check(&hammer.kubeconfig).await;
        if well {
            println!(
                "  {leaks} addresses of killed processes left; ipam check is clean after {:.0} s: \
                 {} blocks, {} addresses held",
                began.elapsed().as_secs_f64(),
                report["blocks"],
                report["addresses"]
            );
            assert_eq!(report["addresses"], 0);
            return;
        }
        let log = hammer.folder.join("controllers.log");
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "{report:#}\n{}",
            std::fs::read_to_string(log).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What `margayctl ipam check` says, and whether it exits with 0.
async fn check(kubeconfig: &Path) -> (bool, Value) {
    let mut command = Command::new(programs().join("margayctl"));
    command.args([
        "ipam",
        "check",
        "--confirm-after",
        "0",
        "-o",
        "json",
        "--kubeconfig",
    ]);
    command.arg(kubeconfig);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let report = serde_json::from_slice(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    (
        output.status.success(),
        report.unwrap_or_else(|_| panic!("{errors}")),
    )
}

async fn prepare(client: &Client) {
    let params = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({"metadata": {"name": "margay-system"}});
    let namespace = serde_json::from_value(namespace).unwrap();
    namespaces.create(&params, &namespace).await.unwrap();
    let pools: Api<IPPool> = Api::all(client.clone());
    let pool = IPPool::new("hammer", serde_json::from_value(pool()).unwrap());
    pools.create(&params, &pool).await.unwrap();
    let nodes: Api<Node> = Api::all(client.clone());
    for process in 0..PROCESSES {
        for n in 0..ALLOCATORS {
            let object = json!({"metadata": {"name": node(process, n)}});
            let object: Node = serde_json::from_value(object).unwrap();
            nodes.create(&params, &object).await.unwrap();
        }
    }
}

/// How often a block was written by others.
static MEDDLED: AtomicUsize = AtomicUsize::new(0);

/// Writes blocks that are in use, so that their nodes' next writes are refused.
async fn meddle(client: Client, seed: u64) {
    let blocks: Api<IPAMBlock> = Api::all(client);
    let mut random = Random(seed);
    loop {
        let listed = blocks.list_metadata(&Default::default()).await;
        let names: Vec<String> = listed
            .map(|list| list.items.iter().map(ResourceExt::name_any).collect())
            .unwrap_or_default();
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if names.is_empty() {
                continue;
            }
            let length = u64::try_from(names.len()).unwrap();
            let name = &names[usize::try_from(random.below(length)).unwrap()];
            let mark =
                json!({"metadata": {"annotations": {"test/mark": random.below(1000).to_string()}}});
            let params = PatchParams::default();
            let patched = blocks
                .patch_metadata(name, &params, &Patch::Merge(mark))
                .await;
            if patched.is_ok() {
                MEDDLED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

//! Margay on a real Kubernetes API server with etcd: the CRDs, the rules in them, the protocol of
//! blocks, watches; and the embedded store asked the same as the real one.
//!
//! Run by `make test-kube`: `kube run [NAME…]`. One control plane serves all the cases, one after
//! the other; each uses names of its own. Called by another test runner it has nothing to do.

#![allow(unreachable_pub, reason = "a test has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod chart;
mod closed;
mod controller;
mod crds;
mod demo;
mod hammer;
mod ipam;
mod ipvs;
mod rules;
mod same;
mod slices;
mod small_lab;
mod watches;

use std::process::ExitCode;
use std::time::Instant;

use kube::Client;
use margay_e2e::kube::{ControlPlane, programs, programs_of};

/// A case: its name and what it does. It fails by panicking.
macro_rules! cases {
    ($client:expr, $wanted:expr, [$($module:ident::$name:ident),* $(,)?]) => {{
        let mut tally = Tally::default();
        $(
            let name = concat!(stringify!($module), "::", stringify!($name));
            if is_wanted(name, $wanted) {
                tally.run(name, $module::$name($client.clone())).await;
            }
        )*
        tally
    }};
}

fn is_wanted(name: &str, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()))
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    async fn run(&mut self, name: &str, case: impl Future<Output = ()> + Send + 'static) {
        let began = Instant::now();
        let ended = tokio::spawn(case).await.map_err(drop);
        self.count(name, began, ended);
    }

    /// As [`Self::run`], on this thread: the servers that a case starts end with their thread.
    async fn run_here(&mut self, name: &str, case: impl Future<Output = ()>) {
        let began = Instant::now();
        let case = std::panic::AssertUnwindSafe(case);
        let ended = futures::FutureExt::catch_unwind(case).await.map_err(drop);
        self.count(name, began, ended);
    }

    fn count(&mut self, name: &str, began: Instant, ended: Result<(), ()>) {
        let time = began.elapsed().as_secs_f64();
        match ended {
            Ok(()) => self.passed += 1,
            Err(_) => self.failed += 1,
        }
        let word = if ended.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word} ({time:.1} s)");
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((first, wanted)) if first == "run" => run(wanted),
        // A process of the hammer, started by the hammer.
        Some((first, words)) if first == "hammer-worker" => {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(hammer::work(hammer::Arguments::parse(words)));
            ExitCode::SUCCESS
        }
        // Another runner lists and runs tests by the standard harness's flags.
        _ => ExitCode::SUCCESS,
    }
}

fn run(wanted: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // On this thread, which stays: the servers end with the thread that started them.
    runtime.block_on(async {
        let programs = match programs() {
            Ok(programs) => programs,
            Err(error) => {
                eprintln!("kube: {error}");
                return ExitCode::from(2);
            }
        };
        let folder = tempfile::tempdir().unwrap();
        let server = match ControlPlane::start(&programs, folder.path()).await {
            Ok(server) => server,
            Err(error) => {
                eprintln!("kube: {error:#}");
                return ExitCode::FAILURE;
            }
        };
        let client = server.client().await.unwrap();
        let version = client.apiserver_version().await.unwrap().git_version;
        let time = server.started_in().as_secs_f64();
        println!("kube-apiserver {version} with etcd, ready after {time:.1} s");
        let mut tally = all(client, wanted).await;
        if is_wanted("demo::the_lab_runs_on_it", wanted) {
            // A server of its own: the other cases have left things on theirs.
            let folder = tempfile::tempdir().unwrap();
            let server = ControlPlane::start(&programs, folder.path()).await.unwrap();
            let case = demo::the_lab_runs_on_it(server.kubeconfig().to_owned());
            tally.run("demo::the_lab_runs_on_it", case).await;
        }
        if is_wanted("closed::what_is_not_understood_isolates", wanted) {
            // Nobody else's policies.
            let folder = tempfile::tempdir().unwrap();
            let server = ControlPlane::start(&programs, folder.path()).await.unwrap();
            let case = closed::what_is_not_understood_isolates(server.kubeconfig().to_owned());
            let name = "closed::what_is_not_understood_isolates";
            tally.run(name, case).await;
        }
        if is_wanted("slices::endpoints_of_an_older_server_are_followed", wanted) {
            let folder = tempfile::tempdir().unwrap();
            let server = ControlPlane::start(&programs, folder.path()).await.unwrap();
            let kubeconfig = server.kubeconfig().to_owned();
            let case = slices::endpoints_of_an_older_server_are_followed(kubeconfig);
            let name = "slices::endpoints_of_an_older_server_are_followed";
            tally.run(name, case).await;
        }
        if is_wanted("chart::from_install_to_uninstall", wanted) {
            // Nobody else's blocks and pools.
            let folder = tempfile::tempdir().unwrap();
            let server = ControlPlane::start(&programs, folder.path()).await.unwrap();
            let case = chart::from_install_to_uninstall(server);
            tally
                .run_here("chart::from_install_to_uninstall", case)
                .await;
        }
        if is_wanted("hammer::no_address_twice_and_none_lost", wanted) {
            // It kills its server.
            let folder = tempfile::tempdir().unwrap();
            let server = ControlPlane::start(&programs, folder.path()).await.unwrap();
            crds::install(&server.client().await.unwrap()).await;
            let case = hammer::no_address_twice_and_none_lost(server, folder.path().to_owned());
            tally
                .run_here("hammer::no_address_twice_and_none_lost", case)
                .await;
        }
        // Only by its name: the kernel may lack what it needs.
        if wanted.iter().any(|name| name == "ipvs") {
            let programs = programs_of(&["kube-apiserver", "kube-proxy"]).unwrap();
            let case =
                ipvs::policies_hold_behind_kube_proxy(server.kubeconfig().to_owned(), programs);
            tally
                .run("ipvs::policies_hold_behind_kube_proxy", case)
                .await;
        }
        println!("{} passed, {} failed", tally.passed, tally.failed);
        ExitCode::from(u8::from(tally.failed > 0 || tally.passed == 0))
    })
}

async fn all(client: Client, wanted: &[String]) -> Tally {
    // First, and whatever was asked for: the others need the kinds.
    crds::install(&client).await;
    cases!(
        client,
        wanted,
        [
            crds::every_crd_is_established,
            rules::the_rules_and_our_checks_agree,
            ipam::the_four_calls,
            ipam::one_of_many_gets_a_block,
            ipam::many_writers_of_one_block_lose_nothing,
            ipam::simultaneous_requests_share_writes,
            ipam::two_nodes_never_share,
            watches::a_forgotten_version_is_gone,
            watches::a_watcher_sees_every_change,
            same::the_embedded_store_answers_alike,
        ]
    )
}

/// The code and reason of an answer that is an error.
fn refusal(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not an answer of the server: {other}"),
    }
}

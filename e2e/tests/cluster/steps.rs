//! Named steps: each says what it was, how long it took, and what went wrong.

use std::io::Write;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use margay_e2e::cluster::{Cluster, helm};
use margay_e2e::lab::patience::{patience, until};

use crate::footprint::Footprint;

/// A step that failed; what went wrong has been printed.
#[derive(Debug)]
pub struct Failed;

/// The steps done so far.
#[derive(Debug)]
pub struct Steps {
    began: Instant,
    done: usize,
    failed: usize,
    /// What the nodes looked like before Margay came.
    pub before: Vec<Footprint>,
}

impl Steps {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            done: 0,
            failed: 0,
            before: Vec::new(),
        }
    }

    /// Does a step that needs no runtime.
    pub fn run_now<T>(
        &mut self,
        name: &str,
        step: impl FnOnce() -> anyhow::Result<T>,
    ) -> Result<T, Failed> {
        let began = begin(name);
        self.end(began.elapsed(), step)
    }

    /// Does a step.
    pub async fn run<T>(
        &mut self,
        name: &str,
        step: impl Future<Output = anyhow::Result<T>>,
    ) -> Result<T, Failed> {
        let began = begin(name);
        let result = step.await;
        self.end(began.elapsed(), || result)
    }

    fn end<T>(
        &mut self,
        time: Duration,
        result: impl FnOnce() -> anyhow::Result<T>,
    ) -> Result<T, Failed> {
        let began = Instant::now();
        let result = result();
        let time = (time + began.elapsed()).as_secs_f64();
        match result {
            Ok(value) => {
                self.done += 1;
                println!("ok ({time:.1} s)");
                Ok(value)
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED ({time:.1} s)");
                println!("    {error:#}");
                Err(Failed)
            }
        }
    }

    /// Says a figure of the step before.
    pub fn figure(&self, text: &str) {
        println!("    {text}");
    }

    /// Says how many held.
    pub fn summary(&self) {
        let time = self.began.elapsed().as_secs_f64();
        println!("{} passed, {} failed, {time:.0} s", self.done, self.failed);
    }
}

fn begin(name: &str) -> Instant {
    print!("step {name} ... ");
    let _ = std::io::stdout().flush();
    Instant::now()
}

/// Waits until every node has made itself known.
pub async fn nodes_known(cluster: &Cluster) -> anyhow::Result<()> {
    let api: Api<Node> = Api::all(cluster.client().await?);
    until(
        "every node to be known",
        patience(60),
        &cluster.logs(),
        || async {
            let nodes = api.list(&ListParams::default()).await;
            let known = nodes.map_err(|error| error.to_string())?.items.len();
            if known == cluster.nodes.len() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(format!("{known} are"))
        },
    )
    .await?;
    Ok(())
}

/// Waits until every kube-proxy has programmed its node, and set what it sets of the kernel.
pub async fn proxies_ready(cluster: &Cluster) -> anyhow::Result<()> {
    until(
        "every kube-proxy to have programmed its node",
        patience(60),
        &cluster.logs(),
        || async {
            for node in &cluster.nodes {
                let rules = node
                    .machine
                    .run("iptables", &["-t", "nat", "-S", "KUBE-SERVICES"]);
                if !rules.is_ok_and(|rules| rules.contains("default/kubernetes")) {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    return Err(format!("{} has no rule for the API server", node.name()));
                }
            }
            Ok(())
        },
    )
    .await?;
    Ok(())
}

/// Waits until the agent of every node is Ready.
pub async fn agents_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let api: Api<DaemonSet> = Api::namespaced(cluster.client().await?, helm::NAMESPACE);
    let name = format!("{}-agent", helm::RELEASE);
    until(
        "every agent to be Ready",
        patience(90),
        &cluster.logs(),
        || async {
            let set = api.get(&name).await.map_err(|error| error.to_string())?;
            let ready = set.status.map_or(0, |status| status.number_ready);
            if usize::try_from(ready) == Ok(cluster.nodes.len()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(format!("{ready} are"))
        },
    )
    .await?;
    Ok(())
}

/// Waits until every node is Ready, as kubelet says.
pub async fn nodes_ready(cluster: &Cluster) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let api: Api<Node> = Api::all(client);
    let names: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| node.name().to_owned())
        .collect();
    until(
        "every node to be Ready",
        patience(90),
        &cluster.logs(),
        || async {
            let nodes = api.list(&ListParams::default()).await;
            let nodes = nodes.map_err(|error| error.to_string())?;
            let mut waiting = names.clone();
            for node in nodes {
                let conditions = node
                    .status
                    .iter()
                    .flat_map(|status| status.conditions.iter().flatten());
                let mut ready =
                    conditions.filter(|one| one.type_ == "Ready" && one.status == "True");
                if ready.next().is_some() {
                    waiting.retain(|name| *name != node.name_any());
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(format!("not Ready: {}", waiting.join(", ")))
        },
    )
    .await?;
    Ok(())
}

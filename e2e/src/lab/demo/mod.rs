//! `margayctl lab demo`: starts a lab, shows what it does, and says whether it is what it should
//! be.
//!
//! Every sight is checked against the plan, and a check that does not hold is told in red with
//! what was expected, what was seen and where the logs are; the rest goes on, and the exit code
//! tells at the end.

mod checks;
mod control_plane;
mod convergence;
mod figures;
mod isolation;
mod matrix;
mod reach;
mod wire;

use std::time::Instant;

use super::down::{self, Logs};
use super::error::LabError;
use super::kernel::Tunnel;
use super::namespaces;
use super::report::{Align, Cell, Screen, Step, Table, Tone, picture};
use super::state::{Folder, Phase};
use super::up::{self, Cluster, Ended, Lab};
use checks::Checks;
pub(super) use figures::milliseconds;

/// How the demo is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The lab to show.
    pub lab: up::Options,
    /// The tunnel that must be seen between segments.
    pub require_tunnel: Option<Tunnel>,
    /// Whether the lab stays afterwards.
    pub keep: bool,
}

/// Runs the demo and ends the lab, also after a failure or an interruption.
///
/// # Errors
/// What kept the lab from coming up or from being shown.
pub async fn demo(
    options: &Options,
    screen: Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Ended, LabError> {
    let start = Instant::now();
    let (lock, plan) = up::prepare(&options.lab, screen)?;
    let folder = Folder::of(&plan.spec.name);
    let shown = tokio::select! {
        biased;
        () = interrupted => None,
        shown = show(options, plan, screen, start) => Some(shown),
    };
    let ended = match shown {
        Some(Ok(failed)) => {
            let logs = if failed { Logs::Keep } else { Logs::Remove };
            let left = !options.keep && finish(&folder, logs, screen)?;
            Ok(if failed || left {
                Ended::ChecksFailed
            } else {
                Ended::Well
            })
        }
        Some(Err(error)) => {
            down::after_failure(&folder, Logs::Keep, screen);
            Err(error)
        }
        None => {
            down::after_failure(&folder, Logs::Remove, screen);
            Ok(Ended::Interrupted)
        }
    };
    drop(lock);
    ended
}

/// Waits until sessions are up and routes are where they belong.
///
/// # Errors
/// [`LabError::Deadline`] when they do not come.
pub async fn wait_until_settled(
    lab: &Lab,
    cluster: &Cluster,
    screen: Screen,
) -> Result<(), LabError> {
    let step = Step::begin(screen, "waiting for BGP and routes");
    convergence::wait_or_fail(lab, cluster).await?;
    step.done("every session is up, every route is there");
    Ok(())
}

/// Ends the lab and looks whether anything is left of it; whether something is.
fn finish(folder: &Folder, logs: Logs, screen: Screen) -> Result<bool, LabError> {
    screen.line("");
    let step = Step::begin(screen, "ending the lab");
    let Some(state) = folder.read()? else {
        return Ok(false);
    };
    down::tear_down(folder, &state, logs)?;
    let mut left: Vec<String> = state.alive().map(|record| record.name.clone()).collect();
    let namespaces = state
        .namespaces
        .iter()
        .filter(|name| namespaces::exists(name));
    left.extend(namespaces.cloned());
    if logs == Logs::Remove && folder.path().exists() {
        left.push(folder.path().display().to_string());
    }
    if left.is_empty() {
        step.done(match logs {
            Logs::Remove => "ended: no process, namespace or file of the lab is left",
            Logs::Keep => "ended: no process or namespace of the lab is left, only its logs",
        });
        return Ok(false);
    }
    step.failed();
    let line = format!("  ✗ still there: {}", left.join(", "));
    screen.line(&screen.paint(Tone::Bad, &line));
    Ok(true)
}

/// Everything between the first namespace and the verdict; whether a check failed.
async fn show(
    options: &Options,
    plan: super::Plan,
    screen: Screen,
    start: Instant,
) -> Result<bool, LabError> {
    let spec = &plan.spec;
    screen.line(&screen.paint(
        Tone::Title,
        &format!("Margay: a cluster of {} nodes on this machine", spec.nodes),
    ));
    let mut lab = up::build(&options.lab, plan, screen).await?;
    let Some(cluster) = lab.cluster.clone() else {
        return Ok(false);
    };
    let mut checks = Checks::new(screen, lab.logs());
    convergence::wait(&lab, &cluster, &mut checks, screen).await?;
    topology(&lab, &cluster, screen);
    reach::show(&lab, &cluster, &mut checks, screen).await?;
    wire::show(
        &mut lab,
        &cluster,
        options.require_tunnel,
        &mut checks,
        screen,
    )
    .await?;
    isolation::show(&lab, &cluster, &mut checks, screen).await?;
    control_plane::show(&lab, &cluster, &mut checks, screen).await?;
    figures::show(&mut lab, &cluster, &mut checks, screen).await?;
    if options.keep {
        lab.ledger.note(|state| state.phase = Phase::Running)?;
        up::hints(&lab, screen);
    } else {
        release_all(&mut lab, &cluster, &mut checks, screen).await?;
    }
    Ok(checks.verdict(start.elapsed()))
}

fn topology(lab: &Lab, cluster: &Cluster, screen: Screen) {
    screen.title("Topology");
    let pods_of = |node: usize| {
        let pods = cluster.pods.iter().filter(|pod| pod.plan.node == node);
        let names: Vec<&str> = pods.map(|pod| pod.plan.name.as_str()).collect();
        names.join(" ")
    };
    for line in picture::lines(&lab.plan, pods_of) {
        screen.line(&line);
    }
    screen.title("Pods");
    let mut table = Table::new(&[
        ("pod", Align::Left),
        ("node", Align::Left),
        ("segment", Align::Left),
        ("address", Align::Left),
        ("wired in", Align::Right),
    ]);
    for pod in &cluster.pods {
        let node = lab
            .plan
            .nodes
            .get(pod.plan.node)
            .map_or("", |node| &node.host.name);
        let segment = lab
            .plan
            .segment_of(pod.plan.node)
            .map_or("", |segment| &segment.letter);
        let time = milliseconds(pod.add_time);
        table.row([
            pod.plan.name.as_str().into(),
            node.into(),
            segment.into(),
            pod.address.to_string().into(),
            Cell::new(Tone::Dim, time),
        ]);
    }
    table.print(screen);
}

/// Ends every pod through the plugin and looks whether its address came back.
async fn release_all(
    lab: &mut Lab,
    cluster: &Cluster,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    screen.title("Leaving");
    let step = Step::begin(screen, "deleting every pod");
    for pod in &cluster.pods {
        cluster
            .runtime
            .stop(&mut lab.ledger, &pod.plan, &pod.sandbox)
            .await?;
    }
    step.done(&format!(
        "{} pods deleted through the CNI plugin",
        cluster.pods.len()
    ));
    let held = control_plane::addresses_of_pods(&cluster.client).await?;
    checks.equal("every address is given back: addresses held", &0, &held);
    Ok(())
}

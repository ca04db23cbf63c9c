//! Bringing a lab up, step by step.

use std::path::{Path, PathBuf};

use kube::Client;

use super::cluster::{self, Binaries};
use super::error::LabError;
use super::kernel::{self, Tunnel};
use super::pods::{PodApi, RunningPod, Runtime};
use super::report::{Screen, Step};
use super::spec::{LabSpec, Plan, STORE_PORT, Tor};
use super::state::{Folder, Ledger, Lock, Phase};
use super::{bird, datastore, down, fabric, frr, objects, topology};

/// How `lab up`, `demo` and `bench` are asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to build.
    pub spec: LabSpec,
    /// Where the programs are; beside margayctl if absent.
    pub binaries: Option<PathBuf>,
    /// The kubeconfig of an API server to use; the embedded store if absent.
    pub datastore: Option<PathBuf>,
    /// Only namespaces, cables and routers: no store, agents and pods.
    pub underlay_only: bool,
}

/// A lab that runs.
#[derive(Debug)]
pub struct Lab {
    /// Its names and addresses.
    pub plan: Plan,
    /// Its record.
    pub ledger: Ledger,
    /// The tunnel that its pool asks for.
    pub tunnel: Tunnel,
    /// Its store and pods; nothing for an underlay alone.
    pub cluster: Option<Cluster>,
}

/// The part of a lab that Margay makes.
#[derive(Clone)]
pub struct Cluster {
    /// The store, as the host reaches it.
    pub client: Client,
    /// Makes pods.
    pub runtime: Runtime,
    /// The pods made.
    pub pods: Vec<RunningPod>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("pods", &self.pods)
            .finish_non_exhaustive()
    }
}

/// Checks everything that can be checked before anything is made, takes the lab's lock, and
/// clears away what a lab of the same name left when it ended badly.
///
/// # Errors
/// Not root, impossible numbers, missing programs, the lab runs already.
pub fn prepare(options: &Options, screen: Screen) -> Result<(Lock, Plan), LabError> {
    let plan = options.spec.plan()?;
    if !options.underlay_only {
        Binaries::find(options.binaries.as_deref())?;
    }
    require_root()?;
    let name = &plan.spec.name;
    let lock = Lock::take(name)?;
    let folder = Folder::of(name);
    if let Some(state) = folder.read()? {
        let running = state.phase == Phase::Running && state.is_of_this_boot();
        if running && (state.processes.is_empty() || state.alive().next().is_some()) {
            return Err(LabError::Running { name: name.clone() });
        }
        let step = Step::begin(
            screen,
            format!("clearing away what an earlier lab {name} left"),
        );
        down::tear_down(&folder, &state, down::Logs::Remove)?;
        step.done("cleared away what an earlier lab left");
    }
    Ok((lock, plan))
}

/// Whether this process may make namespaces.
///
/// # Errors
/// [`LabError::NotRoot`] if not.
pub fn require_root() -> Result<(), LabError> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(LabError::NotRoot)
    }
}

/// Builds the lab. When it fails, or its future is dropped, what was made is in the state file.
///
/// # Errors
/// The first step that fails.
pub async fn build(options: &Options, plan: Plan, screen: Screen) -> Result<Lab, LabError> {
    let mut ledger = Ledger::create(&plan)?;
    let step = Step::begin(screen, "building the fabric");
    let trial = plan.namespace("trial");
    let tunnel = kernel::tunnel(&mut ledger, &trial)?;
    topology::build(&mut ledger, &plan)?;
    let machines = ledger.state.namespaces.len();
    step.done(&format!(
        "{machines} machines as network namespaces, {}",
        segments(&plan)
    ));
    // Gives a waiting Ctrl-C its turn: what is above and below does not await.
    tokio::task::yield_now().await;
    if plan.spec.tor.speaks_bgp() {
        let daemon = plan.spec.tor.words();
        let step = Step::begin(screen, format!("starting {daemon}"));
        fabric::start(&mut ledger, &plan)?;
        step.done(&format!("{daemon}: {} of them", plan.tors().count() + 1));
    }
    let mut lab = Lab {
        plan,
        ledger,
        tunnel,
        cluster: None,
    };
    if !options.underlay_only {
        let binaries = Binaries::find(options.binaries.as_deref())?;
        lab.start_cluster(binaries, options.datastore.as_deref(), screen)
            .await?;
    }
    Ok(lab)
}

fn segments(plan: &Plan) -> String {
    match plan.segments.len() {
        1 => "1 segment".to_owned(),
        count => format!("{count} segments"),
    }
}

impl Lab {
    async fn start_cluster(
        &mut self,
        binaries: Binaries,
        datastore: Option<&Path>,
        screen: Screen,
    ) -> Result<(), LabError> {
        let Lab {
            plan,
            ledger,
            tunnel,
            ..
        } = self;
        let address = plan.store.address.ip();
        let client = match datastore {
            None => {
                let step = Step::begin(screen, "starting the embedded store");
                let client = cluster::start_store(ledger, plan, &binaries).await?;
                step.done(&format!("embedded store on {address}:{STORE_PORT}"));
                client
            }
            Some(kubeconfig) => {
                let step = Step::begin(screen, "finding the API server");
                let client = datastore::start(ledger, plan, &binaries, kubeconfig).await?;
                let version = client.apiserver_version().await;
                let version = version.map_err(LabError::store("ask for the version".to_owned()))?;
                step.done(&format!(
                    "API server {} by way of {address}:{STORE_PORT}",
                    version.git_version
                ));
                client
            }
        };

        let step = Step::begin(screen, "creating the cluster's objects");
        let logs = ledger.folder.logs();
        objects::create_all(&client, plan, *tunnel, &logs).await?;
        step.done(&format!(
            "{} Nodes, IPPool {} ({}Mode CrossSubnet), {}",
            plan.nodes.len(),
            plan.pool,
            tunnel.name(),
            peers(plan)
        ));

        let step = Step::begin(screen, "starting the agents");
        cluster::start_agents(ledger, plan, &binaries).await?;
        cluster::start_controller(ledger, plan, &binaries)?;
        step.done(&format!("{} agents and a controller", plan.nodes.len()));

        let step = Step::begin(screen, "starting the pods");
        let runtime = Runtime {
            plan: plan.clone(),
            binaries,
            folder: ledger.folder.clone(),
            client: PodApi::new(&client),
        };
        let mut pods = Vec::new();
        for pod in &plan.pods {
            pods.push(runtime.start(ledger, pod).await?);
        }
        step.done(&format!("{} pods through the CNI plugin", pods.len()));
        self.cluster = Some(Cluster {
            client,
            runtime,
            pods,
        });
        Ok(())
    }

    /// Where the logs are.
    pub fn logs(&self) -> PathBuf {
        self.ledger.folder.logs()
    }
}

fn peers(plan: &Plan) -> String {
    match plan.spec.tor {
        Tor::Bird | Tor::Frr => format!("{} BGPPeers", plan.tors().count()),
        Tor::None => "no BGPPeer".to_owned(),
    }
}

/// Brings a lab up and leaves it running; a failure or an interruption ends it again.
///
/// # Errors
/// The first step that fails; nothing but the logs is left then.
pub async fn up(
    options: &Options,
    screen: Screen,
    interrupted: impl Future<Output = ()>,
) -> Result<Ended, LabError> {
    let (lock, plan) = prepare(options, screen)?;
    let folder = Folder::of(&plan.spec.name);
    let built = tokio::select! {
        biased;
        () = interrupted => None,
        built = build(options, plan, screen) => Some(built),
    };
    let ended = match built {
        Some(Ok(mut lab)) => {
            lab.ledger.note(|state| state.phase = Phase::Running)?;
            hints(&lab, screen);
            Ok(Ended::Well)
        }
        Some(Err(error)) => {
            down::after_failure(&folder, down::Logs::Keep, screen);
            Err(error)
        }
        None => {
            down::after_failure(&folder, down::Logs::Remove, screen);
            Ok(Ended::Interrupted)
        }
    };
    drop(lock);
    ended
}

/// How an undertaking ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// To its end.
    Well,
    /// By a signal; everything was cleared away.
    Interrupted,
    /// To its end, but something that was checked did not hold.
    ChecksFailed,
}

/// What to try in a running lab.
pub fn hints(lab: &Lab, screen: Screen) {
    let name = match lab.plan.spec.name.as_str() {
        "lab" => String::new(),
        name => format!(" --name {name}"),
    };
    screen.title("The lab runs. Try");
    let mut hints = Vec::new();
    if let Some(cluster) = &lab.cluster {
        let kubeconfig = lab.ledger.folder.kubeconfig();
        hints.push(format!(
            "kubectl --kubeconfig {} get nodes,ippools,ipamblocks,nodestatuses",
            kubeconfig.display()
        ));
        hints.push(format!(
            "margayctl lab exec{name} node1 -- ip route show proto 90"
        ));
        if let (Some(one), Some(other)) = (cluster.pods.first(), cluster.pods.last()) {
            hints.push(format!(
                "margayctl lab exec{name} {} -- ping -c 3 {}",
                one.plan.name, other.address
            ));
        }
    }
    if let Some(segment) = lab.plan.segments.first() {
        let (folder, tor) = (&lab.ledger.folder, &segment.tor);
        let birdc = bird::control_socket(folder, tor);
        let vtysh = frr::sockets(folder, tor);
        hints.extend(match lab.plan.spec.tor {
            Tor::Bird => Some(format!("birdc -s {} show protocols", birdc.display())),
            Tor::Frr => Some(format!(
                "vtysh --vty_socket {} -c 'show bgp summary'",
                vtysh.display()
            )),
            Tor::None => None,
        });
    }
    hints.push(format!("margayctl lab status{name}"));
    hints.push(format!("margayctl lab down{name}"));
    for hint in hints {
        screen.line(&format!("  {hint}"));
    }
}

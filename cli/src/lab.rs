//! `margayctl lab …`: the arguments of the lab; the lab itself is [`margay_e2e::lab`].

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use margay_e2e::lab::kernel::Tunnel;
use margay_e2e::lab::report::{Screen, Tone};
use margay_e2e::lab::up::{Ended, Options};
use margay_e2e::lab::{LabError, LabSpec, Tor};
use margay_e2e::lab::{bench, datastore, demo, down, exec, pod_server, status, up};
use tokio::signal::unix::{SignalKind, signal};

/// The arguments of `margayctl lab`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a lab and leave it running
    Up {
        #[command(flatten)]
        shape: Shape,
        /// Only namespaces, cables and routers: no store, agents and pods
        #[arg(long, hide = true)]
        underlay_only: bool,
    },
    /// End a lab and remove everything of it
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Show what of a lab runs
    Status {
        #[command(flatten)]
        name: Name,
    },
    /// Run a command in a node, router, pod, `store` or `outside`
    Exec {
        #[command(flatten)]
        name: Name,
        /// Where, such as node1, tor-a or web-1
        place: String,
        /// The command and its arguments, after --
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Start a lab, show and check what it does, and end it
    Demo {
        #[command(flatten)]
        shape: Shape,
        /// Fail unless packets between segments travel in this tunnel
        #[arg(long, value_name = "ipip|vxlan")]
        require_tunnel: Option<String>,
        /// Leave the lab running afterwards
        #[arg(long)]
        keep: bool,
    },
    /// Start a lab, measure it, and end it
    Bench {
        #[command(flatten)]
        shape: Shape,
        /// How often each thing is measured
        #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..=1000))]
        repeats: u16,
        /// How the figures are written
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// What the nodes reach an API server by that is not the lab's
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        namespace: String,
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        to: String,
    },
    /// What runs in the pods
    #[command(hide = true)]
    PodServer {
        #[arg(long)]
        pod: String,
        #[arg(long = "port", required = true)]
        ports: Vec<u16>,
    },
}

#[derive(Debug, Args)]
struct Name {
    /// The lab's name
    #[arg(long, default_value = "lab")]
    name: String,
}

#[derive(Debug, Args)]
struct Shape {
    #[command(flatten)]
    name: Name,
    /// How many nodes
    #[arg(long, default_value_t = 4)]
    nodes: usize,
    /// Over how many L2 segments
    #[arg(long, default_value_t = 2)]
    segments: usize,
    /// What runs on the routers
    #[arg(long, default_value = "bird", value_name = "bird|frr|none")]
    tor: String,
    /// How many ToRs a segment has: 1, or 2 with ECMP and BFD
    #[arg(long, default_value_t = 1)]
    tors: usize,
    /// How many pods the lab starts, spread over the nodes
    #[arg(long, default_value_t = 6)]
    pods: usize,
    /// Where the cluster's objects are: the embedded store, or the API server of a kubeconfig,
    /// which should serve nothing else: the lab leaves its objects there
    #[arg(long, default_value = "embedded", value_name = "embedded|KUBECONFIG")]
    datastore: String,
    /// Where margay, margay-cni and margayctl are [default: beside this program]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

impl Shape {
    fn options(self) -> Result<Options, LabError> {
        let datastore = match self.datastore.as_str() {
            "embedded" => None,
            path if Path::new(path).is_file() => Some(PathBuf::from(path)),
            path => {
                return Err(LabError::Spec {
                    field: "--datastore",
                    message: format!("{path:?} is no file: name a kubeconfig, or embedded"),
                });
            }
        };
        Ok(Options {
            spec: LabSpec {
                name: self.name.name,
                nodes: self.nodes,
                segments: self.segments,
                tor: Tor::parse(&self.tor)?,
                tors: self.tors,
                pods: self.pods,
            },
            binaries: self.bin_dir,
            datastore,
            underlay_only: false,
        })
    }
}

/// Runs the subcommand; gives the exit code.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let screen = Screen::detect();
    match dispatch(arguments.command, screen) {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::ChecksFailed) => ExitCode::FAILURE,
        // As a shell tells of a program that ended by SIGINT.
        Ok(Ended::Interrupted) => ExitCode::from(130),
        Err(error) => {
            let colour = screen.colour && std::io::IsTerminal::is_terminal(&std::io::stderr());
            let word = Screen { colour, ..screen }.paint(Tone::Bad, "margayctl lab:");
            eprintln!("{word} {error}");
            match error {
                LabError::Spec { .. } => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn dispatch(command: Command, screen: Screen) -> Result<Ended, LabError> {
    match command {
        Command::Up {
            shape,
            underlay_only,
        } => {
            let options = Options {
                underlay_only,
                ..shape.options()?
            };
            block_on(up::up(&options, screen, interruption()))
        }
        Command::Down { name } => down::down(&name.name, screen).map(|()| Ended::Well),
        Command::Status { name } => Ok(match status::status(&name.name, screen)? {
            true => Ended::Well,
            false => Ended::ChecksFailed,
        }),
        Command::Exec {
            name,
            place,
            command,
        } => Err(exec::exec(&name.name, &place, &command)),
        Command::Demo {
            shape,
            require_tunnel,
            keep,
        } => {
            let options = demo::Options {
                lab: shape.options()?,
                require_tunnel: require_tunnel
                    .map(|text| Tunnel::parse(&text))
                    .transpose()?,
                keep,
            };
            block_on(demo::demo(&options, screen, interruption()))
        }
        Command::Bench {
            shape,
            repeats,
            output,
        } => {
            let options = bench::Options {
                lab: shape.options()?,
                repeats: repeats.into(),
                json: output == Output::Json,
            };
            block_on(bench::bench(&options, screen, interruption()))
        }
        Command::Relay {
            namespace,
            listen,
            to,
        } => datastore::relay(&namespace, listen, &to).map(|()| Ended::Well),
        Command::PodServer { pod, ports } => {
            let served = pod_server::serve(&pod, &ports);
            served
                .map(|()| Ended::Well)
                .map_err(|source| LabError::Start {
                    program: format!("pod-server of {pod}"),
                    source,
                    hint: "",
                })
        }
    }
}

fn block_on<T>(future: impl Future<Output = Result<T, LabError>>) -> Result<T, LabError> {
    let runtime = tokio::runtime::Runtime::new().map_err(|source| LabError::Start {
        program: "the async runtime".to_owned(),
        source,
        hint: "",
    })?;
    runtime.block_on(future)
}

/// Done when someone wants this to end: Ctrl-C, SIGTERM, or the terminal is gone.
async fn interruption() {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let mut signals: Vec<_> = kinds
        .into_iter()
        .filter_map(|kind| signal(kind).ok())
        .collect();
    std::future::poll_fn(|context| {
        let ready = signals
            .iter_mut()
            .any(|signal| signal.poll_recv(context).is_ready());
        if ready {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

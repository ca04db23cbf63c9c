//! The binary `margay`: the node daemon, the speaker alone, the controller, and the embedded store.
//!
//! Exit codes: 2 and one clear line for flags and files that make no sense, 1 for failures.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use margay_agent::options::{AgentOptions, ControllerOptions};
use tracing_subscriber::EnvFilter;

/// A Kubernetes network for routed data centres.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Write logs as JSON
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the node daemon
    Agent(AgentOptions),
    /// Run the BGP speaker alone, from a file
    Bgp(margay_agent::commands::BgpOptions),
    /// Run what is done once for the cluster: garbage collection, LoadBalancer addresses, pool status
    Controller(ControllerOptions),
    /// Run the embedded store
    Apiserver(margay_apiserver::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    init_logs(arguments.log_json);
    let runtime = match runtime(&arguments.command) {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("margay: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Agent(options) => margay_agent::run::run(options).await,
            Command::Bgp(options) => margay_agent::commands::bgp(options).await,
            Command::Controller(options) => margay_agent::controller::run(options).await,
            Command::Apiserver(options) => margay_agent::commands::apiserver(options).await,
        }
    });
    // Tasks that wait for peers or clients have nothing left to say.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay: {error:#}");
            ExitCode::from(margay_agent::commands::exit_code(&error))
        }
    }
}

/// A node's daemon shares the machine with the pods it serves; the speaker alone has no work for
/// a second worker.
fn runtime(command: &Command) -> std::io::Result<tokio::runtime::Runtime> {
    match command {
        Command::Bgp(_) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
        Command::Agent(_) | Command::Controller(_) | Command::Apiserver(_) => {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
        }
    }
}

/// `RUST_LOG` decides; without it, Margay's own words at `info` and the libraries' at `warn`.
fn init_logs(json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,margay=info,margay_agent=info,margay_bgp=info,margay_ipam=info,margay_policy=info,margay_apiserver=info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        logs.json().init();
    } else {
        logs.with_target(false).init();
    }
}

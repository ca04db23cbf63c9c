//! The binary `margay`: the node daemon, the speaker alone, the controller, and the embedded store.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use margay_agent::cluster::{self, CleanupOptions, InstallCrdsOptions};
use margay_agent::datastore;
use margay_agent::host::{self, InstallCniOptions, UninstallOptions};
use margay_agent::options::{AgentOptions, ControllerOptions};
use margay_speaker::{bgp, program};

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
    Bgp(bgp::BgpOptions),
    /// Run what is done once for the cluster: garbage collection, LoadBalancer addresses, pool status
    Controller(ControllerOptions),
    /// Put the CNI plugin and the network's configuration where the node's runtime looks
    InstallCni(InstallCniOptions),
    /// Take away from this node what Margay put there
    Uninstall(UninstallOptions),
    /// Bring the kinds (CustomResourceDefinitions) up to date
    InstallCrds(InstallCrdsOptions),
    /// Take Margay's marks off the cluster's objects, after it was uninstalled
    Cleanup(CleanupOptions),
    /// Run the embedded store
    Apiserver(margay_apiserver::Options),
}

fn main() -> ExitCode {
    let Arguments { command, log_json } = Arguments::parse();
    program::init_logs(log_json);
    match command {
        Command::Agent(options) => {
            program::run(program::node_runtime(), margay_agent::run::run(options))
        }
        Command::Bgp(options) => {
            let error = bgp::become_speaker(&options, log_json);
            tracing::debug!("the speaker runs in this program: {error}");
            program::run(program::small_runtime(), bgp::bgp(options))
        }
        Command::Controller(options) => program::run(
            program::node_runtime(),
            margay_agent::controller::run(options),
        ),
        Command::InstallCni(options) => program::run(program::small_runtime(), async move {
            host::install_cni(&options)
        }),
        Command::Uninstall(options) => {
            program::run(program::small_runtime(), host::uninstall(options))
        }
        Command::InstallCrds(options) => {
            program::run(program::small_runtime(), cluster::install_crds(options))
        }
        Command::Cleanup(options) => {
            program::run(program::small_runtime(), cluster::cleanup(options))
        }
        Command::Apiserver(options) => {
            program::run(program::node_runtime(), datastore::serve(options))
        }
    }
}

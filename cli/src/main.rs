//! `margayctl`: what operators of Margay type. Also installed as `kubectl-margay`.
//!
//! Each subcommand has a module of its own, with its arguments and a `run` that gives the exit
//! code: 0 when all is well, 1 when something is not, 2 for a command line that makes no sense.

mod bgp;
mod connect;
mod ipam;
mod lab;
mod node;
mod policy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Margay's operator tool.
#[derive(Debug, Parser)]
#[command(
    name = "margayctl",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What a running BGP speaker says of itself
    Bgp(bgp::Arguments),
    /// Addresses: how full the pools are, what is wrong, and how to put it right
    Ipam(ipam::Arguments),
    /// A cluster in network namespaces on this machine: nodes, racks, routers, pods
    Lab(lab::Arguments),
    /// Take a node out of BGP before it is shut down, and back in
    Node(node::Arguments),
    /// Who reaches whom under NetworkPolicies, from manifests
    Policy(policy::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Bgp(arguments) => bgp::run(arguments),
        Command::Ipam(arguments) => ipam::run(arguments),
        Command::Lab(arguments) => lab::run(arguments),
        Command::Node(arguments) => node::run(arguments),
        Command::Policy(arguments) => policy::run(arguments),
    }
}

//! The binary `margay-bgp`: the speaker alone (door 2), in a program that holds nothing else.
//!
//! `margay bgp` becomes this program when it lies beside it. The Kubernetes parts of `margay` are
//! ten times the size of a BGP speaker, and whoever wants only the speaker should not hold their
//! pages in memory.

use std::process::ExitCode;

use clap::Parser;
use margay_speaker::{bgp, program};

/// A BGP speaker for routed data centres.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    options: bgp::BgpOptions,

    /// Write logs as JSON
    #[arg(long)]
    log_json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    program::init_logs(arguments.log_json);
    program::run(program::small_runtime(), bgp::bgp(arguments.options))
}

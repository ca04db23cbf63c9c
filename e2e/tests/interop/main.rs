//! Interoperability with the BGP daemons of Debian, each in network namespaces with us and a third peer.
//!
//! Run by `make test-interop`, as root: `interop run [--update] [--jobs N] [DAEMON/ROW…]`. Each cell (one row of the table with
//! one daemon) has namespaces, processes and files of its own; several run at once. The result is docs/interop.md: a run of
//! everything fails when a cell fails or when the page says something else, and `--update` writes it anew. Called by another
//! test runner it has nothing to do.

#![allow(unreachable_pub, reason = "a test has no outside")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod cells;
mod daemons;
mod fabric;
mod matrix;
mod model;
mod monitor;
mod ours;
mod process;
mod report;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((first, rest)) = arguments.split_first() else {
        return nothing_to_do();
    };
    if first != "run" {
        return nothing_to_do();
    }
    match matrix::Options::read(rest).and_then(|options| matrix::run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interop: {error}");
            ExitCode::from(2)
        }
    }
}

/// Another runner lists and runs tests by the standard harness's flags.
fn nothing_to_do() -> ExitCode {
    ExitCode::SUCCESS
}

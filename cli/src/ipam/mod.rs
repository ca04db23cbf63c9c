//! `margayctl ipam …`: the addresses of a cluster, for the people who answer for them.
//!
//! `show` and `check` only read. `release` takes an address away from an owner that is gone: by
//! block uid, address and sequence, judged once more by the API server's own words, so that an
//! address that has been given to somebody else meanwhile stays with him. `split` halves a pool;
//! `configure` shows and sets IPAMConfiguration.
//!
//! Exit codes: 0 when all is well, 1 when something is wrong (with `check`: in the cluster), 2
//! when it could not be found out.

mod bar;
mod check;
mod cluster;
mod configure;
mod release;
mod show;
mod split;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use crate::connect::connect;

/// The arguments of `margayctl ipam`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The pools and how full they are; blocks, and single addresses
    Show(show::Options),
    /// Looks for leaks, addresses held twice, addresses outside pools, blocks of nobody; exits
    /// with 1 if there are any
    Check(check::Options),
    /// Takes back addresses whose owners are gone: one, or those that two reports agree on
    Release(release::Options),
    /// Puts two pools in the place of one, each with half of its range
    Split(split::Options),
    /// Shows or sets what holds for all pools (IPAMConfiguration default)
    Configure(configure::Options),
}

/// Which cluster is meant.
#[derive(Debug, Args)]
struct Whom {
    /// The cluster, as a kubeconfig file; otherwise KUBECONFIG, ~/.kube/config or the pod's own
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl Whom {
    async fn client(&self) -> Result<kube::Client, String> {
        connect(self.kubeconfig.as_deref()).await
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What a command says, and whether all is well.
struct Answer {
    text: String,
    well: bool,
}

impl Answer {
    fn well(text: String) -> Self {
        Self { text, well: true }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answer = match runtime {
        Ok(runtime) => runtime.block_on(execute(arguments.command)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match answer {
        Ok(Answer { text, well }) => {
            // A reader that has seen enough (`| head`) is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::from(u8::from(!well))
        }
        Err(words) => {
            eprintln!("margayctl ipam: {words}");
            ExitCode::from(2)
        }
    }
}

async fn execute(command: Command) -> Result<Answer, String> {
    match command {
        Command::Show(options) => show::run(options).await,
        Command::Check(options) => check::run(options).await,
        Command::Release(options) => release::run(options).await,
        Command::Split(options) => split::run(options).await,
        Command::Configure(options) => configure::run(options).await,
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, String> {
    let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}

/// What the API server says, without its wrapping.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

//! What `margay` and `margay-bgp` have in common: their logs, how they end, and what they exit with.
//!
//! Exit codes: 2 and one clear line for flags and files that make no sense, 1 for failures.

use std::io::IsTerminal;
use std::process::ExitCode;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Margay's own words at `info` and the libraries' at `warn`. A name stands for all that begin with it, and so do our crates'.
const DEFAULT_FILTER: &str = "warn,margay=info";

/// A mistake in a flag or a file: exit code 2, where everything else is 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Logs go to standard error; `RUST_LOG` decides which (`debug`, or `TARGET=LEVEL` with commas
/// between), and `json` in which form.
pub fn init_logs(json: bool) {
    // Not EnvFilter: its patterns for spans need a regular expression engine, of which the speaker
    // alone would be a tenth.
    let asked = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let asked = asked.map(|text| (text.parse::<Targets>(), text));
    let filter = match &asked {
        Some((Ok(filter), _)) => filter.clone(),
        None | Some((Err(_), _)) => default_filter(),
    };
    let logs = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let logs = if json {
        logs.json().boxed()
    } else {
        logs.with_target(false).boxed()
    };
    tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .init();
    if let Some((Err(error), text)) = asked {
        tracing::warn!("RUST_LOG={text}: {error}; TARGET=LEVEL with commas between is understood");
    }
}

fn default_filter() -> Targets {
    DEFAULT_FILTER.parse().unwrap_or_default()
}

/// Runs a command to its end on `runtime`, and says what went wrong with it.
pub fn run(
    runtime: std::io::Result<tokio::runtime::Runtime>,
    command: impl Future<Output = anyhow::Result<()>>,
) -> ExitCode {
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("margay: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(command);
    // Tasks that wait for peers or clients have nothing left to say.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("margay: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The speaker alone has no work for a second worker.
///
/// # Errors
/// The operating system gives no event queue.
pub fn small_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// A node's daemon shares the machine with the pods it serves.
///
/// # Errors
/// The operating system gives no event queue or no thread.
pub fn node_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// Comes to an end when the process is asked to: SIGTERM or SIGINT.
pub async fn shutdown_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without the handler the signal ends the process at once, which is an end too.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.downcast_ref::<UsageError>().is_some() {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_our_own_information_is_logged() {
        let filter = default_filter();
        let enabled = |target: &str, level| filter.would_enable(target, &level);
        for ours in [
            "margay",
            "margay_agent::run",
            "margay_bgp::speaker",
            "margay_dataplane",
        ] {
            assert!(enabled(ours, tracing::Level::INFO), "{ours}");
        }
        assert!(!enabled("margay_bgp::speaker", tracing::Level::DEBUG));
        assert!(enabled("hyper::client", tracing::Level::WARN));
        assert!(!enabled("hyper::client", tracing::Level::INFO));
    }
}

//! The embedded store on its own: `cargo run --example apiserver -- --data DIR --listen 127.0.0.1:6443`.

use clap::Parser;
use margay_apiserver::Options;

/// Margay's embedded store.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let arguments = Arguments::parse();
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    Ok(margay_apiserver::run(arguments.options, interrupted).await?)
}

//! `margayctl ipam check`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use margay_ipam::report::{ProblemKind, Report};

use super::cluster::Cluster;
use super::{Answer, Output, Whom};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    whom: Whom,
    /// Seconds after which what seems wrong is looked at a second time: only what is wrong then
    /// too counts, since pods start and end between two lists. 0: one look
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3600))]
    confirm_after: u64,
    /// Writes the report to this file too, for `release --from-report`
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn run(options: Options) -> Result<Answer, String> {
    let client = options.whom.client().await?;
    let mut report = Cluster::read(&client).await?.report();
    if !report.is_clean() && options.confirm_after > 0 {
        tokio::time::sleep(Duration::from_secs(options.confirm_after)).await;
        report = Cluster::read(&client).await?.report().confirmed_by(&report);
    }
    let as_json = super::json(&report)?;
    if let Some(file) = &options.report {
        std::fs::write(file, &as_json)
            .map_err(|error| format!("--report {}: {error}", file.display()))?;
    }
    let text = match options.output {
        Output::Json => as_json,
        Output::Table => words(&report),
    };
    Ok(Answer {
        text,
        well: report.is_clean(),
    })
}

fn words(report: &Report) -> String {
    let mut text = format!(
        "{} pools, {} blocks, {} addresses held\n",
        report.pools, report.blocks, report.addresses
    );
    if report.is_clean() {
        return text + "nothing is wrong\n";
    }
    for kind in ProblemKind::ALL {
        let found = report.problems.iter().filter(|one| one.kind == kind);
        let found: Vec<&str> = found.map(|one| one.message.as_str()).collect();
        if !found.is_empty() {
            text.push_str(&format!("\n{} {}\n", found.len(), kind.title()));
            for message in found {
                text.push_str(&format!("  {message}\n"));
            }
        }
    }
    if report.leaks().next().is_some() {
        text.push_str(
            "\nThe controller takes leaks back after its grace period. By hand: write two \
             reports some minutes apart\n(check --report FILE), then release --from-report A,B\n",
        );
    }
    text
}

//! `margayctl ipam release`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnetwork::IpNetwork;
use kube::Client;
use margay_crds::{Allocation, IPAMBlock};
use margay_ipam::garbage::{
    Case, Collector, Facts, Order, Reason, Replacements, Settings, Subject,
};
use margay_ipam::report::Report;
use margay_ipam::{KubeStore, Store, Timestamp, kube_facts};

use super::cluster::list;
use super::{Answer, Whom};

/// Reports closer to each other may both have met the same pod while it started.
const APART: i64 = 60;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    whom: Whom,
    /// Two or more reports of `check --report`, taken at least a minute apart: what all of them
    /// call a leak is released
    #[arg(
        long,
        value_name = "FILE",
        value_delimiter = ',',
        required_unless_present = "address"
    )]
    from_report: Vec<PathBuf>,
    /// One address whose owner is gone
    #[arg(long, value_name = "ADDRESS", conflicts_with = "from_report")]
    address: Option<IpAddr>,
    /// One report is enough, or two that are close to each other; with --address: although the
    /// owner is there, which may cut a running pod off
    #[arg(long)]
    force: bool,
    /// Only says what would be released
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(options: Options) -> Result<Answer, String> {
    let client = options.whom.client().await?;
    let orders = match options.address {
        Some(address) => vec![of_address(&client, address).await?],
        None => of_reports(&options)?,
    };
    let mut work = Work {
        store: KubeStore::new(client.clone()),
        client,
        dry_run: options.dry_run,
        force: options.force && options.address.is_some(),
        text: String::new(),
        released: 0,
        kept: 0,
    };
    for order in orders {
        work.carry_out(&order).await?;
    }
    let (would, released) = (if work.dry_run { "would be " } else { "" }, work.released);
    let kept = work.kept;
    let end = format!("{released} addresses {would}released, {kept} kept\n");
    Ok(Answer {
        text: work.text + &end,
        // What was asked for by name and is not released is a failure.
        well: options.address.is_none() || released > 0,
    })
}

/// Whatever is at the address now.
async fn of_address(client: &Client, address: IpAddr) -> Result<Order, String> {
    for block in list::<IPAMBlock>(client, "IPAMBlocks").await? {
        let range: Option<IpNetwork> = block.spec.cidr.parse().ok();
        if !range.is_some_and(|range| range.contains(address)) {
            continue;
        }
        let mut held = block.spec.allocations.iter();
        if let Some(one) = held.find(|one| one.address.parse() == Ok(address)) {
            return Ok(Order {
                block: block.metadata.name.clone().unwrap_or_default(),
                uid: block.metadata.uid.clone().unwrap_or_default(),
                addresses: vec![(address, one.sequence)],
            });
        }
    }
    Err(format!("{address} is held by nobody"))
}

fn of_reports(options: &Options) -> Result<Vec<Order>, String> {
    let mut reports = Vec::new();
    for file in &options.from_report {
        let wrong = |error: String| format!("--from-report {}: {error}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        let report: Report =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        reports.push(report);
    }
    if !options.force {
        ensure_apart(&reports)?;
    }
    Ok(Report::intersection(&reports))
}

fn ensure_apart(reports: &[Report]) -> Result<(), String> {
    if reports.len() < 2 {
        return Err(
            "--from-report: one report may have met a pod that was just starting: give two, \
             taken at least a minute apart, or --force"
                .to_owned(),
        );
    }
    let mut times = Vec::new();
    for report in reports {
        let time: Timestamp = report
            .time
            .parse()
            .map_err(|error| format!("--from-report: time {:?}: {error}", report.time))?;
        times.push(time.as_second());
    }
    times.sort_unstable();
    let span = times
        .last()
        .zip(times.first())
        .map_or(0, |(last, first)| last - first);
    if span < APART {
        return Err(format!(
            "--from-report: the reports are {span} seconds apart; take them at least {APART} \
             seconds apart, or --force"
        ));
    }
    Ok(())
}

struct Work {
    client: Client,
    store: KubeStore,
    dry_run: bool,
    force: bool,
    text: String,
    released: usize,
    kept: usize,
}

impl Work {
    /// Judges each allocation of a block once more, and releases what is found guilty.
    async fn carry_out(&mut self, order: &Order) -> Result<(), String> {
        let object = self.store.get(&order.block).await;
        let object = object.map_err(|error| format!("IPAMBlock {}: {error}", order.block))?;
        let block = object.filter(|block| block.metadata.uid.as_ref() == Some(&order.uid));
        let mut guilty = Vec::new();
        for (address, sequence) in &order.addresses {
            let held = block
                .as_ref()
                .and_then(|block| find(block, *address, *sequence));
            let Some((block, held)) = block.as_ref().zip(held) else {
                self.keep(
                    *address,
                    "has been given back or to somebody else meanwhile",
                );
                continue;
            };
            let case = self.case(block, held);
            if self.force || self.is_guilty(&case).await? {
                guilty.push((*address, *sequence));
            } else {
                self.keep(*address, &format!("{} is there", held.owner));
            }
        }
        if guilty.is_empty() {
            return Ok(());
        }
        let order = Order {
            addresses: guilty,
            ..order.clone()
        };
        let freed: Vec<IpAddr> = if self.dry_run {
            order
                .addresses
                .iter()
                .map(|(address, _)| *address)
                .collect()
        } else {
            let done = order.carry_out(&self.store, Timestamp::now).await;
            let freed = done.map_err(|error| format!("IPAMBlock {}: {error}", order.block))?;
            freed
                .iter()
                .filter_map(|one| one.address.parse().ok())
                .collect()
        };
        for address in freed {
            self.released += 1;
            let words = if self.dry_run {
                "would be released"
            } else {
                "released"
            };
            self.text.push_str(&format!("{address} {words}\n"));
        }
        Ok(())
    }

    fn case(&self, block: &IPAMBlock, held: &Allocation) -> Case {
        Case {
            block: block.metadata.name.clone().unwrap_or_default(),
            uid: block.metadata.uid.clone().unwrap_or_default(),
            node: block.spec.node.clone(),
            subject: Subject::Address {
                allocation: Box::new(held.clone()),
                reason: Reason::PodGone,
            },
        }
    }

    async fn is_guilty(&self, case: &Case) -> Result<bool, String> {
        let facts: Facts = kube_facts::of_case(&self.client, case, true)
            .await
            .map_err(|error| format!("cannot look at the owner: {error}"))?;
        let Subject::Address { allocation, .. } = &case.subject else {
            return Ok(false);
        };
        if facts
            .judge(&case.node, allocation, &Replacements::default())
            .is_some()
        {
            return Ok(true);
        }
        // A later sandbox of the same pod is known only from all blocks.
        let blocks = list::<IPAMBlock>(&self.client, "IPAMBlocks").await?;
        let replacements = Replacements::among(blocks.iter(), &facts);
        let reason = facts.judge(&case.node, allocation, &replacements);
        let mut collector = Collector::new(Settings::default());
        let Some(reason) = reason else {
            return Ok(false);
        };
        let case = Case {
            subject: Subject::Address {
                allocation: allocation.clone(),
                reason,
            },
            ..case.clone()
        };
        Ok(collector.handle_verdict(&case, &facts))
    }

    fn keep(&mut self, address: IpAddr, words: &str) {
        self.kept += 1;
        self.text.push_str(&format!("{address} kept: {words}\n"));
    }
}

fn find(block: &IPAMBlock, address: IpAddr, sequence: i64) -> Option<&Allocation> {
    let mut held = block.spec.allocations.iter();
    held.find(|one| one.address.parse() == Ok(address) && one.sequence == sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(time: &str) -> Report {
        Report {
            time: time.to_owned(),
            pools: 0,
            blocks: 0,
            addresses: 0,
            problems: Vec::new(),
        }
    }

    #[test]
    fn reports_are_two_and_a_minute_apart() {
        let (first, soon, later) = (
            report("2026-01-01T00:00:00.000Z"),
            report("2026-01-01T00:00:59.000Z"),
            report("2026-01-01T00:01:00.000Z"),
        );
        let refused = |reports: &[Report]| ensure_apart(reports).err().unwrap_or_default();
        assert!(refused(std::slice::from_ref(&first)).contains("give two"));
        assert!(refused(&[soon, first.clone()]).contains("59 seconds apart"));
        assert_eq!(refused(&[later, first.clone()]), "");
        assert!(refused(&[first, report("yesterday")]).contains("yesterday"));
    }
}

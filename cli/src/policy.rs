//! `margayctl policy …`: who reaches whom, and why, from manifests alone; and what a running agent saw of it (`live`).
//!
//! The answers are the policy crate's evaluator's, which is written from the API's text and knows
//! nothing of the compiler. `render` is the compiler's, and asks the evaluator nothing.

mod live;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use margay_e2e::lab::report::{Align, Screen, Table};
use margay_policy::compile::interface_name;
use margay_policy::lint::lint;
use margay_policy::matrix::{Cell, External, Verdict, explain, matrix};
use margay_policy::port::Probe;
use margay_policy::ruleset::Family;
use margay_policy::{Cluster, Compiler, LocalEndpoint, NodeInput, Problem, load, writer};

/// The arguments of `margayctl policy`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every pair of endpoints and whether they may connect
    Matrix {
        #[command(flatten)]
        world: World,
        /// What is asked of each pair, such as TCP/80; may be repeated
        #[arg(long, value_name = "PROTOCOL/PORT", required = true)]
        probe: Vec<Probe>,
        /// How the answers are written
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// The table that the agent on a node would commit
    Render {
        #[command(flatten)]
        world: World,
        /// The node, by the name in the pods' spec.nodeName
        #[arg(long)]
        node: String,
        /// As nft reads it: text, or its JSON
        #[arg(short, long, value_enum, default_value = "nft")]
        output: Form,
    },
    /// What in the policies is probably not meant as it is written
    Lint {
        #[command(flatten)]
        world: World,
        /// How the findings are written
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// The packets that policy denied or logged on this node, with pods, policy and rule
    Denials {
        #[command(flatten)]
        agent: live::Agent,
        /// Goes on with those to come, until interrupted
        #[arg(long)]
        follow: bool,
        /// How they are written; json is one object a line
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// What each rule of each policy in force on this node has counted
    Counters {
        #[command(flatten)]
        agent: live::Agent,
        /// How they are written
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// One connection in words: which policies and rules decide, on both sides
    Explain {
        #[command(flatten)]
        world: World,
        /// Who connects: namespace/pod, node/NAME or ext/NAME
        #[arg(long)]
        from: String,
        /// To whom
        #[arg(long)]
        to: String,
        /// To which port, such as TCP/80
        #[arg(long, value_name = "PROTOCOL/PORT")]
        port: Probe,
    },
}

/// The objects and addresses that are asked about.
#[derive(Debug, Args)]
struct World {
    /// Namespaces, Nodes, Pods and policies as YAML or JSON documents; - is standard input; may
    /// be repeated
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only this address family [default: both]
    #[arg(long, value_name = "4|6", value_parser = ["4", "6"])]
    family: Option<String>,
    /// An endpoint outside the cluster, by one or more addresses; may be repeated
    #[arg(long, value_name = "NAME=IP[,IP]")]
    external: Vec<External>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Nft,
    Json,
}

impl World {
    fn families(&self) -> Vec<Family> {
        match self.family.as_deref() {
            Some("4") => vec![Family::V4],
            Some(_) => vec![Family::V6],
            None => vec![Family::V4, Family::V6],
        }
    }

    /// The cluster of the files; what is wrong with single objects goes to standard error.
    fn cluster(&self) -> Result<Cluster, String> {
        let mut cluster = Cluster::new();
        for file in &self.files {
            let name = file.display();
            let text = read(file).map_err(|error| format!("--file {name}: {error}"))?;
            let problems = load::load(&text, &mut cluster);
            for problem in problems.map_err(|error| format!("--file {name}: {error}"))? {
                eprintln!("margayctl: {name}: {problem}");
            }
        }
        Ok(cluster)
    }
}

fn read(file: &PathBuf) -> std::io::Result<String> {
    if file.as_os_str() != "-" {
        return std::fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// Runs the command; 0 when it was answered, 2 for files or names that make no sense.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    match answer(arguments.command) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("margayctl policy: {error}");
            ExitCode::from(2)
        }
    }
}

fn answer(command: Command) -> Result<String, String> {
    match command {
        Command::Matrix {
            world,
            probe,
            output,
        } => {
            let cells = matrix(
                &world.cluster()?,
                &probe,
                &world.families(),
                &world.external,
            );
            match output {
                Output::Table => Ok(table(&cells)),
                Output::Json => json(&cells).map_err(|error| error.to_string()),
            }
        }
        Command::Render {
            world,
            node,
            output,
        } => render(&world.cluster()?, &node, output),
        Command::Lint { world, output } => {
            let findings = lint(&world.cluster()?);
            match output {
                Output::Table => Ok(findings.iter().map(|one| format!("{one}\n")).collect()),
                Output::Json => {
                    let list: Vec<_> = findings.iter().map(finding).collect();
                    let text = serde_json::to_string(&serde_json::json!({ "findings": list }));
                    text.map(|text| text + "\n")
                        .map_err(|error| error.to_string())
                }
            }
        }
        Command::Denials {
            agent,
            follow,
            output,
        } => live::denials(&agent, follow, output == Output::Json),
        Command::Counters { agent, output } => live::counters(&agent, output == Output::Json),
        Command::Explain {
            world,
            from,
            to,
            port,
        } => {
            let cluster = world.cluster()?;
            let families = world.families();
            let explained = explain(&cluster, &from, &to, port, &families, &world.external);
            explained
                .map(|explanation| format!("{explanation}\n"))
                .map_err(|error| error.to_string())
        }
    }
}

/// Pools and tunnels are no part of the files: NAT is left out.
fn render(cluster: &Cluster, node: &str, form: Form) -> Result<String, String> {
    let input = NodeInput::of_cluster(cluster, node, interface_name);
    let is_known = cluster.nodes().any(|known| known.name == node);
    if input.endpoints.is_empty() && !is_known {
        return Err(format!(
            "--node {node}: no Node of that name is in the files, and no pod that runs there"
        ));
    }
    let (ruleset, problems) = Compiler::new().compile(cluster, &input);
    for problem in problems {
        eprintln!("margayctl: {problem}");
    }
    match form {
        Form::Nft => Ok(numbered(&input.endpoints) + &ruleset.full().to_nft_text()),
        Form::Json => Ok(format!("{}\n", writer::json::ruleset(&ruleset))),
    }
}

/// Which interface each number stands for, as comments: on a node they are those of its kernel.
fn numbered(endpoints: &[LocalEndpoint]) -> String {
    let lines = endpoints.iter().map(|one| {
        let (number, interface) = (one.device, &one.interface);
        let (namespace, pod) = (&one.namespace, &one.pod);
        format!("# {number} is {interface}, of pod {namespace}/{pod}\n")
    });
    lines.collect()
}

fn finding(finding: &Problem) -> serde_json::Value {
    serde_json::json!({
        "kind": finding.kind, "namespace": finding.namespace, "name": finding.name,
        "field": finding.field, "reason": finding.reason,
    })
}

fn json(cells: &[Cell]) -> serde_json::Result<String> {
    let text = serde_json::to_string(&serde_json::json!({ "cells": cells }))?;
    Ok(text + "\n")
}

fn table(cells: &[Cell]) -> String {
    let heads = ["FROM", "TO", "PROBE", "VERDICT", "BY"];
    let mut table = Table::new(&heads.map(|head| (head, Align::Left)));
    for cell in cells {
        let verdict = match cell.verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        };
        let by = cell.by.as_ref().map_or_else(String::new, |by| {
            format!("{} {}/{} {}", by.kind, by.namespace, by.name, by.rule)
        });
        let probe = format!("{} (IPv{})", cell.probe, cell.family);
        table.row([
            cell.from.as_str().into(),
            cell.to.as_str().into(),
            probe.into(),
            verdict.into(),
            by.into(),
        ]);
    }
    let lines = table.render(Screen::plain());
    lines.iter().map(|line| format!("{line}\n")).collect()
}

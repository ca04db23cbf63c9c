//! The lab's demo, whole, with its objects on the real server.

use std::path::PathBuf;
use std::process::Command;

use super::same::programs;

pub async fn the_lab_runs_on_it(kubeconfig: PathBuf) {
    let margayctl = programs().join("margayctl");
    let mut command = Command::new(margayctl);
    command.args(["lab", "demo", "--name", "kube", "--datastore"]);
    command.arg(kubeconfig);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.contains("API server v1."), "{text}");
    let last: Vec<&str> = text
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(2)
        .collect();
    println!(
        "  {}",
        last.into_iter().rev().collect::<Vec<_>>().join("\n  ")
    );
}

//! What is printed when a step failed: what the cluster says of itself, and the ends of the logs
//! that matter.

use std::process::Command;

use margay_e2e::cluster::Cluster;
use margay_e2e::lab::command::finish;
use margay_e2e::lab::patience::patience;

/// How many lines of a log are shown.
const LINES: usize = 8;
/// How much of a line, in characters.
const WIDTH: usize = 300;

pub async fn print(cluster: &Cluster) {
    for arguments in [
        "get nodes -o wide",
        "get pods -A -o wide",
        "get events -A --sort-by=.lastTimestamp --field-selector type=Warning",
    ] {
        println!("-- kubectl {arguments}");
        let mut command = cluster.control_plane.kubectl();
        command.args(arguments.split(' '));
        show(command, 60);
    }
    for node in &cluster.nodes {
        for log in node.logs() {
            println!("-- {}", log.display());
            // klog's errors and containerd's.
            let mut command = Command::new("grep");
            command.args(["-E", "^[EF][0-9]{4} |level=(error|fatal)|panic"]);
            command.arg(&log);
            show(command, LINES);
        }
        let mut command = node.machine.command("sh");
        command.args([
            "-c",
            "for f in /var/log/pods/*margay*/*/*.log; do echo \"-- $f\"; tail -n 12 \"$f\"; done",
        ]);
        show(command, 80);
    }
}

fn show(command: Command, lines: usize) {
    match finish(command, None, patience(20)) {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            let all: Vec<&str> = text.lines().collect();
            for line in &all[all.len().saturating_sub(lines)..] {
                let line: String = line.chars().take(WIDTH).collect();
                println!("    {line}");
            }
        }
        Err(error) => println!("    {error}"),
    }
}

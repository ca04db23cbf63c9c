//! What the commands say when they are called wrongly or may not do their work.

use std::process::Command;

use margay_e2e::lab::command::finish;
use margay_e2e::lab::patience::patience;

use crate::ground::{programs, runnable};

fn run(command: Command) -> (Option<i32>, String) {
    let output = finish(command, None, patience(20)).unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), text)
}

/// `setpriv` with these arguments in front of `margay agent`.
fn agent(folder: &std::path::Path, privileges: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("setpriv");
    command.args(privileges).arg(programs().join("margay"));
    command.args([
        "agent",
        "--node-name",
        "n1",
        "--health",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
    ]);
    command.arg("--kubeconfig").arg("/dev/null");
    command.arg("--run-dir").arg(folder.join("run"));
    command.arg("--state-dir").arg(folder.join("state"));
    run(command)
}

#[test]
fn an_agent_that_may_not_says_what_for() {
    if !runnable("an_agent_that_may_not_says_what_for") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (privileges, capability, purpose) in [
        (
            &["--bounding-set", "-net_admin", "--inh-caps", "-net_admin"][..],
            "CAP_NET_ADMIN",
            "routes",
        ),
        (
            &["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"],
            "CAP_SYS_ADMIN",
            "network namespaces",
        ),
        (
            &["--reuid", "65534", "--regid", "65534", "--clear-groups"],
            "CAP_NET_ADMIN",
            "routes",
        ),
    ] {
        let (code, said) = agent(folder.path(), privileges);
        assert_eq!(code, Some(1), "{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(
            said.contains(capability) && said.contains(purpose),
            "{said}"
        );
        // Before anything was half done.
        assert!(!folder.path().join("run").exists());
    }
}

#[test]
fn a_wrong_flag_or_file_is_one_clear_line() {
    if !runnable("a_wrong_flag_or_file_is_one_clear_line") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let not_yaml = file("not.yaml", "a: [b\n");
    let no_config = file("no.yaml", "asn: many\n");
    let not_kubeconfig = file("kubeconfig", "clusters: 7\n");
    let missing = folder.path().join("missing").display().to_string();
    let folder_text = folder.path().display().to_string();
    let (run_dir, state_dir) = (format!("{folder_text}/run"), format!("{folder_text}/state"));
    let agent = |extra: &[&str]| {
        let mut words = vec![
            "margay",
            "agent",
            "--run-dir",
            &run_dir,
            "--state-dir",
            &state_dir,
        ];
        words.extend(extra);
        words
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<String>>()
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<String>>();
    let cases: Vec<(Vec<String>, &str)> = vec![
        (agent(&["--node-name", "n1", "--colour"]), "--colour"),
        (agent(&[]), "--node-name"),
        (
            agent(&["--node-name", "n1", "--datastore", "etcd:/x"]),
            "embedded:DIR",
        ),
        (
            agent(&["--node-name", "n1", "--health", "here"]),
            "--health",
        ),
        (
            agent(&["--node-name", "n1", "--kubeconfig", &missing]),
            &missing,
        ),
        (
            agent(&["--node-name", "n1", "--kubeconfig", &not_kubeconfig]),
            &not_kubeconfig,
        ),
        (words(&format!("margay bgp --config {missing}")), &missing),
        (words(&format!("margay bgp --config {not_yaml}")), &not_yaml),
        (
            words(&format!("margay bgp --config {no_config}")),
            &no_config,
        ),
        (words("margay fly"), "fly"),
        (words("margay apiserver --listen nowhere"), "--listen"),
        (words("margayctl fly"), "fly"),
        (words("margayctl lab up --nodes 99"), "--nodes"),
        (words("margayctl lab up --tor cisco"), "--tor"),
        (words("margayctl lab up --name Lab_1"), "--name"),
        (
            words(&format!(
                "margayctl policy matrix -f {missing} --probe TCP/80"
            )),
            &missing,
        ),
        (
            words(&format!(
                "margayctl policy matrix -f {not_yaml} --probe TCP/80"
            )),
            &not_yaml,
        ),
        (
            words("margayctl policy matrix -f /dev/null --probe SCTTP/80"),
            "--probe",
        ),
    ];
    let mut wrong = Vec::new();
    for (words, named) in &cases {
        let mut command = Command::new(programs().join(&words[0]));
        command.args(&words[1..]).env_remove("NODE_NAME");
        let (code, said) = run(command);
        // Below the line come usage and a pointer to --help, or the place in the file.
        let message = said.split("\n\n").next().unwrap_or_default();
        let first = message.lines().next().unwrap_or_default();
        let named = first.contains(named) || (first.ends_with(':') && message.contains(named));
        let clear = named && !said.contains("panicked") && said.lines().count() <= 9;
        if code != Some(2) || !clear {
            wrong.push(format!("{words:?}: code {code:?}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

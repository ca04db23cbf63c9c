//! The planned end of a node: peers are warned, find other ways, are given a withdrawal and a
//! reason; nobody else loses a packet, and the node can come back.

use std::process::{Command, Stdio};
use std::time::Duration;

use margay_e2e::lab::Tor;
use margay_e2e::lab::bird;
use margay_e2e::lab::cluster::agent_name;
use margay_e2e::lab::command::finish;
use margay_e2e::lab::patience::patience;
use margay_e2e::lab::{process, routes};

use crate::flow::{self, Flow, SECOND};
use crate::ground::{Ground, runnable};

const NODE: &str = "node1";
const MESSAGE: &str = "new disks on Tuesday";
/// As `birdc` writes GRACEFUL_SHUTDOWN (RFC 8326).
const WARNING: &str = "(65535,0)";

fn margayctl(ground: &Ground, arguments: &[&str]) -> Command {
    let mut command = Command::new(&ground.binaries.margayctl);
    let kubeconfig = ground.lab.ledger.folder.kubeconfig();
    command.args(arguments).arg("--kubeconfig").arg(kubeconfig);
    command
}

fn words(command: Command) -> (Option<i32>, String) {
    let output = finish(command, None, patience(60)).unwrap();
    let both = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&both).into_owned(),
    )
}

/// What the ToR knows of a block.
fn at_the_tor(ground: &Ground, block: &str) -> String {
    let socket = bird::control_socket(&ground.lab.ledger.folder, "tor-a");
    // Without the route, birdc says so and fails.
    bird::ask(&socket, &["show", "route", "all", block]).unwrap_or_else(|error| error.to_string())
}

fn has_route(ground: &Ground, machine: &str, block: &str) -> bool {
    let all = routes::all(&ground.namespace(machine)).unwrap();
    all.iter().any(|route| route.dst == block)
}

async fn until_routes(ground: &Ground, block: &str, wanted: bool) {
    ground
        .until(&format!("{block} known: {wanted}"), 20, || async {
            for machine in ["tor-a", "router", "node2", "node3"] {
                if has_route(ground, machine, block) != wanted {
                    return Err(format!("not so on {machine}"));
                }
            }
            Ok(())
        })
        .await;
}

async fn drain(ground: &Ground, block: &str) {
    let web = |name: &str| ground.pod(name);
    let staying = Flow::start(
        ground,
        "between nodes that stay",
        &web("web-2").sandbox.namespace,
        web("web-3").address,
    );
    let leaving = vec![
        Flow::start(
            ground,
            "to a pod that is left behind",
            &web("web-2").sandbox.namespace,
            web("web-1").address,
        ),
        Flow::start(
            ground,
            "to it from outside",
            &ground.namespace("outside"),
            web("web-1").address,
        ),
    ];
    flow::advance_all(ground, &leaving, SECOND / 2).await;
    let wait = ["node", "drain", NODE, "--wait", "6", "--message", MESSAGE];

    let (code, said) = words(margayctl(ground, &wait));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("kubectl drain node1"), "{said}");

    let mut command = margayctl(ground, &[&wait[..], &["--force"]].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let asked = command.spawn().unwrap();
    ground
        .until("the warning at the ToR", 5, || async {
            let seen = at_the_tor(ground, block);
            seen.contains(WARNING).then_some(()).ok_or(seen)
        })
        .await;
    // As long as it only leaves, everything works, on the sessions there are.
    flow::advance_all(ground, &leaving, 2 * SECOND).await;
    assert!(at_the_tor(ground, block).contains(WARNING));
    let sent = flow::all_came_back(leaving);

    let output = tokio::task::spawn_blocking(move || asked.wait_with_output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let told: Vec<&str> = said.lines().collect();
    let stages = ["node1: Leaving", "node1: Withdrawn", "node1: Drained"];
    assert_eq!(told, stages, "{output:?}");
    assert!(output.status.success());
    until_routes(ground, block, false).await;
    flow::advance_all(ground, std::slice::from_ref(&staying), SECOND / 2).await;
    let undisturbed = flow::all_came_back(vec![staying]);
    eprintln!("  {sent} echoes while it left, {undisturbed} between the others: none lost");
}

fn farewells(ground: &Ground) -> usize {
    ground.log_of("bird tor-a").matches(MESSAGE).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_is_missed_by_nobody_and_comes_back() {
    if !runnable("a_drained_node_is_missed_by_nobody_and_comes_back") {
        return;
    }
    let mut ground = Ground::prepare("t-drain", 3, 2, Tor::Bird, 3).await;
    let block = ground.blocks_of(NODE).await.remove(0);
    until_routes(&ground, &block, true).await;
    assert!(!at_the_tor(&ground, &block).contains(WARNING));
    drain(&ground, &block).await;
    ground.until_sessions(NODE, 0).await;
    assert_eq!(farewells(&ground), 1, "{}", ground.log_of("bird tor-a"));

    // An agent that is started on a drained node stays out of BGP.
    let before = ground.log_of("bird tor-a").len();
    process::stop(&ground.process(&agent_name(NODE)));
    ground.start_agent(NODE).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ground.until_sessions(NODE, 0).await;
    let log = ground.log_of("bird tor-a");
    let since = log.get(before..).unwrap_or_default();
    assert!(!since.contains("established"), "{since}");

    let (code, said) = words(margayctl(&ground, &["node", "undrain", NODE]));
    assert_eq!(code, Some(0), "{said}");
    ground.until_sessions(NODE, 3).await;
    until_routes(&ground, &block, true).await;
    assert!(!at_the_tor(&ground, &block).contains(WARNING));
    let from = ground.pod("web-2").sandbox.namespace;
    assert!(ground.reaches(&from, ground.pod("web-1").address));

    // One that ends while its node leaves says goodbye, too, and no peer waits for it.
    let mut asked = margayctl(
        &ground,
        &["node", "drain", NODE, "--force", "--message", MESSAGE],
    );
    let mut asked = asked.stdout(Stdio::null()).spawn().unwrap();
    ground
        .until("the warning at the ToR", 5, || async {
            let seen = at_the_tor(&ground, &block);
            seen.contains(WARNING).then_some(()).ok_or(seen)
        })
        .await;
    process::stop(&ground.process(&agent_name(NODE)));
    until_routes(&ground, &block, false).await;
    let _ = asked.kill();
    let _ = asked.wait();
    assert_eq!(farewells(&ground), 2, "{}", ground.log_of("bird tor-a"));
}

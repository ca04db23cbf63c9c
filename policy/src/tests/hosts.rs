//! Random worlds with host endpoints: the chains of each node, followed from hook to hook, answer as the evaluator does.

use std::collections::BTreeMap;

use margay_crds::{HostInterface, HostStage, HostUse};

use super::worlds::{self, Dice};
use crate::{
    Cluster, Compiler, Engine, NodeInput, Ruleset,
    evaluate::{End, Evaluator, Traffic},
    model::{HostEndpoint, NamedPort, OwnPolicy, PolicyKind, PolicyRef},
    port::Protocol,
    ruleset::{
        ConnectionState, Family, Hook,
        simulate::{Packet, step},
    },
};

const UPLINK: &str = "up0";
const POD: &str = "mgy0";

fn endpoint(dice: &mut Dice, node: &str, index: usize, cluster: &Cluster) -> HostEndpoint {
    let addresses = match dice.once_in(3) {
        true => Vec::new(),
        false => cluster.node(node).unwrap().addresses.clone(),
    };
    let interface = match index {
        0 => HostInterface::Named(UPLINK.to_owned()),
        _ => HostInterface::All,
    };
    HostEndpoint {
        name: format!("h-{node}-{index}"),
        labels: dice.labels(),
        node: node.to_owned(),
        interface,
        addresses,
        ports: dice.some(2, |dice| NamedPort {
            name: dice.pick(&worlds::PORT_NAMES).to_owned(),
            protocol: dice.pick(&Protocol::ALL),
            number: dice.pick(&worlds::PORTS),
        }),
    }
}

fn policy(dice: &mut Dice, index: usize) -> OwnPolicy {
    let mut policy = worlds::own_policy(dice, index);
    policy.reference = PolicyRef::new(PolicyKind::GlobalNetworkPolicy, "", format!("g{index}"));
    policy.subject.namespaces = None;
    policy.subject.service_accounts = None;
    if dice.once_in(2) {
        policy.subject.selector = margay_crds::Selector::all();
    }
    let stage = dice.pick(&[
        HostStage::Normal,
        HostStage::Normal,
        HostStage::PreDnat,
        HostStage::DoNotTrack,
    ]);
    let only = stage != HostStage::Normal;
    policy.host = HostUse {
        stage,
        forward: only || dice.once_in(2),
        only,
    };
    if stage == HostStage::PreDnat {
        policy.egress = None;
    }
    policy
}

fn world(dice: &mut Dice) -> Cluster {
    let mut cluster = worlds::world(dice);
    for node in worlds::NODES {
        for index in 0..2 {
            if dice.once_in(2) {
                let endpoint = endpoint(dice, node, index, &cluster);
                cluster.insert_host_endpoint(endpoint);
            }
        }
    }
    for index in 0..1 + dice.below(4) {
        let policy = policy(dice, index);
        cluster.insert_own_policy(policy);
    }
    cluster
}

fn packet(
    from: End<'_>,
    to: End<'_>,
    (traffic, state): (Traffic, Option<ConnectionState>),
    interfaces: (&str, &str),
) -> Packet {
    Packet {
        in_interface: interfaces.0.to_owned(),
        out_interface: interfaces.1.to_owned(),
        source: from.address,
        destination: to.address,
        protocol: traffic.protocol,
        source_port: traffic.source_port,
        port: traffic.destination_port,
        icmp: traffic.icmp,
        state,
        reply: false,
        mark: 0,
        from_node: false,
    }
}

/// The node an end is on, and whether it is the node itself.
fn place(cluster: &Cluster, end: End<'_>) -> Option<(String, bool)> {
    match end.pod {
        Some(pod) => pod.node.clone().map(|node| (node, pod.host_network)),
        None => cluster
            .nodes()
            .find(|node| node.addresses.contains(&end.address))
            .map(|node| (node.name.clone(), true)),
    }
}

/// Whether the host endpoints' chains on the way let a connection's packet through, the first one or one in this state.
fn passes(
    cluster: &Cluster,
    rulesets: &BTreeMap<&str, Ruleset>,
    from: End<'_>,
    to: End<'_>,
    traffic: (Traffic, Option<ConnectionState>),
) -> bool {
    let (source, destination) = (place(cluster, from), place(cluster, to));
    if let (Some((one, _)), Some((other, _))) = (&source, &destination)
        && one == other
    {
        return true;
    }
    let follow = |node: &str, packet: &mut Packet, hooks: &[Hook]| {
        let Some(ruleset) = rulesets.get(node) else {
            return true;
        };
        hooks.iter().all(|hook| step(ruleset, *hook, packet))
    };
    if let Some((node, is_node)) = source {
        let passed = match is_node {
            true => follow(
                &node,
                &mut packet(from, to, traffic, ("", UPLINK)),
                &[Hook::OutputRaw, Hook::Output],
            ),
            false => follow(
                &node,
                &mut packet(from, to, traffic, (POD, UPLINK)),
                &[
                    Hook::PreroutingRawHost,
                    Hook::PreroutingMangle,
                    Hook::ForwardHost,
                ],
            ),
        };
        if !passed {
            return false;
        }
    }
    let Some((node, is_node)) = destination else {
        return true;
    };
    let (outward, last) = match is_node {
        true => ("", Hook::Input),
        false => (POD, Hook::ForwardHost),
    };
    follow(
        &node,
        &mut packet(from, to, traffic, (UPLINK, outward)),
        &[Hook::PreroutingRawHost, Hook::PreroutingMangle, last],
    )
}

#[test]
fn chains_of_host_endpoints_answer_as_the_evaluator_does() {
    let (mut allowed, mut denied) = (0, 0);
    // Of many worlds, as many as take as long as the others do.
    let worlds = worlds::number("MARGAY_POLICY_WORLDS", 0) / 10;
    for seed in 1..=worlds.max(300) {
        let mut dice = Dice::new(seed);
        let cluster = world(&mut dice);
        let rulesets: BTreeMap<&str, Ruleset> = worlds::NODES
            .iter()
            .map(|node| {
                let input = NodeInput {
                    node: (*node).to_owned(),
                    ..NodeInput::default()
                };
                (*node, Compiler::new().compile(&cluster, &input).0)
            })
            .collect();
        let evaluator = Evaluator::new(&cluster);
        for family in Family::ALL {
            let ends = worlds::ends(&cluster, family);
            for _ in 0..25 {
                let (from, to) = (dice.pick(&ends), dice.pick(&ends));
                let unclear = |end: End<'_>| evaluator.pods_at(end.address).len() > 1;
                if unclear(from) || unclear(to) {
                    continue;
                }
                let traffic = worlds::traffic(&mut dice);
                let hosts = evaluator.judge(from, to, traffic).hosts;
                let judged = hosts.iter().all(|host| host.side.allows());
                // Of open connections, those that an older generation has judged.
                for state in [None, Some(ConnectionState::Established)] {
                    assert_eq!(
                        passes(&cluster, &rulesets, from, to, (traffic, state)),
                        judged,
                        "world {seed}: {from:?} -> {to:?} {traffic:?} {state:?}: {hosts:?}\n{cluster:#?}"
                    );
                }
                if !hosts.is_empty() {
                    allowed += usize::from(judged);
                    denied += usize::from(!judged);
                }
            }
        }
    }
    assert!(allowed > 300 && denied > 300, "{allowed} {denied}");
}

/// The engine, told of one thing after the other, has the table that a compile makes.
#[test]
fn the_engine_has_the_same_host_endpoints() {
    for seed in 1..=100 {
        let mut dice = Dice::new(seed);
        let mut engine = Engine::new("n1");
        let mut table = Ruleset::new();
        for _ in 0..4 {
            let next = world(&mut dice);
            for node in worlds::NODES {
                let gone: Vec<String> = {
                    let here = engine.known().host_endpoints_of(node);
                    here.map(|one| one.name.clone()).collect()
                };
                for name in gone {
                    engine.cluster().remove_host_endpoint(&name);
                }
                for endpoint in next.host_endpoints_of(node) {
                    engine.cluster().insert_host_endpoint(endpoint.clone());
                }
            }
            for policy in next.policies_for_hosts() {
                engine.cluster().insert_own_policy(policy.clone());
            }
            table = engine.poll().replay(&table).unwrap();
            let input = NodeInput {
                node: "n1".to_owned(),
                ..NodeInput::default()
            };
            let known = engine.known().clone();
            let made = Compiler::new().compile(&known, &input).0;
            assert_eq!(table, made, "world {seed}");
            assert_eq!(&table, engine.ruleset());
        }
    }
}

/// Nothing of it is there where no host endpoint is, whatever policies say.
#[test]
fn without_a_host_endpoint_there_is_no_chain_of_them() {
    let mut dice = Dice::new(1);
    let mut cluster = Cluster::new();
    for index in 0..5 {
        let policy = policy(&mut dice, index);
        cluster.insert_own_policy(policy);
    }
    let (ruleset, _) = Compiler::new().compile(&cluster, &NodeInput::default());
    let names = ruleset.chains.keys().chain(ruleset.sets.keys());
    assert!(
        !names
            .chain(ruleset.maps.keys())
            .any(|name| name.starts_with("host-"))
    );
}

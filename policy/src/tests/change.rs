//! Changes: a transaction leads exactly from one ruleset to the next, and is as small as the change.

use proptest::prelude::*;

use super::{
    fabric::{load_cluster, node_input},
    random,
};
use crate::{
    Cluster, Compiler, Engine, Ruleset,
    compile::stand_in,
    diff,
    load::load,
    model::ObjectKey,
    ruleset::{Command, Elements, Transaction},
    selector::Labels,
};

fn compile(cluster: &Cluster) -> Ruleset {
    Compiler::new()
        .compile(cluster, &node_input(cluster, "n1"))
        .0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_diff_leads_from_one_ruleset_to_the_next(old in random::cluster(), new in random::cluster()) {
        let (old, new) = (compile(&old), compile(&new));
        let change = diff(&old, &new);
        prop_assert_eq!(change.replay(&old), Ok(new.clone()), "{}", change.to_nft_text());
        prop_assert_eq!(new.full().replay(&old), Ok(new.clone()));
        prop_assert!(diff(&new, &new).is_empty());
    }
}

const CLUSTER: &str = "
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {app: a}}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: x, labels: {app: b}}, spec: {nodeName: n2, containers: []}, status: {podIPs: [{ip: 10.0.1.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c, namespace: x, labels: {app: c}}, spec: {nodeName: n2, containers: []}, status: {podIPs: [{ip: 10.0.1.3}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: one, namespace: x},
  spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 80}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: two, namespace: x},
  spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}], ports: [{port: 443}]}]}}
";

fn relabel(cluster: &mut Cluster, name: &str, app: &str) {
    let mut pod = cluster.pod(&ObjectKey::new("x", name)).unwrap().clone();
    pod.labels.insert("app".to_owned(), app.to_owned());
    cluster.insert_pod(pod);
}

/// However many policies a label counts for.
#[test]
fn a_peers_label_is_one_element() {
    let mut cluster = load_cluster(CLUSTER);
    let before = compile(&cluster);
    relabel(&mut cluster, "c", "b");
    let change = without_generation(diff(&before, &compile(&cluster)));
    let [Command::AddElements(map, Elements::Map(elements))] = change.commands.as_slice() else {
        panic!("more than one element changes:\n{}", change.to_nft_text());
    };
    assert_eq!((map.as_str(), elements.len()), ("addresses4", 1));
}

/// A change without the new generation that comes with it, which takes two chains with six rules.
fn without_generation(mut change: Transaction) -> Transaction {
    let count = change.len();
    change.commands.retain(|command| match command {
        Command::FlushChain(chain) | Command::AddRule(chain, _) => {
            !["forward", "remember"].contains(&chain.as_str())
        }
        _ => true,
    });
    assert_eq!(count - change.len(), 8, "open connections are judged anew");
    change
}

#[test]
fn a_policys_new_port_touches_neither_addresses_nor_dispatch() {
    let mut cluster = load_cluster(CLUSTER);
    let before = compile(&cluster);
    let edited = load_cluster(&CLUSTER.replace("443", "8443"));
    cluster.insert_policy(edited.policy(&ObjectKey::new("x", "two")).unwrap().clone());
    let text = without_generation(diff(&before, &compile(&cluster))).to_nft_text();
    for untouched in [
        "addresses",
        "networks",
        "pods",
        "sources",
        "prerouting",
        "forward",
    ] {
        assert!(!text.contains(untouched), "{untouched} is touched:\n{text}");
    }
}

#[test]
fn a_new_pod_in_a_known_class_makes_no_chain() {
    let mut cluster = load_cluster(CLUSTER);
    let before = compile(&cluster);
    let mut pod = cluster.pod(&ObjectKey::new("x", "a")).unwrap().clone();
    (pod.name, pod.addresses) = ("d".to_owned(), vec!["10.0.1.4".parse().unwrap()]);
    cluster.insert_pod(pod);
    for command in without_generation(diff(&before, &compile(&cluster))).commands {
        assert!(matches!(command, Command::AddElements(..)), "{command:?}");
    }
}

#[test]
fn the_order_in_which_objects_came_does_not_show() {
    let documents: Vec<&str> = CLUSTER.split("---").collect();
    let backwards: Vec<&str> = documents.iter().rev().copied().collect();
    assert_eq!(
        compile(&load_cluster(&backwards.join("---"))),
        compile(&load_cluster(CLUSTER))
    );
}

/// A class's map goes when no identity differs from the default, while its chain of the same name stays in use.
#[test]
fn a_class_loses_its_map_and_keeps_its_chain() {
    let mut cluster = load_cluster(CLUSTER);
    let before = compile(&cluster);
    relabel(&mut cluster, "b", "nobody");
    let after = compile(&cluster);
    let change = diff(&before, &after);
    assert!(
        change
            .commands
            .iter()
            .any(|command| matches!(command, Command::DeleteMap(_)))
    );
    assert_eq!(change.replay(&before), Ok(after));
}

/// What happens at once in one namespace and to the order of policies of all, which another namespace's pods have too.
#[test]
fn a_policy_moves_while_a_namespace_changes() {
    let policy = |name: &str, order: u8, action: &str| {
        format!(
            "---\n{{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {{name: {name}}}, \
             spec: {{order: {order}, ingress: [{{action: {action}}}]}}}}\n"
        )
    };
    let pods = "
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: y}, spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.1.2}]}}
";
    let mut engine = Engine::new("n1");
    let start = format!(
        "{pods}{}{}",
        policy("one", 1, "Allow"),
        policy("two", 2, "Deny")
    );
    *engine.cluster() = load_cluster(&start);
    for endpoint in node_input(engine.known(), "n1").endpoints {
        engine.handle_endpoint(endpoint);
    }
    engine.poll();
    assert_eq!(*engine.ruleset(), compile(engine.known()));
    load(&policy("one", 3, "Allow"), engine.cluster()).unwrap();
    engine
        .cluster()
        .insert_namespace("x", Labels::from([("new".to_owned(), String::new())]));
    engine.poll();
    assert_eq!(*engine.ruleset(), compile(engine.known()));
}

/// What the text of a small node looks like; the place to see the layout.
#[test]
fn the_text_of_a_small_node() {
    let text = compile(&load_cluster(CLUSTER)).full().to_nft_text();
    let device = stand_in("mgy0000");
    for line in [
        "add map inet margay addresses4 { type ipv4_addr : classid; size 64; }",
        "add map inet margay networks6 { type ipv6_addr : classid; flags interval; }",
        "add chain inet margay forward { type filter hook forward priority 0; policy accept; }",
        "add rule inet margay forward ct state established,related,invalid jump tracked",
        "add rule inet margay tracked ct state related accept",
        "add rule inet margay tracked ct state established jump judged",
        "add rule inet margay judged ct direction reply accept",
        "add rule inet margay denied drop",
        "add rule inet margay denied iifname . oifname @itself goto remember",
        "add rule inet margay from-pods iif vmap @from-pods",
        "add rule inet margay to-pods oif vmap @to-pods",
        "add rule inet margay prerouting iifname != \"mgy*\" accept",
        "add rule inet margay prerouting iif . ip saddr vmap @sources4",
        "add rule inet margay prerouting iifname @pods ip6 saddr fe80::/10 icmpv6 type @discovery accept",
        "add rule inet margay identify-source meta priority set ip saddr map @addresses4 return",
        &format!("add element inet margay sources4 {{ {device} . 10.0.1.1 : goto sent }}"),
        &format!("add element inet margay from-pods {{ {device} : goto to-pods }}"),
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is missing from:\n{text}"
        );
    }
}

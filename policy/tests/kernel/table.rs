//! The table in the kernel: whatever way led to a ruleset, the kernel holds the same table, in either input form.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Stdio},
};

use margay_policy::{
    Cluster, Compiler, LocalEndpoint, NodeInput, Pool, Ruleset,
    compile::IPVS_INTERFACE,
    diff,
    load::load,
    ruleset,
    writer::{Error, Netlink, Writer},
};

use crate::lab::{Namespaces, commit, nft, privileged, within};

/// The table as `nft` lists it, its objects in alphabetical order: their order tells only when they were made.
fn listed(namespace: &str) -> Vec<String> {
    let output = Command::new("ip")
        .args([
            "netns", "exec", namespace, "nft", "list", "table", "inet", "margay",
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let mut objects: Vec<String> = text
        .split("\n\t}\n")
        .map(|object| object.trim().to_owned())
        .collect();
    if let Some(first) = objects.first_mut() {
        *first = first
            .trim_start_matches("table inet margay {")
            .trim()
            .to_owned();
    }
    objects.sort_unstable();
    objects
}

/// A small generator: the same walk every time.
struct Walk(u64);

impl Walk {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.next(choices.len() as u64) as usize]
    }

    fn ruleset(&mut self) -> Ruleset {
        let mut documents = String::new();
        let mut input = NodeInput::default();
        for pod in 0..self.next(8) {
            let app = self.pick(&["a", "b", "c"]);
            documents.push_str(&format!(
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p{pod}, namespace: x, labels: {{app: {app}}}}}, spec: {{containers: \
                 [{{name: c, ports: [{{name: web, containerPort: {}}}]}}]}}, status: {{podIPs: [{{ip: 10.0.0.{pod}}}, {{ip: 'fd00::{pod}'}}]}}}}\n",
                80 + pod % 3
            ));
            if self.next(2) == 0 {
                input.endpoints.push(LocalEndpoint {
                    namespace: "x".to_owned(),
                    pod: format!("p{pod}"),
                    interface: format!("mgy{pod}"),
                    device: pod as u32 + 1,
                    addresses: vec![
                        format!("10.0.0.{pod}").parse().unwrap(),
                        format!("fd00::{pod}").parse().unwrap(),
                    ],
                    ..LocalEndpoint::default()
                });
            }
        }
        for policy in 0..self.next(6) {
            let mut rule = |peers: &str| {
                let peer = self.pick(&[
                    "podSelector: {matchLabels: {app: a}}",
                    "namespaceSelector: {}",
                    "ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/30]}",
                    "ipBlock: {cidr: '::/0', except: ['fd00::2/128']}",
                    "ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25, 203.0.113.1/32]}",
                    "ipBlock: {cidr: 203.0.113.192/26}",
                    "ipBlock: {cidr: 203.0.113.7/32}",
                    "ipBlock: {cidr: 'fd00::/8'}",
                ]);
                let port = self.pick(&[
                    "{port: 80}",
                    "{port: web}",
                    "{protocol: SCTP}",
                    "{port: 1, endPort: 65535, protocol: UDP}",
                    "{port: 443}",
                ]);
                format!("[{{{peers}: [{{{peer}}}], ports: [{port}]}}]")
            };
            let (ingress, egress) = (rule("from"), rule("to"));
            let app = self.pick(&["a", "b", "c"]);
            documents.push_str(&format!(
                "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: q{policy}, namespace: x}}, \
                 spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, ingress: {ingress}, egress: {egress}}}}}\n"
            ));
        }
        for policy in 0..self.next(3) {
            let rule = self.pick(&[
                "{action: Deny, protocol: TCP, source: {ports: ['1:99'], selector: \"app == 'a'\"}, destination: {notPorts: [80, '90:99']}}",
                "{action: Log, protocol: ICMP, icmp: {type: 8, code: 0}}",
                "{action: Allow, protocol: ICMPv6, notICMP: {type: 128}}",
                "{action: Pass, ipVersion: 6, notProtocol: UDP}",
                "{action: Deny, notProtocol: 47, source: {notNets: [203.0.113.0/25]}}",
                "{action: Log}",
            ]);
            let staged = self.pick(&["true", "false"]);
            documents.push_str(&format!(
                "---\n{{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {{name: g{policy}}}, \
                 spec: {{staged: {staged}, order: {policy}, ingress: [{rule}]}}}}\n"
            ));
        }
        for cidr in ["10.0.0.0/8", "10.1.0.0/16", "fd00::/48"] {
            if self.next(2) == 0 {
                input.pools.push(Pool {
                    cidr: cidr.parse().unwrap(),
                    nat_outgoing: self.next(2) == 0,
                });
            }
        }
        if self.next(3) == 0 {
            let interface = IPVS_INTERFACE.to_owned();
            input.interfaces.insert(interface, BTreeSet::new());
        }
        let mut cluster = Cluster::new();
        assert_eq!(load(&documents, &mut cluster).unwrap(), []);
        Compiler::new().compile(&cluster, &input).0
    }
}

#[test]
fn a_chain_of_diffs_leaves_the_table_that_a_full_load_makes() {
    if !privileged("a_chain_of_diffs_leaves_the_table_that_a_full_load_makes") {
        return;
    }
    let mut namespaces = Namespaces::new("table");
    let (changed, fresh) = (namespaces.make("changed"), namespaces.make("fresh"));
    let mut walk = Walk(1);
    let mut committed = Ruleset::new();
    commit(&changed, &committed.full()).unwrap();
    let open = changed.clone();
    let netlink = within(&changed, move || Netlink::open(nft(&open)).unwrap());
    for step in 0..30 {
        let next = walk.ruleset();
        let change = diff(&committed, &next);
        if let Err(error) = commit(&changed, &change) {
            panic!("step {step}: {error}\n{}", change.to_nft_text());
        }
        commit(&fresh, &next.full()).unwrap();
        assert_eq!(
            listed(&changed),
            listed(&fresh),
            "step {step}\n{}",
            change.to_nft_text()
        );
        let audit = netlink.audit(&next).unwrap();
        assert_eq!(audit.differences, Vec::<String>::new(), "step {step}");
        committed = next;
    }
}

#[test]
fn both_input_forms_make_the_same_table() {
    if !privileged("both_input_forms_make_the_same_table") {
        return;
    }
    let mut namespaces = Namespaces::new("forms");
    let (text, json) = (namespaces.make("text"), namespaces.make("json"));
    let mut walk = Walk(7);
    let mut committed = Ruleset::new();
    for step in 0..8 {
        let next = walk.ruleset();
        commit(&text, &next.full()).unwrap();
        let change = if step == 0 {
            next.full()
        } else {
            diff(&committed, &next)
        };
        load_json(&json, &change.to_nft_json().to_string());
        assert_eq!(listed(&text), listed(&json), "step {step}");
        committed = next;
    }
}

fn load_json(namespace: &str, document: &str) {
    let mut child = Command::new("ip")
        .args(["netns", "exec", namespace, "nft", "-j", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(document.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{document}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_foreign_change_is_told_apart_and_healed_by_a_full_load() {
    if !privileged("a_foreign_change_is_told_apart_and_healed_by_a_full_load") {
        return;
    }
    let mut namespaces = Namespaces::new("foreign");
    let namespace = namespaces.make("node");
    let mut walk = Walk(3);
    let (old, new) = (walk.ruleset(), walk.ruleset());
    commit(&namespace, &old.full()).unwrap();
    let flush = ["netns", "exec", &namespace, "nft", "flush", "ruleset"];
    assert!(Command::new("ip").args(flush).status().unwrap().success());
    let error = commit(&namespace, &diff(&old, &new)).unwrap_err();
    assert!(matches!(error, Error::Missing(_)), "{error}");
    assert!(error.wants_replacement());
    commit(&namespace, &new.full()).unwrap();
    let before = listed(&namespace);
    commit(&namespace, &new.full()).unwrap();
    assert_eq!(listed(&namespace), before);
}

/// A namespace with pods and policies in which only small things change.
fn village(apps: &[&str], port: u16) -> Ruleset {
    let mut documents = String::new();
    let mut input = NodeInput::default();
    for (pod, app) in apps.iter().enumerate() {
        documents.push_str(&format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p{pod}, namespace: x, labels: {{app: {app}}}}}, spec: {{containers: []}}, \
             status: {{podIPs: [{{ip: 10.0.0.{pod}}}, {{ip: 'fd00::{pod}'}}]}}}}\n"
        ));
        input.endpoints.push(LocalEndpoint {
            namespace: "x".to_owned(),
            pod: format!("p{pod}"),
            interface: format!("mgy{pod}"),
            device: pod as u32 + 1,
            addresses: vec![
                format!("10.0.0.{pod}").parse().unwrap(),
                format!("fd00::{pod}").parse().unwrap(),
            ],
            ..LocalEndpoint::default()
        });
    }
    documents.push_str(&format!(
        "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: q, namespace: x}}, spec: {{podSelector: {{matchLabels: {{app: a}}}}, \
         ingress: [{{from: [{{podSelector: {{matchLabels: {{app: b}}}}}}], ports: [{{port: {port}}}, {{port: 1000, endPort: 2000, protocol: UDP}}]}}]}}}}\n"
    ));
    // Another policy brings rules that count and report.
    if port > 8000 {
        documents.push_str(
            "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: r, namespace: x}, spec: {podSelector: {matchLabels: {app: c}}, \
             ingress: [{ports: [{port: 443}]}]}}\n\
             ---\n{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: l}, spec: {order: 1, selector: \"app == 'c'\", \
             ingress: [{action: Log, protocol: UDP}]}}\n",
        );
    }
    let mut cluster = Cluster::new();
    assert_eq!(load(&documents, &mut cluster).unwrap(), []);
    Compiler::new().compile(&cluster, &input).0
}

/// Each of the changes goes by netlink alone and leaves the table that `nft` makes of the same ruleset.
#[test]
fn netns_netlink_leaves_the_table_that_nft_makes() {
    if !privileged("netns_netlink_leaves_the_table_that_nft_makes") {
        return;
    }
    let mut namespaces = Namespaces::new("netlink");
    let (changed, fresh) = (namespaces.make("changed"), namespaces.make("fresh"));
    let open = changed.clone();
    let netlink = within(&changed, move || Netlink::open(nft(&open)).unwrap());
    let mut committed = village(&["a", "b", "c"], 80);
    commit(&changed, &committed.full()).unwrap();
    let (mut told, mut maps) = (0, 0);
    for (apps, port) in [
        (&["a", "b", "b"][..], 80),
        (&["a", "b", "b"], 81),
        (&["a", "b", "b", "a"], 81),
        (&["a", "b"], 81),
        (&["a", "c"], 81),
        (&["a", "b", "c", "c", "b"], 8080),
        (&["a", "b", "c", "c", "b"], 80),
        (&["a", "b", "c", "c", "b"], 8080),
    ] {
        let next = village(apps, port);
        let change = diff(&committed, &next);
        told += usize::from(change.to_nft_text().contains(" log prefix"));
        maps += usize::from(change.to_nft_text().contains("add map inet"));
        match netlink.apply_small(&change) {
            Some(result) => {
                result.unwrap_or_else(|error| panic!("{error}\n{}", change.to_nft_text()))
            }
            None => panic!("not for netlink:\n{}", change.to_nft_text()),
        }
        commit(&fresh, &next.full()).unwrap();
        assert_eq!(listed(&changed), listed(&fresh), "{}", change.to_nft_text());
        let audit = netlink.audit(&next).unwrap();
        assert_eq!(audit.differences, Vec::<String>::new());
        assert!(audit.repair.is_empty());
        committed = next;
    }
    assert!(told > 0, "no rule that reports was written");
    assert!(maps > 0, "no class came");
    for (foreign, told) in [
        (
            "add element inet margay networks4 { 198.51.100.0-198.51.100.9 : 1:1 }",
            "set networks4: 0 elements missing, 1 too many",
        ),
        (
            "add chain inet margay other; add rule inet margay other drop",
            "chain other: is not ours",
        ),
        (
            "flush chain inet margay from-pods",
            "chain from-pods: 0 rules instead of 2",
        ),
        (
            "add rule inet margay to-pods accept",
            "chain to-pods: 4 rules instead of 3",
        ),
        (
            "delete element inet margay addresses4 { 10.0.0.1 }",
            "set addresses4: 1 elements missing, 0 too many",
        ),
        (
            "add element inet margay itself { lo . lo }",
            "set itself: 0 elements missing, 1 too many",
        ),
        (
            "delete element inet margay to-pods { 1 }; add element inet margay to-pods { 1 : accept }",
            "set to-pods: 0 elements missing, 0 too many, others with another value",
        ),
    ] {
        let words = ["netns", "exec", &changed, "nft", foreign];
        assert!(
            Command::new("ip").args(words).status().unwrap().success(),
            "{foreign}"
        );
        let audit = netlink.audit(&committed).unwrap();
        assert_eq!(audit.differences, [told]);
        commit(&changed, &audit.repair).unwrap();
        assert_eq!(listed(&changed), listed(&fresh), "{foreign}");
        assert_eq!(
            netlink.audit(&committed).unwrap().differences,
            Vec::<String>::new()
        );
    }
    let gone = diff(&committed, &village(&["a", "b", "b", "c", "b"], 8080));
    let flush = ["netns", "exec", &changed, "nft", "flush", "ruleset"];
    assert!(Command::new("ip").args(flush).status().unwrap().success());
    let error = netlink.apply_small(&gone).unwrap().unwrap_err();
    assert!(matches!(error, Error::Missing(_)), "{error}");
    commit(&changed, &committed.full()).unwrap();
    netlink.apply_small(&gone).unwrap().unwrap();
}

/// A pod that may be reached by as many identities as there are peers, each with a label of its own.
fn town(peers: usize) -> Ruleset {
    let mut documents = String::from(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {app: a}}, spec: {containers: []}, \
         status: {podIPs: [{ip: 10.0.0.1}]}}\n",
    );
    for peer in 0..peers {
        let (high, low) = (peer / 256, peer % 256);
        documents.push_str(&format!(
            "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p{peer}, namespace: x, labels: {{peer: n{peer}}}}}, spec: {{containers: []}}, \
             status: {{podIPs: [{{ip: 10.1.{high}.{low}}}]}}}}\n\
             ---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: q{peer}, namespace: x}}, spec: {{podSelector: \
             {{matchLabels: {{app: a}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{peer: n{peer}}}}}}}]}}]}}}}\n"
        ));
    }
    let mut cluster = Cluster::new();
    assert_eq!(load(&documents, &mut cluster).unwrap(), []);
    let mut input = NodeInput::default();
    input.endpoints.push(LocalEndpoint {
        namespace: "x".to_owned(),
        pod: "a".to_owned(),
        interface: "mgy0".to_owned(),
        device: 1,
        addresses: vec!["10.0.0.1".parse().unwrap()],
        ..LocalEndpoint::default()
    });
    Compiler::new().compile(&cluster, &input).0
}

/// What grows beyond the size its map was made with is refused as such, and the whole table makes room for it.
#[test]
fn netns_a_full_map_is_made_larger_with_the_whole_table() {
    if !privileged("netns_a_full_map_is_made_larger_with_the_whole_table") {
        return;
    }
    let mut namespaces = Namespaces::new("full");
    let name = namespaces.make("node");
    let open = name.clone();
    let netlink = within(&name, move || Netlink::open(nft(&open)).unwrap());
    let audited = |ruleset: &Ruleset| netlink.audit(ruleset).unwrap().differences;
    let sizes = || {
        let all = listed(&name).join("\n");
        ["size 64", "size 256"].map(|size| all.matches(size).count())
    };
    let small = town(40);
    commit(&name, &small.full()).unwrap();
    let [of_64, of_256] = sizes();
    assert!(of_64 >= 2 && of_256 == 0, "{of_64} {of_256}");
    let grown = town(120);
    let mut addresses = diff(&small, &grown);
    addresses.commands.retain(
        |command| matches!(command, ruleset::Command::AddElements(map, _) if map == "addresses4"),
    );
    let by_netlink = netlink.apply_small(&addresses).unwrap();
    for result in [by_netlink, commit(&name, &addresses)] {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Full(_)), "{error}");
    }
    assert_eq!(audited(&small), Vec::<String>::new(), "nothing was taken");
    commit(&name, &grown.full()).unwrap();
    assert_eq!(audited(&grown), Vec::<String>::new());
    let [of_64, of_256] = sizes();
    assert!(of_64 >= 1 && of_256 >= 2, "{of_64} {of_256}");
    // The class's map has been made by netlink here, as large as it must be.
    let more = town(130);
    netlink.apply_small(&diff(&grown, &more)).unwrap().unwrap();
    assert_eq!(audited(&more), Vec::<String>::new());
}

/// Prints how long one label change takes in the kernel; a figure far off is a failure.
#[test]
fn netns_a_label_change_takes_microseconds() {
    if !privileged("netns_a_label_change_takes_microseconds") {
        return;
    }
    let mut namespaces = Namespaces::new("micro");
    let name = namespaces.make("node");
    let open = name.clone();
    let netlink = within(&name, move || Netlink::open(nft(&open)).unwrap());
    let (one, other) = (village(&["a", "b", "c"], 80), village(&["a", "b", "b"], 80));
    commit(&name, &one.full()).unwrap();
    let (there, back) = (diff(&one, &other), diff(&other, &one));
    let mut times: Vec<_> = (0..1000)
        .map(|turn| {
            let change = if turn % 2 == 0 { &there } else { &back };
            let start = std::time::Instant::now();
            netlink.apply_small(change).unwrap().unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "label change, commit: p50 {:?}, p99 {:?}",
        times[500], times[990]
    );
    assert!(
        times[500] < std::time::Duration::from_millis(5),
        "{:?}",
        times[500]
    );
}

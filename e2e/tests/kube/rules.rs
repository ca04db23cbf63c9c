//! The CEL rules in the CRDs and our own checks: what the one refuses, the other refuses too.
//!
//! The server of `make kube-binaries` is older than the rules and drops them, so they are
//! evaluated here, on the object as that server has completed it (defaults, pruning), by a CEL
//! interpreter. What that does not prove: the types that a newer server derives from the schema,
//! and its budget for the rules' cost.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, Program, Value as Cel};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::refusal;

/// Who is the first to refuse an object.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Refused {
    /// Nobody: it is good.
    No,
    /// The schema, so every API server.
    Schema,
    /// A rule whose message contains this.
    Rule(&'static str),
    /// Only our own checks: no rule can say it.
    Checks,
}
use Refused::{Checks, No, Rule, Schema};

struct Row {
    kind: &'static str,
    name: &'static str,
    /// The object's spec before, when the row is about a change.
    old: Option<Value>,
    spec: Value,
    refused: Refused,
}

fn row(kind: &'static str, spec: Value, refused: Refused) -> Row {
    let name = match kind {
        "IPPool" | "IPReservation" | "BGPPeer" | "IPAMBlock" => "row",
        _ => "default",
    };
    Row {
        kind,
        name,
        old: None,
        spec,
        refused,
    }
}

/// Keys of TCP-AO.
fn keys() -> Value {
    let reference = json!({"name": "tor", "key": "ao"});
    json!({"keys": [{"sendId": 0, "recvId": 255, "secretKeyRef": reference}]})
}

fn password() -> Value {
    json!({"secretKeyRef": {"name": "tor", "key": "password"}})
}

fn change(kind: &'static str, old: Value, spec: Value, refused: Refused) -> Row {
    Row {
        old: Some(old),
        ..row(kind, spec, refused)
    }
}

fn named(kind: &'static str, name: &'static str, refused: Refused) -> Row {
    Row {
        name,
        ..row(kind, json!({}), refused)
    }
}

fn pools() -> Vec<Row> {
    let pool = |spec, refused| row("IPPool", spec, refused);
    let change = |old, new, refused| change("IPPool", old, new, refused);
    vec![
        pool(json!({"cidr": "10.0.0.0/16"}), No),
        pool(
            json!({"cidr": "10.0.0.0/16", "blockSize": 28, "ipipMode": "CrossSubnet", "natOutgoing": true}),
            No,
        ),
        pool(json!({"cidr": "fd00::/48", "vxlanMode": "Always"}), No),
        pool(json!({}), Schema),
        pool(json!({"cidr": "nonsense"}), Schema),
        pool(json!({"cidr": "10.0.0.0/16", "blockSize": 19}), Schema),
        pool(json!({"cidr": "10.0.0.0/16", "blockSize": 129}), Schema),
        pool(
            json!({"cidr": "10.0.0.0/16", "ipipMode": "Sometimes"}),
            Schema,
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "nodeSelector": "a".repeat(1025)}),
            Schema,
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "ipipMode": "Always", "vxlanMode": "CrossSubnet"}),
            Rule("exclude each other"),
        ),
        pool(
            json!({"cidr": "fd00::/48", "ipipMode": "Always"}),
            Rule("IPv6 pool"),
        ),
        pool(json!({"cidr": "10.0.0.1/16"}), Checks),
        pool(json!({"cidr": "169.254.0.0/24"}), Checks),
        pool(json!({"cidr": "10.0.0.0/28", "blockSize": 26}), Checks),
        pool(json!({"cidr": "10.0.0.0/16", "blockSize": 122}), Checks),
        pool(
            json!({"cidr": "10.0.0.0/16", "nodeSelector": "a ="}),
            Checks,
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["Workload"], "namespaceSelector": "a == 'b'",
                "assignmentMode": "Manual"}),
            No,
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "namespaceSelector": "a == 'b'"}),
            Rule("set allowedUses to [Workload]"),
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["Workload"], "namespaceSelector": "a ="}),
            Checks,
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"]}),
            No,
        ),
        pool(json!({"cidr": "10.0.0.0/16", "allowedUses": []}), Schema),
        pool(
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["Anything"]}),
            Schema,
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "assignmentMode": "Sometimes"}),
            Schema,
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer", "Workload"]}),
            Rule("must stand alone"),
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "nodeSelector": "has(a)"}),
            Rule("nodeSelector must be all()"),
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "vxlanMode": "Always"}),
            Rule("must be Never for the use LoadBalancer"),
        ),
        pool(
            json!({"cidr": "10.0.0.0/16", "allowedUses": ["LoadBalancer"], "disableBGPExport": true}),
            Rule("disableBGPExport must be false"),
        ),
        change(
            json!({"cidr": "10.0.0.0/16"}),
            json!({"cidr": "10.0.0.0/16", "disabled": true}),
            No,
        ),
        change(
            json!({"cidr": "10.0.0.0/16", "blockSize": 26}),
            json!({"cidr": "10.0.0.0/16", "blockSize": 26, "natOutgoing": true}),
            No,
        ),
        change(
            json!({"cidr": "10.0.0.0/16"}),
            json!({"cidr": "10.1.0.0/16"}),
            Rule("cidr cannot be changed"),
        ),
        change(
            json!({"cidr": "10.0.0.0/16", "blockSize": 26}),
            json!({"cidr": "10.0.0.0/16", "blockSize": 27}),
            Rule("blockSize cannot be changed"),
        ),
        change(
            json!({"cidr": "10.0.0.0/16"}),
            json!({"cidr": "10.0.0.0/16", "blockSize": 26}),
            Rule("blockSize cannot be changed"),
        ),
        change(
            json!({"cidr": "10.0.0.0/16", "blockSize": 26}),
            json!({"cidr": "10.0.0.0/16"}),
            Rule("blockSize cannot be changed"),
        ),
    ]
}

fn blocks() -> Vec<Row> {
    let good = |node: &str| json!({"cidr": "10.0.0.0/26", "node": node});
    let held = |line: &str| json!({"cidr": "10.0.0.0/26", "node": "n1", "allocations": [line]});
    let pod = "10.0.0.5 pod=default/a interface=eth0 container=c1 uid=u1 sequence=7 since=2026-01-02T03:04:05Z";
    vec![
        Row {
            name: "10-0-0-0-26",
            ..row("IPAMBlock", held(pod), No)
        },
        row("IPAMBlock", held("10.0.0.5  pod=default/a"), Schema),
        row("IPAMBlock", held("10.0.0.5 pod"), Schema),
        row("IPAMBlock", held("web sequence=1"), Schema),
        row("IPAMBlock", held("10.0.1.5 sequence=1"), Checks),
        Row {
            name: "10-0-0-0-26",
            ..row("IPAMBlock", good("n1"), No)
        },
        row("IPAMBlock", json!({"cidr": "10.0.0.0/26"}), Schema),
        row(
            "IPAMBlock",
            json!({"cidr": "10.0.0.0/26", "node": ""}),
            Schema,
        ),
        row(
            "IPAMBlock",
            json!({"cidr": "10.0.0.1/26", "node": "n1"}),
            Checks,
        ),
        Row {
            name: "10-0-0-0-26",
            ..change(
                "IPAMBlock",
                good("n1"),
                good("n2"),
                Rule("node cannot be changed"),
            )
        },
        Row {
            name: "10-0-0-0-26",
            ..change(
                "IPAMBlock",
                good("n1"),
                json!({"cidr": "10.0.0.64/26", "node": "n1"}),
                Rule("cidr cannot be changed"),
            )
        },
    ]
}

fn hosts() -> Vec<Row> {
    let host = |spec, refused| row("HostEndpoint", spec, refused);
    let policy = |spec, refused| row("GlobalNetworkPolicy", spec, refused);
    vec![
        host(
            json!({"node": "n1", "interfaceName": "eth0", "ports": [{"name": "web", "protocol": "TCP", "port": 80}]}),
            No,
        ),
        host(
            json!({"node": "n1", "interfaceName": "*", "profiles": ["p"]}),
            No,
        ),
        host(json!({"node": "n1", "expectedIPs": ["192.0.2.1"]}), No),
        host(json!({"interfaceName": "eth0"}), Schema),
        host(
            json!({"node": "n1", "interfaceName": "a-name-too-long-"}),
            Schema,
        ),
        host(
            json!({"node": "n1", "interfaceName": "*", "ports": [{"name": "web", "protocol": "ICMP", "port": 80}]}),
            Schema,
        ),
        host(json!({"node": "n1"}), Rule("must say which interface")),
        host(json!({"node": "n1", "interfaceName": "mgy0123"}), Checks),
        host(
            json!({"node": "n1", "expectedIPs": ["192.0.2.0/24"]}),
            Checks,
        ),
        policy(
            json!({"applyOnForward": true, "ingress": [{"action": "Allow"}]}),
            No,
        ),
        policy(
            json!({"applyOnForward": true, "preDNAT": true, "ingress": [{"action": "Deny"}]}),
            No,
        ),
        policy(
            json!({"applyOnForward": true, "doNotTrack": true, "types": ["Ingress", "Egress"]}),
            No,
        ),
        policy(
            json!({"applyOnForward": true, "doNotTrack": true, "preDNAT": true}),
            Rule("exclude each other"),
        ),
        policy(json!({"preDNAT": true}), Rule("need applyOnForward")),
        policy(json!({"doNotTrack": true}), Rule("need applyOnForward")),
        policy(
            json!({"applyOnForward": true, "preDNAT": true, "types": ["Egress"]}),
            Rule("ingress only"),
        ),
        policy(
            json!({"applyOnForward": true, "preDNAT": true, "egress": [{"action": "Deny"}]}),
            Rule("ingress only"),
        ),
    ]
}

/// As sig-network's own CRD has it, but for `isCIDR`, which servers before 1.31 do not know.
fn cluster_policies() -> Vec<Row> {
    let rule = |rest: Value, refused| {
        let mut rule = json!({"action": "Deny", "to": [{"namespaces": {}}]});
        let fields = rule.as_object_mut().unwrap();
        for (name, value) in rest.as_object().unwrap() {
            match value.is_null() {
                true => fields.remove(name),
                false => fields.insert(name.clone(), value.clone()),
            };
        }
        let subject = json!({"pods": {"podSelector": {}}});
        let spec = json!({"tier": "Admin", "priority": 1, "subject": subject, "egress": [rule]});
        row("ClusterNetworkPolicy", spec, refused)
    };
    let ports = |protocol: Value, refused| rule(json!({"protocols": [protocol]}), refused);
    let range = |start: u16, end: u16| json!({"tcp": {"destinationPort": {"range": {"start": start, "end": end}}}});
    vec![
        rule(json!({}), No),
        rule(json!({"to": null}), Schema),
        rule(json!({"to": []}), Schema),
        rule(json!({"to": [{"networks": ["10.0.0.0/8"]}]}), No),
        rule(json!({"to": [{"networks": ["10.0.0.0"]}]}), Checks),
        ports(range(80, 81), No),
        ports(range(80, 80), Rule("below its end")),
        ports(range(81, 80), Rule("below its end")),
        ports(json!({"tcp": {}}), Schema),
        ports(json!({"udp": {}}), Schema),
        ports(json!({"sctp": {}}), Schema),
    ]
}

fn others() -> Vec<Row> {
    let peer = |spec, refused| row("BGPPeer", spec, refused);
    vec![
        named("IPAMConfiguration", "default", No),
        named("IPAMConfiguration", "another", Rule("name it default")),
        row("IPAMConfiguration", json!({"ipCooldownSeconds": 1200}), No),
        row(
            "IPAMConfiguration",
            json!({"ipCooldownSeconds": 1201}),
            Schema,
        ),
        row(
            "IPAMConfiguration",
            json!({"autoAllocateBlocks": false, "strictAffinity": true}),
            No,
        ),
        row(
            "IPAMConfiguration",
            json!({"autoAllocateBlocks": false}),
            Rule("needs strictAffinity"),
        ),
        row(
            "IPReservation",
            json!({"reservedCIDRs": ["10.0.0.1/32"]}),
            No,
        ),
        row(
            "IPReservation",
            json!({"reservedCIDRs": ["10.0.0.1/24"]}),
            Checks,
        ),
        named("BGPConfiguration", "default", No),
        named("BGPConfiguration", "node.n1", No),
        named("BGPConfiguration", "another", Rule("is named default")),
        row("BGPConfiguration", json!({"asNumber": 0}), Checks),
        row("BGPConfiguration", json!({"asNumber": 23456}), Checks),
        row("BGPConfiguration", json!({"asNumber": -1}), Checks),
        row(
            "BGPConfiguration",
            json!({"asNumber": 4_294_967_296_u64}),
            Checks,
        ),
        row("BGPConfiguration", json!({"listenPort": 65536}), Schema),
        row(
            "BGPConfiguration",
            json!({"longLivedRestartTime": "24h"}),
            No,
        ),
        row(
            "BGPConfiguration",
            json!({"longLivedRestartTime": 16_777_216}),
            Checks,
        ),
        row("BGPConfiguration", json!({"nodeMeshTcpAo": keys()}), No),
        row(
            "BGPConfiguration",
            json!({"nodeMeshTcpAo": keys(), "nodeMeshPassword": password()}),
            Rule("exclude each other"),
        ),
        row(
            "BGPConfiguration",
            json!({"nodeMeshTcpAo": keys(), "nodeToNodeMeshEnabled": false}),
            Checks,
        ),
        peer(json!({"peerIP": "192.0.2.1", "asNumber": 65001}), No),
        peer(
            json!({"peerIP": "192.0.2.1", "asNumber": 65001, "node": "n1"}),
            No,
        ),
        peer(json!({"peerIP": "192.0.2.1"}), Rule("say which AS")),
        peer(json!({"peerIP": "192.0.2.1", "asNumber": 0}), Checks),
        peer(
            json!({"peerIP": "192.0.2.1", "asNumber": 65001, "node": "n1", "nodeSelector": "all()"}),
            Rule("exclude each other"),
        ),
        peer(json!({"asNumber": 65001}), Rule("exactly one of")),
        peer(
            json!({"peerIP": "192.0.2.1", "interface": "eth0", "asNumber": 65001}),
            Rule("exactly one of"),
        ),
        peer(json!({"peerSelector": "all()"}), No),
        peer(
            json!({"peerSelector": "all()", "asNumber": 65001}),
            Rule("does not go with peerSelector"),
        ),
        peer(
            json!({"peerRange": {"cidr": "192.0.2.0/24", "asNumbers": [65001]}}),
            No,
        ),
        peer(
            json!({"peerRange": {"cidr": "192.0.2.0/24", "asNumbers": [65001]}, "asNumber": 65001}),
            Rule("does not go with peerRange"),
        ),
        peer(
            json!({"interface": "eth0", "asNumber": "external", "reachableBy": "192.0.2.9"}),
            Rule("reachableBy needs peerIP"),
        ),
        peer(json!({"peerIP": "tor", "asNumber": 65001}), Checks),
        peer(
            json!({"peerSelector": "all()", "longLivedRestartTime": 0, "sendHoldTime": "5m"}),
            No,
        ),
        peer(
            json!({"peerSelector": "all()", "longLivedRestartTime": -1}),
            Checks,
        ),
        peer(
            json!({"peerSelector": "all()", "holdTime": 90, "sendHoldTime": 90}),
            Checks,
        ),
        peer(json!({"peerSelector": "all()", "tcpAo": keys()}), No),
        peer(
            json!({"peerSelector": "all()", "tcpAo": {"keys": []}}),
            Schema,
        ),
        peer(
            json!({"peerSelector": "all()", "tcpAo": keys(), "password": password()}),
            Rule("exclude each other"),
        ),
    ]
}

pub async fn the_rules_and_our_checks_agree(client: Client) {
    let every = every_rule();
    let mut broken: BTreeSet<(String, String)> = BTreeSet::new();
    let mut wrong = Vec::new();
    let rows: Vec<Row> = pools()
        .into_iter()
        .chain(blocks())
        .chain(hosts())
        .chain(cluster_policies())
        .chain(others())
        .collect();
    for row in &rows {
        let (seen, rules) = judge(&client, row).await;
        broken.extend(
            rules
                .into_iter()
                .map(|rule| (row.kind.to_owned(), rule.rule)),
        );
        if let Err(text) = seen {
            wrong.push(text);
        }
    }
    let unbroken: Vec<_> = every.difference(&broken).collect();
    println!("  {} objects, {} rules", rows.len(), every.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        unbroken.is_empty(),
        "no row of the table breaks these rules, add one for each: {unbroken:?}"
    );
}

/// What the server, the rules and our checks say to one row, and whether that is as it should be.
async fn judge(client: &Client, row: &Row) -> (Result<(), String>, Vec<Broken>) {
    let (api, kind) = api(client, row.kind);
    let object = |spec: &Value| DynamicObject::new(row.name, &kind).data(json!({ "spec": spec }));
    let old = match &row.old {
        Some(spec) => Some(
            api.create(&PostParams::default(), &object(spec))
                .await
                .unwrap(),
        ),
        None => None,
    };
    let answer = match &old {
        Some(old) => {
            let mut new = object(&row.spec);
            new.metadata.resource_version = old.metadata.resource_version.clone();
            api.replace(row.name, &PostParams::default(), &new).await
        }
        None => api.create(&PostParams::default(), &object(&row.spec)).await,
    };
    let old = old.map(|old| serde_json::to_value(old).unwrap());
    let (rules, checked, by_schema) = match answer {
        Ok(stored) => {
            let stored = serde_json::to_value(stored).unwrap();
            let rules = broken_rules(row.kind, &stored, old.as_ref());
            let checked = margay_crds::validate::validate(row.kind, &stored, old.as_ref());
            (rules, checked, false)
        }
        Err(error) => {
            assert_eq!(
                refusal(error),
                (422, "Invalid".to_owned()),
                "{} {}",
                row.kind,
                row.spec
            );
            let sent = serde_json::to_value(object(&row.spec)).unwrap();
            let checked = margay_crds::validate::validate(row.kind, &sent, old.as_ref());
            (Vec::new(), checked, true)
        }
    };
    let _ = api.delete(row.name, &DeleteParams::default()).await;
    let first = match (by_schema, rules.first(), checked.is_empty()) {
        (true, _, _) => "the schema",
        (false, Some(_), _) => "a rule",
        (false, None, false) => "the checks",
        (false, None, true) => "nobody",
    };
    let says = |part: &str| rules.iter().any(|rule| rule.message.contains(part));
    let as_expected = match row.refused {
        No => first == "nobody",
        Schema => first == "the schema" && !checked.is_empty(),
        Rule(part) => first == "a rule" && says(part) && !checked.is_empty(),
        Checks => first == "the checks",
    };
    let text = || {
        format!(
            "{} {}: expected {:?}, refused by {first}; rules: {rules:?}; checks: {checked:?}",
            row.kind, row.spec, row.refused
        )
    };
    (if as_expected { Ok(()) } else { Err(text()) }, rules)
}

fn api(client: &Client, kind: &str) -> (Api<DynamicObject>, ApiResource) {
    let crd = crd(kind);
    let plural = crd.spec.names.plural;
    let version = &crd.spec.versions[0].name;
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(&crd.spec.group, version, kind),
        &plural,
    );
    (Api::all_with(client.clone(), &resource), resource)
}

type Definition =
    k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

fn crd(kind: &str) -> Definition {
    let mut all = margay_crds::manifests::all().into_iter();
    all.find(|crd| crd.spec.names.kind == kind).unwrap()
}

fn schema(crd: &Definition) -> Value {
    let schema = crd.spec.versions[0].schema.as_ref().unwrap();
    serde_json::to_value(schema.open_api_v3_schema.as_ref().unwrap()).unwrap()
}

// ===== the rules =====

/// A rule that an object breaks.
#[derive(Debug)]
struct Broken {
    rule: String,
    message: String,
}

/// Every rule of every kind: the kind and the text.
fn every_rule() -> BTreeSet<(String, String)> {
    fn collect(schema: &Value, found: &mut Vec<String>) {
        for rule in schema["x-kubernetes-validations"]
            .as_array()
            .into_iter()
            .flatten()
        {
            found.push(rule["rule"].as_str().unwrap().to_owned());
        }
        for part in schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(|map| map.values())
        {
            collect(part, found);
        }
        for part in ["items", "additionalProperties"] {
            if schema[part].is_object() {
                collect(&schema[part], found);
            }
        }
    }
    let mut rules = BTreeSet::new();
    for crd in margay_crds::manifests::all() {
        let mut found = Vec::new();
        collect(&schema(&crd), &mut found);
        for rule in found {
            // Compiles, and speaks of nothing but the object.
            let program = Program::compile(&rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
            for variable in program.references().variables() {
                // x, by our habit, is what a macro such as filter binds.
                assert!(
                    matches!(variable, "self" | "oldSelf" | "x"),
                    "{rule}: {variable}"
                );
            }
            rules.insert((crd.spec.names.kind.clone(), rule));
        }
    }
    assert!(rules.len() >= 8, "{rules:?}");
    rules
}

fn broken_rules(kind: &str, new: &Value, old: Option<&Value>) -> Vec<Broken> {
    let mut broken = Vec::new();
    walk(&schema(&crd(kind)), new, old, &mut broken);
    broken
}

/// As an API server walks: a rule is asked where its value is there; one about `oldSelf` only
/// where there was a value before, which in plain lists nobody can say.
fn walk(schema: &Value, new: &Value, old: Option<&Value>, broken: &mut Vec<Broken>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let text = rule["rule"].as_str().unwrap();
        if (text.contains("oldSelf") && old.is_none()) || holds(text, new, old) {
            continue;
        }
        broken.push(Broken {
            rule: text.to_owned(),
            message: rule["message"].as_str().unwrap().to_owned(),
        });
    }
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = new.get(name) {
            walk(part, value, old.and_then(|old| old.get(name)), broken);
        }
    }
    if schema["items"].is_object() {
        for value in new.as_array().into_iter().flatten() {
            walk(&schema["items"], value, None, broken);
        }
    }
}

fn holds(rule: &str, new: &Value, old: Option<&Value>) -> bool {
    let program = Program::compile(rule).unwrap();
    let mut context = Context::default();
    context.add_variable_from_value("self", cel(new));
    if let Some(old) = old {
        context.add_variable_from_value("oldSelf", cel(old));
    }
    match program.execute(&context) {
        Ok(Cel::Bool(holds)) => holds,
        other => panic!("{rule} on {new}: {other:?}"),
    }
}

/// JSON as CEL sees it through a schema: integers are `int`, which the interpreter's own
/// conversion would make unsigned.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Cel::Int(number),
            None => Cel::Float(number.as_f64().unwrap()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(cel).collect())),
        Value::Object(map) => {
            let entries: HashMap<Key, Cel> = map
                .iter()
                .map(|(key, value)| (Key::from(key.as_str()), cel(value)))
                .collect();
            Cel::Map(Map {
                map: Arc::new(entries),
            })
        }
    }
}

//! BGPFilters edited one after another on one session with BIRD, which never ends: after each edit
//! both sides have exactly what the table says.
//!
//! | given by the node | | announced by the router | |
//! |---|---|---|---|
//! | B | its own block | a | 10.244.200.0/24, community 65001:1 |
//! | R | the block of the other node | c | 10.244.201.0/24, path 65001 65010 |
//! | S | 10.96.0.0/16 | e | 10.244.202.128/25, community 65001:2:3 |
//! | T | 192.0.2.0/24, community 64512:100 | d | the default route |
//! | U | 198.51.100.0/24 | o | 192.168.7.0/24 |
//! | p | fd00:96::/112 | w | 192.168.8.0/24, community 65001:9 |
//! | q | 2001:db8:96::/64 | 0 1 2 | `::/0`, 2001:db8:1::/48, 2001:db8:2::/48 with 65001:6 |
//!
//! Behind a letter stands what the route gained: `+` a community, `^` ASes, `=` a metric. Marks,
//! one for each family and direction, tell that an edit has arrived: they carry its number.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use margay_crds::{BGPConfiguration, BGPFilter, DEFAULT_NAME};
use margay_e2e::lab::Tor;
use serde_json::{Value, json};

use super::router::{Router, ip};
use super::table::{self, Case};
use super::{condition, session, until_up, write_peer};
use crate::ground::{Ground, runnable};

const ROUTER: &str = "10.10.1.201";
const NODE1: &str = "10.10.1.11";
/// The marks' prefixes, by the list whose rule tags them.
const MARKS: [(&str, &str); 4] = [
    ("exportV4", "203.0.113.0/29"),
    ("exportV6", "2001:db8:ff::/64"),
    ("importV4", "10.244.255.0/28"),
    ("importV6", "2001:db8:ffff::/64"),
];
/// The AS of marks' communities.
const MARK: &str = "64999:";

fn bird() -> String {
    format!(
        "router id {ROUTER};\n\
         protocol static s4 {{ ipv4;\n  \
           route 0.0.0.0/0 blackhole;\n  \
           route 10.244.200.0/24 blackhole {{ bgp_community.add((65001,1)); }};\n  \
           route 10.244.201.0/24 blackhole {{ bgp_path.prepend(65010); }};\n  \
           route 10.244.202.128/25 blackhole {{ bgp_large_community.add((65001,2,3)); }};\n  \
           route 192.168.7.0/24 blackhole;\n  \
           route 192.168.8.0/24 blackhole {{ bgp_community.add((65001,9)); }};\n  \
           route 10.244.255.0/28 blackhole;\n}}\n\
         protocol static s6 {{ ipv6;\n  \
           route ::/0 blackhole;\n  route 2001:db8:1::/48 blackhole;\n  \
           route 2001:db8:2::/48 blackhole {{ bgp_community.add((65001,6)); }};\n  \
           route 2001:db8:ffff::/64 blackhole;\n}}\n\
         protocol bgp to_node1 {{\n  \
           local {ROUTER} as 65001;\n  neighbor {NODE1} as 64512;\n  \
           connect delay time 1;\n  connect retry time 2;\n  error wait time 1, 2;\n  \
           ipv4 {{ import all; export where source = RTS_STATIC; }};\n  \
           ipv6 {{ import all; export where source = RTS_STATIC; next hop address fd00:10::201; }};\n}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn netns_filters_pass_what_their_table_says() {
    if !runnable("netns_filters_pass_what_their_table_says") {
        return;
    }
    let mut ground = Ground::prepare("t-filters", 2, 1, Tor::None, 2).await;
    let router = Router::on_segment(
        &mut ground,
        "filtered",
        &["10.10.1.201/24", "fd00:10::201/64"],
    );
    router.start_bird(&mut ground, &bird());
    prepare_node(&ground).await;
    let letters = letters(&ground).await;
    let filters: Api<BGPFilter> = Api::all(ground.cluster.client.clone());
    for name in ["first", "second"] {
        let object = json!({"metadata": {"name": name}, "spec": {}});
        ground.create(&filters, object).await;
    }
    let spec = json!({"node": "node1", "peerIP": ROUTER, "asNumber": 65001, "connectRetryTime": 1,
        "families": ["ipv4-unicast", "ipv6-unicast"], "filters": ["first", "second"]});
    write_peer(&ground, "filtered", spec).await;
    let since = until_up(&ground, "node1", ROUTER).await;
    let up_at_router = router.birdc(&["show", "protocols", "to_node1"]).unwrap();

    let cases = table::all();
    assert!(cases.len() >= 40);
    for (number, case) in cases.iter().enumerate() {
        check(&ground, &router, &letters, number, case).await;
    }
    a_mistake_changes_nothing(&ground, &router, &letters).await;
    assert_eq!(
        session(&ground, "node1", ROUTER).unwrap()["since"],
        since.as_str()
    );
    let still = router.birdc(&["show", "protocols", "to_node1"]).unwrap();
    assert_eq!(still, up_at_router);
    println!("  {} filters on one session", cases.len());
    a_filter_that_is_missing_lets_nothing_pass(&ground, &router, &letters).await;
}

/// The node gets an IPv6 address and Service ranges to announce.
async fn prepare_node(ground: &Ground) {
    let namespace = ground.namespace("node1");
    ip(&format!(
        "-n {namespace} addr add fd00:10::11/64 dev eth0 nodad"
    ));
    let nodes: Api<Node> = Api::all(ground.cluster.client.clone());
    let addresses = json!([
        {"type": "InternalIP", "address": NODE1},
        {"type": "InternalIP", "address": "fd00:10::11"},
        {"type": "Hostname", "address": "node1"},
    ]);
    let status = json!({"status": {"addresses": addresses}});
    let parameters = PatchParams::default();
    nodes
        .patch_status("node1", &parameters, &Patch::Merge(&status))
        .await
        .unwrap();
    let ranges = |all: &[&str]| -> Value { all.iter().map(|cidr| json!({"cidr": cidr})).collect() };
    let settings: Api<BGPConfiguration> = Api::all(ground.cluster.client.clone());
    let spec = json!({
        "serviceClusterIPs": ranges(&["10.96.0.0/16", "fd00:96::/112"]),
        "serviceExternalIPs": ranges(&["192.0.2.0/24", "2001:db8:96::/64"]),
        "serviceLoadBalancerIPs": ranges(&["198.51.100.0/24", MARKS[0].1, MARKS[1].1]),
        "prefixAdvertisements": [{"cidr": "192.0.2.0/24", "communities": ["64512:100"]}],
    });
    ground
        .patch(&settings, DEFAULT_NAME, json!({"spec": spec}))
        .await;
}

/// Letters by prefix.
async fn letters(ground: &Ground) -> BTreeMap<String, char> {
    let mut letters: BTreeMap<String, char> = [
        ("10.96.0.0/16", 'S'),
        ("192.0.2.0/24", 'T'),
        ("198.51.100.0/24", 'U'),
        ("fd00:96::/112", 'p'),
        ("2001:db8:96::/64", 'q'),
        ("10.244.200.0/24", 'a'),
        ("10.244.201.0/24", 'c'),
        ("10.244.202.128/25", 'e'),
        ("0.0.0.0/0", 'd'),
        ("192.168.7.0/24", 'o'),
        ("192.168.8.0/24", 'w'),
        ("::/0", '0'),
        ("2001:db8:1::/48", '1'),
        ("2001:db8:2::/48", '2'),
    ]
    .map(|(prefix, letter)| (prefix.to_owned(), letter))
    .into();
    letters.insert(ground.blocks_of("node1").await.remove(0), 'B');
    letters.insert(ground.blocks_of("node2").await.remove(0), 'R');
    letters
}

/// The rules with those in front that tag the marks with a number.
fn marked(spec: &Value, number: usize) -> Value {
    let mut whole = json!({});
    for (list, prefix) in MARKS {
        let tag = json!({"action": "Accept", "matchOperator": "Equal", "cidr": prefix,
            "operations": [{"addCommunity": {"value": format!("{MARK}{number}")}}]});
        let rules = spec[list].as_array().cloned().unwrap_or_default();
        whole[list] = std::iter::once(tag).chain(rules).collect();
    }
    whole
}

/// A list of rules that is not written is an empty one.
fn whole(spec: &Value) -> Value {
    let lists = MARKS.iter().map(|(list, _)| {
        let rules = spec[*list].as_array().cloned().unwrap_or_default();
        ((*list).to_owned(), Value::from(rules))
    });
    Value::Object(lists.collect())
}

async fn check(
    ground: &Ground,
    router: &Router,
    letters: &BTreeMap<String, char>,
    number: usize,
    case: &Case,
) {
    let filters: Api<BGPFilter> = Api::all(ground.cluster.client.clone());
    ground
        .patch(&filters, "second", json!({"spec": whole(&case.second)}))
        .await;
    let first = marked(&case.first, number);
    ground
        .patch(&filters, "first", json!({"spec": first}))
        .await;
    let what = format!("case {number}, {}", case.name);
    let mark = format!("{MARK}{number}");
    let (given, taken) = ground
        .until(&format!("{what}: the marks"), 10, || async {
            let given = given(router)?;
            let taken = taken(ground)?;
            let has = |routes: &Routes, at: usize| {
                let tags = routes.get(MARKS[at].1);
                tags.is_some_and(|tags| tags.contains(&format!("+{mark}")))
            };
            let all = has(&given, 0) && has(&given, 1) && has(&taken, 2) && has(&taken, 3);
            match all {
                true => Ok((given, taken)),
                false => Err(format!("given {given:?}, taken {taken:?}")),
            }
        })
        .await;
    assert_eq!(
        words(&given, letters),
        expected(case.given),
        "{what}: given"
    );
    assert_eq!(
        words(&taken, letters),
        expected(case.taken),
        "{what}: taken"
    );
}

/// Routes by prefix, each with what it has gained.
type Routes = BTreeMap<String, BTreeSet<String>>;

fn words(routes: &Routes, letters: &BTreeMap<String, char>) -> BTreeSet<String> {
    let known = routes
        .iter()
        .filter(|(prefix, _)| MARKS.iter().all(|(_, mark)| mark != prefix));
    known
        .map(|(prefix, tags)| {
            let letter = letters
                .get(prefix)
                .map_or_else(|| prefix.clone(), char::to_string);
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            format!("{letter}{}", tags.concat())
        })
        .collect()
}

fn expected(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What the routes have from the beginning.
fn is_usual(tag: &str) -> bool {
    [
        "+64512:100",
        "+65001:1",
        "+65001:9",
        "+65001:6",
        "+65001:2:3",
    ]
    .contains(&tag)
}

/// What the router has of the node.
fn given(router: &Router) -> Result<Routes, String> {
    let text = router.birdc(&["show", "route", "protocol", "to_node1", "all"])?;
    let mut routes = Routes::new();
    let mut last = String::new();
    for line in text.lines() {
        let is_attribute = line.starts_with(['\t', ' ']);
        let mut fields = line.split_whitespace();
        if !is_attribute && line.contains("[to_node1") {
            last = fields.next().unwrap_or_default().to_owned();
            routes.insert(last.clone(), BTreeSet::new());
            continue;
        }
        let Some(tags) = routes.get_mut(&last) else {
            continue;
        };
        let name = fields.next().unwrap_or_default();
        let rest: String = fields.collect::<Vec<_>>().join(" ");
        match name {
            "BGP.community:" | "BGP.large_community:" => {
                let all = rest
                    .split(['(', ')'])
                    .map(|one| one.replace(", ", ":").replace(',', ":"));
                let all = all.filter(|one| !one.trim().is_empty());
                tags.extend(
                    all.map(|one| format!("+{one}"))
                        .filter(|tag| !is_usual(tag)),
                );
            }
            "BGP.as_path:" if rest != "64512" => {
                let more = rest.strip_prefix("64512 ").unwrap_or(&rest);
                tags.insert(format!("^{}", more.replace(' ', ",")));
            }
            _ => {}
        }
    }
    Ok(routes)
}

/// What the node has accepted of the router.
fn taken(ground: &Ground) -> Result<Routes, String> {
    let rib = ground.ask_agent("node1", "rib")?;
    let entries = rib.get("result").unwrap_or(&rib).as_array().cloned();
    let entries = entries.ok_or_else(|| rib.to_string())?.into_iter();
    let entries = entries.filter(|one| one["peer"] == ROUTER && one["accepted"] == true);
    Ok(entries
        .map(|entry| {
            let lists =
                ["communities", "largeCommunities"].map(|list| entry[list].as_array().cloned());
            let communities = lists.into_iter().flatten().flatten();
            let communities =
                communities.map(|one| format!("+{}", one.as_str().unwrap_or_default()));
            let mut tags: BTreeSet<String> = communities.filter(|tag| !is_usual(tag)).collect();
            tags.extend(entry["metric"].as_u64().map(|metric| format!("={metric}")));
            (
                entry["prefix"].as_str().unwrap_or_default().to_owned(),
                tags,
            )
        })
        .collect())
}

/// A slip of the pen in a filter: it stays in force as it was, and says what is wrong.
async fn a_mistake_changes_nothing(
    ground: &Ground,
    router: &Router,
    letters: &BTreeMap<String, char>,
) {
    let filters: Api<BGPFilter> = Api::all(ground.cluster.client.clone());
    let before = (given(router).unwrap(), taken(ground).unwrap());
    let wrong = json!({"spec": {"importV4": [{"action": "Accept", "cidr": "10.0.0.0/8"}]}});
    let parameters = PatchParams::default();
    let patched = filters
        .patch("first", &parameters, &Patch::Merge(&wrong))
        .await;
    if patched.is_ok() {
        ground
            .until("the filter to say what is wrong", 10, || async {
                let object = filters
                    .get("first")
                    .await
                    .map_err(|error| error.to_string())?;
                let said = object.status.unwrap_or_default().conditions;
                let said = said
                    .iter()
                    .any(|one| one.status == "False" && one.message.contains("matchOperator"));
                said.then_some(()).ok_or("not yet".to_owned())
            })
            .await;
    }
    let after = (given(router).unwrap(), taken(ground).unwrap());
    assert_eq!(words(&before.0, letters), words(&after.0, letters));
    assert_eq!(words(&before.1, letters), words(&after.1, letters));
}

/// Nobody knows what it would have kept out.
async fn a_filter_that_is_missing_lets_nothing_pass(
    ground: &Ground,
    router: &Router,
    letters: &BTreeMap<String, char>,
) {
    let filters: Api<BGPFilter> = Api::all(ground.cluster.client.clone());
    let parameters = kube::api::DeleteParams::default();
    filters.delete("second", &parameters).await.unwrap();
    ground
        .until("nothing to pass", 10, || async {
            let (given, taken) = (given(router)?, taken(ground)?);
            match given.is_empty() && taken.is_empty() {
                true => Ok(()),
                false => Err(format!(
                    "{:?} {:?}",
                    words(&given, letters),
                    words(&taken, letters)
                )),
            }
        })
        .await;
    ground
        .until("the BGPPeer to say what is missing", 10, || async {
            match condition(ground, "filtered", "ResolvedRefs").await {
                Some((false, words)) if words.contains("there is no BGPFilter second") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    assert_eq!(
        session(ground, "node1", ROUTER).unwrap()["state"],
        "Established"
    );
}

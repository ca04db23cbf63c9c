//! What the table tells of packets: the rule that decided, counted and reported, and no more reports than can be borne.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use margay_policy::{
    RuleId,
    model::{Direction, PolicyKind, PolicyRef},
    origin::origins,
    ruleset::{LogReason, Report},
    writer::{Logged, Netlink, PacketLog, Tally, Writer},
};

use crate::lab::{Lab, nft, privileged, within};

/// What the table reported since the last time, once it is quiet.
fn drain(log: &mut PacketLog) -> (Vec<Logged>, u64) {
    let (mut packets, mut lost) = (Vec::new(), 0);
    loop {
        let more = log.receive(Duration::from_millis(400)).unwrap();
        if more.packets.is_empty() && more.lost == 0 {
            return (packets, lost);
        }
        packets.extend(more.packets);
        lost += more.lost;
    }
}

fn tally(netlink: &Netlink, word: &str, id: RuleId) -> Tally {
    let tallies = netlink.tallies().unwrap();
    tallies
        .get(&format!("{word}-{id}"))
        .copied()
        .unwrap_or_default()
}

#[test]
fn netns_denied_and_logged_packets_are_told_with_their_rule() {
    if !privileged("netns_denied_and_logged_packets_are_told_with_their_rule") {
        return;
    }
    let mut lab = Lab::new("told", &["a", "b", "c"]);
    let router = lab.namespace("router");
    let program = nft(&router);
    let (netlink, mut log) = within(&router, move || {
        (Netlink::open(program).unwrap(), PacketLog::open().unwrap())
    });
    let second = within(&router, || PacketLog::open().err());
    assert!(second.is_some(), "two programs read one group");
    lab.load(
        "
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: x}, spec: {podSelector: {matchLabels: {app: b}}, \
  ingress: [{from: [{podSelector: {matchLabels: {app: c}}}]}, {from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: 80}]}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: watch}, spec: {order: 1, selector: \"app == 'c'\", types: [Ingress], \
  ingress: [{action: Log, protocol: UDP}, {action: Deny, protocol: TCP, destination: {ports: [81]}}, {action: Allow}]}}
---
{apiVersion: margay.dev/v1, kind: GlobalNetworkPolicy, metadata: {name: try}, spec: {staged: true, order: 0, selector: \"app == 'a'\", types: [Ingress], \
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [81]}}, {action: Allow}]}}
",
    );
    lab.sync();
    let own = |name: &str| PolicyRef::new(PolicyKind::GlobalNetworkPolicy, "", name);
    let db = PolicyRef::new(PolicyKind::NetworkPolicy, "x", "db");
    let id = |policy: &PolicyRef, rule| RuleId::of(policy, Direction::Ingress, rule);
    let ids = [
        id(&db, None),
        id(&db, Some(1)),
        id(&own("watch"), Some(0)),
        id(&own("watch"), Some(1)),
        id(&own("watch"), Some(2)),
        id(&own("try"), Some(0)),
        id(&own("try"), Some(1)),
    ];
    let [
        db_end,
        db_a,
        watch_log,
        watch_deny,
        watch_allow,
        try_deny,
        try_allow,
    ] = ids;
    assert_eq!(origins(&lab.cluster, &ids.into()).len(), ids.len());

    for (probe, reports, counted) in [
        (
            "a b TCP/81",
            vec![(LogReason::Denied, db_end)],
            ("deny", db_end),
        ),
        (
            "a b6 TCP/81",
            vec![(LogReason::Denied, db_end)],
            ("deny", db_end),
        ),
        (
            "a b UDP/53",
            vec![(LogReason::Denied, db_end)],
            ("deny", db_end),
        ),
        (
            "outside b6 TCP/80",
            vec![(LogReason::Denied, db_end)],
            ("deny", db_end),
        ),
        ("a b TCP/80", vec![], ("allow", db_a)),
        (
            "a c UDP/53",
            vec![(LogReason::Rule, watch_log)],
            ("log", watch_log),
        ),
        (
            "a c6 UDP/53",
            vec![(LogReason::Rule, watch_log)],
            ("allow", watch_allow),
        ),
        (
            "b c TCP/81",
            vec![(LogReason::Denied, watch_deny)],
            ("deny", watch_deny),
        ),
        (
            "b a TCP/81",
            vec![(LogReason::StagedDeny, try_deny)],
            ("staged", try_deny),
        ),
        ("b a TCP/80", vec![], ("staged", try_allow)),
    ] {
        drain(&mut log);
        let before = tally(&netlink, counted.0, counted.1);
        let words: Vec<&str> = probe.split(' ').collect();
        let to = match words[1].strip_suffix('6') {
            Some(pod) => lab.address_v6(pod),
            None => lab.address(words[1]),
        };
        let reached = lab.reaches(words[0], to, words[2]);
        let is_denied = reports
            .iter()
            .any(|(reason, _)| *reason == LogReason::Denied);
        assert_eq!(reached, !is_denied, "{probe}");
        let (packets, lost) = drain(&mut log);
        assert_eq!(lost, 0);
        for logged in &packets {
            let headers = logged.headers;
            assert_eq!(headers.destination, to, "{probe}");
            let (protocol, port) = words[2].split_once('/').unwrap();
            assert_eq!(headers.protocol, if protocol == "TCP" { 6 } else { 17 });
            assert_eq!(headers.ports.unwrap().1, port.parse::<u16>().unwrap());
        }
        let mut told: Vec<Report> = packets.iter().map(|logged| logged.report).collect();
        // A connection that is denied is tried again.
        told.dedup();
        let wanted: Vec<Report> = reports
            .iter()
            .map(|(reason, rule)| Report::new(*reason, Some(*rule)))
            .collect();
        assert_eq!(told, wanted, "{probe}");
        let after = tally(&netlink, counted.0, counted.1);
        assert!(
            after.packets > before.packets,
            "{probe}: {counted:?} {after:?}"
        );
        assert!(after.bytes >= before.bytes + 28, "{probe}: {after:?}");
    }

    // What is established is not counted: the decision was made.
    let before = tally(&netlink, "allow", db_a);
    let mut flow = crate::lab::Flow::open(&lab, "a", lab.address("b"));
    for _ in 0..50 {
        assert!(flow.is_alive());
    }
    let after = tally(&netlink, "allow", db_a);
    assert_eq!(after.packets - before.packets, 1);

    // Counters stay while policies change around them.
    lab.policy(
        "other",
        "{podSelector: {matchLabels: {app: b}}, ingress: [{ports: [{port: 9}]}]}",
    );
    lab.sync();
    // The open connection may have been judged anew meanwhile.
    assert!(tally(&netlink, "allow", db_a).packets >= after.packets);
}

/// A flood is counted packet by packet and reported by the handful; nobody has to read for the packets to be dropped.
#[test]
fn netns_a_flood_of_denied_packets_is_counted_and_not_reported_one_by_one() {
    if !privileged("netns_a_flood_of_denied_packets_is_counted_and_not_reported_one_by_one") {
        return;
    }
    let mut lab = Lab::new("flood", &["a", "b"]);
    let router = lab.namespace("router");
    let program = nft(&router);
    let (netlink, mut log) = within(&router, move || {
        (Netlink::open(program).unwrap(), PacketLog::open().unwrap())
    });
    lab.policy("shut", "{podSelector: {matchLabels: {app: b}}}");
    lab.sync();
    let shut = PolicyRef::new(PolicyKind::NetworkPolicy, "x", "shut");
    let id = RuleId::of(&shut, Direction::Ingress, None);
    let to = SocketAddr::new(lab.address("b"), 53);
    let started = Instant::now();
    let sent = within(&lab.namespace("a"), move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        (0..50_000)
            .filter(|_| socket.send_to(b"flood", to).is_ok())
            .count()
    });
    let took = started.elapsed();
    let seconds = took.as_secs() + 2;
    let counted = tally(&netlink, "deny", id).packets;
    let (packets, lost) = drain(&mut log);
    println!(
        "flood: {sent} packets in {took:?} ({:.2} us each), {} reported, {lost} lost",
        took.as_secs_f64() * 1e6 / sent as f64,
        packets.len()
    );
    assert!(counted as usize >= sent * 99 / 100, "{counted} of {sent}");
    let most = u64::from(Report::BURST) + Report::RATE * seconds;
    assert!(
        !packets.is_empty() && packets.len() as u64 <= most,
        "{}",
        packets.len()
    );
}

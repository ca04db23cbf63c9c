//! BMP to a station that reads strictly, and to one that does not read.

use std::collections::BTreeSet;
use std::time::Duration;

use margay_bgp::observe::Interest;
use margay_bgp::speaker::Watching;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::bmp::{self, Message, Update};
use crate::lab::{Lab, PATIENCE, announcements};

/// A station with one connection.
struct Station(TcpStream);

impl Station {
    async fn next(&mut self) -> Message {
        let read = async {
            let mut message = vec![0; 6];
            self.0.read_exact(&mut message).await.unwrap();
            let length = bmp::length(message[..].try_into().unwrap());
            message.resize(length, 0);
            self.0.read_exact(&mut message[6..]).await.unwrap();
            bmp::read(&message)
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap()
    }

    /// The next UPDATE that is not a statistics report.
    async fn route(&mut self) -> (bool, Update) {
        loop {
            match self.next().await {
                Message::Route { peer, update } => return (peer.after_policy, update),
                Message::Statistics { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Everything announced until there was an End-of-RIB of each family, per stage.
    async fn table(&mut self, stages: usize) -> BTreeSet<(bool, String)> {
        let mut found = BTreeSet::new();
        let mut ends = 0;
        while ends < 2 * stages {
            let (after, update) = self.route().await;
            let is_end = update.announced.is_empty() && update.withdrawn.is_empty();
            ends += usize::from(is_end);
            found.extend(update.announced.into_iter().map(|prefix| (after, prefix)));
        }
        found
    }
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

async fn accept(listener: &TcpListener) -> Station {
    let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
    Station(accepted.unwrap().unwrap().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_is_told_everything_in_order() {
    let (listener, port) = listen().await;
    let routes = ["10.1.0.0/16", "10.2.0.0/16", "2001:db8:1::/48"];
    let station = json!({"address": "127.0.0.1", "port": port, "localAddress": "127.0.0.1",
                         "routeMonitoring": "both", "statisticsInterval": 1, "systemName": "rack-1"});
    let lab = Lab::start(json!({ "bmp": [] }), announcements(&routes)).await;
    lab.received(3).await;
    // A station that comes later is told what there is.
    lab.reload(|file| file["bmp"] = json!([station]))
        .await
        .unwrap();
    let mut station = accept(&listener).await;
    let Message::Initiation { name, description } = station.next().await else {
        panic!("no initiation");
    };
    assert_eq!(name, "rack-1");
    assert!(description.starts_with("Margay BGP "), "{description}");
    let Message::PeerUp {
        peer,
        local,
        ports,
        opens,
    } = station.next().await
    else {
        panic!("no session");
    };
    assert_eq!(peer.address.to_string(), "127.0.0.2");
    assert_eq!((peer.asn, peer.router_id), (64513, [10, 0, 0, 2]));
    assert_eq!(local.to_string(), "127.0.0.1");
    assert!(ports.0 != 0 && ports.1 != 0, "{ports:?}");
    // The identifiers in the OPENs, sent and received.
    assert_eq!(
        opens.map(|open| open[24..28].to_vec()),
        [[10, 0, 0, 1], [10, 0, 0, 2]]
    );
    let expected = routes
        .iter()
        .flat_map(|route| [(false, *route), (true, *route)]);
    let expected: BTreeSet<_> = expected
        .map(|(after, route)| (after, route.to_owned()))
        .collect();
    assert_eq!(station.table(2).await, expected);

    // What happens then: a route goes, one comes, with its attributes as they came.
    lab.announce(announcements(&[
        "10.2.0.0/16",
        "10.3.0.0/16",
        "2001:db8:1::/48",
    ]))
    .await;
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        let (after, update) = station.route().await;
        for prefix in update.announced {
            assert!(
                update
                    .attributes
                    .windows(4)
                    .any(|o| o == [0xfc, 0x01, 0, 7]),
                "community 64513:7"
            );
            seen.insert((after, format!("+{prefix}")));
        }
        seen.extend(
            update
                .withdrawn
                .into_iter()
                .map(|prefix| (after, format!("-{prefix}"))),
        );
    }
    let both = |what: &str| [(false, what.to_owned()), (true, what.to_owned())];
    let expected = [both("+10.3.0.0/16"), both("-10.1.0.0/16")].concat();
    assert_eq!(seen, expected.into_iter().collect());

    // A filter that refuses routes is seen after policy only.
    lab.reload(|file| file["neighbors"][0]["import"] = json!("reject"))
        .await
        .unwrap();
    let mut gone = BTreeSet::new();
    while gone.len() < 3 {
        let (after, update) = station.route().await;
        assert!(after && update.announced.is_empty(), "{update:?}");
        gone.extend(update.withdrawn);
    }
    let counters = loop {
        if let Message::Statistics { counters, .. } = station.next().await {
            break counters;
        }
    };
    let kinds: Vec<_> = counters.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0, 7, 8, 11]);
    assert_eq!(counters[1].1, 3, "Adj-RIB-In");
    assert_eq!(counters[2].1, 0, "Loc-RIB, after the filter");
    assert!(counters[0].1 >= 3, "refused: {counters:?}");

    let summary = lab.ask(json!({"query": "summary"})).await;
    let shown = &summary["stations"][0];
    assert_eq!(
        (&shown["state"], &shown["port"]),
        (&json!("up"), &json!(port))
    );
    assert!(shown["messages"].as_u64().unwrap() > 10, "{shown}");

    lab.other.shutdown().await;
    let down = loop {
        match station.next().await {
            Message::PeerDown { peer, reason, data } => {
                break (peer.asn, reason, data[19..21].to_vec());
            }
            Message::Statistics { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(down, (64513, 3, vec![6, 2]), "the peer's Cease");
    lab.watched.shutdown().await;
    assert_eq!(station.next().await, Message::Termination { reason: 0 });
    assert_eq!(station.0.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_is_tried_again_and_taken_out() {
    let (listener, port) = listen().await;
    drop(listener);
    let entry = json!([{"address": "127.0.0.1", "port": port}]);
    let lab = Lab::start(json!({ "bmp": entry }), announcements(&["10.1.0.0/16"])).await;
    lab.received(1).await;
    let waiting = async {
        loop {
            let summary = lab.ask(json!({"query": "summary"})).await;
            let station = &summary["stations"][0];
            if station["state"] == "waiting" {
                return station["lastError"].as_str().unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let error = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert!(error.contains("refused"), "{error}");
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    for _ in 0..2 {
        // One that goes away is connected to again and told everything.
        let mut station = accept(&listener).await;
        assert!(matches!(station.next().await, Message::Initiation { .. }));
        assert!(matches!(station.next().await, Message::PeerUp { .. }));
        assert_eq!(station.table(1).await.len(), 1);
    }
    let mut station = accept(&listener).await;
    assert!(matches!(station.next().await, Message::Initiation { .. }));
    lab.reload(|file| file["bmp"] = json!([])).await.unwrap();
    loop {
        if let Message::Termination { .. } = station.next().await {
            break;
        }
    }
    let summary = lab.ask(json!({"query": "summary"})).await;
    assert_eq!(summary.get("stations"), None);
    lab.watched.shutdown().await;
    lab.other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_off_or_loses_and_no_session_waits() {
    let lab = Lab::start(json!({}), json!([])).await;
    let how = |cut_off| Watching {
        interest: Interest {
            sessions: true,
            before_policy: true,
            ..Interest::default()
        },
        from_the_start: true,
        room: 100_000,
        cut_off,
    };
    let cut = lab.watched.speaker().watch(how(true)).await.unwrap();
    let mut losing = lab.watched.speaker().watch(how(false)).await.unwrap();
    let many = |round: usize| -> Vec<String> {
        let number = |n: usize| format!("10.{round}.{}.{}/32", n / 250, n % 250);
        (0..2000).map(number).collect()
    };
    for round in 0..40 {
        let routes = many(round);
        let routes: Vec<_> = routes.iter().map(String::as_str).collect();
        lab.announce(announcements(&routes)).await;
        lab.received(2000).await;
        if cut.is_cut_off() {
            break;
        }
    }
    tokio::time::timeout(PATIENCE, cut.cut_off()).await.unwrap();
    let lost = async {
        while losing.take_lost() == 0 {
            lab.announce(announcements(&["10.99.0.0/16"])).await;
            lab.announce(announcements(&["10.99.0.0/16", "10.98.0.0/16"]))
                .await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, lost).await.unwrap();
    // There is room again once it reads.
    let mut octets = 0;
    while let Ok(batch) = tokio::time::timeout(Duration::from_millis(300), losing.next()).await {
        octets += batch
            .unwrap()
            .observations
            .iter()
            .map(|o| o.weight())
            .sum::<usize>();
    }
    assert!(octets > 50_000 && octets < 300_000, "{octets}");
    lab.announce(announcements(&["10.97.0.0/16"])).await;
    let told = tokio::time::timeout(PATIENCE, losing.next()).await.unwrap();
    assert!(!told.unwrap().observations.is_empty());
    lab.watched.shutdown().await;
    lab.other.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_does_not_read_is_cut_off_and_told_anew() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let port = listener.local_addr().unwrap().port();
    let entry = json!([{"address": "127.0.0.1", "port": port, "statisticsInterval": 0}]);
    let lab = Lab::start(json!({ "bmp": entry }), json!([])).await;
    let asleep = accept(&listener).await;
    // Each route is an UPDATE of its own, and all of them change each time.
    let routes = |round: u32| -> serde_json::Value {
        let prefix = |n: u32| format!("10.1.{}.{}/32", n / 250, n % 250);
        let route =
            |n| json!({"prefix": prefix(n), "nextHop": "192.0.2.1", "med": round * 10_000 + n});
        (0..4000).map(route).collect()
    };
    let state = async || {
        let summary = lab.ask(json!({"query": "summary"})).await;
        let station = &summary["stations"][0];
        station["lastError"].as_str().map(str::to_owned)
    };
    let mut error = None;
    for round in 0..200 {
        lab.announce(routes(round)).await;
        lab.received(4000).await;
        error = state().await;
        if error.is_some() {
            break;
        }
    }
    let error = error.unwrap();
    assert!(
        error.contains("cut off: more than 16 MiB waited"),
        "{error}"
    );
    // The session has not noticed.
    let summary = lab.watched.speaker().summary().await.unwrap();
    assert_eq!((summary[0].flaps, summary[0].prefixes_received), (0, 4000));
    let mut awake = accept(&listener).await;
    assert!(matches!(awake.next().await, Message::Initiation { .. }));
    assert!(matches!(awake.next().await, Message::PeerUp { .. }));
    assert_eq!(awake.table(1).await.len(), 4000);
    drop(asleep);
    lab.watched.shutdown().await;
    lab.other.shutdown().await;
}

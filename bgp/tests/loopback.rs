//! Two speakers over real TCP on the loopback.

#![cfg(feature = "speaker")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use margay_bgp::fsm::State;
use margay_bgp::speaker::{
    Announcement, PeerConfig, RouteChange, RouteStream, Shutdown, Speaker, SpeakerConfig,
    SpeakerError,
};
use margay_bgp::types::{Asn, Prefix, RouterId};

/// A loopback address is no next hop, so the routes here carry another one.
const NEXT_HOP: &str = "192.0.2.1";
const PATIENCE: Duration = Duration::from_secs(10);

fn announcement() -> Announcement {
    Announcement {
        next_hop: NEXT_HOP.parse().ok(),
        ..Announcement::default()
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn config(last: u32, address: &str, asn: u32) -> SpeakerConfig {
    SpeakerConfig {
        listen: vec![SocketAddr::new(address.parse().unwrap(), 0)],
        require_policy: false,
        ..SpeakerConfig::new(Asn(asn), RouterId(last))
    }
}

/// Two speakers that know each other; the second one only waits.
async fn pair(first: &str, second: &str) -> [(Speaker, SpeakerConfig); 2] {
    let mut configs = [config(1, first, 64512), config(2, second, 64513)];
    let mut speakers = Vec::new();
    for config in &configs {
        speakers.push(Speaker::start(config.clone()).await.unwrap());
    }
    let addresses = [
        speakers[0].listening().await.unwrap()[0],
        speakers[1].listening().await.unwrap()[0],
    ];
    for (own, other, asn) in [(0, 1, 64513), (1, 0, 64512)] {
        let peer = PeerConfig {
            port: addresses[other].port(),
            local_address: Some(addresses[own].ip()),
            ..PeerConfig::new(addresses[other].ip(), Asn(asn))
        };
        configs[own].peers.insert(addresses[other].ip(), peer);
        speakers[own].configure(configs[own].clone()).await.unwrap();
    }
    let [a, b] = configs;
    let second = speakers.pop().unwrap();
    [(speakers.pop().unwrap(), a), (second, b)]
}

/// Reads the stream until a change of this prefix.
async fn change_of(stream: &mut RouteStream, wanted: Prefix) -> RouteChange {
    let find = async {
        loop {
            let batch = stream.next_batch().await.unwrap();
            if let Some(change) = batch.changes.into_iter().find(|c| c.prefix == wanted) {
                return change;
            }
        }
    };
    tokio::time::timeout(PATIENCE, find).await.unwrap()
}

async fn wait_for_state(speaker: &Speaker, wanted: State) {
    let check = async {
        while speaker.summary().await.unwrap()[0].state != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, check).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_come_and_go() {
    let [(a, mut config), (b, _)] = pair("127.0.0.1", "127.0.0.2").await;
    let mut routes = b.subscribe().await.unwrap();
    let route = prefix("10.9.0.0/24");
    config.announcements.insert(route, announcement());
    a.configure(config.clone()).await.unwrap();
    let path = change_of(&mut routes, route).await.paths.remove(0);
    assert_eq!(path.next_hop.to_string(), NEXT_HOP);
    assert_eq!(path.peer.to_string(), "127.0.0.1");
    config.announcements.clear();
    a.configure(config).await.unwrap();
    assert!(change_of(&mut routes, route).await.paths.is_empty());
    assert_eq!(a.summary().await.unwrap()[0].flaps, 0);
    a.shutdown(Shutdown::Graceful).await;
    b.shutdown(Shutdown::Graceful).await;
    assert!(routes.next_batch().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_routes_arrive_and_leave_with_the_session() {
    let [(a, mut config), (b, _)] = pair("127.0.0.1", "127.0.0.4").await;
    wait_for_state(&b, State::Established).await;
    for i in 0..10_000_u32 {
        let address = std::net::Ipv4Addr::from(0x1400_0000 + (i << 8));
        config
            .announcements
            .insert(Prefix::v4(address, 24).unwrap(), announcement());
    }
    a.configure(config).await.unwrap();
    let mut routes = b.subscribe().await.unwrap();
    for present in [true, false] {
        let mut count = 0;
        let all = async {
            while count < 10_000 {
                let batch = routes.next_batch().await.unwrap();
                count += batch
                    .changes
                    .iter()
                    .filter(|c| c.paths.is_empty() != present)
                    .count();
            }
        };
        tokio::time::timeout(PATIENCE, all).await.unwrap();
        if present {
            assert_eq!(b.summary().await.unwrap()[0].prefixes_accepted, 10_000);
            let message = "done".to_owned();
            a.shutdown(Shutdown::Cease { message }).await;
        }
    }
    let line = b.summary().await.unwrap().remove(0);
    assert!(
        line.last_error
            .unwrap()
            .contains("administrative shutdown (6/2): \"done\"")
    );
    assert_eq!(line.prefixes_received, 0);
    assert!(matches!(a.summary().await, Err(SpeakerError::Stopped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_cannot_be_opened_changes_nothing() {
    let [(a, mut config), (b, _)] = pair("127.0.0.1", "127.0.0.5").await;
    wait_for_state(&b, State::Established).await;
    config.listen.push("192.0.2.1:179".parse().unwrap());
    let error = a.configure(config).await.unwrap_err().to_string();
    assert!(error.starts_with("listen 192.0.2.1:179: "), "{error}");
    assert_eq!(a.listening().await.unwrap().len(), 1);
    assert_eq!(a.summary().await.unwrap()[0].state, State::Established);
    a.shutdown(Shutdown::Graceful).await;
    b.shutdown(Shutdown::Graceful).await;
}

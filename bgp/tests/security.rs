//! Passwords and distances over real TCP: TCP-MD5 (RFC 2385) and GTSM (RFC 5082) between two speakers on the loopback.

#![cfg(feature = "speaker")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use margay_bgp::config::Security;
use margay_bgp::fsm::State;
use margay_bgp::speaker::{
    Announcement, PeerConfig, PeerSummary, Shutdown, Speaker, SpeakerConfig,
};
use margay_bgp::types::{Asn, RouterId};

const PATIENCE: Duration = Duration::from_secs(15);

struct Side {
    speaker: Speaker,
    config: SpeakerConfig,
    other: IpAddr,
}

impl Side {
    async fn secure(&mut self, security: Security) {
        let peer = self.config.peers.get_mut(&self.other).unwrap();
        peer.security = security;
        self.speaker.configure(self.config.clone()).await.unwrap();
    }

    async fn line(&self) -> PeerSummary {
        self.speaker.summary().await.unwrap().remove(0)
    }

    async fn wait(&self, what: &str, wanted: impl Fn(&PeerSummary) -> bool) -> PeerSummary {
        let check = async {
            loop {
                let line = self.line().await;
                if wanted(&line) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, check).await {
            Ok(line) => line,
            Err(_) => panic!("{what}: {:?}", self.line().await),
        }
    }
}

fn password(text: &str) -> Security {
    Security {
        password: Some(text.into()),
        ..Security::default()
    }
}

fn hops(count: u8) -> Security {
    Security {
        ttl_security: Some(count),
        ..Security::default()
    }
}

/// Two speakers that know each other; the second one only waits.
async fn pair(addresses: [&str; 2], securities: [Security; 2]) -> [Side; 2] {
    let ips = addresses.map(|text| text.parse::<IpAddr>().unwrap());
    let mut sides = Vec::new();
    for (index, asn) in [(0, 64512), (1, 64513)] {
        let config = SpeakerConfig {
            listen: vec![SocketAddr::new(ips[index], 0)],
            require_policy: false,
            ..SpeakerConfig::new(Asn(asn), RouterId(asn))
        };
        let speaker = Speaker::start(config.clone()).await.unwrap();
        sides.push(Side {
            speaker,
            config,
            other: ips[1 - index],
        });
    }
    let ports = [
        sides[0].speaker.listening().await.unwrap()[0].port(),
        sides[1].speaker.listening().await.unwrap()[0].port(),
    ];
    // The one that waits first, so that the other one finds it ready.
    for (index, asn) in [(1, 64512), (0, 64513)] {
        let peer = PeerConfig {
            port: ports[1 - index],
            local_address: Some(ips[index]),
            passive: index == 1,
            connect_retry_time: Duration::from_millis(500),
            security: securities[index].clone(),
            ..PeerConfig::new(ips[1 - index], Asn(asn))
        };
        let side = &mut sides[index];
        side.config.peers.insert(side.other, peer);
        side.speaker.configure(side.config.clone()).await.unwrap();
    }
    sides.try_into().ok().unwrap()
}

async fn stop(sides: [Side; 2]) {
    for side in sides {
        side.speaker.shutdown(Shutdown::Graceful).await;
    }
}

fn is_up(line: &PeerSummary) -> bool {
    line.state == State::Established
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_password_connects_and_can_be_changed_without_a_flap() {
    let mut sides = pair(
        ["127.0.1.1", "127.0.1.2"],
        [password("one"), password("one")],
    )
    .await;
    sides[0].wait("up with one password", is_up).await;
    for side in &mut sides {
        side.secure(password("two")).await;
    }
    // What is sent now is signed with the new key.
    let announcement = Announcement {
        next_hop: "192.0.2.1".parse().ok(),
        ..Announcement::default()
    };
    let route = "10.9.0.0/24".parse().unwrap();
    sides[1].config.announcements.insert(route, announcement);
    let config = sides[1].config.clone();
    sides[1].speaker.configure(config).await.unwrap();
    let got = |line: &PeerSummary| line.prefixes_received == 1;
    let line = sides[0].wait("a route over the new key", got).await;
    assert_eq!(line.flaps, 0);
    stop(sides).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_works_over_ipv6() {
    let sides = pair(["::1", "::1"], [password("one"), password("one")]).await;
    sides[0].wait("up with one password", is_up).await;
    stop(sides).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_does_not_and_the_reason_is_visible() {
    let securities = [password("one"), password("two")];
    let mut sides = pair(["127.0.1.3", "127.0.1.4"], securities).await;
    let told = |line: &PeerSummary| {
        let error = line.last_error.as_deref().unwrap_or_default();
        error.contains("TCP-MD5") && error.contains("timed out")
    };
    let line = sides[0].wait("the reason", told).await;
    assert_ne!(line.state, State::Established);
    // Put right, it comes up without a restart.
    sides[1].secure(password("one")).await;
    sides[0].wait("up after the correction", is_up).await;
    stop(sides).await;

    let sides = pair(
        ["127.0.1.5", "127.0.1.6"],
        [Security::default(), password("two")],
    )
    .await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_ne!(sides[0].line().await.state, State::Established);
    stop(sides).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gtsm_lets_neighbors_through_and_nobody_else() {
    let sides = pair(["127.0.1.7", "127.0.1.8"], [hops(1), hops(1)]).await;
    sides[0].wait("up with GTSM", is_up).await;
    stop(sides).await;

    // An eBGP speaker without it sends with TTL 1, which is what comes from 254 hops away.
    let sides = pair(["127.0.1.9", "127.0.1.10"], [Security::default(), hops(1)]).await;
    tokio::time::sleep(Duration::from_millis(2000)).await;
    assert_ne!(sides[1].line().await.state, State::Established);
    stop(sides).await;
}

//! Passwords and distances over real TCP: TCP-MD5 (RFC 2385) and GTSM (RFC 5082) between two speakers on the loopback.

#![cfg(feature = "speaker")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use margay_bgp::config::{AoAlgorithm, AoKey, Security};
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
    // The side that waits sees nobody, and why.
    let told = |line: &PeerSummary| {
        let error = line.last_error.as_deref().unwrap_or_default();
        error.contains("segments were dropped for their TCP-MD5 signature")
    };
    sides[1].wait("the reason on the other side", told).await;
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

/// Where the kernel has no TCP-AO, a peer that is to have it stays down, and nothing is ever sent to it unsigned.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_tcp_ao_has_it_or_no_session_and_a_reason() {
    let keys = || Security {
        tcp_ao: vec![AoKey {
            send_id: 1,
            receive_id: 1,
            algorithm: AoAlgorithm::HmacSha1,
            secret: "secret".into(),
        }],
        ..Security::default()
    };
    let sides = pair(["127.0.1.11", "127.0.1.12"], [keys(), keys()]).await;
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    if margay_bgp_sys::has_tcp_ao(&probe).unwrap() {
        sides[0].wait("up with TCP-AO", is_up).await;
        return stop(sides).await;
    }
    println!("SKIPPED-IN-PART: the kernel has no TCP-AO, so only its absence was tried");
    for side in &sides {
        let told = |line: &PeerSummary| {
            let error = line.last_error.as_deref().unwrap_or_default();
            error.contains("tcpAo: this kernel has no TCP-AO")
        };
        let line = side.wait("the reason", told).await;
        assert_eq!(line.messages_sent.total(), 0);
        assert_ne!(line.state, State::Established);
    }
    stop(sides).await;
    // A peer that does not sign is not let in either.
    let sides = pair(["127.0.1.13", "127.0.1.14"], [Security::default(), keys()]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let line = sides[1].line().await;
    assert_ne!(line.state, State::Established);
    assert_eq!(line.messages_sent.total(), 0);
    stop(sides).await;
}

/// The kernel has room for only so many keys on one socket (net.core.optmem_max).
#[tokio::test(flavor = "multi_thread")]
async fn peers_whose_keys_find_no_room_on_the_listener_are_refused_with_the_reason() {
    const PEERS: u16 = 4000;
    let address = |index: u16| {
        let [high, low] = index.to_be_bytes();
        IpAddr::from([127, 10, high, low])
    };
    let mut config = SpeakerConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        require_policy: false,
        ..SpeakerConfig::new(Asn(64512), RouterId(1))
    };
    for index in 0..PEERS {
        let peer = PeerConfig {
            passive: true,
            security: password("one"),
            ..PeerConfig::new(address(index), Asn(64513))
        };
        config.peers.insert(address(index), peer);
    }
    let speaker = Speaker::start(config.clone()).await.unwrap();
    let to = speaker.listening().await.unwrap()[0];
    let barred = |lines: &[PeerSummary]| {
        let why = "password: cannot set the TCP-MD5 key: ";
        let told = |line: &&PeerSummary| {
            let error = line.last_error.as_deref().unwrap_or_default();
            error.starts_with(why)
        };
        let addresses = lines.iter().filter(told).map(|line| line.address);
        addresses.collect::<Vec<_>>()
    };
    let refused = barred(&speaker.summary().await.unwrap());
    println!("{} of {PEERS} keys found no room", refused.len());
    let Some(who) = refused.last().copied() else {
        println!("SKIPPED-IN-PART: this kernel has room for {PEERS} keys on a socket");
        return speaker.shutdown(Shutdown::Graceful).await;
    };
    // The kernel would let it in without a signature; the speaker does not.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(who, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    let mut octets = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut octets);
    assert_eq!(octets, [0_u8; 0], "an OPEN went out without a signature");
    // With fewer peers there is room, and it is let in.
    config.peers.retain(|address, _| *address == who);
    speaker.configure(config).await.unwrap();
    assert!(barred(&speaker.summary().await.unwrap()).is_empty());
    speaker.shutdown(Shutdown::Graceful).await;
}

//! A peer that comes and goes each second for an hour, and one that connects and says nothing: neither costs anything that
//! grows.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use margay_bgp::config::{PeerConfig, PeerRange, SpeakerConfig};
use margay_bgp::fsm::State;
use margay_bgp::router::{ConnectionId, Output, Router};
use margay_bgp::types::{Asn, Prefix, RouterId};
use margay_bgp::wire::{self, Context, Message, Open};
use margay_bgp_fuzz::TARGETS;
use margay_bgp_sys::measure;

const SECOND: Duration = Duration::from_secs(1);
const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

struct Lab {
    router: Router,
    now: Instant,
}

fn octets(message: &Message) -> BytesMut {
    let mut out = BytesMut::new();
    wire::encode(message, &Context::default(), &mut out).unwrap();
    out
}

impl Lab {
    fn new(listed: bool) -> Self {
        let mut config = SpeakerConfig::new(Asn(65000), RouterId(1));
        let peer = PeerConfig {
            passive: true,
            ..PeerConfig::new(PEER, Asn(65001))
        };
        if listed {
            config.peers.insert(PEER, peer);
        } else {
            let range = PeerRange { limit: 3, peer };
            let network = Prefix::new(PEER, 24).unwrap();
            config.ranges.insert(network, range);
        }
        let now = Instant::now();
        let router = Router::new(now, config, 1).unwrap();
        Self { router, now }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.router.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.router.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    /// True if a connection was closed.
    fn settle(&mut self) -> bool {
        let mut closed = false;
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Transmit(connection) => while self.router.transmit(connection).is_some() {},
                Output::Close { .. } => closed = true,
                _ => {}
            }
        }
        closed
    }

    fn connect(&mut self) -> Option<ConnectionId> {
        let local = SocketAddr::from(([10, 0, 0, 1], 179));
        let remote = SocketAddr::new(PEER, 40_000);
        self.router.handle_incoming(self.now, remote, local)
    }

    /// Comes up, and goes; false if it is not let in.
    fn flap(&mut self) -> bool {
        let Some(connection) = self.connect() else {
            return false;
        };
        let open = Message::Open(Open {
            asn: Asn(65001),
            hold_time: 90,
            router_id: RouterId(2),
            capabilities: Vec::new(),
        });
        for message in [open, Message::Keepalive] {
            self.router
                .handle_octets(self.now, connection, &octets(&message));
            self.settle();
        }
        assert_eq!(self.router.established(), 1);
        let reason = "the peer closed the connection".to_owned();
        self.router.handle_closed(self.now, connection, reason);
        self.settle();
        true
    }

    /// Sessions in a time, with one attempt each second.
    fn flaps(&mut self, time: u32) -> usize {
        let mut sessions = 0;
        for _ in 0..time {
            sessions += usize::from(self.flap());
            self.pass(SECOND);
        }
        sessions
    }
}

#[test]
fn an_hour_of_flapping_costs_few_sessions_and_no_memory() {
    assert!(
        !TARGETS.is_empty(),
        "with them comes the allocator that counts"
    );
    for listed in [true, false] {
        let mut lab = Lab::new(listed);
        let first = lab.flaps(600);
        let (more, allocated) = measure(|| lab.flaps(3600));
        assert!(
            first <= 5 + 600 / 20,
            "{first} sessions in ten minutes, listed: {listed}"
        );
        assert!(
            more <= 3600 / 20,
            "{more} sessions in an hour, listed: {listed}"
        );
        assert!(
            allocated.peak < 64 * 1024,
            "{allocated:?}, listed: {listed}"
        );
        // Seen while it is held off.
        while lab.flap() {
            lab.pass(Duration::from_millis(100));
        }
        let line = lab.router.summary().remove(0);
        assert_eq!(line.state, State::Idle);
        assert!(line.held_until.unwrap() > lab.now);
        // One that has learned is welcome.
        lab.pass(120 * SECOND);
        assert!(lab.flap(), "listed: {listed}");
    }
}

#[test]
fn a_connection_that_says_nothing_is_closed_after_a_minute_and_others_take_its_place_before() {
    for listed in [true, false] {
        let mut lab = Lab::new(listed);
        lab.connect().unwrap();
        lab.settle();
        lab.pass(59 * SECOND);
        let line = lab.router.summary().remove(0);
        assert_eq!(line.state, State::OpenSent);
        // Half a message is nothing either.
        let again = lab.connect().unwrap();
        assert!(lab.settle(), "the older one is closed");
        lab.router.handle_octets(lab.now, again, &[0xff; 18]);
        lab.pass(59 * SECOND);
        assert_eq!(lab.router.summary().remove(0).state, State::OpenSent);
        lab.pass(2 * SECOND);
        let line = lab.router.summary().pop();
        if listed {
            let line = line.unwrap();
            assert_eq!(
                line.last_error.as_deref(),
                Some("sent hold timer expired (4/0)")
            );
        }
        assert_eq!(lab.router.established(), 0);
        let (_, allocated) = measure(|| {
            for _ in 0..10_000 {
                lab.connect();
                lab.settle();
                lab.pass(Duration::from_millis(1));
            }
        });
        assert!(allocated.peak < 64 * 1024, "{allocated:?}");
    }
}

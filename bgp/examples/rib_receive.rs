//! How fast and how large the receiving half of the speaker is, without sockets: streams of UPDATEs as octets into
//! [`Router::handle_octets`].
//!
//! `cargo run --release -p margay-bgp --example rib_receive [SCENARIO…]`; without arguments every scenario, each in a
//! process of its own so that peak memory is its own. Prints the time in the router, the process's CPU time (which includes
//! making the stream) and its peak resident memory; then the time to drop everything when the sessions end, and the longest
//! that anything else would have had to wait for a part of it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use margay_bgp::config::{PeerConfig, SpeakerConfig};
use margay_bgp::router::{ConnectionId, Router};
use margay_bgp::types::{Asn, Community, Family, FamilySet, Prefix, RouterId};
use margay_bgp::wire::{
    self, AsPath, Capability, Context, Message, Nlri, Open, PathAttributes, Reach, SessionKind,
    Update,
};

type Error = Box<dyn std::error::Error>;

/// What is sent.
struct Scenario {
    name: &'static str,
    peers: u32,
    /// Prefixes from each peer.
    prefixes: u32,
    /// Prefixes in one UPDATE.
    together: u32,
    /// Attribute sets, used in turn by the UPDATEs of a peer.
    sets: u32,
    /// Every peer has prefixes of its own.
    disjoint: bool,
    /// In no order.
    shuffled: bool,
}

const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "packed",
        peers: 1,
        prefixes: 800_000,
        together: 256,
        sets: 1,
        disjoint: true,
        shuffled: false,
    },
    Scenario {
        name: "diverse8",
        peers: 1,
        prefixes: 800_000,
        together: 8,
        sets: 100_000,
        disjoint: true,
        shuffled: false,
    },
    Scenario {
        name: "diverse8-shuffled",
        peers: 1,
        prefixes: 800_000,
        together: 8,
        sets: 100_000,
        disjoint: true,
        shuffled: true,
    },
    Scenario {
        name: "scattered",
        peers: 1,
        prefixes: 800_000,
        together: 1,
        sets: 100_000,
        disjoint: true,
        shuffled: false,
    },
    Scenario {
        name: "scattered-shuffled",
        peers: 1,
        prefixes: 800_000,
        together: 1,
        sets: 100_000,
        disjoint: true,
        shuffled: true,
    },
    Scenario {
        name: "20x10k",
        peers: 20,
        prefixes: 10_000,
        together: 256,
        sets: 1,
        disjoint: true,
        shuffled: false,
    },
    Scenario {
        name: "20x10k-same",
        peers: 20,
        prefixes: 10_000,
        together: 256,
        sets: 1,
        disjoint: false,
        shuffled: false,
    },
];

fn main() -> Result<(), Error> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let [name] = wanted.as_slice()
        && let Some(scenario) = SCENARIOS.iter().find(|s| s.name == *name)
    {
        println!("{}", run(scenario)?);
        return Ok(());
    }
    println!(
        "{:<20} {:>9} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "scenario", "router s", "CPU s", "ns/route", "peak MB", "drop s", "step ms"
    );
    let program = std::env::current_exe()?;
    for scenario in &SCENARIOS {
        if wanted.is_empty() || wanted.iter().any(|name| name == scenario.name) {
            std::process::Command::new(&program)
                .arg(scenario.name)
                .status()?;
        }
    }
    Ok(())
}

fn run(scenario: &Scenario) -> Result<String, Error> {
    let now = Instant::now();
    let (mut router, connections) = establish(now, scenario)?;
    let mut inside = Duration::ZERO;
    let mut stream = BytesMut::new();
    for (peer, connection) in (0..).zip(&connections) {
        let updates = scenario.prefixes / scenario.together;
        for index in 0..updates {
            write_update(&mut stream, scenario, peer, index)?;
            if stream.len() > 60_000 || index + 1 == updates {
                let start = Instant::now();
                router.handle_octets(now, *connection, &stream);
                while router.poll_output().is_some() {}
                inside += start.elapsed();
                stream.clear();
            }
        }
    }
    let routes: u64 = router.summary().iter().map(|s| s.prefixes_accepted).sum();
    let (cpu, peak) = (cpu_seconds()?, peak_memory()?);
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    for connection in connections {
        let step = Instant::now();
        router.handle_closed(now, connection, "over".to_owned());
        longest = longest.max(step.elapsed());
    }
    while router.poll_timeout().is_some_and(|at| at <= now) {
        let step = Instant::now();
        router.handle_timeout(now);
        longest = longest.max(step.elapsed());
    }
    let drop = start.elapsed();
    let left: u64 = router.summary().iter().map(|s| s.prefixes_received).sum();
    if left > 0 {
        return Err(format!("{left} routes are left").into());
    }
    let expected = scenario.peers * (scenario.prefixes / scenario.together) * scenario.together;
    if routes != u64::from(expected) {
        return Err(format!("{routes} routes instead of {expected}").into());
    }
    let mut line = String::new();
    write!(
        line,
        "{:<20} {:>9.3} {:>8.3} {:>9.0} {:>9.1} {:>9.3} {:>9.3}",
        scenario.name,
        inside.as_secs_f64(),
        cpu,
        inside.as_nanos() as f64 / f64::from(expected),
        peak,
        drop.as_secs_f64(),
        longest.as_secs_f64() * 1000.0,
    )?;
    Ok(line)
}

fn address(peer: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0002 + peer).into()
}

fn establish(now: Instant, scenario: &Scenario) -> Result<(Router, Vec<ConnectionId>), Error> {
    let mut config = SpeakerConfig {
        require_policy: false,
        ..SpeakerConfig::new(Asn(65000), RouterId(1))
    };
    for peer in 0..scenario.peers {
        let mut peer_config = PeerConfig::new(address(peer), Asn(65001 + peer));
        peer_config.passive = true;
        config.peers.insert(address(peer), peer_config);
    }
    let mut router = Router::new(now, config, 42)?;
    let mut connections = Vec::new();
    let context = Context::default();
    for peer in 0..scenario.peers {
        let open = Open {
            asn: Asn(65001 + peer),
            hold_time: 90,
            router_id: RouterId(1000 + peer),
            capabilities: vec![
                Capability::FourOctetAsn(Asn(65001 + peer)),
                Capability::Multiprotocol(Family::Ipv4Unicast),
            ],
        };
        let remote = SocketAddr::new(address(peer), 40_000);
        let local = SocketAddr::new(Ipv4Addr::from(0x0a00_0001).into(), 179);
        let connection = router
            .handle_incoming(now, remote, local)
            .ok_or("connection refused")?;
        let mut octets = BytesMut::new();
        wire::encode(&Message::Open(open), &context, &mut octets)?;
        wire::encode(&Message::Keepalive, &context, &mut octets)?;
        router.handle_octets(now, connection, &octets);
        connections.push(connection);
    }
    while router.poll_output().is_some() {}
    for connection in &connections {
        while router.transmit(*connection).is_some() {}
    }
    if router.established() != connections.len() {
        return Err("not every session came up".into());
    }
    Ok((router, connections))
}

fn write_update(
    out: &mut BytesMut,
    scenario: &Scenario,
    peer: u32,
    index: u32,
) -> Result<(), Error> {
    let set = index % scenario.sets;
    let attributes = PathAttributes {
        as_path: AsPath::sequence(
            [65001 + peer, 1000 + set % 50_000, 100 + set / 7, 3356].map(Asn),
        ),
        med: set.is_multiple_of(3).then_some(set),
        communities: vec![
            Community((65001 << 16) | (set & 0xffff)),
            Community((65001 << 16) | (set >> 16)),
        ],
        ..PathAttributes::default()
    };
    let first = index * scenario.together
        + if scenario.disjoint {
            peer * scenario.prefixes
        } else {
            0
        };
    let nlri = (first..first + scenario.together).map(|number| {
        let number = if scenario.shuffled {
            // A permutation of the numbers below the prime 800,011 that is near enough to the count.
            (u64::from(number + 1) * 481_763 % 800_011) as u32
        } else {
            number
        };
        Prefix::v4(Ipv4Addr::from(0x0100_0000 + (number << 8)), 24).map(Nlri::from)
    });
    let update = Update {
        reach: vec![Reach {
            family: Family::Ipv4Unicast,
            next_hop: wire::NextHop::from(address(peer)),
            nlri: nlri.collect::<Result<_, _>>()?,
        }],
        attributes,
        ..Update::default()
    };
    let context = Context {
        four_octet_asn: true,
        session: SessionKind::External,
        families: FamilySet::only(Family::Ipv4Unicast),
        ..Context::default()
    };
    wire::encode(&Message::Update(update), &context, out)?;
    Ok(())
}

/// CPU time of the process so far, in seconds.
fn cpu_seconds() -> Result<f64, Error> {
    let text = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().ok_or("empty schedstat")?.parse()?;
    Ok(nanoseconds / 1e9)
}

/// Peak resident memory in megabytes.
fn peak_memory() -> Result<f64, Error> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"));
    let field = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: f64 = field.ok_or("no VmHWM")?.parse()?;
    Ok(kilobytes / 1024.0)
}

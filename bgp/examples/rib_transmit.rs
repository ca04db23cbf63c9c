//! How fast and how large the sending half of the speaker is, without sockets: routes in as octets, what every peer is sent
//! out as octets.
//!
//! `cargo run --release -p margay-bgp --example rib_transmit [SCENARIO…]`; without arguments every scenario, each in a
//! process of its own so that peak memory is its own. For each: the time in the router from the first route to the last
//! octet, that for withdrawing everything again by the loss of the sessions it came from, routes delivered and octets sent,
//! the process's CPU time (which includes making the stream) and its peak resident memory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use margay_bgp::config::{PeerConfig, SpeakerConfig};
use margay_bgp::router::{ConnectionId, Output, Router};
use margay_bgp::types::{Asn, Family, FamilySet, Prefix, RouterId};
use margay_bgp::wire::{
    self, AsPath, Capability, Context, Message, Nlri, Open, PathAttributes, Reach, SessionKind,
    Update,
};

type Error = Box<dyn std::error::Error>;

const OURS: u32 = 65000;

struct Scenario {
    name: &'static str,
    /// Peers that send, and how many routes each.
    senders: u32,
    prefixes: u32,
    /// Prefixes in one UPDATE.
    together: u32,
    /// Peers that only listen.
    listeners: u32,
    /// All are clients of a route reflector; else all are external.
    clients: bool,
}

const fn scenario(
    name: &'static str,
    senders: u32,
    prefixes: u32,
    together: u32,
    listeners: u32,
    clients: bool,
) -> Scenario {
    Scenario {
        name,
        senders,
        prefixes,
        together,
        listeners,
        clients,
    }
}

const SCENARIOS: [Scenario; 7] = [
    scenario("reflector-200x10", 200, 10, 10, 0, true),
    scenario("transit-packed", 1, 800_000, 256, 1, false),
    scenario("transit-diverse8", 1, 800_000, 8, 1, false),
    scenario("transit-scattered", 1, 800_000, 1, 1, false),
    scenario("fan-out-10k-200", 1, 10_000, 8, 200, false),
    scenario("withdraw-one", 1, 1, 1, 200, false),
    scenario("idle-1000", 0, 0, 1, 1000, true),
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
        "{:<20} {:>9} {:>11} {:>10} {:>9} {:>8} {:>8}",
        "scenario", "router ms", "withdraw ms", "delivered", "MB sent", "CPU s", "peak MB"
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
    let mut sent = 0;
    let mut stream = BytesMut::new();
    for peer in 0..scenario.senders {
        let updates = scenario.prefixes / scenario.together;
        for index in 0..updates {
            write_update(&mut stream, scenario, peer, index)?;
            // What one read of a socket gives.
            if stream.len() > 60_000 || index + 1 == updates {
                let start = Instant::now();
                router.handle_octets(now, connections[peer as usize], &stream);
                sent += drain(&mut router);
                inside += start.elapsed();
                stream.clear();
            }
        }
    }
    let delivered: u64 = router.summary().iter().map(|s| s.prefixes_sent).sum();
    let (cpu, peak) = (cpu_seconds()?, peak_memory()?);
    let start = Instant::now();
    for connection in connections.iter().take(scenario.senders as usize) {
        router.handle_closed(now, *connection, "over".to_owned());
    }
    drain(&mut router);
    let withdraw = start.elapsed();
    Ok(format!(
        "{:<20} {:>9.1} {:>11.2} {:>10} {:>9.1} {:>8.3} {:>8.1}",
        scenario.name,
        inside.as_secs_f64() * 1e3,
        withdraw.as_secs_f64() * 1e3,
        delivered,
        sent as f64 / 1e6,
        cpu,
        peak,
    ))
}

/// Sends everything there is; returns the number of octets.
fn drain(router: &mut Router) -> usize {
    let mut sent = 0;
    while let Some(output) = router.poll_output() {
        if let Output::Transmit(connection) = output {
            while let Some(octets) = router.transmit(connection) {
                sent += octets.remaining();
            }
        }
    }
    sent
}

fn address(peer: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0002 + peer).into()
}

fn asn(scenario: &Scenario, peer: u32) -> Asn {
    Asn(if scenario.clients {
        OURS
    } else {
        OURS + 1 + peer
    })
}

fn establish(now: Instant, scenario: &Scenario) -> Result<(Router, Vec<ConnectionId>), Error> {
    let mut config = SpeakerConfig {
        require_policy: false,
        ..SpeakerConfig::new(Asn(OURS), RouterId(1))
    };
    let peers = scenario.senders + scenario.listeners;
    for peer in 0..peers {
        let mut peer_config = PeerConfig::new(address(peer), asn(scenario, peer));
        peer_config.passive = true;
        peer_config.policy.route_reflector_client = scenario.clients;
        config.peers.insert(address(peer), peer_config);
    }
    let mut router = Router::new(now, config, 42)?;
    let mut connections = Vec::new();
    for peer in 0..peers {
        let asn = asn(scenario, peer);
        let open = Open {
            asn,
            hold_time: 90,
            router_id: RouterId(1000 + peer),
            capabilities: vec![
                Capability::FourOctetAsn(asn),
                Capability::Multiprotocol(Family::Ipv4Unicast),
            ],
        };
        let remote = SocketAddr::new(address(peer), 40_000);
        let local = SocketAddr::new(Ipv4Addr::from(0x0a00_0001).into(), 179);
        let connection = router
            .handle_incoming(now, remote, local)
            .ok_or("connection refused")?;
        let mut octets = BytesMut::new();
        wire::encode(&Message::Open(open), &Context::default(), &mut octets)?;
        wire::encode(&Message::Keepalive, &Context::default(), &mut octets)?;
        router.handle_octets(now, connection, &octets);
        connections.push(connection);
    }
    drain(&mut router);
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
    let mut path = vec![];
    if !scenario.clients {
        path.push(asn(scenario, peer));
    }
    path.extend([1000 + index % 50_000, 100 + index / 7].map(Asn));
    let attributes = PathAttributes {
        as_path: AsPath::sequence(path),
        local_pref: scenario.clients.then_some(100),
        ..PathAttributes::default()
    };
    let first = peer * scenario.prefixes + index * scenario.together;
    let nlri = (first..first + scenario.together)
        .map(|number| Prefix::v4(Ipv4Addr::from(0x0100_0000 + (number << 8)), 24).map(Nlri::from));
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
        session: if scenario.clients {
            SessionKind::Internal
        } else {
            SessionKind::External
        },
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

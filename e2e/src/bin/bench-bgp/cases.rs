//! The measurements of tables: what is sent, and when it is over.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::daemon::{ASN, Daemon, Kind, Neighbor, Setup};
use crate::events::Events;
use crate::net::{DAEMON, DAEMON_TO_MONITOR, MONITOR, Side, sender};
use crate::peer::{Peer, Session};
use crate::stream::{self, Profile};

/// A hold time that no measurement outlasts, so that nobody has to send KEEPALIVEs.
const HOLD: u16 = 240;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Case {
    Packed,
    Diverse8,
    Scattered,
    Peers20,
    Reflect200,
    Mesh1000,
    Transit,
    Kernel,
    Idle1000,
}

impl Case {
    pub(crate) const ALL: [Self; 9] = [
        Self::Packed,
        Self::Diverse8,
        Self::Scattered,
        Self::Transit,
        Self::Peers20,
        Self::Reflect200,
        Self::Mesh1000,
        Self::Kernel,
        Self::Idle1000,
    ];

    /// What it is, for a table; `count` is the size of a whole table.
    pub(crate) fn title(self, count: usize) -> String {
        match self {
            Self::Packed => format!("{count} prefixes received, packed"),
            Self::Diverse8 => format!("{count} prefixes received, 8 an attribute set"),
            Self::Scattered => format!("{count} prefixes received, 1 a message"),
            Self::Transit => format!("{count} prefixes received and given on"),
            Self::Peers20 => "20 peers with the same 10,000 prefixes".to_owned(),
            Self::Reflect200 => "200 clients with 10 prefixes each, reflected".to_owned(),
            Self::Mesh1000 => "1,000 mesh sessions up and converged".to_owned(),
            Self::Kernel => "10,000 routes into the kernel".to_owned(),
            Self::Idle1000 => "1,000 peers configured and unreachable".to_owned(),
        }
    }

    /// How many senders' addresses it needs.
    pub(crate) fn senders(self) -> usize {
        match self {
            Self::Packed | Self::Diverse8 | Self::Scattered | Self::Transit | Self::Kernel => 1,
            Self::Peers20 => 20,
            Self::Reflect200 => 200,
            Self::Mesh1000 => 1001,
            Self::Idle1000 => 0,
        }
    }

    /// Whether the daemon can do it at all.
    pub(crate) fn applies_to(self, kind: Kind) -> bool {
        self != Self::Kernel || kind.installs()
    }
}

/// What one measurement gave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    /// Seconds until it was over.
    pub(crate) time: f64,
    /// CPU seconds of the daemon until it was idle.
    pub(crate) cpu: f64,
    /// The most memory it had, in kB; kB a peer where peers are what is measured.
    pub(crate) memory: f64,
}

/// Where things are.
pub(crate) struct Bench<'a> {
    pub(crate) margay: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) count: usize,
    pub(crate) patience: Duration,
}

impl Bench<'_> {
    pub(crate) fn start(&self, kind: Kind, setup: &Setup) -> Result<Daemon> {
        Daemon::start(kind, setup, self.folder, self.margay)
    }

    /// Measures once.
    pub(crate) fn measure(&self, kind: Kind, case: Case) -> Result<Figures> {
        match case {
            Case::Packed => self.receive(kind, Profile::Packed),
            Case::Diverse8 => self.receive(kind, Profile::Diverse8),
            Case::Scattered => self.receive(kind, Profile::Scattered),
            Case::Transit => self.transit(kind),
            Case::Peers20 => self.peers(kind, 20, 10_000),
            Case::Reflect200 => self.reflect(kind, 200, 10),
            Case::Mesh1000 => self.mesh(kind, 1000),
            Case::Kernel => self.kernel(kind, 10_000),
            Case::Idle1000 => self.idle(kind, 1000),
        }
    }

    fn receive(&self, kind: Kind, profile: Profile) -> Result<Figures> {
        let octets = stream::table(profile, self.count, 65_001, sender(0));
        let daemon = self.start(kind, &setup(vec![external(0)]))?;
        let mut peer = open(external(0))?;
        let run = Run::begin(&daemon);
        peer.send(&octets)?;
        let wanted = self.count as u64;
        self.wait(&daemon, daemon.poll_interval(), || {
            Ok(daemon.received()? >= wanted)
        })?;
        Ok(run.end(&daemon))
    }

    fn transit(&self, kind: Kind) -> Result<Figures> {
        let octets = stream::table(Profile::Diverse8, self.count, 65_001, sender(0));
        let mut setup = setup(vec![external(0), monitor()]);
        setup.export = true;
        let daemon = self.start(kind, &setup)?;
        let seen = Side::Monitor.enter(|| open(monitor()))?;
        let mut peer = open(external(0))?;
        let run = Run::begin(&daemon);
        peer.send(&octets)?;
        let wanted = self.count as u64;
        self.wait(&daemon, Duration::from_millis(2), || {
            Ok(seen.announced() >= wanted)
        })?;
        Ok(run.end_at(&daemon, seen.last_announced()))
    }

    fn peers(&self, kind: Kind, peers: usize, count: usize) -> Result<Figures> {
        let neighbors: Vec<Neighbor> = (0..peers).map(external).collect();
        let daemon = self.start(kind, &setup(neighbors.clone()))?;
        let mut sessions = open_all(&neighbors)?;
        let streams: Vec<Vec<u8>> = (0..peers)
            .map(|number| {
                let asn = neighbors[number].asn;
                stream::table(Profile::Diverse8, count, asn, sender(number))
            })
            .collect();
        let run = Run::begin(&daemon);
        std::thread::scope(|scope| {
            for (session, octets) in sessions.iter_mut().zip(&streams) {
                scope.spawn(move || session.send(octets));
            }
        });
        let wanted = (peers * count) as u64;
        self.wait(&daemon, daemon.poll_interval(), || {
            Ok(daemon.received()? >= wanted)
        })?;
        Ok(run.end(&daemon))
    }

    /// Every client announces prefixes of its own and gets those of all others.
    fn reflect(&self, kind: Kind, clients: usize, each: usize) -> Result<Figures> {
        let neighbors: Vec<Neighbor> = (0..clients).map(|number| internal(number, true)).collect();
        let mut setup = setup(neighbors.clone());
        setup.export = true;
        let daemon = self.start(kind, &setup)?;
        let mut sessions = open_all(&neighbors)?;
        let run = Run::begin(&daemon);
        for (number, session) in sessions.iter_mut().enumerate() {
            session.send(&own_prefixes(number, each))?;
        }
        let wanted = ((clients - 1) * each) as u64;
        self.wait(&daemon, Duration::from_millis(2), || {
            Ok(sessions.iter().all(|session| session.announced() >= wanted))
        })?;
        let last = sessions.iter().map(Peer::last_announced).max();
        Ok(run.end_at(&daemon, last.unwrap_or(run.begun)))
    }

    /// A node of a full mesh: it gets four blocks from each, and what comes from outside goes to
    /// all. The time is that from the first connection to the last of it.
    fn mesh(&self, kind: Kind, nodes: usize) -> Result<Figures> {
        let mut neighbors: Vec<Neighbor> =
            (0..nodes).map(|number| internal(number, false)).collect();
        let outside = external(nodes);
        neighbors.push(outside);
        let mut setup = setup(neighbors.clone());
        setup.export = true;
        let daemon = self.start(kind, &setup)?;
        let memory = daemon.memory();
        let run = Run::begin(&daemon);
        let mut sessions = open_all(&neighbors)?;
        for (number, session) in sessions.iter_mut().enumerate() {
            if number < nodes {
                session.send(&own_prefixes(number, 4))?;
            }
        }
        if let Some(last) = sessions.last_mut() {
            let from_outside = stream::attributes(&[outside.asn], outside.address, &[], false);
            let mut octets = Vec::new();
            let block = std::iter::once((30 << 24) + (1 << 8));
            stream::update(&mut octets, &from_outside, block);
            last.send(&octets)?;
        }
        let wanted = (nodes * 4) as u64;
        self.wait(&daemon, Duration::from_millis(5), || {
            let mesh = &sessions[..nodes];
            Ok(mesh.iter().all(|session| session.announced() >= 1)
                && sessions[nodes].announced() >= wanted)
        })?;
        let mut figures = run.end(&daemon);
        figures.memory = daemon.memory().saturating_sub(memory) as f64 / nodes as f64;
        Ok(figures)
    }

    fn kernel(&self, kind: Kind, count: usize) -> Result<Figures> {
        let octets = stream::table(Profile::Packed, count, 65_001, sender(0));
        let mut setup = setup(vec![external(0)]);
        setup.install = true;
        let daemon = self.start(kind, &setup)?;
        let events = Events::routes()?;
        let mut peer = open(external(0))?;
        let run = Run::begin(&daemon);
        peer.send(&octets)?;
        let wanted = count as u64;
        let waited = self.wait(&daemon, Duration::from_millis(2), || {
            Ok(events.count() >= wanted)
        });
        waited.with_context(|| format!("{} routes seen", events.count()))?;
        Ok(run.end_at(&daemon, events.last()))
    }

    /// What a peer costs that never comes: the difference between one and all, a peer.
    fn idle(&self, kind: Kind, peers: usize) -> Result<Figures> {
        let mut memories = Vec::new();
        let mut cpu = 0.0;
        for count in [1, 1 + peers] {
            let mut neighbors: Vec<Neighbor> = (0..count).map(external).collect();
            for neighbor in &mut neighbors {
                neighbor.passive = false;
            }
            let daemon = self.start(kind, &setup(neighbors))?;
            std::thread::sleep(Duration::from_secs(3));
            cpu = daemon.cpu();
            memories.push(daemon.memory() as f64);
        }
        Ok(Figures {
            time: f64::NAN,
            cpu,
            memory: (memories[1] - memories[0]) / peers as f64,
        })
    }

    fn wait(
        &self,
        daemon: &Daemon,
        interval: Duration,
        over: impl Fn() -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        while !over()? {
            if Instant::now() > deadline {
                bail!(
                    "not over after {} s: {}",
                    self.patience.as_secs(),
                    daemon.log()
                );
            }
            std::thread::sleep(interval);
            daemon.poke();
        }
        Ok(())
    }
}

/// A measurement under way.
struct Run {
    begun: Instant,
    cpu: f64,
}

impl Run {
    fn begin(daemon: &Daemon) -> Self {
        Self {
            cpu: daemon.cpu(),
            begun: Instant::now(),
        }
    }

    fn end(&self, daemon: &Daemon) -> Figures {
        self.end_at(daemon, Instant::now())
    }

    fn end_at(&self, daemon: &Daemon, end: Instant) -> Figures {
        Figures {
            time: end.saturating_duration_since(self.begun).as_secs_f64(),
            cpu: daemon.cpu_when_idle() - self.cpu,
            memory: daemon.peak_memory() as f64,
        }
    }
}

fn setup(neighbors: Vec<Neighbor>) -> Setup {
    Setup {
        neighbors,
        hold: HOLD,
        ..Setup::default()
    }
}

/// A sender in an AS of its own.
pub(crate) fn external(number: usize) -> Neighbor {
    Neighbor {
        address: sender(number),
        asn: 65_001 + u32::try_from(number % 400).unwrap_or(0),
        local: DAEMON,
        client: false,
        passive: true,
        bfd: false,
    }
}

fn internal(number: usize, client: bool) -> Neighbor {
    Neighbor {
        asn: ASN,
        client,
        ..external(number)
    }
}

/// The one who sees what is given on.
pub(crate) fn monitor() -> Neighbor {
    Neighbor {
        address: MONITOR,
        asn: 65_500,
        local: DAEMON_TO_MONITOR,
        ..external(0)
    }
}

/// Opens the far end of a neighbor's session from the calling thread's namespace.
fn open_with_hold(neighbor: Neighbor, hold: u16) -> Result<Peer> {
    let session = Session {
        local: neighbor.address,
        remote: neighbor.local,
        asn: neighbor.asn,
        hold,
    };
    session.open(Instant::now() + Duration::from_secs(30))
}

/// Opens the far end of a neighbor's session; senders from their namespace.
pub(crate) fn open(neighbor: Neighbor) -> Result<Peer> {
    open_held(neighbor, HOLD)
}

/// As [`open`], with a hold time.
pub(crate) fn open_held(neighbor: Neighbor, hold: u16) -> Result<Peer> {
    if neighbor.local == DAEMON {
        Side::Senders.enter(|| open_with_hold(neighbor, hold))
    } else {
        open_with_hold(neighbor, hold)
    }
}

/// Opens all, some at a time.
fn open_all(neighbors: &[Neighbor]) -> Result<Vec<Peer>> {
    let parts: Vec<&[Neighbor]> = neighbors
        .chunks(neighbors.len().div_ceil(8).max(1))
        .collect();
    let opened: Vec<Result<Vec<Peer>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| {
                scope.spawn(move || {
                    Side::Senders
                        .enter(|| part.iter().map(|one| open_with_hold(*one, HOLD)).collect())
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.unwrap_or_else(|_| bail!("a thread failed")))
            .collect()
    });
    let mut all = Vec::new();
    for part in opened {
        all.extend(part?);
    }
    Ok(all)
}

/// Prefixes that only this node has.
fn own_prefixes(number: usize, each: usize) -> Vec<u8> {
    let next_hop: Ipv4Addr = sender(number);
    let attributes = stream::attributes(&[], next_hop, &[], true);
    let mut octets = Vec::new();
    let first = number * each;
    stream::update(
        &mut octets,
        &attributes,
        (first..first + each).map(stream::prefix),
    );
    octets
}

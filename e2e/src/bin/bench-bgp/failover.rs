//! From the end of a session to the withdrawal at a third peer.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cases::{Bench, external, monitor, open, open_held};
use crate::daemon::{Daemon, Kind, Setup};
use crate::events::Events;
use crate::net::{DAEMON, Side, sender};
use crate::peer::{KEEPALIVE, Peer, message};
use crate::stream;

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Failure {
    Rst,
    Fin,
    Notification,
    Hold,
    Link,
    Bfd,
    BfdLoad,
}

impl Failure {
    pub(crate) const ALL: [Self; 7] = [
        Self::Rst,
        Self::Fin,
        Self::Notification,
        Self::Hold,
        Self::Link,
        Self::Bfd,
        Self::BfdLoad,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rst => "RST",
            Self::Fin => "FIN",
            Self::Notification => "NOTIFICATION",
            Self::Hold => "hold time 3 s, from the last KEEPALIVE",
            Self::Link => "link down, from RTM_NEWLINK",
            Self::Bfd => "BFD 50 ms x 3, from the peer's silence",
            Self::BfdLoad => "the same with all processors busy",
        }
    }

    pub(crate) fn applies_to(self, kind: Kind) -> bool {
        let bfd = matches!(self, Self::Bfd | Self::BfdLoad);
        !bfd || matches!(kind, Kind::Margay | Kind::Bird)
    }

    fn hold(self) -> u16 {
        if self == Self::Hold { 3 } else { 240 }
    }
}

/// How long a withdrawal is waited for.
const PATIENCE: Duration = Duration::from_secs(8);

impl Bench<'_> {
    /// Milliseconds from the failure to the withdrawal; none if there was none in 8 s.
    pub(crate) fn failover(&self, kind: Kind, failure: Failure) -> Result<Option<f64>> {
        let bfd = matches!(failure, Failure::Bfd | Failure::BfdLoad);
        let mut victim = external(0);
        victim.bfd = bfd;
        let setup = Setup {
            neighbors: vec![victim, monitor()],
            export: true,
            install: false,
            hold: failure.hold(),
        };
        let daemon = self.start(kind, &setup)?;
        let seen = Side::Monitor.enter(|| open(monitor()))?;
        let mut alive = KeepAlive::start(&seen, failure.hold())?;
        let began = if bfd {
            let silent = SilentBird::start(self)?;
            wait_for(&daemon, || seen.announced() >= 1)?;
            // BFD's timers come down to 50 ms only once it is up.
            std::thread::sleep(Duration::from_millis(1500));
            let load = (failure == Failure::BfdLoad)
                .then(Load::start)
                .transpose()?;
            if load.is_some() {
                std::thread::sleep(Duration::from_millis(500));
            }
            let began = silent.stop()?;
            let gone = await_withdrawal(&seen);
            drop((load, silent));
            return Ok(gone.map(|at| milliseconds(began, at)));
        } else {
            let mut peer = open_held(victim, failure.hold())?;
            let attributes = stream::attributes(&[victim.asn], sender(0), &[], false);
            let mut octets = Vec::new();
            stream::update(&mut octets, &attributes, std::iter::once(stream::prefix(0)));
            peer.send(&octets)?;
            wait_for(&daemon, || seen.announced() >= 1)?;
            std::thread::sleep(Duration::from_millis(300));
            end(peer, failure)?
        };
        let gone = await_withdrawal(&seen);
        alive.stop();
        if failure == Failure::Link {
            crate::net::batch(Some(Side::Senders), "link set sr up\n")?;
        }
        let began = match began {
            Begin::At(at) => at,
            Begin::Event(events) => {
                if events.count() == 0 {
                    bail!("the link did not go down");
                }
                events.last()
            }
        };
        Ok(gone.map(|at| milliseconds(began, at)))
    }
}

enum Begin {
    At(Instant),
    Event(Events),
}

fn end(mut peer: Peer, failure: Failure) -> Result<Begin> {
    match failure {
        Failure::Rst => {
            let now = Instant::now();
            peer.reset()?;
            Ok(Begin::At(now))
        }
        Failure::Fin => {
            let now = Instant::now();
            peer.finish()?;
            keep(peer);
            Ok(Begin::At(now))
        }
        Failure::Notification => {
            let now = Instant::now();
            // Cease, administrative shutdown.
            peer.send(&message(3, &[6, 2]))?;
            keep(peer);
            Ok(Begin::At(now))
        }
        Failure::Hold => {
            let now = Instant::now();
            peer.send(&KEEPALIVE)?;
            keep(peer);
            Ok(Begin::At(now))
        }
        Failure::Link => {
            let events = Events::links_down()?;
            keep(peer);
            crate::net::batch(Some(Side::Senders), "link set sr down\n")?;
            Ok(Begin::Event(events))
        }
        Failure::Bfd | Failure::BfdLoad => bail!("not a session of ours"),
    }
}

/// Leaves a session open until the process ends.
fn keep(peer: Peer) {
    std::mem::forget(peer);
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(after) => after.as_secs_f64() * 1e3,
        None => -(from.duration_since(to).as_secs_f64() * 1e3),
    }
}

fn wait_for(daemon: &Daemon, over: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !over() {
        if Instant::now() > deadline {
            bail!("the route never came through: {}", daemon.log());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn await_withdrawal(seen: &Peer) -> Option<Instant> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if seen.withdrawn() > 0 {
            return Some(seen.withdrawals().0);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Sends KEEPALIVEs on the monitor's session while the hold time is short.
struct KeepAlive(Option<std::sync::mpsc::Sender<()>>);

impl KeepAlive {
    fn start(peer: &Peer, hold: u16) -> Result<Self> {
        let mut sink = peer.sink()?;
        let (stop, stopped) = std::sync::mpsc::channel();
        let interval = Duration::from_millis(u64::from(hold) * 300);
        std::thread::spawn(move || {
            use std::io::Write;
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
                stopped.recv_timeout(interval)
            {
                if sink.write_all(&KEEPALIVE).is_err() {
                    return;
                }
            }
        });
        Ok(Self(Some(stop)))
    }

    fn stop(&mut self) {
        self.0 = None;
    }
}

/// A BIRD with BFD among the senders: stopping the process is silence on the wire, with the link
/// and the TCP connection as they were.
struct SilentBird(Child);

impl SilentBird {
    fn start(bench: &Bench<'_>) -> Result<Self> {
        let folder = bench.folder.join("bfd-peer");
        std::fs::create_dir_all(&folder)?;
        let conf = folder.join("conf");
        let text = format!(
            "router id {0};\nprotocol device {{}}\nprotocol bfd {{ interface \"*\" {{ interval 50 ms; multiplier 3; }}; }}\nprotocol static {{ ipv4; route 20.0.0.0/24 blackhole; }}\nprotocol bgp {{ local {0} as 65001; neighbor {DAEMON} as {1}; bfd on; connect delay time 1; hold time 240; ipv4 {{ import none; export all; }}; }}\n",
            sender(0),
            crate::daemon::ASN
        );
        std::fs::write(&conf, text)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = Side::Senders.command("bird");
        command
            .arg("-f")
            .arg("-c")
            .arg(&conf)
            .arg("-s")
            .arg(folder.join("ctl"));
        let child = command
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("bird")?;
        Ok(Self(child))
    }

    /// Silences it; gives when.
    fn stop(&self) -> Result<Instant> {
        use rustix::process::{Pid, Signal, kill_process};
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("pid")?;
        let now = Instant::now();
        kill_process(pid, Signal::STOP)?;
        Ok(now)
    }
}

impl Drop for SilentBird {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two busy processes for each processor, at the usual priority.
struct Load(Vec<Child>);

impl Load {
    fn start() -> Result<Self> {
        let processors = std::thread::available_parallelism()?.get();
        let mut children = Vec::new();
        for _ in 0..2 * processors {
            let mut command = Command::new("sh");
            command
                .args(["-c", "while :; do :; done"])
                .stdin(Stdio::null());
            children.push(command.spawn()?);
        }
        Ok(Self(children))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

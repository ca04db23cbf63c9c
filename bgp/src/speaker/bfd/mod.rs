//! BFD with its sockets: a thread of its own, since neither side's detection may wait behind BGP's work.
//!
//! ```text
//!   owner ──commands──▶ ┌────────────┐ ──UDP──▶ peers
//!         ◀───news───── │ thread bfd │ ◀──UDP──
//!                       └────────────┘
//! ```
//!
//! [`Bfd`] is the owner's end. The thread holds [`crate::bfd::Sessions`], waits for sockets, commands and deadlines with one
//! `ppoll`, and never for the owner: news that find no place wait in the thread, the latest of each session. It runs under a
//! real-time policy if the system permits, so that a busy machine does not look like a dead one.

mod engine;
mod socket;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

pub(super) use crate::bfd::State;
use crate::bfd::{Change, Hops, Path, Report, Settings};
use crate::config::PeerConfig;

/// News waiting for the owner.
const NEWS: usize = 256;

/// One session that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) settings: Settings,
    /// Our address towards the peer; `None` leaves it to the system.
    pub(super) local: Option<IpAddr>,
}

/// A change of a session's state.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    pub(super) path: Path,
    pub(super) change: Change,
}

/// What the owner asks of the thread.
#[derive(Debug)]
enum Command {
    Configure(BTreeMap<Path, Wanted>),
    Report(oneshot::Sender<Vec<Report>>),
}

/// The owner's end. Dropping it ends the sessions as [`Bfd::configure`] with none does, and then the thread.
#[derive(Debug, Default)]
pub(super) struct Bfd {
    running: Option<Running>,
    wanted: BTreeMap<Path, Wanted>,
}

#[derive(Debug)]
struct Running {
    /// `None` only while it is being dropped.
    commands: Option<std::sync::mpsc::Sender<Command>>,
    wake: Arc<OwnedFd>,
    news: mpsc::Receiver<News>,
    thread: Option<JoinHandle<()>>,
}

impl Bfd {
    /// Makes these the sessions that are wanted. The thread starts with the first of them.
    pub(super) fn configure(&mut self, wanted: BTreeMap<Path, Wanted>) {
        if wanted == self.wanted {
            return;
        }
        if self.running.is_none() {
            match Running::start() {
                Ok(running) => self.running = Some(running),
                Err(error) => {
                    warn!(%error, "BFD cannot start: no session of it comes up; the next change of the configuration tries again");
                    return;
                }
            }
        }
        if let Some(running) = &self.running {
            running.say(Command::Configure(wanted.clone()));
        }
        self.wanted = wanted;
    }

    /// The next change of a session's state. Never, if there is no session.
    pub(super) async fn news(&mut self) -> News {
        let next = match &mut self.running {
            Some(running) => running.news.recv().await,
            None => None,
        };
        match next {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// What is known of the sessions; `None` if there are none.
    pub(super) fn report(&self) -> Option<oneshot::Receiver<Vec<Report>>> {
        let running = self.running.as_ref().filter(|_| !self.wanted.is_empty())?;
        let (reply, answer) = oneshot::channel();
        running.say(Command::Report(reply));
        Some(answer)
    }
}

impl Running {
    fn start() -> std::io::Result<Self> {
        let (commands, inbox) = std::sync::mpsc::channel();
        let (sender, news) = mpsc::channel(NEWS);
        let flags = rustix::event::EventfdFlags::NONBLOCK | rustix::event::EventfdFlags::CLOEXEC;
        let wake = Arc::new(rustix::event::eventfd(0, flags)?);
        let engine = engine::Engine::new(inbox, Arc::clone(&wake), sender);
        let thread = std::thread::Builder::new()
            .name("bfd".to_owned())
            .spawn(move || engine.run())?;
        Ok(Self {
            commands: Some(commands),
            wake,
            news,
            thread: Some(thread),
        })
    }

    fn say(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // The thread only ends after this end has gone.
            let _ = commands.send(command);
        }
        self.wake();
    }

    fn wake(&self) {
        // Fails only if the counter is full, and then the thread is about to wake anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A few packets of farewell; nothing in it waits.
            let _ = thread.join();
        }
    }
}

/// The sessions that peers ask for, those from ranges included.
pub(super) fn wanted<'a>(
    peers: impl Iterator<Item = (IpAddr, &'a PeerConfig)>,
) -> BTreeMap<Path, Wanted> {
    let peers = peers.filter(|(_, peer)| !peer.disabled);
    peers
        .filter_map(|(address, peer)| session_for(address, peer.scope, peer))
        .collect()
}

/// The session a peer's configuration asks for, `interface` being 0 but for a link-local address.
pub(super) fn session_for(
    remote: IpAddr,
    interface: u32,
    peer: &PeerConfig,
) -> Option<(Path, Wanted)> {
    let bfd = peer.bfd?;
    let path = Path {
        remote,
        interface,
        hops: if bfd.multihop {
            Hops::Multi
        } else {
            Hops::Single
        },
    };
    let wanted = Wanted {
        settings: Settings {
            min_tx: bfd.min_tx.saturating_mul(1000),
            min_rx: bfd.min_rx.saturating_mul(1000),
            multiplier: bfd.multiplier,
            passive: bfd.passive,
        },
        local: peer.local_address,
    };
    Some((path, wanted))
}

//! The thread: one loop that waits, reads, lets timers fire, and sends.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::{info, warn};

use super::socket::Sockets;
use super::{Command, News, Wanted};
use crate::bfd::{Change, Path, Random, Sessions, State, Transmit};

/// Packets read from all sockets together before timers get their turn: a flood must not keep our own packets back, and the
/// packets of peers that wait behind it are read in the next turn.
const READS: usize = 512;
/// How often what could not be done is tried again: opening a socket, telling the owner.
const RETRY: Duration = Duration::from_secs(1);
/// News that found no place are offered again this soon.
const OFFER: Duration = Duration::from_millis(5);
/// How often a farewell is said, as one packet may be lost.
const FAREWELLS: usize = 3;

pub(super) struct Engine {
    sessions: Sessions,
    sockets: Sockets,
    wanted: BTreeMap<Path, Wanted>,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    news: mpsc::Sender<News>,
    /// What the owner has not heard yet: the latest of each session, but a failure is kept until it is told.
    untold: BTreeMap<Path, Change>,
}

/// What came of looking for commands.
#[derive(PartialEq, Eq)]
enum Owner {
    There,
    Gone,
}

impl Engine {
    pub(super) fn new(
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            sessions: Sessions::new(random()),
            sockets: Sockets::default(),
            wanted: BTreeMap::new(),
            commands,
            wake,
            news,
            untold: BTreeMap::new(),
        }
    }

    /// Runs until the owner is gone.
    pub(super) fn run(mut self) {
        ask_for_precedence();
        let mut retry = Instant::now() + RETRY;
        loop {
            // Packets first: what has arrived counts, however late this thread was woken to see it.
            self.read();
            if self.obey() == Owner::Gone {
                return self.say_farewell();
            }
            let now = Instant::now();
            self.sessions.handle_timeout(now);
            self.send();
            self.tell();
            if now >= retry {
                self.sockets.open(&self.wanted);
                retry = now + RETRY;
            }
            self.wait(retry);
        }
    }

    fn wait(&self, retry: Instant) {
        let mut until = self
            .sessions
            .poll_timeout()
            .map_or(retry, |at| at.min(retry));
        let now = Instant::now();
        if !self.untold.is_empty() {
            until = until.min(now + OFFER);
        }
        let left = until.saturating_duration_since(now);
        let mut descriptors = vec![PollFd::new(&*self.wake, PollFlags::IN)];
        let sockets = self.sockets.receivers();
        descriptors.extend(sockets.map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)));
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // Interrupted, or out of memory for a moment: the loop looks at everything anyway.
        let _ = poll(&mut descriptors, Some(&timeout));
        let mut counter = [0; 8];
        let _ = rustix::io::read(self.wake.as_fd(), &mut counter);
    }

    fn read(&mut self) {
        let sessions = &mut self.sessions;
        self.sockets.read(READS, |from, octets| {
            sessions.handle_packet(Instant::now(), from, octets);
        });
        // Answers to polls, and the news of a new state.
        self.send();
        self.tell();
    }

    fn obey(&mut self) -> Owner {
        loop {
            match self.commands.try_recv() {
                Ok(Command::Configure(wanted)) => self.configure(wanted),
                Ok(Command::Report(reply)) => {
                    let mut reports = self.sessions.report(Instant::now());
                    for report in &mut reports {
                        report.session.last_error = self.sockets.error(&report.path);
                        report.session.discards = self.sessions.discards();
                    }
                    // Whoever asked may have stopped waiting.
                    let _ = reply.send(reports);
                }
                Err(TryRecvError::Empty) => return Owner::There,
                Err(TryRecvError::Disconnected) => return Owner::Gone,
            }
        }
    }

    fn configure(&mut self, wanted: BTreeMap<Path, Wanted>) {
        let settings = wanted.iter().map(|(path, wanted)| (*path, wanted.settings));
        let settings = settings.collect();
        self.untold.retain(|path, _| wanted.contains_key(path));
        // The farewell of those that go leaves by their sockets, which are closed afterwards.
        self.sessions.configure(Instant::now(), &settings);
        self.send();
        self.wanted = wanted;
        self.sockets.open(&self.wanted);
    }

    fn send(&mut self) {
        let now = Instant::now();
        while let Some(packet) = self.sessions.poll_packet(now) {
            self.sockets.send(&packet, self.wanted.get(&packet.path));
        }
    }

    /// Tells the owner what has changed, without ever waiting for it.
    fn tell(&mut self) {
        while let Some((path, change)) = self.sessions.poll_event() {
            if change.is_failure() {
                info!(peer = %path.remote, diagnostic = %change.diagnostic, "BFD is down");
            } else if change.to == State::Up {
                info!(peer = %path.remote, "BFD is up");
            }
            let untold = self.untold.entry(path).or_insert(change);
            if !untold.is_failure() {
                *untold = change;
            }
        }
        while let Some((path, change)) = self.untold.pop_first() {
            let Err(TrySendError::Full(_)) = self.news.try_send(News { path, change }) else {
                continue;
            };
            self.untold.insert(path, change);
            return;
        }
    }

    fn say_farewell(mut self) {
        let now = Instant::now();
        self.sessions.stop(now);
        let packets: Vec<Transmit> =
            std::iter::from_fn(|| self.sessions.poll_packet(now)).collect();
        for _ in 0..FAREWELLS {
            for packet in &packets {
                self.sockets.send(packet, self.wanted.get(&packet.path));
            }
        }
    }
}

/// Chance that nobody outside can foresee: a keyed hash of a counter, with a key the operating system drew.
pub(super) fn random() -> Random {
    use std::hash::BuildHasher;
    let key = std::collections::hash_map::RandomState::new();
    let mut counter = 0_u64;
    Box::new(move || {
        counter = counter.wrapping_add(1);
        key.hash_one(counter)
    })
}

/// Asks for a processor as soon as something is due. Without it BFD works, but a busy machine may be taken for a dead one.
fn ask_for_precedence() {
    let Err(refused) = margay_bgp_sys::real_time() else {
        return;
    };
    match margay_bgp_sys::nice(-20) {
        Ok(()) => {
            info!(%refused, "BFD runs at nice -20, since a real-time policy is not permitted")
        }
        Err(_) => warn!(
            %refused,
            "BFD runs as an ordinary thread, so that a busy machine may look like a failed path; \
             the capability CAP_SYS_NICE permits more"
        ),
    }
}

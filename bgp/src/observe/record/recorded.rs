//! [`Recorded`]: a router that writes down what is done to it, if it is asked to.
//!
//! It has the methods of [`Router`] that change something; those that only look come with `Deref`. A method that is missing
//! here is one that a recording would not know of.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::time::Instant;

use serde::Serialize;
use serde_json::Value;

use super::{Tape, What, notification_digits, to_hex};
use crate::config::{Announcement, ConfigError, SpeakerConfig};
use crate::observe::{Interest, Observation};
use crate::router::{ConnectionId, Lost, Octets, Output, RouteBatch, Router, SubscriberId};
use crate::types::Prefix;
use crate::wire::Notification;

/// A router, and a tape if there is to be one. Without it every method is the router's own.
#[derive(Debug)]
pub struct Recorded {
    router: Router,
    tape: Option<Tape>,
    /// The time of the last event, for what is asked without one.
    clock: Instant,
    /// The last line says that there was no more output.
    quiet: bool,
}

impl Deref for Recorded {
    type Target = Router;

    fn deref(&self) -> &Router {
        &self.router
    }
}

impl Recorded {
    /// A router as [`Router::new`] makes it; `recording` asks for a tape.
    ///
    /// # Errors
    /// As [`Router::new`].
    pub fn new(
        now: Instant,
        config: SpeakerConfig,
        seed: u64,
        recording: bool,
    ) -> Result<Self, ConfigError> {
        let start = recording.then(|| What::Start {
            seed,
            config: Box::new(config.clone()),
        });
        let router = Router::new(now, config, seed)?;
        let tape = start.map(|start| {
            let mut tape = Tape::new(now);
            tape.write(now, start);
            tape
        });
        Ok(Self {
            router,
            tape,
            clock: now,
            quiet: false,
        })
    }

    /// The tape, if there is one.
    pub fn tape_mut(&mut self) -> Option<&mut Tape> {
        self.tape.as_mut()
    }

    /// Gives up the tape.
    pub fn stop_recording(&mut self) {
        self.tape = None;
    }

    fn note(&mut self, now: Instant, what: impl FnOnce() -> What) {
        self.clock = now;
        self.quiet = false;
        if let Some(tape) = &mut self.tape {
            tape.write(now, what());
        }
    }

    /// As [`Router::configure`].
    ///
    /// # Errors
    /// As [`Router::configure`].
    pub fn configure(&mut self, now: Instant, config: SpeakerConfig) -> Result<(), ConfigError> {
        let what = self.tape.is_some();
        let what = what.then(|| What::Configure(Box::new(config.clone())));
        self.router.configure(now, config)?;
        if let Some(what) = what {
            self.note(now, || what);
        }
        Ok(())
    }

    /// As [`Router::set_announcements`]. It is recorded as a whole configuration, which comes to the same.
    ///
    /// # Errors
    /// As [`Router::set_announcements`].
    pub fn set_announcements(
        &mut self,
        now: Instant,
        announcements: BTreeMap<Prefix, Announcement>,
    ) -> Result<(), ConfigError> {
        self.router.set_announcements(announcements)?;
        if self.tape.is_some() {
            let whole = Box::new(self.router.config().clone());
            self.note(now, || What::Configure(whole));
        }
        Ok(())
    }

    /// As [`Router::handle_incoming`].
    pub fn handle_incoming(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local: SocketAddr,
    ) -> Option<ConnectionId> {
        let connection = self.router.handle_incoming(now, remote, local);
        self.note(now, || What::Incoming {
            remote,
            local,
            connection,
        });
        connection
    }

    /// As [`Router::handle_connected`].
    pub fn handle_connected(&mut self, now: Instant, connection: ConnectionId, local: SocketAddr) {
        self.note(now, || What::Connected { connection, local });
        self.router.handle_connected(now, connection, local);
    }

    /// As [`Router::handle_octets`].
    pub fn handle_octets(&mut self, now: Instant, connection: ConnectionId, octets: &[u8]) {
        self.note(now, || What::Octets {
            connection,
            octets: to_hex(octets),
        });
        self.router.handle_octets(now, connection, octets);
    }

    /// As [`Router::handle_written`].
    pub fn handle_written(&mut self, now: Instant, connection: ConnectionId, outstanding: bool) {
        self.note(now, || What::Written {
            connection,
            outstanding,
        });
        self.router.handle_written(now, connection, outstanding);
    }

    /// As [`Router::handle_closed`].
    pub fn handle_closed(&mut self, now: Instant, connection: ConnectionId, reason: String) {
        self.note(now, || What::Closed {
            connection,
            reason: reason.clone(),
        });
        self.router.handle_closed(now, connection, reason);
    }

    /// As [`Router::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.note(now, || What::Timeout);
        self.router.handle_timeout(now);
    }

    /// As [`Router::handle_peer_lost`].
    pub fn handle_peer_lost(&mut self, now: Instant, address: IpAddr, lost: &Lost) {
        self.note(now, || What::PeerLost {
            address,
            lost: lost.clone(),
        });
        self.router.handle_peer_lost(now, address, lost);
    }

    /// As [`Router::handle_bfd`].
    pub fn handle_bfd(&mut self, now: Instant, address: IpAddr, up: bool) {
        self.note(now, || What::Bfd { address, up });
        self.router.handle_bfd(now, address, up);
    }

    /// As [`Router::stop`].
    pub fn stop(&mut self, now: Instant, notification: Option<Notification>) {
        self.note(now, || What::Stop {
            notification: notification.as_ref().map(notification_digits),
        });
        self.router.stop(now, notification);
    }

    // ===== without a time of their own =====

    /// As [`Router::refresh`].
    pub fn refresh(&mut self, address: IpAddr) -> bool {
        let asked = self.router.refresh(address);
        self.note(self.clock, || What::Refresh { address, asked });
        asked
    }

    /// As [`Router::add_hint`].
    pub fn add_hint(&mut self, connection: ConnectionId, hint: &str) {
        self.note(self.clock, || What::Hint {
            connection,
            hint: hint.to_owned(),
        });
        self.router.add_hint(connection, hint);
    }

    /// As [`Router::set_next_hop_costs`].
    pub fn set_next_hop_costs(&mut self, costs: Vec<(IpAddr, Option<u32>)>) {
        self.note(self.clock, || What::NextHopCosts(costs.clone()));
        self.router.set_next_hop_costs(costs);
    }

    /// As [`Router::bar`].
    pub fn bar(&mut self, barred: BTreeMap<Prefix, String>) {
        // Mostly nobody is, and was before.
        if barred.is_empty() && !self.router.bars_somebody() {
            return;
        }
        let list = || barred.clone().into_iter().collect();
        self.note(self.clock, || What::Bar(list()));
        self.router.bar(barred);
    }

    /// As [`Router::subscribe`].
    pub fn subscribe(&mut self) -> SubscriberId {
        let id = self.router.subscribe();
        self.note(self.clock, || What::Subscribe(id));
        id
    }

    /// As [`Router::unsubscribe`].
    pub fn unsubscribe(&mut self, id: SubscriberId) {
        self.note(self.clock, || What::Unsubscribe(id));
        self.router.unsubscribe(id);
    }

    /// As [`Router::transmit`].
    pub fn transmit(&mut self, connection: ConnectionId) -> Option<Octets> {
        let octets = self.router.transmit(connection);
        self.note(self.clock, || What::Transmit {
            connection,
            octets: octets.clone().map(|octets| to_hex(&octets.into_bytes())),
        });
        octets
    }

    /// As [`Router::poll_routes`].
    pub fn poll_routes(&mut self, subscriber: SubscriberId) -> Option<RouteBatch> {
        let batch = self.router.poll_routes(subscriber);
        self.note(self.clock, || What::Routes {
            subscriber,
            batch: value(batch.as_ref()),
        });
        batch
    }

    /// As [`Router::poll_output`].
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.router.poll_output();
        let quiet = output.is_none();
        if !(quiet && self.quiet) {
            self.note(self.clock, || What::Output(value(output.as_ref())));
        }
        self.quiet = quiet;
        output
    }

    /// As [`Router::poll_timeout`].
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let wake = self.router.poll_timeout();
        if let Some(tape) = &mut self.tape {
            let at = wake.map(|wake| tape.since(wake));
            tape.write(self.clock, What::Wake(at));
        }
        wake
    }

    // ===== nothing that changes what the router does =====

    /// As [`Router::observe`].
    pub fn observe(&mut self, interest: Interest) {
        self.router.observe(interest);
    }

    /// As [`Router::poll_observation`].
    pub fn poll_observation(&mut self) -> Option<Observation> {
        self.router.poll_observation()
    }

    /// As [`Router::take_lost_observations`].
    pub fn take_lost_observations(&mut self) -> u64 {
        self.router.take_lost_observations()
    }
}

/// An output as it is recorded.
pub(super) fn value<T: Serialize>(output: Option<&T>) -> Option<Value> {
    // Plain data with string keys.
    output.and_then(|output| serde_json::to_value(output).ok())
}

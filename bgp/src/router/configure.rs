//! From the configuration in force to the one desired, touching only what differs.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::attributes::ImportPolicy;
use super::faults::FaultCounts;
use super::peer::Peer;
use super::view::MessageCounts;
use super::{PeerId, Router};
use crate::config::{Announcement, ConfigError, GracefulRestart, PeerConfig, SpeakerConfig};
use crate::fsm::{Event, PeerFsm, Settings, State};
use crate::jitter::Jitter;
use crate::policy::RefusalCounts;
use crate::rib::{Neighbor, Path, Route, Source};
use crate::types::{Prefix, peer_address};
use crate::wire::{Cease, NextHop, Notification, PathAttributes};

impl Router {
    /// Makes `config` the configuration in force.
    ///
    /// Peers that stay as they are notice nothing, announcements never touch a session, and a changed filter is applied to
    /// the routes at hand without a new session.
    ///
    /// # Errors
    /// A [`ConfigError`] if the configuration cannot be used; nothing has changed then.
    pub fn configure(&mut self, now: Instant, config: SpeakerConfig) -> Result<(), ConfigError> {
        config.validate()?;
        let old = std::mem::replace(&mut self.config, config);
        self.peers_version += 1;
        self.epoch = self.epoch.wrapping_add(1);
        let new_identity = old.asn != self.config.asn || old.router_id != self.config.router_id;
        let long_lived = |config: &SpeakerConfig| {
            let restart = config.graceful_restart;
            restart.is_some_and(|restart| restart.is_long_lived())
        };
        if long_lived(&old) && !long_lived(&self.config) {
            self.drop_long_lived();
        }
        self.change_others(now, &old, new_identity);
        let wanted: Vec<_> = self
            .config
            .peers
            .iter()
            .map(|(a, p)| (*a, p.clone()))
            .collect();
        for (key, peer) in wanted {
            match self.addresses.get(&key).copied() {
                None => drop(self.add_peer(now, key, peer, None)),
                Some(id) => self.change_peer(now, id, peer, &old, new_identity),
            }
        }
        self.change_multipath(&old);
        self.drop_aggregates(&old);
        self.change_announcements(&old.announcements);
        self.add_aggregates();
        Ok(())
    }

    /// Makes these the routes that are announced, with everything else as it is: as [`Router::configure`] with nothing else
    /// changed, without looking at any peer.
    ///
    /// # Errors
    /// As [`Router::configure`]; nothing has changed then.
    pub fn set_announcements(
        &mut self,
        announcements: BTreeMap<Prefix, Announcement>,
    ) -> Result<(), ConfigError> {
        let mut aggregates = self.config.aggregates.keys();
        if let Some(prefix) = aggregates.find(|prefix| announcements.contains_key(prefix)) {
            return Err(ConfigError::AnnouncedAggregate { prefix: *prefix });
        }
        let old = std::mem::replace(&mut self.config.announcements, announcements);
        self.change_announcements(&old);
        Ok(())
    }

    /// Takes out who is not configured any more, and gives those made from a template what it says now.
    fn change_others(&mut self, now: Instant, old: &SpeakerConfig, new_identity: bool) {
        let ids: Vec<_> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            let listed = self.config.peers.contains_key(&peer.key);
            match peer.range {
                None if listed => {}
                Some(prefix) if !listed => match self.config.ranges.get(&prefix) {
                    Some(range) => {
                        let config = PeerConfig {
                            passive: true,
                            name: peer.config.name.clone(),
                            ..range.peer.clone()
                        };
                        self.change_peer(now, id, config, old, new_identity);
                    }
                    None => self.remove_peer(now, id, Notification::cease(Cease::PeerDeconfigured)),
                },
                _ => self.remove_peer(now, id, Notification::cease(Cease::PeerDeconfigured)),
            }
        }
    }

    pub(super) fn remove_peer(&mut self, now: Instant, id: PeerId, notification: Notification) {
        self.stop_peer(now, id, notification);
        self.peers_version += 1;
        if let Some(peer) = self.peers.remove(&id) {
            self.addresses.remove(&peer.key);
        }
    }

    pub(super) fn add_peer(
        &mut self,
        now: Instant,
        key: IpAddr,
        config: PeerConfig,
        range: Option<Prefix>,
    ) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer += 1;
        self.peers_version += 1;
        let settings = settings(&self.config, &config, self.is_deferring());
        let internal = settings.is_internal();
        let disabled = config.disabled;
        let peer = Peer {
            address: peer_address(key, config.scope),
            key,
            range,
            config,
            internal,
            fsm: PeerFsm::new(settings, Jitter::new(self.jitter.next_u64())),
            lines: Vec::new(),
            session: None,
            stale_until: None,
            long_lived: Default::default(),
            tried: false,
            penalty: None,
            warning: None,
            faults: FaultCounts::default(),
            since: now,
            bfd_up: false,
            forget_at: None,
            last_notification: None,
            last_failure: None,
            flaps: 0,
            received: MessageCounts::default(),
            sent: MessageCounts::default(),
            refused: RefusalCounts::default(),
            reported: State::Idle,
            ending: None,
        };
        self.addresses.insert(key, id);
        self.peers.insert(id, peer);
        if !disabled {
            self.start_peer(now, id);
        }
        id
    }

    fn change_peer(
        &mut self,
        now: Instant,
        id: PeerId,
        config: PeerConfig,
        old: &SpeakerConfig,
        new_identity: bool,
    ) {
        let settings = settings(&self.config, &config, self.is_deferring());
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut peer.config, config.clone());
        peer.internal = settings.is_internal();
        if new_identity || !before.keeps_session(&config) {
            let shut = config.disabled && !before.disabled;
            let reason = if shut {
                Notification::administrative_shutdown(&config.shutdown_message)
            } else {
                Notification::cease(Cease::OtherConfigurationChange)
            };
            self.stop_peer(now, id, reason);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.fsm.set_settings(settings);
                peer.penalty = None;
            }
            if !config.disabled {
                self.start_peer(now, id);
            }
            return;
        }
        peer.fsm.set_settings(settings);
        if before.security.password != config.security.password {
            peer.fsm.handle_new_key();
        }
        let new_limits = before.max_prefixes != config.max_prefixes;
        let forgiven = new_limits && peer.penalty.take().is_some();
        if ImportPolicy::differ(peer.internal, (old, &before), (&self.config, &config)) {
            self.import_again(id);
        }
        if forgiven && !config.disabled {
            self.start_peer(now, id);
        } else if new_limits {
            self.enforce_limits(now, id);
        }
        self.regroup(id);
        let strict = |config: &PeerConfig| config.bfd.is_some_and(|bfd| bfd.strict);
        if strict(&before) && !strict(&config) && !config.disabled {
            self.start_peer(now, id);
        }
        if before.policy.route_reflector_client != config.policy.route_reflector_client {
            self.change_client(id);
        }
    }

    /// A peer has become a client, or is none any more: its routes concern other internal peers than before.
    fn change_client(&mut self, id: PeerId) {
        let client = |peer: &Peer| peer.config.policy.route_reflector_client;
        let source = id.source();
        if let Some(neighbor) = self.rib.neighbor(source)
            && let Some(client) = self.peers.get(&id).map(client)
        {
            self.rib.add_source(source, Neighbor { client, ..neighbor });
        }
        self.feed_groups(|key| key.export.is_internal());
    }

    /// Tells every state machine what its next OPEN is to say.
    pub(super) fn renew_settings(&mut self) {
        let deferring = self.is_deferring();
        for peer in self.peers.values_mut() {
            let settings = settings(&self.config, &peer.config, deferring);
            peer.fsm.set_settings(settings);
        }
    }

    pub(super) fn start_peer(&mut self, now: Instant, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            if peer.waits_for_bfd() {
                return;
            }
            peer.fsm.handle_event(now, Event::ManualStart);
        }
        self.drain(now, id);
    }

    fn stop_peer(&mut self, now: Instant, id: PeerId, notification: Notification) {
        if let Some(peer) = self.peers.get_mut(&id) {
            let notification = Some(notification);
            peer.fsm.handle_event(now, Event::Stop { notification });
        }
        self.drain(now, id);
        self.end_restart(id);
    }

    fn change_announcements(&mut self, old: &BTreeMap<Prefix, Announcement>) {
        let mut changed = Vec::new();
        for prefix in old.keys() {
            if !self.config.announcements.contains_key(prefix) {
                changed.extend(self.rib.withdraw(prefix, Source::LOCAL, None));
            }
        }
        for (prefix, announcement) in &self.config.announcements {
            if old.get(prefix) == Some(announcement) {
                continue;
            }
            let route = self.rib.intern(originate(announcement));
            let path = Path::new(Source::LOCAL, route, Ok(route));
            changed.extend(self.rib.announce(*prefix, path));
        }
        self.spread(&changed);
    }
}

fn originate(announcement: &Announcement) -> Route {
    Route {
        next_hop: announcement.next_hop.map(NextHop::from),
        attributes: PathAttributes {
            local_pref: announcement.local_pref,
            med: announcement.med,
            communities: announcement.communities.iter().copied().collect(),
            large_communities: announcement.large_communities.iter().copied().collect(),
            extended_communities: announcement.extended_communities.iter().copied().collect(),
            ..PathAttributes::default()
        },
        metric: None,
    }
}

fn settings(speaker: &SpeakerConfig, peer: &PeerConfig, deferring: bool) -> Settings {
    Settings {
        local_asn: peer.policy.local_as.map_or(speaker.asn, |local| local.asn),
        router_id: speaker.router_id,
        peer_asn: peer.asn.clone(),
        passive: peer.passive,
        // Checked to fit when the configuration was taken.
        hold_time: u16::try_from(peer.hold_time.as_secs()).unwrap_or(u16::MAX),
        keepalive: peer.keepalive_time,
        send_hold: peer.send_hold_time,
        connect_retry: peer.connect_retry_time,
        families: peer.families.iter().copied().collect(),
        // The R bit is for the session after the restart; one that flaps later on is no restart.
        graceful_restart: speaker.graceful_restart.map(|restart| GracefulRestart {
            restarting: restart.restarting && deferring,
            restart_time: peer.restart_time.unwrap_or(restart.restart_time),
            long_lived_time: peer.long_lived_time.unwrap_or(restart.long_lived_time),
            ..restart
        }),
        helps_restart: speaker.graceful_restart_helper,
        add_path: peer.add_path,
        extended_next_hop: peer.extended_next_hop,
        role: peer.role,
        role_strict: peer.role_strict,
    }
}

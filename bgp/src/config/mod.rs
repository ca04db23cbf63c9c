//! What a speaker is asked to be: the whole desired state as one value.
//!
//! [`SpeakerConfig`] is compared, cloned and written down, never edited in place: the owner hands the speaker the new whole
//! value and the speaker works out what changed. Parsing files and checking what people wrote is not done here (see
//! `speaker::daemon` for the file format of the stand-alone daemon); [`SpeakerConfig::validate`] only refuses what the
//! protocol cannot express.

mod bfd;
mod capabilities;
mod limits;
mod multipath;
mod peer_asn;
mod policy;
mod security;
mod templates;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Filter;
use crate::types::{Asn, Community, ExtendedCommunity, Family, LargeCommunity, Prefix, RouterId};

pub use policy::{Aggregate, LocalAs, PeerPolicy, RemovePrivateAs};

pub use bfd::{BfdConfig, LONGEST_BFD_INTERVAL, SHORTEST_BFD_INTERVAL};
pub use capabilities::{AddPath, PeerRole};
pub use limits::{DEFAULT_MAX_PREFIXES, DEFAULT_RESTART_AFTER, MaxPrefixes, MaxPrefixesAction};
pub use multipath::Multipath;
pub use peer_asn::PeerAsn;
pub use security::{AO_SECRET_LIMIT, AoAlgorithm, AoKey, PASSWORD_LIMIT, Secret, Security};
pub use templates::{DEFAULT_RANGE_LIMIT, PeerRange};

/// The port BGP listens on (RFC 4271 section 2).
pub const BGP_PORT: u16 = 179;
/// Hold time proposed when nothing else is asked for, in seconds (RFC 4271 section 10).
pub const DEFAULT_HOLD_TIME: Duration = Duration::from_secs(90);
/// Time between two attempts to connect. RFC 4271 suggests 120 s; a rack whose router has restarted wants its routes sooner.
pub const DEFAULT_CONNECT_RETRY: Duration = Duration::from_secs(5);

/// Stands for whatever address the neighbour on an interface has.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
/// Longest wait for the peers' routes after a restart.
pub const DEFAULT_SELECTION_DEFERRAL: Duration = Duration::from_secs(60);

/// Everything one speaker should be doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeakerConfig {
    /// The autonomous system this speaker belongs to. Changing it restarts every session.
    pub asn: Asn,
    /// The BGP Identifier: any IPv4-shaped number but 0.0.0.0, unique in the AS (RFC 6286). Changing it restarts every session.
    pub router_id: RouterId,
    /// Addresses and ports to accept connections on. IPv6 sockets take IPv6 only. Empty: only outgoing connections.
    pub listen: Vec<SocketAddr>,
    /// The peers, by the address they are reached at.
    pub peers: BTreeMap<IpAddr, PeerConfig>,
    /// Who may connect to us from a network; the longest prefix counts, and a peer listed by address comes before all.
    pub ranges: BTreeMap<Prefix, PeerRange>,
    /// Peers by the interface they are found on by router advertisements (RFC 4861): what each is to be like. The shell looks
    /// for them; this crate's core only sees `peers`.
    pub interfaces: BTreeMap<String, PeerConfig>,
    /// The routes this speaker originates. A change here never touches a session.
    pub announcements: BTreeMap<Prefix, Announcement>,
    /// The addresses other speakers reach this node at, for next hops a session's own local address cannot supply.
    pub next_hop: NextHops,
    /// Have peers keep our routes while we restart (RFC 4724). Applies from the next session on. Without it peers that
    /// restart are helped nevertheless, see [`graceful_restart_helper`](Self::graceful_restart_helper).
    pub graceful_restart: Option<GracefulRestart>,
    /// Keep the routes of peers that restart even if we do not ask for the same: the capability is announced without
    /// families (RFC 4724 section 3). Counts only without [`graceful_restart`](Self::graceful_restart), which does both.
    pub graceful_restart_helper: bool,
    /// The longest that routes wait after our own restart for the peers to have sent theirs (RFC 4724 section 4.1, the
    /// Selection_Deferral_Timer). Counts only with [`GracefulRestart::restarting`].
    pub selection_deferral: Duration,
    /// RFC 8212: an eBGP peer without a filter gives nothing and is given nothing. `false` switches that default off.
    pub require_policy: bool,
    /// The cluster this speaker reflects routes for (RFC 4456); `None`: the router id. Never touches a session.
    pub cluster_id: Option<RouterId>,
    /// The routes this speaker originates as long as it has more specific ones. Never touches a session.
    pub aggregates: BTreeMap<Prefix, Aggregate>,
    /// Networks that neighbors share with each other and with this speaker: an external peer in one of them is given next
    /// hops in it unchanged (RFC 4271 section 5.1.3, third party next hops). Empty: external peers are given this speaker.
    pub shared_segments: BTreeSet<Prefix>,
    /// How many ways to a destination are used at the same time. Never touches a session.
    pub multipath: Multipath,
}

impl SpeakerConfig {
    /// A speaker without peers, listeners or routes, with RFC 8212's defaults in force.
    #[must_use]
    pub fn new(asn: Asn, router_id: RouterId) -> Self {
        Self {
            asn,
            router_id,
            listen: Vec::new(),
            peers: BTreeMap::new(),
            ranges: BTreeMap::new(),
            interfaces: BTreeMap::new(),
            announcements: BTreeMap::new(),
            next_hop: NextHops::default(),
            graceful_restart: None,
            graceful_restart_helper: true,
            selection_deferral: DEFAULT_SELECTION_DEFERRAL,
            require_policy: true,
            cluster_id: None,
            aggregates: BTreeMap::new(),
            shared_segments: BTreeSet::new(),
            multipath: Multipath::default(),
        }
    }

    /// The cluster this speaker reflects routes for (RFC 4456).
    #[must_use]
    pub fn cluster_id(&self) -> RouterId {
        self.cluster_id.unwrap_or(self.router_id)
    }

    /// Refuses a value the protocol has no way to express.
    ///
    /// # Errors
    /// The first [`ConfigError`] found; it names the field and, for a peer, its address.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.router_id == RouterId(0) {
            return Err(ConfigError::RouterId);
        }
        if self.asn == Asn::ZERO || self.asn == Asn::TRANS {
            return Err(ConfigError::Asn { asn: self.asn });
        }
        if self.multipath.max == 0 {
            return Err(ConfigError::Multipath);
        }
        let restart = self.graceful_restart.unwrap_or_default();
        if restart.long_lived_time > LONGEST_LONG_LIVED_TIME {
            return Err(ConfigError::LongLivedTime {
                seconds: restart.long_lived_time,
            });
        }
        let mut aggregates = self.aggregates.keys();
        if let Some(prefix) = aggregates.find(|prefix| self.announcements.contains_key(prefix)) {
            return Err(ConfigError::AnnouncedAggregate { prefix: *prefix });
        }
        if let Some((prefix, _)) = self.ranges.iter().find(|(_, range)| range.limit == 0) {
            return Err(ConfigError::RangeLimit { range: *prefix });
        }
        let listed = self.peers.iter().map(|(address, peer)| (*address, peer));
        let ranges = self.ranges.iter();
        let ranges = ranges.map(|(prefix, range)| (prefix.address(), &range.peer));
        let interfaces = self.interfaces.values();
        let interfaces = interfaces.map(|peer| (IpAddr::V6(LINK_LOCAL), peer));
        listed
            .chain(ranges)
            .chain(interfaces)
            .try_for_each(|(address, peer)| {
                peer.validate(address)?;
                peer.policy.validate(address, &peer.asn, self.asn)
            })
    }
}

/// Addresses of this node for use as a next hop, one per family.
///
/// A session over IPv4 has an IPv4 local address only; IPv6 routes sent over it need an IPv6 next hop from here, and the
/// other way round. Without it such routes are not sent on that session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct NextHops {
    /// Next hop for IPv4 routes on a session over IPv6.
    pub ipv4: Option<Ipv4Addr>,
    /// Next hop for IPv6 routes on a session over IPv4.
    pub ipv6: Option<Ipv6Addr>,
}

/// The graceful restart capability this speaker announces (RFC 4724).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GracefulRestart {
    /// How long a peer should keep our routes while we are away, in seconds, 0 to 4095.
    pub restart_time: u16,
    /// Set the R bit: this process is itself a restart of a speaker that was here before.
    pub restarting: bool,
    /// Set the F bits: the forwarding state survived. Only true if the kernel routes really were kept.
    pub forwarding_preserved: bool,
    /// Keep routes over a NOTIFICATION, too, and have peers keep ours (RFC 8538).
    pub notification: bool,
    /// Keep what is stale as a last resort beyond the restart time, and have peers keep ours for so many seconds (RFC 9494):
    /// 1 to 16777215, 0 does neither. How long a peer's routes are kept is for the peer to say.
    pub long_lived_time: u32,
    /// Give long-lived stale routes to internal peers without that capability, too: with NO_EXPORT and LOCAL_PREF 0
    /// (RFC 9494 section 4.6). Otherwise such peers are not given them.
    pub long_lived_partial: bool,
}

/// The longest time of the long-lived graceful restart capability, in seconds (RFC 9494 section 3).
pub const LONGEST_LONG_LIVED_TIME: u32 = 0x00ff_ffff;

impl GracefulRestart {
    /// Whether routes are kept beyond the restart time.
    #[must_use]
    pub const fn is_long_lived(&self) -> bool {
        self.long_lived_time > 0
    }
}

impl Default for GracefulRestart {
    fn default() -> Self {
        Self {
            restart_time: 120,
            restarting: false,
            forwarding_preserved: false,
            notification: true,
            long_lived_time: 0,
            long_lived_partial: false,
        }
    }
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerConfig {
    /// What to call the peer in summaries and logs. Changing it never touches the session.
    pub name: String,
    /// The peer's TCP port for outgoing connections.
    pub port: u16,
    /// The AS the peer must present; equal to ours makes the session internal (iBGP).
    pub asn: PeerAsn,
    /// Source address of outgoing connections, and the only local address accepted for incoming ones.
    pub local_address: Option<IpAddr>,
    /// Never connect, only accept.
    pub passive: bool,
    /// Administratively down: no session, none accepted.
    pub disabled: bool,
    /// Hold time to propose, whole seconds: 0 (no keepalives) or 3 s to 65,535 s.
    pub hold_time: Duration,
    /// Time between KEEPALIVEs before jitter; `None`: a third of the negotiated hold time.
    pub keepalive_time: Option<Duration>,
    /// The longest the peer may leave what it is sent unread (RFC 9687), whole seconds and more than the hold time; zero: for
    /// ever. `None`: 8 minutes, or twice the negotiated hold time if that is more, and for ever without a hold time.
    pub send_hold_time: Option<Duration>,
    /// How long the peer is asked to keep our routes over a restart, in seconds, 0 to 4095; `None`: as
    /// [`GracefulRestart::restart_time`] says. Counts only where the speaker restarts gracefully.
    pub restart_time: Option<u16>,
    /// How long the peer is asked to keep our routes beyond that, in seconds, 0 to 16777215, 0 for neither side's;
    /// `None`: as [`GracefulRestart::long_lived_time`] says. Where some peer has such a time the speaker should have one too:
    /// by its own it knows that such routes are not for everybody (RFC 9494 section 4.3).
    pub long_lived_time: Option<u32>,
    /// Time between two attempts to connect, before jitter.
    pub connect_retry_time: Duration,
    /// The address families to offer.
    pub families: BTreeSet<Family>,
    /// TTL or hop limit of packets to the peer; `None`: 1 on eBGP (directly connected), 64 on iBGP.
    pub ttl: Option<u8>,
    /// What is taken from the peer. `None`: everything on iBGP, and on eBGP what RFC 8212 says.
    pub import: Option<Filter>,
    /// What is given to the peer. `None`: everything on iBGP, and on eBGP what RFC 8212 says.
    pub export: Option<Filter>,
    /// Which next hop routes to the peer carry.
    pub next_hop: NextHopMode,
    /// What else happens to routes from and to the peer.
    pub policy: PeerPolicy,
    /// Several paths for one prefix (RFC 7911).
    pub add_path: AddPath,
    /// Least time between two announcements to the peer, before jitter (RFC 4271 section 9.2.1.1); zero: at once.
    pub min_advertisement_interval: Duration,
    /// Offer IPv6 next hops for IPv4 routes (RFC 8950).
    pub extended_next_hop: bool,
    /// Our part in the relation with the peer (RFC 9234); `None` says nothing about it.
    pub role: Option<PeerRole>,
    /// Insist on the peer saying its part too.
    pub role_strict: bool,
    /// Watch the path with BFD; `None` does not.
    pub bfd: Option<BfdConfig>,
    /// Index of the interface a link-local address belongs to; 0 for all other addresses.
    pub scope: u32,
    /// How the peer's packets are told from those of others.
    pub security: Security,
    /// How much the peer may send.
    pub max_prefixes: MaxPrefixes,
    /// What a peer is told whose session is taken down because it is `disabled` (RFC 9003); at most 255 octets count.
    pub shutdown_message: String,
}

impl PeerConfig {
    /// A peer with default timers, offering the address family it is reached over.
    #[must_use]
    pub fn new(address: IpAddr, asn: impl Into<PeerAsn>) -> Self {
        Self {
            name: address.to_string(),
            port: BGP_PORT,
            asn: asn.into(),
            local_address: None,
            passive: false,
            disabled: false,
            hold_time: DEFAULT_HOLD_TIME,
            keepalive_time: None,
            send_hold_time: None,
            restart_time: None,
            long_lived_time: None,
            connect_retry_time: DEFAULT_CONNECT_RETRY,
            families: BTreeSet::from([Family::of(&address)]),
            ttl: None,
            import: None,
            export: None,
            next_hop: NextHopMode::Auto,
            policy: PeerPolicy::default(),
            add_path: AddPath::default(),
            min_advertisement_interval: Duration::ZERO,
            extended_next_hop: address.is_ipv6(),
            role: None,
            role_strict: false,
            bfd: None,
            scope: 0,
            security: Security::default(),
            max_prefixes: MaxPrefixes::default(),
            shutdown_message: String::new(),
        }
    }

    /// A peer that is found on an interface: with default timers, both address families, and IPv6 next hops for IPv4 routes.
    #[must_use]
    pub fn on_interface(interface: &str, asn: impl Into<PeerAsn>) -> Self {
        Self {
            name: interface.to_owned(),
            families: Family::ALL.into_iter().collect(),
            ..Self::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), asn)
        }
    }

    fn validate(&self, address: IpAddr) -> Result<(), ConfigError> {
        let hold = self.hold_time.as_secs();
        if (hold != 0 && hold < 3) || hold > u64::from(u16::MAX) {
            return Err(ConfigError::HoldTime {
                peer: address,
                seconds: hold,
            });
        }
        if self
            .keepalive_time
            .is_some_and(|k| k.as_secs() == 0 || (hold != 0 && k > self.hold_time))
        {
            return Err(ConfigError::Keepalive { peer: address });
        }
        if self
            .send_hold_time
            .is_some_and(|send| !send.is_zero() && send <= self.hold_time)
        {
            return Err(ConfigError::SendHold { peer: address });
        }
        let long_lived = self.long_lived_time.unwrap_or(0);
        if long_lived > LONGEST_LONG_LIVED_TIME {
            return Err(ConfigError::LongLivedTime {
                seconds: long_lived,
            });
        }
        if self.connect_retry_time < Duration::from_millis(100) {
            return Err(ConfigError::ConnectRetry { peer: address });
        }
        if let Some(asn) = self.asn.reserved() {
            return Err(ConfigError::PeerAsn { peer: address, asn });
        }
        if self.families.is_empty() {
            return Err(ConfigError::Families { peer: address });
        }
        if self
            .local_address
            .is_some_and(|local| local.is_ipv4() != address.is_ipv4())
        {
            return Err(ConfigError::LocalAddress { peer: address });
        }
        if let Some((field, problem)) = self.security.problem() {
            return Err(ConfigError::Security {
                peer: address,
                field,
                problem,
            });
        }
        let limits = &self.max_prefixes;
        if limits.limit == 0 || !(1..=100).contains(&limits.warn_percent) {
            return Err(ConfigError::MaxPrefixes { peer: address });
        }
        if self.ttl == Some(0) {
            return Err(ConfigError::Ttl { peer: address });
        }
        if let Some((field, problem)) = self.bfd.and_then(|bfd| bfd.problem()) {
            return Err(ConfigError::Bfd {
                peer: address,
                field,
                problem,
            });
        }
        Ok(())
    }

    /// Whether a change from `self` to `new` can be made on a running session.
    ///
    /// Names and filters can: routes are filtered anew and the differences sent. Everything else is part of the connection
    /// or of the OPEN.
    #[must_use]
    pub fn keeps_session(&self, new: &PeerConfig) -> bool {
        let session = |peer: &PeerConfig| PeerConfig {
            name: String::new(),
            import: None,
            export: None,
            next_hop: NextHopMode::Auto,
            connect_retry_time: DEFAULT_CONNECT_RETRY,
            send_hold_time: None,
            policy: PeerPolicy::default(),
            // Another password is put on the running connection; the first one, and none any more, is another connection.
            security: Security {
                password: peer.security.password.as_ref().map(|_| Secret::default()),
                ..peer.security.clone()
            },
            max_prefixes: MaxPrefixes::default(),
            shutdown_message: String::new(),
            min_advertisement_interval: Duration::ZERO,
            bfd: None,
            ..peer.clone()
        };
        session(self) == session(new) && self.policy.keeps_session(&new.policy)
    }
}

/// Which next hop routes to a peer carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NextHopMode {
    /// This speaker on eBGP and for its own routes, unchanged on iBGP (RFC 4271 section 5.1.3).
    #[default]
    Auto,
    /// Always this speaker.
    SelfAddress,
    /// Unchanged, also on eBGP.
    Keep,
}

/// One route this speaker originates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The next hop; `None`: the local address of each session.
    pub next_hop: Option<IpAddr>,
    /// LOCAL_PREF inside the AS; `None`: 100.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC; `None`: not sent.
    pub med: Option<u32>,
    /// Communities (RFC 1997).
    pub communities: BTreeSet<Community>,
    /// Large communities (RFC 8092).
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Extended communities (RFC 4360).
    pub extended_communities: BTreeSet<ExtendedCommunity>,
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// 0.0.0.0 cannot be a BGP Identifier (RFC 6286 section 2.1).
    #[error(
        "routerId: 0.0.0.0 is not a BGP identifier; use one of the node's IPv4 addresses or any other unique number"
    )]
    RouterId,
    /// AS 0 (RFC 7607) and AS 23456 (RFC 6793) belong to nobody.
    #[error("asn: {asn} is reserved and cannot be used as an AS of one's own")]
    Asn {
        /// The number refused.
        asn: Asn,
    },
    /// AS 0 (RFC 7607) and AS 23456 (RFC 6793) belong to nobody.
    #[error("neighbor {peer}: asn: {asn} is reserved and cannot be a peer's AS")]
    PeerAsn {
        /// The peer's address.
        peer: IpAddr,
        /// The number refused.
        asn: Asn,
    },
    /// RFC 4271 section 4.2.
    #[error(
        "neighbor {peer}: holdTime: {seconds} s is not allowed; use 0 for no keepalives, or 3 to 65535 s"
    )]
    HoldTime {
        /// The peer's address.
        peer: IpAddr,
        /// The time refused.
        seconds: u64,
    },
    /// A keepalive interval that cannot keep a session alive.
    #[error(
        "neighbor {peer}: keepaliveTime: must be at least 1 s and not longer than the hold time"
    )]
    Keepalive {
        /// The peer's address.
        peer: IpAddr,
    },
    /// RFC 9687 section 3.
    #[error(
        "neighbor {peer}: sendHoldTime: must be longer than the hold time, or 0 to wait for ever; leave it out for 8 minutes"
    )]
    SendHold {
        /// The peer's address.
        peer: IpAddr,
    },
    /// A retry interval so short that it would be a flood.
    #[error("neighbor {peer}: connectRetryTime: must be at least 100 ms")]
    ConnectRetry {
        /// The peer's address.
        peer: IpAddr,
    },
    /// A session needs something to carry.
    #[error("neighbor {peer}: families: at least one address family is needed")]
    Families {
        /// The peer's address.
        peer: IpAddr,
    },
    /// The source address of a connection must be of the destination's family.
    #[error(
        "neighbor {peer}: localAddress: must be of the same address family as the neighbor's address"
    )]
    LocalAddress {
        /// The peer's address.
        peer: IpAddr,
    },
    /// Something that only the other kind of session has.
    #[error("neighbor {peer}: {field}: only an {needs} neighbor can have it")]
    WrongKind {
        /// The peer's address.
        peer: IpAddr,
        /// The field.
        field: &'static str,
        /// `internal` or `external`.
        needs: &'static str,
    },
    /// An AS to present that is none, or no other one.
    #[error(
        "neighbor {peer}: localAs: {asn} is reserved, this speaker's own AS or the neighbor's; use the AS that the neighbor expects here"
    )]
    LocalAs {
        /// The peer's address.
        peer: IpAddr,
        /// The number refused.
        asn: Asn,
    },
    /// A time that has no place in the capability (RFC 9494 section 3).
    #[error(
        "gracefulRestart.longLivedTime: {seconds} s is not allowed; use 0 for none, or 1 to 16777215 s"
    )]
    LongLivedTime {
        /// The time refused.
        seconds: u32,
    },
    /// A destination without any path.
    #[error("multipath.max: 0 paths are not enough; use 1 for the best path alone, or more")]
    Multipath,
    /// One prefix announced for two reasons.
    #[error("aggregates: {prefix} is under announce as well; keep one of the two")]
    AnnouncedAggregate {
        /// The prefix.
        prefix: Prefix,
    },
    /// BFD that cannot work.
    #[error("neighbor {peer}: bfd.{field}: {problem}")]
    Bfd {
        /// The peer's address.
        peer: IpAddr,
        /// The field.
        field: &'static str,
        /// What is allowed.
        problem: &'static str,
    },
    /// A password or a distance that cannot be.
    #[error("neighbor {peer}: {field}: {problem}")]
    Security {
        /// The peer's address.
        peer: IpAddr,
        /// The field.
        field: &'static str,
        /// What is allowed.
        problem: &'static str,
    },
    /// A range that nobody could come from.
    #[error(
        "neighbor range {range}: limit must be at least 1; leave the range out to admit nobody"
    )]
    RangeLimit {
        /// The range.
        range: Prefix,
    },
    /// A limit that nobody can keep.
    #[error(
        "neighbor {peer}: maxPrefixes: limit must be at least 1 and warnPercent 1 to 100; use `disabled: true` for a neighbor that is to send nothing"
    )]
    MaxPrefixes {
        /// The peer's address.
        peer: IpAddr,
    },
    /// A packet with TTL 0 never leaves.
    #[error("neighbor {peer}: ttl: must be 1 to 255")]
    Ttl {
        /// The peer's address.
        peer: IpAddr,
    },
}

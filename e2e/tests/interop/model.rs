//! What a cell wants of a daemon, in words that all daemons understand. Each adapter writes it in its daemon's own syntax.

use std::net::IpAddr;

/// The link between us and the daemon: our ends.
pub const OURS: [&str; 2] = ["10.99.0.1", "fd99::1"];
/// As [`OURS`]: the daemon's ends.
pub const THEIRS: [&str; 2] = ["10.99.0.2", "fd99::2"];
/// Our end of the link to the third peer, and that peer's two addresses there.
pub const OURS_TO_THIRD: &str = "10.98.0.1";
pub const THIRD_AT_OURS: [&str; 2] = ["10.98.0.3", "10.98.0.4"];
/// As above, at the daemon.
pub const THEIRS_TO_THIRD: &str = "10.97.0.2";
pub const THIRD_AT_THEIRS: [&str; 2] = ["10.97.0.3", "10.97.0.4"];

pub const OUR_AS: u32 = 64512;
pub const THEIR_AS: u32 = 64513;
/// The ASes of the third peer's two sessions.
pub const THIRD_AS: [u32; 2] = [64520, 64521];
pub const OUR_ID: &str = "10.99.0.1";
pub const THEIR_ID: &str = "10.99.0.2";

/// The address families of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    V4,
    V6,
    Both,
}

impl Families {
    /// The one that the session's addresses are of.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    pub fn v4(self) -> bool {
        self != Self::V6
    }

    pub fn v6(self) -> bool {
        self != Self::V4
    }
}

/// One session as the daemon sees it.
#[derive(Debug, Clone)]
pub struct Session {
    pub local: IpAddr,
    pub remote: IpAddr,
    pub remote_asn: u32,
    pub families: Families,
    pub passive: bool,
    pub password: Option<String>,
    /// Packets come from a directly connected peer only (RFC 5082).
    pub ttl_security: bool,
    pub graceful_restart: bool,
    /// With that, routes are kept as the last resort after a short restart time (RFC 9494).
    pub long_lived: bool,
    pub add_path_send: bool,
    pub add_path_receive: bool,
    /// IPv4 routes with IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    pub bfd: bool,
    /// The peer is a client of the daemon's route reflector.
    pub client: bool,
    pub max_prefixes: Option<u32>,
    /// The shortest hold time that is accepted, in seconds, where the daemon knows such a limit.
    pub least_hold_time: Option<u16>,
}

impl Session {
    pub fn new(local: &str, remote: &str, remote_asn: u32) -> Self {
        let remote: IpAddr = remote.parse().unwrap();
        Self {
            local: local.parse().unwrap(),
            remote,
            remote_asn,
            families: Families::of(remote),
            passive: false,
            password: None,
            ttl_security: false,
            graceful_restart: false,
            long_lived: false,
            add_path_send: false,
            add_path_receive: false,
            extended_next_hop: false,
            bfd: false,
            client: false,
            max_prefixes: None,
            least_hold_time: None,
        }
    }

    /// With us, over IPv4 (0) or IPv6 (1).
    pub fn with_us(version: usize) -> Self {
        Self::new(THEIRS[version], OURS[version], OUR_AS)
    }

    /// With the third peer, which dials.
    pub fn with_third(index: usize) -> Self {
        let session = Self::new(THEIRS_TO_THIRD, THIRD_AT_THEIRS[index], THIRD_AS[index]);
        Self {
            passive: true,
            ..session
        }
    }
}

/// An extended community of the two kinds that everyone can write (RFC 4360 sections 4 and 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    /// A route target, or else a route origin.
    pub target: bool,
    pub asn: u16,
    pub value: u32,
}

impl Extended {
    /// As it is on the wire.
    pub fn number(self) -> u64 {
        let kind = if self.target { 0x0002 } else { 0x0003 };
        kind << 48 | u64::from(self.asn) << 32 | u64::from(self.value)
    }

    /// Reads the wire's form, for those two kinds.
    pub fn from_number(number: u64) -> Option<Self> {
        let target = match number >> 48 {
            0x0002 => true,
            0x0003 => false,
            _ => return None,
        };
        let asn = u16::try_from(number >> 32 & 0xffff).ok()?;
        let value = u32::try_from(number & 0xffff_ffff).ok()?;
        Some(Self { target, asn, value })
    }
}

impl std::fmt::Display for Extended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.target { "rt" } else { "ro" };
        write!(f, "{kind}:{}:{}", self.asn, self.value)
    }
}

/// A route that the daemon announces as its own.
#[derive(Debug, Clone, Default)]
pub struct Route {
    pub prefix: String,
    /// `asn:value`.
    pub communities: Vec<String>,
    /// `asn:value:value`.
    pub large: Vec<String>,
    pub extended: Vec<Extended>,
}

impl Route {
    pub fn plain(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ..Self::default()
        }
    }

    pub fn is_v6(&self) -> bool {
        self.prefix.contains(':')
    }

    pub fn has_attributes(&self) -> bool {
        !(self.communities.is_empty() && self.large.is_empty() && self.extended.is_empty())
    }
}

/// The daemon's configuration.
#[derive(Debug, Clone)]
pub struct Side {
    pub asn: u32,
    pub router_id: String,
    pub sessions: Vec<Session>,
    pub routes: Vec<Route>,
}

impl Side {
    pub fn new(sessions: Vec<Session>) -> Self {
        Self {
            asn: THEIR_AS,
            router_id: THEIR_ID.to_owned(),
            sessions,
            routes: Vec::new(),
        }
    }

    pub fn announcing(mut self, prefixes: &[&str]) -> Self {
        self.routes
            .extend(prefixes.iter().map(|prefix| Route::plain(prefix)));
        self
    }
}

/// One path as a daemon shows it. What it does not show is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The ASes separated by blanks.
    pub as_path: String,
    pub next_hop: String,
    /// Sorted, `asn:value`.
    pub communities: Vec<String>,
    /// Sorted, `asn:value:value`.
    pub large: Vec<String>,
    /// Sorted, `rt:asn:value` or `ro:asn:value`.
    pub extended: Vec<String>,
    pub originator: String,
    pub clusters: Vec<String>,
}

impl Seen {
    pub fn sorted(mut self) -> Self {
        self.communities.sort();
        self.large.sort();
        self.extended.sort();
        self
    }
}

/// What a daemon says of a session.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub established: bool,
    /// Its own words, for messages.
    pub text: String,
}

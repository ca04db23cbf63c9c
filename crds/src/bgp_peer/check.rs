//! From a BGPPeer as written to one that can be used, or every field that is wrong.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::{
    BGPPeer, BfdSpec, FamilyName, MaxPrefixesAction, MaxPrefixesSpec, NextHopMode, PeerRange,
    ReversePeering, SecretKeyRef, SourceAddress, TcpAo, TcpAoAlgorithm,
};
use crate::as_number::{AsNumber, PeerAs, check_as_number, parse_as_number};
use crate::bgp_configuration::DEFAULT_PORT;
use crate::field::{Errors, FieldError, cidr, cidrs};
use crate::selector::Selector;

/// What a speaker proposes where a BGPPeer says nothing.
const DEFAULT_HOLD_TIME: Duration = Duration::from_secs(90);
/// The longest time the protocol has a place for (RFC 9494 section 3).
pub(crate) const LONGEST_LONG_LIVED_TIME: u64 = 0x00ff_ffff;

/// Which nodes have a session.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerNodes {
    /// The node of this name.
    Named(String),
    /// Nodes whose labels match.
    Matching(Selector),
    /// Every node.
    All,
}

/// Who the peer is.
#[derive(Debug, Clone, PartialEq)]
pub enum Remote {
    /// The router at this address.
    Address {
        /// Where it is reached.
        address: SocketAddr,
        /// Its AS.
        asn: PeerAs,
    },
    /// The nodes that match, each in its own AS.
    Nodes {
        /// Over node labels.
        selector: Selector,
        /// Whether they peer back by themselves.
        reverse: bool,
    },
    /// The router at the other end of a link.
    Interface {
        /// The node's interface.
        name: String,
        /// The router's AS.
        asn: PeerAs,
    },
    /// Whoever connects from a network.
    Range {
        /// The network.
        cidr: IpNetwork,
        /// The ASes they may be in, both ends included. Empty: see `asn`.
        ases: Vec<(u32, u32)>,
        /// `Internal` or `External` where that is all that is asked for.
        asn: Option<PeerAs>,
        /// The most of them at a time.
        limit: u32,
    },
}

/// A key of a connection (TCP-AO).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AoKey {
    /// The KeyID in what the node sends.
    pub send_id: u8,
    /// The KeyID in what the peer sends.
    pub recv_id: u8,
    /// How segments are signed.
    pub algorithm: TcpAoAlgorithm,
    /// Where the master key is.
    pub secret: SecretKeyRef,
}

/// A BFD session, absent values filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bfd {
    /// Milliseconds between packets sent.
    pub min_tx: u32,
    /// Milliseconds between packets taken.
    pub min_rx: u32,
    /// Packets that may be missing.
    pub multiplier: u8,
    /// The peer is not on a link of the node.
    pub multihop: bool,
}

/// A limit, absent values filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// The most there may be of a family.
    pub limit: u32,
    /// From which share there is a warning, in percent.
    pub warn_percent: u8,
    /// What happens with more.
    pub action: MaxPrefixesAction,
    /// The pause of `Restart`.
    pub restart_after: Duration,
}

/// The families that were named; both false: none was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

/// A peer that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// The object's name.
    pub name: String,
    /// Which nodes have the session.
    pub nodes: PeerNodes,
    /// With whom.
    pub remote: Remote,
    /// The AS to present.
    pub local_as: Option<u32>,
    /// Where the password is.
    pub password: Option<SecretKeyRef>,
    /// The TCP-AO keys, the one to sign with first; none: without.
    pub tcp_ao: Vec<AoKey>,
    /// The source address of the connection.
    pub source_address: SourceAddress,
    /// How long the peer is asked to keep the node's routes over a restart.
    pub max_restart_time: Option<Duration>,
    /// How long it is asked to keep them beyond that; zero: neither side keeps any.
    pub long_lived_restart_time: Option<Duration>,
    /// The hold time proposed; zero means that the session never times out.
    pub hold_time: Option<Duration>,
    /// The time between KEEPALIVEs, if not a third of the hold time.
    pub keepalive_time: Option<Duration>,
    /// How long the peer may leave unread what it is sent; zero: for ever.
    pub send_hold_time: Option<Duration>,
    /// The time between two attempts to connect.
    pub connect_retry_time: Option<Duration>,
    /// Which next hop routes carry.
    pub next_hop_mode: NextHopMode,
    /// GTSM, in hops.
    pub ttl_security: Option<u8>,
    /// The gateway to the peer.
    pub reachable_by: Option<IpAddr>,
    /// How often the node's own AS may be in a path.
    pub allowed_own_as: u8,
    /// Names of BGPFilters, in order.
    pub filters: Vec<String>,
    /// What is taken from an external peer beside pool space.
    pub import_cidrs: Vec<IpNetwork>,
    /// How much the peer may send.
    pub max_prefixes: Option<MaxPrefixes>,
    /// Watch the path.
    pub bfd: Option<Bfd>,
    /// The families that were named.
    pub families: Families,
    /// No session.
    pub admin_down: bool,
    /// What the peer is told about that.
    pub shutdown_message: String,
    /// About to go for maintenance.
    pub graceful_shutdown: bool,
}

impl BGPPeer {
    /// The typed peer, or every field that is wrong.
    pub fn check(&self) -> Result<Peer, Vec<FieldError>> {
        let spec = &self.spec;
        let mut errors = Errors::default();
        let nodes = errors.keep(self.check_nodes());
        let remote = self.check_remote(&mut errors);
        let [hold_time, keepalive_time] = self.check_timers(&mut errors);
        let send_hold_time = self.check_send_hold_time(hold_time, &mut errors);
        let tcp_ao = check_tcp_ao(&mut errors, "spec.tcpAo", spec.tcp_ao.as_ref());
        if spec.password.is_some() && spec.tcp_ao.is_some() {
            let words = "password (TCP-MD5) and tcpAo exclude each other: set one or neither";
            errors.push(FieldError::forbidden("spec.tcpAo", &spec.tcp_ao, words));
        }
        let connect_retry_time = spec.connect_retry_time.as_ref();
        let max_restart_time = spec.max_restart_time.as_ref();
        let local_as = spec.local_as_number.as_ref();
        let families = Families {
            ipv4: spec.families.contains(&FamilyName::Ipv4Unicast),
            ipv6: spec.families.contains(&FamilyName::Ipv6Unicast),
        };
        if spec
            .ttl_security
            .is_some_and(|hops| !(1..=254).contains(&hops))
        {
            let words = "must be 1 to 254 hops";
            errors.push(FieldError::invalid(
                "spec.ttlSecurity",
                spec.ttl_security,
                words,
            ));
        }
        let reachable_by = spec.reachable_by.as_ref();
        let reachable_by = reachable_by.and_then(|text| errors.keep(check_gateway(text, &remote)));
        let import_cidrs = cidrs(&mut errors, "spec.importCIDRs", &spec.import_cidrs);
        let mut kept =
            |field: Option<Result<Duration, FieldError>>| field.and_then(|f| errors.keep(f));
        let connect_retry_time =
            kept(connect_retry_time.map(|time| time.check("spec.connectRetryTime", 1, 3600)));
        let max_restart_time =
            kept(max_restart_time.map(|time| time.check("spec.maxRestartTime", 0, 4095)));
        let long_lived_restart_time = spec.long_lived_restart_time.as_ref();
        let long_lived_restart_time = kept(
            long_lived_restart_time
                .map(|time| time.check("spec.longLivedRestartTime", 0, LONGEST_LONG_LIVED_TIME)),
        );
        let local_as = local_as.and_then(|asn| errors.keep(asn.check_number("spec.localASNumber")));
        let max_prefixes = spec.max_prefixes.as_ref();
        let max_prefixes = max_prefixes.and_then(|max| errors.keep(check_max_prefixes(max)));
        let bfd = spec
            .bfd
            .as_ref()
            .and_then(|bfd| errors.keep(check_bfd(bfd)));
        let next_hop_mode = match (spec.next_hop_mode, spec.keep_original_next_hop) {
            (NextHopMode::Auto, Some(true)) => NextHopMode::Keep,
            (mode, _) => mode,
        };
        let peer = nodes.zip(remote).map(|(nodes, remote)| Peer {
            name: self.metadata.name.clone().unwrap_or_default(),
            nodes,
            remote,
            local_as,
            password: spec.password.as_ref().map(|p| p.secret_key_ref.clone()),
            tcp_ao,
            source_address: spec.source_address,
            max_restart_time,
            long_lived_restart_time,
            hold_time,
            keepalive_time,
            send_hold_time,
            connect_retry_time,
            next_hop_mode,
            ttl_security: spec.ttl_security,
            reachable_by,
            allowed_own_as: spec.num_allowed_local_as_numbers.unwrap_or(0),
            filters: spec.filters.clone(),
            import_cidrs,
            max_prefixes,
            bfd,
            families,
            admin_down: spec.admin_down.unwrap_or(false),
            shutdown_message: spec.shutdown_message.clone().unwrap_or_default(),
            graceful_shutdown: spec.graceful_shutdown.unwrap_or(false),
        });
        errors.finish(peer)
    }

    fn check_nodes(&self) -> Result<PeerNodes, FieldError> {
        match (&self.spec.node, &self.spec.node_selector) {
            (Some(_), Some(selector)) => Err(FieldError::forbidden(
                "spec.nodeSelector",
                selector,
                "node and nodeSelector exclude each other: set one or neither",
            )),
            (Some(node), None) => Ok(PeerNodes::Named(node.clone())),
            (None, Some(selector)) => {
                Selector::parse_field("spec.nodeSelector", selector).map(PeerNodes::Matching)
            }
            (None, None) => Ok(PeerNodes::All),
        }
    }

    fn check_remote(&self, errors: &mut Errors) -> Option<Remote> {
        let spec = &self.spec;
        let remotes = [
            spec.peer_ip.is_some(),
            spec.peer_selector.is_some(),
            spec.interface.is_some(),
            spec.peer_range.is_some(),
        ];
        if remotes.iter().filter(|there| **there).count() != 1 {
            errors.push(FieldError::required(
                "spec.peerIP",
                "say who the peer is: exactly one of peerIP, peerSelector, interface and peerRange",
            ));
            return None;
        }
        if let Some(text) = &spec.peer_ip {
            let address = errors.keep(check_peer_ip(text));
            let asn = self.check_peer_as(errors);
            return address
                .zip(asn)
                .map(|(address, asn)| Remote::Address { address, asn });
        }
        if let Some(name) = &spec.interface {
            let name = errors.keep(check_interface(name));
            let asn = self.check_peer_as(errors);
            return name
                .zip(asn)
                .map(|(name, asn)| Remote::Interface { name, asn });
        }
        if let Some(asn) = &spec.as_number {
            let words = match spec.peer_range {
                Some(_) => "does not go with peerRange: list asNumbers in the range",
                None => "does not go with peerSelector: each node's own AS counts",
            };
            errors.push(FieldError::forbidden("spec.asNumber", asn, words));
        }
        if let Some(range) = &spec.peer_range {
            return check_range(errors, range);
        }
        let selector = spec.peer_selector.as_ref()?;
        let selector = errors.keep(Selector::parse_field("spec.peerSelector", selector));
        selector.map(|selector| Remote::Nodes {
            selector,
            reverse: spec.reverse_peering == ReversePeering::Auto,
        })
    }

    fn check_peer_as(&self, errors: &mut Errors) -> Option<PeerAs> {
        match &self.spec.as_number {
            Some(asn) => errors.keep(asn.check_peer("spec.asNumber")),
            None => {
                let words = "say which AS the peer is in: a number, internal or external";
                errors.push(FieldError::required("spec.asNumber", words));
                None
            }
        }
    }

    /// Hold time and keepalive time.
    fn check_timers(&self, errors: &mut Errors) -> [Option<Duration>; 2] {
        let spec = &self.spec;
        let hold = spec
            .hold_time
            .as_ref()
            .map(|time| time.check("spec.holdTime", 0, 65_535));
        let hold = hold.and_then(|time| errors.keep(time));
        if let Some(time) = hold
            && matches!(time.as_secs(), 1 | 2)
        {
            errors.push(FieldError::invalid(
                "spec.holdTime",
                &spec.hold_time,
                "must be 0 or at least 3 seconds (RFC 4271 section 4.2)",
            ));
        }
        let keepalive = spec.keepalive_time.as_ref();
        let keepalive = keepalive.map(|time| time.check("spec.keepaliveTime", 1, 65_535));
        let keepalive = keepalive.and_then(|time| errors.keep(time));
        if let (Some(hold), Some(keepalive)) = (hold, keepalive)
            && !hold.is_zero()
            && keepalive >= hold
        {
            errors.push(FieldError::invalid(
                "spec.keepaliveTime",
                &spec.keepalive_time,
                format!(
                    "must be shorter than the hold time of {} seconds",
                    hold.as_secs()
                ),
            ));
        }
        [hold, keepalive]
    }
}

impl BGPPeer {
    /// The send hold time, which must be longer than the hold time (RFC 9687).
    fn check_send_hold_time(
        &self,
        hold: Option<Duration>,
        errors: &mut Errors,
    ) -> Option<Duration> {
        let written = self.spec.send_hold_time.as_ref()?;
        let time = errors.keep(written.check("spec.sendHoldTime", 0, 86_400))?;
        let hold = hold.unwrap_or(DEFAULT_HOLD_TIME);
        if !time.is_zero() && time <= hold {
            let words = format!(
                "must be longer than the hold time of {} seconds, or 0",
                hold.as_secs()
            );
            errors.push(FieldError::invalid("spec.sendHoldTime", written, words));
        }
        Some(time)
    }
}

/// TCP-AO keys: every number there once.
pub(crate) fn check_tcp_ao(errors: &mut Errors, path: &str, written: Option<&TcpAo>) -> Vec<AoKey> {
    let Some(written) = written else {
        return Vec::new();
    };
    if written.keys.is_empty() {
        let words = "name at least one key, or leave tcpAo out";
        errors.push(FieldError::required(&format!("{path}.keys"), words));
    }
    for (index, key) in written.keys.iter().enumerate() {
        let mut before = written.keys.iter().take(index);
        if before.any(|other| other.send_id == key.send_id || other.recv_id == key.recv_id) {
            errors.push(FieldError::invalid(
                &format!("{path}.keys[{index}]"),
                (key.send_id, key.recv_id),
                "each sendId and each recvId must be there only once",
            ));
        }
    }
    let keys = written.keys.iter().map(|key| AoKey {
        send_id: key.send_id,
        recv_id: key.recv_id,
        algorithm: key.algorithm,
        secret: key.secret_key_ref.clone(),
    });
    keys.collect()
}

fn check_peer_ip(text: &str) -> Result<SocketAddr, FieldError> {
    let address = match text.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, DEFAULT_PORT),
        Err(_) => text.parse().map_err(|_| {
            FieldError::invalid(
                "spec.peerIP",
                text,
                "must be an address, or address:port with an IPv6 address in brackets",
            )
        })?,
    };
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
        return Err(FieldError::invalid(
            "spec.peerIP",
            text,
            "must be the unicast address of a router, with a port of 1 to 65535",
        ));
    }
    Ok(address)
}

fn check_gateway(text: &str, remote: &Option<Remote>) -> Result<IpAddr, FieldError> {
    let path = "spec.reachableBy";
    let gateway: IpAddr = text
        .parse()
        .map_err(|_| FieldError::invalid(path, text, "must be the address of a gateway"))?;
    match remote {
        Some(Remote::Address { address, .. }) if address.is_ipv4() == gateway.is_ipv4() => {
            Ok(gateway)
        }
        Some(Remote::Address { .. }) => Err(FieldError::invalid(
            path,
            text,
            "must be of the address family of peerIP",
        )),
        Some(_) => Err(FieldError::forbidden(path, text, "needs peerIP")),
        // That has been said already.
        None => Ok(gateway),
    }
}

/// What Linux takes for the name of an interface.
fn check_interface(name: &str) -> Result<String, FieldError> {
    let good = |octet: u8| octet.is_ascii_graphic() && !matches!(octet, b'/' | b':' | b'%');
    if (1..=15).contains(&name.len()) && name.bytes().all(good) && name != "." && name != ".." {
        return Ok(name.to_owned());
    }
    let words = "must be the name of an interface: up to 15 characters, no space, slash or colon";
    Err(FieldError::invalid("spec.interface", name, words))
}

fn check_range(errors: &mut Errors, range: &PeerRange) -> Option<Remote> {
    let network = errors.keep(cidr("spec.peerRange.cidr", &range.cidr));
    let limit = range.limit.unwrap_or(100);
    if limit == 0 {
        let words = "must be at least 1";
        errors.push(FieldError::invalid("spec.peerRange.limit", limit, words));
    }
    let mut ases = Vec::new();
    let mut named = None;
    for (index, asn) in range.as_numbers.iter().enumerate() {
        let path = format!("spec.peerRange.asNumbers[{index}]");
        match errors.keep(check_as_range(&path, asn)) {
            Some(Ok(numbers)) => ases.push(numbers),
            Some(Err(word)) => named = Some(word),
            None => {}
        }
    }
    if named.is_some() && range.as_numbers.len() > 1 {
        errors.push(FieldError::invalid(
            "spec.peerRange.asNumbers",
            &range.as_numbers,
            "internal and external stand alone",
        ));
    }
    if range.as_numbers.is_empty() {
        let words = "say which ASes may connect: numbers, ranges, internal or external";
        errors.push(FieldError::required("spec.peerRange.asNumbers", words));
    }
    network.map(|cidr| Remote::Range {
        cidr,
        ases,
        asn: named,
        limit,
    })
}

/// A range of AS numbers, or one of the two words.
fn check_as_range(path: &str, asn: &AsNumber) -> Result<Result<(u32, u32), PeerAs>, FieldError> {
    if let AsNumber::Text(text) = asn
        && let Some((low, high)) = text.split_once('-')
    {
        let wrong = || FieldError::invalid(path, text, "must be LOW-HIGH, such as 64512-64600");
        let low = parse_as_number(low.trim()).ok_or_else(wrong)?;
        let high = parse_as_number(high.trim()).ok_or_else(wrong)?;
        check_as_number(path, low)?;
        check_as_number(path, high)?;
        return if low <= high {
            Ok(Ok((low, high)))
        } else {
            Err(wrong())
        };
    }
    Ok(match asn.check_peer(path)? {
        PeerAs::Number(number) => Ok((number, number)),
        word => Err(word),
    })
}

fn check_max_prefixes(spec: &MaxPrefixesSpec) -> Result<MaxPrefixes, FieldError> {
    let warn_percent = spec.warn_percent.unwrap_or(80);
    if spec.limit == 0 {
        let words = "must be at least 1";
        return Err(FieldError::invalid("spec.maxPrefixes.limit", 0, words));
    }
    if !(1..=100).contains(&warn_percent) {
        let words = "must be 1 to 100 percent";
        return Err(FieldError::invalid(
            "spec.maxPrefixes.warnPercent",
            warn_percent,
            words,
        ));
    }
    let restart_after = match &spec.restart_after {
        Some(time) => time.check("spec.maxPrefixes.restartAfter", 1, 86_400)?,
        None => Duration::from_secs(300),
    };
    Ok(MaxPrefixes {
        limit: spec.limit,
        warn_percent,
        action: spec.action,
        restart_after,
    })
}

fn check_bfd(spec: &BfdSpec) -> Result<Bfd, FieldError> {
    let interval = |name: &str, value: Option<u32>| match value.unwrap_or(300) {
        value @ 10..=60_000 => Ok(value),
        value => {
            let words = "must be 10 to 60000 milliseconds";
            Err(FieldError::invalid(
                &format!("spec.bfd.{name}"),
                value,
                words,
            ))
        }
    };
    let multiplier = spec.multiplier.unwrap_or(3);
    if multiplier == 0 {
        let words = "must be 1 to 255";
        return Err(FieldError::invalid(
            "spec.bfd.multiplier",
            multiplier,
            words,
        ));
    }
    Ok(Bfd {
        min_tx: interval("minTx", spec.min_tx)?,
        min_rx: interval("minRx", spec.min_rx)?,
        multiplier,
        multihop: spec.multihop.unwrap_or(false),
    })
}

#[cfg(test)]
mod tests;

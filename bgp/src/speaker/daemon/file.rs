//! The configuration file's content, and what it means for the speaker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{
    Announcement, BGP_PORT, ConfigError, GracefulRestart, NextHopMode, NextHops, PeerConfig,
    SpeakerConfig,
};
use crate::policy::{Filter, MatchOperator, Operation, PrefixMatch, Rule, Verdict};
use crate::types::{Asn, Community, Family, LargeCommunity, Prefix, RouterId};

/// Filter names that need no definition: everything, nothing.
const BUILT_IN: [(&str, Verdict); 2] = [("accept", Verdict::Accept), ("reject", Verdict::Reject)];

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    /// The AS of this speaker.
    pub asn: Asn,
    /// Its BGP Identifier.
    pub router_id: RouterId,
    /// Where to accept connections; left out: port 179 of every address.
    #[serde(default = "listen_everywhere")]
    pub listen: Vec<ListenEntry>,
    /// Put the best routes into the kernel's table. Whoever runs the daemon sees to it.
    #[serde(default)]
    pub install: bool,
    /// The peers.
    #[serde(default)]
    pub neighbors: Vec<NeighborEntry>,
    /// The routes to originate.
    #[serde(default)]
    pub announce: Vec<AnnounceEntry>,
    /// Filters by name. `accept` and `reject` are there already.
    #[serde(default)]
    pub filters: BTreeMap<String, FilterEntry>,
    /// Path of the unix socket that answers questions; left out: none.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// RFC 8212: an eBGP neighbor without a filter gives nothing and is given nothing.
    #[serde(default = "yes")]
    pub require_policy: bool,
    /// Addresses of this host for next hops of a session's other address family.
    #[serde(default)]
    pub next_hop: NextHops,
    /// Announce graceful restart (RFC 4724).
    #[serde(default)]
    pub graceful_restart: Option<GracefulRestart>,
}

/// One listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenEntry {
    /// The local address.
    pub address: IpAddr,
    /// The port; 0 has the system choose one.
    #[serde(default = "bgp_port")]
    pub port: u16,
}

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NeighborEntry {
    /// The address the peer is reached at.
    pub address: IpAddr,
    /// The AS it must present.
    pub asn: Asn,
    /// What to call it; left out: its address.
    #[serde(default)]
    pub name: Option<String>,
    /// Its port for outgoing connections.
    #[serde(default = "bgp_port")]
    pub port: u16,
    /// Source address of outgoing connections.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// Only accept connections.
    #[serde(default)]
    pub passive: bool,
    /// Administratively down.
    #[serde(default)]
    pub disabled: bool,
    /// Hold time to propose, in seconds: 0 or at least 3; left out: 90.
    #[serde(default)]
    pub hold_time: Option<u16>,
    /// Seconds between KEEPALIVEs; left out: a third of the hold time.
    #[serde(default)]
    pub keepalive_time: Option<u16>,
    /// Seconds between two attempts to connect; left out: 5.
    #[serde(default)]
    pub connect_retry_time: Option<u16>,
    /// Families to offer; left out: the one the address is of.
    #[serde(default)]
    pub families: BTreeSet<Family>,
    /// TTL or hop limit of packets; left out: 1 on eBGP, 64 on iBGP.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// Name of the filter for what is taken.
    #[serde(default)]
    pub import: Option<String>,
    /// Name of the filter for what is given.
    #[serde(default)]
    pub export: Option<String>,
    /// Next hop of what is given.
    #[serde(default)]
    pub next_hop: NextHopEntry,
}

/// Next hop of routes to a peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NextHopEntry {
    /// This speaker on eBGP and for its own routes, unchanged on iBGP.
    #[default]
    Auto,
    /// This speaker.
    #[serde(rename = "self")]
    SelfAddress,
    /// Unchanged.
    Keep,
}

/// One route to originate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnnounceEntry {
    /// The destination.
    pub prefix: Prefix,
    /// Its next hop; left out: this speaker.
    #[serde(default)]
    pub next_hop: Option<IpAddr>,
    /// LOCAL_PREF; left out: 100.
    #[serde(default)]
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC; left out: none.
    #[serde(default)]
    pub med: Option<u32>,
    /// Communities.
    #[serde(default)]
    pub communities: BTreeSet<Community>,
    /// Large communities.
    #[serde(default)]
    pub large_communities: BTreeSet<LargeCommunity>,
}

/// One filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterEntry {
    /// The rules; the first that matches decides.
    #[serde(default)]
    pub rules: Vec<RuleEntry>,
    /// What happens to routes no rule matches; left out: they are rejected.
    #[serde(default = "reject")]
    pub default: Action,
}

/// One rule of a filter, with the field names of Calico's BGPFilter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleEntry {
    /// The network routes are compared with; left out: the rule matches every route.
    #[serde(default)]
    pub cidr: Option<Prefix>,
    /// How: `In` (the default), `Equal`, `NotIn`, `NotEqual`.
    #[serde(default)]
    pub match_operator: MatchOperator,
    /// The prefix lengths that match; left out: all.
    #[serde(default)]
    pub prefix_length: LengthRange,
    /// What happens to routes that match.
    pub action: Action,
    /// LOCAL_PREF to give them.
    #[serde(default)]
    pub set_local_pref: Option<u32>,
    /// MULTI_EXIT_DISC to give them.
    #[serde(default)]
    pub set_med: Option<u32>,
    /// Communities to add to them.
    #[serde(default)]
    pub add_communities: Vec<Community>,
    /// Large communities to add to them.
    #[serde(default)]
    pub add_large_communities: Vec<LargeCommunity>,
}

/// A range of prefix lengths, in bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LengthRange {
    /// The shortest.
    #[serde(default)]
    pub min: Option<u8>,
    /// The longest.
    #[serde(default)]
    pub max: Option<u8>,
}

/// Accept or reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Lets the route pass.
    #[serde(alias = "accept")]
    Accept,
    /// Stops it.
    #[serde(alias = "reject")]
    Reject,
}

fn listen_everywhere() -> Vec<ListenEntry> {
    let any: [IpAddr; 2] = [
        Ipv4Addr::UNSPECIFIED.into(),
        std::net::Ipv6Addr::UNSPECIFIED.into(),
    ];
    any.map(|address| ListenEntry {
        address,
        port: BGP_PORT,
    })
    .to_vec()
}

const fn yes() -> bool {
    true
}

const fn bgp_port() -> u16 {
    BGP_PORT
}

const fn reject() -> Action {
    Action::Reject
}

/// What is wrong with a file; the message begins with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Two entries for one peer.
    #[error("neighbors[{index}].address: {address} is there already; one entry for each neighbor")]
    DuplicateNeighbor {
        /// Position of the second entry, from 0.
        index: usize,
        /// The address.
        address: IpAddr,
    },
    /// Two entries for one prefix.
    #[error("announce[{index}].prefix: {prefix} is there already; one entry for each prefix")]
    DuplicateAnnouncement {
        /// Position of the second entry, from 0.
        index: usize,
        /// The prefix.
        prefix: Prefix,
    },
    /// A next hop of the wrong family.
    #[error("announce[{index}].nextHop: {next_hop} is not of the address family of {prefix}")]
    NextHopFamily {
        /// Position of the entry, from 0.
        index: usize,
        /// The prefix.
        prefix: Prefix,
        /// The next hop.
        next_hop: IpAddr,
    },
    /// A filter that is not there.
    #[error(
        "neighbors[{index}].{field}: no filter named {name:?} under filters, and it is not \"accept\" or \"reject\""
    )]
    UnknownFilter {
        /// Position of the neighbor, from 0.
        index: usize,
        /// `import` or `export`.
        field: &'static str,
        /// The name.
        name: String,
    },
    /// A filter that would hide a built-in one.
    #[error("filters.{name}: this name has a fixed meaning; use another one")]
    ReservedFilter {
        /// The name.
        name: String,
    },
    /// Shortest above longest.
    #[error(
        "filters.{name}.rules[{index}].prefixLength: min is above max, so that nothing matches"
    )]
    EmptyRange {
        /// The filter.
        name: String,
        /// Position of the rule, from 0.
        index: usize,
    },
    /// What the speaker itself has to say.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl File {
    /// What the file means for the speaker.
    ///
    /// # Errors
    /// A [`FileError`] that names the field.
    pub fn speaker_config(&self) -> Result<SpeakerConfig, FileError> {
        let mut config = SpeakerConfig::new(self.asn, self.router_id);
        config.listen = self
            .listen
            .iter()
            .map(|l| SocketAddr::new(l.address, l.port))
            .collect();
        config.require_policy = self.require_policy;
        config.next_hop = self.next_hop;
        config.graceful_restart = self.graceful_restart;
        let filters = self.compile_filters()?;
        for (index, neighbor) in self.neighbors.iter().enumerate() {
            let address = neighbor.address;
            let peer = neighbor.peer_config(index, &filters)?;
            if config.peers.insert(address, peer).is_some() {
                return Err(FileError::DuplicateNeighbor { index, address });
            }
        }
        for (index, entry) in self.announce.iter().enumerate() {
            let prefix = entry.prefix;
            if config
                .announcements
                .insert(prefix, entry.announcement(index)?)
                .is_some()
            {
                return Err(FileError::DuplicateAnnouncement { index, prefix });
            }
        }
        config.validate()?;
        Ok(config)
    }

    fn compile_filters(&self) -> Result<BTreeMap<&str, Filter>, FileError> {
        let built_in = |(name, otherwise)| {
            (
                name,
                Filter {
                    rules: Vec::new(),
                    otherwise,
                },
            )
        };
        let mut filters: BTreeMap<&str, Filter> = BUILT_IN.into_iter().map(built_in).collect();
        for (name, entry) in &self.filters {
            let filter = entry.filter(name)?;
            if filters.insert(name, filter).is_some() {
                return Err(FileError::ReservedFilter { name: name.clone() });
            }
        }
        Ok(filters)
    }
}

impl NeighborEntry {
    fn peer_config(
        &self,
        index: usize,
        filters: &BTreeMap<&str, Filter>,
    ) -> Result<PeerConfig, FileError> {
        let filter = |field, name: &Option<String>| match name {
            None => Ok(None),
            Some(name) => match filters.get(name.as_str()) {
                Some(filter) => Ok(Some(filter.clone())),
                None => Err(FileError::UnknownFilter {
                    index,
                    field,
                    name: name.clone(),
                }),
            },
        };
        let seconds = |value: u16| Duration::from_secs(value.into());
        let defaults = PeerConfig::new(self.address, self.asn);
        Ok(PeerConfig {
            name: self.name.clone().unwrap_or(defaults.name),
            port: self.port,
            local_address: self.local_address,
            passive: self.passive,
            disabled: self.disabled,
            hold_time: self.hold_time.map_or(defaults.hold_time, seconds),
            keepalive_time: self.keepalive_time.map(seconds),
            connect_retry_time: self
                .connect_retry_time
                .map_or(defaults.connect_retry_time, seconds),
            families: if self.families.is_empty() {
                defaults.families
            } else {
                self.families.clone()
            },
            ttl: self.ttl,
            import: filter("import", &self.import)?,
            export: filter("export", &self.export)?,
            next_hop: match self.next_hop {
                NextHopEntry::Auto => NextHopMode::Auto,
                NextHopEntry::SelfAddress => NextHopMode::SelfAddress,
                NextHopEntry::Keep => NextHopMode::Keep,
            },
            asn: self.asn,
        })
    }
}

impl AnnounceEntry {
    fn announcement(&self, index: usize) -> Result<Announcement, FileError> {
        if let Some(next_hop) = self.next_hop
            && Family::of(&next_hop) != self.prefix.family()
        {
            return Err(FileError::NextHopFamily {
                index,
                prefix: self.prefix,
                next_hop,
            });
        }
        Ok(Announcement {
            next_hop: self.next_hop,
            local_pref: self.local_pref,
            med: self.med,
            communities: self.communities.clone(),
            large_communities: self.large_communities.clone(),
        })
    }
}

impl FilterEntry {
    fn filter(&self, name: &str) -> Result<Filter, FileError> {
        let rules = self.rules.iter().enumerate().map(|(index, rule)| {
            let LengthRange { min, max } = rule.prefix_length;
            if min.zip(max).is_some_and(|(min, max)| min > max) {
                return Err(FileError::EmptyRange {
                    name: name.to_owned(),
                    index,
                });
            }
            Ok(rule.rule())
        });
        Ok(Filter {
            rules: rules.collect::<Result<_, _>>()?,
            otherwise: self.default.verdict(),
        })
    }
}

impl RuleEntry {
    fn rule(&self) -> Rule {
        let lengths = self.prefix_length;
        let matching = |prefix| PrefixMatch {
            prefix,
            operator: self.match_operator,
            min_length: lengths.min,
            max_length: lengths.max,
        };
        let prefixes = match self.cidr {
            Some(prefix) => vec![matching(prefix)],
            None if lengths == LengthRange::default() => Vec::new(),
            None => vec![matching(Prefix::DEFAULT_V4), matching(Prefix::DEFAULT_V6)],
        };
        let communities = self
            .add_communities
            .iter()
            .copied()
            .map(Operation::AddCommunity);
        let large = self
            .add_large_communities
            .iter()
            .copied()
            .map(Operation::AddLargeCommunity);
        let operations = self.set_local_pref.map(Operation::SetLocalPref).into_iter();
        Rule {
            prefixes,
            verdict: self.action.verdict(),
            operations: operations
                .chain(self.set_med.map(Operation::SetMed))
                .chain(communities)
                .chain(large)
                .collect(),
        }
    }
}

impl Action {
    fn verdict(self) -> Verdict {
        match self {
            Action::Accept => Verdict::Accept,
            Action::Reject => Verdict::Reject,
        }
    }
}

#[cfg(test)]
mod tests;

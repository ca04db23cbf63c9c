//! From the file to the speaker's configuration, with errors that name the field.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{
    Action, AnnounceEntry, File, FilterEntry, LengthRange, NeighborEntry, NextHopEntry, RuleEntry,
};
use crate::config::{Announcement, ConfigError, NextHopMode, PeerConfig, SpeakerConfig};
use crate::policy::{Conditions, Filter, Operation, PrefixMatch, Rule, Verdict};
use crate::types::{Family, Prefix};

/// Filter names that need no definition: everything, nothing.
const BUILT_IN: [(&str, Verdict); 2] = [("accept", Verdict::Accept), ("reject", Verdict::Reject)];

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
        let built_in = |(name, otherwise)| (name, Filter::new(Vec::new(), otherwise));
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
            policy: defaults.policy,
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
            extended_communities: BTreeSet::new(),
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
        let rules = rules.collect::<Result<_, _>>()?;
        Ok(Filter::new(rules, self.default.verdict()))
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
            conditions: Conditions::default(),
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

//! From the file to the speaker's configuration, with errors that name the field.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::signing::read_secret;
use super::{AnnounceEntry, File, LimitAction, MaxPrefixesEntry, NeighborEntry, NextHopEntry};
use crate::config::{
    Announcement, ConfigError, DEFAULT_RANGE_LIMIT, DEFAULT_RESTART_AFTER, MaxPrefixes,
    MaxPrefixesAction, NextHopMode, PeerAsn, PeerConfig, PeerPolicy, PeerRange, Security,
    SpeakerConfig,
};
use crate::policy::{Filter, Verdict};
use crate::types::{Family, Prefix};

/// Filter names that need no definition: everything, nothing.
const BUILT_IN: [(&str, Verdict); 2] = [("accept", Verdict::Accept), ("reject", Verdict::Reject)];

/// What is wrong with a file; the message begins with the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Two entries for one peer.
    #[error("neighbors[{index}].{whom} is there already; one entry for each neighbor")]
    DuplicateNeighbor {
        /// Position of the second entry, from 0.
        index: usize,
        /// Whom both are about.
        whom: Whom,
    },
    /// An entry that is about nobody, or about more than one.
    #[error(
        "neighbors[{index}]: exactly one of address, range and interface says whom it is about"
    )]
    Whom {
        /// Position of the entry, from 0.
        index: usize,
    },
    /// An entry that does not say which AS the neighbor must present.
    #[error(
        "neighbors[{index}].asn: say a number, internal or external; with range, asns may list several"
    )]
    NoAsn {
        /// Position of the entry, from 0.
        index: usize,
    },
    /// A field that means something only with `range`.
    #[error("neighbors[{index}].{field}: only with range")]
    OnlyWithRange {
        /// Position of the entry, from 0.
        index: usize,
        /// The field.
        field: &'static str,
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
    /// A rule that cannot be.
    #[error("filters.{name}.rules[{index}].{field}: {problem}")]
    Rule {
        /// The filter.
        name: String,
        /// Position of the rule, from 0.
        index: usize,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A prefix in a list that matches nothing.
    #[error("prefixLists.{name}[{index}]: {problem}")]
    PrefixList {
        /// The list.
        name: String,
        /// Position of the prefix, from 0.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Two entries for one prefix.
    #[error("aggregates[{index}].prefix: {prefix} is there already; one entry for each prefix")]
    DuplicateAggregate {
        /// Position of the second entry, from 0.
        index: usize,
        /// The prefix.
        prefix: Prefix,
    },
    /// A table of the kernel's own.
    #[error(
        "install.table: {table} is not for routes; leave it out for table main, or use another number"
    )]
    InstallTable {
        /// The number.
        table: u32,
    },
    /// Both ways of giving a password.
    #[error("neighbors[{index}]: password and passwordFile exclude one another")]
    TwoPasswords {
        /// Position of the neighbor, from 0.
        index: usize,
    },
    /// A password that cannot be read. Without it the neighbor would be spoken to unsigned, so nothing is.
    #[error("neighbors[{index}].passwordFile: {path}: {reason}")]
    PasswordFile {
        /// Position of the neighbor, from 0.
        index: usize,
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        reason: String,
    },
    /// TCP-AO keys that are none.
    #[error("neighbors[{index}].tcpAo.{problem}")]
    TcpAo {
        /// Position of the neighbor, from 0.
        index: usize,
        /// The field in `tcpAo`, and what is wrong with it.
        problem: String,
    },
    /// Two entries for one BMP station.
    #[error("bmp[{index}].address: {address} is there already; one entry for each station")]
    DuplicateStation {
        /// Position of the second entry, from 0.
        index: usize,
        /// Its address and port.
        address: SocketAddr,
    },
    /// A source address that cannot reach the station.
    #[error(
        "bmp[{index}].localAddress: must be of the same address family as the station's address"
    )]
    StationLocalAddress {
        /// Position of the entry, from 0.
        index: usize,
    },
    /// A file that cannot be written as it is asked for.
    #[error("{field}: {problem}")]
    Monitor {
        /// The field.
        field: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// What the speaker itself has to say.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Whom an entry is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// One peer.
    Address(IpAddr),
    /// Who comes from a network.
    Range(Prefix),
    /// Who is on an interface.
    Interface(String),
}

impl std::fmt::Display for Whom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "address: {address}"),
            Self::Range(prefix) => write!(f, "range: {prefix}"),
            Self::Interface(name) => write!(f, "interface: {name}"),
        }
    }
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
        self.install.target()?;
        config.require_policy = self.require_policy;
        config.next_hop = self.next_hop;
        config.multipath = self.multipath;
        config.graceful_restart = self.graceful_restart;
        config.graceful_restart_helper = self.graceful_restart_helper;
        if let Some(seconds) = self.selection_deferral {
            config.selection_deferral = Duration::from_secs(seconds.into());
        }
        let filters = self.compile_filters()?;
        for (index, neighbor) in self.neighbors.iter().enumerate() {
            let whom = neighbor.whom(index)?;
            let peer = neighbor.peer_config(index, &whom, &filters)?;
            let known = match &whom {
                Whom::Address(address) => config.peers.insert(*address, peer).is_some(),
                Whom::Interface(name) => config.interfaces.insert(name.clone(), peer).is_some(),
                Whom::Range(prefix) => {
                    let limit = neighbor.limit.unwrap_or(DEFAULT_RANGE_LIMIT);
                    let range = PeerRange { limit, peer };
                    config.ranges.insert(*prefix, range).is_some()
                }
            };
            if known {
                return Err(FileError::DuplicateNeighbor { index, whom });
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
        config.cluster_id = self.cluster_id;
        config.shared_segments.clone_from(&self.shared_segments);
        for (index, entry) in self.aggregates.iter().enumerate() {
            let prefix = entry.prefix;
            if config
                .aggregates
                .insert(prefix, entry.aggregate())
                .is_some()
            {
                return Err(FileError::DuplicateAggregate { index, prefix });
            }
        }
        config.validate()?;
        Ok(config)
    }

    fn check_prefix_lists(&self) -> Result<(), FileError> {
        for (name, list) in &self.prefix_lists {
            for (index, entry) in list.iter().enumerate() {
                if let Err((_, problem)) = entry.prefix_match("prefixLists") {
                    let name = name.clone();
                    return Err(FileError::PrefixList {
                        name,
                        index,
                        problem,
                    });
                }
            }
        }
        Ok(())
    }

    fn compile_filters(&self) -> Result<BTreeMap<&str, Filter>, FileError> {
        self.check_prefix_lists()?;
        let built_in = |(name, otherwise)| (name, Filter::new(Vec::new(), otherwise));
        let mut filters: BTreeMap<&str, Filter> = BUILT_IN.into_iter().map(built_in).collect();
        for (name, entry) in &self.filters {
            let filter = entry.filter(&self.prefix_lists);
            let filter = filter.map_err(|(index, (field, problem))| FileError::Rule {
                name: name.clone(),
                index,
                field,
                problem,
            })?;
            if filters.insert(name, filter).is_some() {
                return Err(FileError::ReservedFilter { name: name.clone() });
            }
        }
        Ok(filters)
    }
}

impl NeighborEntry {
    fn whom(&self, index: usize) -> Result<Whom, FileError> {
        match (&self.address, &self.range, &self.interface) {
            (Some(address), None, None) => {
                let only = [
                    ("limit", self.limit.is_some()),
                    ("asns", !self.asns.is_empty()),
                ];
                match only.iter().find(|(_, there)| *there) {
                    Some((field, _)) => Err(FileError::OnlyWithRange { index, field }),
                    None => Ok(Whom::Address(*address)),
                }
            }
            (None, Some(prefix), None) => Ok(Whom::Range(*prefix)),
            (None, None, Some(name)) => Ok(Whom::Interface(name.clone())),
            _ => Err(FileError::Whom { index }),
        }
    }

    fn wanted_asn(&self, index: usize) -> Result<PeerAsn, FileError> {
        match &self.asn {
            Some(asn) if self.asns.is_empty() => Ok(asn.clone()),
            None if !self.asns.is_empty() => Ok(PeerAsn::OneOf(self.asns.clone())),
            _ => Err(FileError::NoAsn { index }),
        }
    }

    fn peer_config(
        &self,
        index: usize,
        whom: &Whom,
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
        let asn = self.wanted_asn(index)?;
        let defaults = match whom {
            Whom::Address(address) => PeerConfig::new(*address, asn),
            Whom::Interface(interface) => PeerConfig::on_interface(interface, asn),
            Whom::Range(prefix) => PeerConfig {
                name: prefix.to_string(),
                ..PeerConfig::new(prefix.address(), asn)
            },
        };
        Ok(PeerConfig {
            restart_time: None,
            long_lived_time: None,
            name: self.name.clone().unwrap_or(defaults.name),
            port: self.port,
            local_address: self.local_address,
            passive: self.passive,
            disabled: self.disabled || self.admin_down.is_some(),
            hold_time: self.hold_time.map_or(defaults.hold_time, seconds),
            keepalive_time: self.keepalive_time.map(seconds),
            send_hold_time: self.send_hold_time.map(seconds),
            connect_retry_time: self
                .connect_retry_time
                .map_or(defaults.connect_retry_time, seconds),
            families: if self.families.is_empty() {
                defaults.families
            } else {
                self.families.clone()
            },
            ttl: self.ttl,
            scope: 0,
            import: filter("import", &self.import)?,
            export: filter("export", &self.export)?,
            next_hop: match self.next_hop {
                NextHopEntry::Auto => NextHopMode::Auto,
                NextHopEntry::SelfAddress => NextHopMode::SelfAddress,
                NextHopEntry::Keep => NextHopMode::Keep,
            },
            policy: PeerPolicy {
                route_reflector_client: self.route_reflector_client,
                local_as: self.local_as,
                allow_own_as: self.allow_own_as,
                as_override: self.as_override,
                remove_private_as: self.remove_private_as,
                enforce_first_as: self.enforce_first_as,
                accept_as_sets: self.accept_as_sets,
                graceful_shutdown: self.graceful_shutdown,
            },
            asn: defaults.asn,
            add_path: self.add_path,
            min_advertisement_interval: seconds(self.min_advertisement_interval),
            extended_next_hop: self.extended_next_hop.unwrap_or(defaults.extended_next_hop),
            role: self.role,
            role_strict: self.role_strict,
            bfd: self.bfd,
            security: self.security(index)?,
            max_prefixes: self.max_prefixes.limits(),
            shutdown_message: self.admin_down.clone().unwrap_or_default(),
        })
    }
}

impl NeighborEntry {
    fn security(&self, index: usize) -> Result<Security, FileError> {
        let password = match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => return Err(FileError::TwoPasswords { index }),
            (Some(password), None) => Some(password.clone()),
            (None, Some(path)) => {
                let secret = read_secret(path).map_err(|reason| FileError::PasswordFile {
                    index,
                    path: path.clone(),
                    reason,
                });
                Some(secret?)
            }
            (None, None) => None,
        };
        let tcp_ao = self.tcp_ao.as_ref().map_or(Ok(Vec::new()), |entry| {
            let keys = entry.keys();
            keys.map_err(|problem| FileError::TcpAo { index, problem })
        });
        Ok(Security {
            password,
            ttl_security: self.ttl_security,
            tcp_ao: tcp_ao?,
        })
    }
}

impl MaxPrefixesEntry {
    fn limits(&self) -> MaxPrefixes {
        let defaults = MaxPrefixes::default();
        let after = self.restart_after.map_or(DEFAULT_RESTART_AFTER, |seconds| {
            Duration::from_secs(seconds.into())
        });
        MaxPrefixes {
            limit: self.limit.unwrap_or(defaults.limit),
            warn_percent: self.warn_percent.unwrap_or(defaults.warn_percent),
            action: match self.action {
                LimitAction::Restart => MaxPrefixesAction::Restart(after),
                LimitAction::Teardown => MaxPrefixesAction::Teardown,
                LimitAction::Warn => MaxPrefixesAction::Warn,
            },
        }
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
            extended_communities: self.extended_communities.clone(),
        })
    }
}

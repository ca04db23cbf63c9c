//! The fields `bmp`, `mrt` and `record`: who is told what the speaker does.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{File, FileError};
use crate::observe::Interest;
use crate::speaker::monitor::{
    DumpsConfig, MonitorConfig, StationConfig, TIME, UpdatesConfig, has_time,
};

/// The port of BMP stations where nothing else is asked for.
const BMP_PORT: NonZeroU16 = NonZeroU16::new(11019).expect("not zero");
/// Seconds between two statistics reports.
const STATISTICS: u32 = 60;
/// Seconds between two dumps, and the shortest time a file of updates is written to.
const LEAST: u32 = 10;

/// A BMP station (RFC 7854) to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StationEntry {
    /// Its address.
    pub address: IpAddr,
    /// Its port; left out: 11019.
    #[serde(default = "bmp_port")]
    pub port: NonZeroU16,
    /// Which routes it is told of: `pre` policy, `post` policy, or `both`; left out: `pre`.
    #[serde(default)]
    pub route_monitoring: Monitoring,
    /// Seconds between two statistics reports, 0 for none; left out: 60.
    #[serde(default = "statistics")]
    pub statistics_interval: u32,
    /// Source address of the connection.
    #[serde(default)]
    pub local_address: Option<IpAddr>,
    /// What this speaker is called; left out: the name of the host.
    #[serde(default)]
    pub system_name: Option<String>,
    /// What this speaker is; left out: Margay and its version.
    #[serde(default)]
    pub system_description: Option<String>,
}

/// On which side of the import policy a station looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Monitoring {
    /// Routes as the neighbors sent them.
    #[default]
    Pre,
    /// Routes as the import policy made them.
    Post,
    /// Either.
    Both,
}

/// What is written in MRT (RFC 6396).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MrtEntry {
    /// Messages and state changes.
    #[serde(default)]
    pub updates: Option<UpdatesEntry>,
    /// The RIB.
    #[serde(default)]
    pub rib: Option<DumpsEntry>,
}

/// A file of messages and state changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdatesEntry {
    /// Where to; `{time}` in it stands for the time the file was begun, in UTC. One that is there is appended to.
    pub path: PathBuf,
    /// Seconds after which another file is begun; left out: never.
    #[serde(default)]
    pub rotate: Option<NonZeroU32>,
    /// Times with microseconds (BGP4MP_ET); left out: yes.
    #[serde(default = "super::yes")]
    pub extended: bool,
    /// What is sent to the neighbors, too; left out: no.
    #[serde(default)]
    pub sent: bool,
}

/// Dumps of the RIB at intervals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DumpsEntry {
    /// Where to; `{time}` in it stands for the time of the dump, in UTC. One that is there is replaced.
    pub path: PathBuf,
    /// Seconds between two dumps.
    pub interval: NonZeroU32,
}

fn bmp_port() -> NonZeroU16 {
    BMP_PORT
}

fn statistics() -> u32 {
    STATISTICS
}

impl File {
    /// Who is to be told what the speaker does.
    ///
    /// # Errors
    /// A [`FileError`] that names the field.
    pub fn monitor_config(&self) -> Result<MonitorConfig, FileError> {
        let mut stations = BTreeMap::new();
        for (index, entry) in self.bmp.iter().enumerate() {
            let station = entry.station(index)?;
            let address = station.address;
            if stations.insert(address, station).is_some() {
                return Err(FileError::DuplicateStation { index, address });
            }
        }
        let updates = self.mrt.as_ref().and_then(|mrt| mrt.updates.as_ref());
        let dumps = self.mrt.as_ref().and_then(|mrt| mrt.rib.as_ref());
        if let Some(path) = &self.record {
            check("record", path)?;
        }
        Ok(MonitorConfig {
            stations,
            updates: updates.map(UpdatesEntry::config).transpose()?,
            dumps: dumps.map(DumpsEntry::config).transpose()?,
        })
    }
}

impl StationEntry {
    fn station(&self, index: usize) -> Result<StationConfig, FileError> {
        let local = self.local_address;
        if local.is_some_and(|local| local.is_ipv4() != self.address.is_ipv4()) {
            return Err(FileError::StationLocalAddress { index });
        }
        let (pre, post) = match self.route_monitoring {
            Monitoring::Pre => (true, false),
            Monitoring::Post => (false, true),
            Monitoring::Both => (true, true),
        };
        let seconds = u64::from(self.statistics_interval);
        Ok(StationConfig {
            address: SocketAddr::new(self.address, self.port.get()),
            local_address: local,
            stages: Interest {
                before_policy: pre,
                after_policy: post,
                ..Interest::default()
            },
            statistics: (seconds > 0).then(|| Duration::from_secs(seconds)),
            system_name: self.system_name.clone().unwrap_or_else(host_name),
            system_description: self.system_description.clone().unwrap_or_else(description),
        })
    }
}

impl UpdatesEntry {
    fn config(&self) -> Result<UpdatesConfig, FileError> {
        check("mrt.updates.path", &self.path)?;
        let rotate = self.rotate.map(NonZeroU32::get);
        if rotate.is_some_and(|seconds| seconds < LEAST) {
            let problem = format!("must be at least {LEAST} seconds");
            let field = "mrt.updates.rotate";
            return Err(FileError::Monitor { field, problem });
        }
        if rotate.is_some() && !has_time(&self.path) {
            let problem = format!(
                "needs {TIME} in the name, or every file would be the same one; such as /var/log/updates.{TIME}.mrt"
            );
            let field = "mrt.updates.path";
            return Err(FileError::Monitor { field, problem });
        }
        Ok(UpdatesConfig {
            path: self.path.clone(),
            rotate: rotate.map(|seconds| Duration::from_secs(seconds.into())),
            extended: self.extended,
            sent: self.sent,
        })
    }
}

impl DumpsEntry {
    fn config(&self) -> Result<DumpsConfig, FileError> {
        check("mrt.rib.path", &self.path)?;
        if self.interval.get() < LEAST {
            let problem = format!("must be at least {LEAST} seconds");
            let field = "mrt.rib.interval";
            return Err(FileError::Monitor { field, problem });
        }
        Ok(DumpsConfig {
            path: self.path.clone(),
            interval: Duration::from_secs(self.interval.get().into()),
        })
    }
}

/// A path must name a file.
fn check(field: &'static str, path: &std::path::Path) -> Result<(), FileError> {
    if path.file_name().is_some() && !path.is_dir() {
        return Ok(());
    }
    let problem = format!("{path:?} does not name a file; such as /var/lib/margay/bgp.mrt");
    Err(FileError::Monitor { field, problem })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.map_or_else(|_| "margay".to_owned(), |name| name.trim().to_owned())
}

fn description() -> String {
    format!("Margay BGP {}", env!("CARGO_PKG_VERSION"))
}

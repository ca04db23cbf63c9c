//! What is tried with every daemon: a file for each family of cells.

mod add_path;
mod bfd;
mod communities;
mod limits;
mod long_lived;
mod next_hop;
mod reasons;
mod reflection;
mod refresh;
mod restart;
mod security;
mod session;
mod shutdown;

use std::path::PathBuf;

use crate::daemons::{Daemon, Kind};
use crate::fabric::Fabric;
use crate::model::{
    OURS, OURS_TO_THIRD, Side, THEIRS_TO_THIRD, THIRD_AS, THIRD_AT_OURS, THIRD_AT_THEIRS,
};
use crate::monitor::Plan;
use crate::ours::{Config, Ours};

/// One row of the table.
pub struct Row {
    /// The heading it belongs under.
    pub group: &'static str,
    /// For the command line.
    pub id: &'static str,
    /// What works if the cell says yes.
    pub title: &'static str,
    /// Tries it.
    pub run: fn(&Ground) -> Result<(), String>,
    /// Why the daemon cannot, if it cannot.
    pub lacks: fn(Kind) -> Option<&'static str>,
    /// About how long it takes in seconds: the long ones are started first.
    pub seconds: u32,
}

/// What a cell needs.
pub struct Ground {
    pub kind: Kind,
    pub margay: PathBuf,
    pub fabric: Fabric,
}

impl Ground {
    /// The daemon with a configuration, running.
    pub fn daemon(&self, side: Side) -> Result<Box<dyn Daemon>, String> {
        let mut daemon = self
            .kind
            .make(&self.fabric.them, &self.fabric.folder, side)?;
        daemon.start(false)?;
        Ok(daemon)
    }

    /// Ours, running.
    pub fn ours(&self, config: &Config) -> Result<Ours, String> {
        Ours::start(&self.margay, &self.fabric.us, &self.fabric.folder, config)
    }

    /// A session of the third peer with us.
    pub fn third_at_us(&self, index: usize) -> Plan {
        Plan::new(
            &self.fabric.third,
            THIRD_AT_OURS[index],
            OURS_TO_THIRD,
            THIRD_AS[index],
        )
    }

    /// A session of the third peer with the daemon.
    pub fn third_at_them(&self, index: usize) -> Plan {
        Plan::new(
            &self.fabric.third,
            THIRD_AT_THEIRS[index],
            THEIRS_TO_THIRD,
            THIRD_AS[index],
        )
    }
}

/// Every daemon can.
pub fn all(_: Kind) -> Option<&'static str> {
    None
}

/// Before an error that is a known fault of the daemon in an unlucky moment: the cell is done again.
pub const AGAIN: &str = "again: ";

/// Our address on the link with the daemon, over IPv4.
pub const US: &str = OURS[0];

pub fn rows() -> Vec<Row> {
    let families = [
        session::rows(),
        security::rows(),
        restart::rows(),
        long_lived::rows(),
        refresh::rows(),
        communities::rows(),
        add_path::rows(),
        bfd::rows(),
        next_hop::rows(),
        reflection::rows(),
        limits::rows(),
        shutdown::rows(),
        reasons::rows(),
    ];
    families.into_iter().flatten().collect()
}

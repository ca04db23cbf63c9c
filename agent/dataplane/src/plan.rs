//! What is wanted, what will be changed and what was changed, as values that print themselves.
//!
//! Making and carrying out plans is [`super::Dataplane`]'s.

use std::fmt;

use super::error::KernelError;
use super::neighbours::{NeighbourChange, VxlanPeer};
use super::routes::{DesiredRoutes, RouteChange};
use super::sysctl::{DesiredSysctls, SysctlChange};
use super::tunnel::{TunnelChange, TunnelSpec};

/// All that Margay wants of the node's kernel, filtering aside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Settings of the node; those of tunnel devices are added by the dataplane.
    pub sysctls: DesiredSysctls,
    /// The tunnel devices; ours that are not listed are removed.
    pub tunnels: Vec<TunnelSpec>,
    /// The far ends of the VXLAN device, if there is one.
    pub vxlan_peers: Vec<VxlanPeer>,
    /// The routes; ours (protocol 90) that are not listed are removed.
    pub routes: DesiredRoutes,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A setting.
    Sysctl(SysctlChange),
    /// A tunnel device.
    Tunnel(TunnelChange),
    /// A permanent entry of a tunnel device.
    Neighbour {
        /// The device.
        device: String,
        /// The change.
        change: NeighbourChange,
    },
    /// A route.
    Route(RouteChange),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(change) => write!(f, "{change}"),
            Self::Tunnel(change) => write!(f, "{change}"),
            Self::Neighbour { device, change } => match change {
                NeighbourChange::Set(entry) => write!(f, "set {entry} dev {device}"),
                NeighbourChange::Remove(entry) => write!(f, "remove {entry} dev {device}"),
            },
            Self::Route(change) => write!(f, "{change}"),
        }
    }
}

/// Something wanted that cannot be put to the kernel as things are. What the kernel holds for it
/// stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {reason}")]
pub struct PlanProblem {
    /// What is concerned, such as "route 10.1.0.0/26".
    pub object: String,
    /// Why it cannot be, and the way out.
    pub reason: String,
}

/// The changes that turn what the kernel holds into what is wanted, in order. Prints one change
/// a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes.
    pub steps: Vec<Step>,
    /// What had to be left out.
    pub problems: Vec<PlanProblem>,
}

impl Plan {
    /// Whether the kernel is as wanted already, problems aside.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        for problem in &self.problems {
            writeln!(f, "# {problem}")?;
        }
        Ok(())
    }
}

/// A change that failed, or a wanted thing that could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The kernel refused a change.
    #[error("{step}: {source}")]
    Step {
        /// The change.
        step: Box<Step>,
        /// Why.
        source: KernelError,
    },
    /// A wanted thing was left out of the plan.
    #[error(transparent)]
    Problem(#[from] PlanProblem),
    /// The kernel's state could not be read, so nothing was changed.
    #[error("cannot read the kernel's {what}: {source}")]
    Read {
        /// What was being read.
        what: &'static str,
        /// Why.
        source: KernelError,
    },
}

/// What an apply did.
#[derive(Debug, Default)]
pub struct ApplyReport {
    /// The changes made.
    pub changes: Vec<Step>,
    /// What failed; everything else was done all the same.
    pub errors: Vec<ApplyError>,
}

impl ApplyReport {
    /// Whether everything wanted is now in the kernel.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }
}

impl fmt::Display for ApplyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.changes {
            writeln!(f, "{change}")?;
        }
        for error in &self.errors {
            writeln!(f, "# failed: {error}")?;
        }
        Ok(())
    }
}

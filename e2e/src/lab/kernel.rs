//! What this machine's kernel can do, found by trying.

use super::command::run;
use super::error::LabError;
use super::namespaces;
use super::state::Ledger;

/// How packets travel between nodes that share no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tunnel {
    /// IP-in-IP, protocol 4.
    Ipip,
    /// VXLAN, UDP port 4789.
    Vxlan,
}

impl Tunnel {
    /// Its name: `ipip` or `vxlan`.
    pub fn name(self) -> &'static str {
        match self {
            Tunnel::Ipip => "ipip",
            Tunnel::Vxlan => "vxlan",
        }
    }

    /// Reads a name.
    ///
    /// # Errors
    /// When it is none of the two.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        match text {
            "ipip" => Ok(Tunnel::Ipip),
            "vxlan" => Ok(Tunnel::Vxlan),
            other => Err(LabError::Spec {
                field: "--require-tunnel",
                message: format!("{other:?} is no tunnel: use ipip or vxlan"),
            }),
        }
    }
}

/// The tunnel for the lab's pool: IPIP where the kernel has it, as in the chart's values, else
/// VXLAN. Tried with a device in a namespace that lives only for the trial.
///
/// # Errors
/// When no namespace can be made.
pub fn tunnel(ledger: &mut Ledger, trial: &str) -> Result<Tunnel, LabError> {
    ledger.make_namespace(trial)?;
    let arguments = [
        "-n",
        trial,
        "link",
        "add",
        "trial",
        "type",
        "ipip",
        "local",
        "192.0.2.1",
        "remote",
        "any",
    ];
    let made = run("ip", &arguments).is_ok();
    namespaces::remove(trial)?;
    ledger.note(|state| state.namespaces.retain(|name| name != trial))?;
    Ok(if made { Tunnel::Ipip } else { Tunnel::Vxlan })
}

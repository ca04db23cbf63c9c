//! Whether a pod's wiring is still as it was made (CNI CHECK): what differs, in words.
//!
//! The host routes are the route table's to compare, not this module's.

use std::fmt;

use super::error::KernelError;
use super::kernel::PodKernel;
use super::link::LinkKind;
use super::pod_link::{HOST_MAC, PodLink, PodSideState, gateway};

/// One thing about a pod's wiring that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs, such as "mtu of mgy0123456789a".
    pub what: String,
    /// What it should be.
    pub wanted: String,
    /// What it is.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            wanted,
            found,
        } = self;
        write!(f, "{what} is {found}, should be {wanted}")
    }
}

/// Compares a pod's wiring with what it should be, the host routes aside; empty when all is well.
///
/// # Errors
/// The kernel could not be asked.
pub async fn check<K: PodKernel>(
    kernel: &K,
    link: &PodLink,
) -> Result<Vec<Difference>, KernelError> {
    let mut found = Differences(Vec::new());
    let host = &link.host_interface;
    match kernel.link(host).await? {
        None => found.note(host, "there", "missing"),
        Some(actual) => {
            if actual.kind != LinkKind::Veth {
                found.note(format!("kind of {host}"), "veth", "another");
            }
            found.compare_up(host, actual.up);
            found.compare(format!("mtu of {host}"), link.mtu, actual.mtu);
            let mac = actual.mac.map_or("none".to_owned(), |mac| mac.to_string());
            found.compare(
                format!("hardware address of {host}"),
                HOST_MAC.to_string(),
                mac,
            );
        }
    }
    let state = kernel
        .inspect_pod(&link.namespace, &link.pod_interface)
        .await?;
    check_side(link, &state, &mut found);
    Ok(found.0)
}

fn check_side(link: &PodLink, state: &PodSideState, found: &mut Differences) {
    let name = format!("{} in the pod", link.pod_interface);
    let Some((up, mtu, mac)) = state.link else {
        found.note(name, "there", "missing");
        return;
    };
    found.compare_up(&name, up);
    found.compare(format!("mtu of {name}"), link.mtu, mtu);
    let mac = mac.map_or("none".to_owned(), |mac| mac.to_string());
    found.compare(
        format!("hardware address of {name}"),
        link.pod_mac.to_string(),
        mac,
    );
    for address in &link.addresses {
        if !state.addresses.contains(address) {
            found.note(format!("address {address} on {name}"), "there", "missing");
        }
        let gateway = gateway(*address);
        if !state.default_gateways.contains(&gateway) {
            found.note(
                format!("default route via {gateway} on {name}"),
                "there",
                "missing",
            );
        }
    }
}

struct Differences(Vec<Difference>);

impl Differences {
    fn note(
        &mut self,
        what: impl Into<String>,
        wanted: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.0.push(Difference {
            what: what.into(),
            wanted: wanted.into(),
            found: found.into(),
        });
    }

    fn compare<T: PartialEq + fmt::Display>(&mut self, what: String, wanted: T, found: T) {
        if wanted != found {
            self.note(what, wanted.to_string(), found.to_string());
        }
    }

    fn compare_up(&mut self, interface: &str, up: bool) {
        if !up {
            self.note(format!("state of {interface}"), "up", "down");
        }
    }
}

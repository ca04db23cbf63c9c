//! The uplink: the interface that carries the node's address, and the MTU pods get from it.

use std::net::IpAddr;

use super::error::KernelError;
use super::kernel::Kernel;
use super::link::{InterfaceAddress, Link};
use super::tunnel::{MINIMUM_MTU, TunnelMode};

/// The interface that carries the node's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The interface's name.
    pub interface: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The node's address.
    pub address: IpAddr,
}

impl Uplink {
    /// The MTU for pods in bytes: the uplink's, less the largest overhead of the tunnels in use,
    /// so that a pod's packet fits whichever way it takes.
    ///
    /// # Errors
    /// Less than [`MINIMUM_MTU`] would be left.
    pub fn pod_mtu(&self, tunnels: &[TunnelMode]) -> Result<u32, KernelError> {
        let overhead = tunnels.iter().map(|mode| mode.overhead(self.address)).max();
        let overhead = overhead.unwrap_or(0);
        let mtu = self.mtu.saturating_sub(overhead);
        if mtu < MINIMUM_MTU {
            return Err(KernelError::Unsupported(format!(
                "interface {} has an MTU of {} and tunnels take {overhead} bytes: pods need {MINIMUM_MTU}, raise the interface's MTU",
                self.interface, self.mtu
            )));
        }
        Ok(mtu)
    }
}

/// The uplink among these links: the one with the address, or none when no interface has it.
///
/// An address on a loopback (routing on the host, one address announced over several uplinks)
/// says nothing of the MTU on the wire; the smallest MTU among the other links that are up and
/// hold addresses stands in for it.
pub fn choose(
    node_address: IpAddr,
    links: &[Link],
    addresses: &[InterfaceAddress],
) -> Option<Uplink> {
    let owner = addresses.iter().find(|a| a.address == node_address)?;
    let link = links.iter().find(|link| link.index == owner.index)?;
    let mtu = if link.name == "lo" {
        links
            .iter()
            .filter(|l| l.up && l.name != "lo" && addresses.iter().any(|a| a.index == l.index))
            .filter(|l| !super::is_ours(&l.name))
            .map(|l| l.mtu)
            .min()
            .unwrap_or(link.mtu)
    } else {
        link.mtu
    };
    Some(Uplink {
        interface: link.name.clone(),
        mtu,
        address: node_address,
    })
}

/// Finds the uplink by the node's address.
///
/// # Errors
/// The kernel refuses to list, or no interface has the address.
pub async fn find<K: Kernel>(kernel: &K, node_address: IpAddr) -> Result<Uplink, KernelError> {
    let links = kernel.links().await?;
    let addresses = kernel.addresses().await?;
    choose(node_address, &links, &addresses).ok_or_else(|| {
        KernelError::Unsupported(format!(
            "no interface has the node's address {node_address}: set the address the node really has"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::super::link::LinkKind;
    use super::*;

    fn link(index: u32, name: &str, mtu: u32) -> Link {
        Link {
            index,
            name: name.into(),
            mtu,
            up: true,
            mac: None,
            kind: LinkKind::Other(String::new()),
        }
    }

    fn address(index: u32, text: &str) -> InterfaceAddress {
        InterfaceAddress {
            index,
            address: text.parse().unwrap(),
            prefix_length: 24,
        }
    }

    #[test]
    fn the_interface_with_the_node_address_is_the_uplink() {
        let links = [
            link(1, "lo", 65536),
            link(2, "eth0", 1500),
            link(3, "eth1", 9000),
        ];
        let addresses = [address(2, "192.0.2.1"), address(3, "10.0.0.1")];
        let uplink = choose("10.0.0.1".parse().unwrap(), &links, &addresses).unwrap();
        assert_eq!((uplink.interface.as_str(), uplink.mtu), ("eth1", 9000));
        assert_eq!(
            choose("10.0.0.9".parse().unwrap(), &links, &addresses),
            None
        );
    }

    #[test]
    fn an_address_on_loopback_takes_the_smallest_mtu_of_the_real_uplinks() {
        let links = [
            link(1, "lo", 65536),
            link(2, "eth0", 1500),
            link(3, "eth1", 9000),
        ];
        let addresses = [
            address(1, "10.9.9.9"),
            address(2, "192.0.2.1"),
            address(3, "192.0.2.3"),
        ];
        let uplink = choose("10.9.9.9".parse().unwrap(), &links, &addresses).unwrap();
        assert_eq!((uplink.interface.as_str(), uplink.mtu), ("lo", 1500));
    }

    #[test]
    fn pods_leave_room_for_the_widest_tunnel() {
        let uplink = Uplink {
            interface: "eth0".into(),
            mtu: 1500,
            address: "10.0.0.1".parse().unwrap(),
        };
        assert_eq!(uplink.pod_mtu(&[]).unwrap(), 1500);
        assert_eq!(uplink.pod_mtu(&[TunnelMode::Ipip]).unwrap(), 1480);
        assert_eq!(
            uplink
                .pod_mtu(&[TunnelMode::Ipip, TunnelMode::Vxlan])
                .unwrap(),
            1450
        );
        let small = Uplink {
            mtu: 1300,
            ..uplink
        };
        let error = small.pod_mtu(&[TunnelMode::Vxlan]).unwrap_err().to_string();
        assert!(error.contains("eth0") && error.contains("1300"), "{error}");
    }
}

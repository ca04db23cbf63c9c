//! HostEndpoint: a node's own interface, so that policies apply to the node itself. The fields are
//! Calico's, with its meanings; profiles are not there to be had, and listed ones change nothing.
//!
//! Without a policy a host endpoint lets nothing pass to or from the node but the failsafe ports;
//! what is only forwarded passes until a policy with `applyOnForward` selects the endpoint.

use std::net::IpAddr;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::field::{Errors, FieldError};
use crate::network_policy::PolicyStatus;

/// The longest interface name the kernel takes, in bytes.
const INTERFACE_NAME_LIMIT: usize = 15;

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "HostEndpoint",
    plural = "hostendpoints",
    shortname = "hep",
    category = "margay",
    status = "PolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "Interface",
        type_ = "string",
        json_path = ".spec.interfaceName"
    ),
    printcolumn(name = "IPs", type_ = "string", json_path = ".spec.expectedIPs"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.interfaceName != '' || size(self.expectedIPs) > 0")
        .message("interfaceName or expectedIPs must say which interface is meant")
)]
pub struct HostEndpointSpec {
    /// The name of the Node object.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The interface, or `*` for all interfaces but those of pods and the loopback; empty when it is
    /// found by expectedIPs.
    #[serde(default)]
    #[schemars(length(max = 15))]
    pub interface_name: String,
    /// The interface's addresses: policies that select the endpoint by its labels as a peer match
    /// them, and without interfaceName the interface is found by them.
    #[serde(default, rename = "expectedIPs")]
    #[schemars(length(max = 64), inner(length(max = 45)))]
    pub expected_ips: Vec<String>,
    /// Not used: there are no profiles. Listed so that manifests written for Calico are taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub profiles: Vec<String>,
    /// Names that rules can use for ports of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub ports: Vec<EndpointPort>,
}

/// A name for a port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointPort {
    /// The name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: EndpointProtocol,
    /// The number.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// A protocol that has ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndpointProtocol {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp,
}

impl EndpointProtocol {
    /// The IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// The interfaces a host endpoint is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostInterface {
    /// This one.
    Named(String),
    /// All but those of pods and the loopback.
    All,
    /// Those with one of its addresses.
    ByAddress,
}

/// A host endpoint as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadHostEndpoint {
    /// Which interfaces; none when that could not be read.
    pub interface: Option<HostInterface>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The fields that could not be read, and those that are left out.
    pub errors: Vec<FieldError>,
}

impl HostEndpoint {
    /// What can be read of it. An address that cannot be read is lost.
    pub fn read(&self) -> ReadHostEndpoint {
        let spec = &self.spec;
        let mut errors = Errors::default();
        let mut addresses = Vec::new();
        for (index, text) in spec.expected_ips.iter().enumerate() {
            match text.trim().parse() {
                Ok(address) => addresses.push(address),
                Err(_) => errors.push(FieldError::invalid(
                    &format!("spec.expectedIPs[{index}]"),
                    text,
                    "must be an address such as 192.0.2.1, without a prefix length",
                )),
            }
        }
        let interface = match spec.interface_name.as_str() {
            "*" => Some(HostInterface::All),
            "" if spec.expected_ips.is_empty() => {
                errors.push(FieldError::required(
                    "spec.interfaceName",
                    "interfaceName or expectedIPs must say which interface is meant",
                ));
                None
            }
            "" => Some(HostInterface::ByAddress),
            name => {
                let is_name = name.len() <= INTERFACE_NAME_LIMIT
                    && name.chars().all(|c| {
                        c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '*' | '\\')
                    });
                if !is_name || name.starts_with("mgy") || name == "lo" {
                    errors.push(FieldError::invalid(
                        "spec.interfaceName",
                        name,
                        "must be the name of an interface of the node (up to 15 characters, neither a pod's nor lo), or *",
                    ));
                }
                (is_name && !name.starts_with("mgy") && name != "lo")
                    .then(|| HostInterface::Named(name.to_owned()))
            }
        };
        ReadHostEndpoint {
            interface,
            addresses,
            errors: errors.0,
        }
    }

    /// Every field that is wrong.
    ///
    /// # Errors
    /// The fields.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        Errors(self.read().errors).finish(Some(()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> ReadHostEndpoint {
        let object = json!({"apiVersion": "margay.dev/v1", "kind": "HostEndpoint", "metadata": {"name": "h"}, "spec": spec});
        let endpoint: HostEndpoint = serde_json::from_value(object).unwrap();
        endpoint.read()
    }

    #[test]
    fn the_interface_is_named_all_or_found_by_address() {
        let interface = |spec| read(spec).interface;
        assert_eq!(
            interface(json!({"node": "n", "interfaceName": "*"})),
            Some(HostInterface::All)
        );
        assert_eq!(
            interface(json!({"node": "n", "interfaceName": "eth0.100"})),
            Some(HostInterface::Named("eth0.100".into()))
        );
        let by_address = read(json!({"node": "n", "expectedIPs": ["192.0.2.1", "2001:db8::1"]}));
        assert_eq!(by_address.interface, Some(HostInterface::ByAddress));
        assert_eq!(by_address.addresses.len(), 2);
        for wrong in ["mgy0123", "lo", "a b", "sixteen-letters-", "a\"b", "eth*"] {
            let wrong = read(json!({"node": "n", "interfaceName": wrong}));
            assert_eq!(wrong.interface, None);
            assert_eq!(wrong.errors[0].path, "spec.interfaceName");
        }
        assert_eq!(read(json!({"node": "n"})).errors.len(), 1);
        let wrong =
            read(json!({"node": "n", "interfaceName": "*", "expectedIPs": ["192.0.2.0/24"]}));
        assert_eq!(wrong.errors[0].path, "spec.expectedIPs[0]");
    }
}

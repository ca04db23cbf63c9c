//! The result of ADD, and its forms in the versions of the specification.
//!
//! In memory there is one form, the newest. Older forms lose what they cannot say: 1.0.0 and
//! before lack the newer fields of interfaces and routes, 0.4.0 and before repeat each address's
//! family in `version`, 0.2.0 and before have room for one address of each family.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{CniError, Code};
use crate::version::Version;

/// What ADD made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniResult {
    /// The interfaces made, on the host and in the sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// The addresses given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<Address>,
    /// The routes made in the sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// Name service, as another plugin may have set it.
    #[serde(default)]
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Its MTU in bytes (from 1.1.0 on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The path of the namespace it is in; none or empty means the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// A socket file instead of a kernel interface (from 1.1.0 on).
    #[serde(
        default,
        rename = "socketPath",
        skip_serializing_if = "Option::is_none"
    )]
    pub socket_path: Option<String>,
    /// A PCI device's address (from 1.1.0 on).
    #[serde(default, rename = "pciID", skip_serializing_if = "Option::is_none")]
    pub pci_id: Option<String>,
}

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The index of the interface in the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// The address with its prefix length.
    pub address: IpNetwork,
    /// The default gateway of this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNetwork,
    /// By which next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// From 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// From 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// From 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// From 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// From 1.1.0 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

impl Route {
    /// A route by a next hop.
    pub fn by(dst: IpNetwork, gw: IpAddr) -> Self {
        Self {
            gw: Some(gw),
            ..Self::direct(dst)
        }
    }

    /// A route without a next hop.
    pub fn direct(dst: IpNetwork) -> Self {
        Self {
            dst,
            gw: None,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
        }
    }
}

/// Name service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Domains to search.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl CniResult {
    /// Reads a result of any version, such as `prevResult`.
    ///
    /// # Errors
    /// Code 6 if it is not a result, 1 if it says a version that is unknown.
    pub fn parse(value: &Value) -> Result<Self, CniError> {
        let version = value.get("cniVersion").and_then(Value::as_str);
        if let Some(text) = version
            && Version::parse(text).is_none()
        {
            return Err(CniError::new(
                Code::INCOMPATIBLE_VERSION,
                format!("prevResult's cniVersion {text:?} is not supported"),
            ));
        }
        // The oldest form shows by its fields, whatever it says.
        if value.get("ip4").is_some() || value.get("ip6").is_some() {
            return serde_json::from_value::<Oldest>(value.clone())
                .map(Self::from)
                .map_err(not_a_result);
        }
        // A field of the wrong kind is refused, a field too many (`version`) is passed over.
        serde_json::from_value(value.clone()).map_err(not_a_result)
    }

    /// This result with what another plugin made before: theirs first, ours after, our indices
    /// moved along.
    #[must_use]
    pub fn after(mut self, mut previous: CniResult) -> Self {
        let shift = previous.interfaces.len();
        for address in &mut self.ips {
            address.interface = address.interface.map(|index| index.saturating_add(shift));
        }
        previous.interfaces.append(&mut self.interfaces);
        previous.ips.append(&mut self.ips);
        previous.routes.append(&mut self.routes);
        if self.dns != Dns::default() {
            previous.dns = self.dns;
        }
        previous
    }

    /// The result as JSON in the form of a version, with `cniVersion`.
    pub fn to_version(&self, version: Version) -> Value {
        if version <= Version::V0_2_0 {
            return self.to_oldest(version);
        }
        let mut interfaces = json!(self.interfaces);
        let mut ips = json!(self.ips);
        let mut routes = json!(self.routes);
        if version < Version::V1_1_0 {
            drop_fields(&mut interfaces, &["mtu", "socketPath", "pciID"]);
            drop_fields(
                &mut routes,
                &["mtu", "advmss", "priority", "table", "scope"],
            );
        }
        if version < Version::V1_0_0 {
            for (value, address) in elements(&mut ips).zip(&self.ips) {
                let family = if address.address.is_ipv4() { "4" } else { "6" };
                value.insert("version".to_owned(), json!(family));
            }
        }
        json!({
            "cniVersion": version.as_str(),
            "interfaces": interfaces,
            "ips": ips,
            "routes": routes,
            "dns": self.dns,
        })
    }

    fn to_oldest(&self, version: Version) -> Value {
        let mut result = Map::new();
        result.insert("cniVersion".to_owned(), json!(version.as_str()));
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let mut of_family = self.ips.iter().filter(|one| one.address.is_ipv4() == v4);
            let Some(first) = of_family.next() else {
                continue;
            };
            let routes = self.routes.iter().filter(|one| one.dst.is_ipv4() == v4);
            let routes = routes.map(|one| OldestRoute {
                dst: one.dst,
                gw: one.gw,
            });
            let address = OldestAddress {
                ip: first.address,
                gateway: first.gateway,
                routes: routes.collect(),
            };
            result.insert(key.to_owned(), json!(address));
        }
        result.insert("dns".to_owned(), json!(self.dns));
        Value::Object(result)
    }
}

fn not_a_result(error: serde_json::Error) -> CniError {
    CniError::new(Code::DECODE, "prevResult is not a CNI result").with_details(error.to_string())
}

fn elements(list: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let all = list.as_array_mut().map(|all| all.iter_mut());
    all.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn drop_fields(list: &mut Value, fields: &[&str]) {
    for element in elements(list) {
        element.retain(|key, _| !fields.contains(&key.as_str()));
    }
}

/// The form of 0.1.0 and 0.2.0.
#[derive(Debug, Serialize, Deserialize)]
struct Oldest {
    ip4: Option<OldestAddress>,
    ip6: Option<OldestAddress>,
    #[serde(default)]
    dns: Dns,
}

#[derive(Debug, Serialize, Deserialize)]
struct OldestAddress {
    ip: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<OldestRoute>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OldestRoute {
    dst: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
}

impl From<Oldest> for CniResult {
    fn from(oldest: Oldest) -> Self {
        let mut result = CniResult {
            dns: oldest.dns,
            ..CniResult::default()
        };
        for one in [oldest.ip4, oldest.ip6].into_iter().flatten() {
            result.ips.push(Address {
                interface: None,
                address: one.ip,
                gateway: one.gateway,
            });
            let routes = one.routes.into_iter();
            result.routes.extend(routes.map(|route| Route {
                gw: route.gw,
                ..Route::direct(route.dst)
            }));
        }
        result
    }
}

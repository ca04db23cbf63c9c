//! What the kernel of a node says about routes, read through `ip -j`.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use super::command::run;
use super::error::LabError;

/// The protocol number on every route of Margay's.
pub const PROTOCOL: &str = "90";

/// A route, as far as the lab looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// `blackhole` and so on; nothing for an ordinary route.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The destination as `ip` prints it: `default`, an address or a network.
    pub dst: String,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The device.
    pub dev: Option<String>,
    /// `onlink` and others.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// What a route does with packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To a pod on this node.
    Local,
    /// To another node, as plain packets.
    Direct,
    /// Through the IPIP device.
    Ipip,
    /// Through the VXLAN device.
    Vxlan,
    /// Nowhere: the node's own block, where no pod has the address.
    Blackhole,
}

impl Way {
    /// One word for tables.
    pub fn word(self) -> &'static str {
        match self {
            Way::Local => "local",
            Way::Direct => "direct",
            Way::Ipip => "ipip",
            Way::Vxlan => "vxlan",
            Way::Blackhole => "blackhole",
        }
    }

    /// Whether packets travel inside others.
    pub fn is_tunnel(self) -> bool {
        matches!(self, Way::Ipip | Way::Vxlan)
    }
}

impl Route {
    /// What the route does, by its device.
    pub fn way(&self) -> Way {
        match self.dev.as_deref() {
            None => Way::Blackhole,
            Some("margay.ipip") => Way::Ipip,
            Some("margay.vxlan") => Way::Vxlan,
            Some(dev) if dev.starts_with("mgy") => Way::Local,
            Some(_) => Way::Direct,
        }
    }

    /// The destination as a network, if it is one.
    pub fn network(&self) -> Option<IpNetwork> {
        self.dst.parse().ok()
    }
}

/// Margay's routes in a namespace.
///
/// # Errors
/// When `ip` fails, or prints what is not understood.
pub fn of_margay(namespace: &str) -> Result<Vec<Route>, LabError> {
    list(&["-j", "-n", namespace, "route", "show", "proto", PROTOCOL])
}

/// All routes in the main table of a namespace.
///
/// # Errors
/// As [`of_margay`].
pub fn all(namespace: &str) -> Result<Vec<Route>, LabError> {
    list(&["-j", "-n", namespace, "route", "show"])
}

/// The route that a packet to `address` would take.
///
/// # Errors
/// As [`of_margay`], and when there is none.
pub fn towards(namespace: &str, address: IpAddr) -> Result<Route, LabError> {
    let address = address.to_string();
    let mut routes = list(&["-j", "-n", namespace, "route", "get", &address])?;
    routes
        .pop()
        .ok_or_else(|| not_understood("no route in the answer"))
}

fn list(arguments: &[&str]) -> Result<Vec<Route>, LabError> {
    parse(&run("ip", arguments)?).map_err(|message| not_understood(&message))
}

fn parse(text: &str) -> Result<Vec<Route>, String> {
    match text.trim() {
        "" => Ok(Vec::new()),
        text => serde_json::from_str(text).map_err(|error| error.to_string()),
    }
}

fn not_understood(message: &str) -> LabError {
    LabError::Answer {
        program: "ip -j route",
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ways_of_a_node() {
        let text = r#"[{"type":"blackhole","dst":"10.244.0.0/26","flags":[]},
            {"dst":"10.244.0.1","dev":"mgy0123456789a","scope":"link","flags":[]},
            {"dst":"10.244.0.64/26","gateway":"10.10.1.12","dev":"eth0","flags":[]},
            {"dst":"10.244.0.128/26","gateway":"10.10.2.13","dev":"margay.vxlan","flags":["onlink"]},
            {"dst":"10.244.1.0/26","gateway":"10.10.2.14","dev":"margay.ipip","flags":["onlink"]}]"#;
        let ways: Vec<Way> = parse(text).unwrap().iter().map(Route::way).collect();
        use Way::*;
        assert_eq!(ways, [Blackhole, Local, Direct, Vxlan, Ipip]);
        assert!(parse("").unwrap().is_empty());
        assert!(parse("Error").is_err());
    }
}

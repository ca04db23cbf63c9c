//! Failsafe ports: what no policy of a host endpoint closes, so that a mistake in one cannot cut a node off.

use std::{fmt, str::FromStr};

use ipnetwork::IpNetwork;

use crate::port::Protocol;

/// A port that is always open, from or to everybody or a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FailsafePort {
    /// The protocol.
    pub protocol: Protocol,
    /// Only from or to here.
    pub network: Option<IpNetwork>,
    /// The number.
    pub port: u16,
}

/// The failsafe ports of both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafes {
    /// Of connections to the node.
    pub inbound: Vec<FailsafePort>,
    /// Of connections from the node.
    pub outbound: Vec<FailsafePort>,
}

/// BGP, etcd, the API server and what Calico has beside them (5473 Typha, 6666 and 6667 etcd).
const BOTH_WAYS: [u16; 7] = [179, 2379, 2380, 5473, 6443, 6666, 6667];

impl Default for Failsafes {
    /// As Calico has them: TCP 22, 179, 2379, 2380, 5473, 6443, 6666 and 6667 and UDP 68 (DHCP) to the node; the same
    /// but for SSH, and UDP 53 (DNS) and 67 (DHCP), from it.
    fn default() -> Self {
        let port = |protocol, port| FailsafePort {
            protocol,
            network: None,
            port,
        };
        let both = || BOTH_WAYS.iter().map(|number| port(Protocol::Tcp, *number));
        let inbound = [port(Protocol::Tcp, 22), port(Protocol::Udp, 68)];
        let outbound = [port(Protocol::Udp, 53), port(Protocol::Udp, 67)];
        Self {
            inbound: inbound.into_iter().chain(both()).collect(),
            outbound: outbound.into_iter().chain(both()).collect(),
        }
    }
}

impl Failsafes {
    /// A list as people write it: `tcp:22,udp:10.0.0.0/8:68`, or `none`.
    ///
    /// # Errors
    /// The first entry that is no port.
    pub fn list(text: &str) -> Result<Vec<FailsafePort>, FailsafeError> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Vec::new());
        }
        text.split(',').map(str::parse).collect()
    }
}

/// A text that is no failsafe port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no failsafe port: write PROTOCOL:PORT or PROTOCOL:NETWORK:PORT, such as tcp:22")]
pub struct FailsafeError(String);

impl FromStr for FailsafePort {
    type Err = FailsafeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || FailsafeError(text.to_owned());
        let text = text.trim();
        // As Calico has it: without a protocol it is TCP.
        let (rest, port) = text.rsplit_once(':').unwrap_or(("tcp", text));
        let port: u16 = port.parse().map_err(|_| refused())?;
        let (protocol, network) = match rest.split_once(':') {
            Some((protocol, network)) => (protocol, Some(network)),
            None => (rest, None),
        };
        let protocol = protocol.to_ascii_uppercase().parse();
        let protocol = protocol.map_err(|_| refused())?;
        let network = network.map(|text| text.trim_matches(['[', ']']).parse());
        let network = network.transpose().map_err(|_| refused())?;
        match port {
            0 => Err(refused()),
            port => Ok(Self {
                protocol,
                network,
                port,
            }),
        }
    }
}

impl fmt::Display for FailsafePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.protocol.as_str().to_ascii_lowercase())?;
        if let Some(network) = self.network {
            write!(f, "{network}:")?;
        }
        write!(f, "{}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_calico_writes_them() {
        let read = |text| {
            let list = Failsafes::list(text);
            list.map(|list| list.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(read("none"), Ok(Vec::new()));
        assert_eq!(
            read("tcp:22, udp:10.0.0.0/8:68,TCP:fd00::/8:179,2379").unwrap(),
            [
                "tcp:22",
                "udp:10.0.0.0/8:68",
                "tcp:fd00::/8:179",
                "tcp:2379"
            ]
        );
        for wrong in ["", "tcp:", "tcp:0", "icmp:1", "tcp:here:22", "tcp:70000"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Failsafes::default().inbound.len(), 9);
        assert_eq!(Failsafes::default().outbound.len(), 9);
    }
}

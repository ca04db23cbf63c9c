//! Transport protocols, port ranges and probes: the vocabulary that policies, decisions and rules share.
//!
//! Nothing here knows what a policy is.

use std::{fmt, str::FromStr};

use serde::Serialize;

/// A transport protocol whose ports NetworkPolicy can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Protocol number 6.
    Tcp,
    /// Protocol number 17.
    Udp,
    /// Protocol number 132.
    Sctp,
}

impl Protocol {
    /// Every protocol, in the order in which rules are written.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The protocol with this number, if it is one of these.
    pub fn of(number: u8) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|protocol| protocol.number() == number)
    }

    /// The IANA protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The name as Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A protocol's name that is none of TCP, UDP and SCTP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a protocol: write TCP, UDP or SCTP")]
pub struct UnknownProtocol(pub String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// An inclusive range of ports; `first <= last` always holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Every port, the unusable port 0 included.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// The range from `first` to `last`, or `None` when it would be empty.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last {
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// The range from the lower to the higher of the two.
    pub const fn between(one: u16, other: u16) -> Self {
        if one <= other {
            Self {
                first: one,
                last: other,
            }
        } else {
            Self {
                first: other,
                last: one,
            }
        }
    }

    /// The range of one port.
    pub const fn single(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` lies inside.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// One question about a connection: the protocol and the destination port, written `TCP/80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The destination port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.port)
    }
}

/// Why a text is not a probe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// There is no `/` between protocol and port.
    #[error("{0:?} is not a probe: write PROTOCOL/PORT, for example TCP/80")]
    Shape(String),
    /// The part before the `/` names no protocol.
    #[error(transparent)]
    Protocol(#[from] UnknownProtocol),
    /// The part after the `/` is not a port.
    #[error("{0:?} is not a port: write a number from 1 to 65535")]
    Port(String),
}

impl FromStr for Probe {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (protocol, port) = text
            .split_once('/')
            .ok_or_else(|| ProbeError::Shape(text.to_owned()))?;
        let protocol = protocol.to_ascii_uppercase().parse()?;
        match port.parse() {
            Ok(number) if number > 0 => Ok(Self {
                protocol,
                port: number,
            }),
            _ => Err(ProbeError::Port(port.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_and_refused_with_the_way_out() {
        let probe: Probe = "udp/53".parse().unwrap();
        assert_eq!(probe.to_string(), "UDP/53");
        for (text, message) in [
            (
                "80",
                "\"80\" is not a probe: write PROTOCOL/PORT, for example TCP/80",
            ),
            (
                "ICMP/1",
                "\"ICMP\" is not a protocol: write TCP, UDP or SCTP",
            ),
            (
                "TCP/0",
                "\"0\" is not a port: write a number from 1 to 65535",
            ),
            (
                "TCP/70000",
                "\"70000\" is not a port: write a number from 1 to 65535",
            ),
        ] {
            assert_eq!(text.parse::<Probe>().unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_empty_range_cannot_be_made() {
        assert_eq!(PortRange::new(9, 8), None);
        assert!(PortRange::new(8, 9).is_some_and(|range| range.contains(9)));
    }
}

//! What is reported of packets, and the prefix by which a report names it. The packet itself goes to netlink's log.

use std::{fmt, str::FromStr};

use crate::origin::RuleId;

/// Why a packet is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogReason {
    /// It is dropped.
    Denied,
    /// A Log rule matches it.
    Rule,
    /// It passes, and would not if staged policies were in force.
    StagedDeny,
    /// It is dropped, and would pass if staged policies were in force.
    StagedAllow,
}

impl LogReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [
        Self::Denied,
        Self::Rule,
        Self::StagedDeny,
        Self::StagedAllow,
    ];

    /// The reason in words, as it stands in prefixes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "deny",
            Self::Rule => "log",
            Self::StagedDeny => "staged deny",
            Self::StagedAllow => "staged allow",
        }
    }
}

/// What a report says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Report {
    /// Why it is reported.
    pub reason: LogReason,
    /// The rule; none where no policy is behind it.
    pub rule: Option<RuleId>,
}

impl Report {
    /// The group of netlink's log that packets are reported to.
    pub const GROUP: u16 = 90;
    /// How many bytes of a packet are reported: its headers.
    pub const SNAPLEN: u32 = 128;
    /// How many packets a second one rule of the table reports, after [`Self::BURST`]. What is counted is not bounded.
    pub const RATE: u64 = 20;
    /// How many packets one rule of the table reports at once.
    pub const BURST: u32 = 40;

    /// A report.
    pub const fn new(reason: LogReason, rule: Option<RuleId>) -> Self {
        Self { reason, rule }
    }
}

/// The prefix of the kernel's report.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "margay {}", self.reason.as_str())?;
        match self.rule {
            Some(rule) => write!(f, " {rule}"),
            None => Ok(()),
        }
    }
}

/// A prefix that is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a report of this table")]
pub struct ForeignReport;

impl FromStr for Report {
    type Err = ForeignReport;

    fn from_str(prefix: &str) -> Result<Self, Self::Err> {
        let words = prefix.strip_prefix("margay ").ok_or(ForeignReport)?;
        let (reason, rest) = LogReason::ALL
            .into_iter()
            .find_map(|reason| Some((reason, words.strip_prefix(reason.as_str())?)))
            .ok_or(ForeignReport)?;
        let rule = match rest.strip_prefix(' ') {
            None if rest.is_empty() => None,
            None => return Err(ForeignReport),
            Some(number) => Some(number.parse().map_err(|_| ForeignReport)?),
        };
        Ok(Self { reason, rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_as_they_are_written() {
        let rule: RuleId = "0123456789abcdef".parse().unwrap();
        for reason in LogReason::ALL {
            for rule in [None, Some(rule)] {
                let report = Report::new(reason, rule);
                assert_eq!(report.to_string().parse(), Ok(report));
            }
        }
        assert_eq!(
            Report::new(LogReason::StagedDeny, Some(rule)).to_string(),
            "margay staged deny 0123456789abcdef"
        );
        for foreign in ["", "margay", "margay deny x", "margay denyx", "other deny"] {
            assert!(foreign.parse::<Report>().is_err(), "{foreign}");
        }
    }
}

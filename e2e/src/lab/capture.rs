//! What really travels on a cable: tcpdump in a namespace, and its lines read back.
//!
//! [`parse`] is pure. A capture is judged only after a packet known to be the last has been seen
//! in it, so that "nothing of the kind was seen" means something.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use super::error::LabError;
use super::patience::{patience, until};
use super::process::{self, Launch};
use super::state::{Ledger, ProcessRecord};

/// What is captured: pings, plain or in one of the tunnels.
const FILTER: &str = "icmp or icmp6 or udp port 4789 or ip proto 4";

/// How a packet travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// As it is.
    Plain,
    /// In IP, protocol 4.
    Ipip {
        /// The outer source: a node.
        from: IpAddr,
        /// The outer destination.
        to: IpAddr,
    },
    /// In VXLAN, over UDP 4789.
    Vxlan {
        /// The outer source: a node.
        from: IpAddr,
        /// The outer destination.
        to: IpAddr,
        /// The VXLAN network identifier.
        vni: u32,
    },
}

/// One ping or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The (inner) source.
    pub from: IpAddr,
    /// The (inner) destination.
    pub to: IpAddr,
    /// Whether it is the answer.
    pub reply: bool,
    /// Its sequence number.
    pub sequence: u32,
    /// How it travelled.
    pub wrapping: Wrapping,
}

impl Echo {
    /// Whether it belongs to pings between these two.
    pub fn between(&self, one: IpAddr, other: IpAddr) -> bool {
        [(one, other), (other, one)].contains(&(self.from, self.to))
    }
}

/// Reads what `tcpdump -nn -t` printed. A VXLAN packet takes two lines, the outer one first.
pub fn parse(text: &str) -> Vec<Echo> {
    let mut echoes = Vec::new();
    let mut outer = None;
    for line in text.lines() {
        if let Some(vxlan) = vxlan_header(line) {
            outer = Some(vxlan);
            continue;
        }
        let wrapping = outer.take().unwrap_or(Wrapping::Plain);
        echoes.extend(echo(line, wrapping));
    }
    echoes
}

/// `IP 10.0.0.1.39303 > 10.0.0.2.4789: VXLAN, flags [I] (0x08), vni 4096`
fn vxlan_header(line: &str) -> Option<Wrapping> {
    let (from, to, rest) = addresses(line)?;
    let vni = rest.strip_prefix("VXLAN,")?.split("vni ").nth(1)?;
    Some(Wrapping::Vxlan {
        from: without_port(from)?,
        to: without_port(to)?,
        vni: vni.trim().parse().ok()?,
    })
}

/// `IP 10.9.0.1 > 10.9.0.2: ICMP echo request, id 1, seq 2, length 64`, or the same after
/// `IP 10.10.1.11 > 10.10.2.13: ` for protocol 4.
fn echo(line: &str, wrapping: Wrapping) -> Option<Echo> {
    let (from, to, rest) = addresses(line)?;
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    if rest.starts_with("IP ") {
        return echo(rest, Wrapping::Ipip { from, to });
    }
    let rest = rest
        .strip_prefix("ICMP echo ")
        .or_else(|| rest.strip_prefix("ICMP6, echo "))?;
    let sequence = rest.split("seq ").nth(1)?.split(',').next()?;
    Some(Echo {
        from,
        to,
        reply: rest.starts_with("reply"),
        sequence: sequence.trim().parse().ok()?,
        wrapping,
    })
}

fn addresses(line: &str) -> Option<(&str, &str, &str)> {
    let line = line.trim_start();
    let line = line
        .strip_prefix("IP ")
        .or_else(|| line.strip_prefix("IP6 "))?;
    let (from, rest) = line.split_once(" > ")?;
    let (to, rest) = rest.split_once(": ")?;
    // tcpdump names the encapsulation in front of some inner packets when asked for more words.
    Some((
        from,
        to,
        rest.strip_prefix("(ipip-proto-4) ").unwrap_or(rest),
    ))
}

/// tcpdump writes a port behind one more dot, for both families.
fn without_port(address: &str) -> Option<IpAddr> {
    address.rsplit_once('.')?.0.parse().ok()
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    record: ProcessRecord,
    output: PathBuf,
}

impl Capture {
    /// Starts tcpdump on one interface in a namespace, and waits until it listens.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        ledger: &mut Ledger,
        namespace: &str,
        interface: &str,
        name: &str,
    ) -> Result<Self, LabError> {
        let output = ledger.folder.logs().join(format!("capture-{name}.txt"));
        let mut command = Command::new("tcpdump");
        // Each line at once, no names, no change of user: the file belongs to root.
        command.args([
            "-nn",
            "-t",
            "-l",
            "--immediate-mode",
            "-Z",
            "root",
            "-i",
            interface,
        ]);
        command.arg(FILTER);
        let launch = Launch {
            output: Some(output.clone()),
            ..Launch::new(format!("capture {name}"), namespace, command)
        };
        let record = process::start(ledger, launch)?;
        until("tcpdump to listen", patience(10), &record.log, || async {
            let said = fs::read_to_string(&record.log).unwrap_or_default();
            match (said.contains("listening on"), process::is_alive(&record)) {
                (true, _) => Ok(Ok(())),
                (false, true) => Err(said),
                (false, false) => Ok(Err(process::died(&record))),
            }
        })
        .await??;
        Ok(Self { record, output })
    }

    /// Ends the capture as soon as the answer to the ping with this number between these two has
    /// been seen; gives all pings between them. If it never comes, those that came.
    ///
    /// # Errors
    /// When the capture's file cannot be read.
    pub async fn finish(
        self,
        ledger: &mut Ledger,
        one: IpAddr,
        other: IpAddr,
        last: u32,
    ) -> Result<Vec<Echo>, LabError> {
        let read = || {
            let text = fs::read_to_string(&self.output)
                .map_err(LabError::file("cannot read", &self.output))?;
            let mut echoes = parse(&text);
            echoes.retain(|echo| echo.between(one, other));
            Ok::<_, LabError>(echoes)
        };
        let complete = |echoes: &[Echo]| {
            echoes
                .iter()
                .any(|echo| echo.reply && echo.sequence == last)
        };
        // Not to see it is a finding for the caller, not an error here.
        let _ = until(
            "the last ping in the capture",
            patience(3),
            &self.output,
            || async {
                match read() {
                    Ok(echoes) if !complete(&echoes) => Err("not yet".to_owned()),
                    _ => Ok(()),
                }
            },
        )
        .await;
        tokio::task::block_in_place(|| process::stop(&self.record));
        ledger.note(|state| state.processes.retain(|record| *record != self.record))?;
        read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn plain_vxlan_and_ipip() {
        let text = "IP 10.0.0.2.46666 > 10.0.0.1.4789: VXLAN, flags [I] (0x08), vni 4096\n\
            IP6 :: > ff02::16: HBH ICMP6, multicast listener report v2, 1 group record(s), length 28\n\
            IP 10.0.0.1.39303 > 10.0.0.2.4789: VXLAN, flags [I] (0x08), vni 4096\n\
            ARP, Request who-has 10.9.0.2 tell 10.9.0.1, length 28\n\
            IP 10.0.0.1.40774 > 10.0.0.2.4789: VXLAN, flags [I] (0x08), vni 4096\n\
            IP 10.9.0.1 > 10.9.0.2: ICMP echo request, id 2876, seq 1, length 64\n\
            IP 10.0.0.1 > 10.0.0.2: ICMP echo reply, id 2881, seq 7, length 64\n\
            IP 10.10.1.11 > 10.10.2.13: IP 10.244.0.1 > 10.244.1.1: ICMP echo request, id 9, seq 3, length 64\n\
            IP6 fd00::1 > fd00::2: ICMP6, echo request, id 4, seq 2, length 64\n";
        let echoes = parse(text);
        let wanted = [
            Wrapping::Vxlan {
                from: ip("10.0.0.1"),
                to: ip("10.0.0.2"),
                vni: 4096,
            },
            Wrapping::Plain,
            Wrapping::Ipip {
                from: ip("10.10.1.11"),
                to: ip("10.10.2.13"),
            },
            Wrapping::Plain,
        ];
        let seen: Vec<Wrapping> = echoes.iter().map(|echo| echo.wrapping).collect();
        assert_eq!(seen, wanted);
        assert_eq!(
            (echoes[0].from, echoes[0].to),
            (ip("10.9.0.1"), ip("10.9.0.2"))
        );
        assert!(echoes[1].reply && echoes[1].sequence == 7);
        assert!(echoes[2].between(ip("10.244.1.1"), ip("10.244.0.1")));
        assert_eq!(echoes[3].from, ip("fd00::1"));
    }

    #[test]
    fn noise_is_no_echo() {
        for text in [
            "",
            "garbage",
            "IP 1.2.3.4 > 5.6.7.8: ICMP host unreachable, length 36",
            "IP 10.0.0.1.1 > 10.0.0.2.4789: VXLAN, flags [.] (0x00), vni",
            "IP a > b: ICMP echo request, id 1, seq 1, length 64",
        ] {
            assert!(parse(text).is_empty(), "{text}");
        }
    }
}

//! What really travels between the nodes: plain packets on a segment, a tunnel only beyond.

use std::net::IpAddr;
use std::process::Command;

use super::checks::Checks;
use crate::lab::capture::{Capture, Echo, Wrapping};
use crate::lab::command::finish;
use crate::lab::error::LabError;
use crate::lab::kernel::Tunnel;
use crate::lab::namespaces;
use crate::lab::patience::patience;
use crate::lab::pods::RunningPod;
use crate::lab::report::{Screen, Step, Tone};
use crate::lab::up::{Cluster, Lab};

/// Pings of one look at a cable.
const PINGS: u32 = 3;

pub(super) async fn show(
    lab: &mut Lab,
    cluster: &Cluster,
    required: Option<Tunnel>,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    screen.title("On the wire");
    let near = pair(lab, cluster, true);
    let far = pair(lab, cluster, false);
    match near {
        Some((one, other)) => on_a_segment(lab, &one, &other, checks, screen).await?,
        None => screen.line("  no two nodes with pods share a segment: no direct road to look at"),
    }
    match far {
        Some((one, other)) => across(lab, &one, &other, required, checks, screen).await?,
        None if required.is_some() => {
            checks.that(
                "a tunnel between segments",
                false,
                "two segments",
                "one segment, or no pods",
            );
        }
        None => screen.line("  there is one segment: nothing travels in a tunnel"),
    }
    Ok(())
}

/// The first two pods on different nodes of one segment, or of different segments.
fn pair(lab: &Lab, cluster: &Cluster, same_segment: bool) -> Option<(RunningPod, RunningPod)> {
    let fits = |one: &RunningPod, other: &RunningPod| {
        one.plan.node != other.plan.node
            && lab.plan.same_segment(one.plan.node, other.plan.node) == same_segment
    };
    let pods = &cluster.pods;
    let mut pairs = pods
        .iter()
        .flat_map(|one| pods.iter().map(move |other| (one, other)));
    let (one, other) = pairs.find(|(one, other)| fits(one, other))?;
    Some((one.clone(), other.clone()))
}

async fn on_a_segment(
    lab: &mut Lab,
    one: &RunningPod,
    other: &RunningPod,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    let segment = lab.plan.segment_of(one.plan.node).cloned();
    let node = lab.plan.nodes.get(one.plan.node).cloned();
    let (Some(segment), Some(node)) = (segment, node) else {
        return Ok(());
    };
    // The ToR's end of the node's cable.
    let cable = node.host.name;
    let place = format!("{}, the cable of {cable}", segment.tor);
    let namespace = lab.plan.namespace(&segment.tor);
    let echoes = look(
        lab, one, other, &namespace, &cable, "segment", &place, screen,
    )
    .await?;
    tell(&echoes, screen);
    let what = format!(
        "{} to {} on segment {}: plain ICMP",
        one.plan.name, other.plan.name, segment.letter
    );
    let plain = count(&echoes, |wrapping| wrapping == Wrapping::Plain);
    checks.that(&what, whole(plain), &complete(), &tally(&echoes));
    let wrapped = count(&echoes, |wrapping| wrapping != Wrapping::Plain);
    checks.that(
        "… and none of it in a tunnel",
        wrapped == (0, 0),
        "nothing encapsulated",
        &tally(&echoes),
    );
    Ok(())
}

async fn across(
    lab: &mut Lab,
    one: &RunningPod,
    other: &RunningPod,
    required: Option<Tunnel>,
    checks: &mut Checks,
    screen: Screen,
) -> Result<(), LabError> {
    let Some(segment) = lab.plan.segment_of(one.plan.node).cloned() else {
        return Ok(());
    };
    let nodes = [one, other].map(|pod| {
        let node = lab.plan.nodes.get(pod.plan.node);
        node.map(|node| node.host.address.ip())
    });
    let tunnel = lab.tunnel;
    let namespace = lab.plan.namespace("router");
    let place = format!("router, the cable of {}", segment.tor);
    let echoes = look(
        lab,
        one,
        other,
        &namespace,
        &segment.tor,
        "fabric",
        &place,
        screen,
    )
    .await?;
    tell(&echoes, screen);
    let wanted = required.unwrap_or(tunnel);
    let wire = match wanted {
        Tunnel::Ipip => "IP-in-IP (protocol 4)",
        Tunnel::Vxlan => "VXLAN (UDP 4789, VNI 4096)",
    };
    let what = format!(
        "{} to {} across segments: in {wire}",
        one.plan.name, other.plan.name
    );
    let seen = count(&echoes, |wrapping| is(wrapping, wanted, nodes));
    checks.that(&what, whole(seen), &complete(), &tally(&echoes));
    let others = count(&echoes, |wrapping| !is(wrapping, wanted, nodes));
    checks.that(
        "… and none of it plain or otherwise",
        others == (0, 0),
        "only that tunnel, between the two nodes",
        &tally(&echoes),
    );
    Ok(())
}

/// Whether it is this tunnel, with the two nodes as its ends.
fn is(wrapping: Wrapping, tunnel: Tunnel, nodes: [Option<IpAddr>; 2]) -> bool {
    let ends = |from: IpAddr, to: IpAddr| {
        let ends = [Some(from), Some(to)];
        ends == nodes || ends == [nodes[1], nodes[0]]
    };
    match (wrapping, tunnel) {
        (Wrapping::Ipip { from, to }, Tunnel::Ipip) => ends(from, to),
        (Wrapping::Vxlan { from, to, vni }, Tunnel::Vxlan) => vni == 4096 && ends(from, to),
        _ => false,
    }
}

#[expect(clippy::too_many_arguments, reason = "one look has many words")]
async fn look(
    lab: &mut Lab,
    one: &RunningPod,
    other: &RunningPod,
    namespace: &str,
    interface: &str,
    name: &str,
    place: &str,
    screen: Screen,
) -> Result<Vec<Echo>, LabError> {
    let step = Step::begin(screen, format!("listening on {place}"));
    let capture = Capture::start(&mut lab.ledger, namespace, interface, name).await?;
    let asking = lab.plan.pod_namespace(&one.plan.name);
    let target = other.address;
    let mut command = Command::new("ping");
    command
        .args(["-n", "-q", "-i", "0.05", "-c", &PINGS.to_string()])
        .arg(target.to_string());
    tokio::task::block_in_place(|| {
        namespaces::inside(&asking, || finish(command, None, patience(20)).map(drop))
    })?;
    let echoes = capture
        .finish(&mut lab.ledger, one.address, target, PINGS)
        .await?;
    step.done(&format!("{} packets seen on {place}", echoes.len()));
    Ok(echoes)
}

/// How many requests and replies travelled so.
fn count(echoes: &[Echo], fits: impl Fn(Wrapping) -> bool) -> (usize, usize) {
    let fitting = echoes.iter().filter(|echo| fits(echo.wrapping));
    let (replies, requests): (Vec<&Echo>, Vec<&Echo>) = fitting.partition(|echo| echo.reply);
    (requests.len(), replies.len())
}

fn whole((requests, replies): (usize, usize)) -> bool {
    let wanted = PINGS as usize;
    requests == wanted && replies == wanted
}

fn complete() -> String {
    format!("{PINGS} requests and {PINGS} replies")
}

fn tally(echoes: &[Echo]) -> String {
    let of = |fits: fn(Wrapping) -> bool| {
        let (requests, replies) = count(echoes, fits);
        format!("{requests}+{replies}")
    };
    format!(
        "requests+replies: plain {}, IPIP {}, VXLAN {}",
        of(|wrapping| wrapping == Wrapping::Plain),
        of(|wrapping| matches!(wrapping, Wrapping::Ipip { .. })),
        of(|wrapping| matches!(wrapping, Wrapping::Vxlan { .. })),
    )
}

/// The first request and its reply, as they travelled.
fn tell(echoes: &[Echo], screen: Screen) {
    for reply in [false, true] {
        let Some(echo) = echoes.iter().find(|echo| echo.reply == reply) else {
            continue;
        };
        let word = if reply { "reply  " } else { "request" };
        let inner = format!("{} → {}  ICMP echo {word}", echo.from, echo.to);
        let line = match echo.wrapping {
            Wrapping::Plain => inner,
            Wrapping::Ipip { from, to } => format!("{from} → {to}  protocol 4 [ {inner} ]"),
            Wrapping::Vxlan { from, to, vni } => {
                format!("{from} → {to}  UDP 4789 VXLAN {vni} [ {inner} ]")
            }
        };
        screen.line(&format!(
            "    {}",
            screen.paint(Tone::Accent, line.trim_end())
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_the_two_nodes_are_the_tunnels_ends() {
        let nodes = [Some(ip("10.10.1.11")), Some(ip("10.10.2.13"))];
        let vxlan = |from: &str, to: &str, vni| Wrapping::Vxlan {
            from: ip(from),
            to: ip(to),
            vni,
        };
        assert!(is(
            vxlan("10.10.2.13", "10.10.1.11", 4096),
            Tunnel::Vxlan,
            nodes
        ));
        assert!(!is(
            vxlan("10.10.2.13", "10.10.1.12", 4096),
            Tunnel::Vxlan,
            nodes
        ));
        assert!(!is(
            vxlan("10.10.2.13", "10.10.1.11", 1),
            Tunnel::Vxlan,
            nodes
        ));
        assert!(!is(
            vxlan("10.10.2.13", "10.10.1.11", 4096),
            Tunnel::Ipip,
            nodes
        ));
        assert!(!is(Wrapping::Plain, Tunnel::Ipip, nodes));
    }
}

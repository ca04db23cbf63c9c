//! Who reaches whom: the whole matrix as cells, and one connection explained in words.
//!
//! Endpoints are called `namespace/pod`, `ext/NAME` (an address outside the cluster, given with the question) and
//! `node/NAME`. Pods on their node's network are pods with the node's address. The names `ext` and `node` are taken: a
//! namespace called so cannot be asked about.

use std::{fmt, net::IpAddr};

use serde::Serialize;

use crate::{
    evaluate::{End, Evaluator, Exemption, Judgement, Side},
    model::{Cluster, Direction, ObjectKey, Pod, PolicyRef},
    port::Probe,
    ruleset::Family,
};

/// An endpoint outside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    /// The name it is called by, after `ext/`.
    pub name: String,
    /// Its addresses; the first of each family is used.
    pub addresses: Vec<IpAddr>,
}

/// Why a text does not describe an external endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an external endpoint: write NAME=ADDRESS[,ADDRESS]")]
pub struct ExternalError(pub String);

impl std::str::FromStr for External {
    type Err = ExternalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ExternalError(text.to_owned());
        let (name, addresses) = text.split_once('=').ok_or_else(refused)?;
        let addresses: Result<Vec<IpAddr>, _> = addresses
            .split(',')
            .map(|address| address.trim().parse())
            .collect();
        let addresses = addresses.map_err(|_| refused())?;
        if name.is_empty() || name.contains('/') {
            return Err(refused());
        }
        Ok(Self {
            name: name.to_owned(),
            addresses,
        })
    }
}

/// Allowed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Allowed.
    Allow,
    /// Denied.
    Deny,
}

impl From<bool> for Verdict {
    fn from(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Deny }
    }
}

/// What a verdict rests on. For an allowed connection the rule that allows it, the destination's when both sides have
/// one; for a denied one the rule that denies it, or without one the first of the policies that isolate the denying side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct By {
    /// The policy's kind.
    pub kind: &'static str,
    /// The policy's namespace; empty for kinds that have none.
    pub namespace: String,
    /// The policy's name.
    pub name: String,
    /// The rule as its path in the policy, such as `ingress[0]`; the direction alone when no rule allows.
    pub rule: String,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// The source's name.
    pub from: String,
    /// The destination's name.
    pub to: String,
    /// 4 or 6.
    pub family: u8,
    /// The protocol and port, such as `TCP/80`.
    pub probe: String,
    /// The answer.
    pub verdict: Verdict,
    /// The policy it rests on; `None` when no policy had a say.
    pub by: Option<By>,
}

/// A named endpoint with at most one address per family.
#[derive(Clone, Debug)]
struct Named<'a> {
    name: String,
    /// Whether policies say anything about it.
    takes_part: bool,
    pod: Option<&'a Pod>,
    addresses: &'a [IpAddr],
}

impl<'a> Named<'a> {
    fn pod(pod: &'a Pod) -> Self {
        Self {
            name: pod.key().to_string(),
            takes_part: true,
            pod: Some(pod),
            addresses: &pod.addresses,
        }
    }

    fn end(&self, family: Family) -> Option<End<'a>> {
        let address = self
            .addresses
            .iter()
            .find(|address| Family::of(**address) == family)?;
        Some(End {
            pod: self.pod,
            address: *address,
        })
    }
}

/// Every endpoint that can take part: running pods, nodes, and the external ones.
fn endpoints<'a>(cluster: &'a Cluster, externals: &'a [External]) -> Vec<Named<'a>> {
    let pods = cluster.pods().filter(|pod| !pod.finished).map(Named::pod);
    let nodes = cluster.nodes().map(|node| Named {
        name: format!("node/{}", node.name),
        takes_part: cluster.host_endpoints_of(&node.name).next().is_some(),
        pod: None,
        addresses: &node.addresses,
    });
    let externals = externals.iter().map(|external| Named {
        name: format!("ext/{}", external.name),
        takes_part: false,
        pod: None,
        addresses: &external.addresses,
    });
    pods.chain(nodes).chain(externals).collect()
}

/// Every cell: each ordered pair of endpoints of which at least one is a pod or a node with a host endpoint, each probe, each of the families in which
/// both have an address. A pod to itself is a pair too.
pub fn matrix(
    cluster: &Cluster,
    probes: &[Probe],
    families: &[Family],
    externals: &[External],
) -> Vec<Cell> {
    let evaluator = Evaluator::new(cluster);
    let endpoints = endpoints(cluster, externals);
    let mut cells = Vec::new();
    for from in &endpoints {
        for to in endpoints
            .iter()
            .filter(|to| from.takes_part || to.takes_part)
        {
            for family in families {
                let (Some(source), Some(destination)) = (from.end(*family), to.end(*family)) else {
                    continue;
                };
                for probe in probes {
                    let judgement = evaluator.judge(source, destination, *probe);
                    cells.push(Cell {
                        from: from.name.clone(),
                        to: to.name.clone(),
                        family: if *family == Family::V4 { 4 } else { 6 },
                        probe: probe.to_string(),
                        verdict: judgement.allows().into(),
                        by: by(&judgement),
                    });
                }
            }
        }
    }
    cells
}

fn by(judgement: &Judgement) -> Option<By> {
    let mut sides = vec![
        (&judgement.ingress, "ingress"),
        (&judgement.egress, "egress"),
    ];
    let hosts = judgement.hosts.iter();
    sides.extend(hosts.map(|host| (&host.side, host.direction.as_str())));
    let named = |policy: &PolicyRef, rule: String| By {
        kind: policy.kind.as_str(),
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        rule,
    };
    let at = |direction: &str, rule: &usize| format!("{direction}[{rule}]");
    let denied = sides.iter().find_map(|(side, direction)| match side {
        Side::Denied { isolating } => Some(named(isolating.first()?, (*direction).to_owned())),
        Side::DeniedByRule { policy, rule } => Some(named(policy, at(direction, rule))),
        _ => None,
    });
    denied.or_else(|| {
        sides.iter().find_map(|(side, direction)| match side {
            Side::Allowed { policy, rule } => Some(named(policy, at(direction, rule))),
            _ => None,
        })
    })
}

/// Why a connection cannot be explained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// The name is nobody's.
    #[error(
        "{0}: no such endpoint: write namespace/pod, node/NAME, or ext/NAME with an external endpoint of that name"
    )]
    Unknown(String),
    /// The pod has ended.
    #[error("{0}: has ended: it takes part in no traffic")]
    Finished(String),
    /// The endpoint has no address of the family, or the two share no family.
    #[error("{0} and {1} have no address of a common family: nothing can pass between them yet")]
    NoAddress(String, String),
}

/// One connection, judged, with everything needed to say why. Displayed in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The source's name.
    pub from: String,
    /// The destination's name.
    pub to: String,
    /// The source's address.
    pub source: IpAddr,
    /// The destination's address.
    pub destination: IpAddr,
    /// The question.
    pub probe: Probe,
    /// The answer.
    pub judgement: Judgement,
}

/// Explains one connection, in the first of the families in which both ends have an address.
///
/// # Errors
/// An end is not known, has ended, or has no address.
pub fn explain(
    cluster: &Cluster,
    from: &str,
    to: &str,
    probe: Probe,
    families: &[Family],
    externals: &[External],
) -> Result<Explanation, ExplainError> {
    let (source, destination) = (
        find(cluster, externals, from)?,
        find(cluster, externals, to)?,
    );
    let ends = families
        .iter()
        .find_map(|family| Some((source.end(*family)?, destination.end(*family)?)));
    let (source, destination) =
        ends.ok_or_else(|| ExplainError::NoAddress(from.to_owned(), to.to_owned()))?;
    Ok(Explanation {
        from: from.to_owned(),
        to: to.to_owned(),
        source: source.address,
        destination: destination.address,
        probe,
        judgement: Evaluator::new(cluster).judge(source, destination, probe),
    })
}

fn find<'a>(
    cluster: &'a Cluster,
    externals: &'a [External],
    name: &str,
) -> Result<Named<'a>, ExplainError> {
    let found = endpoints(cluster, externals)
        .into_iter()
        .find(|endpoint| endpoint.name == name);
    found.ok_or_else(|| {
        let key = name
            .split_once('/')
            .map(|(namespace, pod)| ObjectKey::new(namespace, pod));
        match key.and_then(|key| cluster.pod(&key)) {
            Some(_) => ExplainError::Finished(name.to_owned()),
            None => ExplainError::Unknown(name.to_owned()),
        }
    })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.judgement.allows() {
            "allowed"
        } else {
            "denied"
        };
        writeln!(
            f,
            "{} ({}) to {} ({}), {}: {verdict}",
            self.from, self.source, self.to, self.destination, self.probe
        )?;
        writeln!(
            f,
            "  out of {}: {}",
            self.from,
            Words(&self.judgement.egress, "egress")
        )?;
        write!(
            f,
            "  into {}: {}",
            self.to,
            Words(&self.judgement.ingress, "ingress")
        )?;
        for host in &self.judgement.hosts {
            let way = match host.direction {
                Direction::Ingress => "into",
                Direction::Egress => "out of",
            };
            let words = Words(&host.side, host.direction.as_str());
            let (node, endpoint) = (&host.node, &host.endpoint);
            write!(
                f,
                "\n  {way} node/{node} by HostEndpoint {endpoint}: {words}"
            )?;
        }
        Ok(())
    }
}

struct Words<'a>(&'a Side, &'static str);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = self.1;
        match self.0 {
            Side::Exempt(Exemption::NotAPod) => {
                f.write_str("allowed, pods' policies do not apply to it")
            }
            Side::Exempt(Exemption::HostNetwork) => f.write_str(
                "allowed, the pod uses its node's network and policies do not apply to it",
            ),
            Side::Exempt(Exemption::Itself) => f.write_str("allowed, a pod always reaches itself"),
            Side::Exempt(Exemption::OwnNode) => {
                f.write_str("allowed, a pod and its own node always reach each other")
            }
            Side::Exempt(Exemption::Failsafe) => {
                f.write_str("allowed, a failsafe port is always open")
            }
            Side::NotIsolated => write!(f, "allowed, no policy isolates it for {direction}"),
            Side::Closed => write!(
                f,
                "denied, no policy is about {direction} of the host endpoint and nothing but failsafe ports passes then"
            ),
            Side::Allowed { policy, rule } => {
                write!(f, "allowed by {policy}, {direction}[{rule}]")
            }
            Side::DeniedByRule { policy, rule } => {
                write!(f, "denied by {policy}, {direction}[{rule}]")
            }
            Side::Denied { isolating } => {
                let names: Vec<_> = isolating.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "denied, isolated by {} and no {direction} rule allows it",
                    names.join(", ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load;

    fn cluster() -> Cluster {
        let mut cluster = Cluster::new();
        let problems = load(
            "{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}\n\
             ---\n{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: s, labels: {app: a}}, \
             spec: {nodeName: n1, containers: []}, status: {podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}}\n\
             ---\n{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: s}, spec: {nodeName: n2, containers: []}, status: {podIP: 10.0.0.2}}\n\
             ---\n{apiVersion: v1, kind: Pod, metadata: {name: done, namespace: s}, status: {podIP: 10.0.0.2, phase: Failed}}\n\
             ---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: s}, \
             spec: {podSelector: {matchLabels: {app: a}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}, {ports: [{port: 80}]}]}}\n",
            &mut cluster,
        );
        assert_eq!(problems.unwrap(), []);
        cluster
    }

    fn externals() -> Vec<External> {
        vec!["office=203.0.113.9,2001:db8::9".parse().unwrap()]
    }

    #[test]
    fn cells_say_on_what_they_rest() {
        let probes = ["TCP/80".parse().unwrap(), "TCP/81".parse().unwrap()];
        let cells = matrix(&cluster(), &probes, &[Family::V4, Family::V6], &externals());
        let cell = |from: &str, to: &str, family, probe: &str| {
            let found = cells.iter().find(|cell| {
                cell.from == from && cell.to == to && cell.family == family && cell.probe == probe
            });
            found.map(|cell| (cell.verdict, cell.by.as_ref().map(|by| by.rule.as_str())))
        };
        assert_eq!(
            cell("s/b", "s/a", 4, "TCP/80"),
            Some((Verdict::Allow, Some("ingress[1]")))
        );
        assert_eq!(
            cell("s/b", "s/a", 4, "TCP/81"),
            Some((Verdict::Deny, Some("ingress")))
        );
        assert_eq!(
            cell("ext/office", "s/a", 4, "TCP/81"),
            Some((Verdict::Allow, Some("ingress[0]")))
        );
        assert_eq!(
            cell("ext/office", "s/a", 6, "TCP/81"),
            Some((Verdict::Deny, Some("ingress")))
        );
        assert_eq!(
            cell("node/n1", "s/a", 4, "TCP/81"),
            Some((Verdict::Allow, None))
        );
        assert_eq!(
            cell("s/a", "s/b", 4, "TCP/81"),
            Some((Verdict::Allow, None))
        );
        assert_eq!(
            cell("s/a", "s/b", 6, "TCP/81"),
            None,
            "b has no IPv6 address"
        );
        assert_eq!(cell("s/a", "s/done", 4, "TCP/81"), None, "done has ended");
        assert_eq!(
            cell("ext/office", "node/n1", 4, "TCP/81"),
            None,
            "neither is a pod"
        );
        let json = serde_json::to_value(&cells[0]).unwrap();
        assert_eq!(json["verdict"], "allow");
        assert!(json.get("by").is_some());
    }

    #[test]
    fn an_explanation_is_in_words() {
        let ask = |from: &str, to: &str, probe: &str| {
            explain(
                &cluster(),
                from,
                to,
                probe.parse().unwrap(),
                &Family::ALL,
                &externals(),
            )
            .map(|found| found.to_string())
        };
        assert_eq!(
            ask("s/b", "s/a", "TCP/81").unwrap(),
            "s/b (10.0.0.2) to s/a (10.0.0.1), TCP/81: denied\n  \
             out of s/b: allowed, no policy isolates it for egress\n  \
             into s/a: denied, isolated by NetworkPolicy s/p and no ingress rule allows it"
        );
        assert!(
            ask("ext/office", "s/a", "UDP/1")
                .unwrap()
                .ends_with("allowed by NetworkPolicy s/p, ingress[0]")
        );
        assert_eq!(
            ask("s/done", "s/a", "TCP/1"),
            Err(ExplainError::Finished("s/done".to_owned()))
        );
        assert!(matches!(
            ask("s/nobody", "s/a", "TCP/1"),
            Err(ExplainError::Unknown(_))
        ));
    }

    #[test]
    fn externals_are_read_and_refused() {
        assert_eq!("a=10.0.0.1".parse::<External>().unwrap().addresses.len(), 1);
        for text in ["a", "=10.0.0.1", "a=ten", "a/b=10.0.0.1"] {
            assert!(text.parse::<External>().is_err(), "{text}");
        }
    }
}

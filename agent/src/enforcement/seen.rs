//! What the policy table tells of packets: a bounded record of those it reported, and what each rule has counted.
//!
//! Not here: the task that owns the cluster's picture (`edge`), and the kernel's queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;
use margay_policy::origin::{Origin, origins};
use margay_policy::packet::Headers;
use margay_policy::ruleset::LogReason;
use margay_policy::writer::{Logged, Reports, Tally};
use margay_policy::{Cluster, LocalEndpoint, RuleId};
use serde::Serialize;

/// How many reported packets are kept.
const KEPT: usize = 2048;
/// How many of them one answer holds.
const ANSWER: usize = 512;

/// A rule of a policy, in words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RuleName {
    /// The policy's kind; `NetworkPolicy.margay.dev` for ours.
    pub kind: &'static str,
    /// The policy's namespace; empty for kinds that have none.
    pub namespace: String,
    /// The policy's name.
    pub name: String,
    /// The policy's tier.
    pub tier: String,
    /// The rule as its path in the policy, such as `ingress[0]`; the direction alone where no rule decided.
    pub rule: String,
    /// `ingress` or `egress`.
    pub direction: &'static str,
    /// `Allow`, `Deny`, `Pass` or `Log`.
    pub action: &'static str,
    /// Whether the policy is staged.
    pub staged: bool,
}

impl From<&Origin> for RuleName {
    fn from(origin: &Origin) -> Self {
        Self {
            kind: origin.policy.kind.as_str(),
            namespace: origin.policy.namespace.clone(),
            name: origin.policy.name.clone(),
            tier: origin.tier.clone(),
            rule: origin.path(),
            direction: origin.direction.as_str(),
            action: origin.action.as_str(),
            staged: origin.staged,
        }
    }
}

/// One end of a reported packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct End {
    /// The address.
    pub address: IpAddr,
    /// The port, in protocols that have ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whose address it is, as `namespace/pod` or `node/NAME`, when it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// A reported packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Its number, counted from 1 since the agent started.
    pub number: u64,
    /// When the agent read of it, RFC 3339.
    pub time: String,
    /// `deny`, `log`, `staged deny` or `staged allow`.
    pub verdict: &'static str,
    /// From whom.
    pub from: End,
    /// To whom.
    pub to: End,
    /// The protocol's name, or its number.
    pub protocol: String,
    /// Type and code of ICMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// The rule behind it; none for what no policy decided (an endpoint that is not known yet), or when the policy is gone.
    pub by: Option<RuleName>,
}

/// What has been seen of reported packets.
#[derive(Debug, Default, Serialize)]
pub struct Answer {
    /// The packets, oldest first; at most 512, the latest unless asked for those after a number.
    pub denials: Vec<Denial>,
    /// The number of the last one there is.
    pub last: u64,
    /// How many reports were lost because there were too many at once. What the rules count is not touched by that.
    pub lost: u64,
}

/// The last reported packets, shared with who asks for them.
#[derive(Debug, Clone, Default)]
pub struct Ring(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    denials: VecDeque<Denial>,
    last: u64,
    lost: u64,
}

impl Ring {
    /// Those after this number; without one, the latest.
    pub fn after(&self, number: Option<u64>) -> Answer {
        let kept = self.lock();
        let denials = match number {
            Some(number) => {
                let later = kept.denials.iter().filter(|one| one.number > number);
                later.take(ANSWER).cloned().collect()
            }
            None => {
                let start = kept.denials.len().saturating_sub(ANSWER);
                kept.denials.iter().skip(start).cloned().collect()
            }
        };
        Answer {
            denials,
            last: kept.last,
            lost: kept.lost,
        }
    }

    fn push(&self, denials: impl IntoIterator<Item = Denial>, lost: u64) {
        let mut kept = self.lock();
        kept.lost += lost;
        for denial in denials {
            kept.last += 1;
            let number = kept.last;
            if kept.denials.len() >= KEPT {
                kept.denials.pop_front();
            }
            kept.denials.push_back(Denial { number, ..denial });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // What is there after a panic is whole: every push is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rule and what it has counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Count {
    /// The rule.
    #[serde(flatten)]
    pub rule: RuleName,
    /// Packets: first ones of connections, all that are denied, and those of open connections judged anew after a change.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The counts of the kernel's chains over the table's rewritings.
#[derive(Debug, Default)]
struct Totals {
    last: BTreeMap<String, Tally>,
    earlier: BTreeMap<String, Tally>,
}

impl Totals {
    fn read(&mut self, tallies: BTreeMap<String, Tally>) {
        self.earlier.retain(|chain, _| tallies.contains_key(chain));
        for (chain, tally) in &tallies {
            let last = self.last.get(chain).copied().unwrap_or_default();
            // The chain was made anew and counts from 0.
            if tally.packets < last.packets {
                let earlier = self.earlier.entry(chain.clone()).or_default();
                earlier.packets += last.packets;
                earlier.bytes += last.bytes;
            }
        }
        self.last = tallies;
    }

    fn iter(&self) -> impl Iterator<Item = (&str, Tally)> {
        self.last.iter().map(|(chain, tally)| {
            let earlier = self.earlier.get(chain).copied().unwrap_or_default();
            let total = Tally {
                packets: tally.packets + earlier.packets,
                bytes: tally.bytes + earlier.bytes,
            };
            (chain.as_str(), total)
        })
    }
}

/// Tells rules and addresses by their names, and keeps what was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ring: Ring,
    totals: Totals,
    /// Rules by their numbers; those that are no policy's stay unknown until something changes.
    known: BTreeMap<RuleId, Option<Origin>>,
}

impl Seen {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            ring,
            ..Self::default()
        }
    }

    /// Policies have changed: what rules are called may have, too.
    pub(super) fn forget_names(&mut self) {
        self.known.clear();
    }

    fn learn(&mut self, cluster: &Cluster, ids: impl Iterator<Item = RuleId>) {
        let unknown: BTreeSet<RuleId> = ids.filter(|id| !self.known.contains_key(id)).collect();
        let mut found = origins(cluster, &unknown);
        let learned = unknown.into_iter().map(|id| (id, found.remove(&id)));
        self.known.extend(learned);
    }

    fn rule(&self, id: RuleId) -> Option<RuleName> {
        self.known.get(&id)?.as_ref().map(RuleName::from)
    }

    /// Takes in reports.
    pub(super) fn take<'a>(
        &mut self,
        reports: &Reports,
        cluster: &Cluster,
        endpoints: impl Iterator<Item = &'a LocalEndpoint>,
    ) {
        let packets = &reports.packets;
        self.learn(
            cluster,
            packets.iter().filter_map(|logged| logged.report.rule),
        );
        let names = names(packets, cluster, endpoints);
        let time = Timestamp::now().to_string();
        let denials = packets.iter().map(|logged| {
            let by = logged.report.rule.and_then(|id| self.rule(id));
            denial(logged, by, &names, &time)
        });
        self.ring.push(denials, reports.lost);
    }

    /// Takes in what the kernel's chains have counted.
    pub(super) fn count(&mut self, tallies: BTreeMap<String, Tally>) {
        self.totals.read(tallies);
    }

    /// What each rule has counted, in the order of their names. Rules of policies that are gone are left out.
    pub(super) fn counts(&mut self, cluster: &Cluster) -> Vec<Count> {
        let mut by_rule: BTreeMap<RuleId, Tally> = BTreeMap::new();
        for (chain, tally) in self.totals.iter() {
            let id = chain.rsplit_once('-').and_then(|(_, id)| id.parse().ok());
            if let Some(id) = id {
                let sum = by_rule.entry(id).or_default();
                sum.packets += tally.packets;
                sum.bytes += tally.bytes;
            }
        }
        self.learn(cluster, by_rule.keys().copied());
        let counts = by_rule.into_iter().filter_map(|(id, tally)| {
            Some(Count {
                rule: self.rule(id)?,
                packets: tally.packets,
                bytes: tally.bytes,
            })
        });
        let mut counts: Vec<Count> = counts.collect();
        counts.sort_unstable_by(|one, other| one.rule.cmp(&other.rule));
        counts
    }
}

/// Whose the packets' addresses are. It walks the cluster's pods once.
fn names<'a>(
    packets: &[Logged],
    cluster: &Cluster,
    endpoints: impl Iterator<Item = &'a LocalEndpoint>,
) -> BTreeMap<IpAddr, String> {
    let ends = |logged: &Logged| [logged.headers.source, logged.headers.destination];
    let mut unknown: BTreeSet<IpAddr> = packets.iter().flat_map(ends).collect();
    let mut names = BTreeMap::new();
    let mut name = |addresses: &[IpAddr], called: &dyn Fn() -> String| {
        for address in addresses {
            if unknown.remove(address) {
                names.insert(*address, called());
            }
        }
    };
    for endpoint in endpoints {
        name(&endpoint.addresses, &|| {
            format!("{}/{}", endpoint.namespace, endpoint.pod)
        });
    }
    for node in cluster.nodes() {
        name(&node.addresses, &|| format!("node/{}", node.name));
    }
    for pod in cluster.pods().filter(|pod| pod.is_selectable()) {
        name(&pod.addresses, &|| pod.key().to_string());
    }
    names
}

fn denial(
    logged: &Logged,
    by: Option<RuleName>,
    names: &BTreeMap<IpAddr, String>,
    time: &str,
) -> Denial {
    let headers = &logged.headers;
    let end = |address: IpAddr, port: Option<u16>| End {
        address,
        port,
        endpoint: names.get(&address).cloned(),
    };
    Denial {
        number: 0,
        time: time.to_owned(),
        verdict: match logged.report.reason {
            LogReason::Denied => "deny",
            LogReason::Rule => "log",
            LogReason::StagedDeny => "staged deny",
            LogReason::StagedAllow => "staged allow",
        },
        from: end(headers.source, headers.ports.map(|(from, _)| from)),
        to: end(headers.destination, headers.ports.map(|(_, to)| to)),
        protocol: protocol(headers),
        icmp: headers.icmp,
        by,
    }
}

fn protocol(headers: &Headers) -> String {
    match headers.protocol {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use margay_policy::load::load;
    use margay_policy::model::{Direction, PolicyKind, PolicyRef};
    use margay_policy::ruleset::Report;

    use super::*;

    fn logged(rule: Option<RuleId>) -> Logged {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0];
        packet.extend([10, 0, 0, 1, 10, 0, 0, 2, 0x9c, 0x40, 0, 80]);
        Logged {
            report: Report::new(LogReason::Denied, rule),
            headers: Headers::read(&packet).unwrap(),
        }
    }

    fn cluster() -> (Cluster, RuleId) {
        let mut cluster = Cluster::new();
        let documents = "
{apiVersion: v1, kind: Pod, metadata: {name: b, namespace: s}, status: {podIP: 10.0.0.2}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: s}, spec: {podSelector: {}}}
";
        assert_eq!(load(documents, &mut cluster).unwrap(), []);
        let policy = PolicyRef::new(PolicyKind::NetworkPolicy, "s", "p");
        (cluster, RuleId::of(&policy, Direction::Ingress, None))
    }

    #[test]
    fn a_report_is_told_with_names_and_the_record_is_bounded() {
        let (cluster, id) = cluster();
        let local = LocalEndpoint {
            namespace: "s".into(),
            pod: "a".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            ..LocalEndpoint::default()
        };
        let ring = Ring::default();
        let mut seen = Seen::new(ring.clone());
        let reports = Reports {
            packets: vec![logged(Some(id)), logged(None)],
            lost: 3,
        };
        seen.take(&reports, &cluster, [&local].into_iter());
        let answer = ring.after(None);
        assert_eq!((answer.last, answer.lost), (2, 3));
        let told = serde_json::to_value(&answer.denials[0]).unwrap();
        assert_eq!(told["from"]["endpoint"], "s/a");
        assert_eq!(told["to"]["endpoint"], "s/b");
        assert_eq!(told["to"]["port"], 80);
        assert_eq!(told["by"]["name"], "p");
        assert_eq!(told["by"]["rule"], "ingress");
        assert_eq!(answer.denials[1].by, None);
        assert_eq!(ring.after(Some(1)).denials.len(), 1);

        let many = Reports {
            packets: vec![logged(Some(id)); 5000],
            lost: 0,
        };
        seen.take(&many, &cluster, std::iter::empty());
        assert_eq!(ring.lock().denials.len(), KEPT);
        let answer = ring.after(None);
        assert_eq!(answer.denials.len(), ANSWER);
        assert_eq!(answer.denials.last().unwrap().number, 5002);
    }

    #[test]
    fn counts_go_on_over_a_rewritten_table() {
        let (cluster, id) = cluster();
        let mut seen = Seen::new(Ring::default());
        let tally = |packets| {
            let tally = Tally {
                packets,
                bytes: packets * 40,
            };
            BTreeMap::from([(format!("deny-{id}"), tally), ("denied".to_owned(), tally)])
        };
        for (counted, total) in [(5, 5), (7, 7), (2, 9), (3, 10)] {
            seen.count(tally(counted));
            let counts = seen.counts(&cluster);
            assert_eq!(counts.len(), 1);
            assert_eq!((counts[0].packets, counts[0].bytes), (total, total * 40));
            assert_eq!(counts[0].rule.rule, "ingress");
        }
        seen.count(BTreeMap::new());
        assert_eq!(seen.counts(&cluster), []);
    }
}

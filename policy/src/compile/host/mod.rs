//! Host endpoints: policies about the node's own interfaces. The packet's way:
//!
//! ```text
//! prerouting raw     own interface → failsafe? on · doNotTrack policies: allowed → not tracked, on · denied: drop · else on
//! prerouting mangle  open, or allowed without tracking? on · failsafe? on
//!                    preDNAT policies: allowed → noted, on · denied: drop · else on
//! input              open? on · failsafe? on · noted? on · policies for ingress: allowed → on · else drop
//! forward            open? on · policies with applyOnForward: of the interface in (unless noted), of the interface out
//!                    what passes each: remember that this generation has judged the connection
//! output raw, output as on the way in
//! ```
//!
//! It stands beside the chains of pods, its names all begin with `host-`: without a host endpoint on this node there is
//! none of it. Pods' interfaces and the loopback are never asked about, so that a node and its own pods always reach each
//! other.
//!
//! Open is a connection that this generation has judged, as for pods (`emit`), and with pods' chains it shares the
//! generation and the mark: what is forwarded passes here first and is remembered by whoever judges it last, which is
//! here unless it is a pod's. After a change packets that go the way of the first one are judged anew, on each occasion
//! as that one was. What another connection brought about (`related`) passes, and so do replies until their connection
//! has been denied.
//!
//! Here policies are a list of rules, each a condition of sets, as traffic has a destination of its own that rules ask
//! about: what passes a node's interface is not only meant for the node.

mod chains;
mod sets;

use std::collections::{BTreeMap, BTreeSet};

use margay_crds::{HostInterface, HostStage};

use self::{chains::Writer, sets::Sets};
use super::{
    FailsafePort, INTERFACE_PREFIX, NodeInput,
    emit::{EARLY_MARK, add_set, denied_rules},
    ports::Chains,
};
use crate::{
    identity::{AddressBook, Claims},
    model::{Cluster, Direction, HostEndpoint, Order, OwnPolicy, PolicyRef},
    port::PortRange,
    problem::{Problem, Problems},
    ruleset::{
        Action, Chain, ConnectionState, Family, Field, Hook, Key, KeyType, Map, Match, Name, Rule,
        Ruleset, Value, ValueType, Verdict,
    },
};

/// Interfaces that are not asked about.
const EXEMPT: &str = "host-exempt";
/// ICMPv6 types without which an interface has no neighbours: listeners (130 to 132, 143), routers and neighbours (133 to
/// 136).
const DISCOVERY: &str = "host-discovery";
const DISCOVERY_TYPES: [u8; 8] = [130, 131, 132, 133, 134, 135, 136, 143];

/// The chain in which traffic to or from the node ends that no policy has a say about.
const DENIED: &str = "host-denied";
/// The chain that notes that this generation has judged a connection.
pub(super) const REMEMBER: &str = "host-remember";
/// Where an open connection goes on or is judged anew.
pub(super) const JUDGED: &str = "host-judged";
/// The chain of what leaves by an interface and is not a pod's.
const WAY_OUT: &str = "host-way-out";
/// A chain that is there as long as there is a host endpoint.
pub(super) const INPUT: &str = "host-to";

/// Whether a chain, set or map is host endpoints'.
pub(crate) fn is_host(name: &str) -> bool {
    name.starts_with("host-")
}

/// One of the occasions on which policies of host endpoints are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Occasion {
    UntrackIn,
    UntrackOut,
    /// Once more, with the answers of [`Self::UntrackIn`], about what was not tracked.
    UntrackedIn,
    UntrackedOut,
    Early,
    Input,
    Output,
    ForwardIn,
    ForwardOut,
}

impl Occasion {
    const ALL: [Self; 9] = [
        Self::UntrackIn,
        Self::UntrackOut,
        Self::UntrackedIn,
        Self::UntrackedOut,
        Self::Early,
        Self::Input,
        Self::Output,
        Self::ForwardIn,
        Self::ForwardOut,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::UntrackIn => "host-untrack-in",
            Self::UntrackOut => "host-untrack-out",
            Self::UntrackedIn => "host-untracked-in",
            Self::UntrackedOut => "host-untracked-out",
            Self::Early => "host-early",
            Self::Input => "host-input",
            Self::Output => "host-output",
            Self::ForwardIn => "host-forward-in",
            Self::ForwardOut => "host-forward-out",
        }
    }

    fn direction(self) -> Direction {
        match self {
            Self::UntrackIn | Self::UntrackedIn | Self::Early | Self::Input | Self::ForwardIn => {
                Direction::Ingress
            }
            Self::UntrackOut | Self::UntrackedOut | Self::Output | Self::ForwardOut => {
                Direction::Egress
            }
        }
    }

    fn stage(self) -> HostStage {
        match self {
            Self::UntrackIn | Self::UntrackOut | Self::UntrackedIn | Self::UntrackedOut => {
                HostStage::DoNotTrack
            }
            Self::Early => HostStage::PreDnat,
            Self::Input | Self::Output | Self::ForwardIn | Self::ForwardOut => HostStage::Normal,
        }
    }

    fn is_forward(self) -> bool {
        matches!(self, Self::ForwardIn | Self::ForwardOut)
    }

    /// Whether a tier ends as it says. Before, what no rule decides about goes on.
    fn has_ends(self) -> bool {
        self.stage() == HostStage::Normal
    }

    fn interface(self) -> Field {
        match self.direction() {
            Direction::Ingress => Field::InInterface,
            Direction::Egress => Field::OutInterface,
        }
    }
}

/// A tier's policies that select an endpoint on an occasion, in order.
struct TierOf<'c> {
    passes: bool,
    policies: Vec<&'c OwnPolicy>,
}

/// The tiers with policies about this endpoint on this occasion, first to last.
fn tiers<'c>(cluster: &'c Cluster, endpoint: &HostEndpoint, occasion: Occasion) -> Vec<TierOf<'c>> {
    let selecting = cluster.policies_for_hosts().filter(|policy| {
        policy.rules(occasion.direction()).is_some()
            && policy.host.stage == occasion.stage()
            && (policy.host.forward || !occasion.is_forward())
            && selects(policy, endpoint)
    });
    let mut places: Vec<((Order, String), Order, &PolicyRef, &OwnPolicy)> = selecting
        .map(|policy| {
            let tier = cluster.tier(&policy.tier);
            let place = (tier.order, tier.name);
            (place, policy.order, &policy.reference, policy)
        })
        .collect();
    places.sort_unstable_by(|one, other| (&one.0, one.1, one.2).cmp(&(&other.0, other.1, other.2)));
    let mut tiers: Vec<((Order, String), TierOf<'c>)> = Vec::new();
    for (place, _, _, policy) in places {
        match tiers.last_mut() {
            Some((last, tier)) if *last == place => tier.policies.push(policy),
            _ => {
                let passes = cluster.tier(&place.1).passes;
                let policies = vec![policy];
                tiers.push((place, TierOf { passes, policies }));
            }
        }
    }
    tiers.into_iter().map(|(_, tier)| tier).collect()
}

/// A host endpoint is in no namespace and has no service account.
fn selects(policy: &OwnPolicy, endpoint: &HostEndpoint) -> bool {
    let subject = &policy.subject;
    subject.service_accounts.is_none()
        && subject
            .namespaces
            .as_ref()
            .is_none_or(|selector| selector.is_global())
        && subject.selector.matches(&endpoint.labels)
}

/// An endpoint and the interfaces it is about here; none for the one that is about all others.
struct Placed<'c> {
    endpoint: &'c HostEndpoint,
    interfaces: Option<BTreeSet<String>>,
}

/// Which endpoint each interface has. The first by name has it.
fn placed<'c>(
    cluster: &'c Cluster,
    node: &NodeInput,
    problems: &mut Vec<Problem>,
) -> Vec<Placed<'c>> {
    let mut taken = BTreeMap::new();
    let mut all: Option<&str> = None;
    let mut found = Vec::new();
    for endpoint in cluster.host_endpoints_of(&node.node) {
        let mut told = Problems::of("HostEndpoint", "", &endpoint.name);
        let named: BTreeSet<String> = match &endpoint.interface {
            HostInterface::All => {
                match all {
                    Some(other) => told.report(
                        "spec.interfaceName",
                        format!("{other} is about all interfaces already; this one is left out"),
                    ),
                    None => {
                        all = Some(&endpoint.name);
                        found.push(Placed {
                            endpoint,
                            interfaces: None,
                        });
                    }
                }
                problems.extend(told.into_found());
                continue;
            }
            HostInterface::Named(name) => BTreeSet::from([name.clone()]),
            HostInterface::ByAddress => {
                let has = |addresses: &BTreeSet<_>| {
                    endpoint.addresses.iter().any(|one| addresses.contains(one))
                };
                let interfaces = node.interfaces.iter();
                let interfaces = interfaces.filter(|(_, addresses)| has(addresses));
                interfaces.map(|(name, _)| name.clone()).collect()
            }
        };
        if named.is_empty() {
            told.report(
                "spec.expectedIPs",
                "no interface of the node has one of them; the endpoint is not in force",
            );
        }
        let mut own = BTreeSet::new();
        for name in named {
            match taken.get(&name) {
                Some(other) => told.report(
                    "spec.interfaceName",
                    format!("{name} is {other}'s already; this one does not have it"),
                ),
                None => {
                    taken.insert(name.clone(), endpoint.name.clone());
                    own.insert(name);
                }
            }
        }
        problems.extend(told.into_found());
        if !own.is_empty() {
            found.push(Placed {
                endpoint,
                interfaces: Some(own),
            });
        }
    }
    found
}

/// Adds what the node's host endpoints need, if it has any.
pub(super) fn emit(
    cluster: &Cluster,
    node: &NodeInput,
    claims: &Claims<'_>,
    ruleset: &mut Ruleset,
    problems: &mut Vec<Problem>,
) {
    let placed = placed(cluster, node, problems);
    if placed.is_empty() {
        return;
    }
    let mut writer = Writer::new(cluster);
    let mut by_occasion = BTreeMap::new();
    for occasion in Occasion::ALL {
        for one in &placed {
            let tiers = tiers(cluster, one.endpoint, occasion);
            writer.ask(&tiers, occasion.direction());
            by_occasion.insert((occasion, one.endpoint.name.as_str()), tiers);
        }
    }
    let book = AddressBook::new(writer.terms(), claims, cluster);
    let mut sets = Sets::new(&book);
    let mut chains = Chains::new();
    let mut used = BTreeSet::new();
    for occasion in Occasion::ALL {
        let mut starts = BTreeMap::new();
        for one in &placed {
            let tiers = &by_occasion[&(occasion, one.endpoint.name.as_str())];
            let start = writer.endpoint(occasion, one.endpoint, tiers, &mut sets, &mut chains);
            if start.is_some() {
                used.insert(occasion);
            }
            starts.insert(one.endpoint.name.as_str(), start);
        }
        dispatch(occasion, &placed, &starts, ruleset);
    }
    chains.insert(DENIED.to_owned(), Chain::of(denied_rules(None)));
    ruleset.chains.extend(chains);
    sets.emit(ruleset);
    base_chains(node, &used, ruleset);
}

/// The chain that leads each interface to its endpoint's: what it has no chain for goes on.
fn dispatch(
    occasion: Occasion,
    placed: &[Placed<'_>],
    starts: &BTreeMap<&str, Option<Name>>,
    ruleset: &mut Ruleset,
) {
    let verdict = |one: &Placed<'_>| match &starts[one.endpoint.name.as_str()] {
        Some(chain) => Verdict::Goto(chain.clone()),
        None => Verdict::Return,
    };
    let elements = placed.iter().flat_map(|one| {
        let interfaces = one.interfaces.iter().flatten();
        let verdict = verdict(one);
        interfaces.map(move |name| {
            let key = Key::interface(name);
            (key, Value::from(verdict.clone()))
        })
    });
    let map = Map {
        key: KeyType::Interface,
        value: ValueType::Verdict,
        elements: elements.collect(),
    };
    let name = occasion.name().to_owned();
    ruleset.maps.insert(name.clone(), map);
    let field = occasion.interface();
    let mut rules = vec![
        Rule::new(
            [Match::InterfacePrefix(field, INTERFACE_PREFIX.to_owned())],
            Verdict::Return,
        ),
        Rule::new([Match::In(vec![field], EXEMPT.to_owned())], Verdict::Return),
        Rule::always(Action::VerdictMap(vec![field], name.clone())),
    ];
    let all = placed.iter().find(|one| one.interfaces.is_none());
    rules.extend(all.map(|one| Rule::always(verdict(one))));
    ruleset.chains.insert(name, Chain::of(rules));
}

fn accept(matches: impl IntoIterator<Item = Match>) -> Rule {
    Rule::new(matches, Verdict::Accept)
}

/// Where a connection has been judged for good: it is not judged again in this generation.
fn remember() -> Verdict {
    Verdict::Goto(REMEMBER.to_owned())
}

fn jump(occasion: Occasion) -> Rule {
    Rule::always(Verdict::Jump(occasion.name().to_owned()))
}

/// The rules that accept failsafe ports: by the destination's port, or with `replies` by the source's, where nothing
/// knows connections yet.
fn failsafes(
    ports: &[FailsafePort],
    peer: fn(Family) -> Field,
    replies: bool,
    verdict: &Verdict,
) -> Vec<Rule> {
    let rules = ports.iter().map(|port| {
        let range = PortRange::single(port.port);
        let by_port = match replies {
            true => Match::SourcePort(port.protocol, range),
            false => Match::Port(port.protocol, range),
        };
        let network = port.network.map(|network| {
            let family = Family::of(network.network());
            Match::Network(peer(family), network)
        });
        Rule::new(network.into_iter().chain([by_port]), verdict.clone())
    });
    rules.collect()
}

fn base_chains(node: &NodeInput, used: &BTreeSet<Occasion>, ruleset: &mut Ruleset) {
    let exempt = BTreeSet::from([Key::interface("lo")]);
    add_set(ruleset, EXEMPT, KeyType::Interface, exempt);
    let types = DISCOVERY_TYPES.map(Key::IcmpV6Type);
    add_set(ruleset, DISCOVERY, KeyType::IcmpV6Type, types.into());

    let (inbound, outbound) = (&node.failsafes.inbound, &node.failsafes.outbound);
    let (source, destination) = (
        Field::Source as fn(Family) -> Field,
        Field::Destination as fn(Family) -> Field,
    );
    let discovery = || accept([Match::In(vec![Field::IcmpV6Type], DISCOVERY.to_owned())]);
    let open = || {
        let is_judged = Verdict::Jump(JUDGED.to_owned());
        [
            accept([Match::Connection(vec![ConnectionState::Related])]),
            Rule::new(
                [Match::Connection(vec![ConnectionState::Established])],
                is_judged,
            ),
        ]
    };
    let (pass, passed) = (Verdict::Accept, remember());
    let untracked = |occasion: Occasion| {
        let is_untracked = Match::Connection(vec![ConnectionState::Untracked]);
        Rule::new([is_untracked], Verdict::Jump(occasion.name().to_owned()))
    };
    let mut base = |name: &str, hook, rules: Vec<Rule>| {
        let hook = Some(hook);
        ruleset
            .chains
            .insert(name.to_owned(), Chain { hook, rules });
    };

    if used.contains(&Occasion::UntrackIn) {
        let mut rules = vec![discovery()];
        rules.extend(failsafes(inbound, source, false, &pass));
        rules.extend(failsafes(outbound, source, true, &pass));
        rules.push(jump(Occasion::UntrackIn));
        base("host-prerouting", Hook::PreroutingRawHost, rules);
    }
    if used.contains(&Occasion::UntrackOut) {
        let mut rules = vec![discovery()];
        rules.extend(failsafes(outbound, destination, false, &pass));
        rules.extend(failsafes(inbound, destination, true, &pass));
        rules.push(jump(Occasion::UntrackOut));
        base("host-output-early", Hook::OutputRaw, rules);
    }
    if used.contains(&Occasion::Early) {
        let mut rules = Vec::from(open());
        // What a doNotTrack policy allows is allowed for good.
        rules.extend(
            used.contains(&Occasion::UntrackedIn)
                .then(|| untracked(Occasion::UntrackedIn)),
        );
        rules.push(discovery());
        rules.extend(failsafes(inbound, source, false, &pass));
        rules.push(jump(Occasion::Early));
        base("host-mangle", Hook::PreroutingMangle, rules);
    }
    let tunnels = tunnels(node);

    let mut rules = Vec::from(open());
    rules.push(Rule::new([Match::Mark(EARLY_MARK)], remember()));
    rules.extend(
        used.contains(&Occasion::UntrackedIn)
            .then(|| untracked(Occasion::UntrackedIn)),
    );
    rules.push(discovery());
    rules.extend(tunnels.iter().cloned());
    rules.extend(failsafes(inbound, source, false, &passed));
    rules.push(jump(Occasion::Input));
    rules.push(Rule::always(remember()));
    base(INPUT, Hook::Input, rules);

    let mut rules = Vec::from(open());
    rules.extend(
        used.contains(&Occasion::UntrackedOut)
            .then(|| untracked(Occasion::UntrackedOut)),
    );
    rules.push(discovery());
    rules.extend(tunnels);
    rules.extend(failsafes(outbound, destination, false, &passed));
    rules.push(jump(Occasion::Output));
    rules.push(Rule::always(remember()));
    base("host-from", Hook::Output, rules);

    let forwards = [Occasion::ForwardIn, Occasion::ForwardOut];
    if forwards.iter().any(|occasion| used.contains(occasion)) {
        let way_out = || Verdict::Goto(WAY_OUT.to_owned());
        let mut rules = Vec::from(open());
        rules.extend(
            used.contains(&Occasion::UntrackedIn)
                .then(|| untracked(Occasion::UntrackedIn)),
        );
        rules.push(Rule::new([Match::Mark(EARLY_MARK)], way_out()));
        rules.push(jump(Occasion::ForwardIn));
        rules.push(Rule::always(way_out()));
        base("host-through", Hook::ForwardHost, rules);
        let of_pods = |field| Match::InterfacePrefix(field, INTERFACE_PREFIX.to_owned());
        let rules = vec![
            jump(Occasion::ForwardOut),
            // Pods' policies are still to be asked.
            Rule::new([of_pods(Field::InInterface)], Verdict::Return),
            Rule::new([of_pods(Field::OutInterface)], Verdict::Return),
            Rule::always(remember()),
        ];
        ruleset.chains.insert(WAY_OUT.to_owned(), Chain::of(rules));
    }
}

/// What tunnels carry is judged inside; their own packets pass as long as there are tunnels.
fn tunnels(node: &NodeInput) -> Vec<Rule> {
    let devices = &node.tunnel_devices;
    let mut rules = Vec::new();
    if devices.contains("margay.ipip") {
        rules.push(accept([Match::Protocol(super::emit::PROTOCOL_IPIP)]));
    }
    if devices.contains("margay.vxlan") {
        let port = PortRange::single(super::emit::PORT_VXLAN);
        rules.push(accept([Match::Port(crate::port::Protocol::Udp, port)]));
    }
    rules
}

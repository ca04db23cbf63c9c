//! What this node knows of the cluster: the watched objects, those that passed their checks as
//! typed values, and for those that did not, what is wrong.
//!
//! Checks are made once, when an object comes; whoever looks gets the values as they are. Of
//! Nodes, which are large and many, only the network's part is kept.
//!
//! Not here: blocks, which the allocator keeps ([`crate::addresses`]), and pods, namespaces and
//! policies, which go to [`crate::enforcement`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use margay_crds::bgp_peer::SecretKeyRef;
use margay_crds::drain::DEFAULT_DRAIN_WAIT;
use margay_crds::ip_pool::allocatable;
use margay_crds::{
    BGPConfiguration, BGPFilter, BGPPeer, BgpSettings, DEFAULT_NAME, DrainRequest, FieldError,
    IPAMConfiguration, IPPool, IPReservation, IpamSettings, NodeBgpSettings, Peer, PeerFilter,
    Pool, parse_own_as_number,
};

use crate::datastore::{Change, Kind, Mirror, Roster, RosterChange};
use crate::node_condition;
use crate::secrets::Secrets;

/// The cluster as this node sees it.
#[derive(Debug, Default)]
pub struct View {
    pool_objects: Mirror<IPPool>,
    peer_objects: Mirror<BGPPeer>,
    filter_objects: Mirror<BGPFilter>,
    secrets: Secrets,
    ipam: Mirror<IPAMConfiguration>,
    reservations: Mirror<IPReservation>,
    bgp: Mirror<BGPConfiguration>,
    node_roster: Roster,
    refused: BTreeMap<(Kind, String), Refusal>,
    // What the objects come to.
    pools: Vec<Pool>,
    peers: Vec<Peer>,
    filters: BTreeMap<String, PeerFilter>,
    ipam_settings: IpamSettings,
    reserved: Vec<IpNetwork>,
    bgp_settings: BgpSettings,
    /// Those of single nodes, by name.
    node_settings: BTreeMap<String, NodeBgpSettings>,
    nodes: BTreeMap<String, ClusterNode>,
}

/// An object that is not used because of what it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The `metadata.generation` that was checked.
    pub generation: Option<i64>,
    /// Every field that is wrong.
    pub errors: Vec<FieldError>,
}

/// A node of the cluster as the network needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterNode {
    /// The Node's name.
    pub name: String,
    /// Its InternalIP addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The drain that its annotations ask for.
    pub drain: Option<DrainRequest>,
    /// What its annotations say of its speaker.
    pub bgp: NodeBgp,
    /// What its condition `NetworkUnavailable` says, if it has it.
    pub network_unavailable: Option<bool>,
}

/// What a Node's annotations say of its speaker: `margay.dev/as-number`, `margay.dev/router-id` and
/// `margay.dev/route-reflector-cluster-id`, or Calico's `projectcalico.org/ASNumber` and
/// `projectcalico.org/RouteReflectorClusterID`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeBgp {
    /// Its AS, if it is not the cluster's.
    pub as_number: Option<u32>,
    /// Its identifier, if it is not its address.
    pub router_id: Option<u32>,
    /// The node is a route reflector, for this cluster (RFC 4456).
    pub cluster_id: Option<u32>,
    /// What is wrong with them, in words.
    pub problems: Vec<String>,
}

impl NodeBgp {
    fn of(annotations: &BTreeMap<String, String>) -> Self {
        let mut found = Self::default();
        let mut read = |keys: &[&str], parse: fn(&str) -> Option<u32>, form: &str| {
            let key = keys.iter().find(|key| annotations.contains_key(**key))?;
            let text = annotations.get(*key)?;
            let value = parse(text);
            if value.is_none() {
                let words = format!("annotation {key}: {text:?} is not {form}");
                found.problems.push(words);
            }
            value
        };
        let identifier = |text: &str| {
            let number = u32::from(text.parse::<std::net::Ipv4Addr>().ok()?);
            (number != 0).then_some(number)
        };
        let as_number = read(
            &["margay.dev/as-number", "projectcalico.org/ASNumber"],
            parse_own_as_number,
            "an AS number such as 64512 or 1.10",
        );
        let router_id = read(
            &["margay.dev/router-id"],
            identifier,
            "an identifier such as 10.0.0.1",
        );
        let cluster_id = read(
            &[
                "margay.dev/route-reflector-cluster-id",
                "projectcalico.org/RouteReflectorClusterID",
            ],
            identifier,
            "a cluster identifier such as 244.0.0.1",
        );
        Self {
            as_number,
            router_id,
            cluster_id,
            ..found
        }
    }
}

impl ClusterNode {
    /// The node's IPv4 address.
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// The node's address in the family of `other`.
    pub fn address_like(&self, other: IpAddr) -> Option<IpAddr> {
        let same = |address: &IpAddr| address.is_ipv4() == other.is_ipv4();
        self.addresses.iter().copied().find(same)
    }
}

impl View {
    /// Takes in one event; true if what the view gives is now another. A new status or a node's
    /// heartbeat changes nothing, nor do kinds that are not kept here.
    pub fn handle(&mut self, change: Change) -> bool {
        match change {
            Change::IPPool(event) => {
                let listing = is_listing(&event);
                let changes = self.pool_objects.handle(event);
                self.check(Kind::IPPool, &changes, |object| object.check().err());
                if listing {
                    return false;
                }
                let pools = allocatable::resolve(self.pool_objects.values());
                replace(&mut self.pools, pools)
            }
            Change::BGPPeer(event) => {
                let listing = is_listing(&event);
                let changes = self.peer_objects.handle(event);
                self.check(Kind::BGPPeer, &changes, |object| object.check().err());
                if listing {
                    return false;
                }
                let objects = self.peer_objects.values();
                let peers = objects.filter_map(|peer| peer.check().ok()).collect();
                replace(&mut self.peers, peers)
            }
            Change::BGPFilter(event) => {
                let listing = is_listing(&event);
                let changes = self.filter_objects.handle(event);
                self.check(Kind::BGPFilter, &changes, |object| object.check().err());
                !listing && self.check_filters()
            }
            Change::Secret(event) => self.secrets.handle(event),
            Change::IPAMConfiguration(event) => {
                let changes = self.ipam.handle(event);
                self.check(Kind::IPAMConfiguration, &changes, |object| {
                    object.check().err()
                });
                // A mistake in one field must not put the others back to their defaults.
                match self.ipam.get(DEFAULT_NAME).map(IPAMConfiguration::check) {
                    None => replace(&mut self.ipam_settings, IpamSettings::default()),
                    Some(Ok(settings)) => replace(&mut self.ipam_settings, settings),
                    Some(Err(_)) => false,
                }
            }
            Change::IPReservation(event) => {
                let listing = is_listing(&event);
                let changes = self.reservations.handle(event);
                self.check(Kind::IPReservation, &changes, |object| object.check().err());
                if listing {
                    return false;
                }
                // Of a reservation with a mistake in it, what can be read stays reserved.
                let objects = self.reservations.values();
                let reserved = objects.flat_map(IPReservation::ranges).collect();
                replace(&mut self.reserved, reserved)
            }
            Change::BGPConfiguration(event) => {
                let changes = self.bgp.handle(event);
                self.check(Kind::BGPConfiguration, &changes, |object| {
                    object.check().err()
                });
                // A mistake in one field must not put the others back to their defaults.
                let differs = match self.bgp.get(DEFAULT_NAME).map(BGPConfiguration::check) {
                    None => replace(&mut self.bgp_settings, BgpSettings::default()),
                    Some(Ok(settings)) => replace(&mut self.bgp_settings, settings),
                    Some(Err(_)) => false,
                };
                self.check_node_settings() || differs
            }
            Change::Node(event) => self.handle_node(event),
            Change::IPAMBlock(_)
            | Change::Pod(_)
            | Change::Namespace(_)
            | Change::NetworkPolicy(_)
            | Change::OwnNetworkPolicy(_)
            | Change::GlobalNetworkPolicy(_)
            | Change::ClusterNetworkPolicy(_)
            | Change::Tier(_)
            | Change::NetworkSet(_)
            | Change::GlobalNetworkSet(_)
            | Change::HostEndpoint(_)
            | Change::ServiceAccount(_)
            | Change::EndpointSlice(_) => false,
        }
    }

    /// A filter with a mistake in it stays as it was: neither what it kept out nor what it let in may change by a slip.
    fn check_filters(&mut self) -> bool {
        let mut filters = BTreeMap::new();
        for object in self.filter_objects.values() {
            let name = object.name_any();
            let filter = match object.check() {
                Ok(filter) => Some(filter),
                Err(_) => self.filters.get(&name).cloned(),
            };
            filters.extend(filter.map(|filter| (name, filter)));
        }
        replace(&mut self.filters, filters)
    }

    /// Settings of a node with a mistake in them stay as they were, too.
    fn check_node_settings(&mut self) -> bool {
        let mut all = BTreeMap::new();
        for object in self.bgp.values() {
            let Some(node) = object.node() else { continue };
            let settings = match object.check_node() {
                Ok(settings) => Some(settings),
                Err(_) => self.node_settings.get(node).cloned(),
            };
            all.extend(settings.map(|settings| (node.to_owned(), settings)));
        }
        replace(&mut self.node_settings, all)
    }

    fn handle_node(&mut self, event: Event<Node>) -> bool {
        let mut differs = false;
        for change in self.node_roster.handle(event) {
            differs |= match change {
                RosterChange::Gone(name) => self.nodes.remove(&name).is_some(),
                RosterChange::Present(name, object) => {
                    let node = cluster_node(&object);
                    let known = self.nodes.insert(name, node.clone());
                    let news = known != Some(node);
                    if news && let Some(error) = drain_request(&object).1 {
                        let seconds = DEFAULT_DRAIN_WAIT.as_secs();
                        let name = object.name_any();
                        tracing::error!("Node {name}: {error}; a drain waits {seconds} seconds");
                    }
                    news
                }
            };
        }
        differs
    }

    /// Remembers which of the changed objects are wrong, and says so once each.
    fn check<T: ResourceExt>(
        &mut self,
        kind: Kind,
        changes: &[RosterChange<T>],
        wrong: impl Fn(&T) -> Option<Vec<FieldError>>,
    ) {
        for change in changes {
            match change {
                RosterChange::Gone(key) => {
                    self.refused.remove(&(kind, key.clone()));
                }
                RosterChange::Present(key, object) => {
                    let refusal = wrong(object).map(|errors| Refusal {
                        generation: object.meta().generation,
                        errors,
                    });
                    self.set_refusal(kind, key, refusal);
                }
            }
        }
    }

    fn set_refusal(&mut self, kind: Kind, key: &str, refusal: Option<Refusal>) {
        let at = (kind, key.to_owned());
        match refusal {
            None => {
                self.refused.remove(&at);
            }
            Some(refusal) if self.refused.get(&at) != Some(&refusal) => {
                for error in &refusal.errors {
                    tracing::error!("{kind} {key} is ignored: {error}");
                }
                self.refused.insert(at, refusal);
            }
            Some(_) => {}
        }
    }

    /// The kinds kept here whose first list has not been taken in.
    pub fn missing(&self) -> impl Iterator<Item = Kind> {
        let lists = [
            (Kind::IPPool, self.pool_objects.is_synced()),
            (Kind::IPAMConfiguration, self.ipam.is_synced()),
            (Kind::IPReservation, self.reservations.is_synced()),
            (Kind::BGPConfiguration, self.bgp.is_synced()),
            (Kind::BGPPeer, self.peer_objects.is_synced()),
            (Kind::BGPFilter, self.filter_objects.is_synced()),
            (Kind::Node, self.node_roster.is_synced()),
        ];
        let missing = lists.into_iter().filter(|(_, synced)| !synced);
        missing.map(|(kind, _)| kind)
    }

    /// Whether the first list of every kind kept here has been taken in.
    pub fn is_synced(&self) -> bool {
        self.missing().next().is_none()
    }

    /// The pools that passed their checks, in the order of their names, each with what closes it.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// The pools as written, for their status.
    pub fn pool_objects(&self) -> impl Iterator<Item = &IPPool> {
        self.pool_objects.values()
    }

    /// The peers as written, for their status.
    pub fn peer_objects(&self) -> impl Iterator<Item = &BGPPeer> {
        self.peer_objects.values()
    }

    /// The filters as written, for their status.
    pub fn filter_objects(&self) -> impl Iterator<Item = &BGPFilter> {
        self.filter_objects.values()
    }

    /// A filter that passed its checks, or did before somebody put a mistake into it.
    pub fn filter(&self, name: &str) -> Option<&PeerFilter> {
        self.filters.get(name)
    }

    /// The password that a reference stands for.
    ///
    /// # Errors
    /// Why it cannot be had, in words.
    pub fn password(&self, reference: &SecretKeyRef) -> Result<String, String> {
        self.secrets.get(reference)
    }

    /// What a BGPPeer refers to and is not there, in words; none if all is.
    pub fn missing_of(&self, peer: &Peer) -> Option<String> {
        let filter = peer.filters.iter().find(|name| self.filter(name).is_none());
        let keys = peer.tcp_ao.iter().map(|key| &key.secret);
        let mut secrets = peer.password.iter().chain(keys);
        let password = secrets.find_map(|reference| self.password(reference).err());
        match (password, filter) {
            (Some(words), _) => Some(format!("the session stays down: {words}")),
            (None, Some(name)) => Some(format!(
                "no route passes either way: there is no BGPFilter {name} in use"
            )),
            (None, None) => None,
        }
    }

    /// The IPAM settings in force.
    pub fn ipam_settings(&self) -> IpamSettings {
        self.ipam_settings
    }

    /// The ranges of which no address is given to who does not name it.
    pub fn reserved(&self) -> impl Iterator<Item = IpNetwork> {
        self.reserved.iter().copied()
    }

    /// The reservations as written, for their status.
    pub fn reservations(&self) -> impl Iterator<Item = &IPReservation> {
        self.reservations.values()
    }

    /// The BGP settings in force for all nodes.
    pub fn bgp_settings(&self) -> &BgpSettings {
        &self.bgp_settings
    }

    /// The BGP settings in force for a node, which may have some of its own.
    pub fn bgp_settings_of(&self, node: &str) -> Cow<'_, BgpSettings> {
        match self.node_settings.get(node) {
            Some(own) => Cow::Owned(self.bgp_settings.with(own)),
            None => Cow::Borrowed(&self.bgp_settings),
        }
    }

    /// The TCP port that a node's speaker listens on.
    pub fn bgp_port_of(&self, node: &str) -> u16 {
        let own = self.node_settings.get(node).and_then(|own| own.port);
        own.unwrap_or(self.bgp_settings.port)
    }

    /// The peers that passed their checks, in the order of their names.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The nodes in the order of their names, with an address or without.
    pub fn nodes(&self) -> impl Iterator<Item = &ClusterNode> {
        self.nodes.values()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Option<&ClusterNode> {
        self.nodes.get(name)
    }

    /// What is wrong with an object, if anything is.
    pub fn refusal(&self, kind: Kind, name: &str) -> Option<&Refusal> {
        self.refused.get(&(kind, name.to_owned()))
    }
}

/// Whether more of a list is to come: what it makes is worked out once, at its end.
fn is_listing<T>(event: &Event<T>) -> bool {
    matches!(event, Event::Init | Event::InitApply(_))
}

/// Puts the new value in place; true if it is another than before.
fn replace<T: PartialEq>(place: &mut T, new: T) -> bool {
    let differs = *place != new;
    *place = new;
    differs
}

/// The network's part of a Node: the first InternalIP of each family.
fn cluster_node(node: &Node) -> ClusterNode {
    let mut addresses: Vec<IpAddr> = Vec::new();
    let reported = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    for address in reported.filter(|address| address.type_ == "InternalIP") {
        match address.address.parse::<IpAddr>() {
            Ok(parsed)
                if addresses
                    .iter()
                    .all(|known| known.is_ipv4() != parsed.is_ipv4()) =>
            {
                addresses.push(parsed);
            }
            Ok(_) => {}
            Err(_) => tracing::warn!(
                "Node {}: status.addresses: InternalIP {:?} is not an address, ignored",
                node.name_any(),
                address.address
            ),
        }
    }
    ClusterNode {
        name: node.name_any(),
        addresses,
        labels: node.labels().clone(),
        drain: drain_request(node).0,
        bgp: NodeBgp::of(node.annotations()),
        network_unavailable: node_condition::standing(node),
    }
}

fn drain_request(node: &Node) -> (Option<DrainRequest>, Option<FieldError>) {
    DrainRequest::read(&node.name_any(), node.annotations())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_object_is_refused_and_the_rest_is_used() {
        let mut view = View::default();
        let pool = |name: &str, cidr: &str| {
            IPPool::new(
                name,
                serde_json::from_value(serde_json::json!({"cidr": cidr})).unwrap(),
            )
        };
        view.handle(Change::IPPool(Event::Apply(pool("good", "10.0.0.0/16"))));
        view.handle(Change::IPPool(Event::Apply(pool("bad", "10.0.0.1/16"))));
        assert_eq!(view.pools().len(), 1);
        let refusal = view.refusal(Kind::IPPool, "bad").unwrap();
        assert_eq!(refusal.errors[0].path, "spec.cidr");
        assert!(view.refusal(Kind::IPPool, "good").is_none());

        view.handle(Change::IPPool(Event::Apply(pool("bad", "10.1.0.0/16"))));
        assert_eq!(view.pools().len(), 2);
        assert!(view.refusal(Kind::IPPool, "bad").is_none());
    }

    #[test]
    fn a_wrong_setting_leaves_those_in_force() {
        let mut view = View::default();
        let settings = |cidr: &str| {
            let spec = serde_json::json!({
                "asNumber": 64999, "serviceClusterIPs": [{"cidr": cidr}],
            });
            BGPConfiguration::new(DEFAULT_NAME, serde_json::from_value(spec).unwrap())
        };
        let apply = |object| Change::BGPConfiguration(Event::Apply(object));
        assert!(view.handle(apply(settings("10.96.0.0/16"))));
        assert!(!view.handle(apply(settings("10.96.0.1/16"))));
        assert_eq!(view.bgp_settings().as_number, 64999);
        assert!(view.refusal(Kind::BGPConfiguration, DEFAULT_NAME).is_some());
        let deleted = Event::Delete(settings("10.96.0.0/16"));
        assert!(view.handle(Change::BGPConfiguration(deleted)));
        assert_eq!(*view.bgp_settings(), BgpSettings::default());
    }

    #[test]
    fn a_node_has_one_address_a_family() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n1"},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "InternalIP", "address": "10.0.0.1"},
                {"type": "InternalIP", "address": "10.0.0.2"},
                {"type": "InternalIP", "address": "fd00::1"},
            ]},
        }))
        .unwrap();
        let mut view = View::default();
        view.handle(Change::Node(Event::Apply(node)));
        let node = view.node("n1").unwrap();
        assert_eq!(node.ipv4().unwrap().to_string(), "10.0.0.1");
        assert_eq!(
            node.address_like("::1".parse().unwrap())
                .unwrap()
                .to_string(),
            "fd00::1"
        );
        assert_eq!(node.addresses.len(), 2);
    }

    #[test]
    fn a_heartbeat_or_a_status_changes_nothing() {
        let mut view = View::default();
        let node = |beat: &str, label: &str| -> Node {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "n1", "resourceVersion": beat, "labels": {"rack": label}},
                "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
            }))
            .unwrap()
        };
        let mut took = |node| view.handle(Change::Node(Event::Apply(node)));
        assert!(took(node("1", "a")));
        assert!(!took(node("2", "a")));
        assert!(took(node("3", "b")));

        let spec = serde_json::from_value(serde_json::json!({"cidr": "10.0.0.0/16"})).unwrap();
        let mut pool = IPPool::new("p", spec);
        assert!(view.handle(Change::IPPool(Event::Apply(pool.clone()))));
        pool.metadata.resource_version = Some("2".to_owned());
        assert!(!view.handle(Change::IPPool(Event::Apply(pool))));
        assert_eq!(view.missing().count(), 7);
    }
}

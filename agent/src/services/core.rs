//! The core: events and settings in, prefixes to announce out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher::Event;
use margay_bgp::speaker::Announcement;
use margay_bgp::types::{Family, Prefix};
use margay_crds::{BgpSettings, PrefixAdvertisement, ServiceRanges};

use super::communities::announcement;
use super::ranges::{Cover, aggregates, cover};
use super::service::ServiceFacts;
use super::slice::{EndpointSlice, HOSTNAME, SliceFacts};
use crate::datastore::{Kind, Roster, RosterChange};

/// Labels of a node that shall not be given packets for Services from outside.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A prefix that is announced otherwise than before, or not any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The prefix.
    pub prefix: Prefix,
    /// What is announced now.
    pub announcement: Option<Announcement>,
}

/// Why a prefix is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is a range of BGPConfiguration.
    Range,
    /// It is an address of this Service, `namespace/name`.
    Service(String),
}

/// A Service and what is announced because of it.
#[derive(Debug, Default)]
struct Known {
    facts: ServiceFacts,
    asked: BTreeSet<Prefix>,
}

/// Where a Service has usable endpoints of a family.
#[derive(Debug, Clone, Copy, Default)]
struct Usable {
    anywhere: bool,
    here: bool,
}

/// What one node announces of the cluster's Services.
#[derive(Debug)]
pub struct Services {
    node: String,
    hostname: String,
    excluded: bool,
    ranges: ServiceRanges,
    advertisements: Vec<PrefixAdvertisement>,
    service_roster: Roster,
    slice_roster: Roster,
    services: BTreeMap<String, Known>,
    slices: BTreeMap<String, SliceFacts>,
    slices_of: BTreeMap<String, BTreeSet<String>>,
    /// How many Services and ranges ask for a prefix; never zero.
    asked: BTreeMap<Prefix, u32>,
    announcements: BTreeMap<Prefix, Announcement>,
    /// What was announced when the changes were last asked for, of prefixes touched since.
    before: BTreeMap<Prefix, Option<Announcement>>,
}

impl Services {
    /// What the node of this name announces: nothing, as long as no range is known.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            hostname: node.to_owned(),
            excluded: false,
            ranges: ServiceRanges::default(),
            advertisements: Vec::new(),
            service_roster: Roster::default(),
            slice_roster: Roster::default(),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slices_of: BTreeMap::new(),
            asked: BTreeMap::new(),
            announcements: BTreeMap::new(),
            before: BTreeMap::new(),
        }
    }

    // ===== inputs =====

    /// Takes in one event of the watch of Services.
    pub fn handle_service(&mut self, event: Event<Service>) {
        for change in self.service_roster.handle(event) {
            match change {
                RosterChange::Present(key, service) => {
                    let facts = ServiceFacts::of(&service);
                    let known = self.services.entry(key.clone()).or_default();
                    if known.facts == facts {
                        continue;
                    }
                    if known.facts.problems != facts.problems {
                        for problem in &facts.problems {
                            tracing::warn!("Service {key}: {problem}");
                        }
                    }
                    known.facts = facts;
                    self.refresh(&key);
                }
                RosterChange::Gone(key) => {
                    if let Some(known) = self.services.remove(&key) {
                        for prefix in known.asked {
                            self.release(prefix);
                        }
                    }
                }
            }
        }
    }

    /// Takes in one event of the watch of EndpointSlices.
    pub fn handle_endpoint_slice(&mut self, event: Event<EndpointSlice>) {
        for change in self.slice_roster.handle(event) {
            let (key, facts) = match change {
                RosterChange::Present(key, slice) => {
                    let facts = SliceFacts::of(&slice, &self.node);
                    (key, facts)
                }
                RosterChange::Gone(key) => (key, None),
            };
            self.set_slice(key, facts);
        }
    }

    fn set_slice(&mut self, key: String, facts: Option<SliceFacts>) {
        if self.slices.get(&key) == facts.as_ref() {
            return;
        }
        let service = facts.as_ref().map(|facts| facts.service.clone());
        let old = match facts {
            Some(facts) => self.slices.insert(key.clone(), facts),
            None => self.slices.remove(&key),
        };
        // The new Service first: an address that two share stays announced when its endpoints go
        // from one to the other.
        if let Some(service) = &service {
            let slices = self.slices_of.entry(service.clone()).or_default();
            slices.insert(key.clone());
            self.refresh(service);
        }
        if let Some(old) = old.map(|old| old.service)
            && service.as_ref() != Some(&old)
        {
            if let Some(slices) = self.slices_of.get_mut(&old) {
                slices.remove(&key);
                if slices.is_empty() {
                    self.slices_of.remove(&old);
                }
            }
            self.refresh(&old);
        }
    }

    /// Takes in the labels of this node.
    pub fn handle_node(&mut self, labels: &BTreeMap<String, String>) {
        let excluded = labels.get(EXCLUDED).is_some_and(|value| value != "false");
        let hostname = labels.get(HOSTNAME).unwrap_or(&self.node);
        if (excluded, hostname) == (self.excluded, &self.hostname) {
            return;
        }
        if excluded != self.excluded {
            let words = if excluded { "no Service" } else { "Services" };
            tracing::info!(
                "Node {} announces {words} by its label {EXCLUDED}",
                self.node
            );
        }
        self.hostname.clone_from(hostname);
        self.excluded = excluded;
        self.refresh_all();
    }

    /// Takes in the ranges and the communities.
    pub fn handle_configuration(&mut self, settings: &BgpSettings) {
        let retagged = self.advertisements != settings.prefix_advertisements;
        if retagged {
            self.advertisements
                .clone_from(&settings.prefix_advertisements);
            let prefixes: Vec<Prefix> = self.announcements.keys().copied().collect();
            for prefix in prefixes {
                self.announce(prefix);
            }
        }
        if self.ranges != settings.services {
            self.ranges.clone_from(&settings.services);
            self.refresh_all();
        }
    }

    /// Forgets every Service and EndpointSlice: nobody watches them any more.
    pub fn forget(&mut self) {
        let services = std::mem::take(&mut self.services);
        for prefix in services.into_values().flat_map(|known| known.asked) {
            self.release(prefix);
        }
        self.slices.clear();
        self.slices_of.clear();
        self.service_roster = Roster::default();
        self.slice_roster = Roster::default();
    }

    // ===== outputs =====

    /// What differs from what was announced when this was last asked, in the order of the
    /// prefixes.
    pub fn poll_changes(&mut self) -> Vec<Change> {
        let touched = std::mem::take(&mut self.before);
        let changes = touched.into_iter().filter_map(|(prefix, before)| {
            let announcement = self.announcements.get(&prefix);
            (announcement != before.as_ref()).then(|| Change {
                prefix,
                announcement: announcement.cloned(),
            })
        });
        changes.collect()
    }

    /// What is to be announced.
    pub fn announcements(&self) -> &BTreeMap<Prefix, Announcement> {
        &self.announcements
    }

    /// Whether there is a range: without one, nothing need be watched.
    pub fn is_wanted(&self) -> bool {
        self.ranges.all().next().is_some()
    }

    /// The kinds that are wanted and whose first list has not been taken in.
    pub fn missing(&self) -> impl Iterator<Item = Kind> {
        let lists = [
            (Kind::Service, self.service_roster.is_synced()),
            (Kind::EndpointSlice, self.slice_roster.is_synced()),
        ];
        let wanted = self.is_wanted();
        let missing = lists
            .into_iter()
            .filter(move |(_, synced)| wanted && !synced);
        missing.map(|(kind, _)| kind)
    }

    /// What is wrong with Services, in words.
    pub fn problems(&self) -> impl Iterator<Item = String> {
        self.services.iter().flat_map(|(key, known)| {
            let problems = known.facts.problems.iter();
            problems.map(move |problem| format!("Service {key}: {problem}"))
        })
    }

    /// Why each prefix is announced.
    pub fn reasons(&self) -> BTreeMap<Prefix, Vec<Reason>> {
        let mut reasons: BTreeMap<Prefix, Vec<Reason>> = BTreeMap::new();
        for prefix in self.aggregates() {
            reasons.entry(prefix).or_default().push(Reason::Range);
        }
        for (key, known) in &self.services {
            for prefix in &known.asked {
                let because = reasons.entry(*prefix).or_default();
                because.push(Reason::Service(key.clone()));
            }
        }
        reasons
    }

    // ===== working it out =====

    fn aggregates(&self) -> BTreeSet<Prefix> {
        match self.excluded {
            true => BTreeSet::new(),
            false => aggregates(&self.ranges),
        }
    }

    /// Brings what one Service asks for up to date.
    fn refresh(&mut self, key: &str) {
        let Some(known) = self.services.get(key) else {
            return;
        };
        let wanted = self.wanted(key, &known.facts);
        let Some(known) = self.services.get_mut(key) else {
            return;
        };
        let old = std::mem::replace(&mut known.asked, wanted.clone());
        for prefix in wanted.difference(&old) {
            self.ask(*prefix);
        }
        for prefix in old.difference(&wanted) {
            self.release(*prefix);
        }
    }

    /// Works out everything anew: what holds for all Services has changed.
    fn refresh_all(&mut self) {
        let mut asked: BTreeMap<Prefix, u32> = BTreeMap::new();
        for prefix in self.aggregates() {
            asked.insert(prefix, 1);
        }
        let mut services = std::mem::take(&mut self.services);
        for (key, known) in &mut services {
            known.asked = self.wanted(key, &known.facts);
            for prefix in &known.asked {
                *asked.entry(*prefix).or_default() += 1;
            }
        }
        self.services = services;
        let old = std::mem::replace(&mut self.asked, asked);
        for prefix in old.into_keys() {
            if !self.asked.contains_key(&prefix) {
                self.withdraw(prefix);
            }
        }
        let asked: Vec<Prefix> = self.asked.keys().copied().collect();
        for prefix in asked {
            if !self.announcements.contains_key(&prefix) {
                self.announce(prefix);
            }
        }
    }

    /// The prefixes that a Service asks for on this node.
    fn wanted(&self, key: &str, facts: &ServiceFacts) -> BTreeSet<Prefix> {
        if self.excluded {
            return BTreeSet::new();
        }
        let v4 = self.usable(key, Family::Ipv4Unicast);
        let v6 = self.usable(key, Family::Ipv6Unicast);
        let announced = facts.addresses.iter().filter(|(class, address)| {
            let usable = match address {
                IpAddr::V4(_) => v4,
                IpAddr::V6(_) => v6,
            };
            match cover(&self.ranges, *class, *address) {
                None => false,
                Some(_) if facts.is_local(*class) => usable.here,
                Some(Cover::Whole) => false,
                Some(Cover::Alone) => true,
                Some(Cover::Each) => usable.anywhere,
            }
        });
        announced
            .map(|(_, address)| Prefix::host(*address))
            .collect()
    }

    fn usable(&self, service: &str, family: Family) -> Usable {
        let slices = self.slices_of.get(service).into_iter().flatten();
        let slices = slices.filter_map(|key| self.slices.get(key));
        let mut usable = Usable::default();
        for slice in slices.filter(|slice| slice.family == family) {
            usable.anywhere |= slice.anywhere;
            usable.here |= slice.is_here(&self.hostname);
        }
        usable
    }

    fn ask(&mut self, prefix: Prefix) {
        let count = self.asked.entry(prefix).or_default();
        *count += 1;
        if *count == 1 {
            self.announce(prefix);
        }
    }

    fn release(&mut self, prefix: Prefix) {
        let Some(count) = self.asked.get_mut(&prefix) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.asked.remove(&prefix);
            self.withdraw(prefix);
        }
    }

    fn announce(&mut self, prefix: Prefix) {
        let new = announcement(&prefix, &self.advertisements);
        let old = self.announcements.insert(prefix, new);
        self.before.entry(prefix).or_insert(old);
    }

    fn withdraw(&mut self, prefix: Prefix) {
        let old = self.announcements.remove(&prefix);
        self.before.entry(prefix).or_insert(old);
    }
}

//! Random sequences of events: what the core holds is what it would hold had it seen nothing but
//! the end, and the changes it tells add up to it.

use std::collections::BTreeMap;

use margay_bgp::speaker::Announcement;
use margay_bgp::types::Prefix;
use proptest::prelude::*;

use super::*;

/// One thing that happens. Numbers choose among few names and addresses, so that they meet.
#[derive(Debug, Clone)]
enum Step {
    Service(u8, Value),
    NoService(u8),
    Slice(u8, u8, &'static str, Vec<String>),
    NoSlice(u8),
    Node(Vec<(&'static str, &'static str)>),
    Settings(Value),
    /// A new list of both kinds, of what there is.
    List,
    /// The changes are asked for.
    Poll,
}

const LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

fn address() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "192.0.2.1",
        "192.0.2.2",
        "198.51.100.1",
        "198.51.100.2",
        "10.96.0.1",
        "fd00::1",
        "fd00::2",
        "no address",
    ])
}

fn range() -> impl Strategy<Value = Value> {
    let ranges = vec![
        "192.0.2.0/24",
        "192.0.2.1/32",
        "198.51.100.0/24",
        "198.51.100.0/31",
        "10.96.0.0/16",
        "fd00::/64",
        "fd00::1/128",
    ];
    prop::sample::select(ranges).prop_map(|cidr| json!({"cidr": cidr}))
}

fn service_object() -> impl Strategy<Value = Value> {
    let policy = || prop::sample::select(vec!["Local", "Cluster"]);
    let kind = prop::sample::select(vec!["ClusterIP", "LoadBalancer", "ExternalName"]);
    let addresses = || prop::collection::vec(address(), 0..3);
    let advertise = prop::sample::select(vec!["true", "true", "false"]);
    (
        kind,
        addresses(),
        addresses(),
        addresses(),
        policy(),
        policy(),
        advertise,
    )
        .prop_map(
            |(kind, cluster, external, given, outer, inner, advertise)| {
                let given: Vec<Value> = given.iter().map(|ip| json!({"ip": ip})).collect();
                json!({
                    "metadata": {"annotations": {crate::services::ADVERTISE: advertise}},
                    "spec": {
                        "type": kind, "clusterIPs": cluster, "externalIPs": external,
                        "externalTrafficPolicy": outer, "internalTrafficPolicy": inner,
                    },
                    "status": {"loadBalancer": {"ingress": given}},
                })
            },
        )
}

fn endpoints() -> impl Strategy<Value = Vec<String>> {
    let node = prop::sample::select(vec!["n1", "n2", "-"]);
    let state = prop::sample::select(vec!["ready", "draining", "ended", "unready"]);
    let endpoint = (node, state).prop_map(|(node, state)| format!("{node} {state}"));
    prop::collection::vec(endpoint, 0..3)
}

fn settings_object() -> impl Strategy<Value = Value> {
    let ranges = || prop::collection::vec(range(), 0..3);
    let aggregation = prop::sample::select(vec!["Enabled", "Disabled"]);
    let tags = prop::collection::vec((range(), 0..3_u8), 0..3);
    (ranges(), ranges(), ranges(), aggregation, tags).prop_map(
        |(cluster, external, given, aggregation, tags)| {
            let tags: Vec<Value> = tags
                .into_iter()
                .map(|(range, n)| json!({"cidr": range["cidr"], "communities": [format!("1:{n}")]}))
                .collect();
            json!({
                "serviceClusterIPs": cluster, "serviceExternalIPs": external,
                "serviceLoadBalancerIPs": given,
                "serviceLoadBalancerAggregation": aggregation, "prefixAdvertisements": tags,
            })
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let family = prop::sample::select(vec!["IPv4", "IPv6"]);
    let labels = prop::sample::select(vec![vec![], vec![], vec![(LABEL, "true")]]);
    prop_oneof![
        4 => (0..4_u8, service_object()).prop_map(|(n, object)| Step::Service(n, object)),
        1 => (0..4_u8).prop_map(Step::NoService),
        6 => (0..6_u8, 0..4_u8, family, endpoints())
            .prop_map(|(n, of, family, all)| Step::Slice(n, of, family, all)),
        2 => (0..6_u8).prop_map(Step::NoSlice),
        1 => labels.prop_map(Step::Node),
        2 => settings_object().prop_map(Step::Settings),
        1 => Just(Step::List),
        3 => Just(Step::Poll),
    ]
}

/// What there is, and the core that has seen how it came about.
struct World {
    core: Services,
    services: BTreeMap<u8, Service>,
    slices: BTreeMap<u8, EndpointSlice>,
    labels: Vec<(&'static str, &'static str)>,
    settings: Value,
    /// All the changes told, put together.
    told: BTreeMap<Prefix, Announcement>,
}

impl World {
    fn new() -> Self {
        Self {
            core: Services::new(NODE),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            labels: Vec::new(),
            settings: json!({}),
            told: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Service(n, mut object) => {
                object["metadata"]["name"] = json!(format!("s{n}"));
                object["metadata"]["namespace"] = json!("d");
                let service: Service = serde_json::from_value(object).unwrap();
                self.services.insert(n, service.clone());
                self.core.handle_service(Event::Apply(service));
            }
            Step::NoService(n) => {
                if let Some(service) = self.services.remove(&n) {
                    self.core.handle_service(Event::Delete(service));
                }
            }
            Step::Slice(n, of, family, endpoints) => {
                let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
                let slice = slice(&format!("e{n}"), &format!("s{of}"), family, &endpoints);
                self.slices.insert(n, slice.clone());
                self.core.handle_endpoint_slice(Event::Apply(slice));
            }
            Step::NoSlice(n) => {
                if let Some(slice) = self.slices.remove(&n) {
                    self.core.handle_endpoint_slice(Event::Delete(slice));
                }
            }
            Step::Node(labels) => {
                self.core.handle_node(&labels_of(&labels));
                self.labels = labels;
            }
            Step::Settings(spec) => {
                self.core.handle_configuration(&settings(spec.clone()));
                self.settings = spec;
            }
            Step::List => self.list(),
            Step::Poll => self.poll(),
        }
    }

    /// As after a gap in the watch, in which the first of each kind has gone.
    fn list(&mut self) {
        self.services.pop_first();
        self.slices.pop_first();
        self.core.handle_service(Event::Init);
        for service in self.services.values() {
            self.core.handle_service(Event::InitApply(service.clone()));
        }
        self.core.handle_service(Event::InitDone);
        self.core.handle_endpoint_slice(Event::Init);
        for slice in self.slices.values() {
            self.core
                .handle_endpoint_slice(Event::InitApply(slice.clone()));
        }
        self.core.handle_endpoint_slice(Event::InitDone);
    }

    fn poll(&mut self) {
        for change in self.core.poll_changes() {
            let told = match change.announcement {
                Some(announcement) => self.told.insert(change.prefix, announcement),
                None => self.told.remove(&change.prefix),
            };
            let now = self.told.get(&change.prefix);
            assert_ne!(told.as_ref(), now, "{} has not changed", change.prefix);
        }
    }

    /// The core that sees only the end, Services last.
    fn seen_at_once(&self) -> Services {
        let mut core = Services::new(NODE);
        for slice in self.slices.values().rev() {
            core.handle_endpoint_slice(Event::Apply(slice.clone()));
        }
        for service in self.services.values().rev() {
            core.handle_service(Event::Apply(service.clone()));
        }
        core.handle_node(&labels_of(&self.labels));
        core.handle_configuration(&settings(self.settings.clone()));
        core
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn incremental_is_as_from_scratch(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
            let fresh = world.seen_at_once();
            prop_assert_eq!(world.core.announcements(), fresh.announcements());
            prop_assert_eq!(world.core.reasons(), fresh.reasons());
            let reasons: Vec<Prefix> = fresh.reasons().into_keys().collect();
            let announced: Vec<Prefix> = fresh.announcements().keys().copied().collect();
            prop_assert_eq!(reasons, announced);
        }
        world.poll();
        prop_assert_eq!(&world.told, world.core.announcements());
    }
}

//! What each event changes, and what it leaves alone.

use super::*;
use crate::datastore::Kind;
use crate::services::Reason;

const LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

fn spec() -> Value {
    json!({"serviceExternalIPs": [{"cidr": "192.0.2.0/24"}]})
}

fn local(name: &str, address: &str) -> Service {
    let spec = json!({"externalIPs": [address], "externalTrafficPolicy": "Local"});
    service(name, spec)
}

fn start() -> Services {
    let slices = [slice("web-1", "web", "IPv4", &["n1 ready", "n2 ready"])];
    let mut core = core(spec(), &[], &[local("web", "192.0.2.7")], &slices);
    assert_eq!(changes(&mut core), ["+192.0.2.0/24", "+192.0.2.7/32"]);
    core
}

#[test]
fn the_route_goes_with_the_last_endpoint_and_drains_before() {
    let mut core = start();
    let mut write = |endpoints: &[&str]| {
        let slice = slice("web-1", "web", "IPv4", endpoints);
        core.handle_endpoint_slice(Event::Apply(slice));
        changes(&mut core)
    };
    assert!(write(&["n1 ready", "n1 ready", "n2 ready"]).is_empty());
    assert!(write(&["n1 draining", "n1 ready", "n2 ready"]).is_empty());
    assert!(write(&["n1 draining", "n2 ready"]).is_empty());
    assert_eq!(write(&["n1 ended", "n2 ready"]), ["-192.0.2.7/32"]);
    assert!(write(&["n2 ready"]).is_empty());
    assert_eq!(write(&["n1 ready"]), ["+192.0.2.7/32"]);
    assert_eq!(write(&[]), ["-192.0.2.7/32"]);
}

#[test]
fn what_goes_with_a_service_a_slice_or_a_node_comes_back_with_it() {
    let mut core = start();
    core.handle_service(Event::Delete(local("web", "192.0.2.7")));
    assert_eq!(changes(&mut core), ["-192.0.2.7/32"]);
    core.handle_service(Event::Apply(local("web", "192.0.2.8")));
    assert_eq!(changes(&mut core), ["+192.0.2.8/32"]);
    core.handle_service(Event::Apply(local("web", "192.0.2.9")));
    assert_eq!(
        changes(&mut core),
        ["+192.0.2.9/32", "-192.0.2.8/32"].sorted()
    );

    let endpoints = slice("web-1", "web", "IPv4", &["n1 ready"]);
    core.handle_endpoint_slice(Event::Delete(endpoints.clone()));
    assert_eq!(changes(&mut core), ["-192.0.2.9/32"]);
    core.handle_endpoint_slice(Event::Apply(endpoints));
    assert_eq!(changes(&mut core), ["+192.0.2.9/32"]);

    core.handle_node(&labels_of(&[(LABEL, "true")]));
    assert_eq!(changes(&mut core), ["-192.0.2.0/24", "-192.0.2.9/32"]);
    core.handle_node(&labels_of(&[("rack", "a")]));
    assert_eq!(changes(&mut core), ["+192.0.2.0/24", "+192.0.2.9/32"]);
}

trait Sorted {
    fn sorted(self) -> Self;
}

/// The order of the changes is that of the prefixes.
impl<const N: usize> Sorted for [&str; N] {
    fn sorted(mut self) -> Self {
        self.sort_by_key(|text| text[1..].to_owned());
        self
    }
}

#[test]
fn what_changes_nothing_is_no_change() {
    let mut core = start();
    let mut named = local("web", "192.0.2.7");
    named.metadata.resource_version = Some("99".to_owned());
    named.spec.as_mut().unwrap().ports =
        serde_json::from_value(json!([{"name": "http", "port": 80, "targetPort": "http"}]))
            .unwrap();
    core.handle_service(Event::Apply(named));
    core.handle_service(Event::Delete(local("unknown", "192.0.2.7")));
    core.handle_endpoint_slice(Event::Delete(slice("unknown", "web", "IPv4", &[])));
    core.handle_configuration(&settings(spec()));
    core.handle_node(&labels_of(&[("rack", "b")]));
    assert!(changes(&mut core).is_empty());
    // Off and on again between two looks.
    core.handle_node(&labels_of(&[(LABEL, "true")]));
    core.handle_node(&labels_of(&[]));
    assert!(changes(&mut core).is_empty());
}

#[test]
fn an_address_that_two_services_share_is_announced_until_neither_wants_it() {
    let mut core = start();
    core.handle_service(Event::Apply(local("api", "192.0.2.7")));
    core.handle_endpoint_slice(Event::Apply(slice("api-1", "api", "IPv4", &["n1 ready"])));
    assert!(changes(&mut core).is_empty());
    let prefix = "192.0.2.7/32".parse().unwrap();
    let both = ["d/api", "d/web"].map(|key| Reason::Service(key.to_owned()));
    assert_eq!(core.reasons()[&prefix], both);
    core.handle_service(Event::Delete(local("web", "192.0.2.7")));
    assert!(changes(&mut core).is_empty());
    // Its slice is given to the other Service: the address has endpoints all the time.
    core.handle_service(Event::Apply(local("web", "192.0.2.7")));
    core.handle_endpoint_slice(Event::Delete(slice("web-1", "web", "IPv4", &[])));
    core.handle_endpoint_slice(Event::Apply(slice("api-1", "web", "IPv4", &["n1 ready"])));
    assert!(changes(&mut core).is_empty());
    assert_eq!(core.reasons()[&prefix], both[1..]);
    core.handle_endpoint_slice(Event::Delete(slice("api-1", "web", "IPv4", &[])));
    assert_eq!(changes(&mut core), ["-192.0.2.7/32"]);
}

#[test]
fn changed_ranges_and_communities_change_what_they_concern() {
    let mut core = start();
    core.handle_configuration(&settings(json!({
        "serviceExternalIPs": [{"cidr": "192.0.2.0/24"}, {"cidr": "203.0.113.0/24"}],
        "prefixAdvertisements": [{"cidr": "192.0.2.7/32", "communities": ["64512:1"]}],
    })));
    assert_eq!(changes(&mut core), ["+192.0.2.7/32", "+203.0.113.0/24"]);
    core.handle_configuration(&settings(
        json!({"serviceExternalIPs": [{"cidr": "203.0.113.0/24"}]}),
    ));
    assert_eq!(changes(&mut core), ["-192.0.2.0/24", "-192.0.2.7/32"]);
}

#[test]
fn a_list_takes_out_what_it_does_not_name_only_at_its_end() {
    let mut core = start();
    core.handle_endpoint_slice(Event::Init);
    core.handle_endpoint_slice(Event::InitApply(slice("other", "x", "IPv4", &["n1 ready"])));
    core.handle_service(Event::Init);
    assert!(
        changes(&mut core).is_empty(),
        "a list under way takes nothing away"
    );
    core.handle_endpoint_slice(Event::InitDone);
    assert_eq!(changes(&mut core), ["-192.0.2.7/32"]);
}

#[test]
fn without_ranges_nothing_is_wanted_and_forgotten_things_are_gone() {
    let mut core = Services::new(NODE);
    assert!(!core.is_wanted() && core.missing().next().is_none());
    core.handle_configuration(&settings(spec()));
    assert!(core.is_wanted());
    let missing: Vec<Kind> = core.missing().collect();
    assert_eq!(missing, [Kind::Service, Kind::EndpointSlice]);
    for event in [Event::Init, Event::InitDone] {
        core.handle_service(event);
    }
    for event in [Event::Init, Event::InitDone] {
        core.handle_endpoint_slice(event);
    }
    assert!(core.missing().next().is_none());

    let mut core = start();
    core.forget();
    assert_eq!(announced(&core), ["192.0.2.0/24"]);
    assert_eq!(core.missing().count(), 2);
    // Nothing of before comes back with the ranges.
    core.handle_configuration(&settings(json!({})));
    core.handle_configuration(&settings(spec()));
    assert_eq!(announced(&core), ["192.0.2.0/24"]);
}

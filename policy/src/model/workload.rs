//! What selectors of ours see beside pods' own labels, and what else they select: network sets, service accounts,
//! endpoints of Services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::discovery::v1 as discovery;
use margay_crds as crds;
use margay_crds::field::FieldError;
use margay_crds::selector::NAMESPACE_KEY;

use super::{Cluster, ObjectKey, Pod, pod::DEFAULT_NAMESPACE};
use crate::{
    port::{PortRange, Protocol},
    problem::{Problem, Problems},
    selector::Labels,
};

/// The label with the name of a pod's service account that selectors of ours see.
pub(crate) const SERVICE_ACCOUNT_KEY: &str = "projectcalico.org/serviceaccount";
/// The label that tells pods from other workloads; all are pods here.
pub(crate) const ORCHESTRATOR_KEY: &str = "projectcalico.org/orchestrator";
/// The label with a namespace's own name that namespace selectors of ours see.
const NAME_KEY: &str = "projectcalico.org/name";
/// The label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Before the keys of a namespace's labels among those of what is in it: a character that no label has.
pub(crate) const NAMESPACE_PREFIX: &str = "\u{1}namespace/";
/// Before the keys of a service account's labels among those of its pods.
pub(crate) const SERVICE_ACCOUNT_PREFIX: &str = "\u{1}account/";

/// Networks under labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSet {
    /// The labels.
    pub labels: Labels,
    /// The networks, host bits masked away.
    pub nets: Vec<IpNetwork>,
}

/// An address behind a Service, and the ports it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoint {
    /// The address.
    pub address: IpAddr,
    /// The ports; a port without a number is every port of the protocol.
    pub ports: Vec<(Protocol, PortRange)>,
}

pub(super) fn read_set(set: &crds::NetworkSet) -> (ObjectKey, NetworkSet, Vec<Problem>) {
    let metadata = &set.metadata;
    let key = ObjectKey::new(
        metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE),
        metadata.name.clone().unwrap_or_default(),
    );
    let read = crds::network_set::read(&set.spec.nets);
    of("NetworkSet", key, metadata.labels.clone(), read)
}

pub(super) fn read_global_set(
    set: &crds::GlobalNetworkSet,
) -> (ObjectKey, NetworkSet, Vec<Problem>) {
    let metadata = &set.metadata;
    let key = ObjectKey::new("", metadata.name.clone().unwrap_or_default());
    let read = crds::network_set::read(&set.spec.nets);
    of("GlobalNetworkSet", key, metadata.labels.clone(), read)
}

fn of(
    kind: &str,
    key: ObjectKey,
    labels: Option<BTreeMap<String, String>>,
    (nets, errors): (Vec<IpNetwork>, Vec<FieldError>),
) -> (ObjectKey, NetworkSet, Vec<Problem>) {
    let mut problems = Problems::of(kind, &key.namespace, &key.name);
    problems.fields(&errors, "; the entry is left out");
    let set = NetworkSet {
        labels: labels.unwrap_or_default().into(),
        nets,
    };
    (key, set, problems.into_found())
}

/// The Service a slice belongs to, and what the slice lists.
pub(super) fn read_slice(
    slice: &discovery::EndpointSlice,
) -> Option<(ObjectKey, Vec<ServiceEndpoint>)> {
    let metadata = &slice.metadata;
    let service = metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
    let ports = slice.ports.iter().flatten();
    let ports: Vec<_> = ports
        .filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
            let range = match port.port {
                None => PortRange::ALL,
                Some(number) => PortRange::single(u16::try_from(number).ok()?),
            };
            Some((protocol, range))
        })
        .collect();
    let addresses = slice
        .endpoints
        .iter()
        .flat_map(|endpoint| &endpoint.addresses);
    let endpoints = addresses.filter_map(|address| {
        Some(ServiceEndpoint {
            address: address.parse().ok()?,
            ports: ports.clone(),
        })
    });
    Some((ObjectKey::new(namespace, service), endpoints.collect()))
}

impl Cluster {
    /// A pod's labels as selectors of ours see them.
    pub(crate) fn pod_labels(&self, pod: &Pod) -> Labels {
        self.workload_labels(&pod.namespace, &pod.labels, &pod.service_account)
    }

    /// The labels of a pod with these of its own and this service account.
    pub(crate) fn workload_labels(&self, namespace: &str, own: &Labels, account: &str) -> Labels {
        let mut labels = own.clone();
        let ours = [
            (NAMESPACE_KEY, namespace),
            (SERVICE_ACCOUNT_KEY, account),
            (ORCHESTRATOR_KEY, "k8s"),
        ];
        labels.extend(ours.map(|(key, value)| (key.to_owned(), value.to_owned())));
        labels
    }

    /// A network set's labels as selectors of ours see them.
    pub(crate) fn set_labels(&self, key: &ObjectKey, set: &NetworkSet) -> Labels {
        let mut labels = set.labels.clone();
        labels.remove(SERVICE_ACCOUNT_KEY);
        if key.namespace.is_empty() {
            labels.remove(NAMESPACE_KEY);
        } else {
            labels.insert(NAMESPACE_KEY.to_owned(), key.namespace.clone());
        }
        labels
    }

    /// A namespace's labels as namespace selectors of ours see them.
    pub(crate) fn own_namespace_labels(&self, name: &str) -> Labels {
        let mut labels = self.namespace_labels(name);
        labels.insert(NAME_KEY.to_owned(), name.to_owned());
        labels
    }

    /// `labels` with those of the namespace and the service account among them, under prefixes.
    pub(crate) fn with_surroundings(
        &self,
        mut labels: Labels,
        namespace: &str,
        account: Option<&str>,
    ) -> Labels {
        if !namespace.is_empty() {
            let around = self.own_namespace_labels(namespace);
            let prefixed =
                |(key, value): (&str, &str)| (format!("{NAMESPACE_PREFIX}{key}"), value.to_owned());
            labels.extend(around.iter().map(prefixed));
        }
        let around = account.and_then(|name| self.service_account_labels(namespace, name));
        let around = around.into_iter().flatten();
        labels.extend(
            around.map(|(key, value)| (format!("{SERVICE_ACCOUNT_PREFIX}{key}"), value.to_owned())),
        );
        labels
    }
}

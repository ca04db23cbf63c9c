//! The table of built-in kinds.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Event as CoreEvent, Namespace, Node, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event as NewEvent;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::decode::round_trip;
use super::{CRDS, Model, NAMESPACES, Resource, defaults, rules};
use crate::error::FieldError;
use crate::object::names::NameRule;
use crate::object::root;
use crate::table::builtin as tables;
use crate::table::builtin::Layout;

/// A kind this crate knows, and its rules.
#[derive(Debug)]
pub struct Builtin {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) short: &'static [&'static str],
    pub(crate) categories: &'static [&'static str],
    pub(crate) namespaced: bool,
    pub(crate) status: bool,
    pub(crate) shelf: &'static str,
    pub(crate) name_rule: NameRule,
    /// Fields selectors may use beside name and namespace.
    pub(crate) fields: &'static [&'static str],
    /// Root fields stored under another name: (stored, served).
    pub(crate) renames: &'static [(&'static str, &'static str)],
    pub(crate) decode: fn(Value) -> Result<Value, String>,
    pub(crate) prepare: fn(&mut Value, Option<&Value>, Timestamp),
    pub(crate) validate: fn(&Value, Option<&Value>) -> Vec<FieldError>,
    pub(crate) layout: Layout,
}

impl Builtin {
    /// What a table row below starts from.
    const PLAIN: Self = Self {
        group: "",
        kind: "",
        plural: "",
        short: &[],
        categories: &[],
        namespaced: true,
        status: false,
        shelf: "",
        name_rule: NameRule::Subdomain,
        fields: &[],
        renames: &[],
        decode: Ok,
        prepare: |_, _, _| {},
        validate: |_, _| Vec::new(),
        layout: tables::PLAIN,
    };

    pub(super) fn resource(&'static self) -> Resource {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Resource {
            group: self.group.into(),
            version: "v1".into(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.into(),
            singular: self.kind.to_ascii_lowercase(),
            short_names: owned(self.short),
            categories: owned(self.categories),
            namespaced: self.namespaced,
            status: self.status,
            shelf: self.shelf.into(),
            model: Model::Builtin(self),
        }
    }

    /// Renames root fields between their stored and served names.
    pub(super) fn rename(&self, object: &mut Value, serving: bool) {
        let map = root(object);
        for (stored, served) in self.renames {
            let (from, to) = if serving {
                (stored, served)
            } else {
                (served, stored)
            };
            if let Some(value) = map.remove(*from) {
                map.insert((*to).to_owned(), value);
            }
        }
    }
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

/// Every built-in kind.
pub static ALL: &[Builtin] = &[
    Builtin {
        kind: "Node",
        plural: "nodes",
        short: &["no"],
        namespaced: false,
        status: true,
        shelf: "nodes",
        fields: &["spec.unschedulable"],
        decode: round_trip::<Node>,
        prepare: defaults::node,
        validate: rules::node,
        layout: tables::NODE,
        ..Builtin::PLAIN
    },
    Builtin {
        kind: "Pod",
        plural: "pods",
        short: &["po"],
        categories: &["all"],
        status: true,
        shelf: "pods",
        fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        decode: round_trip::<Pod>,
        prepare: defaults::pod,
        validate: rules::pod,
        layout: tables::POD,
        ..Builtin::PLAIN
    },
    Builtin {
        kind: "Namespace",
        plural: "namespaces",
        short: &["ns"],
        namespaced: false,
        status: true,
        shelf: NAMESPACES,
        name_rule: NameRule::Label,
        fields: &["status.phase"],
        decode: round_trip::<Namespace>,
        prepare: defaults::namespace,
        layout: tables::NAMESPACE,
        ..Builtin::PLAIN
    },
    Builtin {
        kind: "Secret",
        plural: "secrets",
        shelf: "secrets",
        fields: &["type"],
        decode: round_trip::<Secret>,
        prepare: defaults::secret,
        validate: rules::data,
        layout: tables::SECRET,
        ..Builtin::PLAIN
    },
    Builtin {
        kind: "ConfigMap",
        plural: "configmaps",
        short: &["cm"],
        shelf: "configmaps",
        decode: round_trip::<ConfigMap>,
        validate: rules::data,
        layout: tables::CONFIG_MAP,
        ..Builtin::PLAIN
    },
    Builtin {
        kind: "Service",
        plural: "services",
        short: &["svc"],
        categories: &["all"],
        status: true,
        shelf: "services",
        name_rule: NameRule::Label1035,
        fields: &["spec.clusterIP", "spec.type"],
        decode: round_trip::<Service>,
        prepare: defaults::service,
        validate: rules::service,
        layout: tables::SERVICE,
        ..Builtin::PLAIN
    },
    Builtin {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short: &["sa"],
        shelf: "serviceaccounts",
        decode: round_trip::<ServiceAccount>,
        layout: tables::SERVICE_ACCOUNT,
        ..Builtin::PLAIN
    },
    Builtin {
        kind: "Event",
        plural: "events",
        short: &["ev"],
        shelf: "events",
        fields: EVENT_FIELDS,
        decode: round_trip::<CoreEvent>,
        layout: tables::EVENT,
        ..Builtin::PLAIN
    },
    Builtin {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short: &["ev"],
        shelf: "events",
        fields: &[
            "reason",
            "reportingController",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "type",
        ],
        renames: &[
            ("involvedObject", "regarding"),
            ("message", "note"),
            ("source", "deprecatedSource"),
            ("firstTimestamp", "deprecatedFirstTimestamp"),
            ("lastTimestamp", "deprecatedLastTimestamp"),
            ("count", "deprecatedCount"),
            ("reportingComponent", "reportingController"),
        ],
        decode: round_trip::<NewEvent>,
        layout: tables::EVENT,
        ..Builtin::PLAIN
    },
    Builtin {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        shelf: "endpointslices.discovery.k8s.io",
        decode: round_trip::<EndpointSlice>,
        prepare: defaults::endpoint_slice,
        validate: rules::endpoint_slice,
        layout: tables::ENDPOINT_SLICE,
        ..Builtin::PLAIN
    },
    Builtin {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        shelf: "leases.coordination.k8s.io",
        decode: round_trip::<Lease>,
        layout: tables::LEASE,
        ..Builtin::PLAIN
    },
    Builtin {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        short: &["netpol"],
        shelf: "networkpolicies.networking.k8s.io",
        decode: round_trip::<NetworkPolicy>,
        prepare: defaults::network_policy,
        validate: rules::network_policy,
        layout: tables::NETWORK_POLICY,
        ..Builtin::PLAIN
    },
    Builtin {
        group: "apiextensions.k8s.io",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        status: true,
        shelf: CRDS,
        decode: round_trip::<CustomResourceDefinition>,
        prepare: defaults::crd,
        validate: rules::crd,
        layout: tables::CRD,
        ..Builtin::PLAIN
    },
];

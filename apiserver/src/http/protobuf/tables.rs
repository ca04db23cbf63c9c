//! Field numbers of the messages that are read, from Kubernetes' published `generated.proto` files. They never change.

/// How a field is turned into JSON.
#[derive(Debug)]
pub(super) enum Shape {
    Text,
    Bytes,
    Number,
    Flag,
    Time {
        micro: bool,
    },
    IntOrString,
    /// Known and of no interest.
    Skipped,
    Message(&'static [Field]),
    Many(&'static Shape),
    Map(&'static Shape),
}

/// Number, JSON name and shape.
pub(super) type Field = (u64, &'static str, Shape);

use Shape::{Bytes, Flag, IntOrString, Many, Map, Message, Number, Skipped, Text, Time};

const TIME_FIELD: Shape = Time { micro: false };
const MICRO: Shape = Time { micro: true };

pub(super) const UNKNOWN: &[Field] = &[
    (
        1,
        "typeMeta",
        Message(&[(1, "apiVersion", Text), (2, "kind", Text)]),
    ),
    (2, "raw", Skipped),
    (3, "contentEncoding", Text),
    (4, "contentType", Text),
];

pub(super) const TIME: &[Field] = &[(1, "seconds", Number), (2, "nanos", Number)];
pub(super) const INT_OR_STRING: &[Field] = &[
    (1, "type", Number),
    (2, "number", Number),
    (3, "text", Text),
];

const OWNER: &[Field] = &[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", Flag),
    (7, "blockOwnerDeletion", Flag),
];

const META: &[Field] = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (4, "selfLink", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "generation", Number),
    (8, "creationTimestamp", TIME_FIELD),
    (9, "deletionTimestamp", TIME_FIELD),
    (10, "deletionGracePeriodSeconds", Number),
    (11, "labels", Map(&Text)),
    (12, "annotations", Map(&Text)),
    (13, "ownerReferences", Many(&Message(OWNER))),
    (14, "finalizers", Many(&Text)),
    (17, "managedFields", Skipped),
];

const REFERENCE: &[Field] = &[
    (1, "kind", Text),
    (2, "namespace", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "resourceVersion", Text),
    (7, "fieldPath", Text),
];

const NAMESPACE: &[Field] = &[
    (1, "metadata", Message(META)),
    (2, "spec", Message(&[(1, "finalizers", Many(&Text))])),
    (3, "status", Skipped),
];

const CONFIG_MAP: &[Field] = &[
    (1, "metadata", Message(META)),
    (2, "data", Map(&Text)),
    (3, "binaryData", Map(&Bytes)),
    (4, "immutable", Flag),
];

const SECRET: &[Field] = &[
    (1, "metadata", Message(META)),
    (2, "data", Map(&Bytes)),
    (3, "type", Text),
    (4, "stringData", Map(&Text)),
    (5, "immutable", Flag),
];

const SERVICE_ACCOUNT: &[Field] = &[
    (1, "metadata", Message(META)),
    (2, "secrets", Many(&Message(REFERENCE))),
    (3, "imagePullSecrets", Many(&Message(&[(1, "name", Text)]))),
    (4, "automountServiceAccountToken", Flag),
];

const SERVICE_PORT: &[Field] = &[
    (1, "name", Text),
    (2, "protocol", Text),
    (3, "port", Number),
    (4, "targetPort", IntOrString),
    (5, "nodePort", Number),
    (6, "appProtocol", Text),
];

const SERVICE: &[Field] = &[
    (1, "metadata", Message(META)),
    (
        2,
        "spec",
        Message(&[
            (1, "ports", Many(&Message(SERVICE_PORT))),
            (2, "selector", Map(&Text)),
            (3, "clusterIP", Text),
            (4, "type", Text),
            (5, "externalIPs", Many(&Text)),
            (7, "sessionAffinity", Text),
            (8, "loadBalancerIP", Text),
            (9, "loadBalancerSourceRanges", Many(&Text)),
            (10, "externalName", Text),
            (11, "externalTrafficPolicy", Text),
            (12, "healthCheckNodePort", Number),
            (13, "publishNotReadyAddresses", Flag),
            (17, "ipFamilyPolicy", Text),
            (18, "clusterIPs", Many(&Text)),
            (19, "ipFamilies", Many(&Text)),
            (20, "allocateLoadBalancerNodePorts", Flag),
            (21, "loadBalancerClass", Text),
            (22, "internalTrafficPolicy", Text),
            (23, "trafficDistribution", Text),
        ]),
    ),
    (3, "status", Skipped),
];

const EVENT: &[Field] = &[
    (1, "metadata", Message(META)),
    (2, "involvedObject", Message(REFERENCE)),
    (3, "reason", Text),
    (4, "message", Text),
    (
        5,
        "source",
        Message(&[(1, "component", Text), (2, "host", Text)]),
    ),
    (6, "firstTimestamp", TIME_FIELD),
    (7, "lastTimestamp", TIME_FIELD),
    (8, "count", Number),
    (9, "type", Text),
    (10, "eventTime", MICRO),
    (12, "action", Text),
    (13, "related", Message(REFERENCE)),
    (14, "reportingComponent", Text),
    (15, "reportingInstance", Text),
];

const LEASE: &[Field] = &[
    (1, "metadata", Message(META)),
    (
        2,
        "spec",
        Message(&[
            (1, "holderIdentity", Text),
            (2, "leaseDurationSeconds", Number),
            (3, "acquireTime", MICRO),
            (4, "renewTime", MICRO),
            (5, "leaseTransitions", Number),
        ]),
    ),
];

const DELETE_OPTIONS: &[Field] = &[
    (1, "gracePeriodSeconds", Number),
    (
        2,
        "preconditions",
        Message(&[(1, "uid", Text), (2, "resourceVersion", Text)]),
    ),
    (3, "orphanDependents", Flag),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Many(&Text)),
];

/// The table of a kind, if it is read.
pub(super) fn kind(version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (version, kind) {
        ("v1", "Namespace") => NAMESPACE,
        ("v1", "ConfigMap") => CONFIG_MAP,
        ("v1", "Secret") => SECRET,
        ("v1", "ServiceAccount") => SERVICE_ACCOUNT,
        ("v1", "Service") => SERVICE,
        ("v1", "Event") => EVENT,
        ("coordination.k8s.io/v1", "Lease") => LEASE,
        // Clients label the options with the group they are about.
        (_, "DeleteOptions") => DELETE_OPTIONS,
        _ => return None,
    })
}

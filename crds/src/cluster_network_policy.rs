//! ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`, standard channel: sig-network's API, not ours. It is
//! here so that the embedded store can serve it; on a cluster that has it installed, that one's CRD is in force.
//!
//! Every part that a newer version of the API may know better is optional here: what it means when a part is empty is
//! the policy crate's to say (fail closed).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::field::FieldError;

/// An empty list may be left out here, but is no default that the schema would allow: servers of
/// 1.20 refuse a CRD whose default contradicts it.
fn without_default(schema: &mut schemars::Schema) {
    schema.remove("default");
}

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "policy.networking.k8s.io",
    version = "v1alpha2",
    kind = "ClusterNetworkPolicy",
    plural = "clusternetworkpolicies",
    shortname = "cnp",
    status = "ClusterNetworkPolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Priority", type_ = "string", json_path = ".spec.priority"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicySpec {
    /// Before all NetworkPolicies, or after them for pods that none selects.
    pub tier: ClusterTier,
    /// The place in the tier: lower comes first.
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i32,
    /// The pods it applies to; pods on their node's network are not among them.
    pub subject: Subject,
    /// Rules for traffic to them, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    pub ingress: Vec<IngressRule>,
    /// Rules for traffic from them, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 25))]
    pub egress: Vec<EgressRule>,
}

/// The tier of a ClusterNetworkPolicy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClusterTier {
    /// Before NetworkPolicies.
    #[default]
    Admin,
    /// After them.
    Baseline,
}

/// What implementations say about it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusterNetworkPolicyStatus {
    /// The conditions.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// Pods by their namespaces, or by those and their own labels: exactly one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct Subject {
    /// All pods of matching namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Matching pods of matching namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// Pods by their namespaces' and their own labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// The namespaces; empty is all.
    #[serde(default)]
    #[schemars(transform = without_default)]
    pub namespace_selector: LabelSelector,
    /// The pods; empty is all.
    pub pod_selector: LabelSelector,
}

/// A rule for traffic to the subjects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["action", "from"]))]
pub struct IngressRule {
    /// A name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
    /// What it does.
    pub action: ClusterAction,
    /// Whose traffic it is about.
    #[serde(default)]
    #[schemars(length(min = 1, max = 25), transform = without_default)]
    pub from: Vec<IngressPeer>,
    /// Which traffic of theirs; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    pub protocols: Option<Vec<ProtocolMatch>>,
}

/// A rule for traffic from the subjects.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["action", "to"]))]
pub struct EgressRule {
    /// A name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100))]
    pub name: Option<String>,
    /// What it does.
    pub action: ClusterAction,
    /// Traffic to whom it is about.
    #[serde(default)]
    #[schemars(length(min = 1, max = 25), transform = without_default)]
    pub to: Vec<EgressPeer>,
    /// Which traffic to them; absent is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25))]
    pub protocols: Option<Vec<ProtocolMatch>>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClusterAction {
    /// The traffic passes, as far as this direction is concerned.
    Accept,
    /// The traffic is dropped.
    #[default]
    Deny,
    /// The rest of the tier is skipped.
    Pass,
}

/// A source: exactly one field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct IngressPeer {
    /// All pods of matching namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Matching pods of matching namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
}

/// A destination: exactly one field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct EgressPeer {
    /// All pods of matching namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<LabelSelector>,
    /// Matching pods of matching namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<NamespacedPod>,
    /// CIDRs; addresses of pods are matched like others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 25), inner(length(max = 43)), extend("x-kubernetes-list-type" = "set"))]
    pub networks: Option<Vec<String>>,
}

/// A protocol, and ports of it: exactly one field.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct ProtocolMatch {
    /// TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TransportMatch>,
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<TransportMatch>,
    /// SCTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sctp: Option<TransportMatch>,
    /// What the destination pod calls so, whatever its protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_named_port: Option<String>,
}

/// What of a transport protocol matches; never nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct TransportMatch {
    /// The destination's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<PortMatch>,
}

/// A port or several: exactly one field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct PortMatch {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub number: Option<i32>,
    /// Several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<PortBounds>,
}

/// Ports from `start` to `end`, both included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.start < self.end")
        .message("the start of the range must be below its end")
)]
pub struct PortBounds {
    /// The first; below `end`.
    #[schemars(range(min = 1, max = 65_535))]
    pub start: i32,
    /// The last.
    #[schemars(range(min = 1, max = 65_535))]
    pub end: i32,
}

impl ClusterNetworkPolicy {
    /// What a rule or the schema refuses and the types do not, for stores that have no rules. That networks are CIDRs
    /// stands here too; the function for it in rules (`isCIDR`) is unknown to servers before 1.31, which would refuse
    /// the CRD for it, so that on a cluster only the policy's reader says it.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut errors = Vec::new();
        for (index, rule) in self.spec.ingress.iter().enumerate() {
            let path = format!("spec.ingress[{index}]");
            if rule.from.is_empty() {
                let field = format!("{path}.from");
                errors.push(FieldError::required(&field, "must have at least one peer"));
            }
            check_protocols(&path, rule.protocols.as_deref(), &mut errors);
        }
        for (index, rule) in self.spec.egress.iter().enumerate() {
            let path = format!("spec.egress[{index}]");
            if rule.to.is_empty() {
                let field = format!("{path}.to");
                errors.push(FieldError::required(&field, "must have at least one peer"));
            }
            check_protocols(&path, rule.protocols.as_deref(), &mut errors);
            for (peer, networks) in rule.to.iter().enumerate() {
                for (at, text) in networks.networks.iter().flatten().enumerate() {
                    if !text.contains('/') || text.parse::<ipnetwork::IpNetwork>().is_err() {
                        errors.push(FieldError::invalid(
                            &format!("{path}.to[{peer}].networks[{at}]"),
                            text,
                            "must be a CIDR such as 192.0.2.0/24 or 2001:db8::/64",
                        ));
                    }
                }
            }
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }
}

fn check_protocols(path: &str, protocols: Option<&[ProtocolMatch]>, errors: &mut Vec<FieldError>) {
    for (index, protocol) in protocols.into_iter().flatten().enumerate() {
        for (name, matched) in [
            ("tcp", &protocol.tcp),
            ("udp", &protocol.udp),
            ("sctp", &protocol.sctp),
        ] {
            let Some(matched) = matched else {
                continue;
            };
            let field = format!("{path}.protocols[{index}].{name}.destinationPort");
            let Some(port) = matched.destination_port else {
                errors.push(FieldError::required(&field, "say which ports"));
                continue;
            };
            if let Some(range) = port.range.filter(|range| range.start >= range.end) {
                errors.push(FieldError::invalid(
                    &format!("{field}.range"),
                    range,
                    "the start of the range must be below its end",
                ));
            }
        }
    }
}

/// The CRD with what API servers ask of one in a group of Kubernetes' own: where it was approved.
pub(crate) fn approved(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let annotations = [
        (
            "api-approved.kubernetes.io",
            "https://github.com/kubernetes-sigs/network-policy-api/pull/300",
        ),
        ("policy.networking.k8s.io/bundle-version", "v0.2.0"),
        ("policy.networking.k8s.io/channel", "standard"),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    crd.metadata.annotations = Some(annotations.into());
    crd
}

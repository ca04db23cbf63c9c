//! NetworkPolicy and GlobalNetworkPolicy of ours: what Kubernetes' NetworkPolicy cannot say. The
//! fields are Calico's, with its meanings, except that a policy is staged by a field of its own and
//! not by being of another kind: `staged: false` puts into force what was tried.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::field::{Errors, FieldError};
use crate::policy_rule::{Rule, RuleSpec, Side};
use crate::selector::Selector;
use crate::tier::Tier;

/// What people write in a namespace; it applies to pods there.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "NetworkPolicy",
    plural = "networkpolicies",
    shortname = "mnp",
    category = "margay",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Order", type_ = "number", json_path = ".spec.order"),
    printcolumn(name = "Staged", type_ = "boolean", json_path = ".spec.staged"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicySpec {
    /// The tier it belongs to; it cannot be changed.
    #[serde(default = "default_tier")]
    #[schemars(length(max = 253))]
    pub tier: String,
    /// Its place in the tier: lower comes first, without one it comes last. Kubernetes NetworkPolicies
    /// have 1000, in the tier `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Evaluated and counted, not enforced.
    #[serde(default)]
    pub staged: bool,
    /// Which pods it applies to; empty is all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub selector: String,
    /// Only pods whose service account's labels match.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub service_account_selector: String,
    /// Ingress, Egress or both; without it, the directions that have rules, and Ingress when neither has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub types: Vec<PolicyType>,
    /// Rules for traffic to the pods, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub ingress: Vec<RuleSpec>,
    /// Rules for traffic from the pods, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub egress: Vec<RuleSpec>,
}

/// What people write for the whole cluster.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "GlobalNetworkPolicy",
    plural = "globalnetworkpolicies",
    shortname = "gnp",
    category = "margay",
    status = "PolicyStatus",
    derive = "PartialEq",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Order", type_ = "number", json_path = ".spec.order"),
    printcolumn(name = "Staged", type_ = "boolean", json_path = ".spec.staged"),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].message",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(self.preDNAT && self.doNotTrack)")
        .message("preDNAT and doNotTrack exclude each other: make two policies")
)]
#[x_kube(
    validation = Rule::new("self.applyOnForward || !(self.preDNAT || self.doNotTrack)")
        .message("preDNAT and doNotTrack need applyOnForward: true")
)]
#[x_kube(
    validation = Rule::new("!self.preDNAT || ((!has(self.egress) || size(self.egress) == 0) && (!has(self.types) || !('Egress' in self.types)))")
        .message("a policy with preDNAT is about ingress only: leave out egress")
)]
pub struct GlobalNetworkPolicySpec {
    /// The tier it belongs to; it cannot be changed.
    #[serde(default = "default_tier")]
    #[schemars(length(max = 253))]
    pub tier: String,
    /// Its place in the tier: lower comes first, without one it comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// Evaluated and counted, not enforced.
    #[serde(default)]
    pub staged: bool,
    /// Which endpoints it applies to; empty is all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub selector: String,
    /// Only pods in namespaces whose labels match.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub namespace_selector: String,
    /// Only pods whose service account's labels match.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub service_account_selector: String,
    /// Of host endpoints, also traffic that is only forwarded. It changes nothing for pods.
    #[serde(default)]
    pub apply_on_forward: bool,
    /// Only for host endpoints, and asked before destination NAT: what it allows is asked no other
    /// policy of the endpoint, what it says nothing about goes on.
    #[serde(default, rename = "preDNAT")]
    pub pre_dnat: bool,
    /// Only for host endpoints, and asked before connections are tracked: what it allows is not
    /// tracked, so that the answers need rules of their own; what it says nothing about goes on.
    #[serde(default)]
    pub do_not_track: bool,
    /// Ingress, Egress or both; without it, the directions that have rules, and Ingress when neither has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub types: Vec<PolicyType>,
    /// Rules for traffic to the endpoints, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub ingress: Vec<RuleSpec>,
    /// Rules for traffic from the endpoints, tried in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub egress: Vec<RuleSpec>,
}

/// When a policy is asked about a host endpoint's traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostStage {
    /// With connections tracked and destinations translated.
    #[default]
    Normal,
    /// Before destination NAT.
    PreDnat,
    /// Before connections are tracked.
    DoNotTrack,
}

/// What a policy is to host endpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostUse {
    /// When it is asked.
    pub stage: HostStage,
    /// Also about what is only forwarded.
    pub forward: bool,
    /// It says nothing about pods.
    pub only: bool,
}

fn default_tier() -> String {
    Tier::DEFAULT.to_owned()
}

/// A direction a policy is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyType {
    /// To the endpoints.
    Ingress,
    /// From the endpoints.
    Egress,
}

/// What Margay says about a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyStatus {
    /// `Accepted`: every part of it is in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A policy of either kind as far as it could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadPolicy {
    /// The tier's name.
    pub tier: String,
    /// The place in it.
    pub order: Option<f64>,
    /// Not enforced.
    pub staged: bool,
    /// What it is to host endpoints.
    pub host: HostUse,
    /// The endpoints it applies to, by their own labels.
    pub selector: Selector,
    /// And by those of their namespace.
    pub namespaces: Option<Selector>,
    /// And by those of their service account.
    pub service_accounts: Option<Selector>,
    /// The rules for traffic to them, or `None` when it says nothing about that.
    pub ingress: Option<Vec<Rule>>,
    /// The rules for traffic from them, or `None` when it says nothing about that.
    pub egress: Option<Vec<Rule>>,
    /// The fields that could not be read. A selector of the policy itself that could not be read selects everything
    /// it may, and then the policy has no rules; a rule that could not be read is replaced by one that fails closed
    /// ([`Rule::closed`]).
    pub errors: Vec<FieldError>,
}

impl NetworkPolicy {
    /// What can be read of it.
    pub fn read(&self) -> ReadPolicy {
        let spec = &self.spec;
        Parts {
            tier: &spec.tier,
            order: spec.order,
            staged: spec.staged,
            selector: &spec.selector,
            host: [false; 3],
            namespaces: "",
            service_accounts: &spec.service_account_selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
        }
        .read()
    }

    /// Every field that is wrong.
    ///
    /// # Errors
    /// The fields.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        checked(self.read())
    }

    /// What may not change.
    pub fn check_update(new: &Self, old: &Self) -> Vec<FieldError> {
        same_tier(&new.spec.tier, &old.spec.tier)
    }
}

impl GlobalNetworkPolicy {
    /// What can be read of it.
    pub fn read(&self) -> ReadPolicy {
        let spec = &self.spec;
        Parts {
            tier: &spec.tier,
            order: spec.order,
            staged: spec.staged,
            selector: &spec.selector,
            host: [spec.apply_on_forward, spec.pre_dnat, spec.do_not_track],
            namespaces: &spec.namespace_selector,
            service_accounts: &spec.service_account_selector,
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
        }
        .read()
    }

    /// Every field that is wrong.
    ///
    /// # Errors
    /// The fields.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        checked(self.read())
    }

    /// What may not change.
    pub fn check_update(new: &Self, old: &Self) -> Vec<FieldError> {
        same_tier(&new.spec.tier, &old.spec.tier)
    }
}

fn checked(read: ReadPolicy) -> Result<(), Vec<FieldError>> {
    Errors(read.errors).finish(Some(()))
}

fn same_tier(new: &str, old: &str) -> Vec<FieldError> {
    let message = "cannot be changed: create the policy anew in the other tier";
    let error = || FieldError::forbidden("spec.tier", new, message);
    (new != old).then(error).into_iter().collect()
}

struct Parts<'a> {
    tier: &'a str,
    order: Option<f64>,
    staged: bool,
    /// applyOnForward, preDNAT and doNotTrack.
    host: [bool; 3],
    selector: &'a str,
    namespaces: &'a str,
    service_accounts: &'a str,
    types: &'a [PolicyType],
    ingress: &'a [RuleSpec],
    egress: &'a [RuleSpec],
}

impl Parts<'_> {
    fn read(&self) -> ReadPolicy {
        let mut errors = Errors::default();
        if [Tier::ADMIN, Tier::BASELINE].contains(&self.tier) {
            errors.push(FieldError::invalid(
                "spec.tier",
                self.tier,
                "holds ClusterNetworkPolicies only: name a tier of your own, or default",
            ));
        }
        if self.order.is_some_and(|order| !order.is_finite()) {
            errors.push(FieldError::invalid(
                "spec.order",
                self.order,
                "must be a number",
            ));
        }
        let before = errors.0.len();
        let mut optional = |path: &str, text: &str| {
            let read = (!text.trim().is_empty()).then(|| Selector::parse_field(path, text));
            read.and_then(|read| errors.keep(read))
        };
        let selector = optional("spec.selector", self.selector).unwrap_or_else(Selector::all);
        let namespaces = optional("spec.namespaceSelector", self.namespaces);
        let service_accounts = optional("spec.serviceAccountSelector", self.service_accounts);
        let host = self.host(&mut errors);
        let subject_is_whole = errors.0.len() == before;
        let (ingress, egress) = self.directions();
        let egress = egress && host.stage != HostStage::PreDnat;
        let mut rules = |wanted: bool, path: &str, specs: &[RuleSpec], side: Side| {
            wanted.then(|| {
                let specs = specs.iter().enumerate();
                let rules: Vec<Rule> = specs
                    .map(|(index, spec)| {
                        let path = format!("spec.{path}[{index}]");
                        spec.read(&path, index, side).unwrap_or_else(|found| {
                            errors.0.extend(found);
                            Rule::closed(spec.action, index)
                        })
                    })
                    .collect();
                if subject_is_whole { rules } else { Vec::new() }
            })
        };
        let ingress = rules(ingress, "ingress", self.ingress, Side::Ingress);
        let egress = rules(egress, "egress", self.egress, Side::Egress);
        ReadPolicy {
            tier: self.tier.to_owned(),
            order: self.order.filter(|order| order.is_finite()),
            staged: self.staged,
            host,
            selector: if subject_is_whole {
                selector
            } else {
                Selector::all()
            },
            namespaces: namespaces.filter(|_| subject_is_whole),
            service_accounts: service_accounts.filter(|_| subject_is_whole),
            ingress,
            egress,
            errors: errors.0,
        }
    }

    /// What cannot go together is taken for an ordinary policy of host endpoints without rules.
    fn host(&self, errors: &mut Errors) -> HostUse {
        let [forward, pre_dnat, do_not_track] = self.host;
        let mut wrong = |field: &str, message: &str| {
            errors.push(FieldError::invalid(&format!("spec.{field}"), true, message));
        };
        let stage = match (pre_dnat, do_not_track) {
            (true, true) => {
                wrong(
                    "preDNAT",
                    "and doNotTrack exclude each other: make two policies",
                );
                HostStage::Normal
            }
            (true, false) => HostStage::PreDnat,
            (false, true) => HostStage::DoNotTrack,
            (false, false) => HostStage::Normal,
        };
        let only = pre_dnat || do_not_track;
        if only && !forward {
            let field = if pre_dnat { "preDNAT" } else { "doNotTrack" };
            wrong(field, "needs applyOnForward: true");
        }
        let about_egress = !self.egress.is_empty() || self.types.contains(&PolicyType::Egress);
        if pre_dnat && about_egress {
            wrong("preDNAT", "is about ingress only: leave out egress");
        }
        HostUse {
            stage,
            forward: forward || only,
            only,
        }
    }

    fn directions(&self) -> (bool, bool) {
        if self.types.is_empty() {
            let egress = !self.egress.is_empty();
            return (!self.ingress.is_empty() || !egress, egress);
        }
        let has = |wanted| self.types.contains(&wanted);
        (has(PolicyType::Ingress), has(PolicyType::Egress))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy_rule::RuleAction;

    fn read(spec: serde_json::Value) -> ReadPolicy {
        let object = json!({"apiVersion": "margay.dev/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": "p"}, "spec": spec});
        let policy: GlobalNetworkPolicy = serde_json::from_value(object).unwrap();
        policy.read()
    }

    #[test]
    fn directions_default_from_the_rules() {
        let has = |spec| {
            let policy = read(spec);
            (policy.ingress.is_some(), policy.egress.is_some())
        };
        let rule = json!([{"action": "Allow"}]);
        assert_eq!(has(json!({})), (true, false));
        assert_eq!(has(json!({"egress": rule})), (false, true));
        assert_eq!(has(json!({"ingress": rule, "egress": rule})), (true, true));
        assert_eq!(
            has(json!({"types": ["Egress"], "ingress": rule})),
            (false, true)
        );
        assert_eq!(read(json!({})).tier, "default");
    }

    #[test]
    fn a_bad_rule_fails_closed_and_a_bad_subject_selects_all() {
        let policy = read(json!({"ingress": [
            {"action": "Allow", "source": {"nets": ["ten"]}},
            {"action": "Pass", "protocol": "carrier-pigeon"},
            {"action": "Allow"},
        ]}));
        let actions: Vec<_> = policy
            .ingress
            .unwrap()
            .iter()
            .map(|rule| rule.action)
            .collect();
        assert_eq!(
            actions,
            [RuleAction::Log, RuleAction::Deny, RuleAction::Allow]
        );
        assert_eq!(policy.errors.len(), 2, "{:?}", policy.errors);
        assert!(
            policy.errors[0]
                .to_string()
                .starts_with("spec.ingress[0].source.nets[0]: Invalid value: \"ten\"")
        );
        let policy = read(json!({"selector": "a =", "ingress": [{"action": "Allow"}]}));
        assert_eq!(policy.ingress, Some(Vec::new()));
        assert_eq!(policy.selector, Selector::all());
        assert_eq!(policy.errors[0].path, "spec.selector");
    }

    #[test]
    fn stages_of_host_endpoints_exclude_each_other() {
        let host = |spec| {
            let policy = read(spec);
            (policy.host.stage, policy.host.only, policy.errors.len())
        };
        let rule = json!([{"action": "Allow"}]);
        assert_eq!(host(json!({})), (HostStage::Normal, false, 0));
        assert_eq!(
            host(json!({"applyOnForward": true, "preDNAT": true, "ingress": rule})),
            (HostStage::PreDnat, true, 0)
        );
        assert_eq!(
            host(json!({"applyOnForward": true, "doNotTrack": true, "egress": rule})),
            (HostStage::DoNotTrack, true, 0)
        );
        assert_eq!(
            host(json!({"doNotTrack": true})),
            (HostStage::DoNotTrack, true, 1)
        );
        assert_eq!(
            host(json!({"applyOnForward": true, "preDNAT": true, "egress": rule})),
            (HostStage::PreDnat, true, 1)
        );
        let both = read(
            json!({"applyOnForward": true, "preDNAT": true, "doNotTrack": true, "ingress": rule}),
        );
        assert_eq!((both.host.stage, both.host.only), (HostStage::Normal, true));
        assert_eq!(both.ingress, Some(Vec::new()), "it fails closed");
    }

    #[test]
    fn a_policy_stays_in_its_tier() {
        let policy = |tier: &str| {
            GlobalNetworkPolicy::new(
                "p",
                GlobalNetworkPolicySpec {
                    tier: tier.to_owned(),
                    ..GlobalNetworkPolicySpec::default()
                },
            )
        };
        assert_eq!(
            GlobalNetworkPolicy::check_update(&policy("a"), &policy("b")).len(),
            1
        );
        assert!(policy("kube-admin").check().is_err());
        assert!(policy("a").check().is_ok());
    }
}

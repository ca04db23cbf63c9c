//! Tier: a group of policies with a place among the others, and what holds at its end for endpoints
//! that one of its policies selects. The fields are Calico's, with its meanings.
//!
//! Three tiers are always there and are not written as objects: [`Tier::ADMIN`] (ClusterNetworkPolicies
//! of tier Admin), [`Tier::DEFAULT`] (Kubernetes NetworkPolicies, and policies of ours that name no
//! tier) and [`Tier::BASELINE`] (ClusterNetworkPolicies of tier Baseline).

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::field::{Errors, FieldError};

/// What people write.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Debug, Clone, Default, PartialEq)]
#[kube(
    group = "margay.dev",
    version = "v1",
    kind = "Tier",
    plural = "tiers",
    shortname = "ptier",
    category = "margay",
    derive = "PartialEq",
    printcolumn(name = "Order", type_ = "number", json_path = ".spec.order"),
    printcolumn(
        name = "DefaultAction",
        type_ = "string",
        json_path = ".spec.defaultAction"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TierSpec {
    /// The tier's place: lower comes first, without one it comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<f64>,
    /// What becomes of traffic of a selected endpoint about which no rule of the tier decided.
    #[serde(default)]
    pub default_action: DefaultAction,
}

/// What holds at the end of a tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DefaultAction {
    /// It is dropped.
    #[default]
    Deny,
    /// The next tier decides.
    Pass,
}

impl Tier {
    /// The tier of ClusterNetworkPolicies of tier Admin, at order 1,000.
    pub const ADMIN: &'static str = "kube-admin";
    /// The tier of Kubernetes NetworkPolicies, at order 1,000,000.
    pub const DEFAULT: &'static str = "default";
    /// The tier of ClusterNetworkPolicies of tier Baseline, at order 10,000,000.
    pub const BASELINE: &'static str = "kube-baseline";

    /// The name, order and default action of the tiers that are always there.
    pub const BUILT_IN: [(&'static str, f64, DefaultAction); 3] = [
        (Self::ADMIN, 1_000.0, DefaultAction::Pass),
        (Self::DEFAULT, 1_000_000.0, DefaultAction::Deny),
        (Self::BASELINE, 10_000_000.0, DefaultAction::Pass),
    ];

    /// Every field that is wrong.
    ///
    /// # Errors
    /// A name that is taken, or an order that is no number.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut errors = Errors::default();
        let name = self.metadata.name.as_deref().unwrap_or_default();
        if Self::BUILT_IN.iter().any(|(taken, ..)| *taken == name) {
            errors.push(FieldError::invalid(
                "metadata.name",
                name,
                "is a tier that is always there and cannot be changed: choose another name",
            ));
        }
        if self.spec.order.is_some_and(|order| !order.is_finite()) {
            errors.push(FieldError::invalid(
                "spec.order",
                self.spec.order,
                "must be a number",
            ));
        }
        errors.finish(Some(()))
    }
}
